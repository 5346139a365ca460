"""Form preference pairs (or completions) from scored responses, one pool of responses per prompt.

Example, one multilingual pool over two languages:
  python scripts/build_pairs.py --prompts prompts/en.jsonl prompts/de.jsonl \\
      --generations en/generations.jsonl de/generations.jsonl --scores en/scores/rm.jsonl de/scores/rm.jsonl \\
      --rejected mean-2sd --output pairs.jsonl --ledger ledger.json

Each list has one file per language, in the same order. The chosen response has the highest reward. The rejected one is
nearest to the rule's target among those with a strictly lower reward. The prompt is in the language of the chosen one.
--hygiene wrong_language needs --identified, the files of scripts/identify.py.

--target pair       writes pairs (chosen, rejected)
--target best       writes completions: each pool's best response (Max-R)
--target reference  writes completions: the data set's reference answers, each prompt's in one language, drawn among
                    those that have it; with --per-prompt all in every language
--target prompts    writes prompts for online tuning: each in one language, drawn among those that have it

These options remove differences between the languages of a multilingual pool:
--prompt-language   takes the prompt in the rejected's language, or always in one
--balance           chooses the languages equally often: the best response of the language chosen least so far
--standardise       compares rewards in standard deviations from their language's mean over all prompts; pool_mean,
                    pool_std and target are then in these units, chosen_reward and rejected_reward stay raw
--rejected-from     chosen_language takes the rejected, and the pool's figures, from the chosen's language alone
--match             takes the responses whose rewards are nearest to those of another setting's pairs, so that the
                    two settings differ in their pools and not in their rewards

The ledger counts by reason every prompt that forms no pair and every response that leaves a pool. If the numbers do
not add up, the run fails. With several languages the ledger's `separation` says how well language alone predicts which
response is chosen. The files are streamed once, with --standardise twice.
"""

import sys
from collections import Counter
from pathlib import Path

from croco import cli
from croco.digests import derive_seed
from croco.errors import InputError
from croco.pairs.hygiene import FILTERS, PAPER, needs_languages
from croco.pairs.pools import (
    IN_EVALUATION,
    Moments,
    check_languages,
    count_language,
    count_reason,
    leave_out,
    measure_rewards,
    read_excluded,
    read_policies,
    read_pools,
    with_other_pairs,
)
from croco.pairs.rules import (
    RULES,
    advise,
    draw_language,
    match_pair,
    mean_std,
    rank_balanced,
    select_pair,
)
from croco.pairs.separation import measure_separation
from croco.records import Prompt, rows_in_step, write_json, write_jsonl
from croco.text.normalise import is_blank

SIDES = ("chosen", "rejected")
# The targets that an option applies to; with other targets it is an error.
ONLY_WITH = {
    "per_prompt": ("reference",),
    "balance": ("pair", "best"),
    "standardise": ("pair", "best"),
    "prompt_language": ("pair",),
    "rejected_from": ("pair",),
    "match": ("pair",),
    "caliper": ("pair",),
    "generations": ("pair", "best", "reference"),
    "scores": ("pair", "best", "reference"),
}


class NoPair(Exception):
    """A prompt forms no pair, for the reason that is the message."""


def main():
    args = parse_arguments()
    ledger = {"target": args.target, "rejected": args.rejected, "hygiene": args.hygiene, "languages": {}}
    formed, no_pair = Counter(), Counter()
    build = {"pair": build_pairs, "best": build_best, "reference": build_references, "prompts": build_prompts}

    def checked():
        """The rows; a ledger that does not add up, or no row at all, fails before the output appears."""
        count = 0
        for row in build[args.target](args, ledger, formed, no_pair):
            count += 1
            yield row
        close_ledger(ledger, count, formed, no_pair)
        if not count:
            remedy = "see --pool-size, --hygiene and the scores"
            if set(ledger["no_pair"]) == {IN_EVALUATION}:
                remedy = "take prompts that the files of --exclude do not remove"
            raise InputError(f"no row was formed: {ledger['no_pair']}", remedy, args.output)

    ledger["policies"] = read_policies(args.generations)
    count = write_jsonl(args.output, checked())
    if ledger.get("advice"):
        print(f"warning: {ledger['advice']}", file=sys.stderr)
    write_json(args.ledger, ledger)
    inputs = [*args.prompts, *args.generations, *args.scores, *args.identified, *args.exclude]
    inputs += [args.match] if args.match else []
    inputs = {str(path): path for path in inputs}
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, inputs, rows=count)


def parse_arguments():
    parser = cli.parser(__doc__, outputs=("output", "ledger"))
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, help="prompt files, one per language")
    parser.add_argument("--generations", type=Path, nargs="+", default=[], help="generations, one file per language")
    parser.add_argument("--scores", type=Path, nargs="+", default=[], help="scores, one file per language")
    parser.add_argument(
        "--identified", type=Path, nargs="+", default=[], help="languages of the responses, one file per language"
    )
    parser.add_argument(
        "--target", choices=("pair", "best", "reference", "prompts"), default="pair", help="what to write"
    )
    parser.add_argument(
        "--per-prompt", choices=("one", "all"), default="one", help="languages that a prompt's reference is taken in"
    )
    parser.add_argument("--rejected", choices=tuple(RULES), help="rule for the rejected response (default: mean-2sd)")
    parser.add_argument(
        "--rejected-from",
        choices=("pool", "chosen_language"),
        default="pool",
        help="responses among which the rejected is found",
    )
    parser.add_argument(
        "--prompt-language", default="chosen", metavar="{chosen,rejected,CODE}", help="language of a pair's prompt"
    )
    parser.add_argument("--balance", action="store_true", help="choose the languages equally often")
    parser.add_argument("--standardise", action="store_true", help="compare rewards standardised by language")
    parser.add_argument("--match", type=Path, metavar="PAIRS", help="pairs of another setting whose rewards to match")
    parser.add_argument(
        "--caliper", type=cli.number(0), help="greatest difference of rewards in a match (default: any)"
    )
    parser.add_argument("--pool-size", type=cli.positive, help="use the first K responses per language (default: all)")
    parser.add_argument(
        "--hygiene",
        nargs="+",
        choices=(PAPER, *FILTERS),
        default=[PAPER],
        help="responses that leave a pool before mean and std; `paper` filters nothing",
    )
    parser.add_argument(
        "--exclude",
        type=Path,
        nargs="+",
        default=[],
        metavar="CONTAMINATION",
        help="files of scripts/contamination.py: nothing is formed, in any language, of the prompts that they take out",
    )
    parser.add_argument(
        "--seed", type=cli.whole(0), default=0, help="seed of the rule `random` and of the draw of languages"
    )
    parser.add_argument("--output", type=Path, required=True, help="pairs, completions or prompts to write, .jsonl")
    parser.add_argument("--ledger", type=Path, required=True, help="ledger.json to write")
    args = parser.parse_args()
    check_options(parser, args)
    args.rejected = "match" if args.match else args.rejected or "mean-2sd"
    return args


def check_options(parser, args):
    """Ends with a usage error for options that contradict each other or would have no effect."""
    from_pools = args.target in ("pair", "best")
    for name, targets in ONLY_WITH.items():
        if getattr(args, name) != parser.get_default(name) and args.target not in targets:
            parser.error(f"--{name.replace('_', '-')} goes with --target {' or '.join(targets)}")
    if from_pools and not len(args.prompts) == len(args.generations) == len(args.scores):
        parser.error("--prompts, --generations and --scores need one file per language")
    by_language = needs_languages(args.hygiene) and from_pools
    if len(args.identified) != (len(args.prompts) if by_language else 0):
        parser.error("--hygiene wrong_language, and nothing else, needs --identified, one file per language")
    if PAPER in args.hygiene and len(args.hygiene) > 1:
        parser.error("--hygiene paper filters nothing and goes with no other filter")
    if args.rejected and not RULES[args.rejected].uses_rewards and (args.balance or args.standardise):
        parser.error(f"--rejected {args.rejected} does not use rewards: --balance and --standardise do not go with it")
    if args.match and (args.rejected or args.balance or args.standardise):
        parser.error("--match takes both responses by their raw rewards: no --rejected, --balance or --standardise")
    if args.caliper is not None and not args.match:
        parser.error("--caliper goes with --match")


def build_pairs(args, ledger, formed, no_pair):
    at_minimum, others, sizes, separation = 0, 0, Counter(), Counter()
    matches = {f"{side}_{what}": Moments() for side in SIDES for what in ("mean", "mean_matched_to", "mae")}
    pools = read_pools(args, ledger["languages"], find_standards(args, ledger))
    for pool, other in with_other_pairs(pools, args.match):
        others += other is not None
        try:
            pool, chosen, rejected, target = select(args, pool, other, formed)
            row = pair(args, pool, chosen, rejected, target)
        except NoPair as reason:
            no_pair[str(reason)] += 1
            continue
        at_minimum += pool.values[rejected] == min(pool.values)
        sizes[len(pool.values)] += 1
        formed[row["chosen_language"]] += 1
        separation[row["chosen_language"], row["rejected_language"], row["prompt_language"]] += 1
        for side in SIDES:
            ledger["languages"][row[f"{side}_language"]][side] += 1
            if args.match:
                found, wanted = row[f"{side}_reward"], other[f"{side}_reward"]
                matches[f"{side}_mean"].add(found)
                matches[f"{side}_mean_matched_to"].add(wanted)
                matches[f"{side}_mae"].add(abs(found - wanted))
        yield row
    ledger["rejected_is_minimum"] = share = at_minimum / formed.total() if formed.total() else None
    if not args.match and RULES[args.rejected].degenerate_up_to:
        ledger["advice"] = advise(share, sizes.most_common(1)[0][0] if sizes else 0)
    if args.match:
        ledger["match"] = {"pairs": others, **{name: moments.mean for name, moments in matches.items()}}
    if len(args.prompts) > 1:
        ledger["separation"] = measure_separation(separation)


def find_standards(args, ledger):
    """{language: Moments of its rewards}, noted in the ledger, or None without --standardise."""
    if not args.standardise:
        return None
    standards = measure_rewards(args)
    ledger["standardised"] = {language: {"mean": own.mean, "std": own.std} for language, own in standards.items()}
    return standards


def select(args, pool, other, formed):
    """(pool, chosen, rejected, target): two indices in the pool that is returned, of the chosen's language if so asked.

    ``other`` is the pair to match or None. Raises NoPair with the reason.
    """
    if len(pool.values) < 2:
        raise NoPair(explain_small(pool))
    if not args.match and not RULES[args.rejected].uses_rewards:
        return draw(args, pool)
    if args.match and not other:
        raise NoPair("no_pair_to_match")
    if other:
        return match(args, pool, other)
    if not args.balance:
        return select_rejected(args, pool, max(range(len(pool.values)), key=pool.values.__getitem__))
    reasons = []
    for chosen in rank_balanced(pool.values, [response.language for response in pool.responses], formed):
        try:
            return select_rejected(args, pool, chosen)
        except NoPair as reason:  # the next language may form one
            reasons.append(reason)
    raise reasons[0]


def select_rejected(args, pool, chosen):
    """As select, for a given chosen response."""
    pool, chosen = restrict(args, pool, chosen)
    if len(pool.values) < 2:
        raise NoPair("pool_too_small")
    chosen, rejected, target = select_pair(pool.values, args.rejected, chosen)
    if rejected is None:
        raise NoPair("no_lower_reward")
    return pool, chosen, rejected, target


def restrict(args, pool, index):
    """The pool of the rejected response and the response's index in it; its own language's with --rejected-from."""
    if args.rejected_from == "pool":
        return pool, index
    response = pool.responses[index]
    own = pool.within(response.language)
    return own, own.responses.index(response)


def match(args, pool, other):
    """As select: the two responses whose rewards are nearest to another pair's."""
    wanted = other["chosen_reward"], other["rejected_reward"]
    languages = dict.fromkeys(response.language for response in pool.responses)
    pools = [pool] if args.rejected_from == "pool" else [pool.within(language) for language in languages]
    found = [(some, *match_pair(some.values, *wanted)) for some in pools]
    found = [(some, chosen, rejected) for some, chosen, rejected in found if chosen is not None]
    if not found:
        raise NoPair("no_lower_reward")

    def distances(some, chosen, rejected):
        return abs(some.values[chosen] - wanted[0]), abs(some.values[rejected] - wanted[1])

    best = min(found, key=lambda entry: sum(distances(*entry)))
    if args.caliper is not None and max(distances(*best)) > args.caliper:
        raise NoPair("no_match")
    return *best, wanted[1]


def draw(args, pool):
    """As select, whatever the rewards: each ordered pair of different texts, in one language if so asked, is equally likely."""
    if args.rejected_from == "chosen_language":
        texts = {}
        for pooled in pool.responses:
            texts.setdefault(pooled.language, []).append(pooled.response["text"])
        if max(map(len, texts.values())) < 2:
            raise NoPair("pool_too_small")
        language = draw_language(texts, derive_seed(args.seed, "random-language", pool.prompt_id))
        if language is None:
            raise NoPair("all_texts_equal")
        pool = pool.within(language)
    texts = [pooled.response["text"] for pooled in pool.responses]
    chosen, rejected = RULES[args.rejected].draw(texts, derive_seed(args.seed, "random-pair", pool.prompt_id))
    if rejected is None:
        raise NoPair("all_texts_equal")
    return pool, chosen, rejected, None


def explain_small(pool):
    if IN_EVALUATION in pool.skips.values():
        return IN_EVALUATION
    return "skipped" if all(pool.skips.values()) else "pool_too_small"


def pair(args, pool, chosen_index, rejected_index, target):
    """A line of the pairs; raises NoPair where the prompt has no text in the language that it is to be taken in."""
    chosen, rejected = pool.responses[chosen_index], pool.responses[rejected_index]
    languages = {"chosen": chosen.language, "rejected": rejected.language}
    language = languages.get(args.prompt_language, args.prompt_language)
    if language not in pool.prompts:
        raise InputError(
            f"no prompt file is in {language!r}",
            f"give chosen, rejected or one of {', '.join(pool.prompts)}",
            field="prompt_language",
        )
    if pool.skips[language]:
        raise NoPair("prompt_skipped")
    mean, std = mean_std(pool.values)
    return {
        "prompt_id": pool.prompt_id,
        "prompt": pool.prompts[language]["messages"],
        "chosen": answer(chosen.response["text"]),
        "rejected": answer(rejected.response["text"]),
        "chosen_reward": chosen.reward,
        "rejected_reward": rejected.reward,
        "prompt_language": language,
        "chosen_language": chosen.language,
        "rejected_language": rejected.language,
        "pool_size": len(pool.values),
        "pool_mean": mean,
        "pool_std": std,
        "target": target,
        "chosen_token_digest": chosen.response.get("token_digest"),
        "rejected_token_digest": rejected.response.get("token_digest"),
    }


def build_best(args, ledger, formed, no_pair):
    """One completion for each prompt."""
    for pool in read_pools(args, ledger["languages"], find_standards(args, ledger)):
        if not pool.values:
            no_pair[explain_small(pool)] += 1
            continue
        languages = [response.language for response in pool.responses]
        order = rank_balanced(pool.values, languages, formed if args.balance else Counter())
        language, response, reward = pool.responses[order[0]]
        formed[language] += 1
        ledger["languages"][language]["chosen"] += 1
        yield completion(pool.prompts[language], response["text"], reward, response.get("token_digest"))
    ledger["rejected_is_minimum"] = None


def build_references(args, ledger, formed, no_pair):
    """One completion for each prompt that has a reference, or for each of its languages that has one."""
    ledger["per_prompt"] = args.per_prompt
    for prompts in read_prompts(args, ledger, no_pair, len(args.prompts) if args.per_prompt == "all" else 1):
        usable, reasons = [], []
        for prompt in prompts:
            counts = count_language(ledger["languages"], prompt)
            counts["prompts"] += 1
            reason = prompt.get("skip") or ("no_reference" if is_blank(prompt.get("reference") or "") else None)
            if reason:
                count_reason(counts["skipped"], reason)
                reasons.append(reason)
            else:
                usable.append(prompt)
        if args.per_prompt == "all":
            no_pair.update(reasons)
        elif not usable:
            no_pair["no_reference" if "no_reference" in reasons else "skipped"] += 1
        else:
            # Independent of the order of the files. A new language takes over some prompts, and the others keep theirs.
            usable.sort(key=lambda p: derive_seed(args.seed, "reference-language", p["prompt_id"], p["language"]))
            for prompt in usable[1:]:
                count_reason(ledger["languages"][prompt["language"]]["skipped"], "other_language")
            usable = usable[:1]
        for prompt in usable:
            formed[prompt["language"]] += 1
            ledger["languages"][prompt["language"]]["chosen"] += 1
            yield completion(prompt, prompt["reference"], None, None)


def build_prompts(args, ledger, formed, no_pair):
    """One prompt for each prompt id, in a language drawn among those that do not skip it."""
    for prompts in read_prompts(args, ledger, no_pair):
        for prompt in prompts:
            counts = count_language(ledger["languages"], prompt)
            counts["prompts"] += 1
            if prompt.get("skip"):
                count_reason(counts["skipped"], prompt["skip"])
        usable = [prompt for prompt in prompts if not prompt.get("skip")]
        if not usable:
            no_pair["skipped"] += 1
            continue
        # Independent of the order of the files.
        prompt = min(usable, key=lambda p: derive_seed(args.seed, "online-prompt", p["prompt_id"], p["language"]))
        formed[prompt["language"]] += 1
        ledger["languages"][prompt["language"]]["chosen"] += 1
        yield {"prompt_id": prompt["prompt_id"], "prompt": prompt["messages"], "language": prompt["language"]}


def read_prompts(args, ledger, no_pair, each=1):
    """Yields a prompt's rows, one per language; an excluded one is counted as ``each`` that form nothing."""
    excluded = read_excluded(args.exclude)
    for prompts in check_languages(rows_in_step([(path, Prompt) for path in args.prompts]), args.prompts):
        if prompts[0]["prompt_id"] not in excluded:
            yield prompts
            continue
        no_pair[IN_EVALUATION] += each
        for prompt in prompts:
            leave_out(count_language(ledger["languages"], prompt))


def completion(prompt, text, reward, token_digest):
    return {
        "prompt_id": prompt["prompt_id"],
        "prompt": prompt["messages"],
        "completion": answer(text),
        "reward": reward,
        "token_digest": token_digest,
    }


def answer(text):
    return [{"role": "assistant", "content": text}]


def close_ledger(ledger, count, formed, no_pair):
    """Adds the totals and fails where they do not add up."""
    languages = ledger["languages"].values()
    per_language = [counts["prompts"] for counts in languages]
    ledger["prompts"] = sum(per_language) if ledger.get("per_prompt") == "all" else max(per_language, default=0)
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
