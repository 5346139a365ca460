"""The jobs of a workflow, as a dry run of Snakemake finds them."""

import contextlib
import io
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from croco.config.read import load_mapping
from croco.endings import SEPARATOR
from croco.errors import InputError
from croco.grid import Grid

NEW, INPUT, CODE, CUT_OFF, AGAIN, FORCED, TARGET = (
    "new",
    "input changed",
    "code or parameters changed",
    "cut off",
    "after an earlier stage",
    "forced",
    "target",
)
# A dry run asks for no machine, so that no request of a job is cut to the GPUs of this one.
UNLIMITED_GPUS = 10_000


@dataclass(frozen=True)
class PlannedJob:
    """A job of the workflow.

    Attributes:
        rule: name of the rule.
        wildcards: {name: value}.
        why: the reason to run it, one of the constants of this module; None for a finished job, which does not run.
        gpus, runtime: what it asks for; the runtime is in minutes, at the first attempt.
        outputs, log: paths, relative to the working directory; the log is None for a rule without one.
        outputs_exist: whether all outputs are there.
        after: positions, in the list of all jobs, of the jobs whose outputs it needs.
        is_started: whether the last start of a run started it and has not seen its end.
        seconds: how long a finished job took, None where no record says it.
        priority: of its rule; of the jobs that could start, those with the highest do.
    """

    rule: str
    wildcards: dict[str, str]
    why: str | None
    gpus: int
    runtime: float
    outputs: tuple[str, ...]
    log: str | None
    outputs_exist: bool
    after: tuple[int, ...]
    is_started: bool = False
    seconds: float | None = None
    priority: int = 0

    @property
    def is_redone(self) -> bool:
        """Whether it runs although its outputs are there."""
        return self.why is not None and bool(self.outputs) and self.outputs_exist

    @property
    def joined_outputs(self) -> str:
        """Its outputs as Snakemake's log has them; they identify the job."""
        return SEPARATOR.join(self.outputs)


def order_jobs(jobs: Sequence[PlannedJob]) -> Iterable[int]:
    """Positions of the jobs; each comes after those that it needs."""
    return TopologicalSorter({position: job.after for position, job in enumerate(jobs)}).static_order()


def find_ends(jobs: Sequence[PlannedJob], durations: Sequence[float]) -> list[float]:
    """When each job ends if none waits for anything but the jobs that it needs; 0 is the start of the first one."""
    ends = [0.0] * len(jobs)
    for position in order_jobs(jobs):
        ends[position] = durations[position] + max((ends[needed] for needed in jobs[position].after), default=0.0)
    return ends


def list_jobs(
    snakefile: Path, configfiles: Sequence[Path] = (), config: Sequence[str] = (), targets: Sequence[str] = ()
) -> tuple[Grid, list[PlannedJob]]:
    """(run table, all jobs) of the workflow in the working directory; those with a reason are those of `snakemake -n`.

    ``config`` are texts KEY=VALUE. Raises InputError with file, line and column for a config that is not YAML, and with
    Snakemake's message where it cannot plan. A wrong config ends the program with its own message, as with `snakemake -n`.
    """
    for path in configfiles:
        load_mapping(path)  # Snakemake's own message has no line
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), _keeping_handler(signal.SIGTERM):
            workflow = _dry_run(snakefile, configfiles, config, targets)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"Snakemake cannot plan this config: {error}", "see what `snakemake -n` says") from error
    return workflow.globals["GRID"], read_dag(workflow.dag)


@contextlib.contextmanager
def _keeping_handler(number: signal.Signals) -> Iterator[None]:
    """Restores a signal's handler: Snakemake's scheduler leaves one that only ends its own jobs."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if signal.getsignal(number) is not before:
            signal.signal(number, before)


def _dry_run(snakefile: Path, configfiles: Sequence[Path], config: Sequence[str], targets: Sequence[str]) -> Any:
    """The workflow after a dry run with the settings of the default profile."""
    # Not at the top: this takes a second, and --help needs none of it.
    from snakemake.api import SnakemakeApi
    from snakemake.cli import parse_args, parse_config
    from snakemake.exceptions import CliException
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings, WorkflowSettings

    options = ["--snakefile", str(snakefile), "--dry-run"]
    options += ["--configfile", *map(str, configfiles)] if configfiles else []
    options += ["--config", *config] if config else []
    try:
        _, args = parse_args([*options, "--", *targets])
    except CliException as error:
        raise InputError(str(error), "see what `snakemake -n` says") from error
    quiet = {Quietness.RULES, Quietness.PROGRESS}  # a dry run then ends when it has counted its jobs
    with SnakemakeApi(OutputSettings(dryrun=True, quiet=quiet, stdout=True, enable_file_logging=False)) as api:
        planned = api.workflow(
            resource_settings=ResourceSettings(cores=UNLIMITED_GPUS, resources={"gpu": UNLIMITED_GPUS}),
            config_settings=ConfigSettings(
                config=parse_config(args.config),
                configfiles=args.configfile,
                config_args=args.config,
            ),
            workflow_settings=WorkflowSettings(persistence_backend=args.persistence_backend),
            snakefile=snakefile,
        )
        dag = planned.dag(
            dag_settings=DAGSettings(
                targets=set(targets),
                force_incomplete=args.rerun_incomplete,
                rerun_triggers=args.rerun_triggers,
                max_checksum_file_size=args.max_checksum_file_size,
                trust_io_cache=args.trust_io_cache,
                strict_evaluation=args.strict_dag_evaluation,
            )
        )
        dag.execute_workflow(pseudo_executor="dryrun")
        return planned._workflow  # the public interface prints jobs and returns none


def read_dag(dag: Any) -> list[PlannedJob]:
    """All jobs of a DAG that Snakemake has built."""
    jobs = list(dag.jobs)
    positions = {job: position for position, job in enumerate(jobs)}
    records = dag.workflow.persistence
    return [
        PlannedJob(
            rule=job.rule.name,
            wildcards=dict(job.wildcards.items()),
            why=_name_reason(dag.reason(job), job) if dag.needrun(job) else None,
            gpus=int(job.resources.get("gpu", 0)),
            runtime=float(job.resources.get("runtime", 0)),
            outputs=tuple(map(str, job.output)),
            log=next(map(str, job.log), None),
            outputs_exist=all(Path(path).exists() for path in job.output),
            after=tuple(sorted(positions[needed] for needed in dag.dependencies[job])),
            is_started=records.is_started(job),
            seconds=None if dag.needrun(job) else records.seconds_of(job),
            priority=job.rule.priority,
        )
        for job in jobs
    ]


def _name_reason(reason: Any, job: Any) -> str:
    """The first cause of a job: what is missing, then what changed, then what only follows from other jobs."""
    if not job.output:
        return TARGET
    named = {
        NEW: reason.missing_output and not all(Path(path).exists() for path in job.output),
        CUT_OFF: reason.incomplete_output,
        FORCED: reason.forced,
        CODE: reason.params_changed or reason.code_changed or reason.software_stack_changed,
        INPUT: reason.updated_input or reason.input_changed,
    }
    return next((name for name, applies in named.items() if applies), AGAIN)
