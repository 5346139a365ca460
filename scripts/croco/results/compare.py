"""Finished runs side by side: what their configs have different, and the difference of an arm's win rates in two runs.

A difference is between verdicts on the same prompts, by the same judge, against the same baseline answers. Where one of
these is not the same, there is no difference, and `ArmComparison.reasons` says why.
"""

import functools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from croco.config.differences import ABSENT, list_differences
from croco.digests import prompt_digest
from croco.errors import InputError
from croco.models.engines import OF_THE_MACHINE
from croco.records import Generation, Verdict, prompt_rows, read_json, read_records
from croco.results.bundles import CONFIG, START
from croco.results.statistics import FEWEST, intervals, over_groups, replicates
from croco.runs import BASE, UNTUNED, Run, read_runs

RUN_TABLE = "runs.jsonl"
Kind = TypeVar("Kind")
# Options of scripts/judge.py that decide what a model that judges says, besides those of its engine.
JUDGE_OPTIONS = ("dtype", "engine", "template_options", "max_tokens", "max_length", "temperature", "orders")
FIX_FOLDER = "give the folder that `results` of the config names, or an unpacked bundle, with runs.jsonl directly in it"


@dataclass(frozen=True)
class FinishedRun:
    """A results folder, or an unpacked bundle.

    Attributes:
        label: how tables name it; different for each folder that is compared.
        runs: its run table.
        config: the merged config, None where the folder does not record it.
        lock: digest of the lock file of the last start, None in a bundle.
    """

    label: str
    root: Path
    runs: list[Run]
    config: dict[str, Any] | None
    lock: str | None

    def find_arms(self) -> dict[tuple[str, str, str], dict[int, Run]]:
        """{(model, pool, arm): {replicate: run of the last round}} of the tuned runs."""
        arms: dict[tuple[str, str, str], dict[int, Run]] = {}
        for run in self.runs:
            if not run.is_base:
                arms.setdefault((run.model, run.pool, run.arm), {})[run.replicate] = run  # the last round comes last
        return arms


@dataclass(frozen=True)
class Excluded:
    """Prompts of a language that are in no difference, and why."""

    language: str
    reason: str
    prompts: int


@dataclass(frozen=True)
class ArmComparison:
    """One arm in two runs.

    Attributes:
        first_rate, second_rate: win rates over the shared prompts, in shares; None without a difference.
        difference: second_rate - first_rate, with its 95 % interval from ``low`` to ``high``.
        prompts: number of shared prompts, in however many languages each is; None without a difference.
        seeds: number of training seeds that both runs have verdicts of.
        languages: those of the difference.
        excluded: the prompts that are not shared.
        notes: what else only one of the runs has.
        reasons: why there is no difference; empty where there is one.
    """

    model: str
    pool: str
    arm: str
    first: str
    second: str
    first_rate: float | None = None
    second_rate: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    prompts: int | None = None
    seeds: int = 0
    languages: tuple[str, ...] = ()
    excluded: tuple[Excluded, ...] = ()
    notes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """`higher` or `lower` in the second run where the interval excludes 0, else why this is not said."""
        if self.difference is None or self.prompts is None:
            return "not compared"
        if self.prompts < FEWEST:
            return f"fewer than {FEWEST} prompts"
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "inconclusive"
        return "higher" if self.low > 0 else "lower"


def read_finished(roots: Sequence[Path]) -> list[FinishedRun]:
    """The runs in the order of their folders.

    Raises InputError for fewer than two folders, one that is given twice, and one that is no results folder.
    """
    if len(roots) < 2:
        raise InputError(
            f"{len(roots)} run to compare", "give two or more results folders", roots[0] if roots else None
        )
    places: dict[str, Path] = {}
    for root in roots:
        check_folder(root)
        place = os.path.realpath(root)
        if place in places:
            raise InputError(f"the same folder as {places[place]}", "give each run once", root)
        places[place] = root
    names = Counter(Path(place).name for place in places)
    return [
        _read_run(root, str(root) if names[Path(place).name] > 1 else Path(place).name)
        for place, root in places.items()
    ]


def check_folder(root: Path) -> None:
    """Raises InputError where there is no run table."""
    if root.is_file():
        raise InputError(
            "a file, not a folder", "unpack a bundle (tar -xzf bundle.tar.gz) and give its folder `bundle`", root
        )
    if not root.is_dir():
        raise InputError("no such folder", FIX_FOLDER, root)
    if not (root / RUN_TABLE).is_file():
        inner = root / "bundle"
        remedy = f"give {inner}, which has one" if (inner / RUN_TABLE).is_file() else FIX_FOLDER
        raise InputError(f"no results folder: it has no {RUN_TABLE}", remedy, root)


class _Start(msgspec.Struct):
    """What is read of start.json."""

    config: dict[str, Any] | None = None
    lock: str | None = None


class _JudgeManifest(msgspec.Struct):
    """What is read of the manifest beside verdicts; ``judge`` is there if it is a model."""

    options: dict[str, Any]
    judge: dict[str, Any] | None = None


def _read_typed(path: Path, kind: type[Kind]) -> Kind:
    try:
        return msgspec.convert(read_json(path), kind)
    except msgspec.ValidationError as error:
        raise InputError(str(error), "give the file that the run wrote", path) from error


def _read_run(root: Path, label: str) -> FinishedRun:
    start = _Start()
    if (root / START).is_file():
        start = _read_typed(root / START, _Start)
    elif (root / CONFIG).is_file():
        start = _Start(config=read_json(root / CONFIG))
    return FinishedRun(label, root, read_runs(root / RUN_TABLE), start.config, start.lock)


def list_config_differences(configs: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
    """As list_differences; rows are named by name or code."""
    return list_differences(configs, ("name", "code"))


def compare_arms(first: FinishedRun, second: FinishedRun) -> list[ArmComparison]:
    """Every arm that both runs have, in the order of the first."""
    ours, theirs = first.find_arms(), second.find_arms()
    return [_compare_arm(first, second, arm, ours[arm], theirs[arm]) for arm in ours if arm in theirs]


def _compare_arm(
    first: FinishedRun,
    second: FinishedRun,
    arm: tuple[str, str, str],
    ours: dict[int, Run],
    theirs: dict[int, Run],
) -> ArmComparison:
    sides = ((first, ours), (second, theirs))
    shared_seeds = sorted(ours.keys() & theirs.keys())
    notes = [
        f"training seed {seed} only in {side.label}"
        for side, runs in sides
        for seed in sorted(runs)
        if seed not in shared_seeds
    ]
    without = [
        (seed, side.label) for side, runs in sides for seed in shared_seeds if not _has_verdicts(side.root, runs[seed])
    ]
    # A seed that is not judged yet does not take the others' languages away. If none is, the languages say so.
    seeds = [seed for seed in shared_seeds if seed not in dict(without)]
    if seeds:
        notes += [f"training seed {seed} has no verdicts in {label}" for seed, label in without]
    else:
        seeds = shared_seeds
    shared = _Shared(first, second, arm[0])
    for code in dict.fromkeys(code for _, runs in sides for run in runs.values() for code in run.evaluated):
        shared.add(code, [[runs[seed] for seed in seeds] for _, runs in sides])
    reasons = list(dict.fromkeys(shared.reasons))
    if not seeds:
        reasons.append("no training seed in common")
    if not reasons and not shared.scores:
        reasons.append("no shared prompt has a verdict in both runs")
    found = {} if reasons else _estimate(list(shared.scores.values()))
    return ArmComparison(
        *arm,
        first.label,
        second.label,
        **found,
        seeds=len(seeds),
        languages=tuple(shared.scores) if found else (),
        excluded=tuple(shared.excluded),
        notes=tuple(notes),
        reasons=tuple(reasons),
    )


class _Shared:
    """Collects the prompts of one arm that two runs share, language by language.

    Attributes:
        scores: {language: {prompt: win rates of shape (2, seeds)}}.
        excluded: the prompts that are not in ``scores``.
        reasons: why the scores must not be compared.
    """

    def __init__(self, first: FinishedRun, second: FinishedRun, model: str) -> None:
        self.sides, self.model = (first, second), model
        self.scores: dict[str, dict[str, np.ndarray]] = {}
        self.excluded: list[Excluded] = []
        self.reasons: list[str] = []

    def add(self, code: str, runs: Sequence[Sequence[Run]]) -> None:
        """Adds a language; ``runs`` are those of both sides, one per seed."""
        digests = [_read_prompts(side.root, code) for side in self.sides]
        evaluated = [all(code in run.evaluated for run in of_side) for of_side in runs]
        if not all(evaluated):
            place = evaluated.index(True) if any(evaluated) else 0
            self._exclude(code, f"language only in {self.sides[place].label}", len(digests[place] or ()))
            return
        lacking = [
            side.label
            for side, of_side in zip(self.sides, runs, strict=True)
            if not all(_path_verdicts(side.root, run, code).is_file() for run in of_side)
        ]
        unknown = [side.label for side, known in zip(self.sides, digests, strict=True) if known is None]
        if unknown and not lacking:
            name = _name_prompts(code)
            self.reasons += [f"the texts of the prompts are unknown: {label} has no {name}" for label in unknown]
            return
        prompts = self._share_prompts(code, *(known or {} for known in digests))
        if lacking:  # a run that is not finished has no manifests of these verdicts either
            self._exclude(code, f"no verdicts in {lacking[0]}", len(prompts))
            return
        self._check_judges(code, runs)
        self._check_baselines(code, prompts)
        self._add_scores(code, runs, prompts)

    def _share_prompts(self, code: str, ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
        """The ids that have the same text in both; the others are excluded."""
        for side, own, other in zip(self.sides, (ours, theirs), (theirs, ours), strict=True):
            self._exclude(code, f"prompt only in {side.label}", len(own.keys() - other.keys()))
        both = [prompt for prompt in ours if prompt in theirs]
        same = [prompt for prompt in both if ours[prompt] == theirs[prompt]]
        self._exclude(code, "another text under the same id", len(both) - len(same))
        return same

    def _check_judges(self, code: str, runs: Sequence[Sequence[Run]]) -> None:
        """Adds reasons where the judges are not known to be the same."""
        labels = [side.label for side in self.sides]
        for pair in zip(*runs, strict=True):
            judges = [_read_judge(side.root, run.name, code) for side, run in zip(self.sides, pair, strict=True)]
            self.reasons += [
                f"the judge is unknown: {label} has no {run.name}/arena/{code}.manifest.json"
                for label, run, judge in zip(labels, pair, judges, strict=True)
                if judge is None
            ]
            if None in judges:
                continue
            for key, values in list_config_differences(judges):
                said = ", ".join(f"{_say(value)} in {label}" for value, label in zip(values, labels, strict=True))
                self.reasons.append(f"the judge differs: {key} is {said}")

    def _check_baselines(self, code: str, prompts: Sequence[str]) -> None:
        """Adds reasons where the baseline's answers to the shared prompts are not known to be the same."""
        answers = []
        for side in self.sides:
            known = _read_baseline(side.root, self.model, code)
            if known is None:
                name = f"{self.model}/{UNTUNED}/{BASE}/answers/{code}.jsonl"
                self.reasons.append(f"the baseline's answers are unknown: {side.label} has no {name}")
                return
            answers.append(known)
        if other := sum(answers[0].get(prompt) != answers[1].get(prompt) for prompt in prompts):
            self.reasons.append(
                f"the baseline differs: other answers to {other} of {len(prompts)} shared prompts in {code}"
            )

    def _add_scores(self, code: str, runs: Sequence[Sequence[Run]], prompts: Sequence[str]) -> None:
        of_sides = [
            [_read_scores(_path_verdicts(side.root, run, code)) for run in of_side]
            for side, of_side in zip(self.sides, runs, strict=True)
        ]
        usable = {}
        missing: Counter[str] = Counter()
        for prompt in prompts:
            values = [[scores.get(prompt) for scores in of_side] for of_side in of_sides]
            without = [side.label for side, of_side in zip(self.sides, values, strict=True) if None in of_side]
            if without:
                missing[" and in ".join(without)] += 1
            else:
                usable[prompt] = np.array(values, dtype=float)
        for where, count in missing.items():
            self._exclude(code, f"no readable verdict in {where}", count)
        if usable:
            self.scores[code] = usable

    def _exclude(self, code: str, reason: str, prompts: int) -> None:
        if prompts or reason.startswith(("language", "no verdicts")):
            self.excluded.append(Excluded(code, reason, prompts))


def _estimate(languages: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Rates, difference and interval of {prompt: win rates of shape (2, seeds)} per language.

    The mean is over languages, as in summary.csv. With several seeds the interval covers new seeds, too.
    """
    seeds = next(iter(languages[0].values())).shape[1]
    sides = np.array(
        [
            [
                list(over_groups([{prompt: [value[side, seed]] for prompt, value in of.items()} for of in languages]).values())
                for seed in range(seeds)
            ]
            for side in (0, 1)
        ]
    )  # fmt: skip
    differences = sides[1] - sides[0]
    found: dict[str, Any] = {
        "first_rate": float(sides[0].mean()),
        "second_rate": float(sides[1].mean()),
        "difference": float(differences.mean()),
        "prompts": differences.shape[1],
    }
    if seeds == 1:
        found["low"], found["high"] = intervals(differences, ranges=[(-1.0, 1.0)])[0]
    elif (of_seeds := replicates(differences)) is not None:
        found |= {end: of_seeds[end] for end in ("low", "high")}
    return found


def _say(value: Any) -> str:
    return "not set" if value is ABSENT or value is None else str(value)


def _name_prompts(code: str) -> str:
    return f"prompts/evaluate/{code}.jsonl"


@functools.cache
def _read_prompts(root: Path, code: str) -> dict[str, str] | None:
    """{prompt: digest of its text}, None without a prompt file."""
    path = root / _name_prompts(code)
    return {row["prompt_id"]: prompt_digest(row) for row in prompt_rows(path)} if path.is_file() else None


@functools.cache
def _read_baseline(root: Path, model: str, code: str) -> dict[str, list[str]] | None:
    """{prompt: texts of the untuned model's answers}, None without a file of answers."""
    path = root / model / UNTUNED / BASE / "answers" / f"{code}.jsonl"
    if not path.is_file():
        return None
    lines = (line for _, line in read_records(path, Generation))
    return {line["prompt_id"]: [response["text"] for response in line["responses"]] for line in lines}


def _path_verdicts(root: Path, run: Run, code: str) -> Path:
    return root / run.name / "arena" / f"{code}.jsonl"


def _has_verdicts(root: Path, run: Run) -> bool:
    """Whether the run has been judged in a language at least."""
    return any(_path_verdicts(root, run, code).is_file() for code in run.evaluated)


def _read_scores(path: Path) -> dict[str, float | None]:
    return {line["prompt_id"]: line["score"] for _, line in read_records(path, Verdict)}


def _read_judge(root: Path, run: str, code: str) -> dict[str, Any] | None:
    """What identifies the judge, None without a manifest.

    A model is identified by its content or commit, not by its name in the config, and its prompt by a digest of the text.
    """
    path = root / run / "arena" / f"{code}.manifest.json"
    if not path.is_file():
        return None
    manifest = _read_typed(path, _JudgeManifest)
    options, model = manifest.options, manifest.judge
    if model is None:
        return {"judge": options.get("judge")}
    asked = {name: options.get(name) for name in JUDGE_OPTIONS}
    of_engine = options.get("engine_options") or {}
    asked["engine_options"] = {name: value for name, value in of_engine.items() if name not in OF_THE_MACHINE}
    return {"model": model.get("identity"), "prompt": model.get("prompt"), **asked}
