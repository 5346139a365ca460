"""What runs again on a finished run when one thing changes: everything that depends on it, and nothing else.

Models, prompts, tasks and the judge come from outside the workflow here, as users bring them.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from conftest import ENVIRONMENT, copy_project, planned, rows, snakemake, write_rows

RESULTS = "results/outside"
CONFIG = {
    "results": RESULTS,
    "languages": [{"code": "en"}, {"code": "de"}],
    "samples": 4,
    "hygiene": [],
    "prompts": [
        {
            "use": "train",
            "dataset": "data/train",
            "limit": 8,
            "max_tokens": 64,
            "tokenizer": "models/tokenizer",
            "translations": [{"language": "de", "path": "data/train.de.jsonl"}],
        },
        {"use": "evaluate", "path": "data/dev.{language}.jsonl"},
    ],
    "pools": [{"name": "multi", "languages": ["en", "de"]}],
    "policies": [{"name": "mini", "path": "models/policy", "temperature": 0.6, "max_tokens": 12}],
    "reward_models": [{"name": "english", "path": "models/reward", "max_length": 128}],
    "judges": [{"name": "tiny", "path": "models/judge", "prompt": "data/judge.txt", "max_tokens": 4}],
    "settings": [
        {"name": "base", "objective": "none"},
        {"name": "dpo", "objective": "dpo", "target": "pair", "rejected": "min", "pools": ["multi"]},
    ],
    "recipes": [{"name": "dpo", "learning_rate": 1e-3, "epochs": 1, "batch": 4, "micro_batch": 4, "max_length": 128}],
    "evaluation": {
        "judge": "tiny",
        "max_unparseable": 1,
        "samples": 1,
        "temperature": 0,
        "max_tokens": 8,
        "tasks": [{"name": "facts", "yaml": "data/facts.yaml", "data": "data/facts.{language}.jsonl"}],
    },
    "audit": {"prompts": 8, "comparisons": "data/comparisons.{language}.jsonl"},
    "contrasts": [],
}

# Jobs by what makes them necessary; each includes what follows from it. One of two evaluations is the tuned model's.
PAGE = {"all": 1, "write_report": 1}
FINDINGS = PAGE | {"check_findings": 1}
SUMMARY = FINDINGS | {"summarise": 1}
JUDGED = SUMMARY | {"judge_multi": 1}
MEASURED = SUMMARY | {"measure_multi": 1, "score_answers_multi": 1}
TUNED = SUMMARY | {"judge_multi": 1, "measure_multi": 1, "score_answers_multi": 1, "evaluate_multi": 1}
TRAINED = TUNED | {"train": 1}
PAIRED = TRAINED | {"build_pairs": 1}
AUDITED = {"audit_reward": 1}
SCORED = PAIRED | AUDITED | {"score": 2, "gather_scores": 2}
SAMPLED = SCORED | {"generate": 2, "gather_generations": 2, "generate_audited": 2}
EVALUATED = {"evaluate_multi": 2, "measure_multi": 2, "score_answers_multi": 2, "judge_multi": 1}
POLICY = SAMPLED | EVALUATED | {"check_template": 1, "check_models": 1}


@pytest.fixture(scope="session")
def outside_run(miniature, tmp_path_factory):
    """A finished run whose models and data are no outputs of the workflow."""
    project = copy_project(tmp_path_factory.mktemp("outside"))
    for name in ("policy", "reward", "judge", "tokenizer"):
        shutil.copytree(miniature / ("reward" if name == "reward" else "policy"), project / "models" / name)
    (project / "models/tokenizer/model.safetensors").unlink()
    data = project / "data"
    for language in ("en", "de"):
        train = rows(miniature / f"prompts/train/{language}.jsonl")[:8]
        write_rows(data / ("train/train.jsonl" if language == "en" else "train.de.jsonl"), train)
        write_rows(data / f"dev.{language}.jsonl", rows(miniature / f"prompts/dev/{language}.jsonl")[:3])
        write_rows(data / f"facts.{language}.jsonl", [{"id": "1", "question": "2 + 3?", "answer": "5"}])
        compared = {"language": language, "check": "mine", "answer": "Yes.", "damaged": "No no."}
        write_rows(data / f"comparisons.{language}.jsonl", [{"prompt_id": train[0]["id"], **compared}])
    shutil.copy(project / "config/judge_prompt.txt", data / "judge.txt")
    shutil.copy(project / "config/tasks/question_answer.yaml", data / "facts.yaml")
    (project / "outside.yaml").write_text(yaml.safe_dump(CONFIG, allow_unicode=True), encoding="utf-8")
    snakemake(project, "--cores", 2, "--configfile", "outside.yaml")
    return project


def set_config(*keys, value):
    """A change of the config: the value under a path of keys."""

    def change(project):
        path = project / "outside.yaml"
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        row = config
        for key in keys[:-1]:
            row = row[key]
        row[keys[-1]] = value
        path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")

    return "outside.yaml", change


def replace_text(name, old, new):
    """A change of one place in a text file."""

    def change(project):
        text = (project / name).read_text(encoding="utf-8")
        assert old in text, (name, old)
        (project / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return name, change


def flip_last_byte(name):
    """Another weight."""

    def change(project):
        data = (project / name).read_bytes()
        (project / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    return name, change


CHECKED = {"check_contamination": 2, "count_contamination": 1, "select_audited": 2}
SELECTED = {"select_train": 2, "gather_prompts_train": 2, **CHECKED}
ONE_LANGUAGE = dict.fromkeys(
    (*SELECTED, "generate", "gather_generations", "generate_audited", "score", "gather_scores"), 1
)
# A changed evaluation is compared again before anything else is sampled; what is sampled already comes out of state/.
COMPARED = (
    SAMPLED
    | CHECKED
    | {name: count for name, count in ONE_LANGUAGE.items() if name not in ("select_train", "gather_prompts_train")}
)
REWARDED = SCORED | {"score_answers_multi": 2}
CHANGES = {
    "policy path": (set_config("policies", 0, "path", value="models/judge"), POLICY),
    "policy revision": (set_config("policies", 0, "revision", value="v2"), POLICY),
    "policy temperature": (set_config("policies", 0, "temperature", value=0.7), SAMPLED),
    "policy template options": (set_config("policies", 0, "template_options", value={"thinking": False}), POLICY),
    "policy chat template": (replace_text("models/policy/chat_template.jinja", "{% for", " {% for"), POLICY),
    "policy generation config": (replace_text("models/policy/generation_config.json", "{", "{ "), POLICY),
    "policy weights": (flip_last_byte("models/policy/model.safetensors"), POLICY),
    "samples": (
        set_config("samples", value=5),
        SAMPLED | {"write_runs": 1, "write_plan": 1, "generate_audited": 0, "audit_reward": 0},
    ),
    "reward weights": (
        flip_last_byte("models/reward/model.safetensors"),
        REWARDED | {"check_role_template": 1, "check_models": 1},
    ),
    "reward max_length": (set_config("reward_models", 0, "max_length", value=100), REWARDED),
    "recipe learning rate": (set_config("recipes", 0, "learning_rate", value=2e-3), TRAINED),
    "recipe batch": (set_config("recipes", 0, "batch", value=8), TRAINED),
    "pair rule": (set_config("settings", 1, "rejected", value="q1"), PAIRED | {"write_runs": 1}),
    "task YAML": (replace_text("data/facts.yaml", "{{question}}", "Q: {{question}}"), SUMMARY | EVALUATED),
    "task data": (replace_text("data/facts.de.jsonl", "2 + 3", "3 + 2"), COMPARED | EVALUATED),
    "evaluation prompts": (
        replace_text("data/dev.de.jsonl", "?", " ?"),
        COMPARED | EVALUATED | {"select_evaluate": 1, "gather_prompts_evaluate": 1},
    ),
    "allowed overlap": (
        set_config("max_overlap", value={"exact": 0.1}),
        SAMPLED | CHECKED,
    ),
    "judge's prompt": (replace_text("data/judge.txt", "You", "You there"), JUDGED),
    "judge weights": (
        flip_last_byte("models/judge/model.safetensors"),
        JUDGED | {"check_role_template": 1, "check_models": 1},
    ),
    "comparisons": (replace_text("data/comparisons.de.jsonl", "No no.", "No!"), FINDINGS | AUDITED),
    "dataset": (replace_text("data/train/train.jsonl", "?", " ?"), SAMPLED | SELECTED),
    "translations": (replace_text("data/train.de.jsonl", "?", " ?"), SAMPLED | SELECTED | ONE_LANGUAGE),
    "tokenizer of max_tokens": (replace_text("models/tokenizer/tokenizer_config.json", "{", "{ "), SAMPLED | SELECTED),
    "code of templates": (
        replace_text(
            "scripts/croco/models/template_check.py",
            "follows_clock(tokenizer, options)",
            "follows_clock(tokenizer, {**options})",
        ),
        SAMPLED | EVALUATED | {"check_template": 1, "check_role_template": 2, "check_models": 1},
    ),
    "code of an engine": (
        replace_text("scripts/croco/models/transformers_engine.py", "return responses", "return [*responses]"),
        SAMPLED | EVALUATED | {"select_audited": 2},
    ),
    "code of pair rules": (replace_text("scripts/croco/pairs/rules.py", "mean - 2 * std", "mean - 2.5 * std"), PAIRED),
    "a comment": (replace_text("scripts/croco/models/chats.py", '"""What', '# why\n"""What'), {}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_change_makes_exactly_what_depends_on_it(outside_run, name):
    (file, change), expected = CHANGES[name]
    before = (outside_run / file).read_bytes()
    try:
        change(outside_run)
        jobs = planned(outside_run, "--configfile", "outside.yaml")
    finally:
        (outside_run / file).write_bytes(before)
    assert jobs == {rule: count for rule, count in expected.items() if count}


def test_nothing_changed_makes_nothing(outside_run):
    assert planned(outside_run, "--configfile", "outside.yaml") == {}


def test_a_kill_when_the_template_report_appears_leaves_the_rest_to_do(outside_run):
    """The samples of a policy are never taken for those of its template before the change."""
    _, change = set_config("policies", 0, "template_options", value={"thinking": True})
    change(outside_run)
    report = outside_run / RESULTS / "mini/template.json"
    before = report.stat().st_mtime_ns
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "outside.yaml"]
    process = subprocess.Popen(
        command, cwd=outside_run, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )  # fmt: skip
    try:
        while process.poll() is None and (not report.exists() or report.stat().st_mtime_ns == before):
            time.sleep(0.01)
        assert process.poll() is None, "it ended before the report was there"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    jobs = planned(outside_run, "--configfile", "outside.yaml")
    assert {**POLICY, **jobs, "check_template": 1, "check_models": 1} == {
        **jobs,
        "check_template": 1,
        "check_models": 1,
    }
