"""Score responses with a reward model: one raw logit for each response.

Example:
  python scripts/score.py --prompts prompts/de.jsonl --generations generations.jsonl --model DIR \\
      --state state --output scores/NAME.jsonl

Equal responses to a prompt are scored once. A response that cannot be scored (longer than --max-length, or a
logit that is not finite) gets null, never a number that stands for it. Finished chunks are kept under --state.
"""

import sys
from pathlib import Path

from croco import cli
from croco.digests import digest, prompt_digest
from croco.engines import describe_engine, load_reward_model
from croco.records import GENERATION, PROMPT, check_same_text, prompt_rows, rows_in_step, write_jsonl
from croco.store import Parts


def main():
    args = parse_arguments()
    identity = cli.identify(args.model, args.revision, args.state)
    prompts = list(prompt_rows(args.prompts))
    parts = Parts(args.state, "scores", describe_inputs(args, identity, prompts), map(prompt_digest, prompts))
    scored = score_missing(args, parts, len(prompts))
    counts = gather(args, parts)
    inputs = {"prompts": args.prompts, "generations": args.generations, "reward_model": identity}
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, inputs, counts=counts, scored=scored)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--prompts", type=Path, required=True, help="prompt file of one language, or a block of it")
    parser.add_argument("--generations", type=Path, required=True, help="generations of the same prompts")
    cli.add_engine_options(parser, batch="texts a forward pass of the transformers engine")
    parser.add_argument("--max-length", type=cli.positive, default=4096, help="tokens of prompt and response at most")
    cli.add_state_options(parser, chunk=64)
    parser.add_argument("--output", type=Path, required=True, help="scores file to write")
    return parser.parse_args()


def describe_inputs(args, identity, prompts):
    return {
        "reward_model": identity,
        **describe_engine(args),
        "max_length": args.max_length,
        "language": prompts[0]["language"] if prompts else None,
    }


def score_missing(args, parts, total):
    """Scores what no finished part holds, chunk by chunk; returns how many texts that were."""
    model, scored, chunk = None, 0, []

    def score_chunk():
        nonlocal model, scored
        if model is None:
            model = load_reward_model(args)
        answers = [(row["messages"], text) for row, texts in chunk for text in texts]
        rewards = iter(model.score(answers))
        parts.add(
            [
                {
                    "prompt_digest": prompt_digest(row),
                    "texts": [digest(text) for text in texts],
                    "rewards": [next(rewards) for _ in texts],
                }
                for row, texts in chunk
            ]
        )
        scored += len(answers)
        chunk.clear()

    steps = cli.progress(prompts_with_responses(args), total=total, desc=f"score {args.output.stem}", unit="prompt")
    for prompt, generation in steps:
        known = known_rewards(parts, prompt)
        texts = dict.fromkeys(response["text"] for response in generation["responses"])
        texts = [text for text in texts if digest(text) not in known]
        if texts:
            chunk.append((prompt, texts))
        if len(chunk) == args.chunk:
            score_chunk()
    if chunk:
        score_chunk()
    print(f"{scored} texts scored", file=sys.stderr)
    return scored


def prompts_with_responses(args):
    """(prompt row, generation row) in step."""
    for prompt, generation in rows_in_step([(args.prompts, PROMPT), (args.generations, GENERATION)]):
        check_same_text(prompt, generation)
        yield prompt, generation


def known_rewards(parts, prompt):
    """{digest of a response's text: reward} of one prompt."""
    return {
        text: reward
        for line in parts.lines(prompt_digest(prompt))
        for text, reward in zip(line["texts"], line["rewards"], strict=True)
    }


def gather(args, parts):
    """Writes rewards parallel to the responses, streaming; returns counts."""
    counts = {"prompts": 0, "responses": 0, "null": 0}

    def lines():
        for prompt, generation in prompts_with_responses(args):
            known = known_rewards(parts, prompt)
            rewards = [known[digest(response["text"])] for response in generation["responses"]]
            counts["prompts"] += 1
            counts["responses"] += len(rewards)
            counts["null"] += rewards.count(None)
            yield {"prompt_id": prompt["prompt_id"], "language": prompt["language"], "rewards": rewards}

    write_jsonl(args.output, lines())
    return counts


if __name__ == "__main__":
    cli.run(main)
