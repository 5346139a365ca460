"""Rehearsals of the shipped configs on replicas of their models, from a hub on the loopback interface."""

import subprocess
import sys

import pytest
import yaml
from conftest import ENVIRONMENT, ROOT
from hub import serving
from rehearsal.stand_ins import read_json, write_hub


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """(environment in which the hub of stand-ins is reached, its folder)."""
    folder = tmp_path_factory.mktemp("stand-ins")
    write_hub(folder / "served")
    with serving(folder / "served") as address:
        yield {**ENVIRONMENT, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(folder / "home")}, folder


def rehearse(environment, folder, *arguments):
    command = [sys.executable, ROOT / "scripts/rehearse.py", *arguments, "--output", "rehearsal"]
    return subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("name", "languages"), [("paper", ["mt"]), ("small", [])])
def test_a_shipped_config_passes_every_stage(hub, tmp_path, name, languages):
    environment, _ = hub
    options = ["--languages", *languages] if languages else []
    done = rehearse(environment, tmp_path, "--configfile", ROOT / f"config/{name}.yaml", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    report = read_json(tmp_path / "rehearsal/rehearsal.json")
    (outcome,) = report["engines"]
    counts = {row["stage"] for row in outcome["stages"] if row["passed"]}
    assert {"translate", "generate", "score", "train", "evaluate", "judge", "write_release", "write_report"} <= counts
    assert not any(row["broken"] or row["not_reached"] for row in outcome["stages"])
    assert [path.name for path in (tmp_path / "rehearsal").iterdir()] == ["rehearsal.json"], "it cleans up"


def test_a_folder_that_no_rehearsal_wrote_is_left_alone(tmp_path):
    (tmp_path / "rehearsal").mkdir()
    (tmp_path / "rehearsal/thesis.tex").write_text("years of work")
    done = rehearse(ENVIRONMENT, tmp_path)
    assert done.returncode == 1 and "no rehearsal wrote it" in done.stderr
    assert (tmp_path / "rehearsal/thesis.tex").read_text() == "years of work"


def test_the_grid_of_the_miniature_passes(tmp_path):
    """Every arm: models that the workflow makes itself are made small, and no hub is needed."""
    done = rehearse(ENVIRONMENT, tmp_path, "--configfile", ROOT / "config/grid.yaml", "--languages", "de")
    assert done.returncode == 0, done.stdout + done.stderr
    (outcome,) = read_json(tmp_path / "rehearsal/rehearsal.json")["engines"]
    trained = next(row for row in outcome["stages"] if row["stage"] == "train")
    assert trained["passed"] >= 20 and not trained["broken"]


def test_models_that_do_not_fit_are_found_before_anything_is_sampled(hub, tmp_path):
    """Each message is the one that the real run would end with, hours later for the judge."""
    environment, _ = hub
    config = yaml.safe_load((ROOT / "config/small.yaml").read_text())
    config["reward_models"][0]["path"] = "Qwen/Qwen3-8B"
    config["translators"][0] |= {"format": "translategemma"}
    del config["translators"][0]["template"]
    config["judges"][0]["path"] = "Qwen/Qwen3-8"
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(config))
    done = rehearse(environment, tmp_path, "--configfile", "broken.yaml")
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr, done.stderr
    (outcome,) = read_json(tmp_path / "rehearsal/rehearsal.json")["engines"]
    broken = {fault["where"]: fault["what"] for fault in outcome["broken"]}
    assert "the model has 2 logits, a reward model has one" in broken["check_role_template skywork reward skywork"]
    assert "does not fit the format translategemma" in broken["check_role_template eurollm9 translator eurollm9"]
    assert "Qwen/Qwen3-8: the model cannot be loaded" in broken["judge qwen"]
    sampled = next(row for row in outcome["stages"] if row["stage"] == "generate")
    assert sampled["passed"] == 0 < sampled["not_reached"]


def test_what_breaks_late_says_what_was_paid_before(tmp_path):
    """Other settings go on, in one pool of a single language: the recipe that cannot be trained breaks its own run alone."""
    config = yaml.safe_load((ROOT / "tests/scenarios/two_languages.yaml").read_text())
    config["recipes"].append({**config["recipes"][0], "name": "wrong", "lora_targets": "no.such.module"})
    config["settings"][-1]["recipe"] = "wrong"
    (tmp_path / "late.yaml").write_text(yaml.safe_dump(config))
    done = rehearse(ENVIRONMENT, tmp_path, "--configfile", "late.yaml", "--keep")
    assert done.returncode == 1, done.stdout
    (outcome,) = read_json(tmp_path / "rehearsal/rehearsal.json")["engines"]
    (fault,) = outcome["broken"]
    assert "no module of the model has a name like no.such.module" in fault["what"]
    assert fault["where"].startswith("train mini") and fault["after"] == ["generate", "score"]
    assert "a real run would have paid for generate, score before" in done.stdout
    trained = next(row for row in outcome["stages"] if row["stage"] == "train")
    assert (trained["passed"], trained["broken"]) == (1, 1)
