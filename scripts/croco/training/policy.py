"""The policy that is tuned: its vocabulary, its weights, its reference, and what an adapter reaches of it."""

import copy
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from croco.errors import InputError
from croco.models.chats import load_stops, load_tokenizer
from croco.models.loading import POLICY, load_adapter, load_weights, model_errors
from croco.models.lora import find_targets
from croco.objectives import OBJECTIVES
from croco.state import TOKENIZER_FILES


class Tuned(NamedTuple):
    """A policy to tune, and what comes with it."""

    model: PreTrainedModel | PeftModel
    reference: PreTrainedModel | None  # None where switching the adapter off, or TRL's copy of it, gives the reference
    lora: LoraConfig | None  # of an adapter that the trainer is to add
    adapted: dict[str, str]  # {module that an adapter reaches: its kind}
    spared: dict[str, int]  # {kind: number} of the projections that no adapter reaches
    # The policy's own: trainers write the tokenizer's special tokens into the model's, the checkpoint keeps these.
    generation_config: GenerationConfig


def load_vocabulary(job: Namespace) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """(tokenizer with a pad token, ids of the stop tokens).

    Raises InputError for a tokenizer that cannot be loaded or saved, and where nothing ends an answer.
    """
    with model_errors(job.model):
        tokenizer = load_tokenizer(job.model, job.revision, job.trust_remote_code, job.template_options)
        stops = load_stops(job.model, tokenizer, job.revision, job.trust_remote_code)
    if not stops or tokenizer.eos_token is None:
        raise InputError(
            "the tokenizer has no end-of-sequence token" if stops else "the model has no stop token",
            "name one: eos_token in tokenizer_config.json, eos_token_id in generation_config.json",
            job.model,
        )
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        missing = [name for name in TOKENIZER_FILES if not Path(folder, name).exists()]
    if missing:
        raise InputError(
            f"the tokenizer is saved without {missing[0]}", "use one that transformers can save as a fast tokenizer", job.model
        )  # fmt: skip
    if tokenizer.pad_token is None:
        # Padding is masked in attention and loss, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, stops


def find_base(model: torch.nn.Module) -> torch.nn.Module:
    """The model without its adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def load_policy(job: Namespace) -> Tuned:
    """The policy to tune; sets ``job.lora_targets`` to the pattern that is used, for the manifest.

    Raises InputError where the model cannot be loaded, or the pattern or the adapter to start from does not fit.
    """

    def load(dtype: str) -> "PreTrainedModel":
        model = load_weights(POLICY, job.model, job.revision, dtype, job.trust_remote_code)
        still(model)
        return model

    if job.weights == "full":
        # Steps of 5e-6 vanish in bfloat16: the weights that are tuned are in float32, forward passes in job.dtype.
        # The reference too, or rounding alone would tell the two apart.
        model, reference = load(torch.float32), load(torch.float32) if OBJECTIVES[job.objective].has_reference else None
        freeze_beyond_text(model)
        return Tuned(model, reference, None, {}, {}, copy.deepcopy(model.generation_config))
    model = load(job.dtype)
    job.lora_targets, adapted, spared = find_targets(model, job.lora_targets, job.lora_coverage, job.model)
    if job.start:
        # TRL keeps a frozen copy of the adapter as the reference.
        model, lora = load_adapter(model, job.start, trainable=True), None
        check_adapter(job, model, adapted)
    else:
        lora = LoraConfig(
            r=job.lora_r,
            lora_alpha=job.lora_alpha,
            lora_dropout=job.lora_dropout,
            target_modules=job.lora_targets,
            task_type="CAUSAL_LM",
        )
    return Tuned(model, None, lora, adapted, spared, copy.deepcopy(model.generation_config))


def check_adapter(job: Namespace, model: PeftModel, adapted: Iterable[str]) -> None:
    """Raises InputError where the adapter to start from was made by another recipe."""
    config = model.peft_config["default"]
    values = {"lora_r": config.r, "lora_alpha": config.lora_alpha, "lora_dropout": config.lora_dropout}
    for name, value in values.items():
        if value != getattr(job, name):
            raise InputError(
                f"the adapter to start from has {value}, the recipe {getattr(job, name)}",
                "use one recipe for all rounds",
                job.start,
                field=name,
            )
    if list_adapted(model) != set(adapted):
        raise InputError(
            "the adapter to start from adapts other modules than the recipe",
            "use one recipe for all rounds",
            job.start,
            field="lora_targets",
        )


def list_adapted(model: PeftModel) -> set[str]:
    """Names of the modules that have an adapter, as the model without it names them."""
    return {name for name, module in model.get_base_model().named_modules() if isinstance(module, LoraLayer)}


def still(model: torch.nn.Module) -> None:
    """Takes a model's own dropout out, that some have in their attention: only the adapter's is asked for.

    The reference is the same model in training mode. Two draws of dropout would tell the two apart.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)


def freeze_beyond_text(model: PreTrainedModel) -> None:
    """Keeps the weights that no text passes through, such as a vision tower's, out of a training of all weights.

    They get no gradient, so nothing tunes them, and they are not to be counted as tuned.
    """
    decoder = model.get_decoder()
    if decoder is None:  # the model is nothing else
        return
    text = {id(weight) for part in (decoder, model.get_output_embeddings()) for weight in part.parameters()}
    for weight in model.parameters():
        weight.requires_grad_(id(weight) in text)


def fit_padding(tokenizer: PreTrainedTokenizerBase, model: "PreTrainedModel") -> None:
    """Pads with the end-of-sequence token where the padding token has no embedding in the model."""
    if tokenizer.pad_token_id >= model.get_input_embeddings().num_embeddings:
        tokenizer.pad_token = tokenizer.eos_token


def still_reference(model: torch.nn.Module) -> None:
    """Takes the dropout out of the reference's adapter, which is in training mode like all of the model."""
    for module in model.modules():
        if "ref" in getattr(module, "lora_dropout", ()):
            module.lora_dropout["ref"] = torch.nn.Identity()


def check_tuned(job: Namespace, tuned: Tuned, model: torch.nn.Module) -> None:
    """Raises RuntimeError where the adapter of a trainer's model is not what the config says."""
    if job.weights == "full":
        return
    if list_adapted(model) != set(tuned.adapted):
        raise RuntimeError("the adapter was put to other modules than the pattern names")
    dropouts = (module for name, module in model.named_modules() if ".lora_dropout.default" in name)
    rates = {module.p for module in dropouts if hasattr(module, "p")}
    if job.lora_dropout and rates != {job.lora_dropout}:
        raise RuntimeError(f"LoRA's dropout is {rates}, not {job.lora_dropout}")


def describe_tuned(job: Namespace, tuned: Tuned, model: torch.nn.Module) -> dict:
    """Facts for the manifest: how many parameters are tuned; with LoRA, which kinds of modules are adapted or spared."""
    facts = {"trainable_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad)}
    if job.weights == "full":
        return facts
    adapted = dict(sorted(Counter(tuned.adapted.values()).items()))
    return {**facts, "adapted": adapted, "not_adapted": tuned.spared}


def check_weights(job: Namespace, model: torch.nn.Module) -> None:
    """Raises InputError where the tuned weights are not all finite."""
    tuned = (weight for name, weight in model.named_parameters() if job.weights == "full" or "lora_" in name)
    if not all(torch.isfinite(weight).all() for weight in tuned):
        raise InputError(
            "the training diverged: the tuned weights hold values that are not finite",
            "lower the learning rate; look at metrics.jsonl for the step",
            job.folder / "metrics.jsonl",
        )
