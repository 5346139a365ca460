"""Write the reference of the config, in Markdown, from its schema: each key with type, default and meaning.

Example:
  python scripts/reference.py --schema config/schema.yaml --config config/config.yaml --head config/README.head.md \\
      --output config/README.md

`make reference` runs this. It reads the keys and their descriptions from the schema, and no rules between keys (such
as if, allOf or dependentRequired). The top of the schema explains the keywords notes, fallback and otherwise.
"""

import json
import re
from pathlib import Path

import yaml

from croco import cli
from croco.config.schema import resolve
from croco.files import replacing

TABLE = ("| key | type | default | meaning |", "|---|---|---|---|")
SHARED = "Keys of several sections"
NO_DEFAULT = "-"
BAR = "\\|"  # a | inside a cell


def main():
    args = parse_arguments()
    schema, config = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (args.schema, args.config))
    head = args.head.read_text(encoding="utf-8")
    with replacing(args.output) as file:
        file.write(write_reference(schema, config, head))


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--schema", type=Path, required=True, help="schema of the config")
    parser.add_argument("--config", type=Path, required=True, help="default config, for the defaults of required keys")
    parser.add_argument("--head", type=Path, required=True, help="Markdown to begin with")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    return parser.parse_args()


def write_reference(schema, config, head):
    """The whole file: the head, the keys without a section, the sections, the shared keys."""
    keys = schema["properties"]
    single = {key: part for key, part in keys.items() if not find_rows(part, schema)}
    sections = [
        "<!-- Written by `make reference` from config/schema.yaml and config/README.head.md: edit those. -->",
        head.strip(),
        "## Top level",
        write_table(single, schema, required=schema["required"], given=config),
    ]
    for key, part in keys.items():
        if key not in single:
            sections += write_section(key, part, schema, config.get(key))
    sections += write_shared(schema)
    return "\n\n".join(sections) + "\n"


def write_section(name, part, root, given=None, level=2):
    """Heading, description, table, notes and sub-tables of a mapping or of the rows of a list."""
    part, rows = resolve(part, root), find_rows(part, root)
    form = "A list of rows." if part.get("type") == "array" else "A mapping."
    yield f"{'#' * level} `{name}`"
    yield f"{code_braces(part['description'])} {form}"
    yield write_table(rows["properties"], root, name, rows.get("required", ()), given)
    if "notes" in part:
        yield part["notes"].strip()
    for key, nested in rows["properties"].items():
        if find_rows(nested, root) and "$ref" not in nested:
            yield from write_section(f"{name}.{key}", nested, root, level=3)


def write_shared(root):
    """The keys that several sections have, each once with its notes."""
    yield f"## {SHARED}"
    yield "These keys have the same meaning in every section that has them."
    parts = root["$defs"]
    yield write_table({key: part for key, part in parts.items() if not find_rows(part, root)}, root)
    for key, part in parts.items():
        if find_rows(part, root):
            yield from write_section(key, part, root)


def write_table(properties, root, section="", required=(), given=None):
    lines = [*TABLE]
    for key, part in properties.items():
        cells = (
            f"`{key}`",
            format_type(part, root),
            format_default(key, part, root, required, given),
            format_meaning(key, part, root, section),
        )
        lines.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
    return "\n".join(lines)


def format_type(part, root):
    """Type, range and allowed values in words."""
    part = resolve(part, root)
    if "title" in part:
        return part["title"]
    if "enum" in part or "const" in part:
        return ", ".join(f"`{value}`" for value in part.get("enum", [part.get("const")]))
    if "type" not in part and "oneOf" in part:
        return " or ".join(format_type(alternative, root) for alternative in part["oneOf"])
    if part["type"] == "array":
        return "list of rows" if find_rows(part, root) else f"list ({format_type(part['items'], root)})"
    names = {"object": "mapping", "boolean": "`true` or `false`", "string": "text"}
    name = names.get(part["type"], part["type"])
    return " ".join([name, *format_range(part)])


def format_range(part):
    """["from 0", "to 1"] for a number in [0, 1]."""
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return [f"{word} {part[bound]}" for bound, word in words.items() if bound in part]


def format_default(key, part, root, required, given):
    """The default of a key, from the schema or else from the default config."""
    part = resolve(part, root)
    if "otherwise" in part:
        return code_braces(part["otherwise"])
    for keyword in ("default", "fallback"):
        if keyword in part:
            return format_value(part[keyword])
    value = given.get(key) if isinstance(given, dict) else None
    if isinstance(value, str | int | float):
        return f"{format_value(value)} in the miniature"
    return "**required**" if key in required else NO_DEFAULT


def format_value(value):
    """As YAML writes it in one line."""
    if value in ({}, []):
        return "empty"
    if isinstance(value, str) and "\n" in value:
        return f"`{json.dumps(value, ensure_ascii=False)}`"
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1000)
    return f"`{text.strip().removesuffix('...').strip()}`"


def format_meaning(key, part, root, section):
    """Description, notes and examples, or a link for a key with its own table."""
    given, part = part, resolve(part, root)
    texts = [code_braces(part["description"])]
    if find_rows(part, root):
        name = given["$ref"].split("/")[-1] if "$ref" in given else f"{section}.{key}"
        return f"{texts[0]} See [`{name}`](#{name.replace('.', '')})."
    if "notes" in given:
        texts.append(code_braces(given["notes"]))
    elif "notes" in part:
        texts.append(f"See [{SHARED.lower()}](#{SHARED.lower().replace(' ', '-')}).")
    if "examples" in part:
        texts.append(f"Example: {', '.join(map(format_value, part['examples']))}.")
    return " ".join(" ".join(texts).split())


def code_braces(text):
    """The text with {language}, or a path with it, as code, unless it is in code already."""
    pieces = text.split("`")
    pieces[::2] = [re.sub(r"\{[^{}]*\}(/[\w/.]*[\w/])?", r"`\g<0>`", piece) for piece in pieces[::2]]
    return "`".join(pieces)


def find_rows(part, root):
    """The schema of a mapping with named keys, or of the rows of a list of such mappings; None for other values."""
    part = resolve(part, root)
    for candidate in (part, *part.get("oneOf", ()), resolve(part.get("items", {}), root)):
        if "properties" in candidate:
            return candidate
    return None


if __name__ == "__main__":
    cli.run(main)
