"""Section "Pairs and answers": preference pairs and judged answers to read and search."""

from collections import Counter, defaultdict
from typing import Any

from croco.records import rows
from croco.report.elements import BASE, Section
from croco.report.examples import describe_answer, describe_pair, draw, read_chats
from croco.report.highlights import Highlights
from croco.report.page import Page, ReportedRun

INTRO = "The data behind the numbers: preference pairs, and tuned answers beside the base's{verdicts}."


def show(page: Page, highlights: Highlights) -> Section:
    """Pairs and judged answers for the search, those of ``highlights`` too, with the numbers of shown and of all.

    The drawn prompts of each run and language are those with the lowest hash of the prompt id: the same in every run.
    """
    intro = INTRO.format(verdicts=" with their verdicts" if page.asked.judged else "")
    if not page.asked.examples:
        return Section(intro=intro, empty="The config asks for no examples.", records={"examples": []})
    examples: list[dict[str, Any]] = []
    of_pairs = of_answers = 0
    chats: dict[str, dict] = {}
    for run in page.first:
        pairs, count = list_pairs(page, run)
        examples += pairs
        of_pairs += count
        for code in run.evaluated:
            if code not in chats:
                chats[code] = read_chats(page.root / "prompts" / "evaluate" / f"{code}.jsonl")
            answers, count = list_answers(page, run, code, chats[code])
            examples += answers
            of_answers += count
    # The links of the first screens lead to records of this list.
    examples = list({name_record(record): record for record in (*examples, *highlights.records)}.values())
    kinds = Counter(example["kind"] for example in examples)
    shown = {"pairs": (kinds["pair"], of_pairs), "answers": (kinds["answer"], of_answers)}
    content = {"shown": shown, "per_cell": page.asked.examples}
    return Section(intro=intro, content=content, records={"examples": examples})


def name_record(record: dict[str, Any]) -> tuple[str, ...]:
    """What tells a record from all others."""
    return tuple(record[name] for name in ("kind", "run", "language", "id"))


def list_pairs(page: Page, run: ReportedRun) -> tuple[list[dict[str, Any]], int]:
    """Drawn pairs of a run, and how many it has."""
    path = run.folder / "pairs.jsonl"
    if not run.has_pairs or not page.gaps.has("examples", path, "pairs"):
        return [], 0
    by_language = defaultdict(list)
    for pair in rows(path):
        by_language[pair["prompt_language"]].append(pair)
    drawn = [
        describe_pair(run.name, code, pair)
        for code, pairs in by_language.items()
        for pair in draw(pairs, page.asked.examples)
    ]
    return drawn, sum(map(len, by_language.values()))


def list_answers(page: Page, run: ReportedRun, code: str, chats: dict[str, list]) -> tuple[list[dict[str, Any]], int]:
    """Drawn answers of a run in a language, with their verdicts if there is a judge, and of how many prompts they are."""
    files = {
        "answers": run.folder / "answers" / f"{code}.jsonl",
        "base": page.root.joinpath(run.model, *BASE, "answers", f"{code}.jsonl"),
    }
    if page.asked.judged:
        files["verdicts"] = run.folder / "arena" / f"{code}.jsonl"
    if not all([page.gaps.has("examples", path, what) for what, path in files.items()]):
        return [], 0
    answered = list(rows(files["verdicts" if page.asked.judged else "answers"]))
    drawn = draw(answered, page.asked.examples)
    ids = {line["prompt_id"] for line in drawn}
    ours, theirs = (
        {line["prompt_id"]: line for line in rows(files[kind]) if line["prompt_id"] in ids}
        for kind in ("answers", "base")
    )
    answers = [
        describe_answer(run.name, code, line, ours[key], theirs[key], chats.get(key, []))
        for line in drawn
        if (key := line["prompt_id"]) in ours and key in theirs
    ]
    return answers, len(answered)
