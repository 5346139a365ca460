"""Join the blocks of a stage (prompts, generations, languages, scores) to one file, in prompt order.

Example:
  python scripts/gather.py --prompts prompts/de.jsonl --parts de/generations/0.jsonl de/generations/1000.jsonl \\
      --output de/generations.jsonl

Streams line by line and checks that the parts hold the prompts, each once and in order. A single part is linked, not
copied. Each part needs its manifest, PART.manifest.json, beside it. The manifests become one: counts are added up, and
all parts must come from the same model.
"""

import itertools
from pathlib import Path

from croco import cli
from croco.errors import InputError
from croco.files import publish
from croco.records import Record, read_json, read_records, write_jsonl


def main():
    args = parse_arguments()
    counts, inputs = merge_manifests(args.parts)
    lines = lines_in_order(args)
    if len(args.parts) == 1:
        for _ in lines:  # raises where a line is not the next prompt's
            pass
        publish(args.parts[0], args.output)
    else:
        write_jsonl(args.output, lines)
    if args.prompts:
        inputs["prompts"] = args.prompts
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, inputs, counts=counts)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--prompts", type=Path, help="prompt file whose ids and order the parts must have")
    parser.add_argument("--parts", type=Path, nargs="+", required=True, help="block files, in order")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    return parser.parse_args()


def lines_in_order(args):
    """The parts' lines; raises InputError where one is not that of the next prompt."""
    lines = ((path, number, row) for path in args.parts for number, row in read_records(path, Record))
    if not args.prompts:
        seen = set()
        for path, number, row in lines:
            if row["prompt_id"] in seen:
                raise InputError(
                    f"duplicate prompt_id {row['prompt_id']} in the blocks",
                    "select all blocks again",
                    path,
                    number,
                    "prompt_id",
                )
            seen.add(row["prompt_id"])
            yield row
        return
    for prompt, line in itertools.zip_longest(read_records(args.prompts, Record), lines):
        path, number, row = line or (args.parts[-1], None, {})
        expected = prompt[1]["prompt_id"] if prompt else None
        if row.get("prompt_id") != expected:
            found = f"prompt_id is {row['prompt_id']!r}" if "prompt_id" in row else "the file ends"
            raise InputError(
                f"{found} where {args.prompts} {f'has {expected!r}' if expected else 'ends'}",
                "give all blocks of this prompt file, in order",
                path,
                number,
                "prompt_id",
            )
        yield row


def merge_manifests(parts):
    """(summed counts, common inputs) of the parts.

    Raises InputError where they were made by different models, or a manifest is missing or lacks counts or inputs.
    """
    counts, inputs = {}, {}
    for path in parts:
        beside = path.with_suffix(".manifest.json")
        manifest = read_json(beside)
        for field in ("counts", "inputs"):
            if not isinstance(manifest.get(field), dict):
                raise InputError(
                    "missing, or no object", f"make {path} again: its manifest is {beside.name}", beside, field=field
                )
        add(counts, manifest["counts"])
        for name in ("policy", "reward_model", "translator"):
            value = manifest["inputs"].get(name)
            if inputs.setdefault(name, value) != value:
                raise InputError(
                    f"made by another model ({name} {value}) than {parts[0]}",
                    "make all blocks with one model",
                    path,
                    field=name,
                )
    return counts, {name: value for name, value in inputs.items() if value is not None}


def add(total, counts):
    for name, value in counts.items():
        if isinstance(value, dict):
            add(total.setdefault(name, {}), value)
        else:
            total[name] = total.get(name, 0) + value


if __name__ == "__main__":
    cli.run(main)
