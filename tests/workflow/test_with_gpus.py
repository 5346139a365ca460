"""scripts/with_gpus.py: no device is used twice, nobody starves, and what a killed job had is free again.

Devices are names only, given by the variables or by an nvidia-smi of the test's own; processes and locks are real.
"""

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from with_gpus import choose, list_amd_devices

pytestmark = pytest.mark.skipif(Path("/dev/kfd").exists(), reason="this machine's AMD devices would be the valid ones")

LAUNCHER = ROOT / "scripts" / "with_gpus.py"
SHOWN = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
UUIDS = ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-1a2b3c4d-0000-4106-c12f-20bd9faed9f6"]
PATIENCE = 120  # seconds until a test gives up
NOBODY = 65534
FOREVER = "exec sleep 1000"


class Machine:
    """Starts launchers that share a folder of locks, and ends what is left of them."""

    def __init__(self, folder):
        self.folder, self.locks, self.processes = folder, folder / "locks", []
        (folder / "bin").mkdir()

    def install_nvidia_smi(self, body):
        path = self.folder / "bin" / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def start(self, shell, asked=1, granted=None, **variables):
        return self.launch("/bin/sh", "-c", f"PATH=/usr/bin:/bin; {shell}", asked=asked, granted=granted, **variables)

    def launch(self, *command, asked=1, granted=None, prefix=(sys.executable, LAUNCHER), user=None, **variables):
        options = ["--asked", str(asked)] + ([] if granted is None else ["--granted", str(granted)])
        process = subprocess.Popen(
            [*prefix, *options, "--", *command],
            # A PATH without this machine's nvidia-smi.
            env={"PATH": str(self.folder / "bin"), "CROCO_GPU_LOCKS": str(self.locks), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            user=user,
            extra_groups=None if user is None else [],
        )
        self.processes.append(process)
        return process

    def run(self, shell, **options):
        return finish(self.start(shell, **options))

    def shown(self, asked, **variables):
        """What the command sees, {variable: value}; the launcher has to succeed."""
        code, output, errors = self.run("env", asked=asked, **variables)
        assert code == 0, errors
        seen = dict(line.split("=", 1) for line in output.splitlines())
        return {name: seen[name] for name in SHOWN if name in seen}

    def hold(self, **options):
        """A job that keeps its devices, running."""
        process = self.start(f"echo running; {FOREVER}", **options)
        assert process.stdout.readline() == "running\n", process.stderr.read()
        return process

    def waiting(self, shell="echo done", **options):
        """A job that has said that it waits."""
        process = self.start(shell, **options)
        assert "waiting for" in process.stderr.readline()
        return process

    def has_lock(self, name):
        """Whether some process has the lock of this name."""
        try:
            with open(self.locks / name, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False


def finish(process):
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, output, errors


def kill(process):
    process.kill()
    process.wait(PATIENCE)


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextlib.contextmanager
def machine_in(folder):
    made = Machine(folder)
    try:
        yield made
    finally:
        for process in made.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def machine(tmp_path):
    with machine_in(tmp_path) as made:
        yield made


# Marks its devices as in use by folders, which only one process can make; exit code 9 where another has.
USE = """
for device in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do mkdir {busy}/$device || exit 9; done
sleep {seconds}
for device in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do rmdir {busy}/$device; done
echo $CUDA_VISIBLE_DEVICES
"""


def test_no_device_is_used_twice_under_load(machine):
    (machine.folder / "busy").mkdir()
    use = USE.format(busy=shlex.quote(str(machine.folder / "busy")), seconds=0.1)
    asked = [1 + job % 3 for job in range(40)]
    jobs = [machine.start(use, asked=count, CUDA_VISIBLE_DEVICES="0,1,2,3") for count in asked]
    for job, count in zip(jobs, asked, strict=True):
        code, output, errors = finish(job)
        assert code == 0, errors
        devices = output.strip().split(",")
        assert len(devices) == count and devices == sorted(set(devices)) and set(devices) <= set("0123")


def test_jobs_that_fit_run_side_by_side(machine):
    meet = "touch {0}/$CUDA_VISIBLE_DEVICES; while [ $(ls {0} | wc -l) -lt 3 ]; do sleep 0.05; done; ls {0}"
    (machine.folder / "met").mkdir()
    shell = meet.format(shlex.quote(str(machine.folder / "met")))
    jobs = [machine.start(shell, asked=count, CUDA_VISIBLE_DEVICES="0,1,2,3") for count in (1, 2, 1)]
    ends = [finish(job) for job in jobs]
    assert all(code == 0 and len(output.split()) == 3 for code, output, _ in ends), ends


def test_a_job_of_all_devices_is_not_starved_by_small_ones(machine):
    started, done = [], threading.Event()

    def keep_busy():
        while not done.is_set():
            job = machine.start("sleep 0.1", CUDA_VISIBLE_DEVICES="0,1")
            started.append(finish(job)[0])

    small = [threading.Thread(target=keep_busy) for _ in range(5)]
    for thread in small:
        thread.start()
    try:
        until(lambda: len(started) > 5)
        code, output, errors = machine.run("echo $CUDA_VISIBLE_DEVICES", asked=2, CUDA_VISIBLE_DEVICES="0,1")
    finally:
        done.set()
        for thread in small:
            thread.join()
    assert (code, output) == (0, "0,1\n"), errors
    assert set(started) == {0}


def test_lists_that_overlap_in_other_orders_do_not_block_each_other_for_ever(machine):
    lists = ["0,1,2", "2,1,0", "1,2", "2,0", "0,1"]
    jobs = [machine.start("sleep 0.02", asked=2, CUDA_VISIBLE_DEVICES=lists[job % 5]) for job in range(20)]
    assert {finish(job)[0] for job in jobs} == {0}


def test_jobs_with_other_devices_pass_one_that_waits(machine):
    machine.hold(CUDA_VISIBLE_DEVICES="0")
    machine.waiting(CUDA_VISIBLE_DEVICES="0")
    assert machine.run("echo done", CUDA_VISIBLE_DEVICES="1")[0] == 0


def test_a_killed_holder_frees_its_devices(machine):
    holder = machine.hold(asked=2, CUDA_VISIBLE_DEVICES="0,1")
    waiter = machine.waiting(asked=2, CUDA_VISIBLE_DEVICES="0,1")
    assert waiter.poll() is None
    kill(holder)
    assert finish(waiter)[:2] == (0, "done\n")


def test_children_keep_the_lease_of_a_killed_command(machine):
    holder = machine.start("sleep 1000 & echo $!; wait", CUDA_VISIBLE_DEVICES="0")
    child = int(holder.stdout.readline())
    kill(holder)
    waiter = machine.waiting(CUDA_VISIBLE_DEVICES="0")
    assert waiter.poll() is None
    os.kill(child, signal.SIGKILL)
    assert finish(waiter)[:2] == (0, "done\n")


def test_a_killed_waiter_does_not_block_the_others(machine):
    machine.hold(CUDA_VISIBLE_DEVICES="0,1")
    first = machine.waiting(asked=2, CUDA_VISIBLE_DEVICES="0,1")  # has its turn and device 1
    second = machine.waiting("echo $CUDA_VISIBLE_DEVICES", CUDA_VISIBLE_DEVICES="0,1")
    assert second.poll() is None
    kill(first)
    assert finish(second)[:2] == (0, "1\n")


def test_interrupted_while_waiting(machine):
    # A test run in the background ignores the signal, and those that it starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    machine.hold(CUDA_VISIBLE_DEVICES="0")
    for _ in range(2):  # the first waits for the device, the second for its turn
        waiter = machine.waiting(CUDA_VISIBLE_DEVICES="0")
        waiter.send_signal(signal.SIGINT)
        code, _, errors = finish(waiter)
        assert code == 130 and "Traceback" not in errors


def test_granted_less_than_asked(machine):
    code, output, errors = machine.run("echo ran", asked=2, granted=1, CUDA_VISIBLE_DEVICES="0,1")
    assert (code, output) == (1, "") and errors.startswith("error: ")
    assert "--resources gpu=N, N at least 2" in errors
    assert machine.shown(2, granted=2, CUDA_VISIBLE_DEVICES="0,1")["CUDA_VISIBLE_DEVICES"] == "0,1"


@pytest.mark.parametrize("value", ["0", "", "-1", "0,-1,1", "0,x,1", "0,0", "0,,1", None])
def test_fewer_visible_than_asked(machine, value):
    variables = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    code, output, errors = machine.run("echo ran", asked=2, **variables)
    assert (code, output) == (1, "") and errors.startswith("error: ") and "Remedy: " in errors
    assert f"asked 2, visible {1 if value and value[0] == '0' else 0}" in errors
    assert ("this machine" if value is None else f"CUDA_VISIBLE_DEVICES={value}:") in errors


@pytest.mark.parametrize("before", [{}, {"CUDA_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "0,1"}])
def test_asked_none_sees_none_and_takes_no_lock(machine, before):
    machine.install_nvidia_smi("touch $0.ran")
    # HIP takes an empty value for none set.
    assert machine.shown(0, **before) == {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1"}
    assert not machine.locks.exists() and not list((machine.folder / "bin").glob("*.ran"))


@pytest.mark.parametrize("tokens", [UUIDS, ["MIG-GPU-8932f937-d72c/7/0", "MIG-GPU-8932f937-d72c/8/0"], ["3", UUIDS[0]]])
def test_tokens_are_kept_as_given(machine, tokens):
    assert machine.shown(2, CUDA_VISIBLE_DEVICES=", ".join([*tokens, "7"]))["CUDA_VISIBLE_DEVICES"] == ",".join(tokens)
    holder = machine.hold(CUDA_VISIBLE_DEVICES=tokens[0])
    assert machine.shown(1, CUDA_VISIBLE_DEVICES=",".join(tokens))["CUDA_VISIBLE_DEVICES"] == tokens[1]
    kill(holder)


@pytest.mark.parametrize("value", ["../../escape", "GPU-../../escape", "GPU-" + "a" * 300, "0;id", "GPU-\n"])
def test_strange_tokens_name_no_lock(machine, value):
    code, output, errors = machine.run("echo ran", CUDA_VISIBLE_DEVICES=value)
    assert (code, output) == (1, "") and "visible 0" in errors and not machine.locks.exists()


def list_devices(*uuids):
    return "\n".join(f"echo '{index}, {uuid}'" for index, uuid in enumerate(uuids))


def test_devices_are_found_by_nvidia_smi(machine):
    machine.install_nvidia_smi(
        f'[ "$*" = "--query-gpu=index,uuid --format=csv,noheader" ] || exit 3\n{list_devices(*UUIDS)}'
    )
    both = {"CUDA_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert machine.shown(2) == both
    assert machine.run("echo ran", asked=3)[0] == 1
    # What only AMD's runtime reads does not count here.
    assert machine.shown(2, ROCR_VISIBLE_DEVICES="5", HIP_VISIBLE_DEVICES="1") == {**both, "ROCR_VISIBLE_DEVICES": "5"}
    kept = machine.shown(1, CUDA_VISIBLE_DEVICES="1", CUDA_DEVICE_ORDER="FASTEST_FIRST")
    assert (kept["CUDA_VISIBLE_DEVICES"], kept["CUDA_DEVICE_ORDER"]) == ("1", "FASTEST_FIRST")


@pytest.mark.parametrize("other", [UUIDS[1], UUIDS[1][:12], UUIDS[1].lower()])
def test_index_and_uuid_of_one_device_exclude_each_other(machine, other):
    machine.install_nvidia_smi(list_devices(*UUIDS))
    holder = machine.hold(CUDA_VISIBLE_DEVICES="1")
    waiter = machine.waiting("echo $CUDA_VISIBLE_DEVICES", CUDA_VISIBLE_DEVICES=other)
    assert waiter.poll() is None
    assert machine.shown(1, CUDA_VISIBLE_DEVICES="0")["CUDA_VISIBLE_DEVICES"] == "0"
    kill(holder)
    assert finish(waiter)[:2] == (0, f"{other}\n")
    assert "visible 1" in machine.run("echo ran", asked=2, CUDA_VISIBLE_DEVICES=f"1,{other}")[2]
    assert "visible 1" in machine.run("echo ran", asked=2, CUDA_VISIBLE_DEVICES=f"{other},2,0")[2]


def test_failing_nvidia_smi_stops_rather_than_misnames(machine):
    machine.install_nvidia_smi("echo 'Driver/library version mismatch'; exit 18")
    code, output, errors = machine.run("echo ran", CUDA_VISIBLE_DEVICES="0")
    assert (code, output) == (1, "") and "version mismatch" in errors and "Remedy: " in errors


@pytest.mark.parametrize(
    "before, asked, after",
    [
        ({"HIP": "2,3"}, 1, {"CUDA": "2", "HIP": "2"}),
        ({"HIP": "2,3", "CUDA": "0"}, 2, {"CUDA": "2,3", "HIP": "2,3"}),
        ({"HIP": "", "CUDA": "1,0"}, 1, {"CUDA": "1", "HIP": "1"}),
        ({"ROCR": "4,GPU-deadbeefdeadbeef"}, 1, {"ROCR": "4"}),
        ({"ROCR": "4,5", "HIP": "1,0"}, 1, {"ROCR": "4,5", "CUDA": "1", "HIP": "1"}),
        ({"ROCR": "4,5,6", "CUDA": "0,2"}, 2, {"ROCR": "4,5,6", "CUDA": "0,2", "HIP": "0,2"}),
        ({"ROCR": "4,5", "HIP": "0,2,1"}, 2, None),
        ({"ROCR": "4,5", "HIP": "4,5"}, 1, None),
    ],
)
def test_rocm_variables_stay_consistent(machine, before, asked, after):
    variables = {f"{name}_VISIBLE_DEVICES": value for name, value in before.items()}
    if after is None:
        assert machine.run("echo ran", asked=asked, **variables)[:2] == (1, "")
    else:
        assert machine.shown(asked, **variables) == {f"{name}_VISIBLE_DEVICES": value for name, value in after.items()}


def test_a_device_behind_two_filters_is_known_by_the_first(machine):
    holder = machine.hold(ROCR_VISIBLE_DEVICES="4,5", HIP_VISIBLE_DEVICES="1")
    assert machine.shown(1, ROCR_VISIBLE_DEVICES="5,4") == {"ROCR_VISIBLE_DEVICES": "4"}
    waiter = machine.waiting(ROCR_VISIBLE_DEVICES="5")
    assert waiter.poll() is None
    kill(holder)
    assert finish(waiter)[0] == 0


def test_amd_devices_are_those_that_can_be_opened(tmp_path):
    facts = {
        0: "simd_count 0\nunique_id 0\ndrm_render_minor 0\n",
        1: "simd_count 304\nunique_id 16045690984833335023\ndrm_render_minor 128\n",
        2: "simd_count 304\nunique_id 5\ndrm_render_minor 129\n",
        10: "simd_count 304\nunique_id 0\ndrm_render_minor 130\n",
    }
    for node, text in facts.items():
        path = tmp_path / "sys/class/kfd/kfd/topology/nodes" / str(node) / "properties"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (tmp_path / "dev/dri").mkdir(parents=True)
    for render in ("renderD128", "renderD130"):  # renderD129 is another container's
        (tmp_path / "dev/dri" / render).touch()
    names = list_amd_devices(tmp_path)
    assert names == {"0": "renderD128", "gpu-deadbeefdeadbeef": "renderD128", "1": "renderD130"}
    assert choose("GPU-DEADBEEFDEADBEEF,1,0", names) == {"GPU-DEADBEEFDEADBEEF": "renderD128", "1": "renderD130"}
    assert list_amd_devices(tmp_path / "none") == {}


@given(
    st.lists(st.sampled_from(["0", "1", "7", "GPU-ab", "gpu-AB", "gpu-a", "MIG-a/1/0", "-1", "", "x"])), st.booleans()
)
def test_choice_is_a_prefix_without_repetition(tokens, known):
    names = {"0": "gpu-ab", "gpu-ab": "gpu-ab", "1": "gpu-cd", "gpu-cd": "gpu-cd"} if known else {}
    chosen = choose(",".join(tokens), names)
    assert len(set(chosen.values())) == len(chosen)
    invalid = {"-1", "", "x"} | ({"7"} if known else set())
    valid = tokens[: next((place for place, token in enumerate(tokens) if token in invalid), len(tokens))]
    assert list(chosen) == [
        token for place, token in enumerate(valid) if token in chosen and token not in valid[:place]
    ]
    assert set(chosen.values()) == {names.get(token.lower(), "gpu-ab" if known and token == "gpu-a" else token.lower()) for token in valid}  # fmt: skip


@given(st.text())
def test_any_text_is_read(text):
    assert all(re.fullmatch(r"[0-9a-z/-]+", name) for name in choose(text, {}).values())


def test_slurm_jobs_lease_only_from_themselves(machine):
    holder = machine.hold(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="41")
    for variables in ({"SLURM_JOB_ID": "42"}, {}, {"SLURM_JOB_ID": "../41"}):
        assert machine.run("echo ran", CUDA_VISIBLE_DEVICES="0", **variables)[:2] == (0, "ran\n")
    waiter = machine.waiting(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="41")
    assert waiter.poll() is None
    kill(holder)
    assert finish(waiter)[:2] == (0, "done\n")


def test_exit_code_and_signals_are_the_commands(machine):
    assert machine.run("exit 37", CUDA_VISIBLE_DEVICES="0")[0] == 37
    assert machine.run("kill -TERM $$", CUDA_VISIBLE_DEVICES="0")[0] == -signal.SIGTERM
    trapping = machine.start("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done", CUDA_VISIBLE_DEVICES="0")
    assert trapping.stdout.readline() == "ready\n"
    trapping.terminate()
    assert finish(trapping)[0] == 5
    ignored = machine.run("grep SigIgn /proc/self/status", CUDA_VISIBLE_DEVICES="0")[1].split()[1]
    assert int(ignored, 16) & (1 << (signal.SIGPIPE - 1)) == 0


def test_arguments_reach_the_command_as_they_are(machine):
    arguments = ["--asked", "--", "a b", "", "-h", "'$x'"]
    job = machine.launch(sys.executable, "-c", "import sys; print(sys.argv[1:])", *arguments, asked=0)
    assert finish(job)[:2] == (0, f"{arguments}\n")


def test_a_command_that_cannot_start(machine):
    code, _, errors = finish(machine.launch("no-such-command", CUDA_VISIBLE_DEVICES="0"))
    assert code == 127 and errors.startswith("error: no-such-command: ") and "Remedy: " in errors
    (machine.folder / "bin" / "plain").write_text("no program\n")
    code, _, errors = finish(machine.launch("plain", asked=0))
    assert code == 126 and errors.startswith("error: plain: ")
    assert finish(machine.launch(asked=0))[0] == 2
    assert finish(machine.launch("true", asked=-1))[0] == 2


def test_lock_folder_is_open_to_all_and_follows_no_links(machine):
    assert machine.run("umask", CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="7")[:2] == (0, machine.run("umask", asked=0)[1])
    for folder in (machine.locks, machine.locks / "slurm-7"):
        assert folder.stat().st_mode & 0o7777 == 0o1777
    shutil.rmtree(machine.locks)
    (machine.folder / "elsewhere").mkdir()
    machine.locks.symlink_to(machine.folder / "elsewhere")
    code, output, errors = machine.run("echo ran", CUDA_VISIBLE_DEVICES="0")
    assert (code, output) == (1, "") and "set CROCO_GPU_LOCKS" in errors
    machine.locks.unlink()
    assert machine.run("true", CUDA_VISIBLE_DEVICES="0")[0] == 0
    for path in machine.locks.iterdir():
        path.unlink()
        path.symlink_to(machine.folder / "made")
    assert machine.run("echo ran", CUDA_VISIBLE_DEVICES="0")[:2] == (1, "")
    assert not (machine.folder / "made").exists()


def test_a_removed_lock_file_is_made_again(machine):
    holder = machine.hold(CUDA_VISIBLE_DEVICES="0")
    waiter = machine.waiting(f"echo running; {FOREVER}", CUDA_VISIBLE_DEVICES="0")
    behind = machine.waiting(CUDA_VISIBLE_DEVICES="0")
    (machine.locks / "turn-0").unlink()  # what `behind` waits for
    kill(holder)
    assert waiter.stdout.readline() == "running\n"
    until(lambda: machine.has_lock("turn-0"))
    assert behind.poll() is None and machine.has_lock("gpu-0")
    kill(waiter)
    assert finish(behind)[:2] == (0, "done\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run jobs of two users")
def test_users_share_the_locks():
    with tempfile.TemporaryDirectory(dir="/tmp") as name, machine_in(Path(name)) as machine:
        machine.folder.chmod(0o777)
        launcher = shutil.copy(LAUNCHER, machine.folder)
        # Where root's interpreter is closed to others, the system's will do: the launcher needs no packages.
        python = next((path for path in (sys.executable, "/usr/bin/python3") if can_start(path, launcher)), None)
        if python is None:
            pytest.skip("no Python that another user can start")
        theirs = {"prefix": [python, launcher], "user": NOBODY, "CUDA_VISIBLE_DEVICES": "0"}
        assert finish(machine.launch("/bin/echo", "done", **theirs))[:2] == (0, "done\n")
        assert (machine.locks / "gpu-0").stat().st_uid == NOBODY
        holder = machine.hold(asked=2, CUDA_VISIBLE_DEVICES="0,1")
        assert (machine.locks / "gpu-1").stat().st_uid == os.geteuid()
        others = [machine.launch("/bin/echo", "done", **{**theirs, "CUDA_VISIBLE_DEVICES": str(i)}) for i in range(2)]
        for other in others:
            assert "waiting for" in other.stderr.readline()
            assert other.poll() is None
        kill(holder)
        assert {finish(other)[:2] for other in others} == {(0, "done\n")}


def can_start(python, launcher):
    try:
        done = subprocess.run(
            [python, launcher, "--help"], capture_output=True, check=False, user=NOBODY, extra_groups=[]
        )
    except OSError:
        return False
    return done.returncode == 0
