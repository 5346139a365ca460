"""In which unit the report page shows a number; files such as summary.csv keep shares in [0, 1]."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from croco.report.elements import number

# Metrics of the summary that are shares, besides all win rates.
SHARES = {
    *("acc", "acc_norm", "acc_mutual_info", "exact_match", "em"),
    *("language_fidelity", "truncated", "repetition", "distinct_2", "self_similarity"),
    *("position_consistency", "unparseable", "reward_judge_agreement"),
}


class Share(float):
    """A share in [0, 1], which a table of the page shows in per cent."""

    @property
    def shown(self) -> str:
        """The text of its cell."""
        return f"{100 * self:.1f} %"


class Points(float):
    """A difference of shares, which a table of the page shows in percentage points."""

    @property
    def shown(self) -> str:
        """The text of its cell."""
        return f"{100 * self:.1f} points"


class Several(str):
    """Several numbers in one cell: as text they are those of the files, and ``shown`` has them in their unit."""

    shown: str


@dataclass(frozen=True)
class Unit:
    """The unit of a chart's axis and of a table's column.

    Attributes:
        name: as an axis shows it, or None.
        factor: by which a value of the files is multiplied for a chart.
        digits: after the point, in a chart's tooltip.
        cell: makes a number of a file the value of a table's cell.
    """

    name: str | None
    factor: int = 1
    digits: int = 3
    cell: Callable[[float], float] = float

    def title(self, text: str) -> str:
        """The title of an axis: a text with the unit in brackets."""
        return f"{text} ({self.name})" if self.name else text

    def show(self, value: float | None) -> float | None:
        """The value of a cell; None where there is none."""
        return None if number(value) is None else self.cell(float(value or 0))

    def scale(self, value: float | None) -> float | None:
        """The value in a chart; None where there is none."""
        return None if number(value) is None else round(float(value or 0) * self.factor, 6)

    def text(self, value: float | None) -> str:
        """The text of a cell."""
        cell = self.show(value)
        return (
            ABSENT if cell is None else getattr(cell, "shown", f"{cell:,.1f}" if abs(cell) >= 1000 else f"{cell:.3f}")
        )

    def show_several(self, values: Iterable[float]) -> Several | None:
        """The value of a cell with several numbers; None where there are none."""
        numbers = list(values)
        cell = Several(", ".join(map(str, numbers)))
        cell.shown = ", ".join(map(self.write, numbers))
        return cell if numbers else None

    def signed(self, value: float | None) -> str:
        """The text of a change, with its sign; a share is no change and has none."""
        return ("+" if self is not PERCENT and (number(value) or 0) > 0 else "") + self.text(value)

    def write(self, value: float) -> str:
        """The value in a sentence, with its unit; a share of less than 1 is never 100 %."""
        scaled = value * self.factor
        shown = f"{scaled:,.1f}" if abs(scaled) >= 999.5 else f"{scaled:.3g}"
        if self is PERCENT and shown == "100" and value < 1:
            shown = f"{min(scaled, 99.99):.2f}"
        return f"{shown} %" if self is PERCENT else f"{shown} points" if self is POINTS and value else shown


ABSENT = "\u2013"  # an en dash, where there is no number
PLAIN = Unit(None)
PERCENT = Unit("%", 100, 1, Share)
POINTS = Unit("percentage points", 100, 1, Points)
OTHER_UNITS = {
    "n_tokens": Unit("tokens", digits=1),
    "n_chars": Unit("characters", digits=1),
    "reward": Unit("logits"),
}


def is_share(metric: str) -> bool:
    """Whether a metric of the summary is a share."""
    return metric in SHARES or metric.startswith("win_rate")


def find_unit(metric: str) -> Unit:
    """The unit of a metric of the summary."""
    return PERCENT if is_share(metric) else OTHER_UNITS.get(metric, PLAIN)


def find_change_unit(metric: str) -> Unit:
    """The unit of a change of a metric of the summary."""
    return POINTS if is_share(metric) else find_unit(metric)
