"""Checking the config against its schema, with errors that name file, line and key."""

import copy
import re
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.validators import extend

from croco.errors import InputError

# JSON takes 64.0 for an integer; a command line does not.
StrictValidator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


class Locator:
    """Finds the file and line of a key in the config files.

    Args:
        files: paths in order of precedence (files of --configfile before the default).
        overrides: top-level keys given on the command line by --config.
    Raises InputError for a key that stands twice in one mapping, of which YAML would silently keep the last.
    """

    def __init__(self, files, overrides=()):
        self.overrides = set(overrides)
        self.trees = []
        for path in files:
            with open(path, encoding="utf-8") as file:
                tree = yaml.compose(file, Loader=yaml.SafeLoader)
            if tree is not None:
                _refuse_twins(tree, path)
                self.trees.append((path, tree))

    def find(self, keys):
        """(file, line) of the deepest node on the way to ``keys``; of a key, the line on which it stands."""
        best = (0, "--config", None)
        if keys and keys[0] in self.overrides:
            return best[1:]
        # Mappings are merged, so the deepest file knows best; a list belongs whole to the first file that has it.
        up_to_list = next((i for i, key in enumerate(keys) if isinstance(key, int)), len(keys))
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

    def is_default(self, keys):
        """Whether a key's value comes from the last, the default, of several files."""
        path, _ = self.find(keys)
        return len(self.trees) > 1 and path == self.trees[-1][0]

    def error(self, keys, problem, remedy):
        path, line = self.find(keys)
        return InputError(problem, remedy, path, line, format_keys(keys) or "(top level)")


def _refuse_twins(node, path):
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                raise InputError("the key stands twice", "keep one of them", path, key.start_mark.line + 1, key.value)
            seen.add(key.value)
            _refuse_twins(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twins(value, path)


def format_keys(keys):
    """settings[2].name for ("settings", 2, "name")."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")


def check_config(config, schema_path, locator):
    """Raises InputError for the most telling violation of the schema, else fills in the schema's defaults."""
    schema = yaml.safe_load(Path(schema_path).read_text(encoding="utf-8"))
    error = best_match(StrictValidator(schema).iter_errors(config))
    if error is not None:
        raise explain(error, schema, locator)
    fill_defaults(config, schema, schema)


def explain(error, schema, locator):
    keys = list(error.absolute_path)
    meaning = error.schema.get("description") or resolve(error.schema, schema).get("description")
    if isinstance(error.instance, bool):
        return locator.error(
            keys,
            f"{error.instance} is a boolean here",
            'quote it ("no"): YAML reads an unquoted no, yes, on, off as a boolean',
        )
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = next(key for key in error.instance if key not in known)
        return locator.error(
            [*keys, unknown], "unknown key", f"remove it or correct it; known here: {', '.join(known)}"
        )
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        about = resolve(error.schema["properties"][missing], schema).get("description", "see config/README.md")
        return locator.error([*keys, missing], "missing key", f"add it: {about}")
    if (
        error.validator == "type"
        and isinstance(error.instance, str)
        and re.fullmatch(r"[\d.]+[eE][+-]?\d+", error.instance)
    ):
        return locator.error(
            keys, f"{error.instance} is text to YAML", "write it with a point and a sign: 5.0e-6, 1.0e+3"
        )
    if error.instance in ("true", "false") and error.validator == "type":  # Snakemake reads --config so
        return locator.error(
            keys, f"{error.instance} is text", "give it in a file: in --config, nested values are text"
        )
    if error.validator == "type":
        meaning = f"give a value of type {error.validator_value}: {meaning or 'see config/README.md'}"
    return locator.error(keys, error.message, meaning or "see config/README.md")


def resolve(schema, root):
    """The schema with a local $ref followed; what stands beside the $ref wins."""
    if "$ref" not in schema:
        return schema
    target = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return {**resolve(target, root), **{key: value for key, value in schema.items() if key != "$ref"}}


def fill_defaults(value, schema, root):
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
