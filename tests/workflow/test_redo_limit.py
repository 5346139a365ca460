"""A start that would make expensive finished work again ends before any job."""

import json
import re
import subprocess

import pytest
from conftest import ENVIRONMENT, INTERPRETER, copy_project, snakemake

CONFIG = """
policies:
  - {name: mini, path: "{results}/miniature/policy", temperature: 0.6, max_tokens: 32, size: 9}
  - {name: other, path: "{results}/miniature/other", temperature: 0.6, max_tokens: 32, tune: false}
evaluation: {judge: none, tasks: [], temperature: 0, max_tokens: 32}
contrasts: []
redo_limit: 0
"""
FINISHED = "results/small/mini/en/generations"
MESSAGE = "GPU-hours would be made again, and redo_limit is 0: generate (1)"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a policy on a GPU, and responses of it that the config would make again."""
    folder = copy_project(tmp_path_factory.mktemp("redo"))
    (folder / "gpu.yaml").write_text(CONFIG, encoding="utf-8")
    (folder / FINISHED).mkdir(parents=True)
    for name in ("0.jsonl", "0.manifest.json"):
        (folder / FINISHED / name).touch()
    return folder


def start(project, *arguments):
    """A start that makes responses alone."""
    files = ("--configfile", "two_languages.yaml", "gpu.yaml")
    return snakemake(project, "--cores", 1, *arguments, *files, "--until", "generate", check=False)


def test_start_is_refused(project):
    done = start(project)
    assert done.returncode == 1 and MESSAGE in done.stderr
    assert "--config redo=true" in done.stderr
    assert "Traceback" not in done.stderr and not (project / "results/small/miniature").exists()


def test_dry_run_and_plan_say_it(project):
    done = start(project, "--dry-run")
    assert done.returncode == 0 and "warning: a start would be refused" in done.stderr and MESSAGE in done.stderr
    command = [str(INTERPRETER), "scripts/plan.py", "--configfile", "two_languages.yaml", "gpu.yaml"]
    done = subprocess.run(command, cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "Refused" in done.stdout and MESSAGE in done.stdout


@pytest.mark.parametrize(("responses", "seconds", "refused"), [(8, 1, False), (8, 3600, True), (128, 1, True)])
def test_a_pilot_counts_by_what_it_made(project, responses, seconds, refused):
    """The limit is a tenth of the whole job: a pilot of one prompt in 16 is below, unless it took longer."""
    path = project / FINISHED / "0.manifest.json"
    (hours,) = map(float, re.findall(r"at most ([\d.]+) GPU-hours", start(project, "--dry-run").stderr))
    counts = {"prompts": responses // 8, "responses": responses, "tokens": 100}
    path.write_text(
        json.dumps({"stage": "generate", "counts": counts, "seconds": seconds, "gpus": 1}), encoding="utf-8"
    )
    done = start(project, "--dry-run", "--config", f"redo_limit={hours / 10}")
    path.write_text("", encoding="utf-8")
    assert done.returncode == 0 and ("refused" in done.stderr) == refused


@pytest.mark.parametrize("allowed", ["redo=true", "redo_limit=1000"])
def test_allowed(project, allowed):
    done = start(project, "--dry-run", "--config", allowed)
    assert done.returncode == 0 and "refused" not in done.stderr
