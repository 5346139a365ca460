"""scripts/check_template.py on the templates that TRL ships, with small real tokenizers, and on TRL's own trainers."""

import json
import shutil
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
from conftest import script
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from croco.models.chats import Controls
from croco.models.roles import examine_as
from croco.models.template_check import (
    ANSWERS,
    CHATS,
    ORDINARY,
    compare,
    encode_prompt,
    examine,
    examine_untrained,
)
from croco.training.encode import trained_ids

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Special tokens and stop tokens as in the families' own tokenizers; `plain` are added tokens that are not special.
LLAMA3 = {
    "special": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "bos": "<|begin_of_text|>",
    "eos": "<|eot_id|>",
    "stops": ["<|end_of_text|>", "<|eot_id|>"],
}
QWEN3 = {
    "special": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "plain": ["<think>", "</think>"],
    "eos": "<|im_end|>",
    "stops": ["<|im_end|>", "<|endoftext|>"],
}
GEMMA = {
    "special": ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
    "bos": "<bos>",
    "eos": "<eos>",
    "stops": ["<eos>", "<end_of_turn>"],
}
COHERE2 = {
    "special": ["<PAD>", "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>",
                "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"],
    "bos": "<BOS_TOKEN>",
    "eos": "<|END_OF_TURN_TOKEN|>",
    "stops": ["<|END_OF_TURN_TOKEN|>"],
}  # fmt: skip
BAR = "\uff5c"
DEEPSEEK = {
    "special": [f"<{BAR}begin▁of▁sentence{BAR}>", f"<{BAR}end▁of▁sentence{BAR}>"],
    "plain": [f"<{BAR}User{BAR}>", f"<{BAR}Assistant{BAR}>", "<think>", "</think>"],
    "bos": f"<{BAR}begin▁of▁sentence{BAR}>",
    "eos": f"<{BAR}end▁of▁sentence{BAR}>",
    "stops": [f"<{BAR}end▁of▁sentence{BAR}>"],
}
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def shipped(name):
    """A template that TRL ships: the text that the family's models come with."""
    return (Path(find_spec("trl").origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def make_tokenizer(family, template, metaspace=False):
    """A BPE tokenizer with the family's tokens that adds its BOS by itself, as the real one does.

    Byte-level with the splitting pattern of Llama 3 and Qwen, or SentencePiece's way of writing spaces.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    if metaspace:
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        bpe.decoder = decoders.Metaspace(prepend_scheme="always")
    else:
        split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
        bpe.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
        bpe.decoder = decoders.ByteLevel()
    text = [message["content"] for chat in CHATS.values() for message in chat] + list(ANSWERS.values())
    text += ["user\n", "assistant\n\n", "system\n", "model\n"]
    alphabet = pre_tokenizers.ByteLevel.alphabet() if not metaspace else []
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=family["special"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(text * 3, trainer)
    bpe.add_tokens([AddedToken(token, normalized=False) for token in family.get("plain", [])])
    if bos := family.get("bos"):
        bpe.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, bpe.token_to_id(bos))])
    tokens = {f"{name}_token": family[name] for name in ("bos", "eos") if name in family}
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, additional_special_tokens=family["special"], chat_template=template, **tokens
    )


def stop_ids(tokenizer, family):
    return tokenizer.convert_tokens_to_ids(family["stops"])


def examined(family, template, options=None):
    tokenizer = make_tokenizer(family, template)
    return examine(tokenizer, stop_ids(tokenizer, family), options)


def names(report):
    return {finding["name"] for finding in report["findings"]}


def saved(folder, family, template):
    """A model folder with what the check loads."""
    tokenizer = make_tokenizer(family, template)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stop_ids(tokenizer, family)}))
    return folder


OFF = {"enable_thinking": False}
FAMILIES = {
    "llama3": (LLAMA3, "llama3", {}, {"double_bos_as_text", "strips_whitespace"}),
    "llama3_2": (LLAMA3, "llama3_2", {}, {"double_bos_as_text", "strips_whitespace", "date_in_template"}),
    "llama3_2_dated": (
        LLAMA3,
        "llama3_2",
        {"date_string": "26 Jul 2024"},
        {"double_bos_as_text", "strips_whitespace"},
    ),
    "qwen3": (QWEN3, "qwen3", {}, {"think_block", "trailing_tokens", "strips_whitespace"}),
    "qwen3_off": (QWEN3, "qwen3", OFF, {"answer_changes_prompt", "trailing_tokens", "strips_whitespace"}),
    "gemma3": (GEMMA, "gemma3", {}, {"double_bos_as_text", "trailing_tokens", "strips_whitespace"}),
    "gemma": (GEMMA, "gemma", {}, {"double_bos_as_text", "trailing_tokens", "strips_whitespace", "no_system_role"}),
    "cohere2": (COHERE2, "cohere2", {}, {"double_bos_as_text"}),
    "deepseek": (DEEPSEEK, "deepseek_r1_distill", {}, {"double_bos_as_text", "prompt_ids_differ", "think_block"}),
}


@pytest.fixture(scope="module")
def reports():
    return {
        name: examined(family, shipped(template), options) for name, (family, template, options, _) in FAMILIES.items()
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_findings_of_the_shipped_templates(reports, name):
    assert names(reports[name]) == FAMILIES[name][3]


def test_measures_of_the_shipped_templates(reports):
    kept = {name: [key for key, value in report["white_space"].items() if value] for name, report in reports.items()}
    assert kept["llama3"] == kept["gemma3"] == []
    assert kept["qwen3"] == ["leading_spaces", "trailing_spaces", "trailing_newlines"]
    assert len(kept["cohere2"]) == 4
    systems = {name: report["system"] for name, report in reports.items()}
    assert systems["llama3"] == systems["qwen3"] == systems["cohere2"] == "separate"
    assert (systems["gemma3"], systems["gemma"]) == ("merged", "refused")
    assert reports["cohere2"]["preamble_tokens"] > 400 > 10 > reports["llama3"]["preamble_tokens"]
    assert reports["llama3"]["bos"] == {"token": "<|begin_of_text|>", "sampled": 1, "trained": 1, "as_text": 2}
    assert [reports[name]["stop"]["trailing_text"] for name in ("llama3", "qwen3", "gemma3")] == ["", "\n", "\n"]
    assert reports["qwen3"]["think"] == {"added": True, "kept": True}
    assert reports["deepseek"]["think"] == {"added": False, "kept": False}


def test_probes_show_where_the_ids_part(reports):
    def probe(name, answer):
        (found,) = [p for p in reports[name]["probes"] if (p["chat"], p["answer"]) == ("single", answer)]
        return found

    assert all(probe("llama3", answer)["agree"] for answer in ORDINARY)
    assert all(p["agree"] for p in reports["cohere2"]["probes"]) and len(reports["cohere2"]["probes"]) == 27
    assert {p["chat"] for p in reports["gemma"]["probes"]} == {"single", "turns"}
    spaces = probe("llama3", "trailing_spaces")
    assert spaces["sampled"].endswith("most.  <|eot_id|>") and spaces["trained"].endswith("most.<|eot_id|>")
    think = probe("qwen3", "plain")
    assert "<think>" in think["trained"] and "<think>" not in think["sampled"]
    newline = probe("gemma3", "plain")
    assert newline["first_difference"] == newline["sampled_tokens"] == newline["trained_tokens"] - 1


def test_spaces_written_by_sentencepiece_raise_no_false_alarm():
    family = {"special": ["<s>", "</s>", "<|im_start|>", "<|im_end|>"], "bos": "<s>", "eos": "</s>"}
    tokenizer = make_tokenizer(family, "{{ bos_token }}" + CHATML, metaspace=True)
    assert tokenizer.tokenize(ORDINARY["plain"])[0].startswith("▁"), "by itself an answer has a space in front"
    report = examine(tokenizer, tokenizer.convert_tokens_to_ids(["<|im_end|>"]))
    # This tokenizer joins newlines: "assistant\n" and an answer that starts with one share a token.
    assert names(report) == {"double_bos_as_text", "trailing_tokens", "answer_changes_prompt"}
    for probe in report["probes"]:
        if probe["answer"] in ORDINARY:
            assert probe["first_difference"] == probe["sampled_tokens"]


FAULTS = {
    "no_chat_template": (LLAMA3, None),
    "no_stop_token": ({**QWEN3, "stops": ["<|endoftext|>"]}, CHATML),
    "changes_answer": (QWEN3, CHATML.replace("message.content", "message.content | upper")),
    "template_fails": (QWEN3, "{{ raise_exception('Only documents') }}"),
    "double_bos": (LLAMA3, "{{ bos_token }}{{ bos_token }}" + shipped("llama3").replace("bos_token + ", "")),
    "adds_text": (QWEN3, CHATML.replace("<|im_end|>", " // <|im_end|>")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(name):
    report = examined(*FAULTS[name])
    severities = {finding["name"]: finding["severity"] for finding in report["findings"]}
    assert severities[name] == ("warning" if name == "adds_text" else "error")
    assert report["errors"] == list(severities.values()).count("error")


CHANNELS = (
    "{% for message in messages %}<|start|>{{ message.role }}{% if message.role == 'assistant' %}<|channel|>final{% endif %}"
    "<|message|>{{ message.content }}{{ '<|return|>' if message.role == 'assistant' and loop.last else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{{ '<|channel|>final<|message|>' if direct }}{% endif %}"
)
GPT_OSS = {
    "special": ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|endoftext|>"],
    "eos": "<|return|>",
    "stops": ["<|return|>"],
}


@pytest.mark.parametrize("role", ["policy", "judge", "reward"])
def test_special_tokens_that_a_model_must_sample_before_its_answer_are_an_error(role):
    """Left out of its text, they would leave its reasoning there. A reward model samples nothing."""
    tokenizer = make_tokenizer(GPT_OSS, CHANNELS)

    def check(options=None):
        return examine_as(role, tokenizer, stop_ids(tokenizer, GPT_OSS), options)

    report = check()
    errors = [finding for finding in report["findings"] if finding["severity"] == "error"]
    assert [finding["name"] for finding in errors] == ([] if role == "reward" else ["unprompted_tokens"])
    if errors:
        assert report["added_text"]["before"] == "<|channel|>final<|message|>"
        assert report["added_text"]["marks"] == ["<|channel|>", "<|message|>"]
        assert "<|channel|>, <|message|>" in errors[0]["what"] and "template_options" in errors[0]["remedy"]
    assert "adds_text" not in names(report)
    assert check({"direct": True})["errors"] == 0


def test_special_tokens_alone_before_an_answer_are_not_in_its_text():
    """As Command's <|START_RESPONSE|>, which the model samples and decoding leaves out."""
    facts = {"special": ["<|start|>", "<|answer|>", "<|end|>"], "eos": "<|end|>", "stops": ["<|end|>"]}
    template = (
        "{% for message in messages %}<|start|>{{ message.role }}\n{{ '<|answer|>' if message.role == 'assistant' }}"
        "{{ message.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    tokenizer = make_tokenizer(facts, template)
    report = examine_as("policy", tokenizer, stop_ids(tokenizer, facts), None)
    assert report["errors"] == 0 and report["added_text"]["marks"] == []


def test_what_a_policy_samples_is_no_control_token_in_answers_but_turns_are():
    qwen = Controls(make_tokenizer(QWEN3, shipped("qwen3")), OFF)
    assert not qwen.in_text(ANSWERS["think"], answer=True) and qwen.in_text(ANSWERS["think"])
    deepseek = Controls(make_tokenizer(DEEPSEEK, shipped("deepseek_r1_distill")))
    assert not deepseek.in_text(ANSWERS["think"], answer=True)
    for controls, turn in ((qwen, "<|im_start|>"), (deepseek, DEEPSEEK["plain"][0])):
        assert controls.in_text(f"a{turn}b", answer=True) and controls.in_text(f"a{turn}b")
        assert not controls.in_text(ANSWERS["code"]) and not controls.in_text(ANSWERS["empty_lines"])
    assert qwen.in_chat([CHATS["single"][0], {"role": "user", "content": "</think>"}])


def test_a_date_is_an_error_for_every_role_until_an_option_sets_it():
    tokenizer = make_tokenizer(LLAMA3, shipped("llama3_2"))
    dated = {"date_string": "26 Jul 2024"}
    for report in (
        examine(tokenizer, stop_ids(tokenizer, LLAMA3)), examine_untrained(tokenizer, answers=True), examine_untrained(tokenizer),
    ):  # fmt: skip
        assert [f["name"] for f in report["findings"] if f["severity"] == "error"] == ["date_in_template"]
        assert report["errors"] == 1
    assert examine(tokenizer, stop_ids(tokenizer, LLAMA3), dated)["errors"] == 0
    assert examine_untrained(tokenizer, dated, answers=True)["errors"] == 0


@pytest.mark.parametrize(
    ("name", "template"),
    [("template_fails", FAULTS["template_fails"][1]), ("changes_answer", FAULTS["changes_answer"][1]),
     ("changes_answer", "{{ messages[0].content }}"), ("no_chat_template", None)],
)  # fmt: skip
def test_faults_of_a_reward_model_are_named(name, template):
    report = examine_untrained(make_tokenizer(QWEN3, template), answers=True)
    assert [f["name"] for f in report["findings"] if f["severity"] == "error"] == [name]


PIECES = st.text("ab .\n\t\u00a0Ωж你🙂`", max_size=30)


@settings(deadline=None, max_examples=60)
@given(PIECES, st.sampled_from(sorted(CHATS)))
def test_a_trimming_template_agrees_exactly_on_trimmed_answers(text, chat):
    tokenizer = trimming()
    stop = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    probe = compare(tokenizer, CHATS[chat], text, [stop])
    assert probe["agree"] == probe["text_kept"] == (text == text.strip())
    assert probe["prompt_agrees"] and (probe["first_difference"] is None) == probe["agree"]


@cache
def trimming():
    return make_tokenizer(LLAMA3, shipped("llama3"))


def test_command_line_writes_a_report_and_warns(tmp_path):
    model = saved(tmp_path / "model", QWEN3, shipped("qwen3"))
    options = '{"enable_thinking": false}'
    done = script("check_template", "--model", model, "--template-options", options, "--output", tmp_path / "t.json")
    report = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert report == examined(QWEN3, shipped("qwen3"), OFF)
    assert (report["errors"], report["warnings"]) == (0, 3)
    assert all(f"warning: {name}: " in done.stderr for name in names(report))
    manifest = json.loads((tmp_path / "t.manifest.json").read_text())
    assert manifest["inputs"]["chat_template"] == report["template_digest"]
    assert manifest["counts"] == {"errors": 0, "warnings": 3}


def test_command_line_stops_at_a_second_bos(tmp_path):
    model = saved(tmp_path / "model", *FAULTS["double_bos"])
    done = script("check_template", "--model", model, "--output", tmp_path / "t.json", check=False)
    assert done.returncode == 1 and "double_bos: " in done.stderr and "Traceback" not in done.stderr
    report = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert report["bos"]["sampled"] == report["bos"]["trained"] == 2 and report["errors"] == 1


@pytest.mark.parametrize("options", ["[1]", "{", "no"])
def test_options_that_are_no_object_are_refused(tmp_path, options):
    done = script("check_template", "--model", tmp_path, "--template-options", options, "--output", tmp_path / "t.json", check=False)  # fmt: skip
    assert done.returncode == 1 and "template_options" in done.stderr and "Remedy" in done.stderr
    assert not (tmp_path / "t.json").exists()


def tiny_model(tokenizer, stops):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, eos_token_id=stops,
    )  # fmt: skip
    return LlamaForCausalLM(config)


TRAINING = {"learning_rate": 1e-3, "max_steps": 1, "max_length": None, "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}  # fmt: skip
TRAINED = {"llama3": (LLAMA3, "llama3", {}), "qwen3": (QWEN3, "qwen3", OFF)}


def rows_of(chats, options, **columns):
    extra = {"chat_template_kwargs": options} if options else {}
    chat = {name: [{"role": "assistant", "content": text}] for name, text in columns.items()}
    return [{"prompt": prompt, **chat, **extra} for prompt in chats]


@pytest.mark.parametrize("name", TRAINED)
def test_dpo_trains_on_the_ids_that_are_reported(name, tmp_path):
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    family, template, options = TRAINED[name]
    tokenizer = make_tokenizer(family, shipped(template))
    stops = stop_ids(tokenizer, family)
    chosen, rejected = ANSWERS["code"], ANSWERS["leading_newlines"]
    rows = rows_of(CHATS.values(), options, chosen=chosen, rejected=rejected)
    trainer = DPOTrainer(
        model=tiny_model(tokenizer, stops), args=DPOConfig(output_dir=str(tmp_path), **TRAINING),
        train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        peft_config=LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )  # fmt: skip
    for prepared, row in zip(trainer.train_dataset, rows, strict=True):
        for answer in ("chosen", "rejected"):
            ids = trained_ids(tokenizer, row["prompt"], row[answer], options)
            assert (prepared["prompt_ids"], prepared[f"{answer}_ids"]) == ids
        assert prepared["prompt_ids"] == encode_prompt(tokenizer, row["prompt"], options)
        assert stops[0] in prepared["chosen_ids"] or stops[1] in prepared["chosen_ids"]
    batch = next(iter(trainer.get_train_dataloader()))
    fed = {
        tuple(ids[mask.bool()].tolist()) for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    }
    assert fed == {
        tuple(chain(*trained_ids(tokenizer, row["prompt"], row[answer], options)))
        for row in rows
        for answer in ("chosen", "rejected")
    }
    result = trainer.train()
    assert result.global_step == 1 and torch.isfinite(torch.tensor(result.training_loss))


@pytest.mark.parametrize("name", TRAINED)
def test_sft_trains_on_the_ids_that_are_reported(name, tmp_path):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    family, template, options = TRAINED[name]
    tokenizer = make_tokenizer(family, shipped(template))
    rows = rows_of(CHATS.values(), options, completion=ANSWERS["trailing_spaces"])
    trainer = SFTTrainer(
        model=tiny_model(tokenizer, stop_ids(tokenizer, family)), args=SFTConfig(output_dir=str(tmp_path), **TRAINING),
        train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
    )  # fmt: skip
    for prepared, row in zip(trainer.train_dataset, rows, strict=True):
        prompt_ids, completion_ids = trained_ids(tokenizer, row["prompt"], row["completion"], options)
        assert prepared["input_ids"] == prompt_ids + completion_ids
        assert prepared["labels"] == [-100] * len(prompt_ids) + completion_ids


def test_with_weights_a_model_that_does_not_fit_its_role_is_refused(miniature, tmp_path):
    """Seconds, on the meta device: before the first response is sampled."""
    options = ("--weights", "--output", tmp_path / "t.json")
    script("check_template", "--model", miniature / "policy", *options)
    script("check_template", "--model", miniature / "reward", "--role", "reward", *options)
    done = script("check_template", "--model", miniature / "policy", "--role", "reward", *options, check=False)
    assert done.returncode == 1 and "the model has 2 logits, a reward model has one" in done.stderr
    broken = shutil.copytree(miniature / "policy", tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    done = script("check_template", "--model", broken, *options, check=False)
    assert done.returncode == 1 and "model.norm.weight" in done.stderr and "Remedy: " in done.stderr


def test_an_engine_that_is_not_installed(miniature, tmp_path):
    if find_spec("vllm"):
        pytest.skip("vLLM is installed here")
    options = ("--model", miniature / "policy", "--output", tmp_path / "template.json")
    done = script("check_template", *options, "--engine", "vllm", check=False)
    assert done.returncode == 1 and "the engine vllm is not installed here" in done.stderr
    assert "make env EXTRA=vllm" in done.stderr and not (tmp_path / "template.json").exists()
    script("check_template", *options, "--engine", "transformers")
    assert json.loads((tmp_path / "template.json").read_text())["errors"] == 0


def test_the_checks_of_all_models_are_joined(tmp_path):
    reports = [tmp_path / "policy.json", tmp_path / "judge.json"]
    for path, counts in zip(reports, ({"errors": 0, "warnings": 2}, {"errors": 1, "warnings": 1}), strict=True):
        path.write_text(json.dumps({**counts, "findings": []}))
    script("check_models", "--reports", *reports, "--output", tmp_path / "models.json")
    joined = json.loads((tmp_path / "models.json").read_text())
    assert (joined["errors"], joined["warnings"]) == (1, 3)
    assert joined["checked"][str(reports[0])] == {"errors": 0, "warnings": 2}
    manifest = json.loads((tmp_path / "models.manifest.json").read_text())
    assert manifest["counts"] == {"errors": 1, "warnings": 3} and set(manifest["inputs"]) == {*map(str, reports)}
