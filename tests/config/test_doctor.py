"""scripts/doctor.py on configs that would fail in a run: what, when, and what to do, before anything is sampled."""

import errno
import json
import os
import re
import shutil
import subprocess

import pytest
import yaml
from conftest import ENVIRONMENT, INTERPRETER, ROOT, copy_project, script, snakemake, write_rows
from hub import BUSY, COMMIT, GATE, serving
from huggingface_hub.errors import HTTPError
from safetensors.torch import load_file, save_file

from croco.config.read import build_grid, read_files
from croco.examination.findings import Used
from croco.examination.hub import examine_cached_card, examine_repository
from croco.examination.machine import examine_file_system, expect_bytes, find_gpus
from croco.examination.memory import (
    count_activations,
    count_adapter,
    count_cache,
    count_weight_bits,
    estimate_training,
)


@pytest.fixture(scope="module")
def good(miniature, tmp_path_factory):
    """A config of own models and prompts with nothing wrong, and copies of its models to break."""
    folder = tmp_path_factory.mktemp("good")
    for name in ("policy", "reward"):
        shutil.copytree(miniature / name, folder / name)
    prompts = f"{miniature}/prompts"
    config = {
        "results": str(folder / "results"),
        "languages": [{"code": "en"}, {"code": "de"}],
        "samples": 8,
        "policies": [{"name": "mini", "path": str(folder / "policy"), "temperature": 1, "max_tokens": 32}],
        "reward_models": [{"name": "english", "path": str(folder / "reward"), "max_length": 128}],
        "prompts": [
            {"use": "train", "path": f"{prompts}/train/{{language}}.jsonl", "reference": "reference", "limit": 16},
            {"use": "evaluate", "path": f"{prompts}/dev/{{language}}.jsonl", "limit": 6},
        ],
        "pools": [{"name": "multi", "languages": ["en", "de"]}],
        "settings": [
            {"name": "base", "objective": "none"},
            {"name": "dpo", "objective": "dpo", "target": "pair", "rejected": "mean-2sd", "pools": ["multi"]},
        ],
        "recipes": [{"name": "dpo", "learning_rate": 1e-3, "batch": 8, "micro_batch": 8}],
        "evaluation": {"samples": 1, "temperature": 0, "max_tokens": 24, "judge": "none", "tasks": []},
        "contrasts": [],
    }
    return folder, config


def doctor(tmp_path, config, *options):
    path = tmp_path / "my.yaml"
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config), encoding="utf-8")
    return script("doctor", "--configfile", path, *options, cwd=ROOT, check=False)


def break_weights(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "down_proj" in name))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def break_template(folder):
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no chats here') }}")


def forget_template(folder):
    (folder / "chat_template.jinja").unlink()


def remove_config(folder):
    (folder / "config.json").unlink()


def pickle_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def unknown_class(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "brandnew"}))


def truncate_weights(folder):
    """A shard whose download ended early."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def narrow_head(folder):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "down_proj" in name)
    weights[name] = weights[name][:, 1:].contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


# Name: (keys of the config's first row of a list, or a function that breaks its model; severity; parts of the message).
CASES = {
    "engine missing": ({"policies": {"engine": "vllm", "resources": {"gpu": 0}}}, "error", ["policy mini: vLLM is not installed", "generate", "make env EXTRA=vllm"]),
    "hub typo": ({"policies": {"path": "nobody/nothing"}}, "error", ["policy mini", "cannot be loaded", "hub id"]),
    "folder typo": ({"reward_models": {"path": "/no/such"}}, "error", ["my.yaml", "/no/such is no folder, and no hub id"]),
    "causal model as reward": ({"reward_models": {"path": "POLICY"}}, "error", ["reward english: the model has 2 logits, a reward model has one", "Shows in: score", "sequence classifier"]),
    "weights missing": ({"policies": break_weights}, "error", ["policy mini", "weights that the model needs are not in the file", "down_proj"]),
    "reward weights missing": ({"reward_models": break_weights}, "error", ["reward english", "not in the file", "down_proj", "Shows in: score"]),
    "pickled weights": ({"policies": pickle_weights}, "error", ["my.yaml", "safetensors", "pickled"]),
    "truncated weights": ({"policies": truncate_weights}, "error", ["policy mini", "cannot be loaded", "Shows in: generate"]),
    "wrong shape": ({"policies": narrow_head}, "error", ["policy mini", "another shape", "down_proj"]),
    "prompts missing": ({"prompts": {"path": "/no/such/{language}.jsonl"}}, "error", ["/no/such/en.jsonl", "Remedy: "]),
    "prompts' field missing": ({"prompts": {"text": "nothing"}}, "error", ["prompts: ", "train/en.jsonl", "field nothing", "missing field", "Shows in: prompts"]),
    "contaminated": ({"prompts": {"path": "EVALUATED"}}, "warning", ["dev/en.jsonl", "training prompts in en are evaluation prompts", "Shows in: contamination"]),
    "no room for downloads": ({"policies": {"path": "nobody/huge", "size": 100000}}, "error", ["the downloads take 400000 GB (nobody/huge)", "Shows in: stage", "HF_HOME"]),
    "no room for responses": ({"policies": {"max_tokens": 10**13}}, "warning", ["responses may take", "Shows in: generate", "free some space"]),
    "template refuses": ({"policies": break_template}, "error", ["policy mini: template_fails", "no chats here", "check_template"]),
    "no template": ({"reward_models": forget_template}, "error", ["reward english: no_chat_template", "chat_template.jinja"]),
    "config missing": ({"policies": remove_config}, "error", ["policy mini", "cannot be loaded"]),
    "unknown class": ({"policies": unknown_class}, "error", ["policy mini", "brandnew"]),
    "template option taken": ({"policies": {"template_options": {"tokenize": True}}}, "error", ["policy mini", "tokenize cannot be set"]),
    "LoRA misses": ({"recipes": {"lora_targets": r".*\.q_proj"}}, "error", ["policy mini, recipe dpo", "misses projections", "Shows in: train"]),
    "LoRA reaches nothing": ({"recipes": {"lora_targets": "nothing"}}, "error", ["no module of the model has a name like nothing"]),
    "context too short": ({"policies": {"max_tokens": 100000}}, "warning", ["policy mini: max_tokens is 100000", "context has"]),
    "size wrong": ({"policies": {"size": 9}}, "warning", ["policy mini: it has 0.00 billion parameters, and size says 9"]),
    "no audit": ({}, "warning", ["reward english: it has not been audited", "before training: ", "/bin/snakemake audit --cores all --configfile ", "my.yaml"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_would_fail_later_is_found(good, tmp_path, name):
    folder, config = good
    config = json.loads(json.dumps(config))
    changes, severity, says = CASES[name]
    for section, change in changes.items():
        if callable(change):
            broken = shutil.copytree(config[section][0]["path"], tmp_path / "broken")
            change(broken)
            change = {"path": str(broken)}
        replacements = {"POLICY": str(folder / "policy"), "EVALUATED": config["prompts"][1]["path"]}
        config[section][0] |= {key: replacements.get(str(value), value) for key, value in change.items()}
    done = doctor(tmp_path, config)
    assert done.returncode == (1 if severity == "error" else 0) and "Traceback" not in done.stderr, done.stderr
    said = done.stdout + done.stderr  # what the config check itself finds is one message on stderr
    assert f"{severity}: " in said and all(part in said for part in says), said


def test_gpus_that_are_too_few_or_too_small(good, tmp_path):
    config = json.loads(json.dumps(good[1]))
    config["recipes"][0]["micro_batch"] = 4
    config["policies"][0] |= {"size": 32, "dtype": "bfloat16", "resources": {"gpu": 2}}
    done = doctor(tmp_path, config, "--gpus", 2, "--gpu-memory", 48)
    assert "error: policy mini: its weights take 64 GB in bfloat16, on 1 GPUs of 48 GB" in done.stdout
    assert "with engine: vllm or engine_options: {device_map: auto}" in done.stdout
    config["policies"][0]["engine_options"] = {"device_map": "auto"}
    done = doctor(tmp_path, config, "--gpus", 1, "--gpu-memory", 24)
    assert done.returncode == 1
    assert "a job asks for 2 GPUs, and this machine shows 1" in done.stdout
    assert "its weights take 64 GB in bfloat16, on 2 GPUs of 24 GB" in done.stdout
    config["policies"][0]["path"] = "nobody/nothing"
    done = doctor(tmp_path, config, "--gpus", 1, "--gpu-memory", 24)
    assert "its weights take 64 GB in bfloat16" in done.stdout, "by the declared size, where there is no model"
    config["policies"][0]["path"] = good[1]["policies"][0]["path"]
    done = doctor(tmp_path, config, "--gpus", 2, "--gpu-memory", 80)
    assert done.returncode == 0 and "which fits 2 GPUs of 80 GB" in done.stdout


def quantize(folder, **quantization):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": quantization}))


def test_a_quantized_model_that_fits_is_not_refused(good, tmp_path):
    """Nor is one whose quantization is not known: it may be smaller than its dtype says."""
    config = json.loads(json.dumps(good[1]))
    config["recipes"][0]["micro_batch"] = 4
    model = shutil.copytree(good[0] / "policy", tmp_path / "model")
    config["policies"][0] |= {"path": str(model), "size": 70, "dtype": "bfloat16", "resources": {"gpu": 2}}
    config["policies"][0]["engine_options"] = {"device_map": "auto"}
    quantize(model, quant_method="compressed-tensors", config_groups={"group_0": {"weights": {"num_bits": 8}}})
    done = doctor(tmp_path, config, "--gpus", 2, "--gpu-memory", 80)
    assert "note: policy mini: its weights take 70 GB in 8 bits" in done.stdout, done.stdout
    quantize(model, quant_method="new")
    done = doctor(tmp_path, config, "--gpus", 2, "--gpu-memory", 80)
    said = "warning: policy mini: its weights take 140 GB in bfloat16 (less if the quantization new is smaller)"
    assert said in done.stdout, done.stdout


def test_a_context_whose_cache_vllm_cannot_hold(good, tmp_path):
    """vLLM starts only if its KV cache holds one sequence of the whole context, however short the responses are."""
    config = json.loads(json.dumps(good[1]))
    model = shutil.copytree(good[0] / "policy", tmp_path / "model")
    shape = json.loads((model / "config.json").read_text()) | {"max_position_embeddings": 10**8}
    (model / "config.json").write_text(json.dumps(shape))
    config["policies"][0] |= {"path": str(model), "engine": "vllm", "dtype": "bfloat16", "resources": {"gpu": 1}}
    done = doctor(tmp_path, config, "--gpus", 1, "--gpu-memory", 24)
    (said,) = [part for part in done.stdout.split("error: ") if "vLLM will not start" in part]
    assert said.startswith("policy mini: its weights take") and "of one sequence of 100,000,000 tokens" in said
    fitting = int(re.search(r"Remedy: write engine_options: {max_model_len: (\d+)} or less", said)[1])
    config["policies"][0]["engine_options"] = {"max_model_len": fitting}
    assert "vLLM will not start" not in doctor(tmp_path, config, "--gpus", 1, "--gpu-memory", 24).stdout
    config["policies"][0]["engine_options"] = {"max_model_len": 2 * fitting}
    assert "vLLM will not start" in doctor(tmp_path, config, "--gpus", 1, "--gpu-memory", 24).stdout


def test_evaluation_has_a_batch_and_lengths_of_its_own(good, tmp_path):
    config = json.loads(json.dumps(good[1]))
    config["evaluation"]["max_tokens"] = 10**8
    done = doctor(tmp_path, config, "--gpus", 1, "--gpu-memory", 24)
    (said,) = [part for part in done.stdout.split("warning: ") if part.startswith("policy mini, evaluation: ")]
    assert "its KV cache up to" in said and "Shows in: evaluate" in said and "lower evaluation.batch" in said


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "import no_such_package",
            ["cannot be loaded", "no_such_package", "install the package that the message names"],
        ),
        ("raise KeyError('no such key')", ["could not examine it: KeyError: 'no such key'", "scripts/rehearse.py"]),
    ],
)
def test_code_of_a_model_that_fails_hides_no_other_finding(good, tmp_path, code, says):
    config = json.loads(json.dumps(good[1]))
    model = shutil.copytree(good[0] / "policy", tmp_path / "model")
    shape = json.loads((model / "config.json").read_text())
    shape |= {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (model / "config.json").write_text(json.dumps(shape))
    (model / "configuration_own.py").write_text(f"{code}\n")
    config["policies"][0] |= {"path": str(model), "trust_remote_code": True}
    done = doctor(tmp_path, config)
    assert done.returncode == 1 and all(part in done.stdout for part in ("error: policy mini: ", *says)), done.stdout
    assert "reward english: it has not been audited" in done.stdout and "Traceback" not in done.stderr


def test_models_that_the_run_does_not_load_are_left_out(good, tmp_path):
    config = json.loads(json.dumps(good[1]))
    large = {"name": "large", "path": "org/large", "size": 70, "max_tokens": 32, "resources": {"gpu": 4}}
    config["policies"].append(large | {"temperature": 1, "tune": False})
    config["translators"] = [large | {"format": "template", "template": "{text}"}]
    done = doctor(tmp_path, config, "--gpus", 1, "--gpu-memory", 24)
    assert done.returncode == 0 and "large" not in done.stdout and "GPUs, and" not in done.stdout, done.stdout


def test_responses_of_all_rounds_and_their_joined_files_take_room(good, tmp_path):
    config = json.loads(json.dumps(good[1]))
    for rounds, block, expected in ((1, 16, 6), (3, 16, 18), (3, 8, 36)):
        config["settings"][1]["rounds"], config["block"] = rounds, block
        (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
        read, locator = read_files([tmp_path / "my.yaml"], ROOT)
        tokens = 2 * 16 * 8 * 32  # languages x prompts x samples x tokens
        assert expect_bytes(build_grid(read, ROOT, locator)[0]) == tokens * expected


def test_attention_heads_that_vllm_cannot_split(good, tmp_path):
    """vLLM would say so when it starts, for a judge after sampling and training."""
    config = json.loads(json.dumps(good[1]))
    heads = json.loads((good[0] / "policy/config.json").read_text())["num_attention_heads"]
    row = {"name": "large", "path": str(good[0] / "policy"), "max_length": 128, "engine": "vllm"}
    config["judges"] = [row | {"resources": {"gpu": heads + 1}}]
    config["evaluation"]["judge"] = "large"
    what = f"judge large: its {heads} attention heads cannot be split over {heads + 1} GPUs: vLLM will not start"
    done = doctor(tmp_path, config)
    assert f"error: {what}" in done.stdout and "Shows in: judge" in done.stdout, done.stdout + done.stderr
    assert f"ask for {heads} GPUs (resources: {{gpu: {heads}}})" in done.stdout
    config["judges"][0]["engine_options"] = {"pipeline_parallel_size": heads + 1}
    assert "attention heads" not in doctor(tmp_path, config).stdout, "each stage has one GPU"


def test_a_good_config_and_the_shipped_ones_have_no_errors(good, tmp_path):
    done = doctor(tmp_path, good[1])
    assert done.returncode == 0 and done.stdout.rstrip().endswith("0 errors, 1 warnings"), done.stdout + done.stderr
    assert not list(good[0].glob(".probe*"))
    done = script("doctor", cwd=ROOT)
    assert "0 errors" in done.stdout, "the miniature, whose models are made by the workflow"


def test_time_limits_that_no_number_of_prompts_gives(good, tmp_path):
    config = yaml.safe_load((ROOT / "config/small.yaml").read_text(encoding="utf-8"))
    assert "time limits" not in doctor(tmp_path, config).stdout
    for row in config["prompts"]:
        for key in ("limit", "max_tokens", "tokenizer"):
            row.pop(key, None)
    said = doctor(tmp_path, config).stdout
    assert "warning: prompts train: without `limit`" in said and "time limits are those of 500 prompts" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", ["my.yaml:3", "not YAML"]),
        ("a:\n\t- 1\n", ["my.yaml:2", "not YAML"]),
        ("- 1\n", ["my.yaml", "no mapping"]),
        ("", ["my.yaml", "no mapping"]),
        ("a: " + "[" * 3000 + "]" * 3000, ["my.yaml", "few levels"]),
        ("seed: " + "9" * 6000, ["my.yaml", "ordinary size"]),
        ("results: x\nnonsense: 1\n", ["my.yaml:2", "nonsense", "unknown key"]),
    ],
)
def test_what_is_no_config_is_told_with_its_line(tmp_path, text, says):
    done = doctor(tmp_path, text)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(part in done.stderr for part in says) and "Remedy: " in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", ["my.yaml:3: not YAML at column 2"]),
        (
            "a: 1\nb: caf\u00e9\n".encode("latin1"),
            ["my.yaml:2: not a text file in UTF-8: the byte 0xe9 at column 7", "-f ITS_ENCODING"],
        ),
        ("a: 1\nb: caf\u00e9\n".encode("utf-16"), ["my.yaml:1: not a text file in UTF-8", "iconv -f utf-16"]),
        (b"a: 1\nb: x\x07\n", ["my.yaml:2: not a text file: the control character U+0007 at column 5"]),
    ],
    ids=["broken", "latin1", "utf-16", "control"],
)
@pytest.mark.parametrize("name", ["doctor", "plan", "rehearse"])
def test_a_config_that_snakemake_cannot_read_has_line_and_column(tmp_path, name, content, says):
    (tmp_path / "my.yaml").write_bytes(content)
    done = script(name, "--configfile", tmp_path / "my.yaml", cwd=tmp_path, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(part in done.stderr for part in says) and "Remedy: " in done.stderr, done.stderr


def widen_head(folder):
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"] = weights["score.weight"].repeat(2, 1)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def drop_weights(folder):
    (folder / "model.safetensors").unlink()


def lose_shard(folder):
    """A repository that lacks a shard which its index lists."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def cut_shard(folder):
    """A repository with two shards, the second of which was not uploaded to its end."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, shards = sorted(weights), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    parts = dict(zip(shards, (names[::2], names[1::2]), strict=True))
    for shard, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / shard, {"format": "pt"})
    index = {"weight_map": {name: shard for shard, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / shards[1]).write_bytes((folder / shards[1]).read_bytes()[:-100])


def close_gate(folder):
    (folder / GATE).touch()


def leave_whole(folder):
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")


# Repository on the hub: (model that it holds, function that breaks it, revision, severity, parts of the message).
ON_THE_HUB = {
    "whole": ("reward", leave_whole, None, "note", ["licence apache-2.0, not gated"]),
    "causal": ("policy", leave_whole, None, "error", ["the model has 2 logits, a reward model has one"]),
    "incomplete": ("reward", break_weights, None, "error", ["weights that the model needs are not in the file", "down_proj"]),
    "wide": ("reward", widen_head, None, "error", ["another shape", "score.weight [2, "]),
    "shardless": ("reward", lose_shard, None, "error", ["are incomplete", "lists model-00001-of-00001.safetensors, and the repository lacks this file"]),
    "cut": ("reward", truncate_weights, None, "error", ["are incomplete, these files are cut off: model.safetensors (", "choose a model or revision"]),
    "half": ("reward", cut_shard, None, "error", ["are incomplete, these files are cut off: model-00002-of-00002.safetensors ("]),
    "unweighed": ("reward", drop_weights, None, "error", ["cannot be read", "safetensors"]),
    "gated": ("reward", close_gate, None, "error", ["org/gated is gated, and your account has no access", "hf auth login"]),
    "unborn": ("reward", leave_whole, "v9", "error", ["org/unborn has no revision v9 on the hub", "correct `revision`"]),
    "absent": (None, None, None, "error", ["there is no model org/absent on the hub", "correct the hub id"]),
}  # fmt: skip


def write_parquet(folder):
    from datasets import Dataset

    Dataset.from_list([{"id": "1", "chat": {"prompt": "Hello"}, "kind": "a"}]).to_parquet(folder / "test.parquet")


def write_records(folder):
    """Records that are no plain mappings of the library."""
    from datasets import Dataset, Features, Json, Translation, Value
    from pyarrow.parquet import write_table

    features = {"id": Value("string"), "translation": Translation(["da", "en"]), "meta": {"more": Json()}}
    row = {"id": "1", "translation": {"da": "Hej", "en": "Hello"}, "meta": {"more": {"kind": "a"}}}
    write_table(Dataset.from_list([row], features=Features(features)).data.table, folder / "test.parquet")


def write_card(folder):
    """Rows that say nothing of the columns, and a card that does."""
    columns = "  - {name: id, dtype: string}\n  - {name: prompt, dtype: string}\n"
    splits = "  splits:\n  - {name: test, num_bytes: 9, num_examples: 1}\n"
    (folder / "README.md").write_text(f"---\ndataset_info:\n  features:\n{columns}{splits}---\n")
    write_rows(folder / "test.jsonl", [{"id": "1", "prompt": "Hello"}])


def write_rows_alone(folder):
    write_rows(folder / "test.jsonl", [{"id": "1", "prompt": "Hello"}])


COLUMNS_ARE = "it has id, chat, kind"
# Data sets on the hub: (function that writes it, keys of the config's row, severity or None, parts of the message).
DATASETS = {
    "parquet": (write_parquet, {"text": "chat.prompt", "where": {"kind": "a"}}, None, []),
    "column": (write_parquet, {"text": "chat.question"}, "error", ["no column chat.question (`text`)", COLUMNS_ARE]),
    "where": (write_parquet, {"text": "chat.prompt", "where": {"sort": "a"}}, "error", ["no column sort (`where`)"]),
    "records": (write_records, {"text": "translation.en", "where": {"meta.more.kind": "a"}}, None, []),
    "record": (write_records, {"text": "translation.de"}, "error", ["no column translation.de (`text`)"]),
    "busy": (lambda folder: (folder / BUSY).touch(), {"text": "prompt"}, "warning", ["the hub did not answer", "429"]),
    "default": (write_parquet, {}, "error", ["no column text (`text`)", COLUMNS_ARE]),
    "card": (write_card, {"text": "question", "reference": "answer"}, "error", ["no column question (`text`), answer (`reference`)", "it has id, prompt"]),
    "split": (write_card, {"text": "prompt", "split": "train"}, "error", ["no split train; it has test", "correct `split`"]),
    "subset": (write_card, {"text": "prompt", "subset": "xx"}, "error", ["'xx' not found", "correct `subset` in the config"]),
    "revision": (write_card, {"text": "prompt", "revision": "v9"}, "error", ["Revision 'v9' doesn't exist", "correct `revision` in the config"]),
    "mute": (write_rows_alone, {"text": "prompt"}, "note", ["the hub does not say its columns", "id, prompt"]),
    "closed": (close_gate, {"text": "prompt"}, "error", ["gated", "hf auth login"]),
    "aggregated": (None, {"text": "prompt"}, "error", ["doesn't exist on the Hub", "correct the dataset's id"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def examined_datasets(tmp_path_factory):
    """{name of DATASETS: what the examination says of it}, by one process that asks a hub, and the hub's cache."""
    folder = tmp_path_factory.mktemp("datasets")
    for name, (write, *_) in DATASETS.items():
        if write:
            served = folder / "served/datasets/org" / name
            served.mkdir(parents=True)
            write(served)
    rows = {name: {"use": "evaluate", "dataset": f"org/{name}", "split": "test", **row} for name, (_, row, *_) in DATASETS.items()}  # fmt: skip
    with serving(folder / "served") as address:
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(folder / "home")}
        command = [INTERPRETER, "-c", EXAMINE, json.dumps(rows)]
        done = subprocess.run(
            command, cwd=ROOT / "scripts", env={**ENVIRONMENT, **online}, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder / "home"


# Prints {name: [[severity, message], ...]} of rows of the config's prompts.
EXAMINE = """
import json, sys, time
from types import SimpleNamespace
from croco.examination.datasets import examine_datasets
from croco.grid import Grid
said = {}
time.sleep = lambda seconds: None  # before the hub is asked again
for name, row in json.loads(sys.argv[1]).items():
    config = {"prompts": [row], "source_language": "en", "evaluation": {"tasks": []}}
    grid = SimpleNamespace(config=config, prompts={"evaluate": row}, list_models=list, results="x", languages=["en"])
    grid.path = lambda text, **values: Grid.path(grid, text, **values)
    found = examine_datasets(grid)
    said[name] = [[finding.severity, f"{finding.where}: {finding.what} {finding.remedy}"] for finding in found]
print(json.dumps(said))
"""


@pytest.mark.parametrize("name", DATASETS)
def test_the_columns_of_a_dataset_on_the_hub_are_examined(examined_datasets, name):
    said, _ = examined_datasets
    _, _, severity, says = DATASETS[name]
    assert [found for found, _ in said[name]] == ([severity] if severity else []), said[name]
    assert not severity or all(part in said[name][0][1] for part in (f"prompts evaluate, org/{name}", *says)), said[
        name
    ]


def test_no_rows_are_fetched(examined_datasets):
    _, home = examined_datasets
    assert list(home.rglob("README.md")) and not [
        *home.rglob("*.parquet"),
        *home.rglob("*.jsonl"),
        *home.rglob("*.arrow"),
    ]


@pytest.fixture(scope="module")
def hub_report(good, tmp_path_factory):
    """What the doctor says of a config whose reward models are those of ON_THE_HUB, and the hub's cache after it."""
    folder = tmp_path_factory.mktemp("hub")
    config = json.loads(json.dumps(good[1]))
    for name, (model, change, revision, *_) in ON_THE_HUB.items():
        row = {"name": name, "path": f"org/{name}", "max_length": 128}
        config["reward_models"].append(row | ({"revision": revision} if revision else {}))
        if model:
            change(shutil.copytree(good[0] / model, folder / "served/models/org" / name))
    with serving(folder / "served") as address, pytest.MonkeyPatch.context() as patch:
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(folder / "home")}
        for name, value in online.items():
            patch.setitem(ENVIRONMENT, name, value)
        return doctor(folder, config), folder / "home"


@pytest.mark.parametrize("name", ON_THE_HUB)
def test_a_model_on_the_hub_is_examined(hub_report, name):
    done, _ = hub_report
    *_, severity, says = ON_THE_HUB[name]
    (said,) = [part for part in f"\n{done.stdout}".split(f"\n{severity}: ") if part.startswith(f"reward {name}: ")]
    assert done.returncode == 1 and not done.stderr.count("Traceback")
    assert all(part in said for part in says), said
    assert ("Shows in: score" in said) == (severity == "error")


def test_the_doctor_fetches_no_weights(hub_report):
    _, home = hub_report
    assert list(home.rglob("config.json")) and not list(home.rglob("*.safetensors"))


def test_a_hub_that_cannot_be_reached_is_tried_once(good, tmp_path):
    (tmp_path / "cache").mkdir()
    config = json.loads(json.dumps(good[1]))
    config["reward_models"] += [{"name": name, "path": f"org/{name}", "max_length": 128} for name in ("one", "two")]
    config["prompts"][1] = {"use": "evaluate", "dataset": "org/rows", "subset": "{language}", "limit": 6}
    with serving(tmp_path) as closed:
        pass
    secret = closed.replace("//", "//me:hunter2@")
    online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": secret, "HF_HOME": str(tmp_path / "cache")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in online.items():
            patch.setitem(ENVIRONMENT, name, value)
        done = doctor(tmp_path, config)
    assert f"warning: {closed}: the hub cannot be reached" in done.stdout and "hunter2" not in done.stdout
    assert done.returncode == 1 and done.stdout.count("cannot be reached") == 1 and "Retrying" not in done.stderr
    examined = ("reward one", "reward two", "prompts evaluate, org/rows, subset de")
    assert all(f"{where}: " in done.stdout for where in examined)


@pytest.mark.parametrize(
    ("header", "licence"),
    [("license: mit", "mit"), ("license: mit: x", "none stated"), ("- mit", "none stated"), ("{{x}}", "none stated")],
)
def test_the_licence_of_a_cached_card(tmp_path, monkeypatch, header, licence):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--x"
    for name, text in (("refs/main", COMMIT), (f"snapshots/{COMMIT}/README.md", f"---\n{header}\n---\n# A model\n")):
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text(text)
    (found,) = examine_cached_card(Used("policy", {"name": "x"}, "org/x"))
    assert (found.severity, found.what) == ("note", f"org/x: licence {licence}")


def test_credentials_of_the_hubs_address_are_not_shown(monkeypatch):
    def fail(*_, **__):
        raise HTTPError("503 Server Error for url: http://me:hunter2@mirror/api/models/org/x?sig=hunter2")

    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    monkeypatch.setattr("huggingface_hub.model_info", fail)
    (found,) = examine_repository(Used("policy", {"name": "x"}, "org/x"))
    assert found.what.endswith("503 Server Error for url: http://mirror/api/models/org/x")


def test_the_memory_of_jobs_follows_the_formulas(good):
    """A Llama of 8 billion parameters in bfloat16, with numbers worked out by hand."""
    from transformers import LlamaConfig

    llama = LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8)
    assert count_cache(llama, "bfloat16", 4096, 64) == pytest.approx(34.36, abs=0.01)
    row, reward = {"dtype": "bfloat16"}, {"dtype": "bfloat16", "size": 8}
    lora, full = {"weights": "lora"}, {"weights": "full"}
    assert estimate_training(lora, "dpo", row, reward, 8e9, 42e6).fixed == pytest.approx(16.67, abs=0.01)
    assert estimate_training(full, "dpo", row, reward, 4e9, 0).fixed == pytest.approx(80)
    assert estimate_training(full, "sft", row, reward, 4e9, 0).fixed == pytest.approx(64)
    adafactor = {"optimizer": "adafactor"}
    assert estimate_training(full | adafactor, "dpo", row, reward, 4e9, 0).fixed == pytest.approx(48)
    assert estimate_training(full | adafactor, "sft", row, reward, 4e9, 0).fixed == pytest.approx(32)
    assert estimate_training(lora | adafactor, "dpo", row, reward, 8e9, 42e6).fixed == pytest.approx(16.34, abs=0.01)
    assert estimate_training(lora, "online_dpo", row, reward, 8e9, 42e6).fixed == pytest.approx(32.67, abs=0.01)


@pytest.mark.parametrize(
    ("kind", "options", "numbers"),
    [
        # 4 heads: of 512 in each sixth layer, whose cache has all tokens; of 256 in the others, with a window.
        ("gemma4", {}, 2 * 4 * (5 * 512 * 4096 + 25 * 256 * 512)),
        # The last 15 of 35 layers share the cache of others.
        ("gemma3n", {}, 2 * 2 * 256 * (4 * 4096 + 16 * 512)),
        # Linear attention in all but each fourth layer.
        ("qwen3_5_moe", {}, 2 * 2 * 256 * 10 * 4096),
        ("deepseek_v3", {"split": 2, "is_latent": True}, 2 * 61 * (512 + 64) * 4096),
        ("mistral", {}, 2 * 8 * 128 * 32 * 256),
        ("mistral", {"split": 16, "bits": 8}, 2 * 16 * 128 * 32 * 256 / 2),
    ],
)
def test_the_cache_of_layers_that_differ(kind, options, numbers):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[kind](**({"sliding_window": 256} if kind == "mistral" else {}))
    assert count_cache(config, "bfloat16", 4096, 1, **options) == pytest.approx(2 * numbers / 1e9)
    assert count_activations(config, {"weights": "lora"}, "dpo") > 0


@pytest.mark.parametrize(
    ("quantized", "options", "bits"),
    [
        (None, {}, 16),
        ({"quant_method": "awq", "bits": 4}, {}, 4),
        ({"quant_method": "gptq", "bits": 8}, {}, 8),
        ({"quant_method": "fp8"}, {}, 8),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, {}, 8),
        ({"quant_method": "new"}, {}, 16),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}}, {}, 8),
        ({"quant_method": "modelopt", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}}, {}, 4),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}},
            },
            {},
            8,
        ),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": None}}}, {}, 16),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, {}, 8),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, {}, 4),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"}, {}, 4),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, {}, 16),
        (None, {"quantization": "fp8"}, 8),
    ],
)
def test_quantized_weights_have_fewer_bits(quantized, options, bits):
    from transformers import LlamaConfig

    config = LlamaConfig(**({"quantization_config": quantized} if quantized else {}))
    assert count_weight_bits({"dtype": "float16", "engine_options": options}, config) == bits


@pytest.mark.parametrize(
    ("sizes", "visible", "found"),
    [
        (["81920 MiB", "40960 MiB"], None, (40, 2)),
        (["[N/A]"], None, (None, 1)),
        (["81920 MiB", "[N/A]"], None, (None, 2)),
        ([], None, (None, 0)),
        (["81920 MiB", "40960 MiB"], "0", (80, 1)),
        (["81920 MiB", "40960 MiB"], "GPU-1,0,GPU-1", (40, 2)),
        (["81920 MiB", "40960 MiB"], "0,-1,1", (80, 1)),
        (["81920 MiB", "40960 MiB"], "", (None, 0)),
        (["81920 MiB"], "MIG-a,MIG-b", (None, 2)),
    ],
)
def test_gpus_by_what_nvidia_smi_prints_and_the_job_sees(tmp_path, monkeypatch, sizes, visible, found):
    command, lines = tmp_path / "nvidia-smi", [f"{i}, GPU-{i}a, {size}" for i, size in enumerate(sizes)]
    command.write_text("\n".join(["#!/bin/sh", *(f"echo '{line}'" for line in lines), ""]), encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert find_gpus() == found


# Peak memory of a DPO step on an H200, in MiB, and the tokens of the longest row (tests/benchmarks/dpo_step.py).
@pytest.mark.parametrize(
    ("hidden", "inner", "layers", "heads", "tokens", "measured"),
    [(2048, 5632, 24, 16, 3866, 5546), (4096, 12288, 42, 32, 3693, 23168)],
)
def test_the_memory_of_a_training_is_close_to_what_was_measured(hidden, inner, layers, heads, tokens, measured):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128000, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=8,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    recipe, row = {"weights": "lora", "max_length": tokens}, {"dtype": "bfloat16"}
    need = estimate_training(
        recipe, "dpo", row, {}, sum(weight.numel() for weight in model.parameters()), count_adapter(model, recipe),
        count_activations(config, recipe, "dpo"),
    )  # fmt: skip
    assert 1 <= (need.fixed + need.cache) * 1e9 / (measured * 2**20) < 1.15


def test_a_training_and_a_cache_that_do_not_fit(good, tmp_path):
    config = json.loads(json.dumps(good[1]))
    config["policies"][0] |= {"size": 3, "dtype": "bfloat16"}
    config["recipes"][0] |= {"weights": "full"}
    done = doctor(tmp_path, config, "--gpus", 1, "--gpu-memory", 24)
    assert done.returncode == 1
    assert (
        "error: policy mini, recipe dpo: the training of one GPU takes 60 GB in float32 and its activations up to "
        "0.602 GB, on 1 GPUs of 24 GB" in done.stdout
    )
    assert "note: policy mini: its weights take 6 GB in bfloat16" in done.stdout
    done = doctor(tmp_path, config, "--gpus", 1, "--gpu-memory", 80)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("text", "rows_of", "says"),
    [
        (None, [], ["not a task of lm-eval", "no.yaml"]),
        ("doc_to_text: '{{question}}'\n", [{"query": "Why?"}], ["no row has the field question", "facts.jsonl"]),
    ],
)
def test_a_task_that_cannot_be_read(good, tmp_path, text, rows_of, says):
    config = json.loads(json.dumps(good[1]))
    task = tmp_path / "no.yaml"
    if text:
        task.write_text(text)
    data = write_rows(tmp_path / "facts.jsonl", rows_of)
    config["evaluation"]["tasks"] = [{"name": "facts", "yaml": str(task), "data": str(data), "languages": ["en"]}]
    done = doctor(tmp_path, config)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and all(part in said for part in says) and "Traceback" not in said, said
    assert "error: task facts: " in said and "Shows in: evaluate" in said


def test_the_whole_of_contaminated_prompts_is_an_error(good, tmp_path):
    config = json.loads(json.dumps(good[1]))
    config["prompts"][0]["path"] = config["prompts"][1]["path"]
    del config["prompts"][0]["limit"]
    done = doctor(tmp_path, config)
    assert done.returncode == 1 and "are evaluation prompts" in done.stdout, done.stdout + done.stderr
    done = doctor(tmp_path, config | {"contamination": "remove"})
    assert done.returncode == 0 and "are evaluation prompts" not in done.stdout, done.stdout + done.stderr


def test_a_limit_on_either_use_may_leave_contaminated_prompts_out(good, tmp_path):
    """One of eight prompts is in both files; eight evaluation prompts cannot leave it out."""
    for code in ("en", "de"):
        for use, first in (("train", 0), ("evaluate", 7)):
            table = [{"id": f"q{i}", "text": f"{code}: what is {i}?"} for i in range(first, first + 8)]
            write_rows(tmp_path / f"{use}.{code}.jsonl", table)
    for limits, code in (({}, 1), ({"train": 4}, 0), ({"evaluate": 7}, 0), ({"evaluate": 8}, 1)):
        prompts = [
            {"use": use, "path": str(tmp_path / f"{use}.{{language}}.jsonl")}
            | ({"limit": limits[use]} if use in limits else {})
            for use in ("train", "evaluate")
        ]
        done = doctor(tmp_path, good[1] | {"prompts": prompts})
        assert done.returncode == code, done.stdout + done.stderr
        assert "1 of 8 training prompts in en are evaluation prompts (q7)" in done.stdout


def test_one_file_that_where_splits_is_not_contaminated(good, tmp_path):
    table = [{"id": f"q{i}", "text": f"What is {i}?", "part": ("train", "test")[i % 2]} for i in range(12)]
    write_rows(tmp_path / "all.en.jsonl", table)
    write_rows(tmp_path / "all.de.jsonl", [{"id": row["id"], "text": f"Was ist {row['id']}?"} for row in table])
    prompts = [
        {"use": use, "path": str(tmp_path / "all.{language}.jsonl"), "where": {"part": part}}
        for use, part in (("train", "train"), ("evaluate", "test"))
    ]
    done = doctor(tmp_path, good[1] | {"prompts": prompts})
    assert done.returncode == 0 and "are evaluation prompts" not in done.stdout, done.stdout + done.stderr


def test_a_translator_whose_template_does_not_fit(good, tmp_path):
    """The template writes nothing of a request in parts, as TranslateGemma's own format sends it."""
    config = json.loads(json.dumps(good[1]))
    row = {"name": "gemma", "path": str(good[0] / "policy"), "format": "translategemma", "max_tokens": 64}
    config["translators"] = [row]
    for prompts in config["prompts"]:
        prompts |= {"path": prompts["path"].format(language="en"), "translator": "gemma"}
    done = doctor(tmp_path, config)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "translator gemma: format_does_not_fit" in said, said


def test_a_file_system_without_locks_and_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    found = list(examine_file_system(tmp_path))
    assert [finding.severity for finding in found] == ["warning"]
    assert "no flock" in found[0].what and "mount with -o flock" in found[0].remedy and found[0].when == "all stages"
    assert not list(tmp_path.iterdir())


def test_nothing_is_sampled_while_a_model_of_a_later_stage_is_broken(good, tmp_path):
    """A judge without weights fails its check; with --keep-going all that does not wait for the checks runs."""
    config = json.loads(json.dumps(good[1]))
    judge = shutil.copytree(good[0] / "policy", tmp_path / "judge")
    break_weights(judge)
    config["judges"] = [{"name": "broken", "path": str(judge), "max_length": 128}]
    config["evaluation"]["judge"] = "broken"
    config["results"] = "results/broken"
    project = copy_project(tmp_path)
    (project / "my.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(project, "--cores", 2, "--keep-going", "--configfile", "my.yaml", check=False)
    results = project / "results/broken"
    assert done.returncode == 1 and "weights that the model needs are not in the file" in done.stdout + done.stderr
    assert (results / "mini/template.json").is_file() and list(results.glob("prompts/*/*.jsonl"))
    assert not list(results.rglob("generations*")) and not (results / "templates/models.json").exists()
    shutil.copyfile(good[0] / "policy/model.safetensors", judge / "model.safetensors")
    snakemake(project, "--cores", 2, "--configfile", "my.yaml", "--until", "check_models")
    assert json.loads((results / "templates/models.json").read_text())["errors"] == 0
