"""The report page: parsed, and held against the files it was made from; with files missing, and in Snakemake's report."""

import csv
import json
import re
import shutil
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs
from xml.etree import ElementTree

import numpy as np
import pages
import pandas as pd
import pytest
from conftest import planned, rows, script, snakemake, write_rows, write_runs
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import html
from pages import HOSTILE, LANGUAGES, RUNS, make_report, manifest, prompts, write_finished, write_results
from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config

from croco import cli, hardware
from croco.report.elements import embed
from croco.report.examples import DEPENDS_ON_ORDER, agree
from croco.report.highlights import mark_differences
from croco.report.page import Manifest
from croco.report.plots import find_common_length, plot_cells, plot_forest, read_palette, to_svg
from croco.report.render import TEMPLATES
from croco.report.units import PERCENT, PLAIN

SECTIONS = ["overview", "data", "rewards", "training", "structured", "open-ended", "fidelity", "findings", "examples",
            "provenance", "cost", "claims", "glossary"]  # fmt: skip
ABSENT = "\u2013"
STYLE = TEMPLATES / "report.css"
SMALL = ("--configfile", "two_languages.yaml")


def parse(path):
    return html.fromstring(path.read_text(encoding="utf-8"))


def read_embedded(page, name):
    return json.loads(page.xpath(f"//script[@id='{name}']")[0].text)


def read_table(element):
    header = [cell.text_content().strip() for cell in element.xpath(".//thead//th")]
    lines = element.xpath(".//tbody/tr")
    return [
        dict(zip(header, (cell.text_content().strip() for cell in line.xpath("./th | ./td")), strict=True))
        for line in lines
    ]


def read_figure(page, name):
    return read_table(page.xpath(f"//figure[@id='figure-{name}']//table")[0])


@pytest.fixture(scope="module")
def results(finished_run):
    return finished_run / "results" / "small"


@pytest.fixture(scope="module")
def page(results):
    return parse(results / "report.html")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Results in the form of all stages, made by hand, and their page."""
    root = write_results(tmp_path_factory.mktemp("report") / "small")
    return root, parse(make_report(root))


@pytest.mark.parametrize("source", ["page", "written"])
def test_page_is_one_file_that_needs_no_network(request, source):
    found = request.getfixturevalue(source)
    page = found[1] if source == "written" else found
    assert not page.xpath("//script[@src] | //iframe | //object | //embed")
    # Links to models on the hub are followed only by a click.
    addresses = page.xpath(
        "//*[not(self::a[starts-with(@href, 'https://huggingface.co/')])]/@href | //*/@src | //*/@*[local-name()='href' and not(parent::a)]"
    )
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "@import" not in page.xpath("string(//style)") and "url(" not in page.xpath("string(//style)")
    policy = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")[0]
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_page_has_all_its_sections(page, written):
    for one in (page, written[1]):
        assert one.xpath("//main/section/@id") == SECTIONS
        assert [link[1:] for link in one.xpath("//nav//a/@href")] == SECTIONS
    assert "This is the miniature." in page.text_content()
    assert "This is the miniature." not in written[1].text_content()
    ids = written[1].xpath("//figure/@id")
    assert {"figure-prompts", "figure-responses", "figure-languages", "figure-audit", "figure-curves", "figure-win-rates",
            "figure-wins-by-language", "figure-variants", "figure-fidelity-changes", "figure-confusion", "figure-reward-judge",
            "figure-hours"} <= set(ids)  # fmt: skip
    assert not written[1].xpath("//div[@class='gap']"), "nothing is missing"


def test_numbers_are_those_of_the_summary(results, page):
    with open(results / "summary.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    contrast = next(row for row in table if row["p_adjusted"])
    shown = read_table(page.get_element_by_id("contrasts"))[0]
    assert shown["estimate"] == f"{percent(contrast['value'])} %"
    assert shown["interval"] == f"{percent(contrast['value_low'])} % to {percent(contrast['value_high'])} %"
    wins = {
        (f"{row['pool']}/{row['setting']}", row["eval_language"]): f"{percent(row['value'])} %"
        for row in table
        if row["metric"] == "win_rate" and row["baseline"] == "base"
    }
    lines = read_figure(page, "wins-by-language")
    assert {(line["run"], code): value for line in lines for code, value in line.items() if code != "run" and value != ABSENT} == wins  # fmt: skip
    assert {line["run"]: line["win rate"] for line in read_figure(page, "win-rates")} == {
        run: value for (run, code), value in wins.items() if code == "all"
    }


def test_rewards_are_described_as_numpy_describes_those_of_the_files(written):
    root, page = written
    scored = {code: rows(root / "mini" / code / "scores" / "english.jsonl") for code in LANGUAGES}
    pairs = rows(root / "mini/multi/dpo/pairs.jsonl")
    values = {(code, "all"): [reward for row in scored[code] for reward in row["rewards"]] for code in LANGUAGES}
    for kind in ("chosen", "rejected"):
        for code in LANGUAGES:
            values[code, kind] = [pair[f"{kind}_reward"] for pair in pairs if pair[f"{kind}_language"] == code]
    figures = [read_figure(page, name.removeprefix("figure-")) for name in page.xpath("//figure/@id") if name.startswith("figure-rewards-")]  # fmt: skip
    lines = next(lines for lines in figures if {line["language"] for line in lines} == set(LANGUAGES))
    assert len(lines) == len(values)
    for line in lines:
        found = values[line["language"], line["responses"]]
        assert int(line["n"]) == len(found)
        for name, function in (
            ("mean", np.mean),
            ("sd", np.std),
            ("lowest", np.min),
            ("median", np.median),
            ("highest", np.max),
        ):
            assert float(line[name]) == pytest.approx(function(found), abs=1e-3)


def edit_ledgers(root, **facts):
    """Sets keys of all ledgers."""
    for path in root.rglob("ledger.json"):
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **facts}), encoding="utf-8")


def read_places(page):
    """{chosen or rejected: (mean, highest)} in standard deviations of the multilingual pool."""
    tables = page.xpath("//table[starts-with(normalize-space(caption), 'Place in the pool: mini, multi')]")
    return {line["responses"]: (line["mean"], line["highest"]) for line in read_table(tables[0])}


def test_places_in_the_pool_are_of_rewards_as_the_pool_has_them(tmp_path):
    """Raw rewards, or those that the ledger says are standardised by language; unknown without a ledger."""
    root = write_results(tmp_path / "small")
    assert read_places(parse(make_report(root))) == {"chosen": ("3.900", "5.800"), "rejected": ("-2.000", "-2.000")}
    edit_ledgers(root, standardised={code: {"mean": 1.0, "std": 4.0} for code in LANGUAGES})
    assert read_places(parse(make_report(root))) == {"chosen": ("0.475", "0.950"), "rejected": ("-1.000", "-1.000")}
    for path in root.rglob("ledger.json"):
        path.unlink()
    assert "Place in the pool" not in parse(make_report(root)).text_content()


@pytest.mark.parametrize(("rule", "is_drawn"), [("mean-2sd", True), ("random", False)])
def test_the_target_of_the_rejected_is_drawn_where_the_rule_has_it(tmp_path, rule, is_drawn):
    root = write_results(tmp_path / "small")
    edit_ledgers(root, rejected=rule)
    page = parse(make_report(root))
    rewards = page.get_element_by_id("rewards").text_content()
    assert "Places of chosen and rejected" in rewards and ("mean - 2 sd" in rewards) == is_drawn
    places = [plot for name, plot in read_embedded(page, "plots").items() if name.startswith("places-")]
    assert places
    assert all(any(layer["mark"]["type"] == "rule" for layer in plot["layer"]) == is_drawn for [plot] in places)


def test_where_less_is_better_the_page_says_so_and_shows_the_tuned_value(tmp_path):
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    rows = summary[summary["metric"] == "language_fidelity"].assign(metric="truncated", value=0.3, baseline_value=0.4, delta=0.1)  # fmt: skip
    tasks = rows.assign(task="text", metric="word_perplexity", value=12.0, baseline_value=42.0, delta=30.0)
    tasks.loc[tasks["setting"] == "base", ["baseline", "baseline_value", "delta"]] = None
    rows.loc[rows["setting"] == "base", ["baseline", "baseline_value", "delta"]] = None
    pd.concat([summary, rows, tasks]).to_csv(root / "summary.csv", index=False)
    page = parse(make_report(root))
    cut = [line for line in read_figure(page, "fidelity-changes") if line["measure"].startswith("truncated")]
    assert {(line["base"], line["tuned"], line["change"]) for line in cut} == {("40.0 %", "30.0 %", "10.0 points")}
    assert all("lower is better" in line["measure"] for line in cut)
    others = [line["measure"] for line in read_figure(page, "fidelity-changes") if line not in cut]
    assert others and not any("lower is better" in name for name in others)
    captions = page.xpath("//section[@id='structured']//figure//figcaption")
    said = {text.text_content().split(" on ")[0].strip(): "lower is better" in text.text_content() for text in captions}
    assert said == {"Exact match": False, "Word perplexity": True}


def test_plots_are_valid_vega_lite(written):
    import altair as alt

    plots = read_embedded(written[1], "plots")
    assert plots
    for specifications in plots.values():
        for specification in specifications:
            alt.TopLevelSpec.validate(specification)


def test_plots_show_the_numbers_of_their_tables(written):
    _, page = written
    specification = read_embedded(page, "plots")["win-rates"][0]
    values = [layer["data"]["values"] for layer in specification["layer"] if "low" in layer["data"]["values"][0]]
    drawn = {row["name"]: f"{row['value']:.1f} %" for row in values[-1]}
    assert drawn == {line["run"]: line["win rate"] for line in read_figure(page, "win-rates")}
    seeds = next(line for line in read_figure(page, "win-rates") if line["run"] == "multi/dpo")["other seeds"]
    assert len(seeds.split(", ")) == 1, "the second training seed"
    for name, specifications in read_embedded(page, "plots").items():
        assert len(specifications) == len(page.xpath(f"//*[@class='plot'][@data-figure='{name}']"))


def test_ledger_adds_up_on_the_page(page, written):
    for one in (page, written[1]):
        for line in read_table(one.xpath("//table[normalize-space(caption) = 'Ledger: prompts by run']")[0]):
            lost = sum(map(int, re.findall(r" (\d+)", line["not formed"])))
            assert int(line["prompts"]) == int(line["formed"]) + lost
        table = one.xpath("//table[normalize-space(caption) = 'Responses by run and language']")[0]
        lines = [line for line in read_table(table) if line["responses"] != ABSENT]
        for line in lines:
            lost = sum(map(int, re.findall(r" (\d+)", line["excluded"])))
            assert int(line["responses"].replace(",", "")) == int(line["eligible"].replace(",", "")) + lost
        # Where nothing was lost, a sentence says so in place of a chart.
        is_whole = not any("0" < c <= "9" for line in lines for c in line["excluded"])
        assert bool(one.xpath("//figure[@id = 'figure-responses']")) != is_whole
        assert ("No response left its pool." in one.text_content()) == is_whole


def test_confusion_counts_every_answer(written):
    lines = read_figure(written[1], "confusion")
    assert {line["run"] for line in lines} == {"mini/untuned/base", "mini/en/dpo", "mini/multi/dpo"}
    german = next(line for line in lines if (line["run"], line["prompt in"]) == ("mini/multi/dpo", "en"))
    assert (german["en"], german["de"], german["none"]) == ("18", "1", "1")


def test_cost_multiplies_time_by_leased_gpus(written):
    row = next(line for line in read_figure(written[1], "hours") if line["stage"] == "train")
    assert (row["jobs"], row["hours"], row["GPU-hours"]) == ("3", "1.500", "3.000")


def edit_manifests(root, pattern, **facts):
    """Sets keys of the manifests that fit the pattern; a key that is set to ... is removed."""
    for path in root.glob(pattern):
        content = json.loads(path.read_text(encoding="utf-8")) | facts
        content = {name: value for name, value in content.items() if value is not ...}
        path.write_text(json.dumps(content), encoding="utf-8")


def test_manifests_of_one_process_are_one_job(tmp_path):
    root = write_results(tmp_path / "small")
    for i, code in enumerate(("en", "de")):
        facts = {"job": "judge of multi", "seconds": 1800 * (i + 1), "peak_memory_mb": 200 * (i + 1), "gpus": 1}
        manifest(root / "mini" / "multi" / "dpo" / "arena" / f"{code}.manifest.json", "judge", **facts)
    page = parse(make_report(root))
    row = next(line for line in read_figure(page, "hours") if line["stage"] == "judge")
    assert (row["jobs"], row["hours"], row["GPU-hours"], row["peak memory of a job (MB)"]) == ("1", "1.000", "1.000", "400")  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "said", "jobs", "hours"),
    [
        ({"job": ...}, "the job or its time in 1 manifest (train)", "2", "2.000"),
        ({"gpus": None}, "the number of GPUs in 1 manifest (train)", "3", "2.000"),
        ({"gpus": 0}, None, "3", "2.000"),
    ],
)
def test_what_a_manifest_does_not_say_of_its_cost_is_a_gap(tmp_path, facts, said, jobs, hours):
    root = write_results(tmp_path / "small")
    edit_manifests(root, "mini/multi/dpo/checkpoint/manifest.json", **facts)
    page = parse(make_report(root))
    gaps = [" ".join(gap.text_content().split()) for gap in page.xpath("//section[@id='cost']//*[@class='gap']")]
    assert [said in gap and "multi/dpo/checkpoint/manifest.json" in gap for gap in gaps] == ([True] if said else [])
    row = next(line for line in read_figure(page, "hours") if line["stage"] == "train")
    assert (row["jobs"], row["GPU-hours"]) == (jobs, hours)


def test_stages_of_which_no_gpus_are_known_have_no_gpu_hours(tmp_path):
    root = write_results(tmp_path / "small")
    edit_manifests(root, "**/*manifest.json", gpus=None)
    page = parse(make_report(root))
    assert {(line["GPU-hours"], line["jobs"]) for line in read_figure(page, "hours")} == {(ABSENT, "3"), (ABSENT, "6")}
    assert "the number of their GPUs is unknown" in page.get_element_by_id("cost").text_content()


@pytest.fixture
def planned_results(tmp_path):
    """Results whose manifests say what was done, and a plan of the same counts; the trainings used GPUs."""
    root = write_results(tmp_path / "small")
    trained = {"rows_seen": {"sum": 20}, "tokens": 500, "seconds": 1800, "gpus": 1}
    edit_manifests(root, "mini/*/*/checkpoint/manifest.json", **trained)
    facts = {"counts": {"responses": 80, "tokens": 900}, "sampled": 20, "gpus": 0}
    manifest(root / "mini" / "en" / "generations" / "0.manifest.json", "generate", **facts)
    manifest(root / "audit" / "mini" / "en" / "generations.manifest.json", "generate", **facts)
    stages = [
        {"stage": "generate", "jobs": 1, "loads": 1, "items": 80, "tokens": 1000, "gpu_hours": None},
        {"stage": "train", "jobs": 3, "loads": 3, "items": 66, "tokens": 1000, "gpu_hours": 3.0},
        {"stage": "judge", "jobs": 0, "loads": 0, "items": None, "tokens": 0, "gpu_hours": None},
    ]
    (root / "plan.json").write_text(json.dumps({"gpu_type": "h100", "stages": stages}), encoding="utf-8")
    return root


def read_plan_and_fact(root, *options):
    """({stage: its row of the table}, the text that says what is not as planned, or None)."""
    cost = parse(make_report(root, "--plan", root / "plan.json", *options)).get_element_by_id("cost")
    table = next(table for table in cost.xpath(".//table") if "Plan and fact" in table.xpath("string(.//caption)"))
    marks = [mark.text_content() for mark in cost.xpath(".//p[@class='against']")]
    return {line["stage"]: line for line in read_table(table)}, next(iter(marks), None)


def test_counts_that_are_as_planned_have_no_mark_and_hours_have_a_ratio(planned_results):
    """The audit's responses are left out, a pair that was not formed is no difference, and a CPU has no planned hours."""
    lines, mark = read_plan_and_fact(planned_results)
    assert mark is None and {line["as planned"] for line in lines.values()} == {"yes"}
    assert (lines["generate"]["jobs"], lines["generate"]["items"], lines["generate"]["GPU-hours"]) == (
        "1",
        "80",
        ABSENT,
    )
    assert (lines["train"]["items"], lines["train"]["items planned"]) == ("60", "66")
    assert (lines["train"]["GPU-hours"], lines["train"]["measured / planned hours"]) == ("1.500", "0.500")


def test_a_training_that_two_settings_share_is_counted_once(planned_results):
    """Two jobs with their rows, and one process with its time, tokens and load of the model."""
    edit_manifests(planned_results, "mini/multi/*/checkpoint/manifest.json", job="shared")
    lines, mark = read_plan_and_fact(planned_results)
    train = lines["train"]
    assert mark is None and (train["jobs"], train["items"]) == ("3", "60")
    assert (train["loads"], train["tokens"], train["GPU-hours"]) == ("2", "1,000", "1.000")


@pytest.mark.parametrize(
    ("pattern", "facts", "said"),
    [
        ("mini/en/generations/0.manifest.json", {"counts": {"responses": 81}}, "generate: 81 items instead of 80"),
        ("mini/multi/dpo/checkpoint/manifest.json", {"stage": "other"}, "train: 2 jobs instead of 3"),
        ("mini/multi/dpo/checkpoint/manifest.json", {"rows_seen": {"sum": 27}}, "train: 67 items instead of 66"),
    ],
)
def test_forged_counts_are_marked(planned_results, pattern, facts, said):
    edit_manifests(planned_results, pattern, **facts)
    lines, mark = read_plan_and_fact(planned_results)
    assert said in mark and lines[said.split(":")[0]]["as planned"] == "no"


def test_unfinished_runs_and_finished_work_are_no_difference(planned_results):
    edit_manifests(planned_results, "mini/en/generations/0.manifest.json", sampled=0)
    lines, mark = read_plan_and_fact(planned_results)
    assert mark is None and lines["generate"]["loads"] == ABSENT, "taken from state/"
    (planned_results / "mini" / "en" / "generations" / "0.manifest.json").unlink()
    assert "generate: 0 jobs instead of 1" in read_plan_and_fact(planned_results)[1]
    assert read_plan_and_fact(planned_results, "--partial")[1] is None


def test_a_manifest_names_the_process_that_wrote_it(tmp_path, monkeypatch):
    def write(name):
        cli.write_manifest(tmp_path / name, cli.__file__, Namespace(), {})
        return json.loads((tmp_path / name).read_text(encoding="utf-8"))

    monkeypatch.delenv("CROCO_GPUS", raising=False)
    first, second = write("first.json"), write("second.json")
    assert first["job"] == second["job"]
    monkeypatch.setattr(cli, "STARTED", cli.STARTED + 1)
    assert write("later.json")["job"] != first["job"]
    monkeypatch.setenv("CROCO_GPUS", "2")
    assert write("leased.json")["gpus"] == 2


@pytest.mark.parametrize(
    ("modules", "gpus"),
    [({}, 0), ({"torch": False}, 0), ({"torch": True}, None), ({"torch": False, "vllm": True}, None)],
)
def test_without_a_launcher_the_number_of_gpus_is_0_or_unknown(monkeypatch, modules, gpus):
    monkeypatch.delenv("CROCO_GPUS", raising=False)
    for name in ("torch", "vllm"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name, used in modules.items():
        cuda = SimpleNamespace(is_initialized=lambda used=used: used)
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(cuda=cuda))
    assert cli.count_gpus() == gpus


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, ["H100", "A100"]), ("1", ["A100"]), ("GPU-b,0", ["A100", "H100"]), ("", []), ("7", [])],
)
def test_a_manifest_names_the_hardware_of_its_process(tmp_path, monkeypatch, visible, names):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '0, GPU-aa, H100\\n1, GPU-bb, A100\\n'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    hardware._query_gpus.cache_clear()
    for leased, expected in (("2", names), ("0", [])):
        monkeypatch.setenv("CROCO_GPUS", leased)
        cli.write_manifest(tmp_path / "a.json", cli.__file__, Namespace(), {})
        written = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
        assert written["gpu_names"] == expected and written["cpu"]
    hardware._query_gpus.cache_clear()


def test_findings_have_a_card_each_with_their_pools_as_rows(written):
    page = written[1]
    finding, *others = read_table(page.get_element_by_id("findings-table"))
    assert [(other["finding"], other["verdict"]) for other in others] == [("F2", "not tested"), ("F4", "not tested")]
    assert others[1]["claim"].endswith("no such setting"), "the reason"
    assert (finding["finding"], finding["verdict"], finding["estimate"]) == ("F2", "supported", "10.0 points")
    cards = page.xpath("//section[@id='findings']//article")
    assert [(card.find("h3").text[:2], len(card.xpath(".//li"))) for card in cards] == [("F2", 2), ("F4", 1)]
    first = " ".join(cards[0].text_content().split())
    assert (
        "supported multi/dpo - base (mini): +10.0 points" in first
        and "not tested en/dpo - base (mini): needs a judge" in first
    )
    claim = "preference tuning on own responses improves on the base"
    assert finding["claim"].startswith(claim) and claim in first.lower()


def test_a_card_of_a_finding_shows_its_gaps(tmp_path):
    root = write_results(tmp_path / "small")
    found = json.loads((root / "findings.json").read_text(encoding="utf-8"))
    found["findings"][0] |= {"gaps": {"grey": ["de"]}, "why": "grey has no results for de"}
    (root / "findings.json").write_text(json.dumps(found), encoding="utf-8")
    line = parse(make_report(root)).xpath("string((//section[@id='findings']//article//li)[1])")
    assert line.endswith(": +10.0 points, 5.0 points to 15.0 points; grey has no results for de")


def test_a_declared_contrast_without_a_result_is_in_the_table(tmp_path):
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    summary[summary["pool"] != "en"].to_csv(root / "summary.csv", index=False)
    agree = "All declared contrasts agree with the paper."
    assert agree in parse(make_report(root)).get_element_by_id("claims").text_content()
    page = parse(make_report(root, "--contrast", "dpo", "en", "base"))
    first, second = read_table(page.get_element_by_id("contrasts"))
    assert (first["contrast"], first["in this run"]) == ("multi/dpo against base", "appears")
    assert (second["model"], second["contrast"], second["in this run"]) == ("mini", "en/dpo against base", "no result")
    assert {second[name] for name in ("estimate", "interval", "p, adjusted")} == {ABSENT}
    assert agree not in page.get_element_by_id("claims").text_content()


def test_contrasts_without_an_answer_are_said_where_claims_are(tmp_path):
    """Those with too few prompts or no result; an end of an interval that is not bounded is null in the data."""
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    summary = summary[summary["pool"] == "multi"].assign(n=19)
    summary.loc[summary["metric"] == "win_rate", ["value_low", "value_high", "delta_low", "delta_high"]] = None
    summary.to_csv(root / "summary.csv", index=False)
    page = parse(make_report(root, "--contrast", "dpo", "en", "base"))
    claims = " ".join(page.get_element_by_id("claims").text_content().split())
    assert "Inconclusive: mini, multi/dpo against base (preference tuning" in claims
    assert f"62.1 %, {ABSENT} to {ABSENT}; too few prompts (under 20). This run shows neither" in claims
    assert "No result: mini, en/dpo against base (preference tuning" in claims
    values = [json.loads(text, parse_constant=pytest.fail) for text in page.xpath("//@data-csv")]
    assert [None, None] in values


def test_a_contrast_of_an_earlier_round_is_no_result(tmp_path):
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    summary[(summary["pool"] == "multi") & (summary["seed"] == 1)].to_csv(root / "summary.csv", index=False)
    rounds = [("mini", "multi", f"dpo/round{i}", 1, "english", 64, "en,de") for i in (1, 2)]
    runs = write_runs(tmp_path / "runs.jsonl", *rounds)
    page = parse(make_report(root, "--runs", runs))
    assert [line["in this run"] for line in read_table(page.get_element_by_id("contrasts"))] == ["no result"]


def test_of_an_arm_with_rounds_the_bare_name_is_no_single_round(tmp_path):
    """Its bare name on the leaderboard and in contrasts is that of the last round."""
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    summary = summary[(summary["pool"] == "multi") & (summary["seed"] == 1)]
    names = ["multi/dpo (round 1)", "multi/dpo (round 2)"]
    for finished in (1, 2):
        rounds = [summary.assign(round=number) for number in range(1, finished + 1)]
        pd.concat(rounds).to_csv(root / "summary.csv", index=False)
        runs = write_runs(tmp_path / "runs.jsonl", *(("mini", "multi", f"dpo/round{i}", 1, "english", 64, "en,de") for i in (1, 2)))  # fmt: skip
        write_rows(runs, [run | {"row": run["row"] | {"rounds": 2}} for run in rows(runs)])
        page = parse(make_report(root, "--runs", runs))
        assert [line["run"] for line in read_figure(page, "win-rates")] == names[:finished]
        assert {line["run"] for line in read_figure(page, "reward-judge")} == set(names[:finished])
    assert page.xpath("//table[@id='leaderboard']//th/@title") == ["mini/multi/dpo"]


def test_without_findings_the_page_has_no_section_on_the_paper(tmp_path):
    page = parse(make_report(write_results(tmp_path / "small"), findings=False))
    assert page.xpath("//main/section/@id") == [name for name in SECTIONS if name != "findings"]
    assert "F2" not in page.get_element_by_id("overview").text_content()
    assert not page.xpath("//div[@class='gap']"), "nothing is missing"
    assert "the paper's finding" not in read_table(page.get_element_by_id("contrasts"))[0]
    assert "not a finding of the paper" not in page.text_content()


def test_win_rates_of_other_harnesses_are_no_contrasts_and_no_training_seeds(tmp_path):
    root = write_results(tmp_path / "small")
    alone = parse(make_report(root))
    summary = pd.read_csv(root / "summary.csv")
    imported = summary[summary["metric"] == "win_rate"].assign(task="arenahard/v2", value=0.9, seed="3")
    pd.concat([imported, summary]).to_csv(root / "summary.csv", index=False)
    beside = parse(make_report(root))
    for caption in ("Declared contrasts of win rates", "Declared contrasts over seeds"):
        tables = [one.xpath(f"//table[normalize-space(caption) = '{caption}']")[0] for one in (alone, beside)]
        assert read_table(tables[0]) == read_table(tables[1])


def test_a_judge_that_sees_one_order_is_no_judge_of_both(tmp_path):
    root = write_results(tmp_path / "small")
    for orders, said in (("both", "in both orders"), ("one", "in one order, drawn for each prompt")):
        path = root / "mini" / "multi" / "dpo" / "arena" / "de.manifest.json"
        manifest(path, "judge", options={"judge": "llm", "model": "org/judge", "orders": orders})
        page = parse(make_report(root))
        assert f"judged {said};" in page.get_element_by_id("open-ended").text_content()
        assert f"untuned model {said} by org/judge" in page.xpath("string(//details[@class='methods'])")
    path = root / "mini" / "multi" / "dpo.s2" / "arena" / "de.manifest.json"
    manifest(path, "judge", options={"judge": "llm", "model": "org/judge", "orders": "both"})
    assert "judged in both orders or in one, by arm;" in parse(make_report(root)).text_content()


def test_verdicts_of_an_arm_that_is_no_longer_in_the_run_table_do_not_count(tmp_path):
    root = write_results(tmp_path / "small")
    options = {"judge": "llm", "model": "org/judge", "orders": "both"}
    manifest(root / "mini" / "multi" / "dpo" / "arena" / "de.manifest.json", "judge", options=options)
    pages = [parse(make_report(root))]
    manifest(root / "mini" / "multi" / "old" / "arena" / "de.manifest.json", "judge", options={"judge": "oracle"})
    manifest(root / "mini" / "en" / "old" / "arena" / "en.manifest.json", "judge", options={**options, "orders": "one", "model": "org/old"})  # fmt: skip
    pages.append(parse(make_report(root)))
    for page in pages:
        assert "judged in both orders;" in page.get_element_by_id("open-ended").text_content()
        overview = page.get_element_by_id("overview").text_content()
        assert "in both orders by org/judge." in overview
        assert "org/old" not in overview and "Judge: a rule" not in overview


def test_manifests_that_an_earlier_config_left_are_not_on_the_page(tmp_path):
    models = [{"name": "english"}]
    root = write_finished(tmp_path / "small", languages=[{"code": code} for code in LANGUAGES], reward_models=models)
    blocks = root / "mini" / "en" / "generations"
    manifest(blocks.with_name("generations.manifest.json"), "gather", options={"parts": [str(blocks / "0.jsonl")]})
    for start in (0, 1000):
        manifest(blocks / f"{start}.manifest.json", "generate")
    kept = ("prompts/de/0", "prompts/evaluate/de", "audit/english", "mini/en/scores/english/0", "mini/template",
            "mini/multi/dpo/eval/de", "mini/untuned/base/fidelity/english/de", "templates/judge/any")  # fmt: skip
    left = ("prompts/fr/0", "prompts/evaluate/fr", "audit/old", "mini/en/scores/old/0", "old/template",
            "mini/en/dpo/eval/de", "mini/untuned/base/fidelity/old/de", "old/en/generations/0")  # fmt: skip
    for place in (*kept, *left):
        manifest(root / f"{place}.manifest.json", "any")
    for place in ("old/multi/dpo", "mini/fr/dpo", "mini/multi/old", "mini/multi/dpo/round2"):
        manifest(root / place / "checkpoint" / "manifest.json", "train", options={"model": "org/old"})
    page = make_report(root)
    shown = set(json.loads(page.with_suffix(".manifest.json").read_text(encoding="utf-8"))["manifests"])
    runs = {f"mini/{pool}/{setting}" for pool, setting, *_ in RUNS}
    judged = {f"mini/{pool}/{setting}/arena/{code}" for pool, setting, _, codes in RUNS for code in codes}
    expected = {f"{place}.manifest.json" for place in {*kept, *judged, *(f"{run}/pairs" for run in runs)}}
    expected |= {f"mini/en/generations{end}.manifest.json" for end in ("", "/0")}
    assert shown == expected | {f"{run}/checkpoint/manifest.json" for run in runs}
    assert "org/old" not in parse(page).text_content()


def percent(text):
    return f"{100 * float(text):.1f}"


def read_pooled(root, task, metric):
    """{(pool, setting): row} of the summary over all languages, against the base."""
    with open(root / "summary.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["task"], row["metric"], row["eval_language"]) == (task, metric, "all")]  # fmt: skip
    return {(row["pool"], row["setting"]): row for row in rows if row["baseline"] in ("", "base")}


@pytest.mark.parametrize("source", ["results", "written"])
def test_leaderboard_and_headline_have_the_numbers_of_the_summary(request, source):
    root, page = request.getfixturevalue("written") if source == "written" else (
        request.getfixturevalue("results"), request.getfixturevalue("page"))  # fmt: skip
    wins = read_pooled(root, "arena", "win_rate")
    right = read_pooled(root, "fidelity", "language_fidelity")
    lines = page.xpath("//table[@id='leaderboard']/tbody/tr")
    shown = {}
    for line, cells in zip(lines, read_table(page.get_element_by_id("leaderboard")), strict=True):
        _, pool, setting = line.find("th").get("title").split("/")
        shown[pool, setting] = cells
    assert shown.keys() - {("untuned", "base")} == {key for key in wins if not key[1].endswith(".s2")}
    for key, cells in shown.items():
        if key[0] == "untuned":
            assert cells["arm"] == "Untuned model" and cells["win rate"] == ABSENT
            continue
        assert cells["win rate"] == percent(wins[key]["value"]) and cells["n"] == wins[key]["n"].removesuffix(".0")
        assert cells["95 % interval"] == f"{percent(wins[key]['value_low'])} to {percent(wins[key]['value_high'])}"
        share = right[key]["value"]
        assert cells["right language"] == (percent(share) if share else ABSENT)
    main = wins["multi", "dpo"] if source == "written" else wins["en", "dpo"]
    headline = page.xpath("string(//p[@class='headline'])")
    interval = f"[{percent(main['value_low'])}, {percent(main['value_high'])}]"
    assert f"wins {percent(main['value'])} % {interval} against the untuned model" in headline


def test_the_config_on_the_page_gives_the_same_plan(tmp_path, fresh_project):
    config = load_configfile(fresh_project / "config" / "config.yaml")
    update_config(config, load_configfile(fresh_project / SMALL[1]))
    page = parse(make_report(write_finished(tmp_path / "small", **config)))
    path = tmp_path / "from_page.yaml"
    path.write_text(page.get_element_by_id("config").text, encoding="utf-8")
    assert planned(fresh_project, "--configfile", path) == planned(fresh_project, *SMALL) != {}


def test_the_config_on_the_page_keeps_every_value(tmp_path):
    values = {
        "a": HOSTILE,
        "b": "no",
        "c": "1e-5",
        "d": 1e-5,
        "e": "日本\n\tend ",
        "f": [None, True, {"1": "2026-01-01"}],
    }
    root = write_finished(tmp_path / "small", values=values)
    page = make_report(root)
    path = tmp_path / "from_page.yaml"
    path.write_text(parse(page).get_element_by_id("config").text, encoding="utf-8")
    start = json.loads((root / ".snakemake" / "start.json").read_text(encoding="utf-8"))
    assert load_configfile(path) == start["config"]
    written = json.loads(page.with_suffix(".manifest.json").read_text(encoding="utf-8"))
    assert written["config"] == start["config"], "with it, verify.py makes the page again"
    (root / ".snakemake" / "start.json").unlink()
    assert not parse(make_report(root)).xpath("//*[@id='config']")


@pytest.mark.parametrize(("commit", "shown"), [("0123456789abcdef", "0123456789"), (None, "outside git")])
def test_a_commit_is_shortened_and_its_absence_is_not(commit, shown):
    assert Manifest.from_row("a", {"stage": "train", "code_commit": commit}).short_commit == shown


def test_facts_name_the_processors_and_gpus(tmp_path):
    root = write_results(tmp_path / "small")
    edit_manifests(root, "mini/*/*/*.manifest.json", gpus=0, gpu_names=[], cpu="Xeon")
    edit_manifests(root, "mini/en/*/checkpoint/manifest.json", gpu_names=["H100", "H100"], cpu="EPYC")
    edit_manifests(root, "mini/multi/*/checkpoint/manifest.json", gpu_names=["H100"], cpu="EPYC")
    page = parse(make_report(root))
    (text,) = page.xpath("//dl[@class='facts']/div[dt='hardware']/dd/text()")
    assert set(text.split(", ")) == {"at most 2 H100 per job", "EPYC", "Xeon", "at most 100 MB of memory per job"}


def test_a_prompt_with_references_in_all_languages_is_one_training_prompt(tmp_path):
    """Such a ledger's total counts it once per language."""
    root = write_results(tmp_path / "small")
    ledgers = [json.loads(path.read_text(encoding="utf-8")) for path in root.rglob("ledger.json")]
    most = max(counts["prompts"] for ledger in ledgers for counts in ledger["languages"].values())
    edit_ledgers(root, per_prompt="all", prompts=most * len(LANGUAGES))
    page = parse(make_report(root))
    assert page.xpath("//dl[@class='facts']/div[dt='training prompts']/dd/text()") == [str(most)]


def test_the_page_says_all_that_a_training_seed_draws(written):
    (text,) = written[1].xpath("//p[starts-with(., 'Replicates differ in the training seed')]/text()")
    for drawn in ("null control's pairs", "SFT's references", "online DPO's prompts", "later rounds"):
        assert drawn in text


def test_facts_and_methods_are_those_of_the_manifests(tmp_path):
    root = write_results(tmp_path / "small")
    options = {"model": "org/policy-1B", "revision": "abc123", "objective": "dpo", "beta": 0.1, "seed": 1}
    edit_manifests(root, "mini/*/*/checkpoint/manifest.json", options=options)
    page = parse(make_report(root))
    facts = {part.find("dt").text: part.find("dd") for part in page.xpath("//dl[@class='facts']/div")}
    assert facts["policies"].xpath("./a/@href") == ["https://huggingface.co/org/policy-1B/tree/abc123"]
    assert facts["policies"].text_content() == "org/policy-1B (abc123)"
    assert facts["date"].text == "2026-01-01"
    assert facts["hardware"].text == "at most 2 GPUs per job, at most 100 MB of memory per job"
    jobs = read_figure(page, "hours")[-1]
    assert facts["time of all jobs"].text.endswith(f"({jobs['jobs']} jobs)")
    assert float(facts["GPU-hours"].text) == pytest.approx(float(jobs["GPU-hours"]), abs=0.01)
    assert facts["model loads"].text.isdigit()
    assert facts["code"].text == "0123456789" and facts["training seeds"].text == "2"
    methods = page.xpath("string(//details[@class='methods']/p)")
    assert "org/policy-1B (abc123)" in methods and "arXiv 2605.26293" in methods and "commit 0123456789" in methods
    assert page.xpath("string(//h1)") == "small: preference tuning of mini in 2 languages"


def test_caveats_are_beside_the_headline(written, tmp_path):
    def badges(page):
        return [" ".join(badge.text_content().split()) for badge in page.xpath("//ul[@class='badges']//a")]

    said = badges(written[1])
    assert any("Audit: reward model english is weak in en" in text for text in said)
    assert any("Contamination: 1 training prompt is part" in text for text in said)
    doubts = written[1].xpath("string(//p[@id='doubts'])")
    assert doubts == "What would make you doubt this result:"
    assert not any("One training seed" in text or "Null control" in text for text in said)
    root = write_results(tmp_path / "small")
    manifest(root / "prompts" / "de.manifest.json", "translate")
    manifest(root / "tasks" / "qa" / "de.manifest.json", "translate")
    assert not any("machine-translated" in text for text in said)
    summary = pd.read_csv(root / "summary.csv")
    consistency = summary[summary["metric"] == "win_rate"].assign(
        metric="position_consistency", value=0.7, baseline=None
    )
    pd.concat([summary, consistency]).to_csv(root / "summary.csv", index=False)
    said = badges(parse(make_report(root, "--partial", control="dpo", seeds=1)))
    for text in ("Partial results", "Null control multi/dpo is off chance: 62.1 %, not 50 %", "One training seed",
                 "Some prompts are machine-translated", "Some structured tasks are machine-translated", "same verdict in both orders for at least 70.0 %"):  # fmt: skip
        assert any(text in badge for badge in said), (text, said)


def test_a_demo_that_trains_on_an_unfit_reward_model_says_why(tmp_path):
    root = write_results(tmp_path / "small")
    audit = json.loads((root / "audit" / "english.json").read_text(encoding="utf-8"))
    audit["languages"]["en"]["verdict"] = "unfit"
    (root / "audit" / "english.json").write_text(json.dumps(audit), encoding="utf-8")
    manifest(root / "mini" / "multi" / "dpo" / "arena" / "de.manifest.json", "judge", options={"judge": "oracle"})
    overview = parse(make_report(root, "--miniature")).get_element_by_id("overview")
    text = " ".join(overview.text_content().split())
    assert "Audit: reward model english is unfit in en: do not train on it" in text
    assert "The miniature trains on this reward model all the same, because it shows how the workflow runs" in text
    assert "Judge: a rule, not a model" in text


def test_the_overview_says_which_training_prompts_are_evaluated_on(written):
    _, page = written
    paragraph = page.xpath("//section[@id='overview']//p[@id='contamination']")[0]
    text = " ".join(paragraph.text_content().split())
    assert "en: of 20 1 exact, 1 more with 13 words in common" in text and "de" not in text.split("Not compared")[0]
    assert text.endswith("Not compared: belebele_deu_Latn.") and paragraph.get("class") == "gap"
    table = next(t for t in page.xpath("//section[@id='data']//table") if "removed" in t.text_content())
    assert [(row["language"], row["exact, prompts"]) for row in read_table(table)] == [("en", "1"), ("de", "0")]


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (PLAIN, 1432.7, "1,432.7"), (PLAIN, 999.7, "999.7"), (PLAIN, 12.345, "12.3"),
        (PERCENT, 0.99961, "99.96 %"), (PERCENT, 0.9999999, "99.99 %"), (PERCENT, 1.0, "100 %"), (PERCENT, 0.5, "50 %"),
    ],
)  # fmt: skip
def test_numbers_in_sentences_have_no_exponent_and_only_all_is_100_percent(unit, value, text):
    assert unit.write(value) == text


def test_thousands_in_tables_have_commas_and_a_share_has_no_sign(tmp_path):
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    summary.loc[summary["metric"] == "n_tokens", ["value", "baseline_value"]] = (1432.7, 1391.7)
    summary.to_csv(root / "summary.csv", index=False)
    found = json.loads((root / "findings.json").read_text(encoding="utf-8"))
    found["findings"][0] |= {"measure": "share of languages", "estimate": 0.8, "low": None, "high": None}
    (root / "findings.json").write_text(json.dumps(found), encoding="utf-8")
    page = parse(make_report(root))
    assert "1,432.7" in {line["tuned"] for line in read_figure(page, "fidelity-changes")}
    titles = page.xpath("//figure[@id='figure-fidelity-changes']//*[@class='chart-title']/text()")
    assert any("base 1,391.7" in title for title in titles)
    assert page.xpath("string((//section[@id='findings']//article//li)[1])").endswith("(mini): 80.0 %")


@pytest.mark.parametrize(
    ("verdicts", "shown"),
    [
        (("win", "unparseable"), "win"), (("unparseable", "unparseable"), "unparseable"), (("win", "not_asked"), "win"),
        (("win", "loss"), DEPENDS_ON_ORDER), (("not_asked", "unparseable"), "unparseable"),
    ],
)  # fmt: skip
def test_an_unreadable_verdict_beside_a_readable_one_decides_nothing(verdicts, shown):
    assert agree(verdicts) == shown


def list_colors(specification):
    """{language: colour} of a chart's languages."""
    scales = [layer["encoding"]["color"]["scale"] for layer in specification["layer"] if "scale" in layer["encoding"].get("color", {})]  # fmt: skip
    return dict(zip(scales[0]["domain"], scales[0]["range"], strict=True)) if scales else {}


def test_a_language_has_one_colour_in_all_charts(tmp_path):
    """Also where the table has them in another order than the runs; more languages than colours share one."""
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    summary = summary.sort_values("eval_language", key=lambda codes: codes.map({"all": 0, "de": 1, "en": 2}))
    summary.to_csv(root / "summary.csv", index=False)
    plots = read_embedded(parse(make_report(root)), "plots")
    assert list_colors(plots["win-rates"][0]) == {"en": "var(--series-1)", "de": "var(--series-2)"}
    assert list_colors(plots["reward-judge"][0]) == list_colors(plots["win-rates"][0])
    assert list_colors(plots["task-0"][0]) == list_colors(plots["win-rates"][0])
    others = [summary[summary["eval_language"] == "de"].assign(eval_language=f"l{i}") for i in range(9)]
    pd.concat([summary, *others]).to_csv(root / "summary.csv", index=False)
    plots = read_embedded(parse(make_report(root)), "plots")
    assert list_colors(plots["win-rates"][0]) == list_colors(plots["reward-judge"][0]) == {}


def test_a_heat_map_is_as_wide_as_its_columns_need(written):
    """The numbers of neighbouring cells do not overlap; a chart that is too wide scrolls in its box."""
    cells = [{"y": "run", "x": f"l{i}", "value": 0.5} for i in range(40)]
    wide, narrow = (plot_cells(part, "language", None, {}, unit=PERCENT)["usermeta"]["least_width"] for part in (cells, cells[:2]))  # fmt: skip
    assert wide > 40 * 30 and wide - narrow >= 38 * 30
    page = written[1]
    for name in ("wins-by-language", "confusion", "languages"):
        figure = page.get_element_by_id(f"figure-{name}")
        least = read_embedded(page, "plots")[name][0]["usermeta"]["least_width"]
        assert figure.get("class") == "broad"
        assert figure.xpath(".//*[@class='chart']/@style") == [f"--least: {least}px"]


def test_names_beside_a_chart_are_cut_in_the_middle(tmp_path):
    """Names differ at their ends, and take up to half of the width."""
    names = [f"policy/multilingual/{'very_' * 20}long_name_of_a_setting_{i}" for i in range(2)] + ["policy/short"]
    rows = [{"name": name, "value": 0.1, "low": 0, "high": 0.2, "languages": {}, "others": []} for name in names]
    svg = ElementTree.fromstring(to_svg(plot_forest(rows, 0, "Change", {}), read_palette(STYLE)))
    texts = ["".join(part.itertext()) for part in svg.iter("{http://www.w3.org/2000/svg}text")]
    shown = [text for text in texts if text.startswith("policy/")]
    assert [text[-9:] for text in shown] == ["setting_0", "setting_1", "icy/short"]
    assert [len(text) > 40 and "\u2026" in text for text in shown] == [True, True, False]


def test_a_clean_selection_is_reported(page):
    paragraph = page.get_element_by_id("contamination")
    assert "none of 32 (en, de) is in evaluation prompts, heldout, untouched" in paragraph.text_content()
    assert paragraph.get("class") is None and "Not compared" not in paragraph.text_content()


def test_examples_are_capped_drawn_alike_and_counted(written, tmp_path):
    _, page = written
    rows = read_embedded(page, "rows")["examples"]
    linked = {name_linked(link) for link in page.xpath("//ul[@class='highlights']//a/@href")}
    cells = {}
    for row in rows:
        if (row["kind"], row["run"], row["language"], row["id"]) in linked:
            continue  # those of the first screens are shown whether they are drawn or not
        cells.setdefault((row["kind"], row["run"], row["language"]), []).append(row["id"])
    drawn = set(max(cells.values(), key=len))
    assert len(drawn) == 10 and all(drawn >= set(ids) and len(ids) >= 8 for ids in cells.values())
    of = len(prompts()) * sum(len(languages) for _, _, seed, languages in RUNS if seed == 1)
    text = " ".join(page.get_element_by_id("examples").text_content().split())
    pairs = sum(row["kind"] == "pair" for row in rows)
    assert f"{pairs} of {of} pairs and {len(rows) - pairs} of {of} answered prompts are shown" in text
    small = write_results(tmp_path / "small")
    fewer = read_embedded(parse(make_report(small, "--examples", 3)), "rows")["examples"]
    assert {row["id"] for row in fewer} < {row["id"] for row in rows}


def name_linked(link):
    """(kind, run, language, id) of the record that a link leads to."""
    query = parse_qs(link.partition("?")[2])
    return tuple(query[name][0] for name in ("kind", "run", "language", "id"))


def test_the_first_examples_are_chosen_by_a_rule_that_does_not_flatter(written):
    _, page = written
    first = page.xpath("//ul[@class='highlights']/li")
    pairs, answers = first[:3], first[3:]
    records = {
        (row["kind"], row["run"], row["language"], row["id"]): row for row in read_embedded(page, "rows")["examples"]
    }
    linked = [records[name_linked(item.xpath(".//a/@href")[0])] for item in first]
    assert [row["kind"] for row in linked] == ["pair"] * 3 + ["answer"] * 3
    # The margins of a language are 2.0 to 3.9: the middle one, and for want of a third language the first quartile.
    assert [(row["language"], row["id"]) for row in linked[:3]] == [("en", "p9"), ("de", "p9"), ("en", "p4")]
    assert [row["verdict"] for row in linked[3:]] == ["win", "loss", "tie"]
    assert len({row["language"] for row in linked[3:]}) == 2
    assert all("tuned first: " in item.text_content() and "base first: " in item.text_content() for item in answers)
    assert any("The judge: I prefer A" in item.text_content() for item in answers)
    assert all(item.xpath(".//dd/@dir") == ["auto", "auto"] for item in first)
    assert [[part.text for part in item.xpath(".//ins | .//del")] for item in pairs] == [["good", "bad"]] * 3
    rule = " ".join(page.xpath("string(//section[@id='overview'])").split())
    assert (
        "the pair with the median margin in each of the prompt languages with the most pairs, then quartiles of en"
        in rule
    )
    assert "Verdicts on all first samples: " in rule


@pytest.mark.parametrize(
    ("left", "right", "marked"),
    [
        ("the cat sat", "the dog sat", (["cat"], ["dog"])),
        ("same", "same", ([], [])),
        ("", "all new", ([], ["all new"])),
        ("我喜欢猫", "我喜欢狗", (["猫"], ["狗"])),
        ("أحب القطط كثيرا", "أحب الكلاب كثيرا", (["القطط"], ["الكلاب"])),
        ("a " * 500 + "x", "a " * 500 + "y", (["x"], ["y"])),
    ],
)
def test_differences_are_marked_by_word_and_shown_where_they_begin(left, right, marked):
    parts = mark_differences(left, right)
    assert tuple([part.text for part in side if part.differs] for side in parts) == marked
    assert all(len(side) < 10 for side in parts)


def test_without_a_judge_answers_are_shown_and_nothing_is_called_missing(tmp_path):
    root = write_results(tmp_path / "small")
    for folder in root.rglob("arena"):
        shutil.rmtree(folder)
    summary = pd.read_csv(root / "summary.csv")
    summary[summary["task"] != "arena"].to_csv(root / "summary.csv", index=False)
    page = parse(make_report(root, "--contrast", "dpo", "multi", "base", judged=False))
    answers = [row for row in read_embedded(page, "rows")["examples"] if row["kind"] == "answer"]
    assert answers and {row["verdict"] for row in answers} == {"not judged"}
    gaps = [gap.text_content() for gap in page.xpath("//div[@class='gap']")]
    assert not [gap for gap in gaps if "verdict" in gap or "win rate" in gap], gaps
    assert "No judge was asked for." in page.get_element_by_id("open-ended").text_content()
    assert "No judge: the answers have no verdicts" in page.xpath("string(//ul[@class='badges'])")
    said = page.get_element_by_id("open-ended").text_content() + page.get_element_by_id("examples").text_content()
    assert "judged in both orders" not in said and "with their verdicts" not in said
    header = read_table(page.get_element_by_id("leaderboard"))[0].keys()
    assert {"win rate", "95 % interval", "length-controlled", "n"}.isdisjoint(header) and "tasks" in header


def test_a_task_that_is_no_share_is_in_no_mean_of_the_leaderboard(tmp_path):
    """A grade from 0 to 10, beside exact matches."""
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    before = [line["tasks"] for line in read_table(parse(make_report(root)).get_element_by_id("leaderboard"))]
    grades = summary[summary["task"] == "heldout"].assign(task="a grade", metric="grade", value=7.3, baseline_value=6.1)
    pd.concat([grades.assign(delta=1.2), summary]).to_csv(root / "summary.csv", index=False)
    after = [line["tasks"] for line in read_table(parse(make_report(root)).get_element_by_id("leaderboard"))]
    assert before == after and any(re.fullmatch(r"[\d.]+", value) for value in before)


def test_a_mean_of_the_leaderboard_is_over_the_tasks_that_all_its_lines_have(tmp_path):
    """Of an arm with one more task, of one that lacks it, and of one in other languages; a task of another harness."""
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    heldout = summary[(summary["task"] == "heldout") & (summary["seed"] == 1)]
    multi = heldout[heldout["pool"] == "multi"]
    base = multi.assign(pool="untuned", setting="base", value=0.3, baseline=None)
    more = multi.assign(task="more", value=0.1)
    imported = heldout.assign(task="euroeval/scala-de", metric="acc", value=0.9)
    pd.concat([heldout, base, more, imported]).to_csv(root / "summary.csv", index=False)

    def read():
        table = read_table(parse(make_report(root)).get_element_by_id("leaderboard"))
        return {line["pool"]: line["tasks"] for line in table}

    own = dict(zip(heldout["pool"], heldout["value"].map(percent), strict=True))  # the last rows are over all languages
    assert read() == {**own, "untuned": "30.0"}
    pd.concat([heldout[heldout["pool"] == "en"], base, more, imported]).to_csv(root / "summary.csv", index=False)
    assert read() == {"en": own["en"], "multi": ABSENT, "untuned": ABSENT}


def test_results_of_another_harness_are_no_gap_and_shown(tmp_path):
    """Those of a single language have a table, and those over all languages a figure."""
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    heldout = summary[(summary["task"] == "heldout") & (summary["setting"] == "dpo") & (summary["pool"] == "multi")]
    single = heldout[heldout["eval_language"] == "de"].assign(task="euroeval/scala-de", metric="acc", value=0.75)
    every = heldout.assign(task="euroeval/all", metric="acc")
    pd.concat([summary, single, every]).to_csv(root / "summary.csv", index=False)
    section = parse(make_report(root)).get_element_by_id("structured")
    assert not section.xpath(".//*[@class='gap']")
    (table,) = section.xpath(".//table[normalize-space(caption) = 'Results of other harnesses']")
    assert [(line["task"], line["language"], line["run"], line["value"]) for line in read_table(table)] == [
        ("euroeval/scala-de", "de", "multi/dpo", "75.0 %")
    ]
    assert any("on euroeval/all" in text.text_content() for text in section.xpath(".//figcaption"))


def test_the_base_has_one_value_only_where_all_runs_are_compared_with_it(tmp_path):
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    for values, said in (([0.25, 0.25], "The base has 25 %, languages pooled."), ([0.25, 0.5], "of each run.")):
        for pool, value in zip(("en", "multi"), values, strict=True):
            summary.loc[(summary["metric"] == "exact_match") & (summary["pool"] == pool), "baseline_value"] = value
            summary.loc[(summary["metric"] == "language_fidelity") & (summary["pool"] == pool), "baseline_value"] = (
                value
            )
        summary.to_csv(root / "summary.csv", index=False)
        page = parse(make_report(root))
        assert page.xpath("string(//figure[@id='figure-task-0']/figcaption)").endswith(said)
        assert {line["base"] for line in read_figure(page, "task-0")} == {percent(value) + " %" for value in values}
        titles = page.xpath("//figure[@id='figure-fidelity-changes']//*[@class='chart-title']/text()")
        assert ("base 25 %" in titles[0]) == (values[0] == values[1])


def test_arms_and_seeds_without_results_are_named(tmp_path):
    root = write_results(tmp_path / "small")
    shutil.rmtree(root / "mini/en/dpo/checkpoint")
    summary = pd.read_csv(root / "summary.csv")
    missing = (summary["pool"] == "en") | (summary["setting"] == "dpo.s2")
    summary[~missing].to_csv(root / "summary.csv", index=False)
    page = parse(make_report(root, "--partial"))
    unmeasured = " ".join(page.get_element_by_id("unmeasured").text_content().split())
    assert unmeasured == "Arms without a result (1): mini/en/dpo."
    assert [line["seeds"] for line in read_table(page.get_element_by_id("leaderboard"))] == ["1 of 2"]
    assert "One training seed" in page.xpath("string(//ul[@class='badges'])")
    gaps = " ".join(page.get_element_by_id("overview").text_content().split())
    assert "Training: trainings (1 file)" in gaps


@pytest.mark.parametrize(("unjudged", "seeds"), [(["dpo.s2"], "1 of 2"), (["dpo", "dpo.s2"], "2")])
def test_the_seeds_of_the_leaderboard_are_those_of_the_win_rate(tmp_path, unjudged, seeds):
    """The second seed has no verdicts, or no arm has any."""
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    gone = (summary["task"] == "arena") & summary["setting"].isin(unjudged)
    summary[~gone].to_csv(root / "summary.csv", index=False)
    page = parse(make_report(root, "--partial"))
    lines = {line["pool"]: line["seeds"] for line in read_table(page.get_element_by_id("leaderboard"))}
    assert lines["multi"] == seeds
    assert ("One training seed" in page.xpath("string(//ul[@class='badges'])")) == (seeds != "2")


def test_without_all_training_seeds_the_value_is_that_of_one(tmp_path, monkeypatch):
    """Two of three seeds have results: the summary makes no mean over them."""
    root = write_results(tmp_path / "small")
    monkeypatch.setattr(pages, "RUNS", (*pages.RUNS, ("multi", "dpo.s3", 3, pages.LANGUAGES)))
    page = parse(make_report(root, "--partial", seeds=3))
    lines = {line["pool"]: line["seeds"] for line in read_table(page.get_element_by_id("leaderboard"))}
    assert lines["multi"] == "1 of 3" and "One training seed" in page.xpath("string(//ul[@class='badges'])")


def test_one_training_seed_of_the_main_arm_is_a_caveat_whatever_others_have(tmp_path):
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    summary[(summary["pool"] == "en") | (summary["task"] != "arena")].to_csv(root / "summary.csv", index=False)
    page = parse(make_report(root))
    assert [line["seeds"] for line in read_table(page.get_element_by_id("leaderboard"))] == ["2", "1"]
    assert "tuned on en wins" in page.xpath("string(//p[@class='headline'])")
    assert "One training seed" in page.xpath("string(//ul[@class='badges'])")


def test_an_arm_of_which_only_a_later_seed_is_finished_is_on_the_page(tmp_path):
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    summary[(summary["pool"] != "multi") | (summary["setting"] == "dpo.s2")].to_csv(root / "summary.csv", index=False)
    page = parse(make_report(root, "--partial"))
    for figure in ("wins-by-language", "variants"):
        assert [line["run"] for line in read_figure(page, figure)] == ["en/dpo", "multi/dpo"], figure
    assert {line["run"] for line in read_figure(page, "reward-judge")} == {"en/dpo", "multi/dpo"}


def test_the_page_shows_how_often_reward_and_judge_agree(tmp_path):
    root = write_results(tmp_path / "small")
    summary = pd.read_csv(root / "summary.csv")
    agreement = summary[summary["metric"] == "win_rate"].assign(
        metric="reward_judge_agreement", value=0.839, baseline="chance"
    )
    pd.concat([summary, agreement]).to_csv(root / "summary.csv", index=False)
    lines = read_figure(parse(make_report(root)), "variants")
    assert lines and {line["agrees with the reward"] for line in lines} == {"83.9 %"}


def test_long_texts_of_tables_have_wide_columns(tmp_path):
    root = write_results(tmp_path / "small")
    advice = "in 81% of the pairs mean - 2 sd picked the minimum, as the rule min would have; take more samples"
    edit_ledgers(root, advice=advice)
    page = parse(make_report(root))
    cells = page.xpath(f"//figure[@id='figure-prompts']//td[text()='{advice}']")
    assert cells and {cell.get("class") for cell in cells} == {"wordy"}


def test_texts_cannot_break_out_of_the_page(written):
    root, page = written
    everything = read_embedded(parse(make_report(root, "--examples", 20)), "rows")["examples"]
    assert any(row["left"] == HOSTILE for row in everything)
    assert not page.xpath("//img") and len(page.xpath("//script")) == 4


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_embedded_json_is_whole_and_ends_no_element(value):
    text = embed(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


GONE = [
    ("summary.csv", "overview", "summary.csv"),
    ("mini/multi/dpo/ledger.json", "data", "mini/multi/dpo/ledger.json"),
    ("mini/en/scores/english.jsonl", "rewards", "scores/english.jsonl"),
    ("audit", "rewards", ".venv/bin/snakemake --cores 2 audit"),
    ("mini/en/dpo/checkpoint", "training", "mini/en/dpo/checkpoint/manifest.json"),
    ("mini/multi/dpo/fidelity", "fidelity", "mini/multi/dpo/fidelity/en.jsonl"),
    ("findings.json", "findings", "findings.json"),
    ("mini/multi/dpo/arena", "examples", "mini/multi/dpo/arena/en.jsonl"),
]


@pytest.fixture(scope="module")
def gappy(tmp_path_factory):
    """The page of results of which something of every kind is gone."""
    root = write_results(tmp_path_factory.mktemp("gappy") / "small")
    for name, _, _ in GONE:
        shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()
    return parse(make_report(root))


@pytest.mark.parametrize(("missing", "section", "said"), GONE)
def test_each_missing_input_is_a_marked_gap(gappy, missing, section, said):
    gaps = gappy.xpath(f"//section[@id='{section}']//*[@class='gap']")
    assert any(said in gap.text_content() and ".venv/bin/snakemake" in gap.text_content() for gap in gaps)
    assert f"#{section}" in gappy.xpath("//section[@id='overview']//li/a/@href") or section == "overview"


def test_what_is_there_is_shown_beside_the_gaps(gappy):
    assert gappy.xpath("//main/section/@id") == SECTIONS
    assert "Some inputs of this page are missing" in gappy.get_element_by_id("claims").text_content()
    assert [line["run"] for line in read_figure(gappy, "prompts")] == ["mini/en/dpo"]
    assert {line["run"] for line in read_table(gappy.xpath("//figure[@id='figure-curves']//table")[0])} == {
        "mini/multi/dpo"
    }


def test_nothing_at_all_still_makes_a_page(tmp_path):
    (tmp_path / "empty").mkdir()
    page = parse(make_report(tmp_path / "empty"))
    assert len(page.xpath("//*[@class='gap']")) >= 8
    assert "Nothing was measured." in (tmp_path / "empty" / "win_rates.svg").read_text(encoding="utf-8")


def test_where_no_prompt_was_lost_the_ledger_is_a_sentence(tmp_path):
    root = write_results(tmp_path / "small")
    for path in root.rglob("ledger.json"):
        ledger = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(ledger | {"formed": ledger["prompts"], "no_pair": {}}), encoding="utf-8")
    page = parse(make_report(root))
    said = "Each prompt of each run became training data."
    assert said in page.get_element_by_id("data").text_content()
    assert said in (root / "ledger.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "parts"), [("win_rates", 30), ("structured", 30), ("ledger", 2)])
def test_key_plots_stand_alone(results, name, parts):
    root = ElementTree.parse(results / f"{name}.svg").getroot()
    assert root.tag.endswith("svg") and len(list(root.iter())) > parts  # equal bars of the ledger are a sentence
    assert "Nothing was measured" not in (results / f"{name}.svg").read_text(encoding="utf-8")
    assert "var(--" not in (results / f"{name}.svg").read_text(encoding="utf-8")


def test_page_is_the_same_whenever_it_is_made(written):
    root, _ = written
    make_report(root)
    before = (root / "report.html").read_bytes(), (root / "win_rates.svg").read_bytes()
    make_report(root)
    assert ((root / "report.html").read_bytes(), (root / "win_rates.svg").read_bytes()) == before


def test_key_plots_are_in_snakemakes_own_report(finished_run, tmp_path):
    snakemake(finished_run, *SMALL, "--report", tmp_path / "own.html")
    text = (tmp_path / "own.html").read_text(encoding="utf-8")
    for name in ("win_rates.svg", "structured.svg", "ledger.svg", "report.html"):
        assert name in text
    assert "Key plots" in text and "Ties count a half" in text


def test_partial_results_make_a_page_and_no_other_job(finished_run, tmp_path):
    """In a copy of the finished project of which parts are gone, or would be made again."""
    project = tmp_path / "project"
    shutil.copytree(finished_run, project, symlinks=True)
    small = project / "results" / "small"
    shutil.rmtree(small / "mini" / "en" / "dpo" / "arena")
    shutil.rmtree(small / "mini" / "de" / "dpo" / "eval")
    (small / "mini" / "de" / "generations.jsonl").write_text("changed\n", encoding="utf-8")
    arguments = (*SMALL, "--config", "partial=true")
    jobs = planned(project, *arguments)
    assert set(jobs) <= {"all", "summarise", "check_findings", "write_report"}
    snakemake(project, "--cores", 2, *arguments)
    page = parse(small / "partial" / "report.html")
    assert "Not finished." in page.text_content()
    assert "mini/en/dpo/arena/en.jsonl" in page.get_element_by_id("examples").text_content()
    with open(small / "partial" / "summary.csv", encoding="utf-8") as file:
        assert {row["setting"] for row in csv.DictReader(file)} >= {"base", "dpo_random"}
    assert planned(project, *arguments) == {}


def test_a_finished_run_has_its_audit_and_no_gap(finished_run, page):
    """The target all makes the audit that finding F1 reads, so that the target audit has nothing left to do."""
    assert not page.xpath("//div[@class='gap']") and page.xpath("//figure[@id='figure-audit']")
    contrasts = [
        row["contrast"] for row in read_table(page.get_element_by_id("findings-table")) if row["finding"] == "F1"
    ]
    assert contrasts == ["reward model english", "rewards - verdicts, monolingual/dpo"]
    assert not planned(finished_run, *SMALL) and not planned(finished_run, "audit", *SMALL)


def test_help_needs_no_library_of_plots():
    assert "--examples" in script("report", "--help").stdout


def test_terms_have_a_tooltip_at_their_first_use_in_a_section(written):
    source = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8")
    page = written[1]
    terms = page.xpath("//section[@id='glossary']//dt")
    assert len(terms) == sum(line.startswith("| ") for line in source.splitlines()) - 1
    for section in page.xpath("//main/section"):
        marked = [term.text_content().lower().removesuffix("s") for term in section.xpath(".//dfn")]
        assert len(marked) == len(set(marked))
    margin = page.xpath("//section[@id='training']//dfn[. = 'margin']")[0]
    assert margin.get("tabindex") == "0" and f"| margin | {margin.get('data-meaning')} |" in source
    assert not page.xpath("//*[self::a or self::button or self::tbody or self::ul]//dfn")
    heads = page.xpath("//table[@id='leaderboard']/thead//dfn")
    assert [term.text_content() for term in heads] == ["arm", "pool", "length-controlled"]
    assert not page.xpath("//details[@class='numbers']//dfn"), "a term in a fold would be hidden"


def test_a_run_has_one_look_in_all_charts_and_the_main_arm_is_emphasised(written):
    plots = read_embedded(written[1], "plots")
    curves = plots["curves"][0]["layer"][1]["encoding"]["shape"]["scale"]
    forest = plots["win-rates"][0]["layer"][-1]["encoding"]["shape"]["scale"]
    looks = [dict(zip(scale["domain"], scale["range"], strict=True)) for scale in (curves, forest)]
    assert {name.removeprefix("mini/"): shape for name, shape in looks[0].items()} == looks[1]
    assert len(set(looks[1].values())) == len(looks[1]) > 1
    main = plots["win-rates"][0]["layer"][-1]["encoding"]["fill"]["condition"]["test"]
    assert '"multi/dpo"' in main and '"en/dpo"' not in main


def test_legends_of_curves_are_lines_and_no_label_is_cut(written):
    """Columns and the limit of labels depend on the width of the place, which the page sets."""
    specification = read_embedded(written[1], "plots")["curves"][0]
    lines, markers = specification["layer"][:2]
    legend = lines["encoding"]["strokeDash"]["legend"]
    assert legend["symbolType"] == "stroke" and "space" in legend["columns"]["expr"] + legend["labelLimit"]["expr"]
    assert markers["encoding"]["shape"]["legend"] is None
    assert "space" in {param["name"] for param in specification["params"]}


def test_axes_name_their_units(written):
    plots = read_embedded(written[1], "plots")
    assert "Win rate against the base (%)" in json.dumps(plots["win-rates"])
    assert "Training step" in json.dumps(plots["curves"]) and "Reward (logits)" in json.dumps(plots["rewards-0"])


@pytest.mark.parametrize(
    ("rows", "length"),
    [
        ([{"value": 2.0}, {"value": 2.0}], 2.0),
        ([{"value": 2.0}, {"value": 3.0}], None),
    ],
)
def test_equal_bars_have_a_common_length(rows, length):
    assert find_common_length(rows) == length
