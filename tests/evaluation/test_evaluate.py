"""scripts/evaluate.py, judge.py and summary.py by their command lines."""

import bisect
import csv
import json
import math
import shutil

import pytest
import yaml
from conftest import GENERATION_SETTINGS, ROOT, rows, script, with_settings, write_rows, write_runs

from croco.errors import InputError
from croco.evaluation import directions
from croco.results.coverage import find_wrong_means
from evaluate import count_answers


def evaluate(miniature, prompts, folder, languages, *options, check=True):
    return script(
        "evaluate", "--model", miniature / "policy", "--languages", *languages, "--prompts", *(prompts[code] for code in languages),
        "--samples", 2, "--temperature", "0.7", "--max-tokens", 8, "--batch", 16,
        "--task", "heldout", ROOT / "config" / "tasks" / "question_answer.yaml", str(miniature / "tasks" / "heldout" / "{language}.jsonl"),
        "--state", folder / "state", "--output", folder / "run", *options, check=check,
    )  # fmt: skip


def test_only_new_languages_are_evaluated(miniature, prompts, tmp_path):
    evaluate(miniature, prompts, tmp_path, ["en"])
    before = {
        path: path.read_bytes()
        for path in (tmp_path / "run").rglob("*")
        if path.is_file() and "manifest" not in path.name
    }
    done = evaluate(miniature, prompts, tmp_path, ["en", "de"])
    assert "to evaluate: de" in done.stderr and len(before) == 3
    assert "Custom kwargs" not in done.stderr and "`pretrained`" not in done.stderr and "initialized" not in done.stderr
    assert {path: path.read_bytes() for path in before} == before
    answers = rows(tmp_path / "run" / "answers" / "de.jsonl")
    assert [line["prompt_id"] for line in answers] == [row["prompt_id"] for row in rows(prompts["de"])]
    assert all(len(line["responses"]) == 2 for line in answers)
    samples = rows(tmp_path / "run" / "eval" / "de.samples.jsonl")
    assert [s["prompt_id"] for s in samples] == [r["id"] for r in rows(miniature / "tasks" / "heldout" / "de.jsonl")]


def test_no_result_replaces_an_input(miniature, prompts, tmp_path):
    answers = tmp_path / "run" / "answers" / "en.jsonl"
    answers.parent.mkdir(parents=True)
    answers.write_bytes(prompts["en"].read_bytes())
    done = evaluate(miniature, {"en": answers}, tmp_path, ["en"], check=False)
    assert done.returncode == 1 and f"{answers} would be replaced" in done.stderr, done.stderr


def test_prompts_of_another_language_are_refused_before_a_model_is_loaded(miniature, prompts, tmp_path):
    swapped = {"en": prompts["de"], "de": prompts["en"]}
    done = evaluate(miniature, swapped, tmp_path, ["en", "de"], check=False)
    assert done.returncode == 1 and f"{prompts['de']}:1, field language: de, where" in done.stderr, done.stderr
    assert not list((tmp_path / "state").rglob("final"))


def test_broken_task_data_and_no_room_for_answers(miniature, prompts, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"id": 1, "question": "x", "answer": "y"}\n{"id": 2,\n')
    task = ("--task", "bad", ROOT / "config" / "tasks" / "question_answer.yaml", tmp_path / "bad.jsonl")
    done = evaluate(miniature, prompts, tmp_path, ["en"], *task, check=False)
    assert done.returncode == 1 and "bad.jsonl:2" in done.stderr and "Traceback" not in done.stderr
    whole = miniature / "tasks/heldout/en.jsonl"
    task = ("--task", "bad", tmp_path / "missing.yaml", whole)
    done = evaluate(miniature, prompts, tmp_path, ["en"], *task, check=False)
    assert done.returncode == 1 and "missing.yaml: No such file" in done.stderr and "Remedy: " in done.stderr
    assert "Traceback" not in done.stderr
    long = rows(prompts["en"])
    for row in long:
        row["messages"][0]["content"] = "one two three " * 400
    long = {"en": write_rows(tmp_path / "long.jsonl", long)}
    done = evaluate(miniature, long, tmp_path, ["en"], check=False)
    assert done.returncode == 1 and "prompt_too_long" in done.stderr and "Traceback" not in done.stderr


def test_answers_are_cut_where_the_context_ends_and_counted(miniature, prompts, tmp_path):
    """A prompt that leaves less room than --max-tokens is answered all the same, as far as the context reaches."""
    context = json.loads((miniature / "policy" / "config.json").read_text())["max_position_embeddings"]
    evaluate(miniature, prompts, tmp_path, ["en"], "--max-tokens", context, "--samples", 1)
    answers = rows(tmp_path / "run" / "answers" / "en.jsonl")
    responses = [response for line in answers for response in line["responses"]]
    cut = [response for response in responses if response["finish_reason"] == "length"]
    assert len(responses) == len(answers) and all(0 < response["n_tokens"] < context for response in responses)
    counts = json.loads((tmp_path / "run" / "eval" / "en.manifest.json").read_text())["counts"]
    assert counts == {
        "prompts": len(answers), "answers": len(answers), "truncated": len(cut), "cut_by_context": len(cut), "skipped": {}
    }  # fmt: skip
    lines = [
        {"skip": None, "responses": [{"finish_reason": "length", "n_tokens": n} for n in (8, 5)]},
        {"skip": "x", "responses": []},
    ]
    assert count_answers(write_rows(tmp_path / "some.jsonl", lines), 8) == {
        "prompts": 2, "answers": 2, "truncated": 2, "cut_by_context": 1, "skipped": {"x": 1}
    }  # fmt: skip


CHOICE = {
    "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{question}}",
    "doc_to_choice": ["5", "It is 5."], "doc_to_target": 0,
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip


WRITTEN = yaml.safe_load((ROOT / "config/tasks/question_answer.yaml").read_text(encoding="utf-8"))


def load(name, config, data, folder):
    """{name: lm-eval's task} over a file of questions and answers."""
    from lm_eval.tasks import TaskManager

    source = {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")}
    return TaskManager(include_defaults=False).load({**config, "task": name, "dataset_kwargs": source})["tasks"]


def test_settings_that_come_with_a_model_decide_no_written_answer(miniature, tmp_path):
    """lm-eval's answers of the same policy with each setting in its generation_config.json."""
    from argparse import Namespace

    from croco.evaluation import harness
    from croco.models.transformers_engine import Policy

    data = write_rows(tmp_path / "data.jsonl", rows(miniature / "tasks" / "heldout" / "en.jsonl")[:4])

    def answers(path):
        model = harness.wrap(Policy(str(path)), Namespace(engine="transformers", batch=2, template_options={}))
        samples = harness.run(model, load("written", WRITTEN, data, tmp_path))["samples"]["written"]
        return [sample["resps"] for sample in samples]

    expected = answers(miniature / "policy")
    assert len(expected) == 4
    for number, settings in enumerate(GENERATION_SETTINGS):
        assert answers(with_settings(miniature / "policy", tmp_path / str(number), settings)) == expected, settings


@pytest.mark.parametrize("written", [True, False])
def test_tasks_see_the_ids_that_the_policy_was_sampled_from(miniature, tmp_path, written):
    """A tokenizer that adds a BOS, and a template that writes it or not: the template alone decides."""
    from argparse import Namespace

    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    from croco.evaluation import harness
    from croco.models.transformers_engine import Policy

    shutil.copytree(miniature / "policy", tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    bos, first = tokenizer.convert_ids_to_tokens(5), 5
    tokenizer.bos_token = bos
    tokenizer.chat_template = ("{{ bos_token }}" if written else "") + tokenizer.chat_template
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, first)])
    tokenizer.save_pretrained(tmp_path / "policy")
    policy = Policy(str(tmp_path / "policy"))
    assert policy.tokenizer("x")["input_ids"][0] == first
    questions = rows(miniature / "tasks" / "heldout" / "en.jsonl")[:3]
    data = write_rows(tmp_path / "data.jsonl", questions)
    seen = []

    def record(module, arguments, inputs):
        ids = (arguments or [inputs["input_ids"]])[0]
        seen.extend(ids.tolist() if ids.shape[1] > 1 else [])  # not the steps of an answer

    policy.model.register_forward_pre_hook(record, with_kwargs=True)
    model = harness.wrap(policy, Namespace(engine="transformers", batch=1, template_options={}))
    for name, config in (("choice", CHOICE), ("written", WRITTEN)):
        seen.clear()
        harness.run(model, load(name, config, data, tmp_path))
        chats = [policy.encode([{"role": "user", "content": row["question"]}]) for row in questions]
        assert all(chat.count(first) == written for chat in chats)
        for chat in chats:
            assert any(ids[: len(chat)] == chat for ids in seen), name
        assert seen and all(ids.count(first) == written for ids in seen)


# As Qwen3's template, which thinks unless it is told not to, and refuses system messages.
THINKS = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}[{{ m.role }}] {{ m.content }}\n"
    "{% endfor %}{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
    "{% if add_generation_prompt %}[assistant] {{ '<none>' if enable_thinking is false else '<some>' if enable_thinking }}{% endif %}"
)


@pytest.mark.parametrize("options, end", [({}, "<some>"), ({"enable_thinking": False}, "<none>")])
@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_tasks_render_chats_with_the_options_of_the_policy(miniature, tmp_path, monkeypatch, engine, options, end):
    """lm-eval's class for vLLM, which is not installed, is a stand-in that renders with its own enable_thinking."""
    import sys
    from argparse import Namespace
    from types import ModuleType

    from croco.evaluation import harness
    from croco.models.transformers_engine import Policy

    class VLLM:
        max_length, enable_thinking = 64, None

        def __init__(self, pretrained, chat_template_args=None, **options):
            self.chat_template_args = {
                name: value for name, value in (chat_template_args or {}).items() if name != "enable_thinking"
            }

        def apply_chat_template(self, chat, add_generation_prompt=True):
            variables = {"enable_thinking": self.enable_thinking, **self.chat_template_args}
            return policy.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=add_generation_prompt, **variables
            )

        modify_gen_kwargs = _loglikelihood_tokens = generate_until = lambda self, *args: None

    stand_in = ModuleType("lm_eval.models.vllm_causallms")
    stand_in.LLM, stand_in.VLLM = None, VLLM
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.setattr("lm_eval.models.vllm_causallms", stand_in, raising=False)
    policy = Policy(str(miniature / "policy"), template_options=options)
    policy.tokenizer.chat_template = THINKS
    policy.llm = policy.lora = None
    row = {"model": str(miniature / "policy"), "revision": None, "trust_remote_code": False, "batch": 1}
    model = harness.wrap(policy, Namespace(engine=engine, template_options=options, **row))
    user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
    for chat in ([user], [{"role": "system", "content": "Be kind."}, user]):
        assert model.apply_chat_template(chat) == f"[user] Hi\n[assistant] {end}"
    assert policy.tokenizer.encode(model.apply_chat_template([user]), add_special_tokens=False) == policy.encode([user])
    assert model.apply_chat_template([user, answer], add_generation_prompt=False) == "[user] Hi\n[assistant] Hello"


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_tasks_with_thinking_are_refused_with_both_engines(engine):
    from argparse import Namespace

    from croco.evaluation import harness

    for options in ({}, {"enable_thinking": False}, {"other": True}):
        harness.check_options(Namespace(engine=engine, template_options=options))
    with pytest.raises(InputError, match="enable_thinking"):
        harness.check_options(Namespace(engine=engine, template_options={"enable_thinking": True}))


def test_documents_that_spell_control_tokens_are_counted_and_left_out(miniature, prompts, tmp_path):
    """In questions, choices and fields of fields; the means and samples are those of the others alone."""
    from transformers import AutoTokenizer

    control = AutoTokenizer.from_pretrained(miniature / "policy").eos_token
    plain = [{"id": f"d{i}", "question": f"What is {i} plus 2?", "answer": str(i + 2), "choices": ["5", "It is 5."]} for i in range(4)]  # fmt: skip
    forged = [
        {**plain[0], "id": "question", "question": f"What is 1 plus 2?{control}"},
        {**plain[0], "id": "choice", "choices": ["5", f"It{control} is 5."]},
    ]
    (tmp_path / "choice.yaml").write_text(yaml.safe_dump({**CHOICE, "doc_to_choice": "{{choices}}"}))
    found = {}
    for name, lines in (("plain", plain), ("all", [*plain[:2], *forged, *plain[2:]])):
        data = write_rows(tmp_path / f"{name}.jsonl", lines)
        options = []
        for task, path in (
            ("written", ROOT / "config/tasks/question_answer.yaml"),
            ("choice", tmp_path / "choice.yaml"),
        ):
            options += ["--task", task, path, data]
        done = evaluate(miniature, prompts, tmp_path, ["en"], *options)
        results = json.loads((tmp_path / "run" / "eval" / "en.json").read_text())
        samples = rows(tmp_path / "run" / "eval" / "en.samples.jsonl")
        found[name] = results, [line for line in samples if line["task"] in ("written", "choice")], done.stderr
    (expected, others, _), (results, samples, said) = found["plain"], found["all"]
    for task in ("written", "choice"):
        assert results[task] == {**expected[task], "control_tokens": 2} and "control_tokens" not in expected[task]
        assert expected[task]["n"] == 4 and f"{task}: 2 documents spell control tokens" in said
    assert [line["prompt_id"] for line in samples] == [line["prompt_id"] for line in others] and len(others) == 8
    for ours, theirs in zip(samples, others, strict=True):
        assert ours["response"] == (theirs["response"] if ours["task"] == "written" else pytest.approx(theirs["response"], abs=1e-4))  # fmt: skip


def test_requests_longer_than_the_context_are_counted(miniature, prompts, tmp_path):
    """A written answer is one request, a choice of two is two; what fits is not counted, to the last token."""
    from transformers import AutoTokenizer

    policy = miniature / "policy"
    context = json.loads((policy / "config.json").read_text())["max_position_embeddings"]
    tokenizer = AutoTokenizer.from_pretrained(policy)

    def count_tokens(times):
        chat = [{"role": "user", "content": " 1" * times}]
        return len(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])

    def ask(id, most):
        """The longest question whose chat has ``most`` tokens at most."""
        times = bisect.bisect_right(range(2 * context), most, key=count_tokens) - 1
        assert count_tokens(times) == most
        return {"id": id, "question": " 1" * times, "answer": "1"}

    room = context - WRITTEN["generation_kwargs"]["max_gen_toks"]
    written = write_rows(tmp_path / "written.jsonl", [ask("fits", room), ask("cut", room + 1), ask("cut more", 2 * context)])  # fmt: skip
    choice = write_rows(tmp_path / "choice.jsonl", [ask("fits", room), ask("cut", 2 * context)])
    (tmp_path / "choice.yaml").write_text(yaml.safe_dump(CHOICE))
    options = ("--task", "written", ROOT / "config/tasks/question_answer.yaml", written, "--task", "choice", tmp_path / "choice.yaml", choice)  # fmt: skip
    done = evaluate(miniature, prompts, tmp_path, ["en"], *options)
    results = json.loads((tmp_path / "run" / "eval" / "en.json").read_text())
    assert {name: (found["n"], found.get("cut_requests")) for name, found in results.items() if name != "heldout"} == {"written": (3, 2), "choice": (2, 2)}  # fmt: skip
    assert "cut_requests" not in results["heldout"] and done.stderr.count("requests exceed the model's context") == 2
    assert "warning: written: 2 requests exceed" in done.stderr
    assert find_wrong_means(results, rows(tmp_path / "run" / "eval" / "en.samples.jsonl")) == []


@pytest.mark.parametrize(("stated", "values"), [(0.99, [0, "x"]), (0.99, [0, None]), ("0.99", [0, 0]), (None, [0, 1])])
def test_a_mean_that_cannot_be_compared_is_wrong(stated, values):
    samples = [{"task": "t", "acc": value} for value in values]
    assert find_wrong_means({"t": {"n": 2, "acc": stated}}, samples) == ["t acc"]


def test_answers_that_would_fill_the_context_are_refused_before_the_model_is_loaded(miniature, prompts, tmp_path):
    from argparse import Namespace

    from croco.evaluation import harness

    context = json.loads((miniature / "policy" / "config.json").read_text())["max_position_embeddings"]
    (tmp_path / "long.yaml").write_text(yaml.safe_dump({**WRITTEN, "generation_kwargs": {"until": ["\n"], "max_new_tokens": context}}))  # fmt: skip
    task = ("--task", "long", tmp_path / "long.yaml", miniature / "tasks/heldout/en.jsonl")
    done = evaluate(miniature, prompts, tmp_path, ["en"], *task, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"context of {context}, or more: long ({context})" in done.stderr and "heldout" not in done.stderr
    assert not list(tmp_path.rglob("answers.jsonl"))

    def check(length, **options):
        made = Namespace(OUTPUT_TYPE="generate_until", config=Namespace(generation_kwargs={"max_gen_toks": length}))
        model = {"model": str(miniature / "policy"), "revision": None, "trust_remote_code": False}
        harness.check_lengths(Namespace(engine="vllm", engine_options=options, **model), [{"some": made}])

    check(context - 1)
    check(context, max_model_len=context + 1)
    check(context, max_model_len="auto")  # vLLM decides
    for length, options in ((context, {}), (99, {"max_model_len": 99})):
        with pytest.raises(InputError, match=rf"some \({length}\)"):
            check(length, **options)


def test_finished_answers_survive_tasks_that_fail(miniature, prompts, tmp_path):
    flag = tmp_path / "fail"
    flag.touch()
    (tmp_path / "code.py").write_text(f"""def score(document, results):
    from pathlib import Path
    assert not Path({str(flag)!r}).exists(), "the task fails"
    return {{"exact_match": 1}}
""")
    (tmp_path / "own.yaml").write_text(f"{yaml.safe_dump(WRITTEN)}process_results: !function code.score\n")
    task = ("--task", "own", tmp_path / "own.yaml", miniature / "tasks/heldout/en.jsonl", "en", "--trust-task-code", "own")  # fmt: skip
    done = evaluate(miniature, prompts, tmp_path, ["en", "de"], *task, check=False)
    answers = read_times(tmp_path, "answers")
    assert done.returncode == 1 and "the task fails" in done.stderr and len(answers) == 2, done.stderr
    saving = next((tmp_path / "state/tasks").glob("*/saving"))
    (saving / ".eval.json.host.1.partial").touch()  # of a killed process
    flag.unlink()
    evaluate(miniature, prompts, tmp_path, ["en", "de"], *task)
    assert read_times(tmp_path, "answers") == answers and not list((tmp_path / "state").rglob("*.partial"))
    assert (tmp_path / "run/eval/en.json").exists() and (tmp_path / "run/answers/de.jsonl").exists()


def test_other_tasks_make_no_new_answers_and_other_answers_run_no_task_again(miniature, prompts, tmp_path):
    evaluate(miniature, prompts, tmp_path, ["en"])
    answers, tasks = read_times(tmp_path, "answers"), read_times(tmp_path, "tasks")
    more = ("--task", "more", ROOT / "config/tasks/question_answer.yaml", miniature / "tasks/untouched/en.jsonl", "en")
    evaluate(miniature, prompts, tmp_path, ["en"], *more)
    assert {line["task"] for line in rows(tmp_path / "run/eval/en.samples.jsonl")} == {"heldout", "more"}
    assert read_times(tmp_path, "answers") == answers
    evaluate(miniature, prompts, tmp_path, ["en"], "--samples", 3)
    assert len(rows(tmp_path / "run/answers/en.jsonl")[0]["responses"]) == 3
    assert {line["task"] for line in rows(tmp_path / "run/eval/en.samples.jsonl")} == {"heldout"}
    assert {path: time for path, time in read_times(tmp_path, "tasks").items() if path in tasks} == tasks
    assert len(read_times(tmp_path, "tasks")) == 2 * len(tasks) and len(read_times(tmp_path, "answers")) == 2


def read_times(folder, part):
    """{file: when it was written} of all finished answers or tasks."""
    return {path: path.stat().st_mtime_ns for path in (folder / "state" / part).glob("*/final/*")}


def test_a_batch_decides_results_of_transformers_alone(miniature, prompts, tmp_path):
    from argparse import Namespace

    from evaluate import cache_key_inputs

    def key(engine, batch):
        chosen = {"samples": 1, "temperature": 0, "top_p": 1, "max_tokens": 8, "template_options": {}, "seed": 0, "suite": {}, "suite_limit": None}  # fmt: skip
        model = {"model": str(miniature / "policy"), "revision": None, "adapter": None, "dtype": "float32", "trust_remote_code": False, "engine_options": {}}  # fmt: skip
        return cache_key_inputs(Namespace(engine=engine, batch=batch, state=tmp_path, languages=["en"], prompts=[prompts["en"]], task=[], **chosen, **model))  # fmt: skip

    assert key("vllm", 1) == key("vllm", 2) and key("transformers", 1) != key("transformers", 2)


def test_task_data_are_what_the_file_says(miniature, prompts, tmp_path):
    """Neither dates nor numbers are made of texts, and a column may hold several types."""
    answers = ["1957-03-25", "05", "1e5", "true", "null", '{"a": 1}', "5 "]
    texts = [{"id": str(i), "question": "What?", "answer": answer} for i, answer in enumerate(answers)]
    mixed = [{"id": f"m{i}", "question": "What?", "answer": value, **more} for i, (value, more) in enumerate([(5, {}), ("05", {}), ("Paris", {"extra": {"a": "1"}}), (2.50, {}), (True, {"extra": []})])]  # fmt: skip
    task = ROOT / "config" / "tasks" / "question_answer.yaml"
    options = []
    for name, lines in (("texts", texts), ("mixed", mixed)):
        options += ["--task", name, task, write_rows(tmp_path / f"{name}.jsonl", lines)]
    evaluate(miniature, prompts, tmp_path, ["en"], *options)
    samples = rows(tmp_path / "run" / "eval" / "en.samples.jsonl")
    found = {line["prompt_id"]: line["target"] for line in samples if line["task"] in ("texts", "mixed")}
    assert found == {**{str(i): answer for i, answer in enumerate(answers)}, "m0": "5", "m1": "05", "m2": "Paris", "m3": "2.5", "m4": "True"}  # fmt: skip


def test_perplexities_have_no_wrong_sign(miniature, prompts, tmp_path):
    """lm-eval's number per document is a log-likelihood, or a pair: neither is a perplexity."""
    data = write_rows(tmp_path / "d.jsonl", [{"id": f"d{i}", "text": f"{i} plus 2 is {i + 2}."} for i in range(5)])
    options = []
    for name, kind, task in (
        ("cloze", "loglikelihood", {"doc_to_text": "{{text[:9]}}", "metrics": {"perplexity": "perplexity", "acc": "mean"}}),
        ("rolling", "loglikelihood_rolling", {"doc_to_text": "", "metrics": {"word_perplexity": "weighted_perplexity", "bits_per_byte": "bits_per_byte"}}),
        ("written", "generate_until", {"doc_to_text": "{{text[:9]}}", "metrics": {"exact_match": "mean"}, "generation_kwargs": {"until": ["."], "max_gen_toks": 4}}),
    ):  # fmt: skip
        metrics = [{"metric": metric, "aggregation": how, "higher_is_better": metric == "acc"} for metric, how in task.pop("metrics").items()]  # fmt: skip
        text = yaml.safe_dump({"dataset_path": "json", "test_split": "test", "output_type": kind, "doc_to_target": "{{text}}", "metric_list": metrics, **task})  # fmt: skip
        (tmp_path / f"{name}.yaml").write_text(text)
        options += ["--task", name, tmp_path / f"{name}.yaml", data]
    done = evaluate(miniature, prompts, tmp_path, ["en"], *options)
    assert "warning: rolling: no metric" in done.stderr and done.stderr.count("no metric") == 1
    results = json.loads((tmp_path / "run" / "eval" / "en.json").read_text())
    cloze, rolling, written = (results[name] for name in ("cloze", "rolling", "written"))
    assert cloze["left_out"]["perplexity"] == pytest.approx(math.exp(-cloze["log_likelihood"])) and "perplexity" not in cloze  # fmt: skip
    assert cloze["log_likelihood"] < 0 and "lower_is_better" not in cloze
    assert set(rolling) == {"n", "left_out"} and all(value > 0 for value in rolling["left_out"].values())
    assert written["lower_is_better"] == ["exact_match"], "as the task says, whatever the metric's name"
    samples = rows(tmp_path / "run" / "eval" / "en.samples.jsonl")
    assert all(line["log_likelihood"] < 0 for line in samples if line["task"] == "cloze")
    assert {line["task"] for line in samples if "lower_is_better" in line} == {"written"}


@pytest.mark.parametrize("metric, declared, direction", [
    ("acc", None, "higher"), ("ter", None, "lower"), ("perplexity", None, "lower"), ("mine", False, "lower"), ("mine", True, "higher"), ("ter", True, "higher"),
])  # fmt: skip
def test_a_metrics_direction(metric, declared, direction):
    assert directions.direction(metric, declared) == direction


def test_less_of_a_metric_that_is_better_lower_is_a_positive_delta(tmp_path):
    for run, value in (("untuned/base", 0.8), ("multi/dpo", 0.5)):
        lines = [{"task": "t", "prompt_id": f"p{i}", "doc_hash": f"{i}", "target": "x", "response": "x", "ter": value + i / 100 - (i == 3) / 9, "acc": value, "lower_is_better": ["ter"]} for i in range(8)]  # fmt: skip
        write_rows(tmp_path / "m" / run / "eval" / "en.samples.jsonl", lines)
        (tmp_path / "m" / run / "eval" / "en.json").write_text(json.dumps({"t": {"n": 8}}))
    script(
        "summary", "--root", tmp_path, "--runs", write_runs(tmp_path / "runs.jsonl", ("m", "untuned", "base", 1, "-", "-", "en"), ("m", "multi", "dpo", 1, "rm", 64, "en")),
        "--output", tmp_path / "summary.csv",
    )  # fmt: skip
    with open(tmp_path / "summary.csv", encoding="utf-8") as file:
        table = {r["metric"]: r for r in csv.DictReader(file) if (r["setting"], r["eval_language"]) == ("dpo", "all")}
    assert float(table["ter"]["value"]) < float(table["ter"]["baseline_value"])
    assert float(table["ter"]["delta"]) == pytest.approx(0.3) and float(table["acc"]["delta"]) == pytest.approx(-0.3)


def write_answers(path, answers, prompt_id="add-2-3-a"):
    return write_rows(path, [{"prompt_id": prompt_id, "language": "en", "skip": None, "responses": [{"text": text, "finish_reason": "stop"} for text in answers]}])  # fmt: skip


def test_judge_counts_wins_ties_and_losses(tmp_path):
    ours = write_answers(tmp_path / "ours.jsonl", ["2 plus 3 is 5.", "I do not know.", "... 2 plus 3 is 6.", "5"])
    theirs = write_answers(tmp_path / "theirs.jsonl", ["5", "I do not know.", "2 plus 3 is 5.", "nonsense"])
    script("judge", "--languages", "en", "--answers", ours, "--baseline", theirs, "--output", tmp_path / "arena")
    (line,) = rows(tmp_path / "arena" / "en.jsonl")
    assert line["verdicts"]["answer_first"] == ["win", "tie", "loss", "win"] and line["score"] == 0.625
    foreign = write_answers(tmp_path / "foreign.jsonl", ["x"], prompt_id="mgsm-1")
    done = script(
        "judge", "--languages", "en", "--answers", foreign, "--baseline", foreign, "--output", tmp_path, check=False
    )
    assert done.returncode == 1 and "mgsm-1" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def results(tmp_path):
    """Two languages, three prompts: a setting that wins two of three prompts in each, and one that ties."""
    for language in ("en", "de"):
        for run, correct, score in (("untuned/base", 0, None), ("multi/dpo", 1, 1.0), ("multi/null", 0, 0.5)):
            folder = tmp_path / "m" / run
            samples = [{"task": "t", "prompt_id": f"p{i}", "doc_hash": f"{language}{i}", "target": "x", "response": "x", "exact_match": correct if i else 0} for i in range(3)]  # fmt: skip
            write_rows(folder / "eval" / f"{language}.samples.jsonl", samples)
            (folder / "eval" / f"{language}.json").write_text(json.dumps({"t": {"n": 3}}))
            if score is not None:
                lines = []
                for i in range(3):
                    verdict = "win" if i and score == 1 else "tie"
                    scores = dict.fromkeys(("score", "score_single_order", "score_strict"), score if i else 0.5)
                    verdicts = {"answer_first": [verdict], "baseline_first": [verdict]}
                    lines.append({"prompt_id": f"p{i}", "language": language, "verdicts": verdicts, **scores, "lengths": [9], "baseline_lengths": [9], "quality": 0.5, "baseline_quality": 0.5})  # fmt: skip
                write_rows(folder / "arena" / f"{language}.jsonl", lines)
    return tmp_path


def test_summary_of_known_results(results):
    script(
        "summary", "--root", results,
        "--runs", write_runs(results / "runs.jsonl", ("m", "untuned", "base", 1, "-", "-", "en,de"), ("m", "multi", "dpo", 1, "rm", 64, "en,de"), ("m", "multi", "null", 1, "rm", 64, "en,de")),
        "--contrast", "dpo", "multi", "base", "--contrast", "dpo", "multi", "null",
        "--judged", "--output", results / "summary.csv",
    )  # fmt: skip
    with open(results / "summary.csv", encoding="utf-8") as file:
        table = {(r["setting"], r["eval_language"], r["metric"], r["baseline"]): r for r in csv.DictReader(file)}
    win = table["dpo", "all", "win_rate", "base"]
    assert float(win["value"]) == pytest.approx(5 / 6, abs=1e-5) and float(win["delta"]) == pytest.approx(
        1 / 3, abs=1e-5
    )
    assert win["n"] == "3", "the unit is the prompt, not the prompt in a language"
    assert float(win["value_low"]) <= 5 / 6 <= float(win["value_high"]) and win["p_adjusted"]
    accuracy = table["dpo", "en", "exact_match", "base"]
    assert (float(accuracy["value"]), float(accuracy["baseline_value"])) == (pytest.approx(2 / 3, abs=1e-5), 0)
    assert float(table["dpo", "all", "win_rate", "null"]["delta"]) == pytest.approx(1 / 3, abs=1e-5)
    tied = table["null", "all", "win_rate", "base"]
    assert float(tied["value_low"]) < 0.5 < float(tied["value_high"]), "where nothing varies, too"
    assert (float(tied["p"]), tied["p_adjusted"]) == (1, "")
    assert table["base", "en", "exact_match", ""]["delta"] == ""
