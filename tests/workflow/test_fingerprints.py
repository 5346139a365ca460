"""The cache key of each stage that costs GPU time: it lists the files that decide a result, all of them and no others."""

import re
import shutil

import pytest
from conftest import ROOT, forget_code

from croco import digests

SCRIPTS = ROOT / "scripts"
ENGINES = ("croco/models/transformers_engine.py", "croco/models/vllm_engine.py")
TRAINING = ("process", "policy", "trainers", "by_rows", "live", "encode", "online_pairs")
# What decides the results of a stage, besides its inputs, options and versions.
DECIDING = {
    "generate": (*ENGINES, "croco/models/chats.py"),
    "score": (*ENGINES, "croco/models/chats.py"),
    "audit": (*ENGINES, "croco/models/chats.py"),
    "judge": (*ENGINES, "croco/models/chats.py", "croco/evaluation/judge_prompt.py"),
    "translate": (
        *(*ENGINES, "croco/models/chats.py", "croco/prompts/translation.py", "croco/prompts/formats.py"),
        *("croco/text/language.py", "croco/text/normalise.py"),
    ),
    "evaluate": (
        *(*ENGINES, "croco/models/chats.py", "evaluate.py", "croco/evaluation/harness.py", "croco/evaluation/tasks.py"),
        "croco/evaluation/directions.py",
    ),
    "train": (
        *(f"croco/training/{room}.py" for room in TRAINING),
        *("croco/models/lora.py", "croco/models/chats.py", "croco/models/transformers_engine.py"),
        "croco/text/normalise.py",
    ),
}
# What a stage imports and no result depends on, and why not.
NOT_DECIDING = {
    "croco/cli.py": "options, progress and manifests; options are in the key by their values",
    "croco/commands.py": "messages",
    "croco/errors.py": "messages",
    "croco/files.py": "writes and links files",
    "croco/hardware.py": "names of the processor and the GPUs, for manifests",
    "croco/locks.py": "who may work on a result now",
    "croco/config/checks/secrets.py": "refuses secrets",
    "croco/evaluation/task_files.py": "finds the code of own tasks, which is in the key, or refuses it",
    "croco/records.py": "reads rows, which are in the key by their content, or refuses them",
    "croco/digests.py": "makes the key; another digest is another key",
    "croco/state.py": "keeps and finds finished work",
    "croco/objectives.py": "facts that checks and the listed rooms read; the objective is in the key",
    "croco/models/options.py": "options; in the key by their values",
    "croco/models/engines.py": "chooses the engine, which is in the key",
    "croco/models/loading.py": "loads a model as it is, or refuses it",
    "croco/text/normalise.py": "compares ids, which are in the key",
    "croco/text/language.py": "looks at results after they are kept",
    "croco/text/damage.py": "makes texts, which are in the key",
    "croco/evaluation/verdicts.py": "looks at replies after they are kept",
    "croco/report/audit.py": "the page of an audit",
    "croco/report/render.py": "the page of an audit",
    "croco/miniature/world.py": "the oracle, whose verdicts are not kept",
    "croco/prompts/sources.py": "reads rows, which are in the key by their content",
    "croco/models/vllm_engine.py": "no training runs on it",
    "croco/training/passes.py": "refuses models",
    "croco/training/guards.py": "stop a training, and are asked again of a finished one",
    "croco/training/recipe.py": "refuses recipes, and says how many prompts are sampled together, which is not in the key",
    "croco/training/resume.py": "keeps and finds unfinished work",
}


def list_imported(script):
    """The project's files that a script imports, directly or not."""
    seen, waiting = set(), [SCRIPTS / f"{script}.py"]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += digests.read_behaviour(path)[1]
    return {path.relative_to(SCRIPTS).as_posix() for path in seen if path.name != "__init__.py"} - {f"{script}.py"}


def list_in_key(script):
    """The files that a script, and the engines' part of its key, name for behaviour_digest."""
    text = (SCRIPTS / f"{script}.py").read_text(encoding="utf-8")
    named = set(re.findall(r'"((?:croco/[\w/]+|evaluate)\.py)"', text))
    if "describe_engine" in text:
        named |= {*ENGINES, "croco/models/chats.py"}
    return named


@pytest.mark.parametrize("script", DECIDING)
def test_the_key_lists_what_decides_and_nothing_else(script):
    assert list_in_key(script) == set(DECIDING[script])
    undecided = list_imported(script) - set(DECIDING[script]) - NOT_DECIDING.keys()
    assert not undecided, (
        f"does {undecided} decide results of {script}.py? Then list it in the key; else say above why not"
    )


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """A function that gives a digest of a copy of scripts/ before and after a file's edit."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    monkeypatch.setattr(digests, "SCRIPTS", tmp_path / "scripts")

    def compare(take, file, text):
        forget_code()
        before, path = take(), tmp_path / "scripts" / file
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
        forget_code()
        return before, take()

    yield compare
    forget_code()


@pytest.mark.parametrize(("script", "file"), [(script, file) for script, files in DECIDING.items() for file in files])
def test_an_edited_decision_is_another_key_and_an_edited_message_is_not(edited, script, file):
    def take():
        return digests.behaviour_digest(*DECIDING[script])

    before, after = edited(take, file, '\n\ndef refuse():\n    raise InputError("a message", "a remedy")\n')
    assert before != after, "another function may decide"
    before, after = edited(take, "croco/errors.py", "\nREMEDY = 'another'\n")
    assert before == after
    before, after = edited(take, file, "\nREMEDY = 'a message'\n\n# a comment\n")
    middle = after
    before, after = edited(take, file, "\nprint('said to the user')\n")
    assert before == middle and take() != "" and edited(take, file, "\ndecides = 1\n")[1] != after


@pytest.mark.parametrize("script", ["summary", "findings", "report", "bundle", "build_pairs", "fidelity"])
@pytest.mark.parametrize("file", [*ENGINES, "croco/models/options.py", "croco/models/loading.py", "croco/grid.py"])
def test_an_edited_engine_or_engine_option_makes_no_table_again(edited, script, file):
    def take():
        return digests.code_digest(digests.SCRIPTS / f"{script}.py")

    before, after = edited(take, file, "\ndecides = 1\n")
    assert before == after
    before, after = edited(take, f"{script}.py", "\ndecides = 1\n")
    assert before != after
