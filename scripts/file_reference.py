"""Write the reference of the files of a run, in Markdown: each field with type and meaning, and an example line.

Example:
  python scripts/file_reference.py --formats docs/files.yaml --output docs/files.md

`make reference` runs this. Fields and types come from the typed records of scripts/croco, meanings and examples from
docs/files.yaml. A field of a record without a meaning is an error. Fields without a record have their type there.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import yaml

from croco import cli, planned, records, runs
from croco.errors import InputError
from croco.files import replacing
from croco.pairs import pools
from croco.results import table

RECORDS = {
    "Prompt": records.Prompt,
    "Generation": records.Generation,
    "Score": records.Score,
    "Identified": records.Identified,
    "ScoredPair": records.ScoredPair,
    "Completion": records.Completion,
    "Verdict": records.Verdict,
    "Run": runs.Run,
    "Row": table.Row,
    "LanguageCounts": pools.LanguageCounts,
    "PlannedStage": planned.PlannedStage,
}


def main():
    args = parse_arguments()
    formats = yaml.safe_load(args.formats.read_text(encoding="utf-8"))
    parts = ["<!-- Written by `make reference` from docs/files.yaml and the records of scripts/croco. -->"]
    parts.append(formats["head"].strip())
    for name, part in formats["files"].items():
        parts += write_format(name, part, args.formats)
    with replacing(args.output) as file:
        file.write("\n\n".join(parts) + "\n")


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--formats", type=Path, required=True, help="YAML with the meanings and examples")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    return parser.parse_args()


def write_format(name, part, source):
    """Heading, path, table of fields and example of one file format."""
    types = list_types(part)
    if missing := sorted(types.keys() - part["fields"].keys()):
        raise InputError("a field of the record has no meaning", "write it", source, field=f"{name}.{missing[0]}")
    yield f"## {name}"
    yield f"`{part['path']}`. {part['about']}"
    lines = ["| field | type | meaning |", "|---|---|---|"]
    for field, meaning in part["fields"].items():
        kind, text = (types[field], meaning) if field in types else (meaning["type"], meaning["meaning"])
        lines.append(f"| `{field}` | {kind} | {text} |")
    yield "\n".join(lines)
    if "example" in part:
        example = part["example"]
        line = example if isinstance(example, str) else json.dumps(example, ensure_ascii=False)
        yield f"```\n{line.strip()}\n```"


def list_types(part):
    """{field: type in words} of the record of a format; empty without one."""
    if "record" not in part:
        return {}
    return {name: name_type(kind) for name, kind in list_fields(RECORDS[part["record"]]).items()}


def list_fields(record):
    """{field: type} of a msgspec record, a dataclass or a TypedDict."""
    if hasattr(record, "__struct_fields__"):
        return {name: get_type_hints(record)[name] for name in record.__struct_fields__}
    if hasattr(record, "__dataclass_fields__"):
        return {field.name: get_type_hints(record)[field.name] for field in fields(record)}
    return get_type_hints(record)


def name_type(kind):
    """A type in words: list of (number or null)."""
    names = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "`true` or `false`",
        dict: "object",
        type(None): "null",
    }
    if kind in names:
        return names[kind]
    arguments = [part for part in getattr(kind, "__args__", ()) if part is not Ellipsis]
    origin = getattr(kind, "__origin__", None)
    if origin in (list, tuple):
        return f"list of {wrap(arguments[0])}"
    if origin is dict:
        return f"object of {wrap(arguments[1])}"
    if arguments and all(isinstance(part, str) for part in arguments):
        return ", ".join(f"`{part}`" for part in arguments)
    if arguments:
        return " or ".join(name_type(part) for part in arguments)
    return {"Message": "message", "Response": "response"}.get(kind.__name__, kind.__name__)


def wrap(kind):
    """A type in words, in brackets where it has several."""
    text = name_type(kind)
    return f"({text})" if " or " in text or ", " in text else text


if __name__ == "__main__":
    cli.run(main)
