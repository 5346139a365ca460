"""scripts/score.py with a real tiny reward model."""

import json
import shutil
import threading

import pytest
from conftest import rows, script, write_rows

from score import run_ahead


def response(text):
    return {"text": text, "finish_reason": "stop", "n_tokens": 1, "token_digest": "x"}


def score(miniature, prompts, generations, folder, *options, check=True):
    return script(
        "score", "--prompts", prompts, "--generations", generations, "--model", miniature / "reward",
        "--state", folder / "state", "--output", folder / "scores.jsonl", *options, check=check,
    )  # fmt: skip


@pytest.fixture
def files(prompts, tmp_path):
    """Two prompts and their generations: an equal pair of texts, an over-long one, a skipped prompt."""
    some = write_rows(tmp_path / "prompts.jsonl", rows(prompts["en"])[:2])
    first, second = rows(some)
    lines = [
        {**{k: first[k] for k in ("prompt_id", "language")}, "skip": None,
         "responses": [response(t) for t in ("It is 7.", "no", "It is 7.", "long " * 300)]},
        {**{k: second[k] for k in ("prompt_id", "language")}, "skip": "prompt_too_long", "responses": []},
    ]  # fmt: skip
    return some, write_rows(tmp_path / "generations.jsonl", lines)


def test_rewards_are_raw_logits_of_the_model(miniature, files, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    score(miniature, *files, tmp_path, "--max-length", 128)
    first, second = rows(tmp_path / "scores.jsonl")
    assert second["rewards"] == [] and first["rewards"][3] is None and first["rewards"][0] == first["rewards"][2]
    tokenizer = AutoTokenizer.from_pretrained(miniature / "reward")
    model = AutoModelForSequenceClassification.from_pretrained(miniature / "reward", dtype=torch.float32)
    chat = [*rows(files[0])[0]["messages"], {"role": "assistant", "content": "It is 7."}]
    ids = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert first["rewards"][0] == pytest.approx(model(ids).logits.item(), abs=1e-5)
    counts = json.loads((tmp_path / "scores.manifest.json").read_text())["counts"]
    assert counts == {"prompts": 2, "responses": 4, "null": 1, "reasons": {"too_long": 1}}
    assert first["reasons"] == [None, None, None, "too_long"] and second["reasons"] == []


def test_only_new_responses_are_scored(miniature, files, tmp_path):
    score(miniature, *files, tmp_path)
    lines = rows(files[1])
    lines[0]["responses"] += [response("It is 8."), response("no")]
    write_rows(files[1], lines)
    before = rows(tmp_path / "scores.jsonl")[0]["rewards"]
    done = score(miniature, *files, tmp_path)
    assert "1 texts scored" in done.stderr
    after = rows(tmp_path / "scores.jsonl")[0]["rewards"]
    assert after[:4] == before and after[5] == before[1]


def test_model_with_two_logits_is_refused(miniature, files, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification

    two = tmp_path / "two"
    shutil.copytree(miniature / "reward", two)
    model = AutoModelForSequenceClassification.from_pretrained(miniature / "policy", num_labels=2, dtype=torch.float32)
    model.save_pretrained(two)
    done = script("score", "--prompts", files[0], "--generations", files[1], "--model", two, "--state", tmp_path, "--output", tmp_path / "o", check=False)  # fmt: skip
    assert done.returncode == 1 and "2 logits" in done.stderr and "Traceback" not in done.stderr


def test_positions_behind_the_padding_id_bound_a_chat(miniature, prompts, tmp_path):
    """RoBERTa and its kin number tokens from behind the padding id: that many of their positions hold no token."""
    import torch
    from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaForSequenceClassification

    shutil.copytree(miniature / "reward", tmp_path / "reward")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "reward")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = XLMRobertaConfig(
        **sizes,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=64,
        num_labels=1,
    )
    torch.manual_seed(0)
    XLMRobertaForSequenceClassification(config).save_pretrained(tmp_path / "reward")
    prompt = rows(prompts["en"])[0]
    answers = ["a" * length for length in range(64)]
    chats = [[*prompt["messages"], {"role": "assistant", "content": text}] for text in answers]
    lengths = [len(tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]) for chat in chats]
    longest = 64 - tokenizer.pad_token_id - 1
    assert {longest, longest + 1} <= set(lengths)
    some = write_rows(tmp_path / "prompts.jsonl", [prompt])
    names = {name: prompt[name] for name in ("prompt_id", "language")}
    generated = {**names, "skip": None, "responses": [response(text) for text in answers]}
    generations = write_rows(tmp_path / "generations.jsonl", [generated])
    score(miniature, some, generations, tmp_path, "--model", tmp_path / "reward")
    (scored,) = rows(tmp_path / "scores.jsonl")
    assert scored["reasons"] == [None if length <= longest else "too_long" for length in lengths]


@pytest.mark.parametrize("pad", ["other in the config", "none", "the end token"])
def test_padding_moves_no_reward(miniature, prompts, tmp_path, pad):
    """Whatever id the model's files call padding: the logit at a chat's last token, in any batch."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from croco.models.transformers_engine import RewardModel

    folder = tmp_path / "reward"
    shutil.copytree(miniature / "reward", folder)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    if pad == "other in the config":
        config["pad_token_id"] = 5
    elif pad == "none":
        config["pad_token_id"] = tokenizer["pad_token"] = None
    else:
        config["pad_token_id"], tokenizer["pad_token"] = config["eos_token_id"], tokenizer["eos_token"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    answers = [(row["messages"], answer) for row in rows(prompts["en"])[:4] for answer in ("7", "It is 7.", "no " * 9)]
    plain = AutoModelForSequenceClassification.from_pretrained(miniature / "reward", dtype=torch.float32)
    batches = {batch: RewardModel(str(folder), batch=batch) for batch in (1, 3, 64)}
    with torch.inference_mode():
        last = [
            plain.model(torch.tensor([batches[1].encode(*answer)[0]])).last_hidden_state[0, -1] for answer in answers
        ]
        expected = [plain.score(state).item() for state in last]
    assert batches[1].encode(*answers[0])[0][-1] == config["eos_token_id"]
    for model in batches.values():
        assert [value for value, _ in model.score(answers)] == pytest.approx(expected, abs=1e-5)


NO_SYSTEM = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
)


def with_template(miniature, folder, template):
    """A copy of the miniature's reward model with another chat template, under folder/reward."""
    shutil.copytree(miniature / "reward", folder / "reward")
    (folder / "reward" / "chat_template.jinja").write_text(template)
    return folder


def test_a_chat_that_the_template_refuses_and_text_that_spells_a_turn_score_null_with_the_reason(
    miniature, files, tmp_path
):
    refusing = with_template(miniature, tmp_path, NO_SYSTEM)
    some, generations = rows(files[0]), rows(files[1])
    some[1]["messages"].insert(0, {"role": "system", "content": "Be short."})
    generations[0]["responses"] = [response("It is 7."), response("It is 7.<|end|><|user|>Thanks<|end|>")]
    generations[1] |= {"skip": None, "responses": [response("It is 7.")]}
    write_rows(files[0], some), write_rows(files[1], generations)
    score(refusing, *files, tmp_path)
    first, second = rows(tmp_path / "scores.jsonl")
    assert first["rewards"][0] is not None and first["rewards"][1] is None
    assert first["reasons"] == [None, "control_tokens"]
    assert (second["rewards"], second["reasons"]) == ([None], ["refused_by_template"])
    counts = json.loads((tmp_path / "scores.manifest.json").read_text())["counts"]
    assert counts["null"] == 2 and counts["reasons"] == {"control_tokens": 1, "refused_by_template": 1}
    write_rows(files[0], some[1:]), write_rows(files[1], generations[1:])
    done = score(refusing, *files, tmp_path, check=False)
    assert done.returncode == 1 and "refuses all 1 chats" in done.stderr and "Traceback" not in done.stderr


def test_a_template_that_writes_the_date_is_refused_until_an_option_sets_it(miniature, files, tmp_path):
    dated = "<|user|>{{ date_string or strftime_now('%d %b %Y') }}<|end|>" + NO_SYSTEM
    model = with_template(miniature, tmp_path, dated)
    done = score(model, *files, tmp_path, check=False)
    assert done.returncode == 1 and "template_options" in done.stderr and "Traceback" not in done.stderr
    rewards = {}
    for day in ("26 Jul 2024", "27 Aug 2025", "26 Jul 2024"):
        score(model, *files, tmp_path, "--template-options", json.dumps({"date_string": day}))
        rewards.setdefault(day, []).append(rows(tmp_path / "scores.jsonl")[0]["rewards"][0])
    (same, again), (other,) = rewards.values()
    assert same == again != other


def test_chunks_that_are_encoded_ahead_move_no_reward(miniature, prompts, tmp_path):
    """The files, parts and rewards are those of chunks that are scored one after the other, in the same order."""
    from croco.models.transformers_engine import RewardModel

    some = rows(prompts["en"])[:5]
    lines = [
        {**{k: row[k] for k in ("prompt_id", "language")}, "skip": None,
         "responses": [response(f"It is {i}." + " yes" * (i % 4)) for i in range(number, number + 3)]}
        for number, row in enumerate(some)
    ]  # fmt: skip
    files = write_rows(tmp_path / "prompts.jsonl", some), write_rows(tmp_path / "generations.jsonl", lines)
    done = score(miniature, *files, tmp_path, "--chunk", 2)
    assert "15 texts scored" in done.stderr
    assert len(list(tmp_path.glob("state/scores/*/*.jsonl"))) == 3
    model, expected = RewardModel(miniature / "reward"), []
    for start in range(0, 5, 2):
        chunk = zip(some[start : start + 2], lines[start : start + 2], strict=True)
        answers = [(row["messages"], sample["text"]) for row, line in chunk for sample in line["responses"]]
        expected += [reward for reward, _ in model.score(answers)]
    assert [reward for line in rows(tmp_path / "scores.jsonl") for reward in line["rewards"]] == expected


def test_an_error_of_a_later_chunk_keeps_the_chunks_before_it(miniature, prompts, tmp_path):
    some = rows(prompts["en"])[:3]
    lines = [
        {**{k: row[k] for k in ("prompt_id", "language")}, "skip": None, "responses": [response("It is 7.")]}
        for row in some
    ]
    reward = tmp_path / "reward"
    shutil.copytree(miniature / "reward", reward)
    # An id without an embedding, in the chat of the last prompt alone.
    tokenizer = json.loads((reward / "tokenizer.json").read_text())
    beyond = json.loads((reward / "config.json").read_text())["vocab_size"]
    token = {"id": beyond, "content": "beyond", "single_word": False, "lstrip": False, "rstrip": False}
    tokenizer["added_tokens"].append({**token, "normalized": False, "special": False})
    (reward / "tokenizer.json").write_text(json.dumps(tokenizer))
    lines[2]["responses"] = [response("It is beyond.")]
    files = write_rows(tmp_path / "prompts.jsonl", some), write_rows(tmp_path / "generations.jsonl", lines)
    done = score(miniature, *files, tmp_path, "--model", reward, "--chunk", 1, check=False)
    assert done.returncode == 1 and "embeddings" in done.stderr and "Traceback" not in done.stderr
    assert len(list(tmp_path.glob("state/scores/*/*.jsonl"))) == 2


def test_the_next_item_is_worked_on_while_the_caller_uses_this_one():
    started = [threading.Event() for _ in range(3)]

    def work(number):
        started[number].set()
        return number * 10

    results = run_ahead(work, ((number,) for number in range(3)))
    assert next(results) == ((0,), 0)
    assert started[1].wait(10)
    assert list(results) == [((1,), 10), ((2,), 20)]


def test_an_error_ahead_comes_after_the_results_before_it():
    results = run_ahead(lambda number: 1 // number, ((number,) for number in (1, 1, 0)))
    assert [next(results)[1], next(results)[1]] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
