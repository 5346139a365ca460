"""scripts/train.py with TRL and PEFT on a real tiny policy: recipes, kill -9, torn checkpoints, reuse."""

import json
import shutil
import signal
import time

import pytest
from conftest import rows, script, start, write_rows

COUNT = 24


def chat(role, text):
    return [{"role": role, "content": text}]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    pairs = [{"prompt_id": f"p{i}", "prompt": chat("user", f"What is {i} plus 1?"), "chosen": chat("assistant", f"It is {i + 1}."), "rejected": chat("assistant", "... no")} for i in range(COUNT)]  # fmt: skip
    completions = [
        {"prompt_id": p["prompt_id"], "prompt": p["prompt"], "completion": p["chosen"], "reward": None} for p in pairs
    ]
    return {
        "dpo": write_rows(folder / "pairs.jsonl", pairs),
        "sft": write_rows(folder / "completions.jsonl", completions),
    }


def arguments(miniature, data, folder, objective, *options):
    return [
        "--objective", objective, "--data", data[objective], "--model", miniature / "policy", "--learning-rate", "1e-3",
        "--epochs", 3, "--batch", 8, "--micro-batch", 4, "--max-length", 128, "--save-every", 2,
        "--state", folder / "state", "--output", folder / "checkpoint", *options,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(miniature, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dpo")
    script("train", *arguments(miniature, data, folder, "dpo"))
    return folder


def adapter(folder):
    return (folder / "checkpoint" / "adapter_model.safetensors").read_bytes()


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
    metrics = rows(undisturbed / "checkpoint" / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, 10))
    assert metrics[0]["rewards_margins"] == 0 < metrics[-1]["rewards_margins"]
    weights = load_file(undisturbed / "checkpoint" / "adapter_model.safetensors")
    assert any(tensor.abs().sum() > 0 for name, tensor in weights.items() if "lora_B" in name)
    assert len(weights) == 2 * 7 * 2, "two matrices for each of seven projections in two layers"
    manifest = json.loads((undisturbed / "checkpoint" / "manifest.json").read_text())
    assert manifest["counts"] == {"rows": COUNT, "too_long": 0, "steps": 9}


def test_kill_and_resume_give_the_same_bytes(miniature, data, tmp_path, undisturbed):
    process = start("train", *arguments(miniature, data, tmp_path, "dpo"))
    deadline = time.monotonic() + 180
    while not list(tmp_path.rglob("checkpoint-4")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "checkpoint").exists()
    # Whatever the kill left, a newer checkpoint that is torn must not be taken.
    whole = next(tmp_path.rglob("checkpoint-2"), None) or next(tmp_path.rglob("checkpoint-4"))
    torn = whole.with_name("checkpoint-8")
    shutil.rmtree(torn, ignore_errors=True)
    shutil.copytree(whole, torn)
    (torn / "optimizer.pt").write_bytes((torn / "optimizer.pt").read_bytes()[:100])
    done = script("train", *arguments(miniature, data, tmp_path, "dpo"))
    assert "skipping a torn checkpoint" in done.stderr and "resuming from" in done.stderr
    assert adapter(tmp_path) == adapter(undisturbed)
    assert rows(tmp_path / "checkpoint" / "metrics.jsonl") == rows(undisturbed / "checkpoint" / "metrics.jsonl")


def test_finished_training_is_linked_and_a_change_trains_anew(miniature, data, undisturbed):
    before = adapter(undisturbed)
    shutil.rmtree(undisturbed / "checkpoint")
    done = script("train", *arguments(miniature, data, undisturbed, "dpo"))
    assert "finished already" in done.stderr and adapter(undisturbed) == before
    other = [*arguments(miniature, data, undisturbed, "dpo", "--lora-dropout", "0")]
    other[other.index("--output") + 1] = undisturbed / "other" / "checkpoint"
    script("train", *other)
    assert adapter(undisturbed / "other") != before, "LoRA's dropout of 0.05 is really on"


def test_sft_trains_on_completions(miniature, data, tmp_path):
    script("train", *arguments(miniature, data, tmp_path, "sft"))
    metrics = rows(tmp_path / "checkpoint" / "metrics.jsonl")
    assert metrics[-1]["loss"] < metrics[0]["loss"] and "rewards_margins" not in metrics[0]


def test_long_rows_are_counted(miniature, data, tmp_path):
    pairs = rows(data["dpo"])
    pairs[5]["rejected"][0]["content"] = "long " * 300
    long = {"dpo": write_rows(tmp_path / "pairs.jsonl", pairs)}
    script("train", *arguments(miniature, long, tmp_path, "dpo", "--epochs", 1))
    assert json.loads((tmp_path / "checkpoint" / "manifest.json").read_text())["counts"]["too_long"] == 1


def test_diverged_training_is_an_error_and_not_a_checkpoint(miniature, data, tmp_path):
    done = script("train", *arguments(miniature, data, tmp_path, "dpo", "--learning-rate", "1e30"), check=False)
    assert done.returncode == 1 and "diverged" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "checkpoint").exists()


def test_two_jobs_with_the_same_training_share_it(miniature, data, tmp_path, undisturbed):
    processes = []
    for name in ("a", "b"):
        command = arguments(miniature, data, tmp_path, "dpo")
        command[command.index("--output") + 1] = tmp_path / name / "checkpoint"
        processes.append(start("train", *command))
    assert [process.wait() for process in processes] == [0, 0]
    assert adapter(tmp_path / "a") == adapter(tmp_path / "b") == adapter(undisturbed)
    assert len(rows(tmp_path / "b" / "checkpoint" / "metrics.jsonl")) == 9


def test_pairs_that_differ_in_numbers_alone_are_the_same_training(miniature, data, undisturbed, tmp_path):
    pairs = [{**row, "pool_mean": 0.5, "target": -1.0} for row in rows(data["dpo"])]
    again = arguments(miniature, {"dpo": write_rows(tmp_path / "pairs.jsonl", pairs)}, undisturbed, "dpo")
    again[again.index("--output") + 1] = tmp_path / "checkpoint"
    assert "finished already" in script("train", *again).stderr and adapter(tmp_path) == adapter(undisturbed)


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("", (), "no rows"),
        ('{"prompt": "text", "chosen": [], "rejected": []}\n', (), "pairs.jsonl:1, field prompt"),
        (None, ("--micro-batch", 3), "no multiple"),
    ],
)
def test_bad_input_ends_before_a_model_is_loaded(miniature, data, tmp_path, content, options, said):
    pairs = data["dpo"]
    if content is not None:
        pairs = tmp_path / "pairs.jsonl"
        pairs.write_text(content)
    done = script("train", *arguments(miniature, {"dpo": pairs}, tmp_path, "dpo", *options), check=False)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
