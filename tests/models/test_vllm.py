"""The vLLM engine for real, by its CPU build: `make test-vllm`. The same files as the transformers engine, whatever
the blocks, chunks and kills; rewards, adapters and translations as in transformers."""

import json
import shutil
import signal
import time

import pytest
import yaml
from conftest import GENERATION_SETTINGS, ROOT, copy_project, rows, script, snakemake, start, with_settings, write_rows
from safetensors.torch import load_file, save_file

ENGINE = ("--engine", "vllm")
SAMPLING = ("--samples", 64, "--temperature", "0.8", "--max-tokens", 16)


@pytest.fixture(scope="module")
def forty(miniature, tmp_path_factory):
    """A file of 40 German prompts."""
    folder = tmp_path_factory.mktemp("forty")
    script("prompts", "--input", miniature / "prompts/train/de.jsonl", "--language", "de", "--reference", "reference", "--limit", 40, "--output", folder / "de.jsonl")  # fmt: skip
    return folder / "de.jsonl"


def arguments(miniature, prompts, folder, *options):
    return ["--prompts", prompts, "--model", miniature / "policy", *ENGINE, *SAMPLING, "--state", folder / "state", "--output", folder / "generations.jsonl", *options]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(miniature, forty, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    script("generate", *arguments(miniature, forty, folder))
    return folder / "generations.jsonl"


def finished(folder):
    """Prompts whose samples are under state/."""
    return {line["prompt_id"] for path in folder.rglob("*.jsonl") for line in rows(path)}


def test_samples_are_whole_and_differ(undisturbed, forty):
    lines = rows(undisturbed)
    assert [line["prompt_id"] for line in lines] == [row["prompt_id"] for row in rows(forty)]
    assert all(len(line["responses"]) == 64 and len({r["text"] for r in line["responses"]}) > 8 for line in lines)
    reasons = [response["finish_reason"] for line in lines for response in line["responses"]]
    assert set(reasons) == {"stop", "length"}
    for response in (response for line in lines for response in line["responses"]):
        assert (response["n_tokens"] == 16) >= (response["finish_reason"] == "length")
    manifest = json.loads(undisturbed.with_suffix(".manifest.json").read_text())
    assert manifest["versions"]["vllm"] and manifest["counts"]["responses"] == 2560


def test_other_blocks_and_chunks_give_the_same_bytes(miniature, forty, tmp_path, undisturbed):
    parts = []
    for first in (0, 16, 32):
        block = write_rows(tmp_path / f"p{first}.jsonl", rows(forty)[first : first + 16])
        parts.append(tmp_path / str(first) / "generations.jsonl")
        script("generate", *arguments(miniature, block, tmp_path / str(first), "--chunk", 3 + first))
    script("gather", "--prompts", forty, "--parts", *parts, "--output", tmp_path / "all.jsonl")
    assert rows(tmp_path / "all.jsonl") == rows(undisturbed)


def test_kill_repeats_at_most_one_chunk(miniature, forty, tmp_path, undisturbed):
    """Killed as soon as a chunk is saved; then run to the end, with fewer samples and more again."""
    process = start("generate", *arguments(miniature, forty, tmp_path, "--chunk", 8))
    deadline = time.monotonic() + 300
    while not list((tmp_path / "state").rglob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(finished(tmp_path / "state"))
    assert 4 <= kept < 40 and not (tmp_path / "generations.jsonl").exists()
    done = script("generate", *arguments(miniature, forty, tmp_path, "--chunk", 8))
    assert f"{40 - kept} prompts to sample" in done.stderr
    assert (tmp_path / "generations.jsonl").read_bytes() == undisturbed.read_bytes()


def test_more_samples_keep_the_first(miniature, forty, tmp_path, undisturbed):
    few = write_rows(tmp_path / "few.jsonl", rows(forty)[:5])
    script("generate", *arguments(miniature, few, tmp_path, "--samples", 24))
    script("generate", *arguments(miniature, few, tmp_path))
    assert rows(tmp_path / "generations.jsonl") == rows(undisturbed)[:5]


def test_rewards_agree_with_transformers(miniature, forty, tmp_path, undisturbed):
    """500 texts, of which some are too long for the reward model."""
    generations = rows(undisturbed)[:10]
    for line in generations:
        line["responses"] = line["responses"][:45] + [{**line["responses"][0], "text": f"word {i} " * (10 * i)} for i in range(5)]  # fmt: skip
    prompts = write_rows(tmp_path / "p.jsonl", rows(forty)[:10])
    generations = write_rows(tmp_path / "g.jsonl", generations)
    found = {}
    for engine in ("vllm", "transformers"):
        script(
            "score", "--prompts", prompts, "--generations", generations, "--model", miniature / "reward", "--engine", engine,
            "--max-length", 100, "--state", tmp_path / "state", "--output", tmp_path / f"{engine}.jsonl",
        )  # fmt: skip
        found[engine] = [reward for line in rows(tmp_path / f"{engine}.jsonl") for reward in line["rewards"]]
    assert len(found["vllm"]) == 500 and 10 <= found["vllm"].count(None) < 50
    assert [r is None for r in found["vllm"]] == [r is None for r in found["transformers"]]
    pairs = [(a, b) for a, b in zip(*found.values(), strict=True) if a is not None]
    assert max(abs(a - b) for a, b in pairs) < 1e-3 and len({round(a, 3) for a, _ in pairs}) > 20


@pytest.fixture(scope="module")
def adapter(miniature, forty, tmp_path_factory):
    """A LoRA adapter that changes answers, trained by the real script."""
    folder = tmp_path_factory.mktemp("adapter")
    lines = [
        {
            "prompt_id": row["prompt_id"],
            "prompt": row["messages"],
            "completion": [{"role": "assistant", "content": row["reference"]}],
        }
        for row in rows(forty)[:32]
    ]
    write_rows(folder / "completions.jsonl", lines)
    script(
        "train", "--objective", "sft", "--data", folder / "completions.jsonl", "--model", miniature / "policy", "--learning-rate", "5e-3",
        "--epochs", 6, "--batch", 8, "--micro-batch", 8, "--state", folder / "state", "--output", folder / "checkpoint",
    )  # fmt: skip
    return folder / "checkpoint"


def test_greedy_adapter_equals_the_merged_model(miniature, adapter, forty):
    from croco.models import transformers_engine, vllm_engine

    merged = transformers_engine.Policy(str(miniature / "policy"), adapter=adapter)
    merged.model.save_pretrained(adapter.parent / "merged")
    merged.tokenizer.save_pretrained(adapter.parent / "merged")
    prompts = [merged.encode(row["messages"]) for row in rows(forty)]
    greedy = {"seeds": [0] * len(prompts), "temperature": 0, "top_p": 1.0, "max_tokens": 16}
    expected = merged.respond(prompts, **greedy)
    for path, lora in ((adapter.parent / "merged", None), (miniature / "policy", adapter)):
        policy = vllm_engine.Policy(str(path), adapter=lora)
        assert policy.respond(prompts, **greedy) == expected
        policy.close()
    plain = transformers_engine.Policy(str(miniature / "policy")).respond(prompts, **greedy)
    assert sum(a != b for a, b in zip(plain, expected, strict=True)) > 4


def test_structured_tasks_of_an_adapter_agree_with_transformers(miniature, adapter, forty, tmp_path):
    """Log-likelihoods of choices and written answers, with one load of the model."""
    task = {
        "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{question}}",
        "doc_to_choice": ["5", "2 plus 3 ist 5."], "doc_to_target": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (tmp_path / "choice.yaml").write_text(yaml.safe_dump(task))
    data = write_rows(tmp_path / "d.jsonl", rows(miniature / "tasks/heldout/de.jsonl")[:8])
    found = {}
    for name, tuned in (("transformers", True), ("vllm", True), ("base", False)):
        script(
            "evaluate", "--model", miniature / "policy", "--engine", name.replace("base", "vllm"), *(["--adapter", adapter] if tuned else []),
            "--languages", "de", "--prompts", forty, "--temperature", 0, "--max-tokens", 4, "--task", "choice", tmp_path / "choice.yaml", data,
            "--task", "written", ROOT / "config/tasks/question_answer.yaml", data, "--state", tmp_path / "state", "--output", tmp_path / name,
        )  # fmt: skip
        found[name] = rows(tmp_path / name / "eval/de.samples.jsonl")
    assert [line["doc_hash"] for line in found["vllm"]] == [line["doc_hash"] for line in found["transformers"]]
    for ours, theirs in zip(found["vllm"], found["transformers"], strict=True):
        choice = ours["task"] == "choice"
        assert ours["response"] == (pytest.approx(theirs["response"], abs=1e-3) if choice else theirs["response"])
    changed = [abs(a["response"][0] - b["response"][0]) for a, b in zip(found["vllm"], found["base"], strict=True) if a["task"] == "choice"]  # fmt: skip
    assert min(changed) > 1e-3, "the adapter is on"


def test_tasks_see_the_ids_and_stop_tokens_of_transformers(miniature, tmp_path):
    """A tokenizer and a template that both write a BOS, and a stop token that is the config's alone and not special."""
    from argparse import Namespace

    from lm_eval.tasks import TaskManager
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    from croco.evaluation import harness
    from croco.models import transformers_engine, vllm_engine

    path = tmp_path / "policy"
    shutil.copytree(miniature / "policy", path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    bos, first = tokenizer.convert_ids_to_tokens(5), 5
    tokenizer.bos_token, tokenizer.chat_template = bos, "{{ bos_token }}" + tokenizer.chat_template
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, first)])
    tokenizer.save_pretrained(path)
    questions = rows(miniature / "tasks/heldout/de.jsonl")[:6]
    data = write_rows(tmp_path / "d.jsonl", questions)
    # The policy stops at a token of ordinary text: the last one of its longest answer.
    plain = transformers_engine.Policy(str(path))
    chats = [plain.encode([{"role": "user", "content": row["question"]}]) for row in questions]
    assert all(chat.count(first) == 1 for chat in chats)
    texts = [response["text"] for response in plain.respond(chats, [0] * len(chats), 0, 1.0, 16)]
    longest = max(texts, key=len)
    assert len(plain.tokenizer(longest, add_special_tokens=False)["input_ids"]) > 2
    stop = plain.tokenizer(longest, add_special_tokens=False)["input_ids"][-1]
    config = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [stop]}))

    written = yaml.safe_load((ROOT / "config/tasks/question_answer.yaml").read_text(encoding="utf-8"))
    choice = {**written, "output_type": "multiple_choice", "doc_to_choice": ["5", "Es ist 5."], "doc_to_target": 0}
    choice = {name: value for name, value in choice.items() if name not in ("generation_kwargs", "filter_list")}
    choice["metric_list"] = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    source = {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path / "cache")}

    def ask(policy, name):
        """The answers to both tasks, and the prompts that reached vLLM; nothing here outlives the engine."""
        model = harness.wrap(policy, Namespace(engine=name, model=str(path), revision=None, trust_remote_code=False, batch=2, template_options={}))  # fmt: skip
        answers, seen = [], []
        with pytest.MonkeyPatch.context() as patch:
            if name == "vllm":
                generate = policy.llm.generate

                def record(prompts, *args, **options):
                    seen.extend(list(prompt["prompt_token_ids"]) for prompt in prompts)
                    return generate(prompts, *args, **options)

                patch.setattr(policy.llm, "generate", record)
            for task, config in (("choice", choice), ("written", written)):
                tasks = TaskManager(include_defaults=False).load({**config, "task": task, "dataset_kwargs": source})["tasks"]  # fmt: skip
                samples = harness.run(model, tasks)["samples"][task]
                answers += [[r[0] for r in sample["filtered_resps"]] if task == "choice" else sample["resps"] for sample in samples]  # fmt: skip
        return answers, seen

    found = {}
    for name, engine in (("transformers", transformers_engine), ("vllm", vllm_engine)):
        policy = engine.Policy(str(path))
        assert policy.stops == {stop, tokenizer.eos_token_id}
        found[name], seen = ask(policy, name)
        expected = [response["text"] for response in policy.respond(chats, [0] * len(chats), 0, 1.0, 16)]
        if engine is vllm_engine:
            policy.close()
    for ours, theirs in zip(found["vllm"][:6], found["transformers"][:6], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
    assert found["vllm"][6:] == found["transformers"][6:]
    answers = [sample[0][0] for sample in found["vllm"][6:]]
    assert len(answers[texts.index(longest)]) < len(longest), "cut at the stop token"
    assert all(text.startswith(ours) or ours.startswith(text) for ours, text in zip(answers, expected, strict=True))
    for chat in chats:
        assert sum(ids[: len(chat)] == chat for ids in seen) == 3, "two choices and an answer"
    assert all(ids.count(first) == 1 for ids in seen)


def test_greedy_samples_are_the_response_so_many_times(miniature, forty, tmp_path):
    """vLLM takes no greedy request for several responses; as under transformers, all are the same."""
    few = write_rows(tmp_path / "few.jsonl", rows(forty)[:3])
    found = []
    for engine in ("vllm", "transformers"):
        greedy = ("--samples", 3, "--temperature", 0, "--engine", engine, "--output", tmp_path / f"{engine}.jsonl")
        script("generate", *arguments(miniature, few, tmp_path, *greedy))
        found.append([line["responses"] for line in rows(tmp_path / f"{engine}.jsonl")])
    assert found[0] == found[1] and all(line == line[:1] * 3 for line in found[0])


def test_settings_that_come_with_a_model_decide_nothing(miniature, forty, tmp_path):
    """Samples and greedy answers with all settings in generation_config.json at once; greedy as in transformers."""
    from croco.models import transformers_engine, vllm_engine

    settings = {name: value for some in GENERATION_SETTINGS for name, value in some.items()}
    patched = with_settings(miniature / "policy", tmp_path / "policy", settings)
    found = []
    for engine, path in ((vllm_engine, miniature / "policy"), (vllm_engine, patched), (transformers_engine, patched)):
        policy = engine.Policy(str(path))
        chats = [policy.encode(row["messages"]) for row in rows(forty)[:20]]
        samples = dict(policy.sample([(chat, 4096 * i, 4) for i, chat in enumerate(chats)], 0.8, 0.9, 16, 64))
        found.append((samples, policy.respond(chats, [0] * len(chats), 0, 1.0, 16)))
        if engine is vllm_engine:
            policy.close()
    assert found[0] == found[1] and found[1][1] == found[2][1]


def test_next_tokens_have_the_probabilities_of_transformers(miniature, forty):
    """Log-probabilities after temperature and top_p, of all tokens that top_p leaves."""
    import torch
    from vllm import SamplingParams

    from croco.models import transformers_engine, vllm_engine

    plain = transformers_engine.Policy(str(miniature / "policy"))
    options = {"logprobs_mode": "processed_logprobs", "max_logprobs": -1}
    policy = vllm_engine.Policy(str(miniature / "policy"), options=options)
    compared = 0
    for temperature, top_p in ((0.6, 1.0), (1.0, 0.9), (0.7, 0.5)):
        sampling = transformers_engine.SeededSampling([0], temperature, top_p, 1)
        parameters = SamplingParams(temperature=temperature, top_p=top_p, max_tokens=1, logprobs=-1, seed=1)
        for row in rows(forty)[:5]:
            chat = plain.encode(row["messages"])
            with torch.inference_mode():
                kept, order = sampling.weigh(plain.model(torch.tensor([chat])).logits[:, -1])
            if order is not None:
                kept = torch.zeros_like(kept).scatter(-1, order, kept)
            expected = (kept / kept.sum()).log()[0]
            (output,) = policy.llm.generate({"prompt_token_ids": chat}, parameters, use_tqdm=False)
            theirs = {
                token: found.logprob for token, found in output.outputs[0].logprobs[0].items() if found.logprob > -60
            }
            ours = {token: value for token, value in enumerate(expected.tolist()) if value > -60}
            assert theirs == pytest.approx(ours, abs=1e-4)
            compared += len(ours)
    policy.close()
    assert compared > 100


def test_translations_equal_those_of_transformers(miniature, forty, tmp_path):
    """Greedy, one attempt; the tiny policy is no translator, so what counts is that each line says what it is."""
    found = {}
    for engine in ("vllm", "transformers"):
        script(
            "translate", "--prompts", forty, "--language", "en", "--languages", ROOT / "config/languages.tsv", "--model", miniature / "policy",
            "--engine", engine, "--format", "template", "--template", "{target_name}: {text}", "--max-tokens", 16, "--attempts", 1,
            "--state", tmp_path / "state", "--output", tmp_path / f"{engine}.jsonl",
        )  # fmt: skip
        found[engine] = rows(tmp_path / f"{engine}.jsonl")
    assert found["vllm"] == found["transformers"] and len(found["vllm"]) == 40
    assert {line["language"] for line in found["vllm"]} == {"en"}


def test_unusable_options_are_named(miniature, forty, tmp_path):
    done = script("generate", *arguments(miniature, forty, tmp_path, "--engine-options", '{"no_such_option": 1}'), check=False)  # fmt: skip
    assert done.returncode == 1 and "no_such_option" in done.stderr and "Remedy" in done.stderr
    assert not (tmp_path / "generations.jsonl").exists()


def test_what_is_incomplete_is_refused_before_the_engine_starts(miniature, adapter, forty, tmp_path):
    """Weights and adapters of another name, as in transformers; vLLM would leave some of them out."""
    broken = {"policy": ("layers.1.mlp", "old.layers.1.mlp"), "reward": ("score.weight", "v_head.weight"), "adapter": ("layers.1.", "blocks.1.")}  # fmt: skip
    for role, (old, new) in broken.items():
        shutil.copytree(adapter if role == "adapter" else miniature / role, tmp_path / role)
        file = next((tmp_path / role).glob("*model.safetensors"))
        save_file({name.replace(old, new): weight for name, weight in load_file(file).items()}, file, {"format": "pt"})
    write_rows(tmp_path / "some.jsonl", rows(forty)[:2])
    answers = [{"prompt_id": row["prompt_id"], "language": "de", "skip": None, "responses": [{"text": "a", "finish_reason": "stop", "n_tokens": 1, "token_digest": "0" * 16}]} for row in rows(tmp_path / "some.jsonl")]  # fmt: skip
    write_rows(tmp_path / "answers.jsonl", answers)
    sample = arguments(miniature, tmp_path / "some.jsonl", tmp_path)
    score = ["--prompts", tmp_path / "some.jsonl", "--generations", tmp_path / "answers.jsonl", *ENGINE, "--state", tmp_path / "state", "--output", tmp_path / "scores.jsonl"]  # fmt: skip
    for name, command, said in (
        ("generate", [*sample, "--model", tmp_path / "policy"], "fit nothing in the model: model.old.layers.1.mlp."),
        ("generate", [*sample, "--adapter", tmp_path / "adapter"], "fit nothing in the adapter: base_model.model.model.blocks.1."),
        ("score", [*score, "--model", tmp_path / "reward"], "not in the file: score.weight"),
    ):  # fmt: skip
        refused = script(name, *command, check=False)
        assert refused.returncode == 1 and said in refused.stderr and "Traceback" not in refused.stderr, refused.stderr
    assert not (tmp_path / "generations.jsonl").exists() and not (tmp_path / "scores.jsonl").exists()


def test_the_workflow_runs_on_vllm(tmp_path):
    """The small grid end to end, policies, reward model and judge on vLLM; then nothing is left to do."""
    project = copy_project(tmp_path)
    config = yaml.safe_load((project / "two_languages.yaml").read_text(encoding="utf-8"))
    default = yaml.safe_load((project / "config/config.yaml").read_text(encoding="utf-8"))
    for key in ("policies", "reward_models"):
        config[key] = [{**row, "engine": "vllm", "resources": {"gpu": 0}} for row in default[key]]
    template = "{language} {nonce}\n{question}\n{nonce}\n{answer_a}\n{nonce}\n{answer_b}\n{nonce}"
    (project / "prompt.txt").write_text(template, encoding="utf-8")
    judge = {"name": "tiny", "path": "{results}/miniature/policy", "engine": "vllm", "prompt": "prompt.txt"}
    config["judges"] = [{**judge, "max_tokens": 8, "resources": {"gpu": 0}}]
    # A policy of the miniature is no judge: what counts is that it was asked, and that nothing is taken for a verdict.
    config["evaluation"] = {**default["evaluation"], **config["evaluation"], "judge": "tiny", "max_unparseable": 1}
    (project / "vllm.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    snakemake(project, "--cores", 2, "--configfile", "vllm.yaml")
    results = project / "results" / "small"
    for file in ("mini/de/generations/0", "mini/en/dpo/pairs", "mini/de/scores/english/0"):
        assert json.loads((results / f"{file}.manifest.json").read_text())["code_digest"]
    manifest = json.loads((results / "mini/de/generations/0.manifest.json").read_text())
    assert manifest["options"]["engine"] == "vllm" and manifest["counts"]["responses"] == 128
    base, tuned = (rows(results / f"mini/{run}/answers/en.jsonl") for run in ("untuned/base", "en/dpo"))
    assert [line["responses"] for line in base] != [line["responses"] for line in tuned]
    arena = rows(results / "mini/multi/dpo_random/arena/de.jsonl")
    replies = [reply for line in arena for some in line["replies"].values() for reply in some]
    assert len(replies) == 80 and None not in replies and {line["score"] for line in arena} == {None}
    manifest = json.loads((results / "mini/multi/dpo_random/arena/de.manifest.json").read_text())
    assert manifest["counts"]["unparseable"] == 80 and manifest["options"]["engine"] == "vllm"
    assert set(manifest["counts"]["reasons"]) <= {"cut", "no_verdict"}
    assert (results / "report.html").stat().st_size > 10_000
    done = snakemake(project, "--cores", 1, "--configfile", "vllm.yaml")
    assert "Nothing to be done" in done.stdout + done.stderr
