"""From rows of text to token ids to train on: what fits, what is cut, what is left out, all counted.

The ids are those that TRL's trainers would prepare from the same rows (``trained_ids``, tested against
them); preparing them here once shows what is trained on before any of it is.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from jinja2 import TemplateError

from croco.digests import derive_seed, digest
from croco.errors import InputError
from croco.models.chats import CONTROL, REFUSED, Controls, digest_tokens, encode_prompt
from croco.objectives import OBJECTIVES
from croco.records import read_records

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DIGESTS = {"chosen": "chosen_token_digest", "rejected": "rejected_token_digest", "completion": "token_digest"}


class RowCounts(TypedDict):
    """What became of the rows of a data file."""

    rows: int
    trained: int
    dropped: dict[str, int]  # {reason: rows}
    truncated: int  # rows
    compared: int  # answers whose sampled tokens are known
    token_mismatches: int  # of these, answers that are trained on in other tokens


def digest_rows(path: Path, objective: str) -> str:
    """Digest of the part of a data file that is trained on: a pool's mean or target may change and its pair stay.

    Raises InputError as read_rows does.
    """
    return digest(
        [[row["prompt_id"], *(row[name] for name in OBJECTIVES[objective].texts)] for row in read_rows(path, objective)]
    )


def read_rows(path: Path, objective: str) -> Iterator[dict]:
    """The rows to train on; raises InputError for a row that is not of the objective's kind."""
    return (row for _, row in read_records(path, OBJECTIVES[objective].kind))


def trained_ids(
    tokenizer: "PreTrainedTokenizerBase", prompt: list[dict], answer: list[dict], options: dict | None = None
) -> tuple[list[int], list[int]]:
    """(prompt ids, completion ids) of a row of the data set that DPOTrainer or SFTTrainer prepares.

    ``prompt`` and ``answer`` are chat lists; ``options`` stand for the row's `chat_template_kwargs`, a column with a
    dict. The loss is over the completion, which begins where the whole chat departs from the prompt; in DPO, where the
    first of a row's two chats does. Raises jinja2.TemplateError where the template refuses the chat.
    """
    from trl.data_utils import _tokenize, common_prefix_length

    variables = {"tools": None, **(options or {})}
    alone = _tokenize(tokenizer, prompt, add_generation_prompt=True, **variables)["input_ids"]
    whole = _tokenize(tokenizer, prompt + answer, **variables)["input_ids"]
    length = common_prefix_length(alone, whole)
    return list(whole[:length]), list(whole[length:])


def encode_rows(
    data: Iterable[dict],
    objective: str,
    tokenizer: "PreTrainedTokenizerBase",
    stops: Collection[int],
    max_length: int,
    too_long: str = "drop",
    options: dict | None = None,
    room: int = 0,
    loss_on: str = "answer",
) -> tuple[list[dict], dict[str, Any]]:
    """(examples for a trainer, the RowCounts of what became of the rows).

    Args:
        data: dicts with the chat lists of OBJECTIVES[objective].texts and a prompt_id.
        stops: ids of the tokens that end an answer.
        max_length: tokens of prompt and answer at most; ``room``: tokens that online_dpo keeps free for an answer.
        too_long: "drop" drops a longer row, "truncate" cuts its answers and keeps what ends them.
        options: variables of the chat template.
        loss_on: of sft, "answer" or "all": the tokens that have labels.
    An example is described in make_example. Among the reasons of dropped rows are CONTROL (the row spells control
    tokens) and REFUSED (the chat template refuses it).
    """
    dropped: Counter[str] = Counter()
    counts: RowCounts = {
        "rows": 0,
        "trained": 0,
        "dropped": dropped,
        "truncated": 0,
        "compared": 0,
        "token_mismatches": 0,
    }
    examples = []
    controls = Controls(tokenizer, options)
    for number, row in enumerate(data):
        counts["rows"] += 1
        if any(controls.in_chat(row[name]) for name in OBJECTIVES[objective].texts):
            dropped[CONTROL] += 1
            continue
        try:
            ids = tokenise_row(row, objective, tokenizer, options)
        except TemplateError:  # e.g. a template that knows no system messages
            dropped[REFUSED] += 1
            continue
        compare(row, OBJECTIVES[objective].texts[1:], ids[1:], stops, counts)
        fitting = fit_row(ids, stops, max_length, too_long, room)
        if isinstance(fitting, str):
            dropped[fitting] += 1
            continue
        counts["truncated"] += fitting != ids
        if OBJECTIVES[objective].has_pairs and fitting[1] == fitting[2]:
            dropped["equal_answers"] += 1
            continue
        counts["trained"] += 1
        examples.append(make_example(number, row, fitting, objective, loss_on))
    return examples, {**counts, "dropped": dict(dropped)}


def tokenise_row(
    row: dict, objective: str, tokenizer: "PreTrainedTokenizerBase", options: dict | None
) -> list[list[int]]:
    """[ids of the prompt, ids of each answer]; raises jinja2.TemplateError where the template refuses the chat."""
    if OBJECTIVES[objective].samples:
        return [encode_prompt(tokenizer, row["prompt"], options)]
    split = [trained_ids(tokenizer, row["prompt"], row[name], options) for name in OBJECTIVES[objective].texts[1:]]
    # Two answers share what is the prompt to both.
    length = min(len(prompt) for prompt, _ in split)
    return [split[0][0][:length], *((prompt + answer)[length:] for prompt, answer in split)]


def fit_row(
    ids: list[list[int]], stops: Collection[int], max_length: int, too_long: str, room: int
) -> list[list[int]] | str:
    """The ids of tokenise_row, cut to ``max_length`` tokens where needed, or why the row is dropped."""
    prompt, *answers = ids
    if len(prompt) + max(map(len, answers), default=room) <= max_length:
        return ids
    cut = [truncate(answer, stops, max_length - len(prompt)) for answer in answers]
    kept = [answer for answer in cut if answer is not None]
    if not answers or len(kept) < len(answers):
        return "prompt_too_long"
    return "too_long" if too_long == "drop" else [prompt, *kept]


def make_example(number: int, row: dict, ids: list[list[int]], objective: str, loss_on: str) -> dict:
    """An example for a trainer: `row` (its number), `prompt_id`, and int32 arrays of shape (tokens,).

    The arrays are prompt_ids, chosen_ids and rejected_ids (dpo), or input_ids and labels (sft), -100 where a token has
    no label. An example of online_dpo has the chat list `prompt` instead.
    """
    import numpy as np

    example = {"row": number, "prompt_id": str(row["prompt_id"])}
    if OBJECTIVES[objective].samples:
        return {**example, "prompt": row["prompt"]}
    arrays = [np.asarray(sequence, dtype=np.int32) for sequence in ids]
    if OBJECTIVES[objective].has_pairs:
        return {**example, **dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), arrays, strict=True))}
    before = arrays[0] if loss_on == "all" else np.full(len(arrays[0]), -100, dtype=np.int32)
    return {**example, "input_ids": np.concatenate(arrays), "labels": np.concatenate([before, arrays[1]])}


def truncate(answer: list[int], stops: Collection[int], length: int) -> list[int] | None:
    """An answer's ids in ``length`` tokens, what ends it kept (the last stop token and all behind it), or None.

    None where not one token of the answer itself would stay.
    """
    if len(answer) <= length:
        return answer
    end = max((i for i, token in enumerate(answer) if token in stops), default=len(answer))
    closing = answer[end:]
    kept = length - len(closing)
    return answer[:kept] + closing if kept > 0 else None


def compare(row: dict, answers: Sequence[str], ids: list[list[int]], stops: Collection[int], counts: RowCounts) -> None:
    """Adds to `compared` and `token_mismatches` of the counts: are the trained tokens, up to the stop token, the sampled?

    ``answers``: names of the row's answers; ``ids``: the token ids of each.
    """
    for name, trained in zip(answers, ids, strict=True):
        sampled = row.get(DIGESTS[name])
        if sampled is not None:
            end = next((i + 1 for i, token in enumerate(trained) if token in stops), len(trained))
            counts["compared"] += 1
            counts["token_mismatches"] += digest_tokens(trained[:end]) != sampled


def hold_out(prompt_ids: Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    """(training, validation) examples by their numbers: whole prompts, in all their languages, drawn by a hash of their ids.

    ``prompt_ids``: of the examples. The prompts drawn are the same on every process and for every order of examples.
    Raises InputError where nothing is left to train on.
    """
    if not share:
        return list(range(len(prompt_ids))), []
    prompts = sorted(set(prompt_ids), key=lambda p: derive_seed(seed, "validation", p))
    held = set(prompts[: max(1, round(share * len(prompts)))])
    training = [number for number, prompt in enumerate(prompt_ids) if prompt not in held]
    if not training:
        raise InputError(
            f"all of {len(prompts)} prompts would be held out for validation", "lower it, or give more rows", field="validation"
        )  # fmt: skip
    return training, [number for number, prompt in enumerate(prompt_ids) if prompt in held]


def merge_shares(parts: Sequence[tuple[list[dict], dict[str, Any]]]) -> tuple[list[dict], dict[str, Any]]:
    """As encode_rows for all rows, from its results for every len(parts)-th row, the first from row 0, the next from 1."""
    examples = [
        {**example, "row": example["row"] * len(parts) + share}
        for share, (encoded, _) in enumerate(parts)
        for example in encoded
    ]
    dropped: Counter[str] = Counter()
    for _, counts in parts:
        dropped.update(counts["dropped"])
    counts = {name: sum(counts[name] for _, counts in parts) for name in parts[0][1] if name != "dropped"}
    return sorted(examples, key=lambda example: example["row"]), {**counts, "dropped": dict(dropped)}
