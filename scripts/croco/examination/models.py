"""Whether the models of a config are there, fit their roles, and have the weights that they need."""

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING

from croco.commands import STAGE
from croco.config.checks.models import list_gpus
from croco.errors import InputError
from croco.examination.findings import ERROR, STAGES, WARNING, Finding, Used
from croco.examination.hub import NOT_ASKED, examine_repository
from croco.examination.memory import examine_memory, read_number
from croco.grid import Grid

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

SIZE_TOLERANCE = 0.25  # by which the declared size of a model may be off


def examine_model(grid: Grid, used: Used, memory: float | None = None) -> Iterator[Finding]:
    """What will fail with one model: it is not there, does not fit its role, or its numbers are wrong.

    ``memory``: GB of one GPU, or None where it is not known. An unexpected error of a library is a finding, too, so that
    the other models are examined.
    """
    try:
        yield from _examine(grid, used, memory)
    except Exception as error:
        what = f"the doctor could not examine it: {type(error).__name__}: {' '.join(str(error).split())}"
        remedy = "rehearse the config (scripts/rehearse.py): it makes and runs a tiny model of the same class"
        yield Finding(ERROR, str(used), what, STAGES[used.role], remedy)


def _examine(grid: Grid, used: Used, memory: float | None) -> Iterator[Finding]:
    from croco.models.roles import load_config, load_skeleton

    row, stage = used.row, STAGES[used.role]
    if row["engine"] == "vllm" and importlib.util.find_spec("vllm") is None:
        remedy = "make env EXTRA=vllm, or write engine: transformers"
        yield Finding(ERROR, str(used), "vLLM is not installed here", stage, remedy)
    config, model = None, None
    repository = list(examine_repository(used))
    yield from repository
    if not any(finding.severity == ERROR for finding in repository):
        place = (used.path, row.get("revision"), row.get("trust_remote_code", False))
        try:
            config = load_config(*place)
            yield from examine_template(used)
            model = load_skeleton(used.role, *place)
        except InputError as fault:
            yield Finding(ERROR, str(used), fault.problem, stage, fault.remedy)
        else:
            yield from examine_weights(grid, used, model)
    if config is not None:
        yield from examine_context(used, config)
        yield from examine_heads(grid, used, config)
    yield from examine_memory(grid, used, config, model, memory)


def examine_weights(grid: Grid, used: Used, model: "PreTrainedModel | None") -> Iterator[Finding]:
    """Whether the size and the LoRA modules fit the model; None where its weights cannot be looked at."""
    if model is None:
        what = f"{NOT_ASKED}, and the weights are not on this machine, so they were not looked at"
        yield Finding(WARNING, str(used), what, STAGES[used.role], f"fetch them: {STAGE}")
    else:
        yield from examine_size(used, sum(weight.numel() for weight in model.parameters()))
        yield from examine_adapters(grid, used, model)


def examine_template(used: Used) -> Iterator[Finding]:
    """Faults and warnings on the chat template, as check_template.py reports them."""
    from croco.models.roles import examine_as, load_with_stops

    row = used.row
    try:
        loaded = load_with_stops(used.path, row.get("revision"), row.get("trust_remote_code", False))
        report = examine_as(used.role, *loaded, row.get("template_options"), row.get("format"), row.get("template"))
    except InputError as fault:
        yield Finding(ERROR, str(used), fault.problem, "check_template", fault.remedy)
        return
    for finding in report["findings"]:
        what = f"{finding['name']}: {finding['what']}"
        yield Finding(finding["severity"], str(used), what, "check_template", finding["remedy"])


def examine_size(used: Used, parameters: int) -> Iterator[Finding]:
    """The declared size decides what jobs ask for; without it they ask for no GPU."""
    billions, declared = parameters / 1e9, used.row.get("size")
    if declared is None and billions > 0.1 and "gpu" not in used.row.get("resources", {}):
        what = f"it has {billions:.1f} billion parameters and no `size`: its jobs ask for no GPU, and for little memory"
        yield Finding(WARNING, str(used), what, STAGES[used.role], f"write size: {billions:.1f} in its row")
    elif declared and abs(declared - billions) > SIZE_TOLERANCE * max(declared, billions):
        what = f"it has {billions:.2f} billion parameters, and size says {declared}: memory and time are asked by it"
        yield Finding(WARNING, str(used), what, STAGES[used.role], f"write size: {billions:.2g} in its row")


def examine_adapters(grid: Grid, used: Used, model: "PreTrainedModel") -> Iterator[Finding]:
    """Whether the recipes' LoRA reaches the projections of a policy that is tuned."""
    from croco.models.lora import find_targets

    runs = [run for run in grid.runs.values() if not run.is_base and run.model == used.row["name"]]
    recipes = {grid.recipe_of(run)["name"]: grid.recipe_of(run) for run in runs if used.role == "policy"}
    for name, recipe in recipes.items():
        if recipe["weights"] != "lora":
            continue
        try:
            find_targets(model, recipe.get("lora_targets"), recipe.get("lora_coverage", "all"), used.path)
        except InputError as fault:
            yield Finding(ERROR, f"{used}, recipe {name}", fault.problem, "train", fault.remedy)


def examine_context(used: Used, config: "PreTrainedConfig") -> Iterator[Finding]:
    """Limits of the config that the model's context cannot hold."""
    from croco.models.chats import state_context

    context = state_context(config)
    for key in ("max_tokens", "max_length"):
        value = used.row.get(key)
        if context and value and value > context:
            what = f"{key} is {value}, and the model's context has {context} tokens: longer texts are cut or skipped"
            yield Finding(WARNING, str(used), what, STAGES[used.role], f"write {key}: {context} or less")


def examine_heads(grid: Grid, used: Used, config: "PreTrainedConfig") -> Iterator[Finding]:
    """Whether vLLM can split the model over the GPUs of its jobs: each gets as many attention heads."""
    if used.row["engine"] != "vllm":
        return
    heads = read_number(config.get_text_config(), "num_attention_heads")
    stages = used.row["engine_options"].get("pipeline_parallel_size", 1)
    for asked in dict.fromkeys(list_gpus(grid, used.row)):
        split = asked // stages
        if heads and split > 1 and heads % split:
            in_stages, times = (f" in {stages} stages", f" times {stages}") if stages > 1 else ("", "")
            what = f"its {heads} attention heads cannot be split over {split} GPUs{in_stages}: vLLM will not start"
            most = max(number for number in range(1, split) if heads % number == 0)
            gpus = most * stages
            remedy = f"ask for {gpus} GPUs (resources: {{gpu: {gpus}}}), or another divisor of {heads}{times}"
            yield Finding(ERROR, str(used), what, STAGES[used.role], remedy)
