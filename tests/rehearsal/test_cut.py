"""A cut config is one that the workflow takes, whatever languages are chosen."""

import copy
import json

import pytest
from conftest import ROOT, write_rows

from croco.config.read import build_grid, read_files
from croco.config.schema import Locator
from croco.errors import InputError
from croco.rehearsal.cut import choose_languages, choose_releases, choose_targets, cut
from croco.rehearsal.data import cut_prompts


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


def test_replicas_need_no_gpu_on_vllm():
    grid, asked = read("small")
    config = cut(grid, asked, "results/cut", choose_languages(grid), "vllm")
    cut_grid, _ = build_grid(config, ROOT, Locator([], default=ROOT / "config/config.yaml"))
    assert {row["engine"] for row in cut_grid.list_models()} == {"vllm"} and cut_grid.most_gpus() == 0


def test_what_only_a_whole_run_can_have_is_cut():
    """Otherwise a valid config would be refused as a rehearsal, or only a part of it rehearsed."""
    config, locator = read_files([ROOT / "config/grid.yaml"], ROOT)
    config["partial"] = True
    config["evaluation"] |= {"suite": ["acceptability"], "suite_limit": 100}
    for row in config["reward_models"]:
        row["max_length"] = 8192
    for row in config["recipes"]:
        row["warmup"] = 100
    grid, asked = build_grid(config, ROOT, locator)
    assert any(run.row["objective"] == "online_dpo" for run in grid.runs.values())
    short = cut(grid, asked, "results/cut", choose_languages(grid), "transformers")
    cut_grid, _ = build_grid(short, ROOT, Locator([], default=ROOT / "config/config.yaml"))
    assert cut_grid.config["partial"] is False and "suite_limit" not in cut_grid.config["evaluation"]
    assert all(row.get("warmup", 0) < 1 for row in cut_grid.config["recipes"])
    guards = [[each.guards_of(run) for run in each.runs.values() if not run.is_base] for each in (grid, cut_grid)]
    assert any(guards[0]) and not any(guards[1])


def test_a_language_that_the_config_does_not_have_is_named():
    grid, _ = read("small")
    with pytest.raises(InputError, match=r"(?s)no language is.*en, mt, ga"):
        choose_languages(grid, ["is"])


def rehearse(config):
    """The run table of the cut config; raises InputError where the workflow would not take it."""
    _, locator = read_files([ROOT / "config/grid.yaml"], ROOT)
    grid, asked = build_grid(copy.deepcopy(config), ROOT, locator)
    short = cut(grid, asked, "results/cut", choose_languages(grid), "transformers")
    return build_grid(short, ROOT, Locator([], default=ROOT / "config/config.yaml"))[0]


@pytest.fixture
def config():
    """Three languages of the miniature, and one setting."""
    merged, _ = read_files([ROOT / "config/grid.yaml"], ROOT)
    settings = [row for row in merged["settings"] if row["name"] in ("base", "dpo_mono")]
    assert len(settings) == 2
    settings[1] |= {"evaluate": "all"}
    return merged | {"settings": settings, "contrasts": [], "pools": [], "findings": "paper"}


def test_languages_that_only_other_pools_of_one_language_need_are_dropped(config):
    config["settings"][1] |= {"pools": ["monolingual"], "evaluate": "own"}
    assert len(config["languages"]) > 2
    grid = rehearse(config)
    assert {run.pool for run in grid.runs.values() if not run.is_base} <= set(grid.languages)
    assert len(grid.languages) <= 2


def test_two_languages_are_trained_where_the_source_is_not(config):
    """A setting of a pool of several languages has keys that none of a single language has."""
    codes = [row["code"] for row in config["languages"]]
    trained = [code for code in codes if code != "en"][-2:]
    config["languages"] = [{"code": code, "train": code in trained} for code in ("nl", "en", *trained) if code in codes]
    config["pools"] = [{"name": "multi", "languages": trained}]
    config["settings"][1] |= {"pools": ["multi"], "evaluate": "all", "balance": True}
    grid = rehearse(config)
    assert grid.trained == trained and "en" in grid.languages


def test_a_caliper_is_left_out(config):
    other = {**config["settings"][1], "name": "matched", "match": "dpo_mono", "caliper": 0.1}
    other.pop("rejected")
    config["settings"] += [other]
    run = next(run for run in rehearse(config).runs.values() if run.arm == "matched")
    assert run.row["match"] == "dpo_mono" and "caliper" not in run.row


def test_where_no_policy_is_released_its_target_is_not_asked(config):
    for row in config["recipes"]:
        row["weights"] = "full"
    releases = choose_releases(rehearse(config))
    assert releases == [] and choose_targets({"release": releases}) == ("all",)
    assert choose_targets({"release": [{"run": "mini/multi/dpo"}]}) == ("all", "release")


def test_prompts_of_several_languages_are_joined_by_their_ids_as_the_run_reads_them(tmp_path):
    """In records, with white space around them, and in an order of their own."""
    grid, _ = read("small")
    for code, numbers in (("en", range(40)), ("mt", range(39, -1, -1))):
        write_rows(tmp_path / f"data/{code}/train.jsonl", [{"meta": {"id": f"q{i}{' ' * (code == 'mt')}"}, "text": f"prompt {i}"} for i in numbers])  # fmt: skip
    (tmp_path / "data/README.md").write_text(
        "---\nconfigs:\n- {config_name: en, data_files: en/train.jsonl}\n- {config_name: mt, data_files: mt/train.jsonl}\n---\n"
    )
    row = {"use": "train", "dataset": str(tmp_path / "data"), "subset": "{language}", "id": "meta.id"}
    grid.prompts["train"] = row | {"translations": []}
    cut_prompts(grid, row, ["en", "mt"], tmp_path / "cut")
    english, maltese = (
        {
            json.loads(line)["meta"]["id"].strip()
            for line in (tmp_path / f"cut/train.{code}.jsonl").read_text().splitlines()
        }
        for code in ("en", "mt")
    )
    assert len(english) > 1 and english == maltese


@pytest.mark.parametrize(
    ("kinds", "said", "ids"),
    [
        (["common"] * 300 + ["rare"] * 3, "3 of the first 303 rows can be used: 300 not chosen by where", {300, 301, 302}),
        (["common"] * 30, None, None),
        (["common"] * 600 + ["rare"], "`where` chooses none of the first 600, so it was left out", set(range(8))),
    ],
    ids=["late", "never", "beyond"],
)  # fmt: skip
def test_rows_that_where_chooses_may_come_late(tmp_path, monkeypatch, kinds, said, ids):
    """In the other language they are in another order."""
    monkeypatch.setattr("croco.rehearsal.data.SCANNED", 600)
    grid, _ = read("small")
    rows = [{"id": i, "text": f"prompt {i}", "kind": kind} for i, kind in enumerate(kinds)]
    for code, of_code in (("en", rows), ("mt", [*rows[599::-1], *rows[600:]])):
        write_rows(tmp_path / f"data/{code}/train.jsonl", of_code)
    (tmp_path / "data/README.md").write_text(
        "---\nconfigs:\n- {config_name: en, data_files: en/train.jsonl}\n- {config_name: mt, data_files: mt/train.jsonl}\n---\n"
    )
    row = {"use": "train", "dataset": str(tmp_path / "data"), "subset": "{language}", "where": {"kind": "rare"}}
    grid.prompts["train"] = row | {"translations": []}
    if said is None:
        with pytest.raises(InputError, match="none of the first 30 rows can be used: 30 not chosen by where"):
            cut_prompts(grid, row, ["en", "mt"], tmp_path / "cut")
        return
    short, found = cut_prompts(grid, row, ["en", "mt"], tmp_path / "cut")
    assert said in found and ("where" in short) == (ids == {300, 301, 302})
    for code in ("en", "mt"):
        lines = (tmp_path / f"cut/train.{code}.jsonl").read_text(encoding="utf-8").splitlines()
        assert {json.loads(line)["id"] for line in lines} == ids
