"""Reading prompt sources: local JSONL, TSV or CSV files, checked line by line, and datasets of the hub."""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

from croco.digests import digest
from croco.records import InputError, read_jsonl, read_lines
from croco.text import is_blank, normalise_id

ROW_NUMBER = "row_number"
LAST_TURN = "last_turn"


@dataclass(frozen=True)
class Source:
    """How the rows of a prompt source are read; the keys of the config's ``prompts``.

    A column may be a path into nested records, such as ``conversation.messages``.
    """

    id: str = "id"
    text: str = "text"
    reference: str | None = None
    columns: tuple | None = None


@dataclass(frozen=True)
class Entry:
    line: int
    prompt_id: str
    messages: list
    reference: str | None


def read_entry(row, source, path, number, line):
    """One prompt; raises InputError for a missing or unusable field."""
    prompt_id = str(number) if source.id == ROW_NUMBER else read_prompt_id(row, source, path, line)
    messages, answer = _read_messages(row, source, path, line)
    reference = answer if source.reference == LAST_TURN else _read_reference(row, source, path, line)
    return Entry(line, prompt_id, messages, reference)


def read_source(path, source):
    """The entries of one file, in file order.

    Raises InputError for broken JSON or a ragged row, a missing or duplicate id, empty text and wrong encoding.
    """
    entries, lines = [], {}
    for number, (line, row) in enumerate(_read_rows(Path(path), source), start=1):
        entry = read_entry(row, source, path, number, line)
        if entry.prompt_id in lines:
            first, spelling = lines[entry.prompt_id]
            raise InputError(
                f"the id {entry.prompt_id} stands on line {first} too{tell_apart(spelling, spell_id(row, source))}",
                "give each prompt its own id",
                path,
                line,
                source.id,
            )
        lines[entry.prompt_id] = (line, spell_id(row, source))
        entries.append(entry)
    if not entries:
        raise InputError("no prompts", "give a file with at least one", path)
    return entries


def open_dataset(name, subset, revision, split):
    """A dataset of the hub, or of a local folder, as a random-access table on disk; raises InputError."""
    import datasets
    from huggingface_hub.errors import GatedRepoError

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, subset, revision=revision, split=split, cache_dir=_find_cache(name))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        gated = isinstance(error.__cause__, GatedRepoError) or "gated" in str(error)
        raise InputError(
            f"the dataset cannot be loaded: {error}",
            "accept its licence on the hub with the account of your token, and log in (hf auth login)"
            if gated
            else "check id, subset, revision and split, and that the hub is reachable or the dataset is staged",
            name,
        ) from error


def _find_cache(name):
    """A cache of its own for each state of a local folder, None for the hub.

    By default a configuration of a local folder is known by the folder's name alone: another folder of that name, or
    changed files, would give the old rows.
    """
    if not Path(name).is_dir():
        return None
    from datasets.config import HF_DATASETS_CACHE

    files = sorted(path for path in Path(name).rglob("*") if path.is_file())
    state = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return str(Path(HF_DATASETS_CACHE) / digest(state))


def check_parallel(path, entries, other_path, others):
    """Raises InputError where two languages' files do not hold the same ids."""
    ids, other_ids = ({entry.prompt_id: entry.line for entry in some} for some in (entries, others))
    extra = next((entry for entry in entries if entry.prompt_id not in other_ids), None)
    missing = next((entry for entry in others if entry.prompt_id not in ids), None)
    if extra is None and missing is None:
        return
    problem, where, line = (
        (f"the id {extra.prompt_id} is not in {other_path}", path, extra.line)
        if extra
        else (f"the id {missing.prompt_id} of {other_path} line {missing.line} is not here", path, None)
    )
    raise InputError(problem, "prompts are parallel: each language's file holds the same ids", where, line, "id")


def _read_rows(path, source):
    """Yields (line, {column: value})."""
    if path.suffix == ".jsonl":
        yield from read_jsonl(path)
        return
    # A TSV field holds no tab or line break and quotes mean nothing in it; CSV follows RFC 4180.
    csv.field_size_limit(sys.maxsize)  # a prompt may be a long document
    options = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {"strict": True}
    reader = csv.reader((text + "\n" for _, text in read_lines(path)), **options)
    header = list(source.columns) if source.columns else None
    line = 1
    try:
        for values in reader:
            start, line = line, reader.line_num + 1
            if values == header or (header is None and len(set(values)) < len(values)):
                raise InputError(
                    "a header line with names given too" if header else f"a column stands twice in {', '.join(values)}",
                    "leave `columns` out of the config" if header else "give each column its own name",
                    path,
                    start,
                )
            if header is None:
                header = values
            elif len(values) != len(header):
                raise InputError(
                    f"{len(values)} fields instead of {len(header)} ({', '.join(header)})",
                    "mend the row, or name all columns in the config",
                    path,
                    start,
                )
            else:
                yield start, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise InputError(
            f"broken CSV ({error})", "quote fields that hold commas, quotes or line breaks", path, reader.line_num
        ) from error


def _get(row, column, path, line):
    value = row
    for part in [column] if column in row else column.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError(
                "missing field",
                f"add it, or name another column in the config; here are {', '.join(row)}",
                path,
                line,
                column,
            )
        value = value[part]
    return value


def read_prompt_id(row, source, path, line):
    value = _get(row, source.id, path, line)
    if not isinstance(value, str | int) or isinstance(value, bool) or is_blank(str(value)):
        raise InputError(
            "the id is empty or no text or number", f"give an id, or write id: {ROW_NUMBER}", path, line, source.id
        )
    _refuse_half_characters(str(value), path, line, source.id)
    return normalise_id(str(value).strip())


def spell_id(row, source):
    """The id of a row in its own code points, None where rows are numbered."""
    return None if source.id == ROW_NUMBER else str(_get(row, source.id, None, None)).strip()


def tell_apart(spelling, other):
    """Words for a message on two ids that are the same in NFC, "" where their code points are the same."""
    return "" if spelling == other else f", in other code points: {spelling!a} and {other!a} are the same in NFC"


def _read_messages(row, source, path, line):
    """(prompt as a chat, last answer or None): a text becomes the user's turn, a list of messages is taken as it is.

    With ``reference: last_turn`` the assistant's last turn is no part of the prompt.
    """
    value = _get(row, source.text, path, line)
    messages = value if isinstance(value, list) else [{"role": "user", "content": value}]
    for message in messages or [None]:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise InputError(
                "neither text nor a list of {role, content}", "write the prompt as text", path, line, source.text
            )
        if any(value for key, value in message.items() if key not in ("role", "content")):
            raise InputError(
                "a message with more than role and content",
                "take out function calls and the like",
                path,
                line,
                source.text,
            )
        _refuse_half_characters(message["content"], path, line, source.text)
        if is_blank(message["content"]):
            raise InputError(
                "empty text", "write the prompt, or remove its id from every language", path, line, source.text
            )
    messages = [{"role": message["role"], "content": message["content"]} for message in messages]
    answer = (
        messages.pop()["content"] if source.reference == LAST_TURN and messages[-1]["role"] == "assistant" else None
    )
    if not messages or messages[-1]["role"] != "user":
        raise InputError(
            "the last turn is not the user's",
            f"end the chat with the turn to answer, or write reference: {LAST_TURN}",
            path,
            line,
            source.text,
        )
    return messages, answer


def _read_reference(row, source, path, line):
    if source.reference is None:
        return None
    value = _get(row, source.reference, path, line)
    if value is not None and not isinstance(value, str):
        raise InputError("the reference is no text", "write it as text, or null for none", path, line, source.reference)
    _refuse_half_characters(value or "", path, line, source.reference)
    return None if is_blank(value or "") else value


def _refuse_half_characters(text, path, line, field):
    """JSON can escape one half of a UTF-16 pair, which no UTF-8 file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"half a character ({text[error.start]!a})", "repair the text where it was cut", path, line, field
        ) from error


def check_sources(grid):
    """Reads the config's local prompt files and compares their ids, before any job runs.

    Files under the output root, which the run itself makes, are checked by scripts/prompts.py. Raises InputError.
    """
    for use, row in grid.prompts.items():
        source = Source(row["id"], row["text"], row.get("reference"), row.get("columns"))
        leading, files = grid.config["source_language"], {}
        for code in dict.fromkeys([leading, *grid.prompt_languages(use)]):
            path = grid.prompt_file(use, code)
            if path and not Path(path).is_relative_to(grid.results):
                files[code] = (path, read_source(Path(path), source))
        for code, (path, entries) in files.items():
            if code != leading and leading in files:
                others_path, others = files[leading]
                ids = {entry.prompt_id for entry in others}
                own = grid.own_translation(use, code) is not None  # may hold more than is asked for
                check_parallel(path, [e for e in entries if not own or e.prompt_id in ids], others_path, others)
