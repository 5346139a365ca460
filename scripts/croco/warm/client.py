"""What is started in place of the interpreter: a process of server.py runs the command with this one's files and signals.

croco.warm puts the interpreter and the server's address in front of the arguments. What the server cannot do as the
interpreter would (other options, other variables that libraries read on import) goes to the interpreter itself.
"""

import json
import os
import signal
import socket
import sys

interpreter, address, *command = sys.argv[1:]
asked = command[1:] if command[:1] == ["-u"] else command  # torchrun's; standard error is never buffered
MODULES = ("snakemake", "croco.training.process")
forwarded = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def start():
    """A connection to the process that runs the command, or None where the interpreter must."""
    if not asked or not (asked[0].endswith(".py") or (asked[0] == "-m" and asked[1] in MODULES)):
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except OSError:
        return None
    umask = os.umask(0)
    os.umask(umask)
    request = {"command": asked, "folder": os.getcwd(), "environment": dict(os.environ), "umask": umask}
    message = json.dumps(request).encode()
    socket.send_fds(connection, [f"{len(message):>16}".encode()], [0, 1, 2])
    connection.sendall(message)
    return connection if connection.recv(1) == b"y" else None


connection = start()
if connection is None:
    os.execv(interpreter, [interpreter, *command])
for number in forwarded:
    signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
status = int(connection.recv(16) or b"9")
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) in forwarded else None
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.waitstatus_to_exitcode(status))
