"""Small results in the form that the stages write, made without models, for tests of the report page."""

import json

import pandas as pd
from conftest import script, write_rows, write_runs

from croco.results.table import COLUMNS

LANGUAGES = ("en", "de")
# (pool, setting, seed, languages)
RUNS = (("en", "dpo", 1, ("en",)), ("multi", "dpo", 1, LANGUAGES), ("multi", "dpo.s2", 2, LANGUAGES))
HOSTILE = "</script><script>alert('needle')</script><img src=x onerror=alert(1)>"
VERDICTS = ("win", "tie", "loss", "win", "unparseable")
METRICS = (
    ("arena", "win_rate", 0.6), ("arena", "win_rate_single_order", 0.58), ("arena", "win_rate_strict", 0.57),
    ("arena", "win_rate_lc", 0.55), ("arena", "win_rate_glm", 0.56), ("heldout", "exact_match", 0.7),
    ("fidelity", "language_fidelity", 0.9), ("fidelity", "n_tokens", 41.0), ("fidelity", "reward", 1.5),
)  # fmt: skip


def manifest(path, stage, dirty=False, **facts):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "stage": stage, "code_commit": "0123456789abcdef", "code_dirty": dirty, "code_digest": "c0de",
        "options": {"seed": 7}, "inputs": {"data": "d1gest"}, "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "started": "2026-01-01T00:00:00+00:00", "seconds": 1.5, "peak_memory_mb": 100, "gpus": 2, "job": str(path), **facts,
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")


def prompts():
    return [f"p{i}" for i in range(20)]


def chat(role, text):
    return [{"role": role, "content": text}]


def write_results(root):
    """A finished run: two pools and two training seeds in two languages; one text tries to break out of the page."""
    for code in LANGUAGES:
        write_rows(
            root / "prompts" / "evaluate" / f"{code}.jsonl",
            [{"prompt_id": name, "language": code, "messages": chat("user", f"Ask {name} in {code}")} for name in prompts()],
        )  # fmt: skip
        write_rows(
            root / "mini" / code / "scores" / "english.jsonl",
            [{"prompt_id": name, "language": code, "rewards": [-1.0, 0.5, i / 10]} for i, name in enumerate(prompts())],
        )
        write_answers(root / "mini" / "untuned" / "base", code)
    for pool, setting, seed, languages in RUNS:
        write_run(root / "mini" / pool / setting, pool, seed, languages)
    table = [cells for run in RUNS for cells in summary_rows(*run)]
    pd.DataFrame(table, columns=COLUMNS).to_csv(root / "summary.csv", index=False)
    (root / "findings.json").write_text(json.dumps({"findings": [finding(), *not_tested()], "claims": [{"setting": "dpo", "versus": "base", "expected": "higher", "claim": finding()["claim"]}]}), encoding="utf-8")  # fmt: skip
    (root / "contamination.json").write_text(json.dumps(contamination()), encoding="utf-8")
    (root / "tables").mkdir()
    (root / "tables" / "win_rate.csv").write_text("model,setting,en\nmini,dpo,0.612345\n", encoding="utf-8")
    (root / "audit").mkdir()
    check = {"n": 20, "accuracy": 0.8, "ci_low": 0.6, "ci_high": 0.9}
    audit = {"n": 20, "checks": {"shuffled": check, "wrong_language": check}, "reward_mean": 0.1, "reward_sd": 1.0, "length_correlation": 0.2, "verdict": "weak", "remedy": "another reward model"}  # fmt: skip
    (root / "audit" / "english.json").write_text(json.dumps({"reward_model": "english", "languages": {"en": audit}}), encoding="utf-8")  # fmt: skip
    return root


def contamination():
    """One of 20 training prompts in English is an evaluation prompt, one more has 13 words in common with one."""
    found = {"evaluated": 20, "exact": {"prompts": 1, "evaluated": 1}, "ngram_13": {"prompts": 2, "evaluated": 2}}
    none = {"evaluated": 20, "exact": {"prompts": 0, "evaluated": 0}, "ngram_13": {"prompts": 0, "evaluated": 0}}
    languages = {
        "en": {
            "prompts": 20,
            "exact": 1,
            "ngram_13": 2,
            "removed": 0,
            "exact_left_in": 1,
            "sources": {"evaluation prompts": found},
        },
        "de": {
            "prompts": 20,
            "exact": 0,
            "ngram_13": 0,
            "removed": 0,
            "exact_left_in": 0,
            "sources": {"evaluation prompts": none},
        },
    }
    return {"languages": languages, "unchecked": ["belebele_deu_Latn"]}


def finding():
    return {
        "id": "F2", "claim": "preference tuning on own responses improves on the base", "contrast": "multi/dpo - base",
        "model": "mini", "measure": "win rate", "estimate": 0.1, "low": 0.05, "high": 0.15, "n": 20,
        "null": {"estimate": 0.01, "low": -0.01, "high": 0.03}, "replicate_noise": 0.02, "verdict": "supported",
        "why": "appears",
    }  # fmt: skip


def not_tested():
    """The same finding in another pool, and one that is tested in no pool."""
    empty = dict.fromkeys(("estimate", "low", "high", "n", "null", "replicate_noise"))
    for number, claim, why in (
        ("F2", finding()["claim"], "needs a judge"),
        ("F4", "others' responses are worse", "no such setting"),
    ):
        contrast = "en/dpo - base" if number == "F2" else "multi/dpo - off_policy"
        yield {
            **finding(),
            "id": number,
            "claim": claim,
            "contrast": contrast,
            **empty,
            "verdict": "not tested",
            "why": why,
        }


def write_answers(folder, code):
    write_rows(
        folder / "answers" / f"{code}.jsonl",
        [{"prompt_id": name, "language": code, "responses": [{"text": f"{folder.name} says {name}", "finish_reason": "stop", "n_tokens": 3}], "skip": None} for name in prompts()],
    )  # fmt: skip
    found = ["de" if name == "p1" else None if name == "p2" else code for name in prompts()]
    write_rows(
        folder / "fidelity" / f"{code}.jsonl",
        [{"prompt_id": name, "language": code, "languages": [one], "truncated": [False], "n_tokens": [3], "n_chars": [12],
          "repetition": [0.0], "distinct_2": [1.0], "self_similarity": None, "skip": None} for name, one in zip(prompts(), found, strict=True)],
    )  # fmt: skip


def write_run(folder, pool, seed, languages):
    pairs = [
        {
            "prompt_id": name, "prompt": chat("user", f"Ask {name}"), "chosen": chat("assistant", HOSTILE if (name, pool, seed) == ("p3", "en", 1) else f"good {name}"),
            "rejected": chat("assistant", f"bad {name}"), "chosen_reward": 1.0 + i / 10, "rejected_reward": -1.0,
            "prompt_language": code, "chosen_language": code, "rejected_language": languages[i % len(languages)],
            "pool_size": 6, "pool_mean": 0.0, "pool_std": 0.5, "target": -1.0,
        }
        for code in languages for i, name in enumerate(prompts())
    ]  # fmt: skip
    write_rows(folder / "pairs.jsonl", pairs)
    counts = {"prompts": 22, "skipped": {"prompt_too_long": 1}, "responses": 60, "left_out": {"empty": 4}, "eligible": 56, "duplicates": 2, "chosen": 20, "rejected": 20}  # fmt: skip
    ledger = {
        "target": "pair", "rejected": "mean-2sd", "languages": {code: counts for code in languages}, "prompts": 22, "formed": 20,
        "no_pair": {"pool_too_small": 2}, "formed_by_language": {code: 20 for code in languages}, "rejected_is_minimum": 0.5, "advice": None,
    }  # fmt: skip
    if len(languages) > 1:
        ledger["separation"] = {"pairs": {"en": {"en": 10, "de": 10}, "de": {"en": 10, "de": 10}}, "same_language": 0.5, "accuracy": 0.6, "chance_95": 0.65, "accuracy_with_prompt": 0.61, "chance_95_with_prompt": 0.66}  # fmt: skip
    (folder / "ledger.json").write_text(json.dumps(ledger), encoding="utf-8")
    manifest(folder / "pairs.manifest.json", "build_pairs")
    options = {"objective": "dpo", "beta": 0.1, "seed": seed}
    manifest(folder / "checkpoint" / "manifest.json", "train", dirty=True, options=options, counts={"steps": 300, "rows": 20, "trained": 20, "dropped": {}, "token_mismatches": 0}, padding_share=0.1, tokens_per_second=100.0, seconds=1800)  # fmt: skip
    write_rows(
        folder / "checkpoint" / "metrics.jsonl",
        [{"step": i + 1, "loss": 0.7 - i / 1000, "rewards_chosen": i / 1000, "rewards_margins": i / 500} for i in range(300)],
    )  # fmt: skip
    for code in languages:
        write_answers(folder, code)
        write_rows(
            folder / "arena" / f"{code}.jsonl",
            [
                {"prompt_id": name, "language": code, "verdicts": {"answer_first": [VERDICTS[i % 5]], "baseline_first": [VERDICTS[(i + i // 10) % 5]]},
                 "score": 0.5, "quality": None, "baseline_quality": None, "replies": {"answer_first": ["I prefer A"], "baseline_first": [None]}, "skip": None}
                for i, name in enumerate(prompts())
            ],
        )  # fmt: skip


def summary_rows(pool, setting, seed, languages):
    for task, metric, value in METRICS:
        middle = 0.5 if metric.startswith("win_rate") else value - 0.1
        for i, code in enumerate([*languages, "all"]):
            here = value + i / 100 + seed / 1000
            delta = here - middle
            rate = {"value_low": here - 0.03, "value_high": here + 0.03} if metric.startswith("win_rate") else {}
            yield {
                "model": "mini", "pool": pool, "setting": setting, "seed": seed, "round": 1, "reward_model": "english",
                "pool_size": 64, "eval_language": code, "task": task, "metric": metric, "value": here, "n": 20, "baseline": "base",
                "baseline_value": middle, "delta": delta, "delta_low": delta - 0.03, "delta_high": delta + 0.03, "p": 0.01, **rate,
                "p_adjusted": 0.02 if (metric, code, setting) == ("win_rate", "all", "dpo") else None, "q": 0.03, "mde": 0.04,
            }  # fmt: skip


def write_run_table(root, seeds=2):
    """The run table of RUNS with training seeds up to ``seeds``, and of the untuned model; returns its path."""
    table = [
        ("mini", pool, setting, seed, "english", 64, ",".join(languages))
        for pool, setting, seed, languages in RUNS
        if seed <= seeds
    ]
    bases = [
        ("mini", "untuned", "base", 1, "-", "-", ",".join(dict.fromkeys(code for *_, codes in RUNS for code in codes)))
    ]
    return write_runs(root / "runs.jsonl", *bases, *table)


def write_finished(root, **config):
    """write_results with what a results folder has besides: run table, the judge's manifests, the last start's config."""
    write_results(root)
    write_run_table(root)
    for pool, setting, _, languages in RUNS:
        for code in languages:
            manifest(
                root / "mini" / pool / setting / "arena" / f"{code}.manifest.json", "judge", options={"judge": "oracle"}
            )
    (root / ".snakemake").mkdir()
    start = {"config": {"seed": 0, "settings": [{"name": "dpo", "beta": 0.1}], **config}, "lock": "10c4"}
    (root / ".snakemake" / "start.json").write_text(json.dumps(start), encoding="utf-8")
    return root


def make_report(root, *options, judged=True, findings=True, control=None, seeds=2):
    """Runs scripts/report.py on all that is there and returns the page's path.

    ``control`` is a setting whose pairs are drawn whatever their rewards; runs have training seeds up to ``seeds``.
    """
    runs = ["--runs", write_run_table(root, seeds)]
    if control:
        rows = [json.loads(line) for line in (root / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
        for row in rows:
            row["row"] |= {"rejected": "random"} if row["arm"] == control else {}
        write_rows(root / "runs.jsonl", rows)
    output = root / "report.html"
    script(
        "report", "--root", root, *runs, "--contrast", "dpo", "multi", "base", "--summary", root / "summary.csv",
        *(["--findings", root / "findings.json"] if findings else []), "--tables", root / "tables", "--fidelity", "--tasks",
        "--output", output, *(["--judged"] if judged else []), *options,
    )  # fmt: skip
    return output
