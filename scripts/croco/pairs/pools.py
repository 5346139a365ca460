"""Pools: the eligible responses to one prompt in all its languages, streamed from the files of the stages before."""

import math
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypedDict

from croco.errors import InputError
from croco.pairs.hygiene import find_reason
from croco.prompts.overlap import read_found
from croco.records import (
    Generation,
    Identified,
    Prompt,
    Score,
    ScoredPair,
    check_same_text,
    digest_responses,
    read_json,
    read_records,
    rows_in_step,
)

# Why nothing is formed of a prompt that scripts/contamination.py takes out, in any language.
IN_EVALUATION = "in_evaluation"


class LanguageCounts(TypedDict):
    """What became of the prompts and responses of one language: an entry of the ledger."""

    prompts: int
    skipped: dict[str, int]  # {reason: prompts}
    responses: int
    left_out: dict[str, int]  # {reason: responses}
    eligible: int
    duplicates: int
    chosen: int
    rejected: int


class Moments:
    """Count, mean and population standard deviation of numbers that come one by one (Welford), null without any."""

    def __init__(self) -> None:
        self.count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        """Takes in one more number."""
        self.count += 1
        off = value - self._mean
        self._mean += off / self.count
        self._squares += off * (value - self._mean)

    @property
    def mean(self) -> float | None:
        """Mean of the numbers so far."""
        return self._mean if self.count else None

    @property
    def std(self) -> float | None:
        """Population standard deviation of the numbers so far."""
        return math.sqrt(self._squares / self.count) if self.count else None

    def standardise(self, value: float) -> float:
        """``value`` in standard deviations from the mean; where nothing varies, only the mean is taken off."""
        return (value - self._mean) / (self.std or 1)


class PooledResponse(NamedTuple):
    """A response of a pool: its prompt's language, the response as generated, and its raw reward."""

    language: str
    response: dict
    reward: float


@dataclass(frozen=True)
class Pool:
    """The eligible responses to one prompt, language by language in the order of the files.

    Attributes:
        prompts: {language: row of the prompt file}.
        skips: {language: why it has no responses, or None}.
        responses: n responses that may be chosen or rejected.
        values: the n numbers that the responses are compared by: the raw rewards, or the standardised ones.
    """

    prompt_id: str
    prompts: Mapping[str, dict]
    skips: Mapping[str, str | None]
    responses: Sequence[PooledResponse]
    values: Sequence[float]

    def within(self, language: str) -> "Pool":
        """The pool of one language alone."""
        stay = [i for i, response in enumerate(self.responses) if response.language == language]
        return replace(self, responses=[self.responses[i] for i in stay], values=[self.values[i] for i in stay])


def read_pools(
    args: Namespace,
    counts: MutableMapping[str, LanguageCounts],
    standards: Mapping[str, Moments] | None = None,
) -> Iterator[Pool]:
    """Yields the Pool of each prompt id, streaming.

    Args:
        args: prompts, generations, scores, identified (lists of paths), hygiene, pool_size and exclude of the command line.
        counts: {language: counts}, filled on the way.
        standards: {language: Moments} by which rewards are standardised, or None.
    Raises InputError where files are out of step or do not belong together.
    """
    files = [
        (args.prompts, Prompt),
        (args.generations, Generation),
        (args.scores, Score),
        (args.identified, Identified),
    ]
    width, excluded = len(args.prompts), read_excluded(args.exclude)
    steps = rows_in_step([(path, kind) for paths, kind in files for path in paths])
    for step in check_languages(steps, args.prompts):
        prompts, generations, scores = (step[i : i + width] for i in range(0, 3 * width, width))
        identified: list[dict | None] = [*step[3 * width :]] if args.identified else [None] * width
        prompt_id, by_language = prompts[0]["prompt_id"], {prompt["language"]: prompt for prompt in prompts}
        if prompt_id in excluded:
            for prompt in prompts:
                leave_out(count_language(counts, prompt))
            yield Pool(prompt_id, by_language, dict.fromkeys(by_language, IN_EVALUATION), [], [])
            continue
        responses: list[PooledResponse] = []
        for rows in zip(prompts, generations, scores, identified, strict=True):
            responses += list_eligible(args, count_language(counts, rows[0]), *rows)
        values = [response.reward for response in responses]
        if standards:
            values = [standards[response.language].standardise(response.reward) for response in responses]
        skips = {generation["language"]: generation.get("skip") for generation in generations}
        yield Pool(prompt_id, by_language, skips, responses, values)


def check_languages(steps: Iterable[list[dict]], paths: Sequence[Path]) -> Iterator[list[dict]]:
    """Yields the steps, whose first rows are of the prompt files ``paths``; each file is in one language of its own.

    Raises InputError at the line where one is not.
    """
    first: list[str] = []
    remedy = "give one file per language, each in that language alone"
    for number, step in enumerate(steps, start=1):
        languages = [prompt["language"] for prompt in step[: len(paths)]]
        first = first or languages
        for i, (path, language) in enumerate(zip(paths, languages, strict=True)):
            if language != first[i]:
                raise InputError(f"{language} after {first[i]}", remedy, path, number, "language")
            if language in first[:i]:
                other = paths[first.index(language)]
                raise InputError(f"{language}, as in {other}", remedy, path, number, "language")
        yield step


def measure_rewards(args: Namespace) -> dict[str, Moments]:
    """{language: Moments of the rewards of all its eligible responses to all prompts}, in one streaming pass.

    ``args`` is as of read_pools. Raises InputError as it does.
    """
    moments: dict[str, Moments] = {}
    for pool in read_pools(args, {}):
        for language in pool.prompts:
            moments.setdefault(language, Moments())
        for response in pool.responses:
            moments[response.language].add(response.reward)
    return moments


def with_other_pairs(pools: Iterable[Pool], path: Path | None) -> Iterator[tuple[Pool, dict | None]]:
    """Yields (Pool, the line of the pairs file ``path`` for its prompt or None), in step; None for each without a path.

    Raises InputError for a line that no prompt claims.
    """
    lines = read_records(path, ScoredPair) if path else iter(())
    number, other = next(lines, (None, None))
    for pool in pools:
        if other and other["prompt_id"] == pool.prompt_id:
            yield pool, other
            number, other = next(lines, (None, None))
        else:
            yield pool, None
    if other:
        raise InputError(
            f"no prompt claims the pair of {other['prompt_id']!r}",
            "give pairs of another setting over the same prompts, in the order of the prompt files",
            path,
            number,
            "prompt_id",
        )


def count_language(counts: MutableMapping[str, LanguageCounts], prompt: dict) -> LanguageCounts:
    """The counts of the prompt's language, which begin at 0."""
    return counts.setdefault(
        prompt["language"],
        {"prompts": 0, "skipped": {}, "responses": 0, "left_out": {}, "eligible": 0, "duplicates": 0, "chosen": 0, "rejected": 0},
    )  # fmt: skip


def read_excluded(paths: Iterable[Path]) -> set[str]:
    """The ids of the prompts that files of scripts/contamination.py take out; raises InputError for other files."""
    return {prompt_id for path in paths for prompt_id in read_found(path).removed}


def leave_out(counts: LanguageCounts) -> None:
    """Counts a prompt of a language that is not trained on because it is evaluated on."""
    counts["prompts"] += 1
    count_reason(counts["skipped"], IN_EVALUATION)


def count_reason(counts: dict[str, int], reason: str) -> None:
    """Adds one to the count of a reason."""
    counts[reason] = counts.get(reason, 0) + 1


def list_eligible(
    args: Namespace, counts: LanguageCounts, prompt: dict, generation: dict, score: dict, identified: dict | None
) -> list[PooledResponse]:
    """The responses of one language that stay in the pool, in the order of their samples.

    Args:
        args: hygiene and pool_size of the command line.
        counts: of the language, filled on the way.
        identified: the row with the languages that the responses are in, or None where they are not needed.
    Raises InputError where the rows do not belong together, or there are fewer responses than pool_size.
    """
    check_same_responses(prompt, generation, score, identified)
    counts["prompts"] += 1
    skip = generation.get("skip")
    if skip:
        count_reason(counts["skipped"], skip)
    responses = generation["responses"][: args.pool_size]
    if len(responses) < (args.pool_size or 0) and not skip:
        raise InputError(
            f"{prompt['prompt_id']}: {len(responses)} responses, --pool-size asks for {args.pool_size}",
            "generate more samples or lower the pool size",
        )
    stay = []
    languages = identified["languages"] if identified else [None] * len(generation["responses"])
    for response, reward, language in zip(responses, score["rewards"], languages, strict=False):
        reason = find_reason(args.hygiene, response, reward, prompt["language"], language)
        if reason:
            count_reason(counts["left_out"], reason)
        else:
            stay.append(PooledResponse(prompt["language"], response, reward))
    counts["responses"] += len(responses)
    counts["eligible"] += len(stay)
    counts["duplicates"] += len(stay) - len({pooled.response["text"] for pooled in stay})
    return stay


def check_same_responses(prompt: dict, generation: dict, score: dict, identified: dict | None) -> None:
    """Raises InputError where the rows differ in language or in their responses, or answer another text."""
    languages = [row["language"] for row in (prompt, generation, score, identified) if row]
    if len(set(languages)) > 1:
        raise InputError(
            f"{prompt['prompt_id']}: languages {', '.join(languages)} side by side",
            "give --prompts, --generations, --scores and --identified in the same order of languages",
            field="language",
        )
    found = digest_responses(generation)
    for row, name, remedy in (
        (score, "rewards", "score these generations again"),
        (identified, "languages", "identify these generations again"),
    ):
        if row and len(generation["responses"]) != len(row[name]):
            raise InputError(
                f"{prompt['prompt_id']}: {len(generation['responses'])} responses but {len(row[name])} {name}",
                remedy,
                field=name,
            )
        if row and (row.get("responses_digest") or found) != found:
            raise InputError(
                f"{prompt['prompt_id']}: the {name} are of other responses", remedy, field="responses_digest"
            )
    check_same_text(prompt, generation)


def read_policies(generations: Iterable[Path]) -> list[str] | None:
    """Content hashes or revisions of the policies that the responses are of, by the manifests beside them.

    None where a file has no manifest, or its manifest names no policy.
    """
    policies = set()
    for path in generations:
        manifest = path.with_suffix(".manifest.json")
        if not manifest.is_file():
            return None
        inputs = read_json(manifest).get("inputs")
        policy = inputs.get("policy") if isinstance(inputs, dict) else None
        if policy is None:
            return None
        policies.add(policy)
    return sorted(policies) or None
