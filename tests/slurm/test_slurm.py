"""The profile for SLURM on a real SLURM of one node with two GPUs that are names only.

`make test-slurm` runs these; they need Debian's packages slurmctld, slurmd, slurmdbd, slurm-client, munge and mariadb-server. One local run in a
SLURM job makes all that the tests need. Each test works on a copy of its results, and runs as few jobs as possible.
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from cluster import GPUS, Cluster, minutes, missing_programs, seconds
from conftest import copy_project

from croco.slurm import job_prefix

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {' '.join(missing_programs())}")

GENERATIONS = "results/slurm/mini/en/generations/0.jsonl"
ALL_GENERATIONS = [
    f"results/slurm/{name}/{code}/generations/0.jsonl" for name in ("mini", "warm") for code in ("en", "de")
]
PAIRS = "results/slurm/mini/multi/dpo/pairs.jsonl"
CHECKPOINT = "results/slurm/mini/multi/dpo/checkpoint/manifest.json"
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--configfile", "slurm.yaml"]
# The shortest waits that the plugin has: it asks after 1 s, 11 s, 21 s and so on.
PROFILE = [
    *("--workflow-profile", "profiles/slurm", "--latency-wait", "10"),
    *("--slurm-init-seconds-before-status-checks", "1", "--slurm-keep-successful-logs"),
]
OUTAGE = 30  # seconds without a controller


@pytest.fixture(scope="module")
def cluster():
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = Cluster(Path(folder))
        cluster.environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        yield cluster
        cluster.close()


@pytest.fixture(scope="module")
def local_run(cluster, miniature, tmp_path_factory):
    """The project of a local run in an allocation of two GPUs, which has made everything up to the pairs."""
    project = tmp_path_factory.mktemp("project") / "origin"
    project.mkdir()
    copy_project(project)
    shutil.copytree(miniature, project / "data")
    shutil.copy(Path(__file__).with_name("slurm.yaml"), project)
    command = [*SNAKEMAKE, "--cores", "2", "--resources", f"gpu={GPUS}", "--", PAIRS]
    options = [f"--gpus={GPUS}", "--ntasks=1", "--cpus-per-task=4", "--mem=8000", f"--chdir={project}"]
    environment = f"--export=ALL,CROCO_GPU_LOCKS={project / 'locks'}"
    files = [f"--output={project / 'run.log'}", "--parsable", "--wait"]
    subprocess.run(
        ["sbatch", *options, environment, *files, "--wrap", subprocess.list2cmdline(command)],
        env=cluster.environment,
        check=False,
        timeout=900,
    )
    assert (project / PAIRS).exists(), (project / "run.log").read_text()[-6000:]
    return project


@pytest.fixture
def project(local_run, tmp_path):
    return Path(shutil.copytree(local_run, tmp_path / "project", symlinks=True))


@pytest.fixture
def without_generations(project):
    """The project as if no response was sampled yet."""
    results = project / "results" / "slurm"
    for folder in [results / "state" / "generations", *results.glob("mini/*/generations")]:
        shutil.rmtree(folder)
    return project


@pytest.fixture
def start(cluster, project):
    """Starts a run for some targets; what is still there in the end is killed."""
    heads = []

    def start(*targets, options=()):
        with open(project / "run.log", "ab") as log:
            head = subprocess.Popen(
                [*SNAKEMAKE, *PROFILE, *options, "--", *targets],
                cwd=project,
                env=cluster.environment,
                stdout=log,
                stderr=log,
            )
        heads.append(head)
        return head

    yield start
    for head in heads:
        head.kill()
        head.wait()
    for job in jobs_of(cluster, project):
        cluster.ask("scancel", job["JobId"])


def jobs_of(cluster, project, *states):
    """The jobs of the project's results folder, of these states or all."""
    prefix = job_prefix(f"{project}/results/slurm")
    return [
        job
        for job in cluster.list_jobs()
        if job["JobName"].startswith(prefix) and (not states or job["JobState"] in states)
    ]


def finish(head, project):
    """Waits for the end of a run that must end well."""
    code = head.wait(600)
    assert code == 0, (project / "run.log").read_text()[-6000:]


def intervals_by_device(cluster, jobs):
    """{device: [(start, end), ...]} in seconds, for the jobs that used GPUs."""
    devices = cluster.list_devices()
    intervals = {}
    for job in jobs:
        for device in filter(None, devices.get(job["JobId"], "").split(",")):
            intervals.setdefault(device, []).append((seconds(job["StartTime"]), seconds(job["EndTime"])))
    return {device: sorted(times) for device, times in intervals.items()}


def wait_for_running(cluster, project, rule):
    """The job of a rule, as soon as it runs."""
    return cluster.wait_for(
        lambda: next((job for job in jobs_of(cluster, project, "RUNNING") if rule in job["Comment"]), None),
        f"a job of {rule} runs",
        300,
    )


def suspend_training(job):
    """Stops the processes of a training, so that it cannot end before its time limit."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_JOB_ID") == job["JobId"] and "train.py" in " ".join(process.cmdline()):
                process.suspend()
        except psutil.Error:  # gone, or another user's
            continue


def test_a_local_run_in_an_allocation_uses_all_its_devices(local_run):
    """The second device is tried only while the first one is taken."""
    (locks,) = (local_run / "locks").glob("slurm-*")
    assert len(list(locks.glob("gpu-*"))) == GPUS


def test_jobs_wait_for_a_drained_node_then_share_the_gpus(cluster, without_generations, start):
    project = without_generations
    cluster.ask("scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=test")
    try:
        head = start(*ALL_GENERATIONS)
        cluster.wait_for(
            lambda: len(jobs_of(cluster, project, "PENDING")) == len(ALL_GENERATIONS), "all jobs wait", 120
        )
        time.sleep(5)
        assert len(jobs_of(cluster, project)) == len(jobs_of(cluster, project, "PENDING"))
        assert head.poll() is None
    finally:
        cluster.ask("scontrol", "update", "NodeName=n1", "State=RESUME")
    finish(head, project)
    jobs = jobs_of(cluster, project)
    assert [job["JobState"] for job in jobs] == ["COMPLETED"] * len(ALL_GENERATIONS)
    intervals = intervals_by_device(cluster, jobs)
    assert set(intervals) == {str(number) for number in range(GPUS)}
    for times in intervals.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(times))
    first, second = intervals["0"], intervals["1"]
    assert any(a < d and c < b for a, b in first for c, d in second), "never two jobs at a time"


def test_a_training_on_both_devices_resumes_after_its_time_limit(cluster, project, start):
    """Its states are asked from the accounting database."""
    head = start(CHECKPOINT, options=["--slurm-status-command", "sacct"])
    job = wait_for_running(cluster, project, "rule_train")
    trainings = project / "results" / "slurm" / "state" / "training"
    cluster.wait_for(lambda: list(trainings.glob("*/work/checkpoint-*/progress_1.json")), "a checkpoint", 120)
    suspend_training(job)
    cluster.ask("scontrol", "update", f"JobId={job['JobId']}", "EndTime=now")
    finish(head, project)
    first, second = sorted(jobs_of(cluster, project), key=lambda job: int(job["JobId"]))
    assert (first["JobState"], second["JobState"]) == ("TIMEOUT", "COMPLETED")
    assert minutes(second["TimeLimit"]) == 2 * minutes(job["TimeLimit"])
    assert {cluster.list_devices()[job["JobId"]] for job in (first, second)} == {"0,1"}
    parts = json.loads((project / CHECKPOINT).read_text(encoding="utf-8"))["runs"]
    assert [part["from_step"] > 0 for part in parts] == [False, True]


def test_a_training_that_is_put_back_into_the_queue_resumes(cluster, project, start):
    """As SLURM does with a job that a more important one preempts, on a site whose PreemptMode is REQUEUE."""
    head = start(CHECKPOINT)
    job = wait_for_running(cluster, project, "rule_train")["JobId"]
    trainings = project / "results" / "slurm" / "state" / "training"
    cluster.wait_for(lambda: list(trainings.glob("*/work/checkpoint-*/progress_1.json")), "a checkpoint", 120)
    cluster.ask("scontrol", "requeue", job)
    cluster.wait_for(lambda: jobs_of(cluster, project, "PENDING"), "the job waits again")
    cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # SLURM delays it by two minutes
    finish(head, project)
    (ended,) = jobs_of(cluster, project)
    assert (ended["JobId"], ended["JobState"], ended["Restarts"]) == (job, "COMPLETED", "1")
    parts = json.loads((project / CHECKPOINT).read_text(encoding="utf-8"))["runs"]
    assert [part["from_step"] > 0 for part in parts] == [False, True]


def test_outages_of_the_controller_are_survived(cluster, without_generations, start):
    """One at the start, and one while a job runs."""
    project = without_generations
    log = project / "results/slurm/logs/generate/mini.en.0.log"
    log.unlink()
    cluster.stop("slurmctld")
    try:
        head = start(GENERATIONS)
        cluster.wait_for(lambda: "waiting for it" in (project / "run.log").read_text(), "the run waits", 300)
    finally:
        cluster.start_controller()
    # A job step that starts while the controller is away fails, and its job is lost.
    cluster.wait_for(lambda: log.exists() and log.stat().st_size, "the command of the job runs", 300)
    cluster.stop("slurmctld")
    try:
        cluster.wait_for(lambda: "SLURM does not answer" in (project / "run.log").read_text(), "it was asked", 300)
        time.sleep(OUTAGE)
    finally:
        cluster.start_controller()
    finish(head, project)
    assert [job["JobState"] for job in jobs_of(cluster, project)] == ["COMPLETED"]


def test_a_cancelled_job_is_submitted_again(cluster, without_generations, start):
    project = without_generations
    head = start(GENERATIONS)
    job = wait_for_running(cluster, project, "rule_generate")
    cluster.ask("scancel", job["JobId"])
    finish(head, project)
    again = [other for other in jobs_of(cluster, project) if other["Comment"] == job["Comment"]]
    assert sorted(other["JobState"] for other in again) == ["CANCELLED", "COMPLETED"]


def test_a_restart_cancels_the_jobs_of_a_killed_run(cluster, without_generations, start):
    project = without_generations
    head = start(GENERATIONS)
    cluster.wait_for(lambda: jobs_of(cluster, project, "RUNNING"), "a job runs", 300)
    head.send_signal(signal.SIGKILL)
    head.wait()
    left = {job["JobId"] for job in jobs_of(cluster, project, "RUNNING", "PENDING")}
    assert left
    finish(start(GENERATIONS), project)
    ended = {job["JobId"]: job for job in jobs_of(cluster, project)}
    assert {ended[number]["JobState"] for number in left} <= {"CANCELLED", "COMPLETED"}
    assert "cancelling SLURM jobs of the run before" in (project / "run.log").read_text()
    by_job = {}
    for job in ended.values():
        if job["StartTime"] != "Unknown":
            by_job.setdefault(job["Comment"], []).append((seconds(job["StartTime"]), seconds(job["EndTime"])))
    for times in by_job.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(times))), "a job ran twice at a time"
