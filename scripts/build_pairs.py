"""Form preference pairs (or completions) from scored responses, one pool of responses a prompt.

Example, one multilingual pool over two languages:
  python scripts/build_pairs.py --prompts prompts/en.jsonl prompts/de.jsonl \\
      --generations en/generations.jsonl de/generations.jsonl --scores en/scores/rm.jsonl de/scores/rm.jsonl \\
      --rejected mean-2sd --output pairs.jsonl --ledger ledger.json

One file per language in each list, in the same order. Chosen is the response with the highest reward; rejected is
the one nearest the rule's target among those strictly below it; the prompt is taken in the chosen's language.
--hygiene wrong_language needs --identified, the files of scripts/identify.py.

--target pair       writes pairs (chosen, rejected)
--target best       writes completions: each pool's best response (Max-R)
--target reference  writes completions: the data set's reference answers, in every language

Every prompt that forms no pair, and every response that leaves a pool, is counted by reason in the ledger; the
numbers add up or the run fails. All is read and written in one streaming pass.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from croco import cli
from croco.digests import derive_seed
from croco.pairing import FILTERS, RULES, advise, draw_pair, mean_std, select_pair
from croco.records import (
    GENERATION,
    IDENTIFIED,
    PROMPT,
    SCORE,
    InputError,
    check_same_text,
    rows_in_step,
    write_json,
    write_jsonl,
)


def main():
    args = parse_arguments()
    ledger = {"target": args.target, "rejected": args.rejected, "hygiene": args.hygiene, "languages": {}}
    formed, no_pair = Counter(), Counter()
    build = build_references if args.target == "reference" else build_from_pools

    def checked():
        """The rows; a ledger that does not add up, or no row at all, fails before the output appears."""
        count = 0
        for row in build(args, ledger, formed, no_pair):
            count += 1
            yield row
        close_ledger(ledger, count, formed, no_pair)
        if not count:
            raise InputError(
                f"no row was formed: {ledger['no_pair']}", "see --pool-size, --hygiene and the scores", args.output
            )

    ledger["policies"] = read_policies(args.generations)
    count = write_jsonl(args.output, checked())
    if ledger.get("advice"):
        print(f"warning: {ledger['advice']}", file=sys.stderr)
    write_json(args.ledger, ledger)
    inputs = {str(path): path for path in [*args.prompts, *args.generations, *args.scores, *args.identified]}
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, inputs, rows=count)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, help="prompt files, one a language")
    parser.add_argument("--generations", type=Path, nargs="+", default=[], help="generations, one file a language")
    parser.add_argument("--scores", type=Path, nargs="+", default=[], help="scores, one file a language")
    parser.add_argument(
        "--identified", type=Path, nargs="+", default=[], help="languages of the responses, one file a language"
    )
    parser.add_argument("--target", choices=("pair", "best", "reference"), default="pair", help="what to write")
    parser.add_argument("--rejected", choices=RULES, default="mean-2sd", help="rule for the rejected response")
    parser.add_argument("--pool-size", type=cli.positive, help="use the first K responses a language (default: all)")
    parser.add_argument(
        "--hygiene",
        nargs="+",
        choices=("paper", *FILTERS),
        default=["paper"],
        help="responses that leave a pool before mean and std; `paper` filters nothing",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the rule `random`")
    parser.add_argument("--output", type=Path, required=True, help="pairs.jsonl or completions.jsonl to write")
    parser.add_argument("--ledger", type=Path, required=True, help="ledger.json to write")
    args = parser.parse_args()
    if args.target != "reference" and not len(args.prompts) == len(args.generations) == len(args.scores):
        parser.error("--prompts, --generations and --scores need one file per language each")
    by_language = "wrong_language" in args.hygiene and args.target != "reference"
    if len(args.identified) != (len(args.prompts) if by_language else 0):
        parser.error("--hygiene wrong_language, and nothing else, needs --identified, one file per language")
    if "paper" in args.hygiene and len(args.hygiene) > 1:
        parser.error("--hygiene paper filters nothing and goes with no other filter")
    return args


def build_from_pools(args, ledger, formed, no_pair):
    filters = {name: FILTERS[name] for name in args.hygiene if name != "paper"}
    width, at_minimum, sizes = len(args.prompts), 0, Counter()
    files = [
        (args.prompts, PROMPT),
        (args.generations, GENERATION),
        (args.scores, SCORE),
        (args.identified, IDENTIFIED),
    ]
    for step in rows_in_step([(path, fields) for paths, fields in files for path in paths]):
        prompts, generations, scores = (step[i : i + width] for i in range(0, 3 * width, width))
        pool = []
        for i, (prompt, generation, score) in enumerate(zip(prompts, generations, scores, strict=True)):
            found = step[3 * width + i] if args.identified else None
            pool += eligible(args, filters, count_language(ledger, prompt), prompt, generation, score, found)
        needed = 1 if args.target == "best" else 2
        if len(pool) < needed:
            skipped = all(generation.get("skip") for generation in generations)
            no_pair["skipped" if skipped else "pool_too_small"] += 1
            continue
        rewards = [reward for _, _, reward in pool]
        if args.target == "best":
            prompt, text, reward = pool[max(range(len(pool)), key=rewards.__getitem__)]
            formed[prompt["language"]] += 1
            ledger["languages"][prompt["language"]]["chosen"] += 1
            yield completion(prompt, text, reward)
            continue
        if args.rejected == "random":
            seed = derive_seed(args.seed, "random-pair", prompts[0]["prompt_id"])
            (chosen, rejected), target = draw_pair([text for _, text, _ in pool], seed), None
        else:
            chosen, rejected, target = select_pair(rewards, args.rejected)
        if rejected is None:
            no_pair["all_texts_equal" if args.rejected == "random" else "no_lower_reward"] += 1
            continue
        at_minimum += rewards[rejected] == min(rewards)
        sizes[len(pool)] += 1
        formed[pool[chosen][0]["language"]] += 1
        ledger["languages"][pool[chosen][0]["language"]]["chosen"] += 1
        ledger["languages"][pool[rejected][0]["language"]]["rejected"] += 1
        yield pair(pool, chosen, rejected, target)
    share = at_minimum / formed.total() if args.target == "pair" and formed.total() else None
    ledger["rejected_is_minimum"] = share
    if args.rejected == "mean-2sd" and args.target == "pair":
        ledger["advice"] = advise(share, sizes.most_common(1)[0][0] if sizes else 0)


def read_policies(generations):
    """Content hashes or revisions of the policies that the responses are of, by the manifests beside them, or null."""
    found = set()
    for path in generations:
        manifest = path.with_suffix(".manifest.json")
        if not manifest.is_file():
            return None
        found.add(json.loads(manifest.read_text(encoding="utf-8"))["inputs"].get("policy"))
    return sorted(found) if found and None not in found else None


def count_language(ledger, prompt):
    return ledger["languages"].setdefault(
        prompt["language"],
        {"prompts": 0, "skipped": {}, "responses": 0, "left_out": {}, "eligible": 0, "duplicates": 0, "chosen": 0, "rejected": 0},
    )  # fmt: skip


def eligible(args, filters, counts, prompt, generation, score, found):
    """[(prompt, text, reward)] of one language's responses that stay in the pool; ``found``: the languages they are in."""
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
        counts["skipped"][skip] = counts["skipped"].get(skip, 0) + 1
    responses = generation["responses"][: args.pool_size]
    if len(responses) < (args.pool_size or 0) and not skip:
        raise InputError(
            f"{prompt['prompt_id']}: {len(responses)} responses, --pool-size asks for {args.pool_size}",
            "generate more samples or lower the pool size",
        )
    stay = []
    for response, reward, language in zip(responses, score["rewards"], found, strict=False):
        if reward is not None and not isinstance(reward, int | float):
            raise InputError(f"{prompt['prompt_id']}: a reward is no number", "a failed score is null", field="rewards")
        reason = (
            "null_reward"
            if reward is None
            else next((name for name, fails in filters.items() if fails(response, prompt["language"], language)), None)
        )
        if reason:
            counts["left_out"][reason] = counts["left_out"].get(reason, 0) + 1
        else:
            stay.append((prompt, response["text"], reward))
    counts["responses"] += len(responses)
    counts["eligible"] += len(stay)
    counts["duplicates"] += len(stay) - len({text for _, text, _ in stay})
    return stay


def pair(pool, chosen, rejected, target):
    rewards = [reward for _, _, reward in pool]
    mean, std = mean_std(rewards)
    prompt = pool[chosen][0]
    return {
        "prompt_id": prompt["prompt_id"],
        "prompt": prompt["messages"],
        "chosen": answer(pool[chosen][1]),
        "rejected": answer(pool[rejected][1]),
        "chosen_reward": rewards[chosen],
        "rejected_reward": rewards[rejected],
        "prompt_language": prompt["language"],
        "chosen_language": prompt["language"],
        "rejected_language": pool[rejected][0]["language"],
        "pool_size": len(pool),
        "pool_mean": mean,
        "pool_std": std,
        "target": target,
    }


def build_references(args, ledger, formed, no_pair):
    """One completion for each prompt and language that has a reference."""
    for prompts in rows_in_step([(path, PROMPT) for path in args.prompts]):
        for prompt in prompts:
            counts = count_language(ledger, prompt)
            counts["prompts"] += 1
            reason = prompt.get("skip") or (None if prompt.get("reference") else "no_reference")
            if reason:
                counts["skipped"][reason] = counts["skipped"].get(reason, 0) + 1
                no_pair[reason] += 1
                continue
            formed[prompt["language"]] += 1
            yield completion(prompt, prompt["reference"], None)


def completion(prompt, text, reward):
    return {
        "prompt_id": prompt["prompt_id"],
        "prompt": prompt["messages"],
        "completion": answer(text),
        "reward": reward,
    }


def answer(text):
    return [{"role": "assistant", "content": text}]


def close_ledger(ledger, count, formed, no_pair):
    """Adds the totals and fails where they do not add up."""
    languages = ledger["languages"].values()
    per_language = [counts["prompts"] for counts in languages]
    ledger["prompts"] = sum(per_language) if ledger["target"] == "reference" else max(per_language, default=0)
    ledger["formed"] = count
    ledger["formed_by_language"] = dict(formed)
    ledger["no_pair"] = dict(no_pair)
    if ledger["prompts"] != count + no_pair.total() or count != formed.total():
        raise RuntimeError(f"the ledger does not add up: {ledger}")
    for language, counts in ledger["languages"].items():
        if counts["responses"] != counts["eligible"] + sum(counts["left_out"].values()):
            raise RuntimeError(f"the ledger of {language} does not add up: {counts}")


if __name__ == "__main__":
    cli.run(main)
