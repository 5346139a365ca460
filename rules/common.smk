"""What the rules share: the checked config, the run table, paths, and the digests that decide re-runs."""

import csv
import functools
import re
import sys
from pathlib import Path

SCRIPTS = f"{workflow.basedir}/scripts"
sys.path.insert(0, SCRIPTS)

from croco.cli import put_interpreter_first
from croco.config import Locator, check_config
from croco.digests import code_digest, lock_digest, model_identity
from croco.grid import Grid
from croco.records import InputError
from croco.sources import check_sources
from croco.store import CHECKPOINT_FILES

put_interpreter_first()


def read_grid():
    """The run table of the merged config; ends with one message and exit code 1 where the config is wrong."""
    with open(f"{workflow.basedir}/config/languages.tsv", encoding="utf-8") as file:
        codes = [row["code"] for row in csv.DictReader(file, delimiter="\t")]
    locator = Locator(workflow.configfiles, workflow.config_settings.config or ())
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
EVALUATION = GRID.config["evaluation"]
JUDGED = EVALUATION["judge"] != "none"
MINIATURE = GRID.config["miniature"]
# Keys of a recipe that are options of scripts/train.py by the same name.
RECIPE_KEYS = (
    "learning_rate schedule warmup epochs weight_decay batch micro_batch max_length beta "
    "lora_r lora_alpha lora_dropout save_every"
).split()


hash_model = functools.cache(model_identity)


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
    return GRID.runs[
        wildcards.run if "run" in wildcards.keys() else f"{wildcards.model}/{wildcards.pool}/{wildcards.setting}"
    ]


def list_model_files(row):
    """The files of a model that this workflow makes; models from elsewhere are followed by their content hash."""
    path = GRID.path(row["path"])
    made = path.startswith(place("miniature/"))
    names = REWARD_FILES if path == place("miniature/reward") else MODEL_FILES
    return [f"{path}/{name}" for name in names if made]


def identify_model(row):
    """Content hash of a local model, revision of one from the hub, None where the model's files are inputs."""
    path = GRID.path(row["path"])
    if list_model_files(row):
        return None
    return hash_model(path) if Path(path).is_dir() else row.get("revision", "main")


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
    return (
        "|".join(f"{re.escape(name)}(?=/[a-z]+/(?:{match_any(codes)})[.])" for name, codes in single.items() if codes)
        or "(?!)"
    )


def find_miniature_policy(name):
    return next(row for row in MINIATURE["policies"] if row["name"] == name)


def list_pool_files(wildcards, pattern):
    """A file for each language of the run's pool, of the policy whose responses it uses."""
    run = find_run(wildcards)
    model, reward = GRID.responses_of(run), GRID.reward_of(run)
    return [place(pattern.format(model=model, language=language, reward=reward)) for language in run.languages]


def list_scored_files(wildcards, pattern):
    """As list_pool_files, or nothing where the references are the target."""
    reference = find_run(wildcards).row["target"] == "reference"
    return [] if reference else list_pool_files(wildcards, pattern)


def find_training_data(wildcards):
    name = "pairs" if find_run(wildcards).row["target"] == "pair" else "completions"
    return place(f"{wildcards.model}/{wildcards.pool}/{wildcards.setting}/{name}.jsonl")


def get_recipe(wildcards):
    return GRID.recipe_of(find_run(wildcards))


def list_launcher(wildcards):
    """How training starts: plain python for one process, accelerate for one process a GPU."""
    gpus = get_resource(get_recipe(wildcards), "gpu")
    return ["python"] if gpus <= 1 else ["accelerate", "launch", "--multi_gpu", "--num_processes", str(gpus)]


def list_adapter_files(wildcards):
    tuned = find_run(wildcards).row["objective"] != "none"
    return [place(f"{wildcards.run}/checkpoint/{name}") for name in CHECKPOINT_FILES[:2] if tuned]


def list_task_options():
    """--task NAME YAML DATA for each structured task; {language} stays for the script to fill in."""
    return [
        part for task in EVALUATION["tasks"] for part in ("--task", task["name"], task["yaml"], GRID.path(task["data"]))
    ]


def list_baseline_answers(wildcards, languages):
    base = GRID.base(find_run(wildcards).model).name
    return [place(f"{base}/answers/{language.format(**wildcards)}.jsonl") for language in languages]


def describe_run(run):
    """A run as scripts/summary.py takes it; a dash stands for what a run does not use."""
    scored = run.row.get("target", "reference") != "reference"
    return [
        run.model,
        run.pool,
        run.setting,
        str(run.replicate),
        GRID.reward_of(run) if scored else "-",
        str(run.row.get("pool_size", GRID.config["samples"])) if scored else "-",
        ",".join(run.evaluated),
    ]
