"""Measure how well languages are identified, on texts whose language is known.

Example:
  python scripts/check_identification.py --sentences tests/data/udhr.tsv

Prints two Markdown tables, each for whole texts and for their first words alone. The first shows what a text is
identified as if its own language was asked for. The second shows how many texts in one language pass for another if
that other one was asked for; it lists only pairs with such texts. --sentences has a header line and the columns
language and text.
"""

import csv
import sys
from pathlib import Path

from croco import cli
from croco.errors import InputError
from croco.records import read_lines


def main():
    args = parse_arguments()
    texts = read_texts(args.sentences)
    lengths = {"whole": None, f"first {args.words} words": args.words}
    print_own(texts, lengths)
    print()
    print_passing(texts, lengths)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--sentences", type=Path, required=True, help="TSV file with the columns language and text")
    parser.add_argument("--words", type=cli.positive, default=6, help="length of the shortened texts in words")
    return parser.parse_args()


def read_texts(path):
    """{language: texts}, in the file's order; raises InputError for a missing column or an unidentifiable language."""
    from croco.text.language import can_identify

    csv.field_size_limit(sys.maxsize)  # a text may be long
    texts = {}
    lines = (line for _, line in read_lines(path))
    for number, row in enumerate(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), start=2):
        for name in ("language", "text"):
            if not row.get(name):
                raise InputError("missing", "give a header line and single tabs between columns", path, number, name)
        if row["language"] not in texts and not can_identify(row["language"]):
            raise InputError(f"{row['language']} cannot be identified", "take it out", path, number, "language")
        texts.setdefault(row["language"], []).append(row["text"])
    if not texts:
        raise InputError("no texts", "give some texts of each language", path)
    return texts


def count_asked(texts, asked, words):
    """{language of a text: {what it is taken for where ``asked(language)`` was asked for: texts}}."""
    from croco.text.language import detect_language
    from croco.text.measures import count_languages

    return count_languages(
        {
            "language": language,
            "languages": [detect_language(" ".join(text.split()[:words]), asked(language)) for text in some],
        }
        for language, some in texts.items()
    )


def print_own(texts, lengths):
    from croco.text.measures import NONE

    counts = [count_asked(texts, lambda language: language, words) for words in lengths.values()]
    print_row(
        "language", "texts", *(f"{name}: {what}" for name in lengths for what in ("right", "taken for", "undetermined"))
    )
    print_row(*["---"] * (2 + 3 * len(lengths)))
    for language, some in texts.items():
        cells = []
        for found in (of_length[language] for of_length in counts):
            others = [f"{code} {count}" for code, count in found.items() if code not in (language, NONE)]
            cells += [found.get(language, 0), ", ".join(others) or "-", found.get(NONE, 0)]
        print_row(language, len(some), *cells)


def print_passing(texts, lengths):
    print_row("text in", "passes for", "texts", *lengths)
    print_row(*["---"] * (3 + len(lengths)))
    for language, some in cli.progress(texts.items(), desc="passing", unit="language", file=sys.stderr):
        for other in texts:
            if other != language:
                counts = [
                    count_asked({language: some}, lambda _, other=other: other, words)[language].get(other, 0)
                    for words in lengths.values()
                ]
                if any(counts):
                    print_row(language, other, len(some), *counts)


def print_row(*cells):
    print("|" + "|".join(f" {cell} " for cell in cells) + "|")


if __name__ == "__main__":
    cli.run(main)
