"""Runs commands in forks of a process that has only imported what they need: importing takes longer than most tests.

    python server.py SOCKET MODULE ...

Each request (see client.py) is run by a fork, which becomes the program. The server passes signals on, ends the program
with its client and reports how it ended. The program imports the project's own modules itself.
"""

import atexit
import gc
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import py3langid

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
        part = connection.recv(int(header) - len(message))
        if not part:
            raise ConnectionResetError
        message += part
    return json.loads(message), files


def become(request, files, executable):
    """Runs the command as the interpreter would."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.umask(request["umask"])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if "CROCO_PARENT" in os.environ:  # the server ends this process as its parent would
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


@dataclass
class Program:
    """A program that runs, and the client that waits for it."""

    pid: int
    connection: socket.socket | None  # None once the client is gone


class Server:
    """Starts a program for each client, and attends to all of them until they have ended."""

    def __init__(self, address, executable):
        self.executable, self.socket = executable, socket.socket(socket.AF_UNIX)
        self.socket.bind(address)
        self.socket.listen(64)
        self.programs = {}  # by a file descriptor that is ready once the program has ended
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.socket, selectors.EVENT_READ, self.start)
        # The parent's end of standard input closes when it dies.
        self.selector.register(sys.stdin, selectors.EVENT_READ, self.close)

    def serve(self):
        """Until no more clients are taken and all programs have ended."""
        while self.selector.get_map():
            for key, _ in self.selector.select():
                if self.selector.get_map().get(key.fd) is key:  # what came before may have ended it
                    key.data()

    def close(self):
        """Takes no more clients."""
        self.selector.unregister(sys.stdin)
        self.selector.unregister(self.socket)
        self.socket.close()

    def start(self):
        """Starts the program of a new client; a client without an answer runs the command itself."""
        connection, _ = self.socket.accept()
        try:
            request, files = receive(connection)
        except (OSError, ValueError):  # the client is gone
            connection.close()
            return
        pid = None
        if list_read(request["environment"]) == AT_IMPORT:
            with suppress(OSError):  # there can be no more processes
                pid = os.fork()
        if pid == 0:
            self.become_program(connection, request, files)
        for file in files:
            os.close(file)
        if pid is None:
            connection.close()
            return
        ended = os.pidfd_open(pid)
        self.programs[ended] = program = Program(pid, connection)
        self.selector.register(ended, selectors.EVENT_READ, lambda: self.finish(ended))
        self.selector.register(connection, selectors.EVENT_READ, lambda: self.pass_on(program))
        with suppress(OSError):
            connection.sendall(b"y")

    def become_program(self, connection, request, files):
        """In a fork: closes what is the server's, and runs the command."""
        try:
            for ended, program in self.programs.items():
                os.close(ended)
                if program.connection:
                    program.connection.close()
            connection.close()
            self.selector.close()
            self.socket.close()
            become(request, files, self.executable)
        except BaseException:  # before or after the command, for instance because its folder is gone
            traceback.print_exc()
        os._exit(1)

    def pass_on(self, program):
        """Sends the program the signals that its client got, and ends it with its client."""
        try:
            numbers = program.connection.recv(16)
        except OSError:
            numbers = b""
        for number in numbers:
            os.kill(program.pid, number)
        if not numbers:
            self.leave(program)
            with suppress(ProcessLookupError):  # it has no group yet
                os.killpg(program.pid, signal.SIGKILL)
            os.kill(program.pid, signal.SIGKILL)

    def finish(self, ended):
        """Tells the client how its program has ended."""
        program = self.programs.pop(ended)
        self.selector.unregister(ended)
        os.close(ended)
        status = os.waitpid(program.pid, 0)[1]
        if program.connection:
            with suppress(OSError):
                program.connection.sendall(str(status).encode())
            self.leave(program)

    def leave(self, program):
        """Ends the connection to a program's client."""
        self.selector.unregister(program.connection)
        program.connection.close()
        program.connection = None


def main(address, executable, *modules):
    for name in modules:
        pkgutil.resolve_name(name)
    py3langid.classify("")  # reads its model, which takes longer than most of its uses
    # A fork need not look through all that was imported again and again.
    gc.collect()
    gc.freeze()
    server = Server(address, executable)
    print("ready", flush=True)
    server.serve()


main(*sys.argv[1:])
