"""Score responses with a reward model: one raw logit for each response.

Example:
  python scripts/score.py --prompts prompts/de.jsonl --generations generations.jsonl --model DIR \\
      --state state --output scores/NAME.jsonl

Files of several languages are scored with one model load. Equal responses to a prompt are scored once. Finished chunks
are kept under --state. A response that cannot be scored has the reward null and the reason in `reasons`:
  too_long             its chat is longer than --max-length
  refused_by_template  the reward model's template refuses it
  control_tokens       it spells control tokens of the reward model
  not_finite           the logit is not finite
"""

import functools
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from croco import cli
from croco.digests import digest, file_digest, prompt_digest
from croco.errors import InputError
from croco.models.chats import REFUSED
from croco.models.engines import describe_engine, load_reward_model
from croco.models.loading import model_id
from croco.models.options import add_reward_options
from croco.records import (
    Generation,
    Prompt,
    check_same_text,
    digest_responses,
    prompt_rows,
    rows_in_step,
    write_jsonl,
)
from croco.state import Parts


def main():
    args = parse_arguments()
    identity = model_id(args.model, args.revision, args.state)
    load = functools.cache(lambda: load_reward_model(args))
    files = zip(args.prompts, args.generations, args.output, strict=True)
    # In the order of their languages, so that two jobs never wait for each other's parts.
    for language, files_of_one in sorted((find_language(prompts), (prompts, *rest)) for prompts, *rest in files):
        score_file(args, identity, load, language, *files_of_one)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--prompts", nargs="+", type=Path, required=True, help="prompt files of one language each, or blocks of them"
    )
    parser.add_argument("--generations", nargs="+", type=Path, required=True, help="generations of the same prompts")
    add_reward_options(parser)
    parser.add_argument(
        "--apart",
        action="store_true",
        help="share no finished work with other generations of the same prompts: do not wait for them, and do not let last "
        "bits depend on which were scored first",
    )
    cli.add_state_options(parser, chunk=64)
    parser.add_argument("--output", nargs="+", type=Path, required=True, help="scores files to write")
    args = parser.parse_args()
    if not len(args.prompts) == len(args.generations) == len(args.output):
        parser.error("--generations and --output need one file per file of --prompts")
    return args


def find_language(prompts):
    """The language of a prompt file, "" of an empty one."""
    return next((row["language"] for row in prompt_rows(prompts)), "")


def score_file(args, identity, load, language, prompts, generations, output):
    """Scores one file of generations and writes its rewards and manifest; ``load`` gives the model, once."""
    digests = [prompt_digest(row) for row in prompt_rows(prompts)]
    parts = Parts(args.state, "scores", cache_key_inputs(args, identity, language, generations), digests)
    scored = score_missing(args, parts, load, prompts, generations, output, len(digests))
    counts = gather(parts, prompts, generations, output)
    inputs = {"prompts": prompts, "generations": generations, "reward_model": identity}
    cli.write_manifest(output.with_suffix(".manifest.json"), __file__, args, inputs, counts=counts, scored=scored)


def cache_key_inputs(args, identity, language, generations):
    return {
        "reward_model": identity,
        **describe_engine(args),
        "max_length": args.max_length,
        "template_options": args.template_options,
        "language": language or None,
        **({"generations": file_digest(generations)} if args.apart else {}),
    }


def score_missing(args, parts, load, prompts, generations, output, total):
    """Scores the texts that no finished part holds, chunk by chunk; returns how many."""
    steps = prompts_with_responses(prompts, generations)
    steps = cli.progress(steps, total=total, desc=f"score {output.stem}", unit="prompt")
    scored = 0
    # The main thread loads the model: a library that sets signal handlers can do so only there.
    chunks = ((load(), chunk) for chunk in missing_chunks(parts, steps, args.chunk))
    # The next chunk is tokenised while the model classifies this one, so that a GPU does not wait for the CPU.
    for (model, chunk), encoded in run_ahead(encode_chunk, chunks):
        results = iter(model.classify(encoded))
        parts.add(
            [
                {
                    "prompt_digest": prompt_digest(row),
                    "texts": [digest(text) for text in texts],
                    "results": [next(results) for _ in texts],
                }
                for row, texts in chunk
            ]
        )
        scored += len(encoded)
    print(f"{scored} texts scored", file=sys.stderr)
    return scored


def missing_chunks(parts, steps, size):
    """Yields lists of up to ``size`` (prompt row, texts that no finished part holds, each once)."""
    chunk = []
    for prompt, generation in steps:
        known = known_results(parts, prompt)
        texts = dict.fromkeys(response["text"] for response in generation["responses"])
        texts = [text for text in texts if digest(text) not in known]
        if texts:
            chunk.append((prompt, texts))
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def encode_chunk(model, chunk):
    """The texts of a chunk as the reward model's ``encode`` returns them."""
    return [model.encode(row["messages"], text) for row, texts in chunk for text in texts]


def run_ahead(function, items):
    """Yields (item, function(*item)); a second thread computes the next result while the caller uses this one."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        ahead = deque()
        for item in items:
            ahead.append((item, thread.submit(function, *item)))
            if len(ahead) == 2:
                item, result = ahead.popleft()
                yield item, result.result()
        for item, result in ahead:
            yield item, result.result()


def prompts_with_responses(prompts, generations):
    """Yields (prompt row, generation row)."""
    for prompt, generation in rows_in_step([(prompts, Prompt), (generations, Generation)]):
        check_same_text(prompt, generation)
        yield prompt, generation


def known_results(parts, prompt):
    """{digest of a response's text: (reward or None, why it is None)} of one prompt."""
    return {
        text: result
        for line in parts.lines(prompt_digest(prompt))
        for text, result in zip(line["texts"], line["results"], strict=True)
    }


def gather(parts, prompts, generations, output):
    """Writes rewards, and the reasons of those that are null, parallel to the responses, streaming; returns counts.

    Raises InputError where the reward model's template refuses every chat.
    """
    counts = {"prompts": 0, "responses": 0, "null": 0, "reasons": {}}

    def lines():
        for prompt, generation in prompts_with_responses(prompts, generations):
            known = known_results(parts, prompt)
            results = [known[digest(response["text"])] for response in generation["responses"]]
            rewards, reasons = [reward for reward, _ in results], [reason for _, reason in results]
            counts["prompts"] += 1
            counts["responses"] += len(rewards)
            counts["null"] += rewards.count(None)
            for reason in filter(None, reasons):
                counts["reasons"][reason] = counts["reasons"].get(reason, 0) + 1
            yield {
                "prompt_id": prompt["prompt_id"],
                "language": prompt["language"],
                "responses_digest": digest_responses(generation),
                "rewards": rewards,
                "reasons": reasons,
            }
        if counts["responses"] and counts["reasons"].get(REFUSED) == counts["responses"]:
            raise InputError(
                f"the reward model's chat template refuses all {counts['responses']} chats",
                "use prompts without system messages, or another reward model; check_template.py --role reward says "
                "what its template takes",
                generations,
            )

    write_jsonl(output, lines())
    return counts


if __name__ == "__main__":
    cli.run(main)
