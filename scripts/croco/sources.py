"""Reading prompt sources: parallel JSONL, TSV or CSV files, one a language, checked line by line."""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

from croco.records import InputError, read_jsonl, read_lines

ROW_NUMBER = "row_number"


@dataclass(frozen=True)
class Source:
    """How the files of a prompt source are read; the keys of the config's ``prompts``."""

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


def read_source(path, source):
    """The entries of one file, in file order.

    Raises InputError for broken JSON or a ragged row, a missing or duplicate id, empty text and wrong encoding.
    """
    entries, lines = [], {}
    for number, (line, row) in enumerate(_read_rows(Path(path), source), start=1):
        entry = Entry(
            line,
            str(number) if source.id == ROW_NUMBER else _read_id(row, source, path, line),
            _read_messages(row, source, path, line),
            _read_reference(row, source, path, line),
        )
        if entry.prompt_id in lines:
            raise InputError(
                f"the id {entry.prompt_id} stands on line {lines[entry.prompt_id]} too",
                "give each prompt its own id",
                path,
                line,
                source.id,
            )
        lines[entry.prompt_id] = line
        entries.append(entry)
    if not entries:
        raise InputError("no prompts", "give a file with at least one", path)
    return entries


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
    if column not in row:
        raise InputError(
            "missing field",
            f"add it, or name another column in the config; here are {', '.join(row)}",
            path,
            line,
            column,
        )
    return row[column]


def _read_id(row, source, path, line):
    value = _get(row, source.id, path, line)
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        raise InputError(
            "the id is empty or no text or number", f"give an id, or write id: {ROW_NUMBER}", path, line, source.id
        )
    _refuse_half_characters(str(value), path, line, source.id)
    return str(value).strip()


def _read_messages(row, source, path, line):
    """The prompt as a chat: a text becomes the user's turn, a list of messages is taken as it is."""
    value = _get(row, source.text, path, line)
    messages = value if isinstance(value, list) else [{"role": "user", "content": value}]
    for message in messages or [None]:
        if (
            not isinstance(message, dict)
            or set(message) != {"role", "content"}
            or not all(isinstance(part, str) for part in message.values())
        ):
            raise InputError(
                "neither text nor a list of {role, content}", "write the prompt as text", path, line, source.text
            )
        _refuse_half_characters(message["content"], path, line, source.text)
        if not message["content"].strip():
            raise InputError(
                "empty text", "write the prompt, or remove its id from every language", path, line, source.text
            )
    if messages[-1]["role"] != "user":
        raise InputError(
            "the last turn is not the user's", "end the chat with the turn to answer", path, line, source.text
        )
    return messages


def _read_reference(row, source, path, line):
    if source.reference is None:
        return None
    value = _get(row, source.reference, path, line)
    if value is not None and not isinstance(value, str):
        raise InputError("the reference is no text", "write it as text, or null for none", path, line, source.reference)
    _refuse_half_characters(value or "", path, line, source.reference)
    return value or None


def _refuse_half_characters(text, path, line, field):
    """JSON can escape one half of a UTF-16 pair, which no UTF-8 file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"half a character ({text[error.start]!a})", "repair the text where it was cut", path, line, field
        ) from error


def check_sources(grid):
    """Reads the config's prompt files in all languages and compares their ids, before any job runs.

    Files under the output root, which the run itself makes, are checked by scripts/prompts.py. Raises InputError.
    """
    for use in ("train", "evaluate"):
        row = grid.prompts[use]
        codes = grid.trained if use == "train" else grid.languages
        paths = {code: Path(grid.path(row["path"], language=code)) for code in [grid.config["source_language"], *codes]}
        if any(path.is_relative_to(grid.results) for path in paths.values()):
            continue
        source = Source(row["id"], row["text"], row.get("reference"), row.get("columns"))
        entries = {code: read_source(path, source) for code, path in paths.items()}
        leading = grid.config["source_language"]
        for code, path in paths.items():
            check_parallel(path, entries[code], paths[leading], entries[leading])
