"""The plan against Snakemake's own dry run, and against what a finished run says that it did."""

import json
import re
import subprocess
from collections import Counter, defaultdict

import pytest
from conftest import ENVIRONMENT, INTERPRETER, ROOT
from conftest import planned as planned_by_snakemake

from croco.config.read import build_grid, read_files
from croco.planning.stages import STAGES, plan_stages

RESULTS = "results/small"


def plan(project, *arguments, check=True):
    command = [str(INTERPRETER), "scripts/plan.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert not check or not done.returncode, done.stderr
    return done


def plan_jobs(project, folder, *arguments):
    """(the plan as JSON, the lines of its table)."""
    path = folder / "plan.json"
    said = plan(project, *arguments, "--json", path).stdout.splitlines()
    return json.loads(path.read_text(encoding="utf-8")), said


@pytest.mark.parametrize("config", ["two_languages.yaml", "config/grid.yaml", "config/paper.yaml"])
def test_jobs_are_those_of_a_dry_run(fresh_project, tmp_path, config):
    planned, said = plan_jobs(fresh_project, tmp_path, "--configfile", config, "--by", "setting")
    assert len(said) <= 50 and max(map(len, said)) <= 120, "it fits a screen"
    assert any(line.startswith("Downloads") for line in said) == (config == "config/paper.yaml")
    jobs = {name: of_rule["jobs"] for name, of_rule in planned["by"]["rule"].items()}
    assert jobs == planned_by_snakemake(fresh_project, "--configfile", config)
    assert planned["total"]["jobs"] == sum(jobs.values()) == len(planned["jobs"])
    for groups in planned["by"].values():
        for name in ("jobs", "loads", "items", "tokens", "gpu_hours", "bytes"):
            assert sum(sums[name] for sums in groups.values()) == pytest.approx(planned["total"][name])
    assert_stages_are_planned_without_a_dry_run(fresh_project, config, planned)


def assert_stages_are_planned_without_a_dry_run(project, config, planned):
    """The report page's plan, made from the run table alone, has the jobs of a dry run."""
    merged, locator = read_files([project / config], project)
    grid, _ = build_grid(merged, project, locator)
    stages = {line.stage: line for line in plan_stages(grid, ROOT / "config/speeds.tsv").stages}
    for stage in STAGES:
        # The audit is planned, but has manifests in a folder of its own.
        jobs = [job for job in planned["jobs"] if job["work"]["stage"] == stage and "audit" not in job["rule"]]
        assert stages[stage].jobs == len(jobs) > 0
        assert stages[stage].loads == sum(job["work"]["loads"] for job in jobs)
        if stages[stage].items is None:  # the config does not say how many prompts are answered
            assert stage in ("evaluate", "judge", "score")
        else:
            assert stages[stage].items == sum(job["work"]["items"] for job in jobs)
        hours = sum(job["gpu_hours"] for job in jobs)
        assert (stages[stage].gpu_hours or 0) == pytest.approx(hours, abs=0.001)


def test_the_hours_in_the_documents_are_those_of_the_plan(fresh_project, tmp_path):
    planned, _ = plan_jobs(fresh_project, tmp_path, "--configfile", "config/small.yaml", "--gpu-type", "rtx4090")
    hours = defaultdict(float)
    for job in planned["jobs"]:
        hours[job["work"]["stage"]] += job["gpu_hours"]
    table = (ROOT / "docs/grid.md").read_text(encoding="utf-8").split("| stage | amount | GPU-hours |")[1]
    for stage in ("translate", *STAGES):
        (row,) = re.findall(rf"(?m)^\| {stage} \|.*\| ([\d.]+) \|$", table)
        assert row == f"{hours[stage]:.1f}", stage
    total = planned["total"]["gpu_hours"]
    assert f"| **all** | | **{total:.1f}** |" in table
    tutorial = (ROOT / "docs/tutorials/maltese.md").read_text(encoding="utf-8")
    assert f"| GPU-hours | about {total:.0f} on an RTX 4090" in tutorial


def test_finished_run_has_nothing_to_do(untouched_run):
    said = plan(untouched_run, "--configfile", "two_languages.yaml").stdout
    assert "Nothing to do" in said and "Made again" not in said


def read_facts(results):
    """({stage: items}, {stage: jobs that loaded a model}) by the manifests of a finished run, the audit's left out."""
    items, loaded = Counter(), defaultdict(set)
    for path in results.rglob("*manifest.json"):
        if path.relative_to(results).parts[0] in ("state", "audit"):
            continue
        manifest = json.loads(path.read_text(encoding="utf-8"))
        stage, counts = manifest["stage"], manifest.get("counts", {})
        counted = {"generate": "responses", "score": "responses", "judge": "verdicts"}
        items[stage] += counts.get(counted.get(stage), 0)
        done = {"generate": "sampled", "score": "scored", "evaluate": "evaluated", "train": "tokens"}
        if manifest.get(done.get(stage)):
            loaded[stage].add(manifest["job"])
    return items, {stage: len(jobs) for stage, jobs in loaded.items()}


def test_plan_before_a_run_is_its_fact(fresh_project, untouched_run, tmp_path):
    items, loads = read_facts(untouched_run / RESULTS)
    planned, _ = plan_jobs(fresh_project, tmp_path, "--configfile", "two_languages.yaml")
    # Which of the audit and the generation samples the prompts of both depends on which runs first.
    jobs = [job for job in planned["jobs"] if "audit" not in job["rule"]]
    for stage in ("generate", "score", "judge"):
        assert sum(job["work"]["items"] for job in jobs if job["work"]["stage"] == stage) == items[stage] > 0
    for stage in ("generate", "score", "evaluate", "train"):
        assert sum(job["work"]["loads"] for job in jobs if job["work"]["stage"] == stage) == loads[stage]
    assert not sum(job["work"]["loads"] for job in jobs if job["work"]["stage"] == "judge")  # the oracle


def test_rows_of_a_training_are_known_once_pairs_exist(untouched_run, tmp_path):
    results = untouched_run / RESULTS
    seen = {}
    for path in results.glob("*/*/*/checkpoint/manifest.json"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        seen[str(path.parents[1].relative_to(results))] = manifest["rows_seen"]["sum"]
    text = (untouched_run / "two_languages.yaml").read_text(encoding="utf-8")
    config = tmp_path / "changed.yaml"
    config.write_text(text.replace("learning_rate: 1.0e-3", "learning_rate: 2.0e-3"), encoding="utf-8")
    planned, _ = plan_jobs(untouched_run, tmp_path, "--configfile", config)
    trained = [job for job in planned["jobs"] if job["rule"] == "train"]
    names = ("model", "pool", "setting")
    assert {"/".join(job["wildcards"][name] for name in names): job["work"]["items"] for job in trained} == seen
    assert {job["why"] for job in trained} == {"code or parameters changed"}
    # What was evaluated with these checkpoints is there and would be made again.
    evaluated = [job for job in planned["jobs"] if job["rule"].startswith("evaluate_")]
    assert {job["why"] for job in evaluated} == {"after an earlier stage"} and len(evaluated) == len(seen)
    assert planned["made_again"]["jobs"] == sum(bool(job["outputs"]) for job in planned["jobs"])


def test_more_samples_are_another_plan(untouched_run, tmp_path):
    planned, _ = plan_jobs(untouched_run, tmp_path, "--configfile", "two_languages.yaml", "--config", "samples=16")
    sampled = [job for job in planned["jobs"] if job["rule"] == "generate"]
    assert sampled and {job["why"] for job in sampled} == {"code or parameters changed"}
    assert {job["work"]["items"] for job in sampled} == {16 * 16}


def test_more_prompts_are_planned_in_every_language(untouched_run, tmp_path):
    """Files of the smaller run say nothing of it, also where a job only follows an earlier stage."""
    text = (untouched_run / "two_languages.yaml").read_text(encoding="utf-8")
    config = tmp_path / "more.yaml"
    config.write_text(text.replace("reference: reference, limit: 16", "reference: reference, limit: 32"), "utf-8")
    planned, _ = plan_jobs(untouched_run, tmp_path, "--configfile", config)
    for rule, items in (("generate", 32 * 8), ("score", 32 * 8), ("train", 32 * 6)):
        works = {job["work"]["items"] for job in planned["jobs"] if job["rule"] == rule}
        assert works == {items}, rule


def test_wrong_arguments_end_with_one_message(fresh_project):
    for arguments, message in (
        (["--gpu-type", "abacus"], "unknown GPU type abacus"),
        (["--config", "samples=0"], "0 is less than the minimum of 1"),
        (["--", "nonsense"], "nonsense"),
    ):
        done = plan(fresh_project, *arguments, check=False)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
