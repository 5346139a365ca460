"""The modules of a model that a LoRA adapter reaches: all projections of attention and MLP, or those of a pattern.

Works on the meta device, so that a model's config is enough.
"""

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from croco.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Modules that choose or weigh experts; they are not projections.
ROUTER = re.compile(r"(^|[._])(gate|router)$")


class Projections(NamedTuple):
    """The projections of a model's text decoder."""

    kinds: dict[str, str]  # {name of a module that an adapter can reach: its kind, such as self_attn.q_proj}
    spared: dict[str, int]  # {kind, or `experts`: number} of those that no adapter reaches


def projections(model: "PreTrainedModel") -> Projections:
    """The linear modules in the layers of a model's text decoder, except routers.

    Experts are excluded: they are fused parameters, for which PEFT refuses dropout and vLLM the doubled rank. So are
    the projections beside them that PEFT mistakes for experts because of their names.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    decoder = model.get_decoder() or model
    prefix = next(f"{name}." if name else "" for name, module in model.named_modules() if module is decoder)
    kinds: dict[str, str] = {}
    spared: Counter[str] = Counter()
    for name, module in decoder.named_modules():
        layer = re.match(r"[^.]+\.\d+\.(.+)", name)
        if not layer or not isinstance(module, nn.Linear | Conv1D) or ROUTER.search(name):
            continue
        kind = re.sub(r"\.\d+(?=\.|$)", ".N", layer[1])
        if "experts." in kind:
            spared["experts"] += 1
        elif taken_for_experts(model, [kind]):
            spared[kind] += 1
        else:
            kinds[prefix + name] = kind
    spared["experts"] += sum("experts." in name and weight.ndim == 3 for name, weight in decoder.named_parameters())
    return Projections(kinds, {kind: count for kind, count in sorted(spared.items()) if count})


def taken_for_experts(model: "PreTrainedModel", targets: str | list[str]) -> bool:
    """Whether PEFT, which knows the names that fused experts had, would adapt experts by these targets."""
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=targets)
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # a part of what is fused
        return True
    return bool(config.target_parameters)


def find_targets(
    model: "PreTrainedModel", pattern: str | None = None, coverage: str = "all", path: str | Path | None = None
) -> tuple[str, dict[str, str], dict[str, int]]:
    """(pattern, {module's name: kind} that it reaches, {kind: number} of the projections that are not adapted).

    The default ``pattern`` reaches all projections. ``path`` names the model in messages. Raises
    InputError where a pattern reaches no module, experts, tied embeddings, or what cannot be adapted; or, unless
    ``coverage`` is "partial", misses projections.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    found = projections(model)
    fitting = fit_pattern(found.kinds)
    pattern = pattern or fitting
    if not pattern:
        raise InputError(
            "no attention or MLP projections are found in the layers of the model",
            "name its modules by a pattern",
            path,
            field="lora_targets",
        )
    remedy = f"leave it out, or write {fitting}" if found.kinds else "look up the names of its modules"
    try:
        reached = {name: module for name, module in model.named_modules() if re.fullmatch(pattern, name)}
    except re.error as error:
        raise InputError(f"{pattern} is not a pattern: {error}", remedy, path, field="lora_targets") from None
    if not reached:
        raise InputError(f"no module of the model has a name like {pattern}", remedy, path, field="lora_targets")
    if taken_for_experts(model, pattern):
        raise InputError(f"{pattern} reaches experts, which are not adapted", remedy, path, field="lora_targets")
    for name, module in reached.items():
        if not isinstance(module, nn.Linear | nn.Embedding | nn.Conv1d | nn.Conv2d | nn.Conv3d | Conv1D):
            raise InputError(
                f"{pattern} reaches {name}, a {type(module).__name__}, which cannot be adapted",
                remedy,
                path,
                field="lora_targets",
            )
    if tied := sorted(list_tied(model) & reached.keys()):
        raise InputError(
            f"{pattern} reaches {tied[0]}, whose weights are those of another module too: merged, an adapter would change both",
            remedy,
            path,
            field="lora_targets",
        )
    missed = Counter(kind for name, kind in found.kinds.items() if name not in reached)
    if missed and coverage != "partial":
        counts = ", ".join(f"{kind} ({count})" for kind, count in sorted(missed.items()))
        raise InputError(
            f"{pattern} misses projections of the model: {counts}",
            f"{remedy}; or set lora_coverage to partial to adapt only a part",
            path,
            field="lora_targets",
        )
    adapted = {name: found.kinds.get(name, name) for name in reached}
    return pattern, adapted, dict(sorted({**found.spared, **missed}.items()))


def list_tied(model: "PreTrainedModel") -> set[str]:
    """Names of the input and output embeddings, where they share their weights."""
    configs = (model.config, model.config.get_text_config())
    if not any(getattr(config, "tie_word_embeddings", False) for config in configs):
        return set()
    shared = (model.get_input_embeddings(), model.get_output_embeddings())
    return {name for name, module in model.named_modules() if any(module is each for each in shared)}


def fit_pattern(kinds: dict[str, str]) -> str | None:
    """The pattern that matches the modules of Projections.kinds alone; None where there are none."""
    starts = sorted({match[1] for name in kinds if (match := re.match(r"(.*?)\.\d+\.", name))})
    parts = sorted({re.escape(kind).replace(r"\.N", r"\.\d+") for kind in kinds.values()})
    return rf"^({'|'.join(map(re.escape, starts))})\.\d+\.({'|'.join(parts)})$" if kinds else None
