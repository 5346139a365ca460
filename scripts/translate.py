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
from croco.digests import code_digest, prompt_digest, prompt_seed
from croco.engines import describe_engine, load_policy
from croco.records import InputError, prompt_rows, write_jsonl
from croco.store import Parts
from croco.translation import FORMATS, find_fault, request, split_text

RETRY_TEMPERATURE = 0.5


def main():
    args = parse_arguments()
    prompts = list(prompt_rows(args.prompts))
    names = read_names(args, prompts)
    identity = cli.identify(args.model, args.revision, args.state)
    inputs = describe_inputs(args, identity, names)
    parts = Parts(args.state, "translations", inputs, map(prompt_digest, prompts))
    missing = [row for row in prompts if not parts.lines(prompt_digest(row))]
    print(f"{len(prompts)} prompts; {len(missing)} to translate", file=sys.stderr)
    if missing:
        translate(args, names, parts, missing)
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


def describe_inputs(args, identity, names):
    return {
        "translator": identity,
        **describe_engine(args),
        **{
            name: getattr(args, name)
            for name in ("template_options", "format", "template", "max_tokens", "longest", "attempts", "seed")
        },
        **names,
        "language": args.language,
        "cutting": code_digest(Path(__file__).with_name("croco") / "translation.py"),
    }


def translate(args, names, parts, missing):
    model = load_policy(args)
    with cli.progress(total=len(missing), desc=f"translate to {args.language}", unit="prompt") as bar:
        for begin in range(0, len(missing), args.chunk):
            chunk = missing[begin : begin + args.chunk]
            parts.add(translate_chunk(args, names, model, chunk))
            bar.update(len(chunk))


def translate_chunk(args, names, model, chunk):
    """The finished lines of a chunk of prompts: all of their pieces go through the model together."""
    texts = {}  # (prompt, place): pieces; the place is a message's number, or "reference"
    for i, row in enumerate(chunk):
        places = [*enumerate(message["content"] for message in row["messages"])]
        places += [("reference", row["reference"])] if row.get("reference") else []
        for place, text in places:
            texts[i, place] = split_text(text, args.longest)
    todo = [(key, n) for key, pieces in texts.items() for n in range(0, len(pieces), 2) if pieces[n]]
    attempts, faults = [0] * len(chunk), {}
    for attempt in range(args.attempts):
        ids = [model.encode(request(texts[key][n], args.format, args.template, names)) for key, n in todo]
        work = [k for k, tokens in enumerate(ids) if model.room(tokens, args.max_tokens)]
        seeds = [seed_piece(args, chunk, *todo[k]) + attempt for k in work]
        temperature = RETRY_TEMPERATURE if attempt else 0
        responses = model.respond([ids[k] for k in work], seeds, temperature, 1.0, args.max_tokens)
        found = dict(zip(work, responses, strict=True))
        again = []
        for k, (key, n) in enumerate(todo):
            attempts[key[0]] = attempt + 1
            fault = find_fault(found[k], args.language) if k in found else "too_long"
            if fault:
                faults[key, n] = fault
                again += [(key, n)] if k in found else []
            else:
                texts[key][n] = found[k]["text"].strip()
                faults.pop((key, n), None)
        todo = again
    return [finish(row, i, texts, faults, attempts[i]) for i, row in enumerate(chunk)]


def seed_piece(args, chunk, key, n):
    i, place = key
    return prompt_seed(args.seed, args.language, f"{chunk[i]['prompt_id']}/{place}/{n}")


def finish(row, i, texts, faults, attempts):
    """The translated line of one prompt; a failed message keeps its source text and gives the reason to skip."""
    failed = {place: fault for ((j, place), _), fault in sorted(faults.items(), key=str) if j == i}
    reason = next((fault for place, fault in failed.items() if place != "reference"), None)
    translated = {place: "".join(pieces) for (j, place), pieces in texts.items() if j == i}
    return {
        "prompt_digest": prompt_digest(row),
        "messages": [{**message, "content": translated[n]} for n, message in enumerate(row["messages"])],
        "reference": None if "reference" in failed else translated.get("reference"),
        "skip": f"translation_{reason}" if reason else None,
        "reference_skip": f"translation_{failed['reference']}" if "reference" in failed else None,
        "attempts": attempts,
    }


def write(args, parts, prompts):
    """Writes the translated prompts in order; returns counts."""
    counts = {"prompts": 0, "skipped": {}, "references lost": {}, "tried again": 0, "without reference": 0}

    def lines():
        for row in prompts:
            part = parts.lines(prompt_digest(row))[0]
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
