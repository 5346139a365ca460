"""What the log of a run says of the time left."""

import re

import pytest
from conftest import ROOT, snakemake

# Four jobs whose rule is measured by the first of them, and one of a rule that is not measured before its end.
WORKFLOW = f"""
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, "{ROOT}/scripts")
from croco.planning.time_left import log_time_left
from croco.results_folder import ResultsFolder

ResultsFolder("results", {{}}, Path("{ROOT}")).install(workflow)
GRID = SimpleNamespace(results="results", config={{}}, list_models=list)
CHECKOUT = Path("CHECKOUT")

onstart:
    log_time_left(GRID, CHECKOUT, workflow.dag, interval=INTERVAL)

rule all:
    input: "results/sum.txt"

rule add_up:
    input: expand("results/{{number}}.txt", number=range(4))
    output: "results/sum.txt"
    shell: "touch {{output}}"

rule sleep:
    output: "results/{{number}}.txt"
    shell: "sleep 0.1; FAULT; touch {{output}}"
"""


@pytest.fixture
def run(tmp_path):
    """Runs the workflow; the result are the lines on steps and time left."""

    def start(*arguments, interval=0, checkout=ROOT, fault="true"):
        text = WORKFLOW.replace("INTERVAL", str(interval)).replace('CHECKOUT")', f'{checkout}")')
        (tmp_path / "Snakefile").write_text(text.replace("FAULT", fault), encoding="utf-8")
        done = snakemake(tmp_path, *arguments, check=fault == "true")
        assert "Traceback" not in done.stderr
        return re.findall(r"^(?:\d+ of \d+ steps|time left: .*|warning: .*)", done.stderr, re.M)

    return start


MINUTE = "time left: about 1 minute with {} at once, and 1 job of rules that have not been measured"
UNKNOWN = "time left: unknown: no job of these rules has finished yet"


def test_each_line_of_progress_has_a_time_left_until_no_work_is_left(run):
    assert run("--cores", 1) == [
        *(line for number in (1, 2, 3) for line in (f"{number} of 6 steps", MINUTE.format("1 job"))),
        "4 of 6 steps", UNKNOWN, "5 of 6 steps", "6 of 6 steps",
    ]  # fmt: skip


def test_a_job_that_has_just_ended_makes_room_for_the_next(run):
    assert run("--cores", 2)[:2] == ["1 of 6 steps", MINUTE.format("2 jobs")]


def test_finished_jobs_of_earlier_runs_are_measured(run, tmp_path):
    run("--cores", 1)
    for name in ("2.txt", "3.txt", "sum.txt"):
        (tmp_path / "results" / name).unlink()
    assert run("--cores", 1)[:2] == ["1 of 4 steps", MINUTE.format("1 job")]


def test_lines_keep_their_interval(run):
    assert sum(line.startswith("time left") for line in run("--cores", 1, interval=60)) == 1


def test_a_failed_job_does_not_run(run):
    lines = run("--cores", 1, "--keep-going", fault="[[ {wildcards.number} != 0 ]]")
    assert lines == [line for number in (1, 2, 3) for line in (f"{number} of 6 steps", MINUTE.format("1 job"))]


def test_an_estimate_that_fails_is_told_once_and_ends_no_run(run, tmp_path):
    lines = run("--cores", 1, checkout=tmp_path / "none")
    assert [line.split(":")[0] for line in lines if "steps" not in line] == ["warning"]
    assert lines[-1] == "6 of 6 steps"


@pytest.mark.parametrize("option", ["--dry-run", "--quiet=progress"])
def test_without_progress_there_is_no_time_left(run, option):
    assert run("--cores", 1, option) == []
