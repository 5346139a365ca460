"""What a run's result files hold, read for the summary; and what a mean over its languages and tasks consists of."""

import json
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from croco.errors import InputError
from croco.records import Score, Verdict, read_records, rows
from croco.results import win_rates
from croco.results.metrics import ANSWER_METRICS
from croco.results.table import ARENA, FIDELITY
from croco.runs import Run

# What an arena file says of a prompt, and what is computed from its verdicts.
SCORES = {"win_rate": "score", "win_rate_single_order": "score_single_order", "win_rate_strict": "score_strict"}
FROM_VERDICTS = {
    "win_rate_lc": win_rates.length_controlled,
    "win_rate_glm": win_rates.adjusted,
    "position_consistency": win_rates.position_consistency,
    "unparseable": win_rates.unparseable,
}
WITHOUT_BASELINE = ("position_consistency", "unparseable")


@dataclass
class Measured:
    """The results of one run.

    Attributes:
        files: those that were read.
        results: {(task, metric): {language: {prompt: [value or None]}}}.
        against: what the results are compared with, in the same form, where the run's own files hold it.
        documents: as results, by the documents' digests; for groups of tasks.
        rewards: {reward model: {language: {prompt: [value]}}}.
        suites: {language: {task: name of its group}}.
        lower: (task, metric) where lower is better.
        expected: {(task, metric): languages} that a mean over the run's languages consists of.
        groups: {(group, metric): {language: [task]}} of groups of several tasks.
    """

    run: Run
    files: list[Path] = field(default_factory=list)
    results: dict = field(default_factory=lambda: defaultdict(dict))
    against: dict = field(default_factory=lambda: defaultdict(dict))
    documents: dict = field(default_factory=lambda: defaultdict(dict))
    rewards: dict = field(default_factory=dict)
    suites: dict = field(default_factory=lambda: defaultdict(dict))
    lower: set[tuple[str, str]] = field(default_factory=set)
    expected: dict = field(default_factory=dict)
    groups: dict = field(default_factory=dict)


def read_results(args: Namespace, run: Run, runs: list[Run], gaps: list[dict]) -> Measured:
    """What a run's files hold; with --partial those that are missing are added to ``gaps``."""
    measured = Measured(run)
    for language in run.evaluated:
        read = [("eval", f"eval/{language}.json", read_suites), ("eval", f"eval/{language}.samples.jsonl", read_tasks)]
        if args.judged and not run.is_base:
            read.append(("arena", f"arena/{language}.jsonl", read_arena))
        if args.fidelity:
            read.append(("fidelity", f"fidelity/{language}.jsonl", read_fidelity))
            read += [
                ("rewards", f"fidelity/{reward}/{language}.jsonl", read_rewards) for reward in list_rewards(run, runs)
            ]
        for what, name, reader in read:
            path = args.root / run.name / name
            if args.partial and not path.is_file():
                gap = {"run": run.name, "language": language, "what": what}
                gaps += [gap] if gap not in gaps else []
                continue
            measured.files.append(path)
            reader(measured, language, path)
    return measured


def list_rewards(run: Run, runs: Iterable[Run]) -> list[str]:
    """The reward models that scored a run's answers: its own; of the base those of all runs."""
    if not run.is_base:
        return [run.reward_model]
    return sorted({other.reward_model for other in runs if other.model == run.model and not other.is_base})


def read_suites(measured: Measured, language: str, path: Path) -> None:
    """Which tasks form a group: an lm-eval group's, and own ones over the same documents (see name_variants)."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise InputError(
            f"no results of structured tasks: no such file or no JSON ({error})", "evaluate again", path
        ) from error
    measured.suites[language] = {task: found["suite"] for task, found in results.items() if "suite" in found}


def read_tasks(measured: Measured, language: str, path: Path) -> None:
    """The metrics of structured tasks, by prompt and by document."""
    for sample in rows(path):
        # All runs have the same documents: interned, their names are in memory once and not once per run.
        document = sys.intern(str(sample["doc_hash"]))
        prompt = document if sample["prompt_id"] is None else sys.intern(str(sample["prompt_id"]))
        measured.lower |= {(sample["task"], metric) for metric in sample.get("lower_is_better", [])}
        for metric in sorted(sample.keys() - {"task", "prompt_id", "doc_hash", "target", "response"}):
            if isinstance(sample[metric], int | float | None):
                for values, name in ((measured.results, prompt), (measured.documents, document)):
                    of_task = values[sample["task"], metric].setdefault(language, {})
                    of_task.setdefault(name, []).append(sample[metric])
    name_variants(measured, language)


def name_variants(measured: Measured, language: str) -> None:
    """Own tasks that have the same documents, such as variants of a prompt, form a group with their joined names."""
    same: dict[frozenset, dict[str, None]] = defaultdict(dict)
    for (task, _), by_language in sorted(measured.documents.items()):
        if language in by_language and task not in measured.suites[language]:
            same[frozenset(by_language[language])][task] = None
    for tasks in same.values():
        if len(tasks) > 1:
            measured.suites[language] |= dict.fromkeys(tasks, "+".join(tasks))


def read_arena(measured: Measured, language: str, path: Path) -> None:
    """Win rates, and what else verdicts say; win rates are compared with chance."""
    lines = [line for _, line in read_records(path, Verdict)]
    judged = {metric: {line["prompt_id"]: line[name] for line in lines} for metric, name in SCORES.items()}
    judged |= {metric: measure(lines) for metric, measure in FROM_VERDICTS.items()}
    judged["quality"] = {line["prompt_id"]: line["quality"] for line in lines}
    chance = {line["prompt_id"]: 0.5 for line in lines}
    for metric, values in judged.items():
        keep(measured.results[ARENA, metric], language, values)
        if metric == "quality":
            others = {line["prompt_id"]: line["baseline_quality"] for line in lines}
            keep(measured.against[ARENA, metric], language, others)
        elif metric not in WITHOUT_BASELINE:
            keep(measured.against[ARENA, metric], language, {prompt: chance[prompt] for prompt in values})


def read_fidelity(measured: Measured, language: str, path: Path) -> None:
    """A prompt's measures are means over its samples; a sample without a value is left out."""
    lines = list(rows(path))
    for metric in ANSWER_METRICS:
        values = {line["prompt_id"]: line[metric.name] for line in lines}
        values = {prompt: mean(value) if isinstance(value, list) else value for prompt, value in values.items()}
        keep(measured.results[FIDELITY, metric.name], language, values)


def read_rewards(measured: Measured, language: str, path: Path) -> None:
    """A prompt's mean reward, by reward model; compare_rewards puts them in the results."""
    values = {line["prompt_id"]: mean(line["rewards"]) for _, line in read_records(path, Score)}
    keep(measured.rewards.setdefault(path.parent.name, {}), language, values)


def keep(results: dict, language: str, values: dict) -> None:
    """Adds {prompt: value} of a language; none where no prompt has a value."""
    if any(value is not None for value in values.values()):
        results[language] = {prompt: [value] for prompt, value in values.items()}


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are there; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def compare_rewards(args: Namespace, measured: Measured, base: Measured) -> None:
    """Adds the rewards by the run's reward model, the base's by the same, and how often they and the judge agree."""
    if not args.fidelity:
        return
    reward = measured.run.reward_model
    ours, theirs = measured.rewards.get(reward, {}), base.rewards.get(reward, {})
    measured.results[FIDELITY, "reward"] = ours
    if measured is base:
        return
    measured.against[FIDELITY, "reward"] = {language: theirs[language] for language in ours if language in theirs}
    for language in ours.keys() & theirs.keys() & measured.results[ARENA, "win_rate"].keys():
        agreed = {}
        for prompt, [score] in measured.results[ARENA, "win_rate"][language].items():
            rewards = ours[language][prompt] + theirs[language][prompt]
            if None not in (score, *rewards) and score != 0.5 and rewards[0] != rewards[1]:
                agreed[prompt] = float((score > 0.5) == (rewards[0] > rewards[1]))
        keep(measured.results[ARENA, "reward_judge_agreement"], language, agreed)
        keep(measured.against[ARENA, "reward_judge_agreement"], language, dict.fromkeys(agreed, 0.5))


def expect_languages(measured: list[Measured]) -> None:
    """Fills in which languages a mean over a run's languages consists of, and its groups of tasks.

    For answers these are all of the run's languages, whatever file or value is missing; for structured tasks those that
    the task has in some run.
    """
    known: dict[tuple[str, str], set[str]] = defaultdict(set)
    suites: dict[str, dict[str, str]] = defaultdict(dict)
    for each in measured:
        for code, groups in each.suites.items():
            suites[code] |= groups
        for key, by_language in each.results.items():
            known[key] |= by_language.keys()
    for each in measured:
        # Where a run lacks a language, its groups there are those of other runs, and so the language is missing in them.
        each.suites = defaultdict(dict, {code: suites[code] | each.suites[code] for code in each.run.evaluated})
        each.expected = {
            (task, metric): [code for code in each.run.evaluated if task in (ARENA, FIDELITY) or code in languages]
            for (task, metric), languages in known.items()
            if languages
        }
        each.groups = list_groups(each)
    drop_documents(measured)


def drop_documents(measured: list[Measured]) -> None:
    """Frees the values by document of tasks that are in no group: of 90 runs these would be gigabytes."""
    grouped = {task for each in measured for tasks in each.groups.values() for members in tasks.values() for task in members}  # fmt: skip
    for each in measured:
        for task, metric in list(each.documents):
            if task not in grouped:
                del each.documents[task, metric]


def list_groups(measured: Measured) -> dict[tuple[str, str], dict[str, list[str]]]:
    """{(group, metric): {language: [task]}} of groups of several tasks, in the run's order of languages."""
    groups: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for (task, metric), languages in sorted(measured.expected.items()):
        for code in languages:
            group = measured.suites[code].get(task)
            if group is not None:
                groups[group, metric][code].append(task)
                measured.lower |= {(group, metric)} if (task, metric) in measured.lower else set()
    several = {key for key, tasks in groups.items() if any(len(members) > 1 for members in tasks.values())}
    return {key: groups[key] for key in sorted(several)}
