"""TRL's trainer of each objective, as the recipe asks for it."""

import functools
import math
from argparse import Namespace
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from croco.errors import InputError
from croco.training.by_rows import ByRows, with_row_numbers
from croco.training.policy import still_reference
from croco.training.recipe import count_generation_batch
from croco.training.resume import WORLD, Progress

if TYPE_CHECKING:
    from croco.training.policy import Tuned

# TRL adds the load-balancing loss of a mixture of experts by the model's own coefficient, whatever the objective is. The
# routers are frozen, so that it would only move the adapter.
NO_AUXILIARY_LOSS = {"router_aux_loss_coef": 0.0}


class SFTByRows(ByRows, SFTTrainer):
    """SFT on completions."""


class DPOByRows(ByRows, DPOTrainer):
    """DPO on pairs."""


def make_trainer(
    job: Namespace,
    tuned: "Tuned",
    tokenizer: PreTrainedTokenizerBase,
    stops: list[int],
    training: Dataset,
    validation: Dataset,
    progress: Progress,
    callback: TrainerCallback,
) -> Trainer:
    """The trainer of the job's objective, whose rows ``progress`` counts; the reference is the policy as it starts.

    Args:
        stops: ids of the stop tokens; training, validation: examples of encode_rows, the latter possibly empty.
    """
    settings = describe_settings(job, len(training), len(validation) > 0)
    parts = {
        "model": tuned.model,
        "processing_class": tokenizer,
        "train_dataset": training,
        # The rows of a validation are not counted.
        "eval_dataset": validation.remove_columns("row") if len(validation) else None,
        "peft_config": tuned.lora,
        "callbacks": [callback],
        "progress": progress,
    }
    trainer = TRAINERS[job.objective](job, tuned, tokenizer, stops, settings, parts)
    still_reference(trainer.model)
    trainer.data_collator = with_row_numbers(trainer.data_collator)
    trainer.remove_callback(PrinterCallback)
    return trainer


def describe_settings(job: Namespace, rows: int, validated: bool) -> dict[str, Any]:
    """What the TRL configs of all objectives are given."""
    settings = {
        "output_dir": str(job.folder),
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": job.schedule,
        "warmup_steps": count_warmup(job, rows),
        "num_train_epochs": job.epochs,
        "weight_decay": job.weight_decay,
        "per_device_train_batch_size": job.micro_batch,
        "per_device_eval_batch_size": 1,  # the validation loss is the mean over rows
        "gradient_accumulation_steps": job.batch // (job.micro_batch * WORLD),
        "max_length": None,  # nothing is cut silently: all rows fit
        "remove_unused_columns": False,
        "seed": job.seed,
        "bf16": job.dtype == "bfloat16",
        "fp16": job.dtype == "float16",
        "gradient_checkpointing": {"always": True, "never": False, "auto": torch.cuda.is_available()}[
            job.checkpointing
        ],
        "optim": job.optimizer,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_steps": job.save_every,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
    }
    if validated:
        settings |= {"eval_strategy": "steps", "eval_steps": job.save_every, "metric_for_best_model": "eval_loss"}
        settings |= {"greater_is_better": False, "load_best_model_at_end": job.checkpoint == "best"}
    return settings


def count_warmup(job: Namespace, rows: int) -> int:
    """Steps of warm-up: a share of all steps, rounded up as transformers does, but not all of them: a training of one step
    would learn nothing.

    Raises InputError where a number of steps leaves none at the full learning rate.
    """
    steps = math.ceil(job.epochs * math.ceil(rows / job.batch))
    if job.warmup < 1:
        return min(math.ceil(job.warmup * steps), steps - 1)
    if job.warmup >= steps and job.schedule != "constant":
        raise InputError(
            f"the training has {steps} steps, and its warm-up {job.warmup:g}: it would not reach its learning rate",
            "give a share of the steps, such as 0.05, or train on more rows",
            field="warmup",
        )
    return int(job.warmup)


def on_one_device(config: TrainingArguments) -> TrainingArguments:
    """The config, for which transformers would otherwise spread each batch over all GPUs that a process can see."""
    config._n_gpu = min(config.n_gpu, 1)
    return config


def make_sft_trainer(
    job: Namespace,
    tuned: "Tuned",
    tokenizer: PreTrainedTokenizerBase,
    stops: list[int],
    settings: dict[str, Any],
    parts: dict[str, Any],
) -> Trainer:
    """SFT on completions; ``settings`` of describe_settings, ``parts`` of make_trainer."""
    return SFTByRows(args=on_one_device(SFTConfig(**NO_AUXILIARY_LOSS, **settings)), **parts)


def make_dpo_trainer(
    job: Namespace,
    tuned: "Tuned",
    tokenizer: PreTrainedTokenizerBase,
    stops: list[int],
    settings: dict[str, Any],
    parts: dict[str, Any],
) -> Trainer:
    """DPO on pairs; ``settings`` of describe_settings, ``parts`` of make_trainer."""
    config = DPOConfig(
        beta=job.beta,
        loss_type=job.loss,
        label_smoothing=job.label_smoothing,
        disable_dropout=False,  # TRL's default would silently switch LoRA's dropout off
        **NO_AUXILIARY_LOSS,
        **settings,
    )
    return DPOByRows(args=on_one_device(config), ref_model=tuned.reference, **parts)


def make_online_trainer(
    job: Namespace,
    tuned: "Tuned",
    tokenizer: PreTrainedTokenizerBase,
    stops: list[int],
    settings: dict[str, Any],
    parts: dict[str, Any],
) -> Trainer:
    """Online DPO: two responses per prompt, sampled as the policy's row says; the one with the better reward is chosen.

    Raises InputError where the reward model cannot be loaded.
    """
    # Here, because importing it warns that it is experimental.
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    from croco.models.transformers_engine import RewardModel
    from croco.training.online_pairs import OnlinePairs

    class OnlineDPOByRows(OnlinePairs, ByRows, OnlineDPOTrainer):
        """Online DPO on prompts."""

    scorer = RewardModel(**job.reward, batch=2 * job.micro_batch)
    if job.template_options:  # TRL passes none on
        tokenizer.apply_chat_template = functools.partial(tokenizer.apply_chat_template, **job.template_options)
    config = OnlineDPOConfig(
        **{**settings, "max_length": job.max_length},  # all prompts were checked to fit with an answer
        beta=job.beta,
        loss_type=job.loss,
        disable_dropout=False,
        temperature=job.temperature,
        top_p=job.top_p,
        top_k=0,
        max_new_tokens=job.max_tokens,
        # Gradient checkpointing would switch the cache off while responses are sampled.
        generation_kwargs={"use_cache": True, "eos_token_id": sorted(stops)},
    )
    return OnlineDPOByRows(
        args=on_one_device(config),
        ref_model=tuned.reference,
        reward_funcs=scorer.score,  # TRL asks for one; step_by_rows calls it
        scorer=scorer,
        stops=stops,
        generation_batch=count_generation_batch(vars(job), WORLD),
        **parts,
    )


# By objective (croco/objectives.py).
TRAINERS = {"sft": make_sft_trainer, "dpo": make_dpo_trainer, "online_dpo": make_online_trainer}


def check_trainer(job: Namespace, trainer: Trainer) -> None:
    """Raises RuntimeError where the trainer's effective batch is not the config's."""
    batch = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size
    if batch != job.batch:
        raise RuntimeError(f"the effective batch is {batch}, not {job.batch}")
