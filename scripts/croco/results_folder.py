"""The results folder: who writes to it, what it was made with, and Snakemake's records of its files.

Snakemake keeps its records and its lock in the working directory. There another checkout, or the same one after the
folder was renamed, does not see them: it takes files made by another config for its own, and two runs may write at
once; after a kill, the lock has to be removed by hand. Here both are in the folder itself, under ``.snakemake``:

  metadata/, incomplete/   Snakemake's records, by paths relative to the folder
  lock                     the process that writes to the folder (croco.locks.LeaseLock)
  start.json               the merged config, code, versions, executor and Snakemake's log of the last start
"""

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil
import snakemake.api  # before snakemake.workflow: they import each other
import snakemake.workflow
from snakemake.exceptions import WorkflowError
from snakemake.persistence import ParamsChange
from snakemake.persistence.file import FilePersistence
from snakemake.settings.enums import StrictDagEvaluation

from croco import cli
from croco.commands import name_command, name_program
from croco.config.differences import ABSENT, list_differences
from croco.deployment import check_deployment
from croco.digests import file_digest, lock_digest, versions
from croco.errors import InputError
from croco.files import publish, replacing
from croco.locks import HEAD, Holder, LeaseLock, LockHeld
from croco.records import write_json
from croco.slurm import cancel_jobs, find_local_storage, job_prefix, survive_outages, tabulate_requests
from croco.state import FROM_STATE

PATIENCE = 60.0  # seconds for jobs of a dead head to end
# The checks of all models and datasets, under the output root.
CHECKED, DATASETS_CHECKED = "templates/models.json", "datasets.json"
ALLOW = (
    "undo the change that `python scripts/plan.py` names, use another value of `results`, take over what state/ still "
    "has by --config from_state=true, or allow it once by --config redo=true"
)
NO_RECORD = "unknown, because no record says how this file was made"
# Snakemake's --max-jobs-per-timespan where the user gives none: (jobs, seconds).
DEFAULT_RATE = (100, 1)


class ResultsFolder:
    """Snakemake's persistence for one output root.

    Args:
        results: the output root; ``config``: the merged config as it was asked for; ``checkout``: the code's folder.
        unpinned: what of the config may change on the hub, for a warning.
        find_excess: what is wrong with starting the jobs of Snakemake's DAG, None where nothing is.
    """

    def __init__(
        self,
        results: str,
        config: dict[str, Any],
        checkout: Path,
        unpinned: Sequence[str] = (),
        find_excess: Callable[[Any], str | None] = lambda dag: None,
    ) -> None:
        self.results, self.config, self.checkout = results, config, checkout
        self.unpinned, self.find_excess = unpinned, find_excess
        self.folder = Path(results) / ".snakemake"

    def install(self, workflow: snakemake.workflow.Workflow) -> None:
        """Lets the Snakemake that reads ``workflow`` use the folder's own records and lock."""
        folder = self
        if workflow.remote_exec:  # it runs a job of a cluster, which ends its jobs by its own means
            os.environ.pop(HEAD, None)

        class Persistence(RecordsInFolder):
            owner = folder

        snakemake.workflow.FilePersistence = Persistence

    def list_differences(self) -> list[str]:
        """What the last start had that this one has not: "key: old -> new" for each key of the config."""
        last = self.read_start().get("config")
        if last is None:
            return []
        return [f"{key}: {old} -> {new}" for key, old, new in compare(last, self.config)]

    def read_start(self) -> dict[str, Any]:
        """start.json of the last start; empty where there is none that can be read."""
        try:
            return msgspec.json.decode((self.folder / "start.json").read_bytes(), type=dict)
        except (OSError, msgspec.MsgspecError):
            return {}

    @contextmanager
    def hold(self, executor: str = "local", log: str | None = None) -> Iterator[None]:
        """Locks the folder for this process; clears up first if the holder before was killed.

        ``executor`` is the name of Snakemake's plugin that starts the jobs, ``log`` the path of Snakemake's log. Raises
        InputError where another process holds the folder, or jobs of a killed one do not end.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = LeaseLock(self.folder / "lock", wait=False)
        except LockHeld as held:
            raise InputError(
                f"another run writes to this folder: {held.holder or 'it has just started'}",
                "wait for it, or stop it; a run with another value of `results` can start at once",
                self.results,
            ) from held
        with lock:
            if lock.taken_from is not None:
                print(f"the run before was killed ({lock.taken_from}): going on after it", file=sys.stderr)
            if "slurm" in (executor, self.read_start().get("executor")):
                cancel_jobs(self.results)
            if lock.taken_from is not None:
                wait_for_jobs(lock.taken_from)
                remove_partial_files(self.results)
            command = [name_program("snakemake"), *sys.argv[1:]]
            start = {"executor": executor, "log": log, "command": command, **describe_start(self.config, self.checkout)}
            write_json(self.folder / "start.json", start)
            os.environ[HEAD] = msgspec.json.encode(Holder.this_process()).decode()
            yield

    @contextmanager
    def keep_outputs(self, paths: Iterable[str]) -> Iterator[None]:
        """Puts files under the output root back if they are gone at the end, or, after a kill, in the next such start.

        Snakemake removes the outputs of a job before it starts, and a job that only takes finished work may fail.
        """
        aside = self.folder / "aside"
        self._put_back(aside)
        for path in map(Path, paths):
            if path.is_file() and path.is_relative_to(self.results):
                publish(path, aside / path.relative_to(self.results))
        try:
            yield
        finally:
            self._put_back(aside)

    def _put_back(self, aside: Path) -> None:
        for path in aside.rglob("*"):
            target = Path(self.results) / path.relative_to(aside)
            if path.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        shutil.rmtree(aside, ignore_errors=True)


def describe_start(config: dict, checkout: Path) -> dict[str, Any]:
    """What start.json says: the config as it was asked for, the code and the versions."""
    return {
        "config": config,
        **cli.find_commit(checkout),
        "lock": lock_digest(checkout / "requirements.lock"),
        "versions": {"python": platform.python_version(), **versions("snakemake", *cli.LIBRARIES)},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def compare(old: Any, new: Any) -> Iterator[tuple[str, str, str]]:
    """Yields (key, old, new) where two configs differ, with dots and row names or numbers in the key; null is as no key."""
    for key, values in list_differences([old, new], ("name",)):
        before, now = (None if value is ABSENT else value for value in values)
        if before != now:
            yield key, shorten(before), shorten(now)


def shorten(value: Any) -> str:
    """A value of a config for a message."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def wait_for_jobs(head: Holder) -> None:
    """Waits until the jobs that a dead head started on this machine have seen that it is gone, and ended.

    Kills those that hang. Raises InputError where that does not end them.
    """
    for is_last in (False, True):
        deadline = time.monotonic() + PATIENCE
        while (jobs := list_jobs(head)) and time.monotonic() < deadline:
            time.sleep(0.5)
        if not jobs:
            return
        numbers = " ".join(str(job.pid) for job in jobs)
        if is_last:
            raise InputError(f"jobs of a killed run do not end: {numbers}", f"end them: kill -9 {numbers}")
        print(f"killing jobs of the killed run, which hang: {numbers}", file=sys.stderr)
        for job in jobs:
            with suppress(psutil.Error):
                job.kill()


def list_jobs(head: Holder) -> list[psutil.Process]:
    """The processes on this machine that ``head`` started."""
    found = []
    for process in psutil.process_iter():
        try:
            told = process.environ().get(HEAD)
            if told and Holder.read(told).is_process(head) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):  # gone, or another user's
            continue
    return found


def remove_partial_files(results: str) -> None:
    """Removes what killed processes were writing; only for the holder of the lock, when no job runs."""
    for folder, _, names in os.walk(results):
        for name in names:
            if name.startswith(".") and name.endswith(".partial"):
                Path(folder, name).unlink(missing_ok=True)


def keep_logs(paths: Iterable[str]) -> None:
    """Renames logs of earlier attempts after their time, because Snakemake removes a job's log when the job starts."""
    for path in map(Path, paths):
        if path.is_file() and path.stat().st_size:
            written = time.strftime("%Y%m%d-%H%M%S", time.localtime(path.stat().st_mtime))
            path.rename(path.with_suffix(f".{written}{path.suffix}"))


class RecordsInFolder(FilePersistence):
    """Snakemake's records and lock in the results folder; what has no record counts as made in an unknown way.

    Files that no job makes are followed by content, also where a replacement has an older time.
    """

    owner: ResultsFolder

    def __init__(
        self, *, path: Path | None = None, nolock: bool = False, warn_only: bool = False, **options: Any
    ) -> None:
        super().__init__(path=path, nolock=nolock, warn_only=warn_only, **options)
        workflow = self.dag.workflow
        try:
            check_deployment(workflow.deployment_settings.deployment_method, workflow.rules)
        except InputError as error:
            sys.exit(f"error: {error}")
        if path is None:  # else a job on a machine that does not share the file system
            self._metadata_path = str(self.owner.folder / "metadata")
            self._incomplete_path = str(self.owner.folder / "incomplete")
            self._max_len = 200  # of a file's name, with room for partial_path
        # Else an error of an input function is hidden where the output is there, whatever made it: Snakemake then plans
        # no job for it and for all that it comes from.
        settings = workflow.dag_settings
        settings.strict_evaluation = {*settings.strict_evaluation, StrictDagEvaluation.FUNCTIONS}

    def _get_key(self, f: Any) -> str:
        return super()._get_key(f).removeprefix(f"{self.owner.results}/")

    def _io_write(self, subject: str, json_value: Any, id: str, mode: int = 0o660) -> None:
        path = self._record_path(subject, id)
        try:
            with replacing(path) as file:
                json.dump(json_value, file)
            os.chmod(path, os.stat(path).st_mode | mode)  # a group may share the folder
        except OSError as error:
            raise WorkflowError(cli.explain_os_error(error) or f"error: {path}: {error}") from None

    def _write_record(self, key: str, record: Any) -> None:
        super()._write_record(key, record)
        self._clear_cache()  # which still says that there is no record

    @contextmanager
    def lock(self) -> Iterator[None]:
        """For a run; raises WorkflowError where another run writes to the folder."""
        self._tell_differences()
        self._warn_of_unpinned_items()
        try:
            if excess := self.owner.find_excess(self.dag):
                raise InputError(excess, ALLOW, self.owner.results)
            self._lift_default_rate()
            with self.owner.hold(self._prepare_executor(), self._name_log()):
                jobs = list(self.dag.needrun_jobs())
                keep_logs(log for job in jobs for log in job.log)
                outputs = [path for job in jobs for path in job.output] if FROM_STATE in os.environ else []
                with self.owner.keep_outputs(outputs):
                    yield
        except InputError as error:
            raise WorkflowError(f"error: {error}") from None
        except OSError as error:
            if (message := cli.explain_os_error(error)) is None:
                raise
            raise WorkflowError(message) from None

    def _lift_default_rate(self) -> None:
        """Takes Snakemake's default limit of started jobs per second away, but no limit that the user has set.

        A limited scheduler looks at all ready jobs again one second after each look, and also whenever a job ends. The
        looks add up as long as jobs are ready: after some hundred jobs they occupy a core of the login node.
        """
        settings = self.dag.workflow.scheduling_settings
        rate = settings.max_jobs_per_timespan
        if rate is not None and (rate.max_jobs, rate.timespan) == DEFAULT_RATE:
            settings.max_jobs_per_timespan = None

    def _prepare_executor(self) -> str:
        """Prepares SLURM's executor, so that a later run recognises its jobs and an outage loses none; returns its name."""
        workflow = self.dag.workflow
        plugin = workflow.executor_plugin
        executor = plugin.name if plugin else "local"
        if executor == "slurm":
            survive_outages()
            workflow.executor_settings.jobname_prefix = job_prefix(self.owner.results)
            limit = workflow.global_resources.get("gpu")
            if limit is not None and limit.value is not None:
                print(
                    f"warning: all jobs on the cluster together get at most {limit.value} GPUs (gpu={limit.value}): "
                    "to end this limit, use --workflow-profile profiles/slurm and no --resources gpu=N",
                    file=sys.stderr,
                )
            if (reason := find_local_storage(self.owner.results)) is not None:
                print(
                    f"warning: {self.owner.results}: {reason}, so jobs on other nodes will not see this folder: "
                    "set `results` to a path on a file system that all nodes share",
                    file=sys.stderr,
                )
        return executor

    def _name_log(self) -> str | None:
        """The absolute path of Snakemake's log; None where it writes none."""
        paths = self.dag.workflow.logger_manager.get_logfile()
        return os.path.abspath(paths[0]) if paths else None

    @contextmanager
    def lock_warn_only(self) -> Iterator[None]:
        """For a dry-run, which writes nothing. With a cluster's profile it says what the jobs ask for."""
        self._tell_differences()
        self._warn_of_unpinned_items()
        if excess := self.owner.find_excess(self.dag):
            print(f"warning: a start would be refused: {excess}\n  Remedy: {ALLOW}", file=sys.stderr)
        jobs = list(self.dag.needrun_jobs())
        # A dry-run does not know the executor. Only profiles of clusters set the number of nodes.
        if any(job.resources.get("nodes") for job in jobs):
            print(tabulate_requests((job for job in jobs if job.output), self.dag.workflow._localrules))
        yield

    def _tell_differences(self) -> None:
        if differences := self.owner.list_differences():
            lines = "".join(f"\n  {line}" for line in differences)
            print(f"{self.owner.results}: the config differs from that of the last start:{lines}", file=sys.stderr)

    def _warn_of_unpinned_items(self) -> None:
        if self.owner.unpinned and set(self.dag.workflow.dag_settings.targets) != {"stage"}:
            print(
                f"warning: not pinned to a commit: {', '.join(self.owner.unpinned)}: run "
                f"`{name_command('snakemake', 'stage', '--cores', '1')}` with the same config files, and name a copy of its "
                "stage.lock.json under `lock`",
                file=sys.stderr,
            )

    def is_started(self, job: Any) -> bool:
        """Whether the last start of a run started the job, and has not seen its end."""
        marked = self._filter_incomplete_keys({self._get_key(path) for path in job.output})
        try:  # a mark of an earlier start, which was killed, is older than start.json
            started = (self.owner.folder / "start.json").stat().st_mtime
            return any(os.stat(self._record_path(self._incomplete_path, key)).st_mtime >= started for key in marked)
        except FileNotFoundError:
            return False

    def seconds_of(self, job: Any) -> float | None:
        """How long a finished job took, the time in a queue included; None where no record says it."""
        record = self.metadata(job.output[0]) if job.output else None
        if record is None or record.starttime is None or record.endtime is None:
            return None
        return record.endtime - record.starttime

    def unlock(self) -> None:
        """Does nothing: the lock is given back where it was taken."""

    def cleanup_locks(self) -> None:
        """For --unlock."""
        print("nothing to unlock: the lock of a run ends with it", file=sys.stderr)

    def has_metadata(self, job: Any) -> bool:
        """True, so that Snakemake asks params_changed about files without a record, too."""
        return True

    def params_changed(self, job: Any, file: Any = None) -> Any:
        """Which params differ from the recorded ones; a file without a record differs."""
        files = job.output if file is None else [file]
        unknown = {file for file in files if os.path.exists(file) and self.metadata(file) is None}
        changed = super().params_changed(job, file)
        return changed | ParamsChange(only_old={NO_RECORD}, files=unknown) if unknown else changed

    def _input(self, job: Any) -> list[str]:
        """The inputs that a record holds: without the config's checks, for which a job waits only until it has run once."""
        checks = {f"{self.owner.results}/{path}" for path in (CHECKED, DATASETS_CHECKED)}
        return [path for path in super()._input(job) if path not in checks]

    def _input_changed(self, job: Any, file: Any = None) -> bool:
        return super()._input_changed(job, file) or self._outside_changed(job, file)

    def _outside_changed(self, job: Any, file: Any) -> bool:
        """Whether an input that no job makes has other content than when ``file`` was made."""
        record = self.metadata(file)
        checksums = (record and record.input_checksums) or {}
        made = set().union(*self.dag.dependencies[job].values())
        cache = f"{self.owner.results}/state/digests"
        return any(
            str(path) in checksums and os.path.isfile(path) and file_digest(path, cache) not in checksums[str(path)]
            for path in job.input
            if path not in made
        )
