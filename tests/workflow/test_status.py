"""What status.py says before, during and after runs."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest
from conftest import ENVIRONMENT, INTERPRETER, copy_project, write_rows
from lxml import html

RUN = ("--configfile", "two_languages.yaml")
RESULTS = "results/small"
TRAINED = "mini/en/dpo"
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


def progress(project, *arguments):
    """(finished process, the page) of --html."""
    done = status(project, "--html", "progress.html", *arguments)
    return done, html.fromstring((project / "progress.html").read_text(encoding="utf-8"))


def write_live_training(project):
    """What a running training has in state/; the last line of its metrics is not written to its end."""
    work = project / RESULTS / "state/training/d1gest/work"
    write_rows(work / "metrics.jsonl", [{"step": step, "loss": 1 / step} for step in (1, 2, 3)])
    with open(work / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')
    job = {"output": f"{RESULTS}/{TRAINED}/checkpoint", "objective": "dpo", "beta": 0.1}
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")


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
    assert re.search(r"Time left  (about \d+ minutes? with 1 job at once|unknown)", said)


@contextmanager
def running(project, *options):
    """A run one of whose failing jobs has started."""
    run = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2", *RUN, *UNTIL, *options],
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
    (log,) = (project / ".snakemake/log").glob("*.log")
    assert "time left: unknown: no job of these rules has finished yet\n" in log.read_text(encoding="utf-8")
    done = status(project)
    counts = count_states(done.stdout)
    assert done.returncode == 1 and counts["failed"] >= 1 and not counts["running"]
    assert "error: the disk is on fire" in done.stdout and f"{RESULTS}/logs/prompts" in done.stdout
    assert re.search(r"Go on      \S+/bin/snakemake --cores 2 --configfile two_languages.yaml", done.stdout)


def test_a_rule_without_log_failed(project):
    """Snakemake's log names the outputs of a failed job, and its log only where it has one."""
    rules = project / "rules/prompts.smk"
    text, changes = re.subn(r"        log:\n.*\n", "", rules.read_text(encoding="utf-8"))
    rules.write_text(text, encoding="utf-8")
    (project / "go_on").touch()
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *RUN, *UNTIL]
    run = subprocess.run(command, cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert changes and run.returncode == 1
    done = status(project)
    assert done.returncode == 1 and count_states(done.stdout)["failed"] >= 1
    for said in (done.stdout, run.stderr):
        assert re.search(r"failed: select_\w+, log \S+\.snakemake\.log \(it has none of its own\)\n", said)


def test_a_job_of_a_killed_start_waits(project):
    """Until it is started again; its mark is older than the start."""
    with running(project) as run:
        before = count_states(status(project).stdout)["running"]
        for process in [*psutil.Process(run.pid).children(recursive=True), run]:
            process.kill()
    (project / "go_on").unlink()
    shutil.rmtree(project / RESULTS / "logs")
    with running(project, "--cores", "1"):
        said = count_states(status(project).stdout)
        assert said["running"] == 1 < before and said["waiting"] > before


def test_page_of_a_run_that_goes_on_and_fails(project):
    with running(project):
        write_live_training(project)
        done, page = progress(project)
        assert done.returncode == 0 and count_states(done.stdout)["running"] >= 1
        assert page.xpath("//meta[@http-equiv='refresh']/@content") == ["60"]
        assert "select_" in page.xpath("string(//section[@id='running']//tbody)")
        assert not page.xpath("//script") and not page.xpath("//*[@src]")
        (last,) = page.xpath("//section[@id='training']//tbody/tr")
        assert [cell.text for cell in last][:3] == [TRAINED, "waiting", "3"]
        assert len(page.xpath("//section[@id='training']//*[local-name()='svg']")) == 1
    done, page = progress(project)
    assert done.returncode == 1 and not page.xpath("//meta[@http-equiv='refresh']")
    assert "error: the disk is on fire" in page.xpath("string(//section[@id='failed']//pre)")
    assert "snakemake --cores 2 --configfile two_languages.yaml" in page.xpath("string(//section[@id='progress'])")


def test_page_counts_as_the_text_does(fresh_project):
    said = status(fresh_project).stdout
    _, page = progress(fresh_project)
    numbers = [
        [int(cell.text.replace(",", "")) if cell.text != "\N{EN DASH}" else 0 for cell in row.xpath("./td")[1:6]]
        for row in page.xpath("//section[@id='stages']//tbody/tr")
    ]
    jobs, *by_state = map(sum, zip(*numbers, strict=True))
    assert dict(zip(("done", "running", "waiting", "failed"), by_state, strict=True)) == count_states(said)
    assert jobs == sum(by_state) and all(row[0] == sum(row[1:]) for row in numbers)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_page_is_written_again_until_a_signal(fresh_project, number, code):
    page = fresh_project / "progress.html"
    command = [str(INTERPRETER), "scripts/status.py", *RUN, "--html", "progress.html", "--every", "1"]
    again = subprocess.Popen(command, cwd=fresh_project, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    try:
        assert again.stdout.readline().startswith("progress.html: ") and again.stdout.readline()
        again.send_signal(number)
        assert again.wait(timeout=60) == code
    finally:
        again.kill()
        again.wait()
    assert "loads itself again every 1 seconds" in page.read_text(encoding="utf-8")


def test_page_of_a_finished_run_is_written_once(untouched_run):
    done, page = progress(untouched_run, "--every", "1")
    assert done.returncode == 0 and not page.xpath("//meta[@http-equiv='refresh']")
    assert page.xpath("//a[text()='Open the report page']/@href") == [f"{RESULTS}/report.html"]
    assert page.xpath("//section[@id='training']//*[local-name()='svg']")


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
