"""scripts/generate.py with a real tiny policy: what a sample depends on, growth, kill -9, damaged parts."""

import json
import signal
import time

import pytest
from conftest import rows, script, start, write_rows


def arguments(miniature, prompts, folder, samples, *options):
    return [
        "--prompts", prompts, "--model", miniature / "policy", "--samples", samples, "--temperature", "0.8", "--max-tokens", 12,
        "--state", folder / "state", "--output", folder / "generations.jsonl", *options,
    ]  # fmt: skip


def generate(*args, check=True):
    return script("generate", *arguments(*args), check=check)


@pytest.fixture(scope="module")
def undisturbed(miniature, prompts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    generate(miniature, prompts["de"], folder, 6, "--batch", 3)
    return folder / "generations.jsonl"


def test_one_line_a_prompt_with_all_samples(undisturbed, prompts):
    lines = rows(undisturbed)
    assert [line["prompt_id"] for line in lines] == [row["prompt_id"] for row in rows(prompts["de"])]
    for line in lines:
        assert len(line["responses"]) == 6 and line["skip"] is None
        assert all(r["finish_reason"] in ("stop", "length") and 1 <= r["n_tokens"] <= 12 for r in line["responses"])
    assert len({r["text"] for line in lines for r in line["responses"]}) > 12
    manifest = json.loads(undisturbed.with_suffix(".manifest.json").read_text())
    assert manifest["counts"]["responses"] == 72 and manifest["inputs"]["policy"]


def test_growth_adds_only_what_is_missing(miniature, prompts, tmp_path, undisturbed):
    """3 samples of 8 prompts first, then 6 of 12: the same bytes as at once, and nothing sampled twice."""
    few = write_rows(tmp_path / "few.jsonl", rows(prompts["de"])[:8])
    generate(miniature, few, tmp_path, 3, "--batch", 3, "--chunk", 2)
    before = {path: path.read_bytes() for path in (tmp_path / "state").rglob("*.jsonl")}
    generate(miniature, prompts["de"], tmp_path, 6, "--batch", 3, "--chunk", 5)
    assert (tmp_path / "generations.jsonl").read_bytes() == undisturbed.read_bytes()
    assert {path: path.read_bytes() for path in before} == before
    done = generate(miniature, prompts["de"], tmp_path, 6, "--batch", 3)
    assert "0 prompts to sample" in done.stderr
    spans = [(line["key"], j) for path in (tmp_path / "state").rglob("*.jsonl") for line in rows(path) for j in range(line["start"], line["stop"])]  # fmt: skip
    assert len(spans) == len(set(spans)) == 72


def test_kill_repeats_at_most_one_chunk(miniature, prompts, tmp_path, undisturbed):
    process = start("generate", *arguments(miniature, prompts["de"], tmp_path, 6, "--batch", 3, "--chunk", 1))
    state = tmp_path / "state"
    deadline = time.monotonic() + 120
    while len(list(state.rglob("*.jsonl"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in state.rglob("*.jsonl")}
    assert 3 <= len(kept) < 12 and not (tmp_path / "generations.jsonl").exists()
    done = generate(miniature, prompts["de"], tmp_path, 6, "--batch", 3, "--chunk", 1)
    assert f"{12 - len(kept)} prompts to sample" in done.stderr
    assert (tmp_path / "generations.jsonl").read_bytes() == undisturbed.read_bytes()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_damaged_part_is_set_aside_and_sampled_again(miniature, prompts, tmp_path, undisturbed):
    generate(miniature, prompts["de"], tmp_path, 6, "--batch", 3, "--chunk", 4)
    part = sorted((tmp_path / "state").rglob("*.jsonl"))[0]
    part.write_bytes(part.read_bytes()[:-40])
    done = generate(miniature, prompts["de"], tmp_path, 6, "--batch", 3, "--chunk", 4)
    assert "4 prompts to sample" in done.stderr and part.name in done.stderr
    assert (tmp_path / "generations.jsonl").read_bytes() == undisturbed.read_bytes()


def test_damage_after_growth_is_mended(miniature, prompts, tmp_path, undisturbed):
    """The part with the first samples is lost, the one with the later samples is there."""
    generate(miniature, prompts["de"], tmp_path, 3, "--batch", 3, "--chunk", 12)
    (first,) = (tmp_path / "state").rglob("*.jsonl")
    generate(miniature, prompts["de"], tmp_path, 6, "--batch", 3, "--chunk", 12)
    first.unlink()
    generate(miniature, prompts["de"], tmp_path, 6, "--batch", 3, "--chunk", 12)
    assert (tmp_path / "generations.jsonl").read_bytes() == undisturbed.read_bytes()


def test_other_seed_or_option_does_not_mix(miniature, prompts, tmp_path, undisturbed):
    generate(miniature, prompts["de"], tmp_path, 6, "--batch", 3)
    done = generate(miniature, prompts["de"], tmp_path, 6, "--batch", 3, "--seed", 1)
    assert "12 prompts to sample" in done.stderr
    assert (tmp_path / "generations.jsonl").read_bytes() != undisturbed.read_bytes()


def test_long_prompt_is_skipped_in_its_own_line(miniature, prompts, tmp_path):
    long = rows(prompts["de"])[:2]
    long[0]["messages"][0]["content"] = "eins zwei drei " * 400
    generate(miniature, write_rows(tmp_path / "p.jsonl", long), tmp_path, 2)
    first, second = rows(tmp_path / "generations.jsonl")
    assert first["skip"] == "prompt_too_long" and first["responses"] == [] and len(second["responses"]) == 2


def test_model_without_weights(prompts, tmp_path, miniature):
    (tmp_path / "empty").mkdir()
    done = script("generate", "--prompts", prompts["de"], "--model", tmp_path / "empty", "--state", tmp_path, "--output", tmp_path / "o", check=False)  # fmt: skip
    assert done.returncode == 1 and "safetensors" in done.stderr and "Traceback" not in done.stderr


def test_samples_follow_the_models_distribution(miniature, prompts, tmp_path):
    """First tokens of 2048 samples against the model's own probabilities, within 5 standard errors."""
    import torch

    from croco.transformers_engine import Policy

    policy = Policy(str(miniature / "policy"))
    ids = policy.encode(rows(prompts["en"])[0]["messages"])
    with torch.inference_mode():
        expected = torch.softmax(policy.model(torch.tensor([ids])).logits[0, -1].double() / 0.9, -1)
    texts = policy.respond([ids] * 2048, list(range(2048)), 0.9, 1.0, 1)
    counts = {}
    for response in texts:
        counts[response["text"]] = counts.get(response["text"], 0) + 1
    for token in expected.topk(5).indices.tolist():
        text = policy.tokenizer.decode([token], skip_special_tokens=True)
        p = sum(
            expected[i].item()
            for i in range(len(expected))
            if policy.tokenizer.decode([i], skip_special_tokens=True) == text
        )
        assert abs(counts.get(text, 0) / 2048 - p) < 5 * (p * (1 - p) / 2048) ** 0.5
    narrow = policy.respond([ids] * 256, list(range(256)), 0.9, 0.3, 1)
    allowed = {policy.tokenizer.decode([i], skip_special_tokens=True) for i in expected.sort(descending=True).indices[:1000][(expected.sort(descending=True).values.cumsum(0) - expected.sort(descending=True).values)[:1000] < 0.3].tolist()}  # fmt: skip
    assert {response["text"] for response in narrow} <= allowed
