"""Rehearsals of the shipped configs on replicas of their models, from a hub on the loopback interface."""

import subprocess
import sys

import pytest
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


@pytest.mark.parametrize("name", ["paper", "small"])
def test_a_shipped_config_passes_every_stage(hub, tmp_path, name):
    environment, _ = hub
    done = rehearse(environment, tmp_path, "--configfile", ROOT / f"config/{name}.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    report = read_json(tmp_path / "rehearsal/rehearsal.json")
    (outcome,) = report["engines"]
    counts = {row["stage"] for row in outcome["stages"] if row["passed"]}
    assert {"translate", "generate", "score", "train", "evaluate", "judge", "write_release", "write_report"} <= counts
    assert not any(row["broken"] or row["not_reached"] for row in outcome["stages"])
    assert [path.name for path in (tmp_path / "rehearsal").iterdir()] == ["rehearsal.json"], "it cleans up"
