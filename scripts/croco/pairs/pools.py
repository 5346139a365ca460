"""Pools: the eligible responses to one prompt in all its languages, streamed from the files of the stages before."""

import json
import math
from typing import NamedTuple

from croco.errors import InputError
from croco.pairs.hygiene import find_reason
from croco.prompts.overlap import read_found
from croco.records import Generation, Identified, Prompt, Score, ScoredPair, check_same_text, read_records, rows_in_step

# Why nothing is formed of a prompt that scripts/contamination.py takes out, in any language.
IN_EVALUATION = "in_evaluation"


class Moments:
    """Count, mean and population standard deviation of numbers that come one by one (Welford), null without any."""

    def __init__(self):
        self.count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, value):
        self.count += 1
        off = value - self._mean
        self._mean += off / self.count
        self._squares += off * (value - self._mean)

    @property
    def mean(self):
        return self._mean if self.count else None

    @property
    def std(self):
        return math.sqrt(self._squares / self.count) if self.count else None

    def standardise(self, value):
        """``value`` in standard deviations from the mean; where nothing varies, only the mean is taken off."""
        return (value - self.mean) / (self.std or 1)


class Pool(NamedTuple):
    """The eligible responses to one prompt, language by language in the order of the files."""

    prompt_id: str
    prompts: dict  # {language: row of the prompt file}
    skips: dict  # {language: why it has no responses, or None}
    responses: list  # [(language, response as generated, raw reward)]
    values: list  # what the responses are compared by: the raw rewards, or the standardised ones

    def within(self, language):
        """The pool of one language alone."""
        stay = [i for i, response in enumerate(self.responses) if response[0] == language]
        return self._replace(responses=[self.responses[i] for i in stay], values=[self.values[i] for i in stay])


def read_pools(args, counts, standards=None):
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
        if prompts[0]["prompt_id"] in excluded:
            for prompt in prompts:
                leave_out(count_language(counts, prompt))
            skips = {prompt["language"]: IN_EVALUATION for prompt in prompts}
            yield Pool(prompts[0]["prompt_id"], {prompt["language"]: prompt for prompt in prompts}, skips, [], [])
            continue
        responses = []
        for i, (prompt, generation, score) in enumerate(zip(prompts, generations, scores, strict=True)):
            found = step[3 * width + i] if args.identified else None
            responses += eligible(args, count_language(counts, prompt), prompt, generation, score, found)
        values = [reward for _, _, reward in responses]
        if standards:
            values = [standards[language].standardise(reward) for language, _, reward in responses]
        yield Pool(
            prompts[0]["prompt_id"],
            {prompt["language"]: prompt for prompt in prompts},
            {generation["language"]: generation.get("skip") for generation in generations},
            responses,
            values,
        )


def check_languages(steps, paths):
    """Yields the steps, whose first rows are of the prompt files ``paths``; each file is in one language of its own.

    Raises InputError at the line where one is not.
    """
    first, remedy = None, "give one file a language, each in that language alone"
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


def measure_rewards(args):
    """{language: Moments of the rewards of all its eligible responses to all prompts}, in one streaming pass."""
    moments = {}
    for pool in read_pools(args, {}):
        for language in pool.prompts:
            moments.setdefault(language, Moments())
        for language, _, reward in pool.responses:
            moments[language].add(reward)
    return moments


def with_other_pairs(pools, path):
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


def count_language(counts, prompt):
    return counts.setdefault(
        prompt["language"],
        {"prompts": 0, "skipped": {}, "responses": 0, "left_out": {}, "eligible": 0, "duplicates": 0, "chosen": 0, "rejected": 0},
    )  # fmt: skip


def read_excluded(paths):
    """The ids of the prompts that files of scripts/contamination.py take out."""
    return {prompt_id for path in paths for prompt_id in read_found(path).removed}


def leave_out(counts):
    """Counts a prompt of a language that is not trained on because it is evaluated on."""
    counts["prompts"] += 1
    count_reason(counts["skipped"], IN_EVALUATION)


def count_reason(counts, reason):
    counts[reason] = counts.get(reason, 0) + 1


def eligible(args, counts, prompt, generation, score, found):
    """[(language, response, reward)] of one language that stay in the pool; ``found``: the languages they are in."""
    found = found or {"language": prompt["language"], "languages": [None] * len(generation["responses"])}
    languages = [row["language"] for row in (prompt, generation, score, found)]
    if len(set(languages)) > 1:
        raise InputError(
            f"{prompt['prompt_id']}: languages {', '.join(languages)} side by side",
            "give --prompts, --generations, --scores and --identified in the same order of languages",
            field="language",
        )
    found = found["languages"]
    for values, name, remedy in (
        (score["rewards"], "rewards", "score these generations again"),
        (found, "languages", "identify these generations again"),
    ):
        if len(generation["responses"]) != len(values):
            raise InputError(
                f"{prompt['prompt_id']}: {len(generation['responses'])} responses but {len(values)} {name}",
                remedy,
                field=name,
            )
    check_same_text(prompt, generation)
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
    for response, reward, language in zip(responses, score["rewards"], found, strict=False):
        reason = find_reason(args.hygiene, response, reward, prompt["language"], language)
        if reason:
            count_reason(counts["left_out"], reason)
        else:
            stay.append((prompt["language"], response, reward))
    counts["responses"] += len(responses)
    counts["eligible"] += len(stay)
    counts["duplicates"] += len(stay) - len({response["text"] for _, response, _ in stay})
    return stay


def read_policies(generations):
    """Content hashes or revisions of the policies that the responses are of, by the manifests beside them, or null."""
    found = set()
    for path in generations:
        manifest = path.with_suffix(".manifest.json")
        if not manifest.is_file():
            return None
        found.add(json.loads(manifest.read_text(encoding="utf-8"))["inputs"].get("policy"))
    return sorted(found) if found and None not in found else None
