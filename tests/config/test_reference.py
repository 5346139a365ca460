"""config/README.md: written from the schema, complete, and true about the defaults."""

import copy

import yaml
from conftest import ROOT, script
from shipped import read_shipped

from croco.config.schema import StrictValidator, fill_defaults, resolve
from croco.objectives import OBJECTIVES
from croco.pairs.hygiene import DEFAULT

SCHEMA = yaml.safe_load((ROOT / "config/schema.yaml").read_text(encoding="utf-8"))
README = (ROOT / "config/README.md").read_text(encoding="utf-8")
HEAD = (ROOT / "config/README.head.md").read_text(encoding="utf-8")


def write_reference(folder, schema=ROOT / "config/schema.yaml"):
    output = folder / "README.md"
    files = ("--config", ROOT / "config/config.yaml", "--head", ROOT / "config/README.head.md")
    script("reference", "--schema", schema, *files, "--output", output)
    return output.read_text(encoding="utf-8")


def find_mapping(part):
    """The schema of a mapping with named keys, or of the rows of a list of them; None for another value."""
    part = resolve(part, SCHEMA)
    nested = [part, resolve(part.get("items", {}), SCHEMA), *part.get("oneOf", ())]
    return next((candidate for candidate in nested if "properties" in candidate), None)


def list_keys(part=SCHEMA, path=()):
    """(path, schema, schema of its mapping) of each key of the config."""
    mapping = find_mapping(part)
    for key, nested in mapping["properties"].items():
        yield (*path, key), resolve(nested, SCHEMA), mapping
        if find_mapping(nested):
            yield from list_keys(nested, (*path, key))


def has_section(path, part):
    """Whether a key has no row in a table, but a section of its own."""
    return len(path) == 1 and find_mapping(part)


def find_row(path):
    """The cells of a key's row in the reference."""
    *section, key = path
    if section and section[-1] in ("resources", "engine_options"):
        section = section[-1:]
    heading = f"# `{'.'.join(section)}`\n" if section else "## Top level\n"
    table = README.split(heading)[1].split("\n#")[0]
    row = next(line for line in table.splitlines() if line.startswith(f"| `{key}` |"))
    return [cell.strip() for cell in row.strip("|").split(" | ")]


def test_reference_is_up_to_date(tmp_path):
    assert write_reference(tmp_path) == README, "run `make reference`"


def test_each_key_is_described():
    keys = list(list_keys())
    assert len(keys) > 150
    assert [".".join(path) for path, part, _ in keys if len(part.get("description", "")) < 10] == []


def test_each_key_has_a_row():
    for path, part, _ in list_keys():
        assert f"## `{path[0]}`\n" in README if has_section(path, part) else len(find_row(path)) == 4, path


def test_defaults_are_those_that_are_filled_in():
    for path, part, mapping in list_keys():
        filled = {}
        fill_defaults(filled, mapping, SCHEMA)
        if path[-1] in filled and "otherwise" not in part and not has_section(path, part):
            shown, value = find_row(path)[2], filled[path[-1]]
            assert shown == "empty" if value in ({}, []) else yaml.safe_load(shown.strip("`")) == value, path


def test_defaults_and_examples_are_allowed():
    for path, part, _ in list_keys():
        values = [part["default"]] if "default" in part else []
        for value in [*values, *part.get("examples", ())]:
            assert StrictValidator({**part, "$defs": SCHEMA["$defs"]}).is_valid(value), path


def test_defaults_that_the_run_table_applies():
    """These are written in words in the schema."""
    settings = SCHEMA["properties"]["settings"]["items"]["properties"]
    assert SCHEMA["properties"]["hygiene"]["fallback"] == read_shipped("config").hygiene == list(DEFAULT)
    dpo = yaml.safe_dump(OBJECTIVES["dpo"].guards, default_flow_style=True, sort_keys=False).strip()
    assert f"`{dpo}` for dpo; `none` for sft" in settings["guards"]["otherwise"]
    assert not OBJECTIVES["sft"].guards and not OBJECTIVES["online_dpo"].guards


def test_resources_that_follow_from_the_size():
    grid, large = read_shipped("config"), {"size": 10, "dtype": "bfloat16"}
    words = {key: part["otherwise"] for key, part in SCHEMA["$defs"]["resources"]["properties"].items()}
    assert words["gpu"] == "1 with a size, else 0" and words["threads"] == "4 with a size (training: 4 per GPU), else 1"
    assert words["mem_mb"] == (
        "3000 + 2500 x size (float32: 3000 + 5000 x size); a training takes the size times its GPUs, and online DPO adds "
        "the reward model; 3000 without a size"
    )
    assert words["runtime"].startswith("60 + 50 x size") and words["runtime"].endswith("; 60 without a size")
    asked = {name: (grid.resource(name, [{}]), grid.resource(name, [large])) for name in words}
    assert asked == {"gpu": (0, 1), "threads": (1, 4), "mem_mb": (3000, 28000), "runtime": (60, 560)}
    assert grid.resource("mem_mb", [{**large, "dtype": "float32"}]) == 53000


def test_rules_between_keys_change_nothing(tmp_path):
    """Conditions are checked, not documented: the reference is the same with and without them."""
    schema = copy.deepcopy(SCHEMA)
    condition = {"properties": {"name": {"const": "x"}, "stranger": {}}, "required": ["name"]}
    for rows in (schema["properties"]["settings"]["items"], schema["properties"]["evaluation"]):
        rows |= {"if": condition, "then": condition, "else": condition, "allOf": [{"if": condition}]}
        rows |= {"oneOf": [condition, {"required": ["name"]}], "dependentRequired": {"caliper": ["match"]}}
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False), encoding="utf-8")
    assert write_reference(tmp_path, tmp_path / "schema.yaml") == README


def test_example_of_the_head_is_a_config():
    example = yaml.safe_load(HEAD.split("```yaml\n")[1].split("```")[0])
    grid = read_shipped("config", example)
    assert grid.config["evaluation"]["samples"] == 4 and grid.config["evaluation"]["judge"] == "oracle"
    assert len(grid.contrasts) == 1
