"""What the rules share: the checked config, the run table, paths, and the digests that decide re-runs."""

import json
import os
import re
import sys
from functools import partial
from pathlib import Path

# The checkout, also where another workflow takes this one as a module.
BASE = Path(str(workflow.current_basedir)).parent
sys.path.insert(0, f"{BASE}/scripts")

from croco.cli import put_interpreter_first
from croco.config.read import build_grid
from croco.config.schema import Locator
from croco.config.shipped import path_shipped
from croco.digests import code_digest
from croco.endings import describe_failures, describe_prospect, describe_result
from croco.errors import InputError
from croco.examination.data import check_tasks
from croco.planning.redo import find_excess
from croco.planning.time_left import log_time_left
from croco.pins import check_local_items, list_unpinned
from croco.prompts.sources import check_sources
from croco.results_folder import CHECKED, DATASETS_CHECKED, ResultsFolder
from croco.runs import PAIRING_KEYS
from croco.state import FROM_STATE
from croco.evaluation.tasks import check_names_once

put_interpreter_first()


def shipped(path):
    return path_shipped(path, BASE)


def locate_config():
    """The files that the keys of the merged config come from, for messages."""
    given = workflow.config_settings.configfiles
    read = [shipped(path) if Path(path).is_relative_to(BASE) else path for path in workflow.configfiles[len(given) :]]
    return Locator(
        [*reversed(given), *reversed(read)],
        workflow.config_settings.config or (),
        default=shipped("config/config.yaml"),
        elsewhere="--config" if workflow.modifier.is_main_snakefile() else "config of the module",
    )


def read_grid():
    """(run table, the merged config as it was asked for); ends with one message and exit code 1 if the config is wrong."""
    grid, asked = build_grid(config, BASE, locate_config())
    if workflow.is_main_process:
        check_local_items(grid)
        check_sources(grid)
        check_tasks(grid)
        check_names_once([name for names in grid.suites.values() for name in names], f"{grid.results}/state")
    return grid, asked


try:
    GRID, ASKED = read_grid()
except InputError as error:
    sys.exit(f"error: {error}")

# A workflow that takes this one as a module keeps Snakemake's records and lock, in its working directory.
if workflow.modifier.is_main_snakefile():
    ResultsFolder(GRID.results, ASKED, BASE, list_unpinned(GRID), partial(find_excess, GRID, BASE)).install(workflow)
SCRIPTS = shipped("scripts")
# Whether jobs find all work of models under state/, and ask for no GPU.
IS_FROM_STATE = GRID.config["from_state"]
if IS_FROM_STATE:
    os.environ[FROM_STATE] = "1"  # for the scripts
# Absolute, because a path in `include:` is relative to the file that says it.
CUSTOM_RULES = [str(Path(path).absolute()) for path in GRID.config["custom_rules"]]
STATE = f"{GRID.results}/state"
EVALUATION = GRID.config["evaluation"]
JUDGED = EVALUATION["judge"] != "none"
MINIATURE = GRID.config["miniature"]
# The models by role whose chat templates are checked, besides the policies.
ROLES = {"reward": GRID.reward_models, "judge": GRID.judges, "translator": GRID.translators}


# These are params, because a module's shell blocks see none of its global names. Params that depend on threads are not
# recorded, so that a checkout in another place re-runs nothing.
def path_scripts(wildcards, threads):
    return SCRIPTS


def path_languages(wildcards, threads):
    return shipped("config/languages.tsv")


def warn_of_too_few_gpus():
    """Warns at the start of a run about jobs that would be refused later."""
    gpus, needed = workflow.global_resources.get("gpu"), GRID.most_gpus()
    limit = gpus.value if gpus else None
    if workflow.is_main_process and limit is not None and limit < needed and not IS_FROM_STATE:
        print(
            f"warning: jobs of this config ask for {needed} GPUs: start with --resources gpu={needed}", file=sys.stderr
        )


def warn_of_one_large_job():
    """Warns at the start of a run where `block` divides no prompts, though a dataset may have any number of them."""
    row = GRID.prompts["train"]
    if workflow.is_main_process and "dataset" in row and not GRID.limit("train"):
        print(
            f"warning: all training prompts of {row['dataset']} in a language are one job, because they have no limit: "
            "with `limit`, each `block` of them is a job, and a run can use several GPUs at once",
            file=sys.stderr,
        )


warn_of_too_few_gpus()
warn_of_one_large_job()


def match_any(names):
    """A regex of exactly these names."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


def match_settings(*targets, weights=("lora", "full")):
    """A regex of the settings, as parts of paths, that have one of these targets and tune such weights."""
    return match_any(
        {
            run.part
            for run in GRID.runs.values()
            if not targets or (run.row.get("target") in targets and GRID.recipe_of(run)["weights"] in weights)
        }
    )


wildcard_constraints:
    model=match_any(GRID.policies),
    # A policy that generates, or a run of a later round.
    policy=match_any([*GRID.policies, *(run.name for run in GRID.runs.values() if run.round > 1)]),
    language=match_any([*GRID.languages, *GRID.config["miniature"]["languages"]]),
    pool=match_any(GRID.pools),
    setting=match_settings(),
    reward=match_any(GRID.reward_models),
    role=match_any(ROLES),
    title=match_any({name for rows in ROLES.values() for name in rows}),
    run=match_any(GRID.runs),
    start=r"\d+",


def place(path):
    """A path under the output root."""
    return f"{GRID.results}/{path}"


def find_run(wildcards):
    return GRID.runs[
        wildcards.run if "run" in wildcards.keys() else f"{wildcards.model}/{wildcards.pool}/{wildcards.setting}"
    ]


def options_of(row, *names):
    """Command-line options from a row of the config: ["--top-p", "1", ...]; a key that is absent or empty gives none."""
    options = []
    for name in names:
        value = row.get(name)
        if value is None or value is False or value == {}:
            continue
        if isinstance(value, dict):
            value = json.dumps(value, sort_keys=True)
        values = [] if value is True else value if isinstance(value, list) else [value]
        options += [f"--{name.replace('_', '-')}", *map(str, values)]
    return options


def paths_blocks(pattern, use="train"):
    """One file per block of prompts; the other wildcards stay."""
    return expand(place(pattern), start=GRID.blocks(use), allow_missing=True)


def digest_code(script):
    return code_digest(f"{SCRIPTS}/{script}.py")


include: "helpers/models.smk"
