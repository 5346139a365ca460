"""Finished runs side by side: differences that are computed by hand, what is not compared and why, and wrong folders."""

import csv
import json
import os
import random
import re
import shutil

import pytest
from conftest import rows, script, write_rows
from pages import write_finished

from croco.results.compare import compare_arms, list_config_differences, read_finished


def set_scores(root, run, code, scores):
    """Gives the verdict on prompt number i of a language ``scores[i]``; other verdicts count 0.5."""
    path = root / "mini" / run / "arena" / f"{code}.jsonl"
    write_rows(path, [{**row, "score": scores.get(i, 0.5)} for i, row in enumerate(rows(path))])


def edit_lines(path, edit):
    """Replaces a file's rows by the list that ``edit`` makes of them."""
    write_rows(path, edit(rows(path)))


def edit_json(path, **keys):
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **keys}), encoding="utf-8")


def compare(*roots, output=None, check=True):
    """(finished process, rows of compare.csv by run, pool and setting, text of the page)."""
    output = output or roots[0].parent / "comparison"
    done = script("compare", *roots, "--output", output, check=check)
    if done.returncode:
        return done, {}, ""
    with open(output / "compare.csv", encoding="utf-8", newline="") as file:
        table = {(row["run"], row["pool"], row["setting"]): row for row in csv.DictReader(file)}
    page = (output / "compare.html").read_text(encoding="utf-8").split("<body>")[1]
    return done, table, " ".join(re.sub(r"<[^>]+>", " ", page).split())


@pytest.fixture
def pair(tmp_path):
    """Two finished runs with the same results, `a` and `b`."""
    return write_finished(tmp_path / "a"), write_finished(tmp_path / "b")


def test_differences_are_those_of_the_verdicts(pair):
    a, b = pair
    set_scores(b, "en/dpo", "en", dict.fromkeys(range(15), 1.0))
    set_scores(b, "multi/dpo", "en", dict.fromkeys(range(4), 1.0))
    set_scores(b, "multi/dpo.s2", "en", dict.fromkeys(range(8), 1.0))
    _, table, page = compare(a, b)
    alone, both = table["b", "en", "dpo"], table["b", "multi", "dpo"]
    # One language and seed: 15 of 20 prompts are half a unit higher.
    assert float(alone["difference"]) == pytest.approx(15 * 0.5 / 20)
    assert float(alone["difference_low"]) < 0.375 < float(alone["difference_high"])
    # Two languages, of which one differs; the mean over seeds of 4 and 8 prompts that are half a unit higher.
    assert float(both["difference"]) == pytest.approx(((4 + 8) / 2 * 0.5 / 20) / 2)
    assert (alone["shared_prompts"], alone["excluded_prompts"]) == ("20", "0")
    assert alone["reference"] == "a" and table["a", "en", "dpo"]["difference"] == ""
    assert "+37.5 percentage points" in page and alone["verdict"] == "higher"
    # The leaderboard's numbers are those of summary.csv.
    assert float(table["a", "en", "dpo"]["win_rate"]) == pytest.approx(0.6 + 1 / 100 + 1 / 1000)


@pytest.mark.parametrize("seed", range(3))
def test_a_copy_of_a_run_does_not_differ(tmp_path, seed):
    draw = random.Random(seed)
    a = write_finished(tmp_path / "a")
    for run, code in (("en/dpo", "en"), ("multi/dpo", "en"), ("multi/dpo", "de"), ("multi/dpo.s2", "de")):
        set_scores(a, run, code, {i: draw.choice([0.0, 0.25, 0.5, 1.0, None]) for i in range(20)})
    shutil.copytree(a, tmp_path / "b")
    compared = compare_arms(*read_finished([a, tmp_path / "b"]))
    assert [(each.pool, each.seeds) for each in compared] == [("en", 1), ("multi", 2)]
    for each in compared:
        assert each.difference == 0 and each.low <= 0 <= each.high and each.first_rate == each.second_rate
        assert each.reasons == () and each.verdict != "higher"


def test_prompts_that_are_not_shared_are_counted_with_the_reason(pair):
    a, b = pair
    set_scores(b, "en/dpo", "en", {0: 1.0, 17: None, 18: 1.0, 19: 1.0})

    def edit(prompts):
        prompts[18]["messages"][0]["content"] += "?"
        return [*prompts[:19], {**prompts[19], "prompt_id": "another"}]

    edit_lines(b / "prompts" / "evaluate" / "en.jsonl", edit)
    _, table, page = compare(a, b)
    found = table["b", "en", "dpo"]
    assert float(found["difference"]) == pytest.approx(0.5 / 17, abs=1e-6) and found["shared_prompts"] == "17"
    assert found["excluded_prompts"] == "4" and found["verdict"] == "fewer than 20 prompts"
    for reason in (
        "prompt only in a",
        "prompt only in b",
        "another text under the same id",
        "no readable verdict in b",
    ):
        assert f"en {reason} 1" in page


def change_judge(root):
    for path in root.glob("mini/en/dpo/arena/*.manifest.json"):
        edit_json(path, judge={"name": "oracle", "identity": "1234"})


def test_the_same_judge_with_another_prompt_is_another_judge(pair):
    """Also if both prompts are in files of one name."""
    for root, prompt in zip(pair, ("1", "2"), strict=True):
        for path in root.glob("mini/en/dpo/arena/*.manifest.json"):
            edit_json(path, judge={"name": "judge", "identity": "1234", "prompt": prompt})
    _, table, _ = compare(*pair)
    assert "the judge differs" in table["b", "en", "dpo"]["no_difference_because"]


def test_a_judge_is_the_same_on_another_machine_and_by_its_commit(pair):
    """Options that say where and how fast it runs decide nothing, and its identity holds the commit."""
    options = ({"revision": None}, {"revision": "a" * 40, "engine_options": {"gpu_memory_utilization": 0.95}})
    for root, given in zip(pair, options, strict=True):
        for path in root.glob("mini/en/dpo/arena/*.manifest.json"):
            edit_json(path, judge={"name": "judge", "identity": "1234", "prompt": "1"}, options=given)
    _, table, _ = compare(*pair)
    assert float(table["b", "en", "dpo"]["difference"]) == 0


def forget_judge(root):
    for path in root.glob("mini/en/dpo/arena/*.manifest.json"):
        path.unlink()


def change_baseline(root):
    def edit(answers):
        answers[3]["responses"][0]["text"] += "!"
        return answers

    edit_lines(root / "mini" / "untuned" / "base" / "answers" / "en.jsonl", edit)


def change_prompts(root):
    edit_lines(
        root / "prompts" / "evaluate" / "en.jsonl",
        lambda prompts: [{**row, "messages": [{"role": "user", "content": "Another"}]} for row in prompts],
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_judge, "the judge differs"),
        (forget_judge, "the judge is unknown: b has no mini/en/dpo/arena/en.manifest.json"),
        (change_baseline, "the baseline differs: other answers to 1 of 20 shared prompts in en"),
        (change_prompts, "no shared prompt has a verdict in both runs"),
        (lambda root: (root / "prompts/evaluate/en.jsonl").unlink(), "b has no prompts/evaluate/en.jsonl"),
    ],
)
def test_no_difference_of_what_is_not_comparable(pair, change, reason):
    """A null, not a zero, and the reason on the page."""
    change(pair[1])
    _, table, page = compare(*pair)
    found = table["b", "en", "dpo"]
    assert (found["difference"], found["difference_low"], found["shared_prompts"]) == ("", "", "")
    assert reason in found["no_difference_because"] and reason in page and found["verdict"] == "not compared"
    assert found["win_rate"] != "", "the leaderboard's number stays"


def test_arms_and_languages_of_one_run_only_are_listed(pair):
    a, b = pair

    def edit(runs):
        runs = [run for run in runs if (run["pool"], run["replicate"]) not in (("en", 1), ("multi", 2))]
        return [{**run, "batches": {"all": ["en"]}} if run["pool"] == "multi" else run for run in runs]

    edit_lines(b / "runs.jsonl", edit)
    _, table, page = compare(a, b)
    assert ("b", "en", "dpo") not in table and "(mini/en/dpo) a b" in page
    assert "language only in a 20" in page and "training seed 2 only in a" in page
    assert float(table["b", "multi", "dpo"]["difference"]) == 0


def test_page_shows_what_differs(tmp_path):
    a = write_finished(tmp_path / "a")
    b = write_finished(tmp_path / "b", settings=[{"name": "dpo", "beta": 0.2}], languages=["<script>"])
    for path in b.rglob("*manifest.json"):
        edit_json(path, code_commit="f" * 40, versions={"python": "3.11.7", "torch": "2.14.0"})
    _, _, page = compare(a, b)
    assert "settings.dpo.beta 0.1 0.2" in page and "languages not set [&#34;&lt;script&gt;&#34;]" in page
    assert "seed 0" not in page, "a key that is the same"
    assert "version of torch 2.13.0 2.14.0" in page and "version of python" not in page
    assert re.search(r"commit of the code 0123456789, 0123456789 with changes ffffffffff", page)


def test_differing_keys_of_several_configs():
    configs = [
        {"seed": 0, "pools": [{"name": "x", "n": 1}, {"name": "y"}], "judge": "none"},
        {"seed": 0, "pools": [{"name": "y"}, {"name": "x", "n": 2}], "judge": {"name": "none"}},
        {"seed": 0, "pools": [{"name": "y"}, {"name": "x", "n": 1}], "judge": "none"},
    ]
    assert list(list_config_differences(configs)) == [
        ("pools.x.n", [1, 2, 1]),
        ("judge", ["none", {"name": "none"}, "none"]),
    ]


def test_three_runs_are_compared_with_the_first(pair, tmp_path):
    shutil.copytree(pair[0], tmp_path / "more" / "a")
    _, table, _ = compare(pair[1], pair[0], tmp_path / "more" / "a")
    named = {run: row["reference"] for (run, pool, _), row in table.items() if pool == "en"}
    assert named == {"b": "", str(pair[0]): "b", str(tmp_path / "more" / "a"): "b"}


def test_unfinished_run_is_compared_with_a_badge(pair):
    a, b = pair
    (b / "partial").mkdir()
    (b / "summary.csv").rename(b / "partial" / "summary.csv")
    for name in ("de.jsonl", "de.manifest.json"):
        (b / "mini" / "multi" / "dpo" / "arena" / name).unlink()
        _, table, page = compare(a, b)
        assert "a: finished" in page and "b: partial" in page
        assert table["b", "en", "dpo"]["win_rate"] == table["a", "en", "dpo"]["win_rate"]
        assert "de no verdicts in b 20" in page and table["b", "multi", "dpo"]["difference"] == "0"
        assert table["b", "multi", "dpo"]["shared_prompts"] == "20", "those in English"


def test_a_language_without_verdicts_voids_no_other(pair):
    """Whatever else of it is not there yet."""
    a, b = pair
    for name in ("mini/multi/dpo/arena/de.jsonl", "mini/untuned/base/answers/de.jsonl", "prompts/evaluate/de.jsonl"):
        (b / name).unlink()
        _, table, page = compare(a, b)
        assert table["b", "multi", "dpo"]["difference"] == "0" and "de no verdicts in b" in page


def test_a_seed_without_verdicts_leaves_the_languages_to_the_others(pair):
    a, b = pair
    set_scores(b, "multi/dpo", "de", dict.fromkeys(range(4), 1.0))
    shutil.rmtree(b / "mini" / "multi" / "dpo.s2" / "arena")
    _, table, page = compare(a, b)
    found = table["b", "multi", "dpo"]
    assert float(found["difference"]) == pytest.approx(4 * 0.5 / 20 / 2) and found["excluded_prompts"] == "0"
    assert "training seed 2 has no verdicts in b" in page


def test_an_arm_without_verdicts_has_no_difference(pair):
    a, b = pair
    for setting in ("dpo", "dpo.s2"):
        shutil.rmtree(b / "mini" / "multi" / setting / "arena")
    _, table, page = compare(a, b)
    found = table["b", "multi", "dpo"]
    assert found["no_difference_because"] == "no shared prompt has a verdict in both runs"
    assert found["excluded_prompts"] == "40" and "has no verdicts in" not in page


def test_run_without_any_summary_is_partial(pair):
    a, b = pair
    (b / "summary.csv").unlink()
    _, table, page = compare(a, b)
    assert "b: partial" in page and table["b", "en", "dpo"]["win_rate"] == ""
    assert table["b", "en", "dpo"]["difference"] == "0", "the verdicts are there"


def test_bundle_is_a_run(pair):
    """An unpacked bundle has the config in config.json, and no records of Snakemake."""
    a, b = pair
    config = json.loads((b / ".snakemake" / "start.json").read_text(encoding="utf-8"))["config"]
    shutil.rmtree(b / ".snakemake")
    (b / "config.json").write_text(json.dumps({**config, "seed": 5}), encoding="utf-8")
    _, table, page = compare(a, b)
    assert "seed 0 5" in page and table["b", "en", "dpo"]["difference"] == "0"


@pytest.mark.parametrize(
    ("make", "problem", "remedy"),
    [
        (lambda root: root / "nothing", "no such folder", "give the folder that `results` of the config names"),
        (lambda root: root / "prompts", "no results folder: it has no runs.jsonl", "an unpacked bundle"),
        (lambda root: root / "runs.jsonl", "a file, not a folder", "tar -xzf"),
        (lambda root: root.parent, "no results folder", "/bundle, which has one"),
        (lambda root: root / "link", "the same folder as", "give each run once"),
    ],
)
def test_wrong_folder_is_refused(tmp_path, make, problem, remedy):
    root = write_finished(tmp_path / "bundle")
    os.symlink(root, root / "link")
    done, *_ = compare(root, make(root), output=tmp_path / "out", check=False)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {make(root)}: ")
    assert problem in done.stderr and remedy in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [".snakemake/start.json", "mini/en/dpo/arena/en.manifest.json", "runs.jsonl"])
def test_broken_file_is_refused(pair, name):
    (pair[1] / name).write_text('{"config": [1], "options": 2}\n', encoding="utf-8")
    done, *_ = compare(*pair, check=False)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {pair[1] / name}") and "Remedy: " in done.stderr


def test_one_run_is_refused(tmp_path):
    done, *_ = compare(write_finished(tmp_path / "a"), check=False)
    assert done.returncode == 1 and "give two or more results folders" in done.stderr
