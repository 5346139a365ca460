"""The workflow as a whole: a real run on a small grid, and what re-runs when something grows or changes."""

import csv
import json
import shutil

import pytest
import yaml
from conftest import planned, rows, script, snakemake

CONFIG = ("--configfile", "two_languages.yaml")
RESULTS = "results/small"
# What a config with policies of its own must say.
ANSWERS = {"judge": "none", "tasks": [], "samples": 2, "temperature": 0, "max_tokens": 16}


def read_bytes(folder):
    """Every declared file's bytes; time stamps live in manifests, benchmarks, logs and on the page that shows these."""
    skip = ("manifest.json", ".log", ".tsv", "report.html")
    files = (
        path
        for path in (folder / RESULTS).rglob("*")
        if path.is_file() and not {"state", ".snakemake"} & set(path.parts)
    )
    return {path.relative_to(folder): path.read_bytes() for path in files if not path.name.endswith(skip)}


@pytest.fixture
def grown(finished_run, tmp_path):
    """The finished run's project with another config: a function from changed keys to --configfile arguments."""

    def configure(**changes):
        config = yaml.safe_load((finished_run / "two_languages.yaml").read_text(encoding="utf-8"))
        path = tmp_path / "grown.yaml"
        path.write_text(yaml.safe_dump({**config, **changes}, allow_unicode=True), encoding="utf-8")
        return ("--configfile", path)

    return configure


def base_config(project):
    return yaml.safe_load((project / "two_languages.yaml").read_text(encoding="utf-8"))


def test_run_leaves_every_output_whole(finished_run):
    results = finished_run / RESULTS
    for language in ("en", "de"):
        prompts = [row["prompt_id"] for row in rows(results / "prompts" / f"{language}.jsonl")]
        generations = rows(results / "mini" / language / "generations.jsonl")
        scores = rows(results / "mini" / language / "scores" / "english.jsonl")
        assert [line["prompt_id"] for line in generations] == [line["prompt_id"] for line in scores] == prompts
        assert len(prompts) == 16 and all(len(line["responses"]) == 8 for line in generations)
        assert all(len(line["rewards"]) == 8 and None not in line["rewards"] for line in scores)
        base = results / "mini" / "untuned" / "base"
        for name in ("answers", "fidelity", "fidelity/english"):
            assert len(rows(base / name / f"{language}.jsonl")) == 10
    ledger = json.loads((results / "mini" / "multi" / "dpo_random" / "ledger.json").read_text())
    assert ledger["prompts"] == 16 == ledger["formed"] + sum(ledger["no_pair"].values())
    assert len(rows(results / "mini" / "multi" / "dpo_random" / "pairs.jsonl")) == ledger["formed"]
    assert not list(results.rglob("*.partial")) and not (results / "miniature" / "other").exists()


def test_adapter_was_really_evaluated(finished_run):
    """The tuned model's answers differ from the base's, and lm-eval's samples are paired by document."""
    run = finished_run / RESULTS / "mini"
    base, tuned = (rows(run / name / "answers" / "en.jsonl") for name in ("untuned/base", "en/dpo"))
    assert [line["responses"] for line in base] != [line["responses"] for line in tuned]
    samples = [rows(run / name / "eval" / "en.samples.jsonl") for name in ("untuned/base", "en/dpo")]
    assert [s["doc_hash"] for s in samples[0]] == [s["doc_hash"] for s in samples[1]]
    assert {s["task"] for s in samples[0]} == {"heldout", "untouched"} and all(
        s["exact_match"] in (0, 1) for s in samples[0]
    )
    arena = rows(run / "en" / "dpo" / "arena" / "en.jsonl")
    assert len(arena) == 10 and all(0 <= line["score"] <= 1 for line in arena)


def test_summary_agrees_with_the_files_it_came_from(finished_run):
    with open(finished_run / RESULTS / "summary.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    wins = [row for row in table if row["metric"] == "win_rate" and row["setting"] == "dpo_random"]
    assert {row["eval_language"] for row in wins} == {"en", "de", "all"}
    scores = {code: [line["score"] for line in rows(finished_run / RESULTS / "mini/multi/dpo_random/arena" / f"{code}.jsonl")] for code in ("en", "de")}  # fmt: skip
    by_language = {row["eval_language"]: float(row["value"]) for row in wins}
    for code in ("en", "de"):
        assert by_language[code] == pytest.approx(sum(scores[code]) / 10, abs=1e-5)
    assert by_language["all"] == pytest.approx((sum(scores["en"]) + sum(scores["de"])) / 20, abs=1e-5)
    declared = [row for row in table if row["p_adjusted"]]
    assert declared and all(
        (row["metric"], row["eval_language"], row["baseline"]) == ("win_rate", "all", "base") for row in declared
    )
    for row in table:
        for name in ("value", "delta"):
            if row[f"{name}_low"]:
                assert float(row[f"{name}_low"]) <= float(row[name]) <= float(row[f"{name}_high"])


def test_second_run_has_nothing_to_do(finished_run):
    output = snakemake(finished_run, "--cores", 1, *CONFIG)
    assert "Nothing to be done" in output.stdout + output.stderr


def test_looks_re_run_nothing_and_behaviour_does(finished_run, tmp_path):
    """Comments, docstrings and layout of a script, a helper and a rule; then what must not be missed."""
    edits = [
        ("scripts/build_pairs.py", '"""Form preference', '"""Build preference', set()),
        ("scripts/train.py", "NOT_IN_CACHE_KEY = [", "# these options\nNOT_IN_CACHE_KEY = [", set()),
        ("scripts/croco/pairs/rules.py", '"""Indices (chosen', '"""The indices (chosen', set()),
        ("rules/train.smk", '"""Tunes a policy with LoRA or', '"""Tuning with LoRA or', set()),
        ("requirements.lock", "# Every version", "# All versions", set()),
        ("scripts/croco/pairs/rules.py", "mean - 2 * std", "mean - 2.5 * std", {"build_pairs"}),
        ("scripts/croco/evaluation/verdicts.py", '"tie": 0.5', '"tie": 0.4', {"judge_language", "judge_multi"}),
        ("two_languages.yaml", "learning_rate: 1.0e-3", "learning_rate: 2.0e-3", {"train"}),
        ("requirements.lock", "numpy==", "numpy==1", {"generate", "train", "miniature_world"}),
        (
            "scripts/check_template.py",
            "report = examine",
            "report = None or examine",
            {"check_template", "check_role_template", "check_models", "generate", "score", "train"},
        ),
        ("requirements-vllm.lock", "vllm==", "vllm==1", set()),
    ]
    for file, old, new, expected in edits:
        path = finished_run / file
        text = path.read_text(encoding="utf-8")
        assert old in text, file
        try:
            path.write_text(text.replace(old, new, 1), encoding="utf-8")
            jobs = planned(finished_run, *CONFIG)
        finally:
            path.write_text(text, encoding="utf-8")
        assert expected <= set(jobs) if expected else not jobs, (file, new, jobs)
        if expected == {"build_pairs"}:
            assert not {"generate", "score", "select_train"} & set(jobs)


def test_more_prompts_make_only_new_blocks(finished_run, grown):
    """16 prompts in blocks of 8 are 2 finished blocks; 24 add a third one, also of what is scored and identified."""
    config = base_config(finished_run)
    made = f"{RESULTS}/miniature"
    prompts = [{**row, "path": row["path"].replace("{results}", RESULTS)} for row in config["prompts"]]
    settings = [
        {**row, "hygiene": ["wrong_language"]} if row["objective"] == "dpo" else row for row in config["settings"]
    ]
    config = {
        "block": 8,
        "results": "results/blocks",
        "settings": settings,
        "policies": [{"name": "mini", "path": f"{made}/policy", "temperature": 0.6, "max_tokens": 32}],
        "reward_models": [{"name": "english", "path": f"{made}/reward", "max_length": 128}],
        "evaluation": ANSWERS,
        "contrasts": [],
    }
    targets = [
        f"results/blocks/mini/{code}/{name}.jsonl"
        for code in ("en", "de")
        for name in ("generations", "languages", "scores/english")
    ]
    arguments = grown(**config, prompts=prompts)
    snakemake(finished_run, *targets, "--cores", 2, *arguments)
    assert not planned(finished_run, *targets, *arguments)
    more = [{**row, "limit": 24} if row["use"] == "train" else row for row in prompts]
    assert planned(finished_run, *targets, *grown(**config, prompts=more)) == {
        "select_train": 2, "gather_prompts_train": 2, "check_contamination": 2, "generate": 2, "gather_generations": 2, "identify": 2,
        "gather_languages": 2, "score": 2, "gather_scores": 2,
    }  # fmt: skip
    results = finished_run / "results" / "blocks"
    whole = (finished_run / RESULTS / "mini/en/generations.jsonl").read_bytes()
    assert (results / "mini/en/generations.jsonl").read_bytes() == whole
    found = rows(results / "mini/en/languages.jsonl")
    assert [len(line["languages"]) for line in found] == [8] * 16
    assert {code for line in found for code in line["languages"]} & {None, "en"}


def test_prompts_from_a_dataset_own_translations_and_a_translator(finished_run, grown):
    """English from a dataset, German from the user's file, Dutch by a model (which here only copies or fails)."""
    import datasets

    made = f"{RESULTS}/miniature"
    english = rows(finished_run / made / "prompts/train/en.jsonl")
    datasets.Dataset.from_list(english).to_parquet(finished_run / "data/dataset/train.parquet")
    train = {"use": "train", "dataset": "data/dataset", "limit": 6, "translator": "tiny"}
    train["translations"] = [{"language": "de", "path": f"{made}/prompts/train/de.jsonl"}]
    evaluate = {"use": "evaluate", "path": f"{made}/prompts/dev/{{language}}.jsonl", "limit": 4}
    arguments = grown(
        results="results/translated",
        block=4,
        languages=[{"code": code} for code in ("en", "de", "nl")],
        prompts=[train, evaluate],
        translators=[
            {
                "name": "tiny",
                "path": f"{made}/policy",
                "format": "template",
                "template": "{target_name}: {text}",
                "max_tokens": 24,
                "attempts": 2,
            }
        ],
        policies=[{"name": "mini", "path": f"{made}/policy", "temperature": 0.6, "max_tokens": 32}],
        reward_models=[{"name": "english", "path": f"{made}/reward", "max_length": 128}],
        evaluation=ANSWERS,
        contrasts=[],
    )
    results = "results/translated"
    targets = [f"{results}/{name}.jsonl" for name in ("prompts/en", "prompts/de", "mini/nl/generations")]
    snakemake(finished_run, *targets, "--cores", 2, *arguments)
    found = {code: rows(finished_run / results / f"prompts/{code}.jsonl") for code in ("en", "de", "nl")}
    assert [r["prompt_id"] for r in found["en"]] == [r["prompt_id"] for r in found["de"]] == [r["prompt_id"] for r in found["nl"]]  # fmt: skip
    assert len(found["en"]) == 6 and found["de"][0]["source"].startswith("de.jsonl:")
    assert json.loads((finished_run / results / "templates/translator/tiny.json").read_text())["errors"] == 0
    generations = rows(finished_run / results / "mini/nl/generations.jsonl")
    for prompt, line in zip(found["nl"], generations, strict=True):
        assert (prompt["skip"], len(line["responses"])) == (line["skip"], 0 if line["skip"] else 8)
        assert prompt["source"].startswith("en by ") and prompt["language"] == "nl"
    assert not planned(finished_run, *targets, *arguments)
    counts = json.loads((finished_run / results / "prompts/nl.manifest.json").read_text())["counts"]
    assert counts["prompts"] == 6 and sum(counts["skipped"].values()) == sum(bool(r["skip"]) for r in found["nl"])


def test_another_reward_model_regenerates_nothing(finished_run, grown):
    """A second reward model scores the same responses; its setting stands beside the first one's in the summary."""
    config = base_config(finished_run)
    default = yaml.safe_load((finished_run / "config/config.yaml").read_text(encoding="utf-8"))
    other = finished_run / "models" / "other_reward"
    if not other.exists():
        shutil.copytree(finished_run / RESULTS / "miniature/reward", other)
        negate_head(other / "model.safetensors")
    rewards = [*default["reward_models"], {"name": "other", "path": str(other), "max_length": 128}]
    row = next(row for row in config["settings"] if row["name"] == "dpo")
    settings = [
        *config["settings"],
        {**row, "name": "dpo_other", "reward_model": "other", "pools": ["en"], "hygiene": "paper"},
    ]
    arguments = grown(reward_models=rewards, settings=settings)
    assert planned(finished_run, *arguments) == {
        "all": 1, "check_role_template": 1, "check_models": 1, "audit_reward": 1, "score": 1, "gather_scores": 1, "build_pairs": 1, "train": 1, "evaluate_language": 1, "judge_language": 1,
        "measure_language": 1, "score_answers_language": 1, "score_answers_multi": 1, "write_runs": 1, "write_plan": 1, "summarise": 1, "check_findings": 1, "write_report": 1,
    }  # fmt: skip
    before = read_bytes(finished_run)
    snakemake(finished_run, "--cores", 2, *arguments)
    mine, its = (rows(finished_run / RESULTS / "mini/en/scores" / f"{name}.jsonl") for name in ("english", "other"))
    assert [[-reward for reward in line["rewards"]] for line in mine] == [
        [pytest.approx(reward, abs=1e-5) for reward in line["rewards"]] for line in its
    ]
    with open(finished_run / RESULTS / "summary.csv", encoding="utf-8") as file:
        found = {(row["setting"], row["reward_model"]) for row in csv.DictReader(file) if row["metric"] == "win_rate"}
    assert {("dpo", "english"), ("dpo_other", "other")} <= found
    shutil.rmtree(finished_run / RESULTS / "mini/en/dpo_other")
    (finished_run / RESULTS / "mini/en/scores/other.jsonl").unlink()
    (finished_run / RESULTS / "templates/reward/other.json").unlink()
    shutil.rmtree(finished_run / RESULTS / "mini/en/scores/other")
    shutil.rmtree(finished_run / RESULTS / "mini/untuned/base/fidelity/other")
    for path in (finished_run / RESULTS / "audit").glob("other.*"):
        path.unlink()
    snakemake(finished_run, "--cores", 2, *CONFIG)
    assert read_bytes(finished_run) == before


def negate_head(path):
    """Turns a reward model into one that prefers the opposite."""
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    weights["score.weight"] = -weights["score.weight"]
    save_file(weights, path, metadata={"format": "pt"})


def test_responses_of_another_policy_are_not_taken_for_the_tuned_ones(finished_run, tmp_path):
    """The pairs' ledger names the policy; another model refuses them unless told that they are off-policy."""
    run = finished_run / RESULTS / "mini/en/dpo"
    ledger = json.loads((run / "ledger.json").read_text())
    assert len(ledger["policies"]) == 1
    changed = tmp_path / "policy"
    shutil.copytree(finished_run / RESULTS / "miniature/policy", changed)
    config = json.loads((changed / "generation_config.json").read_text())
    (changed / "generation_config.json").write_text(json.dumps({**config, "temperature": 0.5}))
    options = (
        "--objective", "dpo", "--data", run / "pairs.jsonl", "--ledger", run / "ledger.json", "--model", changed, "--batch", 8,
        "--micro-batch", 8, "--state", tmp_path / "state", "--output", tmp_path / "out",
    )  # fmt: skip
    done = script("train", *options, check=False)
    assert done.returncode == 1 and "off-policy" in done.stderr and "ledger.json" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
    script("train", *options, "--off-policy", "--learning-rate", "1e-4", "--max-length", 128)


def test_preview_shows_pairs_and_takes_votes_back(finished_run, grown, tmp_path):
    """The target `preview`, a ballot filled in by hand and put back, and a ballot that outlives a new run."""
    snakemake(finished_run, "preview", "--cores", 2, *CONFIG)
    folder = finished_run / RESULTS / "preview/mini"
    assert "chosen" in (folder / "dpo.html").read_text(encoding="utf-8")
    with open(folder / "dpo/de.csv", encoding="utf-8-sig", newline="") as file:
        ballot = list(csv.DictReader(file))
    assert len(ballot) == 10 and not any(row["vote"] for row in ballot)
    votes = tmp_path / "votes"
    votes.mkdir()
    with open(votes / "de.anna.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ballot[0])
        writer.writeheader()
        writer.writerows({**row, "vote": "a"} for row in ballot)
    arguments = grown(preview={"votes": str(votes)})
    assert planned(finished_run, "preview", *arguments) == {"preview": 1, "write_preview": 1}
    snakemake(finished_run, "preview", "--cores", 1, *arguments)
    with open(folder / "dpo/agreement.csv", encoding="utf-8") as file:
        agreement = {row["language"]: row for row in csv.DictReader(file)}
    assert agreement["de"]["votes"] == "10" and 0 <= float(agreement["de"]["agreement"]) <= 1
    assert agreement["en"]["votes"] == "0" and (folder / "dpo/de.csv").exists()
    snakemake(finished_run, "preview", "--cores", 1, *CONFIG)
    shutil.rmtree(finished_run / RESULTS / "preview")


def test_no_training_starts_before_the_models_are_checked(fresh_project):
    """SFT on references samples nothing, so no other job that waits for the checks comes before it."""
    jobs = planned(fresh_project, "results/miniature/mini/multi/sft/checkpoint/manifest.json")
    assert jobs["train"] == jobs["check_models"] == 1 and "generate" not in jobs and jobs["check_role_template"] >= 1


def test_more_prompts_and_samples_add_only_what_is_missing(finished_run, grown):
    """A real run: 16 -> 20 prompts and 8 -> 12 samples, for a setting whose pool_size keeps its pairs."""
    before = read_bytes(finished_run)
    config = base_config(finished_run)
    prompts = [{**row, "limit": 20} if row["use"] == "train" else row for row in config["prompts"]]
    arguments = grown(samples=12, prompts=prompts)
    targets = [f"{RESULTS}/mini/en/{name}.jsonl" for name in ("generations", "scores/english")]
    snakemake(finished_run, *targets, "--cores", 2, *arguments)
    manifest = json.loads((finished_run / RESULTS / "mini/en/generations.manifest.json").read_text())
    assert manifest["counts"]["responses"] == 240
    path = f"{RESULTS}/mini/en/generations.jsonl"
    old = [json.loads(line) for line in before[next(p for p in before if str(p) == path)].splitlines()]
    for line, earlier in zip(rows(finished_run / path), old, strict=False):
        assert line["prompt_id"] == earlier["prompt_id"] and line["responses"][:8] == earlier["responses"]
    # Back to the first config: everything is linked from state/, no model is loaded, and the bytes are the same.
    output = snakemake(finished_run, "--cores", 2, *CONFIG)
    assert "0 prompts to sample" in output.stdout + output.stderr
    assert "finished already" in output.stdout + output.stderr or "Nothing" in output.stdout + output.stderr
    assert read_bytes(finished_run) == before


def test_training_with_the_same_pairs_is_not_computed_again(finished_run, grown):
    """More samples than a setting's pool uses change the generations, but neither pairs nor adapter."""
    settings = [
        {**row, "pool_size": 8} if row["objective"] == "dpo" else row for row in base_config(finished_run)["settings"]
    ]
    before = read_bytes(finished_run)
    adapter = f"{RESULTS}/mini/multi/dpo_random/checkpoint/adapter_model.safetensors"
    output = snakemake(finished_run, adapter, "--cores", 2, *grown(samples=10, settings=settings))
    assert "finished already" in output.stdout + output.stderr
    assert (finished_run / adapter).read_bytes() == next(data for path, data in before.items() if str(path) == adapter)
    snakemake(finished_run, "--cores", 2, *CONFIG)
    assert read_bytes(finished_run) == before


def test_two_runs_give_the_same_bytes(finished_run):
    """A second run from nothing, in another output root: every result file equal to the first's."""
    config = base_config(finished_run)
    config["results"] = "results/again"
    (finished_run / "again.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    snakemake(finished_run, "--cores", 2, "--configfile", "again.yaml")
    first, again = finished_run / RESULTS, finished_run / "results" / "again"
    assert (first / "summary.csv").read_bytes() == (again / "summary.csv").read_bytes()
    for name in (
        "mini/en/generations.jsonl",
        "mini/en/dpo/pairs.jsonl",
        "mini/en/dpo/checkpoint/adapter_model.safetensors",
    ):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    shutil.rmtree(again)
