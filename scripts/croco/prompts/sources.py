"""Reading prompt sources: local JSONL, TSV or CSV files, checked line by line, and datasets of the hub."""

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from croco.commands import ACCEPT_LICENCE, STAGE
from croco.digests import digest
from croco.errors import InputError
from croco.records import read_jsonl, read_lines, refuse_half_characters
from croco.text.normalise import is_blank, normalise_id

if TYPE_CHECKING:
    from datasets import Dataset

ARCHIVES = (".zip", ".tar", ".gz", ".bz2", ".xz", ".zst", ".7z")  # whose columns are not known before they are unpacked
COMMIT = re.compile(r"[0-9a-f]{40}")
WHOLE = re.compile(r"^(-?(?:0|[1-9]\d*))\.0+$")  # a whole number with zeros behind its point
ROW_NUMBER = "row_number"
LAST_TURN = "last_turn"
FIRST_TURN = "first_turn"
FEW_PROMPTS = 3  # fewer than these may be the same in two languages
NOT_CHOSEN = "not chosen by where"
MISSING_FIELD = "missing field"
FIRST_ROWS = 100  # in which a declared field is looked for: a nested record may be null in single rows
# Roles as the public chat formats write them: OpenAI, ShareGPT, OASST.
ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
}
TOOL_ROLES = ("tool", "function", "ipython", "observation", "function_call", "function_response")
# Keys of a turn whose content cannot be answered with text; other keys besides role and content are metadata.
TOOL_KEYS = ("tool_calls", "tool_call_id", "tools", "functions", "function_call", "function_calls")
MEDIA_KEYS = ("image", "images", "audio", "audios", "video", "videos")
STAGE_IT = f"start where the hub can be reached, or stage the dataset there: {STAGE}"
# {what the datasets library says of a dataset that it cannot load, a regex: remedy}
DATASET_REMEDIES = {
    r"\bgated\b": ACCEPT_LICENCE,
    r"^BuilderConfig .* not found|^Config name is missing": "correct `subset` in the config",
    r"^Unknown split|^Bad split": "correct `split` in the config",
    r"^Revision .* doesn't exist": "correct `revision` in the config",
    r"^Dataset .* doesn't exist on the Hub": "correct the dataset's id in the config, or log in (hf auth login) if it is private",
    r"^Couldn't reach|^Couldn't find cache": STAGE_IT,
}
# The first characters of a chat in JSON and in Python's form, which pandas writes to a CSV.
CHAT = re.compile(rf"""\s*\[\s*\{{.*?['"](role|from)['"]\s*:\s*['"]({"|".join(ROLES)})['"]""", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """How the rows of a prompt source are read; the keys of the config's ``prompts``.

    A column may be a path into nested records, such as ``conversation.messages``; ``where`` is {column: value or
    values that a row must have there}.
    """

    id: str = "id"
    text: str = "text"
    reference: str | None = None
    columns: tuple | None = None
    where: dict = field(default_factory=dict)

    @classmethod
    def of_row(cls, row: dict, **options: Any) -> "Source":
        """The source of a row of the config's ``prompts``; ``options`` take the place of its keys."""
        keys = ("id", "text", "reference", "columns", "where")
        return cls(**{key: row[key] for key in keys if key in row} | options)


@dataclass(frozen=True)
class Entry:
    """One prompt as read from a source; ``line`` is where it begins in the file."""

    line: int
    prompt_id: str
    messages: list | None  # None if the row is valid but cannot be asked, for the reason ``fault``
    reference: str | None
    fault: str | None = None


class Unanswerable(InputError):
    """A valid row that text cannot answer, such as tool calls and pictures. It is excluded and counted."""


def read_entry(row: dict, source: Source, path: Path | str | None, number: int, line: int) -> Entry:
    """One prompt; raises InputError for a missing or unusable field."""
    prompt_id = str(number) if source.id == ROW_NUMBER else read_prompt_id(row, source, path, line)
    messages, answer = _read_messages(row, source, path, line)
    reference = answer if source.reference == LAST_TURN else _read_reference(row, source, path, line)
    return Entry(line, prompt_id, messages, reference)


def read_source(path: str | Path, source: Source) -> tuple[list[Entry], int]:
    """(entries of one file, in file order; number of rows that ``where`` does not choose).

    Raises InputError for broken JSON or a ragged row, a missing or duplicate id, empty text and wrong encoding.
    """
    entries: list[Entry] = []
    lines: dict[str, tuple[int, str | None]] = {}
    seen: set[str] = set()
    not_chosen = 0
    for number, (line, row) in enumerate(_read_rows(Path(path), source), start=1):
        if not is_chosen(row, source, seen):
            not_chosen += 1
            continue
        try:
            entry = read_entry(row, source, path, number, line)
        except Unanswerable as error:
            prompt_id = str(number) if source.id == ROW_NUMBER else read_prompt_id(row, source, path, line)
            entry = Entry(line, prompt_id, None, None, error.problem)
        if entry.prompt_id in lines:
            first, spelling = lines[entry.prompt_id]
            raise InputError(
                f"duplicate id {show_id(entry.prompt_id)}, first on line {first}{tell_apart(spelling, spell_id(row, source))}",
                "give each prompt its own id",
                path,
                line,
                source.id,
            )
        lines[entry.prompt_id] = (line, spell_id(row, source))
        entries.append(entry)
    check_where(source, seen, path)
    if not entries:
        raise InputError(
            f"no prompts among {not_chosen} rows" if not_chosen else "no prompts",
            "correct `where`" if not_chosen else "give a file with at least one",
            path,
        )
    return entries, not_chosen


def is_chosen(row: dict, source: Source, seen: set[str]) -> bool:
    """Whether a row has the values of ``where``; the columns of it that the row has are added to the set ``seen``.

    Numbers are compared by value. A text is a number only if it is a whole one, as 5 or, written by some tools, 5.0: 01
    and 1.10 are texts. Truth values and null are compared as JSON writes them. A row that lacks a column is not chosen.
    """
    chosen = True
    for column, wanted in source.where.items():
        try:
            value = _get(row, column, None, None)
        except InputError:
            chosen = False
            continue
        seen.add(column)
        chosen &= any(_is_same(value, one) for one in (wanted if isinstance(wanted, list | tuple) else [wanted]))
    return chosen


def check_where(source: Source, seen: set[str], path: str | Path) -> None:
    """Raises InputError for a column of ``where`` that none of the rows had."""
    for column in source.where:
        if column not in seen:
            raise InputError("no row has the field", "name another under `where`", path, field=column)


def _is_same(value: Any, wanted: Any) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return Decimal(str(value)) == Decimal(str(wanted))
        except ArithmeticError:  # the wanted value is not a number
            return False
    if isinstance(value, str):
        return value == wanted or WHOLE.sub(r"\1", value) == WHOLE.sub(r"\1", _as_text(wanted))
    return _as_text(value) == _as_text(wanted)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def open_dataset(name: str, subset: str | None, revision: str | None, split: str) -> "Dataset":
    """A dataset of the hub, or of a local folder, as a random-access table on disk; raises InputError.

    The cells of a local folder's CSV files are text, as in a local file: the library would guess that 007 is 7.
    """
    import datasets

    datasets.disable_progress_bars()
    with dataset_errors(name):
        place = {"revision": revision, "cache_dir": _find_cache(name)}
        options = _read_as_text(datasets.load_dataset_builder(name, subset, **place)) if Path(name).is_dir() else {}
        data = datasets.load_dataset(name, subset, split=split, **place, **options)
    _check_commit(data, name, revision)
    return data


def _read_as_text(builder: Any) -> dict[str, Any]:
    """The options by which the library reads each column of CSV files as text; none for files of another kind."""
    import pandas as pd
    from datasets.packaged_modules.csv.csv import Csv

    if not isinstance(builder, Csv):
        return {}
    header = builder.config.pd_read_csv_kwargs | {"nrows": 0, "chunksize": None, "iterator": False}
    # The splits, and the files of a split, may have other columns.
    paths = [path for paths in builder.config.data_files.values() for path in paths if not path.endswith(ARCHIVES)]
    names = {name for path in paths for name in pd.read_csv(path, **header).columns}
    return {"converters": dict.fromkeys(sorted(names), str), "keep_default_na": False}


@contextmanager
def dataset_errors(name: str) -> Iterator[None]:
    """Turns the library's errors about a dataset that cannot be loaded into an InputError with its name and the remedy."""
    import datasets
    from huggingface_hub.errors import GatedRepoError, HTTPError

    try:
        yield
    except (OSError, ValueError, HTTPError, datasets.exceptions.DatasetsError) as error:
        gated = isinstance(error, GatedRepoError) or isinstance(error.__cause__, GatedRepoError)
        remedy = ACCEPT_LICENCE if gated else _find_remedy(str(error))
        raise InputError(f"the dataset cannot be loaded: {error}", remedy, name) from error


def _find_remedy(message: str) -> str:
    """What to do about an error of the library, which says in words alone what is at fault."""
    for said, remedy in DATASET_REMEDIES.items():
        if re.search(said, message):
            return remedy
    return "check id, subset, revision and split, and that the hub is reachable or the dataset is staged"


def find_commit(data: "Dataset") -> str | None:
    """The commit of a dataset of the hub, which names its folder in the cache; None where it does not."""
    names = [Path(file["filename"]).parent.name for file in data.cache_files[:1]]
    return names[0] if names and COMMIT.fullmatch(names[0]) else None


def _check_commit(data: "Dataset", name: str, revision: str | None) -> None:
    """Raises InputError for other rows than those of the commit: without a network, the newest ones are taken."""
    found = find_commit(data)
    if found and COMMIT.fullmatch(revision or "") and found != revision:
        folder = Path(data.cache_files[0]["filename"]).parent
        raise InputError(
            f"the dataset is asked for at commit {revision}, and the cache gives commit {found}",
            f"remove {folder}, or start where the hub can be reached, without HF_HUB_OFFLINE",
            name,
        )


def find_missing_fields(rows: Iterable[dict], declared: dict[str, list[str]]) -> list[str]:
    """The declared columns that the first rows of a source all lack.

    ``declared`` is {key of the config: columns}: id, text, reference and where as in Source, and ``fields``, which are
    not nested.
    """
    missing: set[str] | None = None
    for row in islice(rows, FIRST_ROWS):
        lacked = set(_list_missing(row, declared))
        missing = lacked if missing is None else missing & lacked
        if not missing:
            break
    return sorted(missing or ())


def _list_missing(row: dict, declared: dict[str, list[str]]) -> Iterator[str]:
    read = {"id": read_prompt_id, "text": _read_messages, "reference": _read_reference}
    columns_read: dict[str, Any] = {key: columns[0] for key, columns in declared.items() if key in read}
    source = Source(**columns_read)
    for key, columns in declared.items():
        if key == "where":
            present: set[str] = set()
            is_chosen(row, Source(where=dict.fromkeys(columns)), present)
            yield from (column for column in columns if column not in present)
        elif key not in read:
            yield from (column for column in columns if column not in row)
        elif columns[0] not in (ROW_NUMBER, LAST_TURN):
            try:
                read[key](row, source, None, None)
            except InputError as error:
                if error.problem == MISSING_FIELD:
                    yield columns[0]


def _find_cache(name: str) -> str | None:
    """A cache of its own for each state of a local folder, None for the hub.

    By default the cache identifies a local folder's configuration by the folder's name alone: another folder of that
    name, or changed files, would give the old rows.
    """
    if not Path(name).is_dir():
        return None
    from datasets.config import HF_DATASETS_CACHE

    files = sorted(path for path in Path(name).rglob("*") if path.is_file())
    state = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return str(Path(HF_DATASETS_CACHE) / digest(state))


def check_parallel(path: str | Path, entries: Sequence[Entry], other_path: str | Path, others: Sequence[Entry]) -> None:
    """Raises InputError where two languages' files do not hold the same ids."""
    ids, other_ids = ({entry.prompt_id: entry.line for entry in some} for some in (entries, others))
    extra = next((entry for entry in entries if entry.prompt_id not in other_ids), None)
    missing = next((entry for entry in others if entry.prompt_id not in ids), None)
    if extra:
        problem, line = f"the id {show_id(extra.prompt_id)} is not in {other_path}", extra.line
    elif missing:
        problem, line = f"the id {show_id(missing.prompt_id)} of {other_path} line {missing.line} is not here", None
    else:
        return
    raise InputError(problem, "prompts are parallel: each language's file holds the same ids", path, line, "id")


def _read_rows(path: Path, source: Source) -> Iterator[tuple[int, dict]]:
    """Yields (line, {column: value})."""
    if path.suffix == ".jsonl":
        yield from read_jsonl(path)
        return
    csv.field_size_limit(sys.maxsize)  # a prompt may be a long document
    options = _find_format(path, source)
    reader = csv.reader((text + "\n" for _, text in read_lines(path)), **options)
    header = list(source.columns) if source.columns else None
    line, several_lines = 1, None
    try:
        for values in reader:
            start, line = line, reader.line_num + 1
            if line - start > 1:
                several_lines = several_lines or start
            named = header and start == 1 and [*map(_fold_name, values)] == [*map(_fold_name, header)]
            if named or values == header or (header is None and len(set(values)) < len(values)):
                raise InputError(
                    "a header line with names given too" if header else f"duplicate column in {', '.join(values)}",
                    "leave `columns` out of the config" if header else "give each column its own name",
                    path,
                    start,
                )
            if header is None:
                header = values
            elif len(values) != len(header):
                raise InputError(
                    f"{len(values)} fields instead of {len(header)} ({', '.join(header)})",
                    "fix the row, or name all columns in the config",
                    path,
                    start,
                )
            else:
                yield start, dict(zip(header, values, strict=True))
    except csv.Error as error:
        if "new-line character" in str(error):
            raise InputError(
                "a carriage return within a field without quotes, or as the end of a line",
                "remove it or quote the field; end lines with a line feed",
                path,
                reader.line_num,
            ) from error
        raise InputError(
            f"a field begins with a quote, but the file is not quoted throughout ({error})",
            "quote fields that begin with a quote or hold separators, quotes or line breaks, and double the quotes in "
            "them, as pandas and spreadsheets do",
            path,
            reader.line_num,
        ) from error
    if path.suffix == ".tsv" and several_lines and header and len(header) > 1:
        tabs = {text.count(options["delimiter"]) for _, text in read_lines(path)}
        if tabs == {len(header) - 1}:
            raise InputError(
                "a field that begins with a quote ends on a later line, though each line has all fields by itself",
                "quote the fields that hold line breaks and those that begin with a quote, or none",
                path,
                several_lines,
            )


def _find_format(path: Path, source: Source) -> dict[str, Any]:
    """The csv module's options for a file.

    The separator is the comma, or the tab in a .tsv. If the first line lacks the wanted columns with it, the semicolon
    or the other one of the two is tried. Quotes are those of RFC 4180, in a .tsv only if a field begins with one. Raises
    InputError if all rows of a file without a header can be read with more than one separator.
    """
    first = next((text for _, text in read_lines(path)), "")
    top = {name.split(".")[0] for name in (source.id, source.text, source.reference) if name}
    needed = top - {ROW_NUMBER, LAST_TURN, FIRST_TURN}
    count = len(source.columns or ())

    def fits(separator: str) -> bool:
        try:
            names = next(csv.reader([first], delimiter=separator), [])
        except csv.Error:
            return False
        return len(names) == count if count else needed <= set(names)

    usual, other = ("\t", ",") if path.suffix == ".tsv" else (",", "\t")
    fitting = [some for some in (usual, ";", other) if fits(some)]
    if count > 1 and len(fitting) > 1 and fitting[0] != "\t":
        whole = [some for some in fitting if _fits_all(path, some, count)]
        if len(whole) > 1:
            raise InputError(
                f"all rows have {count} fields, whether they are separated by {whole[0]!a} or {whole[1]!a}",
                "give the file a header line in place of `columns` in the config, or save it as .tsv with tabs",
                path,
                1,
            )
        fitting = whole or fitting
    separator = fitting[0] if fitting else usual
    begins = re.compile(f'(?:^|{separator})"')
    if path.suffix == ".tsv" and not any(begins.search(text) for _, text in read_lines(path)):
        return {"delimiter": separator, "quoting": csv.QUOTE_NONE}
    return {"delimiter": separator, "strict": True}


def _fits_all(path: Path, separator: str, count: int) -> bool:
    """Whether each row of a file has this number of fields."""
    try:
        reader = csv.reader((text + "\n" for _, text in read_lines(path)), delimiter=separator, strict=True)
        return all(len(values) == count for values in reader)
    except csv.Error:
        return False


def _fold_name(name: str) -> str:
    return name.strip().casefold()


def _get(row: dict, column: str, path: str | Path | None, line: int | None) -> Any:
    value = row
    for part in [column] if column in row else column.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError(
                MISSING_FIELD,
                f"add it, or name another column in the config; here are {', '.join(row)}",
                path,
                line,
                column,
            )
        value = value[part]
    return value


def read_prompt_id(row: dict, source: Source, path: str | Path | None, line: int | None) -> str:
    """The id of a row in NFC; raises InputError where it is missing, empty, or neither text nor a whole number."""
    value = _get(row, source.id, path, line)
    if isinstance(value, float):
        remedy = f"write ids as text or whole numbers, or write id: {ROW_NUMBER}"
        raise InputError(f"the id {value} is not a whole number", remedy, path, line, source.id)
    if isinstance(value, date | time):
        remedy = "name the file itself under `path`, where ids stay as they are, in place of a dataset"
        raise InputError(f"the id was read as a time, {value}", remedy, path, line, source.id)
    if not isinstance(value, str | int) or isinstance(value, bool) or is_blank(str(value)):
        raise InputError(
            "the id is empty or no text or number", f"give an id, or write id: {ROW_NUMBER}", path, line, source.id
        )
    return normalise_id(str(value).strip())


def has_no_id(row: dict, source: Source) -> bool:
    """Whether a row of a dataset has null or an empty text for its id, or null for the record that holds it."""
    try:
        value = _get(row, source.id, None, None)
    except InputError:
        return row.get(source.id.split(".")[0], "") is None
    return value is None or (isinstance(value, str) and is_blank(value))


def spell_id(row: dict, source: Source) -> str | None:
    """The id of a row in its own code points, None where rows are numbered."""
    return None if source.id == ROW_NUMBER else str(_get(row, source.id, None, None)).strip()


def show_id(prompt_id: str) -> str:
    """The id for a message: as it is, or with escapes where it holds characters that cannot be seen."""
    return prompt_id if prompt_id.isprintable() else ascii(prompt_id)


def tell_apart(spelling: str | None, other: str | None) -> str:
    """Explains in a message that two ids are the same in NFC; "" if their code points are the same."""
    return "" if spelling == other else f", in other code points: {spelling!a} and {other!a} are the same in NFC"


def _read_messages(
    row: dict, source: Source, path: str | Path | None, line: int | None
) -> tuple[list[dict], str | None]:
    """(prompt as a chat, answer to it or None): a text becomes the user's turn, a list of turns is read by its format.

    With ``reference: last_turn`` the assistant's last turn is not part of the prompt. With ``text: first_turn`` the
    prompt is the first user's turn alone, and the answer that of the assistant right after it.
    """
    column, alone = source.text, False
    if column not in row and column.split(".")[-1] == FIRST_TURN:
        column, alone = column.removesuffix(FIRST_TURN).removesuffix(".") or "messages", True
    value = _get(row, column, path, line)
    if isinstance(value, str) and (alone or source.reference == LAST_TURN or CHAT.match(value)):
        value = _read_chat(value, path, line, column)
    if isinstance(value, list):
        around = column.rpartition(".")[0] if column not in row else ""
        for record in (row, _get(row, around, path, line) if around else {}):
            _refuse_what_no_text_answers(record, (path, line, column), ("tools", "functions"))
    else:
        value = [{"role": "user", "content": value}]
    messages = []
    for turn in value or [None]:
        message = _read_turn(turn, path, line, column)
        if not is_blank(message["content"]):
            messages.append(message)
        elif message["role"] != "system":
            raise InputError("empty text", "write the prompt, or remove its id from every language", path, line, column)
    if alone:
        start = next((i for i, message in enumerate(messages) if message["role"] == "user"), len(messages))
        end = start + 1
        if source.reference == LAST_TURN and [message["role"] for message in messages[end : end + 1]] == ["assistant"]:
            end += 1
        messages = messages[start:end]
    answer = None
    if source.reference == LAST_TURN and messages and messages[-1]["role"] == "assistant":
        answer = messages.pop()["content"]
    if not messages or messages[-1]["role"] != "user":
        raise InputError(
            "no turn is the user's" if alone else "the last turn is not the user's",
            f"end the chat with the turn to answer, or write reference: {LAST_TURN}",
            path,
            line,
            column,
        )
    return messages, answer


def _read_chat(text: str, path: str | Path | None, line: int | None, column: str) -> list:
    """The turns of a chat that is written as JSON in a text; raises InputError."""
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        turns = None
    if not isinstance(turns, list):
        raise InputError(
            "a chat written as text, not as JSON"
            if CHAT.match(text)
            else "a text where the turns of a chat are asked for",
            "save the chats as JSONL, each a list of {role, content}",
            path,
            line,
            column,
        )
    refuse_half_characters({column: turns}, path, line)
    return turns


def _read_turn(turn: Any, path: str | Path | None, line: int | None, column: str) -> dict[str, str]:
    """{role, content} of a turn as OpenAI, ShareGPT or OASST write it; raises InputError."""
    place = (path, line, column)
    if not isinstance(turn, dict):
        raise InputError("neither text nor a list of {role, content}", "write the prompt as text", *place)
    role = turn.get("role") if turn.get("role") is not None else turn.get("from")
    _refuse_what_no_text_answers(turn, place, TOOL_KEYS, role in TOOL_ROLES)
    content = next((turn[key] for key in ("content", "value", "text") if turn.get(key) is not None), None)
    if content is None and isinstance(role, str) and any(key in turn for key in ("content", "value", "text")):
        content = "" if ROLES.get(role) == "system" else None
    if isinstance(content, list):
        content = "\n".join(_read_part(part, place) for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise InputError("neither text nor a list of {role, content}", "write the prompt as text", *place)
    if role not in ROLES:
        raise InputError(f"the role {role!r} is unknown", f"write one of {', '.join(ROLES)}", *place)
    return {"role": ROLES[role], "content": content}


def _refuse_what_no_text_answers(
    record: dict, place: tuple[str | Path | None, int | None, str], tool_keys: Sequence[str], is_tool: bool = False
) -> None:
    """Raises Unanswerable for a turn, or a row beside its chat, with tools or media."""
    if is_tool or any(_says_something(record.get(key)) for key in tool_keys):
        raise Unanswerable("a tool or function call", "remove chats with tools", *place)
    if any(_says_something(record.get(key)) for key in MEDIA_KEYS):
        raise Unanswerable("content that is no text", "remove pictures and sound", *place)


def _read_part(part: Any, place: tuple[str | Path | None, int | None, str]) -> str:
    """The text of one of OpenAI's content parts."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type", "text") not in ("text", "input_text", "output_text"):
        raise Unanswerable("content that is no text", "remove pictures and sound", *place)
    if not isinstance(part.get("text"), str):
        raise InputError("a content part without its text", "write {type: text, text: ...}", *place)
    return part["text"]


def _says_something(value: Any) -> bool:
    """Whether a field holds anything: tables fill the fields that a row lacks with nulls and empty lists."""
    if isinstance(value, dict):
        return any(map(_says_something, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_says_something, value))
    if value is None or isinstance(value, str | int | float):
        return value not in (None, False, "", "[]", "{}", "null")
    return True  # a decoded picture or sound


def _read_reference(row: dict, source: Source, path: str | Path | None, line: int | None) -> str | None:
    if source.reference is None:
        return None
    value = _get(row, source.reference, path, line)
    if value is not None and not isinstance(value, str):
        raise InputError("the reference is no text", "write it as text, or null for none", path, line, source.reference)
    return None if is_blank(value or "") else value


def check_sources(grid: Any) -> None:
    """Reads the config's local prompt files and compares their ids, before any job runs.

    Files under the output root, which the run itself makes, are checked by scripts/prompts.py. Raises InputError.
    """
    for use, row in grid.prompts.items():
        source = Source.of_row(row, where={})
        where = row.get("where", {})  # chooses in the source language; the others follow by id
        leading, files = grid.config["source_language"], {}
        for code in dict.fromkeys([leading, *grid.prompt_languages(use)]):
            path = grid.prompt_file(use, code)
            if path and not Path(path).is_relative_to(grid.results):
                chosen = replace(source, where=where) if code == leading else source
                files[code] = (path, read_source(Path(path), chosen)[0])
        for code, (path, entries) in files.items():
            if code != leading and leading in files:
                others_path, others = files[leading]
                ids = {entry.prompt_id for entry in others}
                more = where or grid.own_translation(use, code) is not None  # may hold more than is asked for
                entries = [entry for entry in entries if not more or entry.prompt_id in ids]
                check_parallel(path, entries, others_path, others)
                check_translated(path, entries, others_path, others)


def check_translated(
    path: str | Path, entries: Sequence[Entry], other_path: str | Path, others: Sequence[Entry]
) -> None:
    """Raises InputError where one language's prompts are a copy of another's."""
    texts = {entry.prompt_id: entry.messages for entry in others}
    if len(entries) >= FEW_PROMPTS and all(entry.messages == texts[entry.prompt_id] for entry in entries):
        remedy = "give each language its own texts, or name a translator"
        raise InputError(f"the prompts are the same texts as in {other_path}", remedy, path)
