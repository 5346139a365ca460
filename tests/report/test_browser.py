"""The report page in a real Chromium: offline, searched, filtered, in both themes, on a phone, and accessible."""

import os
import re
import shutil
from itertools import pairwise

import pytest
from conftest import script
from pages import make_report, write_finished, write_results

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


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page of small results whose texts try to break out of it."""
    root = write_results(tmp_path_factory.mktemp("browser") / "small")
    return make_report(root)


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
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.wait_for_function(ALL_DRAWN)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}


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
    assert page.evaluate("document.activeElement.className") == "text", "long texts scroll by key"


def test_structure_is_announced(open_page):
    page = open_page()
    check_structure(page)


@pytest.mark.parametrize("width", [375, 1280])
def test_links_of_the_contents_land_at_their_sections(browser, report, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(report.as_uri())
    page.evaluate("document.getElementById('contents').open = true")
    for link in page.locator(".side li a").all():
        name = link.get_attribute("href")
        link.click()
        page.wait_for_function(
            """(name) => {
              const top = document.querySelector(name).getBoundingClientRect().top;
              const atEnd = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
              return (top >= -2 && top < innerHeight / 3) || atEnd;
            }""",
            arg=name,
        )
        expect(page.locator(".side [aria-current]")).to_have_count(1)
        page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
    page.close()


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
def test_comparison_is_accessible(browser, tmp_path, scheme, width):
    """The page of scripts/compare.py: offline, silent, with enough contrast, and no wider than a phone."""
    roots = [write_finished(tmp_path / "one"), write_finished(tmp_path / "other", seed=1)]
    (roots[1] / "summary.csv").unlink()
    script("compare", *roots, "--output", tmp_path / "comparison")
    path = tmp_path / "comparison" / "compare.html"
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
