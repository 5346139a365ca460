"""Splits a chat into pieces that fit a translation model, translates them and joins them again."""

import functools
import re
from typing import TYPE_CHECKING, Any

from croco.digests import prompt_seed
from croco.models.chats import TOO_LONG
from croco.prompts.formats import request
from croco.text.language import can_identify, detect_language, has_letters, name_language, strip_code
from croco.text.normalise import fold, is_blank

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

RETRY_TEMPERATURE = 0.5
FAULTS = {TOO_LONG: "too_long"}  # why the translator cannot be asked for a piece, where the name differs
FENCE = re.compile("`{3}|~{3}")
INDENTED = re.compile(r"[ \t]+(`{3}|~{3})")
LINES = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")  # between two lines
PARAGRAPHS = re.compile(r"(\r?\n[ \t]*\r?\n\s*)")


def split_text(text: str, longest: int) -> list[str]:
    """A text as alternating pieces: those at even places to translate, those at odd places to keep.

    Fenced code is kept, and so is the white space around pieces. Paragraphs share a piece while it has at most
    ``longest`` characters; a longer paragraph is one piece. Joined, the pieces are the text.
    """
    pieces = [""]
    for i, part in enumerate(_split_fences(text)):
        if i % 2:
            _keep(pieces, part)
            continue
        for j, paragraph in enumerate(PARAGRAPHS.split(part)):
            if j % 2 or not any(map(str.isalpha, paragraph)):
                _keep(pieces, paragraph)
                continue
            body = paragraph.strip()
            left, right = paragraph.split(body, 1)
            _keep(pieces, left)
            gap = pieces[-2] if len(pieces) > 2 and not pieces[-1] else None
            if gap is not None and not gap.strip() and pieces[-3] and len(pieces[-3] + gap + body) <= longest:
                pieces[-3:] = [pieces[-3] + gap + body]
            else:
                pieces[-1] += body
            _keep(pieces, right)
    return pieces


def _split_fences(text: str) -> list[str]:
    """Prose and code in turn; code is what CommonMark takes for fenced."""
    if not FENCE.search(text):
        return [text]
    lines, parts, end = LINES.split(text), [], 0
    parsed: list[str] = []
    numbers: list[int] = []  # of the lines that are parsed, in the text
    for i, line in enumerate(lines):
        if i and INDENTED.match(line) and lines[i - 1].strip():  # no such line would end a paragraph
            parsed.append("\n")
            numbers.append(i)
        parsed.append(line)
        numbers.append(i)
    numbers.append(len(lines))
    for token in _markdown().parse("".join(parsed)):
        if token.type == "fence" and token.map:
            start, stop = (numbers[number] for number in token.map)
            parts += ["".join(lines[end:start]), "".join(lines[start:stop])]
            end = stop
    return [*parts, "".join(lines[end:])]


@functools.cache
def _markdown() -> "MarkdownIt":
    """A parser of blocks alone; only fences make code, whatever HTML or indentation is around them."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).disable(["code", "inline"])


def _keep(pieces: list[str], text: str) -> None:
    """Adds text that is not translated to the kept piece at the end, or as a new one."""
    if not text:
        return
    if not pieces[-1] and len(pieces) > 1:
        pieces[-2] += text
    else:
        pieces += [text, ""]


def find_fault(response: dict, language: str, source: str, source_language: str) -> str | None:
    """Why a translated piece cannot be used, or None: truncated, empty, is_source or wrong_language.

    ``source``: the piece itself. Code, numbers, names and foreign words may stay as they are, and everything may between
    two scripts, regions or standards of one language.
    """
    if response["finish_reason"] == "length":
        return "truncated"
    if is_blank(response["text"]):
        return "empty"
    must_differ = name_language(source_language) != name_language(language)
    if must_differ and fold(response["text"]) == fold(source) and is_prose(source, source_language):
        return "is_source"
    if detect_language(response["text"], language) not in (language, None):
        return "wrong_language"
    return None


def is_prose(text: str, language: str) -> bool:
    """Whether the text is in its language, and not names or code alone."""
    if can_identify(language):
        return detect_language(text, language) == language
    return has_letters(strip_code(text))


def translate_chunk(model: Any, chunk: list[dict], how: dict, attempts: int) -> list[dict]:
    """Translates prompts, all of their pieces together; a piece that fails is tried again with sampling.

    Args:
        model: a policy of an engine; ``chunk``: lines of a prompt file.
        how: source and target names and codes, language, format, template, max_tokens, longest, seed.
        attempts: how often a piece may be tried.
    Returns for each prompt its messages, reference, the reasons to skip them or None, and the attempts it took. A piece
    that spells control tokens of the translator, or that its template refuses, is not translated.
    """
    # (prompt, place): pieces; the place is a message's number, or "reference"
    texts: dict[tuple[int, int | str], list[str]] = {}
    for i, row in enumerate(chunk):
        places: list[tuple[int | str, str]] = [*enumerate(message["content"] for message in row["messages"])]
        places += [("reference", row["reference"])] if row.get("reference") else []
        for place, text in places:
            texts[i, place] = split_text(text, how["longest"])
    todo = [(key, n) for key, pieces in texts.items() for n in range(0, len(pieces), 2) if pieces[n]]
    taken = [0] * len(chunk)
    faults: dict[tuple[tuple[int, int | str], int], str] = {}
    for attempt in range(attempts):
        requests = [request(texts[key][n], how["format"], how["template"], how) for key, n in todo]
        prepared = [model.prepare(messages, how["max_tokens"]) for messages in requests]
        work = [k for k, (_, reason) in enumerate(prepared) if not reason]
        seeds = [_seed(chunk, *todo[k], how) + attempt for k in work]
        temperature = RETRY_TEMPERATURE if attempt else 0
        responses = model.respond([prepared[k][0] for k in work], seeds, temperature, 1.0, how["max_tokens"])
        found = dict(zip(work, responses, strict=True))
        again = []
        for k, (key, n) in enumerate(todo):
            taken[key[0]] = attempt + 1
            skip = prepared[k][1]
            fault = FAULTS.get(skip, skip)
            if k in found:
                fault = find_fault(found[k], how["language"], texts[key][n], chunk[key[0]]["language"])
            if fault:
                faults[key, n] = fault
                again += [(key, n)] if k in found else []
            else:
                texts[key][n] = found[k]["text"].strip()
                faults.pop((key, n), None)
        todo = again
    return [_finish(row, i, texts, faults, taken[i]) for i, row in enumerate(chunk)]


def _seed(chunk: list[dict], key: tuple[int, int | str], n: int, how: dict) -> int:
    i, place = key
    return prompt_seed(how["seed"], how["language"], f"{chunk[i]['prompt_id']}/{place}/{n}")


def _finish(
    row: dict,
    i: int,
    texts: dict[tuple[int, int | str], list[str]],
    faults: dict[tuple[tuple[int, int | str], int], str],
    attempts: int,
) -> dict:
    """The translated line of one prompt; a failed message keeps its source text and gives the reason to skip."""
    failed = {place: fault for ((j, place), _), fault in sorted(faults.items(), key=str) if j == i}
    reason = next((fault for place, fault in failed.items() if place != "reference"), None)
    translated = {place: "".join(pieces) for (j, place), pieces in texts.items() if j == i}
    return {
        "messages": [{**message, "content": translated[n]} for n, message in enumerate(row["messages"])],
        "reference": None if "reference" in failed else translated.get("reference"),
        "skip": f"translation_{reason}" if reason else None,
        "reference_skip": f"translation_{failed['reference']}" if "reference" in failed else None,
        "attempts": attempts,
    }
