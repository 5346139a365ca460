"""What a job that loads a model needs: its files, options, environment and resources."""

import functools

from croco.digests import lock_digest, model_identity
from croco.examination.declared import list_datasets
from croco.planning.limits import Limits
from croco.state import WEIGHT_FILES

LOCK = lock_digest(f"{BASE}/requirements.lock")
# By engine: the digest of the versions that it runs with, and its conda environment; a later one holds the earlier.
LOCKS = {"transformers": LOCK, "vllm": [LOCK, lock_digest(f"{BASE}/requirements-vllm.lock")]}
ENVIRONMENTS = {"transformers": "../envs/croco.yaml", "vllm": "../envs/vllm.yaml"}
REWARD_FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
DATASETS = list_datasets(GRID)
LIMITS = Limits(GRID, Path(shipped("config/speeds.tsv")))
MODEL_FILES = [*REWARD_FILES, "generation_config.json"]


@functools.cache
def hash_model(path):
    return model_identity(path, cache=f"{STATE}/digests")


def paths_model(row):
    """The files of a model that this workflow makes; models from elsewhere are followed by their content hash."""
    path = GRID.path(row["path"])
    made = path.startswith(place("miniature/"))
    rewards = [place(f"miniature/{row['name']}") for row in MINIATURE["reward_models"]]
    return [f"{path}/{name}" for name in (REWARD_FILES if path in rewards else MODEL_FILES) if made]


def identify_model(row):
    """Content hash of a local model, revision of one from the hub, None where the model's files are inputs."""
    path = GRID.path(row["path"])
    if paths_model(row):
        return None
    return hash_model(path) if Path(path).is_dir() else row.get("revision", "main")


def options_model(row, *names):
    """Options that say which model, and how it runs; ``names`` are further keys of its row."""
    known = ["revision", "dtype", "trust_remote_code", "engine", "engine_options", "batch", "template_options"]
    return ["--model", GRID.path(row["path"]), *options_of(row, *known, *names)]


def lock_engine(row):
    """Digest of the versions that a model's engine runs with."""
    return LOCKS[row["engine"]]


def environment_of(*rows):
    """The conda environment for jobs of these models."""
    engines = {row["engine"] for row in rows}
    return [path for engine, path in ENVIRONMENTS.items() if engine in engines][-1]


def model_threads(rows):
    """Threads of a job that runs a model; ``rows`` as in model_job."""
    return lambda wc: GRID.resource("threads", rows(wc) if callable(rows) else rows)


def model_job(rows, rule):
    """GPUs, memory and time of a job that runs a model.

    ``rows`` are the config's rows that may set them, or a function from wildcards to rows; the first row counts.
    ``rule``: the rule's name, by which its work is known.
    """

    def ask(name, wildcards, attempt=1):
        chosen = rows(wildcards) if callable(rows) else rows
        least = least_of(name, rule, wildcards, GRID.resource("gpu", chosen))
        return GRID.resource(name, chosen, attempt, least=least)

    return job_resources(ask)


def least_of(name, rule, wildcards, gpus):
    """The least of a resource that follows from a job's work: its time; 0 for others."""
    return LIMITS.minutes(rule, dict(wildcards.items()), gpus) if name == "runtime" else 0


def job_resources(ask):
    """The resources of a job by ``ask``, a function of a resource's name, the wildcards and the attempt."""
    return {
        "gpu": lambda wc: 0 if IS_FROM_STATE else ask("gpu", wc),
        "mem_mb": lambda wc, attempt: ask("mem_mb", wc, attempt),
        "runtime": lambda wc, attempt: ask("runtime", wc, attempt),
    }


def options_gpus(granted, *rows):
    """How many GPUs the launcher must lease; it refuses a job if Snakemake has reduced the request."""
    asked = 0 if IS_FROM_STATE else GRID.resource("gpu", rows)
    return ["--asked", str(asked), "--granted", str(granted.get("gpu", 0))]


def wait_for_checks(pattern):
    """Input function of a job that runs a model and makes ``pattern``: the checks of the config, until its file is there.

    No model runs until every model and dataset of the config has passed. Once a file is there, a new model to check,
    such as another judge, does not make it stale: the records leave these inputs out, see croco.results_folder. A job
    always waits for the check of its own model (``template``).
    Snakemake's ancient() would also hide other changes of the job behind it.
    """
    checks = [place(path) for path in (CHECKED, *([DATASETS_CHECKED] if DATASETS else []))]

    def find(wildcards):
        made = Path(place(pattern).format(**wildcards)).exists()
        return [] if made or not workflow.modifier.is_main_snakefile() else checks

    return find


def path_template(role, name):
    """The report on the chat template of a reward model, judge or translator, whose job fails if it cannot be used."""
    return place(f"templates/{role}/{name}.json")


def recipe_of(wildcards):
    return GRID.recipe_of(find_run(wildcards))


def paths_checkpoint(run):
    """The weights of a tuned run; none for the base or without a run."""
    if run is None or run.is_base:
        return []
    return [place(f"{run.name}/checkpoint/{name}") for name in WEIGHT_FILES[GRID.recipe_of(run)["weights"]]]
