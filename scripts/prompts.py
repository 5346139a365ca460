"""Select prompts of the source language from a file or dataset, or the same prompts of another language from its file.

Examples:
  python scripts/prompts.py --input data/en.tsv --columns question answer --id row_number --text question \\
      --reference answer --language en --limit 1000 --output prompts/en/0.jsonl
  python scripts/prompts.py --dataset allenai/Dolci-Instruct-SFT --text messages --reference last_turn --language en \\
      --limit 1000 --after prompts/en/0.jsonl --output prompts/en/1000.jsonl
  python scripts/prompts.py --input data/de.tsv ... --language de --select prompts/en/0.jsonl --output prompts/de/0.jsonl

--limit K takes the first K prompts in the order of a seeded hash of the id, among those that pass the token filter.
--after continues where another block ended. So more prompts later only add to the end, and neither a language nor a
policy changes the selection.

Excluded rows are counted by reason in the manifest:
- rows that --where does not choose,
- chats with tools or pictures,
- prompts in another language than the source's, as far as it can be determined,
- in a dataset, rows that cannot be used. In a local file such a row is an error. So is a row of a dataset without an id,
  where --unique or --select asks for ids.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from croco import cli
from croco.digests import derive_seed, digest
from croco.errors import InputError
from croco.prompts.sources import (
    FIRST_TURN,
    LAST_TURN,
    NOT_CHOSEN,
    ROW_NUMBER,
    Source,
    check_where,
    has_no_id,
    is_chosen,
    open_dataset,
    read_entry,
    read_prompt_id,
    read_source,
    show_id,
    spell_id,
    tell_apart,
)
from croco.records import prompt_rows, read_json, write_jsonl
from croco.text.language import detect_language, name_language

NO_ID = "no id"


def main():
    args = parse_arguments()
    facts = {"selected": 0, "without reference": 0, "left out": Counter()}
    origin = {}  # of the source: how many rows, their digest, and the rank at which the next block begins
    rows = select_same(args, facts) if args.select else select_first(args, facts, origin)

    def lines():
        for entry, place in rows:
            facts["selected"] += 1
            facts["without reference"] += not entry.reference
            yield {
                "prompt_id": entry.prompt_id,
                "language": args.language,
                "messages": entry.messages,
                "reference": entry.reference,
                "source": place,
                "skip": None,
            }

    write_jsonl(args.output, lines())
    inputs = {"source": args.input or f"{args.dataset}@{args.revision}"}
    manifest = args.output.with_suffix(".manifest.json")
    cli.write_manifest(manifest, __file__, args, inputs, counts=facts, origin=origin)


def parse_arguments():
    parser = cli.parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", type=Path, help="source file: .jsonl, .tsv or .csv")
    source.add_argument("--dataset", help="dataset: id on the hub, or a local folder")
    parser.add_argument("--subset", help="configuration of the dataset")
    parser.add_argument("--revision", help="commit or tag of the dataset")
    parser.add_argument("--split", default="train", help="split of the dataset")
    parser.add_argument("--language", required=True, help="code of the language")
    parser.add_argument("--columns", nargs="+", help="names of the columns, for a TSV or CSV without a header")
    parser.add_argument("--id", default="id", help=f"column with the id, or {ROW_NUMBER}")
    parser.add_argument(
        "--text",
        default="text",
        help=f"column with the prompt: text, or a list of messages; {FIRST_TURN} is the first user's turn of the column "
        f"messages, COLUMN.{FIRST_TURN} that of another column",
    )
    parser.add_argument("--reference", help=f"column with a reference answer, or {LAST_TURN} of the messages")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        type=read_condition,
        metavar="COLUMN=VALUE",
        help="take only rows with this value; several of one column are alternatives",
    )
    parser.add_argument(
        "--no-language-check", action="store_true", help="keep prompts in another language than --language"
    )
    parser.add_argument("--limit", type=cli.positive, help="how many prompts to take (without: all, in file order)")
    parser.add_argument("--after", type=Path, help="block file after which to continue, with its manifest beside it")
    parser.add_argument(
        "--max-tokens", type=cli.positive, help="exclude prompts with more tokens, counted by --tokenizer"
    )
    parser.add_argument("--tokenizer", help="local folder or hub id of the tokenizer that counts for --max-tokens")
    parser.add_argument("--tokenizer-revision", help="commit or tag of the tokenizer on the hub")
    parser.add_argument("--select", type=Path, help="take the prompts of this file, selected in the source language")
    parser.add_argument(
        "--unique",
        action="store_true",
        help="in a dataset, a duplicate id is an error, instead of taking the first, and so is a row without an id",
    )
    parser.add_argument("--seed", type=cli.whole(0), default=0, help="seed of the selection")
    parser.add_argument("--output", type=Path, required=True, help="prompt file to write")
    args = parser.parse_args()
    if (args.max_tokens is None) != (args.tokenizer is None):
        parser.error("--max-tokens and --tokenizer go together")
    return args


def read_condition(text):
    column, equals, value = text.partition("=")
    if not column or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not COLUMN=VALUE")
    return column, value


def describe_source(args):
    where = {}
    for column, value in args.where:
        where.setdefault(column, []).append(value)
    return Source(args.id, args.text, args.reference, args.columns, where)


def select_same(args, facts):
    """Yields (entry, place) for each prompt of --select, from this language's own file or dataset."""
    source = describe_source(args)
    ids, entry_at = read_local(args, source, facts) if args.input else read_dataset(args, source, facts)
    places = {prompt_id: i for i, prompt_id in enumerate(ids)}
    for row in prompt_rows(args.select):
        name = args.input or f"{args.dataset}, {args.subset}"
        if row["prompt_id"] not in places:
            raise InputError(
                f"the id {show_id(row['prompt_id'])} of {args.select} is not here",
                "prompts are parallel: add it to each language's file, under the same id",
                name,
                field=args.id,
            )
        entry, place = entry_at(places[row["prompt_id"]])
        if entry is None:
            raise InputError(
                f"the prompt {show_id(row['prompt_id'])} cannot be used: {list(facts['left out'])[-1]}",
                "leave the language out of the prompts' `languages`, so that it is translated",
                name,
                field=args.text,
            )
        yield entry, place


def select_first(args, facts, origin):
    """Yields (entry, place) for the first --limit prompts that can be used."""
    source = describe_source(args)
    ids, entry_at = read_local(args, source, facts) if args.input else read_dataset(args, source, facts)
    passed_over = sum(facts["left out"][reason] for reason in (NOT_CHOSEN, NO_ID))
    origin |= {"rows": len(ids) + passed_over, "ids": digest(ids), "next": 0}
    if args.after:
        origin["next"] = read_next(args, origin)
        for reason in (NOT_CHOSEN, NO_ID):
            facts["left out"].pop(reason, None)  # the first block has counted them
    count_tokens = load_counter(args)
    order = range(len(ids))
    if args.limit:
        order = sorted(order, key=lambda i: (derive_seed(args.seed, "select", ids[i]), i))
    taken = 0
    while taken != args.limit and origin["next"] < len(ids):
        entry, place = entry_at(order[origin["next"]])
        origin["next"] += 1
        if entry and count_tokens and sum(map(count_tokens, entry.messages)) > args.max_tokens:
            facts["left out"][f"longer than {args.max_tokens} tokens"] += 1
            entry = None
        if entry and not args.no_language_check and is_foreign(entry.messages, args.language):
            facts["left out"]["wrong_language"] += 1
            entry = None
        if entry:
            taken += 1
            yield entry, place
    for reason, count in facts["left out"].items():
        print(f"excluded: {count} with {reason}", file=sys.stderr)
    if not taken and not args.after:
        raise InputError(
            f"none of the {origin['rows']} rows can be used",
            "correct id, text, reference, where or max_tokens",
            args.input or args.dataset,
        )
    if args.limit and taken < args.limit:
        print(f"warning: only {taken} of {args.limit} prompts: the source has no more", file=sys.stderr)


def read_next(args, origin):
    """The rank at which the block --after ended; raises InputError where the source has changed since then."""
    manifest = read_json(args.after.with_suffix(".manifest.json"))
    if (stage := manifest.get("stage")) != Path(__file__).stem:
        raise InputError(
            f"its manifest, {args.after.with_suffix('.manifest.json')}, is of the stage {stage}",
            "give a block that scripts/prompts.py wrote, with the manifest that it wrote beside it",
            args.after,
        )
    before = manifest.get("origin") or {}
    if "ids" not in before:
        raise InputError(
            "it has no place in the order of the source, as a block that was made with --select",
            "give a block of the source language that was made without --select",
            args.after,
        )
    if before["ids"] != origin["ids"]:
        raise InputError(
            f"selected from {before['rows']} rows, the source now has others ({origin['rows']} rows)",
            "pin the dataset's revision; to take the new source, delete the prompts folder and start again",
            args.after,
        )
    return before["next"]


def is_foreign(messages, language):
    """Whether the user's turns are in another language; too short texts count as in the right one."""
    text = "\n".join(message["content"] for message in messages if message["role"] == "user")
    found = detect_language(text, language)
    return found is not None and name_language(found) != name_language(language)


def read_local(args, source, facts):
    """(ids, function from index to (entry, place)) of a file, checked as a whole.

    An entry that cannot be used is None, and counted by its fault.
    """
    entries, not_chosen = read_source(args.input, source)
    if not_chosen:
        facts["left out"][NOT_CHOSEN] = not_chosen

    def entry_at(i):
        entry = entries[i]
        if entry.fault:
            facts["left out"][entry.fault] += 1
        return None if entry.fault else entry, f"{args.input.name}:{entry.line}"

    return [entry.prompt_id for entry in entries], entry_at


def read_dataset(args, source, facts):
    """As read_local, of a dataset."""
    data = open_dataset(args.dataset, args.subset, args.revision, args.split)
    tops = [name if name in data.column_names else name.split(".")[0] for name in (args.id, *source.where)]
    for top in tops[args.id == ROW_NUMBER :]:
        if top not in data.column_names:
            raise InputError(
                "missing column",
                f"name another under `{'id' if top == tops[0] else 'where'}`; here are {', '.join(data.column_names)}",
                args.dataset,
                field=top,
            )
    chosen = range(len(data))
    if source.where:
        present = data.select_columns(sorted(set(tops[1:])))
        seen = set()
        chosen = [i for i, row in enumerate(present) if is_chosen(row, source, seen)]
        check_where(source, seen, args.dataset)
        facts["left out"][NOT_CHOSEN] = len(data) - len(chosen)
    if args.id == ROW_NUMBER:
        ids = [str(i + 1) for i in chosen]
    else:
        column = data.select_columns(tops[:1])
        rows, chosen, ids = chosen, [], []
        for i in rows:
            row = column[i]
            if not args.unique and not args.select and has_no_id(row, source):
                facts["left out"][NO_ID] += 1
                continue
            chosen.append(i)
            ids.append(read_prompt_id(row, source, args.dataset, i))
    first = {}
    for i, prompt_id in zip(chosen, ids, strict=True):
        if first.setdefault(prompt_id, i) != i and (args.unique or args.select):
            raise InputError(
                f"duplicate id {show_id(prompt_id)}, first in row {first[prompt_id]}"
                + tell_apart(*(spell_id(data[row], source) for row in (first[prompt_id], i))),
                "give each prompt its own id",
                args.dataset,
                i,
                args.id,
            )

    def entry_at(k):
        i = chosen[k]
        place = f"{args.dataset}#{i}"
        if first[ids[k]] != i:
            facts["left out"]["the id of an earlier row"] += 1
            return None, place
        try:
            return read_entry(data[i], source, args.dataset, i + 1, i), place
        except InputError as error:
            facts["left out"][error.problem] += 1
            return None, place

    return ids, entry_at


def load_counter(args):
    """A function that counts a message's tokens, or None without --max-tokens."""
    if not args.tokenizer:
        return None
    from transformers import AutoTokenizer

    from croco.models.loading import model_errors

    with model_errors(args.tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(args.tokenizer, revision=args.tokenizer_revision)
    return lambda message: len(tokenizer(message["content"], add_special_tokens=False)["input_ids"])


if __name__ == "__main__":
    cli.run(main)
