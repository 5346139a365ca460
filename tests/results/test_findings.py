"""The paper's findings on summaries of known contents and their tables."""

import csv
import json
import re

import pytest
from conftest import ROOT, script, write_rows
from hypothesis import given
from hypothesis import strategies as st
from shipped import read_languages, read_shipped

from croco.results.findings import NULL_MARGIN, check_findings, compare_with_paper, list_claims, shape_table
from croco.results.table import COLUMNS, read_summary
from croco.runs import LAST_ROUND, OTHER_POLICY, Arm, Run, list_arms


def row(setting, task, metric, delta, half=0.02, pool="multi", eval_language="all", seed="1", baseline="base"):
    """A row of summary.csv whose interval is delta +- half; half None: nothing varies."""
    win = metric.startswith("win_rate") and baseline == "base"
    middle = delta + (0.5 if win else 0)
    interval = {} if half is None else {"delta_low": delta - half, "delta_high": delta + half, "p": 0.01}
    value = middle if win else 0.6 + delta
    return {
        "model": "m", "pool": pool, "setting": setting, "seed": seed, "round": 1, "eval_language": eval_language, "task": task,
        "metric": metric, "value": value, "n": 100, "baseline": baseline, "baseline_value": value - delta, "delta": delta, **interval,
    }  # fmt: skip


def arm(setting, rejected=None, objective="dpo", target="pair", responses="own", **others):
    pools = others.pop("pools", {"multi": {"trained": ["en", "ga"], "evaluated": ["en", "ga"]}})
    return Arm(setting, objective, target, rejected, responses, pools, others)


def single(*codes):
    """Pools of one language each."""
    return {code: {"trained": [code], "evaluated": [code]} for code in codes}


DPO, NULL = arm("blue", "mean-2sd"), arm("grey", "random")
SFT = arm("red", objective="sft", target="reference")
OFF_POLICY = arm("green", "mean-2sd", responses="other policy")
ONLINE = arm("white", objective="online_dpo", target="prompts")
ARMS = [NULL, DPO, SFT, OFF_POLICY, ONLINE]  # names say nothing of what they are


def rows_of(setting, task, metric, delta, **others):
    """Rows of both languages and of both together."""
    return [row(setting, task, metric, delta, eval_language=code, **others) for code in ("en", "ga", "all")]


def table(dpo=0.1, sft=-0.4, off_policy=0.05, online=0.01, null=0.0, low_resource=0.06):
    return [
        row("blue", "arena", "win_rate", dpo),
        row("blue", "arena", "win_rate", low_resource, eval_language="ga"),
        row("blue", "arena", "win_rate", dpo, eval_language="en"),
        *(row("blue", "arena", "reward_judge_agreement", 0.2, eval_language=code, baseline="chance") for code in ("en", "ga")),
        *rows_of("blue", "task", "acc", 0.01),
        *rows_of("red", "task", "acc", sft),
        *rows_of("red", "arena", "win_rate", sft),
        *(row("grey", "arena", "win_rate", change, eval_language=code) for code, change in (("en", null), ("ga", 0.0), ("all", null))),
        *rows_of("green", "arena", "win_rate", 0.05),
        *rows_of("white", "arena", "win_rate", 0.05),
        row("blue", "arena", "win_rate", off_policy, baseline="green"),
        row("blue", "arena", "win_rate", online, baseline="white"),
    ]  # fmt: skip


def write_summary(tmp_path, rows):
    with open(tmp_path / "summary.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / "summary.csv"


def find(tmp_path, rows, arms=ARMS, low_resource=("ga",), models=("m",)):
    return check_findings(read_summary(write_summary(tmp_path, rows)), {}, list(low_resource), arms, models)


def run(tmp_path, rows, *options, arms=ARMS, check=True):
    """The same by the command line, with tables; its findings.json, or the process where it fails."""
    summary, output = write_summary(tmp_path, rows), tmp_path / "findings.json"
    runs = runs_of(arms)
    assert list_arms(runs) == list(arms)
    table = write_rows(tmp_path / "runs.jsonl", [run.to_row() for run in runs])
    options = ("--runs", table, "--summary", summary, "--low-resource", "ga", *options, "--tables", tmp_path / "tables", "--output", output)  # fmt: skip
    done = script("findings", *options, check=check)
    return json.loads(output.read_text()) if check else done


def runs_of(arms):
    """A run table of these arms."""
    return [
        Run(
            model="m", pool=pool, arm=arm.setting, replicate=1, round=1, seed=0, languages=tuple(codes["trained"]), batches={"all": tuple(codes["evaluated"])},
            reward_model="rm", pool_size=64, responses="m", varies=arm.varies,
            row={"objective": arm.objective, "target": arm.target, "rejected": arm.rejected, "rounds": 2 if arm.responses == LAST_ROUND else 1}
            | ({"responses": "other"} if arm.responses == OTHER_POLICY else {}),
        )
        for arm in arms
        for pool, codes in arm.pools.items()
    ]  # fmt: skip


def verdicts(found):
    return {(entry["id"], entry["contrast"], entry["measure"]): entry["verdict"] for entry in found}


def test_a_run_as_the_paper_reports(tmp_path):
    found = run(tmp_path, table())["findings"]
    assert found == find(tmp_path, table())
    elsewhere = row("blue", "euroeval/x", "acc", -0.5) | {"model": "another"}
    assert found == find(tmp_path, [*table(), elsewhere]), "other harnesses' rows decide nothing"
    assert [entry["id"] for entry in found] == ["F1", "F2", "F2", "F3", "F3", "F4", "F5", "F6"]
    assert set(verdicts(found).values()) == {"supported"}
    gain = next(entry for entry in found if (entry["id"], entry["measure"]) == ("F2", "win rate"))
    assert [gain[name] for name in ("estimate", "low", "high")] == pytest.approx([0.1, 0.08, 0.12])
    assert gain["null"]["estimate"] == pytest.approx(0) and gain["n"] == 100
    assert gain["replicate_noise"] is None and "one training seed" in gain["why"]
    assert "found +10.0 points (+8.0 to +12.0)" in gain["why"]
    assert not any(entry["gaps"] for entry in found)


def test_without_results_nothing_is_tested_and_the_tables_are_empty(tmp_path):
    found = run(tmp_path, [])["findings"]
    assert [entry["id"] for entry in found] == ["F1", "F2", "F2", "F3", "F3", "F4", "F5", "F6"]
    assert {(entry["verdict"], entry["why"].split(":")[0]) for entry in found} == {
        ("not tested", "there are no results yet")
    }
    for name in ("win_rate", "structured", "fidelity"):
        assert len((tmp_path / "tables" / f"{name}.csv").read_text().splitlines()) == 1, "a header alone"


def test_another_file_is_not_an_audit(tmp_path):
    for text, says in (("{}", "field languages: not an audit"), ("[]", "not a JSON object"), ("", "broken JSON")):
        (tmp_path / "english.json").write_text(text)
        done = run(tmp_path, table(), "--audit", tmp_path / "english.json", check=False)
        assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "finding", "verdict", "why"),
    [
        ({"dpo": -0.1}, "F2", "not supported", "lower"),
        ({"dpo": 0.01}, "F2", "inconclusive", "inconclusive"),
        ({"null": 0.1}, "F2", "inconclusive", "null control"),
        ({"sft": 0.1}, "F3", "not supported", "higher"),
        ({"sft": -0.01}, "F3", "inconclusive", "inconclusive"),
        ({"off_policy": -0.05}, "F4", "not supported", "lower"),
        ({"online": -0.03}, "F5", "not supported", "lower"),
        ({"online": -0.01}, "F5", "supported", "not lower by more than"),
        ({"low_resource": 0.0}, "F6", "inconclusive", "inconclusive"),
    ],
)
def test_one_number_decides_its_finding_alone(tmp_path, changes, finding, verdict, why):
    found = find(tmp_path, table(**changes))
    differing = [entry for entry in found if entry["verdict"] != "supported"]
    if verdict == "supported":
        assert not differing and any(entry["id"] == finding and why in entry["why"] for entry in found)
    else:
        assert [(entry["id"], entry["verdict"]) for entry in differing] == [(finding, verdict)]
        assert why in differing[0]["why"]


def test_what_is_not_tested_is_listed_with_the_reason(tmp_path):
    wins = rows_of("blue", "arena", "win_rate", 0.1)
    found = find(tmp_path, wins, [DPO], ())
    why = {(entry["id"], entry["contrast"]): entry["why"] for entry in found if entry["verdict"] == "not tested"}
    assert all(entry["estimate"] is None for entry in found if entry["verdict"] == "not tested")
    assert "the target audit" in why["F1", "rewards - verdicts"]
    assert "evaluation.tasks" in why["F2", "multi/blue - base"]
    assert "objective: sft" in why["F3", "multi/references - base"]
    assert "responses: POLICY" in why["F4", "multi/blue - off_policy"]
    assert "objective: online_dpo" in why["F5", "multi/blue - online"]
    assert "no low-resource language" in why["F6", "multi/blue - base"]
    why = {entry["id"]: entry["why"] for entry in find(tmp_path, wins, [DPO, ONLINE], ("mt",))}
    assert "{setting: blue, pool: multi, versus: white} to contrasts" in why["F5"]
    assert "the pool multi has no low-resource language" in why["F6"]
    why = {entry["id"]: entry["why"] for entry in find(tmp_path, rows_of("blue", "task", "acc", 0.1))}
    assert "evaluation.judge" in why["F4"]
    found = find(tmp_path, wins, [arm("dpo", "min"), ONLINE])
    assert {entry["verdict"] for entry in found} == {"not tested"}, "a name makes no arm"
    assert any("rejected: mean-2sd" in entry["why"] for entry in found)


def test_a_missing_language_is_a_gap_that_is_shown(tmp_path):
    rows = [
        line for line in table() if (line["setting"], line["eval_language"], line["task"]) != ("grey", "ga", "arena")
    ]
    rows = [line for line in rows if (line["setting"], line["eval_language"], line["task"]) != ("red", "ga", "task")]
    found = {(e["id"], e["contrast"], e["measure"]): e for e in find(tmp_path, rows)}
    assert found["F2", "multi/blue - base", "win rate"]["gaps"] == {"grey": ["ga"]}
    assert found["F2", "multi/blue - base", "win rate"]["null"] is None, "a mean over other languages is no control"
    assert "grey has no results for ga" in found["F2", "multi/blue - base", "win rate"]["why"]
    assert found["F3", "multi/red - base", "structured tasks"]["gaps"] == {"red": ["task in ga"]}
    assert not found["F4", "multi/blue - green", "win rate"]["gaps"]


def test_where_a_language_is_missing_no_mean_is_tested_and_the_language_is_named(tmp_path):
    rows = [line for line in table() if (line["setting"], line["task"]) != ("blue", "arena")]
    rows += [row("blue", "arena", "win_rate", 0.1, eval_language="en")]
    found = {(e["id"], e["measure"]): e for e in find(tmp_path, rows)}
    gain = found["F2", "win rate"]
    assert (gain["verdict"], gain["gaps"]) == ("not tested", {"blue": ["ga"]})
    assert "blue has no results for ga; a mean needs all languages: finish these" in gain["why"]
    assert "blue has no results for ga" in found["F4", "win rate"]["why"]


@pytest.mark.parametrize(("setting", "finding"), [("blue", "F2"), ("blue", "F6"), ("green", "F4")])
def test_of_models_of_one_language_each_no_language_may_be_missing(tmp_path, setting, finding):
    """Also in the arm that it is compared with, whose contrasts exist."""
    pools = single("en", "ga", "mt")
    arms = [arm("blue", "mean-2sd", pools=pools), arm("green", "mean-2sd", responses="other policy", pools=pools)]
    rows = [row(name, "arena", "win_rate", 0.1, 0.02, code, code) for code in pools for name in ("blue", "green")]
    rows += [row("blue", "arena", "win_rate", 0.1, 0.02, code, baseline="green") for code in pools]

    def tell(rows):
        found = find(tmp_path, rows, arms, ("ga", "mt"))
        return next(entry for entry in found if (entry["id"], entry["measure"][:8]) == (finding, "win rate"))

    assert tell(rows)["verdict"] == "supported"
    gone = (setting, "ga", "base")
    lacking = tell([line for line in rows if (line["setting"], line["pool"], line["baseline"]) != gone])
    assert (lacking["verdict"], lacking["estimate"], lacking["gaps"]) == ("not tested", None, {setting: ["ga"]})
    assert lacking["why"] == f"{setting} has no results for ga; a mean needs all languages: finish these"


def test_each_measure_is_of_the_seeds_that_have_it(tmp_path):
    """The tasks are finished for two training seeds, the verdicts for one."""
    rows = rows_of("blue", "arena", "win_rate", 0.1, half=0.02)
    for seed in ("1", "2", "all"):
        rows += rows_of("blue" if seed != "2" else "blue.s2", "copy", "acc", 0.1, half=0.02, seed=seed)
    found = {(e["id"], e["measure"]): e for e in find(tmp_path, rows, [DPO])}
    for measure in ("win rate", "structured tasks"):
        assert (found["F2", measure]["verdict"], found["F2", measure]["gaps"]) == ("supported", {})


def test_a_group_of_tasks_counts_once_and_its_members_are_no_gaps(tmp_path):
    """A group that gains, of two tasks that gain, beside one that loses; a member is missing in one language."""
    names = {"group": (0.2, ""), "one": (0.2, "group"), "two": (0.2, "group"), "alone": (-0.2, "")}
    rows = [line | {"suite": suite} for task, (delta, suite) in names.items() for line in rows_of("blue", task, "acc", delta)]  # fmt: skip
    found = {(e["id"], e["measure"]): e for e in find(tmp_path, rows, [DPO])}
    assert found["F2", "structured tasks"]["estimate"] == pytest.approx(0)
    there = [line for line in rows if (line["task"], line["eval_language"]) not in (("one", "ga"), ("group", "ga"), ("group", "all"))]  # fmt: skip
    there += [line | {"setting": "red"} for line in rows]
    found = {(e["id"], e["contrast"]): e for e in find(tmp_path, there, [DPO, SFT])}
    assert found["F3", "multi/blue - base"]["gaps"] == {"blue": ["group in ga"]}
    run(tmp_path, rows, arms=[DPO])
    with open(tmp_path / "tables/structured.csv", encoding="utf-8") as file:
        assert {line["task"]: line["suite"] for line in csv.DictReader(file)} == {name: suite for name, (_, suite) in names.items()}  # fmt: skip


def test_a_mean_over_tasks_takes_shares_alone(tmp_path):
    """A perplexity that falls by 30 is no gain of 30 in a mean with accuracies."""
    rows = [line | {"value": 12.0, "baseline_value": 42.0} for line in rows_of("blue", "text", "word_perplexity", 30.0)]
    found = {(e["id"], e["measure"]): e for e in find(tmp_path, [*rows, *rows_of("blue", "task", "acc", 0.01)], [DPO])}
    tasks = found["F2", "structured tasks"]
    assert tasks["estimate"] == pytest.approx(0.01) and "word_perplexity of text" in tasks["why"]
    alone = {(e["id"], e["measure"]): e for e in find(tmp_path, rows, [DPO])}["F2", "structured tasks"]
    assert alone["verdict"] == "not tested" and "word_perplexity of text" in alone["why"]


def test_under_20_prompts_there_is_no_verdict(tmp_path):
    few = [line | {"n": 19} for line in table()]
    assert {entry["verdict"] for entry in find(tmp_path, few)} == {"inconclusive"}
    assert {e["verdict"] for e in find(tmp_path, [line | {"n": 20} for line in table()])} == {"supported"}
    assert all("too few prompts" in entry["why"] for entry in find(tmp_path, few))
    # The language with the fewest prompts counts, in rewards each language by itself.
    arms = [arm("blue", "mean-2sd", pools=single("en", "ga"))]
    rows = [row("blue", "arena", "win_rate", 0.1, 0.02, code, code) | {"n": n} for code, n in (("en", 100), ("ga", 19))]
    rows += [line | {"metric": "reward_judge_agreement", "baseline": "chance"} for line in rows]
    found = {(entry["id"], entry["measure"]): entry for entry in find(tmp_path, rows, arms)}
    assert "too few prompts" in found["F2", "win rate"]["why"] and found["F2", "win rate"]["n"] == 19
    rewards = next(entry for entry in found.values() if entry["id"] == "F1")
    assert rewards["verdict"] == "inconclusive" and rewards["estimate"] == 0.5
    assert "beyond chance: en" in rewards["why"] and "too few prompts (under 20) in ga" in rewards["why"]


def test_the_plainest_arm_is_taken_and_differences_are_said(tmp_path):
    small, off_policy = (
        arm("plain", "mean-2sd", pool_size=8),
        arm("green", "mean-2sd", responses="other policy", hygiene=[]),
    )
    rows = [*table(), *rows_of("plain", "arena", "win_rate", -0.3)]
    found = find(tmp_path, rows, [small, *ARMS[:3], off_policy, ONLINE])
    assert set(verdicts(found).values()) == {"supported"}
    why = next(entry["why"] for entry in found if entry["id"] == "F4")
    assert "the two differ in hygiene as well" in why
    claims = {(line["setting"], line["versus"]): line["expected"] for line in list_claims(ARMS)}
    assert claims == {("blue", "base"): "higher", ("blue", "green"): "higher", ("blue", "red"): "higher", ("blue", "white"): "not lower", ("grey", "base"): "equal"}  # fmt: skip
    variants = [small, arm("random2", "random", pool_size=2), arm("others2", "mean-2sd", responses="other policy", reward_model="weak")]  # fmt: skip
    assert list_claims([*variants, *ARMS]) == list_claims(ARMS), "the paper does not have these"


def test_rows_over_seeds_and_pools_of_one_language(tmp_path):
    rows = [
        *rows_of("blue", "arena", "win_rate", 0.1, half=0.05),
        *rows_of("blue.s2", "arena", "win_rate", 0.2, half=0.05, seed="2"),
        *rows_of("blue", "arena", "win_rate", 0.15, half=0.03, seed="all"),
        *(row("blue_mono", "arena", "win_rate", delta, half, code, code) for code, delta, half in (("en", 0.2, 0.02), ("ga", 0.1, 0.04))),
    ]  # fmt: skip
    arms = [DPO, arm("blue_mono", "mean-2sd", pools=single("en", "ga"))]
    found = {(e["id"], e["contrast"], e["measure"]): e for e in run(tmp_path, rows, arms=arms)["findings"]}
    pooled = found["F2", "multi/blue - base", "win rate"]
    assert [pooled[name] for name in ("estimate", "low", "high")] == pytest.approx([0.15, 0.12, 0.18])
    assert pooled["replicate_noise"] == pytest.approx(0.1 / 2**0.5) and "one training seed" not in pooled["why"]
    single_pools = found["F2", "monolingual/blue_mono - base", "win rate"]
    assert [single_pools[name] for name in ("estimate", "low", "high")] == pytest.approx([0.15, 0.12, 0.18])
    low = found["F6", "monolingual/blue_mono - base", "win rate in low-resource languages"]
    assert low["estimate"] == pytest.approx(0.1) and low["verdict"] == "supported"
    with open(tmp_path / "tables/win_rate.csv", encoding="utf-8") as file:
        lines = {line["trained_on"]: line for line in csv.DictReader(file)}
    assert lines["monolingual"] | {"en": "0.7", "ga": "0.6", "mean": "0.65"} == lines["monolingual"]
    assert lines["multi"] | {"en": "0.65", "ga": "0.65", "mean": "0.65"} == lines["multi"]
    latex, markdown = ((tmp_path / f"tables/win_rate.{ending}").read_text() for ending in ("tex", "md"))
    assert "0.650" in latex and r"win\_rate" in latex and "| monolingual" in markdown
    assert len((tmp_path / "tables/fidelity.csv").read_text().splitlines()) == 1, "nothing there, and a header"
    rows = [row("blue", "arena", "win_rate", 0.1, eval_language="en")]  # ga has no value, and the summary no mean
    run(tmp_path, rows, arms=arms)
    with open(tmp_path / "tables/win_rate.csv", encoding="utf-8") as file:
        assert [(line["en"], line["mean"]) for line in csv.DictReader(file)] == [("0.6", "")]


def test_contrasts_in_pools_of_one_language(tmp_path):
    pools = single("en", "ga")
    arms = [arm("blue", "mean-2sd", pools=pools), arm("green", "mean-2sd", responses="other policy", pools=pools)]
    rows = [
        row(name, "arena", "win_rate", 0.1, 0.02, code, code) for code in ("en", "ga") for name in ("blue", "green")
    ]
    rows += [row("blue", "arena", "win_rate", delta, 0.02, code, baseline="green") for code, delta in (("en", 0.1), ("ga", 0.2))]  # fmt: skip
    found = next(entry for entry in find(tmp_path, rows, arms) if entry["id"] == "F4")
    assert (found["contrast"], found["verdict"]) == ("monolingual/blue - green", "supported")
    assert [found[name] for name in ("estimate", "low", "high")] == pytest.approx([0.15, 0.13, 0.17])


def make_up(grid):
    """Rows of summary.csv that a finished run of a config would have, all with a clear gain; SFT loses the tasks."""
    rows = []

    def add(run, seed, code, task, metric, delta, baseline="base"):
        line = row(run.setting if seed != "all" else run.arm, task, metric, delta, pool=run.pool, eval_language=code, seed=seed, baseline=baseline)  # fmt: skip
        rows.append(line | {"model": run.model, "round": run.round})

    for run in grid.runs.values():
        for seed in [] if run.pool == "untuned" else [str(run.replicate)] + ["all"] * (run.replicate == 1 < len(run.row["seeds"])):  # fmt: skip
            for code in [*run.evaluated, "all"]:
                gain = 0.0 if run.row.get("rejected") == "random" else 0.2
                add(run, seed, code, "arena", "win_rate", gain)
                add(run, seed, code, "arena", "reward_judge_agreement", 0.2, baseline="chance")
                if code == "all" or grid.suites.get(code) or grid.own_tasks([code]):
                    add(run, seed, code, "task", "acc", -0.3 if run.row["objective"] == "sft" else 0.05)
            for setting, pool, versus in grid.contrasts:
                if (setting, pool) == (run.arm, run.pool) and versus != "base":
                    ending = "" if seed in ("1", "all") else f".s{seed}"
                    add(run, seed, "all", "arena", "win_rate", 0.1, baseline=versus + ending)
    return rows


def find_shipped(tmp_path, name, rename=None):
    grid = read_shipped(name, rename=rename)
    low_resource = [code for code in grid.languages if read_languages()[code]["resource"] == "low"]
    runs = grid.runs.values()
    return find(tmp_path, make_up(grid), list_arms(runs), low_resource, dict.fromkeys(run.model for run in runs))


@pytest.mark.parametrize(
    ("name", "decided"),
    [("paper", "F1 F2 F3 F4 F5 F6"), ("grid", "F1 F2 F3 F4 F5"), ("config", "F1 F2 F3 F4"), ("small", "F1 F2 F3 F6")],
)
def test_findings_of_shipped_configs_can_be_decided(tmp_path, name, decided):
    found = find_shipped(tmp_path, name)
    assert {entry["verdict"] for entry in found} == {"supported", "not tested"}
    tested = {(entry["model"], entry["id"]) for entry in found if entry["verdict"] == "supported"}
    models = {entry["model"] for entry in found}
    assert tested == {(model, number) for model in models for number in decided.split()}
    assert {entry["id"] for entry in found} == {f"F{i}" for i in range(1, 7)}, "what is not tested is listed"
    assert not any(entry["gaps"] for entry in found)
    open_ones = [entry for entry in found if entry["id"] not in decided.split()]
    assert all(entry["why"] for entry in open_ones)
    if name == "grid":
        assert {entry["why"].split(":")[0] for entry in open_ones} == {"the config has no low-resource language"}
    if name == "paper":
        places = {(entry["id"], entry["contrast"].split("/")[0]) for entry in found if entry["verdict"] == "supported"}
        assert {("F2", "monolingual"), ("F3", "monolingual"), ("F6", "monolingual"), ("F6", "multi_all")} <= places
        assert ("F6", "multi") not in places, "the authors' pool has no low-resource language"


@pytest.mark.parametrize("name", ["paper", "grid"])
def test_names_of_settings_decide_nothing(tmp_path, name):
    def rename(setting):
        return setting if setting == "base" else f"arm{setting[::-1]}"

    names = [arm.setting for arm in list_arms(read_shipped(name).runs.values())]
    found, renamed = find_shipped(tmp_path, name), find_shipped(tmp_path, name, rename)
    for entry, other in zip(found, renamed, strict=True):
        for key in ("contrast", "why"):
            words = re.sub(r"\w+", lambda word: rename(word[0]) if word[0] in names else word[0], entry[key])
            assert re.sub(r"objective: \w+", "", words) == re.sub(r"objective: \w+", "", other[key])
        assert {**entry, "contrast": 0, "why": 0} == {**other, "contrast": 0, "why": 0}


def test_an_audit_stands_beside_the_results_in_the_first_finding(tmp_path):
    summary = read_summary(write_summary(tmp_path, table()))

    def audit(*found):
        languages = {f"l{i}": {"n": 10, "verdict": verdict} for i, verdict in enumerate(found)}
        (tmp_path / "english.json").write_text(json.dumps({"reward_model": "english", "languages": languages}))
        audits = {"english": json.loads((tmp_path / "english.json").read_text())}
        return check_findings(summary, audits, ["ga"], ARMS, ["m"])[0]

    good = audit("fit", "fit", "weak")
    assert (good["contrast"], good["verdict"], good["n"]) == ("reward model english", "supported", 30)
    assert good["why"] == "fit: l0, l1; weak: l2" and good["estimate"] == pytest.approx(2 / 3)
    assert audit("fit", "unfit", "unfit")["verdict"] == "not supported"
    assert audit("fit", None, None)["why"] == "fit: l0; too few comparisons: l1, l2"
    assert audit("fit", "weak", "weak", "unfit")["verdict"] == "inconclusive"
    by_audit, by_results = run(tmp_path, table(), "--audit", tmp_path / "english.json")["findings"][:2]
    assert by_audit == audit("fit", "weak", "weak", "unfit")
    assert (by_results["id"], by_results["contrast"]) == ("F1", "rewards - verdicts, multi/blue")
    (tmp_path / "english.json").write_text("{")
    done = run(tmp_path, table(), "--audit", tmp_path / "english.json", check=False)
    assert done.returncode == 1 and "english.json" in done.stderr and "Traceback" not in done.stderr


@given(st.floats(-1, 1), st.floats(0, 1), st.sampled_from(["higher", "lower", "not lower", "equal"]))
def test_verdicts_follow_from_the_interval(low, width, expected):
    agrees = compare_with_paper(low, low + width, expected)["agrees"]
    if expected in ("higher", "lower"):
        mirrored = compare_with_paper(-low - width, -low, {"higher": "lower", "lower": "higher"}[expected])["agrees"]
        assert agrees == mirrored
    if agrees:
        allowed = {"higher": (0, 2), "lower": (-2, 0), "not lower": (-NULL_MARGIN, 2), "equal": (-NULL_MARGIN, NULL_MARGIN)}[expected]  # fmt: skip
        assert allowed[0] <= low and low + width <= allowed[1]
    if agrees is False:
        assert low > 0 or low + width < 0


def test_findings_of_a_run(finished_run):
    """The grid of two languages has no sft, no other responses and no online arm, and says so."""
    results = finished_run / "results" / "small"
    found = json.loads((results / "findings.json").read_text())
    tested = {entry["id"]: entry for entry in found["findings"]}
    assert list(tested) == [f"F{i}" for i in range(1, 7)]
    assert all(tested[name]["verdict"] == "not tested" for name in ("F4", "F5", "F6"))
    manifest = json.loads((results / "findings.manifest.json").read_text())
    assert manifest["options"]["low_resource"] == [] and (ROOT / "config/languages.tsv").read_text().count("\tlow\n") == 4  # fmt: skip
    with open(results / "tables/structured.csv", encoding="utf-8") as file:
        lines = {(line["setting"], line["task"]) for line in csv.DictReader(file)}
    assert {("base", "heldout"), ("dpo", "untouched"), ("dpo_random", "heldout")} <= lines


def test_means_over_other_languages_do_not_stand_side_by_side(tmp_path):
    rows = [row(name, "task", "acc", 0.1, pool=code, eval_language=code) for name, code in (("blue", "en"), ("blue", "ga"), ("red", "en"))]  # fmt: skip
    shown = shape_table(read_summary(write_summary(tmp_path, rows)), "structured").set_index("setting")
    assert shown.loc["blue", "mean"] == pytest.approx(0.7) and shown["mean"].isna()["red"]


def test_results_without_rows_over_all_seeds_stay_in_the_tables(tmp_path):
    """Those of another harness have single seeds only, here of a setting whose own tasks have rows over all seeds."""
    own = [line for seed in ("1", "2", "all") for line in rows_of("blue", "task", "acc", 0.01, seed=seed)]
    imported = [
        line for seed in ("2", "3") for line in rows_of("blue", "euroeval/sst5", "mcc", int(seed) / 100, seed=seed)
    ]
    shown = shape_table(read_summary(write_summary(tmp_path, own + imported)), "structured").set_index("task")
    assert shown.loc["task", "mean"] == pytest.approx(0.61)
    assert shown.loc["euroeval/sst5", ["en", "ga", "mean"]].tolist() == pytest.approx([0.62] * 3), "of seed 2"
