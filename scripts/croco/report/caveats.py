"""The caveats beside the headline: what limits how far its numbers can be trusted, each with its place on the page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from croco.report.elements import prefer_all_seeds, read_json
from croco.report.leaderboard import Line, find_main_runs, percent
from croco.report.page import Page
from croco.results.statistics import FEWEST
from croco.results.table import ALL, ARENA

# Below this share of equal verdicts in both orders, the order decides many verdicts.
CONSISTENT = 0.8
WHY_MINIATURE = (
    "The miniature trains on this reward model all the same, because it shows how the workflow runs and what an audit finds. "
    "In your own run, follow the audit."
)
WHY_UNFIT = (
    "This run trained on this reward model all the same. A win may come from its flaws instead of better answers."
)


@dataclass(frozen=True)
class Caveat:
    """A badge: ``kind`` is bad, warn or good; ``section`` is the section of the page that says more.

    ``why`` is a sentence below the badges, or empty.
    """

    kind: str
    text: str
    section: str
    why: str = ""


def list_caveats(page: Page, lines: Sequence[Line]) -> list[Caveat]:
    """The caveats of the run, those on unfinished or unusable results first."""
    caveats = [*_partial(page), *_audits(page), *_contamination(page), *_controls(lines), *_seeds(page, lines)]
    return [*caveats, *_prompts(lines), *_translated(page), *_judge(page)]


def _partial(page: Page) -> Iterable[Caveat]:
    if page.asked.partial:
        yield Caveat("bad", "Partial results: the run is not finished", "overview")


def _audits(page: Page) -> Iterable[Caveat]:
    for reward in dict.fromkeys(run.reward_model for run in page.runs if run.reward_model):
        path = page.root / "audit" / f"{reward}.json"
        if not path.is_file():
            continue
        verdicts = {code: found.get("verdict") for code, found in read_json(path)["languages"].items()}
        for verdict, kind in (("unfit", "bad"), ("weak", "warn")):
            codes = [code for code, said in verdicts.items() if said == verdict]
            if codes:
                advice = ": do not train on it" if verdict == "unfit" else ""
                why = (WHY_MINIATURE if page.asked.miniature else WHY_UNFIT) if verdict == "unfit" else ""
                text = f"Audit: reward model {reward} is {verdict} in {', '.join(codes)}{advice}"
                yield Caveat(kind, text, "rewards", why)


def _contamination(page: Page) -> Iterable[Caveat]:
    if page.contamination is None:
        return
    count = sum(found["exact_left_in"] for found in page.contamination["languages"].values())
    if count:
        noun = "prompt is" if count == 1 else "prompts are"
        yield Caveat("bad", f"Contamination: {count} training {noun} part of the evaluation data", "data")


def _controls(lines: Sequence[Line]) -> Iterable[Caveat]:
    for line in lines:
        if line.control and line.is_off_chance and line.win_rate is not None:
            rate = percent(line.win_rate)
            yield Caveat(
                "warn", f"Null control {line.pool}/{line.setting} is off chance: {rate} %, not 50 %", "open-ended"
            )


def _seeds(page: Page, lines: Sequence[Line]) -> Iterable[Caveat]:
    mains = {(run.model, run.pool, run.arm) for run in find_main_runs(page, lines)}
    if any(line.seeds == 1 for line in lines if (line.model, line.pool, line.setting) in mains):
        yield Caveat("warn", "One training seed: intervals do not cover the noise between trainings", "claims")


def _prompts(lines: Sequence[Line]) -> Iterable[Caveat]:
    fewest = min((line.n for line in lines if line.n is not None), default=FEWEST)
    if fewest < FEWEST:
        yield Caveat("warn", f"Few prompts: {fewest}; under {FEWEST} no arm is called better or worse", "claims")


def _translated(page: Page) -> Iterable[Caveat]:
    translated = [manifest.file for manifest in page.manifests if manifest.stage == "translate"]
    for folder, what, section in (("prompts/", "prompts", "data"), ("tasks/", "structured tasks", "structured")):
        if any(file.startswith(folder) for file in translated):
            yield Caveat("warn", f"Some {what} are machine-translated", section)


def _judge(page: Page) -> Iterable[Caveat]:
    if not page.asked.judged:
        yield Caveat("warn", "No judge: the answers have no verdicts and no win rates", "open-ended")
        return
    if any(manifest.options.get("judge") == "oracle" for manifest in page.judged):
        yield Caveat("warn", "Judge: a rule, not a model", "open-ended")
        return  # the order of the answers cannot matter to a rule
    rows = page.summary
    rows = rows[(rows["task"] == ARENA) & (rows["metric"] == "position_consistency") & (rows["eval_language"] == ALL)]
    shares = prefer_all_seeds(rows).drop_duplicates(["model", "pool", "arm"])["value"].dropna()
    if len(shares):
        lowest = float(shares.min())
        text = f"Judge: the same verdict in both orders for at least {percent(lowest)} % of answers, per arm"
        yield Caveat("good" if lowest >= CONSISTENT else "warn", text, "open-ended")
