"""What it takes to extend the workflow: each change is a patch, applied to a copy of the project, counted and run.

A patch that no longer applies means that the code around it has moved: write the change anew, and see that it still
touches as few files. config/README.md is left out, since `make reference` writes it.
"""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from conftest import ENVIRONMENT, INTERPRETER, ROOT, copy_project, rows, snakemake, write_rows

from croco.digests import prompt_digest

# Files that a change touches.
FILES = {
    "pair_rule": {"scripts/croco/pairs/rules.py", "config/schema.yaml"},
    "metric": {"scripts/croco/results/metrics.py"},
    "objective": {"scripts/croco/objectives.py", "scripts/croco/training/trainers.py", "config/schema.yaml"},
    "filter": {"scripts/croco/pairs/hygiene.py", "config/schema.yaml"},
}


@pytest.fixture
def changed(request, tmp_path):
    """A copy of the project with the change that the test is parametrised by."""
    patch = ROOT / "tests" / "changes" / f"{request.param}.patch"
    touched = set(re.findall(r"^\+\+\+ b/(.*)$", patch.read_text(encoding="utf-8"), re.M))
    assert touched == FILES[request.param]
    (tmp_path / "project").mkdir()
    project = copy_project(tmp_path / "project")
    subprocess.run(["git", "apply", str(patch)], cwd=project, check=True)
    return project


def change(name):
    return pytest.mark.parametrize("changed", [name], indirect=True)


def run(project, name, *arguments):
    command = [str(INTERPRETER), str(project / "scripts" / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done


def plan(project, **setting):
    """Plans a run whose setting dpo has these keys."""
    config = yaml.safe_load((project / "two_languages.yaml").read_text(encoding="utf-8"))
    dpo = next(row for row in config["settings"] if row["name"] == "dpo")
    dpo |= setting
    config["settings"] = [row for row in config["settings"] if row["objective"] == "none"] + [dpo]
    config["contrasts"] = []
    (project / "changed.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    snakemake(project, "--dry-run", "--quiet", "--configfile", "changed.yaml")


@pytest.fixture
def pool(tmp_path):
    """Options of build_pairs.py: one prompt with nine responses, the first without text, with the rewards 0 to 8."""
    responses = [{"text": "x" * 300 * i, "finish_reason": "stop", "n_tokens": i} for i in range(9)]
    prompt = {"prompt_id": "p", "language": "en", "messages": [{"role": "user", "content": "?"}], "reference": None, "source": "s", "skip": None}  # fmt: skip
    files = {
        "prompts": [prompt],
        "generations": [{"prompt_id": "p", "language": "en", "prompt_digest": prompt_digest(prompt), "responses": responses, "skip": None}],
        "scores": [{"prompt_id": "p", "language": "en", "rewards": [float(i) for i in range(9)]}],
    }  # fmt: skip
    paths = [part for name, lines in files.items() for part in (f"--{name}", write_rows(tmp_path / f"{name}.jsonl", lines))]  # fmt: skip
    return [*paths, "--output", tmp_path / "pairs.jsonl", "--ledger", tmp_path / "ledger.json"]


@change("pair_rule")
def test_a_pair_rule(changed, pool, tmp_path):
    run(changed, "build_pairs", *pool, "--rejected", "median")
    (pair,) = rows(tmp_path / "pairs.jsonl")
    assert (pair["chosen_reward"], pair["rejected_reward"], pair["target"]) == (8, 4, 4)
    plan(changed, rejected="median")


@change("filter")
def test_a_hygiene_filter(changed, pool, tmp_path):
    run(changed, "build_pairs", *pool, "--rejected", "min", "--hygiene", "empty", "longer_than_2000")
    (pair,) = rows(tmp_path / "pairs.jsonl")
    assert (pair["chosen_reward"], pair["rejected_reward"]) == (6, 1)
    left_out = json.loads((tmp_path / "ledger.json").read_text())["languages"]["en"]["left_out"]
    assert left_out == {"empty": 1, "longer_than_2000": 2}
    plan(changed, hygiene=["longer_than_2000"])


@change("metric")
def test_a_metric_of_answers(changed, finished_run, tmp_path):
    """It is measured, summarised against the base, and shown on the page."""
    results = shutil.copytree(finished_run / "results" / "small", tmp_path / "results")
    tuned, base = (results / "mini" / name for name in ("en/dpo", "untuned/base"))
    answers = rows(tuned / "answers" / "en.jsonl")
    answers[0]["responses"][0]["text"] = "- one\n- two"
    write_rows(tuned / "answers" / "en.jsonl", answers)
    prompts = results / "prompts" / "evaluate" / "en.jsonl"
    for folder in (tuned, base):
        files = ("--answers", folder / "answers" / "en.jsonl", "--output", folder / "fidelity")
        run(changed, "fidelity", "--languages", "en", "--prompts", prompts, *files)
    measured = rows(tuned / "fidelity" / "en.jsonl")
    assert measured[0]["has_list"][0] is True and not any(line["has_list"][0] for line in measured[1:])
    table = [row | {"batches": {"en": ["en"]}} for row in rows(results / "runs.jsonl") if row["pool"] in ("untuned", "en")]  # fmt: skip
    options = ("--root", results, "--runs", write_rows(tmp_path / "runs.jsonl", table), "--fidelity")
    run(changed, "summary", *options, "--judged", "--output", tmp_path / "summary.csv")
    assert ",has_list,," in (tmp_path / "summary.csv").read_text(encoding="utf-8"), "no direction is better"
    run(changed, "report", *options, "--summary", tmp_path / "summary.csv", "--output", tmp_path / "report.html")
    assert "answers with a list" in (tmp_path / "report.html").read_text(encoding="utf-8")


@change("objective")
def test_an_objective(changed, finished_run, tmp_path):
    """SimPO by TRL's CPOTrainer trains on the pairs of a finished run."""
    folder = finished_run / "results" / "small" / "mini" / "en" / "dpo"
    run(
        changed, "train", "--objective", "simpo", "--data", folder / "pairs.jsonl", "--ledger", folder / "ledger.json",
        "--model", finished_run / "results" / "small" / "miniature" / "policy", "--learning-rate", "1e-3", "--beta", 2, "--epochs", 3,
        "--batch", 8, "--micro-batch", 8, "--state", tmp_path / "state", "--output", tmp_path / "checkpoint",
    )  # fmt: skip
    metrics = rows(tmp_path / "checkpoint" / "metrics.jsonl")
    assert metrics[-1]["rewards_margins"] > metrics[0]["rewards_margins"]
    assert (tmp_path / "checkpoint" / "adapter_model.safetensors").is_file()
    plan(changed, objective="simpo", recipe="dpo")
