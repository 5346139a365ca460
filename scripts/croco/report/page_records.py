"""The sections of the report page that list records: pairs and answers, manifests, what jobs took."""

import csv
import re
from collections import Counter, defaultdict

from croco.digests import derive_seed
from croco.records import rows
from croco.report import plots
from croco.report.elements import BASE, figure, full_name, read_json, read_number, table, table_of

LONGEST = 2000  # characters of a text in the examples
FILES_SHOWN = 40  # inputs of a manifest


def list_examples(root, first, per_cell, gaps):
    """Pairs and judged answers for the search, and how many of how many they are.

    Of each run and language ``per_cell`` pairs and as many answers, those with the lowest hash of the prompt id: the
    same prompts in every run.
    """
    found, of_pairs, of_answers = [], 0, 0
    prompts = {}
    for run in first:
        name = full_name(run)
        if run["target_has_pairs"] and gaps.has("examples", run["folder"] / "pairs.jsonl", "pairs"):
            by_language = defaultdict(list)
            for pair in rows(run["folder"] / "pairs.jsonl"):
                by_language[pair["prompt_language"]].append(pair)
            for code, pairs in by_language.items():
                of_pairs += len(pairs)
                found += [describe_pair(name, code, pair) for pair in draw(pairs, per_cell)]
        for code in run["evaluated"]:
            files = {
                "verdicts": run["folder"] / "arena" / f"{code}.jsonl",
                "answers": run["folder"] / "answers" / f"{code}.jsonl",
                "base": root / run["model"] / BASE[0] / BASE[1] / "answers" / f"{code}.jsonl",
            }
            if not all([gaps.has("examples", path, what) for what, path in files.items()]):
                continue
            if code not in prompts:
                path = root / "prompts" / "evaluate" / f"{code}.jsonl"
                prompts[code] = {line["prompt_id"]: line["messages"] for line in rows(path)} if path.is_file() else {}
            judged = list(rows(files["verdicts"]))
            of_answers += len(judged)
            drawn = draw(judged, per_cell)
            ids = {line["prompt_id"] for line in drawn}
            ours, theirs = ({line["prompt_id"]: line for line in rows(files[kind]) if line["prompt_id"] in ids} for kind in ("answers", "base"))  # fmt: skip
            for line in drawn:
                key = line["prompt_id"]
                if key in ours and key in theirs:
                    found.append(describe_answer(name, code, line, ours[key], theirs[key], prompts[code].get(key, [])))
    kinds = Counter(example["kind"] for example in found)
    return found, {"pairs": (kinds["pair"], of_pairs), "answers": (kinds["answer"], of_answers)}


def draw(lines, count):
    return sorted(lines, key=lambda line: (derive_seed("examples", line["prompt_id"]), line["prompt_id"]))[:count]


def cut(text):
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST} more characters)"


def say(messages):
    return cut("\n\n".join(message["content"] for message in messages or []))


def describe_pair(run, language, pair):
    same = pair["chosen_language"] == pair["rejected_language"]
    return {
        "kind": "pair",
        "run": run,
        "language": language,
        "id": str(pair["prompt_id"]),
        "verdict": "one language" if same else "two languages",
        "prompt": say(pair["prompt"]),
        "left": say(pair["chosen"]),
        "right": say(pair["rejected"]),
        "facts": f"chosen {pair['chosen_reward']:.3f} ({pair['chosen_language']}), "
        f"rejected {pair['rejected_reward']:.3f} ({pair['rejected_language']}), pool of {pair['pool_size']}",
    }


def describe_answer(run, language, line, ours, theirs, messages):
    """The first sample of a prompt with its verdicts in both orders."""
    orders = [line["verdicts"][name] for name in ("answer_first", "baseline_first")]
    first = [order[0] if order else "none" for order in orders]
    replies = [((line.get("replies") or {}).get(name) or [None])[0] for name in ("answer_first", "baseline_first")]
    texts = [(some["responses"] or [{"text": ""}])[0]["text"] for some in (ours, theirs)]
    score = "none" if line["score"] is None else f"{line['score']:.3f}"
    return {
        "kind": "answer",
        "run": run,
        "language": language,
        "id": str(line["prompt_id"]),
        "verdict": first[0] if first[0] == first[1] else "depends on the order",
        "prompt": say(messages),
        "left": cut(texts[0] or ""),
        "right": cut(texts[1] or ""),
        "facts": f"first sample of {max(1, len(orders[0]))}; tuned first: {first[0]}, base first: {first[1]}; score of the prompt {score}",
        **({"reply": cut("\n\n".join(reply for reply in replies if reply))} if any(replies) else {}),
    }


def list_manifests(root):
    """[{file, stage, commit, dirty, seed, versions, inputs, ...}] of every manifest under the root but state/."""
    found = []
    for path in sorted(root.rglob("*manifest.json")):
        place = path.relative_to(root)
        if place.parts[0] in ("state", "logs", "partial") or path.name.startswith("."):
            continue
        manifest = read_json(path)
        if manifest.get("stage") in (None, "report"):  # the page's own, of an earlier time
            continue
        inputs = [[str(name), str(value)] for name, value in (manifest.get("inputs") or {}).items()]
        options = manifest.get("options") or {}
        found.append(
            {
                "file": str(place),
                "stage": manifest["stage"],
                "commit": manifest.get("code_commit"),
                "dirty": bool(manifest.get("code_dirty")),
                "seed": options.get("seed"),
                "code": manifest.get("code_digest"),
                "versions": manifest.get("versions") or {},
                "started": manifest.get("started"),
                "seconds": manifest.get("seconds"),
                "memory": manifest.get("peak_memory_mb"),
                "gpus": manifest.get("gpus", "unknown"),
                "inputs": inputs[:FILES_SHOWN],
                "more": max(0, len(inputs) - FILES_SHOWN),
            }
        )
    return found


def show_provenance(manifests, gaps):
    if not manifests:
        gaps.say("provenance", "manifests", "snakemake --cores 2")
        return {"tables": [], "manifests": {"versions": [], "rows": []}}
    stages, versions = defaultdict(list), []
    for manifest in manifests:
        stages[manifest["stage"]].append(manifest)
        if manifest["versions"] not in versions:
            versions.append(manifest["versions"])
    lines = [
        {
            "stage": stage,
            "manifests": len(some),
            "code commits": ", ".join(sorted({(one["commit"] or "outside git")[:10] for one in some})),
            "with uncommitted changes": sum(one["dirty"] for one in some),
            "seeds": ", ".join(sorted({str(one["seed"]) for one in some if one["seed"] is not None})) or None,
            "sets of versions": len({versions.index(one["versions"]) for one in some}),
        }
        for stage, some in stages.items()
    ]
    compact = [{**manifest, "versions": versions.index(manifest["versions"])} for manifest in manifests]
    libraries = sorted({name for some in versions for name in some})
    sets = table(
        "Sets of library versions",
        ["library", *(f"set {i + 1}" for i in range(len(versions)))],
        [[name, *(some.get(name) for some in versions)] for name in libraries],
    )
    return {
        "tables": [table_of("Manifests by stage", lines), sets],
        "manifests": {"versions": versions, "rows": compact},
    }


STAGES = {"pairs": ("build_pairs",), "prompts": ("prompts", "translate"), "miniature": ("miniature",)}


def show_cost(root, manifests, gaps):
    """Time, GPU-hours and memory by stage, of the benchmark files; GPUs are those of the job's manifest."""
    by_stage, tokens = defaultdict(list), defaultdict(list)
    for manifest in manifests:
        parts = set(re.split(r"[/.]", manifest["file"].removesuffix("manifest.json"))) - {""}
        tokens[manifest["stage"]].append((parts, manifest["gpus"]))
    for path in sorted((root / "benchmarks").rglob("*.tsv")):
        place = path.relative_to(root / "benchmarks")
        stage = place.parts[0].removesuffix(".tsv") if len(place.parts) > 1 else place.stem
        if stage == "report":
            continue
        parts = set(re.split(r"[/.]", str(place.with_suffix("")).partition("/")[2]))
        with open(path, encoding="utf-8") as file:
            for line in csv.DictReader(file, delimiter="\t"):
                seconds, memory = (read_number(line.get(name)) for name in ("s", "max_rss"))
                if seconds is not None:
                    by_stage[stage].append((seconds, memory, find_gpus(parts, tokens, STAGES.get(stage, (stage,)))))
    if not by_stage:
        gaps.say("cost", "benchmarks, what jobs took", "snakemake --cores 2")
        return {"figures": []}
    lines = []
    for stage, jobs in sorted(by_stage.items(), key=lambda item: -sum(job[0] for job in item[1])):
        known = [seconds * gpus / 3600 for seconds, _, gpus in jobs if gpus is not None]
        lines.append(
            {
                "stage": stage,
                "jobs": len(jobs),
                "hours": sum(job[0] for job in jobs) / 3600,
                "longest job (minutes)": max(job[0] for job in jobs) / 60,
                "GPU-hours": sum(known) if known else None,
                "jobs of unknown GPUs": len(jobs) - len(known),
                "peak memory of a job (MB)": max((job[1] for job in jobs if job[1] is not None), default=None),
            }
        )
    unknown = [line["jobs of unknown GPUs"] for line in lines]
    hours = [line["GPU-hours"] for line in lines if line["GPU-hours"] is not None]
    every = {
        "stage": "all",
        "jobs": sum(line["jobs"] for line in lines),
        "hours": sum(line["hours"] for line in lines),
        "longest job (minutes)": max(line["longest job (minutes)"] for line in lines),
        "GPU-hours": sum(hours) if hours else None,
        "jobs of unknown GPUs": sum(unknown),
        "peak memory of a job (MB)": max((line["peak memory of a job (MB)"] or 0 for line in lines), default=None),
    }
    unit, scale = ("hours", 1) if every["hours"] >= 2 else ("minutes", 60)
    bars = [{"name": line["stage"], "value": line["hours"] * scale} for line in lines]
    return {
        "figures": [
            figure(
                "hours",
                [(None, plots.plot_bars(bars, f"{unit} of all jobs"))],
                f"Bars: {unit} by stage, together {every['hours'] * scale:.1f}.",
                "Wall time of all jobs of a stage, one after the other.",
                table_of(
                    "Cost by stage",
                    [*lines, every],
                    "A job that ran again counts with its last run; work that was taken from state/ costs nothing here. "
                    "GPU-hours are time x the GPUs that the job leased, as its manifest says; manifests of older runs do not say it.",
                ),
            )
        ],
        "all": every,
    }


def find_gpus(parts, tokens, stages):
    """GPUs of a job: of the manifest whose path shares most names with the benchmark's; None where it does not say.

    A job without a manifest of its stage (such as gathering) runs no model.
    """
    fitting = [
        (len(own & parts), gpus) for stage in stages for own, gpus in tokens[stage] if len(own - parts) <= 1
    ]  # all but the folder's name
    if not fitting:
        return 0
    gpus = max(fitting, key=lambda found: found[0])[1]
    return None if gpus == "unknown" else gpus or 0
