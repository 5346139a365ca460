"""Bad configs through the Snakefile: exit 1, one message that names file, line and key, and nothing else happens."""

import copy
import math
import re

import pytest
import yaml
from conftest import ROOT, copy_project, planned, refuse_config, script, snakemake, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from shipped import read_languages, read_shipped
from snakemake.utils import update_config

from croco.config.faults import raise_faults
from croco.config.schema import Locator, check_config, fill_defaults, find_violations
from croco.errors import InputError
from croco.grid import Grid

DEFAULT = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
SCHEMA = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text(encoding="utf-8"))
LOCATOR = Locator([ROOT / "config" / "config.yaml"])
SETTING = "- {name: x, objective: dpo, target: pair, rejected: mean-2sd, pools: [multi]"
ARM = "settings:\n  - {{name: base, objective: none}}\n  - {{name: x, pools: [multi], {}}}\n"
RECIPE = "recipes:\n  - {{name: sft, learning_rate: 1, batch: 8}}\n  - {{name: dpo, learning_rate: 1, batch: 8, {}}}\n"
PROMPTS = "prompts:\n  - {{use: train, {}}}\n  - {{use: evaluate, path: 'd/{{language}}.tsv'}}\n"
OWN_CODE = "policies:\n  - {name: mini, path: p/q, temperature: 1, max_tokens: 8, trust_remote_code: true}\n  - {name: other, path: p/r, temperature: 1, max_tokens: 8, tune: false}\n"
TRANSLATOR = "translators:\n  - {{name: t, path: p, format: {}}}\n"

# name: (config text, line of the message, what it must say)
BAD = {
    "unknown key": ("sampels: 3\n", 1, ["sampels", "unknown key", "samples"]),
    "missing key": ("policies:\n  - name: mini\n    path: p\n    max_tokens: 3\n", 2, ["temperature", "missing key"]),
    "wrong type": ("seed: 0\nsamples: many\n", 2, ["samples", "'many'"]),
    "unknown language": ('languages:\n  - {code: "en"}\n  - {code: "xx"}\n', 3, ["xx", "languages.tsv"]),
    "unquoted no": ('languages:\n  - {code: "en"}\n  - {code: no}\n', 3, ["quote", "boolean"]),
    "language twice": ('languages:\n  - {code: "en"}\n  - {code: "en"}\n', 3, ["twice"]),
    "unknown setting field": (f"settings:\n  - {{name: base, objective: none}}\n  {SETTING}, lr: 3}}\n", 3, ["lr", "unknown key"]),
    "reserved name": ("pools:\n  - {name: state, languages: [en, de]}\n", 2, ["state", "reserved"]),
    "colliding name": ('pools:\n  - {name: "de", languages: ["en", "de"]}\n', 2, ["de", "taken"]),
    "policy named as a pool": ("pools:\n  - {name: mini, languages: [en, de]}\n", None, ["mini", "taken by a pool"]),
    "no base": (f"settings:\n  {SETTING}}}\n", 1, ["base"]),
    "no such pool": ("settings:\n  - {name: base, objective: none}\n  - {name: x, objective: sft, target: best, pools: [all]}\n", 3, ["all", "multi"]),
    "pair without rule": ("settings:\n  - {name: base, objective: none}\n  - {name: x, objective: dpo, target: pair, pools: [multi]}\n", 3, ["rejected"]),
    "pool too small": ("samples: 4\n", 1, ["mean - 2 sd", "allow_degenerate"]),
    "pool_size above samples": (f"settings:\n  - {{name: base, objective: none}}\n  {SETTING}, pool_size: 65}}\n", 3, ["64 samples"]),
    "suite without tasks": ("evaluation: {tasks: [], suite: [maths]}\n", 1, ["no structured task in nl", "languages.tsv"]),
    "unknown capability": ("evaluation: {suite: [sums]}\n", 1, ["suite"]),
    "limit of no suite": ("evaluation: {suite_limit: 3}\n", 1, ["suite_limit", "no effect"]),
    "task of nothing": ("evaluation:\n  tasks:\n  - {name: a, yaml: y}\n", 3, ["data or a source"]),
    "task without translator": ("evaluation:\n  tasks:\n  - {name: a, yaml: y, source: s.jsonl, fields: [q]}\n", 3, ["translator"]),
    "task named as lm-eval's": ("evaluation:\n  suite: [knowledge]\n  tasks:\n  - {name: arc_nl, yaml: y, data: d}\n", 4, ["arc_nl", "another name"]),
    "import of nothing": ("imports:\n  - {name: euroeval, path: no.jsonl, format: euroeval}\n", 2, ["no.jsonl"]),
    "contrast of nothing": ("contrasts:\n  - {setting: dpo, pool: multi, versus: nothing}\n", 2, ["nothing"]),
    "key twice": ("seed: 0\nseed: 1\n", 2, ["twice"]),
    "batch not divisible": ("recipes:\n  - {name: sft, learning_rate: 1, batch: 8}\n  - {name: dpo, learning_rate: 1, batch: 8, micro_batch: 5}\n", 3, ["micro_batch", "divisor"]),
    "exponent without a point": ("recipes:\n  - {name: dpo, learning_rate: 5e-6, batch: 8}\n", 2, ["5.0e-6"]),
    "idle language": ('languages:\n  - {code: "en"}\n  - {code: "de"}\n  - {code: "nl"}\n  - {code: "fr"}\n  - {code: "es"}\n  - {code: "it", train: false}\n', 7, ["it", "evaluate: all"]),
    "float for a whole number": ("samples: 64.0\n", 1, ["64.0", "integer"]),
    "unknown judge": ("evaluation:\n  judge: gpt\n", 2, ["there is no judge gpt", "oracle, none"]),
    "judge of a reserved name": ("judges:\n  - {name: oracle, path: a/b}\n", 2, ["oracle", "reserved"]),
    "judge twice": ("judges:\n  - {name: j, path: a/b}\n  - {name: j, path: a/b}\n", 3, ["twice"]),
    "judge without a prompt": ("judges:\n  - {name: j, path: a/b, prompt: no.txt}\n", 2, ["prompt", "no.txt"]),
    "prompt without fields": ("judges:\n  - {name: j, path: a/b, prompt: Snakefile}\n", 2, ["prompt", "lacks a field"]),
    "judge that the miniature lacks": ("judges:\n  - {name: j, path: '{results}/miniature/judge'}\n", 2, ["the miniature makes no"]),
    "share above one": ("evaluation:\n  max_unparseable: 50\n", 2, ["max_unparseable", "50"]),
    "languages of one subset": (PROMPTS.format("dataset: a/b, subset: en, languages: [en]"), 2, ["languages", "no effect"]),
    "source language left out": (PROMPTS.format("dataset: a/b, subset: '{language}', languages: [de]"), 2, ["source language is missing"]),
    "nobody translates the rest": (PROMPTS.format("dataset: a/b, subset: '{language}', languages: [en, de]"), 2, ["nothing gives the prompts in nl, fr, es"]),
    "own prompts, oracle as judge": ("prompts:\n  - {use: train, path: 'd/{language}.tsv'}\n  - {use: evaluate, path: 'd/{language}.tsv'}\n", 3, ["oracle", "judge: none"]),
    "language that the miniature lacks": ('languages:\n  - {code: "en"}\n  - {code: "de"}\n  - {code: "nl"}\n  - {code: "fr"}\n  - {code: "es"}\n  - {code: "it"}\n', 7, ["miniature", "it"]),
    "no such model folder": ("policies:\n  - {name: mini, path: /no/such/model, temperature: 1, max_tokens: 3}\n  - {name: other, path: /no/such/model, temperature: 1, max_tokens: 3, tune: false}\n", 2, ["/no/such/model", "no folder"]),
    "option without effect": ("settings:\n  - {name: base, objective: none}\n  - {name: sft, objective: sft, target: reference, pools: [multi], pool_size: 8}\n", 3, ["no effect"]),
    "references of another policy": (ARM.format("objective: sft, target: reference, responses: other"), 3, ["responses", "no effect"]),
    "smoothing without effect": (RECIPE.format("label_smoothing: 0.1"), 3, ["label_smoothing", "robust", "sigmoid"]),
    "generation batch offline": (RECIPE.format("generation_batch: 8"), 3, ["generation_batch", "no effect on dpo"]),
    "generation batch below the micro-batch": (ARM.format("objective: online_dpo, target: prompts") + "recipes:\n  - {name: online_dpo, learning_rate: 1, batch: 8, micro_batch: 4, generation_batch: 2, max_length: 128}\n", 5, ["generation_batch", "micro_batch"]),
    "vLLM in online DPO": (ARM.format("objective: online_dpo, target: prompts") + "recipes:\n  - {name: online_dpo, learning_rate: 1, batch: 8, use_vllm: true}\n", 5, ["use_vllm", "unknown key"]),
    "robust without smoothing": (RECIPE.format("loss: robust"), 3, ["label_smoothing"]),
    "best of nothing": (RECIPE.format("checkpoint: best"), 3, ["validation"]),
    "adapter of full weights": (RECIPE.format("weights: full, lora_r: 8"), 3, ["lora_r", "no effect on full weights"]),
    "beta of sft": ("recipes:\n  - {name: sft, learning_rate: 1, batch: 8, beta: 0.1}\n  - {name: dpo, learning_rate: 1, batch: 8}\n", 2, ["beta", "no effect"]),
    "rounds of full weights": (ARM.format("objective: dpo, target: pair, rejected: min, rounds: 2") + RECIPE.format("weights: full"), 6, ["rounds go with LoRA"]),
    "full weights of a model with its own code": (ARM.format("objective: dpo, target: pair, rejected: min") + RECIPE.format("weights: full") + OWN_CODE, 6, ["weights", "model's own code"]),
    "rounds of another policy": (ARM.format("objective: dpo, target: pair, rejected: min, rounds: 2, responses: other"), 3, ["no effect beside rounds"]),
    "own responses": (ARM.format("objective: dpo, target: pair, rejected: min, responses: mini"), 3, ["own responses"]),
    "responses for others": (ARM.format("objective: dpo, target: pair, rejected: min, responses: {other: mini}"), 3, ["nothing is said for mini"]),
    "rule and match": (ARM.format("objective: dpo, target: pair, rejected: min, match: x"), 3, ["rejected"]),
    "match of itself": (ARM.format("objective: dpo, target: pair, match: x"), 3, ["match", "no setting"]),
    "caliper without match": (ARM.format("objective: dpo, target: pair, rejected: min, caliper: 1"), 3, ["caliper", "without match"]),
    "languages of pairs": (ARM.format("objective: dpo, target: pair, rejected: min, per_prompt: all"), 3, ["per_prompt", "no effect"]),
    "loss of dpo": (RECIPE.format("loss_on: all"), 3, ["loss_on", "no effect"]),
    "part without a pattern": (RECIPE.format("lora_coverage: partial"), 3, ["lora_coverage", "without a pattern"]),
    "balance by chance": (ARM.format("objective: dpo, target: pair, rejected: random, balance: true"), 3, ["balance", "no effect"]),
    "prompt in a language outside": (ARM.format("objective: dpo, target: pair, rejected: min, prompt_language: it"), 3, ["prompt_language", "it"]),
    "control of one language": (ARM.replace("[multi]", "[monolingual]").format("objective: dpo, target: pair, rejected: min, balance: true"), 3, ["pools of one language"]),
    "guards of sft": (ARM.format("objective: sft, target: best, guards: {{collapse: 3}}".replace("{{", "{").replace("}}", "}")), 3, ["guards", "no effect"]),
    "no room online": (ARM.format("objective: online_dpo, target: prompts") + "recipes:\n  - {name: online_dpo, learning_rate: 1, batch: 8, max_length: 32}\n", 5, ["max_length", "room"]),
    "seeds without 1": (ARM.format("objective: dpo, target: pair, rejected: min, seeds: [2, 3]"), 3, ["seeds", "there is no 1"]),
    "match by another reward model": ("settings:\n  - {name: base, objective: none}\n  - {name: x, objective: dpo, target: pair, rejected: min, pools: [multi]}\n  - {name: y, objective: dpo, target: pair, match: x, reward_model: other, pools: [multi]}\nreward_models:\n  - {name: english, path: '{results}/miniature/reward', max_length: 128}\n  - {name: other, path: '{results}/miniature/reward', max_length: 128}\n", 4, ["another reward model"]),
    "match of pairs by chance": ("settings:\n  - {name: base, objective: none}\n  - {name: x, objective: dpo, target: pair, rejected: random, pools: [multi]}\n  - {name: y, objective: dpo, target: pair, match: x, pools: [multi]}\n", 4, ["match", "rule"]),
    "answers beyond the reward model": (ARM.format("objective: online_dpo, target: prompts") + "recipes:\n  - {name: online_dpo, learning_rate: 1, batch: 8}\n", 5, ["max_length", "no reward beyond"]),
    "contrast of a training seed": ("settings:\n  - {name: base, objective: none}\n  - {name: dpo, objective: dpo, target: pair, rejected: min, pools: [multi], seeds: [1, 2]}\ncontrasts:\n  - {setting: dpo.s2, pool: multi, versus: base}\n", 5, ["dpo.s2 is a training seed of dpo", "name the setting"]),
    "contrast with itself": ("contrasts:\n  - {setting: dpo, pool: multi, versus: dpo}\n", 2, ["nothing new"]),
    "release twice": ("release: [{run: mini/multi/dpo}, {run: mini/multi/dpo, weights: adapter}]\n", 1, ["twice"]),
    "licence that is none": ("release: [{run: mini/multi/dpo, licence: \"mit'; x\"}]\n", 1, ["licence"]),
    **{
        f"release named {name}": (f"release: [{{run: mini/multi/dpo, name: {name}}}]\n", 1, [f"{name} is no hub id"])
        for name in ("org/my--model", "org/name.", "org/model.git", "a..b/c")
    },
    **{
        f"path {path}": (f"reward_models:\n  - {{name: english, path: {path}}}\n", 2, [f"{path} is no folder, and no hub id"])
        for path in ("org/my--model", "org/name.", "org/model.git", "a..b/c")
    },
    "audit of nobody's answers": ("audit:\n  policy: nobody\n", 2, ["nobody", "mini, other"]),
    **{
        f"task named {name}": (
            f"evaluation:\n  tasks: [{{name: {name}, yaml: t.yaml, data: d.jsonl}}]\n", 2, [name, "reserved"]
        )
        for name in ("arena", "fidelity")
    },
    "votes that are not there": ("preview: {votes: '{results}/no'}\n", 1, ["no folder", "miniature/no"]),
    "votes without ballots": ("preview: {votes: config}\n", 1, ["no *.csv in config"]),
    "comparisons that are not there": ("audit: {comparisons: 'no/{language}.jsonl'}\n", 1, ["no/en.jsonl"]),
    "release of nothing": ("release: [{run: mini/multi/x}]\n", 1, ["mini/multi/x", "mini/multi/dpo"]),
    "release of the base": ("release: [{run: mini/untuned/base}]\n", 1, ["mini/multi/dpo"]),
    "two sources": (PROMPTS.format("path: 'd/{language}.tsv', dataset: a/b"), 2, ["either a path or a dataset"]),
    "no source": (PROMPTS.format("limit: 3"), 2, ["either a path or a dataset"]),
    "dataset folder": (PROMPTS.format("dataset: /no/such/folder"), 2, ["no folder /no/such/folder"]),
    "revision of a file": (PROMPTS.format("path: 'd/{language}.tsv', revision: main"), 2, ["revision", "no effect"]),
    "filter without tokenizer": (PROMPTS.format("dataset: a/b, limit: 3, max_tokens: 5"), 2, ["tokenizer"]),
    "nobody translates": (PROMPTS.format("path: d/en.jsonl"), 2, ["nothing gives the prompts in de, nl, fr, es", "translator"]),
    "unknown translator": (PROMPTS.format("path: d/en.jsonl, translator: x"), 2, ["there is no x"]),
    "idle translator": (PROMPTS.format("path: 'd/{language}.tsv', translator: t") + TRANSLATOR.format("translategemma"), 2, ["own file"]),
    "translation twice": (PROMPTS.format("path: d/en.jsonl, translations: [{language: de, path: a.tsv}, {language: de, path: b.tsv}]"), 2, ["twice"]),
    "translation of the source": (PROMPTS.format("path: d/en.jsonl, translations: [{language: en, path: a.tsv}]"), 2, ["no prompts are needed in en"]),
    "format without template": (TRANSLATOR.format("template"), 2, ["template"]),
    "unknown template field": (TRANSLATOR.format('template, template: "{source} {text}"'), 2, ["source", "source_name"]),
    "unknown engine": ("reward_models:\n  - {name: english, path: p, engine: tgi}\n", 2, ["engine", "vllm"]),
    "vllm without a GPU": ("reward_models:\n  - {name: english, path: p, engine: vllm}\n", 2, ["reward_models[0].size", "no GPU", "write size"]),
    "unknown type of GPU": ("gpu_type: l4\n", 1, ["l4", "add a row to config/speeds.tsv, or leave gpu_type out"]),
    "without the source language": ('languages: [{code: "de"}, {code: "es"}]\n', None, ["source_language", "one of de, es (inherited from", "write source_language in your own config"]),
    "option of the row": ("reward_models:\n  - {name: english, path: p, engine: vllm, engine_options: {dtype: half}}\n", 2, ["dtype", "set by the workflow"]),
    "split into more stages": ("reward_models:\n  - {name: english, path: p, engine: vllm, size: 8, engine_options: {pipeline_parallel_size: 2}}\n", 2, ["2 stages, but a job has 1 GPU", "a multiple"]),
    "split over other GPUs": ("reward_models:\n  - {name: english, path: p, engine: vllm, size: 8, engine_options: {tensor_parallel_size: 2}}\n", 2, ["2 GPUs, but a job has 1"]),
    "processes that do not divide the batch": ("policies:\n  - {name: mini, path: p, temperature: 1, max_tokens: 3, resources: {gpu: 3}}\n  - {name: other, path: p, temperature: 1, max_tokens: 3, tune: false}\n", None, ["16 x 3 processes", "divisor"]),
    "own policies, the miniature's answers": ("results: results/x\npolicies:\n  - {name: mini, path: p, temperature: 1, max_tokens: 3}\n  - {name: other, path: p, temperature: 1, max_tokens: 3, tune: false}\n", None, ["evaluation", "still the miniature's"]),
    "only the base": ("settings:\n  - {name: base, objective: none}\n", 1, ["nothing is tuned"]),
    "a boolean of --config": ("bundle: {responses: 'true'}\n", 1, ["true is text", "in --config, nested values are text"]),
    "no tuned policy": ("policies:\n  - {name: mini, path: p, temperature: 1, max_tokens: 3, tune: false}\n  - {name: other, path: p, temperature: 1, max_tokens: 3, tune: false}\n", 1, ["tune"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_config(case, tmp_path, fresh_project):
    text, line, said = BAD[case]
    _, message = refuse_config(fresh_project, tmp_path / "bad.yaml", text)
    assert all(part in message for part in said), message
    assert "Remedy: " in message and "Traceback" not in message
    assert "field " in message and (f"bad.yaml:{line}" if line else "config.yaml:") in message, message


def test_a_dataset_without_a_limit_is_warned_of(tmp_path, fresh_project):
    """`block` divides nothing then."""
    write_rows(tmp_path / "data" / "train.jsonl", [{"id": f"p{i}", "text": f"Question {i}"} for i in range(20)])
    text = (
        f"languages: [{{code: en}}]\npools: []\ncontrasts: []\nsettings:\n  - {{name: base, objective: none}}\n"
        f"  {SETTING.replace('multi', 'monolingual')}}}\nprompts:\n"
        "  - {use: evaluate, path: '{results}/miniature/prompts/heldout/{language}.jsonl'}\n"
        f"  - {{use: train, dataset: {tmp_path / 'data'}"
    )
    for end in ("", ", limit: 20"):
        (tmp_path / "own.yaml").write_text(f"{text}{end}}}\n", encoding="utf-8")
        done = snakemake(fresh_project, "--dry-run", "--configfile", tmp_path / "own.yaml")
        assert ("are one job, because they have no limit" in done.stdout + done.stderr) == (not end)
    assert "no limit" not in snakemake(fresh_project, "--dry-run").stderr


def find_faults(text, path):
    """The message about a config that is merged into the default, without Snakemake."""
    path.write_text(text, encoding="utf-8")
    config = copy.deepcopy(DEFAULT)
    update_config(config, yaml.safe_load(text))
    with pytest.raises(InputError) as error:
        default = ROOT / "config/config.yaml"
        locator = Locator([path, default], default=default)
        check_config(config, ROOT / "config/schema.yaml", locator)
        Grid(config, read_languages(), locator)
    return str(error.value)


def test_all_faults_are_shown_in_the_order_of_the_file(tmp_path, fresh_project):
    _, message = refuse_config(
        fresh_project,
        tmp_path / "bad.yaml",
        "contrasts:\n  - {setting: dpo, pool: multi, versus: dpo}\n"
        "recipes:\n  - {name: sft, learning_rate: 1, batch: 8, beta: 0.1}\n  - {name: dpo, learning_rate: 1, batch: 8}\n"
        "samples: 4\n",
    )
    assert "the config has 3 faults" in message and message.count("Remedy: ") == 3
    assert re.findall(r"bad\.yaml:(\d), field (\S+): ", message) == [
        ("2", "contrasts[0]"),
        ("4", "recipes[0].beta"),
        ("6", "samples"),
    ]


def test_all_violations_of_the_schema_are_shown(tmp_path):
    text = (
        "samples: many\nsede: 3\nsead: 3\n"
        "policies:\n  - {name: mini, tune: 1.0, path: p, temperature: -1}\n"
        "evaluation: {suite: [sums]}\n"
    )
    message = find_faults(text, tmp_path / "bad.yaml")
    assert re.findall(r"bad\.yaml:(\d), field (\S+): ", message) == [
        ("1", "samples"),
        ("2", "sede"),
        ("3", "sead"),
        *(("5", f"policies[0].{key}") for key in ("max_tokens", "tune", "temperature")),
        ("6", "evaluation.suite[0]"),
    ]


def test_all_keys_that_are_listed_twice_are_shown(tmp_path):
    message = find_faults("seed: 0\nseed: 1\nlimit: 1\nlimit: 2\n", tmp_path / "bad.yaml")
    assert re.findall(r"bad\.yaml:(\d), field (\S+): ", message) == [("2", "seed"), ("4", "limit")]


@pytest.mark.parametrize("case", BAD)
def test_a_fault_beside_another_is_shown(case, tmp_path):
    """Where the two are found in different stages, the first stage's."""
    names, keys = [*BAD], yaml.safe_load(BAD[case][0]).keys()
    following = [*names[names.index(case) + 30 :], *names]
    other = next(name for name in following if not keys & yaml.safe_load(BAD[name][0]).keys())
    message = find_faults(BAD[case][0] + BAD[other][0], tmp_path / "bad.yaml")
    assert any(all(part in message for part in BAD[name][2]) for name in (case, other)), message


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(sorted(BAD)), min_size=2, max_size=3), st.data())
def test_no_mixture_of_faults_crashes(cases, data):
    """Rows of bad configs beside each other and beside those of the default: a message, or nothing wrong."""
    config = copy.deepcopy(DEFAULT)
    for case in cases:
        for key, value in yaml.safe_load(BAD[case][0]).items():
            if isinstance(value, list) and key in config and data.draw(st.booleans()):
                value = config[key] + value
            update_config(config, {key: value})
    try:
        raise_faults(find_violations(config, SCHEMA), LOCATOR)
        fill_defaults(config, SCHEMA, SCHEMA)
        Grid(config, read_languages(), LOCATOR)
    except InputError as error:
        assert str(error).count("Remedy: ") >= 1


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("settings:\n  - {name: base, objective: none}\n  " + SETTING + "}\n", "contrasts"),
        ('languages: [{code: "en"}, {code: "de"}]\n', "pools"),
    ],
)
def test_a_fault_of_an_inherited_key_says_where_to_write_it(text, key, tmp_path):
    assert f"write {key} in your own config)" in find_faults(text, tmp_path / "bad.yaml")


@pytest.mark.parametrize("has_gpu", [{"size": 1}, {"resources": {"gpu": 0}}, {"engine": "transformers"}])
def test_vllm_has_gpus_by_a_size_or_as_the_row_says(has_gpu, tmp_path):
    row = {"name": "english", "path": str(tmp_path), "engine": "vllm"} | has_gpu
    message = find_faults(yaml.safe_dump({"reward_models": [row], "samples": 4}), tmp_path / "bad.yaml")
    assert "mean - 2 sd" in message and "would have no GPU" not in message


def test_a_row_that_is_added_to_the_table_is_a_type_of_gpu(tmp_path):
    project = copy_project(tmp_path)
    with open(project / "config/speeds.tsv", "a", encoding="utf-8") as file:
        file.write("l4\t24\t121\t0.06\t0.4\t0.3\t1\t60\testimate\n")
    assert planned(project, "--config", "gpu_type=l4")


def test_pool_too_small_for_a_pair(tmp_path, fresh_project):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "samples: 1\nsettings:\n  - {name: base, objective: none}\n"
        "  - {name: x, objective: dpo, target: pair, rejected: min, pools: [monolingual]}\ncontrasts: []\n"
    )
    done = snakemake(fresh_project, "--dry-run", "--configfile", path, check=False)
    assert done.returncode == 1 and "a pair needs two responses" in done.stdout + done.stderr


def test_degenerate_pool_is_accepted_on_purpose(tmp_path, fresh_project):
    path = tmp_path / "small.yaml"
    path.write_text(
        "samples: 4\nresults: results/degenerate\nsettings:\n  - {name: base, objective: none}\n"
        "  - {name: dpo, objective: dpo, target: pair, rejected: mean-2sd, pools: [monolingual], allow_degenerate: true}\n"
        "contrasts: []\n"
    )
    assert snakemake(fresh_project, "--dry-run", "--configfile", path).returncode == 0


def test_bad_prompts_of_the_users_end_before_any_job(tmp_path):
    """A broken line in one language stops the run although another language's jobs could start."""
    project = copy_project(tmp_path)
    for language in ("en", "de"):
        write_rows(project / "data" / f"{language}.jsonl", [{"id": i, "text": f"{language} {i}"} for i in range(4)])
    (project / "own.yaml").write_text(
        "results: results/own\nevaluation: {judge: none, tasks: []}\ncontrasts: []\n"
        'languages:\n  - {code: "en"}\n  - {code: "de"}\n'
        'pools:\n  - {name: multi, languages: ["en", "de"]}\n'
        "prompts:\n  - {use: train, path: 'data/{language}.jsonl', limit: none}\n  - {use: evaluate, path: 'data/{language}.jsonl'}\n"
    )
    done = snakemake(project, "--dry-run", "--configfile", "own.yaml", check=False)
    assert done.returncode == 1 and "field prompts[0].limit" in done.stdout + done.stderr
    (project / "own.yaml").write_text((project / "own.yaml").read_text().replace("limit: none", "limit: 4"))
    write_rows(project / "data" / "de.jsonl", [{"id": i, "text": f"de {i}"} for i in (0, 1, 2)])
    done = snakemake(project, "--cores", 1, "--configfile", "own.yaml", check=False)
    assert done.returncode == 1 and "error: data/de.jsonl" in done.stderr and not (project / "results").exists()


def test_config_of_the_readme_plans_all_its_jobs(tmp_path):
    """The example as a user would paste it, on files as it describes them; hub models are not asked for."""
    project = copy_project(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (project / "my.yaml").write_text(readme.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    (project / "data").mkdir()
    for language in ("en", "de", "es"):
        (project / "data" / f"train.{language}.tsv").write_text("a question\tan answer\nanother\t\n")
        write_rows(project / "data" / f"test.{language}.jsonl", [{"id": 1, "text": "a question"}])
    jobs = planned(project, "--configfile", "my.yaml")
    assert (jobs["generate"], jobs["score"], jobs["train"], jobs["evaluate_multi"]) == (3 * 20, 3 * 20, 4, 2)
    assert not any(name.startswith(("miniature", "judge")) for name in jobs)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "scripts").glob("*.py")))
def test_help_teaches(name):
    """An example in every help; a stage says where it writes, in its own help or that of its first command."""
    said = script(name, "--help").stdout
    assert "python scripts/" in said and "(default: None)" not in " ".join(said.split())
    if name not in ("check_identification", "check_language", "doctor", "plan", "status", "verify", "with_gpus"):
        said += script(name, "world", "--help", check=False).stdout
        assert "--output" in said


@pytest.mark.parametrize("name", ["paper", "small"])
def test_shipped_configs_plan_their_whole_grid(name, tmp_path, fresh_project):
    """Every language and block, by real resources; another language adds its own jobs only."""
    path = ROOT / "config" / f"{name}.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    trained = [row["code"] for row in config["languages"] if row.get("train", True)]
    blocks = math.ceil(config["prompts"][0]["limit"] / config["block"])
    jobs = planned(fresh_project, "--resources", "gpu=8", "--configfile", path)
    assert jobs["generate"] == jobs["identify"] == len(config["policies"]) * len(trained) * blocks == jobs["score"]
    assert jobs["translate_train"] == (len(trained) - 1) * blocks and jobs["select_train"] == blocks
    translated = {task["name"]: len(task["languages"]) for task in config["evaluation"]["tasks"]}
    assert {name: jobs[f"translate_task_{name}"] for name in translated} == translated
    assert not any(rule.startswith("miniature") for rule in jobs)
    project = copy_project(tmp_path)
    with open(project / "config/languages.tsv", "a", encoding="utf-8") as file:
        file.write("eu\tBasque\tEuskara\teu\tno\tsemantics: xnli_eu\tGizon-emakume guztiak aske jaiotzen dira.\tlow\n")
    config["languages"].append({"code": "eu"})
    (project / "more.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    more = planned(project, "--resources", "gpu=8", "--configfile", "more.yaml")
    added = {rule: count - jobs.get(rule, 0) for rule, count in more.items() if count != jobs.get(rule)}
    assert added["translate_train"] == blocks and added["generate"] == len(config["policies"]) * blocks
    assert all(count > 0 for count in added.values()) and "select_train" not in added


def test_what_jobs_ask_for_follows_from_size_and_attempt(tmp_path, fresh_project):
    done = snakemake(
        fresh_project,
        "--dry-run",
        "--printshellcmds",
        "--resources",
        "gpu=8",
        "--configfile",
        ROOT / "config/paper.yaml",
    )
    output = re.sub(r" \\\n\s+", " ", done.stdout + done.stderr)
    assert "--suite sv belebele_swe_Latn m_mmlu_sv arc_sv hellaswag_sv multiblimp_swe --seed" in output
    assert re.search(
        r"--task reading \S+ \S+/tasks/reading/\{language\}.jsonl.? ga cy .*--suite cy multiblimp_cym", output
    )
    assert "generate: eurollm, da, prompts from 15000 (1 GPU)" in output
    assert re.search(r"train: aya, multi, dpo \(8 GPU\)", output)
    # Each policy answers at its own temperature, before and after tuning.
    answers = re.findall(r"evaluate.py --model (\S+) .*--samples 1 --temperature (\S+) --max-tokens 8192 ", output)
    assert set(answers) == {("utter-project/EuroLLM-9B-Instruct-2512", "0"), ("CohereLabs/tiny-aya-global", "0.1")}
    grid = read_grid(ROOT / "config/paper.yaml")
    eurollm, aya = grid.policies["eurollm"], grid.policies["aya"]
    assert grid.resource("mem_mb", [eurollm]) > grid.resource("mem_mb", [aya]) > 2000 * 3.35
    assert grid.resource("mem_mb", [eurollm], attempt=2) == 2 * grid.resource("mem_mb", [eurollm])
    assert grid.resource("runtime", [aya], attempt=3) == 3 * grid.resource("runtime", [aya])
    assert grid.resource("mem_mb", [eurollm], processes=8) > 8 * 2000 * 9
    limited = {**aya, "resources": {"runtime": 1440, "mem_mb": 100000}}
    assert [grid.resource(name, [limited], attempt=3) for name in ("runtime", "mem_mb")] == [1440, 100000]


@pytest.mark.parametrize("written", ["results/x", "./results/x/", "results//x", "results/y/../x"])
def test_one_results_folder_has_one_name(written):
    """Snakemake takes each spelling for another path, and would make all again."""
    assert read_shipped("grid", {"results": written}).results == "results/x"
    assert read_shipped("grid", {"results": "//scratch/x"}).results == "/scratch/x"


def read_grid(path):
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    default = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    config = {**default, **config}
    locator = Locator([path])
    check_config(config, ROOT / "config/schema.yaml", locator)
    return Grid(config, read_languages(), locator)
