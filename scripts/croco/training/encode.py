"""From rows of text to token ids to train on: what fits, what is cut, what is left out, all counted.

The ids are those that TRL's trainers would prepare from the same rows (``trained_ids``, tested against
them); preparing them here once shows what is trained on before any of it is.
"""

from collections import Counter

from jinja2 import TemplateError

from croco.digests import derive_seed, digest
from croco.errors import InputError
from croco.models.chats import CONTROL, REFUSED, Controls, digest_tokens, encode_prompt
from croco.records import Completion, Pair, Row, read_records

# The chat lists of a row, by objective; the first is what the others answer.
COLUMNS = {"dpo": ("prompt", "chosen", "rejected"), "sft": ("prompt", "completion"), "online_dpo": ("prompt",)}
KINDS = {"dpo": Pair, "sft": Completion, "online_dpo": Row}  # of the rows, by objective
SMOOTHED = ("robust", "exo_pair")  # the losses of TRL 1.16 that label smoothing changes
DIGESTS = {"chosen": "chosen_token_digest", "rejected": "rejected_token_digest", "completion": "token_digest"}


def digest_rows(path, objective):
    """Digest of what is trained on of a data file: a pool's mean or target may change where its pair stays the same."""
    return digest(
        [[row["prompt_id"], *(row[name] for name in COLUMNS[objective])] for row in read_rows(path, objective)]
    )


def read_rows(path, objective):
    """The rows to train on; raises InputError for one that cannot be."""
    return (row for _, row in read_records(path, KINDS[objective]))


def trained_ids(tokenizer, prompt, answer, options=None):
    """(prompt ids, completion ids) of a row of the data set that DPOTrainer or SFTTrainer prepares.

    ``prompt`` and ``answer`` are chat lists; ``options`` stand for the row's `chat_template_kwargs`, a column with a
    dict. The loss is over the completion, which begins where the whole chat departs from the prompt; in DPO, where the
    first of a row's two chats does.
    """
    from trl.data_utils import _tokenize, common_prefix_length

    variables = {"tools": None, **(options or {})}
    alone = _tokenize(tokenizer, prompt, add_generation_prompt=True, **variables)["input_ids"]
    whole = _tokenize(tokenizer, prompt + answer, **variables)["input_ids"]
    length = common_prefix_length(alone, whole)
    return list(whole[:length]), list(whole[length:])


def encode_rows(data, objective, tokenizer, stops, max_length, too_long="drop", options=None, room=0, loss_on="answer"):
    """Examples for a trainer, and the account of what became of the rows.

    Args:
        data: dicts with the chat lists of COLUMNS[objective] and a prompt_id.
        stops: ids of the tokens that end an answer.
        max_length: tokens of prompt and answer at most; ``room``: tokens that online_dpo keeps free for an answer.
        too_long: "drop" leaves a longer row out, "truncate" cuts its answers and keeps what ends them.
        options: variables of the chat template.
        loss_on: of sft, "answer" or "all": the tokens that have labels.
    Returns (examples, counts). An example has the row's number and prompt_id, and int32 arrays of ids: prompt_ids,
    chosen_ids, rejected_ids (dpo), input_ids, labels (sft); of online_dpo the chat list. counts: rows, trained,
    dropped by reason (CONTROL: a row that spells control tokens), truncated, and of answers whose sampled tokens are known: compared, token_mismatches.
    """
    import numpy as np

    counts = {"rows": 0, "trained": 0, "dropped": Counter(), "truncated": 0, "compared": 0, "token_mismatches": 0}
    examples = []
    answers, controls = COLUMNS[objective][1:], Controls(tokenizer, options)
    for number, row in enumerate(data):
        counts["rows"] += 1
        if any(controls.in_chat(row[name]) for name in COLUMNS[objective]):
            counts["dropped"][CONTROL] += 1
            continue
        try:
            if objective == "online_dpo":
                ids = [encode_prompt(tokenizer, row["prompt"], options)]
            else:
                split = [trained_ids(tokenizer, row["prompt"], row[name], options) for name in answers]
                # Two answers share what is the prompt to both.
                length = min(len(prompt) for prompt, _ in split)
                ids = [split[0][0][:length], *((prompt + answer)[length:] for prompt, answer in split)]
        except TemplateError:  # e.g. a template that knows no system messages
            counts["dropped"][REFUSED] += 1
            continue
        compare(row, answers, ids[1:], stops, counts)
        longest = len(ids[0]) + max(map(len, ids[1:]), default=room)
        if longest > max_length:
            cut = [truncate(answer, stops, max_length - len(ids[0])) for answer in ids[1:]]
            if too_long == "drop" or not cut or None in cut:
                counts["dropped"]["prompt_too_long" if not cut or None in cut else "too_long"] += 1
                continue
            ids[1:] = cut
            counts["truncated"] += 1
        if objective == "dpo" and ids[1] == ids[2]:
            counts["dropped"]["equal_answers"] += 1
            continue
        arrays = [np.asarray(some, dtype=np.int32) for some in ids]
        example = {"row": number, "prompt_id": str(row["prompt_id"])}
        if objective == "dpo":
            example |= dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), arrays, strict=True))
        elif objective == "sft":
            before = arrays[0] if loss_on == "all" else np.full(len(arrays[0]), -100, dtype=np.int32)
            example |= {"input_ids": np.concatenate(arrays), "labels": np.concatenate([before, arrays[1]])}
        else:
            example["prompt"] = row["prompt"]
        counts["trained"] += 1
        examples.append(example)
    return examples, {**counts, "dropped": dict(counts["dropped"])}


def truncate(answer, stops, length):
    """An answer's ids in ``length`` tokens, what ends it kept (the last stop token and all behind it), or None.

    None where not one token of the answer itself would stay.
    """
    if len(answer) <= length:
        return answer
    end = max((i for i, token in enumerate(answer) if token in stops), default=len(answer))
    closing = answer[end:]
    kept = length - len(closing)
    return answer[:kept] + closing if kept > 0 else None


def compare(row, answers, ids, stops, counts):
    """Counts the answers whose trained tokens, up to the stop token, are not those that were sampled."""
    for name, trained in zip(answers, ids, strict=True):
        sampled = row.get(DIGESTS[name])
        if sampled is not None:
            end = next((i + 1 for i, token in enumerate(trained) if token in stops), len(trained))
            counts["compared"] += 1
            counts["token_mismatches"] += digest_tokens(trained[:end]) != sampled


def hold_out(examples, share, seed):
    """(training, validation) examples: whole prompts, in all their languages, drawn by a hash of their ids.

    The same on every process and for every order of rows. Raises InputError where nothing is left to train on.
    """
    if not share:
        return examples, []
    prompts = sorted({example["prompt_id"] for example in examples}, key=lambda p: derive_seed(seed, "validation", p))
    held = set(prompts[: max(1, round(share * len(prompts)))])
    training = [example for example in examples if example["prompt_id"] not in held]
    if not training:
        raise InputError(
            f"all of {len(prompts)} prompts would be held out for validation", "lower it, or give more rows", field="validation"
        )  # fmt: skip
    return training, [example for example in examples if example["prompt_id"] in held]
