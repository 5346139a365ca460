"""A training's metrics as they come: a progress bar, a JSONL file, and the guards that look at them."""

import math
import re
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from croco import cli
from croco.records import dump, write_jsonl
from croco.training.guards import Guards
from croco.training.resume import RANK, Progress

# TRL counts num_tokens anew when it resumes, and counts padding in the objective/ ones of online DPO; times are no metrics.
NO_METRICS = re.compile(r"num_tokens$|^objective/(kl|entropy|non_score_reward|rlhf_reward)$|_runtime$|_per_second$")


class LiveMetrics(TrainerCallback):
    """A callback with a progress bar that appends each step's metrics to FOLDER/metrics.jsonl and guards them.

    When a training resumes, it drops the metrics after the checkpoint. Each checkpoint gets its Progress.
    """

    def __init__(self, job: Namespace, progress: Progress, guards: Guards) -> None:
        self.job, self.progress, self.guards = job, progress, guards
        self.path = job.folder / "metrics.jsonl"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts the file of metrics again with those before the checkpoint, and the bar."""
        entries = [clean_metrics(entry) for entry in state.log_history if "loss" in entry or "eval_loss" in entry]
        self.guards.start(state.max_steps, entries, self.job.beta, scaled=self.job.dtype == "float16")
        if RANK == 0:
            write_jsonl(self.path, entries)
            self.bar = cli.progress(total=state.max_steps, initial=state.global_step, desc="train", unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Asks for a validation after the last step."""
        if self.job.validation and state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes an entry and stops the training where a guard says so."""
        if not logs or ("loss" not in logs and "eval_loss" not in logs):
            return
        entry = clean_metrics({**logs, "step": state.global_step})
        if RANK == 0:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(dump(entry) + "\n")
            shown = {name: entry[name] for name in ("loss", "rewards_margins") if name in entry}
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(state.global_step - self.bar.n)
        if self.guards.look(entry):
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keeps the Progress beside the checkpoint."""
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if RANK == 0:
            # With the reference's adapter there, Trainer would resume from that one alone.
            shutil.rmtree(checkpoint / "ref", ignore_errors=True)
        self.progress.save(checkpoint)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Closes the bar."""
        if RANK == 0:
            self.bar.close()


def clean_metrics(entry: dict) -> dict[str, float | None]:
    """The numbers of a logged entry that are metrics, sorted by name: `/` becomes `_`, what is not finite None."""
    return {
        re.sub(r"^(eval_)?(rewards|logps)/", r"\1\2_", name): value if math.isfinite(value) else None
        for name, value in sorted(entry.items())
        if isinstance(value, int | float) and not NO_METRICS.search(name)
    }
