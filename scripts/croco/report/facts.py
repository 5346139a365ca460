"""What was run, in facts and as a paragraph for the methods of a paper; all of it from manifests, ledgers and the run table."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePath

from croco.report.page import Manifest, Page

HUB = "https://huggingface.co/"
CITATION = "CroCo (arXiv 2605.26293)"
LIBRARIES = ("transformers", "trl", "vllm", "lm_eval")


@dataclass(frozen=True)
class Fact:
    """A fact; ``links`` are [(text, address)] of its models on the hub."""

    name: str
    value: str
    links: tuple[tuple[str, str], ...] = ()


def list_facts(page: Page) -> list[Fact]:
    """The facts that are known."""
    runs = page.runs
    arms = {(run.model, run.pool, run.arm) for run in runs}
    # A ledger's own total counts a prompt once per language where every language's reference is taken.
    per_language = [counts["prompts"] for ledger in page.ledgers.values() for counts in ledger["languages"].values()]
    prompts = max(per_language, default=None)
    started, seconds = _time(page.manifests)
    facts = [
        ("date", started[:10]),
        ("from first to last job", str(timedelta(seconds=round(seconds))) if seconds else ""),
        ("hardware", _hardware(page.manifests)),
        ("trained in", ", ".join(dict.fromkeys(code for run in runs for code in run.languages))),
        ("evaluated in", ", ".join(dict.fromkeys(code for run in runs for code in run.evaluated))),
        ("arms", str(len(arms) or "")),
        ("tuned runs", str(len(runs) or "")),
        ("training seeds", str(len({run.seed for run in runs}) or "")),
        ("training prompts", f"{prompts:,}" if prompts else ""),
        ("samples per prompt", _option(page.manifests, "generate", "samples", page.runs)),
        ("seed", _option(page.manifests, "prompts", "seed")),
        ("code", ", ".join(sorted({manifest.short_commit for manifest in page.manifests}))),
    ]
    models = [_models("policies", page.manifests, ("train",)), _models("reward models", page.manifests, ("score",))]
    judges = _models("judge", page.judged, ("judge",))
    if judges is None and (rule := _option(page.judged, "judge", "judge")):
        judges = Fact("judge", "a rule" if rule == "oracle" else rule)
    return [fact for fact in (*models, judges, *(Fact(*pair) for pair in facts)) if fact is not None and fact.value]


def write_methods(facts: Sequence[Fact], page: Page) -> str:
    """A paragraph to paste into a paper; it leaves out what is not known."""
    known = {fact.name: fact.value for fact in facts}
    names = ", ".join(dict.fromkeys(run.plain_name for run in page.runs))
    sentences = [
        f"We tuned {known.get('policies', 'the policy')} with {CITATION}",
        f"The training data were {known['training prompts']} prompts per arm at most" if "training prompts" in known else "",
        f"{known['samples per prompt']} responses per prompt were sampled" if "samples per prompt" in known else "",
        f"The reward model was {known['reward models']}" if "reward models" in known else "",
        f"The arms are {names}, with {_count_seeds(known['training seeds'])} each" if names else "",
        f"The models were trained in {known['trained in']} and evaluated in {known['evaluated in']}" if names else "",
        f"Answers were compared with those of the untuned model {page.orders} by {known['judge']}" if "judge" in known else "",
        f"The code is commit {known['code']}, with {_libraries(page.manifests)}" if "code" in known else "",
    ]  # fmt: skip
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def _count_seeds(count: str) -> str:
    return "one training seed" if count == "1" else f"up to {count} training seeds"


def _time(manifests: Iterable[Manifest]) -> tuple[str, float | None]:
    """(start of the first job, seconds from it to the end of the last one)."""
    times = [(datetime.fromisoformat(one.started), one.seconds or 0.0) for one in manifests if one.started]
    if not times:
        return "", None
    first = min(start for start, _ in times)
    return first.isoformat(), max((start - first).total_seconds() + seconds for start, seconds in times)


def _hardware(manifests: Iterable[Manifest]) -> str:
    """Models of the GPUs with the most per job, models of the processors, and the most memory of a job."""
    manifests = list(manifests)
    gpus = max((manifest.gpus for manifest in manifests if manifest.gpus is not None), default=None)
    memory = max((manifest.memory for manifest in manifests if manifest.memory is not None), default=None)
    parts = []
    if models := _count_gpu_models(manifests):
        parts.append(f"at most {' or '.join(f'{count} {name}' for name, count in models.items())} per job")
    elif gpus is not None:
        parts.append(f"at most {gpus} GPU{'s' if gpus > 1 else ''} per job" if gpus else "CPU only")
    parts += dict.fromkeys(manifest.cpu for manifest in manifests if manifest.cpu)
    if memory is not None:
        parts.append(f"at most {memory:,} MB of memory per job")
    return ", ".join(parts)


def _count_gpu_models(manifests: Iterable[Manifest]) -> dict[str, int]:
    """{model of a GPU: the most that one job had}."""
    most: Counter[str] = Counter()
    for manifest in manifests:
        most |= Counter(manifest.gpu_names)
    return dict(most)


def _option(manifests: Iterable[Manifest], stage: str, name: str, runs: Sequence | None = None) -> str:
    """The values of an option of a stage; with ``runs`` only in the folders of their responses."""
    places = None if runs is None else tuple(f"{run.responses}/" for run in runs)
    values = [
        manifest.options.get(name)
        for manifest in manifests
        if manifest.stage == stage and (places is None or manifest.file.startswith(places))
    ]
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _models(name: str, manifests: Iterable[Manifest], stages: tuple[str, ...]) -> Fact | None:
    """The models of some stages with their revisions, as links where they are from the hub."""
    options = [manifest.options for manifest in manifests if manifest.stage in stages]
    models = list(dict.fromkeys((str(one["model"]), one.get("revision")) for one in options if one.get("model")))
    if not models:
        return None
    texts = [f"{model} ({revision})" if revision else _shorten(model) for model, revision in models]
    links = tuple(
        (text, f"{HUB}{model}/tree/{revision}")
        for text, (model, revision) in zip(texts, models, strict=True)
        if revision and re.fullmatch(r"[\w.-]+/[\w.-]+", model) and re.fullmatch(r"[\w./-]+", str(revision))
    )
    return Fact(name, ", ".join(texts), links)


def _shorten(model: str) -> str:
    """A name on the hub as it is, and the last part of a longer path, which says much about a machine to every reader."""
    return model if model.count("/") <= 1 else PurePath(model).name


def _libraries(manifests: Iterable[Manifest]) -> str:
    versions = {f"{name} {one.versions[name]}" for one in manifests for name in LIBRARIES if one.versions.get(name)}
    return ", ".join(sorted(versions)) or "unknown versions of its libraries"
