"""Find training prompts that stand among what is evaluated, before anything is sampled; needs no model.

Examples:
  python scripts/contamination.py --language en --prompts prompts/en/0.jsonl --evaluate prompts/evaluate/en.jsonl \\
      --task facts tasks/facts/en.jsonl question --output prompts/en/0.contamination.json
  python scripts/contamination.py --checked prompts/en/0.contamination.json --output contamination.json

--prompts  compares a block of training prompts with the evaluation prompts and task data of its language.
           `exact`: an evaluation prompt, or the question of a task, is the whole prompt or one of the user's turns, after
           NFC, case and white-space folding. `ngram_13`: exact, or 13 words in a row in common (13 characters in scripts
           without spaces). Where the share of the block's prompts exceeds --exact or --ngram, it ends with exit code 1;
           with --action remove it lists these prompts under `removed`, of which build_pairs.py --exclude forms nothing.
--checked  adds the blocks up for the report, by language and source, and names what was not checked.

A field of a task under 3 words, as an answer option is, makes no exact overlap. The workflow takes the fields that the
task's YAML names in doc_to_decontamination_query, else in doc_to_text.
"""

import argparse
import json
from pathlib import Path

from croco import cli
from croco.overlap import KINDS, WORD, Evaluated, list_turns
from croco.records import InputError, prompt_rows, read_jsonl, write_json

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
        help="a structured task with local data in the language, and the FIELDs of its question (default: all texts)",
    )
    parser.add_argument("--exact", type=share, default=0.0, help="share of prompts that may be evaluation prompts")
    parser.add_argument("--ngram", type=share, default=1.0, help="share of prompts that may have 13 words in common")
    parser.add_argument(
        "--action", choices=("stop", "remove"), default="stop", help="what follows where a share is exceeded"
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
    for row in prompt_rows(args.prompts):
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
    over = [kind for kind in KINDS if len(hits[kind]) > limits[kind] * len(prompts)]
    if over and args.action == "stop":
        told = [
            f"{kind}, {name}: {len(ids)} ({', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''})"
            for kind in over
            for name, of_kind in found.items()
            if (ids := of_kind[kind]["prompts"])
        ]
        raise InputError(
            f"of {len(prompts)} training prompts in {args.language}, these stand among what is evaluated: "
            + "; ".join(told),
            "take them out with `contamination: remove`, choose other prompts, or allow a share under max_overlap",
            args.prompts,
        )
    removed = set().union(*(hits[kind] for kind in over))
    return {
        "language": args.language,
        "prompts": len(prompts),
        "hits": {kind: len(ids) for kind, ids in hits.items()},
        "removed": [prompt_id for prompt_id in prompts if prompt_id in removed],
        "sources": {
            name: {
                "evaluated": sources[name].count,
                **{kind: {what: sorted(ids) for what, ids in of_kind[kind].items()} for kind in KINDS},
            }
            for name, of_kind in found.items()
        },
    }


def read_sources(args):
    """{name: Evaluated} of all that the language is evaluated on and that lies here."""
    sources = {}
    if args.evaluate:
        sources[ARENA] = arena = Evaluated()
        for row in prompt_rows(args.evaluate):
            if not row.get("skip"):
                turns = list_turns(row)
                arena.add(turns, ["\n".join(turns)])
    for name, data, *fields in args.task:
        sources[name] = task = Evaluated()
        for number, row in read_jsonl(data):
            texts = [row[field] for field in (fields or row) if isinstance(row.get(field), str)]
            if not texts:
                raise InputError(
                    "no text to compare with the training prompts",
                    "name the question's field under doc_to_decontamination_query in the task's YAML",
                    data,
                    number,
                    ", ".join(fields) or None,
                )
            task.add(texts, [text for text in texts if len(WORD.findall(text)) >= FEWEST_WORDS])
    return sources


def add_up(paths):
    """{language: counts} over all blocks; an evaluation prompt that stands in several blocks counts once."""
    languages = {}
    for path in paths:
        block = json.loads(path.read_text(encoding="utf-8"))
        total = languages.setdefault(
            block["language"],
            {"prompts": 0, **dict.fromkeys(KINDS, 0), "removed": 0, "exact_left_in": 0, "sources": {}},
        )
        total["prompts"] += block["prompts"]
        total["removed"] += len(block["removed"])
        # Whatever is over its share is removed as a whole, and exact hits are among those of 13-grams.
        total["exact_left_in"] += 0 if block["removed"] else block["hits"]["exact"]
        for kind in KINDS:
            total[kind] += block["hits"][kind]
        for name, source in block["sources"].items():
            of_source = total["sources"].setdefault(name, {kind: {"prompts": 0, "evaluated": set()} for kind in KINDS})
            of_source["evaluated"] = source["evaluated"]
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
