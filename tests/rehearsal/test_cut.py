"""A cut config is one that the workflow takes, whatever languages are chosen."""

import copy

import pytest
from conftest import ROOT

from croco.config.read import build_grid, read_files
from croco.config.schema import Locator
from croco.errors import InputError
from croco.rehearsal.cut import choose_languages, choose_releases, cut


def read(name):
    config, locator = read_files([ROOT / f"config/{name}.yaml"], ROOT)
    return build_grid(config, ROOT, locator)


@pytest.mark.parametrize("name", ["paper", "small", "grid"])
@pytest.mark.parametrize("languages", [[], ["de"], ["da", "mt"], ["no"], ["ga"]], ids=" ".join)
def test_every_choice_of_languages_gives_a_config_with_all_settings(name, languages):
    grid, asked = read(name)
    before = copy.deepcopy(asked)
    chosen = choose_languages(grid, [code for code in languages if code in grid.languages])
    config = cut(grid, asked, "results/cut", chosen, "transformers")
    cut_grid, _ = build_grid(config, ROOT, Locator([], default=ROOT / "config/config.yaml"))
    assert asked == before and "en" in cut_grid.languages and len(cut_grid.languages) <= 3
    settings = {run.arm for run in grid.runs.values()}
    assert {run.arm for run in cut_grid.runs.values()} == settings
    assert {row["run"].split("/")[0] for row in choose_releases(cut_grid)} == set(grid.tuned)


def test_what_only_a_whole_run_can_have_is_cut():
    """Otherwise a valid config would be refused as a rehearsal, or only a part of it rehearsed."""
    config, locator = read_files([ROOT / "config/grid.yaml"], ROOT)
    config["partial"] = True
    config["evaluation"] |= {"suite": ["acceptability"], "suite_limit": 100}
    for row in config["reward_models"]:
        row["max_length"] = 8192
    grid, asked = build_grid(config, ROOT, locator)
    assert any(run.row["objective"] == "online_dpo" for run in grid.runs.values())
    short = cut(grid, asked, "results/cut", choose_languages(grid), "transformers")
    cut_grid, _ = build_grid(short, ROOT, Locator([], default=ROOT / "config/config.yaml"))
    assert cut_grid.config["partial"] is False and "suite_limit" not in cut_grid.config["evaluation"]
    guards = [[each.guards_of(run) for run in each.runs.values() if not run.is_base] for each in (grid, cut_grid)]
    assert any(guards[0]) and not any(guards[1])


def test_a_language_that_the_config_does_not_have_is_named():
    grid, _ = read("small")
    with pytest.raises(InputError, match=r"(?s)no language is.*en, mt, ga"):
        choose_languages(grid, ["is"])
