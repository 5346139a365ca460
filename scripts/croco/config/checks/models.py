"""Models: options of engines, translators' prompts, and what the miniature makes."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from croco.config.faults import Fault

if TYPE_CHECKING:
    from croco.grid import Grid

ROLES = ("policies", "reward_models", "translators", "judges")
TEMPLATE_FIELDS = ("text", "source_name", "target_name", "source_code", "target_code")
# Options of vLLM that follow from other keys of a model's row, or from the job.
OPTIONS_SET_BY_THE_ROW = frozenset(
    [
        "model",
        "revision",
        "tokenizer",
        "tokenizer_revision",
        "dtype",
        "trust_remote_code",
        "load_format",
        "use_safetensors",
        "runner",
        "enable_lora",
        "max_lora_rank",
        "seed",
    ]
)
# Names under {results}/miniature that are not models.
MADE_BY_WORLD = ("prompts", "comparisons", "tasks", "tokenizer")
# Keys of the default config that describe the miniature: whoever gives other policies must give them, too.
OF_THE_MINIATURE = (
    ("results",),
    *(("evaluation", key) for key in ("samples", "temperature", "max_tokens", "judge", "tasks")),
)


def is_hub_id(name: str) -> bool:
    """Whether a repository on the hub can have the name."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # late: it takes a tenth of a second

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def check_engines(grid: "Grid") -> Iterator[Fault]:
    """No engine option is one that the workflow sets, and a model is split over all GPUs of its job."""
    for key in ROLES:
        for i, row in enumerate(grid.config[key]):
            keys, options = (key, i, "engine_options"), row["engine_options"]
            for name in sorted(OPTIONS_SET_BY_THE_ROW & set(options)):
                problem = "is set by the workflow"
                yield Fault((*keys, name), problem, "leave it out; see the other keys of the row")
            if row["engine"] == "vllm":
                yield from _check_split(grid, keys, row)


def check_gpus(grid: "Grid") -> Iterator[Fault]:
    """Each model that vLLM loads has a size, or says how many GPUs it has: without either, its jobs would have none."""
    config = grid.config
    named = {row.get("translator") for row in (*config["prompts"], *config["evaluation"]["tasks"])}
    loaded = [*grid.used_policies(), *grid.reward_models.values(), grid.judge, *map(grid.translators.get, named)]
    for key in ROLES:
        for i, row in enumerate(config[key]):
            has_gpus = "size" in row or "gpu" in row.get("resources", {})
            if row["engine"] == "vllm" and row in loaded and not has_gpus:
                remedy = (
                    "write size (billions of parameters), from which GPUs, memory and time follow, "
                    "or resources: {gpu: N}"
                )
                yield Fault((key, i, "size"), "a job of vLLM would have no GPU", remedy)


def list_gpus(grid: "Grid", row: dict) -> list[int]:
    """GPUs of each kind of job of a model: its own jobs, and those that evaluate what is tuned from it."""
    jobs = [[row], *([[grid.config["evaluation"], row]] if row.get("tune") else [])]
    return [grid.resource("gpu", rows) for rows in jobs]


def _check_split(grid: "Grid", keys: tuple, row: dict) -> Iterator[Fault]:
    """A model is split over as many GPUs as each of its jobs has, if its options say over how many."""
    options = row["engine_options"]
    stages = options.get("pipeline_parallel_size", 1)
    split = options.get("tensor_parallel_size", 0) * stages
    for gpus in list_gpus(grid, row):
        if split not in (0, gpus):
            yield Fault(
                (*keys, "tensor_parallel_size"),
                f"the model is split over {split} GPUs, but a job has {gpus}",
                "leave it out (vLLM then splits over all GPUs of the job), or correct resources.gpu",
            )
        elif not split and gpus % stages:
            yield Fault(
                (*keys, "pipeline_parallel_size"),
                f"the model is split into {stages} stages, but a job has {gpus} GPU{'s' * (gpus != 1)}",
                "correct it, or resources.gpu: a multiple of the number of stages",
            )


def check_translators(grid: "Grid") -> Iterator[Fault]:
    """Translators' templates have known fields only."""
    for i, row in enumerate(grid.config["translators"]):
        for name in re.findall(r"\{(\w+)\}", row.get("template", "")):
            if name not in TEMPLATE_FIELDS:
                remedy = f"known are {', '.join(TEMPLATE_FIELDS)}"
                yield Fault(("translators", i, "template"), f"unknown field {{{name}}}", remedy)


def check_miniature_names(grid: "Grid") -> Iterator[Fault]:
    """No two things that the miniature makes have the same name."""
    taken = [*MADE_BY_WORLD]
    for key in ("policies", "reward_models"):
        for i, row in enumerate(grid.config["miniature"][key]):
            if row["name"] in taken:
                problem = f"the name {row['name']} is taken"
                yield Fault(("miniature", key, i, "name"), problem, "choose another name")
            taken.append(row["name"])


def check_miniature_models(grid: "Grid") -> Iterator[Fault]:
    """The miniature makes each model whose path is in its folder."""
    folder = f"{grid.results}/miniature/"
    for key, kind in (("policies", "policies"), ("reward_models", "reward_models"), ("judges", "policies")):
        made = [f"{folder}{row['name']}" for row in grid.config["miniature"][kind]]
        for i, row in enumerate(grid.config[key]):
            path = grid.path(row["path"])
            if path.startswith(folder) and path not in made:
                yield Fault((key, i, "path"), f"the miniature makes no {path}", f"one of {', '.join(made)}")


def check_miniature_prompts(grid: "Grid") -> Iterator[Fault]:
    """The miniature has the languages that are asked of it, and its oracle judges no other prompts."""
    folder = f"{grid.results}/miniature/"
    for i, row in enumerate(grid.config["prompts"]):
        of_miniature = grid.path(row.get("path", "")).startswith(folder)
        if row["use"] == "evaluate" and grid.config["evaluation"]["judge"] == "oracle" and not of_miniature:
            keys = ("prompts", i, "path" if "path" in row else "dataset")
            problem = "the oracle judges the miniature's prompts only"
            yield Fault(keys, problem, "name one of your judges, or write judge: none")
        for j, code in enumerate(grid.languages if of_miniature else []):
            made_here = (grid.prompt_file(row["use"], code) or "").startswith(folder)
            if made_here and code not in grid.config["miniature"]["languages"]:
                problem = f"the miniature was not made in {code}"
                yield Fault(("languages", j), problem, "add it to miniature.languages (its models are trained anew)")


def check_nothing_left_of_the_default(grid: "Grid") -> Iterator[Fault]:
    """If the user gives policies, no key that describes the miniature keeps its default."""
    if grid.locator.is_default(("policies",)):
        return
    for keys in OF_THE_MINIATURE:
        if grid.locator.is_default(keys):
            yield Fault(keys, "is still the miniature's", "give your own, beside your policies")


CHECKS = (
    check_engines,
    check_gpus,
    check_translators,
    check_miniature_names,
    check_miniature_models,
    check_miniature_prompts,
    check_nothing_left_of_the_default,
)
