"""Say what a run of a config will do and cost, before anything runs.

Examples:
  python scripts/plan.py --configfile config/paper.yaml --gpu-type h100 --gpus 8
  python scripts/plan.py --configfile my.yaml --by language --json plan.json
  python scripts/plan.py --configfile my.yaml --measured results/pilot     speeds and lengths of a pilot's responses

The jobs are those of `snakemake -n` with the default profile. The table has a line per rule that loads a model:
  jobs        how many, and why they run: new, input changed, code or parameters changed, cut off (a job that
              did not finish), or after an earlier stage (whose results will be other ones)
  loads       how often a model is loaded
  items       responses, scored responses, verdict calls, rows seen in training, or translated prompts
  tokens      read, sampled and trained on
  GPU-hours   by the manifests of finished jobs on GPUs (--measured), else by config/speeds.tsv, which holds estimates;
              by this table, times of another type of GPU are scaled
  GB          written to disk

After a pilot (a run with --config limit=100) the plan has a 95 % interval. It covers the differences between the pilot's
blocks and languages, and nothing else: other GPUs, queues and repeated jobs are outside of it.

The wall time is that of a simulated run: jobs start as Snakemake starts them, on GPUs that are there all the time. Queues,
failures, and jobs without a GPU take no time in it.

What is made again counts as far as it is finished: after a pilot, the pilot's part of a larger job. This is an upper bound:
work that is finished under state/ is taken over in seconds if its inputs are the same.
"""

from pathlib import Path

from croco import cli
from croco.planning.downloads import list_downloads
from croco.planning.jobs import list_jobs
from croco.planning.plan import (
    GPU_TYPE,
    GROUPS,
    HOUR,
    add_up,
    choose_speed,
    group,
    make_plan,
    measure,
    shorten_reasons,
    to_row,
)
from croco.planning.redo import describe_excess
from croco.records import write_json

CHECKOUT = Path(__file__).resolve().parents[1]
WIDTH = 120
LINES = 24  # of the table at most; the cheapest groups are joined
NO_MODEL = "without a model"


def main():
    args = parse_arguments()
    grid, jobs = list_jobs(CHECKOUT / "Snakefile", args.configfile, args.config, args.targets)
    speed = choose_speed(grid, CHECKOUT, args.gpu_type)
    plan = make_plan(grid, jobs, speed, measure(grid, CHECKOUT, speed, args.measured))
    downloads = list_downloads(grid)
    gpus = args.gpus or max((step.job.gpus for step in plan.to_run), default=0)
    print("\n".join([*format_table(plan, args.by), "", *format_totals(plan, speed, gpus, downloads)]))
    if excess := describe_excess(grid, plan):
        print(f"Refused    a start ends at once, unless it has --config redo=true: {excess}")
    if args.json:
        write_json(args.json, describe(plan, speed, gpus, downloads))


def parse_arguments():
    parser = cli.parser(__doc__, outputs=("json",))
    parser.add_argument("--configfile", nargs="+", type=Path, default=[], help="files merged into the default config")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as Snakemake's --config")
    parser.add_argument(
        "--gpu-type", help=f"a row of config/speeds.tsv (default: the config's gpu_type, else {GPU_TYPE})"
    )
    parser.add_argument("--gpus", type=cli.positive, help="how many there are (default: those of the largest job)")
    parser.add_argument("--measured", type=Path, help="results folder of a pilot (default: the config's own results)")
    parser.add_argument("--by", choices=list(GROUPS), default="rule", help="what a line of the table is for")
    parser.add_argument("--json", type=Path, help="file to write all jobs and sums to")
    parser.add_argument("targets", nargs="*", help="as Snakemake's targets (default: everything); write -- before them")
    return parser.parse_args()


def format_table(plan, by):
    """Lines of the table: groups with a model, then all jobs without one, then the total."""
    if not plan.to_run:
        return ["Nothing to do: all results of this config are there."]
    with_model = [step for step in plan.to_run if step.work.stage]
    groups = list(group(with_model, by).items())
    if len(groups) > LINES:
        kept = {name for name, _ in groups[: LINES - 1]}
        cheap = [step for step in with_model if GROUPS[by](step) not in kept]
        groups = [*groups[: LINES - 1], (f"{len(groups) - len(kept)} more", add_up(cheap))]
    without = add_up(step for step in plan.to_run if not step.work.stage)
    rows = [*groups, (NO_MODEL, without), ("total", add_up(plan.to_run))]
    head = f"{by:<28}{'jobs':>6}{'loads':>7}{'items':>13}{'tokens':>9}{'GPU-hours':>11}{'GB':>8}  why"
    return [head, *(format_row(name, of_group)[:WIDTH] for name, of_group in rows)]


def format_row(name, of_group):
    return (
        f"{name[:27]:<28}{of_group.jobs:>6}{of_group.loads:>7}{of_group.items:>13,}"
        f"{format_count(of_group.tokens):>9}{of_group.gpu_hours:>11,.1f}{of_group.bytes / 1e9:>8,.1f}"
        f"  {shorten_reasons(of_group.reasons)}"
    )


def format_count(number):
    """A number with at most four digits and its unit: 3.2M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def format_totals(plan, speed, gpus, downloads):
    """Lines below the table: time, what is made again, downloads, and what the figures rest on."""
    total = add_up(plan.to_run)
    uses_gpus = any(step.job.gpus for step in plan.to_run)
    where = "because no job that will run asks for a GPU"
    if uses_gpus:
        loading = sum(step.cost.loading for step in plan.to_run) / HOUR
        where = f"on {speed.gpu} ({speed.memory_gb:g} GB), {loading:,.1f} of them to load models"
    yield f"GPU-hours  {total.gpu_hours:,.1f} {where}"
    if interval := plan.interval():
        low, high = interval
        yield f"           95 % interval of the measured part: {low:,.1f} to {high:,.1f} (blocks and languages only)"
    if uses_gpus:
        schedule, chain = plan.schedule(gpus), plan.longest_chain()
        busy = f", busy {schedule.busy:.0%} of the time" if schedule.busy is not None else ""
        yield f"Wall time  {schedule.hours:,.1f} hours on {gpus} GPUs{busy}; {chain:,.1f} hours on any number of GPUs"
        if (most := max(step.job.gpus for step in plan.to_run)) > gpus:
            yield f"           a job asks for {most} GPUs and cannot start: lower `resources: {{gpu: ...}}` in the config"
    yield f"Disk       {total.bytes / 1e9:,.1f} GB written, training state included"
    if plan.redone:
        redone = add_up(plan.redone)
        yield f"Made again {redone.jobs} jobs whose results are there, {redone.gpu_hours:,.1f} GPU-hours at most:"
        yield f"           {shorten_reasons(redone.reasons)}"[:WIDTH]
        yield "           Finished work under state/ is taken over in seconds if its inputs are the same."
    yield from wrap("Downloads  ", [describe_download(download) for download in downloads])
    sources = [f"{stage} ({Path(path).name})" for stage, path in plan.measured]
    yield from wrap("Measured   ", sources or ["nothing: GPU-hours are estimates by config/speeds.tsv"])
    yield from wrap("Assumed    ", plan.assumptions)


def describe_download(download):
    return f"{download.name} ({download.gigabytes:,.0f} GB)" if download.gigabytes else download.name


def wrap(head, parts):
    """Lines with as many parts as fit; nothing without parts. What is beyond six lines is in the file of --json."""
    lines = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 2 <= WIDTH:
            lines[-1] += f"; {part}"
        else:
            lines.append(f"{' ' * len(head) if lines else head}{part}"[:WIDTH])
    return lines if len(lines) <= 6 else [*lines[:5], f"{' ' * len(head)}and more: see --json"]


def describe(plan, speed, gpus, downloads):
    """The plan as a JSON object."""
    schedule = plan.schedule(max(1, gpus))
    return {
        "gpu_type": speed.gpu,
        "gpus": gpus,
        "total": vars(add_up(plan.to_run)),
        "made_again": vars(add_up(plan.redone)),
        "wall_hours": schedule.hours,
        "gpus_busy": schedule.busy,
        "longest_chain_hours": plan.longest_chain(),
        "interval_gpu_hours": plan.interval(),
        "by": {by: {name: vars(sums) for name, sums in group(plan.to_run, by).items()} for by in GROUPS},
        "downloads": [vars(download) for download in downloads],
        "measured": plan.measured,
        "assumed": plan.assumptions,
        "jobs": [to_row(step) for step in plan.to_run],
    }


if __name__ == "__main__":
    cli.run(main)
