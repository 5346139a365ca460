"""Which files a bundle must have, and which manifest says how a file was made."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from croco.results.bundles import CONFIG, LANGUAGES, README
from croco.runs import BASE, UNTUNED, Run, name_data

PLOTS = ("win_rates.svg", "structured.svg", "ledger.svg")
TABLES = tuple(
    f"tables/{name}.{end}" for name in ("win_rate", "structured", "fidelity") for end in ("csv", "md", "tex")
)
# {file under the output root: the stage that makes it}; the manifest has the stage's name.
OF_THE_ROOT = {
    "summary.csv": "summary",
    "findings.json": "findings",
    **dict.fromkeys(TABLES, "findings"),
    "report.html": "report",
    **dict.fromkeys(PLOTS, "report"),
    "contamination.json": "contamination",
}
# Files without a manifest, and why they are not checked.
NO_MANIFEST = {
    "runs.jsonl": "the config that it is made from cannot be read",
    "plan.json": "the prompts that it counts are in files that may not be packed",
    "comparability.json": "how the evaluation was compared with the paper's is text",
    "stage.lock.json": "commits and digests are what the authors say",
    CONFIG: "the config is what the authors say",
    LANGUAGES: "the table of languages is what the authors say",
    README: "it is text",
}
MANIFEST = "manifest.json"
# Keys of a structured task's results that are no means.
NOT_MEANS = ("n", "control_tokens", "cut_requests", "suite", "left_out", "lower_is_better")


@dataclass(frozen=True)
class Origin:
    """How a file was made.

    Attributes:
        manifest: name of the manifest in the bundle.
        stage: the stage that makes such a file; None where several may.
        run: name of the run that the file belongs to, or None.
    """

    manifest: str
    stage: str | None = None
    run: str | None = None


def list_expected(runs: Collection[Run], judged: bool, fidelity: bool) -> list[str]:
    """The files, manifests included, that a bundle of these runs has at least."""
    expected = {"runs.jsonl", "plan.json", "comparability.json", CONFIG, LANGUAGES, README, *OF_THE_ROOT}
    expected |= {f"{stage}.{MANIFEST}" for stage in OF_THE_ROOT.values()}
    for run in runs:
        names = [f"eval/{code}.{end}" for code in run.evaluated for end in ("json", "samples.jsonl", MANIFEST)]
        parts = [*(["fidelity"] if fidelity else []), *(["arena"] if judged and not run.is_base else [])]
        names += [f"{part}/{code}.{end}" for part in parts for code in run.evaluated for end in ("jsonl", MANIFEST)]
        if judged or fidelity:
            names += [f"answers/{code}.jsonl" for code in run.evaluated]
        if not run.is_base:
            data = name_data(run.target)
            names += ["ledger.json", f"{data}.jsonl", f"{data}.{MANIFEST}"]
            names += [f"checkpoint/{MANIFEST}", "checkpoint/metrics.jsonl"]
        expected |= {f"{run.name}/{name}" for name in names}
    return sorted(expected)


def needs_manifest(name: str) -> bool:
    """Whether a file of the bundle is a result, which has a manifest."""
    return not (name.endswith(MANIFEST) or name in NO_MANIFEST or name.startswith("benchmarks/"))


def find_origin(name: str, runs: Mapping[str, Run]) -> Origin:
    """How a file of the bundle was made, by its name; ``runs`` by their names."""
    if stage := OF_THE_ROOT.get(name):
        return Origin(f"{stage}.{MANIFEST}", stage)
    run = max((run for run in runs if name.startswith(f"{run}/")), key=len, default=None)
    stem = re.sub(r"(\.samples)?\.[a-z]+$", "", name)
    if run is None:
        return Origin(f"{stem}.{MANIFEST}")
    part, _, rest = name.removeprefix(f"{run}/").rpartition("/")
    code = re.sub(r"(\.samples)?\.[a-z]+$", "", rest)
    if part == "checkpoint":
        return Origin(f"{run}/checkpoint/{MANIFEST}", "train", run)
    if part in ("answers", "eval"):
        return Origin(f"{run}/eval/{code}.{MANIFEST}", "evaluate", run)
    data = name_data(runs[run].target)
    if part == "" and rest in ("ledger.json", f"{data}.jsonl"):
        return Origin(f"{run}/{data}.{MANIFEST}", "build_pairs", run)
    stage = {"arena": "judge", "fidelity": "fidelity"}.get(part)
    return Origin(f"{stem}.{MANIFEST}", stage, run)


def list_evidence(stage: str, run: str | None, config: Mapping[str, Any]) -> dict[str, str | None]:
    """{option: where its files are, under the output root} of stages whose evidence is always at the same place.

    None stands for an option that the stage does not have in a run of this config.
    """
    model = (run or "").split("/")[0]
    findings = "findings.json" if config.get("findings") == "paper" else None
    evidence: dict[str, dict[str, str | None]] = {
        "summary": {"root": "", "runs": "runs.jsonl"},
        "findings": {"runs": "runs.jsonl", "summary": "summary.csv", "audit": "audit/"},
        "report": {"root": "", "runs": "runs.jsonl", "summary": "summary.csv", "findings": findings, "tables": "tables", "plan": "plan.json"},
        "judge": {"answers": f"{run}/answers/", "baseline": f"{model}/{UNTUNED}/{BASE}/answers/", "prompts": "prompts/evaluate/"},
        "fidelity": {"answers": f"{run}/answers/", "prompts": "prompts/evaluate/"},
    }  # fmt: skip
    return evidence.get(stage, {})


def find_wrong_means(results: Mapping[str, Any], samples: Collection[Mapping[str, Any]]) -> list[str]:
    """Results of structured tasks that are not the means over their documents: ["task metric"]."""
    wrong = []
    for task, found in results.items():
        documents = [sample for sample in samples if sample["task"] == task]
        if found["n"] != len(documents):
            wrong.append(f"{task} n")
        for metric, value in found.items():
            if metric in NOT_MEANS:
                continue
            values = [sample[metric] for sample in documents if metric in sample]
            numeric = all(isinstance(each, int | float) for each in (value, *values))
            if not numeric or not values or abs(value - sum(values) / len(values)) > 1e-9:
                wrong.append(f"{task} {metric}")
    if unknown := sorted({str(sample["task"]) for sample in samples} - results.keys()):
        wrong += unknown
    return wrong
