"""Find training prompts that are part of the evaluation data, before anything is sampled; needs no model.

Examples:
  python scripts/contamination.py --language en --prompts prompts/en/0.jsonl --evaluate prompts/evaluate/en.jsonl \\
      --task facts tasks/facts/en.jsonl question --output prompts/en/0.contamination.json
  python scripts/contamination.py --checked prompts/en/0.contamination.json --output contamination.json

--prompts  compares a block of training prompts with the evaluation prompts and task data of its language.
           `exact`: an evaluation prompt, or the question of a task, is the whole prompt or one of the user's turns, after
           NFC, case and white-space folding. `ngram_13`: exact, or 13 words in a row in common (13 characters in scripts
           without spaces). If the share of the block's prompts exceeds --exact or --ngram, it ends with exit code 1.
           With --action remove the share does not matter: `removed` lists all exact hits and, with an --ngram
           under 1, the others, too. build_pairs.py --exclude uses none of them.
--checked  adds up the blocks for the report, by language and source, and names what was not checked.

All texts in a task's fields are compared, also in lists and objects. A text under 3 words, such as an answer option,
makes no exact overlap. A row without any text is counted under `without_text`. The workflow uses the fields that the
task's YAML names in doc_to_decontamination_query, or else in doc_to_text, or else all fields.
"""

import argparse
from pathlib import Path

from croco import cli
from croco.errors import InputError
from croco.prompts.overlap import KINDS, WORD, Evaluated, list_turns, read_found
from croco.records import Prompt, read_jsonl, read_records, write_json
from croco.text.normalise import is_blank

ARENA = "evaluation prompts"
FEWEST_WORDS = 3


def main():
    args = parse_arguments()
    if args.checked:
        write_json(args.output, {"languages": add_up(args.checked), "unchecked": args.unchecked})
        files = args.checked
    else:
        write_json(args.output, check(args, read_sources(args)))
        files = [args.prompts, args.evaluate, *(data for _, data, *_ in args.task)]
    inputs = {str(path): Path(path) for path in files if path}
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, inputs)


def parse_arguments():
    parser = cli.parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompts", type=Path, help="block of training prompts to check")
    what.add_argument("--checked", type=Path, nargs="+", help="what was found in the blocks, to add up")
    parser.add_argument("--language", help="code of the language")
    parser.add_argument("--evaluate", type=Path, help="evaluation prompts of the language")
    parser.add_argument(
        "--task",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "DATA"),
        help="a structured task with local data in the language, and the FIELDs of its question (default: all texts); "
        "`FIELD?` may be absent",
    )
    parser.add_argument("--exact", type=share, default=0.0, help="share of prompts that may be evaluation prompts")
    parser.add_argument("--ngram", type=share, default=1.0, help="share of prompts that may have 13 words in common")
    parser.add_argument(
        "--action",
        choices=("stop", "remove"),
        default="stop",
        help="stop if a share is exceeded, or list the prompts to remove, whatever their share",
    )
    parser.add_argument(
        "--unchecked", nargs="*", default=[], metavar="NAME", help="with --checked: evaluated, but not compared"
    )
    parser.add_argument("--output", type=Path, required=True, help="what was found, .json")
    args = parser.parse_args()
    if any(len(task) < 2 for task in args.task):
        parser.error("--task needs NAME DATA")
    if args.prompts and not args.language:
        parser.error("--prompts needs --language")
    return args


def share(text):
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def check(args, sources):
    """What was found; raises InputError where --action stop finds more than the allowed shares."""
    prompts = []
    found = {name: {kind: {"prompts": [], "evaluated": set()} for kind in KINDS} for name in sources}
    for row in read_prompts(args.prompts, args.language):
        if row.get("skip"):
            continue
        prompts.append(row["prompt_id"])
        for name, source in sources.items():
            for kind, entries in source.find(row).items():
                if entries:
                    found[name][kind]["prompts"].append(row["prompt_id"])
                    found[name][kind]["evaluated"] |= entries
    hits = {kind: set().union(*(of_kind[kind]["prompts"] for of_kind in found.values())) for kind in KINDS}
    limits = dict(zip(KINDS, (args.exact, args.ngram), strict=True))
    over = [kind for kind in KINDS if hits[kind] and len(hits[kind]) / len(prompts) > limits[kind]]
    if over and args.action == "stop":
        overlaps = [
            f"{kind}, {name}: {len(ids)} ({', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''})"
            for kind in over
            for name, of_kind in found.items()
            if (ids := of_kind[kind]["prompts"])
        ]
        raise InputError(
            f"of {len(prompts)} training prompts in {args.language}, these are part of the evaluation data: "
            + "; ".join(overlaps),
            "remove them with `contamination: remove`, choose other prompts, or allow a share under max_overlap",
            args.prompts,
        )
    # The share is ignored: otherwise the size of a block would decide whether a prompt is trained on.
    exact, shared = KINDS
    taken_out = {"stop": set(), "remove": hits[shared] if args.ngram < 1 else hits[exact]}[args.action]
    return {
        "language": args.language,
        "prompts": len(prompts),
        "hits": {kind: len(ids) for kind, ids in hits.items()},
        "removed": [prompt_id for prompt_id in prompts if prompt_id in taken_out],
        "sources": {
            name: {
                "evaluated": sources[name].count,
                "without_text": sources[name].without_text,
                **{kind: {what: sorted(ids) for what, ids in of_kind[kind].items()} for kind in KINDS},
            }
            for name, of_kind in found.items()
        },
    }


def read_sources(args):
    """{name: Evaluated} of the given data that the language is evaluated on; raises InputError if there is none."""
    sources = {}
    if args.evaluate:
        sources[ARENA] = arena = Evaluated()
        rows = list(read_prompts(args.evaluate, args.language))
        if not rows:
            raise InputError("no evaluation prompts", "give the file that prompts.py wrote", args.evaluate)
        for row in rows:
            if row.get("skip"):
                continue
            if turns := list_texts(list_turns(row)):
                arena.add(turns, ["\n".join(turns)])
            else:
                arena.without_text += 1
    for name, data, *fields in args.task:
        sources[name] = read_task(data, fields)
    if not sources:
        raise InputError("nothing to compare the training prompts with", "give --evaluate, --task or both")
    return sources


def read_prompts(path, language):
    """The rows of a prompt file of one language."""
    for number, row in read_records(path, Prompt):
        if row["language"] != language:
            raise InputError(
                f"{row['language']!r} in a check of {language!r}",
                "give --language the language of the prompts, and evaluation prompts in the same",
                path,
                number,
                "language",
            )
        yield row


def read_task(path, fields):
    """The Evaluated of a task's data; a row without text in the fields (all, if none are named) is counted as such."""
    task, absent = Evaluated(), {field for field in fields if not field.endswith("?")}
    names = [field.removesuffix("?") for field in fields]
    for _, row in read_jsonl(path):
        absent -= row.keys()
        texts = list_texts([row.get(name) for name in names] if names else row)
        if texts:
            task.add(texts, [text for text in texts if len(WORD.findall(text)) >= FEWEST_WORDS])
        else:
            task.without_text += 1
    if absent or not task.count:
        raise InputError(
            f"no row has {', '.join(sorted(absent))}" if absent else "no text to compare with the training prompts",
            "name the question's field under doc_to_decontamination_query in the task's YAML, and give the task's data",
            path,
            field=", ".join(fields) or None,
        )
    return task


def list_texts(value):
    """All texts with visible characters in a JSON value, in order."""
    if isinstance(value, str):
        return [] if is_blank(value) else [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in inner for text in list_texts(part)]


def add_up(paths):
    """{language: counts} over all blocks; an evaluation prompt in several blocks counts once."""
    languages, seen = {}, set()
    for path in paths:
        if path.resolve() in seen:
            raise InputError("the same file twice", "give each block once", path)
        seen.add(path.resolve())
        block = read_found(path)
        total = languages.setdefault(
            block.language,
            {"prompts": 0, **dict.fromkeys(KINDS, 0), "removed": 0, "exact_left_in": 0, "sources": {}},
        )
        total["prompts"] += block.prompts
        total["removed"] += len(block.removed)
        # A block with removed prompts has all its exact hits removed.
        total["exact_left_in"] += 0 if block.removed else block.hits["exact"]
        for kind in KINDS:
            total[kind] += block.hits[kind]
        for name, source in block.sources.items():
            of_source = total["sources"].setdefault(name, {kind: {"prompts": 0, "evaluated": set()} for kind in KINDS})
            of_source.update({name: source[name] for name in ("evaluated", "without_text")})
            for kind in KINDS:
                of_source[kind]["prompts"] += len(source[kind]["prompts"])
                of_source[kind]["evaluated"].update(source[kind]["evaluated"])
    for total in languages.values():
        for source in total["sources"].values():
            for kind in KINDS:
                source[kind]["evaluated"] = len(source[kind]["evaluated"])
    return languages


if __name__ == "__main__":
    cli.run(main)
