"""Identify the language of each response of one language's generations.

Example:
  python scripts/identify.py --prompts prompts/de.jsonl --generations generations.jsonl --language de \\
      --output languages.jsonl

A response gets the code of its language. If two are about equally likely, it gets --language. It gets null if its
language is undetermined: too few letters without code, URLs and maths, names alone, or a --language that is not known.
"""

import sys
from collections import Counter, deque
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from croco import cli
from croco.digests import versions
from croco.errors import InputError
from croco.records import Generation, Prompt, check_same_text, digest_responses, rows, rows_in_step, write_jsonl
from croco.text.language import can_identify, detect_language

CHUNK = 16  # prompts per task of a process


def main():
    args = parse_arguments()
    if not can_identify(args.language):
        print(f"warning: {args.language} cannot be identified; every response gets null", file=sys.stderr)
    counts = write_languages(args)
    cli.write_manifest(
        args.output.with_suffix(".manifest.json"),
        __file__,
        args,
        {"prompts": args.prompts, "generations": args.generations},
        identifier=versions("py3langid"),
        counts=counts,
    )


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--prompts", type=Path, required=True, help="prompt file of one language")
    parser.add_argument("--generations", type=Path, required=True, help="generations of the same language")
    parser.add_argument("--language", required=True, help="code of the language asked for")
    parser.add_argument(
        "--processes", type=cli.positive, default=1, help="parallel processes; the output does not depend on them"
    )
    parser.add_argument("--output", type=Path, required=True, help="languages file to write")
    return parser.parse_args()


def write_languages(args):
    """Writes codes parallel to the responses, streaming; returns counts."""
    counts = {"prompts": 0, "responses": 0, "undetermined": 0}
    identified = Counter()

    def lines():
        total = sum(1 for _ in rows(args.prompts))
        for line in cli.progress(identify_all(args), total=total, desc=args.language, unit="prompt"):
            counts["prompts"] += 1
            counts["responses"] += len(line["languages"])
            counts["undetermined"] += line["languages"].count(None)
            identified.update(code for code in line["languages"] if code)
            yield line

    write_jsonl(args.output, lines())
    return {**counts, "identified": dict(sorted(identified.items()))}


def identify_all(args):
    """The lines of the output in order, by one or more processes, a few chunks ahead of the writer at most."""
    chunks = read_chunks(args)
    if args.processes == 1:
        for chunk in chunks:
            yield from identify_chunk(chunk)
        return
    with ProcessPoolExecutor(args.processes) as pool:
        waiting = deque(pool.submit(identify_chunk, chunk) for chunk in islice(chunks, 2 * args.processes))
        while waiting:
            yield from waiting.popleft().result()
            waiting += (pool.submit(identify_chunk, chunk) for chunk in islice(chunks, 1))


def read_chunks(args):
    """Lists of ({prompt_id, language, responses_digest}, texts)."""

    def prompts():
        for prompt, generation in rows_in_step([(args.prompts, Prompt), (args.generations, Generation)]):
            if prompt["language"] != args.language:
                raise InputError(
                    f"{prompt['prompt_id']} is in {prompt['language']}, not {args.language}",
                    "give files of the language named by --language",
                    args.prompts,
                    field="language",
                )
            check_same_text(prompt, generation)
            names = {"prompt_id": prompt["prompt_id"], "language": prompt["language"]}
            names["responses_digest"] = digest_responses(generation)
            yield names, [response["text"] for response in generation["responses"]]

    source = prompts()
    while chunk := list(islice(source, CHUNK)):
        yield chunk


def identify_chunk(chunk):
    lines = []
    for names, texts in chunk:
        codes = {text: detect_language(text, names["language"]) for text in dict.fromkeys(texts)}
        lines.append({**names, "languages": [codes[text] for text in texts]})
    return lines


if __name__ == "__main__":
    cli.run(main)
