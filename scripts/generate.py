"""Sample responses from a policy: N for each prompt of a file.

Example:
  python scripts/generate.py --prompts prompts/de.jsonl --model DIR --samples 64 --temperature 1.0 \\
      --max-tokens 4096 --state state --output generations.jsonl

Work is saved chunk by chunk under --state, whole or not at all: a killed run repeats at most one chunk, and more
prompts or samples later add only what is missing. A prompt's samples depend on the model, the engine and its
options, the sampling options, the seed, the language and the prompt's id. They do not depend on blocks or chunks.
"""

import sys
from pathlib import Path

from croco import cli
from croco.digests import prompt_digest, prompt_seed
from croco.files import publish
from croco.models.chats import SKIPS
from croco.models.engines import describe_engine, load_policy
from croco.models.loading import model_id
from croco.models.options import add_adapter_option, add_policy_options
from croco.records import prompt_rows
from croco.state import Parts


def main():
    args = parse_arguments()
    identity = model_id(args.model, args.revision, args.state, args.adapter)
    prompts = list(prompt_rows(args.prompts))
    parts = open_parts(args, identity, prompts)
    missing = find_missing(args, parts, prompts)
    wanted = sum(not row.get("skip") for row in prompts)
    print(f"{wanted} prompts x {args.samples} samples; {len(missing)} prompts to sample", file=sys.stderr)
    if missing:
        sample(args, parts, missing)
    counts = write(args, parts, prompts)
    inputs = {"prompts": args.prompts, "policy": identity}
    cli.write_manifest(
        args.output.with_suffix(".manifest.json"), __file__, args, inputs, counts=counts, sampled=len(missing)
    )


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--prompts", type=Path, required=True, help="prompt file of one language, or a block of it")
    parser.add_argument("--samples", type=cli.whole(1, 4096), default=64, help="responses per prompt")
    add_policy_options(parser)
    add_adapter_option(parser)
    cli.add_state_options(parser, chunk=64)
    parser.add_argument("--output", type=Path, required=True, help="generations file to write")
    return parser.parse_args()


def open_parts(args, identity, prompts):
    """The finished chunks of this policy and language; their cache key leaves out the numbers of samples and prompts."""
    inputs = {
        "policy": identity,
        **describe_engine(args),
        **{name: getattr(args, name) for name in ("temperature", "top_p", "max_tokens", "template_options", "seed")},
        "language": prompts[0]["language"] if prompts else None,
        "seeds": prompt_seed(args.seed, "", ""),  # how they are derived
    }
    wanted = {prompt_digest(row) for row in prompts}
    return Parts(args.state, "generations", inputs, wanted, extent=lambda line: line["start"] + len(line["responses"]))


def find_missing(args, parts, prompts):
    """[(prompt row, first sample still missing)] in prompt order."""
    missing = []
    for row in prompts:
        have = 0
        for line in sorted(parts.lines(prompt_digest(row)), key=lambda line: line["start"]):
            stop = args.samples if line["skip"] in SKIPS else line["start"] + len(line["responses"])
            have = max(have, stop) if line["start"] <= have else have
        if have < args.samples and not row.get("skip"):
            missing.append((row, have))
    return missing


def sample(args, parts, missing):
    """Samples what is missing. Of the prompts in memory, half are running and half are finished but not saved yet."""
    policy = load_policy(args, args.adapter)
    lines, requests, running = [], [], []
    for row, have in missing:
        tokens, skip = policy.prepare(row["messages"], args.max_tokens)
        if skip:
            lines.append(describe(row, 0, [], skip))
            continue
        seed = prompt_seed(args.seed, row["language"], row["prompt_id"]) + have
        requests.append((tokens, seed, args.samples - have))
        running.append((row, have))
    if lines:
        parts.add(lines)
        print(f"{len(lines)} prompts skipped: their lines say why", file=sys.stderr)
    half = max(1, args.chunk // 2)
    finished = []
    total = sum(count for *_, count in requests)
    with cli.progress(total=total, desc=f"generate {args.output.stem}", unit="sample") as bar:
        for index, responses in policy.sample(requests, args.temperature, args.top_p, args.max_tokens, half):
            finished.append(describe(*running[index], responses, None))
            bar.update(len(responses))
            if len(finished) == half:
                parts.add(finished)
                finished = []
        if finished:
            parts.add(finished)


def describe(row, start, responses, skip):
    """A line of the output; ``start`` is the number of the first sample, above 0 for samples that are added later."""
    return {
        "prompt_id": row["prompt_id"],
        "language": row["language"],
        "prompt_digest": prompt_digest(row),
        "skip": skip,
        "start": start,
        "responses": responses,
    }


def write(args, parts, prompts):
    """Writes the block in prompt order, streaming, and links it to its place; returns counts."""
    counts = {"prompts": 0, "responses": 0, "tokens": 0, "truncated": 0, "skipped": {}}

    def lines():
        for row in prompts:
            line = gather(args, parts, row)
            responses, skip = line["responses"], line["skip"]
            counts["prompts"] += 1
            counts["responses"] += len(responses)
            counts["tokens"] += sum(response["n_tokens"] for response in responses)
            counts["truncated"] += sum(response["finish_reason"] == "length" for response in responses)
            if skip:
                counts["skipped"][skip] = counts["skipped"].get(skip, 0) + 1
            yield line

    publish(parts.settle(lines()), args.output)
    return counts


def gather(args, parts, row):
    """The line of one prompt, from its finished parts."""
    skip, responses = row.get("skip"), {}
    for part in [] if skip else parts.lines(prompt_digest(row)):
        skip = part["skip"] if part["skip"] in SKIPS else skip
        responses.update(enumerate(part["responses"], start=part["start"]))
    return describe(row, 0, [] if skip else [responses[j] for j in range(args.samples)], skip)


if __name__ == "__main__":
    cli.run(main)
