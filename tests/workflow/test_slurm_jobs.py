"""croco.slurm and the wrapper for sites that refuse --gpus, with programs of the test's own in place of SLURM's."""

import os
import re
import subprocess
import time
from types import SimpleNamespace

import pytest
from conftest import ENVIRONMENT, ROOT, snakemake

from croco import slurm
from croco.errors import InputError

# Jobs are files, named by their ids, that hold their names; those of another user end with `.of` and the user's name.
SQUEUE = """cd "$0.jobs" || exit 1
for job in *; do
    owner="${job#*.of}"; test "$owner" != "$job" || owner="$(id -un)"
    test -e "$job" && echo "${job%%.of*} $owner $(cat $job)"
done
exit 0"""
SCANCEL = 'cd "$(dirname "$0")/squeue.jobs" && rm -f "$@"'


def add_program(folder, name, body):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """The folder of the jobs that SLURM has."""
    programs = tmp_path / "bin"
    jobs = programs / "squeue.jobs"
    jobs.mkdir(parents=True)
    add_program(programs, "squeue", SQUEUE)
    add_program(programs, "scancel", SCANCEL)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "POLL", 0.01)
    monkeypatch.setattr(slurm, "PATIENCE", 0.2)
    return jobs


def test_only_the_jobs_of_the_folder_are_cancelled(queue, tmp_path, capsys):
    ours, other = (slurm.job_prefix(str(tmp_path / name)) for name in ("ours", "other"))
    for number, name in enumerate([f"{ours}_a-b", f"{other}_a-b", "somebody else's", f"{ours}_c"], start=9):
        (queue / str(number)).write_text(name)
    slurm.cancel_jobs(str(tmp_path / "ours"))
    assert sorted(path.name for path in queue.iterdir()) == ["10", "11"]
    assert capsys.readouterr().err == "cancelling SLURM jobs of the run before: 9 12\n"


def test_the_jobs_of_another_user_stop_the_start_and_are_named(queue, tmp_path):
    """squeue --me would not show them, and a second job would be submitted for the same files."""
    (queue / "9.ofada").write_text(f"{slurm.job_prefix(str(tmp_path))}_a-b")
    (queue / "10").write_text(f"{slurm.job_prefix(str(tmp_path))}_a-c")
    with pytest.raises(InputError, match=r"another user started still write to this folder: 9 \(ada\)"):
        slurm.cancel_jobs(str(tmp_path))
    assert len(list(queue.iterdir())) == 2


# Down at the first two questions. This is what scontrol of SLURM 22.05 says.
PING = '''echo >> "$0.asked"
test "$(wc -l < "$0.asked")" -gt 2 || { echo "Slurmctld(primary) at login is DOWN"; exit 1; }
echo "Slurmctld(primary) at login is UP"'''


def test_a_submission_waits_for_the_controller(queue, capsys):
    scontrol = add_program(queue.parent, "scontrol", PING)
    slurm.wait_for_controller(time.monotonic() + 60)
    assert len(scontrol.with_name("scontrol.asked").read_text().splitlines()) == 3
    assert capsys.readouterr().err.count("waiting to submit") == 2


def test_a_submission_does_not_wait_for_ever(queue):
    add_program(queue.parent, "scontrol", "exit 1")
    slurm.wait_for_controller(time.monotonic() + 0.1)


def test_a_folder_has_one_prefix_by_whatever_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "link").symlink_to("results")
    prefixes = {slurm.job_prefix(path) for path in ("results", "link", f"{tmp_path}/results", "./results/")}
    assert len(prefixes) == 1
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,50}", prefixes.pop()), "Snakemake's plugin takes no other prefix"


def test_jobs_that_do_not_end_stop_the_start(queue, tmp_path):
    (queue / "7").write_text(slurm.job_prefix(str(tmp_path)))
    add_program(queue.parent, "scancel", "exit 0")
    with pytest.raises(InputError, match="do not end: 7"):
        slurm.cancel_jobs(str(tmp_path))


def test_a_controller_that_does_not_answer_stops_the_start(queue, tmp_path):
    add_program(queue.parent, "squeue", "exit 1")
    with pytest.raises(InputError, match="SLURM does not answer"):
        slurm.cancel_jobs(str(tmp_path))


@pytest.mark.parametrize("name", ["sbatch", "srun"])
def test_the_wrapper_asks_for_gres(name, tmp_path):
    add_program(tmp_path, name, 'printf "%s\\n" "$@"')
    wrappers = ROOT / "profiles" / "slurm" / "gres"
    done = subprocess.run(
        [name, "--gpus=h100:2", "--comment", "two words", "--gpus=1"],
        env={"PATH": f"{wrappers}:{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["--gres=gpu:h100:2", "--comment", "two words", "--gres=gpu:1"]


def test_a_preempted_job_that_left_the_queue_counts_as_cancelled(queue):
    """Else the run waits for ever where the site cancels preempted jobs. Job 12 was put back into the queue."""
    (queue / "12").write_text("croco-job")
    states = {"11": "PREEMPTED", "12": "PREEMPTED", "13": "COMPLETED"}
    assert slurm.end_preempted(states) == {"11": "CANCELLED", "12": "PREEMPTED", "13": "COMPLETED"}


def test_preempted_jobs_are_left_alone_while_slurm_does_not_answer(monkeypatch):
    monkeypatch.setattr(slurm, "ask_slurm", lambda *command: None)
    assert slurm.end_preempted({"11": "PREEMPTED"}) == {"11": "PREEMPTED"}


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ("/tmp/results", "it is under /tmp"),
        ("/tmpresults", None),
        ("/scratch/tmp/results", None),
        ("/run/results", "its file system is tmpfs"),
        ("/run/user/lustre/results", None),
    ],
)
def test_storage_of_one_node_is_named(monkeypatch, results, reason):
    disks = {"/": "ext4", "/run": "tmpfs", "/run/user/lustre": "lustre"}
    partitions = [SimpleNamespace(mountpoint=mountpoint, fstype=kind) for mountpoint, kind in disks.items()]
    monkeypatch.setattr(slurm.psutil, "disk_partitions", lambda all: partitions)
    monkeypatch.setattr(slurm.os.path, "realpath", lambda path: path)
    assert slurm.find_local_storage(results) == reason


def test_a_dry_run_names_what_each_kind_of_job_asks_for(fresh_project):
    asked = ["train:gpu=2", "train:slurm_partition=large", "train:mem_mb=9000", "train:runtime=90"]
    options = ["--workflow-profile", "profiles/slurm", "--set-resources", *asked]
    output = snakemake(fresh_project, "--dry-run", "--quiet", "--configfile", "two_languages.yaml", *options).stdout
    table = output[output.index("rule  ") :].splitlines()
    assert table[0].split() == ["rule", "jobs", "partition", "GPUs", "CPUs", "MB", "minutes"]
    rows = {line.split()[0]: line.split()[2:] for line in table[1:] if line}
    assert rows["train"] == ["large", "2", "1", "9000", "90"]
    assert rows["generate"][:2] == ["default", "0"]
    assert rows["gather_generations"][0] == "local"
    assert "minutes" not in snakemake(fresh_project, "--dry-run", "--quiet").stdout


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("conda", "--sdm conda: the command conda is not on PATH"),
        ("apptainer", "--sdm apptainer: no rule of this workflow has a container image"),
        ("env-modules", "--sdm env-modules: no rule of this workflow has environment modules"),
    ],
)
def test_software_that_no_job_would_get_is_refused(fresh_project, tmp_path, method, reason):
    """Here no conda is installed. A profile sets the method as the command line does."""
    (tmp_path / "profile.yaml").write_text(f"software-deployment-method: [{method}]\n", encoding="utf-8")
    done = snakemake(fresh_project, "--dry-run", "--quiet", "--profile", tmp_path, check=False)
    assert done.returncode == 1
    assert f"error: {reason}" in done.stderr
    assert done.stderr.count("Remedy: ") == 1
    assert "Traceback" not in done.stderr


def test_conda_plans_the_environment_of_the_lock(fresh_project, tmp_path, monkeypatch):
    """A dry-run only asks conda about itself."""
    about = '{"conda_prefix": "/conda", "platform": "linux-64", "get": {"channel_priority": "strict"}}'
    programs = tmp_path / "bin"
    programs.mkdir()
    add_program(programs, "conda", f"test \"$1\" = --version && echo conda 25.1.0 || echo '{about}'")
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{programs}:{ENVIRONMENT['PATH']}")
    output = snakemake(fresh_project, "--dry-run", "--sdm", "conda")
    assert "Conda environment envs/croco.yaml will be created" in output.stdout + output.stderr
