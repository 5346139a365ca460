"""What the rules share: the checked config, the run table, paths, and the digests that decide re-runs."""

import csv
import os
import re
import sys
from pathlib import Path

SCRIPTS = f"{workflow.basedir}/scripts"
sys.path.insert(0, SCRIPTS)

from croco.config import Locator, check_config
from croco.digests import code_digest, lock_digest, model_identity
from croco.grid import Grid
from croco.records import InputError
from croco.sources import check_sources

# Jobs run the interpreter that runs Snakemake, activated or not; a conda environment comes before it.
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def read_grid():
    """The run table of the merged config; ends with one message and exit code 1 where the config is wrong."""
    with open(f"{workflow.basedir}/config/languages.tsv", encoding="utf-8") as file:
        codes = [row["code"] for row in csv.DictReader(file, delimiter="\t")]
    locator = Locator(workflow.configfiles)
    check_config(config, f"{workflow.basedir}/config/schema.yaml", locator)
    grid = Grid(config, codes, locator)
    if workflow.is_main_process:
        check_sources(grid)
    return grid


try:
    GRID = read_grid()
except InputError as error:
    sys.exit(f"error: {error}")

STATE = f"{GRID.results}/state"
LOCK = lock_digest(f"{workflow.basedir}/requirements.lock")
REWARD_FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
MODEL_FILES = [*REWARD_FILES, "generation_config.json"]


def match_any(names):
    """A regex of exactly these names."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


wildcard_constraints:
    model=match_any(GRID.policies),
    language=match_any([*GRID.languages, *GRID.config["miniature"]["languages"]]),
    pool=match_any(GRID.pools),
    setting=match_any({run.setting for run in GRID.runs.values()}),
    reward=match_any(GRID.reward_models),
    run=match_any(GRID.runs),


def place(path):
    """A path under the output root."""
    return f"{GRID.results}/{path}"


def find_run(wildcards):
    return GRID.runs[wildcards.run if "run" in wildcards.keys() else f"{wildcards.model}/{wildcards.pool}/{wildcards.setting}"]


def list_model_files(row):
    """The files of a model that this workflow makes; models from elsewhere are followed by their content hash."""
    path = GRID.path(row["path"])
    made = path.startswith(place("miniature/"))
    names = REWARD_FILES if row["name"] in GRID.reward_models else MODEL_FILES
    return [f"{path}/{name}" for name in names if made]


def identify_model(row):
    """Content hash of a local model, revision of one from the hub, None where the model's files are inputs."""
    path = GRID.path(row["path"])
    if list_model_files(row):
        return None
    if not Path(path).is_dir():
        return row.get("revision", "main")
    try:
        return model_identity(path)
    except FileNotFoundError as error:
        sys.exit(f"error: {error}\n  Remedy: correct `path` in the config")


def list_options(row, *names):
    """Command-line options from a row of the config: ["--top-p", "1", ...]; a key that is absent gives none."""
    options = []
    for name in names:
        value = row.get(name)
        if value is None or value is False:
            continue
        values = [] if value is True else value if isinstance(value, list) else [value]
        options += [f"--{name.replace('_', '-')}", *map(str, values)]
    return options


def list_model_options(row):
    return ["--model", GRID.path(row["path"]), *list_options(row, "revision", "dtype", "trust_remote_code")]


def get_resource(row, name):
    """A figure of a config row's `resources`, or the schema's default."""
    return row["resources"][name]


def digest_code(script):
    return code_digest(f"{SCRIPTS}/{script}.py")


def list_batches():
    """{name: languages} of evaluation jobs: one for each multilingual pool, and one for a language by itself."""
    names = {name for run in GRID.runs.values() for name in run.batches}
    pools = {row["name"]: row["languages"] for row in GRID.config["pools"] if row["name"] in names}
    return {"language": ["{language}"], **pools}


def match_batch(batch):
    """A regex of the runs that a batch evaluates; of single languages, only where one of theirs follows."""
    if batch != "language":
        return match_any(name for name, run in GRID.runs.items() if batch in run.batches)
    single = {name: [code for code in run.batches if code in GRID.languages] for name, run in GRID.runs.items()}
    return "|".join(f"{re.escape(name)}(?=/[a-z]+/(?:{match_any(codes)})[.])" for name, codes in single.items() if codes) or "(?!)"
