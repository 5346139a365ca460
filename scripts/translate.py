"""Translate prompts from the source language, message by message, with a translation model.

Example:
  python scripts/translate.py --prompts prompts/en/0.jsonl --language da --model DIR --format translategemma \\
      --languages config/languages.tsv --state state --output prompts/da/0.jsonl

Fenced code is kept as it is; long messages are translated by groups of paragraphs. A translation that was cut off, is
empty or in another language is tried again, sampled, and then marked: the prompt's line says skip: translation_...,
and no response is sampled for it. References are translated too; one that fails is null, and counted. A source
prompt that is changed or new is translated, all others are kept under --state.

Formats: translategemma (codes as fields of the chat template), translategemma_prompt (the same as plain text),
translategemma_tags (Infomaniak's variant), template (any chat model: --template with {text}, {source_name},
{target_name}, {source_code}, {target_code}).
"""

import csv
import sys
from pathlib import Path

from croco import cli
from croco.digests import code_digest, digest, prompt_digest, versions
from croco.engines import describe_engine, load_policy
from croco.records import InputError, prompt_rows, write_jsonl
from croco.store import Parts
from croco.translation import FORMATS, translate_chunk


def main():
    args = parse_arguments()
    prompts = list(prompt_rows(args.prompts))
    how = describe_how(args, read_names(args, prompts))
    identity = cli.identify(args.model, args.revision, args.state)
    parts = Parts(args.state, "translations", describe_inputs(args, identity, how), map(source_digest, prompts))
    missing = find_missing(args, parts, prompts)
    print(f"{len(prompts)} prompts; {len(missing)} to translate", file=sys.stderr)
    if missing:
        translate(args, how, parts, missing)
    counts = write(args, parts, prompts)
    inputs = {"prompts": args.prompts, "translator": identity}
    cli.write_manifest(
        args.output.with_suffix(".manifest.json"), __file__, args, inputs, counts=counts, translated=len(missing)
    )


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--prompts", type=Path, required=True, help="prompt file of the source language")
    parser.add_argument("--language", required=True, help="code of the language to translate to")
    parser.add_argument("--languages", type=Path, required=True, help="languages.tsv: names and translation codes")
    cli.add_chat_options(parser)
    parser.add_argument("--format", choices=FORMATS, required=True, help="how the model is asked")
    parser.add_argument("--template", help="the user's turn for --format template")
    parser.add_argument("--max-tokens", type=cli.positive, default=2048, help="tokens of a translated piece at most")
    parser.add_argument(
        "--longest", type=cli.positive, default=3000, help="characters of a piece, paragraphs permitting"
    )
    parser.add_argument("--attempts", type=cli.positive, default=3, help="the first is greedy, others are sampled")
    parser.add_argument("--seed", type=int, default=0, help="seed of further attempts")
    cli.add_state_options(parser, chunk=64)
    parser.add_argument("--output", type=Path, required=True, help="prompt file to write")
    args = parser.parse_args()
    if (args.format == "template") != bool(args.template and "{text}" in args.template):
        parser.error("--format template, and nothing else, goes with a --template that holds {text}")
    return args


def read_names(args, prompts):
    """Names and codes of both languages for the translator."""
    with open(args.languages, encoding="utf-8") as file:
        table = {row["code"]: row for row in csv.DictReader(file, delimiter="\t")}
    source = prompts[0]["language"] if prompts else args.language
    for code in (source, args.language):
        if not (table.get(code) or {}).get("translation"):
            raise InputError(f"no translation code for {code}", "fill in its row", args.languages, field="translation")
    return {
        "source_name": table[source]["name"],
        "source_code": table[source]["translation"],
        "target_name": table[args.language]["name"],
        "target_code": table[args.language]["translation"],
    }


def describe_how(args, names):
    """What decides a translation besides the model, as translate_chunk takes it."""
    options = ("language", "format", "template", "max_tokens", "longest", "seed")
    return {**names, **{name: getattr(args, name) for name in options}}


def describe_inputs(args, identity, how):
    return {
        "translator": identity,
        **describe_engine(args),
        "template_options": args.template_options,
        **how,
        "translation": code_digest(Path(__file__).with_name("croco") / "translation.py"),
        "identifier": versions("py3langid"),
    }


def find_missing(args, parts, prompts):
    """Prompts without a line, and those that failed and may now be tried more often."""
    missing = []
    for row in prompts:
        found = parts.lines(source_digest(row))
        if not any(whole(line) or line["attempts_allowed"] >= args.attempts for line in found):
            missing.append(row)
    return missing


def source_digest(row):
    """What a translation depends on, of a line of the source language's file."""
    return digest([prompt_digest(row), row.get("reference")])


def whole(line):
    return not line["skip"] and not line["reference_skip"]


def translate(args, how, parts, missing):
    model = load_policy(args)
    with cli.progress(total=len(missing), desc=f"translate to {args.language}", unit="prompt") as bar:
        for begin in range(0, len(missing), args.chunk):
            chunk = missing[begin : begin + args.chunk]
            lines = translate_chunk(model, chunk, how, args.attempts)
            parts.add(
                [
                    {"prompt_digest": source_digest(row), **line, "attempts_allowed": args.attempts}
                    for row, line in zip(chunk, lines, strict=True)
                ]
            )
            bar.update(len(chunk))


def write(args, parts, prompts):
    """Writes the translated prompts in order; returns counts."""
    counts = {"prompts": 0, "skipped": {}, "references lost": {}, "tried again": 0, "without reference": 0}

    def lines():
        for row in prompts:
            part = max(parts.lines(source_digest(row)), key=lambda line: (whole(line), line["attempts_allowed"]))
            line = {
                "prompt_id": row["prompt_id"],
                "language": args.language,
                "messages": part["messages"],
                "reference": part["reference"],
                "source": f"{row['language']} by {args.model}",
                "skip": row.get("skip") or part["skip"],
            }
            counts["prompts"] += 1
            counts["tried again"] += part["attempts"] > 1
            counts["without reference"] += not line["reference"]
            for name, reason in (("skipped", line["skip"]), ("references lost", part["reference_skip"])):
                if reason:
                    counts[name][reason] = counts[name].get(reason, 0) + 1
            yield line

    write_jsonl(args.output, lines())
    return counts


if __name__ == "__main__":
    cli.run(main)
