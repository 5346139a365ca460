"""What becomes of rows of text on their way to a trainer: ids, cuts, drops and counts, with a real byte tokenizer."""

import os
from argparse import Namespace

import numpy as np
import pytest
from conftest import write_rows
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from croco.errors import InputError
from croco.models.chats import ChatModel, digest_tokens, encode_prompt
from croco.objectives import OBJECTIVES
from croco.training.encode import encode_rows, hold_out, trained_ids, truncate
from croco.training.process import read_examples, save_examples

# A line break follows the stop token, as in ChatML.
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    "<|{{ message.role }}|>{{ message.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer():
    """One token a byte, and the template's own; whatever is written, its length is known."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<|end|>", additional_special_tokens=["<|user|>", "<|assistant|>"]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


TOKENIZER = make_tokenizer()
END = TOKENIZER.eos_token_id
CLOSING = [END, TOKENIZER.encode("\n")[0]]
texts = st.text(st.sampled_from("aé 天\n"), min_size=1, max_size=12)


def chat(role, text):
    return [{"role": role, "content": text}]


@st.composite
def data(draw, objective):
    """Rows of one objective; some prompts have a system message, some answers the digest of what was sampled."""
    made = []
    for number in range(draw(st.integers(1, 5))):
        system = chat("system", "be short") if draw(st.integers(0, 4)) == 0 else []
        row = {"prompt_id": f"p{number}", "prompt": system + chat("user", draw(texts))}
        row |= {name: chat("assistant", draw(texts)) for name in OBJECTIVES[objective].texts[1:]}
        made.append(row)
    return made


@given(st.lists(st.integers(0, 5), max_size=12), st.sets(st.integers(0, 5), max_size=2), st.integers(-2, 14))
def test_a_cut_answer_fits_and_keeps_its_start_and_its_end(answer, stops, length):
    cut = truncate(answer, stops, length)
    if len(answer) <= length:
        assert cut == answer
        return
    places = [i for i, token in enumerate(answer) if token in stops]
    closing = answer[places[-1] :] if places else []
    if length <= len(closing):
        assert cut is None
    else:
        assert len(cut) == length and cut == answer[: length - len(closing)] + closing


@pytest.mark.parametrize("too_long", ["drop", "truncate"])
@pytest.mark.parametrize("objective", list(OBJECTIVES))
@settings(deadline=None)  # the first example imports TRL
@given(st.data())
def test_every_row_is_trained_on_as_it_is_or_counted(objective, too_long, draw):
    rows = draw.draw(data(objective))
    limit = draw.draw(st.integers(1, 90))
    room = draw.draw(st.integers(0, 20))
    examples, counts = encode_rows(rows, objective, TOKENIZER, [END], limit, too_long, room=room)
    assert counts["rows"] == len(rows) == counts["trained"] + sum(counts["dropped"].values())
    assert counts["trained"] == len(examples) and set(counts["dropped"]) <= {
        "too_long", "prompt_too_long", "refused_by_template", "equal_answers",
    }  # fmt: skip
    assert counts["dropped"].get("refused_by_template", 0) == sum(row["prompt"][0]["role"] == "system" for row in rows)
    numbers = [example["row"] for example in examples]
    assert numbers == sorted(set(numbers))
    cut_rows = 0
    for example in examples:
        row = rows[example["row"]]
        assert example["prompt_id"] == row["prompt_id"]
        if objective == "online_dpo":
            assert example["prompt"] == row["prompt"]
            assert len(encode_prompt(TOKENIZER, row["prompt"])) + room <= limit
            continue
        if objective == "dpo":
            seen = [np.concatenate([example["prompt_ids"], example[f"{n}_ids"]]) for n in OBJECTIVES["dpo"].texts[1:]]
            starts = [len(example["prompt_ids"])] * 2
            assert example["chosen_ids"].tolist() != example["rejected_ids"].tolist()
        else:
            seen, starts = [example["input_ids"]], [int((example["labels"] == -100).sum())]
            assert example["labels"][starts[0] :].tolist() == seen[0][starts[0] :].tolist()
        cut_row = False
        for name, ids, begin in zip(OBJECTIVES[objective].texts[1:], seen, starts, strict=True):
            prompt, answer = trained_ids(TOKENIZER, row["prompt"], row[name])
            whole = prompt + answer
            assert ids.dtype == np.int32 and len(ids) <= limit and ids[-2:].tolist() == CLOSING and begin == len(prompt)
            assert ids[:-2].tolist() == whole[: len(ids) - 2]
            cut_row |= len(ids) < len(whole)
            assert len(ids) == min(limit, len(whole))
        cut_rows += cut_row
    assert cut_rows <= counts["truncated"] and (too_long == "truncate" or counts["truncated"] == 0)


def test_reasons_are_told_apart():
    def row(prompt, chosen, rejected):
        return {
            "prompt_id": "p", "prompt": chat("user", prompt), "chosen": chat("assistant", chosen),
            "rejected": chat("assistant", rejected),
        }  # fmt: skip

    # A prompt of 3 letters takes 3 + <|user|>, <|end|>, line break and <|assistant|>; an answer's end takes 2.
    rows = [row("abc", "yes", "no"), row("abc", "y" * 30, "n"), row("a" * 20, "y", "n"), row("abc", "same", "same"),
            row("abc", "y" * 30 + "1", "y" * 30 + "2")]  # fmt: skip
    for too_long, dropped, truncated in (
        ("drop", {"too_long": 2, "prompt_too_long": 1, "equal_answers": 1}, 0),
        ("truncate", {"prompt_too_long": 1, "equal_answers": 2}, 2),
    ):
        examples, counts = encode_rows(rows, "dpo", TOKENIZER, [END], 20, too_long)
        assert (counts["dropped"], counts["truncated"]) == (dropped, truncated)
        assert [example["row"] for example in examples] == ([0] if too_long == "drop" else [0, 1])
    assert TOKENIZER.decode(examples[1]["chosen_ids"]) == "y" * 11 + "<|end|>\n"
    assert TOKENIZER.decode(examples[1]["rejected_ids"]) == "n<|end|>\n"


@pytest.mark.parametrize("turns", [0, 2])
def test_the_loss_may_be_on_all_tokens_of_all_turns(turns):
    earlier = [*chat("user", "earlier"), *chat("assistant", "and so")] * turns
    row = {"prompt_id": "p", "prompt": earlier + chat("user", "hi"), "completion": chat("assistant", "yes")}
    (whole,), _ = encode_rows([row], "sft", TOKENIZER, [END], 200, loss_on="all")
    (part,), _ = encode_rows([row], "sft", TOKENIZER, [END], 200)
    assert TOKENIZER.decode(whole["labels"]) == TOKENIZER.apply_chat_template(
        row["prompt"] + row["completion"], tokenize=False
    )
    assert whole["labels"].tolist() == whole["input_ids"].tolist() == part["input_ids"].tolist()
    assert TOKENIZER.decode(part["labels"][part["labels"] != -100]) == "yes<|end|>\n"


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_rows_that_spell_control_tokens_are_dropped_and_counted(objective):
    plain = {"prompt_id": "p", "prompt": chat("user", "hi")}
    plain |= {name: chat("assistant", name) for name in OBJECTIVES[objective].texts[1:]}
    bad = [plain | {name: chat(plain[name][0]["role"], "a<|end|>b")} for name in OBJECTIVES[objective].texts]
    examples, counts = encode_rows([*bad, plain], objective, TOKENIZER, [END], 90)
    assert counts["dropped"] == {"control_tokens": len(bad)} and [e["row"] for e in examples] == [len(bad)]


@pytest.mark.parametrize("special", [True, False])
def test_a_sampled_stop_token_is_trained_once_also_where_it_is_not_special(tmp_path, special):
    """From the sampled ids to those that are trained, by the text alone; an answer that keeps the stop is no row."""
    from tokenizers import AddedToken
    from transformers import GenerationConfig, LlamaConfig

    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken("<|close|>", special=special, normalized=False)])
    tokenizer.chat_template = TEMPLATE.replace("<|end|>", "<|close|>")
    tokenizer.save_pretrained(tmp_path)
    close = tokenizer.convert_tokens_to_ids("<|close|>")
    LlamaConfig(vocab_size=len(tokenizer), eos_token_id=END).save_pretrained(tmp_path)
    GenerationConfig(eos_token_id=[close]).save_pretrained(tmp_path)
    policy = ChatModel(str(tmp_path))
    assert {close, END} == policy.stops and policy.tokenizer.added_tokens_decoder[close].special == special

    sampled = [*tokenizer.encode("Ja, 5."), close]
    response = policy.response([*sampled, END, END], 40)  # as a batch pads it
    assert response["text"] == "Ja, 5." and response["finish_reason"] == "stop"
    prompt = {"prompt_id": "p", "prompt": chat("user", "2 + 3?")}
    row = {**prompt, "completion": chat("assistant", response["text"]), "token_digest": response["token_digest"]}
    kept = {**prompt, "completion": chat("assistant", response["text"] + "<|close|>")}
    examples, counts = encode_rows([row, kept], "sft", policy.tokenizer, policy.stops, 90)
    (example,) = examples
    trained = [token for token in example["labels"].tolist() if token != -100]
    assert trained == [*sampled, *tokenizer.encode("\n")] and trained.count(close) == 1
    assert (counts["compared"], counts["token_mismatches"], counts["dropped"]) == (1, 0, {"control_tokens": 1})


@settings(deadline=None)
@given(st.lists(st.tuples(texts, st.sampled_from(["right", "wrong", "unknown"])), min_size=1, max_size=6))
def test_sampled_tokens_are_compared_where_they_are_known(answers):
    rows = []
    for text, known in answers:
        row = {"prompt_id": "p", "prompt": chat("user", "hi"), "completion": chat("assistant", text)}
        sampled = TOKENIZER.encode(text, add_special_tokens=False)
        if known != "unknown":  # of an answer that ended by itself the stop token was sampled, too
            row["token_digest"] = digest_tokens([*sampled, END] if known == "right" else sampled)
        rows.append(row)
    _, counts = encode_rows(rows, "sft", TOKENIZER, [END], 100)
    states = [known for _, known in answers]
    assert counts["compared"] == len(states) - states.count("unknown")
    assert counts["token_mismatches"] == states.count("wrong")


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=40).filter(lambda ids: len(set(ids)) > 1),
    st.floats(0, 0.5),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_whole_prompts_are_held_out_whatever_the_order(ids, share, seed, random):
    prompt_ids = [f"p{i}" for i in ids]
    training, validation = hold_out(prompt_ids, share, seed)
    assert sorted(training + validation) == list(range(len(ids)))
    held = {prompt_ids[number] for number in validation}
    assert not held & {prompt_ids[number] for number in training}
    assert len(held) == (max(1, round(share * len(set(prompt_ids)))) if share else 0)
    random.shuffle(prompt_ids)
    assert {prompt_ids[number] for number in hold_out(prompt_ids, share, seed)[1]} == held


def test_another_seed_holds_out_other_prompts_and_never_all():
    prompt_ids = [f"p{i}" for i in range(50)]
    drawn = {frozenset(hold_out(prompt_ids, 0.2, seed)[1]) for seed in range(5)}
    assert len(drawn) == 5
    with pytest.raises(InputError, match="held out"):
        hold_out(prompt_ids[:1], 0.5, 0)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_rows_are_encoded_once_and_the_same_whatever_the_number_of_processes(
    miniature, tmp_path, monkeypatch, processes
):
    monkeypatch.setenv("CROCO_PARENT", str(os.getpid()))
    lines = [
        {
            "prompt_id": f"p{i}",
            "prompt": chat("user", f"What is {i}?"),
            "completion": chat("assistant", "yes " * (i % 4 + 1)),
            "reward": None,
        }
        for i in range(11)
    ]
    lines[5]["completion"][0]["content"] = "yes " * 200
    data = write_rows(tmp_path / "completions.jsonl", lines)
    job = Namespace(
        data=data, folder=tmp_path, objective="sft", model=miniature / "policy", revision=None, trust_remote_code=False,
        template_options={}, max_length=64, too_long="drop", max_tokens=16, loss_on="answer", batch=8, processes=processes,
    )  # fmt: skip
    save_examples(job)
    examples, counts = read_examples(job)
    policy = ChatModel(miniature / "policy")
    expected, expected_counts = encode_rows(lines, "sft", policy.tokenizer, policy.stops, 64)
    assert list(examples) == list(Dataset.from_list(expected)) and counts == expected_counts
    assert counts["dropped"] == {"too_long": 1} and examples.features == Dataset.from_list(expected).features
    data.unlink()
    save_examples(job)  # a training that is resumed finds them
    assert list(read_examples(job)[0]) == list(examples)
