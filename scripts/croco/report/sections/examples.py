"""Section "Pairs and answers": preference pairs and judged answers to read and search."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from croco.digests import derive_seed
from croco.evaluation.verdicts import NOT_ASKED
from croco.records import rows
from croco.report.elements import BASE, Section
from croco.report.page import Page, ReportedRun

INTRO = "The data behind the numbers: preference pairs, and tuned answers beside the base's with their verdicts."
LONGEST = 2000  # characters of a text


def show(page: Page) -> Section:
    """Pairs and judged answers for the search, with the numbers of shown and of all.

    The drawn prompts of each run and language are those with the lowest hash of the prompt id: the same in every run.
    """
    if not page.asked.examples:
        return Section(intro=INTRO, empty="The config asks for no examples.", records={"examples": []})
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
    kinds = Counter(example["kind"] for example in examples)
    shown = {"pairs": (kinds["pair"], of_pairs), "answers": (kinds["answer"], of_answers)}
    content = {"shown": shown, "per_cell": page.asked.examples}
    return Section(intro=INTRO, content=content, records={"examples": examples})


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


def read_chats(path: Path) -> dict[str, list]:
    """{prompt_id: messages} of a prompt file; empty where there is none."""
    return {line["prompt_id"]: line["messages"] for line in rows(path)} if path.is_file() else {}


def draw(lines: list[dict], count: int) -> list[dict]:
    """``count`` lines with the lowest hash of the prompt id."""
    return sorted(lines, key=lambda line: (derive_seed("examples", line["prompt_id"]), line["prompt_id"]))[:count]


def cut(text: str) -> str:
    """The first LONGEST characters, and how many more there are."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST} more characters)"


def say(messages: list[dict] | None) -> str:
    """The messages' texts as one text, shortened."""
    return cut("\n\n".join(message["content"] for message in messages or []))


def describe_pair(run: str, language: str, pair: dict) -> dict[str, Any]:
    """A pair as the page shows it: both answers side by side, with their rewards."""
    same = pair["chosen_language"] == pair["rejected_language"]
    return {
        "kind": "pair",
        "run": run,
        "language": language,
        "id": str(pair["prompt_id"]),
        "verdict": "one language" if same else "two languages",
        "prompt": say(pair["prompt"]),
        "left": say(pair["chosen"]),
        "right": say(pair["rejected"]),
        "facts": f"chosen {pair['chosen_reward']:.3f} ({pair['chosen_language']}), "
        f"rejected {pair['rejected_reward']:.3f} ({pair['rejected_language']}), pool of {pair['pool_size']}",
    }


def describe_answer(
    run: str, language: str, line: dict, ours: dict, theirs: dict, messages: list[dict]
) -> dict[str, Any]:
    """The first sample of a prompt, with its verdicts in both orders if ``line`` is one of a judge's."""
    texts = [(answer["responses"] or [{"text": ""}])[0]["text"] for answer in (ours, theirs)]
    return {
        "kind": "answer",
        "run": run,
        "language": language,
        "id": str(line["prompt_id"]),
        "prompt": say(messages),
        "left": cut(texts[0] or ""),
        "right": cut(texts[1] or ""),
        **(
            describe_verdict(line)
            if "verdicts" in line
            else {"verdict": "not judged", "facts": f"first sample of {max(1, len(ours['responses']))}"}
        ),
    }


def describe_verdict(line: dict) -> dict[str, str]:
    """The verdicts on the first sample of a prompt in the orders that were asked for, and what the judge replied."""
    orders = [line["verdicts"][name] for name in ("answer_first", "baseline_first")]
    first = [order[0] if order else "none" for order in orders]
    replies = [((line.get("replies") or {}).get(name) or [None])[0] for name in ("answer_first", "baseline_first")]
    asked = {verdict for verdict in first if verdict != NOT_ASKED}
    score = "none" if line["score"] is None else f"{line['score']:.3f}"
    return {
        "verdict": asked.pop() if len(asked) == 1 else "depends on the order",
        "facts": f"first sample of {max(1, len(orders[0]))}; tuned first: {first[0]}, base first: {first[1]}; score of the prompt {score}",
        **({"reply": cut("\n\n".join(reply for reply in replies if reply))} if any(replies) else {}),
    }
