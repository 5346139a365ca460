"""The report page in a real Chromium: offline, searched, filtered, in both themes, on a phone, and accessible."""

import csv
import json
import os
import re
import shutil
from itertools import pairwise

import pytest
import yaml
from conftest import script
from pages import make_report, write_finished
from test_preview import make_run, preview

from croco.results.table import read_summary
from croco.spreadsheets import guard, read_csv

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
# Clicks and keys have effects in later tasks of the page: what they change is waited for, by `expect` and the two below.
ALL_DRAWN = "[...document.querySelectorAll('.plot')].every((p) => p.dataset.drawn === 'yes')"
ALL_FILLED = "[...document.querySelectorAll('details')].every((d) => d.open && d.childElementCount > 1)"
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: install one, or name it in CHROMIUM"
)
# Of every element with text of its own: [contrast of its colour on its background, size in px, weight, text].
CONTRASTS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const background = (element) => {
    for (; element; element = element.parentElement) {
      const found = rgb(getComputedStyle(element).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *:not(script, style, option)")) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
    if (!text || !element.checkVisibility() || element.closest(".skip")) continue;
    const style = getComputedStyle(element);
    const ground = background(element.ownerSVGElement?.parentElement ?? element);
    const pair = [light(rgb(element.ownerSVGElement ? style.fill : style.color)), light(ground)].sort((a, b) => b - a);
    found.push([(pair[0] + 0.05) / (pair[1] + 0.05), text.slice(0, 40)]);
  }
  return found;
}"""

# The values in the CSV of the cells that the page shows in per cent or in points.
SHARES = r"""(table) => [...table.querySelectorAll('tbody td')]
  .filter((cell) => /^[-+]?[0-9.]+ (%|points)( to |,|$)/.test(cell.textContent.trim()))
  .flatMap((cell) => csvValues(cell)).flatMap((value) => String(value ?? '').split(', ')).filter((value) => value !== '')"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page of small results whose texts try to break out of it."""
    root = write_finished(tmp_path_factory.mktemp("browser") / "small")
    return make_report(root)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """A page of scripts/compare.py."""
    folder = tmp_path_factory.mktemp("comparison")
    roots = [write_finished(folder / "one"), write_finished(folder / "other", seed=1)]
    (roots[1] / "summary.csv").unlink()
    script("compare", *roots, "--output", folder / "comparison")
    return folder / "comparison" / "compare.html"


@pytest.fixture(scope="module")
def previewed(tmp_path_factory):
    """A page of scripts/preview.py."""
    folder = tmp_path_factory.mktemp("preview")
    preview(folder, make_run(folder), "--count", 12)
    return folder / "page.html"


@pytest.fixture(scope="module")
def audited(finished_run):
    """The page of an audit."""
    return finished_run / "results" / "small" / "audit" / "english.html"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, report):
    """A function that opens the page from its file and draws all plots; at the end nothing may have been said or asked."""
    contexts, said, asked = [], [], []

    def open_page(scheme="light", width=1280, height=900):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        page.wait_for_function(ALL_DRAWN)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert {url.partition("#")[0] for url in asked if not url.startswith(("data:", "blob:file:"))} == {report.as_uri()}


def open_everything(page):
    """Open all that folds, and wait until it is filled."""
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.wait_for_function(ALL_FILLED)


def check_structure(page):
    """Headings, landmarks, names of controls, heads of tables and ids are as a screen reader needs them."""
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.locator("main").count() == 1 and page.locator("nav[aria-label]").count() == 1
    assert page.evaluate("document.documentElement.lang") == "en"
    unnamed = "[...document.querySelectorAll('input, select')].filter((e) => !e.labels.length && !e.ariaLabel).length"
    assert page.evaluate(unnamed) == 0
    assert page.evaluate("[...document.querySelectorAll('th')].filter((h) => !h.scope).length") == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def list_violations(page):
    """What axe-core finds wrong on the page: [rule, element, what is wrong]; skips the test without axe-core."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed: run make env"
    )
    violations = axe.Axe().run(page).response["violations"]
    return [
        [rule["id"], node["html"][:200], node.get("failureSummary", "")]
        for rule in violations
        for node in rule["nodes"]
    ]


def test_every_plot_is_drawn_with_its_text_and_numbers(open_page):
    page = open_page()
    figures = page.locator("figure").all()
    assert len(figures) >= 6
    for figure in figures:
        assert len(figure.locator("[role=img]").get_attribute("aria-label")) > 30
        assert figure.locator("svg").count() == figure.locator(".plot").count()
        assert figure.locator("details.numbers td").count()


def test_search_and_filters_find_the_example(open_page):
    page = open_page()
    records, status = page.locator("#search-records > li"), page.locator("#search-status")
    every = int(status.inner_text().split()[0])
    page.get_by_label("Search in the texts").fill("</SCRIPT> needle")
    expect(records).to_have_count(1)
    expect(status).to_have_text(f"1 of {every} fits.")
    records.first.locator("summary").click()
    needle = "</script><script>alert('needle')</script><img src=x onerror=alert(1)>"
    expect(records.first.locator(".text").filter(has_text=needle).first).to_be_visible()
    assert page.locator("#search-records script, #search-records img").count() == 0
    page.get_by_label("Search in the texts").fill("no such words anywhere")
    expect(records).to_have_count(0)
    page.get_by_label("Search in the texts").fill("")
    page.locator("#search [name=kind]").select_option("answer")
    expect(status).not_to_have_text(re.compile(f"^(0|{every}) of "))
    answers = int(status.inner_text().split()[0])
    page.locator("#search [name=verdict]").select_option("loss")
    expect(status).not_to_have_text(re.compile(f"^{answers} of "))
    losses = int(status.inner_text().split()[0])
    assert 0 < losses < answers < every
    page.locator("#search [name=language]").select_option("de")
    expect(status).not_to_have_text(re.compile(f"^{losses} of "))
    languages = records.locator("summary .tag:last-child").all_inner_texts()
    assert languages and all("de" in text for text in languages)


def test_examples_are_on_the_first_two_screens_and_lead_to_their_records(open_page):
    page = open_page(height=800)
    cards = page.locator(".highlights > li")
    assert cards.count() == 6
    ends = cards.evaluate_all("cards => cards.map((card) => card.getBoundingClientRect().bottom + scrollY)")
    assert max(ends) <= 2 * 800
    assert page.locator("#doubts").evaluate("(e) => e.getBoundingClientRect().bottom + scrollY") <= 800
    style = "(e) => getComputedStyle(e).textDecorationLine"
    assert page.locator(".highlights ins").first.evaluate(style) == "underline"
    assert page.locator(".highlights del").first.evaluate(style) == "line-through"
    for card in (cards.first, cards.last):
        link = card.locator("a")
        kind = "Chosen" if "pair" in link.inner_text() else "Tuned"
        link.click()
        record = page.locator("#search-records details[open]")
        expect(record).to_have_count(1)
        expect(record.locator(".text-title", has_text=kind)).to_be_visible()


def test_more_examples_are_shown_on_demand(open_page):
    page = open_page()
    records = page.locator("#search-records > li")
    expect(records).to_have_count(25)
    page.locator("#search-more").click()
    expect(records.nth(25)).to_be_visible()


def test_manifests_are_filtered_and_opened(open_page):
    page = open_page()
    page.locator("#manifests [name=stage]").select_option("train")
    rows = page.locator("#manifests-records > li")
    expect(rows).to_have_count(3)
    rows.first.locator("summary").click()
    expect(rows.first).to_contain_text("uncommitted changes")
    expect(rows.first).to_contain_text("input data")


def test_a_selection_changes_the_plot(open_page):
    page = open_page()
    before = page.locator("#figure-confusion svg").inner_html()
    page.locator("#choose-confusion").select_option(index=1)
    page.wait_for_function(
        "(before) => document.querySelector('#figure-confusion svg').innerHTML !== before", arg=before
    )


def test_a_link_opens_the_closed_section_of_its_target(open_page):
    page = open_page(width=390, height=844)
    fold = page.locator("#findings > details")
    fold.locator("> summary").click(position={"x": 3, "y": 10})
    expect(fold).not_to_have_attribute("open", "")
    page.evaluate("location.hash = document.querySelector('.card').id")
    expect(fold).to_have_attribute("open", "")
    expect(page.locator(".card").first).to_be_in_viewport()


def test_on_a_phone_only_boxes_that_scroll_are_wider_than_the_window(open_page):
    page = open_page(width=390, height=844)
    open_everything(page)
    wider = """[...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.ownerSVGElement && !e.closest('.skip, .wide, .broad .charts')
      && e.getBoundingClientRect().right > innerWidth + 1).map((e) => `${e.tagName} ${e.className}`)"""
    assert page.evaluate(wider) == []


def test_paper_shows_every_row_and_no_controls(open_page):
    page = open_page(width=710)
    page.emulate_media(media="print")
    cells = """[...document.querySelectorAll('main :is(td, th)')].filter((e) => !e.closest('.records'))
      .filter((e) => !e.checkVisibility({ contentVisibilityAuto: true }) || e.getBoundingClientRect().right > innerWidth + 1
        || !e.getBoundingClientRect().height).map((e) => e.textContent)"""
    page.evaluate("document.querySelectorAll('.numbers').forEach((fold) => { fold.open = true; })")
    assert page.evaluate(cells) == []
    clipped = """[...document.querySelectorAll('main *')].filter((e) => e.checkVisibility() && !e.ownerSVGElement
      && getComputedStyle(e).overflowX !== 'visible' && e.scrollWidth > e.clientWidth + 1).map((e) => e.className)"""
    assert page.evaluate(clipped) == []
    assert page.locator("nav, .filters, .download, .records").evaluate_all(
        "(all) => all.every((e) => !e.checkVisibility())"
    )


def test_tables_on_paper_have_type_of_seven_points_at_least(open_page):
    page = open_page()
    page.emulate_media(media="print")
    page.evaluate("document.querySelectorAll('.numbers').forEach((fold) => { fold.open = true; })")
    sizes = "[...document.querySelectorAll('main :is(th, td, td *)')].map((e) => 0.75 * parseFloat(getComputedStyle(e).fontSize))"
    assert min(page.evaluate(sizes)) >= 6.99


def test_the_page_prints_to_few_pages_with_everything_open(open_page):
    page = open_page("dark")
    page.evaluate("document.querySelectorAll('.section').forEach((fold) => { fold.open = false; })")
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4", prefer_css_page_size=True)))
    assert 3 <= pages <= 8
    assert page.locator(".section[open]").count() == 0, "what was closed is closed again"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme_follows_the_system_and_the_button(open_page, scheme):
    page = open_page(scheme)
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    labels = "[...document.querySelectorAll('figure svg text')].map((t) => t.getAttribute('fill')).join()"
    drawn = page.evaluate(labels)
    page.locator("#theme").click()
    assert page.evaluate(ground) != before
    page.wait_for_function(ALL_DRAWN)
    assert page.evaluate(labels) != drawn, "the plots keep the other theme's colours"
    page.reload()
    assert page.evaluate(ground) != before, "the choice is forgotten"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(open_page, scheme):
    page = open_page(scheme)
    open_everything(page)
    found = page.evaluate(CONTRASTS)
    assert len(found) > 300
    assert [entry for entry in found if entry[0] < 4.5] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_report(open_page, scheme):
    page = open_page(scheme)
    open_everything(page)
    assert list_violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["comparison", "previewed", "audited"])
def test_axe_finds_nothing_on_the_other_pages(request, browser, name, scheme):
    page = browser.new_page(color_scheme=scheme)
    page.goto(request.getfixturevalue(name).as_uri())
    violations = list_violations(page)
    page.close()
    assert violations == []


@pytest.mark.parametrize("width", [375, 768, 1280])
def test_nothing_makes_the_page_scroll_sideways(open_page, width):
    page = open_page(width=width, height=800)
    open_everything(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_keyboard_reaches_the_content_and_the_controls(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] > 0
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'main'")
    page.locator("#search-records summary").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#search-records details").first).to_have_attribute("open", "")
    expect(page.locator("#search-records details").first.locator(".text").first).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "permalink"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "text", "long texts scroll by key"


def test_everything_that_scrolls_sideways_on_a_phone_is_reached_by_key(open_page):
    page = open_page(width=390, height=844)
    open_everything(page)
    unreachable = """[...document.querySelectorAll('main *')].filter((e) => e.scrollWidth > e.clientWidth + 1
      && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && e.tabIndex < 0).map((e) => e.className)"""
    assert page.evaluate(unreachable) == []
    assert page.locator(".broad .charts").evaluate_all("(parts) => parts.every((e) => e.scrollWidth > e.clientWidth)")


def test_structure_is_announced(open_page):
    page = open_page()
    check_structure(page)


@pytest.mark.parametrize("width", [390, 1280])
def test_links_of_the_contents_land_at_their_headings(browser, report, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(report.as_uri())
    page.evaluate("document.getElementById('contents').open = true")
    for link in page.locator(".side li a").all():
        name = link.get_attribute("href")
        link.click()
        page.wait_for_function(
            """(name) => {
              const top = document.querySelector(`${name} h2`).getBoundingClientRect().top;
              const atEnd = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
              return (top >= -2 && top < innerHeight / 3) || atEnd;
            }""",
            arg=name,
        )
        expect(page.locator(".side [aria-current]")).to_have_count(1)
        expect(page.locator(".side [aria-current]")).to_have_attribute("href", name)
        page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
    page.close()


def download(page, button):
    """The path of the file that a button saves, and its name."""
    page.wait_for_timeout(120)  # Chromium drops downloads beyond ten per second
    with page.expect_download() as caught:
        button.click()
    return caught.value.path(), caught.value.suggested_filename


def test_every_table_is_a_csv_file_with_raw_values(open_page):
    page = open_page()
    open_everything(page)
    tables, buttons = page.locator("main .wide > table"), page.get_by_role("button", name=re.compile("^CSV of "))
    assert buttons.count() == tables.count() > 8
    saved = []
    for table, button in zip(tables.all(), buttons.all(), strict=True):
        path, name = download(page, button)
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        assert name.startswith("small-") and name.endswith(".csv")
        assert len(rows) == table.locator("tr").count() and len({len(row) for row in rows}) == 1
        shares = table.evaluate(SHARES)
        assert all(-1 <= float(value) <= 1 for value in shares), "files have shares, not per cent"
        saved.append(name)
    assert "small-leaderboard.csv" in saved and "small-findings-table.csv" in saved


@pytest.mark.parametrize("width", [390, 1280])
def test_a_term_in_the_head_of_a_table_has_its_tooltip_in_the_window(open_page, width):
    page = open_page(width=width)
    term = page.locator("#leaderboard thead dfn", has_text="length-controlled")
    before = page.locator("#leaderboard").bounding_box()
    term.hover()
    style = "(term) => { const { content, position, top, left } = getComputedStyle(term, '::after'); return [content, position, parseFloat(top), parseFloat(left)]; }"
    content, position, top, left = term.evaluate(style)
    assert "equal length" in content and position == "fixed"
    assert 0 < top < 900 and 0 < left < width
    after = page.locator("#leaderboard").bounding_box()
    assert (after["width"], after["height"]) == (before["width"], before["height"])
    assert "equal length" in page.get_by_role("button", name="length-controlled").get_attribute("aria-description")


def test_the_config_is_a_file_and_a_text_to_copy(open_page, report):
    page = open_page()
    start = json.loads((report.parent / ".snakemake" / "start.json").read_text(encoding="utf-8"))
    path, name = download(page, page.get_by_role("button", name="YAML of the config"))
    assert name == "small-config.yaml" and yaml.safe_load(path.read_text(encoding="utf-8")) == start["config"]
    page.get_by_role("button", name="Copy of the config").click()
    expect(page.locator("#copied")).to_have_text(re.compile("Config copied|The config is selected"))


def test_the_csv_of_the_leaderboard_has_the_numbers_of_the_summary(open_page, report):
    page = open_page()
    path, _ = download(page, page.get_by_role("button", name="CSV of the table leaderboard"))
    lines = read_csv(path)
    wins = read_summary(report.parent / "summary.csv").query("metric == 'win_rate' and eval_language == 'all'")
    for line in lines.to_dict("records"):
        row = wins[(wins["pool"] == line["pool"]) & (wins["setting"] == line["setting"])].iloc[0]
        assert (line["win_rate"], line["low"]) == (row["value"], row["value_low"])
    assert set(lines["setting"]) == {"dpo"}


@pytest.mark.parametrize("text", ["=1+1", " +cmd", "-1", "-1e-3", "-a", "@x", "\uff1d1", "\tx", "'=1", "'a", "a", "+"])
def test_the_page_neutralises_formulas_as_the_files_do(open_page, text):
    assert open_page().evaluate("(text) => guard(text)", text) == guard(text)


def test_every_chart_is_an_svg_and_a_png_file(open_page):
    page = open_page("dark")
    for figure in page.locator("figure").all():
        charts = figure.locator(".plot").count()
        for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
            buttons = figure.get_by_role("button", name=re.compile(f"^{kind} of "))
            assert buttons.count() == charts
            path, name = download(page, buttons.last)
            key = figure.get_attribute("id").removeprefix("figure-")
            assert name.startswith(f"small-{key}") and name.endswith(f".{kind.lower()}")
            assert path.read_bytes().startswith(start) and path.stat().st_size > 1000


def test_a_chart_that_is_not_drawn_yet_can_be_saved(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    button = page.locator("figure").last.get_by_role("button", name=re.compile("^SVG of ")).first
    with page.expect_download() as caught:
        button.evaluate("(button) => button.click()")
    assert caught.value.path().read_bytes().startswith(b"<svg")
    page.close()


def test_a_link_to_a_selection_restores_it_and_back_undoes_it(open_page):
    page = open_page()
    status = page.locator("#search-status")
    everything = status.inner_text()
    page.locator("#search [name=kind]").select_option("answer")
    expect(status).not_to_have_text(everything)
    answers = status.inner_text()
    page.locator("#search [name=verdict]").select_option("loss")
    expect(status).not_to_have_text(answers)
    losses, address = status.inner_text(), page.url
    page.go_back()
    expect(status).to_have_text(answers)
    page.go_back()
    expect(status).to_have_text(everything)
    page.goto("about:blank")
    page.goto(address)
    expect(status).to_have_text(losses)
    expect(page.locator("#search [name=kind]")).to_have_value("answer")
    expect(page.locator("#search")).to_be_in_viewport()


@pytest.mark.parametrize("place", ["search", "manifests"])
def test_a_record_has_a_link_that_the_keyboard_copies(open_page, place):
    page = open_page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(f"#{place}-more").click() if page.locator(f"#{place}-more").is_visible() else None
    record = page.locator(f"#{place}-records > li").last
    status = page.locator(f"#{place}-status").inner_text()
    label = record.locator("summary").inner_text()
    record.locator("summary").click()
    record.locator("a.permalink").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#copied")).to_have_text("Link copied.")
    expect(page.locator(f"#{place}-status")).to_have_text(status)
    link = page.evaluate("navigator.clipboard.readText()")
    page.goto("about:blank")
    page.goto(link)
    opened = page.locator(f"#{place}-records details[open]")
    expect(opened).to_have_count(1)
    expect(opened.locator("summary")).to_have_text(re.compile(re.escape(label.split("\n")[0])))
    expect(opened.locator("summary")).to_be_in_viewport()
    expect(opened.locator("summary")).to_be_focused()


def test_sections_cards_figures_and_the_sorted_table_have_links(open_page):
    page = open_page()
    links = page.locator("main a.permalink").evaluate_all("(links) => links.map((link) => link.getAttribute('href'))")
    ids = page.locator("main > section, .card, figure").evaluate_all("(parts) => parts.map((part) => `#${part.id}`)")
    assert set(ids) <= set(links)
    page.locator("#leaderboard th button", has_text="win rate").click()
    page.goto("about:blank")
    page.go_back()
    expect(page.locator("#leaderboard th").nth(2)).to_have_attribute("aria-sort", "descending")
    link = page.get_by_role("link", name="Link to this table in this order").get_attribute("href")
    assert link.endswith("#leaderboard?sort=win+rate&order=descending")
    card = page.locator(".card").first
    page.goto(f"{page.url.partition('#')[0]}#{card.get_attribute('id')}")
    expect(card).to_be_in_viewport()


def test_the_leaderboard_is_sorted_by_a_click(open_page):
    page = open_page()
    rates = page.locator("#leaderboard tbody tr td:nth-of-type(2)")
    page.locator("#leaderboard th button", has_text="win rate").click()
    expect(page.locator("#leaderboard th").nth(2)).to_have_attribute("aria-sort", "descending")
    down = rates.all_inner_texts()
    assert down == sorted(down, key=float, reverse=True) and len(set(down)) > 1
    page.locator("#leaderboard th button", has_text="win rate").click()
    expect(page.locator("#leaderboard th").nth(2)).to_have_attribute("aria-sort", "ascending")
    assert rates.all_inner_texts() == down[::-1]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 375)])
def test_comparison_is_accessible(browser, comparison, scheme, width):
    """The page of scripts/compare.py: offline, silent, with enough contrast, and no wider than a phone."""
    path = comparison
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    check_structure(page)
    found = page.evaluate(CONTRASTS)
    assert len(found) > 50 and [entry for entry in found if entry[0] < 4.5] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    names = page.locator("[role=region]").evaluate_all("(regions) => regions.map((region) => region.ariaLabel)")
    assert all(names) and len(names) == len(set(names))
    page.close()
    assert said == [] and {url for url in asked if not url.startswith("data:")} == {path.as_uri()}


def test_on_a_phone_names_beside_a_chart_take_up_to_half_of_its_width(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("pages.RUNS", (("multi", "dpo_random_pairs", 1, ("en", "de")),))
    root = write_finished(tmp_path / "small")
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(make_report(root).as_uri())
    page.wait_for_function(ALL_DRAWN)
    texts = page.locator("#figure-win-rates svg text").all_text_contents()
    assert "multi/dpo_random_pairs" in texts
    cut = """[...document.querySelectorAll('.plot svg')].flatMap((svg) => [...svg.querySelectorAll('.role-axis-title text, .role-legend text')]
      .filter((e) => e.getBoundingClientRect().right > svg.getBoundingClientRect().right + 1
        || e.getBoundingClientRect().left < svg.getBoundingClientRect().left - 1).map((e) => e.textContent))"""
    assert page.evaluate(cut) == []
    page.close()
