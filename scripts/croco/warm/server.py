"""Runs commands in forks of a process that has only imported what they need: importing takes longer than most tests.

    python server.py SOCKET MODULE ...

Each request (see client.py) is run by a fork of a fork: the inner one becomes the program, the outer one passes signals
on, ends the program with its client and reports how it ended. The program imports the project's own modules itself.
"""

import atexit
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import traceback
from pathlib import Path

LOST_OUTPUT = 120  # the exit code of Python where standard output cannot be written at the end
# Variables that libraries read when they are imported.
READ_ON_IMPORT = (
    "ACCELERATE",
    "DATASETS",
    "HF_",
    "LD_",
    "MALLOC",
    "OMP_",
    "TOKENIZERS",
    "TORCH",
    "TQDM",
    "TRANSFORMERS",
)
# What torchrun tells its processes; torch reads it when they meet.
READ_LATER = ("TORCHELASTIC", "TORCH_NCCL")
# What croco.cli sets before a script imports anything.
SET_BY_SCRIPTS = {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_MININTERVAL": "15"}


def list_read(environment):
    read = {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_ON_IMPORT) and not name.startswith(READ_LATER)
    }
    return SET_BY_SCRIPTS | read


os.environ |= SET_BY_SCRIPTS
AT_IMPORT = list_read(os.environ)


def receive(connection):
    header, files, _, _ = socket.recv_fds(connection, 16, 3)
    message = b""
    while len(message) < int(header):
        message += connection.recv(int(header) - len(message))
    return json.loads(message), files


def become(request, files, executable):
    """Runs the command as the interpreter would."""
    os.setsid()
    for name in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(name, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.umask(request["umask"])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if "CROCO_PARENT" in os.environ:  # the process of `attend` ends this one as its parent would
        os.environ["CROCO_PARENT"] = str(os.getppid())
    sys.executable = executable
    command = request["command"]
    code = 0
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            sys.path[:1] = [request["folder"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = command, str(Path(command[0]).resolve().parent)
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if code and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        code = 1
        sys.excepthook(*sys.exc_info())
    finish(code)


def finish(code):
    """Ends this process after its exit functions; with 120 if output is lost, as the interpreter does.

    It waits for no threads: those of the libraries' pools belong to the process that has imported them.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            code = LOST_OUTPUT
            os.write(2, f"{error!r} in {stream.name}\n".encode())
    os._exit(code & 0xFF)


def attend(connection, executable):
    request, files = receive(connection)
    if list_read(request["environment"]) != AT_IMPORT:
        connection.sendall(b"n")
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        connection.close()
        try:
            become(request, files, executable)
        except BaseException:  # before or after the command, for instance because its folder is gone
            traceback.print_exc()
            os._exit(1)
    for file in files:
        os.close(file)
    connection.sendall(b"y")
    ended = os.pidfd_open(child)
    while True:
        ready, _, _ = select.select([connection, ended], [], [])
        if ended in ready:
            connection.sendall(str(os.waitpid(child, 0)[1]).encode())
            return
        numbers = connection.recv(16)
        if not numbers:  # the client was killed
            os.killpg(child, signal.SIGKILL)
            return
        for number in numbers:
            os.kill(child, number)


def main(address, executable, *modules):
    for name in modules:
        pkgutil.resolve_name(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen(64)
    print("ready", flush=True)
    while True:
        # The parent's end of standard input closes when it dies.
        if sys.stdin in select.select([server, sys.stdin], [], [])[0]:
            return
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            try:
                attend(connection, executable)
            finally:
                os._exit(0)
        connection.close()


main(*sys.argv[1:])
