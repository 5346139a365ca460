"""Judge a tuned model's answers against the base model's, pairwise, in several languages.

Example:
  python scripts/judge.py --judge oracle --languages en de --answers mini/multi/dpo/answers/en.jsonl ... \\
      --baseline mini/untuned/base/answers/en.jsonl ... --output mini/multi/dpo/arena

Sample j is compared with the base's sample j: a win counts 1, a tie a half; a prompt's score is the mean over its
samples. ``oracle`` judges by the rules of the miniature's world and knows no position, so both orders agree.
"""

from pathlib import Path

from croco import cli
from croco.records import GENERATION, InputError, rows_in_step, write_jsonl
from croco.world import oracle_quality, question_by_id


def main():
    args = parse_arguments()
    counts = {}
    for language, answers, baseline in zip(args.languages, args.answers, args.baseline, strict=True):
        lines = (
            judge_prompt(ours, theirs) for ours, theirs in rows_in_step([(answers, GENERATION), (baseline, GENERATION)])
        )
        counts[language] = write_jsonl(args.output / f"{language}.jsonl", lines)
        inputs = {"answers": answers, "baseline": baseline}
        manifest = args.output / f"{language}.manifest.json"
        cli.write_manifest(manifest, __file__, args, inputs, counts={"prompts": counts[language]})


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--judge", choices=("oracle",), default="oracle", help="who judges")
    parser.add_argument("--languages", nargs="+", required=True, help="languages to judge in")
    parser.add_argument(
        "--answers", nargs="+", type=Path, required=True, help="the tuned model's answers, one file a language"
    )
    parser.add_argument(
        "--baseline", nargs="+", type=Path, required=True, help="the base model's answers, one file a language"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write LANGUAGE.jsonl to")
    args = parser.parse_args()
    if not len(args.languages) == len(args.answers) == len(args.baseline):
        parser.error("--answers and --baseline need one file per language each")
    return args


def judge_prompt(ours, theirs):
    """One line: the verdict on each sample in both orders, seen from the tuned model, and the mean score."""
    try:
        question = question_by_id(ours["prompt_id"], ours["language"])
    except ValueError as error:
        raise InputError(
            str(error), "the oracle judges the miniature's prompts only: name another judge, or none"
        ) from error
    qualities = [[oracle_quality(question, r["text"]) for r in line["responses"]] for line in (ours, theirs)]
    scores = [(mine > other) + 0.5 * (mine == other) for mine, other in zip(*qualities, strict=True)]
    verdict = {1.0: "win", 0.5: "tie", 0.0: "loss"}
    return {
        "prompt_id": ours["prompt_id"],
        "language": ours["language"],
        "verdicts": {"answer_first": [verdict[s] for s in scores], "baseline_first": [verdict[s] for s in scores]},
        "score": mean(scores),
        "quality": mean(qualities[0]),
        "baseline_quality": mean(qualities[1]),
        "length": mean([len(r["text"]) for r in ours["responses"]]),
        "baseline_length": mean([len(r["text"]) for r in theirs["responses"]]),
        "skip": ours["skip"],
    }


def mean(values):
    return sum(values) / len(values) if values else None


if __name__ == "__main__":
    cli.run(main)
