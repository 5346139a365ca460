"""Every arm of the experiment through the Snakefile, on the small grid: one run of all, and what it left."""

import csv
import json
import shutil

import pytest
import yaml
from conftest import planned, rows, script, snakemake

RESULTS = "results/small"
SHARED = {"pools": ["multi"], "hygiene": ["empty", "truncated"]}
PAIR = {"objective": "dpo", "target": "pair", "rejected": "mean-2sd", **SHARED}
ARMS = [
    {**PAIR, "name": "dpo_multi", "seeds": [1, 2]},
    {**PAIR, "name": "dpo_off", "responses": "hot"},
    {"name": "dpo_matched", "objective": "dpo", "target": "pair", "match": "dpo_off", **SHARED},
    {**PAIR, "name": "dpo_rounds", "rounds": 2, "recipe": "short"},
    {**PAIR, "name": "dpo_full", "recipe": "full"},
    {**PAIR, "name": "dpo_controls", "balance": True, "standardise": True, "prompt_language": "rejected"},
    {**PAIR, "name": "dpo_within", "rejected_from": "chosen_language", "rejected": "min"},
    {"name": "dpo_online", "objective": "online_dpo", "target": "prompts", "pools": ["multi"]},
    {"name": "max_r", "objective": "sft", "target": "best", **SHARED},
    {"name": "sft", "objective": "sft", "target": "reference", "pools": ["multi"]},
]
COMMON = {"learning_rate": 1.0e-3, "epochs": 4, "batch": 8, "micro_batch": 8, "max_length": 128}


@pytest.fixture(scope="module")
def arms(finished_run, tmp_path_factory):
    """(folder of the run, --configfile arguments) after all arms have run on top of a copy of the small grid."""
    folder = tmp_path_factory.mktemp("project") / "arms"
    shutil.copytree(finished_run, folder, symlinks=True)
    config = yaml.safe_load((finished_run / "two_languages.yaml").read_text(encoding="utf-8"))
    default = yaml.safe_load((finished_run / "config/config.yaml").read_text(encoding="utf-8"))
    mini = default["policies"][0]
    config["policies"] = [mini, {**mini, "name": "hot", "temperature": 1.0, "tune": False}]
    # Whoever brings policies says how answers are made, too. Their fidelity is measured in the small grid.
    config["evaluation"] = {**default["evaluation"], **config["evaluation"], "fidelity": False}
    config["settings"] += ARMS
    config["findings"] = "none"  # a run that is no replication of the paper
    config["recipes"] += [
        {**COMMON, "name": "sft"},
        {**COMMON, "name": "online_dpo", "epochs": 1},
        {**COMMON, "name": "short", "epochs": 2, "validation": 0.2, "checkpoint": "best", "save_every": 2},
        {**COMMON, "name": "full", "weights": "full", "learning_rate": 1.0e-4},
    ]
    config["release"] = [{"run": "mini/multi/dpo_rounds/round2"}, {"run": "mini/multi/dpo_full", "weights": "adapter"}]
    path = tmp_path_factory.mktemp("arms") / "arms.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    arguments = ("--configfile", path)
    snakemake(folder, "all", "release", "--cores", 2, *arguments)
    return folder, arguments


@pytest.fixture(scope="module")
def multi(arms):
    return arms[0] / RESULTS / "mini/multi"


def manifest(run):
    return json.loads((run / "checkpoint/manifest.json").read_text(encoding="utf-8"))


def test_nothing_is_left_to_do(arms):
    folder, arguments = arms
    assert not planned(folder, "all", "release", *arguments)


def test_the_bundle_of_all_arms_is_verified(arms):
    folder, arguments = arms
    snakemake(folder, "bundle", "--cores", 2, *arguments)
    done = script("verify", folder / RESULTS / "bundle.tar.gz", check=False)
    assert done.returncode == 0 and "MISMATCH" not in done.stdout, done.stdout + done.stderr


def test_every_arm_is_trained_and_evaluated(arms, multi):
    with open(arms[0] / RESULTS / "summary.csv", encoding="utf-8") as file:
        wins = [row for row in csv.DictReader(file) if row["metric"] == "win_rate" and row["pool"] == "multi"]
    found = {(row["setting"], row["round"]) for row in wins}
    assert found >= {(row["name"], "1") for row in ARMS} | {("dpo_rounds", "2"), ("dpo_multi.s2", "1")}
    seeds = [(multi / name / "checkpoint/adapter_model.safetensors").read_bytes() for name in ("dpo_multi", "dpo_multi.s2")]  # fmt: skip
    assert seeds[0] != seeds[1]


def test_a_round_goes_on_from_the_one_before(multi):
    first, second = (multi / "dpo_rounds" / name for name in ("round1", "round2"))
    ledgers = [json.loads((run / "ledger.json").read_text())["policies"] for run in (first, second)]
    base = manifest(first)["inputs"]["policy"]
    assert ledgers[0] == [base] and ledgers[1] == [manifest(second)["inputs"]["policy"]]
    assert ledgers[1][0].startswith(f"{base}+"), "its responses are of the first round's checkpoint"
    ours, theirs = (rows(path) for path in (second / "en/generations.jsonl", multi.parent / "en/generations.jsonl"))
    assert [line["prompt_id"] for line in ours] == [line["prompt_id"] for line in theirs]
    assert [line["responses"] for line in ours] != [line["responses"] for line in theirs]
    assert len(rows(second / "en/scores/english.jsonl")) == len(ours)
    best = manifest(second)["best_checkpoint"]
    losses = {line["step"]: line["eval_loss"] for line in rows(second / "checkpoint/metrics.jsonl") if "eval_loss" in line}  # fmt: skip
    assert losses[best["step"]] == min(losses.values()) == best["eval_loss"]


def test_a_matched_control_has_the_rewards_of_the_other_pairs(multi):
    ledger = json.loads((multi / "dpo_matched/ledger.json").read_text())
    others = {row["prompt_id"]: row for row in rows(multi / "dpo_off/pairs.jsonl")}
    pairs = rows(multi / "dpo_matched/pairs.jsonl")
    assert pairs and {row["prompt_id"] for row in pairs} <= set(others)
    distance = sum(abs(row["chosen_reward"] - others[row["prompt_id"]]["chosen_reward"]) for row in pairs) / len(pairs)
    assert ledger["match"]["chosen_mae"] == pytest.approx(distance) and ledger["match"]["pairs"] == len(others)


def test_controls_of_the_multilingual_pool(multi):
    ledger = json.loads((multi / "dpo_controls/ledger.json").read_text())
    chosen = [counts["chosen"] for counts in ledger["languages"].values()]
    assert max(chosen) - min(chosen) <= 1 and set(ledger["standardised"]) == {"en", "de"}
    assert all(row["prompt_language"] == row["rejected_language"] for row in rows(multi / "dpo_controls/pairs.jsonl"))
    within = json.loads((multi / "dpo_within/ledger.json").read_text())
    assert within["separation"]["same_language"] == 1 and within["separation"]["accuracy"] == 0.5


def test_online_dpo_trains_on_prompts_in_all_languages(multi):
    prompts = rows(multi / "dpo_online/prompts.jsonl")
    assert len(prompts) == 16 and {row["language"] for row in prompts} == {"en", "de"}
    metrics = rows(multi / "dpo_online/checkpoint/metrics.jsonl")
    assert all({"loss", "rewards_accuracies", "objective/scores"} <= set(line) for line in metrics)
    assert manifest(multi / "dpo_online")["options"]["temperature"] == 0.6


def test_full_weights_are_a_model_of_their_own(multi):
    from transformers import AutoModelForCausalLM

    folder = multi / "dpo_full/checkpoint"
    assert not (folder / "adapter_config.json").exists()
    AutoModelForCausalLM.from_pretrained(folder)
    base, tuned = (rows(multi.parent / name / "answers/en.jsonl") for name in ("untuned/base", "multi/dpo_full"))
    assert [line["responses"] for line in base] != [line["responses"] for line in tuned]


def test_releases_load_again(arms):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name in ("dpo_rounds/round2", "dpo_full"):
        model = arms[0] / RESULTS / "release/mini/multi" / name / "model"
        assert AutoTokenizer.from_pretrained(model).chat_template
        AutoModelForCausalLM.from_pretrained(model)
        card = (model / "README.md").read_text(encoding="utf-8")
        assert "win_rate" in card


def test_report_shows_seeds_and_what_language_tells(arms):
    page = (arms[0] / RESULTS / "report.html").read_text(encoding="utf-8")
    assert "Over training seeds" in page and "multi/dpo_multi" in page
    assert "Predicting the chosen response from languages alone" in page and "multi/dpo_rounds (round 2)" in page
