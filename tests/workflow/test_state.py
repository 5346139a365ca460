"""croco/state.py and croco/locks.py: damaged parts, jobs that share a folder, and locks with and without flock."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial

import msgspec
import psutil
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from croco.cli import explain_os_error
from croco.errors import InputError
from croco.files import publish, replacing
from croco.locks import LEASE, Holder, LeaseLock, LockHeld, find_holder, take_lock
from croco.models import engines
from croco.state import FROM_STATE, Finished, Parts

STORED = [{"prompt_digest": f"p{i}", "text": "é" * i, "responses": list(range(i))} for i in range(5)]
COUNT = lambda line: len(line["responses"])  # noqa: E731


def open_parts(folder, *prompts, inputs="x"):
    return Parts(folder, "generations", {"inputs": inputs}, prompts, COUNT)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_part_gives_only_whole_lines(tmp_path_factory, data):
    """Bytes changed, cut off, added in the middle, or another part under its name: never a wrong line."""
    folder = tmp_path_factory.mktemp("state")
    parts = open_parts(folder, "p1", "p2", "p3", "p4")
    path = parts.settle(STORED[1:])
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    damage = data.draw(st.sampled_from(["change", "cut", "insert", "remove"]))
    new = bytes([raw[at] ^ data.draw(st.integers(1, 255))])
    damaged = {
        "change": raw[:at] + new + raw[at + 1 :],
        "cut": raw[:at],
        "insert": raw[:at] + new + raw[at:],
        "remove": raw[:at] + raw[at + 1 :],
    }[damage]
    path.write_bytes(damaged)
    parts._lock.release()
    again = open_parts(folder, "p1", "p2", "p3", "p4")
    kept = [line for prompt in ("p1", "p2", "p3", "p4") for line in again.lines(prompt)]
    assert all(line in STORED for line in kept)
    if damage in ("change", "cut"):
        touched = {i for i, line in enumerate(raw.splitlines(keepends=True)) if line not in damaged}
        assert [line["prompt_digest"] for line in kept] == [f"p{i + 1}" for i in range(4) if i not in touched]
    assert again.settle(STORED[1:]).read_bytes() == raw


def test_a_part_that_another_job_replaces_stays_readable(tmp_path):
    """Two jobs want some of the same prompts: each settles its block, and the other reads on."""
    small = open_parts(tmp_path, "p1", "p2")
    small.add(STORED[1:2])
    large = open_parts(tmp_path, "p1", "p2", "p3")
    small.settle(STORED[1:3])
    assert large.lines("p1") == [STORED[1]] and large.lines("p2") == [STORED[2]] and large.lines("p3") == []
    large.settle(STORED[1:4])
    assert small.lines("p1") == [STORED[1]] and small.lines("p2") == [STORED[2]]
    assert len(list(small.folder.glob("*.jsonl"))) == 1


def test_an_index_without_its_part_is_no_work(tmp_path):
    """As after a kill between the two."""
    parts = open_parts(tmp_path, "p1")
    parts.settle(STORED[1:2]).unlink()
    parts._lock.release()
    again = open_parts(tmp_path, "p1")
    assert again.lines("p1") == []
    again.settle(STORED[1:2])
    assert again.lines("p1") == [STORED[1]]


def test_a_part_without_index_or_of_other_inputs_is_set_aside(tmp_path, capsys):
    path = open_parts(tmp_path, "p1").settle(STORED[1:2])
    other = open_parts(tmp_path, "p1", inputs="y")
    for suffix in (".jsonl", ".index"):
        (other.folder / f"copied{suffix}").write_bytes(path.with_suffix(suffix).read_bytes())
    (other.folder / "alone.jsonl").write_bytes(path.read_bytes())
    other._lock.release()
    assert open_parts(tmp_path, "p1", inputs="y").lines("p1") == []
    assert sorted(path.name for path in other.folder.glob("*.foreign")) == ["alone.foreign", "copied.foreign"]
    assert capsys.readouterr().err.count("does not belong to this run") == 2


def write_holder(path, **changed):
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(Holder.this_process(), **changed)))


def test_a_lease_is_taken_over_from_the_dead_only(tmp_path):
    path = tmp_path / "lock"
    with LeaseLock(path), pytest.raises(LockHeld, match=f"process {os.getpid()} on "):
        LeaseLock(path, wait=False)
    assert not path.exists()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    write_holder(path, pid=int(dead.stdout))
    with LeaseLock(path, wait=False) as lock:
        assert lock.taken_from.pid == int(dead.stdout)
    # Another process that got the number of a dead holder.
    write_holder(path, pid=1)
    LeaseLock(path, wait=False).release()
    # A machine whose processes cannot be seen: by the time of its last sign.
    write_holder(path, host="elsewhere")
    with pytest.raises(LockHeld, match="on elsewhere"):
        LeaseLock(path, wait=False)
    os.utime(path, (time.time() - LEASE - 60,) * 2)
    LeaseLock(path, wait=False).release()
    # A holder killed before it had written who it is.
    path.touch()
    with pytest.raises(LockHeld, match="unknown"):
        LeaseLock(path, wait=False)
    os.utime(path, (time.time() - 120,) * 2)
    LeaseLock(path, wait=False).release()
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_is_set_frees_no_lock(tmp_path, monkeypatch):
    """psutil's times of a process's start follow the machine's clock."""
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: time.time() - 3600)
    with LeaseLock(tmp_path / "lock") as lock:
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: time.time())
        with pytest.raises(LockHeld):
            LeaseLock(tmp_path / "lock", wait=False)
        assert Holder.read(lock.path.read_bytes()).is_alive


@pytest.mark.parametrize("seen", [psutil.AccessDenied(), psutil.NoSuchProcess(1)])
def test_a_holder_that_another_user_may_not_see_holds_until_its_lease_is_over(tmp_path, monkeypatch, seen):
    """As with the mount option hidepid of /proc, which this test has no right to set."""

    def refuse(error, *_):
        raise error

    path = tmp_path / "lock"
    write_holder(path, pid=2**22 - 1)
    monkeypatch.setattr(psutil, "Process", partial(refuse, seen))
    monkeypatch.setattr(os, "kill", partial(refuse, PermissionError()))
    monkeypatch.setattr(Holder, "this_process", lambda: Holder("elsewhere", 1, "", 0.0))
    assert find_holder(path).pid == 2**22 - 1
    with pytest.raises(LockHeld, match="process 4194303"):
        LeaseLock(path, wait=False)
    os.utime(path, (time.time() - LEASE - 60,) * 2)
    assert find_holder(path) is None
    LeaseLock(path, wait=False).release()


@pytest.mark.parametrize(
    "failures, code, said",
    [
        ("3", 0, ""),
        ("10**9", -signal.SIGTERM, "the lock cannot be kept ([Errno 116] Stale file handle); stopping"),
        ("lock.path.unlink()", -signal.SIGTERM, "another process has taken the lock; stopping"),
    ],
)
def test_a_holder_outlives_a_short_outage_of_the_file_system_only(tmp_path, failures, code, said):
    program = f"""
import errno, os, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT / "scripts")!r})
from croco import locks
locks.BEAT, locks.LEASE = 0.05, 1.0
lock, utime = locks.LeaseLock(Path("lock")), os.utime
left = {failures} or 0
def fail(path):
    global left
    left -= 1
    if left >= 0:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    utime(path)
os.utime = fail
time.sleep(2)
assert time.time() - lock.path.stat().st_mtime < 0.5
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code and said in done.stderr and (said or not done.stderr)


def test_a_dead_holders_file_that_may_not_be_removed_is_an_error(tmp_path, monkeypatch):
    """As in a folder of another user."""

    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    path = tmp_path / "lock"
    write_holder(path, pid=1)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError):
        LeaseLock(path)


def test_a_lock_that_another_has_taken_meanwhile_is_put_back(tmp_path, monkeypatch):
    """Between the look at a dead holder's file and its removal."""
    path, rename = tmp_path / "lock", os.rename
    write_holder(path, pid=1)

    def meet(old, new):
        write_holder(path, host="elsewhere")
        rename(old, new)

    monkeypatch.setattr(os, "rename", meet)
    with pytest.raises(LockHeld, match="on elsewhere"):
        LeaseLock(path, wait=False)
    assert Holder.read(path.read_bytes()).host == "elsewhere" and list(tmp_path.iterdir()) == [path]


def test_a_lock_that_cannot_be_written_is_not_left_behind(tmp_path):
    program = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / "scripts")!r})
from croco.locks import LeaseLock
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, -1))
LeaseLock(Path("lock"))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr and list(tmp_path.iterdir()) == []


def refuse_flock(code, *_):
    raise OSError(code, os.strerror(code))


def count_up(folder, times):
    """Adds to a number in a file, which goes wrong as soon as two do it at once."""
    fcntl.flock = partial(refuse_flock, errno.ENOLCK)
    for _ in range(times):
        with take_lock(folder / "lock"):
            number = int((folder / "number").read_text())
            time.sleep(0.001)
            (folder / "number").write_text(str(number + 1))


def test_without_flock_lock_files_keep_processes_apart(tmp_path):
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=count_up, args=(tmp_path, 5)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "number").read_text() == "20" and not list(tmp_path.glob("*.lease"))


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_work_goes_on_where_the_file_system_has_no_flock(tmp_path, monkeypatch, code):
    monkeypatch.setattr("fcntl.flock", partial(refuse_flock, code))
    parts = open_parts(tmp_path, "p1")
    parts.settle(STORED[1:2])
    (lease,) = parts.folder.glob("*.lease")
    assert json.loads(lease.read_text())["pid"] == os.getpid()
    finished = Finished(tmp_path, "training", {})
    with finished.alone():
        assert (finished.folder / "lock.lease").exists()
    assert not (finished.folder / "lock.lease").exists()


def test_a_file_system_without_hard_links_gets_copies(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr("os.link", refuse)
    from croco.files import publish

    (tmp_path / "a").write_text("whole")
    publish(tmp_path / "a", tmp_path / "b" / "c")
    assert (tmp_path / "b" / "c").read_text() == "whole" and (tmp_path / "b" / "c").stat().st_nlink == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "c"]


@pytest.mark.parametrize("load", [engines.load_policy, engines.load_reward_model])
def test_no_model_is_loaded_where_only_finished_work_counts(load, monkeypatch):
    monkeypatch.setenv(FROM_STATE, "1")
    with pytest.raises(InputError, match="not all results are under state/"):
        load(None)


def test_a_record_of_older_code_is_of_no_known_process(tmp_path):
    """Neither is its lock taken at once, nor is a job of its run ended."""
    path = tmp_path / "lock"
    write_holder(path, began=0.0)
    assert find_holder(path).is_alive is None
    with pytest.raises(LockHeld):
        LeaseLock(path, wait=False)


def test_a_place_that_cannot_be_written_is_named_and_left_as_it_was(tmp_path):
    (tmp_path / "source").write_text("x")
    target, long = tmp_path / "target", tmp_path / ("x" * 250)
    target.mkdir()
    with pytest.raises(OSError) as published:
        publish(tmp_path / "source", target)
    with pytest.raises(OSError) as replaced, replacing(target):
        pass
    with pytest.raises(OSError) as named, replacing(long):
        pass
    for error, path in ((published, target), (replaced, target), (named, long)):
        assert explain_os_error(error.value).startswith(f"error: {path}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
