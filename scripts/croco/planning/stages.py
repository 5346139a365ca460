"""What a config plans by stage, from the run table alone: the same before, during and after a run."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from croco.grid import Grid
from croco.planned import Planned, PlannedStage
from croco.planning.limits import UNMEASURED, Limits
from croco.planning.speed import estimate
from croco.planning.work import Work, work_of

# The stages whose manifests say what was done; the audit and translation are left out.
STAGES = ("generate", "score", "train", "evaluate", "judge")

# (rule, wildcards, GPUs) of a job.
ModelJob = tuple[str, dict[str, str], int]


def plan_stages(grid: Grid, speeds: Path) -> Planned:
    """The plan of all jobs of a config.

    No result and no manifest of the run is read. ``speeds`` is config/speeds.tsv; the GPU is chosen as for time limits.
    """
    limits = Limits(grid, speeds)
    works: dict[str, list[tuple[Work, int]]] = defaultdict(list)
    unknown = set()  # stages whose number of prompts is assumed
    for rule, wildcards, gpus in list_model_jobs(grid):
        limits.facts.assumes_prompts = False
        work = work_of(limits.facts, rule, wildcards)
        works[work.stage].append((work, gpus))
        if limits.facts.assumes_prompts:
            unknown.add(work.stage)
    stages = []
    for stage in STAGES:
        jobs = works[stage]
        if not jobs:
            continue
        seconds = sum(estimate(work, gpus, limits.speed, UNMEASURED).seconds for work, gpus in jobs)
        stages.append(
            PlannedStage(
                stage=stage,
                jobs=len(jobs),
                loads=sum(work.loads for work, _ in jobs),
                items=None if stage in unknown else sum(work.items for work, _ in jobs),
                tokens=round(sum(work.tokens_trained or work.tokens_out for work, _ in jobs)),
                gpu_hours=round(seconds / 3600, 3) if any(gpus for _, gpus in jobs) else None,
            )
        )
    return Planned(limits.speed.gpu, stages)


def list_model_jobs(grid: Grid) -> Iterator[ModelJob]:
    """The jobs of the stages above, by the rules of the workflow."""
    tuned = [run for run in grid.runs.values() if not run.is_base]
    responses = {(run.responses, code): None for run in tuned if run.uses_responses for code in run.languages}
    scored = {
        (run.responses, code, run.reward_model): None for run in tuned if run.uses_responses for code in run.languages
    }
    for start in map(str, grid.blocks("train")):
        for policy, language in responses:
            gpus = grid.resource("gpu", [grid.policies[policy.split("/")[0]]])
            yield "generate", {"policy": policy, "language": language, "start": start}, gpus
        for policy, language, reward in scored:
            gpus = grid.resource("gpu", [grid.reward_models[reward]])
            yield "score", {"policy": policy, "language": language, "start": start, "reward": reward}, gpus
    for run in tuned:
        wildcards = {"model": run.model, "pool": run.pool, "setting": run.part}
        yield "train", wildcards, grid.training_resource("gpu", run)
    yield from _list_evaluations(grid)


def _list_evaluations(grid: Grid) -> Iterator[ModelJob]:
    """Answers, verdicts and rewards of answers, one job each per batch of languages of a run."""
    evaluation = grid.config["evaluation"]
    for run in grid.runs.values():
        for batch, codes in run.batches.items():
            single = len(codes) == 1 and batch == codes[0]
            wildcards = {"run": run.name} | ({"language": batch} if single else {})
            name = "language" if single else batch
            yield f"evaluate_{name}", wildcards, grid.resource("gpu", [evaluation, grid.policies[run.model]])
            if evaluation["judge"] != "none" and not run.is_base:
                yield f"judge_{name}", wildcards, grid.resource("gpu", [grid.judge]) if grid.judge else 0
            for reward in grid.rewards_for(run) if evaluation["fidelity"] else ():
                gpus = grid.resource("gpu", [grid.reward_models[reward]])
                yield f"score_answers_{name}", {**wildcards, "reward": reward}, gpus
