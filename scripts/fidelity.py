"""Measure a model's answers in several languages without a judge: languages, lengths, repetition, self-similarity.

Example:
  python scripts/fidelity.py --languages en de --prompts prompts/evaluate/en.jsonl prompts/evaluate/de.jsonl \\
      --answers mini/multi/dpo/answers/en.jsonl mini/multi/dpo/answers/de.jsonl --output mini/multi/dpo/fidelity

A line has for each answer the code of its language (null if it is undetermined: few letters without code, URLs
and maths), whether it was cut off, its tokens and characters, `repetition` (share of word 4-grams that occurred
before) and `distinct_2` (number of different word bigrams over the number of all). For the prompt it has
`self_similarity` (mean chrF over pairs of its answers, 1 if all are equal, null for a single answer).
"""

from collections import Counter
from pathlib import Path

from croco import cli
from croco.digests import versions
from croco.errors import InputError
from croco.records import Generation, Prompt, Response, check_same_text, rows_in_step, write_jsonl


class Answer(Response, frozen=True, kw_only=True):
    """A response whose tokens are counted."""

    n_tokens: int


class Answers(Generation, frozen=True, kw_only=True):
    """Generations whose tokens are counted."""

    remedy = "give the answers that scripts/evaluate.py wrote"
    responses: list[Answer]


def main():
    args = parse_arguments()
    for language, prompts, answers in zip(args.languages, args.prompts, args.answers, strict=True):
        counts = {
            "prompts": 0,
            "skipped": 0,
            "responses": 0,
            "truncated": 0,
            "undetermined": 0,
            "identified": Counter(),
        }
        lines = measure_answers(prompts, answers, language, counts)
        write_jsonl(args.output / f"{language}.jsonl", cli.progress(lines, desc=f"fidelity {language}", unit="prompt"))
        cli.write_manifest(
            args.output / f"{language}.manifest.json",
            __file__,
            args,
            {"prompts": prompts, "answers": answers},
            libraries=versions("py3langid", "sacrebleu", "regex"),
            counts=counts | {"identified": dict(sorted(counts["identified"].items()))},
        )


def parse_arguments():
    parser = cli.parser(__doc__, writes=cli.per_language)
    parser.add_argument("--languages", nargs="+", required=True, help="languages that the answers were asked for in")
    parser.add_argument("--prompts", nargs="+", type=Path, required=True, help="prompt files, one per language")
    parser.add_argument("--answers", nargs="+", type=Path, required=True, help="answers to them, one file per language")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write LANGUAGE.jsonl to")
    args = parser.parse_args()
    if not len(args.languages) == len(args.prompts) == len(args.answers):
        parser.error("--prompts and --answers need one file per language")
    return args


def measure_answers(prompts, answers, language, counts):
    """The lines of one language, streaming; adds to ``counts``."""
    from croco.results.metrics import ANSWER_METRICS, PromptAnswers
    from croco.text.language import detect_language

    for prompt, answer in rows_in_step([(prompts, Prompt), (answers, Answers)]):
        check_answers(prompt, answer, language, answers)
        responses = answer["responses"]
        texts = [response["text"] for response in responses]
        codes = {text: detect_language(text, language) for text in dict.fromkeys(texts)}
        measured = PromptAnswers(
            language=language,
            texts=texts,
            codes=[codes[text] for text in texts],
            truncated=[response["finish_reason"] == "length" for response in responses],
            n_tokens=[response["n_tokens"] for response in responses],
        )
        line = {
            "prompt_id": prompt["prompt_id"],
            "language": language,
            "languages": measured.codes,
            **{metric.name: metric.measure(measured) for metric in ANSWER_METRICS},
            "skip": answer.get("skip"),
        }
        counts["prompts"] += 1
        counts["skipped"] += line["skip"] is not None
        counts["responses"] += len(responses)
        counts["truncated"] += sum(line["truncated"])
        counts["undetermined"] += line["languages"].count(None)
        counts["identified"].update(code for code in line["languages"] if code)
        yield line


def check_answers(prompt, answer, language, path):
    """Raises InputError for answers to another prompt text or of another language's file."""
    check_same_text(prompt, answer)
    for row in (prompt, answer):
        if row["language"] != language:
            raise InputError(
                f"{row['prompt_id']} is in {row['language']}, not {language}",
                "give the files in the order of --languages",
                path,
                field="language",
            )


if __name__ == "__main__":
    cli.run(main)
