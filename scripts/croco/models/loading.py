"""The only loader of weights, for every role, stage and engine. It refuses incomplete models before they compute.

For weights that are missing in the files transformers draws random ones, and PEFT leaves an adapter that does not fit
at zero. Both only warn, and rewards and samples of such a model look like any other's.
"""

import json
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from croco.cli import UNUSED_WEIGHTS
from croco.commands import ACCEPT_LICENCE, STAGE
from croco.digests import WEIGHTS, model_identity
from croco.errors import InputError

if TYPE_CHECKING:
    import torch
    from huggingface_hub.utils import SafetensorsFileMetadata
    from peft import PeftModel
    from transformers import PreTrainedModel

POLICY, REWARD_MODEL = "AutoModelForCausalLM", "AutoModelForSequenceClassification"
# Parts of a checkpoint that a text model does not need: heads that predict several tokens, image and audio towers.
MTP = r"(model\.)?(language_model\.)?(mtp|mtp_\w+|nextn\w*)\."
TOWERS = (
    r"(model\.)?(visual|vision_tower|vision_model|vision_encoder|vision_embed_tokens|vision_projection|vit|image_newline|"
    r"patch_merger|audio_tower|audio_encoder|audio_projection|audio_embed|embed_vision|embed_audio|multi_modal_projector|"
    r"multimodal_projector|mm_projector|vision_projector|image_projection|vision_adapter)(\.|$)"
)
# Masks that GPT-2's family once saved as weights.
BUFFERS = r"(.*\.)?attn(ention)?\.(masked_)?bias$"
# Files of an image-text model besides its weights that vLLM needs to load it.
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
SHOWN = 4
ADAPTER = "adapter_model.safetensors"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LENGTH_BYTES = 8  # at the start of a safetensors file: the length of its header
CHOOSE_COMPLETE = "choose a model or revision whose weights are complete safetensors files"
PICKLED = ("pytorch_model*.bin", "adapter_model*.bin", "model*.pt", "consolidated*.pth", "*.ckpt")


def model_id(
    model: str, revision: str | None = None, state: Path | None = None, adapter: str | Path | None = None
) -> str:
    """The model's content hash or hub commit, the adapter's behind a plus; raises InputError where there is none.

    ``state`` keeps the hashes of large files, so that a job does not read tens of gigabytes to learn them again.
    """
    refuse_pickles(model)
    if adapter:
        refuse_pickles(adapter, ADAPTER)
    with model_errors(model):
        identity = model_identity(model, revision, state and Path(state) / "digests")
    return f"{identity}+{model_id(str(adapter))}" if adapter else identity


def refuse_pickles(folder: str | Path, weights: str = WEIGHTS) -> None:
    """Raises InputError where a local folder has weights, but none in safetensors; other formats can hold code.

    ``weights``: the pattern of the files that are needed.
    """
    pickled = sorted(path.name for pattern in PICKLED for path in Path(folder).glob(pattern))
    if pickled and not any(Path(folder).glob(weights)):
        raise InputError(
            f"the weights are pickled ({', '.join(pickled[:SHOWN])}), and reading such files can run code",
            f"save them as safetensors ({weights}) where you trust their source: save_pretrained does so",
            folder,
        )


def load_weights(
    kind: str,
    path: str | Path,
    revision: str | None = None,
    dtype: "str | torch.dtype" = "float32",
    trust_remote_code: bool = False,
    options: dict | None = None,
) -> "PreTrainedModel":
    """A model with all of its weights, on the CPU or where ``options`` put it.

    Args:
        kind: POLICY or REWARD_MODEL; ``path``: local folder or hub id; ``options``: passed on to ``from_pretrained``.
    Raises InputError where the files lack weights that the class needs (tied ones aside), hold some of another shape or
    that are not finite, or some that the class does not use, except parts that a text model does not need.
    """
    import transformers

    wanted = {"revision": revision, "dtype": dtype, "trust_remote_code": trust_remote_code}
    # Weights of another shape are refused below, with the same message as all others. No option reads pickled weights.
    checked = {"ignore_mismatched_sizes": True, "output_loading_info": True, "use_safetensors": True}
    refuse_pickles(path)
    with model_errors(path), engine_options_refused(path, options), quiet_reports():
        model, found = getattr(transformers, kind).from_pretrained(path, **{**wanted, **(options or {}), **checked})
        check_found(kind, path, model, found, revision)
    check_finite(path, model.named_parameters())
    return model


def load_adapter(model: "PreTrainedModel", adapter: str | Path, trainable: bool = False) -> "PeftModel":
    """The model with a LoRA adapter on it, a PeftModel.

    Raises InputError for an adapter with tensors that fit nothing, that lacks some, or that changes nothing.
    """
    from peft import PeftModel, load_peft_weights

    refuse_pickles(adapter, ADAPTER)
    meta = next(model.parameters()).device.type == "meta"
    options = {"is_trainable": trainable, "low_cpu_mem_usage": meta, **({"torch_device": "cpu"} if meta else {})}
    with model_errors(adapter), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # they are refused below
        tuned = PeftModel.from_pretrained(model, adapter, **options)
        # Load it once more, because from_pretrained does not return what fitted.
        found = tuned.load_adapter(adapter, "default", **options)
        tensors = load_peft_weights(adapter, device="cpu")
    check_names(
        "adapter",
        adapter,
        found.missing_keys,
        found.unexpected_keys,
        "give the model that the adapter was trained from",
    )
    check_finite(adapter, tensors.items())
    second = [weight for name, weight in tensors.items() if "lora_B" in name or "lora_embedding_B" in name]
    others = [name for name in tensors if "lora_" not in name]
    if not others and not any(weight.any() for weight in second):
        raise InputError(
            f"the adapter changes nothing: its {len(second)} matrices lora_B are all zero",
            "train it, or use the model without it, which is the same",
            adapter,
        )
    return tuned


def check_files(
    kind: str,
    path: str | Path,
    revision: str | None = None,
    trust_remote_code: bool = False,
    adapter: str | Path | None = None,
) -> "PreTrainedModel":
    """As load_weights and load_adapter, but by the names and shapes in the files: for an engine that loads the weights itself.

    Returns the model on the meta device. Only the adapter's weights are read. Raises InputError as these two do, except
    for weights that are not finite.
    """
    import torch
    import transformers

    refuse_pickles(path)
    if adapter:
        refuse_pickles(adapter, ADAPTER)
    with model_errors(path), quiet_reports():
        config = transformers.AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
        quantized = getattr(config, "quantization_config", None)
        if quantized:  # the engine has kernels that transformers may lack
            del config.quantization_config
        auto = getattr(transformers, kind)
        if kind == POLICY and type(config) not in auto._model_mapping and not hasattr(config, "auto_map"):
            auto = transformers.AutoModelForImageTextToText
        with torch.device("meta"):
            made = auto.from_config(config, trust_remote_code=trust_remote_code)
        model, found = type(made).from_pretrained(
            None,
            config=made.config,  # for some image-text models the class takes the part for text alone
            state_dict=read_headers(path, revision),
            device_map="meta",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        check_found(kind, path, model, forgive_packing(found, model) if quantized else found, revision)
    return load_adapter(model, adapter) if adapter else model


def forgive_packing(found: dict[str, set], model: "PreTrainedModel") -> dict[str, set]:
    """Quantized modules hold other tensors than their class: a module with any tensor in the files is complete.

    ``found``: transformers' loading info, {missing_keys, unexpected_keys, mismatched_keys}; so is what is returned.
    """

    def module_of(name: str) -> str:
        """Experts are packed one by one, and fused in their class."""
        return re.sub(r"(\.experts)\..*", r"\1", name.rpartition(".")[0])

    modules = {name for name, _ in model.named_modules()}
    packed = {module_of(name) for name in found["unexpected_keys"]}
    return {
        "missing_keys": {name for name in found["missing_keys"] if module_of(name) not in packed},
        "unexpected_keys": {name for name in found["unexpected_keys"] if module_of(name) not in modules},
        "mismatched_keys": set(),
    }


def check_found(
    kind: str, path: str | Path, model: "PreTrainedModel", found: dict[str, set], revision: str | None
) -> None:
    """Raises InputError where transformers' loading info says that weights are missing, of another shape or unused.

    Notes the weights that are left unused on purpose for the manifest (UNUSED_WEIGHTS).
    """
    if getattr(model, "_hf_peft_config_loaded", False):
        raise InputError(
            "an adapter, not a model", "give the model that it was trained from, and the adapter beside it", path
        )
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None) or 0
    heads = getattr(model.config.get_text_config(), "num_nextn_predict_layers", None) or 0
    unused = [MTP, TOWERS, BUFFERS, *(rf"(model\.)?(language_model\.)?layers\.{layers + i}\." for i in range(heads))]
    if kind == REWARD_MODEL:
        unused.append(r"lm_head\.")  # of the language model that it was made from; its own head is `score`
    allowed = {name for name in found["unexpected_keys"] if re.match("|".join(unused), name)}
    shapes = [f"{name} {[*there]} instead of {[*needed]}" for name, there, needed in found["mismatched_keys"]]
    remedy = f"give the files as transformers saves a {type(model).__name__}, with their names and its config.json" + (
        ": a reward model has its head among them" if kind == REWARD_MODEL else ""
    )
    check_names("model", path, found["missing_keys"], found["unexpected_keys"] - allowed, remedy, shapes)
    # The class itself ignores some without a warning.
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    if ignored:
        own = set(model.state_dict())
        ignored = re.compile("|".join(f"({pattern})" for pattern in ignored))
        allowed |= {name for name in read_headers(path, revision) if name not in own and ignored.search(name)}
    # Recorded in the manifest, with * for numbers.
    UNUSED_WEIGHTS[str(path)] = dict(
        sorted(Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in allowed).items())
    )


def check_names(
    what: str,
    path: str | Path,
    missing: Collection[str],
    unexpected: Collection[str],
    remedy: str,
    shapes: Collection[str] = (),
) -> None:
    """Raises InputError where there are names of missing or unexpected weights, or of some with other shapes.

    ``what``: "model" or "adapter".
    """
    problems = {
        f"weights that the {what} needs are not in the file": missing,
        f"weights in the file have another shape than the {what}'s": shapes,
        f"weights in the file fit nothing in the {what}": unexpected,
    }
    said = [f"{problem}: {name_some(names)}" for problem, names in problems.items() if names]
    if said:
        raise InputError("; ".join(said), remedy, path)


def name_some(names: Iterable[str]) -> str:
    """The first few, in the order of their numbers, and how many."""
    names = sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more ({len(names)})" if len(names) > SHOWN else "")


def check_finite(path: str | Path, weights: "Iterable[tuple[str, torch.Tensor]]") -> None:
    """Raises InputError where any of the weights, (name, tensor), holds a value that is not finite."""
    import torch

    kinds = (torch.float32, torch.bfloat16, torch.float16)
    # A sum is not finite where one of its terms is not, and needs no second copy of the weights.
    wrong = [
        name
        for name, weight in weights
        if weight.dtype in kinds and weight.device.type != "meta"
        and not weight.detach().sum(dtype=torch.float32).isfinite()
    ]  # fmt: skip
    if wrong:
        raise InputError(
            f"weights are not finite numbers: {name_some(wrong)}",
            "download the files again, or choose another dtype",
            path,
        )


def read_headers(path: str | Path, revision: str | None = None) -> "dict[str, torch.Tensor]":
    """{name: tensor on the meta device, of the shape in the file} of a model's safetensors files.

    Of files that are not on this machine only the headers are read, from the hub, unless HF_HUB_OFFLINE is set.
    """
    import torch
    from huggingface_hub import is_offline_mode
    from safetensors import safe_open

    if not has_weights(path, revision) and not is_offline_mode():
        return read_hub_headers(str(path), revision)
    tensors = {}
    for file in find_weights(path, revision):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (no dict)
                tensors[name] = torch.empty(opened.get_slice(name).get_shape(), device="meta")
    return tensors


def find_weights(path: str | Path, revision: str | None = None) -> list[str]:
    """The safetensors files of a model, in a local folder or the hub's cache; fetched if they are not there."""
    from transformers.utils import cached_file

    whole = cached_file(path, WHOLE, revision=revision, _raise_exceptions_for_missing_entries=False)
    if whole:
        return [whole]
    index = cached_file(path, INDEX, revision=revision)
    return [cached_file(path, name, revision=revision) for name in read_index(index)]


def has_weights(path: str | Path, revision: str | None = None) -> bool:
    """Whether all weights of a model are on this machine: a local folder, or all files in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    def is_cached(name: str) -> bool:
        return isinstance(try_to_load_from_cache(str(path), name, revision=revision), str)

    if Path(path).is_dir() or is_cached(WHOLE):
        return True
    index = try_to_load_from_cache(str(path), INDEX, revision=revision)
    return isinstance(index, str) and all(map(is_cached, read_index(index)))


def read_index(path: str | Path) -> list[str]:
    """The names of the files that an index of safetensors files lists."""
    with open(path, encoding="utf-8") as index:
        return sorted(set(json.load(index)["weight_map"].values()))


def read_hub_headers(path: str, revision: str | None = None) -> "dict[str, torch.Tensor]":
    """As read_headers, by range requests to the hub.

    Raises InputError where the hub cannot be reached, or has no complete safetensors files of the model.
    """
    import torch
    from huggingface_hub import get_safetensors_metadata
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HTTPError,
        NotASafetensorsRepoError,
        SafetensorsParsingError,
    )

    try:
        sizes = list_hub_files(path, revision)
        found = get_safetensors_metadata(path, revision=revision)
    except (NotASafetensorsRepoError, SafetensorsParsingError, EntryNotFoundError) as error:
        raise InputError(f"the weights on the hub cannot be read: {error}", CHOOSE_COMPLETE, path) from error
    except HTTPError as error:
        if isinstance(error, HfHubHTTPError):  # an answer of the hub
            raise
        remedy = f"run where the hub can be reached: {STAGE}"
        raise InputError(f"the weights are not here, and the hub does not answer: {error}", remedy, path) from error
    check_hub_sizes(path, sizes, found.files_metadata)
    return {
        name: torch.empty(tensor.shape, device="meta")
        for file in found.files_metadata.values()
        for name, tensor in file.tensors.items()
    }


def list_hub_files(path: str, revision: str | None = None) -> dict[str, int]:
    """{name: bytes} of the safetensors files of a model on the hub; raises InputError where its index lists others."""
    from huggingface_hub import RepoFile, get_paths_info, hf_hub_download

    def list_sizes(names: list[str]) -> dict[str, int]:
        files = get_paths_info(path, names, revision=revision)
        return {file.path: file.size for file in files if isinstance(file, RepoFile)}

    top = list_sizes([WHOLE, INDEX])
    if WHOLE in top or INDEX not in top:
        return {name: size for name, size in top.items() if name == WHOLE}
    needed = read_index(hf_hub_download(path, INDEX, revision=revision))
    sizes = list_sizes(needed)
    absent = set(needed) - set(sizes)
    if absent:
        problem = (
            f"the weights on the hub are incomplete: its {INDEX} lists {name_some(absent)}, and the repository lacks "
        )
        raise InputError(problem + ("this file" if len(absent) == 1 else "these files"), CHOOSE_COMPLETE, path)
    return sizes


def check_hub_sizes(path: str, sizes: dict[str, int], headers: "dict[str, SafetensorsFileMetadata]") -> None:
    """Raises InputError where files on the hub are smaller than their headers say, as after a broken upload.

    ``sizes``: {name: bytes}; ``headers``: {name: parsed header}.
    """
    short = [
        f"{name} ({sizes[name]:,} bytes, and its header says {count_bytes(header):,})"
        for name, header in headers.items()
        if sizes[name] < count_bytes(header)
    ]
    if short:
        problem = f"the weights on the hub are incomplete, these files are cut off: {name_some(short)}"
        raise InputError(problem, CHOOSE_COMPLETE, path)


def count_bytes(header: "SafetensorsFileMetadata") -> int:
    """Bytes of a complete safetensors file at least: without spaces that its header may have."""
    entries = {
        name: {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": tensor.data_offsets}
        for name, tensor in header.tensors.items()
    }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
    end = max((tensor.data_offsets[1] for tensor in header.tensors.values()), default=0)
    return LENGTH_BYTES + len(text.encode()) + end


def copy_processors(path: str | Path, folder: str | Path, revision: str | None = None) -> None:
    """Puts the files of PROCESSORS that a model has into the folder of one made from it."""
    from transformers.utils import cached_file

    for name in PROCESSORS:
        file = cached_file(path, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if file:
            shutil.copyfile(file, Path(folder) / name)


@contextmanager
def engine_options_refused(path: str | Path, options: dict | None) -> Iterator[None]:
    """Turns the TypeError for an option that the model's class does not know into an InputError."""
    try:
        yield
    except TypeError as error:
        if not options or not any(name in str(error) for name in options):
            raise
        raise InputError(
            f"the model does not take the options {', '.join(options)}: {error}",
            "give options of transformers' from_pretrained; those of vLLM go with engine: vllm",
            path,
            field="engine_options",
        ) from error


@contextmanager
def quiet_reports() -> Iterator[None]:
    """Without transformers' progress bars and its table of unloaded weights, which an error or the manifest reports."""
    import logging

    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    def keep(record: "logging.LogRecord") -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


@contextmanager
def model_errors(path: str | Path) -> Iterator[None]:
    """Turns the libraries' errors about a model that cannot be loaded into an InputError with the model and the remedy."""
    try:
        yield
    except Exception as error:
        from huggingface_hub.errors import GatedRepoError
        from safetensors import SafetensorError

        # transformers' and PEFT's loaders raise a bare RuntimeError. torch's own, such as a full GPU, pass through.
        wrong_weights = isinstance(error, RuntimeError) and re.search(
            r"loading state_dict|conversion of the weights", str(error)
        )
        if not (wrong_weights or isinstance(error, OSError | ValueError | ImportError | SafetensorError)):
            raise

        remedy = "check the path or hub id and revision, that weights (safetensors) and tokenizer are there, and access to a gated model"
        if any(isinstance(cause, GatedRepoError) for cause in (error, error.__cause__, error.__context__)):
            remedy = ACCEPT_LICENCE
        elif isinstance(error, ImportError):  # the model's class, or its own code, needs a further package
            remedy = "install the package that the message names, or choose another model"
        raise InputError(f"the model cannot be loaded: {str(error).strip()}", remedy, path) from error
