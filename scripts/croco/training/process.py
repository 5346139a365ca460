"""One process of a training: what scripts/train.py starts, once for each GPU.

  python -m croco.training.process JOB.json

The job is that of scripts/train.py's command line, with `folder` (what resumes it) and `saving` (the finished
checkpoint). With several processes to start, it starts itself again in each, by torchrun. A failure that has a name is
left in FOLDER/failure.json for the starter, which alone tells of it: {problem}, or {out_of_memory}.
"""

import contextlib
import copy
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
from collections import Counter
from pathlib import Path

from croco import cli
from croco.errors import InputError
from croco.models.chats import load_stops, load_tokenizer
from croco.models.loading import POLICY, load_adapter, load_weights, model_errors
from croco.models.lora import find_targets
from croco.records import dump, write_json, write_jsonl
from croco.state import TOKENIZER_FILES
from croco.text.normalise import is_blank
from croco.training.encode import encode_rows, hold_out, read_rows
from croco.training.guards import Guards
from croco.training.resume import RANK, WORLD, Progress, newest_whole_checkpoint, remove_after

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
    run.main(["--standalone", "--nproc-per-node", str(job.processes), "-m", "croco.training.process", sys.argv[1]])


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
        job.loss_on,
    )
    check_examples(job, examples, counts)
    training, validation = hold_out(examples, job.validation, job.seed)
    progress = Progress(job)
    guards = Guards(**job.guards)
    trainer = make_trainer(job, tokenizer, stops, training, validation, progress, guards)
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
    facts = progress.close(trainer, result) | describe_adapted(job, trainer.model)
    if job.objective == "online_dpo":
        for name in ("no_pair", "no_reward"):
            counts[name] = sum(entry.get(name, 0) for entry in trainer.state.log_history)
    save(
        job,
        trainer,
        tokenizer,
        {"counts": {**counts, "validation": len(validation), "steps": result.global_step}, **facts},
    )


def load_vocabulary(job):
    """(tokenizer with a pad token, ids of the stop tokens)."""
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


def make_trainer(job, tokenizer, stops, training, validation, progress, guards):
    """TRL's trainer of the objective, with the rows of Progress counted; the reference is the policy as it starts."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    model, reference, lora, job.adapted = load_policy(job)
    # Trainers write the tokenizer's special tokens into the model's; the checkpoint keeps the policy's own.
    job.generation_config = copy.deepcopy(model.generation_config)
    common = {
        "output_dir": str(job.folder),
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": job.schedule,
        "warmup_steps": count_warmup(job, len(training)),
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
        trainer = make_online_trainer(job, tokenizer, stops, progress, reference, common, shared)
    still_reference(trainer.model)
    trainer.data_collator = with_row_numbers(trainer.data_collator)
    trainer.remove_callback(PrinterCallback)
    return trainer


def count_warmup(job, rows):
    """Steps of warm-up: a share of all steps, rounded up as transformers does, but not all of them: a training of one step
    would learn nothing."""
    steps = math.ceil(job.epochs * math.ceil(rows / job.batch))
    return int(job.warmup) if job.warmup >= 1 else min(math.ceil(job.warmup * steps), steps - 1)


def make_online_trainer(job, tokenizer, stops, progress, reference, common, shared):
    """TRL's OnlineDPO: two responses a prompt, sampled as the policy's row says, the better rewarded one is chosen."""
    import functools

    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    from croco.models.transformers_engine import RewardModel

    scorer = RewardModel(**job.reward, batch=2 * job.micro_batch)
    if job.template_options:  # TRL passes none on
        tokenizer.apply_chat_template = functools.partial(tokenizer.apply_chat_template, **job.template_options)
    del common["max_length"]  # all prompts were checked to fit with an answer
    sampling = {"temperature": job.temperature, "top_p": job.top_p, "top_k": 0, "max_new_tokens": job.max_tokens}
    # Gradient checkpointing would switch the cache off while responses are sampled.
    sampling["generation_kwargs"] = {"use_cache": True, "eos_token_id": sorted(stops)}
    trainer = pair_as_offline(count_rows(OnlineDPOTrainer, progress), scorer)(
        args=OnlineDPOConfig(
            beta=job.beta, loss_type=job.loss, disable_dropout=False, max_length=job.max_length, **sampling, **common
        ),
        ref_model=reference,
        reward_funcs=scorer.score,  # TRL asks for one; step_by_rows calls it
        **shared,
    )
    trainer.eos_token_ids = sorted(stops)  # TRL's are the generation config's alone
    return trainer


def pair_as_offline(trainer_class, scorer):
    """Online DPO that samples without dropout and forms its pairs as they are formed offline (``choose``).

    The step is this project's: TRL 1.16 adds up micro-batches where its other trainers take means, and pairs two answers
    of which neither came to its end. A prompt without a pair weighs in the step's mean, and adds nothing to it. Of the
    policy's own generation settings only the stop tokens take part; the checkpoint keeps all of them. Rewards are those
    of the stage of scores, by the same ``scorer`` (a RewardModel): an answer that it cannot score has none.
    """
    import torch
    from torch.nn.functional import logsigmoid

    from croco.models.transformers_engine import only_stops

    class Pairing(trainer_class):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.stats, self.sums = {}, {}  # TRL's are means of means

        def _generate(self, model, *args, **kwargs):
            policy = getattr(model, "module", model)  # within that of several processes
            policy = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
            own, policy.generation_config = policy.generation_config, only_stops(self.eos_token_ids)
            model.eval()
            try:
                return super()._generate(model, *args, **kwargs)
            finally:
                policy.generation_config = own
                model.train()

        def step_by_rows(self, model, inputs, own, left, *args, **kwargs):
            prompts = inputs["prompt"]
            count = len(prompts)
            *ids, vision = self._generate(model, prompts)
            completion_ids, completion_mask = ids[2:]
            policy = (self._forward(model, *ids, vision) * completion_mask).sum(1).view(2, count)
            with torch.no_grad(), contextlib.ExitStack() as without:
                if self.ref_model is None:
                    without.enter_context(self.model.disable_adapter())
                reference = self._forward(self.ref_model or self.model, *ids, vision)
            reference = (reference * completion_mask).sum(1).view(2, count)
            stop = torch.isin(completion_ids, torch.tensor(self.eos_token_ids, device=completion_ids.device))
            ended = stop.any(1).view(2, count)
            # A stop token is no part of the text, even where the tokenizer does not mark it special.
            answers = [
                row[mask].tolist() for row, mask in zip(completion_ids, completion_mask.bool() & ~stop, strict=True)
            ]
            texts = [self.processing_class.decode(answer, skip_special_tokens=True) for answer in answers]
            # Once for two equal answers, which neighbours in a batch could tell apart by their last bits.
            keys = [(i % count, text) for i, text in enumerate(texts)]
            once = list(dict.fromkeys(keys))
            known = dict(zip(once, scorer.score([(prompts[i], text) for i, text in once]), strict=True))
            scores = [math.nan if known[key][0] is None else known[key][0] for key in keys]
            rewards = torch.tensor(scores, dtype=torch.float64, device=ended.device).view(2, count)
            whole = ended & torch.tensor([not is_blank(text) for text in texts], device=ended.device).view(2, count)
            first, paired = choose(rewards, whole)
            real = torch.arange(count, device=ended.device) < own
            sides = torch.stack([~first, first]).long()  # which answer is chosen, which rejected
            chosen, rejected = policy.gather(0, sides)
            gains = (policy - reference).gather(0, sides)
            logits = gains[0] - gains[1]
            losses = (
                -logsigmoid(self.beta * logits)
                if self.args.loss_type == "sigmoid"
                else (logits - 1 / (2 * self.beta)) ** 2
            )
            paired &= real
            loss = (losses * paired).sum() * WORLD / self.step_rows
            gains, better = self.beta * gains.detach(), rewards.gather(0, sides)
            for name, values, mask in (
                ("objective/scores", rewards, real & rewards.isfinite()),
                ("objective/scores_margin", better[0] - better[1], paired),
                ("val/contain_eos_token", ended, real),
                ("logps/chosen", chosen, paired),
                ("logps/rejected", rejected, paired),
                ("rewards/chosen", gains[0], paired),
                ("rewards/rejected", gains[1], paired),
                ("rewards/margins", gains[0] - gains[1], paired),
                ("rewards/accuracies", gains[0] > gains[1], paired),
                ("no_pair", ~paired, real),
                ("no_reward", rewards.isnan(), real),
            ):
                mask = mask.expand_as(values)
                part = torch.stack([values.detach()[mask].double().sum(), mask.sum()])
                self.sums[name] = self.sums.get(name, 0) + part
            self.accelerator.backward(loss)
            return loss.detach()

        def log(self, logs, *args, **kwargs):
            if self.sums:
                totals = self.accelerator.reduce(torch.stack(list(self.sums.values())), "sum").tolist()
                logs |= {
                    name: total / count if count else math.nan
                    for name, (total, count) in zip(self.sums, totals, strict=True)
                }
                for name in ("no_pair", "no_reward"):
                    logs[name] = int(totals[list(self.sums).index(name)][0])
                self.sums = {}
            super().log(logs, *args, **kwargs)

    return Pairing


def choose(rewards, whole):
    """(whether the first of two answers is chosen, whether the two form a pair), each for every prompt.

    ``rewards`` and ``whole``, which is false where an answer was cut off or is empty: two rows, the first and the second
    answers. One that is not whole loses, and two of them, or two of equal reward, form no pair, as offline; nor does one
    whose reward is unknown (nan).
    """
    first = (whole[0] & ~whole[1]) | ((whole[0] == whole[1]) & (rewards[0] >= rewards[1]))
    told_apart = (whole[0] != whole[1]) | (whole[0] & whole[1] & (rewards[0] != rewards[1]))
    return first, told_apart & ~rewards.isnan().any(0)


def load_policy(job):
    """(policy, its reference or None where switching the adapter off gives it, LoraConfig or None, what is adapted)."""
    import torch
    from peft import LoraConfig

    def load(dtype):
        return load_weights(POLICY, job.model, job.revision, dtype, job.trust_remote_code)

    if job.weights == "full":
        # Steps of 5e-6 vanish in bfloat16: the weights that are tuned are in float32, forward passes in job.dtype.
        # The reference too, or rounding alone would tell the two apart.
        return load(torch.float32), load(torch.float32) if job.objective != "sft" else None, None, None
    model = load(job.dtype)
    job.lora_targets, *adapted = find_targets(model, job.lora_targets, job.lora_coverage, job.model)
    if job.start:
        # TRL keeps a frozen copy of the adapter as the reference.
        model = load_adapter(model, job.start, trainable=True)
        check_adapter(job, model, adapted[0])
        return model, None, None, adapted
    lora = LoraConfig(
        r=job.lora_r,
        lora_alpha=job.lora_alpha,
        lora_dropout=job.lora_dropout,
        target_modules=job.lora_targets,
        task_type="CAUSAL_LM",
    )
    return model, None, lora, adapted


def check_adapter(job, model, adapted):
    """Raises InputError where the adapter to go on from is not of the recipe's make."""
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


def list_adapted(model):
    """Names of the modules that an adapter has been put to, as the model without it has them."""
    from peft.tuners.lora import LoraLayer

    return {name for name, module in model.get_base_model().named_modules() if isinstance(module, LoraLayer)}


def check_trainer(job, trainer):
    """What the config says is what the trainer does, or the training does not start."""
    batch = (
        trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size
    )
    if batch != job.batch:
        raise RuntimeError(f"the effective batch is {batch}, not {job.batch}")
    rates = {module.p for name, module in trainer.model.named_modules() if ".lora_dropout.default" in name and hasattr(module, "p")}  # fmt: skip
    if job.weights == "lora" and list_adapted(trainer.model) != set(job.adapted[0]):
        raise RuntimeError("the adapter was put to other modules than the pattern names")
    if job.weights == "lora" and job.lora_dropout and rates != {job.lora_dropout}:
        raise RuntimeError(f"LoRA's dropout is {rates}, not {job.lora_dropout}")


def describe_adapted(job, model):
    """Facts for the manifest: what is tuned, by kind of module and number, and what is left as it is."""
    facts = {"trainable_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad)}
    if job.weights == "full":
        return facts
    modules, spared = job.adapted
    return {**facts, "adapted": dict(sorted(Counter(modules.values()).items())), "not_adapted": spared}


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
    """A trainer whose steps are means over their rows, whatever the micro-batch and the number of processes.

    TRL averages over micro-batches, of which the last of an epoch may be smaller; and with several processes rows are
    repeated to fill it. Here repeats weigh nothing. Progress is told which rows, and how many tokens, each step saw.
    """
    import torch

    class ByRows(trainer_class):
        weight, step_rows, first = 1.0, 0, 0  # the loss's factor, rows in this step, those before this micro-batch

        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset  # holds token ids already

        def get_batch_samples(self, epoch_iterator, num_batches, device):
            batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
            batch, total = (
                self.args.train_batch_size * self.args.gradient_accumulation_steps * WORLD,
                len(self.train_dataset),
            )
            self.step_rows = min(batch, total - self.state.global_step % math.ceil(total / batch) * batch)
            self.whole, self.first = self.step_rows == batch, 0
            if WORLD > 1 and not self.whole and "labels" in batches[0]:
                for number, inputs in enumerate(batches):
                    inputs["labels"][self._count_own(number * WORLD * self.args.train_batch_size) :] = -100
                items = self._get_num_items_in_batch(batches, device)
            return batches, items

        def _count_own(self, first):
            """Rows of this process that are no repeats, of its micro-batch in the ``first`` rows of the step and on."""
            size = self.args.train_batch_size
            return min(size, max(0, self.step_rows - first - RANK * size))

        def training_step(self, model, inputs, *args, **kwargs):
            own, left = self._count_own(self.first), self.step_rows - self.first
            self.first += WORLD * self.args.train_batch_size
            numbers = inputs.pop("row")
            seen = take_rows(inputs, len(numbers), range(own))
            progress.count(numbers[:own], seen.get("attention_mask"))
            return self.step_by_rows(model, inputs, own, left, *args, **kwargs)

        def step_by_rows(self, model, inputs, own, left, *args, **kwargs):
            """As training_step: of the rows ``own`` are no repeats, and ``left`` are those of the step in all processes."""
            if self.whole:
                return super().training_step(model, inputs, *args, **kwargs)
            if "labels" in inputs:
                with gather_first(self.accelerator, WORLD):
                    return super().training_step(model, inputs, *args, **kwargs)
            # Row by row, the same number in all processes, whose first have one where others may have a repeat.
            size = self.args.train_batch_size
            count, loss = min(size, left), 0.0
            self.current_gradient_accumulation_steps = self.step_rows / WORLD
            for i in range(count):
                self.weight = float(i < own)
                synced = contextlib.nullcontext() if i == count - 1 else self.accelerator.no_sync(model)
                rows_now = min(WORLD, math.ceil((left - i) / size))
                with synced, gather_first(self.accelerator, rows_now):
                    loss += super().training_step(model, take_rows(inputs, count, [i]), *args, **kwargs)
                for values in self._metrics["train"].values():  # a mean of so many rows, to be averaged by TRL
                    values += values[-1:] * (rows_now - 1)
            self.weight = 1.0
            return loss

        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            return loss if self.weight == 1 else loss * self.weight

        def evaluate(self, *args, **kwargs):
            with torch.random.fork_rng():  # how often is measured changes nothing of what is trained
                return super().evaluate(*args, **kwargs)

    return ByRows


def take_rows(inputs, count, kept):
    """These rows of a batch of ``count``; its tensors may hold several blocks of them, such as chosen and rejected."""
    import torch

    def take(value):
        if isinstance(value, torch.Tensor) and value.ndim and len(value) % count == 0:
            return value.unflatten(0, (-1, count))[:, list(kept)].flatten(0, 1)
        return [value[i] for i in kept] if isinstance(value, list) and len(value) == count else value

    return {name: take(value) for name, value in inputs.items()}


@contextlib.contextmanager
def gather_first(accelerator, processes):
    """Metrics are those of the first processes: the others hold repeats. (Accelerate knows of repeated rows at the end of
    what it takes for a whole batch alone.)"""
    gather = accelerator.gather
    if WORLD > 1:
        accelerator.gather = accelerator.gather_for_metrics = lambda tensor: gather(tensor)[:processes]
    try:
        yield
    finally:
        for name in ("gather", "gather_for_metrics"):
            accelerator.__dict__.pop(name, None)


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
    job.generation_config.to_json_file(job.saving / "generation_config.json", use_diff=True)
    shutil.copyfile(job.folder / "metrics.jsonl", job.saving / "metrics.jsonl")
    own = ("folder", "saving", "script", "reward", "identity", "rows_digest", "adapted", "generation_config")
    options = Namespace(**{name: value for name, value in vars(job).items() if name not in own})
    inputs = {"data": job.data, "rows": job.rows_digest, "policy": job.identity}
    cli.write_manifest(job.saving / "manifest.json", Path(job.script), options, inputs, **facts)


if __name__ == "__main__":
    cli.run(main)
