"""python -m croco.warm: a command in a fork of a process that has imported the libraries."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import ENVIRONMENT, INTERPRETER, ROOT

from croco import warm

SCRIPT = """
import sys, time
print("transformers" in sys.modules, sys.argv[1:], flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(7)
"""


def test_an_apostrophe_in_a_path_is_none_of_the_shell(tmp_path, monkeypatch):
    monkeypatch.setattr(warm, "MODULES", [])
    folder = tmp_path / "o'brien"
    folder.mkdir()
    with warm.warm_interpreter(folder, ENVIRONMENT) as python:
        done = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Python 3")


def start_warm(folder, text):
    """A started command that runs a script with this text."""
    (folder / "script.py").write_text(text, encoding="utf-8")
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT / "scripts"), "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-m", "croco.warm", folder / "script.py", "--asked"],
        env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_a_command_has_its_libraries_and_arguments_and_ctrl_c_is_its_own(tmp_path):
    """All processes of a terminal get Ctrl-C; the exit code is that of the command."""
    with start_warm(tmp_path, SCRIPT) as process:
        assert process.stdout.readline() == "True ['--asked']\n"
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
    assert process.returncode == 7
    assert not list(tmp_path.glob("croco-*")), "the interpreter's folder is removed"


def test_sigterm_to_it_ends_the_command(tmp_path):
    with start_warm(tmp_path, SCRIPT) as process:
        assert process.stdout.readline()
        process.terminate()
        assert process.stdout.read() == "", "no process holds its output any more"
    assert process.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("croco-*")), "the interpreter's folder is removed"


@pytest.mark.parametrize("interpreter", [INTERPRETER, sys.executable])
def test_it_ends_as_the_interpreter_does(tmp_path, interpreter):
    """Output that cannot be written is an error, and so is a command that cannot run."""
    (tmp_path / "print.py").write_text("import sys; sys.stdout = open(1, 'w'); print('lost')", encoding="utf-8")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [interpreter, tmp_path / "print.py"], env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 120 and b"No space left on device" in done.stderr
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["/bin/sh", "-c", 'rmdir "$0"; exec "$1" "$2"', gone, interpreter, tmp_path / "print.py"],
        cwd=gone, env=ENVIRONMENT, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 or done.stdout == b"lost\n"


def test_programs_run_side_by_side_and_each_ends_with_its_client(tmp_path):
    (tmp_path / "wait.py").write_text(
        "import os, time; print(os.getpid(), flush=True); time.sleep(600)", encoding="utf-8"
    )
    command = [INTERPRETER, tmp_path / "wait.py"]
    clients = [subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    killed, ended = (psutil.Process(int(client.stdout.readline())) for client in clients)
    clients[0].kill()
    killed.wait(60)
    assert ended.is_running() and clients[1].poll() is None
    clients[1].terminate()
    assert clients[1].wait(60) == -signal.SIGTERM and not ended.is_running()
    done = subprocess.run([INTERPRETER, "-c", "print(7)"], env=ENVIRONMENT, capture_output=True, check=True)
    assert done.stdout == b"7\n"
    for client in clients:
        client.stdout.close()
        client.wait()
