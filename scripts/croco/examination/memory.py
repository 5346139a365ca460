"""How much GPU memory the jobs of a model need, and whether they fit a card."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from croco.config.resources import bytes_of, weigh
from croco.errors import InputError
from croco.examination.findings import ERROR, NOTE, STAGES, WARNING, Finding, Used
from croco.grid import Grid
from croco.objectives import OBJECTIVES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CARDS = (24, 80)  # GB, compared where neither the machine nor the user names a GPU
USABLE = 0.85  # of a GPU's memory; the runtime, fragmentation and activations of inference need the rest
PROMPT_TOKENS = 1024  # of a policy's or translator's prompt, whose length the config does not bound
ADAM_BYTES = 16  # per trained parameter: float32 weight, gradient and the two moments of AdamW
ADAFACTOR_BYTES = 8  # float32 weight and gradient: its moment of a matrix is a row and a column
REFERENCE_BYTES = 4  # per parameter of a float32 reference model
SMALLEST = 0.1  # GB; smaller jobs are not reported
LORA_RANK = 16  # the fallback of `lora_r`
LENGTH = 4096  # the fallback of `max_length` of a recipe
BLOCK = 1024  # tokens; a remedy names a multiple of them
# Kinds of layers, as in `layer_types` of a config, that cache all tokens, and those that cache a window of them, by the
# name of its length. Others, such as linear attention, cache nothing that grows with the tokens.
CACHES_ALL = ("full_attention", "attention", "indexed_attention", "minimax_m3_sparse", "hybrid")
CACHES_WINDOW = {
    "sliding_attention": "sliding_window",
    "hybrid_sliding": "sliding_window",
    "chunked_attention": "attention_chunk_size",
}
# Per token and unit of the hidden and MLP widths, in a layer whose activations are kept; docs/performance.md has the
# measurement.
ACTIVATION_BYTES = 25
HALF_BYTES = 2  # of a number in 16 bits
# Bits of a weight by the name of a quantization, in a model's config or in engine_options.
QUANTIZED_BITS = {"fp8": 8, "fbgemm_fp8": 8, "ptpc_fp8": 8, "mxfp4": 4, "awq": 4, "bitsandbytes": 4}


class Need(NamedTuple):
    """GPU memory of one job, in GB on all of its ``gpus`` together.

    ``fixed`` is needed from the start. ``cache``, the KV cache or a training's activations, is reached only if all
    sequences become as long as the config allows. With a ``length``, the cache is that of one sequence of as many tokens,
    and vLLM does not start without it.
    """

    stage: str
    fixed: float
    cache: float
    gpus: int
    length: int | None = None

    def fits(self, card: float, with_cache: bool = True) -> bool:
        """Whether GPUs of ``card`` GB have the memory."""
        return self.fixed + self.cache * with_cache <= USABLE * card * self.gpus


def count_weight_bits(row: dict, config: "PreTrainedConfig | None") -> int:
    """Bits of a weight on the GPU: of its quantization where that is known, else of its dtype."""
    return _find_quantized_bits(row, _read_quantization(config)) or 8 * bytes_of(row["dtype"])


def name_unknown_quantization(row: dict, config: "PreTrainedConfig | None") -> str | None:
    """Name of a quantization whose bits are not known; None without one."""
    own = _read_quantization(config)
    name = own.get("quant_method") or row["engine_options"].get("quantization")
    return None if _find_quantized_bits(row, own) else name


def _read_quantization(config: "PreTrainedConfig | None") -> dict[str, Any]:
    own = getattr(config, "quantization_config", None) or {}
    return own if isinstance(own, dict) else own.to_dict()


def _find_quantized_bits(row: dict, own: dict[str, Any]) -> int | None:
    """Bits of a weight by the quantization of a model's config or of engine_options; None where they are not known.

    compressed-tensors and newer files of modelopt have them by group, and older ones in a name such as NVFP4 or
    W4A16_AWQ. Of several groups the largest counts.
    """
    if own.get("bits"):
        return int(own["bits"])
    if own.get("load_in_8bit"):
        return 8
    groups = (own.get("config_groups") or {}).values()
    of_groups: list[Any] = [(group.get("weights") or {}).get("num_bits") for group in groups]
    if of_groups and all(isinstance(bits, int) for bits in of_groups):
        return max(of_groups)
    if named := re.search(r"(?:FP|INT|W)(\d+)", str(own.get("quant_algo") or "")):
        return int(named[1])
    names = (own.get("quant_method"), row["engine_options"].get("quantization"))
    return next((QUANTIZED_BITS[name] for name in names if name in QUANTIZED_BITS), None)


def read_number(config: "PreTrainedConfig", name: str) -> int | None:
    """A number of a config, the largest one where its layers differ; None where there is none."""
    values = [getattr(layer, name, None) for layer in _list_layers(config)]
    numbers = [number for value in values for number in (value if isinstance(value, list | tuple) else [value])]
    return max((number for number in numbers if isinstance(number, int)), default=None)


def _list_layers(config: "PreTrainedConfig") -> "Sequence[PreTrainedConfig]":
    """The config of each layer where they differ, as in Gemma 4; else the config alone."""
    return config.per_layer_config if getattr(config, "is_heterogeneous", False) else [config]


def count_cache(
    config: "PreTrainedConfig | None",
    dtype: str,
    tokens: int,
    sequences: int,
    bits: int | None = None,
    split: int = 1,
    is_latent: bool = False,
) -> float:
    """GB of the KV cache: 2 x layers x KV heads x head_dim x bytes x tokens x sequences.

    Layers with a window cache no more tokens than that; layers that share the cache of others, or have no attention, none.
    ``bits``: of a cached number, where they are not the dtype's. ``split``: GPUs over which a layer is split; each holds
    one head at least. ``is_latent``: whether a model with latent attention (MLA) caches its latents, on each of these GPUs,
    as vLLM does, and not heads. 0 without a config, or where it lacks one of the numbers.
    """
    if config is None:
        return 0.0
    text = config.get_text_config()
    count = (read_number(text, "num_hidden_layers") or 0) - (read_number(text, "num_kv_shared_layers") or 0)
    layers, numbers = _list_layers(text), 0
    usual = "sliding_attention" if read_number(text, "sliding_window") else "full_attention"
    kinds = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or [usual]
    for i in range(count):
        layer, kind = layers[i % len(layers)], kinds[i % len(kinds)]
        if kind in CACHES_ALL or kind in CACHES_WINDOW:
            window = read_number(layer, CACHES_WINDOW.get(kind, "")) or tokens
            numbers += min(window, tokens) * _count_numbers(layer, i, split, is_latent)
    return numbers * sequences * (bits or 8 * bytes_of(dtype)) / 8e9


def _count_numbers(layer: "PreTrainedConfig", i: int, split: int, is_latent: bool) -> int:
    """Numbers that layer ``i`` caches of a token, on all GPUs that it is split over."""

    def read(name: str) -> int:
        value = getattr(layer, name, None)
        return (value[i % len(value)] if isinstance(value, list | tuple) else value) or 0

    if is_latent and read("kv_lora_rank"):
        return split * (read("kv_lora_rank") + read("qk_rope_head_dim"))
    heads = read("num_attention_heads")
    width = read("head_dim") or (read("hidden_size") // heads if heads else 0)
    kv_heads = read("num_key_value_heads") or heads
    return 2 * max(kv_heads, split) * width if kv_heads else 0


def _count_cache_bits(row: dict, config: "PreTrainedConfig | None") -> int | None:
    """Bits of a number in vLLM's KV cache, by engine_options or the model's quantization; None for those of the dtype."""
    if found := re.search(r"(?:fp|int|_)(\d)", str(row["engine_options"].get("kv_cache_dtype"))):
        return int(found[1])
    return (_read_quantization(config).get("kv_cache_scheme") or {}).get("num_bits")


def find_length(used: Used, config: "PreTrainedConfig | None") -> int | None:
    """Tokens of the longest sequence of a model under vLLM; None where vLLM chooses them, or they are not known."""
    from croco.models.chats import state_context

    row, name = used.row, "max_model_len"
    if name in row["engine_options"]:
        asked = row["engine_options"][name]
        return asked if isinstance(asked, int) and asked > 0 else None
    context = None if config is None else state_context(config)
    return min(row["max_length"], context or row["max_length"]) if used.role == "reward" else context


def estimate_inference(
    grid: Grid, used: Used, config: "PreTrainedConfig | None", parameters: float, evaluates: bool = False
) -> Need:
    """Weights, and the KV cache of all sequences that are sampled at once.

    vLLM fits its number of sequences to the memory, and starts only if one of the longest fits. transformers samples
    ``batch`` at once, on one GPU unless its options distribute the model. A judge's tokens are those of its longest prompt,
    and of its reply. ``evaluates``: the policy answers the evaluation prompts, instead of those to tune on.
    """
    row = used.row
    asks = [grid.config["evaluation"], row] if evaluates else [row]
    stage, weights = "evaluate" if evaluates else STAGES[used.role], parameters * count_weight_bits(row, config) / 8e9
    gpus = max(1, grid.resource("gpu", asks)) if is_split(row) else 1
    if row["engine"] == "vllm" and (length := find_length(used, config)):
        split = gpus // row["engine_options"].get("pipeline_parallel_size", 1)
        bits = _count_cache_bits(row, config)
        cache = count_cache(config, row["dtype"], length, 1, bits, split, is_latent=True)
        return Need(stage, weights, cache, gpus, length)
    tokens = asks[0].get("max_tokens", 0) + (row["max_length"] if used.role == "judge" else PROMPT_TOKENS)
    sequences = 1 if row["engine"] == "vllm" else asks[0]["batch"]
    cache = 0.0 if used.role == "reward" else count_cache(config, row["dtype"], tokens, sequences)
    return Need(stage, weights, cache, gpus)


def is_split(row: dict) -> bool:
    """Whether a model's engine distributes its weights over the GPUs of a job."""
    return row["engine"] == "vllm" or "device_map" in row["engine_options"]


def count_activations(config: "PreTrainedConfig | None", recipe: dict, objective: str) -> float:
    """GB of the activations of a micro-batch whose rows all have max_length tokens; 0 where the widths are not known.

    With gradient checkpointing, each layer keeps its input in 16 bits, and one layer at a time keeps all it computes.
    The logits are there when no layer does that.
    """
    if config is None:
        return 0.0
    text = config.get_text_config()
    layers, hidden = read_number(text, "num_hidden_layers"), read_number(text, "hidden_size")
    if not (layers and hidden):
        return 0.0
    inner = read_number(text, "intermediate_size") or 4 * hidden
    whole_layers = layers if recipe.get("checkpointing") == "never" else 1
    sequences = recipe.get("micro_batch", 1) * (1 if objective == "sft" else 2)
    at_once = max(whole_layers * ACTIVATION_BYTES * (hidden + inner), HALF_BYTES * text.vocab_size)
    per_token = layers * hidden * HALF_BYTES + at_once
    return sequences * recipe.get("max_length", LENGTH) * per_token / 1e9


def estimate_training(
    recipe: dict, objective: str, row: dict, reward: dict, parameters: float, adapter: float, activations: float = 0.0
) -> Need:
    """One process of a training, which has a GPU for itself.

    LoRA: weights in their dtype, and 16 bytes per parameter of the adapter (``adapter`` is their number). Full: 16 bytes
    per parameter, and 4 more where the objective has a reference. With adafactor 8 take the place of the 16. Objectives
    that sample also load the reward model.
    """
    trained = ADAFACTOR_BYTES if recipe.get("optimizer") == "adafactor" else ADAM_BYTES
    if recipe["weights"] == "lora":
        gigabytes = (parameters * bytes_of(row["dtype"]) + trained * adapter) / 1e9
    else:
        gigabytes = parameters * (trained + REFERENCE_BYTES * OBJECTIVES[objective].has_reference) / 1e9
    return Need("train", gigabytes + (weigh(reward) if OBJECTIVES[objective].samples else 0), activations, 1)


def count_adapter(model: "PreTrainedModel | None", recipe: dict) -> float:
    """Parameters of a recipe's adapter: rank x (inputs + outputs) of each module; 0 where they cannot be counted."""
    from croco.models.lora import find_targets

    if model is None or recipe["weights"] != "lora":
        return 0
    try:
        _, adapted, _ = find_targets(model, recipe.get("lora_targets"), recipe.get("lora_coverage", "all"))
    except InputError:  # examine_adapters reports it
        return 0
    modules = dict(model.named_modules())
    return recipe.get("lora_r", LORA_RANK) * sum(sum(modules[name].weight.shape) for name in adapted)


def examine_memory(
    grid: Grid, used: Used, config: "PreTrainedConfig | None", model: "PreTrainedModel | None", memory: float | None
) -> Iterator[Finding]:
    """The estimate of each job of a model, against GPUs of ``memory`` GB, or of CARDS where it is None.

    The size of the model is the larger of the counted and the declared one.
    """
    counted = sum(weight.numel() for weight in model.parameters()) if model is not None else 0
    parameters = max(counted, used.row.get("size", 0) * 1e9)
    bits = count_weight_bits(used.row, config)
    kind = used.row["dtype"] if bits == 8 * bytes_of(used.row["dtype"]) else f"{bits} bits"
    unknown = name_unknown_quantization(used.row, config)
    kind += f" (less if the quantization {unknown} is smaller)" if unknown else ""
    inference, severity = estimate_inference(grid, used, config, parameters), WARNING if unknown else ERROR
    needs = [(str(used), kind, inference, severity)]
    if used.role == "policy" and used.row["name"] in grid.tuned:
        evaluation = estimate_inference(grid, used, config, parameters, evaluates=True)
        if evaluation._replace(stage=inference.stage) != inference:
            needs.append((f"{used}, evaluation", kind, evaluation, severity))
    needs += [
        (f"{used}, recipe {recipe['name']}", _tuned_as(recipe, used.row), need, ERROR)
        for recipe, need in _list_trainings(grid, used, config, model, parameters)
    ]
    for where, kind, need, severity in needs:
        if need.fixed + need.cache >= SMALLEST:
            yield from _compare(where, kind, need, memory, is_split(used.row), severity)


def _list_trainings(
    grid: Grid, used: Used, config: "PreTrainedConfig | None", model: "PreTrainedModel | None", parameters: float
) -> Iterator[tuple[dict[str, Any], Need]]:
    """(recipe, its need) of each pair of recipe and objective that tunes the model."""
    seen = set()
    for run in grid.runs.values():
        if used.role != "policy" or run.is_base or run.model != used.row["name"]:
            continue
        recipe, objective = grid.recipe_of(run), run.row["objective"]
        if (recipe["name"], objective) not in seen:
            seen.add((recipe["name"], objective))
            reward = grid.reward_models[run.reward_model]
            adapter = count_adapter(model, recipe)
            activations = count_activations(config, recipe, objective)
            yield recipe, estimate_training(recipe, objective, used.row, reward, parameters, adapter, activations)


def _compare(
    where: str, kind: str, need: Need, memory: float | None, is_split: bool, severity: str
) -> Iterator[Finding]:
    """What is to be said of one need; ``severity`` is that of one that does not fit."""
    cards = CARDS if memory is None else (memory,)
    subject = "the training of one GPU takes" if need.stage == "train" else "its weights take"
    grows = "its activations" if need.stage == "train" else "its KV cache"
    said = f"{subject} {need.fixed:.3g} GB in {kind}"
    if need.cache >= SMALLEST and need.length:
        said += f" and the KV cache of one sequence of {need.length:,} tokens {need.cache:.3g} GB"
    elif need.cache >= SMALLEST:
        said += f" and {grows} up to {need.cache:.3g} GB"
    elif need.stage == "train" and not need.cache:
        said += " without its activations, which are not known"
    larger = "tune by LoRA, or use larger GPUs" if need.stage == "train" else (
        "ask for more GPUs (resources: {gpu: N}), or for larger ones" if is_split else
        "use larger GPUs, or more of them (resources: {gpu: N}) with engine: vllm or engine_options: {device_map: auto}"
    )  # fmt: skip
    if memory is None:
        fitting = [f"{card} GB" for card in cards if need.fits(card)]
        what = f"{said}; of GPUs with 24 and 80 GB, {need.gpus} of {' or '.join(fitting) or 'neither'} would do"
        yield Finding(NOTE, where, what, need.stage, larger)
    elif not need.fits(memory, with_cache=False):
        yield Finding(severity, where, f"{said}, on {need.gpus} GPUs of {memory:.0f} GB", need.stage, larger)
    elif not need.fits(memory) and need.length:
        room = USABLE * memory * need.gpus - need.fixed
        tokens = int(need.length * room / need.cache) // BLOCK * BLOCK
        shorter = f"write engine_options: {{max_model_len: {tokens}}} or less, or " if tokens else ""
        what = f"{said}, on {need.gpus} GPUs of {memory:.0f} GB: vLLM will not start"
        yield Finding(severity, where, what, need.stage, shorter + larger)
    elif not need.fits(memory):
        remedy = {
            "train": "lower micro_batch or max_length of the recipe",
            "evaluate": "lower evaluation.batch or evaluation.max_tokens, or use engine: vllm",
        }.get(need.stage, "lower `batch`, max_tokens or max_length, or use engine: vllm")
        yield Finding(WARNING, where, f"{said}, on {need.gpus} GPUs of {memory:.0f} GB", need.stage, remedy)
    else:
        yield Finding(NOTE, where, f"{said}, which fits {need.gpus} GPUs of {memory:.0f} GB", need.stage, larger)


def _tuned_as(recipe: dict, row: dict) -> str:
    return row["dtype"] if recipe["weights"] == "lora" else "float32"
