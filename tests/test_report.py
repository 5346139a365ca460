"""The report page: parsed, and held against the summary it was made from."""

import csv
import re
from xml.etree import ElementTree

import pytest
from lxml import html


@pytest.fixture(scope="module")
def results(finished_run):
    return finished_run / "results" / "small"


@pytest.fixture(scope="module")
def page(results):
    return html.fromstring((results / "report.html").read_text(encoding="utf-8"))


def test_page_is_one_file_that_needs_no_network(results, page):
    assert not page.xpath("//script | //link | //iframe | //img[not(starts-with(@src, 'data:'))]")
    links = {*page.xpath("//*/@href"), *page.xpath("//*/@*[local-name()='href']")}
    assert all(link.startswith("#") for link in links)
    assert "@import" not in (results / "report.html").read_text(encoding="utf-8")


def test_page_has_all_its_parts(page):
    assert [heading.get("id") for heading in page.xpath("//h2")] == ["contrasts", "wins", "tasks", "rewards", "languages", "training", "ledger", "claims"]  # fmt: skip
    for link in page.xpath("//nav/a/@href"):
        assert page.xpath(f"//*[@id='{link[1:]}']")
    assert len(page.xpath("//figure[.//*[local-name()='svg']]")) == 7, (
        "wins, two tasks, two kinds of pools, languages, training"
    )
    assert "This is the miniature." in page.text_content()


def test_numbers_are_those_of_the_summary(results, page):
    with open(results / "summary.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    contrast = next(row for row in table if row["p_adjusted"])
    cells = [cell.text_content().strip() for cell in page.xpath("//h2[@id='contrasts']/following::table[1]//tr[2]/td")]
    assert cells[3] == f"{float(contrast['value']):.3f}"
    assert cells[4] == f"{float(contrast['ci_low']):.3f} to {float(contrast['ci_high']):.3f}"
    wins = {
        (row["language"], row["setting"], row["eval_language"]): row["value"]
        for row in table
        if row["metric"] == "win_rate"
    }
    shown = page.xpath("//h2[@id='wins']/following::table[1]")[0]
    header = [cell.text_content() for cell in shown.xpath(".//thead//th")][1:]
    for line in shown.xpath(".//tbody/tr"):
        _, pool, setting = line.xpath("./th")[0].text_content().split("/")
        for code, cell in zip(header, line.xpath("./td"), strict=True):
            if cell.text_content():
                assert cell.text_content() == f"{float(wins[pool, setting, code]):.3f}"


def test_ledger_adds_up_on_the_page(page):
    table = page.xpath("//h2[@id='ledger']/following::table[1]")[0]
    names = [cell.text_content() for cell in table.xpath(".//th")]
    for line in table.xpath(".//tr[td]"):
        cells = dict(zip(names, (cell.text_content() for cell in line.xpath("./td")), strict=True))
        missing = sum(map(int, re.findall(r" (\d+)", cells["not formed"])))
        assert int(cells["prompts"]) == int(cells["formed"]) + missing


def test_plot_of_win_rates_stands_alone(results):
    root = ElementTree.parse(results / "win_rates.svg").getroot()
    assert root.tag.endswith("svg") and len(list(root.iter())) > 50
