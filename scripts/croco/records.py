"""Reading and writing of the files between stages: UTF-8 JSON Lines, read strictly and written atomically."""

import json
import re
import sys
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn

import msgspec

from croco.digests import digest, prompt_digest
from croco.errors import InputError
from croco.files import replacing
from croco.text.normalise import normalise_id

GZIP = b"\x1f\x8b"  # how its files begin


def refuse_constant(name: str) -> NoReturn:
    """For json.loads: NaN and Infinity, which Python reads, are not JSON."""
    raise ValueError(f"{name} is not JSON")


def refuse_twins(pairs: list[tuple[str, Any]]) -> dict:
    """For json.loads: a key that is listed twice in one object is an error; Python would keep the last."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"the key {twin!r} is listed twice")
    return value


def load_json(text: str) -> Any:
    """The value of a JSON text; raises ValueError or RecursionError where it is not strictly JSON."""
    return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=refuse_twins)


def read_json(path: str | Path) -> dict:
    """The object in a JSON file; raises InputError where it is missing or holds anything else."""
    try:
        value = load_json("\n".join(text for _, text in read_lines(path)))
    except (ValueError, RecursionError) as error:
        raise InputError(f"broken JSON ({error})", "give the file that the stage before wrote", path) from error
    if not isinstance(value, dict):
        raise InputError("not a JSON object", "give the file that the stage before wrote", path)
    return value


def advise_encoding(raw: bytes) -> str:
    """What to do with a file that is not UTF-8 and begins with these bytes."""
    if raw.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "save it as UTF-8; it is UTF-16: iconv -f utf-16 -t utf-8"
    return (
        "save it as UTF-8, by iconv -f ITS_ENCODING (such as windows-1250 or windows-1252) -t utf-8, and look at the "
        "letters with accents afterwards"
    )


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yields (line number, text) of a UTF-8 file; raises InputError where it is missing, no file, or not UTF-8."""
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        raise InputError("not a regular file, and files are read more than once", "save it as a file", path)
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    if number == 1 and raw.startswith(GZIP):
                        raise InputError("compressed by gzip", "unpack it: gunzip", path, number) from error
                    raise InputError(
                        f"not valid UTF-8 ({error.reason} at byte {error.start} of the line)",
                        advise_encoding(raw if number == 1 else b""),
                        path,
                        number,
                    ) from error
    except FileNotFoundError as error:
        raise InputError("no such file", "check the path", path) from error


def read_jsonl(
    path: str | Path, blank_lines: bool = False, load: Callable[[str], Any] = load_json
) -> Iterator[tuple[int, dict]]:
    """Yields (line number, dict) for each line; raises InputError for broken JSON or a line that is no object."""
    for number, text in read_lines(path):
        if blank_lines and not text.strip():
            continue
        try:
            row = load(text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"broken JSON ({error})", "write one complete JSON object per line, no blank lines", path, number
            ) from error
        if not isinstance(row, dict):
            raise InputError("not a JSON object", "write one JSON object per line", path, number)
        if "\\u" in text:
            refuse_half_characters(row, path, number)
        yield number, row


def refuse_half_characters(row: dict, path: str | Path | None, number: int | None) -> None:
    """Refuses half of a UTF-16 pair, which JSON can escape but a UTF-8 file cannot hold."""
    for field, value in row.items():
        try:
            json.dumps([field, value], ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise InputError(
                f"half a character ({half!a})", "repair the text where it was cut", path, number, field
            ) from error


def rows(path: str | Path) -> Iterator[dict]:
    """The rows of a stage file, without line numbers."""
    return (row for _, row in read_jsonl(path))


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a stage file; it may have further keys."""

    remedy: ClassVar[str] = "give the file that the stage before wrote"
    prompt_id: str


class Message(msgspec.Struct, frozen=True):
    """One turn of a chat; ``role`` is user, assistant or system."""

    role: str
    content: str


Chat = Annotated[list[Message], msgspec.Meta(min_length=1)]
Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]


class Prompt(Record, frozen=True, kw_only=True):
    """A line of a prompt file; ``skip`` is why the prompt is not asked, or None."""

    language: str
    messages: Chat
    reference: str | None = None
    skip: str | None = None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One sampled response; ``finish_reason`` is length where the response was cut off at the limit of tokens."""

    text: str
    finish_reason: Literal["stop", "length"]
    n_tokens: int | None = None
    token_digest: str | None = None


class Generation(Record, frozen=True, kw_only=True):
    """A line of the generations: a prompt's responses in the order of their samples."""

    remedy: ClassVar[str] = (
        "write each response as {text, finish_reason}, finish_reason being stop, or length where it was cut off; a call "
        'that failed is no response: leave it out, or write it as cut off with the text ""'
    )
    language: str
    responses: list[Response]
    prompt_digest: str | None = None
    skip: str | None = None


class Score(Record, frozen=True, kw_only=True):
    """A line of the scores: one reward per response, None where it could not be scored."""

    remedy: ClassVar[str] = "write a number for each response, and null for one that could not be scored"
    language: str
    rewards: list[Finite | None]
    responses_digest: str | None = None


class Identified(Record, frozen=True, kw_only=True):
    """A line of the identified languages: one code per response, None where it cannot be determined."""

    remedy: ClassVar[str] = "write a language code for each response, and null where it is undetermined"
    language: str
    languages: list[str | None]
    responses_digest: str | None = None


class Row(Record, frozen=True, kw_only=True):
    """A row to train on; online DPO samples the answers itself."""

    remedy: ClassVar[str] = "give the file that build_pairs.py wrote; remove a row whose answer failed"
    prompt: Chat


class Pair(Row, frozen=True, kw_only=True):
    """A row for DPO: the chosen and the rejected answer to one prompt."""

    chosen: Chat
    rejected: Chat


class ScoredPair(Pair, frozen=True, kw_only=True):
    """A pair with the figures that it was chosen by, which training does not need."""

    chosen_reward: Finite
    rejected_reward: Finite
    pool_size: int


class Completion(Row, frozen=True, kw_only=True):
    """A row for SFT: the answer to learn."""

    completion: Chat


class Verdict(Record, frozen=True, kw_only=True):
    """A line of the arena's files; scores are in [0, 1], one per sample in ``verdicts``."""

    verdicts: dict[str, list[Literal["win", "tie", "loss", "unparseable", "not_asked"]]]
    score: Finite | None
    skip: str | None = None


def read_records(path: str | Path, kind: Any) -> Iterator[tuple[int, dict]]:
    """read_jsonl of a stage file whose lines are ``kind``, a Record; ids are given in NFC.

    Raises InputError with file, line and field where a field, or an element of one, is missing or of the wrong type.
    """
    for number, row in read_jsonl(path):
        try:
            msgspec.convert(row, kind)
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at `$")
            field = where.rstrip("`").lstrip(".")
            if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
                problem, field = "missing", f"{field}.{missing[1]}".lstrip(".")
            raise InputError(problem, kind.remedy, path, number, field) from error
        if not row["prompt_id"].isascii():
            row["prompt_id"] = normalise_id(row["prompt_id"])
        yield number, row


def prompt_rows(path: str | Path, language: str | None = None) -> Iterator[dict]:
    """The rows of a prompt file, checked for what every stage needs of them; ``language``: the one that they must have.

    Raises InputError at the line of a second language, or of an id that is there already.
    """
    seen: set[str] = set()
    for number, row in read_records(path, Prompt):
        language = language or row["language"]
        if row["language"] != language:
            raise InputError(
                f"{row['language']}, where the others, or --languages, say {language}",
                "give a file of one language for each language, in the same order",
                path,
                number,
                "language",
            )
        if row["prompt_id"] in seen:
            raise _second_row(row["prompt_id"], path, number)
        seen.add(row["prompt_id"])
        yield row


def _second_row(prompt_id: str, path: str | Path, number: int) -> InputError:
    return InputError(f"a second row for the prompt {prompt_id!r}", "keep one line of it", path, number, "prompt_id")


def rows_in_step(files: Sequence[tuple[str | Path, type]]) -> Iterator[list[dict]]:
    """Yields, for each prompt, one row of every file, streaming; all must hold the same prompt ids in the same order.

    Args:
        files: [(path, kind of its lines, a Record)].
    Raises InputError at the first line where they do not, or at a duplicate id.
    """
    seen = set()
    paths = [path for path, _ in files]
    readers = [read_records(path, kind) for path, kind in files]
    while True:
        step = [next(reader, None) for reader in readers]
        if all(entry is None for entry in step):
            return
        leading, first = next((path, entry) for path, entry in zip(paths, step, strict=True) if entry is not None)
        for path, entry in zip(paths, step, strict=True):
            if entry is None or entry[1]["prompt_id"] != first[1]["prompt_id"]:
                found = "the file ends" if entry is None else f"prompt_id is {entry[1].get('prompt_id')!r}"
                raise InputError(
                    f"{found} where {leading} has {first[1].get('prompt_id')!r}",
                    "give files of the same run: one line per prompt, in the order of the prompt file",
                    path,
                    first[0],
                    "prompt_id",
                )
        if first[1]["prompt_id"] in seen:
            raise _second_row(first[1]["prompt_id"], paths[0], first[0])
        seen.add(first[1]["prompt_id"])
        yield [entry[1] for entry in step if entry]


def digest_responses(generation: dict) -> str:
    """Digest of the texts of a prompt's responses, in their order: what rewards and languages are of."""
    return digest([response["text"] for response in generation["responses"]])


def check_same_text(prompt: dict, generation: dict) -> None:
    """Raises InputError where a prompt's responses were given to another text under the same id."""
    if (generation.get("prompt_digest") or prompt_digest(prompt)) != prompt_digest(prompt):
        raise InputError(
            f"{prompt['language']} {prompt['prompt_id']}: the responses are to another text of this prompt",
            "generate again with these prompts",
            field="prompt_digest",
        )


def dump(value: Any) -> str:
    """One line of JSON: compact, keys in their given order, text unescaped, no NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def write_jsonl(path: str | Path, values: Iterable[dict]) -> int:
    """Writes the rows atomically and returns how many there were."""
    count = 0
    with replacing(path) as file:
        for value in values:
            file.write(dump(value) + "\n")
            count += 1
    return count


def write_json(path: str | Path, value: Any) -> None:
    """Writes one indented JSON value atomically."""
    with replacing(path) as file:
        json.dump(value, file, ensure_ascii=False, allow_nan=False, indent=1)
        file.write("\n")
