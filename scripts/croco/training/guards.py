"""Watching a training from its logged metrics: when it had better stop."""

import math
from collections import deque
from collections.abc import Iterable

from croco.errors import InputError

LIMITS = {"collapse": (1, math.inf), "chance_after": (0, 1)}


def check_guards(options: dict[str, float | None]) -> None:
    """Raises InputError for an option that Guards does not have, or one out of its range."""
    for name, value in options.items():
        if name not in LIMITS:
            raise InputError(f"there is no guard {name}", f"there are: {', '.join(LIMITS)}", field="guards")
        low, high = LIMITS[name]
        if value is not None and (not isinstance(value, int | float) or not low <= value <= high):
            raise InputError(f"{name} is {value!r}", f"give a number from {low} to {high}, or null", field="guards")


class Guards:
    """Judges each logged step; ``problem`` is then the InputError that says why the training should stop.

    Args:
        collapse: stop where the chosen answers' mean log-probability (nats) is more than this many times that under the
            reference, e.g. 3; None does not look.
        chance_after: share of the steps, in [0, 1], after which the reward accuracy (share of pairs whose chosen answer
            the policy has come to prefer) must lie above one half; None does not look.
    Both look at means over the last tenth of the steps, and over 10 at least. A loss or gradient that is not finite
    always stops.
    """

    def __init__(self, collapse: float | None = None, chance_after: float | None = None) -> None:
        self.collapse, self.chance_after = collapse, chance_after
        self.problem: InputError | None = None

    def start(self, max_steps: int, entries: Iterable[dict], beta: float, scaled: bool = False) -> None:
        """``entries``: what was logged before, of a training that is resumed; ``beta`` of the loss.

        ``scaled``: the loss is scaled for float16, whose gradients overflow now and then, which skips a step.
        """
        self.max_steps, self.beta, self.finite = max_steps, beta, ("loss",) if scaled else ("loss", "grad_norm")
        self.window = max(10, max_steps // 10)
        self.recent = deque((entry for entry in entries if "loss" in entry), maxlen=self.window)

    def look(self, entry: dict[str, float | None]) -> bool:
        """Whether to stop at this entry: a dict of metrics, null where not finite, with `step`."""
        if self.problem or "loss" not in entry:
            return bool(self.problem)
        self.recent.append(entry)
        self.problem = self._not_finite(entry) or self._collapsed(entry) or self._at_chance(entry)
        return bool(self.problem)

    def _not_finite(self, entry: dict[str, float | None]) -> InputError | None:
        for name in self.finite:
            if name in entry and entry[name] is None:
                return InputError(
                    f"stopped at step {entry['step']}: the training diverged, its {name} is not a finite number",
                    "lower the learning rate, or train in bfloat16 or float32",
                )
        return None

    def _mean(self, name: str) -> float | None:
        values = [entry[name] for entry in self.recent if entry.get(name) is not None]
        return math.fsum(values) / len(values) if len(values) == self.window else None

    def _collapsed(self, entry: dict[str, float | None]) -> InputError | None:
        chosen, reward = self._mean("logps_chosen"), self._mean("rewards_chosen")
        if self.collapse is None or chosen is None or reward is None:
            return None
        # DPO's reward is beta x (log-probability under the policy - under the reference).
        reference = chosen - reward / self.beta
        if chosen >= self.collapse * reference:
            return None
        return InputError(
            f"stopped at step {entry['step']}: the chosen answers' log-probability fell from {reference:.0f} to {chosen:.0f} "
            f"nats, more than {self.collapse} times: the policy unlearns both answers",
            "lower the learning rate, raise beta; or, to go on from the last checkpoint, raise or remove `collapse` "
            "in the setting's guards",
        )

    def _at_chance(self, entry: dict) -> InputError | None:
        accuracy = self._mean("rewards_accuracies")
        if self.chance_after is None or accuracy is None or entry["step"] < self.chance_after * self.max_steps:
            return None
        if accuracy > 0.5:
            return None
        return InputError(
            f"stopped at step {entry['step']} of {self.max_steps}: the policy prefers the chosen answer in {accuracy:.0%} of "
            "the last pairs, no better than chance",
            "look at the pairs (target preview) and the learning rate; or, to go on from the last checkpoint, raise or remove "
            "`chance_after` in the setting's guards",
        )
