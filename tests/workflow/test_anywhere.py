"""The workflow from another working directory, inside another workflow, with the user's rules, and its environments."""

import re

import pytest
import yaml
from conftest import ROOT, copy_project, planned, rows, snakemake

from croco.config.shipped import find_shipped_files

# Cheap ones: the miniature's texts, a template that Snakemake renders, and a file of the checkout as input.
TARGETS = [f"results/miniature/{name}" for name in ("prompts/en.jsonl", "runs.jsonl", "comparability.json")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project with a space in its path, in which nothing is run."""
    folder = tmp_path_factory.mktemp("copy") / "a checkout"
    folder.mkdir()
    return copy_project(folder)


@pytest.fixture(scope="module")
def plan(checkout):
    """{rule: number of jobs} of the miniature, started in the checkout."""
    return planned(checkout)


def read_example(first_line, checkout):
    """The code block of docs/embedding.md that begins with this line, with the path of the checkout filled in."""
    page = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\w*\n(.*?)```", page, re.S)
    return next(block for block in blocks if block.startswith(first_line)).replace("/path/to/croco", str(checkout))


def check_made(folder):
    assert all((folder / target).is_file() for target in TARGETS)
    assert len(rows(folder / TARGETS[0])) == 85


@pytest.mark.parametrize("start", ["in the folder", "--directory"])
def test_plan_is_the_same_from_another_working_directory(checkout, plan, tmp_path, start):
    options = ["--directory", tmp_path] if start == "--directory" else []
    folder = checkout.parent if options else tmp_path
    assert planned(folder, "-s", checkout / "Snakefile", *options) == plan


def test_results_are_in_the_working_directory_and_a_moved_checkout_re_runs_only_what_reads_its_files(tmp_path):
    scratch, old, new = tmp_path / "scratch", tmp_path / "old place", tmp_path / "new place"
    scratch.mkdir()
    old.mkdir()
    copy_project(old)
    snakemake(scratch, *TARGETS, "-s", old / "Snakefile", "--cores", 1)
    check_made(scratch)
    assert not (old / "results").exists() and not (old / ".snakemake").exists()
    old.rename(new)
    assert planned(scratch, *TARGETS, "-s", new / "Snakefile") == {"write_runs": 1, "compare_evaluations": 1}


def test_renamed_checkout_with_its_results_re_runs_nothing(tmp_path):
    old, new = tmp_path / "old name", tmp_path / "new name"
    old.mkdir()
    copy_project(old)
    snakemake(old, *TARGETS, "--cores", 1)
    check_made(old)
    old.rename(new)
    assert planned(new, *TARGETS) == {}


def test_paths_are_relative_in_the_checkout(checkout):
    """Whatever a job's inputs, params and command name: with the checkout's place in it, a renamed folder re-runs jobs."""
    output = snakemake(checkout, "--dry-run", "--forceall", "--printshellcmds").stdout
    jobs = output[output.index("Building DAG of jobs") :]
    assert "python scripts/train.py" in jobs and str(checkout) not in jobs


def test_module(checkout, tmp_path):
    """The documented Snakefile: the importer's config reaches the rules, and their results are in its folder."""
    (tmp_path / "Snakefile").write_text(read_example("# Snakefile", checkout), encoding="utf-8")
    (tmp_path / "croco.yaml").write_text("seed: 3\n", encoding="utf-8")
    jobs = planned(tmp_path)
    assert jobs["first_line"] == jobs["croco_summarise"] == 1 and jobs["croco_evaluate_multi"] == 6
    snakemake(tmp_path, *TARGETS, "--cores", 1)
    check_made(tmp_path)
    manifest = yaml.safe_load((tmp_path / "results/miniature/prompts/en/0.manifest.json").read_text(encoding="utf-8"))
    assert manifest["options"]["seed"] == 3
    assert not (checkout / "results").exists()
    done = snakemake(tmp_path, "--dry-run", "--config", "smaples=3", check=False)
    assert done.returncode and "--config, field smaples: unknown key" in done.stdout + done.stderr


def test_module_without_config_has_the_defaults(checkout, plan, tmp_path):
    write_importer(tmp_path, checkout, "")
    output = snakemake(tmp_path, "--dry-run")
    assert "localrules" not in output.stdout + output.stderr
    assert planned(tmp_path) == {f"croco_{name}": number for name, number in plan.items()}


def test_module_with_its_config_under_a_key(checkout, tmp_path):
    default = yaml.safe_load((checkout / "config/config.yaml").read_text(encoding="utf-8"))
    write_importer(tmp_path, checkout, '    config: config["croco"]\n', {"croco": default, "ours": 1})
    assert planned(tmp_path, "results/miniature/runs.jsonl") == {"croco_write_runs": 1}
    write_importer(tmp_path, checkout, '    config: config["croco"]\n', {"croco": {**default, "smaples": 3}})
    done = snakemake(tmp_path, "--dry-run", check=False)
    assert done.returncode and "config of the module, field smaples: unknown key" in done.stdout + done.stderr


def write_importer(folder, checkout, config_line, config=None):
    (folder / "ours.yaml").write_text(yaml.safe_dump(config or {}, allow_unicode=True), encoding="utf-8")
    lines = f'configfile: "ours.yaml"\nmodule croco:\n    snakefile: "{checkout}/Snakefile"\n{config_line}'
    (folder / "Snakefile").write_text(f"{lines}use rule * from croco as croco_*\n", encoding="utf-8")


def test_shipped_files_are_found_in_the_checkout(tmp_path, monkeypatch):
    base, work = tmp_path / "checkout", tmp_path / "work"
    for folder, names in ((base, ("task.yaml", "judge.txt")), (work, ("judge.txt",))):
        (folder / "config").mkdir(parents=True)
        for name in names:
            (folder / "config" / name).touch()

    def find():
        tasks = [{"yaml": "config/task.yaml"}, {"yaml": "config/missing.yaml"}]
        config = {"evaluation": {"tasks": tasks}, "judges": [{"prompt": "config/judge.txt"}]}
        find_shipped_files(config, base)
        return [*(task["yaml"] for task in config["evaluation"]["tasks"]), config["judges"][0]["prompt"]]

    monkeypatch.chdir(work)
    assert find() == [str(base / "config/task.yaml"), "config/missing.yaml", "config/judge.txt"]
    monkeypatch.chdir(base)
    assert find() == ["config/task.yaml", "config/missing.yaml", "config/judge.txt"]
    monkeypatch.chdir(tmp_path)
    assert find() == ["checkout/config/task.yaml", "config/missing.yaml", "checkout/config/judge.txt"]


def test_shipped_config_from_another_working_directory(checkout, tmp_path):
    """Its task files and the judge's prompt are named by the checkout's path, and exist."""
    config = checkout / "config" / "small.yaml"
    output = snakemake(tmp_path, "-s", checkout / "Snakefile", "--dry-run", "--printshellcmds", "--configfile", config)
    assert f"{checkout}/config/judge_prompt.txt" in output.stdout
    assert f"{checkout}/config/tasks/reading.yaml" in output.stdout


def test_custom_rules(checkout, tmp_path):
    """The documented rule, in the working directory: it reads the summary, and is a target."""
    (tmp_path / "my_rules.smk").write_text(read_example("# my_rules.smk", checkout), encoding="utf-8")
    (tmp_path / "my.yaml").write_text(read_example("custom_rules:", checkout), encoding="utf-8")
    options = ("-s", checkout / "Snakefile", "--configfile", "my.yaml")
    jobs = planned(tmp_path, "best_rows", *options)
    assert jobs["best_rows"] == jobs["summarise"] == 1 and "write_report" not in jobs
    assert "all" in planned(tmp_path, *options) and "best_rows" not in planned(tmp_path, *options)


def test_missing_custom_rules_are_a_fault(checkout, tmp_path):
    (tmp_path / "my.yaml").write_text("seed: 1\ncustom_rules: [missing.smk]\n", encoding="utf-8")
    done = snakemake(tmp_path, "-s", checkout / "Snakefile", "-n", "--configfile", "my.yaml", check=False)
    assert done.returncode == 1
    message = f"my.yaml:2, field custom_rules[0]: there is no file missing.smk in {tmp_path}"
    assert message in done.stdout + done.stderr and "Remedy: correct the path" in done.stdout + done.stderr


def test_workflow_catalog_entry():
    entry = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))
    assert set(entry) == {"usage"}
    usage = entry["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["software-stack-deployment"]["conda"] is True and usage["report"] is True
    assert (ROOT / "config" / "README.md").is_file()


def test_container_installs_the_lock_and_repeats_no_version_of_it():
    text = (ROOT / "envs" / "Containerfile").read_text(encoding="utf-8")
    assert re.search(r"^FROM \S+/python:\d+\.\d+\.\d+-slim-\w+$", text, re.M)
    assert "COPY requirements.lock" in text and not re.search(r"==\d", text)
    # torch first, then the rest: the commands of the Makefile.
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in ("\"$$(grep '^torch==' requirements.lock)\"", "-r requirements.lock"):
        assert command in makefile
        assert command.replace("$$", "$").replace("requirements.lock", "/tmp/requirements.lock") in text
    assert re.findall(r"^USER (\w+)$", text, re.M)[-1] != "root"
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()[1:] == ["*", "!requirements.lock"]
