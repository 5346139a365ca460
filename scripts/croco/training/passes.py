"""Checks of a model's forward passes before the first step of its training.

A training compares log-probabilities of a policy with those of its reference. They must be the model's own, however the
trainer computes them, and without randomness that is not asked for.
"""

from argparse import Namespace
from typing import TYPE_CHECKING

import torch
from accelerate.utils.memory import should_reduce_batch_size

from croco.errors import InputError
from croco.models.chats import encode_prompt
from croco.training.policy import find_base

if TYPE_CHECKING:
    from transformers import Trainer

# Of the first rows, joined to one sequence. Many, because not every draw of a model changes its logits; and not more,
# because these passes hold logits, which no step of most trainings does.
TOKENS = 256
# Rounding of a logit, relative to it: bfloat16 has 8 significant bits; float16 has 11, and so has TF32, in which a GPU may
# multiply float32.
ROUNDING, BFLOAT16_ROUNDING = 2.0**-10, 2.0**-7
REMEDY = "tune another policy, whose class works with TRL's loss and that needs no randomness of its own"


def check_passes(job: Namespace, trainer: "Trainer") -> None:
    """Raises InputError for a model whose passes are not fit for the trainer, by those over the job's first rows.

    Draws random numbers where the model does, and leaves the model as it was.
    """
    model = trainer.model
    device = next(model.parameters()).device
    ids = torch.tensor([read_first_rows(trainer, min(TOKENS, job.max_length))], device=device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    modes = {module: module.training for module in model.modules()}
    try:
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):  # the adapter's is asked for, and the model's own has the rate 0
                module.eval()
        with torch.no_grad(), trainer.accelerator.autocast():
            logits = check_randomness(job, model, inputs)
            if "forward" in vars(find_base(model)):  # as TRL's add_fused_lm_head leaves it; other trainers read logits
                check_fused_head(job, model, inputs, logits)
    finally:
        for module, mode in modes.items():
            module.training = mode


def read_first_rows(trainer: "Trainer", length: int) -> list[int]:
    """Token ids of the first rows to train on, ``length`` at most."""
    ids: list[int] = []
    for row in trainer.train_dataset:
        if "prompt" in row:
            ids += encode_prompt(trainer.processing_class, row["prompt"])
        else:
            ids += row["input_ids"] if "input_ids" in row else row["prompt_ids"] + row["chosen_ids"]
        if len(ids) >= length:
            break
    return ids[:length]


def check_randomness(job: Namespace, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of a pass in training mode, (1, tokens, vocabulary); raises InputError where a second pass has others.

    Passes that draw no random numbers may differ by the rounding of a GPU's sums, and are not compared.
    """
    before = read_random_state(inputs["input_ids"].device)
    logits = model(**inputs).logits
    if not torch.equal(before, read_random_state(inputs["input_ids"].device)):
        change = (model(**inputs).logits - logits).abs().max().item()
        if change != 0:
            raise InputError(
                f"{name_class(model)} draws random numbers in training, beside the adapter's dropout: two passes over "
                f"the same rows differ by up to {change:.2g} in its logits, and so would the policy from its own reference",
                REMEDY,
                job.model,
            )
    return logits


def read_random_state(device: torch.device) -> torch.Tensor:
    """The state of torch's generators, on the CPU and on the device."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)


def check_fused_head(
    job: Namespace, model: torch.nn.Module, inputs: dict[str, torch.Tensor], logits: torch.Tensor
) -> None:
    """Raises InputError where TRL, which computes log-probabilities without logits, does not get those of the logits.

    It reads from the config how a model scales its logits, and knows the names that some classes use.
    """
    labels = inputs["input_ids"]
    try:
        found = model(**inputs, labels=labels, fused_lm_head=True).log_probs
    except Exception as error:
        if should_reduce_batch_size(error):
            raise
        raise InputError(
            f"TRL cannot compute the log-probabilities of {name_class(model)}: {type(error).__name__}: {error}",
            REMEDY,
            job.model,
        ) from error
    logits = logits[:, :-1].float()
    expected = logits.log_softmax(-1).gather(2, labels[:, 1:, None])[..., 0]
    change = (found.float() - expected).abs().mean().item()  # nats per token
    # On average each of the two paths rounds the label's logit and the largest ones by half of this at most.
    rounding = BFLOAT16_ROUNDING if job.dtype == "bfloat16" else ROUNDING
    if not change <= rounding * logits.abs().amax(-1).mean().item():
        raise InputError(
            f"TRL's log-probabilities of {name_class(model)} differ from those of its logits by {change:.2g} nats per "
            "token: TRL does not know how this class scales its logits",
            REMEDY,
            job.model,
        )


def name_class(model: torch.nn.Module) -> str:
    """The class of the model without its adapter."""
    return type(find_base(model)).__name__
