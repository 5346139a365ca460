"""Sample responses from a policy: N for each prompt of one language.

Example:
  python scripts/generate.py --prompts prompts/de.jsonl --model DIR --samples 64 --temperature 1.0 \\
      --max-tokens 4096 --state state --output generations.jsonl

Work is saved after every chunk of prompts under --state, whole or not at all, so a killed run repeats at most one
chunk, and more prompts or samples later add only what is missing. A prompt's samples depend on the model, the
sampling options, the seed, the language and its id, on nothing else.
"""

import sys
from pathlib import Path

from croco import cli
from croco.digests import code_digest, prompt_digest, prompt_seed, versions
from croco.records import prompt_rows, write_jsonl
from croco.store import Parts


def main():
    args = parse_arguments()
    identity = cli.identify(args.model, args.revision)
    parts = Parts(args.state, "generations", describe_inputs(args, identity))
    missing = find_missing(args, parts)
    wanted = sum(1 for row in prompt_rows(args.prompts) if not row.get("skip"))
    print(f"{wanted} prompts x {args.samples} samples; {len(missing)} prompts to sample", file=sys.stderr)
    if missing:
        sample(args, parts, missing)
    counts = gather(args, parts)
    inputs = {"prompts": args.prompts, "policy": identity}
    cli.write_manifest(
        args.output.with_suffix(".manifest.json"), __file__, args, inputs, counts=counts, sampled=len(missing)
    )


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--prompts", type=Path, required=True, help="prompt file of one language")
    parser.add_argument("--samples", type=cli.positive, default=64, help="responses a prompt")
    cli.add_policy_options(parser)
    parser.add_argument("--chunk", type=cli.positive, default=32, help="prompts a chunk: what a kill can cost")
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps finished chunks")
    parser.add_argument("--output", type=Path, required=True, help="generations.jsonl to write")
    return parser.parse_args()


def describe_inputs(args, identity):
    """All that decides a response besides its prompt; the number of samples and prompts is left out."""
    return {
        "policy": identity,
        "dtype": args.dtype,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "max_tokens": args.max_tokens,
        "batch": args.batch,
        "seed": args.seed,
        "code": code_digest(__file__),
        "versions": versions("torch", "transformers", "tokenizers", "numpy"),
    }


def find_missing(args, parts):
    """[(prompt row, first sample still missing)] in prompt order."""
    missing = []
    for row in prompt_rows(args.prompts):
        if row.get("skip"):
            continue
        have = 0
        for line in sorted(parts.lines(prompt_digest(row)), key=lambda line: line["start"]):
            have = max(have, line["stop"]) if line["start"] <= have else have
        if have < args.samples:
            missing.append((row, have))
    return missing


def sample(args, parts, missing):
    from croco.transformers_engine import Policy

    policy = Policy(args.model, args.revision, args.dtype, trust_remote_code=args.trust_remote_code)
    with cli.progress(
        total=sum(args.samples - start for _, start in missing), desc=args.output.parent.name, unit="sample"
    ) as bar:
        for begin in range(0, len(missing), args.chunk):
            lines = []
            for row, start in missing[begin : begin + args.chunk]:
                lines.append(sample_prompt(args, policy, row, start))
                bar.update(args.samples - start)
            parts.add(lines)


def sample_prompt(args, policy, row, start):
    """Samples ``start`` to ``args.samples`` of one prompt, in batches that begin at multiples of --batch."""
    tokens = policy.encode(row["messages"])
    line = {"key": prompt_digest(row), "start": start, "stop": args.samples, "responses": [], "skip": None}
    if len(tokens) + args.max_tokens > policy.context:
        return {**line, "skip": "prompt_too_long"}
    first = prompt_seed(args.seed, row["language"], row["prompt_id"])
    while start < args.samples:
        stop = min(args.samples, (start // args.batch + 1) * args.batch)
        seeds = [first + j for j in range(start, stop)]
        line["responses"] += policy.respond([tokens] * len(seeds), seeds, args.temperature, args.top_p, args.max_tokens)
        start = stop
    return line


def gather(args, parts):
    """Writes the output in prompt order from the finished parts, streaming; returns counts."""
    counts = {"prompts": 0, "responses": 0, "tokens": 0, "truncated": 0, "skipped": 0}

    def lines():
        for row in prompt_rows(args.prompts):
            responses, skip = {}, row.get("skip")
            if not skip:
                for line in parts.lines(prompt_digest(row)):
                    skip = skip or line["skip"]
                    responses.update(enumerate(line["responses"], start=line["start"]))
            responses = [responses[j] for j in range(0 if skip else args.samples)]
            counts["prompts"] += 1
            counts["skipped"] += bool(skip)
            counts["responses"] += len(responses)
            counts["tokens"] += sum(response["n_tokens"] for response in responses)
            counts["truncated"] += sum(response["finish_reason"] == "length" for response in responses)
            yield {
                "prompt_id": row["prompt_id"],
                "language": row["language"],
                "prompt_digest": prompt_digest(row),
                "skip": skip,
                "responses": responses,
            }

    write_jsonl(args.output, lines())
    return counts


if __name__ == "__main__":
    cli.run(main)
