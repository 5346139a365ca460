"""How long model work takes: by the manifests of a pilot where there are some, else by a table of GPU types."""

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean, stdev

from croco.config.resources import weigh
from croco.errors import InputError
from croco.grid import Grid
from croco.planning.work import Work
from croco.records import read_json

TERA = 1e12
BILLION = 1e9
# Of transformers' generate: 64 sequences and a model of 1.7 billion parameters took 0.029 s on an H200 (docs/performance.md).
STEP_SECONDS = 0.03
# At least this share of a measured time counts as work on items, however long the table says that loading takes.
LEAST_SHARE = 0.2
Z = 1.96  # of a 95 % interval
NOT_MEASURED = ("state", "partial", "audit")  # folders of a results folder


@dataclass(frozen=True)
class Speed:
    """A row of config/speeds.tsv.

    Attributes:
        gpu: the type. memory_gb: of one. tflops: peak of dense bf16 operations, in 10^12 per second.
        sampling, prefill, training: share of the peak that is reached.
        load_gb_s: GB of weights that are loaded per second.
        start_s: seconds of a load beside its weights: imports, compilation, captured graphs.
        source: of each figure, or `estimate`.
    """

    gpu: str
    memory_gb: float
    tflops: float
    sampling: float
    prefill: float
    training: float
    load_gb_s: float
    start_s: float
    source: str

    def load_seconds(self, work: Work) -> float:
        """Seconds of all model loads of a job."""
        return work.loads * self.seconds_of_load(work.gigabytes)

    def seconds_of_load(self, gigabytes: float) -> float:
        """Seconds of one load of a model."""
        return self.start_s + gigabytes / self.load_gb_s

    def item_seconds(self, work: Work, gpus: int = 1) -> float:
        """GPU-seconds of a job without its loads: 2 operations per active parameter and token that is read or sampled.

        Steps take time in addition to operations, whatever the number of sequences in a call: the GPU waits for memory
        or for the next operator to be launched. All ``gpus`` of a split model wait for each step. In a training, each has
        steps of its own.
        """
        parameters = work.active * BILLION
        per_peak = (
            2 * work.tokens_in / self.prefill
            + 2 * work.tokens_out / self.sampling
            + work.training_factor * work.tokens_trained / self.training
        )
        waiting = 1 if work.kind else gpus
        return parameters * per_peak / (self.tflops * TERA) + STEP_SECONDS * work.steps * waiting


def read_speeds(path: Path) -> dict[str, Speed]:
    """{GPU type: its speed}; raises InputError for a figure that is no positive number."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    figures = [field.name for field in fields(Speed) if field.name not in ("gpu", "source")]
    speeds = {}
    for line, row in enumerate(rows, start=2):
        try:
            values = {name: float(row[name]) for name in figures}
            speed = Speed(gpu=row["gpu"], source=row["source"], **values)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a row of GPU speeds ({error})", "write a number per column", path, line) from error
        if not all(0 < value < math.inf for value in values.values()):
            raise InputError("a speed that is not above 0", "write a positive number", path, line)
        speeds[speed.gpu] = speed
    return speeds


def read_speed(path: Path, gpu: str) -> Speed:
    """The speed of one GPU type; raises InputError as read_speeds, and for a type that the table does not have."""
    speeds = read_speeds(path)
    if gpu not in speeds:
        raise InputError(f"unknown GPU type {gpu}", f"choose one of {', '.join(speeds)}")
    return speeds[gpu]


@dataclass(frozen=True)
class Rate:
    """Measured GPU-seconds per item of one stage and model.

    Attributes:
        mean: over all items.
        error: standard error of the mean over jobs, blocks and languages; None with fewer than two of them.
        jobs: how many were measured.
        gpu: name of the GPUs that they ran on, "" where the manifests do not say it.
        speed: the row of the table for these GPUs, None where it has none.
    """

    mean: float
    error: float | None
    jobs: int
    gpu: str = ""
    speed: Speed | None = None


@dataclass(frozen=True)
class Measured:
    """What the manifests of finished jobs say.

    Attributes:
        rates: {(stage, path of the model, kind of training or ""): Rate}, of jobs on GPUs.
        response_tokens: {(path of the policy, language): mean tokens of a response}.
    """

    rates: Mapping[tuple[str, str, str], Rate]
    response_tokens: Mapping[tuple[str, str], float]


def list_gigabytes(grid: Grid) -> dict[str, float]:
    """{path of a model: GB of its weights}."""
    return {grid.path(row["path"]): weigh(row) for row in grid.list_models()}


def find_speed(speeds: Mapping[str, Speed], name: str) -> Speed | None:
    """The row of a GPU by the name that its driver gives, such as NVIDIA A100-SXM4-80GB; None without one."""
    words = re.sub(r"[^a-z0-9]", "", name.lower())
    return next((speed for gpu, speed in speeds.items() if gpu in words), None)


def read_measured(
    results: Path, speed: Speed, gigabytes: Mapping[str, float], speeds: Mapping[str, Speed] | None = None
) -> Measured:
    """Rates and response lengths by the manifests in a results folder, empty without any.

    ``gigabytes`` is {path of a model: GB of its weights}; the time that loading them takes by the table of speeds is
    subtracted, so that a pilot with few items does not look slow. ``speed`` is that of the GPUs that are planned with, and
    ``speeds`` the table. Of a stage that ran on several types of GPUs, the planned one counts, else that of most items.
    """
    jobs: dict[tuple[str, str, str], dict[str, dict[str, tuple[float, float]]]] = defaultdict(lambda: defaultdict(dict))
    lengths: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for manifest in _read_manifests(results):
        stage, model = manifest["stage"], manifest["options"].get("model")
        counts = manifest.get("counts", {})
        if stage == "generate" and counts.get("responses") and not manifest["options"]["adapter"]:
            total = lengths[model, Path(manifest["options"]["prompts"]).parent.name]
            total[0] += counts["tokens"]
            total[1] += counts["responses"]
        items, gpus = _count_done(manifest), manifest.get("gpus", 0)
        if not items or not gpus or not model:
            continue
        name = next(iter(manifest.get("gpu_names") or []), "")
        loading = gpus * (find_speed(speeds or {}, name) or speed).seconds_of_load(gigabytes.get(model, 0))
        seconds = max(gpus * manifest["seconds"] - loading, LEAST_SHARE * gpus * manifest["seconds"])
        # Manifests of one job, one per language, each have the seconds since the job's start.
        of_kind = jobs[stage, model, _kind(manifest["options"])][name]
        before = of_kind.get(manifest["job"], (0.0, 0.0))
        of_kind[manifest["job"]] = (max(before[0], seconds), before[1] + items)
    return Measured(
        rates={key: _choose_rate(of_key, speed, speeds or {}) for key, of_key in jobs.items()},
        response_tokens={key: tokens / count for key, (tokens, count) in lengths.items()},
    )


def _read_manifests(results: Path) -> Iterable[dict]:
    # state/ may have very many files, so that it is not even looked through.
    folders = [path for path in results.glob("*") if path.is_dir() and path.name not in NOT_MEASURED]
    paths = [path for folder in folders for path in folder.glob("**/*manifest.json")]
    for path in sorted([*results.glob("*manifest.json"), *paths]):
        try:
            manifest = read_json(path)
        except InputError:  # it is cut off, and says nothing of speed
            continue
        if "stage" in manifest and "options" in manifest:
            yield manifest


def _count_done(manifest: dict) -> float:
    """Items that a job did itself in the seconds of its manifest; 0 where that cannot be told, or for other stages."""
    counts = manifest.get("counts", {})
    match manifest["stage"]:
        case "generate":  # else a part was sampled before, by a job that was cut off or by the audit
            whole = manifest.get("sampled") == counts["prompts"] - sum(counts.get("skipped", {}).values())
            return counts["responses"] if whole else 0
        case "score":
            return manifest.get("scored", 0)
        case "translate":
            return manifest.get("translated", 0)
        case "judge":  # a manifest per language, each with what the job asked in all of them
            return counts["verdicts"] if manifest.get("asked") == manifest.get("comparisons", 0) > 0 else 0
        case "train":  # rows are counted over all starts, seconds since the last one
            return manifest["rows_seen"]["sum"] if len(manifest.get("runs", [])) == 1 else 0
    return 0


def _kind(options: Mapping[str, object]) -> str:
    """What decides the speed of a training besides its model."""
    return f"{options['objective']} {options['weights']}" if "objective" in options else ""


def _choose_rate(
    jobs: Mapping[str, Mapping[str, tuple[float, float]]], speed: Speed, speeds: Mapping[str, Speed]
) -> Rate:
    """The rate on the planned GPUs, else on those of most items; ``jobs`` are by the name of their GPUs."""

    def rank(name: str) -> tuple[bool, float]:
        return find_speed(speeds, name) == speed, sum(items for _, items in jobs[name].values())

    name = max(jobs, key=rank)
    return _rate(list(jobs[name].values()), name, find_speed(speeds, name))


def _rate(jobs: Sequence[tuple[float, float]], gpu: str, speed: Speed | None) -> Rate:
    """The rate of (GPU-seconds, items) per job, with the standard error of a ratio of means."""
    seconds, items = (sum(values) for values in zip(*jobs, strict=True))
    ratio = seconds / items
    error = None
    if len(jobs) > 1:
        residuals = [second - ratio * count for second, count in jobs]
        error = stdev(residuals) / math.sqrt(len(jobs)) / mean(count for _, count in jobs)
    return Rate(ratio, error, len(jobs), gpu, speed)


@dataclass(frozen=True)
class Cost:
    """GPU-seconds of a job.

    Attributes:
        seconds: all of them. error: their standard error where they were measured, else None.
        loading: those of them in which models are loaded, by the table.
        source: the stage and model of the rate, or None for the table.
    """

    seconds: float
    error: float | None = None
    source: tuple[str, str] | None = None
    loading: float = 0


def estimate(work: Work, gpus: int, speed: Speed, measured: Measured) -> Cost:
    """GPU-seconds of a job on ``gpus``; none of a job that asks for no GPU.

    A rate of another type of GPUs is multiplied by the ratio of their times by the table.
    """
    if not gpus or work.model is None:
        return Cost(0)
    loading = gpus * speed.load_seconds(work)
    rate = measured.rates.get((work.stage, work.path, work.kind))
    if rate is None:
        return Cost(loading + speed.item_seconds(work, gpus), loading=loading)
    items = work.items * _ratio(work, gpus, speed, rate)
    error = None if rate.error is None else rate.error * items
    return Cost(loading + rate.mean * items, error, (work.stage, work.path), loading)


def _ratio(work: Work, gpus: int, speed: Speed, rate: Rate) -> float:
    """How many times as long as on the measured GPUs the items take; 1 where the table cannot say it."""
    measured = rate.speed.item_seconds(work, gpus) if rate.speed and rate.speed != speed else 0
    return speed.item_seconds(work, gpus) / measured if measured else 1


def describe_other_gpus(measured: Measured, speed: Speed) -> list[str]:
    """Sentences on times that were measured on other GPUs than those that are planned with."""
    others = {rate.gpu: rate.speed for rate in measured.rates.values() if rate.gpu and rate.speed != speed}
    return [
        f"times measured on {name} are scaled to {speed.gpu} by config/speeds.tsv"
        if row
        else f"times measured on {name}, which config/speeds.tsv lacks, are taken as they are, not as those of {speed.gpu}"
        for name, row in others.items()
    ]
