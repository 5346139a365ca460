"""scripts/train.py with TRL and PEFT on a real tiny policy: recipes, kill -9, processes, full memory and disk, guards."""

import inspect
import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from conftest import ENVIRONMENT, ROOT, rows, script, start, with_settings, write_rows

from croco.errors import InputError
from croco.models.chats import digest_tokens
from croco.state import list_checkpoint_files
from croco.training import process
from croco.training.encode import hold_out
from croco.training.online_pairs import OnlinePairs, choose
from croco.training.resume import newest_whole_checkpoint

COUNT = 24


def chat(role, text):
    return [{"role": role, "content": text}]


def pair(number, chosen, rejected):
    prompt = chat("user", f"What is {number} plus 1?")
    return {
        "prompt_id": f"p{number}",
        "prompt": prompt,
        "chosen": chat("assistant", chosen),
        "rejected": chat("assistant", rejected),
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    pairs = [pair(i, f"It is {i + 1}.", "... no") for i in range(COUNT)]
    completions = [
        {"prompt_id": p["prompt_id"], "prompt": p["prompt"], "completion": p["chosen"], "reward": None} for p in pairs
    ]
    # No multiple of processes and batch.
    prompts = [{"prompt_id": p["prompt_id"], "prompt": p["prompt"]} for p in pairs[:17]]
    return {
        "dpo": write_rows(folder / "pairs.jsonl", pairs),
        "sft": write_rows(folder / "completions.jsonl", completions),
        "online_dpo": write_rows(folder / "prompts.jsonl", prompts),
    }


def arguments(miniature, data, folder, objective, *options):
    return [
        "--objective", objective, "--data", data[objective], "--model", miniature / "policy", "--learning-rate", "1e-3",
        "--epochs", 3, "--batch", 8, "--micro-batch", 4, "--max-length", 128, "--save-every", 2,
        "--state", folder / "state", "--output", folder / "checkpoint", *options,
    ]  # fmt: skip


def adapter(folder):
    return (folder / "checkpoint" / "adapter_model.safetensors").read_bytes()


def manifest(folder):
    return json.loads((folder / "checkpoint" / "manifest.json").read_text())


def metrics(folder):
    return rows(folder / "checkpoint" / "metrics.jsonl")


def find_work(folder):
    return next(folder.glob("state/training/*/work"))


def train_until(step, folder, command):
    """Starts a training, kills it as soon as it begins to write this step's checkpoint; nothing of it survives."""
    process = start("train", *command)
    deadline = time.monotonic() + 240
    while not list(folder.glob(f"state/training/*/work/checkpoint-{step}")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert family
    wait_for_end(family)
    assert not (folder / "checkpoint").exists()


def wait_for_end(family):
    deadline = time.monotonic() + 20
    while any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in family):
        assert time.monotonic() < deadline, "a training process outlives its starter"
        time.sleep(0.05)


def start_within(kind, limit, command, stderr=subprocess.PIPE, **environment):
    """The starter under a limit of the kernel that its processes inherit."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *map(str, command)],
        env={**ENVIRONMENT, **environment},
        preexec_fn=lambda: resource.setrlimit(kind, (limit, limit)),
        stderr=stderr,
        text=True,
    )


def train_within(kind, limit, command, **environment):
    process = start_within(kind, limit, command, **environment)
    _, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, None, stderr)


def assert_error(done, *said):
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert all(words in done.stderr for words in said), done.stderr
    assert len(re.findall("^error: ", done.stderr, re.MULTILINE)) == 1, "one message, whatever the number of processes"


@pytest.fixture(scope="module")
def undisturbed(miniature, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dpo")
    script("train", *arguments(miniature, data, folder, "dpo"))
    return folder


@pytest.fixture(scope="module")
def killed(miniature, data, tmp_path_factory):
    """A training that was killed while it wrote the checkpoint of step 4."""
    folder = tmp_path_factory.mktemp("killed")
    train_until(4, folder, arguments(miniature, data, folder, "dpo"))
    return folder


TWO = ("--processes", 2, "--lora-dropout", 0)


@pytest.fixture(scope="module")
def two(miniature, data, tmp_path_factory):
    """Trained in two processes, without dropout, whose draws would differ from those of one."""
    folder = tmp_path_factory.mktemp("two")
    script("train", *arguments(miniature, data, folder, "dpo", *TWO))
    return folder


@pytest.fixture(scope="module")
def killed_two(miniature, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed_two")
    train_until(4, folder, arguments(miniature, data, folder, "dpo", *TWO))
    return folder


def test_dpo_checkpoint_is_whole_and_its_margin_grows(undisturbed):
    from safetensors.torch import load_file

    names = {path.name for path in (undisturbed / "checkpoint").iterdir()}
    assert {
        "adapter_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "manifest.json",
    } <= names
    lines = metrics(undisturbed)
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert lines[0]["rewards_margins"] == 0 < lines[-1]["rewards_margins"]
    weights = load_file(undisturbed / "checkpoint" / "adapter_model.safetensors")
    assert any(tensor.abs().sum() > 0 for name, tensor in weights.items() if "lora_B" in name)
    assert len(weights) == 2 * 7 * 2, "two matrices for each of seven projections in two layers"
    facts = manifest(undisturbed)
    assert facts["counts"] == {
        "rows": COUNT, "trained": COUNT, "dropped": {}, "truncated": 0, "compared": 0, "token_mismatches": 0,
        "validation": 0, "steps": 9,
    }  # fmt: skip
    assert facts["rows_seen"] == {"sum": 3 * COUNT, "repeats": 0}
    assert facts["runs"] == [{"from_step": 0, "processes": 1, "micro_batch": 4}]
    assert facts["tokens"] > 0 and 0 <= facts["padding_share"] < 1 and facts["best_checkpoint"] is None


def test_kills_and_torn_checkpoints_change_no_byte(miniature, data, tmp_path, killed, undisturbed):
    shutil.copytree(killed / "state", tmp_path / "state")
    work = find_work(tmp_path)
    for step in (100, 102):  # newer ones that are torn are not taken, and do not push whole ones out
        shutil.copytree(work / "checkpoint-2", work / f"checkpoint-{step}")
        os.truncate(work / f"checkpoint-{step}" / "optimizer.pt", 100)
    command = arguments(miniature, data, tmp_path, "dpo")
    train_until(8, tmp_path, command)
    done = script("train", *command)
    assert re.search("resuming from .*/checkpoint-[68]$", done.stderr, re.MULTILINE)
    assert adapter(tmp_path) == adapter(undisturbed) and metrics(tmp_path) == metrics(undisturbed)
    assert len(manifest(tmp_path)["runs"]) == 3
    for name in ("rows_seen", "tokens", "padding_share", "counts"):
        assert manifest(tmp_path)[name] == manifest(undisturbed)[name]


def test_kill_while_processes_start_leaves_none(miniature, data, tmp_path):
    process = start("train", *arguments(miniature, data, tmp_path, "dpo", *TWO))
    family = []
    while len(family) < 3:  # what starts the others, and the first two
        assert process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    wait_for_end(family)


def test_start_from_the_round_before_resumes(miniature, data, tmp_path, undisturbed):
    folders = [tmp_path / "a", tmp_path / "b"]
    commands = [arguments(miniature, data, f, "dpo", "--start", undisturbed / "checkpoint") for f in folders]
    script("train", *commands[0])
    train_until(4, folders[1], commands[1])
    assert "resuming from" in script("train", *commands[1]).stderr
    assert adapter(folders[0]) == adapter(folders[1]) != adapter(undisturbed)
    assert metrics(folders[0]) == metrics(folders[1])
    first, second = metrics(undisturbed), metrics(folders[0])
    # But for dropout, which the reference has none of, policy and reference are one.
    assert second[0]["loss"] == pytest.approx(math.log(2), abs=0.05) and first[-1]["loss"] < 0.6
    assert second[0]["logps_chosen"] > first[0]["logps_chosen"], "goes on from where the round before ended"


def test_online_dpo_resumes(miniature, data, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    online = ("--reward-model", miniature / "reward", "--max-tokens", 16, "--epochs", 2)
    commands = [arguments(miniature, data, folder, "online_dpo", *online) for folder in folders]
    script("train", *commands[0])
    train_until(4, folders[1], commands[1])
    assert "resuming from" in script("train", *commands[1]).stderr
    assert adapter(folders[0]) == adapter(folders[1]) and metrics(folders[0]) == metrics(folders[1])
    assert manifest(folders[1])["rows_seen"] == {"sum": 34, "repeats": 0}


def test_online_dpo_samples_and_scores_as_the_stages_do(miniature, data, tmp_path):
    """Neither settings that come with the policy nor the reward model's pad token move a step; the checkpoint keeps both."""
    policy = with_settings(miniature / "policy", tmp_path / "policy", {"repetition_penalty": 1.8, "min_new_tokens": 9})
    reward = tmp_path / "reward"
    shutil.copytree(miniature / "reward", reward)
    config = json.loads((reward / "config.json").read_text())
    (reward / "config.json").write_text(json.dumps(config | {"pad_token_id": 5}))
    for name, model, scorer in (("plain", miniature / "policy", miniature / "reward"), ("patched", policy, reward)):
        online = ("--model", model, "--reward-model", scorer, "--max-tokens", 16, "--epochs", 1)
        script("train", *arguments(miniature, data, tmp_path / name, "online_dpo", *online))
    assert metrics(tmp_path / "patched") == metrics(tmp_path / "plain")
    saved = json.loads((tmp_path / "patched" / "checkpoint" / "generation_config.json").read_text())
    assert saved["repetition_penalty"] == 1.8 and saved["min_new_tokens"] == 9


def test_online_dpo_takes_no_reward_of_forged_or_refused_chats(miniature, data, tmp_path):
    """As offline: such an answer has none, and two of them are no pair; the others' rewards are as they were."""
    from transformers import AutoTokenizer

    reward = tmp_path / "reward"
    shutil.copytree(miniature / "reward", reward)
    tokenizer = AutoTokenizer.from_pretrained(reward)
    tokenizer.add_special_tokens({"additional_special_tokens": ["7 plus"]})
    tokenizer.chat_template = (
        "{% if '5 plus' in messages[0].content %}{{ raise_exception('no') }}{% endif %}" + tokenizer.chat_template
    )
    tokenizer.save_pretrained(reward)
    for name, scorer in (("plain", miniature / "reward"), ("patched", reward)):
        online = ("--reward-model", scorer, "--max-tokens", 16, "--epochs", 1, "--learning-rate", 1e-30)
        script("train", *arguments(miniature, data, tmp_path / name, "online_dpo", *online))
    plain, patched = (manifest(tmp_path / name)["counts"] for name in ("plain", "patched"))
    assert plain["no_reward"] == 0 and patched["no_reward"] == 2 * 3  # the questions of 7, 5 and 15
    assert plain["no_pair"] <= patched["no_pair"] <= plain["no_pair"] + 3 and patched["no_pair"] >= 3
    assert [line["no_reward"] for line in metrics(tmp_path / "patched") if "no_reward" in line]
    assert all(math.isfinite(line["objective/scores"]) for line in metrics(tmp_path / "patched"))


def test_online_dpo_stops_where_the_stages_do_and_logs_their_rewards(miniature, data, tmp_path):
    """Of the answers that are all but certain the scores are known; stop tokens may stand in config.json alone."""
    import torch

    from croco.models.transformers_engine import Policy, RewardModel

    # The miniature's policy has learnt too little to be certain of a word.
    script(
        "train",
        *arguments(
            miniature, data, tmp_path / "taught", "sft", "--weights", "full", "--epochs", 8, "--learning-rate", 0.01
        ),
    )
    policy = tmp_path / "taught" / "checkpoint"
    chats = [
        line["prompt"] + chat("assistant", "It is so.") * (i % 2) + line["prompt"] * (i % 2)
        for i, line in enumerate(rows(data["online_dpo"]))
    ]
    asking = {
        "online_dpo": write_rows(
            tmp_path / "asked.jsonl", [{"prompt_id": f"p{i}", "prompt": c} for i, c in enumerate(chats)]
        )
    }

    def answer():
        model = Policy(policy)
        return [r["text"] for r in model.respond([model.encode(c) for c in chats], [0] * len(chats), 0, 1.0, 16)]

    before, known = answer(), Policy(policy)
    first = torch.tensor([known.encode(chats[0])])
    further = known.model.generate(first, max_new_tokens=2, do_sample=False)[0, -1].item()  # an ordinary token
    for name, change in (
        ("generation_config.json", {"eos_token_id": None}),
        ("config.json", {"eos_token_id": [further]}),
    ):
        known = json.loads((policy / name).read_text()) | change
        (policy / name).write_text(json.dumps({key: value for key, value in known.items() if value is not None}))
    asked = list(zip(chats, answer(), strict=True))
    assert [text for _, text in asked] != before
    whole = RewardModel(miniature / "reward")
    longest = sorted(len(whole.encode(*one)[0]) for one in asked)[len(asked) // 2]
    rewards = [reward for reward, _ in RewardModel(miniature / "reward", max_length=longest).score(asked)]
    known = [reward for reward in rewards if reward is not None]
    online = (
        "--model",
        policy,
        "--reward-model",
        miniature / "reward",
        "--reward-max-length",
        longest,
        "--top-p",
        "1e-6",
    )
    sizes = ("--max-tokens", 16, "--epochs", 1, "--batch", 20)
    script("train", *arguments(miniature, asking, tmp_path, "online_dpo", *online, *sizes))
    (line,) = metrics(tmp_path)
    assert line["objective/scores"] == pytest.approx(sum(known) / len(known), abs=1e-5)
    assert line["no_reward"] == 2 * (len(rewards) - len(known)) and 0 < len(known) < len(rewards)
    assert line["no_pair"] == len(rewards) == manifest(tmp_path)["counts"]["no_pair"], "two equal answers are no pair"
    saved = json.loads((tmp_path / "checkpoint" / "generation_config.json").read_text())
    assert saved.get("pad_token_id") == json.loads((policy / "generation_config.json").read_text()).get("pad_token_id")


def test_reward_model_with_several_logits_is_an_error_before_training(miniature, data, tmp_path):
    shutil.copytree(miniature / "reward", tmp_path / "reward")
    path = tmp_path / "reward" / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}})
    )
    command = arguments(
        miniature, data, tmp_path, "online_dpo", "--reward-model", tmp_path / "reward", "--max-tokens", 16
    )
    done = script("train", *command, check=False)
    assert_error(done, "the model has 2 logits, a reward model has one")
    assert "training from the start" not in done.stderr


def test_online_dpo_in_two_processes_sees_every_prompt(miniature, data, tmp_path):
    online = ("--reward-model", miniature / "reward", "--max-tokens", 16, "--epochs", 1, "--processes", 2)
    script("train", *arguments(miniature, data, tmp_path, "online_dpo", *online))
    # 17 prompts fill four micro-batches of 4 and one of 1; what fills the last ones up weighs nothing.
    assert manifest(tmp_path)["rows_seen"] == {"sum": 17, "repeats": 0}
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2, 3]


def test_training_processes_find_packages_where_this_one_does(tmp_path, monkeypatch):
    import train

    started = tmp_path / "started"
    (tmp_path / "sitecustomize.py").write_text(f"open({str(started)!r}, 'w').close()", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert train.run_processes(tmp_path / "no job.json") != 0
    assert started.exists()


def train_here(monkeypatch, options):
    """Trains in this process, so that a test can watch the calls of generate."""
    import train

    def run(path):
        job = process.read_job(path)
        process.save_examples(job)
        process.train(job)
        return 0

    monkeypatch.setattr(train, "run_processes", run)
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, options)])
    train.main()


@pytest.mark.parametrize(("generation_batch", "calls"), [(None, [8, 8, 1]), (5, [4, 4, 4, 4, 1]), (2, [2] * 8 + [1])])
def test_online_dpo_samples_several_micro_batches_per_call(
    miniature, data, tmp_path, monkeypatch, generation_batch, calls
):
    """Each micro-batch gets the responses to its own prompts, two per prompt, and the same ones whatever the grouping."""
    from transformers import GenerationMixin

    sampled, generate = [], GenerationMixin.generate
    asked, rate = [], OnlinePairs._rate_answers
    parts, weigh = [], OnlinePairs._sum_log_probabilities

    def watch_generate(self, **options):
        sampled.append(len(options["input_ids"]) // 2)
        return generate(self, **options)

    def watch_parts(self, model, ids):
        parts.append([self.processing_class.decode(row[mask.bool()]) for row, mask in zip(*ids[:2], strict=True)])
        assert all(mask.any(0).all() for mask in (ids[1], ids[3])), "no column holds padding only"
        return weigh(self, model, ids)

    def watch_prompts(self, prompts, ids, mask):
        asked.append(
            [self.processing_class.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in prompts]
        )
        assert len(ids) == 2 * len(prompts)
        return rate(self, prompts, ids, mask)

    monkeypatch.setattr(GenerationMixin, "generate", watch_generate)
    monkeypatch.setattr(OnlinePairs, "_sum_log_probabilities", watch_parts)
    monkeypatch.setattr(OnlinePairs, "_rate_answers", watch_prompts)
    # With the likeliest token always, no pair is formed and no draw differs.
    online = ["--reward-model", miniature / "reward", "--max-tokens", 16, "--epochs", 1, "--micro-batch", 2]
    online += ["--top-p", 1e-6, *(["--generation-batch", generation_batch] if generation_batch else [])]
    train_here(monkeypatch, arguments(miniature, data, tmp_path, "online_dpo", *online))
    assert sampled == calls
    assert parts == [2 * prompts for prompts in asked] and [len(prompts) for prompts in asked] == [2] * 8 + [1]
    alone = tmp_path / "alone"
    train_here(
        monkeypatch, arguments(miniature, data, alone, "online_dpo", *online, "--generation-batch", 2, "--seed", 0)
    )
    scores = [[line["objective/scores"] for line in metrics(folder)[:3]] for folder in (tmp_path, alone)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_memory_that_sampling_lacks_makes_smaller_calls(miniature, data, tmp_path, monkeypatch, capsys):
    import torch
    from transformers import GenerationMixin

    sampled, generate = [], GenerationMixin.generate

    def fill_memory(self, **options):
        prompts = len(options["input_ids"]) // 2
        if prompts > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        sampled.append(prompts)
        return generate(self, **options)

    monkeypatch.setattr(GenerationMixin, "generate", fill_memory)
    online = ("--reward-model", miniature / "reward", "--max-tokens", 16, "--epochs", 1)
    train_here(monkeypatch, arguments(miniature, data, tmp_path, "online_dpo", *online))
    assert sampled == [4, 4, 4, 4, 1]
    assert "8 prompts were sampled in one call: going on with 4" in capsys.readouterr().err
    assert manifest(tmp_path)["rows_seen"] == {"sum": 17, "repeats": 0}


def test_two_processes_train_as_one_does(miniature, data, tmp_path, two):
    script("train", *arguments(miniature, data, tmp_path, "dpo", "--lora-dropout", 0))
    assert [line["loss"] for line in metrics(two)] == pytest.approx([e["loss"] for e in metrics(tmp_path)], abs=1e-5)
    assert manifest(two)["rows_seen"] == manifest(tmp_path)["rows_seen"] == {"sum": 3 * COUNT, "repeats": 0}
    assert manifest(two)["tokens"] == manifest(tmp_path)["tokens"]


def test_two_killed_processes_resume_to_the_same_bytes(miniature, data, tmp_path, killed_two, two):
    shutil.copytree(killed_two / "state", tmp_path / "state")
    assert "resuming from" in script("train", *arguments(miniature, data, tmp_path, "dpo", *TWO)).stderr
    assert adapter(tmp_path) == adapter(two) and metrics(tmp_path) == metrics(two)
    assert manifest(tmp_path)["tokens"] == manifest(two)["tokens"]


def test_other_processes_and_micro_batches_resume(miniature, data, tmp_path, killed_two, two):
    shutil.copytree(killed_two / "state", tmp_path / "state")
    step = int(newest_whole_checkpoint(find_work(tmp_path)).name.split("-")[1])
    other = (*TWO, "--processes", 1, "--micro-batch", 2)
    assert "resuming from" in script("train", *arguments(miniature, data, tmp_path, "dpo", *other)).stderr
    assert [line["loss"] for line in metrics(tmp_path)] == pytest.approx([e["loss"] for e in metrics(two)], abs=1e-5)
    facts = manifest(tmp_path)
    assert facts["runs"] == [
        {"from_step": 0, "processes": 2, "micro_batch": 4},
        {"from_step": step, "processes": 1, "micro_batch": 2},
    ]
    assert facts["rows_seen"] == {"sum": 3 * COUNT, "repeats": 0}


def test_other_recipe_does_not_resume_and_says_what_changed(miniature, data, tmp_path, killed, undisturbed):
    shutil.copytree(killed / "state", tmp_path / "state")
    done = script("train", *arguments(miniature, data, tmp_path, "dpo", "--beta", 0.3, "--epochs", 1))
    assert "not resuming" in done.stderr and "training from the start" in done.stderr
    assert "beta: 0.1 -> 0.3" in done.stderr and "epochs: 3.0 -> 1.0" in done.stderr
    assert "seed:" not in done.stderr
    assert manifest(tmp_path)["runs"] == [{"from_step": 0, "processes": 1, "micro_batch": 4}]


KINDS = ("optimizer.pt", "scheduler.pt", "trainer_state.json", "adapter_model.safetensors")


@pytest.mark.parametrize("damage", ["cut", "missing"])
@pytest.mark.parametrize(
    ("processes", "name"),
    [(1, name) for name in (*KINDS, "rng_state.pth", "progress_0.json")]
    + [(2, name) for name in ("rng_state_0.pth", "rng_state_1.pth", "progress_0.json", "progress_1.json")],
)
def test_torn_checkpoint_is_skipped(request, tmp_path, processes, name, damage):
    whole = newest_whole_checkpoint(find_work(request.getfixturevalue("killed" if processes == 1 else "killed_two")))
    for step in (9, 10):
        shutil.copytree(whole, tmp_path / f"checkpoint-{step}")
    assert newest_whole_checkpoint(tmp_path).name == "checkpoint-10"
    torn = tmp_path / "checkpoint-10" / name
    if damage == "cut":
        os.truncate(torn, torn.stat().st_size // 2)
    else:
        torn.unlink()
    assert newest_whole_checkpoint(tmp_path).name == "checkpoint-9"


class Attack:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_that_holds_code_is_skipped_and_not_run(killed, tmp_path, name):
    import torch

    whole = newest_whole_checkpoint(find_work(killed))
    for step in (9, 10):
        shutil.copytree(whole, tmp_path / f"checkpoint-{step}")
    torch.save({"state": Attack(tmp_path / "attacked")}, tmp_path / "checkpoint-10" / name)
    assert newest_whole_checkpoint(tmp_path).name == "checkpoint-9"
    assert not (tmp_path / "attacked").exists()


def test_trainer_resumes_from_data_only():
    """What newest_whole_checkpoint accepts is read by Trainer, which must not run code in it either."""
    import transformers.trainer

    calls = re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", inspect.getsource(transformers.trainer))
    assert len(calls) > 5 and all("weights_only=True" in call for call in calls)


def test_full_disk_is_an_error_and_training_resumes_to_the_same_bytes(miniature, data, tmp_path, killed, undisturbed):
    shutil.copytree(killed / "state", tmp_path / "state")
    command = arguments(miniature, data, tmp_path, "dpo")
    done = train_within(resource.RLIMIT_FSIZE, 100_000, command)
    assert_error(done, "Remedy: free some space")
    assert "resuming from" in script("train", *command).stderr
    assert adapter(tmp_path) == adapter(undisturbed)


def test_out_of_memory_halves_the_micro_batch(miniature, tmp_path):
    long = [pair(i, f"yes {i} " * 60, f"no {i} " * 60) for i in range(32)]
    pairs = write_rows(tmp_path / "pairs.jsonl", long)

    def command(name, micro_batch):
        return [*arguments(miniature, {"dpo": pairs}, tmp_path / name, "dpo"), "--max-length", 512, "--epochs", 1,
                "--batch", 32, "--micro-batch", micro_batch]  # fmt: skip

    # What a micro-batch of 1 needs, in a step of 2 rows.
    few = {"dpo": write_rows(tmp_path / "few.jsonl", long[:2])}
    small = [*command("small", 1), "--data", few["dpo"], "--batch", 2]
    unlimited = resource.RLIM_INFINITY
    process = start_within(resource.RLIMIT_AS, unlimited, small, stderr=subprocess.DEVNULL, MALLOC_ARENA_MAX="1")
    needed = 0
    while process.poll() is None:
        for child in psutil.Process(process.pid).children():
            with suppress(OSError):  # it has ended
                peak = re.search(r"VmPeak:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
                needed = max(needed, 1024 * int(peak[1]) if peak else 0)
        time.sleep(0.1)
    assert process.returncode == 0

    limit = needed + 400 * 2**20
    large = command("large", 32)
    with open(tmp_path / "stderr", "w") as stderr:
        process = start_within(resource.RLIMIT_AS, limit, large, stderr=stderr, MALLOC_ARENA_MAX="1")
        while not list((tmp_path / "large").glob("state/training/*/work/micro_batch.json")):
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            time.sleep(0.1)
        process.kill()
        process.wait()
    said = (tmp_path / "stderr").read_text()
    assert "Traceback" not in said
    done = train_within(resource.RLIMIT_AS, limit, large, MALLOC_ARENA_MAX="1")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "micro-batch of 16" not in done.stderr, "what was found to be too large is not tried again"
    facts = manifest(tmp_path / "large")
    assert facts["micro_batch"] <= 16 and facts["counts"]["steps"] == 1 and facts["options"]["batch"] == 32
    assert facts["rows_seen"] == {"sum": 32, "repeats": 0}


def test_finished_training_is_linked_and_a_change_trains_anew(miniature, data, undisturbed):
    before = adapter(undisturbed)
    shutil.rmtree(undisturbed / "checkpoint")
    done = script("train", *arguments(miniature, data, undisturbed, "dpo"))
    assert "finished already" in done.stderr and adapter(undisturbed) == before
    other = arguments(miniature, data, undisturbed, "dpo", "--lora-dropout", 0)
    other[other.index("--output") + 1] = undisturbed / "other" / "checkpoint"
    script("train", *other)
    assert adapter(undisturbed / "other") != before, "LoRA's dropout of 0.05 is really on"


def test_sft_trains_on_completions(miniature, data, tmp_path):
    script("train", *arguments(miniature, data, tmp_path, "sft", "--epochs", 1.5))
    lines = metrics(tmp_path)
    assert lines[-1]["loss"] < lines[0]["loss"] and "rewards_margins" not in lines[0]
    assert manifest(tmp_path)["rows_seen"]["repeats"] == 0, "half an epoch more is no repeat"


@pytest.mark.parametrize("loss_on", ["answer", "all"])
def test_sft_loss_is_the_mean_over_the_tokens_asked_for(miniature, tmp_path, loss_on):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lines = []
    for number in range(6):
        turns = [*chat("user", "Hello."), *chat("assistant", "Yes?")] if number % 2 else []
        prompt = [*turns, *chat("user", f"What is {number} plus 1?")]
        completion = chat("assistant", f"It is {number + 1}." + " Yes." * number)
        lines.append({"prompt_id": f"p{number}", "prompt": prompt, "completion": completion, "reward": None})
    some = {"sft": write_rows(tmp_path / "rows.jsonl", lines)}
    options = ("--loss-on", loss_on, "--epochs", 1, "--micro-batch", 2, "--lora-dropout", 0)
    script("train", *arguments(miniature, some, tmp_path, "sft", *options))
    model = AutoModelForCausalLM.from_pretrained(miniature / "policy")
    tokenizer, losses = AutoTokenizer.from_pretrained(miniature / "policy"), []
    for line in lines:
        whole = tokenizer.apply_chat_template(line["prompt"] + line["completion"], return_dict=True)["input_ids"]
        given = tokenizer.apply_chat_template(line["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        assert whole[: len(given)] == given
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0, :-1]
        each = torch.nn.functional.cross_entropy(logits, torch.tensor(whole[1:]), reduction="none")
        losses.append(each[len(given) - 1 :] if loss_on == "answer" else each)
    (logged,) = [line["loss"] for line in metrics(tmp_path)]
    assert logged == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)


def copy_policy(miniature, folder, template=None, **entries):
    """The policy with another chat template, or other entries of its tokenizer's config."""
    shutil.copytree(miniature / "policy", folder)
    path = folder / "tokenizer_config.json"
    known = {**json.loads(path.read_text()), **entries}
    path.write_text(json.dumps({name: value for name, value in known.items() if value is not None}))
    if template:
        path = folder / "chat_template.jinja"
        path.write_text(template + path.read_text())
    return folder


REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"


def test_rows_that_do_not_fit_are_dropped_cut_and_counted(miniature, tmp_path):
    from transformers import AutoTokenizer

    policy = copy_policy(miniature, tmp_path / "policy", REFUSING, pad_token=None)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    assert tokenizer.pad_token is None
    pairs = [pair(i, f"It is {i + 1}.", "... no") for i in range(COUNT)]
    pairs[0]["rejected"][0]["content"] = "long " * 300  # is cut
    pairs[1]["prompt"][0]["content"] = "long " * 300
    pairs[2] |= pair(2, "long " * 300, "long " * 300 + "other")  # equal once cut
    for row in pairs[3:5]:
        row["prompt"].insert(0, {"role": "system", "content": "Be short."})
    for number, row in enumerate(pairs[5:], start=5):
        ids = tokenizer(row["chosen"][0]["content"] + "<|end|>", add_special_tokens=False)["input_ids"]
        # Those of two rows were sampled in other tokens than they are trained on.
        row["chosen_token_digest"] = digest_tokens(ids if number > 6 else ids[::-1])
    rows_file = {"dpo": write_rows(tmp_path / "pairs.jsonl", pairs)}
    done = script(
        "train", *arguments(miniature, rows_file, tmp_path, "dpo"), "--model", policy, "--epochs", 1, "--too-long", "truncate"
    )  # fmt: skip
    assert "refused_by_template 2" in done.stderr and "2 are trained on in other tokens" in done.stderr
    assert manifest(tmp_path)["counts"] == {
        "rows": COUNT, "trained": COUNT - 4, "truncated": 2, "compared": COUNT - 5, "token_mismatches": 2,
        "dropped": {"prompt_too_long": 1, "equal_answers": 1, "refused_by_template": 2}, "validation": 0, "steps": 3,
    }  # fmt: skip


def test_nothing_left_to_train_on_is_an_error(miniature, data, tmp_path):
    policy = copy_policy(miniature, tmp_path / "policy", "{{ raise_exception('closed') }}")
    done = script("train", *arguments(miniature, data, tmp_path, "dpo", "--model", policy), check=False)
    assert_error(done, "0 of 24 rows are left", "refused_by_template 24", "pairs.jsonl")


def test_tokenizer_without_an_end_is_an_error(miniature, data, tmp_path):
    policy = copy_policy(miniature, tmp_path / "policy", eos_token=None)
    done = script("train", *arguments(miniature, data, tmp_path, "dpo", "--model", policy), check=False)
    assert_error(done, "no end-of-sequence token", "Remedy")


@pytest.fixture(scope="module")
def multimodal(miniature, tmp_path_factory):
    """A tiny Gemma 3 with a vision tower, random, behind the miniature's tokenizer."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    folder = tmp_path_factory.mktemp("gemma")
    vocabulary = json.loads((miniature / "policy" / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"boi_token_index": vocabulary, "eoi_token_index": vocabulary + 1, "image_token_index": vocabulary + 2}
    text = {**sizes, "vocab_size": vocabulary + 3, "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0}
    vision = {**sizes, "image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **tokens)
    Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(miniature / "policy" / name, folder)
    return folder


def test_lora_spares_the_vision_tower(miniature, data, tmp_path, multimodal):
    from safetensors import safe_open

    stored = safe_open(multimodal / "model.safetensors", "pt").keys()
    assert any("vision" in name and ".q_proj." in name for name in stored)
    script("train", *arguments(miniature, data, tmp_path, "dpo", "--model", multimodal, "--epochs", 1))
    adapted = safe_open(tmp_path / "checkpoint" / "adapter_model.safetensors", "pt").keys()
    assert len(adapted) == 2 * 7 * 2 and all(".language_model.layers." in name for name in adapted)


def test_full_weights_in_two_processes_spare_the_vision_tower(miniature, data, tmp_path, multimodal):
    from safetensors.torch import load_file

    full = ("--model", multimodal, "--weights", "full", "--dtype", "float32", "--processes", 2, "--epochs", 1)
    script("train", *arguments(miniature, data, tmp_path, "dpo", *full))
    before, after = (load_file(folder / "model.safetensors") for folder in (multimodal, tmp_path / "checkpoint"))
    changed = {name for name, weight in before.items() if not weight.equal(after[name])}
    assert changed and all("language_model" in name for name in changed)
    text = sum(weight.numel() for name, weight in before.items() if "language_model" in name)
    assert manifest(tmp_path)["trainable_parameters"] == text and before.keys() == after.keys()


@pytest.fixture(scope="module")
def experts(miniature, tmp_path_factory):
    """A mixture of experts with the miniature's tokenizer; its config asks for much load balancing and for dropout."""
    import torch
    from transformers import AutoConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM

    folder = tmp_path_factory.mktemp("experts")
    plain = AutoConfig.from_pretrained(miniature / "policy")
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=plain.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        head_dim=16, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, pad_token_id=0,
        router_aux_loss_coef=0.9, output_router_logits=True, attention_dropout=0.4,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(miniature / "policy" / name, folder)
    return folder


@pytest.mark.parametrize("objective", ["dpo", "online_dpo", "sft"])
def test_the_loss_is_the_objectives_alone(miniature, data, tmp_path, experts, objective):
    """Without the load balancing and the dropout that a model's config asks for: they are in no recipe."""
    online = ("--reward-model", miniature / "reward", "--max-tokens", 16) if objective == "online_dpo" else ()
    losses = []
    for aux, dropout in ((0.9, 0.4), (0.0, 0.0)):
        policy = tmp_path / f"policy-{aux}"
        shutil.copytree(experts, policy)
        config = json.loads((policy / "config.json").read_text())
        settings = {"router_aux_loss_coef": aux, "output_router_logits": aux > 0, "attention_dropout": dropout}
        (policy / "config.json").write_text(json.dumps(config | settings))
        options = ("--model", policy, "--lora-dropout", 0, "--epochs", 1, *online)
        script("train", *arguments(miniature, data, tmp_path / str(aux), objective, *options))
        losses.append([(line["loss"], line["grad_norm"]) for line in metrics(tmp_path / str(aux))])
    assert losses[0] == losses[1]
    if objective == "dpo":
        assert losses[0][0][0] == pytest.approx(math.log(2), abs=1e-6), "policy and reference are one"


def save_policy(miniature, folder, name, **settings):
    """A tiny random model of the class that transformers calls ``name``, with the miniature's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    vocabulary = json.loads((miniature / "policy" / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, vocab_size=vocabulary, **{**sizes, **tokens, **settings})
    model = AutoModelForCausalLM.from_config(config)
    torch.nn.init.normal_(model.get_output_embeddings().weight)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(miniature / "policy" / file, folder)
    return folder


FULL = ("--weights", "full", "--dtype", "float32", "--epochs", 1)


@pytest.mark.parametrize("dtype, objective", [("float32", "dpo"), ("bfloat16", "dpo"), ("float32", "sft")])
def test_a_model_whose_logits_trl_does_not_know_is_refused(miniature, data, tmp_path, dtype, objective):
    """RecurrentGemma caps its logits under a name of its own."""
    sizes = {"lru_width": 32, "attention_window_size": 16, "num_key_value_heads": 1, "num_hidden_layers": 3}
    policy = save_policy(miniature, tmp_path / "policy", "recurrent_gemma", logits_soft_cap=5.0, **sizes)
    options = ("--model", policy, *FULL, "--dtype", dtype)
    done = script("train", *arguments(miniature, data, tmp_path, objective, *options), check=False)
    assert_error(done, "RecurrentGemmaForCausalLM differ from those of its logits by", "nats per token", "Remedy: tune another policy")  # fmt: skip
    assert not (tmp_path / "checkpoint").exists() and "training from the start" not in done.stderr


@pytest.mark.parametrize("objective", ["dpo", "online_dpo"])
def test_a_model_with_randomness_of_its_own_is_refused(miniature, data, tmp_path, objective):
    """PhiMoE draws some of a token's experts."""
    sizes = {"num_key_value_heads": 2, "num_local_experts": 4, "router_jitter_noise": 0.3}
    policy = save_policy(miniature, tmp_path / "policy", "phimoe", **sizes)
    online = ("--reward-model", miniature / "reward", "--max-tokens", 16) if objective == "online_dpo" else ()
    options = ("--model", policy, *FULL, *online)
    done = script("train", *arguments(miniature, data, tmp_path, objective, *options), check=False)
    assert_error(done, "PhimoeForCausalLM draws random numbers in training", "Remedy: tune another policy")
    assert not (tmp_path / "checkpoint").exists()


def test_the_checks_of_a_models_passes_change_no_byte(miniature, data, tmp_path, monkeypatch, undisturbed):
    checked = []
    monkeypatch.setattr("croco.training.passes.check_passes", lambda *_: checked.append(1))
    train_here(monkeypatch, arguments(miniature, data, tmp_path, "dpo"))
    assert checked and adapter(tmp_path) == adapter(undisturbed)


def test_a_model_that_trl_cannot_compute_is_refused(miniature, data, tmp_path, monkeypatch):
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", None)
    with pytest.raises(InputError, match=r"TRL cannot compute the log-probabilities of LlamaForCausalLM: AttributeError: .*'apply'"):  # fmt: skip
        train_here(monkeypatch, arguments(miniature, data, tmp_path, "dpo"))


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_online_dpo_sees_a_prompt_beside_a_longer_one_as_alone(name):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.experimental.online_dpo import OnlineDPOTrainer

    class Online(OnlinePairs, OnlineDPOTrainer):
        def __init__(self):
            self.max_length = 64

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, vocab_size=50, **sizes)).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, 0, 0.3)
    short, long, answers = (torch.randint(3, 50, (count, tokens)) for count, tokens in ((1, 6), (1, 16), (2, 10)))
    padded, mask = torch.cat([torch.zeros(1, 10, dtype=int), short], 1), torch.ones(2, 16, dtype=int)
    mask[0, :10] = 0
    with torch.no_grad():
        alone = Online()._forward(model, short, torch.ones_like(short), answers[:1], torch.ones(1, 10, dtype=int))
        beside = Online()._forward(model, torch.cat([padded, long]), mask, answers, torch.ones(2, 10, dtype=int))
    assert torch.allclose(alone[0], beside[0], atol=1e-4)


@pytest.mark.parametrize("objective", ["dpo", "online_dpo", "sft"])
def test_a_padding_token_without_an_embedding_is_never_looked_up(miniature, data, tmp_path, objective):
    from transformers import AutoConfig, AutoTokenizer

    policy = tmp_path / "policy"
    shutil.copytree(miniature / "policy", policy)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.add_special_tokens({"pad_token": "[PADDING]"})
    assert tokenizer.pad_token_id >= AutoConfig.from_pretrained(policy).vocab_size
    tokenizer.save_pretrained(policy)
    online = ("--reward-model", miniature / "reward", "--max-tokens", 16) if objective == "online_dpo" else ()
    options = ("--lora-dropout", 0, "--epochs", 1, *online)
    for name, model in (("plain", miniature / "policy"), ("padded", policy)):
        script("train", *arguments(miniature, data, tmp_path / name, objective, "--model", model, *options))
    assert metrics(tmp_path / "padded") == metrics(tmp_path / "plain")


@pytest.mark.parametrize(("schedule", "steps"), [("cosine", 8), ("cosine", 9), ("constant", 9)])
def test_a_warm_up_as_long_as_the_training_is_an_error(miniature, data, tmp_path, schedule, steps):
    """The training has nine steps: 24 pairs in three epochs, eight a step."""
    options = ("--schedule", schedule, "--warmup", steps)
    done = script("train", *arguments(miniature, data, tmp_path, "dpo", *options), check=False)
    if steps < 9 or schedule == "constant":
        assert done.returncode == 0, done.stderr
    else:
        assert_error(done, "9 steps, and its warm-up 9", "field warmup", "a share of the steps")


def test_a_process_that_sees_several_gpus_uses_one(tmp_path):
    """transformers would give each of them a micro-batch, and the steps would be of other rows than the recipe's."""
    from trl import DPOConfig

    from croco.training.trainers import on_one_device

    config = DPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, per_device_train_batch_size=3)
    config._n_gpu = 2  # as transformers finds on such a machine
    assert config.train_batch_size == 6
    assert on_one_device(config).train_batch_size == 3


def test_online_answers_keep_their_spaces_as_sampled_responses_do():
    import torch
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<end>": 0, "Qui": 1, "▁?": 2, "▁Oui": 3}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", clean_up_tokenization_spaces=True)
    ids = torch.tensor([[1, 2, 3, 0], [3, 2, 0, 0]])
    assert tokenizer.decode(ids[0, :3]) == "Qui? Oui", "what the tokenizer would do by itself"
    scored = []

    def score(answers):
        scored.extend(text for _, text in answers)
        return [(0.0, None) for _ in answers]

    scorer = SimpleNamespace(score=score)
    online = SimpleNamespace(eos_token_ids=[0], processing_class=tokenizer, scorer=scorer)
    OnlinePairs._rate_answers(online, [[{"role": "user", "content": "x"}]], ids, torch.ones_like(ids))
    assert scored == ["Qui ? Oui", "Oui ?"]


def test_ipo_is_of_gains_per_token_as_offline():
    import torch

    gains, lengths = torch.tensor([[4.0, 0.0], [-6.0, 1.0]]), torch.tensor([[2, 5], [3, 0]])
    online = SimpleNamespace(args=SimpleNamespace(loss_type="ipo"), beta=0.25)
    losses = OnlinePairs._pair_losses(online, gains, lengths)
    assert losses.tolist() == [(2 - -2 - 2) ** 2, (0 - 1 - 2) ** 2]


def test_pattern_that_matches_no_module_is_an_error(miniature, data, tmp_path):
    command = arguments(miniature, data, tmp_path, "dpo", "--lora-targets", ".*query", "--processes", 2)
    assert_error(script("train", *command, check=False), "no module of", "field lora_targets", "or write ^(model")


def test_full_weights_are_tuned_from_the_policy_as_reference(miniature, data, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    full = ("--weights", "full", "--dtype", "bfloat16", "--epochs", 1)
    script("train", *arguments(miniature, data, tmp_path, "dpo", *full))
    tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", dtype="auto")
    before = AutoModelForCausalLM.from_pretrained(miniature / "policy", dtype=torch.bfloat16)
    assert tuned.dtype == torch.bfloat16 and not (tmp_path / "checkpoint" / "adapter_config.json").exists()
    changed = [
        name for name, weight in before.state_dict().items() if not torch.equal(weight, tuned.state_dict()[name])
    ]
    assert {"model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight"} <= set(changed)
    first, last = metrics(tmp_path)[0], metrics(tmp_path)[-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and first["rewards_chosen"] == 0
    assert last["rewards_margins"] > first["rewards_margins"] + 0.1


def test_weights_of_the_other_kind_do_not_stay_in_the_folder(miniature, data, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "notes.txt").touch()
    for weights in ("lora", "full", "lora"):
        script("train", *arguments(miniature, data, tmp_path, "dpo", "--epochs", 1, "--weights", weights))
        assert {path.name for path in checkpoint.iterdir()} == {"notes.txt", *list_checkpoint_files(weights)}


def test_collapse_stops_and_goes_on_without_guards(miniature, tmp_path):
    # Nothing in them to learn, and steps so large that both answers are unlearnt.
    sides = ("It is so.", "... no")
    mixed = {
        "dpo": write_rows(tmp_path / "pairs.jsonl", [pair(i, *sides[:: 1 if i % 2 else -1]) for i in range(COUNT)])
    }
    collapsing = arguments(miniature, mixed, tmp_path, "dpo", "--learning-rate", 0.3, "--epochs", 8)
    done = script("train", *collapsing, "--guards", '{"collapse": 1.2}', check=False)
    assert_error(done, "the chosen answers' log-probability fell from", "more than 1.2 times")
    assert not (tmp_path / "checkpoint").exists()
    assert "resuming from" in script("train", *collapsing).stderr
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, 25))
    # Finished by another setting's leave, it is still no result of a setting with this guard.
    done = script("train", *collapsing, "--guards", '{"collapse": 1.2}', check=False)
    assert_error(done, "the chosen answers' log-probability fell from")
    assert "finished already" in script("train", *collapsing, "--guards", '{"collapse": 1000}').stderr


def test_a_training_that_stopped_after_its_last_step_makes_no_further_one(miniature, data, tmp_path):
    """Here because the finished weights cannot be written; half an epoch is left."""
    options = ("--epochs", 1.5, "--schedule", "constant", "--save-every", 1)
    script("train", *arguments(miniature, data, tmp_path / "whole", "dpo", *options))
    command = arguments(miniature, data, tmp_path / "stopped", "dpo", *options)
    running = start("train", *command)
    while not (found := list((tmp_path / "stopped").glob("state/training/*/work"))):
        assert running.poll() is None
        time.sleep(0.01)
    saving = found[0].parent / "saving"
    saving.symlink_to(tmp_path / "no such folder" / "saving")
    assert running.wait() != 0 and not (tmp_path / "stopped" / "checkpoint").exists()
    saving.unlink()
    assert "resuming from" in script("train", *command).stderr
    whole, stopped = (tmp_path / name for name in ("whole", "stopped"))
    assert metrics(whole) == metrics(stopped) and len(metrics(whole)) == 5
    assert adapter(whole) == adapter(stopped)


def test_pairs_without_a_preference_stop_at_chance(miniature, tmp_path):
    # Every pair stands beside its reverse, in one batch: of the two exactly one can be preferred.
    pairs = [pair(i, *answers) for i in range(8) for answers in (("It is so.", "... no"), ("... no", "It is so."))]
    chance = {"dpo": write_rows(tmp_path / "pairs.jsonl", pairs)}
    command = [*arguments(miniature, chance, tmp_path, "dpo"), "--lora-dropout", 0, "--batch", 16, "--epochs", 14]
    done = script("train", *command, "--guards", '{"chance_after": 0.75}', check=False)
    assert_error(done, "stopped at step 11 of 14", "no better than chance")
    script("train", *command)
    assert len(metrics(tmp_path)) == 14 and metrics(tmp_path)[-1]["rewards_accuracies"] <= 0.5


@pytest.mark.parametrize("processes", [1, 2])
def test_diverged_training_is_an_error_and_not_a_checkpoint(miniature, data, tmp_path, processes):
    command = arguments(miniature, data, tmp_path, "dpo", "--learning-rate", "1e30", "--processes", processes)
    assert_error(script("train", *command, check=False), "the training diverged")
    assert not (tmp_path / "checkpoint").exists()


def test_best_checkpoint_has_the_lowest_validation_loss(miniature, data, tmp_path):
    command = arguments(miniature, data, tmp_path, "dpo", "--validation", 0.2, "--checkpoint", "best")
    process = start("train", *command, "--learning-rate", 0.02)
    kept = tmp_path / "kept"
    kept.mkdir()
    while process.poll() is None:
        for progress in tmp_path.glob("state/training/*/work/checkpoint-*/progress_0.json"):
            step = progress.parent.name.split("-")[1]
            if not (kept / f"{step}.json").exists():
                os.link(progress.with_name("adapter_model.safetensors"), kept / f"{step}.safetensors")
                os.link(progress, kept / f"{step}.json")
        time.sleep(0.003)
    assert process.returncode == 0
    losses = {line["step"]: line["eval_loss"] for line in metrics(tmp_path) if "eval_loss" in line}
    best = min(losses, key=losses.get)
    assert set(losses) == {2, 4, 6, 8, 9}
    facts = manifest(tmp_path)
    assert facts["best_checkpoint"] == {"step": best, "eval_loss": pytest.approx(losses[best])}
    assert adapter(tmp_path) == (kept / f"{best}.safetensors").read_bytes()
    training, validation = hold_out([f"p{i}" for i in range(COUNT)], 0.2, 0)
    assert facts["counts"]["validation"] == len(validation) == 5
    assert facts["rows_seen"] == {"sum": 3 * len(training), "repeats": 0}
    last = max(kept.glob("*.json"), key=lambda path: int(path.stem))
    assert {int(row) for row in json.loads(last.read_text())["seen"]} == set(training)


def test_checkpointing_changes_last_bits_alone_and_no_key_and_the_optimizer_another_key(
    miniature, data, undisturbed, tmp_path
):
    """A training that is finished already is one whose key is the same."""
    again = [*arguments(miniature, data, undisturbed, "dpo"), "--checkpointing", "always"]
    again[again.index("--output") + 1] = tmp_path / "again" / "checkpoint"
    assert "finished already" in script("train", *again).stderr
    script("train", *arguments(miniature, data, tmp_path / "always", "dpo", "--checkpointing", "always"))
    losses = [[line["loss"] for line in metrics(folder)] for folder in (undisturbed, tmp_path / "always")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    other = [*arguments(miniature, data, undisturbed, "dpo"), "--optimizer", "adafactor"]
    other[other.index("--output") + 1] = tmp_path / "other" / "checkpoint"
    assert "finished already" not in script("train", *other).stderr
    assert adapter(tmp_path / "other") != adapter(undisturbed)


def test_how_often_is_validated_changes_nothing(miniature, data, tmp_path):
    for often in (2, 3):
        command = arguments(miniature, data, tmp_path / str(often), "dpo", "--validation", 0.2, "--save-every", often)
        script("train", *command)
    assert adapter(tmp_path / "2") == adapter(tmp_path / "3")


def test_cut_and_empty_answers_lose_and_two_of_them_form_no_pair():
    import torch

    rewards = torch.tensor([[3.0, 1.0, 2.0, 5.0, 1.0], [1.0, 2.0, 1.0, 4.0, 1.0]])
    whole = torch.tensor([[False, True, False, True, True], [True, True, False, True, True]])
    first, paired = choose(rewards, whole)
    assert paired.tolist() == [True, True, False, True, False], "nor do two of equal reward"
    assert first[paired].tolist() == [False, False, True]


def test_online_dpo_learns_nothing_from_answers_that_are_all_cut(miniature, data, tmp_path):
    from safetensors.torch import load_file

    # The policy was never taught to end an answer at once, and an empty one is no answer.
    online = ("--reward-model", miniature / "reward", "--max-tokens", 1, "--epochs", 1, "--processes", 2)
    script("train", *arguments(miniature, data, tmp_path, "online_dpo", *online))
    assert manifest(tmp_path)["counts"]["no_pair"] == 17 and [e["no_pair"] for e in metrics(tmp_path)] == [8, 8, 1]
    assert all(line["rewards_margins"] is None and line["grad_norm"] == 0 for line in metrics(tmp_path))
    assert all(line["objective/scores"] is not None for line in metrics(tmp_path)), "the rewards are logged as they are"
    weights = load_file(tmp_path / "checkpoint" / "adapter_model.safetensors")
    assert not any(tensor.any() for name, tensor in weights.items() if "lora_B" in name)


@pytest.mark.parametrize("count", [21, 19])
@pytest.mark.parametrize("objective", ["dpo", "sft"])
def test_micro_batches_and_processes_move_last_digits_alone(miniature, tmp_path, objective, count):
    """The last step of an epoch has fewer rows, of unequal lengths, in micro-batches that are not full.

    Of 21 rows in batches of 16 it has 5, of 19 it has 3, and then no process has a full one.
    """
    from safetensors.torch import load_file

    answers = [(f"It is {i + 1}." + " yes" * (i % 5), "... no" + " so" * (i % 3)) for i in range(count)]
    lines = [pair(i, *sides) for i, sides in enumerate(answers)]
    lines = [{**line, "completion": line["chosen"]} for line in lines]
    uneven = {objective: write_rows(tmp_path / "rows.jsonl", lines)}
    exact = ("loss", "grad_norm", "logps_chosen", "rewards_chosen", "rewards_margins", "rewards_accuracies")
    logged, tuned = [], []
    for micro_batch, processes in ((16, 1), (4, 1), (1, 1), (4, 2)):
        folder = tmp_path / f"{micro_batch}-{processes}"
        options = ("--batch", 16, "--micro-batch", micro_batch, "--processes", processes, "--lora-dropout", 0)
        script("train", *arguments(miniature, uneven, folder, objective, *options, "--epochs", 2))
        logged.append([line[name] for line in metrics(folder) for name in exact if name in line])
        tuned.append(load_file(folder / "checkpoint" / "adapter_model.safetensors"))
        assert manifest(folder)["rows_seen"] == {"sum": 2 * count, "repeats": 0}, "what fills a batch up weighs nothing"
    assert len(logged[0]) == 4 * (6 if objective == "dpo" else 2)
    for other in logged[1:]:
        assert other == pytest.approx(logged[0], rel=2e-6, abs=1e-6)
    # The matrices lora_B start at zero: what they hold is the change.
    change = math.hypot(*(tensor.norm().item() for name, tensor in tuned[0].items() if "lora_B" in name))
    assert change > 0.01
    for other in tuned[1:]:
        assert other.keys() == tuned[0].keys()
        assert math.hypot(*((other[name] - tuned[0][name]).norm().item() for name in other)) < 5e-5 * change


def test_two_jobs_with_the_same_training_share_it(miniature, data, tmp_path, undisturbed):
    processes = []
    for name in ("a", "b"):
        command = arguments(miniature, data, tmp_path, "dpo")
        command[command.index("--output") + 1] = tmp_path / name / "checkpoint"
        processes.append(start("train", *command))
    assert [process.wait() for process in processes] == [0, 0]
    assert adapter(tmp_path / "a") == adapter(tmp_path / "b") == adapter(undisturbed)
    assert len(metrics(tmp_path / "b")) == 9


def test_pairs_that_differ_in_numbers_alone_are_the_same_training(miniature, data, undisturbed, tmp_path):
    pairs = [{**row, "pool_mean": 0.5, "target": -1.0} for row in rows(data["dpo"])]
    again = arguments(miniature, {"dpo": write_rows(tmp_path / "pairs.jsonl", pairs)}, undisturbed, "dpo")
    again[again.index("--output") + 1] = tmp_path / "checkpoint"
    assert "finished already" in script("train", *again).stderr and adapter(tmp_path) == adapter(undisturbed)


ONE = json.dumps(pair(1, "It is 2.", "no")) + "\n"


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("", (), "no rows"),
        (ONE, (), "1 rows"),
        (ONE * 2, ("--processes", 3, "--batch", 12), "2 rows, to be trained on in 3 processes"),
        ('{"prompt_id": "p", "prompt": "text", "chosen": [], "rejected": []}\n', (), "pairs.jsonl:1, field prompt:"),
        ('{"prompt_id": "p", "prompt": ["content"], "chosen": [], "rejected": []}\n', (), "field prompt[0]:"),
        (ONE.replace("prompt_id", "id") * 2, (), "pairs.jsonl:1, field prompt_id: missing"),
        (ONE + ONE.replace('"no"', "null"), (), "pairs.jsonl:2, field rejected[0].content: Expected `str`, got `null`"),
        (ONE.replace('"role"', '"from"'), (), "pairs.jsonl:1, field prompt[0].role: missing"),
        ("{\n", (), "pairs.jsonl:1: broken JSON"),
        (None, ("--micro-batch", 3), "not a multiple"),
        (None, ("--label-smoothing", 0.1), "field label_smoothing: goes with the losses"),
        (None, ("--checkpoint", "best"), "nothing is held out"),
        (None, ("--loss-on", "all"), "field loss_on: has no effect on dpo"),
        (None, ("--generation-batch", 8), "field generation_batch: has no effect on dpo"),
        (None, ("--lora-coverage", "partial"), "field lora_coverage"),
        (None, ("--validation", 1), "argument --validation"),
        (None, ("--reward-model", "somewhere"), "field reward_model"),
        (None, ("--weights", "full", "--start", "somewhere"), "field start"),
        (None, ("--model", "/nowhere"), "the model cannot be loaded"),
        (None, ("--guards", "collapse"), "field guards: not a JSON object"),
        (None, ("--guards", '{"colapse": 3}'), "field guards: there is no guard colapse"),
        (None, ("--guards", '{"collapse": "3"}'), "field guards: collapse is '3'"),
        (None, ("--guards", '{"chance_after": 50}'), "field guards: chance_after is 50"),
    ],
)
def test_bad_input_ends_before_a_model_is_loaded(miniature, data, tmp_path, content, options, said):
    pairs = data["dpo"]
    if content is not None:
        pairs = tmp_path / "pairs.jsonl"
        pairs.write_text(content)
    done = script("train", *arguments(miniature, {"dpo": pairs}, tmp_path, "dpo", *options), check=False)
    assert_error(done, said)


def test_responses_of_another_policy_are_refused_unless_asked_for(miniature, data, tmp_path):
    ledger = tmp_path / "ledger.json"
    ledger.write_text(json.dumps({"policies": ["another"]}))
    command = arguments(miniature, data, tmp_path, "dpo", "--ledger", ledger)
    assert_error(script("train", *command, check=False), "off-policy", "another", "ledger.json, field policies")
    # Gets as far as to its data, which are checked before the policy is.
    own = script("train", *command, "--off-policy", "--lora-targets", "none", check=False)
    assert_error(own, "field lora_targets")
