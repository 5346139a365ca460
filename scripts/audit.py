"""Audit a reward model before training on it: does it prefer answers over damaged copies of them, in each language?

Two steps, each with its own --help:

  python scripts/audit.py select --prompts prompts/de/0.jsonl --count 64 --output audit/prompts/de.jsonl
  python scripts/audit.py score --languages en de --prompts audit/prompts/en.jsonl audit/prompts/de.jsonl \\
      --answers audit/mini/en.jsonl audit/mini/de.jsonl --model DIR --state state --output audit/NAME.json

The answer is the prompt's reference if it has one, otherwise the policy's. The checks compare it with damaged copies:
  shuffled        its words in another order
  truncated       its first half
  wrong_language  the answer to the same prompt in another language, the languages in turn
  off_topic       the answer to another prompt
  repeated        its first sentence again and again
The check weak compares a reference with the policy's answer. --comparisons adds comparisons of your own: lines with
prompt_id, language, check, answer and damaged. Comparisons that cannot be made or scored are excluded and counted by
reason. Rewards that exist already are read from --state.

The output is OUTPUT (verdicts), with .jsonl (one line per comparison), .md (tables as text), .html (a page) and .manifest.json
beside it.
"""

import math
import sys
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

from croco import cli
from croco.digests import derive_seed, digest, prompt_digest
from croco.errors import InputError
from croco.files import replacing
from croco.models.engines import describe_engine, load_reward_model
from croco.models.loading import model_id
from croco.models.options import add_reward_options
from croco.records import (
    Generation,
    Prompt,
    Record,
    check_same_text,
    prompt_rows,
    read_records,
    rows_in_step,
    write_json,
    write_jsonl,
)
from croco.report.audit import format_table, render_audit
from croco.state import Parts
from croco.text.normalise import is_blank

DAMAGES = ("shuffled", "truncated", "wrong_language", "off_topic", "repeated")
CHECKS = (*DAMAGES, "weak")
# Two samples of a policy differ far less than an answer and its damaged copy. A model that gets one in ten of the
# copies wrong is unreliable on samples.
FIT = 0.9
CHANCE = 0.5
# With fewer prompts the interval reaches from chance to near certainty, whatever the accuracy.
FEWEST = 10
# `hygiene` removes such responses from the pools whatever their rewards, so these checks alone make no model unfit.
CAUGHT_BY_HYGIENE = {"truncated": "truncated", "wrong_language": "wrong_language"}
# A correlation of 0.5 explains a quarter of the variance in ranks: above it the reward largely measures length.
LENGTH_BOUND = 0.5


class Brought(Record, frozen=True, kw_only=True):
    """A line of --comparisons."""

    remedy = "write language, prompt_id, check, answer and damaged, all of them texts"
    language: str
    check: str
    answer: str
    damaged: str


def main():
    args = parse_arguments()
    step = vars(args).pop("step")
    step(args)


def parse_arguments():
    parser = cli.parser(__doc__)
    steps = parser.add_subparsers(required=True, metavar="{select,score}")

    select = steps.add_parser("select", help="take the first prompts of a language")
    select.add_argument("--prompts", nargs="+", type=Path, required=True, help="blocks of a language, in order")
    select.add_argument("--count", type=cli.positive, default=64, help="how many to take")
    select.set_defaults(step=select_prompts)

    score = steps.add_parser(
        "score",
        help="make the copies, score them, give verdicts",
        writes=cli.beside(".jsonl", ".md", ".html", ".manifest.json"),
    )
    score.add_argument("--languages", nargs="+", required=True, help="languages to audit, all with one model load")
    score.add_argument("--prompts", nargs="+", type=Path, required=True, help="prompt files, one per language")
    score.add_argument(
        "--answers", nargs="+", type=Path, default=[], help="a policy's generations, one file per language"
    )
    score.add_argument("--policy", help="name of the policy that --answers are of, for the report")
    score.add_argument(
        "--audited",
        choices=("reference", "policy"),
        default="reference",
        help="which answers to audit where a prompt has both",
    )
    score.add_argument("--comparisons", nargs="+", type=Path, default=[], help="files with further comparisons")
    add_reward_options(score)
    score.add_argument("--seed", type=cli.whole(0), default=0, help="seed of the order of shuffled words")
    cli.add_state_options(score, chunk=16)
    score.set_defaults(step=audit)

    for step in (select, score):
        step.add_argument("--output", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    if args.step is audit and (
        len(args.languages) != len(args.prompts) or len(args.answers) not in (0, len(args.languages))
    ):
        parser.error("--prompts and --answers need one file per language")
    return args


def select_prompts(args):
    rows = (row for path in args.prompts for row in prompt_rows(path))
    count = write_jsonl(args.output, islice(rows, args.count))
    inputs = {str(path): path for path in args.prompts}
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, inputs, counts={"prompts": count})


def audit(args):
    identity = model_id(args.model, args.revision, args.state)
    left_out = Counter()
    prompts = {language: read_prompts(args, language, i, left_out) for i, language in enumerate(args.languages)}
    if not any(prompt["answers"] for of_language in prompts.values() for prompt in of_language.values()):
        raise InputError("no prompt has an answer", "give prompts with references, or a policy's --answers")
    comparisons = [
        *compare_copies(args, prompts, left_out),
        *compare_weak(prompts, left_out),
        *read_comparisons(args, prompts, left_out),
    ]
    rewards, scored = score_missing(args, identity, prompts, comparisons)
    lines = judge(comparisons, rewards, left_out)
    report = {
        "reward_model": args.output.stem,
        "policy": args.policy,
        "audited": args.audited,
        "thresholds": {"fit": FIT, "chance": CHANCE, "fewest": FEWEST, "length_correlation": LENGTH_BOUND},
        "languages": {
            language: summarise(language, prompts[language], lines, rewards, left_out) for language in args.languages
        },
    }
    write_jsonl(args.output.with_suffix(".jsonl"), lines)
    table = format_table(report)
    for ending, text in ((".md", table), (".html", render_audit(report))):
        with replacing(args.output.with_suffix(ending)) as file:
            file.write(text)
    write_json(args.output, report)
    print(table)
    inputs = {str(path): path for path in (*args.prompts, *args.answers, *args.comparisons)}
    cli.write_manifest(
        args.output.with_suffix(".manifest.json"),
        __file__,
        args,
        {"reward_model": identity, **inputs},
        counts={"comparisons": len(lines), "left_out": sum(left_out.values())},
        scored=scored,
    )


def read_prompts(args, language, i, left_out):
    """{prompt_id: {row, reference, responses, answers, place}} of one language; raises InputError."""
    from croco.text.language import detect_language

    files = [(args.prompts[i], Prompt), *([(args.answers[i], Generation)] if args.answers else [])]
    prompts = {}
    for place, (row, *generation) in enumerate(rows_in_step(files)):
        if row["language"] != language:
            raise InputError(
                f"{row['prompt_id']} is in {row['language']}, not {language}",
                "give the files in the order of --languages",
                args.prompts[i],
                place + 1,
                "language",
            )
        if row.get("skip"):
            left_out[language, "prompts", row["skip"]] += 1
            continue
        responses, reference = [], "" if is_blank(row.get("reference") or "") else row["reference"].strip()
        for line in generation:
            check_same_text(row, line)
            for response in line["responses"]:
                if response["finish_reason"] == "length":
                    left_out[language, "answers", "cut_off"] += 1
                elif is_blank(response["text"]):
                    left_out[language, "answers", "empty"] += 1
                elif detect_language(response["text"], language) not in (None, language):
                    left_out[language, "answers", "wrong_language"] += 1
                elif response["text"] in responses:
                    left_out[language, "answers", "duplicate"] += 1
                else:
                    responses.append(response["text"])
        answers = [reference] if reference and (args.audited == "reference" or not responses) else responses
        if not answers:
            left_out[language, "prompts", "no_answer"] += 1
        prompts[row["prompt_id"]] = {
            "row": row, "reference": reference, "responses": responses, "answers": answers, "place": place,
        }  # fmt: skip
    return prompts


def compare_copies(args, prompts, left_out):
    """Yields the comparisons of answers with their damaged copies; counts why others cannot be made."""
    for language, of_language in prompts.items():
        for prompt_id, prompt in of_language.items():
            for answer in prompt["answers"]:
                copies = damage(args, prompts, language, prompt_id, answer)
                for check, (copy, reason) in copies.items():
                    if copy is None:
                        left_out[language, check, reason] += 1
                    else:
                        yield compare(language, prompt_id, check, answer, copy)


def damage(args, prompts, language, prompt_id, answer):
    """{check: (damaged copy or None, reason why there is none)} of an answer."""
    from croco.text.damage import repeat, rotate, shuffle, truncate

    prompt = prompts[language][prompt_id]
    others = [code for code in prompts if code != language and prompts[code].get(prompt_id, {}).get("answers")]
    texts = (prompts[code][prompt_id]["answers"][0] for code in rotate(others, prompt["place"]))
    elsewhere = (
        other["answers"][0]
        for other in rotate(list(prompts[language].values()), prompt["place"] + 1)
        if other["answers"] and other["row"]["messages"] != prompt["row"]["messages"]
    )
    seed = derive_seed(args.seed, "shuffled", language, prompt_id)
    return {
        "shuffled": pick([shuffle(answer, seed)], answer, "one_word"),
        "truncated": pick([truncate(answer)], answer, "too_short"),
        # A policy that answers in English whatever the prompt's language has no copy in a wrong one.
        "wrong_language": pick(
            (text for text in texts if is_elsewhere(text, language, answer)),
            answer,
            "no_answer_in_another_language",
        ),
        "off_topic": pick(elsewhere, answer, "no_other_prompt"),
        "repeated": pick([repeat(answer)], answer, "too_short"),
    }


def is_elsewhere(text, language, answer):
    """Whether a copy is in another language than the answer, as far as that can be known.

    A short one is where its language cannot be told, but the answer's can. Code and numbers are in no language.
    """
    from croco.text.language import can_identify, detect_language

    if not can_identify(language):
        return True
    found = detect_language(text, language)
    if found is None:
        return detect_language(answer, language) == language
    return found != language


def pick(copies, answer, reason):
    """(the first copy that differs from the answer, None), or (None, why there is none)."""
    for copy in filter(None, copies):
        if copy.strip() != answer.strip():
            return copy, None
        reason = "equal"
    return None, reason


def compare(language, prompt_id, check, answer, damaged):
    return {"language": language, "prompt_id": prompt_id, "check": check, "answer": answer, "damaged": damaged}


def compare_weak(prompts, left_out):
    """Yields the comparisons of references with the policy's answers."""
    for language, of_language in prompts.items():
        for prompt_id, prompt in of_language.items():
            if not prompt["reference"] or not prompt["responses"]:
                left_out[language, "weak", "no_policy_answer" if prompt["reference"] else "no_reference"] += 1
            for response in prompt["responses"] if prompt["reference"] else []:
                if response.strip() == prompt["reference"]:
                    left_out[language, "weak", "equal"] += 1
                else:
                    yield compare(language, prompt_id, "weak", prompt["reference"], response)


def read_comparisons(args, prompts, left_out):
    """Yields the comparisons of --comparisons whose prompts are audited; raises InputError."""
    for path in args.comparisons:
        used = 0
        for number, row in read_records(path, Brought):
            language, prompt_id, check, answer, damaged = (
                row[name] for name in ("language", "prompt_id", "check", "answer", "damaged")
            )
            if check in CHECKS:
                raise InputError("this check is the audit's own", "give it another name", path, number, "check")
            if prompt_id not in prompts.get(language, {}):
                left_out[language, check, "prompt_not_audited"] += 1
            elif answer.strip() == damaged.strip():
                left_out[language, check, "equal"] += 1
            else:
                used += 1
                yield compare(language, prompt_id, check, answer, damaged)
        if not used:
            raise InputError(
                "nothing to compare: no line has a prompt that is audited and two different texts",
                "give comparisons of these prompts, by prompt_id and language, or audit more prompts",
                path,
            )


def score_missing(args, identity, prompts, comparisons):
    """({(language, prompt_id, text): [reward or None, reason]}, how many texts were scored now), chunk by chunk."""
    wanted = defaultdict(dict)
    for language, of_language in prompts.items():
        for prompt_id, prompt in of_language.items():
            wanted[language, prompt_id].update(dict.fromkeys(prompt["answers"]))
    for line in comparisons:
        wanted[line["language"], line["prompt_id"]].update({line["answer"]: None, line["damaged"]: None})
    rows = {names: prompts[names[0]][names[1]]["row"] for names in wanted}
    how = {"max_length": args.max_length, "template_options": args.template_options}
    inputs = {"reward_model": identity, **describe_engine(args), **how}
    parts = Parts(args.state, "audit", inputs, map(prompt_digest, rows.values()))

    rewards, missing = {}, []
    for names, texts in wanted.items():
        lines = parts.lines(prompt_digest(rows[names]))
        known = {text: result for line in lines for text, result in zip(line["texts"], line["results"], strict=True)}
        rewards |= {(*names, text): known[digest(text)] for text in texts if digest(text) in known}
        if new := [text for text in texts if digest(text) not in known]:
            missing.append((names, new))
    scored = sum(len(texts) for _, texts in missing)
    print(f"{scored} texts to score, {len(rewards)} are scored already", file=sys.stderr)
    model = load_reward_model(args) if missing else None
    for start in cli.progress(range(0, len(missing), args.chunk), desc=f"audit {args.output.stem}", unit="chunk"):
        chunk = missing[start : start + args.chunk]
        answers = [(rows[names]["messages"], text) for names, texts in chunk for text in texts]
        scored_now = [(*names, text) for names, texts in chunk for text in texts]
        found = dict(zip(scored_now, model.score(answers), strict=True))
        parts.add(
            [
                {
                    "prompt_digest": prompt_digest(rows[names]),
                    "texts": [digest(text) for text in texts],
                    "results": [found[(*names, text)] for text in texts],
                }
                for names, texts in chunk
            ]
        )
        rewards |= found
    return rewards, scored


def judge(comparisons, rewards, left_out):
    """One line per comparison with both rewards; counts why others have none."""
    lines = []
    for line in comparisons:
        names = line["language"], line["prompt_id"]
        (answer, reason), (damaged, other) = (rewards[(*names, line[side])] for side in ("answer", "damaged"))
        if answer is None or damaged is None:
            left_out[line["language"], line["check"], reason or other] += 1
        else:
            lines.append({**line, "reward_answer": answer, "reward_damaged": damaged})
    return lines


def summarise(language, prompts, lines, rewards, left_out):
    """What the report says about one language."""
    import numpy as np

    scores = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["language"] == language:
            difference = line["reward_answer"] - line["reward_damaged"]
            scores[line["check"]][line["prompt_id"]].append(float(np.heaviside(difference, 0.5)))
    checks = {check: measure(scores[check].values()) for check in dict.fromkeys((*CHECKS, *scores))}
    answers = [
        (rewards[language, prompt_id, answer][0], len(answer))
        for prompt_id, prompt in prompts.items()
        for answer in prompt["answers"]
    ]
    answers = [(reward, length) for reward, length in answers if reward is not None]
    found = [reward for reward, _ in answers]
    correlation = correlate(answers)
    verdict, remedy = decide(language, checks, correlation)
    reasons = defaultdict(dict)
    for (code, check, reason), count in sorted(left_out.items()):
        if code == language:
            reasons[check][reason] = count
    return {
        "n": sum(bool(prompt["answers"]) for prompt in prompts.values()),
        "checks": checks,
        "reward_mean": float(np.mean(found)) if found else None,
        "reward_sd": float(np.std(found, ddof=1)) if len(found) > 1 else None,
        "length_correlation": correlation,
        "verdict": verdict,
        "remedy": remedy,
        "left_out": reasons,
    }


def measure(scores):
    """Accuracy over prompts, each with the mean of its comparisons (win 1, tie 0.5), and Wilson's 95 % interval.

    Accuracies of 1 are common, and a bootstrap gives no interval for them; Wilson's does. With ties or several
    comparisons per prompt the variance is below that of a share, so the interval is slightly too wide.
    """
    from statsmodels.stats.proportion import proportion_confint

    means = [sum(some) / len(some) for some in scores]
    if not means:
        return {"n": 0, "accuracy": None, "ci_low": None, "ci_high": None}
    accuracy = math.fsum(means) / len(means)
    low, high = proportion_confint(math.fsum(means), len(means), method="wilson")
    # At 0 and 1 the bound is the share itself, but for rounding.
    return {
        "n": len(means),
        "accuracy": accuracy,
        "ci_low": min(float(low), accuracy),
        "ci_high": max(float(high), accuracy),
    }


def correlate(answers):
    """Spearman's correlation of rewards and lengths in characters, or None with too few values or if one does not vary."""
    from scipy.stats import spearmanr

    rewards, lengths = zip(*answers, strict=True) if answers else ((), ())
    if len(answers) < FEWEST or len(set(rewards)) < 2 or len(set(lengths)) < 2:
        return None
    return float(spearmanr(rewards, lengths).statistic)


def decide(language, checks, correlation):
    """(verdict: fit, weak, unfit, or None where there are too few comparisons; what to do about it).

    unfit: a damaged copy that no hygiene catches does not score significantly lower than the answer. fit: every check
    reaches FIT, except `weak`, which depends on the references.
    """
    decided = {check: result for check, result in checks.items() if result["n"] >= FEWEST}
    at_chance = [check for check, result in decided.items() if result["ci_low"] <= CHANCE]
    below = [check for check, result in decided.items() if check != "weak" and result["accuracy"] < FIT]
    blind = [check for check in at_chance if check in DAMAGES and check not in CAUGHT_BY_HYGIENE]
    remedies = []
    if blind:
        remedies.append(
            f"do not train in {language} on this reward model, which does not distinguish {join(blind)} answers from sound "
            "ones: choose another one (reward_models), or remove the language from the pools"
        )
    for check in below:
        if check in CAUGHT_BY_HYGIENE:
            remedies.append(f"leave {CAUGHT_BY_HYGIENE[check]} in hygiene")
        elif check in DAMAGES and check not in blind:
            remedies.append(
                f"look at pairs in the preview first: {check} answers win {1 - checks[check]['accuracy']:.0%}"
            )
        elif check not in DAMAGES:
            remedies.append(
                f"expect no gain in what `{check}` tests"
                if check in at_chance
                else f"`{check}` is learned only in part"
            )
    if "weak" in at_chance:
        remedies.append("it does not prefer the references to the policy's answers: check their quality before SFT")
    if correlation is not None and abs(correlation) >= LENGTH_BOUND:
        longer = "longer" if correlation > 0 else "shorter"
        remedies.append(
            f"it prefers {longer} answers: look at length-controlled win rates, and at lengths before and after"
        )
    # With one language, or answers too short to identify, there is nothing that hygiene would have to catch.
    undecided = [
        check for check in DAMAGES if check not in decided and (checks[check]["n"] or check not in CAUGHT_BY_HYGIENE)
    ]
    if undecided:
        remedies.append(f"too few comparisons for {join(undecided)}: raise audit.prompts, or audit longer answers")
    if blind:
        verdict = "unfit"
    elif not set(decided) & set(DAMAGES):
        verdict = None
    else:
        verdict = "weak" if below or undecided else "fit"
    return verdict, "; ".join(remedies) or "none needed"


def join(names):
    return " or ".join(names)


if __name__ == "__main__":
    cli.run(main)
