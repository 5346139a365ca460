"""python -m croco.warm: a command in a fork of a process that has imported the libraries."""

import os
import signal
import subprocess
import sys
import time

from conftest import ENVIRONMENT, ROOT

SCRIPT = """
import sys, time
print("transformers" in sys.modules, sys.argv[1:], flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(7)
"""


def test_a_command_has_its_libraries_and_arguments_and_ctrl_c_is_its_own(tmp_path):
    """All processes of a terminal get Ctrl-C; the exit code is that of the command."""
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT / "scripts"), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "croco.warm", tmp_path / "script.py", "--asked"],
        env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "True ['--asked']\n"
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
    assert process.returncode == 7
    assert not list(tmp_path.glob("croco-*")), "the interpreter's folder is removed"
