"""One process of a training: what scripts/train.py starts, one per GPU.

  python -m croco.training.process JOB.json

The job holds the options of scripts/train.py's command line, with `folder` (what the training resumes from) and
`saving` (where the finished checkpoint is written). A job of several processes starts this module again in each of
them, by torchrun. A failure with a known reason is written to FOLDER/failure.json, {problem} or {out_of_memory}; the
starter alone reports it.
"""

import ctypes
import functools
import itertools
import json
import os
import re
import shutil
import signal
import sys
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from croco import cli
from croco.errors import InputError
from croco.files import partial_path
from croco.objectives import OBJECTIVES
from croco.records import read_json, write_json
from croco.training.encode import encode_rows, hold_out, merge_shares, read_rows
from croco.training.guards import Guards
from croco.training.resume import RANK, WORLD, Progress, newest_whole_checkpoint, remove_after

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer

    from croco.training.policy import Tuned

# The encoded data in the folder of a job, and the file in it that counts what became of the rows.
EXAMPLES, COUNTS = "examples", "counts.json"
# How torch and safetensors report a full disk or an exceeded quota.
DISK_FULL = re.compile(
    r"No space left|File too large|quota exceeded|PytorchStreamWriter failed|inline_container.*unexpected pos|os error 2[78]",
    re.I,
)
# Entries of a job that are not recorded as options in the checkpoint's manifest.
NO_OPTIONS = ("folder", "saving", "script", "reward", "identity", "rows_digest")


def main() -> None:
    """One training process, started with the path of its job."""
    die_with_parent()
    job = read_job(sys.argv[1])
    try:
        if "RANK" not in os.environ:
            save_examples(job)
        launch(job) if job.processes > 1 and "RANK" not in os.environ else train(job)
    except Exception as error:
        report_failure(job, error)
        if (job.folder / "failure.json").exists():
            sys.exit(1)
        raise


def launch(job: Namespace) -> None:
    """Runs this module in the job's processes until all have ended, or the first has failed."""
    from torch.distributed import run

    os.environ["CROCO_PARENT"] = str(os.getpid())
    run.main(["--standalone", "--nproc-per-node", str(job.processes), "-m", "croco.training.process", sys.argv[1]])


def die_with_parent() -> None:
    """Makes this process end with its starter (Linux); otherwise a second start would find it still at work."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if str(os.getppid()) != os.environ.get("CROCO_PARENT", str(os.getppid())):
            os._exit(1)  # the starter died before this process could ask for the signal


def read_job(path: str | Path) -> Namespace:
    """The options of a job file, its paths as Path."""
    job = Namespace(**json.loads(Path(path).read_text(encoding="utf-8")))
    for name in ("data", "folder", "saving", "start"):
        setattr(job, name, getattr(job, name) and Path(getattr(job, name)))
    return job


def report_failure(job: Namespace, error: Exception) -> None:
    """Writes a known reason to failure.json, where the starter looks; any other error shows its traceback alone."""
    from accelerate.utils.memory import should_reduce_batch_size

    if should_reduce_batch_size(error):
        failure = {"out_of_memory": str(error)}
    elif isinstance(error, InputError):
        failure = {"problem": str(error)}
    elif DISK_FULL.search(str(error)):
        failure = {
            "problem": f"{error}\n  Remedy: free some space and start again: it resumes from its last checkpoint"
        }
    else:
        return
    write_json(job.folder / "failure.json", failure)


def train(job: Namespace) -> None:
    """Trains the job's policy, from its last whole checkpoint if there is one, and saves it.

    Raises InputError for unusable data or a model that does not fit the recipe, and for a training that a guard
    stopped or that diverged.
    """
    # Imported here, because scripts/train.py imports this module and needs none of the libraries behind these.
    import torch

    from croco.training.live import LiveMetrics
    from croco.training.passes import check_passes
    from croco.training.policy import (
        check_tuned,
        check_weights,
        describe_tuned,
        fit_padding,
        load_policy,
        load_vocabulary,
    )
    from croco.training.trainers import check_trainer, make_trainer

    if torch.cuda.is_available():
        if torch.cuda.device_count() < job.processes:
            raise InputError(
                f"{job.processes} processes need as many GPUs, and {torch.cuda.device_count()} can be seen",
                "start fewer processes, or let them see more GPUs (CUDA_VISIBLE_DEVICES)",
                field="processes",
            )
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))  # before anything else opens the first one
    if job.processes != WORLD:
        raise RuntimeError(f"{WORLD} processes were started, not {job.processes}")
    tokenizer, stops = load_vocabulary(job)
    examples, counts = read_examples(job)
    training, validation = (
        examples if len(numbers) == len(examples) else examples.select(numbers)
        for numbers in hold_out(list(examples["prompt_id"]), job.validation, job.seed)
    )
    progress, guards = Progress(job), Guards(**job.guards)
    tuned = load_policy(job)
    fit_padding(tokenizer, tuned.model)
    trainer = make_trainer(
        job, tuned, tokenizer, stops, training, validation, progress, LiveMetrics(job, progress, guards)
    )
    check_trainer(job, trainer)
    check_tuned(job, tuned, trainer.model)
    check_passes(job, trainer)
    checkpoint = find_checkpoint(job, trainer)
    progress.resume(checkpoint)
    # Constructing and checking the trainer draws random numbers; from here on they follow from the seed alone.
    torch.manual_seed(job.seed)
    result = trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    if guards.problem:
        raise guards.problem
    check_weights(job, trainer.model)
    facts = progress.close(trainer, result) | describe_tuned(job, tuned, trainer.model)
    if OBJECTIVES[job.objective].samples:
        for name in ("no_pair", "no_reward"):
            counts[name] = sum(entry.get(name, 0) for entry in trainer.state.log_history)
    counts |= {"validation": len(validation), "steps": result.global_step}
    save(job, trainer, tuned, tokenizer, {"counts": counts, **facts})


def save_examples(job: Namespace) -> None:
    """Encodes the job's data once for all its processes and starts, into the folder of the job, whose key decides them.

    Raises InputError where too few rows are left to train on.
    """
    from croco.training.policy import load_vocabulary

    saved = job.folder / EXAMPLES
    if saved.exists():
        return
    examples, counts = encode_examples(job, *load_vocabulary(job))
    check_counts(job, counts)
    write_examples(saved, examples, counts)


def encode_examples(
    job: Namespace, tokenizer: "PreTrainedTokenizerBase", stops: list[int]
) -> tuple[list[dict], dict[str, Any]]:
    """(examples, counts) of the job's data, as encode_rows returns them, from as many processes as are to train."""
    if job.processes == 1:
        return encode_share(job, tokenizer, stops, 0)
    os.environ["CROCO_PARENT"] = str(os.getpid())
    encode = functools.partial(encode_share, job, tokenizer, stops)
    # Forked, because each new interpreter would import the libraries again.
    with ProcessPoolExecutor(job.processes, get_context("fork"), initializer=die_with_parent) as pool:
        return merge_shares(list(pool.map(encode, range(job.processes))))


def encode_share(
    job: Namespace, tokenizer: "PreTrainedTokenizerBase", stops: list[int], share: int
) -> tuple[list[dict], dict[str, Any]]:
    """(examples, counts) of every row of the job's data whose number is ``share``, modulo the number of processes."""
    rows = itertools.islice(read_rows(job.data, job.objective), share, None, job.processes)
    return encode_rows(
        cli.progress(rows, desc="tokenise", unit="row", disable=share > 0),
        job.objective,
        tokenizer,
        stops,
        job.max_length,
        job.too_long,
        job.template_options,
        job.max_tokens,
        job.loss_on,
    )


def write_examples(path: Path, examples: list[dict], counts: dict) -> None:
    """Writes examples and counts to the folder ``path``, which appears whole or not at all."""
    from datasets import Dataset

    partial = partial_path(path)
    shutil.rmtree(partial, ignore_errors=True)
    Dataset.from_list(examples).save_to_disk(partial)
    write_json(partial / COUNTS, counts)
    for file in partial.iterdir():
        with open(file, "rb+") as written:
            os.fsync(written.fileno())
    os.replace(partial, path)


def read_examples(job: Namespace) -> tuple["Dataset", dict]:
    """(examples of encode_rows, mapped into memory, and their counts), as save_examples left them.

    The first process prints the counts. Raises InputError where too few rows are left to train on.
    """
    from datasets import Dataset

    counts = read_json(job.folder / EXAMPLES / COUNTS)
    dropped = check_counts(job, counts)
    if RANK == 0:
        print(f"{counts['rows']} rows, {counts['trained']} to train on; dropped: {dropped}", file=sys.stderr)
        warn_of_examples(job, counts["trained"], counts)
    return Dataset.load_from_disk(job.folder / EXAMPLES), counts


def check_counts(job: Namespace, counts: dict) -> str:
    """The dropped rows by reason, as text; raises InputError where too few rows are left to train on."""
    dropped = ", ".join(f"{reason} {count}" for reason, count in counts["dropped"].items()) or "none"
    if counts["trained"] < max(2, job.processes):
        raise InputError(
            f"{counts['trained']} of {counts['rows']} rows are left to train on (dropped: {dropped}), "
            f"in {job.processes} processes",
            "raise max_length, give more rows, or ask for fewer GPUs",
            job.data,
        )
    return dropped


def warn_of_examples(job: Namespace, examples: int, counts: dict) -> None:
    """Prints what became of rows that are trained on otherwise than they were given."""
    if counts["truncated"]:
        print(f"{counts['truncated']} rows cut to {job.max_length} tokens", file=sys.stderr)
    if counts["token_mismatches"]:
        print(
            f"warning: of {counts['compared']} answers {counts['token_mismatches']} are trained on in other tokens "
            "than were sampled: see the chat template's report",
            file=sys.stderr,
        )
    if examples < job.batch:
        print(f"warning: a step has {examples} rows, fewer than the batch of {job.batch}", file=sys.stderr)


def find_checkpoint(job: Namespace, trainer: "Trainer") -> Path | None:
    """The checkpoint to resume from, None for a start from the beginning; removes the torn ones after it."""
    checkpoint = newest_whole_checkpoint(job.folder)
    trainer.accelerator.wait_for_everyone()  # all look before the first one removes anything
    if RANK == 0:
        remove_after(checkpoint, job.folder)
        print(f"resuming from {checkpoint}" if checkpoint else "training from the start", file=sys.stderr)
    return checkpoint


def save(job: Namespace, trainer: "Trainer", tuned: "Tuned", tokenizer: "PreTrainedTokenizerBase", facts: dict) -> None:
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
    tuned.generation_config.to_json_file(job.saving / "generation_config.json", use_diff=True)
    shutil.copyfile(job.folder / "metrics.jsonl", job.saving / "metrics.jsonl")
    options = Namespace(**{name: value for name, value in vars(job).items() if name not in NO_OPTIONS})
    inputs = {"data": job.data, "rows": job.rows_digest, "policy": job.identity}
    cli.write_manifest(job.saving / "manifest.json", Path(job.script), options, inputs, **facts)


if __name__ == "__main__":
    cli.run(main)
