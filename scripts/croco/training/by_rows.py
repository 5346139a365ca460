"""Steps of a training that are means over their rows, whatever the micro-batch and the number of processes."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import Sampler

from croco.training.resume import RANK, WORLD, Progress

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset
    from transformers import Trainer
else:
    Trainer = object

BATCH = 10_000  # rows whose lengths are read together


class ByRows(Trainer):
    """In front of a TRL trainer: its steps are means over their rows, and Progress counts the rows and tokens.

    TRL averages over micro-batches, of which the last of an epoch may be smaller; and with several processes rows are
    repeated to fill it. Here repeats weigh nothing.

    Args:
        progress: told which rows, and how many tokens, each step saw; the other arguments are the trainer's.
    """

    weight, step_rows, first = 1.0, 0, 0  # the loss's factor, rows in this step, those before this micro-batch

    def __init__(self, *args: Any, progress: Progress, **kwargs: Any) -> None:
        self.progress = progress
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset  # holds token ids already

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict], num_batches: int, device: torch.device
    ) -> tuple[list[dict], Any]:
        """As Trainer's; also counts the step's rows, and takes repeats out of the number of tokens in its loss."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * WORLD
        total = len(self.train_dataset)
        self.step_rows = min(batch, total - self.state.global_step % math.ceil(total / batch) * batch)
        self.whole, self.first = self.step_rows == batch, 0
        if WORLD > 1 and not self.whole and "labels" in batches[0]:
            for number, inputs in enumerate(batches):
                inputs["labels"][self._count_own(number * WORLD * self.args.train_batch_size) :] = -100
            items = self._get_num_items_in_batch(batches, device)
        return batches, items

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As Trainer's, which asks only after a step whether it was the last.

        From a checkpoint of the last step, within an epoch, it would go on with one more.
        """
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """As Trainer's, but for the order of the rows within a step."""
        lengths = measure_rows(self.train_dataset)
        if lengths is None:
            return super()._get_train_sampler(train_dataset)
        return StepsByLength(
            lengths, self.args.train_batch_size, self.args.gradient_accumulation_steps, WORLD, self.args.seed
        )

    def get_train_dataloader(self) -> Any:
        """As Trainer's, and the sampler learns of the epoch: among several processes, accelerate tells only one set so."""
        loader = super().get_train_dataloader()
        sampler = getattr(getattr(loader.batch_sampler, "batch_sampler", loader.batch_sampler), "sampler", None)
        if isinstance(sampler, StepsByLength):
            loader.set_sampler(sampler)
        return loader

    def _count_own(self, first: int) -> int:
        """Rows of this process that are no repeats, in its micro-batch that begins at row ``first`` of the step."""
        size = self.args.train_batch_size
        return min(size, max(0, self.step_rows - first - RANK * size))

    def training_step(self, model: torch.nn.Module, inputs: dict, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As Trainer's, with the repeats at the end of an epoch left out; counts the rows and tokens seen."""
        own, left = self._count_own(self.first), self.step_rows - self.first
        self.first += WORLD * self.args.train_batch_size
        numbers = inputs.pop("row")  # (micro-batch,)
        seen = take_rows(inputs, len(numbers), range(own))
        self.progress.count(numbers[:own], seen.get("attention_mask"))
        return self.step_by_rows(model, inputs, len(numbers), own, left, *args, **kwargs)

    def step_by_rows(
        self, model: torch.nn.Module, inputs: dict, rows: int, own: int, left: int, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """The loss of training_step, a scalar, after its backward pass.

        Args:
            rows: those of ``inputs``, repeats included.
            own: the first rows of ``inputs``, which are no repeats.
            left: rows of the step from this micro-batch on, in all processes.
        """
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
                loss += super().training_step(model, take_rows(inputs, rows, [i]), *args, **kwargs)
            for values in self._metrics["train"].values():  # a mean of so many rows, to be averaged by TRL
                values += values[-1:] * (rows_now - 1)
        self.weight = 1.0
        return loss

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's, times the weight of the row."""
        loss = super().compute_loss(*args, **kwargs)
        return loss if self.weight == 1 else loss * self.weight

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As Trainer's; leaves the random state as it was."""
        with torch.random.fork_rng():  # how often is measured changes nothing of what is trained
            return super().evaluate(*args, **kwargs)


class StepsByLength(Sampler):
    """Rows in random order, those of each optimizer step by length, longest first.

    A step is a mean over its rows, so that their order changes last bits alone, and the draws of dropout. Rows of similar
    length share a micro-batch, which then needs less padding. Processes take micro-batches in turn; every second round of
    turns is reversed, so that all have about as many tokens in a step and wait less for each other at its end.

    Args:
        lengths: tokens of each row; micro_batch: rows; accumulated: micro-batches of a process in a step.
        seed: of the random order.
    """

    def __init__(self, lengths: Sequence[int], micro_batch: int, accumulated: int, processes: int, seed: int) -> None:
        self.lengths, self.micro_batch, self.round = lengths, micro_batch, micro_batch * processes
        self.batch = self.round * accumulated
        self.order = SeedableRandomSampler(lengths, data_seed=seed)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rows = iter(self.order)
        while step := list(itertools.islice(rows, self.batch)):
            step.sort(key=self.lengths.__getitem__, reverse=True)
            for number, start in enumerate(range(0, len(step), self.round)):
                turns = step[start : start + self.round]
                yield from self._reverse(turns) if number % 2 and len(turns) == self.round else turns

    def _reverse(self, turns: Sequence[int]) -> Iterator[int]:
        """The micro-batches of a round in reverse order."""
        for first in range(self.round - self.micro_batch, -1, -self.micro_batch):
            yield from turns[first : first + self.micro_batch]

    def set_epoch(self, epoch: int) -> None:
        """The order is a function of seed and epoch, so that a resumed training goes on in it."""
        self.order.set_epoch(epoch)


def measure_rows(dataset: "Dataset") -> list[int] | None:
    """Tokens of each row's longest sequence; None for rows that are not token ids yet."""
    import pyarrow.compute as pc

    kinds = ("input_ids",), ("prompt_ids", "chosen_ids", "rejected_ids")
    names = next((kind for kind in kinds if {*kind} <= {*dataset.column_names}), None)
    if names is None:
        return None
    lengths: list[int] = []
    # Arrow knows the lengths of its lists; the tokens are not read.
    for table in dataset.select_columns(list(names)).with_format("arrow").iter(batch_size=BATCH):
        first, *answers = (pc.list_value_length(table[name]).to_numpy() for name in names)
        lengths += (first + np.maximum.reduce(answers) if answers else first).tolist()
    return lengths


def take_rows(inputs: dict, count: int, kept: Iterable[int]) -> dict:
    """The rows ``kept`` of a batch of ``count``.

    A tensor of the batch has the shape (blocks x count, ...): several blocks of rows, such as chosen and rejected. Raises
    RuntimeError for one that has not.
    """

    def take(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim:
            return value.unflatten(0, (-1, count))[:, list(kept)].flatten(0, 1)
        return [value[i] for i in kept] if isinstance(value, list) and len(value) == count else value

    return {name: take(value) for name, value in inputs.items()}


@contextlib.contextmanager
def gather_first(accelerator: "Accelerator", processes: int) -> Iterator[None]:
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


def with_row_numbers(collate: Callable[[list[dict]], dict]) -> Callable[[list[dict]], dict]:
    """The collator, which also returns the rows' numbers: `row`, a tensor of the shape (micro-batch,)."""

    def collate_with_rows(examples: list[dict]) -> dict:
        batch = collate(examples)
        if "row" in examples[0]:
            batch["row"] = torch.tensor([example["row"] for example in examples])
        return batch

    return collate_with_rows
