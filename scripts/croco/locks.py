"""Locks that end with their holder, also between machines and on file systems without flock.

``take_lock`` uses flock. Where the file system has none (Lustre without ``-o flock``, some NFS), it uses a LeaseLock: a
file that only one process can create, that names its holder, and that the holder touches again and again.
"""

import atexit
import errno
import fcntl
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

import msgspec
import psutil

# Seconds: until an untouched lock is free, between touches, between looks at a lock, between looks at the head.
LEASE, BEAT, POLL, WATCH = 600.0, 30.0, 0.5, 1.0
RETRIES = 5  # of giving a lock back
HEAD = "CROCO_HEAD"  # environment variable of a job: the Holder, as JSON, that is the process which started it
NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class Holder(msgspec.Struct, frozen=True):
    """The process that holds a lock.

    Attributes:
        host: see ``host_name``.
        pid: its number.
        began: its start, see ``start_of``; a time of day in a record of older code.
        since: the start of the lock, in seconds of the epoch.
    """

    host: str
    pid: int
    began: str | float
    since: float

    @classmethod
    def this_process(cls) -> Self:
        """The holder that this process is."""
        return cls(host_name(), os.getpid(), start_of(os.getpid()), time.time())

    @classmethod
    def read(cls, text: str | bytes) -> Self:
        """The holder that a JSON text names; raises msgspec.MsgspecError for any other text."""
        return msgspec.json.decode(text, type=cls)

    def is_process(self, other: "Holder") -> bool:
        """Whether both are one process, whatever locks they hold."""
        return (self.host, self.pid, self.began) == (other.host, other.pid, other.began)

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host.partition(' ')[0]}, since {since}"

    @property
    def is_here(self) -> bool:
        """Whether the process runs, or ran, where this one could see it."""
        return self.host == host_name()

    @property
    def is_alive(self) -> bool | None:
        """Whether a process that is_here runs; another one that later got its number does not count.

        None if that is not known: it is another user's and hidden from this one, as by the mount option hidepid of
        /proc, or of older code.
        """
        if isinstance(self.began, float):
            return None
        try:
            return start_of(self.pid) == self.began and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.AccessDenied:
            return None
        except psutil.NoSuchProcess:
            return None if _is_hidden(self.pid) else False


def start_of(pid: int) -> str:
    """What tells a process from all that had or will have its number: on Linux the boot and the clock ticks since then.

    A time of day would change when the machine's clock is set. Raises psutil.NoSuchProcess and psutil.AccessDenied.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The name, in brackets, may hold spaces and brackets; the start is the 22nd field, and the name the second.
        return f"{boot} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return f"{psutil.Process(pid).create_time():.0f}"


def _is_hidden(pid: int) -> bool:
    """Whether another user's process has a number that /proc does not show."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def host_name() -> str:
    """This machine, and on Linux the process namespace: containers of one machine do not see each other's processes."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


class LockHeld(Exception):
    """Another process holds the lock; ``holder`` is None where it cannot be read."""

    def __init__(self, holder: Holder | None) -> None:
        self.holder = holder
        super().__init__(f"held by {holder or 'an unknown process'}")


class FileLock:
    """A flock on a file; the kernel frees it when its holder ends, however it ends."""

    def __init__(self, file: IO) -> None:
        self._file = file

    def release(self) -> None:
        """Gives the lock back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class LeaseLock:
    """A lock by a file that names its holder. It is free when the file is gone, the holder is dead, or the lease is over.

    Whether a holder on this machine lives is seen at once; one on another machine, or hidden from this user, is taken
    for dead when it has not touched its file for LEASE seconds by the file system's clock. A holder ends itself by
    SIGTERM if its file was taken over, because it was suspended for so long, or if it cannot touch it for half a lease.

    Args:
        path: the lock file; its folder must exist.
        wait: wait for the lock instead of raising LockHeld.
        say: called once with the holder before waiting.
    """

    def __init__(
        self, path: Path, wait: bool = True, say: Callable[[Holder | None], None] = lambda holder: None
    ) -> None:
        self.path = path
        self.taken_from: Holder | None = None  # a dead holder
        self._own = msgspec.json.encode(Holder.this_process())
        waited = False
        while not self._create(self._own):
            holder = self._read()
            if self._is_free(holder):
                self._remove(holder)
            elif not wait:
                raise LockHeld(holder)
            else:
                if not waited:
                    say(holder)
                waited = True
                time.sleep(POLL)
        self._done = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()
        atexit.register(self.release)

    def _create(self, text: bytes) -> bool:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with open(descriptor, "wb") as file:
                file.write(text)
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
        return True

    def _read(self) -> Holder | None:
        try:
            return Holder.read(self.path.read_bytes())
        except (FileNotFoundError, msgspec.MsgspecError):  # just gone, or not written yet
            return None

    def _is_free(self, holder: Holder | None) -> bool:
        if holder and holder.is_here and (is_alive := holder.is_alive) is not None:
            return not is_alive
        probe = self.path.with_name(f"{self.path.name}.{os.getpid()}.clock")
        try:
            probe.touch()
            state = self.path.stat()
            # A file without text is of a process that was killed as it began.
            return probe.stat().st_mtime - state.st_mtime > (LEASE if state.st_size else 2 * BEAT)
        except FileNotFoundError:
            return False
        finally:
            probe.unlink(missing_ok=True)

    def _remove(self, holder: Holder | None) -> None:
        """Removes the file of a dead holder, and no other that has come in its place."""
        aside = self.path.with_name(f"{self.path.name}.{os.getpid()}.old")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        try:
            text = aside.read_bytes()
            if holder is not None and text != msgspec.json.encode(holder):
                self._create(text)
            else:
                self.taken_from = holder
        finally:
            aside.unlink(missing_ok=True)

    def _is_taken(self) -> bool:
        """Whether the file is gone, or another process's; raises OSError where that is not known."""
        try:
            return self.path.read_bytes() != self._own
        except FileNotFoundError:
            return True

    def _beat(self) -> None:
        touched = time.monotonic()
        while not self._done.wait(BEAT):
            try:
                reason = "another process has taken the lock" if self._is_taken() else None
                if not reason:
                    os.utime(self.path)
                    touched = time.monotonic()
            except OSError as error:  # an outage of the file system is no reason to end, until others take the lock
                reason = f"the lock cannot be kept ({error})" if time.monotonic() - touched > LEASE / 2 else None
            if reason:
                print(f"error: {self.path}: {reason}; stopping", file=sys.stderr)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def release(self) -> None:
        """Gives the lock back."""
        self._done.set()
        for _ in range(RETRIES):  # else the lock is free when this process has ended
            try:
                if not self._is_taken():
                    self.path.unlink(missing_ok=True)
                break
            except OSError:
                time.sleep(POLL)
        atexit.unregister(self.release)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def find_holder(path: Path) -> Holder | None:
    """The process that holds the LeaseLock at ``path``, None where nobody does. This takes no lock and writes nothing.

    The lease of a holder on another machine is measured by this machine's clock.
    """
    try:
        holder = Holder.read(path.read_bytes())
        untouched = time.time() - path.stat().st_mtime
    except (OSError, msgspec.MsgspecError):
        return None
    is_alive = holder.is_alive if holder.is_here else None
    return holder if is_alive or (is_alive is None and untouched <= LEASE) else None


def take_lock(path: Path, wait: bool = True, say: Callable[[], None] = lambda: None) -> FileLock | LeaseLock:
    """Locks ``path`` until the lock is released or its process ends; ``say`` is called once before waiting.

    Raises LockHeld where another process holds the lock and ``wait`` is false.
    """
    file = open(path, "w")  # noqa: SIM115
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise LockHeld(None) from None
            say()
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        file.close()
        if error.errno not in NO_FLOCK:
            raise
        return LeaseLock(path.with_name(f"{path.name}.lease"), wait, lambda _: say())
    except LockHeld:
        file.close()
        raise
    return FileLock(file)


def end_with_head() -> None:
    """Ends this process and its children soon after the process that schedules jobs, named by HEAD, is gone.

    A job that goes on alone would write into a run that was started again. Without HEAD, or with one on another
    machine, this does nothing.
    """
    told = os.environ.get(HEAD)
    head = Holder.read(told) if told else None
    if head is None or not head.is_here:
        return

    def watch() -> None:
        while head.is_alive is not False:
            time.sleep(WATCH)
        print("error: the run that started this job is gone; finished chunks are kept", file=sys.stderr, flush=True)
        for child in psutil.Process().children(recursive=True):
            child.terminate()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
