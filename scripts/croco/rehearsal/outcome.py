"""What a rehearsal found: stage by model, what ran, what broke, and where that would have been in the real run."""

import json
import subprocess
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from croco.endings import list_failures, read_end
from croco.grid import Grid
from croco.planning.jobs import PlannedJob, find_ends, list_jobs
from croco.records import read_jsonl
from croco.rehearsal.prepare import Prepared
from croco.runs import Run

# Stages that a real run pays for.
EXPENSIVE = ("translate", "generate", "score", "train", "evaluate", "judge")
Generate = Callable[..., "subprocess.CompletedProcess[str]"]
NOT_SHOWN = (
    "memory and speed, GPU kernels, 8-bit formats, and models split over GPUs",
    "the real weights, quality, and how long real answers are",
    "tasks of `evaluation.suite`, imports, languages that were cut",
)


def read_outcome(
    checkout: Path,
    config: Path,
    engine: str,
    prepared: Prepared,
    targets: Sequence[str],
    generate: Generate,
) -> dict[str, Any]:
    """What ran with one engine, a JSON value; ``generate`` runs scripts/generate.py with arguments.

    Keys: engine; stages: [{stage, model, passed, broken, not_reached}]; broken: [{where, what, after}], where ``after``
    names the expensive stages that a real run would have paid before; made: {what: how}.
    """
    broken = [{"where": where, "what": what, "after": []} for where, what in prepared.broken.items()]
    if not prepared.runs:
        return {"engine": engine, "made": prepared.made, "stages": [], "broken": broken}
    grid, jobs = list_jobs(checkout / "Snakefile", [config], targets=targets)
    failed = {failure.outputs: failure for failure in list_failures(config.parent / "run.log")}
    table: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: dict(passed=0, broken=0, not_reached=0))
    for job in jobs:
        if not job.outputs:
            continue
        outcome = "passed" if job.why is None else "broken" if job.joined_outputs in failed else "not_reached"
        stage, model = name_stage(job), name_model(job)
        table[stage, model][outcome] += 1
        if outcome == "broken":
            where = " ".join(filter(None, (stage, model, *job.wildcards.values())))
            what = "\n".join(failed[job.joined_outputs].read_ends())
            broken.append({"where": where, "what": what, "after": list_paid(job, jobs)})
    if not failed and any(counts["not_reached"] for counts in table.values()):  # Snakemake itself stopped
        broken.append({"where": "start", "what": "\n".join(read_end(config.parent / "run.log")), "after": []})
    broken += [{"where": where, "what": what, "after": []} for where, what in check_effects(grid, generate)]
    stages = [{"stage": stage, "model": model, **counts} for (stage, model), counts in table.items()]
    return {"engine": engine, "made": prepared.made, "stages": sort_stages(stages, jobs), "broken": broken}


def name_stage(job: PlannedJob) -> str:
    """The rule without what it was made for: evaluate_multi is evaluate."""
    return next((name for name in EXPENSIVE if job.rule.startswith(f"{name}_")), job.rule)


def name_model(job: PlannedJob) -> str:
    """The models that a job's wildcards name."""
    names = [job.wildcards.get(key, "").split("/")[0] for key in ("model", "policy", "run", "reward", "title")]
    return " ".join(name for name in dict.fromkeys(names) if name)


def list_paid(job: PlannedJob, jobs: Sequence[PlannedJob]) -> list[str]:
    """The expensive stages that a job comes after, in their order."""
    before, waiting = set(), list(job.after)
    while waiting:
        position = waiting.pop()
        if position not in before:
            before.add(position)
            waiting += jobs[position].after
    paid = {name_stage(jobs[position]) for position in before}
    return [stage for stage in EXPENSIVE if stage in paid]


def sort_stages(stages: list[dict], jobs: Sequence[PlannedJob]) -> list[dict]:
    """In the order in which a run comes to them."""
    depth: dict[str, float] = defaultdict(float)
    for job, level in zip(jobs, find_ends(jobs, [1.0] * len(jobs)), strict=True):
        depth[name_stage(job)] = max(depth[name_stage(job)], level)
    return sorted(stages, key=lambda row: (depth[row["stage"]], row["stage"], row["model"]))


def check_effects(grid: Grid, generate: Generate) -> list[tuple[str, str]]:
    """(where, what is wrong) of finished trainings without an effect, and of merged releases that answer differently."""
    wrong = []
    for model in grid.tuned:
        runs = [run for run in grid.runs.values() if run.model == model and not run.is_base]
        compared = [pair for run in runs for pair in pair_answers(grid, run) if all(path.is_file() for path in pair)]
        if compared and all(read_texts(tuned) == read_texts(base) for tuned, base in compared):
            wrong.append((f"train {model}", "no answer of any tuned model differs from the untuned policy's"))
    for row in grid.config["release"]:
        release = Path(grid.results, "release", row["run"])
        if (release / "manifest.json").is_file():
            wrong += compare_release(grid, row["run"], release, generate)
    return wrong


def pair_answers(grid: Grid, run: Run) -> list[tuple[Path, Path]]:
    """(file of a run's answers, file of the untuned policy's) in each language."""
    folders = [Path(grid.results, name, "answers") for name in (run.name, grid.base(run.model).name)]
    return [(folders[0] / f"{code}.jsonl", folders[1] / f"{code}.jsonl") for code in run.evaluated]


def compare_release(grid: Grid, name: str, release: Path, generate: Generate) -> list[tuple[str, str]]:
    """Whether a merged release gives the greedy answers of the policy with its adapter."""
    run = grid.runs[name]
    policy, language = grid.policies[run.model], run.languages[0]
    prompts = Path(grid.results, "prompts", language, "0.jsonl")
    loading = ["--engine", policy["engine"], "--engine-options", json.dumps(policy["engine_options"])]
    loading += ["--template-options", json.dumps(policy["template_options"])]
    loading += ["--trust-remote-code"] if policy["trust_remote_code"] else []
    texts = []
    for side, options in (
        ("adapter", ["--model", grid.path(policy["path"]), "--adapter", f"{grid.results}/{name}/checkpoint"]),
        ("release", ["--model", str(release / "model")]),
    ):
        output = Path(grid.results, "compared", f"{name.replace('/', '.')}.{side}.jsonl")
        sampling = ["--samples", 1, "--temperature", 0, "--max-tokens", policy["max_tokens"]]
        files = ["--prompts", prompts, "--state", f"{grid.results}/state", "--output", output]
        done = generate(*options, *loading, *sampling, *files)
        if done.returncode:
            return [(f"release {name}, {side}", done.stderr.strip()[-2000:])]
        texts.append(read_texts(output))
    return [] if texts[0] == texts[1] else [(f"release {name}", "its greedy answers are not those of the adapter")]


def read_texts(path: Path) -> list[list[str]]:
    """The texts of the responses in a file, by prompt."""
    return [[response["text"] for response in row["responses"]] for _, row in read_jsonl(path)]


def describe(report: dict[str, Any]) -> str:
    """The report as text for a terminal."""
    lines = []
    for outcome in report["engines"]:
        lines += [
            f"Engine {outcome['engine']}",
            f"  {'stage':28}{'model':28}{'passed':>8}{'broken':>8}{'not reached':>13}",
        ]
        lines += [
            f"  {row['stage'][:27]:28}{row['model'][:27]:28}{row['passed']:8}{row['broken']:8}{row['not_reached']:13}"
            for row in outcome["stages"]
        ]
        lines += ["", *(f"  {what}: {how}" for what, how in outcome["made"].items())]
        for fault in outcome["broken"]:
            after = f"; a real run would have paid for {', '.join(fault['after'])} before" if fault["after"] else ""
            lines += ["", f"  BROKEN {fault['where']}{after}"]
            lines += [f"    {line}" for line in fault["what"].splitlines()]
        lines.append("")
    broken = sum(len(outcome["broken"]) for outcome in report["engines"])
    lines.append(f"{broken} broken. A rehearsal cannot show:")
    lines += [f"  - {what}" for what in NOT_SHOWN]
    return "\n".join(lines)
