"""Judge a tuned model's answers against the base model's, pairwise, in several languages.

Example:
  python scripts/judge.py --judge qwen --model DIR --template config/judge_prompt.txt --names English German \\
      --languages en de --prompts prompts/evaluate/en.jsonl ... --answers mini/multi/dpo/answers/en.jsonl ... \\
      --baseline mini/untuned/base/answers/en.jsonl ... --state state --output mini/multi/dpo/arena

Sample j is compared with the base's sample j, in both orders: a win counts 1, a tie a half. With ``--orders one`` each
prompt is judged in one order, which its id decides, and two equal texts tie unasked. A language model replies with greedy decoding unless
``--temperature`` is above 0, and the last line of its reply must be [[A]], [[B]] or [[C]] and nothing else. Other replies,
cut-off replies and pairs that are too long are unparseable: they are counted and are never a tie. Replies are kept
under --state and never asked for again. ``--judge oracle`` judges by the rules of the miniature's world, without a
model and independent of the position, so both orders agree.
"""

import sys
from collections import Counter
from functools import cache
from itertools import count
from pathlib import Path

from croco import cli
from croco.digests import behaviour_digest, derive_seed, digest
from croco.errors import InputError
from croco.evaluation.judge_prompt import Comparison, Encoder, read_template, write_question
from croco.evaluation.verdicts import (
    NOT_ASKED,
    ORDERS,
    UNPARSEABLE,
    draw_order,
    mean,
    parse_reply,
    score_samples,
    score_single_order,
    score_strict,
    see_from_tuned,
)
from croco.miniature.world import oracle_quality, question_by_id
from croco.models.chats import TOO_LONG
from croco.models.engines import describe_engine, load_policy
from croco.models.loading import model_id
from croco.models.options import add_chat_options
from croco.records import Generation, Prompt, check_same_text, rows_in_step, write_jsonl
from croco.state import Parts
from croco.text.language import can_identify, detect_language

ORACLE = "oracle"


def main():
    args = parse_arguments()
    tables = {code: list(read_table(args, i, code)) for i, code in enumerate(args.languages)}
    for code in args.languages:
        if not can_identify(code):
            print(f"warning: {code} cannot be identified; no answer counts as in a wrong language", file=sys.stderr)
    judge, rule, asked = (None, ask_oracle, {}) if args.judge == ORACLE else open_judge(args, tables)
    counted = {}
    for i, code in enumerate(args.languages):
        counts, reasons = Counter(prompts=0, verdicts=0, unparseable=0), Counter()
        lines = (judge_prompt(code, code in args.translated, row, rule, counts, reasons) for row in tables[code])
        write_jsonl(args.output / f"{code}.jsonl", lines)
        inputs = {"prompts": args.prompts[i]} if args.prompts else {}
        inputs |= {"answers": args.answers[i], "baseline": args.baseline[i]}
        facts = (
            {"counts": {**counts, "reasons": dict(sorted(reasons.items()))}}
            | ({"judge": judge} if judge else {})
            | asked
        )
        cli.write_manifest(args.output / f"{code}.manifest.json", __file__, args, inputs, **facts)
        counted[code] = counts
    check_readable(args, counted)


def parse_arguments():
    parser = cli.parser(__doc__, writes=cli.per_language)
    parser.add_argument("--judge", default=ORACLE, help="the judge: oracle, or a name for the model")
    parser.add_argument("--languages", nargs="+", required=True, help="languages to judge in")
    parser.add_argument(
        "--answers", nargs="+", type=Path, required=True, help="the tuned model's answers, one file per language"
    )
    parser.add_argument(
        "--baseline", nargs="+", type=Path, required=True, help="the base model's answers, one file per language"
    )
    parser.add_argument("--prompts", nargs="+", type=Path, help="the prompts that were answered, one file per language")
    parser.add_argument("--names", nargs="+", help="the languages' English names, for the judge's prompt")
    parser.add_argument(
        "--translated", nargs="*", default=[], help="languages whose prompts come from the translation stage"
    )
    add_chat_options(parser, required=False)
    parser.set_defaults(batch=8)  # two answers each
    parser.add_argument("--template", type=Path, help="file with the judge's prompt")
    parser.add_argument("--max-tokens", type=cli.positive, default=1024, help="tokens of a reply at most")
    parser.add_argument("--temperature", type=cli.number(0), default=0, help="of the replies; 0 is greedy")
    parser.add_argument("--seed", type=cli.whole(0), default=0, help="the run's seed, for a temperature above 0")
    parser.add_argument(
        "--orders", choices=("both", "one"), default="both", help="orders in which a judge model sees two answers"
    )
    parser.add_argument("--max-length", type=cli.positive, default=16384, help="tokens of the judge's prompt at most")
    parser.add_argument(
        "--max-unparseable",
        type=cli.number(0, 1),
        default=0.5,
        help="share of a language's verdicts that may be unparseable",
    )
    cli.add_state_options(parser, chunk=512, unit="comparisons", required=False)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write LANGUAGE.jsonl to")
    args = parser.parse_args()
    for name in ("answers", "baseline", "prompts", "names"):
        if len(getattr(args, name) or args.languages) != len(args.languages):
            parser.error(f"--{name} needs one value per language")
    needed = ("model", "prompts", "names", "template", "state")
    if args.judge != ORACLE and (missing := [name for name in needed if getattr(args, name) is None]):
        parser.error(f"a judge that is a model needs {', '.join(f'--{name}' for name in missing)}")
    return args


def read_table(args, i, code):
    """Yields (prompt row or None, the tuned model's line, the base's line); raises InputError where they do not fit."""
    files = {"answers": args.answers[i], "baseline": args.baseline[i]}
    prompts = [(args.prompts[i], Prompt)] if args.prompts else []
    steps = zip(count(1), rows_in_step([*prompts, *((path, Generation) for path in files.values())]), strict=False)
    for number, (*prompt, ours, theirs) in steps:
        for path, line in zip(files.values(), (ours, theirs), strict=True):
            check_line(path, number, code, line)
            if prompt:
                check_same_text(prompt[0], line)
        skip = (prompt and prompt[0].get("skip")) or ours.get("skip") or theirs.get("skip")
        if ours.get("prompt_digest") != theirs.get("prompt_digest"):
            raise InputError(
                f"{args.answers[i]} and this answer different texts of the prompt {ours['prompt_id']}",
                "answer the same prompts with both models",
                args.baseline[i],
                number,
                "prompt_digest",
            )
        if not skip and len(ours["responses"]) != len(theirs["responses"]):
            raise InputError(
                f"{len(theirs['responses'])} answers where {args.answers[i]} has {len(ours['responses'])}",
                "answer with both models equally often (evaluation.samples)",
                args.baseline[i],
                number,
                "responses",
            )
        yield prompt[0] if prompt else None, {**ours, "skip": skip}, theirs


def check_line(path, number, code, line):
    if line["language"] != code:
        problem = f"an answer in {line['language']} among those in {code}"
        raise InputError(problem, "give the files in the order of --languages", path, number, "language")


def judge_prompt(code, translated, row, rule, counts, reasons):
    """One line: the verdict on each sample in both orders, seen from the tuned model, and what they come to."""
    prompt, ours, _ = row
    pairs = list_pairs(row)
    texts, others = [text for text, _ in pairs], [other for _, other in pairs]
    rulings, qualities = rule(prompt or ours, pairs)
    verdicts = {order: [verdict for verdict, *_ in rulings[order]] for order in ORDERS}
    replies = {order: [reply for _, reply, _ in rulings[order]] for order in ORDERS}
    counts["prompts"] += 1
    counts["verdicts"] += sum(verdict != NOT_ASKED for order in ORDERS for verdict in verdicts[order])
    reasons.update(reason for order in ORDERS for *_, reason in rulings[order] if reason)
    counts["unparseable"] += sum(verdicts[order].count(UNPARSEABLE) for order in ORDERS)
    languages, baseline_languages = ([find_language(text, code) for text in some] for some in (texts, others))
    lengths, baseline_lengths = list(map(len, texts)), list(map(len, others))
    return {
        "prompt_id": ours["prompt_id"],
        "language": code,
        "verdicts": verdicts,
        "score": mean(score_samples(verdicts)),
        "score_single_order": score_single_order(verdicts, ours["prompt_id"]),
        "score_strict": score_strict(verdicts, languages, baseline_languages, code),
        "answer_languages": languages,
        "baseline_languages": baseline_languages,
        "lengths": lengths,
        "baseline_lengths": baseline_lengths,
        "length": mean(lengths),
        "baseline_length": mean(baseline_lengths),
        "quality": qualities and mean(qualities[0]),
        "baseline_quality": qualities and mean(qualities[1]),
        "replies": None if qualities else replies,
        "translated": translated,
        "skip": ours["skip"],
    }


@cache
def find_language(text, code):
    return detect_language(text, code)


def list_pairs(row):
    """[(the tuned model's answer, the base's answer)], one per sample; none for a prompt that is skipped."""
    _, ours, theirs = row
    if ours["skip"]:
        return []
    return [(a["text"], b["text"]) for a, b in zip(ours["responses"], theirs["responses"], strict=True)]


def is_tie(args, pair):
    """Whether two answers are one text that the judge would see in one order: its choice would be by the place alone."""
    return args.orders == "one" and pair[0] == pair[1]


def ask_oracle(prompt, pairs):
    """({order: [(verdict, reply, why it is unparseable)]}, [qualities of the answers, of the base's])."""
    try:
        question = question_by_id(prompt["prompt_id"], prompt["language"])
    except ValueError as error:
        raise InputError(
            str(error), "the oracle judges the miniature's prompts only: name another judge, or none"
        ) from error
    qualities = [[oracle_quality(question, pair[k]) for pair in pairs] for k in (0, 1)]
    verdicts = ["tie" if a == b else "win" if a > b else "loss" for a, b in zip(*qualities, strict=True)]
    return {order: [(verdict, None, None) for verdict in verdicts] for order in ORDERS}, qualities


def open_judge(args, tables):
    """(what the manifest says of the judge, a function like ask_oracle, how much was asked); asks what is missing first."""
    template = read_template(args.template)
    identity = model_id(args.model, args.revision, args.state)
    names = dict(zip(args.languages, args.names, strict=True))
    comparisons = (
        seat(row[0], names[code], pair, order)
        for code, table in tables.items()
        for row in table
        for pair in list_pairs(row)
        if not is_tie(args, pair)
        for order in list_orders(args, row[1]["prompt_id"])
    )
    wanted = {comparison.key: comparison for comparison in comparisons}
    inputs = {
        "judge": identity,
        **describe_engine(args),
        **{name: getattr(args, name) for name in ("template_options", "max_tokens")},
        "template": template,
        "asking": behaviour_digest("croco/evaluation/judge_prompt.py"),
    }
    if args.temperature:
        inputs |= {"temperature": args.temperature, "seed": args.seed}
    parts = Parts(args.state, "verdicts", inputs, wanted)
    missing = [comparison for key, comparison in wanted.items() if not find_reply(args, parts, key)]
    print(f"{len(wanted)} comparisons; {len(missing)} to ask {args.judge} for", file=sys.stderr)
    if missing:
        ask(args, template, parts, missing)

    def rule(prompt, pairs):
        rulings = {order: [] for order in ORDERS}
        asked = list_orders(args, prompt["prompt_id"])
        for pair in pairs:
            for order in ORDERS:
                if order not in asked:
                    rulings[order].append((NOT_ASKED, None, None))
                    continue
                if is_tie(args, pair):
                    rulings[order].append(("tie", None, None))
                    continue
                line = find_reply(args, parts, seat(prompt, names[prompt["language"]], pair, order).key)
                choice, reason = None, line["skip"]
                if not reason:
                    choice, reason = parse_reply(line["reply"], line["finish_reason"])
                rulings[order].append((see_from_tuned(choice, order), line["reply"], reason))
        return rulings, None

    equal = sum(is_tie(args, pair) for table in tables.values() for row in table for pair in list_pairs(row))
    asked = {"comparisons": len(wanted), "asked": len(missing), "equal_answers": equal}
    return {"name": args.judge, "path": args.model, "identity": identity, "prompt": digest(template)}, rule, asked


def list_orders(args, prompt_id):
    """The orders in which the judge sees the answers to a prompt."""
    return ORDERS if args.orders == "both" else (draw_order(prompt_id),)


def seat(prompt, language, pair, order):
    """The comparison of (answer, base's answer) in an order."""
    return Comparison(language, write_question(prompt["messages"]), *(pair if order == ORDERS[0] else pair[::-1]))


def find_reply(args, parts, key):
    """The judge's reply, or why it cannot be asked within --max-length, or None where neither is known."""
    lines = [line for line in parts.lines(key) if holds(line, args.max_length)]
    return min(lines, key=lambda line: line["reply"] or "", default=None)  # lines are in no set order


def holds(line, limit):
    """Whether the judge would say the same with prompts of ``limit`` tokens at most."""
    if line["skip"] == TOO_LONG:
        return line["max_length"] >= limit
    return line.get("prompt_tokens", line["max_length"]) <= limit


def ask(args, template, parts, missing):
    """Asks the judge for the comparisons that no finished part holds, chunk by chunk."""
    model = load_policy(args)
    encoder = Encoder(model, template, args.max_tokens, args.max_length)
    with cli.progress(total=len(missing), desc=f"judge {args.output.parent.name}", unit="comparison") as bar:
        for begin in range(0, len(missing), args.chunk):
            chunk = missing[begin : begin + args.chunk]
            encoded = [encoder.encode(comparison) for comparison in chunk]
            asked = [(pair, tokens) for pair, (tokens, skip) in zip(chunk, encoded, strict=True) if not skip]
            seeds = [derive_seed(args.seed, pair.key) for pair, _ in asked]
            prompts = [tokens for _, tokens in asked]
            responses = iter(model.respond(prompts, seeds, args.temperature, 1.0, args.max_tokens))
            parts.add([describe(args, *pair, responses) for pair in zip(chunk, encoded, strict=True)])
            bar.update(len(chunk))


def describe(args, comparison, encoded, responses):
    """A line of the state: the judge's reply, the next of ``responses``, or why there is none."""
    tokens, skip = encoded
    response = {"text": None, "finish_reason": None} if skip else next(responses)
    return {
        "prompt_digest": comparison.key,
        "skip": skip,
        "max_length": args.max_length,
        **({} if skip else {"prompt_tokens": len(tokens)}),
        "reply": response["text"],
        "finish_reason": response["finish_reason"],
    }


def check_readable(args, counted):
    """Warns of verdicts that cannot be read; raises InputError where they are too many in a language."""
    shares = {code: counts["unparseable"] / max(1, counts["verdicts"]) for code, counts in counted.items()}
    said = {
        code: f"{code}: {counts['unparseable']} of {counts['verdicts']} verdicts are unparseable ({shares[code]:.0%})"
        for code, counts in counted.items()
        if counts["unparseable"]
    }
    if bad := [text for code, text in said.items() if shares[code] > args.max_unparseable]:
        raise InputError(
            f"{'; '.join(bad)}, more than {args.max_unparseable:.0%}; counts.reasons in the manifests say why",
            "no_verdict: another judge or prompt; cut: raise its max_tokens; prompt_too_long: raise its max_length; "
            "to accept it, raise evaluation.max_unparseable; replies are kept and not asked for again",
            args.output,
        )
    for text in said.values():
        print(f"warning: {text}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
