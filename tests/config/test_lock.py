"""The lock of `snakemake stage`: what it lists, what it holds a run to, and what a run says without it."""

import json
import subprocess

import hub
import pytest
import yaml
from conftest import ENVIRONMENT, INTERPRETER, copy_project, script, write_rows

LOCK = "results/small/stage.lock.json"
MOVED = "f" * 40
CARD = "---\nconfigs:\n- config_name: en\n  data_files:\n  - {split: test, path: en.jsonl}\n- config_name: de\n  data_files:\n  - {split: test, path: de.jsonl}\n---\n"  # fmt: skip


def run(project, *arguments, config="hub.yaml", **environment):
    command = [INTERPRETER, "-m", "snakemake", *arguments, "--configfile", "two_languages.yaml", config]
    environment = {**ENVIRONMENT, "HF_HOME": str(project / "home"), **environment}
    return subprocess.run(
        list(map(str, command)), cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def stage(project, *options):
    with hub.serving(project / "served") as address:
        return run(project, "stage", "-f", "--cores", "1", *options, HF_HUB_OFFLINE="0", HF_ENDPOINT=address)


def write_config(project, change=lambda config: None):
    """A config with a policy, a tokenizer and an arena of the hub, and training prompts in a local folder."""
    default = yaml.safe_load((project / "config/config.yaml").read_text())
    train = {"use": "train", "dataset": "data", "limit": 3, "max_tokens": 90, "tokenizer": "org/tiny", "translations": [{"language": "de", "path": "de.jsonl"}]}  # fmt: skip
    arena = {"use": "evaluate", "dataset": "org/arena", "subset": "{language}", "split": "test", "text": "prompt"}
    config = {
        "policies": [{**default["policies"][0], "path": "org/tiny", "revision": "main"}, *default["policies"][1:]],
        "prompts": [train, arena],
        "evaluation": {"samples": 4, "temperature": 0, "max_tokens": 32, "judge": "none", "tasks": []},
        "contrasts": [],
    }
    change(config)
    (project / "hub.yaml").write_text(yaml.safe_dump(config))


def hold(config):
    config["lock"] = "my.lock.json"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose config was staged from a hub on the loopback interface."""
    project = copy_project(tmp_path_factory.mktemp("lock"))
    tiny, arena = project / "served/models/org/tiny", project / "served/datasets/org/arena"
    tiny.mkdir(parents=True)
    (tiny / "config.json").write_text("{}")
    (tiny / "model.safetensors").write_bytes(b"weights")
    for code in ("en", "de"):
        write_rows(arena / f"{code}.jsonl", [{"id": str(i), "prompt": f"{code} {i}"} for i in range(3)])
    (arena / "README.md").write_text(CARD)
    write_rows(project / "data/train.jsonl", [{"id": str(i), "text": f"the prompt {i}"} for i in range(3)])
    write_rows(project / "de.jsonl", [{"id": str(i), "text": f"die Frage {i}"} for i in range(3)])
    write_config(project)
    done = stage(project)
    assert done.returncode == 0, done.stdout + done.stderr
    (project / "my.lock.json").write_bytes((project / LOCK).read_bytes())
    return project


def test_lock_lists_commits_and_contents_in_the_same_bytes(project):
    items = json.loads((project / "my.lock.json").read_text())["items"]
    assert [(item["kind"], item["path"], item["subset"], item["revision"], item["commit"]) for item in items] == [
        ("dataset", "org/arena", "de", None, hub.COMMIT),
        ("dataset", "org/arena", "en", None, hub.COMMIT),
        ("dataset", "data", None, None, None),
        ("model", "org/tiny", None, "main", hub.COMMIT),
    ]
    assert all(len(item["digest"]) == 32 for item in items) and items[0]["digest"] != items[1]["digest"]
    write_config(project)
    assert stage(project).returncode == 0
    assert (project / LOCK).read_bytes() == (project / "my.lock.json").read_bytes()


def test_a_run_is_held_to_the_lock(project):
    write_config(project)
    free = run(project, "-n", "-p")
    assert free.returncode == 0, free.stderr
    warnings = [line for line in free.stderr.splitlines() if line.startswith("warning: not pinned")]
    assert len(warnings) == 1 and "model mini, tokenizer train, dataset evaluate:" in warnings[0]
    assert "/bin/snakemake stage --cores 1` with" in warnings[0] and "local" not in warnings[0].partition(": run")[0]
    write_config(project, hold)
    held = run(project, "-n", "-p")
    assert held.returncode == 0 and "not pinned" not in held.stderr, held.stderr
    said = held.stdout + held.stderr
    for option in ("--revision", "--tokenizer-revision"):
        assert f"{option} {hub.COMMIT}" in said
    assert "--revision main" not in said
    arena = next(line for line in said.splitlines() if "--dataset org/arena" in line)
    assert f"--revision {hub.COMMIT}" in arena


def test_the_lock_is_relative_to_the_working_directory(project):
    """As every path of a config is, wherever the config itself is."""
    write_config(project, hold)
    folder = project / "elsewhere"
    folder.mkdir()
    (project / "hub.yaml").rename(folder / "hub.yaml")
    held = run(project, "-n", "-p", config="elsewhere/hub.yaml")
    assert held.returncode == 0 and f"--revision {hub.COMMIT}" in held.stdout + held.stderr, held.stderr
    (project / "my.lock.json").rename(folder / "my.lock.json")
    lost = run(project, "-n", config="elsewhere/hub.yaml")
    (folder / "my.lock.json").rename(project / "my.lock.json")
    assert lost.returncode == 1 and "the lock is not here" in lost.stderr, lost.stderr
    assert "relative to the working directory" in lost.stderr


def move_policy(config):
    hold(config)
    config["policies"][0]["revision"] = "v2"


def add_policy(config):
    hold(config)
    config["policies"].append({**config["policies"][0], "name": "more", "path": "org/more", "tune": False})


def lose_lock(config):
    config["lock"] = "none.lock.json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (move_policy, ("my.lock.json, field model mini", "revision v2 of org/tiny", f"main at {hub.COMMIT}")),
        (add_policy, ("my.lock.json, field model more", "the lock does not have org/more")),
        (lose_lock, ("none.lock.json", "the lock is not here")),
    ],
)
def test_what_the_lock_does_not_hold_is_refused(project, change, said):
    write_config(project, change)
    done = run(project, "-n")
    assert done.returncode == 1 and "Traceback" not in done.stderr and done.stderr.count("Remedy") == 1
    for text in (*said, "/bin/snakemake stage -f --cores 1 --config lock=none`"):
        assert text in done.stderr, done.stderr


def test_changed_local_data_is_refused(project):
    write_config(project, hold)
    path = project / "data/train.jsonl"
    before = path.read_text()
    path.write_text(before.replace("prompt 1", "prompt one"))
    done = run(project, "-n")
    path.write_text(before)
    assert done.returncode == 1 and "the content of data is not the one in the lock" in done.stderr, done.stderr


def test_stage_without_the_lock_writes_a_new_one(project, monkeypatch):
    write_config(project, hold)
    monkeypatch.setattr(hub, "COMMIT", MOVED)
    done = stage(project, "--config", "lock=none")
    assert done.returncode == 0 and "not pinned" not in done.stderr, done.stderr
    commits = [(item["kind"], item["commit"]) for item in json.loads((project / LOCK).read_text())["items"]]
    assert commits == [("dataset", MOVED), ("dataset", MOVED), ("dataset", None), ("model", MOVED)]


def test_stage_names_missing_columns_and_subsets(project):
    def change(config):
        del config["prompts"][1]["text"]
        config["prompts"][1]["reference"] = "answer"
        config["prompts"][0] |= {"reference": "answer", "where": {"sort": "a"}}
        write_rows(project / "de.jsonl", [{"id": str(i), "text": f"die Frage {i}", "answer": "ja"} for i in range(3)])

    write_config(project, change)
    done = stage(project)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in said
    assert "dataset evaluate: no column text (`text`), answer (`reference`); it has id, prompt" in said, said
    assert "dataset train: no column answer (`reference`), sort (`where`); it has id, text" in said and "3 of 4" in said

    def remove_language(config):
        config["prompts"][1]["subset"] = "x{language}"

    write_config(project, remove_language)
    done = stage(project)
    assert done.returncode == 1 and "xde" in done.stdout + done.stderr


def test_a_cache_of_another_commit_is_not_taken_for_the_locked_one(project, monkeypatch):
    monkeypatch.setattr(hub, "COMMIT", MOVED)
    options = ["--dataset", "org/arena", "--subset", "en", "--split", "test", "--text", "prompt", "--language", "en"]
    command = [INTERPRETER, project / "scripts/prompts.py", *options, "--revision", "a" * 40, "--output", project / "x.jsonl"]  # fmt: skip
    environment = {**ENVIRONMENT, "HF_HOME": str(project / "home")}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"asked for at commit {'a' * 40}, and the cache gives" in done.stderr, done.stderr


def add_translator(config):
    """The training prompts of German come from a translator."""
    template = {"format": "template", "template": "{target_name}: {text}", "max_tokens": 24}
    config["translators"] = [{"name": "tiny", "path": "org/tiny", **template}]
    config["prompts"][0]["translator"] = "tiny"
    del config["prompts"][0]["translations"]


def test_no_model_runs_before_the_declared_columns_are_there(project):
    """Without a network, what is staged is examined."""

    def misspell(config):
        add_translator(config)
        config["prompts"][1]["text"] = "question"

    write_config(project, misspell)
    done = run(project, "results/small/datasets.json", "--cores", "1", HF_HUB_OFFLINE="1")
    assert done.returncode == 1, done.stdout + done.stderr
    for code in ("en", "de"):
        assert (
            f"prompts evaluate, org/arena, subset {code}: no column question (`text`); it has id, prompt" in done.stderr
        )
    assert not (project / "results/small/datasets.json").exists()
    for target in ("prompts/de/0.jsonl", "mini/en/generations/0.jsonl"):
        planned = run(project, "-n", f"results/small/{target}")
        assert planned.returncode == 0 and "check_datasets" in planned.stdout + planned.stderr, planned.stderr


def test_a_passed_check_of_datasets_is_not_repeated(project):
    write_config(project, add_translator)
    done = run(project, "results/small/datasets.json", "--cores", "1", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((project / "results/small/datasets.json").read_text()) == {"datasets": 3, "unknown": []}
    again = run(project, "-n", "results/small/mini/en/generations/0.jsonl")
    assert again.returncode == 0 and "check_datasets" not in again.stdout + again.stderr, again.stderr


def test_hidden_files_are_no_content_of_a_local_dataset(project):
    """As `hf download --local-dir`, git and macOS leave them; neither the lock nor a finished check minds them."""
    write_config(project, add_translator)
    done = run(project, "results/small/datasets.json", "--cores", "1", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (".cache/huggingface/train.metadata", ".git/HEAD", ".DS_Store"):
        (project / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "data" / name).write_text("noted")
    again = run(project, "-n", "results/small/datasets.json")
    write_config(project, hold)
    held = run(project, "-n")
    for file in (project / "data").rglob("*"):
        if file.is_file() and file.name != "train.jsonl":
            file.unlink()
    assert again.returncode == 0 and "check_datasets" not in again.stdout + again.stderr, again.stderr
    assert held.returncode == 0, held.stderr


def test_a_dataset_that_cannot_be_known_without_a_network_is_no_error(tmp_path):
    columns = ["id=id", "text=text"]
    options = ["--dataset", "train", "org/not_staged", "-", "-", "train", *columns, "--output", tmp_path / "found.json"]
    done = script("check_datasets", *options)
    assert "warning: prompts train, org/not_staged: the hub did not answer" in done.stderr, done.stderr
    assert len(json.loads((tmp_path / "found.json").read_text())["unknown"]) == 1


def test_a_task_whose_local_data_lack_a_field_is_refused_before_any_job(project):
    def add_task(config):
        write_rows(project / "facts.jsonl", [{"query": "Why?"}])
        (project / "facts.yaml").write_text((project / "config/tasks/question_answer.yaml").read_text())
        config["evaluation"]["tasks"] = [{"name": "facts", "yaml": "facts.yaml", "data": "facts.jsonl"}]

    write_config(project, add_task)
    done = run(project, "-n")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "facts.jsonl: no row has the field question" in done.stderr, done.stderr


@pytest.mark.parametrize(("trusted", "ends"), [(True, 0), (False, 1)])
def test_a_task_whose_own_code_is_trusted_may_make_the_fields_of_its_question(project, trusted, ends):
    def add_task(config):
        write_rows(project / "facts.jsonl", [{"query": "Why?"}])
        text = (project / "config/tasks/question_answer.yaml").read_text()
        (project / "facts.yaml").write_text(f"{text}process_docs: !function code.ask\n")
        (project / "code.py").touch()
        row = {"name": "facts", "yaml": "facts.yaml", "data": "facts.jsonl", "trust_task_code": trusted}
        config["evaluation"]["tasks"] = [row]

    write_config(project, add_task)
    done = run(project, "-n")
    assert done.returncode == ends and ("runs code" in done.stderr) != trusted, done.stderr
