"""What a training leaves while it runs, to be resumed from: whole checkpoints, and what was trained on up to each."""

import json
import math
import os
import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from croco.records import write_json

if TYPE_CHECKING:
    import torch
    from transformers import Trainer
    from transformers.trainer_utils import TrainOutput

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
PROGRESS = "progress_{}.json"


class Progress:
    """What was trained on so far: rows, tokens, processes; kept beside each checkpoint, so that a resumed run goes on.

    Every process keeps its own file; a checkpoint is whole only with all of them.
    """

    def __init__(self, job: Namespace) -> None:
        self.job = job
        self.seen: dict[int, int] = {}
        self.tokens, self.padded, self.steps_before, self.tokens_before = 0, 0, 0, 0
        self.history: list[dict] = []

    def count(self, numbers: "torch.Tensor", mask: "torch.Tensor | None") -> None:
        """Counts rows as seen: their numbers, of shape (rows,), and attention mask, of shape (sequences, tokens)."""
        for number in numbers.tolist():
            self.seen[number] = self.seen.get(number, 0) + 1
        if mask is not None:
            self.tokens += int(mask.sum())
            self.padded += mask.numel()

    def resume(self, checkpoint: Path | None) -> None:
        """Goes on from what a checkpoint, or None at the start, was trained on; notes the new run."""
        if checkpoint:
            parts = [
                json.loads(path.read_text(encoding="utf-8")) for path in sorted(checkpoint.glob(PROGRESS.format("*")))
            ]
            if RANK == 0:  # the sum over the processes counts; which of them counted does not
                for part in parts:
                    for number, count in part["seen"].items():
                        self.seen[int(number)] = self.seen.get(int(number), 0) + count
                self.tokens = self.tokens_before = sum(part["tokens"] for part in parts)
                self.padded = sum(part["padded"] for part in parts)
            self.history = parts[0]["history"]
            self.steps_before = step_of(checkpoint)
        self.history.append({"from_step": self.steps_before, "processes": WORLD, "micro_batch": self.job.micro_batch})

    def save(self, checkpoint: Path) -> None:
        """Writes this process's part beside a checkpoint."""
        seen = {"seen": self.seen, "tokens": self.tokens, "padded": self.padded}
        write_json(checkpoint / PROGRESS.format(RANK), {"processes": WORLD, **seen, "history": self.history})

    def close(self, trainer: "Trainer", result: "TrainOutput") -> dict:
        """Facts for the manifest, the same on every process; raises RuntimeError where a row was never seen.

        Memory is in MiB, padding_share is the share of padding among the tokens, in [0, 1].
        """
        import torch
        from accelerate.utils import gather_object

        seen: dict[int, int] = {}
        for part in gather_object([self.seen]):
            for number, count in part.items():
                seen[number] = seen.get(number, 0) + count
        if int(self.job.epochs) > min(
            (seen.get(e["row"], 0) for e in trainer.train_dataset.select_columns(["row"])), default=0
        ):
            raise RuntimeError("some rows were seen less than once an epoch")
        tokens, padded, before = (
            sum(gather_object([value])) for value in (self.tokens, self.padded, self.tokens_before)
        )
        cuda = torch.cuda.is_available()
        peak = max(gather_object([torch.cuda.max_memory_allocated() if cuda else 0]))
        seconds = result.metrics["train_runtime"]
        return {
            "rows_seen": {
                "sum": sum(seen.values()),
                "repeats": sum(max(0, count - math.ceil(self.job.epochs)) for count in seen.values()),
            },
            "runs": self.history,
            "processes": WORLD,
            "micro_batch": self.job.micro_batch,
            "tokens": tokens or None,
            "tokens_per_second": round((tokens - before) / seconds, 1) if tokens else None,
            "padding_share": round(1 - tokens / padded, 4) if padded else None,
            "peak_gpu_memory_mb": peak // 2**20 if cuda else None,
            "best_checkpoint": {"step": trainer.state.best_global_step, "eval_loss": trainer.state.best_metric}
            if trainer.state.best_metric is not None
            else None,
        }


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that has all it needs; one torn by a kill would resume without an error, wrongly."""
    return next(
        (path for path in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True) if is_whole(path)), None
    )


def step_of(checkpoint: Path) -> int:
    """The optimizer step that a checkpoint was written after."""
    return int(checkpoint.name.split("-")[1])


def remove_after(checkpoint: Path | None, folder: Path) -> None:
    """Removes what is newer than the checkpoint to resume from: Trainer would keep the torn ones for the newest, and
    what other processes left in them would pass for part of those to come."""
    for path in folder.glob("checkpoint-*"):
        if checkpoint is None or step_of(path) > step_of(checkpoint):
            shutil.rmtree(path)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file of every process that wrote the checkpoint is there and can be read."""
    try:
        processes = json.loads((checkpoint / PROGRESS.format(0)).read_text(encoding="utf-8"))["processes"]
    except (OSError, ValueError, KeyError) as error:
        print(f"skipping a torn checkpoint: {checkpoint}: {error}", file=sys.stderr)
        return False
    random_states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    weights = [path.name for path in checkpoint.glob("*.safetensors")] or ["model.safetensors"]
    names = ["trainer_state.json", "optimizer.pt", "scheduler.pt", *weights, *random_states]
    names += [PROGRESS.format(rank) for rank in range(processes)]
    return all(readable(checkpoint / name) for name in names)


def readable(path: Path) -> bool:
    """Whether a checkpoint's file is there and whole: torch's and safetensors' formats fail to open when cut.

    Files of torch are read as data, as Trainer reads them when it resumes: one that holds other objects is skipped.
    """
    import torch
    from safetensors import safe_open
    from transformers.trainer_pt_utils import safe_globals  # for the random states of numpy

    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            safe_open(path, "pt").keys()
        else:
            with safe_globals():
                torch.load(path, weights_only=True, mmap=True)
    except Exception as error:  # whatever the fault, the answer is an older checkpoint
        print(f"skipping a torn checkpoint: {path}: {error}", file=sys.stderr)
        return False
    return True
