"""One process of a training: what scripts/train.py starts, once for each GPU.

  python -m croco.training JOB.json

The job is that of scripts/train.py's command line, with `folder` (what resumes it) and `saving` (the finished
checkpoint). With several processes to start, it starts itself again in each, by torchrun. A failure that has a name is
left in FOLDER/failure.json for the starter, which alone tells of it: {problem}, or {out_of_memory}.
"""

import ctypes
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from croco import cli
from croco.chats import load_stops, load_tokenizer, model_errors
from croco.checkpoints import RANK, WORLD, Progress, newest_whole_checkpoint, remove_after
from croco.examples import encode_rows, hold_out, read_rows
from croco.guards import Guards
from croco.records import InputError, dump, write_json, write_jsonl
from croco.store import TOKENIZER_FILES
from croco.text import is_blank

# In what a disk that is full, or a quota, shows itself while torch and safetensors write.
DISK_FULL = re.compile(
    r"No space left|File too large|quota exceeded|PytorchStreamWriter failed|inline_container.*unexpected pos|os error 2[78]",
    re.I,
)
NO_METRICS = re.compile(r"num_tokens$|^objective/(kl|entropy|non_score_reward|rlhf_reward)$|_runtime$|_per_second$")


def main():
    die_with_parent()
    job = read_job(sys.argv[1])
    try:
        launch(job) if job.processes > 1 and "RANK" not in os.environ else train(job)
    except Exception as error:
        report_failure(job, error)
        if (job.folder / "failure.json").exists():
            sys.exit(1)
        raise


def launch(job):
    """Runs this module in the job's processes, until all or the first that fails have ended."""
    from torch.distributed import run

    os.environ["CROCO_PARENT"] = str(os.getpid())
    run.main(["--standalone", "--nproc-per-node", str(job.processes), "-m", "croco.training", sys.argv[1]])


def die_with_parent():
    """No process of a training outlives its starter (Linux), or a second start would meet it at work."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if str(os.getppid()) != os.environ.get("CROCO_PARENT", str(os.getppid())):
            os._exit(1)  # it died before this process could ask to be told


def read_job(path):
    job = Namespace(**json.loads(Path(path).read_text(encoding="utf-8")))
    for name in ("data", "folder", "saving", "start"):
        setattr(job, name, getattr(job, name) and Path(getattr(job, name)))
    return job


def report_failure(job, error):
    """Leaves the reason where the starter looks; an error without a name ends in its traceback alone."""
    from accelerate.utils.memory import should_reduce_batch_size

    if should_reduce_batch_size(error):
        failure = {"out_of_memory": str(error)}
    elif isinstance(error, InputError):
        failure = {"problem": str(error)}
    elif DISK_FULL.search(str(error)):
        failure = {
            "problem": f"{error}\n  Remedy: free or get space and start again: it resumes from its last checkpoint"
        }
    else:
        return
    write_json(job.folder / "failure.json", failure)


def train(job):
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))  # before anything else opens the first one
    if job.processes != WORLD:
        raise RuntimeError(f"{WORLD} processes were started, not {job.processes}")
    tokenizer, stops = load_vocabulary(job)
    examples, counts = encode_rows(
        cli.progress(read_rows(job.data, job.objective), desc="tokenise", unit="row", disable=RANK > 0),
        job.objective,
        tokenizer,
        stops,
        job.max_length,
        job.too_long,
        job.template_options,
        job.max_tokens,
    )
    check_examples(job, examples, counts)
    training, validation = hold_out(examples, job.validation, job.seed)
    progress = Progress(job)
    guards = Guards(**job.guards)
    trainer = make_trainer(job, tokenizer, training, validation, progress, guards)
    check_trainer(job, trainer)
    checkpoint = newest_whole_checkpoint(job.folder)
    trainer.accelerator.wait_for_everyone()
    if RANK == 0:
        remove_after(checkpoint, job.folder)
        print(f"resuming from {checkpoint}" if checkpoint else "training from the start", file=sys.stderr)
    progress.resume(checkpoint)
    # Constructing the trainer draws random numbers; from here on they follow from the seed alone.
    torch.manual_seed(job.seed)
    result = trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    if guards.problem:
        raise guards.problem
    check_weights(job, trainer)
    facts = progress.close(trainer, result)
    save(
        job,
        trainer,
        tokenizer,
        {"counts": {**counts, "validation": len(validation), "steps": result.global_step}, **facts},
    )


def load_vocabulary(job):
    """(tokenizer with a pad token, ids of the stop tokens)."""
    with model_errors(job.model):
        tokenizer = load_tokenizer(job.model, job.revision, job.trust_remote_code)
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


def check_examples(job, examples, counts):
    dropped = ", ".join(f"{reason} {count}" for reason, count in counts["dropped"].items()) or "none"
    if len(examples) < max(2, WORLD):
        raise InputError(
            f"{len(examples)} of {counts['rows']} rows are left to train on (dropped: {dropped}), in {WORLD} processes",
            "raise max_length, give more rows, or ask for fewer GPUs",
            job.data,
        )
    if RANK == 0:
        print(f"{counts['rows']} rows, {len(examples)} to train on; dropped: {dropped}", file=sys.stderr)
        if counts["truncated"]:
            print(f"{counts['truncated']} rows cut to {job.max_length} tokens", file=sys.stderr)
        if counts["token_mismatches"]:
            print(
                f"warning: of {counts['compared']} answers {counts['token_mismatches']} are trained on in other tokens "
                "than were sampled: see the chat template's report",
                file=sys.stderr,
            )
        if len(examples) < job.batch:
            print(f"warning: a step has {len(examples)} rows, fewer than the batch of {job.batch}", file=sys.stderr)


def make_trainer(job, tokenizer, training, validation, progress, guards):
    """TRL's trainer of the objective, with the rows of Progress counted; the reference is the policy as it starts."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    model, reference, lora = load_policy(job)
    common = {
        "output_dir": str(job.folder),
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": job.schedule,
        "warmup_steps": job.warmup,
        "num_train_epochs": job.epochs,
        "weight_decay": job.weight_decay,
        "per_device_train_batch_size": job.micro_batch,
        "per_device_eval_batch_size": job.micro_batch,
        "gradient_accumulation_steps": job.batch // (job.micro_batch * WORLD),
        "max_length": None,  # nothing is cut silently: all rows fit
        "remove_unused_columns": False,
        "seed": job.seed,
        "bf16": job.dtype == "bfloat16",
        "fp16": job.dtype == "float16",
        "gradient_checkpointing": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_steps": job.save_every,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
    }
    if validation:
        common |= {"eval_strategy": "steps", "eval_steps": job.save_every, "metric_for_best_model": "eval_loss"}
        common |= {"greater_is_better": False, "load_best_model_at_end": job.checkpoint == "best"}
    shared = {
        "model": model,
        "processing_class": tokenizer,
        "train_dataset": Dataset.from_list(training),
        "eval_dataset": Dataset.from_list([without_row(example) for example in validation]) if validation else None,
        "peft_config": lora,
        "callbacks": [live_metrics(job, progress, guards)],
    }
    if job.objective == "sft":
        trainer = count_rows(SFTTrainer, progress)(args=SFTConfig(**common), **shared)
    elif job.objective == "dpo":
        # TRL's default disable_dropout=True would silently switch LoRA's dropout off.
        loss = {
            "beta": job.beta,
            "loss_type": job.loss,
            "label_smoothing": job.label_smoothing,
            "disable_dropout": False,
        }
        trainer = count_rows(DPOTrainer, progress)(args=DPOConfig(**loss, **common), ref_model=reference, **shared)
    else:
        trainer = make_online_trainer(job, tokenizer, progress, reference, common, shared)
    still_reference(trainer.model)
    trainer.data_collator = with_row_numbers(trainer.data_collator)
    trainer.remove_callback(PrinterCallback)
    return trainer


def make_online_trainer(job, tokenizer, progress, reference, common, shared):
    """TRL's OnlineDPO: two responses a prompt, sampled as the policy's row says, the better rewarded one is chosen."""
    import functools

    from transformers import AutoModelForSequenceClassification
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    with model_errors(job.reward["model"]):
        scorer_tokenizer = load_tokenizer(job.reward["model"], job.reward["revision"], job.reward["trust_remote_code"])
        scorer = AutoModelForSequenceClassification.from_pretrained(
            job.reward["model"],
            revision=job.reward["revision"],
            dtype=job.reward["dtype"],
            trust_remote_code=job.reward["trust_remote_code"],
            use_safetensors=True,
        )
    if job.template_options:  # TRL passes none on
        tokenizer.apply_chat_template = functools.partial(tokenizer.apply_chat_template, **job.template_options)
    del common["max_length"]  # all prompts were checked to fit with an answer
    sampling = {"temperature": job.temperature, "top_p": job.top_p, "top_k": 0, "max_new_tokens": job.max_tokens}
    # Gradient checkpointing would switch the cache off while responses are sampled.
    sampling["generation_kwargs"] = {"use_cache": True}
    trainer = sample_as_offline(count_rows(OnlineDPOTrainer, progress))(
        args=OnlineDPOConfig(
            beta=job.beta, loss_type=job.loss, disable_dropout=False, max_length=job.max_length, **sampling, **common
        ),
        ref_model=reference,
        reward_funcs=scorer,
        reward_processing_classes=scorer_tokenizer,
        **shared,
    )
    # TRL 1.16 adds up the gradients of a step's micro-batches where its other trainers take their mean.
    backward = trainer.accelerator.backward
    trainer.accelerator.backward = lambda loss: backward(loss / trainer.current_gradient_accumulation_steps)
    return trainer


def sample_as_offline(trainer_class):
    """Online DPO whose responses are sampled without dropout, and where cut-off and empty ones lose, as hygiene has it."""

    class Sampling(trainer_class):
        def _generate(self, model, *args, **kwargs):
            model.eval()
            try:
                return super()._generate(model, *args, **kwargs)
            finally:
                model.train()

        def _calculate_rewards_from_functions(self, prompts, completions, completion_ids_list, **kwargs):
            rewards = super()._calculate_rewards_from_functions(prompts, completions, completion_ids_list, **kwargs)
            stops = set(self.eos_token_ids)
            for i, (completion, ids) in enumerate(zip(completions, completion_ids_list, strict=True)):
                if not stops & set(ids) or is_blank(completion[0]["content"]):
                    rewards[i] = rewards.min() - 1
            return rewards

    return Sampling


def load_policy(job):
    """(policy, its reference or None where switching the adapter off gives it, LoraConfig or None)."""
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import AutoModelForCausalLM

    def load(dtype):
        with model_errors(job.model):
            return AutoModelForCausalLM.from_pretrained(
                job.model,
                revision=job.revision,
                dtype=dtype,
                trust_remote_code=job.trust_remote_code,
                use_safetensors=True,
            )

    if job.weights == "full":
        # Steps of 5e-6 vanish in bfloat16: the weights that are tuned are in float32, forward passes in job.dtype.
        # The reference too, or rounding alone would tell the two apart.
        return load(torch.float32), load(torch.float32) if job.objective != "sft" else None, None
    if job.start:
        with model_errors(job.start):
            # TRL keeps a frozen copy of the adapter as the reference.
            model = PeftModel.from_pretrained(load(job.dtype), job.start, is_trainable=True)
        check_adapter(job, model.peft_config["default"])
        return model, None, None
    lora = LoraConfig(
        r=job.lora_r,
        lora_alpha=job.lora_alpha,
        lora_dropout=job.lora_dropout,
        target_modules=job.lora_targets,
        task_type="CAUSAL_LM",
    )
    model = load(job.dtype)
    if not any(re.fullmatch(job.lora_targets, name) for name, _ in model.named_modules()):
        raise InputError(
            f"no module of {job.model} has a name like {job.lora_targets}",
            "give a pattern of its attention and MLP projections",
            field="lora_targets",
        )
    return model, None, lora


def check_adapter(job, config):
    """Raises InputError where the adapter to go on from is not of the recipe's make."""
    pairs = {"lora_r": config.r, "lora_alpha": config.lora_alpha, "lora_dropout": config.lora_dropout}
    for name, value in {**pairs, "lora_targets": config.target_modules}.items():
        if value != getattr(job, name):
            raise InputError(
                f"the adapter to start from has {value}, the recipe {getattr(job, name)}",
                "use one recipe for all rounds",
                job.start,
                field=name,
            )


def check_trainer(job, trainer):
    """What the config says is what the trainer does, or the training does not start."""
    batch = (
        trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size
    )
    if batch != job.batch:
        raise RuntimeError(f"the effective batch is {batch}, not {job.batch}")
    rates = {module.p for name, module in trainer.model.named_modules() if ".lora_dropout.default" in name and hasattr(module, "p")}  # fmt: skip
    if job.weights == "lora" and job.lora_dropout and rates != {job.lora_dropout}:
        raise RuntimeError(f"LoRA's dropout is {rates}, not {job.lora_dropout}")


def check_weights(job, trainer):
    import torch

    tuned = (weight for name, weight in trainer.model.named_parameters() if job.weights == "full" or "lora_" in name)
    if not all(torch.isfinite(weight).all() for weight in tuned):
        raise InputError(
            "the training diverged: the tuned weights hold values that are not finite",
            "lower the learning rate; look at metrics.jsonl for the step",
            job.folder / "metrics.jsonl",
        )


def still_reference(model):
    """Takes the dropout out of the reference's adapter, which is in training mode like all of the model."""
    import torch

    for module in model.modules():
        if "ref" in getattr(module, "lora_dropout", ()):
            module.lora_dropout["ref"] = torch.nn.Identity()


def without_row(example):
    return {name: value for name, value in example.items() if name != "row"}


def with_row_numbers(collate):
    """The collator, with the rows' numbers beside what it makes of them."""
    import torch

    def collate_with_rows(examples):
        batch = collate(examples)
        if "row" in examples[0]:
            batch["row"] = torch.tensor([example["row"] for example in examples])
        return batch

    return collate_with_rows


def count_rows(trainer_class, progress):
    """A trainer that tells Progress which rows, and how many tokens, each training step really saw."""
    import torch

    class RowCounting(trainer_class):
        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset  # holds token ids already

        def training_step(self, model, inputs, *args, **kwargs):
            progress.count(inputs.pop("row"), inputs.get("attention_mask"))
            return super().training_step(model, inputs, *args, **kwargs)

        def evaluate(self, *args, **kwargs):
            with torch.random.fork_rng():  # how often is measured changes nothing of what is trained
                return super().evaluate(*args, **kwargs)

    return RowCounting


def live_metrics(job, progress, guards):
    """A callback with a progress bar that appends each step's metrics to a JSONL file as they come, and guards them.

    On resuming it drops what lies after the checkpoint.
    """
    from transformers import TrainerCallback

    path = job.folder / "metrics.jsonl"

    class LiveMetrics(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            entries = [plain(entry) for entry in state.log_history if "loss" in entry or "eval_loss" in entry]
            guards.start(state.max_steps, entries, job.beta, scaled=job.dtype == "float16")
            if RANK == 0:
                write_jsonl(path, entries)
                self.bar = cli.progress(total=state.max_steps, initial=state.global_step, desc="train", unit="step")

        def on_step_end(self, args, state, control, **kwargs):
            if job.validation and state.global_step >= state.max_steps:
                control.should_evaluate = True

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" not in logs and "eval_loss" not in logs:
                return
            entry = plain({**logs, "step": state.global_step})
            if RANK == 0:
                with open(path, "a", encoding="utf-8") as file:
                    file.write(dump(entry) + "\n")
                shown = {name: entry[name] for name in ("loss", "rewards_margins") if name in entry}
                self.bar.set_postfix(shown, refresh=False)
                self.bar.update(state.global_step - self.bar.n)
            if guards.look(entry):
                control.should_training_stop = True

        def on_save(self, args, state, control, **kwargs):
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if RANK == 0:
                # With the reference's adapter there, Trainer would resume from that one alone.
                shutil.rmtree(checkpoint / "ref", ignore_errors=True)
            progress.save(checkpoint)

        def on_train_end(self, args, state, control, **kwargs):
            if RANK == 0:
                self.bar.close()

    def plain(entry):
        return {
            re.sub(r"^(eval_)?(rewards|logps)/", r"\1\2_", name): value if math.isfinite(value) else None
            for name, value in sorted(entry.items())
            # TRL counts num_tokens anew when it resumes, and padding into these of online DPO; times are no metrics.
            if isinstance(value, int | float) and not NO_METRICS.search(name)
        }

    return LiveMetrics()


def save(job, trainer, tokenizer, facts):
    """Writes the finished checkpoint: adapter or full weights in one file, tokenizer, template, metrics, manifest."""
    if not trainer.is_world_process_zero():
        return
    shutil.rmtree(job.saving, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if job.weights == "full":
        import torch

        model.config.use_cache = True  # off while gradients are checkpointed
        model.to(getattr(torch, job.dtype)).save_pretrained(job.saving, max_shard_size="1000GB")
    else:
        model.save_pretrained(job.saving, selected_adapters=["default"])
    tokenizer.save_pretrained(job.saving)
    # As save_pretrained, but a model's own odd settings (a temperature without sampling) are not refused at the end.
    model.generation_config.to_json_file(job.saving / "generation_config.json", use_diff=True)
    shutil.copyfile(job.folder / "metrics.jsonl", job.saving / "metrics.jsonl")
    own = ("folder", "saving", "script", "reward", "identity", "rows_digest")
    options = Namespace(**{name: value for name, value in vars(job).items() if name not in own})
    inputs = {"data": job.data, "rows": job.rows_digest, "policy": job.identity}
    cli.write_manifest(job.saving / "manifest.json", Path(job.script), options, inputs, **facts)


if __name__ == "__main__":
    cli.run(main)
