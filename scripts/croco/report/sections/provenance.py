"""Section "Provenance": every manifest, and the code, seeds and library versions of each stage."""

from collections import defaultdict
from dataclasses import asdict
from typing import Any

import yaml

from croco.report.elements import PROGRAMS, Section, Table, table, table_of
from croco.report.page import Manifest, Page

INTRO = "How each file was made: stage, inputs, code, versions, seed. Each line is the manifest beside an output."

# Fields of a manifest that the list does not show.
NOT_IN_LIST = ("options", "gpu_names", "cpu")


def write_config(page: Page) -> str | None:
    """The config as YAML for `--configfile`; None where no start of the run is recorded."""
    if page.config is None:
        return None
    head = f"# Merged config of {page.root.name}. Repeat the run: {PROGRAMS}/snakemake --cores 2 --configfile FILE\n"
    return head + yaml.safe_dump(page.config, allow_unicode=True, sort_keys=False, width=100)


def show(page: Page) -> Section:
    """The page's script searches ``records``: the manifests, and the sets of versions by number."""
    manifests = page.manifests
    content = {"config": write_config(page)}
    if not manifests:
        page.gaps.say("provenance", "manifests", "snakemake --cores 2")
        return Section(intro=INTRO, content=content, records={"versions": [], "rows": []})
    versions = []
    for manifest in manifests:
        if manifest.versions not in versions:
            versions.append(manifest.versions)
    compact = [compact_row(manifest, versions) for manifest in manifests]
    return Section(
        intro=INTRO,
        content=content,
        tables=[list_stages(manifests, versions), list_versions(versions)],
        records={"versions": versions, "rows": compact},
    )


def compact_row(manifest: Manifest, versions: list[dict[str, str | None]]) -> dict[str, Any]:
    """What the page's list shows of a manifest; its versions are a number of a set."""
    row = {**asdict(manifest), "versions": versions.index(manifest.versions)}
    return {name: value for name, value in row.items() if name not in NOT_IN_LIST}


def list_stages(manifests: list[Manifest], versions: list[dict[str, str | None]]) -> Table:
    """A row per stage."""
    stages = defaultdict(list)
    for manifest in manifests:
        stages[manifest.stage].append(manifest)
    lines = [
        {
            "stage": stage,
            "manifests": len(of_stage),
            "code commits": ", ".join(sorted({manifest.short_commit for manifest in of_stage})),
            "with uncommitted changes": sum(manifest.dirty for manifest in of_stage),
            "seeds": ", ".join(sorted({str(manifest.seed) for manifest in of_stage if manifest.seed is not None})) or None,
            "sets of versions": len({versions.index(manifest.versions) for manifest in of_stage}),
        }
        for stage, of_stage in stages.items()
    ]  # fmt: skip
    return table_of("Manifests by stage", lines)


def list_versions(versions: list[dict[str, str | None]]) -> Table:
    """A row per library, a column per set of versions."""
    libraries = sorted({name for one_set in versions for name in one_set})
    return table(
        "Sets of library versions",
        ["library", *(f"set {i + 1}" for i in range(len(versions)))],
        [[name, *(one_set.get(name) for one_set in versions)] for name in libraries],
    )
