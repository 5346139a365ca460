"""Task files of the user's that run code: refused in the config and on the command line, unless they are trusted."""

import json

import pytest
import yaml
from conftest import ROOT, rows, script, snakemake, write_rows

from croco.errors import InputError
from croco.evaluation.task_files import METRICS, find_code, list_files

WRITTEN = ROOT / "config/tasks/question_answer.yaml"
PLAIN = WRITTEN.read_text(encoding="utf-8")
MODULE = (
    "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n\ndef ask(doc):\n    return doc['question']\n"
)
METRIC = "  - metric: exact_match\n    aggregation: mean\n"
# {what: (task file, what the message names)}
CODE = {
    "function": (PLAIN.replace('doc_to_text: "{{question}}"', "doc_to_text: !function code.ask"), "!function code.ask (doc_to_text"),
    "nested function": (f"{PLAIN}fewshot_config:\n  samples: !function code.ask\n", "!function code.ask (fewshot_config.samples"),
    "metric of the hub": (PLAIN.replace("exact_match", "owner/metric"), "the metric owner/metric"),
    "metric that the hub has, too": (PLAIN.replace(METRIC, f"{METRIC}    hf_evaluate: true\n"), "the metric exact_match"),
    "include": (f"{PLAIN}include: other.yaml\n", "!function code.ask (process_docs in other.yaml)"),
    "class": (f"{PLAIN}class: Task\n", "class in task.yaml"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "code.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "other.yaml").write_text("process_docs: !function code.ask\n", encoding="utf-8")
    return tmp_path


def evaluate(miniature, prompts, folder, *more, check=False):
    data = write_rows(folder / "data.jsonl", rows(miniature / "tasks" / "heldout" / "en.jsonl")[:3])
    few = write_rows(folder / "few.jsonl", rows(prompts["en"])[:1])
    return script(
        "evaluate", "--model", miniature / "policy", "--languages", "en", "--prompts", few, "--max-tokens", 4,
        "--task", "own", folder / "task.yaml", data, "--state", folder / "state", "--output", folder / "run", *more, check=check,
    )  # fmt: skip


@pytest.mark.parametrize("case", CODE)
def test_a_task_that_runs_code_is_refused_at_once(case, folder, fresh_project):
    text, said = CODE[case]
    task = folder / "task.yaml"
    task.write_text(text, encoding="utf-8")
    config = folder / "own.yaml"

    def plan(**more):
        row = {"name": "own", "yaml": str(task), "data": "{results}/miniature/tasks/heldout/{language}.jsonl", **more}
        config.write_text(yaml.safe_dump({"evaluation": {"tasks": [row]}}), encoding="utf-8")
        return snakemake(fresh_project, "--dry-run", "--quiet", "--configfile", config, check=False)

    done = plan()
    assert done.returncode == 1 and "field evaluation.tasks[0].yaml: " in done.stderr, done.stderr
    assert said in done.stderr and "trust_task_code: true" in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "ran").exists()
    if case == "include":
        assert plan(trust_task_code=True).returncode == 0 and not (folder / "ran").exists()


@pytest.mark.parametrize("case", ["function", "metric of the hub"])
def test_the_stage_refuses_it_too(case, folder, miniature, prompts):
    (folder / "task.yaml").write_text(CODE[case][0], encoding="utf-8")
    done = evaluate(miniature, prompts, folder)
    assert done.returncode == 1 and CODE[case][1] in done.stderr and "--trust-task-code" in done.stderr
    assert not (folder / "ran").exists() and not (folder / "state").exists()


def test_a_trusted_task_runs_and_its_code_is_part_of_the_cache_key(folder, miniature, prompts):
    (folder / "task.yaml").write_text(CODE["function"][0], encoding="utf-8")
    evaluate(miniature, prompts, folder, "--trust-task-code", "own", check=True)
    assert (folder / "ran").exists()
    assert json.loads((folder / "run/eval/en.json").read_text(encoding="utf-8"))["own"]["n"] == 3
    assert "to evaluate: none" in evaluate(miniature, prompts, folder, "--trust-task-code", "own", check=True).stderr
    (folder / "code.py").write_text(f"{MODULE}\n", encoding="utf-8")
    assert "to evaluate: en" in evaluate(miniature, prompts, folder, "--trust-task-code", "own", check=True).stderr


def test_templates_of_tasks_run_in_a_sandbox(folder, miniature, prompts):
    attack = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    (folder / "task.yaml").write_text(PLAIN.replace("{{question}}", attack), encoding="utf-8")
    done = evaluate(miniature, prompts, folder)
    assert done.returncode == 1 and "SecurityError" in done.stderr and "Remedy" in done.stderr
    assert "Traceback" not in done.stderr and "<class" not in done.stderr


def test_files_of_a_task(folder):
    task = folder / "task.yaml"
    task.write_text(f"{PLAIN}include: [other.yaml, task.yaml]\n", encoding="utf-8")
    assert list_files(task) == [task, folder / "other.yaml", folder / "code.py"]
    assert list_files(WRITTEN) == [WRITTEN] and find_code(WRITTEN) == []
    for text in ("- a\n", "a: [\n", "a: !!python/object/apply:os.getcwd []\n"):
        task.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="not a task of lm-eval"):
            find_code(task)
    task.write_text("include: no.yaml\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"no\.yaml: No such file"):
        find_code(task)


def test_a_linked_task_includes_what_is_beside_the_file_itself(folder):
    (folder / "task.yaml").write_text(f"{PLAIN}include: other.yaml\n", encoding="utf-8")
    (folder / "links").mkdir()
    link = folder / "links" / "linked.yaml"
    link.symlink_to(folder / "task.yaml")
    assert list_files(link) == [folder / "task.yaml", folder / "other.yaml", folder / "code.py"]
    assert find_code(link) == ["!function code.ask (process_docs in other.yaml)"]


def test_metrics_are_those_that_lm_eval_has():
    import lm_eval.api.metrics  # noqa: F401
    from lm_eval.api.registry import metric_registry

    assert set(metric_registry.keys()) == METRICS
