"""Section "Result": what came out, how far it can be trusted, what was run, and what is missing on the page."""

from collections import defaultdict
from datetime import timedelta
from typing import Any

from croco.report.caveats import list_caveats
from croco.report.elements import Section
from croco.report.facts import Fact, list_facts, write_methods
from croco.report.highlights import Highlights
from croco.report.leaderboard import list_lines, list_unmeasured, rank_lines, write_headlines
from croco.report.page import Manifest, Page
from croco.report.sections.cost import list_jobs, sum_up


def show(page: Page, highlights: Highlights) -> Section:
    """The section: headline, caveats, leaderboard, facts and ``highlights``, a few pairs and answers."""
    lines = list_lines(page)
    facts = list_facts(page)
    content = {
        "facts": [*facts, *list_costs(page.manifests)],
        "methods": write_methods(facts, page) if page.manifests else None,
        "contamination": describe_contamination(page.contamination),
        "headlines": write_headlines(page, lines),
        "caveats": list_caveats(page, lines),
        "lines": rank_lines(lines),
        "unmeasured": list_unmeasured(page, lines),
        "highlights": highlights,
    }
    return Section(content=content)


def list_costs(manifests: list[Manifest]) -> list[Fact]:
    """Time, GPU-hours and model loads of all jobs, as far as they are known; the section "Cost" has them by stage."""
    jobs = list_jobs(manifests)
    if not jobs:
        return []
    every = sum_up("all", jobs)
    time = str(timedelta(seconds=round(3600 * every["hours"])))
    loads: dict[str, int] = defaultdict(int)
    for manifest in manifests:
        name = manifest.job or manifest.file
        loads[name] = max(loads[name], manifest.loads)
    gpu_hours = every["GPU-hours"]
    return [
        Fact("time of all jobs", f"{time} ({len(jobs)} jobs)"),
        *([] if gpu_hours is None else [Fact("GPU-hours", f"{gpu_hours:.2f}")]),
        Fact("model loads", str(sum(loads.values()))),
    ]


def describe_contamination(contamination: dict | None) -> dict[str, Any] | None:
    """{overlaps, unchecked, clean}: which training prompts are part of the evaluation data, in sentences; or None."""
    if contamination is None:
        return None
    overlaps, clean = [], True
    for code, total in contamination["languages"].items():
        clean = clean and not total["exact_left_in"]
        if total["ngram_13"]:
            shared = f"{code}: of {total['prompts']} {total['exact']} exact, {total['ngram_13'] - total['exact']} more with 13 words in common"
            overlaps.append(shared + (f", {total['removed']} removed" if total["removed"] else ""))
    prompts = sum(total["prompts"] for total in contamination["languages"].values())
    sources = dict.fromkeys(name for total in contamination["languages"].values() for name in total["sources"])
    none = (
        f"none of {prompts} ({', '.join(contamination['languages'])}) is in {', '.join(sources)}, exact or by 13 words"
    )
    return {"overlaps": overlaps or [none], "unchecked": contamination["unchecked"], "clean": clean}
