"""The results folder: it knows what it was made with, wherever it is, and one run at a time writes to it."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import msgspec
import pytest
import yaml
from conftest import ENVIRONMENT, INTERPRETER, copy_project, planned, snakemake, write_rows

from croco import results_folder
from croco.locks import HEAD, Holder, LeaseLock

CONFIG = ("--configfile", "two_languages.yaml")
RESULTS = "results/small"


@pytest.fixture(scope="module")
def run(untouched_run, tmp_path_factory):
    """A copy of the finished run for this module."""
    folder = tmp_path_factory.mktemp("own") / "project"
    shutil.copytree(untouched_run, folder, symlinks=True)
    return folder


def configure(project, path, **changes):
    config = yaml.safe_load((project / "two_languages.yaml").read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**config, **changes}, allow_unicode=True), encoding="utf-8")
    return ("--configfile", path)


def test_another_checkout_knows_how_the_files_were_made(run, tmp_path):
    """Nothing to do with the same config; with another, its jobs, and a message that says what differs."""
    other = copy_project(tmp_path)
    shutil.copytree(run / RESULTS, other / RESULTS, symlinks=True)
    assert not planned(other, *CONFIG)
    changed = configure(other, tmp_path / "changed.yaml", samples=6, seed=3)
    done = snakemake(other, "--dry-run", *changed)
    said = done.stdout + done.stderr
    assert "the config differs from that of the last start:\n  samples: 8 -> 6\n  seed: 0 -> 3\n" in said, said
    assert {"generate", "train", "summarise"} <= set(planned(other, *changed))


def test_files_without_a_record_are_made_again_from_finished_work(run, tmp_path):
    """As after somebody copied the results without their hidden folder: no response is sampled, no model trained."""
    other = copy_project(tmp_path)
    shutil.copytree(run / RESULTS, other / RESULTS, symlinks=True)
    shutil.rmtree(other / RESULTS / ".snakemake")
    plan = planned(other, *CONFIG)
    assert {"generate", "score", "train", "summarise"} <= set(plan)
    target = (f"{RESULTS}/mini/en/dpo/checkpoint/adapter_model.safetensors", *CONFIG)
    snakemake(other, "--cores", 2, *target, "--config", "from_state=true")
    manifest = json.loads((other / RESULTS / "mini/en/generations/0.manifest.json").read_text())
    assert manifest["sampled"] == 0
    # What is not there fails, and the file stays as it was, with its record.
    before = (other / target[0]).read_bytes()
    shutil.rmtree(other / RESULTS / "state/training")
    repeat = ("--forcerun", "train", "--config", "from_state=true")
    done = snakemake(other, "--cores", 2, *target, *repeat, check=False)
    log = (other / RESULTS / "logs/train/mini.en.dpo.log").read_text()
    assert done.returncode == 1 and "not all results are under state/" in log and "Traceback" not in log
    assert (other / target[0]).read_bytes() == before and not (other / RESULTS / ".snakemake/aside").exists()
    assert not planned(other, *target)


def test_a_start_from_state_asks_for_no_gpu(run, tmp_path):
    other = copy_project(tmp_path)
    models = yaml.safe_load((run / "config/config.yaml").read_text(encoding="utf-8"))["reward_models"]
    changed = configure(other, tmp_path / "gpu.yaml", reward_models=[{**models[0], "resources": {"gpu": 1}}])
    for options, gpus in (((), 1), (("--config", "from_state=true"), 0)):
        done = snakemake(other, "--dry-run", *changed, *options)
        assert f"score: mini, en, prompts from 0, by english ({gpus} GPU)" in done.stdout + done.stderr


def test_a_renamed_folder_is_made_again_from_finished_work(run, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(run, folder, symlinks=True)
    (folder / RESULTS).rename(folder / "results" / "renamed")
    changed = configure(folder, tmp_path / "renamed.yaml", results="results/renamed")
    assert {"generate", "train"} <= set(planned(folder, *changed))
    snakemake(folder, "--cores", 2, "results/renamed/mini/multi/dpo_random/pairs.jsonl", *changed)
    manifest = json.loads((folder / "results/renamed/mini/de/generations/0.manifest.json").read_text())
    assert manifest["sampled"] == 0
    logs = sorted((folder / "results/renamed/logs/generate").glob("mini.de.0.*log"))
    assert ["16 prompts to sample" in path.read_text() for path in logs] == [True, False], "earlier logs are kept"
    was, now = (path / "mini/multi/dpo_random/pairs.jsonl" for path in (run / RESULTS, folder / "results/renamed"))
    assert was.read_bytes() == now.read_bytes()


def test_a_replaced_prompt_file_counts_whatever_its_time(run, tmp_path):
    """Same name, same size, older time."""
    folder = tmp_path / "project"
    shutil.copytree(run, folder, symlinks=True)
    for code in ("en", "de"):
        shutil.copy(folder / RESULTS / f"miniature/prompts/train/{code}.jsonl", folder / f"{code}.jsonl")
    prompts = [
        {"use": "train", "path": "{language}.jsonl", "reference": "reference", "limit": 16},
        {"use": "evaluate", "path": "{results}/miniature/prompts/dev/{language}.jsonl", "limit": 10},
    ]
    changed = configure(folder, tmp_path / "own.yaml", prompts=prompts)
    selected = f"{RESULTS}/prompts/en.jsonl"
    snakemake(folder, selected, "--cores", 2, *changed)
    assert not planned(folder, selected, *changed)
    text = (folder / "en.jsonl").read_text(encoding="utf-8")
    (folder / "en.jsonl").write_text(text.replace("What is", "what is", 1), encoding="utf-8")
    os.utime(folder / "en.jsonl", (0, 0))
    assert "select_train" in planned(folder, selected, *changed)


def test_one_run_at_a_time_writes(run):
    """Whatever checkout it is started from; dry-runs are free, and the lock ends with its holder."""
    lock = run / RESULTS / ".snakemake" / "lock"
    target = ("--cores", 1, *CONFIG)
    with LeaseLock(lock):
        done = snakemake(run, *target, "-R", "summarise", check=False)
        message = f"{RESULTS}: another run writes to this folder: process {os.getpid()} on "
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
        assert "summarise" in planned(run, *CONFIG, "-R", "summarise")
    assert "Nothing to be done" in snakemake(run, *target).stderr
    assert not lock.exists()


def test_a_killed_run_is_taken_over(run):
    """Its lock is free, its partial files are removed, and its jobs, which have seen that it is gone, are waited for."""
    dead = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, check=True, text=True)
    holder = msgspec.structs.replace(Holder.this_process(), pid=int(dead.stdout))
    (run / RESULTS / ".snakemake" / "lock").write_bytes(msgspec.json.encode(holder))
    (run / RESULTS / ".summary.csv.host.1.partial").touch()
    environment = {**os.environ, HEAD: msgspec.json.encode(holder).decode()}
    with subprocess.Popen(["sleep", "20"], env=environment) as job:
        began = time.monotonic()
        time.sleep(0.2)
        command = [INTERPRETER, "-m", "snakemake", "--cores", "1", *CONFIG]
        head = subprocess.Popen(command, cwd=run, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        time.sleep(8)
        assert head.poll() is None, "it waits for the job"
        job.kill()
    _, said = head.communicate()
    assert head.returncode == 0 and "the run before was killed (process" in said and time.monotonic() - began < 60
    assert not list((run / RESULTS).glob(".*partial")) and not (run / RESULTS / ".snakemake" / "lock").exists()


def test_jobs_end_when_their_run_is_gone(run, tmp_path):
    """A job on this machine whose run is killed; one whose run is on another machine goes on."""
    with subprocess.Popen(["sleep", "60"]) as head:
        holder = msgspec.structs.replace(Holder.this_process(), pid=head.pid)
        code = "import time; from croco import cli; cli.run(lambda: time.sleep(4))"
        options = {"cwd": run / "scripts", "stderr": subprocess.PIPE, "text": True}
        jobs = []
        for host in (holder.host, "elsewhere"):
            told = msgspec.json.encode(msgspec.structs.replace(holder, host=host)).decode()
            jobs.append(subprocess.Popen([INTERPRETER, "-c", code], env={**ENVIRONMENT, HEAD: told}, **options))
        time.sleep(0.5)
        head.kill()
    said = [job.communicate()[1] for job in jobs]
    assert jobs[0].returncode != 0 and "the run that started this job is gone" in said[0]
    assert jobs[1].returncode == 0 and not said[1]


def test_an_error_that_snakemake_would_hide_ends_the_run(run, tmp_path):
    """An input function fails, and the output, of an earlier config perhaps, is there."""
    (run / RESULTS / "extra.txt").write_text("old")
    (tmp_path / "extra.smk").write_text(
        f'rule extra:\n    input:\n        lambda wc: {{}}["missing"],\n    output:\n        "{RESULTS}/{{name}}.txt",\n'
        f'    shell:\n        "touch {{output}}"\n\n\nrule extras:\n    input:\n        "{RESULTS}/extra.txt",\n'
    )
    changed = configure(run, tmp_path / "extra.yaml", custom_rules=[str(tmp_path / "extra.smk")])
    done = snakemake(run, "extras", "--cores", 1, *changed, check=False)
    assert done.returncode == 1 and "KeyError: 'missing'" in done.stdout + done.stderr


@pytest.mark.parametrize("limit, limited", [((), False), (("--max-jobs-per-timespan", "50/1s"), True)])
def test_only_the_user_limits_the_rate_of_jobs(run, limit, limited):
    """Snakemake's own limit costs a core of the machine that it runs on; see RecordsInFolder._lift_default_rate."""
    target = f"{RESULTS}/comparability.json"
    done = snakemake(run, target, "--cores", 1, "--force", "--verbose", *limit, *CONFIG)
    assert ("Submitting maximum" in done.stdout + done.stderr) is limited


def test_a_failed_run_ends_with_what_failed(run, tmp_path):
    (tmp_path / "extra.smk").write_text(
        'rule broken:\n    output:\n        "broken.txt",\n    log:\n        "broken.log",\n    shell:\n'
        '        "echo the reason > {log}; exit 3"\n'
    )
    changed = configure(run, tmp_path / "extra.yaml", custom_rules=[str(tmp_path / "extra.smk")])
    done = snakemake(run, "broken", "--cores", 1, *changed, check=False)
    assert done.returncode == 1 and "failed: broken, log broken.log\n    the reason\n" in done.stderr
    assert done.stderr.index("failed: broken") > done.stderr.index("Exiting because a job execution failed")


def test_failed_jobs_are_named_with_several_logs_and_without_one(run, tmp_path):
    (tmp_path / "extra.smk").write_text(
        f'rule quiet:\n    output:\n        "{RESULTS}/quiet.txt",\n    shell:\n        "exit 3"\n\n\n'
        f'rule loud:\n    output:\n        "{RESULTS}/loud.txt",\n        "{RESULTS}/louder.txt",\n    log:\n'
        '        one="one.log",\n        two="two.log",\n    shell:\n'
        '        "echo first > {log.one}; echo second > {log.two}; exit 3"\n'
    )
    changed = configure(run, tmp_path / "extra.yaml", custom_rules=[str(tmp_path / "extra.smk")])
    targets = [f"{RESULTS}/{path}" for path in ("quiet.txt", "loud.txt")]
    done = snakemake(run, *targets, "--cores", 1, "--keep-going", *changed, check=False)
    assert done.returncode == 1 and re.search(r"failed: quiet, log .*\.snakemake\.log \(it has none", done.stderr)
    assert "failed: loud, log one.log, two.log\n    one.log:\n    first\n    two.log:\n    second\n" in done.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 300 kB, for those who may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_and_a_read_only_one_are_one_message(fresh_project, small_disk, tmp_path):
    for name, reason, remedy in [
        ("full", "No space left on device", "free some space"),
        ("read-only", "Read-only file system", "get the permission"),
    ]:
        if name == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        changed = configure(fresh_project, tmp_path / "disk.yaml", results=str(small_disk / name))
        done = snakemake(fresh_project, "--cores", 2, *changed, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 1 and reason in said and remedy in said and "Traceback" not in said, said


SELECT = ["scripts/prompts.py", "--language", "en", "--input"]
# A user without the right to open every file; root keeps its own files but loses that right.
ORDINARY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.fixture
def small_prompts(tmp_path):
    return write_rows(tmp_path / "prompts.jsonl", [{"id": "1", "text": "What is it?"}])


def refuse(folder, *command, reason, remedy, limit=None):
    """Starts a command that must end with one message; ``limit`` is its number of open files."""
    if ORDINARY and not shutil.which(ORDINARY[0]):
        pytest.skip("root without setpriv may open every file")

    def set_limit():
        if limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    # The interpreter itself, because a fork of the warm one would have other rights and limits.
    command = [*ORDINARY, sys.executable, *map(str, command)]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, preexec_fn=set_limit)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and said.count(reason) == 1 and said.count(remedy) == 1, said
    assert "Traceback" not in said, said


def test_no_permission_is_one_message(fresh_project, small_prompts, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    message = {"reason": "Permission denied", "remedy": "get the permission, or choose another folder"}
    refuse(fresh_project, *SELECT, small_prompts, "--output", closed / "out.jsonl", **message)
    small_prompts.chmod(0)
    refuse(fresh_project, *SELECT, small_prompts, "--output", tmp_path / "out.jsonl", **message)
    config = configure(fresh_project, tmp_path / "closed.yaml", results=str(closed / "results"))
    refuse(fresh_project, "-m", "snakemake", "--cores", "1", *config, **message)


def test_names_that_are_too_long_are_one_message(fresh_project, small_prompts, tmp_path):
    message = {"reason": "File name too long", "remedy": "choose shorter names"}
    name = f"{'a' * 300}.jsonl"
    refuse(fresh_project, *SELECT, small_prompts, "--output", tmp_path / name, **message)
    refuse(fresh_project, *SELECT, tmp_path / name, "--output", tmp_path / "out.jsonl", **message)


@pytest.mark.parametrize("limit", [5, 6, 7, 8])
def test_too_many_open_files_are_one_message(fresh_project, small_prompts, tmp_path, limit):
    """Fewer than a file needs, and fewer than a pipe to git needs."""
    message = {"reason": "Too many open files", "remedy": "raise the number of open files (ulimit -n) and start again"}
    refuse(fresh_project, *SELECT, small_prompts, "--output", tmp_path / "out.jsonl", **message, limit=limit)


def test_jobs_of_a_killed_run_that_hang_are_killed(monkeypatch, capsys):
    head = msgspec.structs.replace(Holder.this_process(), pid=2**22 - 1)
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    environment = {**os.environ, HEAD: msgspec.json.encode(head).decode()}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as job:
        monkeypatch.setattr(results_folder, "PATIENCE", 0.5)
        results_folder.wait_for_jobs(head)
        assert job.wait(10) == -signal.SIGKILL and f"hang: {job.pid}" in capsys.readouterr().err
