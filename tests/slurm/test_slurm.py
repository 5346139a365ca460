"""The profile for SLURM on a real SLURM of one node with two GPUs that are names only.

`make test-slurm` runs these; they need Debian's packages slurmctld, slurmd, slurm-client and munge.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "tests" / "torture"))

from cluster import GPUS, Cluster, missing_programs, seconds
from torture import make_project

from croco.slurm import job_prefix

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {' '.join(missing_programs())}")

GENERATIONS = "results/slurm/mini/en/generations/0.jsonl"
CHECKPOINT = "results/slurm/mini/multi/dpo/checkpoint/manifest.json"
COMMAND = [
    *("--workflow-profile", "profiles/slurm", "--configfile", "slurm.yaml"),
    *("--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "10", "--slurm-keep-successful-logs"),
]


@pytest.fixture(scope="module")
def cluster():
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = Cluster(Path(folder))
        yield cluster
        cluster.close()


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("project") / "origin")
    (project / "bin" / "nvidia-smi").unlink()  # the cluster has its own
    shutil.copy(Path(__file__).with_name("slurm.yaml"), project)
    return project


@pytest.fixture
def project(origin, tmp_path):
    return Path(shutil.copytree(origin, tmp_path / "project", symlinks=True))


@pytest.fixture
def start(cluster, project):
    """Starts a run for some targets; what is still there in the end is killed."""
    heads = []

    def start(*targets):
        with open(project / "run.log", "ab") as log:
            head = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *targets, *COMMAND],
                cwd=project,
                env=cluster.environment | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
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
    code = head.wait(1800)
    assert code == 0, (project / "run.log").read_text()[-6000:]


def intervals_by_device(cluster, jobs):
    """{device: [(start, end), ...]} in seconds, for the jobs that used GPUs."""
    devices = cluster.list_devices()
    intervals = {}
    for job in jobs:
        for device in filter(None, devices.get(job["JobId"], "").split(",")):
            intervals.setdefault(device, []).append((seconds(job["StartTime"]), seconds(job["EndTime"])))
    return {device: sorted(times) for device, times in intervals.items()}


def test_jobs_share_the_gpus_and_never_a_device(cluster, project, start):
    finish(start(CHECKPOINT), project)
    jobs = jobs_of(cluster, project)
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    intervals = intervals_by_device(cluster, jobs)
    assert set(intervals) == {str(number) for number in range(GPUS)}
    for times in intervals.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(times))
    first, second = intervals["0"], intervals["1"]
    assert any(a < d and c < b for a, b in first for c, d in second if (a, b) != (c, d)), "never two jobs at a time"
    training = [job for job in jobs if "train" in job["Comment"] and cluster.list_devices().get(job["JobId"]) == "0,1"]
    assert len(training) == 1


def test_a_cancelled_job_is_submitted_again(cluster, project, start):
    head = start(GENERATIONS)
    job = cluster.wait_for(
        lambda: next((job for job in jobs_of(cluster, project, "RUNNING") if "rule_generate" in job["Comment"]), None),
        "a GPU job runs",
        300,
    )
    cluster.ask("scancel", job["JobId"])
    finish(head, project)
    again = [other for other in jobs_of(cluster, project) if other["Comment"] == job["Comment"]]
    assert sorted(other["JobState"] for other in again) == ["CANCELLED", "COMPLETED"]


def test_a_restart_cancels_the_jobs_of_a_killed_run(cluster, project, start):
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
