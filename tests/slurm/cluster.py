"""A SLURM cluster of one node with two GPUs that are names only, and its accounting database.

All is in one folder and on the loopback.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from datetime import datetime
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "munged", "mungekey")
PROGRAMS += ("slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db", "mariadb")
PATIENCE = 60  # seconds for a daemon to start or to stop
GPUS = 2
SLURM_CONF = """
ClusterName=croco
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting_port}
AccountingStoragePass={folder}/munge.socket
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
KillWait=5
OverTimeLimit=0
ReturnToService=2
GresTypes=gpu
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=16 RealMemory=256000 Gres=gpu:h200:{gpus} State=UNKNOWN
PartitionName=main Nodes=n1 Default=YES MaxTime=INFINITE State=UP
"""
SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={accounting_port}
SlurmUser={user}
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""
DATABASE_USER = (
    "CREATE DATABASE slurm; CREATE USER slurm@localhost IDENTIFIED BY 'slurm'; GRANT ALL ON slurm.* TO slurm@localhost;"
)
# Who asks for the devices, and which ones the process was given.
NVIDIA_SMI = """#!/bin/sh
echo "$SLURM_JOB_ID $CUDA_VISIBLE_DEVICES" >> {folder}/devices.txt
printf '0, GPU-slurm-0\\n1, GPU-slurm-1\\n'
"""
# The executor removes SLURM_CONF before it calls srun.
SRUN = """#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


def missing_programs():
    """Programs of SLURM and munge that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]


def search_path():
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Cluster:
    """Starts the daemons; ``close`` ends each one by its process id."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("controller", "node", "bin"):
            (folder / name).mkdir(parents=True)
        user = pwd.getpwuid(os.getuid()).pw_name
        self.ports = {
            name: free_port() for name in ("controller_port", "node_port", "accounting_port", "database_port")
        }
        (folder / "slurm.conf").write_text(SLURM_CONF.format(folder=folder, user=user, gpus=GPUS, **self.ports))
        accounting = folder / "slurmdbd.conf"
        accounting.touch(mode=0o600)  # it holds a password, and slurmdbd refuses a file that others can read
        accounting.write_text(SLURMDBD_CONF.format(folder=folder, user=user, **self.ports))
        for number in range(GPUS):
            (folder / f"gpu{number}").symlink_to("/dev/null")
        (folder / "gres.conf").write_text(f"Name=gpu Type=h200 File={folder}/gpu[0-{GPUS - 1}]\n")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM_")},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder / 'bin'}:{search_path()}",
        }
        self._add_program("srun", SRUN.format(folder=folder, srun=shutil.which("srun")))
        self._add_program("nvidia-smi", NVIDIA_SMI.format(folder=folder))
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _add_program(self, name, text):
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def _start(self):
        folder = self.folder
        self._run("mungekey", "--create", f"--keyfile={folder}/munge.key")
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self._run("munged", "--force", *(f"--{option}={folder}/munge.{end}" for option, end in files.items()))
        self._start_accounting()
        self.start_controller()
        self._run("slurmd", "-N", "n1")
        self.wait_for(lambda: self.ask("sinfo", "--noheader", "--format=%T") == "idle", "the node is idle")

    def _start_accounting(self):
        folder, user = self.folder, pwd.getpwuid(os.getuid()).pw_name
        where = [f"--datadir={folder / 'database'}", f"--user={user}"]
        with open(folder / "database.log", "ab") as log:
            self._run(
                "mariadb-install-db", "--no-defaults", *where, "--auth-root-authentication-method=normal", stdout=log
            )
            socket = f"--socket={folder / 'database.socket'}"
            names = [socket, f"--pid-file={folder / 'mariadb.pid'}"]
            network = ["--bind-address=127.0.0.1", f"--port={self.ports['database_port']}"]
            command = ["mariadbd", "--no-defaults", *where, *names, *network]
            subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.wait_for(lambda: self.ask("mariadb", "--no-defaults", socket, "-e", "SELECT 1"), "the database answers")
        self.ask("mariadb", "--no-defaults", socket, "-e", DATABASE_USER)
        self._run("slurmdbd")
        self.wait_for(lambda: self.ask("sacctmgr", "--immediate", "add", "cluster", "croco"), "accounting answers")

    def start_controller(self):
        self._run("slurmctld")

    def _run(self, *command, stdout=None):
        subprocess.run(command, env=self.environment, check=True, timeout=PATIENCE, stdout=stdout, stderr=stdout)

    def ask(self, *command):
        """What a command of SLURM prints."""
        done = subprocess.run(
            command, env=self.environment, check=True, timeout=PATIENCE, capture_output=True, text=True
        )
        return done.stdout.strip()

    def wait_for(self, condition, what, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.SubprocessError):
                if value := condition():
                    return value
            time.sleep(0.5)
        raise TimeoutError(f"not within {seconds} s: {what}")

    def list_jobs(self):
        """All jobs, also ended ones: dicts of what ``scontrol show job`` says."""
        lines = self.ask("scontrol", "show", "job", "--oneliner", "--details").splitlines()
        return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines if line.startswith("JobId=")]

    def list_devices(self):
        """{job id: CUDA_VISIBLE_DEVICES of its command} for jobs that used GPUs."""
        path = self.folder / "devices.txt"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return {row[0]: row[1] if len(row) > 1 else "" for row in rows}

    def stop(self, name):
        """Ends one daemon by its process id."""
        try:
            pid = int((self.folder / f"{name}.pid").read_text())
            os.kill(pid, signal.SIGTERM)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            return
        deadline = time.monotonic() + PATIENCE
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def close(self):
        if (self.folder / "slurmctld.pid").exists():
            with contextlib.suppress(subprocess.SubprocessError, TimeoutError):
                self.ask("scancel", "--user", pwd.getpwuid(os.getuid()).pw_name)
                self.wait_for(lambda: not self.ask("squeue", "--noheader"), "all jobs have ended")
        for name in ("slurmctld", "slurmd", "slurmdbd", "mariadb", "munge"):
            self.stop(name)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def seconds(text):
    """Seconds of the epoch for a time as SLURM writes it."""
    return datetime.fromisoformat(text).timestamp()


def minutes(text):
    """Minutes of a time limit as SLURM writes it: [days-]hours:minutes:seconds."""
    days, _, clock = text.rpartition("-")
    hours, minutes, _ = map(int, clock.split(":"))
    return int(days or 0) * 1440 + hours * 60 + minutes
