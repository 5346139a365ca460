"""What can be known of a config's models and of this machine before anything expensive runs."""

import errno
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from croco.config.resources import weigh
from croco.errors import InputError
from croco.files import publish
from croco.grid import Grid
from croco.locks import FileLock, take_lock

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# Of the memory of a GPU, what the weights of one process may take: caches, activations and the runtime need the rest.
WEIGHTS_AT_MOST = 0.85
SIZE_TOLERANCE = 0.25  # by which the declared size of a model may be off
TOKEN_BYTES = 6  # of a response in the generations, their scores and its copy in state/, by token
ERROR, WARNING = "error", "warning"


class Finding(NamedTuple):
    """Something that will go wrong; ``when``: the stage that would have shown it."""

    severity: str
    where: str
    what: str
    when: str
    remedy: str


class Used(NamedTuple):
    """A model as the config uses it: its role (policy, reward, judge, translator) and its row."""

    role: str
    row: dict[str, Any]
    path: str

    def __str__(self) -> str:
        return f"{self.role} {self.row['name']}"


STAGES = {"policy": "generate", "reward": "score", "judge": "judge", "translator": "translate"}


def list_models(grid: Grid) -> list[Used]:
    """The models of the config, except those that the workflow makes itself."""
    rows = {
        "policy": grid.policies.values(),
        "reward": grid.reward_models.values(),
        "judge": [grid.judge] if grid.judge else [],
        "translator": grid.translators.values(),
    }
    used = [Used(role, row, grid.path(row["path"])) for role, of_role in rows.items() for row in of_role]
    return [model for model in used if not model.path.startswith(f"{grid.results}/")]


def examine_model(grid: Grid, used: Used) -> Iterator[Finding]:
    """What will fail with one model: it is not there, does not fit its role, or its numbers are wrong."""
    from croco.models.roles import load_config, load_skeleton

    row, stage = used.row, STAGES[used.role]
    if row["engine"] == "vllm" and importlib.util.find_spec("vllm") is None:
        remedy = "make env EXTRA=vllm, or write engine: transformers"
        yield Finding(ERROR, str(used), "vLLM is not installed here", stage, remedy)
    place = (used.path, row.get("revision"), row.get("trust_remote_code", False))
    try:
        config = load_config(*place)
    except InputError as fault:
        yield Finding(ERROR, str(used), fault.problem, stage, fault.remedy)
        return
    yield from examine_template(used)
    try:
        model = load_skeleton(used.role, *place)
    except InputError as fault:
        yield Finding(ERROR, str(used), fault.problem, stage, fault.remedy)
        return
    if model is None:
        what = "the weights are not on this machine, so they were not looked at"
        yield Finding(WARNING, str(used), what, stage, "fetch them: snakemake stage")
    else:
        yield from examine_size(used, sum(weight.numel() for weight in model.parameters()))
        yield from examine_adapters(grid, used, model)
    yield from examine_context(used, config)


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


def examine_gpus(grid: Grid, memory: float | None, count: int | None) -> Iterator[Finding]:
    """Whether jobs fit the GPUs; ``memory`` of one in GB and ``count``, None where this machine shows none."""
    needed = grid.most_gpus()
    if count is not None and needed > count:
        what = f"a job asks for {needed} GPUs, and this machine shows {count}"
        remedy = "start on a machine that has them, or lower resources: {gpu: N} in the config"
        yield Finding(ERROR if count else WARNING, "GPUs", what, "the first GPU job", remedy)
    if memory is None:
        return
    for used in list_models(grid):
        weights = weigh(used.row)
        gpus = max(1, grid.resource("gpu", [used.row]))
        if weights > WEIGHTS_AT_MOST * memory * gpus:
            what = f"its weights take {weights:.0f} GB in {used.row['dtype']}, on {gpus} GPUs of {memory:.0f} GB"
            remedy = "ask for more GPUs (resources: {gpu: N} with tensor_parallel_size), or for larger ones"
            yield Finding(ERROR, str(used), what, STAGES[used.role], remedy)


def find_gpus() -> tuple[float | None, int | None]:
    """(GB of the smallest GPU, number of GPUs) that nvidia-smi lists; (None, None) without it."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None, None
    sizes = [float(line) / 1024 for line in done.stdout.split("\n") if line.strip()]
    return (min(sizes), len(sizes)) if sizes else (None, 0)


def expect_bytes(grid: Grid) -> int:
    """Bytes of responses at most, if each has max_tokens: prompts x languages x samples x tokens x TOKEN_BYTES."""
    prompts = len(grid.blocks("train")) * grid.config["block"]
    prompts = min(prompts, grid.limit("train") or prompts)
    policies = {run.responses for run in grid.runs.values() if run.responses in grid.policies}
    tokens = sum(grid.policies[name]["max_tokens"] for name in policies)
    return prompts * len(grid.trained) * grid.config["samples"] * tokens * TOKEN_BYTES


def examine_disk(grid: Grid) -> Iterator[Finding]:
    """Room for the responses, and what the file system of the results can do."""
    folder = Path(grid.results).absolute()
    while not folder.is_dir():
        folder = folder.parent
    free, expected = shutil.disk_usage(folder).free, expect_bytes(grid)
    if expected > free:
        what = f"responses may take {expected / 2**30:.0f} GB, and {free / 2**30:.0f} GB are free"
        yield Finding(WARNING, str(folder), what, "generate", "free some space, or choose `results` elsewhere")
    probe = folder / f".probe.{os.getpid()}"
    try:
        lock = take_lock(probe, wait=False)
        if not isinstance(lock, FileLock):
            what = (
                "the file system has no flock: lock files with a lease are used, and a killed job's lock lasts longer"
            )
            yield Finding(WARNING, str(folder), what, "all stages", "Lustre: mount with -o flock")
        lock.release()
        publish(probe, probe.with_suffix(".link"))
        if probe.stat().st_nlink == 1:
            what = "the file system has no hard links: results and state/ take their space twice"
            yield Finding(WARNING, str(folder), what, "all stages", "choose `results` on another file system")
    except OSError as error:
        reason = error.strerror or errno.errorcode.get(error.errno or 0, "unknown")
        what = f"nothing can be written here: {reason}"
        yield Finding(ERROR, str(folder), what, "the first job", "get the permission, or choose `results` elsewhere")
    finally:
        for path in (probe, probe.with_suffix(".link")):
            path.unlink(missing_ok=True)


def examine_audit(grid: Grid) -> Iterator[Finding]:
    """Whether each reward model was audited before anything is trained on its rewards."""
    for name in grid.reward_models:
        if not Path(grid.results, "audit", f"{name}.json").is_file():
            what = "it has not been audited: nobody knows in which languages it tells answers from damaged copies"
            yield Finding(WARNING, f"reward {name}", what, "train", "snakemake audit, before training")
