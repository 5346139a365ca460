"""What the sections of the report page read: one typed `Page`, made from the files of a run.

The run table and summary.csv are read only here: `list_reported` makes `Page.runs` from the run table, and `read_rows`
makes `Page.summary` from summary.csv.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from croco.planned import Planned, read_planned
from croco.report.contrasts import Contrast, read_contrasts
from croco.report.elements import BASE, Gaps, name_arm, read_json
from croco.report.names import UNTUNED_NAME, is_control, name_arms
from croco.results.bundles import START
from croco.results.table import ALL, empty_summary, read_summary
from croco.runs import Run, read_runs

if TYPE_CHECKING:
    import pandas as pd

INPUTS_SHOWN = 40  # inputs of a manifest
# Folders under the output root whose manifests describe unfinished or intermediate work.
NOT_RESULTS = ("state", "logs", "partial")


# Where a stage's manifest says how much was done.
ITEMS = {
    "generate": "counts.responses",
    "score": "counts.responses",
    "train": "rows_seen.sum",
    "evaluate": "counts.answers",
    "judge": "counts.verdicts",
}
TOKENS = {"generate": "counts.tokens", "train": "tokens"}
# What a job that did nothing itself has none of.
DONE = {"generate": "sampled", "score": "scored", "evaluate": "evaluated", "train": "tokens", "judge": "asked"}


@dataclass(frozen=True)
class Manifest:
    """What the page needs of one manifest.

    Attributes:
        file: its path, relative to the output root.
        job: digest of the process that wrote it, or None in manifests of older code.
        seconds: time from the start of the process to the writing of the manifest.
        memory: peak memory of the process in MB.
        gpus: GPUs that the process had, or None if unknown; ``gpu_names`` has the model of each that is known.
        cpu: model of the processor, or None if unknown.
        inputs: pairs of name and hash, at most INPUTS_SHOWN; ``more`` counts the others.
        options: of the command line.
        items, tokens: how many were done, None where the manifest does not say it. loads: models that the job loaded.
    """

    file: str
    stage: str
    commit: str | None
    dirty: bool
    seed: int | None
    code: str | None
    versions: dict[str, str | None]
    started: str | None
    seconds: float | None
    memory: int | None
    job: str | None
    gpus: int | None
    gpu_names: list[str]
    cpu: str | None
    inputs: list[list[str]]
    more: int
    options: dict[str, Any]
    items: int | None
    tokens: int | None
    loads: int

    @classmethod
    def from_row(cls, file: str, row: dict[str, Any]) -> "Manifest":
        """The manifest with the content ``row`` of the file ``file``."""
        inputs = [[str(name), str(value)] for name, value in (row.get("inputs") or {}).items()]
        return cls(
            file=file,
            stage=row["stage"],
            commit=row.get("code_commit"),
            dirty=bool(row.get("code_dirty")),
            seed=(row.get("options") or {}).get("seed"),
            code=row.get("code_digest"),
            versions=row.get("versions") or {},
            started=row.get("started"),
            seconds=row.get("seconds"),
            memory=row.get("peak_memory_mb"),
            job=row.get("job"),
            gpus=row.get("gpus"),
            gpu_names=row.get("gpu_names") or [],
            cpu=row.get("cpu"),
            inputs=inputs[:INPUTS_SHOWN],
            more=max(0, len(inputs) - INPUTS_SHOWN),
            options=row.get("options") or {},
            items=read_count(row, ITEMS.get(row["stage"])),
            tokens=read_count(row, TOKENS.get(row["stage"])),
            loads=count_loads(row),
        )

    @property
    def short_commit(self) -> str:
        """The first ten digits of the commit, or that there is none."""
        return self.commit[:10] if self.commit else "outside git"


def read_count(row: dict[str, Any], place: str | None) -> int | None:
    """The whole number at a place such as `counts.responses` in a manifest, or None."""
    value: Any = row if place else None
    for name in place.split(".") if place else ():
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def count_loads(row: dict[str, Any]) -> int:
    """Models that the job of a manifest loaded; none where all its work was finished, or a rule judged."""
    options = row.get("options") or {}
    if not row.get(DONE.get(row["stage"], "")) or (row["stage"] == "judge" and options.get("judge") == "oracle"):
        return 0
    return 2 if row["stage"] == "train" and options.get("reward_model") else 1


@dataclass(frozen=True)
class ReportedRun:
    """A run of the run table as the page shows it; an untuned policy, too.

    Attributes:
        setting: with its replicate's number, without its round; ``arm`` is without both.
        plain_name: of the arm, for readers.
        is_control: it is a null control.
        seed: training seed.
        round: from 1; ``rounds`` is how many the setting has.
        responses: the policy whose responses the run is tuned on.
        languages: languages that it is tuned on.
        evaluated: languages that it is evaluated in.
        has_pairs: it is tuned on pairs.
    """

    model: str
    pool: str
    setting: str
    arm: str
    plain_name: str
    is_control: bool
    seed: str
    round: int
    rounds: int
    responses: str
    reward_model: str | None
    languages: tuple[str, ...]
    evaluated: tuple[str, ...]
    folder: Path
    has_pairs: bool

    @classmethod
    def from_run(cls, run: Run, root: Path, plain_name: str) -> "ReportedRun":
        """The run with its folder under ``root``, the output root."""
        return cls(
            model=run.model,
            pool=run.pool,
            setting=run.setting,
            arm=run.arm,
            plain_name=plain_name,
            is_control=is_control(run),
            seed=str(run.replicate),
            round=run.round,
            rounds=run.row["rounds"],
            responses=run.responses,
            reward_model=run.reward_model,
            languages=run.languages,
            evaluated=tuple(run.evaluated),
            folder=root / run.name,
            has_pairs=run.target == "pair",
        )

    @property
    def name(self) -> str:
        """Model, pool and setting, with the round where there are several."""
        return f"{self.model}/{self.pool}/{name_arm(self.setting, self.seed, self.round, self.rounds)}"


@dataclass(frozen=True)
class Asked:
    """What the config asks for, and what the page shows.

    Attributes:
        examples: pairs, and answers, to show of each run and language.
        partial: the run is not finished.
        miniature: the run is the miniature, which supports few claims.
    """

    judged: bool = False
    fidelity: bool = False
    tasks: bool = False
    examples: int = 0
    partial: bool = False
    miniature: bool = False


@dataclass(frozen=True)
class PageSource:
    """What `read_page` makes a page from.

    Attributes:
        root: output root of the run.
        runs: run table.
        summary: summary.csv, which may be missing.
        findings: findings.json; may be None or missing, as ``plan``, plan.json.
        tables: folder of tables in the paper's shape, or None.
        declared: declared contrasts, (setting, pool, versus).
    """

    root: Path
    runs: Path
    summary: Path
    asked: Asked
    findings: Path | None = None
    plan: Path | None = None
    tables: Path | None = None
    declared: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True, eq=False)
class Page:
    """What every section gets.

    Attributes:
        root: output root of the run.
        runs: the tuned runs.
        summary: summary.csv as `read_rows` returns it.
        ledgers: {folder of a run: its ledger}; a run without one has no key.
        manifests: those of results of the run table and the config.
        findings, contamination, comparability: content of the file of that name, None where it is missing.
        plan: content of plan.json, None without it.
        config: merged config of the start that makes the page, None where no start is recorded.
        tables: folder of tables in the paper's shape, or None.
        declared: declared contrasts, (setting, pool, versus).
        contrasts: results of the declared contrasts, see `read_contrasts`.
        gaps: collects what is missing; sections add to it.
    """

    root: Path
    runs: list[ReportedRun]
    summary: "pd.DataFrame"
    ledgers: dict[Path, dict]
    manifests: list[Manifest]
    findings: dict | None
    contamination: dict | None
    comparability: list[dict] | None
    plan: Planned | None
    config: dict[str, Any] | None
    tables: Path | None
    declared: Sequence[tuple[str, str, str]]
    contrasts: list[Contrast]
    asked: Asked
    gaps: Gaps

    @property
    def first(self) -> list[ReportedRun]:
        """The runs with the first training seed."""
        return [run for run in self.runs if run.seed == "1"]

    @property
    def bases(self) -> list[ReportedRun]:
        """The untuned policies, each evaluated in all languages of its tuned runs."""
        pool, setting = BASE
        return [
            ReportedRun(
                model=model,
                pool=pool,
                setting=setting,
                arm=setting,
                plain_name=UNTUNED_NAME,
                is_control=False,
                seed="1",
                round=1,
                rounds=1,
                responses=model,
                reward_model=None,
                languages=(),
                evaluated=tuple(
                    dict.fromkeys(code for run in self.first if run.model == model for code in run.evaluated)
                ),
                folder=self.root / model / pool / setting,
                has_pairs=False,
            )
            for model in dict.fromkeys(run.model for run in self.first)
        ]

    @property
    def languages(self) -> list[str]:
        """All languages of the runs and of the summary, in the page's order."""
        of_runs = [code for run in self.runs for code in (*run.languages, *run.evaluated)]
        return list(dict.fromkeys(code for code in (*of_runs, *self.summary["eval_language"]) if code != ALL))

    @property
    def judged(self) -> list[Manifest]:
        """The judge's manifests, where the config has a judge."""
        return [one for one in self.manifests if one.stage == "judge" and self.asked.judged]

    @property
    def orders(self) -> str:
        """In which orders the judge saw two answers, in words."""
        asked = {manifest.options.get("orders") == "one" for manifest in self.judged}
        if len(asked) > 1:
            return "in both orders or in one, by arm"
        return "in one order, drawn for each prompt" if True in asked else "in both orders"

    @property
    def claims(self) -> dict[tuple[str, str], dict]:
        """{(setting, versus): claim} of findings.json."""
        return index_claims(self.findings)


def read_page(source: PageSource) -> Page:
    """Reads all that the sections share; a missing file becomes a gap.

    Raises InputError where a row of the run table is wrong.
    """
    root = source.root
    gaps = Gaps(root)
    table = read_runs(source.runs)
    runs = list_reported(table, root)
    if not gaps.has("overview", source.summary, "summary.csv, the table of all results"):
        print(f"no {source.summary}: the page is made without it")
    summary = read_rows(source.summary, runs)
    findings = read_json(source.findings) if source.findings and source.findings.is_file() else None
    contamination = root / "contamination.json"
    checked = gaps.has("overview", contamination, "contamination.json, the training prompts among what is evaluated")
    comparability = root / "comparability.json"
    config = read_config(root)
    return Page(
        root=root,
        runs=runs,
        summary=summary,
        ledgers=read_ledgers(runs, gaps),
        manifests=read_manifests(root, table, config),
        findings=findings,
        contamination=read_json(contamination) if checked else None,
        comparability=read_json(comparability) if comparability.is_file() else None,
        plan=read_planned(source.plan) if source.plan and source.plan.is_file() else None,
        config=config,
        tables=source.tables,
        declared=source.declared,
        contrasts=read_contrasts(summary, runs, source.declared, index_claims(findings)),
        asked=source.asked,
        gaps=gaps,
    )


def read_config(root: Path) -> dict[str, Any] | None:
    """The merged config that the last start recorded; None where there is no such record."""
    try:
        start = msgspec.json.decode((root / START).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError):
        return None
    config = start.get("config")
    return config if isinstance(config, dict) else None


def list_reported(table: Sequence[Run], root: Path) -> list[ReportedRun]:
    """The tuned runs of the run table, in its order; their folders are under ``root``."""
    runs = [run for run in table if not run.is_base]
    names = name_arms(runs)
    return [ReportedRun.from_run(run, root, names[run.arm]) for run in runs]


def index_claims(findings: dict | None) -> dict[tuple[str, str], dict]:
    """{(setting, versus): claim} of findings.json."""
    return {(row["setting"], row["versus"]): row for row in (findings or {}).get("claims", ())}


def read_ledgers(runs: list[ReportedRun], gaps: Gaps) -> dict[Path, dict]:
    """{folder: ledger} of the runs that have one; a run without is a gap."""
    return {
        run.folder: read_json(run.folder / "ledger.json")
        for run in runs
        if gaps.has("data", run.folder / "ledger.json", "ledgers, what each run's pairs were made of")
    }


def read_manifests(root: Path, table: Sequence[Run], config: dict[str, Any] | None) -> list[Manifest]:
    """The manifests of results of the run table and the config, in the order of their paths.

    An earlier config may have left others under the root: of other runs, responses, languages or blocks.
    """
    kept = {*list_of_runs(table), *list_of_languages(config or {})}
    rows, blocks = {}, {}
    for path in sorted(root.rglob("*manifest.json")):
        place = path.relative_to(root)
        name = place.parent if place.name == "manifest.json" else place.with_name(place.name[: -len(".manifest.json")])
        folders = [str(folder) for folder in (name, *name.parents)][:-1]
        if (
            path.name.startswith(".")
            or place.parts[0] in NOT_RESULTS
            or (len(folders) > 1 and kept.isdisjoint(folders))
        ):
            continue
        row = read_json(path)
        if row.get("stage") in (None, "report", "bundle"):  # earlier ones of the page itself, and of what holds it
            continue
        if row["stage"] == "gather" and (parts := (row.get("options") or {}).get("parts")):
            blocks[name] = {Path(part).stem for part in parts}
        rows[place] = row
    return [
        Manifest.from_row(str(place), row)
        for place, row in rows.items()
        if place.parent not in blocks or place.name.split(".")[0] in blocks[place.parent]
    ]


def list_of_runs(table: Sequence[Run]) -> Iterator[str]:
    """Where the manifests of the runs, and of the responses that they are tuned on, begin under the root."""
    for run in table:
        yield f"{run.model}/template"
        yield from (f"{run.name}/{name}" for name in ("pairs", "completions", "prompts", "checkpoint"))
        scored = [run] if not run.is_base else [one for one in table if one.model == run.model and not one.is_base]
        for code in run.evaluated:
            yield from (f"{run.name}/{name}/{code}" for name in ("eval", "arena", "fidelity"))
            yield from (f"{run.name}/fidelity/{one.reward_model}/{code}" for one in scored)
        if run.uses_responses:
            yield f"{run.responses}/template"
            for code in run.languages:
                names = ("generations", "languages", f"scores/{run.reward_model}")
                yield from (f"{run.responses}/{code}/{name}" for name in names)


def list_of_languages(config: dict[str, Any]) -> Iterator[str]:
    """Where the manifests of what belongs to no run begin: folders, or their parts in the languages of the config."""
    yield from ("miniature", "preview", "release", "templates")
    codes, evaluation = list_names(config.get("languages"), "code"), config.get("evaluation")
    if not codes:
        yield from ("audit", "prompts", "tasks")
        return
    folders = ["prompts", "prompts/evaluate", "audit/prompts"]
    folders += [f"audit/{name}" for name in list_names(config.get("policies"))]
    if isinstance(evaluation, dict):
        folders += [f"tasks/{name}" for name in list_names(evaluation.get("tasks"))]
    yield from (f"{folder}/{code}" for folder in folders for code in codes)
    yield from (f"audit/{name}" for name in list_names(config.get("reward_models")))


def list_names(rows: object, key: str = "name") -> list[str]:
    """The names of the rows of a config's list; none of anything else, because others' configs are read, too."""
    return [str(row[key]) for row in rows if isinstance(row, dict) and key in row] if isinstance(rows, list) else []


def read_rows(path: Path | None, runs: Sequence[ReportedRun]) -> "pd.DataFrame":
    """The summary; with `arm` as the page names it, with its round, and `run`, the name of a run on the page.

    An arm has as many rounds as ``runs`` say, which may have no rows yet, or as the summary has.
    """
    summary = read_summary(path) if path and path.is_file() else empty_summary()
    planned = {(run.model, run.pool, run.arm): run.rounds for run in runs}
    measured = summary.groupby(["model", "pool", "arm"])["round"].transform("max")
    arms = zip(summary["model"], summary["pool"], summary["arm"], strict=True)
    rounds = [max(count, planned.get(arm, 1)) for count, arm in zip(measured, arms, strict=True)]
    rows = zip(summary["setting"], summary["seed"], summary["round"], rounds, strict=True)
    summary["arm"] = [name_arm(*row) for row in rows]
    several = summary["model"].nunique() > 1
    summary["run"] = (summary["model"] + "/" if several else "") + summary["pool"] + "/" + summary["arm"]
    return summary
