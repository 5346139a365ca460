"""scripts/summary.py by its command line, on results written by hand."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import rows, script, write_rows, write_runs
from test_win_rates import VALUE, draw, fit_length_control

PROMPTS = [f"p{i}" for i in range(12)]


def write_run(folder, language, rng, gain=0.0, judged=True, reward="rm"):
    """A run's result files: two tasks (one whose documents have no id), arena, fidelity and rewards."""
    for task, named in (("t", True), ("u", False)):
        samples = [{"task": task, "prompt_id": p if named else None, "doc_hash": f"{language}{task}{p}", "target": "x", "response": "x", "exact_match": float(rng.random() < 0.5 + gain)} for p in PROMPTS]  # fmt: skip
        write_rows(folder / f"{language}.{task}.jsonl", samples)
    texts = [(folder / f"{language}.{task}.jsonl").read_text() for task in "tu"]
    (folder / "eval").mkdir(exist_ok=True)
    (folder / "eval" / f"{language}.samples.jsonl").write_text("".join(texts))
    (folder / "eval" / f"{language}.json").write_text(json.dumps({"t": {"n": 12}, "u": {"n": 12}}))
    if judged:
        lines = []
        for p in PROMPTS:
            verdicts = {order: rng.choice(["win", "tie", "loss"], 2, p=[0.4 + gain, 0.2, 0.4 - gain]).tolist() for order in ("answer_first", "baseline_first")}  # fmt: skip
            score = float(np.mean([{"win": 1, "tie": 0.5, "loss": 0}[v] for some in verdicts.values() for v in some]))
            lines.append(
                {
                    "prompt_id": p, "language": language, "verdicts": verdicts, "score": score, "score_single_order": score,
                    "score_strict": score, "lengths": rng.integers(1, 99, 2).tolist(), "baseline_lengths": rng.integers(1, 99, 2).tolist(),
                    "quality": score, "baseline_quality": 0.5, "skip": None,
                }
            )  # fmt: skip
        lines[0] |= {"score": None, "score_single_order": None, "score_strict": None, "verdicts": {order: ["unparseable"] * 2 for order in verdicts}}  # fmt: skip
        write_rows(folder / "arena" / f"{language}.jsonl", lines)
    measured = [{"prompt_id": p, "language": language, "languages": [language, None] if p != "p3" else [None, None], "language_fidelity": [True, None] if p != "p3" else [None, None], "truncated": [False, True], "n_tokens": [4, 6], "n_chars": [10, 20], "repetition": [0.0, 0.5], "distinct_2": [None, 0.5], "self_similarity": 0.25, "skip": None} for p in PROMPTS]  # fmt: skip
    write_rows(folder / "fidelity" / f"{language}.jsonl", measured)
    rewards = [{"prompt_id": p, "language": language, "rewards": [*rng.normal(gain, 1, 2).tolist(), None]} for p in PROMPTS]  # fmt: skip
    write_rows(folder / "fidelity" / reward / f"{language}.jsonl", rewards)


@pytest.fixture(scope="module")
def summarised(tmp_path_factory):
    """Base, two settings with three seeds each, in two languages, and their summary."""
    folder = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(1)
    for language in ("en", "de"):
        write_run(folder / "m/untuned/base", language, rng, judged=False)
        for setting, gain in (("dpo", 0.3), ("other", 0.0)):
            for seed in ("", ".s2", ".s3"):
                write_run(folder / f"m/multi/{setting}{seed}", language, rng, gain)
    script("summary", *options(folder))
    return folder


@pytest.fixture
def results(summarised, tmp_path):
    """A copy without the summary, to change."""
    return shutil.copytree(summarised, tmp_path / "results", ignore=shutil.ignore_patterns("summary.*"))


def options(results, *more):
    runs = [("m", "untuned", "base", 1, "-", "-", "en,de")]
    for setting, reward in (("dpo", "rm"), ("other", "-")):
        for seed in (1, 2, 3):
            runs.append(("m", "multi", setting if seed == 1 else f"{setting}.s{seed}", seed, reward, 64, "en,de"))
    write_runs(results / "runs.jsonl", *runs)
    contrasts = ["--contrast", "dpo", "multi", "base", "--contrast", "dpo", "multi", "other"]
    return ["--root", results, "--runs", results / "runs.jsonl", *contrasts, "--judged", "--fidelity", "--output", results / "summary.csv", *more]  # fmt: skip


def read(results):
    with open(results / "summary.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    return table, {(r["setting"], r["seed"], r["eval_language"], r["task"], r["metric"], r["baseline"]): r for r in table}  # fmt: skip


def number(row, name):
    return float(row[name])


def test_every_metric_has_its_rows_and_the_numbers_are_those_of_the_files(summarised):
    table, by_key = read(summarised)
    assert len(by_key) == len(table), "each row once"
    measured = {(r["task"], r["metric"]) for r in table}
    wins = ("win_rate", "win_rate_single_order", "win_rate_strict", "win_rate_lc", "win_rate_glm")
    further = ("position_consistency", "unparseable", "quality", "reward_judge_agreement")
    found = ("language_fidelity", "truncated", "n_tokens", "n_chars", "repetition", "distinct_2", "self_similarity", "reward")  # fmt: skip
    assert measured == {("t", "exact_match"), ("u", "exact_match"), *(("arena", m) for m in wins + further), *(("fidelity", m) for m in found)}  # fmt: skip
    lines = [json.loads(line) for line in (summarised / "m/multi/dpo/arena/en.jsonl").read_text().splitlines()]
    win = by_key["dpo", "1", "en", "arena", "win_rate", "base"]
    scores = [line["score"] for line in lines if line["score"] is not None]
    assert number(win, "value") == pytest.approx(np.mean(scores), abs=1e-5) and win["n"] == "11"
    assert number(win, "delta") == pytest.approx(np.mean(scores) - 0.5, abs=1e-5)
    assert number(win, "value_low") <= number(win, "value") <= number(win, "value_high")
    assert number(by_key["dpo", "1", "en", "arena", "unparseable", ""], "value") == pytest.approx(1 / 12, abs=1e-5)
    fidelity = by_key["dpo", "1", "en", "fidelity", "language_fidelity", "base"]
    assert fidelity["n"] == "11" and number(fidelity, "value") == 1, "p3's languages cannot be told"
    assert number(by_key["dpo", "1", "all", "fidelity", "distinct_2", "base"], "value") == 0.5
    pooled = by_key["dpo", "1", "all", "u", "exact_match", "base"]
    languages = [number(by_key["dpo", "1", code, "u", "exact_match", "base"], "value") for code in ("en", "de")]
    assert pooled["n"] == "24" and number(pooled, "value") == pytest.approx(np.mean(languages), abs=1e-5)
    assert by_key["dpo", "1", "all", "t", "exact_match", "base"]["n"] == "12"


@pytest.mark.parametrize("seed", range(5))
def test_win_rate_standard_error_and_length_control_are_the_authors(seed, results):
    """One order a prompt and one sample, ties a half, unreadable verdicts left out: mean, sd (n - 1) / sqrt(n), in points."""
    drawn = draw(seed, 200, most_samples=1)
    first = [np.random.default_rng([seed, i]).random() < 0.5 for i in range(200)]
    for line, ours in zip(drawn, first, strict=True):
        order = "answer_first" if ours else "baseline_first"
        worth = VALUE.get(line["verdicts"][order][0])
        line |= {
            "score": worth,
            "score_single_order": worth,
            "score_strict": worth,
            "quality": None,
            "baseline_quality": None,
        }
        line["verdicts"] = {name: line["verdicts"][order] for name in line["verdicts"]}
    write_rows(results / "m/multi/dpo/arena/en.jsonl", drawn)
    runs = ["--runs", write_runs(results / "runs.jsonl", ("m", "untuned", "base", 1, "-", "-", "en"), ("m", "multi", "dpo", 1, "rm", 64, "en"))]  # fmt: skip
    script("summary", "--root", results, *runs, "--judged", "--output", results / "summary.csv")
    by_key = read(results)[1]
    row = by_key["dpo", "1", "en", "arena", "win_rate_single_order", "base"]
    worth = [
        (VALUE[line["verdicts"]["answer_first"][0]], line["lengths"][0] - line["baseline_lengths"][0])
        for line in drawn
        if line["score"] is not None
    ]
    preferences, d = np.array(worth).T
    assert row["n"] == str(len(preferences)) and len(preferences) < 200
    assert 100 * number(row, "value") == pytest.approx(100 * sum(preferences) / len(preferences), abs=0.01)
    error = (sum((preferences - preferences.mean()) ** 2) / (len(preferences) - 1) / len(preferences)) ** 0.5
    assert 100 * number(row, "se") == pytest.approx(100 * error, abs=0.01)
    assert 100 * number(by_key["dpo", "1", "en", "arena", "win_rate_lc", "base"], "value") == pytest.approx(
        100 * fit_length_control(d, preferences), abs=0.01
    )


def test_rewards_are_compared_with_the_bases_and_with_verdicts(summarised):
    _, by_key = read(summarised)
    files = [summarised / f"m/{run}/fidelity/rm/en.jsonl" for run in ("multi/other", "untuned/base")]
    ours, theirs = ([np.mean(json.loads(line)["rewards"][:2]) for line in path.read_text().splitlines()] for path in files)  # fmt: skip
    reward = by_key["other", "1", "en", "fidelity", "reward", "base"]
    assert number(reward, "delta") == pytest.approx(np.mean(ours) - np.mean(theirs), abs=1e-5)
    base = by_key["base", "1", "en", "fidelity", "reward", ""]
    assert number(base, "value") == pytest.approx(np.mean(theirs), abs=1e-5) and base["reward_model"] == "rm"
    scores = [
        json.loads(line)["score"] for line in (summarised / "m/multi/other/arena/en.jsonl").read_text().splitlines()
    ]
    told = [(s > 0.5) == (a > b) for s, a, b in zip(scores, ours, theirs, strict=True) if s not in (None, 0.5)]
    agreement = by_key["other", "1", "en", "arena", "reward_judge_agreement", "chance"]
    assert number(agreement, "value") == pytest.approx(np.mean(told), abs=1e-5) and agreement["n"] == str(len(told))


def test_replicates_and_contrasts_of_each_seed(summarised):
    table, by_key = read(summarised)
    for baseline in ("base", "other"):
        seeds = [by_key[f"dpo{s}", str(i), "all", "arena", "win_rate", baseline if baseline == "base" else f"other{s}"] for i, s in enumerate(("", ".s2", ".s3"), 1)]  # fmt: skip
        pooled = by_key["dpo", "all", "all", "arena", "win_rate", baseline]
        assert number(pooled, "delta") == pytest.approx(np.mean([number(row, "delta") for row in seeds]), abs=1e-5)
        estimate = number(pooled, "value" if baseline == "base" else "delta")
        ends = [number(pooled, f"{'value' if baseline == 'base' else 'delta'}_{side}") for side in ("low", "high")]
        assert ends[0] < estimate < ends[1] and pooled["p_adjusted"]
    assert {row["setting"] for row in table if row["seed"] == "all"} == {"dpo", "other"}
    assert not [row for row in table if row["seed"] == "all" and row["pool"] == "untuned"]


def test_declared_rows_are_adjusted_and_all_others_have_a_discovery_rate(summarised):
    table, _ = read(summarised)
    declared = [row for row in table if row["p_adjusted"]]
    assert {(row["setting"], row["seed"], row["baseline"]) for row in declared} == {(  "dpo", seed, versus) for seed in ("1", "all") for versus in ("base", "other")}  # fmt: skip
    for row in table:
        assert bool(row["p"]) == bool(row["p_adjusted"] or row["q"]) and not (row["p_adjusted"] and row["q"])
        assert bool(row["p"]) == bool(row["baseline"]) == bool(row["delta_low"]) and bool(row["se"]) == bool(row["mde"])
        assert not row["q"] or number(row, "q") >= number(row, "p") * (1 - 1e-5)


def test_a_missing_file_is_an_error_and_with_partial_a_gap(results):
    (results / "m/multi/dpo.s2/arena/de.jsonl").unlink()
    (results / "m/untuned/base/fidelity/en.jsonl").unlink()
    done = script("summary", *options(results), check=False)
    assert done.returncode == 1 and "no such file" in done.stderr and "Traceback" not in done.stderr
    assert not (results / "summary.csv").exists()
    script("summary", *options(results, "--partial"))
    gaps = json.loads((results / "summary.manifest.json").read_text())["gaps"]
    assert gaps == [
        {"run": "m/untuned/base", "language": "en", "what": "fidelity"},
        {"run": "m/multi/dpo.s2", "language": "de", "what": "arena"},
    ]
    _, by_key = read(results)
    assert ("dpo.s2", "2", "en", "arena", "win_rate", "base") in by_key
    assert ("dpo.s2", "2", "de", "arena", "win_rate", "base") not in by_key
    wins = [key for key in by_key if key[:1] == ("dpo.s2",) and key[2:4] == ("all", "arena")]
    assert not wins and ("dpo", "all", "all", "arena", "win_rate", "base") not in by_key, "no mean over fewer languages"
    assert by_key["dpo", "1", "all", "arena", "win_rate", "base"]["languages"] == "en,de"
    told = json.loads((results / "summary.manifest.json").read_text())["not_pooled"]
    for missing in ({"languages": ["de"]}, {"seeds": ["2"]}):
        name = "m/multi/dpo.s2" if "languages" in missing else "m/multi/dpo"
        assert {"run": name, "task": "arena", "metric": "win_rate", "baseline": "base", "missing": missing} in told
    assert ("dpo", "1", "en", "fidelity", "n_tokens", "base") not in by_key
    assert ("dpo", "1", "all", "fidelity", "n_tokens", "base") not in by_key
    assert ("dpo", "1", "de", "fidelity", "n_tokens", "base") in by_key
    script("summary", *options(results, "--partial")[:1], results / "nowhere", *options(results, "--partial")[2:])
    assert len((results / "summary.csv").read_text().splitlines()) == 1, "nothing there, and a header"


def test_a_run_table_with_a_run_twice_or_without_a_base_is_refused(results):
    given = options(results)
    table = rows(results / "runs.jsonl")
    for lines, says in (
        ([*table, table[1]], "runs.jsonl:8: a second row of the run m/multi/dpo"),
        (table[1:], "runs.jsonl: no base, the untuned policy, of m"),
    ):
        write_rows(results / "runs.jsonl", lines)
        done = script("summary", *given, check=False)
        assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr
        assert not (results / "summary.csv").exists()


def test_a_group_counts_once_and_its_variants_share_their_documents(results):
    """Two variants of a prompt over the same documents, and a group of two tasks of different sizes."""
    expected = {}
    for run, right in (("untuned/base", 4), ("multi/dpo", 9)):
        parts = {"v1": ("d", 12), "v2": ("d", 12), "big": ("b", 12), "small": ("s", 4)}
        lines = [{"task": task, "prompt_id": None, "doc_hash": f"{documents}{i}", "target": "x", "response": "x", "acc": float(i < right)} | ({"f1": 1.0} if task == "big" else {}) for task, (documents, size) in parts.items() for i in range(size)]  # fmt: skip
        write_rows(results / f"m/{run}/eval/en.samples.jsonl", lines)
        found = {task: {"n": 1} | ({"suite": "group"} if task in ("big", "small") else {}) for task in parts}
        (results / f"m/{run}/eval/en.json").write_text(json.dumps(found))
        expected[run] = (right / 12 + 1) / 2
    runs = ["--runs", write_runs(results / "runs.jsonl", ("m", "untuned", "base", 1, "-", "-", "en"), ("m", "multi", "dpo", 1, "rm", 64, "en"))]  # fmt: skip
    script("summary", "--root", results, *runs, "--output", results / "summary.csv")
    table, by_key = read(results)
    group = by_key["dpo", "1", "en", "group", "acc", "base"]
    assert number(group, "value") == pytest.approx(expected["multi/dpo"], abs=1e-5) and group["n"] == "16"
    assert number(group, "delta") == pytest.approx(expected["multi/dpo"] - expected["untuned/base"], abs=1e-5)
    both, one = (by_key["dpo", "1", "en", task, "acc", "base"] for task in ("v1+v2", "v1"))
    assert both["n"] == one["n"] == "12", "a document is drawn with all its variants"
    same = ("value", "delta", "se", "delta_low", "delta_high", "p")
    assert [both[name] for name in same] == [one[name] for name in same], "equal variants add nothing"
    suites = {
        (row["task"], row["suite"]) for row in table
    }  # a metric that one task alone has counts in no mean, either
    assert suites == {("v1", "v1+v2"), ("v2", "v1+v2"), ("big", "group"), ("small", "group"), ("v1+v2", ""), ("group", "")}  # fmt: skip


def write_group(folder, language, values):
    """Two tasks of one group, of whose error rate lower is better: {task: [value]}."""
    lines = [{"task": task, "prompt_id": None, "doc_hash": f"{language}{task}{i}", "target": "x", "response": "x", "ter": value, "lower_is_better": ["ter"]} for task, some in values.items() for i, value in enumerate(some)]  # fmt: skip
    write_rows(folder / f"eval/{language}.samples.jsonl", lines)
    (folder / f"eval/{language}.json").write_text(json.dumps({task: {"n": 1, "suite": "group"} for task in values}))


def test_less_is_better_in_a_group_and_a_language_that_is_missing_leaves_no_mean(results):
    for run, values in (("untuned/base", [0.9, 0.7]), ("multi/dpo", [0.5, 0.5])):
        for language in ("en", "de"):
            write_group(results / f"m/{run}", language, {"one": values * 15, "two": values * 10})
    runs = ["--runs", write_runs(results / "runs.jsonl", ("m", "untuned", "base", 1, "-", "-", "en,de"), ("m", "multi", "dpo", 1, "rm", 64, "en,de"))]  # fmt: skip
    options = ("--root", results, *runs, "--partial", "--output", results / "summary.csv")
    script("summary", *options)
    _, by_key = read(results)
    for task in ("one", "two", "group"):
        for language in ("en", "de", "all"):
            row = by_key["dpo", "1", language, task, "ter", "base"]
            assert [number(row, name) for name in ("value", "baseline_value", "delta")] == pytest.approx([0.5, 0.8, 0.3])  # fmt: skip
            assert 0 < number(row, "delta_low") < 0.3 < number(row, "delta_high"), "better is positive"
    for kind in ("json", "samples.jsonl"):
        (results / f"m/multi/dpo/eval/de.{kind}").unlink()
    script("summary", *options)
    _, by_key = read(results)
    found = {key[3] for key in by_key if key[0] == "dpo" and key[2] == "en"}
    assert {"one", "two", "group"} <= found
    assert not [key for key in by_key if key[0] == "dpo" and key[2:4] in {("all", name) for name in found - {"fidelity"}}]  # fmt: skip
    told = json.loads((results / "summary.manifest.json").read_text())["not_pooled"]
    assert {"run": "m/multi/dpo", "task": "group", "metric": "ter", "baseline": "base", "missing": {"languages": ["de"]}} in told  # fmt: skip


def test_answers_that_get_worse_have_a_negative_change(results):
    """More cut-off, repeated or alike answers are worse, and longer ones are neither."""
    for path in (results / "m/multi/dpo/fidelity").glob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        worse = {"truncated": [True, True], "repetition": [0.5, 0.75], "self_similarity": 0.5, "n_tokens": [9, 11]}
        write_rows(path, [line | worse for line in lines])
    script("summary", *options(results))
    _, by_key = read(results)
    for metric, delta in (("truncated", -0.5), ("repetition", -0.375), ("self_similarity", -0.25), ("n_tokens", 5)):
        row = by_key["dpo", "1", "all", "fidelity", metric, "base"]
        assert number(row, "delta") == pytest.approx(delta)
        assert number(row, "delta_low") < delta < number(row, "delta_high")
        change = number(row, "value") - number(row, "baseline_value")
        assert change == pytest.approx(delta if metric == "n_tokens" else -delta)


def test_a_contrast_without_a_result_stays_in_its_family(results):
    """Three contrasts of which one has no result: the smallest p is multiplied by three."""
    more = ["--contrast", "other", "multi", "base"]
    for setting in ("other", "other.s2"):
        (results / f"m/multi/{setting}/arena/de.jsonl").unlink()
    script("summary", *options(results, *more, "--partial"))
    table, _ = read(results)
    for seed in ("1", "all"):
        # Neither other - base nor dpo - other has a mean.
        [row] = [row for row in table if row["p_adjusted"] and row["seed"] == seed]
        assert (row["setting"], row["baseline"]) == ("dpo", "base")
        assert number(row, "p_adjusted") == pytest.approx(min(1, 3 * number(row, "p")), rel=1e-4)


def test_a_contrast_without_a_p_stays_in_its_family(results):
    """Of three contrasts over seeds two have one prompt each, and so no p."""
    for path in results.glob("m/multi/other*/arena/*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        write_rows(path, [line | ({} if line["prompt_id"] == "p5" else {"score": None}) for line in lines])
    script("summary", *options(results, "--contrast", "other", "multi", "base"))
    _, by_key = read(results)
    dpo, *others = (
        by_key[setting, "all", "all", "arena", "win_rate", versus]
        for setting, versus in (("dpo", "base"), ("dpo", "other"), ("other", "base"))
    )
    assert {(row["n"], row["p"], row["p_adjusted"]) for row in others} == {("1", "", "")}
    assert number(dpo, "p_adjusted") == pytest.approx(min(1, 3 * number(dpo, "p")), rel=1e-4)


def test_runs_on_other_prompts_are_refused(results):
    path = results / "m/multi/dpo/eval/en.samples.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    done = script("summary", *options(results), check=False)
    assert done.returncode == 1 and "do not share all prompts of t" in done.stderr and "Traceback" not in done.stderr


def test_imported_rows_stand_at_the_end(summarised, results):
    table, _ = read(summarised)
    row = dict.fromkeys(table[0], "") | {"model": "m", "setting": "dpo", "seed": "1", "task": "euroeval/x", "value": "0.5"}  # fmt: skip
    with open(results / "imported.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)
    script("summary", *options(results, "--imported", results / "imported.csv"))
    again, _ = read(results)
    assert again == [*table, row]
    (results / "imported.csv").write_text("model,language\n")
    done = script("summary", *options(results, "--imported", results / "imported.csv"), check=False)
    assert done.returncode == 1 and "imported.csv:1" in done.stderr and "Traceback" not in done.stderr


def import_euroeval(folder, total):
    """scripts/import_results.py on one result of the untuned model, whose numbers are JSON in a text."""
    record = {"model": "m", "dataset": "x", "task": "knowledge", "languages": ["de"], "results": {"total": "HERE"}}
    path, table = folder / "r.jsonl", write_runs(folder / "runs.jsonl", ("m", "untuned", "base", 1, "-", "-", "en,de"))
    path.write_text(json.dumps(record).replace('"HERE"', total) + "\n")
    return script(
        "import_results", "--import", "other", path, "euroeval", "--root", folder, "--runs", table,
        "--output", folder / "imported.csv", check=False,
    )  # fmt: skip


def test_a_standard_error_that_euroeval_does_not_know_is_none(tmp_path):
    done = import_euroeval(tmp_path, '{"test_mcc": 40.0, "test_mcc_se": NaN}')
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "imported.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["value"], row["se"]) == ("0.4", "")
    for total in ('{"test_mcc": NaN, "test_mcc_se": 1.0}', '{"test_mcc": 1.0, "test_mcc_se": Infinity}'):
        done = import_euroeval(tmp_path, total)
        assert done.returncode == 1 and "r.jsonl:1: broken JSON" in done.stderr and "Traceback" not in done.stderr


def test_a_result_too_large_for_a_number_is_counted(tmp_path):
    done = import_euroeval(tmp_path, json.dumps({"test_mcc": 10**400}))
    assert done.returncode == 0, done.stderr
    counts = json.loads((tmp_path / "imported.manifest.json").read_text())["counts"]["other"]
    assert counts == {"rows": 0, "left out": {"not a number": 1}}
