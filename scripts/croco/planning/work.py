"""The model work of a job: a table of functions from a rule's wildcards to loads, items, tokens and bytes.

A rule that is not in the table loads no model, and costs no GPU time. Those that join blocks load none either, but write
copies.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from croco.config.resources import weigh
from croco.errors import InputError
from croco.grid import Grid
from croco.objectives import OBJECTIVES
from croco.planning.suites import find_suite_task
from croco.prompts.sources import Source, read_source
from croco.runs import Run, name_data
from croco.training.recipe import count_generation_batch

# What is assumed where neither the config nor a file that exists says it. The plan prints each one that it used.
ASSUMED_PROMPTS = 500
ASSUMED_PROMPT_TOKENS = 150
ASSUMED_SHARE = 0.15  # of max_tokens that a response has, and of max_gen_toks that a reply to a task has
ASSUMED_TASK_ROWS = 1000
ASSUMED_TASK_TOKENS = 600
ASSUMED_COPIES = 10  # texts that the audit scores for an answer: itself, its copies, and what it is compared with
JUDGE_INSTRUCTION_TOKENS = 350
BYTES_PER_TOKEN = 5
# Of a score in state/ and in the blocks, and of its copy in a joined file (docs/cluster.md).
BYTES_PER_REWARD = 71 + 32
BYTES_PER_JOINED_REWARD = 32
ADAPTER_SHARE = 0.005  # of the parameters, for LoRA with rank 16 on all linear layers
# Forward, backward, the forward that checkpointing repeats, and the reference's: each takes as long to launch as one or two
# steps of generate, because LoRA's modules add operators. An estimate.
MICRO_BATCH_STEPS = 8
BYTES_PER_TRAINED_PARAMETER = 16  # float32 weights, two moments, and the weights that are published


@dataclass(frozen=True)
class Work:
    """What a job asks of a model.

    Attributes:
        stage: as in manifests; model: name of its row in the config, None where no model is loaded; path: of the model.
        size, active: billions of parameters, all of them and those that a token passes (fewer in a mixture of experts).
        gigabytes: of the weights that are loaded once per load.
        language, setting: what the work is for, None where it is for several; a setting as the config names it.
        loads: how many models are loaded, none for an empty block. prompts: how many.
        items: responses, scored responses, verdict calls, rows seen in training, or translated prompts.
        tokens_in, tokens_out: read by and sampled from the model.
        steps: of transformers' generate, one token for each sequence of a batch; a micro-batch of training counts as MICRO_BATCH_STEPS.
        kind: objective and tuned weights of a training. tokens_trained: over all epochs; training_factor: floating-point operations per active parameter and token.
        bytes: written.
    """

    stage: str = ""
    model: str | None = None
    path: str = ""
    size: float = 0
    active: float = 0
    gigabytes: float = 0
    language: str | None = None
    setting: str | None = None
    loads: int = 0
    prompts: int = 0
    items: int = 0
    tokens_in: float = 0
    tokens_out: float = 0
    tokens_trained: float = 0
    kind: str = ""
    steps: float = 0
    training_factor: int = 0
    bytes: float = 0


NO_WORK = Work()


class Facts:
    """What is known of prompts and texts before a run, from the config, existing files and measured means.

    Args:
        grid: the run table.
        response_tokens: {(path of the policy, language): measured mean}.
        stale: paths that will be made or made again; what they hold now says nothing of the run.
        reads_results: whether files that the workflow has made are read.
    """

    def __init__(
        self,
        grid: Grid,
        response_tokens: Mapping[tuple[str, str], float] | None = None,
        stale: Iterable[str] = (),
        reads_results: bool = True,
    ) -> None:
        self.grid, self.response_tokens, self.stale = grid, response_tokens or {}, set(stale)
        self.reads_results = reads_results
        self.assumes_prompts = False  # whether a number of prompts was assumed since this was last set
        self._noted: dict[str, None] = {}
        self._lines: dict[str, int | None] = {}
        self._sources: dict[str, int | None] = {}

    @property
    def assumptions(self) -> list[str]:
        """Sentences on what was assumed, in the order of their use."""
        return list(self._noted)

    def note(self, assumption: str) -> None:
        """Adds an assumption, once."""
        self._noted[assumption] = None

    def count_lines(self, path: str) -> int | None:
        """Lines of a JSONL file that are not skipped, None without a file that says something of the run."""
        if path not in self._lines:
            self._lines[path] = _count(Path(path)) if self._is_known(path) else None
        return self._lines[path]

    def _is_known(self, path: str) -> bool:
        """Whether there is a file that says something of the run."""
        made = path.startswith(f"{self.grid.results}/")
        return path not in self.stale and (self.reads_results or not made) and Path(path).is_file()

    def count_source(self, use: str) -> int | None:
        """Prompts that the local file of the source language offers, None without a file that can be read."""
        path = self.grid.prompt_file(use, self.grid.config["source_language"])
        if path is None:
            return None
        if use not in self._sources:
            self._sources[use] = _count_entries(path, self.grid.prompts[use]) if self._is_known(path) else None
        return self._sources[use]

    def count_prompts(self, use: str, language: str, start: int | None = None) -> int:
        """Prompts of a block, or of all blocks of a language."""
        if start is None:
            return sum(self.count_prompts(use, language, start) for start in self.grid.blocks(use))
        folder = "prompts" if use == "train" else "prompts/evaluate"
        count = self.count_lines(f"{self.grid.results}/{folder}/{language}/{start}.jsonl")
        if count is not None:
            return count
        source = self.grid.config["source_language"]
        # Other languages have the prompts of the source language, translated or selected by their ids.
        if language != source:
            return self.count_prompts(use, source, start)
        offered = self.count_source(use)
        most = [self.grid.block_limit(use, start), None if offered is None else max(0, offered - start)]
        count = min((number for number in most if number is not None), default=None)
        if count is None:
            self.note(f"{ASSUMED_PROMPTS} prompts per language where no limit is given ({use})")
            count, self.assumes_prompts = ASSUMED_PROMPTS, True
        return count

    def tokens_of_response(self, row: dict, language: str, max_tokens: int) -> float:
        """Expected tokens of a response of the policy in ``row``."""
        measured = self.response_tokens.get((self.grid.path(row["path"]), language))
        if measured is not None:
            return min(measured, max_tokens)
        tokens = round(ASSUMED_SHARE * max_tokens)
        self.note(f"a response of {row['name']} has {tokens} tokens, {ASSUMED_SHARE:.0%} of max_tokens {max_tokens}")
        return tokens

    def tokens_of_prompt(self) -> float:
        """Expected tokens of a prompt."""
        self.note(f"a prompt has {ASSUMED_PROMPT_TOKENS} tokens")
        return ASSUMED_PROMPT_TOKENS


def _count(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(1 for line in file if line.strip() and not _is_skipped(line))


def _count_entries(path: str, row: dict) -> int | None:
    """Prompts of a file that the row of the config chooses and that can be asked, None where it cannot be read.

    What the prompts stage leaves out by the texts, such as prompts in another language, is counted.
    """
    try:
        entries, _ = read_source(path, Source.of_row(row))
    except (InputError, OSError):
        return None
    return sum(entry.fault is None for entry in entries)


def _is_skipped(line: bytes) -> bool:
    found = re.search(rb'"skip": ?(null|")', line)
    return found is not None and found[1] != b"null"


def describe_model(grid: Grid, row: dict) -> dict:
    """The fields of Work that say which model it is."""
    size = row.get("size", 0)
    active = re.search(r"-A([\d.]+)B\b", row["path"])
    return {
        "model": row["name"],
        "path": grid.path(row["path"]),
        "size": size,
        "active": min(size, float(active[1])) if active else size,
        "gigabytes": weigh(row),
    }


def work_of(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """The model work of a job."""
    function = WORK.get(rule)
    if function is None:
        function = next((work for start, work in WORK_BY_START.items() if rule.startswith(start)), None)
    return function(facts, rule, wildcards) if function else NO_WORK


def _count_steps(row: dict, calls: float, tokens: float) -> float:
    """Steps of calls of generate, ``tokens`` long each; vLLM has none, because it makes batches that fill the GPU."""
    return calls * tokens if row["engine"] == "transformers" else 0


def _sample(facts: Facts, row: dict, language: str, prompts: int, samples: int, **fields: Any) -> Work:
    """Sampling ``samples`` responses per prompt; the engine reads a prompt once for all of them."""
    items = prompts * samples
    tokens = items * facts.tokens_of_response(row, language, row["max_tokens"])
    return Work(
        **describe_model(facts.grid, row),
        language=language,
        loads=1 if items else 0,
        prompts=prompts,
        items=items,
        tokens_in=prompts * facts.tokens_of_prompt(),
        tokens_out=tokens,
        # A call ends with its longest response, which may have all the tokens that it is allowed.
        steps=_count_steps(row, prompts * math.ceil(samples / row["batch"]), row["max_tokens"]),
        bytes=tokens * BYTES_PER_TOKEN,
        **fields,
    )


def _setting_of(grid: Grid, policy: str) -> str | None:
    """The setting whose later round samples, None for an untuned policy."""
    return grid.runs[policy].arm if policy in grid.runs else None


def sample_block(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """Samples of one block of prompts."""
    grid, policy, language = facts.grid, wildcards["policy"], wildcards["language"]
    prompts = facts.count_prompts("train", language, int(wildcards["start"]))
    row = grid.policies[policy.split("/")[0]]
    return _sample(
        facts, row, language, prompts, grid.config["samples"], stage="generate", setting=_setting_of(grid, policy)
    )


def _sum_blocks(facts: Facts, wildcards: Mapping[str, str]) -> Work:
    """Items and bytes of all blocks of a language's samples."""
    starts = facts.grid.blocks("train")
    works = [sample_block(facts, "generate", {**wildcards, "start": str(start)}) for start in starts]
    return Work(items=sum(work.items for work in works), bytes=sum(work.bytes for work in works))


def sample_audited(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """The answers that the audit damages."""
    grid, language = facts.grid, wildcards["language"]
    prompts = min(grid.config["audit"]["prompts"], facts.count_prompts("train", language))
    row = grid.policies[wildcards["policy"]]
    return _sample(facts, row, language, prompts, grid.config["audit"]["samples"], stage="generate")


def _score(facts: Facts, reward: str, items: int, tokens_in: float, **fields: Any) -> Work:
    return Work(
        stage="score",
        **describe_model(facts.grid, facts.grid.reward_models[reward]),
        loads=1 if items else 0,
        items=items,
        tokens_in=tokens_in,
        bytes=items * BYTES_PER_REWARD,
        **fields,
    )


def score_block(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """Rewards of the responses to one block of prompts."""
    sampled = sample_block(facts, rule, wildcards)
    tokens = sampled.items * facts.tokens_of_prompt() + sampled.tokens_out
    fields = {"prompts": sampled.prompts, "language": sampled.language, "setting": sampled.setting}
    return _score(facts, wildcards["reward"], sampled.items, tokens, **fields)


def _joins(grid: Grid) -> bool:
    """Whether the joined file of a language is a copy; a single block is linked."""
    return len(grid.blocks("train")) > 1


def join_generations(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """The joined responses of a language; no model is loaded."""
    return Work(bytes=_sum_blocks(facts, wildcards).bytes if _joins(facts.grid) else 0)


def join_scores(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """The joined rewards of a language; no model is loaded."""
    return Work(bytes=_sum_blocks(facts, wildcards).items * BYTES_PER_JOINED_REWARD if _joins(facts.grid) else 0)


def audit_reward(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """Rewards of answers and their damaged copies."""
    grid, of_audit = facts.grid, facts.grid.config["audit"]
    counts = [facts.count_prompts("train", language) for language in grid.trained]
    prompts = sum(min(of_audit["prompts"], count) for count in counts)
    samples = of_audit["samples"]
    damages_samples = of_audit["answers"] == "policy" or "reference" not in grid.prompts["train"]
    # A reference is compared with each of the policy's answers, which have no copies then.
    texts = ASSUMED_COPIES * samples if damages_samples else ASSUMED_COPIES + samples - 1
    items = prompts * texts
    facts.note(f"the audit scores {texts} texts per prompt")
    work = _score(facts, wildcards["reward"], items, items * ASSUMED_TASK_TOKENS, prompts=prompts)
    return Work(**{**vars(work), "stage": "audit"})


def _languages_of(rule: str, wildcards: Mapping[str, str], run: Run) -> tuple[str, ...]:
    """The languages of a job of one batch of a run's evaluation."""
    if "language" in wildcards:
        return (wildcards["language"],)
    stage = next(start for start in WORK_BY_START if rule.startswith(start))
    return run.batches[rule.removeprefix(stage)]


def _answers(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> tuple[Run, dict[str, tuple[int, int, float]]]:
    """(run, {language: (prompts, answers, tokens of all answers)}) of an evaluation job."""
    grid, run = facts.grid, facts.grid.runs[wildcards["run"]]
    evaluation, row = grid.config["evaluation"], grid.policies[run.model]
    answers = {}
    for language in _languages_of(rule, wildcards, run):
        prompts = facts.count_prompts("evaluate", language)
        count = prompts * evaluation["samples"]
        answers[language] = prompts, count, count * facts.tokens_of_response(row, language, evaluation["max_tokens"])
    return run, answers


def _totals(answers: Mapping[str, tuple[int, int, float]]) -> tuple[int, int, float]:
    prompts, counts, tokens = zip(*answers.values(), strict=True)
    return sum(prompts), sum(counts), sum(tokens)


def _name_language(languages: Iterable[str]) -> str | None:
    codes = list(languages)
    return codes[0] if len(codes) == 1 else None


def evaluate_run(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """Answers of a run to the evaluation prompts, and structured tasks."""
    grid = facts.grid
    run, answers = _answers(facts, rule, wildcards)
    prompts, count, tokens = _totals(answers)
    tasks = [task for language in answers for task in _list_tasks(facts, language)]
    rows = sum(task.rows for task in tasks)
    replies = sum(task.rows * ASSUMED_SHARE * task.max_tokens for task in tasks)
    row, evaluation = grid.policies[run.model], grid.config["evaluation"]
    steps = sum(_count_steps(row, task.rows / evaluation["batch"], task.max_tokens) for task in tasks)
    return Work(
        stage="evaluate",
        **describe_model(grid, row),
        language=_name_language(answers),
        setting=run.arm,
        loads=1,
        prompts=prompts,
        items=count,
        tokens_in=prompts * facts.tokens_of_prompt() + rows * ASSUMED_TASK_TOKENS,
        tokens_out=tokens + replies,
        steps=_count_steps(row, count / evaluation["batch"], evaluation["max_tokens"]) + steps,
        bytes=(tokens + replies + rows * ASSUMED_TASK_TOKENS) * BYTES_PER_TOKEN,
    )


@dataclass(frozen=True)
class Task:
    """A structured task: its rows, and the tokens of a reply at most, 0 where the choices are only read."""

    rows: int
    max_tokens: int = 0


def _list_tasks(facts: Facts, language: str) -> list[Task]:
    """All structured tasks in a language."""
    grid, tasks = facts.grid, []
    for row, _ in grid.own_tasks([language]):
        count = facts.count_lines(grid.task_file(row, language))
        tasks.append(Task(ASSUMED_TASK_ROWS if count is None else count))
    tasks += [_describe_suite_task(facts, name) for name in grid.suites.get(language, [])]
    if tasks:
        facts.note(
            f"a structured task has {ASSUMED_TASK_ROWS} rows where neither its file nor config/suites.tsv says it, and "
            f"{ASSUMED_TASK_TOKENS} tokens a row"
        )
    if any(task.max_tokens for task in tasks):
        facts.note(f"a reply to a structured task has {ASSUMED_SHARE:.0%} of the tokens that config/suites.tsv allows")
    return tasks


def _describe_suite_task(facts: Facts, name: str) -> Task:
    """A task of lm-eval; ``suite_limit`` holds for each single task of a group."""
    limit, known = facts.grid.config["evaluation"].get("suite_limit"), find_suite_task(name)
    if known is None:
        return Task(limit or ASSUMED_TASK_ROWS)
    rows = min(known.documents, limit * known.single_tasks) if limit else known.documents
    return Task(rows, known.max_gen_toks)


def judge_run(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """Verdicts on a run's answers; the oracle loads no model."""
    grid = facts.grid
    run, answers = _answers(facts, rule, wildcards)
    prompts, count, tokens = _totals(answers)
    orders = 1 if grid.judge and grid.judge["orders"] == "one" else 2
    calls = orders * count
    shared: dict[str, Any] = {"stage": "judge", "language": _name_language(answers), "setting": run.arm}
    if grid.judge is None:
        return Work(**shared, prompts=prompts, items=calls)
    replies = calls * round(ASSUMED_SHARE * grid.judge["max_tokens"])
    facts.note(f"a reply of the judge has {ASSUMED_SHARE:.0%} of its max_tokens")
    read = calls * (JUDGE_INSTRUCTION_TOKENS + facts.tokens_of_prompt()) + orders * 2 * tokens
    return Work(
        **shared,
        **describe_model(grid, grid.judge),
        loads=1,
        prompts=prompts,
        items=calls,
        tokens_in=read,
        tokens_out=replies,
        steps=_count_steps(grid.judge, calls / grid.judge["batch"], grid.judge["max_tokens"]),
        bytes=replies * BYTES_PER_TOKEN,
    )


def score_answers(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """Rewards of a run's answers."""
    run, answers = _answers(facts, rule, wildcards)
    prompts, count, tokens = _totals(answers)
    read = count * facts.tokens_of_prompt() + tokens
    fields = {"prompts": prompts, "language": _name_language(answers), "setting": run.arm}
    return _score(facts, wildcards["reward"], count, read, **fields)


def train_run(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """Tuning of a run."""
    grid = facts.grid
    name = f"{wildcards['model']}/{wildcards['pool']}/{wildcards['setting']}"
    run = grid.runs[name]
    objective, recipe, row = OBJECTIVES[run.objective], grid.recipe_of(run), grid.policies[run.model]
    rows = count_rows(facts, run)
    seen = round(rows * recipe["epochs"])
    means = [facts.tokens_of_response(row, language, row["max_tokens"]) for language in run.languages]
    response = sum(means) / len(means)
    responses = 2 if objective.has_pairs or objective.samples else 1
    sampled = seen * responses * response if objective.samples else 0
    calls = seen / count_generation_batch(recipe, grid.count_processes(run)) if objective.samples else 0
    full = recipe["weights"] == "full"
    trained = row.get("size", 0) * 1e9 * (1 if full else ADAPTER_SHARE)
    return Work(
        stage="train",
        kind=f"{run.objective} {recipe['weights']}",
        **describe_model(grid, row),
        language=_name_language(run.languages),
        setting=run.arm,
        loads=2 if objective.samples else 1,  # the reward model, too
        prompts=rows,
        items=seen,
        # The reward model reads what was sampled; it is taken to be of the policy's size.
        tokens_in=sampled + (seen * responses * facts.tokens_of_prompt() if sampled else 0),
        tokens_out=sampled,
        steps=calls * row["max_tokens"] + seen / recipe["micro_batch"] * MICRO_BATCH_STEPS,
        tokens_trained=seen * responses * (facts.tokens_of_prompt() + response),
        training_factor=(6 if full else 4) + (2 if objective.has_reference else 0),
        bytes=trained * BYTES_PER_TRAINED_PARAMETER,
    )


def count_rows(facts: Facts, run: Run) -> int:
    """Rows that a run is tuned on: those of its data if there, else one per prompt, which is an upper bound."""
    count = facts.count_lines(f"{facts.grid.results}/{run.name}/{name_data(run.target)}.jsonl")
    if count is not None:
        return count
    counts = [facts.count_prompts("train", language) for language in run.languages]
    facts.note("each training prompt forms a row, as an upper bound")
    return sum(counts) if run.target == "reference" and run.row["per_prompt"] == "all" else max(counts)


def _translate(facts: Facts, row: dict, language: str, rows: int, tokens: float) -> Work:
    return Work(
        stage="translate",
        **describe_model(facts.grid, row),
        language=language,
        loads=1 if rows else 0,
        prompts=rows,
        items=rows,
        tokens_in=rows * tokens,
        tokens_out=rows * tokens,
        steps=_count_steps(row, rows / row["batch"], tokens),
        bytes=rows * tokens * BYTES_PER_TOKEN,
    )


def translate_prompts(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """Translation of one block of prompts."""
    use = rule.removeprefix("translate_")
    row = facts.grid.translators[facts.grid.prompts[use]["translator"]]
    language = wildcards["language"]
    rows = facts.count_prompts(use, facts.grid.config["source_language"], int(wildcards["start"]))
    return _translate(facts, row, language, rows, facts.tokens_of_prompt())


def translate_task(facts: Facts, rule: str, wildcards: Mapping[str, str]) -> Work:
    """Translation of a structured task."""
    grid, name, language = facts.grid, rule.removeprefix("translate_task_"), wildcards["language"]
    task = next(task for task in grid.config["evaluation"]["tasks"] if task["name"] == name)
    count = facts.count_lines(grid.path(task["source"]))
    if count is None:
        facts.note(f"a structured task has {ASSUMED_TASK_ROWS} rows of {ASSUMED_TASK_TOKENS} tokens")
        count = ASSUMED_TASK_ROWS
    return _translate(facts, grid.translators[task["translator"]], language, count, ASSUMED_TASK_TOKENS)


Function = Callable[[Facts, str, Mapping[str, str]], Work]

WORK: dict[str, Function] = {
    "translate_train": translate_prompts,
    "translate_evaluate": translate_prompts,
    "generate": sample_block,
    "generate_audited": sample_audited,
    "gather_generations": join_generations,
    "gather_scores": join_scores,
    "score": score_block,
    "audit_reward": audit_reward,
    "train": train_run,
    "train_full": train_run,
}
# Rules that exist once per pool or task.
WORK_BY_START: dict[str, Function] = {
    "translate_task_": translate_task,
    "evaluate_": evaluate_run,
    "judge_": judge_run,
    "score_answers_": score_answers,
}
