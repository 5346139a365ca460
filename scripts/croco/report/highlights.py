"""The few pairs and answers on the first screens of the page: which ones, and in which words they differ.

The rules that choose them do not look at what would please: pairs are those in the middle of their language's margins,
answers are a win, a loss and a tie of the main arm, drawn by the hash of the prompt id.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any
from urllib.parse import urlencode

from croco.records import rows
from croco.report.elements import BASE
from croco.report.examples import agree, describe_answer, describe_pair, draw, list_verdicts, read_chats
from croco.report.page import Page, ReportedRun

COUNT = 3  # pairs, and answers
VERDICTS = ("win", "loss", "tie")
WORDS = 24  # of a text
BEFORE = 6  # words before the first difference
# Chinese and Japanese have no spaces between words, so each of their characters counts as a word.
UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
WORD = re.compile(rf"[{UNSPACED}]\s*|[^\s{UNSPACED}]+\s*")


@dataclass(frozen=True)
class Part:
    """A part of a text, and whether the other text lacks it; ``space`` follows it and is never marked."""

    text: str
    differs: bool
    space: str


@dataclass(frozen=True)
class Highlight:
    """A pair or an answer of the first screens.

    Attributes:
        record: as the list of all shown pairs and answers has it.
        prompt: shortened.
        left, right: chosen and rejected, or tuned and base, as parts.
        facts: rewards or verdicts.
        reason: what the judge replied, shortened; empty where it replied nothing.
        link: place of the full record on the page.
    """

    record: dict[str, Any]
    prompt: str
    left: list[Part]
    right: list[Part]
    facts: str
    reason: str
    link: str


@dataclass(frozen=True)
class Highlights:
    """What is shown, with the rules that chose it in sentences."""

    pairs: list[Highlight] = field(default_factory=list)
    pairs_rule: str = ""
    answers: list[Highlight] = field(default_factory=list)
    answers_rule: str = ""

    @property
    def records(self) -> list[dict[str, Any]]:
        """The full records, which the list of pairs and answers must have."""
        return [shown.record for shown in (*self.pairs, *self.answers)]


def choose_highlights(page: Page, main: ReportedRun | None) -> Highlights:
    """Pairs and answers of the main arm; pairs are of the first arm with pairs where the main arm has none."""
    if main is None or not page.asked.examples:
        return Highlights()
    paired = next(
        (run for run in (main, *page.first) if run.has_pairs and (run.folder / "pairs.jsonl").is_file()), None
    )
    pairs = choose_pairs(rows(paired.folder / "pairs.jsonl")) if paired else []
    answers, verdicts = choose_answers(page, main)
    return Highlights(
        pairs=[show_pair(paired, pair) for pair in pairs] if paired else [],
        pairs_rule=say_rule_of_pairs(paired.name, pairs) if paired else "",
        answers=answers,
        answers_rule=say_rule_of_answers(main.name, verdicts)
        if page.asked.judged
        else f"Answers of {main.name}, one of each of the first languages, drawn by a hash of the prompt id.",
    )


def say_rule_of_pairs(run: str, pairs: Sequence[dict]) -> str:
    """How the pairs were chosen."""
    languages = len({pair["prompt_language"] for pair in pairs})
    quartiles = f", then quartiles of {pairs[0]['prompt_language']}" if languages < len(pairs) else ""
    each = "in each of the prompt languages with the most pairs" if languages > 1 else "of all"
    return f"Pairs of {run}: the pair with the median margin {each}{quartiles}."


def say_rule_of_answers(run: str, verdicts: Mapping[str, int]) -> str:
    """How the answers were chosen, and how many there are of each kind."""
    counts = ", ".join(f"{verdicts.get(name, 0):,} {name}" for name in dict.fromkeys((*VERDICTS, *verdicts)))
    return (
        f"Answers of {run}: a win, a loss and a tie where there are any, in different languages if possible, drawn by a "
        f"hash of the prompt id. Verdicts on all first samples: {counts}."
    )


def margin(pair: Mapping[str, Any]) -> float:
    """By how much the reward of the chosen response is above that of the rejected one."""
    return pair["chosen_reward"] - pair["rejected_reward"]


def choose_pairs(pairs: Iterable[dict]) -> list[dict]:
    """The pair with the median margin of each of the COUNT prompt languages with the most pairs.

    Where there are fewer languages, quartiles of the first language follow.
    """
    by_language = defaultdict(list)
    for pair in pairs:
        by_language[pair["prompt_language"]].append(pair)
    ordered = [sorted(found, key=margin) for found in sorted(by_language.values(), key=len, reverse=True)]
    chosen = [found[(len(found) - 1) // 2] for found in ordered[:COUNT]]
    for share in (0.25, 0.75) if chosen else ():
        pair = ordered[0][int(share * (len(ordered[0]) - 1))]
        if len(chosen) < COUNT and not any(pair is other for other in chosen):
            chosen.append(pair)
    return chosen


def choose_answers(page: Page, run: ReportedRun) -> tuple[list[Highlight], dict[str, int]]:
    """A win, a loss and a tie in different languages, and how many of each there are in all languages.

    Without a judge: an answer of each of the first languages.
    """
    by_verdict: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for code in run.evaluated:
        path = run.folder / ("arena" if page.asked.judged else "answers") / f"{code}.jsonl"
        for line in rows(path) if path.is_file() else ():
            verdict = agree(list_verdicts(line)) if page.asked.judged else "not judged"
            by_verdict[verdict][code].append(line)
    counts = Counter({name: sum(map(len, found.values())) for name, found in by_verdict.items()})
    lines = spread(by_verdict) if page.asked.judged else list(by_verdict["not judged"].items())[:COUNT]
    shown = [show_answer(page, run, code, draw(found, 1)[0]) for code, found in lines]
    return [answer for answer in shown if answer is not None], dict(counts)


def spread(by_verdict: Mapping[str, Mapping[str, list[dict]]]) -> list[tuple[str, list[dict]]]:
    """[(language, lines)], one for each verdict that there is, in different languages as far as possible."""
    languages: dict[str, str] = {}
    # The verdict that the fewest languages have chooses first.
    for verdict in sorted((name for name in VERDICTS if name in by_verdict), key=lambda name: len(by_verdict[name])):
        free = [code for code in by_verdict[verdict] if code not in languages.values()]
        languages[verdict] = (free or list(by_verdict[verdict]))[0]
    return [(languages[name], by_verdict[name][languages[name]]) for name in VERDICTS if name in languages]


def show_pair(run: ReportedRun, pair: dict) -> Highlight:
    """A pair of a run."""
    rewards = (
        f"reward {pair['chosen_reward']:.2f} ({pair['chosen_language']}) and "
        f"{pair['rejected_reward']:.2f} ({pair['rejected_language']})"
    )
    return show(describe_pair(run.name, pair["prompt_language"], pair), rewards)


def show_answer(page: Page, run: ReportedRun, code: str, line: dict) -> Highlight | None:
    """An answer of a run beside the base's; None where one is missing."""
    folders = (run.folder, page.root.joinpath(run.model, *BASE))
    paths = [folder / "answers" / f"{code}.jsonl" for folder in folders]
    found = [
        next((other for other in rows(path) if other["prompt_id"] == line["prompt_id"]), None)
        for path in paths
        if path.is_file()
    ]
    known = [other for other in found if other is not None]
    if len(known) < len(folders):
        return None
    tuned, base = known
    chats = read_chats(page.root / "prompts" / "evaluate" / f"{code}.jsonl")
    record = describe_answer(run.name, code, line, tuned, base, chats.get(line["prompt_id"], []))
    facts = "not judged"
    if "verdicts" in line:
        first, second = list_verdicts(line)
        facts = f"tuned first: {first}; base first: {second}"
    return show(record, facts)


def show(record: dict[str, Any], facts: str) -> Highlight:
    """A record with its differences and its link."""
    left, right = mark_differences(record["left"], record["right"])
    # The same fields as in the links of report.js to a record.
    link = "#search?" + urlencode({name: record[name] for name in ("kind", "language", "run", "verdict", "id")})
    reason = shorten(record.get("reply", ""))
    return Highlight(record, shorten(record["prompt"]), left, right, facts, reason, link)


def shorten(text: str, words: int = WORDS) -> str:
    """The first words of a text on one line."""
    found = WORD.findall(text)
    return "".join(found[:words]).strip() + ("…" if len(found) > words else "")


def mark_differences(left: str, right: str) -> tuple[list[Part], list[Part]]:
    """Both texts as parts, from some words before the first difference on, at most WORDS words of each."""
    texts = [WORD.findall(text) for text in (left, right)]
    words = [[word.strip() for word in text] for text in texts]
    same = next((i for i, (one, other) in enumerate(zip(*words, strict=False)) if one != other), min(map(len, words)))
    start = max(0, same - BEFORE) if max(map(len, words)) > WORDS else 0
    texts = [text[start : start + WORDS] for text in texts]
    shown = [text[start : start + WORDS] for text in words]
    blocks = SequenceMatcher(None, shown[0], shown[1], autojunk=False).get_matching_blocks()
    kept = [{i for block in blocks for i in range(block[side], block[side] + block.size)} for side in (0, 1)]
    parts = [join_parts(text, same_words) for text, same_words in zip(texts, kept, strict=True)]
    ellipsis = Part("…", False, " ")
    for side, part in enumerate(parts):
        if start:
            part.insert(0, ellipsis)
        if len(words[side]) > start + WORDS:
            part.append(ellipsis)
    return parts[0], parts[1]


def join_parts(words: Sequence[str], kept: set[int]) -> list[Part]:
    """Words, each with the space after it, as parts that alternate between common and differing."""
    parts: list[Part] = []
    for i, word in enumerate(words):
        text, space = word.rstrip(), " " if word != word.rstrip() else ""
        if parts and parts[-1].differs == (i not in kept):
            last = parts.pop()
            text = last.text + last.space + text
        parts.append(Part(text, i not in kept, space))
    return parts
