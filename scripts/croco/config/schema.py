"""Checking the config against its schema, with errors that name file, line and key."""

import copy
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend

from croco.config.checks import secrets
from croco.config.faults import Fault, raise_errors, raise_faults
from croco.errors import InputError

# By libyaml where PyYAML was built with it.
FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LARGEST_INTEGER = 2**63 - 1
# A few short aliases can stand for billions of nodes.
MOST_NODES = 100_000
LONGEST_MESSAGE = 300
# Numbers that YAML 1.1 reads in base 8 or 60.
OCTAL = re.compile(r"[-+]?0[0-7_]+")
SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


def _is_integer(_checker: Any, value: Any) -> bool:
    """JSON takes 64.0 for an integer; a command line does not. Libraries take 64 bits at most."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INTEGER


def _is_number(_checker: Any, value: Any) -> bool:
    """YAML reads .nan and .inf as numbers; nothing can be done with them."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _check_pattern(_validator: Any, pattern: str, value: Any, _schema: dict) -> Iterator[ValidationError]:
    """In JSON schema, $ is the end of the text; in Python, a newline may follow it."""
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


StrictValidator = extend(
    Draft202012Validator,
    validators={"pattern": _check_pattern},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number}),
)


class Locator:
    """Finds the file and line of a key in the config files.

    Args:
        files: paths in order of precedence (files of --configfile before the default).
        overrides: top-level keys given on the command line by --config.
        default: the file of the default config, where it is one of them.
        elsewhere: what to name in the place of a file where a key is in none of them.
    Raises InputError for what YAML would silently read in another way than the user meant: a key that is listed twice in
    one mapping, a number in base 8 or 60, a date. Also for aliases that stand for too much.
    """

    def __init__(
        self,
        files: Iterable[str | Path],
        overrides: Iterable[str] = (),
        default: str | Path | None = None,
        elsewhere: str = "--config",
    ) -> None:
        self.overrides = set(overrides)
        self.default, self.elsewhere = default, elsewhere
        self.trees = []
        for path in files:
            with open(path, encoding="utf-8") as file:
                tree = yaml.compose(file, Loader=yaml.SafeLoader)
            if tree is not None:
                if _count_nodes(tree, {}) > MOST_NODES:
                    raise InputError("its aliases (*name) stand for too much", "write the rows out", path)
                raise_errors([*_find_misread(tree, path)])
                self.trees.append((path, tree))

    def find(self, keys: Sequence[str | int]) -> tuple[str | Path, int | None]:
        """(file, line) of the deepest node on the way to ``keys``; of a key, the line on which it stands."""
        if keys and keys[0] in self.overrides:
            return "--config", None
        best: tuple[int, str | Path, int | None] = (0, self.elsewhere, None)
        # Mappings are merged, so the deepest file knows best; a list belongs whole to the first file that has it.
        up_to_list = _depth_of_list(keys)
        for path, tree in self.trees:
            depth, line, node = 0, None, tree
            for key in keys:
                if isinstance(node, yaml.MappingNode):
                    entry = next((pair for pair in node.value if pair[0].value == str(key)), None)
                    if entry is None:
                        break
                    line, node = entry[0].start_mark.line + 1, entry[1]
                elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                    node = node.value[key]
                    line = node.start_mark.line + 1
                else:
                    break
                depth += 1
            if depth > best[0]:
                best = (depth, path, line)
            if depth >= up_to_list:
                break
        return best[1:]

    def is_default(self, keys: Sequence[str | int]) -> bool:
        """Whether a key's value comes from the default config, and there are further files."""
        path, _ = self.find(keys)
        return len(self.trees) > 1 and path == self.default

    def rank(self, keys: Sequence[str | int]) -> tuple[int, int]:
        """Where a key is in the order of the files, for sorting: (number of the file, line)."""
        path, line = self.find(keys)
        files = [file for file, _ in self.trees]
        return (files.index(path) if path in files else -1, line or 0)

    def error(self, fault: Fault) -> InputError:
        """The InputError of a fault, with its file and line."""
        path, line = (fault.path, None) if fault.path else self.find(fault.keys)
        remedy = fault.remedy
        if not fault.path and self.is_default(fault.keys):
            own = format_keys(fault.keys[: _depth_of_list(fault.keys)])
            remedy += f" (inherited from {path}: write {own} in your own config)"
        return InputError(fault.problem, remedy, path, line, format_keys(fault.keys) or "(top level)")


def _depth_of_list(keys: Sequence[str | int]) -> int:
    """How many keys lead to the first list, or to the value if there is none."""
    return next((i for i, key in enumerate(keys) if isinstance(key, int)), len(keys))


def _count_nodes(node: yaml.Node, counts: dict[int, float]) -> float:
    """Nodes below a node, with its aliases written out; infinite if it holds itself. ``counts`` are those known by id."""
    if id(node) not in counts:
        counts[id(node)] = float("inf")
        below = node.value if isinstance(node, yaml.SequenceNode) else []
        below = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else below
        counts[id(node)] = 1 + sum(_count_nodes(part, counts) for part in below)
    return counts[id(node)]


def _find_misread(node: yaml.Node, path: str | Path, key: str | None = None) -> Iterator[InputError]:
    """An InputError of each key that is listed twice in one mapping, and of each value that YAML reads in its own way.

    ``key`` is the last one on the way to the node.
    """
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for name, value in node.value:
            if name.value in seen:
                line = name.start_mark.line + 1
                yield InputError("the key is listed twice", "keep one of them", path, line, name.value)
            seen.add(name.value)
            if name.tag.rpartition(":")[2] not in ("str", "merge"):
                line, problem = name.start_mark.line + 1, f"the key {name.value} is not text to YAML"
                yield InputError(problem, f'correct it, or quote it: "{name.value}"', path, line, name.value)
            yield from _find_misread(value, path, name.value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _find_misread(value, path, key)
    elif isinstance(node, yaml.ScalarNode) and (meaning := _explain_scalar(node)):
        yield InputError(*meaning, path, node.start_mark.line + 1, key)


def _explain_scalar(node: yaml.ScalarNode) -> tuple[str, str] | None:
    """(problem, remedy) of a scalar that YAML reads in another way than people do, else None."""
    kind, text = node.tag.rpartition(":")[2], node.value
    if kind == "timestamp":
        return f"{text} is a date to YAML", f'quote it: "{text}"'
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        return f"{text!a} holds a zero byte or half a character", "remove it"
    base = "octal" if OCTAL.fullmatch(text) else "sexagesimal" if SEXAGESIMAL.fullmatch(text) else None
    if kind in ("int", "float") and base:
        number = yaml.safe_load(text)
        return f"{text} is {base} to YAML and means {number}", f'write {number}, or quote it: "{text}"'
    return None


def format_keys(keys: Sequence[str | int]) -> str:
    """settings[2].name for ("settings", 2, "name")."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")


def check_config(config: dict, schema_path: str | Path, locator: Locator) -> None:
    """Fills in the schema's defaults; raises InputError with all secrets, or else all violations of the schema."""
    # First, because other messages print the values that they refuse.
    found = secrets.find_secrets(config)
    raise_faults((Fault(keys, secrets.PROBLEM, secrets.REMEDY) for keys in found), locator)
    schema = yaml.load(Path(schema_path).read_text(encoding="utf-8"), FAST_LOADER)
    raise_faults(find_violations(config, schema), locator)
    fill_defaults(config, schema, schema)


def find_violations(config: dict, schema: dict) -> Iterator[Fault]:
    """One fault per violation of the schema, or more where several keys violate the same rule."""
    for error in StrictValidator(schema).iter_errors(config):
        # Of an error with alternatives (oneOf), the most telling one, unless the schema words the problem itself.
        error = error if "problem" in error.schema else best_match([error])
        for keys, problem, remedy in explain(error, schema):
            yield Fault(tuple(keys), problem, remedy)


def explain(error: ValidationError, schema: dict) -> Iterator[tuple[Sequence[str | int], str, str]]:
    """(keys, problem, remedy) of each key that an error of the validator concerns."""
    path = list(error.absolute_path)
    if "problem" in error.schema:
        for place in find_places(error):
            yield [*path, *place], error.schema["problem"], error.schema["remedy"]
    elif error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        for (unknown,) in find_places(error):
            yield [*path, unknown], "unknown key", f"remove it or correct it; known here: {', '.join(known)}"
    elif error.validator == "required":
        for (missing,) in find_places(error):
            about = resolve(error.schema["properties"][missing], schema).get("description", "see config/README.md")
            yield [*path, missing], "missing key", f"add it: {about}"
    else:
        meaning = error.schema.get("description") or resolve(error.schema, schema).get("description")
        yield path, *explain_value(error, meaning or "see config/README.md")


def find_places(error: ValidationError) -> list[tuple]:
    """The keys, below the error's path, of what is wrong: unknown or missing keys, keys that need another, or ()."""
    instance = error.instance
    if error.validator == "additionalProperties":
        return [(key,) for key in instance if key not in error.schema.get("properties", {})]
    if error.validator == "required":
        return [(key,) for key in error.validator_value if key not in instance]
    if error.validator == "dependentRequired":
        return [
            (key,)
            for key, needed in error.validator_value.items()
            if key in instance and any(other not in instance for other in needed)
        ]
    return [()]


def explain_value(error: ValidationError, meaning: str) -> tuple[str, str]:
    """(problem, remedy) of a value of the wrong type, pattern or size; ``meaning`` describes the right ones."""
    value, of_type = error.instance, error.validator == "type"
    if isinstance(value, bool):
        return (
            f"{value} is a boolean here",
            'quote it ("no"): YAML reads an unquoted no, yes, on, off as a boolean',
        )
    if of_type and isinstance(value, str) and re.fullmatch(r"[\d.]+[eE][+-]?\d+", value):
        return f"{value} is text to YAML", "write it with a point and a sign: 5.0e-6, 1.0e+3"
    if of_type and value in ("true", "false"):  # Snakemake reads --config so
        return f"{value} is text", "give it in a file: in --config, nested values are text"
    if of_type and isinstance(value, float) and not _is_number(None, value):
        return f"{value} is not a finite number", meaning
    if of_type and isinstance(value, int) and not _is_integer(None, value):
        return "the number is too large", meaning
    if of_type:
        meaning = f"give a value of type {error.validator_value}: {meaning}"
    return shorten(error.message), meaning


def shorten(message: str) -> str:
    """A message that shows a whole value, cut in its middle where the value is long."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    return f"{message[: LONGEST_MESSAGE // 2]} ... {message[-LONGEST_MESSAGE // 2 :]}"


def resolve(schema: dict, root: dict) -> dict:
    """The schema with a local $ref followed; what stands beside the $ref wins."""
    if "$ref" not in schema:
        return schema
    target = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return {**resolve(target, root), **{key: value for key, value in schema.items() if key != "$ref"}}


def fill_defaults(value: Any, schema: dict, root: dict) -> None:
    """Adds the defaults of ``schema`` to a mapping or list in place, at all depths; ``root`` holds what $ref names."""
    schema = resolve(schema, root)
    if isinstance(value, dict):
        for key, part in schema.get("properties", {}).items():
            part = resolve(part, root)
            if key not in value and "default" in part:
                value[key] = copy.deepcopy(part["default"])
            elif key not in value and part.get("type") == "object" and not part.get("required"):
                value[key] = {}
            if key in value:
                fill_defaults(value[key], part, root)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            for key in value.keys() - schema.get("properties", {}).keys():
                fill_defaults(value[key], extra, root)
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            fill_defaults(item, schema["items"], root)
