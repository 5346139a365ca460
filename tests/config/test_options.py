"""Config keys and the command lines of the scripts agree: names, defaults and allowed values."""

import argparse
import importlib.util
import re
from unittest import mock

import pytest
import yaml
from conftest import ROOT

from croco.config.schema import resolve
from croco.objectives import OBJECTIVES
from croco.runs import PAIRING_KEYS

SCHEMA = yaml.safe_load((ROOT / "config/schema.yaml").read_text(encoding="utf-8"))
# Keys of a model that concern only the job that loads it.
OF_THE_JOB = ("name", "size", "resources")

# (section, script, command of the script): {key: option} for options with another name, None for keys that are no
# option of this script. Each other key of the section is an option with the key's name.
OPTIONS = {
    ("policies", "generate", None): {"path": "model", "tune": None, "answers": None, **dict.fromkeys(OF_THE_JOB)},
    # Training always runs on transformers; its --batch is the recipe's.
    ("policies", "train", None): {
        "path": "model",
        **dict.fromkeys((*OF_THE_JOB, "tune", "answers", "engine", "engine_options", "batch")),
    },
    ("reward_models", "score", None): {"path": "model", **dict.fromkeys(OF_THE_JOB)},
    ("reward_models", "audit", "score"): {"path": "model", **dict.fromkeys(OF_THE_JOB)},
    ("reward_models", "train", None): {
        "path": "reward_model",
        "revision": "reward_revision",
        "dtype": "reward_dtype",
        "trust_remote_code": "reward_trust_remote_code",
        "max_length": "reward_max_length",
        "template_options": "reward_template_options",
        **dict.fromkeys((*OF_THE_JOB, "engine", "engine_options", "batch")),
    },
    ("translators", "translate", None): {"path": "model", **dict.fromkeys(OF_THE_JOB)},
    ("judges", "judge", None): {"path": "model", "prompt": "template", **dict.fromkeys(OF_THE_JOB)},
    ("prompts", "prompts", None): {
        "path": "input",
        "language_check": "no_language_check",
        **dict.fromkeys(("use", "languages", "translator", "translations")),
    },
    ("max_overlap", "contamination", None): {},
    ("settings", "build_pairs", None): dict.fromkeys(
        [
            "name",
            "objective",
            "rounds",
            "guards",
            "pools",
            "allow_degenerate",
            "responses",
            "reward_model",
            "recipe",
            "seeds",
            "evaluate",
        ]
    ),
    ("recipes", "train", None): dict.fromkeys(("name", "resources")),
    ("evaluation", "evaluate", None): {
        "tasks": "task",
        **dict.fromkeys(("fidelity", "judge", "max_unparseable", "resources")),
    },
    ("evaluation", "judge", None): dict.fromkeys(
        ["samples", "temperature", "max_tokens", "batch", "fidelity", "suite", "suite_limit", "tasks", "resources"]
    ),
    ("evaluation.tasks", "translate", None): {
        "source": "prompts",
        "revision": "dataset_revision",
        **dict.fromkeys(("name", "yaml", "trust_task_code", "data", "languages", "translator")),
    },
    ("audit", "audit", "select"): {
        "prompts": "count",
        **dict.fromkeys(("in_findings", "samples", "policy", "answers", "comparisons")),
    },
    ("audit", "audit", "score"): {"answers": "audited", **dict.fromkeys(("prompts", "in_findings", "samples"))},
    ("preview", "preview", None): {"prompts": "count"},
    ("release", "release", None): {},
    ("miniature.policies", "miniature", "policy"): {"name": None},
    ("miniature.reward_models", "miniature", "reward"): {"name": None},
}

# (section, key): why the two defaults differ.
DIFFERENT_DEFAULTS = {
    ("prompts", "language_check"): "the option is --no-language-check, which switches the check off",
}
# (section, key): why the two lists of allowed values differ.
DIFFERENT_VALUES = {
    ("evaluation", "suite"): "the config names capabilities; the option names the tasks of lm-eval that measure them",
}


@pytest.fixture(scope="module")
def parsers():
    """(script, command) -> its argparse parser, taken at the moment when it would parse."""
    made = {}

    def get_parser(script, command):
        if script not in made:
            made[script] = catch_parser(script)
        parser = made[script]
        if command is None:
            return parser
        steps = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        return steps.choices[command]

    return get_parser


def catch_parser(script):
    """The parser that ``parse_arguments`` of a script makes."""
    spec = importlib.util.spec_from_file_location(f"script_{script}", ROOT / "scripts" / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    caught = []

    def stop(parser, *_):
        caught.append(parser)
        raise SystemExit

    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop), pytest.raises(SystemExit):
        module.parse_arguments()
    return caught[0]


def find_keys(section):
    """{key: schema} of a section of the config, or of the rows in it."""
    schema = SCHEMA
    for name in section.split("."):
        schema = resolve(schema["properties"][name], SCHEMA)
        schema = resolve(schema.get("items", schema), SCHEMA)
    return {key: resolve(part, SCHEMA) for key, part in schema["properties"].items()}


def list_pairs(parsers, case):
    """(key, schema, option) of each key of the section that is an option; the option is None where it is missing."""
    section, script, command = case
    options = {action.dest: action for action in parsers(script, command)._actions}
    for key, schema in find_keys(section).items():
        option = OPTIONS[case].get(key, key)
        if option is not None:
            yield key, schema, options.get(option)


def format_case(case):
    return "-".join(part for part in case if part)


@pytest.mark.parametrize("case", OPTIONS, ids=format_case)
def test_each_key_is_an_option(case, parsers):
    section, *_ = case
    assert set(OPTIONS[case]) <= set(find_keys(section)), "OPTIONS names a key that the schema does not have"
    assert [key for key, _, option in list_pairs(parsers, case) if option is None] == []


@pytest.mark.parametrize("case", OPTIONS, ids=format_case)
def test_defaults_are_equal(case, parsers):
    section, *_ = case
    different = {}
    for key, schema, option in list_pairs(parsers, case):
        default = schema.get("default", schema.get("fallback"))
        shown = None if option.required or option.default in (None, []) else option.default
        if default is not None and shown is not None and shown != default:
            different[key] = (default, shown)
    known = {key for key, *_ in list_pairs(parsers, case) if (section, key) in DIFFERENT_DEFAULTS}
    assert different.keys() == known, different


def test_each_fallback_is_a_default_of_a_script(parsers):
    """The schema only states a fallback, so it must be compared with the code that applies it."""
    compared = {
        (section, key)
        for section, script, command in OPTIONS
        for key, _, option in list_pairs(parsers, (section, script, command))
        if option.default is not None
    }
    stated = {(case[0], key) for case in OPTIONS for key, schema in find_keys(case[0]).items() if "fallback" in schema}
    assert stated <= compared and len(stated) > 5


@pytest.mark.parametrize("case", OPTIONS, ids=format_case)
def test_allowed_values_are_equal(case, parsers):
    section, *_ = case
    different = {}
    for key, schema, option in list_pairs(parsers, case):
        allowed = list_allowed(schema)
        if allowed and set(allowed) != set(option.choices or ()):
            different[key] = (allowed, option.choices)
    known = {key for key, *_ in list_pairs(parsers, case) if (section, key) in DIFFERENT_VALUES}
    assert different.keys() == known, different


def test_keys_that_are_one_option_by_themselves(parsers):
    def find_option(script, name):
        return next(action for action in parsers(script, None)._actions if action.dest == name)

    contamination, action = SCHEMA["properties"]["contamination"], find_option("contamination", "action")
    assert (contamination["default"], set(contamination["enum"])) == (action.default, set(action.choices))
    # `none` is the base, which is not trained.
    objectives = {*find_option("train", "objective").choices, "none"}
    assert set(find_keys("settings")["objective"]["enum"]) == objectives == {*OBJECTIVES, "none"}


def read_recipe_keys():
    rules = (ROOT / "rules/helpers/train.smk").read_text(encoding="utf-8")
    return re.findall(r"[a-z]\w+", re.search(r"^RECIPE_KEYS = \((.*?)\)", rules, re.S | re.M)[1])


@pytest.mark.parametrize(
    ("passed", "case", "elsewhere"),
    [
        (read_recipe_keys(), ("recipes", "train", None), []),
        # These two are paths or depend on the run, so the rule passes them separately.
        (PAIRING_KEYS, ("settings", "build_pairs", None), ["match", "hygiene"]),
    ],
    ids=["recipes", "pairs"],
)
def test_rules_pass_each_option_on(passed, case, elsewhere, parsers):
    """A key that is missing from these lists would have no effect, silently."""
    assert sorted([*passed, *elsewhere]) == sorted(key for key, *_ in list_pairs(parsers, case))


def list_allowed(schema):
    """All values that a key, or an item of its list, may have; empty where these are not listed."""
    if "oneOf" in schema:
        return [value for part in schema["oneOf"] for value in list_allowed(part)]
    return schema.get("enum") or schema.get("items", {}).get("enum") or ([schema["const"]] if "const" in schema else [])
