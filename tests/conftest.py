"""Tiny real models for the stage tests, a finished run of the workflow for the rest, and how both are started."""

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from filelock import FileLock

collect_ignore = [] if find_spec("vllm") else ["models/test_vllm.py"]  # `make test-vllm` has it
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from croco import digests  # noqa: E402
from croco.runs import Run  # noqa: E402
from croco.warm import warm_interpreter  # noqa: E402

# Two threads on a busy machine are slower than one, and the bytes must not depend on their number. Read by torch's import.
os.environ["OMP_NUM_THREADS"] = "1"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "random"}

# vLLM starts processes of its own, so its tests start every script for real.
WARM = not find_spec("vllm")
INTERPRETER = Path(tempfile.mkdtemp(prefix="croco-")) / "python" if WARM else Path(sys.executable)
if WARM:  # the process that only hands tests to others leaves its folder otherwise
    atexit.register(shutil.rmtree, INTERPRETER.parent, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def start_warm():
    """Until the session ends INTERPRETER runs scripts in forks of one process that has imported their libraries."""
    if not WARM:
        yield
        return
    with warm_interpreter(INTERPRETER.parent, ENVIRONMENT):
        yield


def script(name, *arguments, cwd=ROOT, check=True):
    """Runs a stage's command line and returns the finished process, its output captured."""
    command = [str(INTERPRETER), str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done


def start(name, *arguments):
    """Starts a stage's command line in the background, in a process group of its own."""
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rows(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def write_rows(path, values):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def write_runs(path, *runs):
    """A run table of (model, pool, setting, seed, reward model or "-", pool size or "-", languages with commas between)."""
    table = []
    for model, pool, part, seed, reward, size, languages in runs:
        setting, _, number = part.partition("/round")
        base = pool == "untuned"
        target = None if base else "reference" if reward == "-" else "pair"
        row = {"objective": "none" if base else "dpo", "target": target, "rounds": int(number or 1)}
        run = Run(
            model=model, pool=pool, arm=setting.removesuffix(f".s{seed}"), replicate=int(seed), round=int(number or 1), seed=0,
            languages=() if base else tuple(languages.split(",")), batches={"all": tuple(languages.split(","))},
            reward_model="rm" if reward == "-" else reward, pool_size=64 if size == "-" else size, responses=model,
            row=row, varies={},
        )  # fmt: skip
        table.append(run.to_row())
    return write_rows(path, table)


def snakemake(folder, *arguments, check=True):
    command = [str(INTERPRETER), "-m", "snakemake", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
    return done


def refuse_config(project, path, text):
    """(finished process, message) of a dry-run that refuses a config, which is written to ``path``."""
    path.write_text(text, encoding="utf-8")
    done = snakemake(project, "--dry-run", "--configfile", path, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done, done.stderr[done.stderr.index("error: ") :]


def planned(folder, *arguments):
    """{rule: number of jobs} that a dry-run lists."""
    output = snakemake(folder, "--dry-run", *arguments)
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", output.stdout + output.stderr, re.S | re.M)
    return {name: int(count) for name, count in (line.split() for line in table[1].splitlines())} if table else {}


@pytest.fixture(scope="session")
def make_once(tmp_path_factory):
    """A function of a name and of what makes a folder: the folder, which all processes of a test run share."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each process has a folder of its own there
        root = root.parent

    def find(name, make):
        folder, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return find


@pytest.fixture(scope="session")
def miniature(make_once):
    """Folder with prompts, tasks and tiny models: policy/ and reward/; too little trained to be any good. Not to be changed."""

    def make(folder):
        languages = ["--languages", "en", "de"]
        script("miniature", "world", *languages, "--output", folder)
        # So many chats that it answers greedily with several words.
        length = ["--chats", 4000, "--sentences", 200]
        script("miniature", "policy", "--world", folder, *languages, *length, "--output", folder / "policy")
        reward = ["--policy", folder / "policy", "--pairs", 64, "--output", folder / "reward"]
        script("miniature", "reward", *languages, *reward)

    return make_once("miniature", make)


@pytest.fixture(scope="session")
def prompts(miniature, tmp_path_factory):
    """{language: prompt file} of 12 prompts in en and de."""
    folder = tmp_path_factory.mktemp("prompts")
    for language, options in (("en", ("--limit", 12)), ("de", ("--select", folder / "en.jsonl"))):
        script(
            "prompts", "--input", miniature / "prompts" / "train" / f"{language}.jsonl", "--language", language,
            "--reference", "reference", *options, "--output", folder / f"{language}.jsonl",
        )  # fmt: skip
    return {language: folder / f"{language}.jsonl" for language in ("en", "de")}


def forget_code():
    """Lets croco.digests read the project's files again."""
    for function in (digests.code_digest, digests.behaviour_digest, digests.read_behaviour):
        function.cache_clear()


def copy_project(folder):
    """A copy of the project's files, to run and to edit."""
    for name in (
        "Snakefile",
        "rules",
        "report",
        "scripts",
        "config",
        "profiles",
        "envs",
        "requirements.lock",
        "requirements-vllm.lock",
    ):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "glossary.md", folder / "docs")  # the page shows it
    shutil.copy(ROOT / "tests" / "scenarios" / "two_languages.yaml", folder / "two_languages.yaml")
    return folder


@pytest.fixture(scope="session")
def fresh_project(tmp_path_factory):
    """A copy of the project in which nothing was ever run: the checkout's own results play no part in a test."""
    return copy_project(tmp_path_factory.mktemp("fresh"))


def copy_run(make_once, tmp_path_factory, name):
    """A copy, for this process alone, of a project in which tests/scenarios/two_languages.yaml has run to its end."""

    def make(folder):
        copy_project(folder)
        snakemake(folder, "--cores", 2, "--configfile", "two_languages.yaml")

    run, folder = make_once("finished", make), tmp_path_factory.mktemp(name)
    subprocess.run(["cp", "--archive", f"{run}/.", str(folder)], check=True)  # keeps hard links
    return folder


@pytest.fixture(scope="session")
def finished_run(make_once, tmp_path_factory):
    """A copy of the project in which the small grid of tests/scenarios/two_languages.yaml has run to its end."""
    return copy_run(make_once, tmp_path_factory, "project")


@pytest.fixture(scope="session")
def untouched_run(make_once, tmp_path_factory):
    """As finished_run, in which no other test has run anything: for plans."""
    return copy_run(make_once, tmp_path_factory, "untouched")


# What models ship in generation_config.json besides stop tokens, of which nothing may reach a result; token 1 is the
# tiny models' stop token.
GENERATION_SETTINGS = [
    {"repetition_penalty": 1.8},
    {"no_repeat_ngram_size": 1},
    {"min_new_tokens": 12},
    {"min_length": 80},
    {"suppress_tokens": [1, 5]},
    {"num_beams": 3},
    {"num_return_sequences": 2, "num_beams": 2},
    {"stop_strings": ["i", "e"]},
    {"do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.1, "min_p": 0.9, "bad_words_ids": [[1]], "forced_eos_token_id": 7},
]  # fmt: skip


def with_settings(policy, folder, settings):
    """A copy of a policy's folder with more settings in its generation_config.json."""
    shutil.copytree(policy, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder
