"""What status.py says before, during and after runs."""

import re
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from conftest import ENVIRONMENT, INTERPRETER, copy_project

RUN = ("--configfile", "two_languages.yaml")
RESULTS = "results/small"
UNTIL = ("--until", "select_train", "select_evaluate")
# Stands in for scripts/prompts.py: a job that runs as long as the test needs it, and fails then.
FAILING = """
import sys, time
from pathlib import Path
while not Path("go_on").exists():
    time.sleep(0.1)
sys.exit("error: the disk is on fire")
"""


def status(project, *arguments):
    command = [str(INTERPRETER), "scripts/status.py", *RUN, *arguments]
    done = subprocess.run(command, cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done


def count_states(said):
    """{state: number of jobs} of the output."""
    return {state: int(count) for count, state in re.findall(r"(\d+) (done|running|waiting|failed)\b", said)}


def list_results(project):
    """All files of the run, without the digests that any dry-run remembers."""
    paths = (project / RESULTS).rglob("*")
    return sorted(path for path in paths if path.is_file() and path.parent.name != "digests")


@pytest.fixture
def project(tmp_path):
    """A copy of the project in which each job that reads prompts waits for a file, and fails."""
    folder = copy_project(tmp_path)
    (folder / "scripts/prompts.py").write_text(FAILING, encoding="utf-8")
    return folder


def test_nothing_ran(fresh_project):
    done = status(fresh_project)
    counts = count_states(done.stdout)
    assert done.returncode == 0 and "none was started" in done.stdout
    assert counts["waiting"] > 50 and not counts["done"] + counts["running"] + counts["failed"]
    assert "snakemake --cores all --configfile two_languages.yaml" in done.stdout


def test_finished_run(untouched_run):
    before = list_results(untouched_run)
    done = status(untouched_run)
    counts = count_states(done.stdout)
    assert done.returncode == 0 and counts["done"] > 50 and sum(counts.values()) == counts["done"]
    assert "Go on" not in done.stdout and "Time left" not in done.stdout
    assert list_results(untouched_run) == before


def test_time_left_by_finished_jobs(untouched_run):
    """With more samples, most rules have jobs to do and jobs that are done."""
    said = status(untouched_run, "--config", "samples=16").stdout
    assert re.search(r"Time left  (about \d+ minutes with 1 job at once|unknown)", said)


@contextmanager
def running(project):
    """A run one of whose failing jobs has started."""
    run = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2", *RUN, *UNTIL],
        cwd=project, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not list((project / RESULTS / "logs/prompts").glob("**/*.log")):
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.2)
        yield run
    finally:
        (project / "go_on").touch()
        run.wait(timeout=120)


def test_running_then_failed(project):
    with running(project) as run:
        done = status(project)
        assert done.returncode == 0 and "goes on: process" in done.stdout and "Go on" not in done.stdout
        assert count_states(done.stdout)["running"] >= 1 and count_states(done.stdout)["done"] >= 1
    assert run.returncode == 1
    done = status(project)
    counts = count_states(done.stdout)
    assert done.returncode == 1 and counts["failed"] >= 1 and not counts["running"]
    assert "error: the disk is on fire" in done.stdout and f"{RESULTS}/logs/prompts" in done.stdout
    assert "Go on      snakemake --cores 2 --configfile two_languages.yaml" in done.stdout


def test_killed_run_waits(project):
    with running(project) as run:
        run.kill()
        run.wait()
    done = status(project)
    assert "none goes on" in done.stdout and count_states(done.stdout)["running"] == 0
    assert done.returncode == 0 and "Go on" in done.stdout


def test_wrong_config_ends_with_one_message(fresh_project):
    done = status(fresh_project, "--config", "samples=0")
    assert done.returncode == 1 and "less than the minimum" in done.stderr


def test_help_has_examples():
    done = subprocess.run(
        [str(INTERPRETER), "scripts/status.py", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "Examples:" in done.stdout
