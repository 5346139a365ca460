"""Show two or more finished runs side by side: what differs in their configs, all arms, and differences of win rates.

Example:
  python scripts/compare.py results/mine results/other --output results/comparison

A RUN is a results folder or an unpacked bundle. The first one is the reference: every other run is compared with it.
Two files are written to the output folder:

  compare.html  one page that opens offline
  compare.csv   one row per arm and run, with the difference from the reference; rates are shares

A difference is the win rate of an arm minus the win rate of the same arm in the reference, over the prompts that both
runs have under the same id and with the same text. Its 95 % interval is a bootstrap over prompts; if both runs have
several training seeds, it covers the seeds, too. The page counts the prompts that are not shared, with the reason. If
the judge, the baseline's answers or all prompts differ, no difference is given, and the page says why. A run that is
not finished is compared as far as it is, and has the badge "partial".
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from croco import cli
from croco.config.differences import ABSENT
from croco.files import replacing
from croco.report.elements import Table, table
from croco.report.leaderboard import Line, list_lines, name_with_pool, percent
from croco.report.page import Asked, Page, PageSource, read_page
from croco.report.render import TEMPLATES, render_page
from croco.results.compare import (
    RUN_TABLE,
    ArmComparison,
    FinishedRun,
    compare_arms,
    list_config_differences,
    read_finished,
)
from croco.spreadsheets import to_csv

if TYPE_CHECKING:
    import pandas as pd

LONGEST_VALUE = 300  # characters of a value of a config on the page
HEADLINES = 3
OF_A_LINE = ("win_rate", "low", "high", "length_controlled", "tasks", "right_language", "tokens", "n", "seeds")
OF_A_COMPARISON = {
    "difference": "difference",
    "low": "difference_low",
    "high": "difference_high",
    "prompts": "shared_prompts",
    "verdict": "verdict",
}
ArmKey = tuple[str, str, str]  # model, pool, setting


@dataclass(frozen=True)
class Side:
    """One of the runs.

    Attributes:
        page: what the report page reads of the run.
        lines: the leaderboard of its page by model, pool and setting.
        is_partial: the run is not finished.
    """

    run: FinishedRun
    page: Page
    lines: dict[ArmKey, Line]
    is_partial: bool

    @property
    def label(self) -> str:
        """How tables name the run."""
        return self.run.label


@dataclass(frozen=True)
class Part:
    """A section of the page: tables, and what is said where none of them has a row."""

    name: str
    heading: str
    intro: str
    tables: list[Table]
    empty: str
    headlines: Sequence[str] = ()


def main() -> None:
    args = parse_arguments()
    sides = [read_side(run) for run in read_finished(args.runs)]
    compared = compare_with_reference(sides)
    args.output.mkdir(parents=True, exist_ok=True)
    with replacing(args.output / "compare.csv") as file:
        file.write(to_csv(make_csv(sides, compared)))
    with replacing(args.output / "compare.html") as file:
        file.write(render(sides, compared))
    files = [path for side in sides for path in (side.run.root / RUN_TABLE, find_summary(side.run)) if path.is_file()]
    inputs = {str(path): path for path in files}
    partial = [side.label for side in sides if side.is_partial]
    cli.write_manifest(args.output / "compare.manifest.json", __file__, args, inputs, partial=partial)
    print(f"{len(sides)} runs, {len(compared)} compared arms: {args.output / 'compare.html'}")


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="results folder or unpacked bundle; the first is the reference",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write the page and CSV to")
    return parser.parse_args()


def read_side(run: FinishedRun) -> Side:
    """Reads a run as its own report page does."""
    asked = Asked(judged=True, fidelity=True, tasks=True)
    page = read_page(PageSource(run.root, runs=run.root / RUN_TABLE, summary=find_summary(run), asked=asked))
    lines = {(line.model, line.pool, line.setting): line for line in list_lines(page)}
    return Side(run, page, lines, is_partial(run, page))


def find_summary(run: FinishedRun) -> Path:
    """summary.csv of the finished run; of one that is not finished, the table of its results so far."""
    finished, so_far = run.root / "summary.csv", run.root / "partial" / "summary.csv"
    return so_far if so_far.is_file() and not finished.is_file() else finished


def is_partial(run: FinishedRun, page: Page) -> bool:
    """Whether there is no summary of the finished run, it lacks a tuned run, or verdicts of a language are missing."""
    if not (run.root / "summary.csv").is_file():
        return True
    columns = ["model", "pool", "setting", "round"]
    summarised = set(page.summary[columns].itertuples(index=False, name=None))
    tuned = [each for each in run.runs if not each.is_base]
    if any((each.model, each.pool, each.setting, each.round) not in summarised for each in tuned):
        return True
    judged = [each for each in tuned if (run.root / each.name / "arena").is_dir()]
    files = (run.root / each.name / "arena" / f"{code}.jsonl" for each in judged for code in each.evaluated)
    return not all(path.is_file() for path in files)


def list_arms(sides: Sequence[Side]) -> list[ArmKey]:
    """The arms in the order of the leaderboards, then those without results, then the untuned models."""
    tuned = dict.fromkeys(arm for side in sides for arm in side.run.find_arms())
    shown = dict.fromkeys(arm for side in sides for arm in side.lines)
    return [
        *(arm for arm in shown if arm in tuned),
        *(arm for arm in tuned if arm not in shown),
        *(arm for arm in shown if arm not in tuned),
    ]


def compare_with_reference(sides: Sequence[Side]) -> list[ArmComparison]:
    """The arms of the other runs with those of the first, run by run, in the order of list_arms."""
    order = {arm: i for i, arm in enumerate(list_arms(sides))}
    return [
        comparison
        for side in sides[1:]
        for comparison in sorted(
            compare_arms(sides[0].run, side.run), key=lambda each: order[each.model, each.pool, each.arm]
        )
    ]


def make_csv(sides: Sequence[Side], compared: Iterable[ArmComparison]) -> "pd.DataFrame":
    """One row per arm and run that has it."""
    import pandas as pd

    by_run = {(each.second, each.model, each.pool, each.arm): each for each in compared}
    rows = []
    for arm in list_arms(sides):
        for side in sides:
            line, comparison = side.lines.get(arm), by_run.get((side.label, *arm))
            if line is None and arm not in side.run.find_arms():
                continue
            row: dict[str, Any] = {"run": side.label, **dict(zip(("model", "pool", "setting"), arm, strict=True))}
            row |= {name: getattr(line, name, None) for name in OF_A_LINE}
            row["reference"] = comparison and comparison.first
            row |= {column: getattr(comparison, name, None) for name, column in OF_A_COMPARISON.items()}
            row["excluded_prompts"] = comparison and sum(each.prompts for each in comparison.excluded)
            row["no_difference_because"] = "; ".join(comparison.reasons) if comparison else None
            rows.append(row)
    frame = pd.DataFrame(rows)
    counts = ["n", "seeds", "shared_prompts", "excluded_prompts"]
    return frame.astype(dict.fromkeys(counts, "Int64")) if rows else frame


def render(sides: Sequence[Side], compared: Sequence[ArmComparison]) -> str:
    """The page as HTML."""
    sections = [
        show_differences(sides, compared),
        show_arms(sides),
        show_excluded(sides, compared),
        show_config(sides),
        show_provenance(sides),
    ]
    return render_page(
        TEMPLATES / "compare.html.j2",
        contents=[(section.name, section.heading) for section in sections],
        title=" and ".join(side.label for side in sides),
        labels=[side.label for side in sides],
        partial=[side.label for side in sides if side.is_partial],
        sections=sections,
    )


def show_differences(sides: Sequence[Side], compared: Sequence[ArmComparison]) -> Part:
    """The differences from the reference, and the reasons where there is none."""
    rows = [
        [
            name_arm(sides, (each.model, each.pool, each.arm)),
            each.second,
            None if each.difference is None else f"{100 * each.difference:+.1f}",
            say_interval(each) or None,
            each.verdict,
            say_rate(each.first_rate),
            say_rate(each.second_rate),
            each.prompts,
            each.seeds,
            ", ".join(each.languages) or None,
        ]
        for each in compared
    ]
    columns = ["arm", "run", "difference", "95 % interval", "verdict", "in the reference", "in the run"]
    columns += ["prompts", "seeds", "languages"]
    why = [
        [name_arm(sides, (each.model, each.pool, each.arm)), each.second, "; ".join(each.reasons)]
        for each in compared
        if each.reasons
    ]
    return Part(
        "differences",
        "Differences of win rates",
        f"Each row is an arm in a run, minus the same arm in the reference {sides[0].label}. Both sides have the same "
        "prompts, judge and baseline answers. The intervals are from a paired bootstrap over prompts; if both runs have "
        "several training seeds, they cover the seeds, too. The page makes no correction for the number of rows.",
        [
            table("Win rates in per cent, and their difference in percentage points", columns, rows),
            table("Arms without a difference", ["arm", "run", "why"], why),
        ],
        "No arm is in the reference and in another run.",
        [say_headline(sides, each) for each in compared if each.difference is not None][:HEADLINES],
    )


def name_arm(sides: Iterable[Side], arm: ArmKey) -> str:
    """The plain name that the report page gives the arm, with its place."""
    for side in sides:
        if line := side.lines.get(arm):
            return f"{name_with_pool(line)} ({'/'.join(arm)})"
    return "/".join(arm)


def say_rate(value: float | None) -> str | None:
    """A share in per cent; None, which the page shows as a dash, for None."""
    return None if value is None else percent(value)


def say_interval(comparison: ArmComparison) -> str:
    """The interval of the difference in percentage points; empty where there is none."""
    if comparison.low is None or comparison.high is None:
        return ""
    return f"[{100 * comparison.low:+.1f}, {100 * comparison.high:+.1f}]"


def say_headline(sides: Iterable[Side], comparison: ArmComparison) -> str:
    """A difference in a sentence."""
    arm = name_arm(sides, (comparison.model, comparison.pool, comparison.arm))
    points = f"{100 * (comparison.difference or 0.0):+.1f} percentage points"
    return (
        f"{arm}: {' '.join(part for part in (points, say_interval(comparison)) if part)} in {comparison.second} against "
        f"{comparison.first}, on {comparison.prompts} shared prompts ({comparison.verdict})."
    )


def show_arms(sides: Sequence[Side]) -> Part:
    """The leaderboards of all runs in one table, and the arms that are not in every run."""
    rows, absent = [], []
    for arm in list_arms(sides):
        name = name_arm(sides, arm)
        has = [side for side in sides if arm in side.lines or arm in side.run.find_arms()]
        rows += [[name, side.label, *say_line(side.lines.get(arm))] for side in has]
        if len(has) < len(sides):
            labels = [side.label for side in sides if side not in has]
            absent.append([name, ", ".join(side.label for side in has), ", ".join(labels)])
    columns = ["arm", "run", "win rate [95 % interval]", "length-controlled", "tasks", "right language"]
    columns += ["length (tokens)", "n", "seeds"]
    return Part(
        "arms",
        "All arms",
        "The numbers are those of each run's own report page, over all of its prompts. Rates are in per cent. A win rate "
        "of 50 is no change from the untuned model of the same run. A dash means that the run has no such result.",
        [
            table("Every arm in every run", columns, rows),
            table("Arms that are not in every run", ["arm", "in", "not in"], absent),
        ],
        "The runs have no arms.",
    )


def say_line(line: Line | None) -> list[str | int | None]:
    """The cells of one arm in one run."""
    if line is None:
        return [None] * 7
    interval = "" if line.low is None or line.high is None else f" [{percent(line.low)}, {percent(line.high)}]"
    rates = (line.length_controlled, line.tasks, line.right_language)
    tokens = None if line.tokens is None else f"{line.tokens:.1f}"
    win_rate = None if line.win_rate is None else f"{percent(line.win_rate)}{interval}"
    return [win_rate, *map(say_rate, rates), tokens, line.n, line.seeds]


def show_excluded(sides: Sequence[Side], compared: Iterable[ArmComparison]) -> Part:
    """The prompts, and training seeds, that are in no difference."""
    rows, notes = [], []
    for each in compared:
        arm = name_arm(sides, (each.model, each.pool, each.arm))
        rows += [[arm, each.second, part.language, part.reason, part.prompts] for part in each.excluded]
        notes += [[arm, each.second, note] for note in each.notes]
    return Part(
        "excluded",
        "What is not compared",
        "A prompt is shared if both runs have its id in the same language and with the same text, and a verdict on it.",
        [
            table("Prompts that are not shared", ["arm", "run", "language", "reason", "prompts"], rows),
            table("Training seeds that are not shared", ["arm", "run", "seed"], notes),
        ],
        "All prompts and training seeds of the compared arms are shared.",
    )


def show_config(sides: Sequence[Side]) -> Part:
    """The keys that differ between the merged configs of the last starts."""
    recorded = [side for side in sides if side.run.config is not None]
    differences = list_config_differences([side.run.config for side in recorded])
    missing = [side.label for side in sides if side not in recorded]
    intro = "The merged configs of the last start of each run. Only keys that differ are listed."
    if missing:
        intro += f" Not recorded: the config of {', '.join(missing)}."
    rows = [[key, *map(say_value, values)] for key, values in differences]
    return Part(
        "config",
        "What differs in the config",
        intro,
        [table("Keys that differ", ["key", *(side.label for side in recorded)], rows)],
        "No key differs." if len(recorded) > 1 else "There are no two configs to compare.",
    )


def say_value(value: Any) -> str:
    """A value of a config, shortened."""
    if value is ABSENT:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def show_provenance(sides: Sequence[Side]) -> Part:
    """Code, libraries and models that differ, from the manifests."""
    facts = [list_facts(side) for side in sides]
    names = list(dict.fromkeys(name for of_side in facts for name in of_side))
    rows = [[name, *(of_side.get(name) for of_side in facts)] for name in names]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    return Part(
        "provenance",
        "Code, libraries and models",
        f"{len(rows) - len(differing)} of {len(rows)} facts are the same in all runs: commits of the code, versions of "
        "the libraries, and the models' revisions and contents. The others are listed.",
        [table("Facts that differ", ["fact", *(side.label for side in sides)], differing)],
        "None of them differs.",
    )


def list_facts(side: Side) -> dict[str, str | None]:
    """{fact: value} of the code, the libraries and the models of a run; None for a value that is not recorded."""
    manifests = side.page.manifests
    found: dict[str, set[str]] = {"commit of the code": set()}
    for manifest in manifests:
        found["commit of the code"].add(manifest.short_commit + (" with changes" if manifest.dirty else ""))
        for library, version in manifest.versions.items():
            found.setdefault(f"version of {library}", set()).update([version] if version else [])
        if fact := name_model(manifest.file):
            found.setdefault(fact[0], set()).update(value for name, value in manifest.inputs if name == fact[1])
    facts: dict[str, str | None] = {name: ", ".join(sorted(values)) or None for name, values in found.items()}
    if side.run.lock is not None:
        facts["digest of the lock file"] = side.run.lock
    config = side.run.config or {}
    for kind in ("policies", "reward_models", "judges", "translators"):
        for row in config.get(kind) or ():
            if isinstance(row, dict) and "revision" in row:
                facts[f"{kind}: revision of {row.get('name')}"] = str(row["revision"])
    return facts


def name_model(file: str) -> tuple[str, str] | None:
    """(fact, input) if the manifest at this path says what the content of a policy or a reward model is."""
    parts = Path(file).parts
    if len(parts) == 3 and parts[-1] == "generations.manifest.json":
        return f"content of the policy {parts[0]}", "policy"
    if len(parts) == 4 and parts[-2] == "scores":
        return f"content of the reward model {parts[-1].removesuffix('.manifest.json')}", "reward_model"
    return None


if __name__ == "__main__":
    cli.run(main)
