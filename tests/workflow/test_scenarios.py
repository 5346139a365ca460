"""Scenarios: each YAML file in tests/scenarios/plans changes the finished small grid, and says which jobs that makes.

A new scenario is a new file: `about` in words, `change` with the keys of two_languages.yaml that it replaces (or `config`,
another config), `arguments` of Snakemake, and `jobs`, the number of jobs by rule.
"""

import pytest
import yaml
from conftest import ROOT, planned

PLANS = sorted((ROOT / "tests" / "scenarios" / "plans").glob("*.yaml"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_plan(path, untouched_run, fresh_project, tmp_path):
    scenario = yaml.safe_load(path.read_text(encoding="utf-8"))
    arguments = scenario.get("arguments", [])
    if "config" in scenario:
        jobs = planned(fresh_project, *arguments, "--configfile", scenario["config"])
    else:
        config = yaml.safe_load((untouched_run / "two_languages.yaml").read_text(encoding="utf-8"))
        changed = tmp_path / "changed.yaml"
        changed.write_text(yaml.safe_dump(config | scenario.get("change", {}), allow_unicode=True), encoding="utf-8")
        jobs = planned(untouched_run, *arguments, "--configfile", changed)
    assert jobs == scenario["jobs"], scenario["about"]
