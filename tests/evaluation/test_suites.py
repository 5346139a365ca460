"""Tasks of lm-eval by name, staged from a hub on the loopback interface and evaluated without a network."""

import csv
import json
import subprocess
import sys

import pytest
import yaml
from conftest import ENVIRONMENT, ROOT, copy_project, rows, script, snakemake, write_rows, write_runs
from hub import COMMIT, serving
from shipped import read_languages, read_shipped

from croco.errors import InputError
from croco.evaluation.tasks import list_evaluated, parse_tasks, refuse_overlap
from croco.planning.suites import find_suite_task

CHOICES = {"dataset_path": "json", "test_split": "test", "doc_to_text": "{{question}}"}
MEAN = {"aggregation": "mean", "higher_is_better": True}


def run(name, environment, *arguments):
    command = [sys.executable, ROOT / "scripts" / f"{name}.py", *arguments]
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def staged(miniature, tmp_path_factory):
    """(finished `stage`, folder of its manifest, environment without a network) of a model, a dataset and a task."""
    folder = tmp_path_factory.mktemp("hub")
    data = folder / "served/datasets/jumelet/multiblimp"
    write_rows(data / "deu/data.jsonl", [{"sen": f"{i} plus 2 ist gut.", "wrong_sen": f"{i} plus 2 sind gut."} for i in range(6)])  # fmt: skip
    (data / "README.md").write_text(
        "---\nconfigs:\n- config_name: deu\n  data_files:\n  - {split: train, path: deu/data.jsonl}\n---\n"
    )
    (folder / "served/models/org").mkdir(parents=True)
    (folder / "served/models/org/tiny").symlink_to(miniature / "policy")
    with serving(folder / "served") as address:
        online = {**ENVIRONMENT, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(folder / "home")}
        done = run(
            "stage", online, "--model", "tiny", "org/tiny", "main", "--model", "local", miniature / "reward", "-",
            "--dataset", "train", "jumelet/multiblimp", "deu", "main", "train", "--suite", "multiblimp_deu",
            "--state", folder / "state", "--output", folder / "stage.manifest.json",
        )  # fmt: skip
        missing = run(
            "stage", online, "--model", "a", "org/none", "-", "--tokenizer", "org/gone", "-", "--dataset", "d", "org/no-data", "-", "-", "train",
            "--suite", "no_such_task", "--state", folder / "state", "--output", folder / "missing.json",
        )  # fmt: skip
    return done, missing, folder, {**ENVIRONMENT, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}


def evaluate(miniature, prompts, environment, folder, *options):
    return run(
        "evaluate", environment, "--model", miniature / "policy", "--languages", "de", "--prompts", prompts["de"], "--max-tokens", 4,
        "--temperature", 0, "--batch", 16, "--state", folder / "state", "--output", folder / "run", *options,
    )  # fmt: skip


def test_stage_fetches_all_and_says_what_it_has(staged, miniature):
    done, _, folder, _ = staged
    assert done.returncode == 0, done.stderr
    items = {item["name"]: item for item in json.loads((folder / "stage.manifest.json").read_text())["items"]}
    size = sum(file.stat().st_size for file in (miniature / "policy").iterdir())
    assert (items["tiny"]["state"], items["tiny"]["revision"], items["tiny"]["bytes"]) == ("fetched", COMMIT, size)
    assert items["local"]["state"] == "local" and len(items["local"]["identity"]) == 32
    task = items["multiblimp_deu"]
    assert (task["kind"], task["path"], task["rows"]) == ("task", "jumelet/multiblimp", 6)
    assert task["revision"] == items["train"]["revision"] == COMMIT and task["bytes"] > 0


def test_stage_tells_all_that_is_missing_at_once(staged):
    _, missing, folder, offline = staged
    assert missing.returncode == 1 and "Traceback" not in missing.stderr and not (folder / "missing.json").exists()
    for said in ("4 of 4 items", "model a", "tokenizer org/gone", "dataset d", "no_such_task", "Remedy"):
        assert said in missing.stderr, missing.stderr
    # What was fetched is found without a network; what was not is told.
    again = run("stage", offline, "--model", "tiny", "org/tiny", "main", "--model", "b", "org/other", "-", "--state", folder / "state", "--output", folder / "again.json")  # fmt: skip
    assert again.returncode == 1 and "1 of 2 items" in again.stderr and "model b" in again.stderr


def test_stage_shows_no_credentials_of_the_hubs_address(tmp_path):
    with serving(tmp_path / "served") as address:
        mirror = address.replace("://", "://me:hunter2@")
        online = {**ENVIRONMENT, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": mirror, "HF_HOME": str(tmp_path / "home")}
        done = run(
            "stage", online, "--model", "a", "org/none", "-", "--dataset", "d", "org/no-data", "-", "-", "train",
            "--state", tmp_path / "state", "--output", tmp_path / "missing.json",
        )  # fmt: skip
    assert done.returncode == 1 and f"for url: {address}/api/models/org/none" in done.stderr, done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_stage_fetches_the_code_that_a_model_takes_from_another_repository(tmp_path):
    model, code = (tmp_path / "served/models/org" / name for name in ("borrower", "code"))
    classes = {"AutoConfig": "org/code--configuration_x.XConfig", "AutoTokenizer": [None, "org/gone--x.XTokenizer"]}
    for folder, config in ((model, {"model_type": "x", "auto_map": classes}), (code, {})):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").write_bytes(b"weights")
    text = "from transformers import PretrainedConfig\nclass XConfig(PretrainedConfig):\n    model_type = 'x'\n"
    (code / "configuration_x.py").write_text(text)
    with serving(tmp_path / "served") as address:
        online = {**ENVIRONMENT, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
        options = ["--state", tmp_path / "state", "--output", tmp_path / "stage.json"]
        done = run("stage", online, "--model", "x", "org/borrower", "-", *options)
    assert done.returncode == 0 and "warning: org/borrower: no code of org/gone" in done.stderr, done.stderr
    assert len(list((tmp_path / "home").rglob("model.safetensors"))) == 1
    load = "import transformers as t; print(t.AutoConfig.from_pretrained('org/borrower', trust_remote_code=True))"
    offline = {**online, "HF_HUB_OFFLINE": "1"}
    read = subprocess.run([sys.executable, "-c", load], env=offline, capture_output=True, text=True, check=False)
    assert read.stdout.startswith("XConfig"), read.stderr


def test_suite_and_own_tasks_offline(staged, miniature, prompts, tmp_path):
    """Choices, filters, metrics that are no number a document, limits; pairing by document."""
    *_, offline = staged
    data = write_rows(tmp_path / "d.jsonl", [{"id": "x", "question": f"{i} plus 1?", "options": ["a b", "c"], "answer": i % 2} for i in range(4)])  # fmt: skip
    choice = {**CHOICES, "output_type": "multiple_choice", "doc_to_choice": "{{options}}", "doc_to_target": "answer", "metric_list": [{"metric": "acc", **MEAN}, {"metric": "mcc"}]}  # fmt: skip
    filters = [{"name": name, "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}]} for name, pattern in (("strict-match", "^([0-9]+)$"), ("loose", "([0-9]+)"))]  # fmt: skip
    written = {**CHOICES, "output_type": "generate_until", "doc_to_target": "{{answer}}", "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4}, "filter_list": filters, "metric_list": [{"metric": "exact_match", **MEAN}]}  # fmt: skip
    options = []
    for name, task in (("choice", choice), ("written", written)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(task))
        options += ["--task", name, tmp_path / f"{name}.yaml", data]
    options += ["--task", "elsewhere", tmp_path / "choice.yaml", tmp_path / "none.jsonl", "en"]
    done = evaluate(miniature, prompts, offline, tmp_path, *options, "--suite", "de", "multiblimp_deu", "--suite-limit", 5)  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run/eval/de.json").read_text())
    assert {name: results[name]["n"] for name in results} == {"choice": 4, "written": 4, "multiblimp_deu": 5}
    assert results["multiblimp_deu"]["suite"] == "multiblimp_deu" and set(results["choice"]["left_out"]) == {"mcc"}
    assert -1 <= results["choice"]["left_out"]["mcc"] <= 1
    samples = rows(tmp_path / "run/eval/de.samples.jsonl")
    by_task = {name: [line for line in samples if line["task"] == name] for name in results}
    assert (
        set(by_task["written"][0]) >= {"exact_match_strict_match", "exact_match_loose"} and len(by_task["written"]) == 4
    )
    for line in by_task["choice"]:
        assert line["prompt_id"] is None and "mcc" not in line, "an id that is not unique pairs nothing"
        assert line["acc"] == (line["response"].index(max(line["response"])) == line["target"])
    assert len({line["doc_hash"] for line in samples if line["task"] == "multiblimp_deu"}) == 5
    mean = sum(line["acc"] for line in by_task["multiblimp_deu"]) / 5
    assert results["multiblimp_deu"]["acc"] == pytest.approx(mean) and "acc_norm" in by_task["multiblimp_deu"][0]
    before = (tmp_path / "run/eval/de.samples.jsonl").read_bytes()
    same = evaluate(miniature, prompts, offline, tmp_path, *options, "--suite", "de", "multiblimp_deu", "--suite-limit", 5)  # fmt: skip
    assert "to evaluate: none" in same.stderr and (tmp_path / "run/eval/de.samples.jsonl").read_bytes() == before
    more = evaluate(miniature, prompts, offline, tmp_path, *options, "--suite", "de", "multiblimp_deu", "belebele_deu_Latn")  # fmt: skip
    assert more.returncode == 1 and "to evaluate: de" in more.stderr and "snakemake stage" in more.stderr
    assert "1 tasks cannot be loaded" in more.stderr and "belebele_deu_Latn" in more.stderr
    assert "Traceback" not in more.stderr and "answers run" not in more.stderr, "before the model is loaded"


def test_a_name_that_lm_eval_lacks_ends_the_run_before_any_job(tmp_path):
    project = copy_project(tmp_path)
    table = project / "config/languages.tsv"
    table.write_text(table.read_text().replace("multiblimp_deu", "multiblimp_xyz"))
    config = yaml.safe_load((project / "two_languages.yaml").read_text())
    config["evaluation"] |= {"suite": ["acceptability"], "suite_limit": 3}
    (project / "suite.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(project, "-n", "--configfile", "suite.yaml", check=False)
    assert done.returncode == 1 and "no task multiblimp_xyz" in done.stderr and "check_language" in done.stderr


def test_stage_of_the_miniature_has_nothing_to_fetch(tmp_path):
    project = copy_project(tmp_path)
    snakemake(project, "stage", "--cores", 1)
    assert json.loads((project / "results/miniature/stage.manifest.json").read_text())["items"] == []


def euroeval(model, dataset, value, se, languages=("de",), **more):
    total = {"test_mcc": value, "test_mcc_se": se, "num_failed_instances": 0}
    return {"dataset": dataset, "task": "knowledge", "dataset_languages": list(languages), "model": model, "results": {"raw": [{"test_mcc": value / 100}] * 10, "total": total}, "few_shot": True, "validation_split": False, **more}  # fmt: skip


def import_results(folder, form, path, *more, runs=(), check=True):
    table = write_runs(folder / "runs.jsonl", ("m", "untuned", "base", 1, "-", "-", "en,de"), ("m", "multi", "dpo", 1, "rm", 64, "en,de"), *runs)  # fmt: skip
    return script(
        "import_results", "--import", "other", path, form, "--root", folder, "--policy", "m", "org/model", "--revision", "m", "abc", "--release", "m/multi/dpo", "me/tuned",
        *more, "--runs", table, "--output", folder / "imported.csv", check=check,
    )  # fmt: skip


def imported(folder):
    with open(folder / "imported.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_path_that_policies_share_names_none_of_them(tmp_path):
    """Such as one model with and without thinking, or two of its revisions."""
    other = ("--policy", "o", "org/model", "--revision", "o", "xyz")
    more = {"runs": [("o", "untuned", "base", 1, "-", "-", "de")]}
    path = write_rows(tmp_path / "r.jsonl", [euroeval("org/model", "mmlu-de", 40.0, 1.96)])
    done = import_results(tmp_path, "euroeval", path, *other, **more, check=False)
    assert done.returncode == 1 and "org/model is the path of several policies: m, o" in done.stderr
    for name, model in (("org/model@xyz", "o"), ("org/model@abc", "m"), ("o", "o")):
        import_results(tmp_path, "euroeval", write_rows(path, [euroeval(name, "mmlu-de", 40.0, 1.96)]), *other, **more)
        assert [row["model"] for row in imported(tmp_path)] == [model]
    import_results(tmp_path, "euroeval", path, "--policy", "o", "o", **more)
    assert [row["model"] for row in imported(tmp_path)] == ["o"], "a policy may have the name of its path"


def test_rows_of_rounds_are_those_of_their_round(tmp_path):
    runs = [("m", "multi", f"iter/round{number}", 1, "rm", 64, "de") for number in (1, 2)]
    header, table = "model,pool,setting,round,eval_language,task,metric,value\n", tmp_path / "t.csv"
    table.write_text(f"{header}m,multi,iter,1,de,qa,f1,0.1\nm,multi,iter,2,de,qa,f1,0.2\nm,multi,iter,,de,qb,f1,0.3\n")
    import_results(tmp_path, "csv", table, runs=runs)
    assert [(row["setting"], row["round"], row["value"]) for row in imported(tmp_path)] == [("iter", "1", "0.1"), ("iter", "2", "0.2"), ("iter", "2", "0.3")]  # fmt: skip
    for setting, number, said in (("iter", 3, "field round"), ("iter/round2", 2, "not a model of this run")):
        table.write_text(f"{header}m,multi,{setting},{number},de,qa,f1,0.1\n")
        done = import_results(tmp_path, "csv", table, runs=runs, check=False)
        assert done.returncode == 1 and said in done.stderr


def test_the_direction_that_a_row_declares_decides_its_sign(tmp_path):
    table = tmp_path / "t.csv"
    header = "model,pool,setting,eval_language,task,metric,better,value,baseline,baseline_value,delta\n"
    for delta, code in (("0.1", 0), ("-0.1", 1)):
        table.write_text(f"{header}m,multi,dpo,de,qa,edit_distance,lower,0.3,base,0.4,{delta}\n")
        assert import_results(tmp_path, "csv", table, check=False).returncode == code


def test_norwegian_by_its_own_code(tmp_path):
    path = write_rows(tmp_path / "r.jsonl", [euroeval("o", "norquad", 40.0, 1.96, ["nb", "nn"])])
    for codes in ("nb", "no", "nn,nb"):
        import_results(
            tmp_path, "euroeval", path, "--policy", "o", "org/o", runs=[("o", "untuned", "base", 1, "-", "-", codes)]
        )
        assert [row["eval_language"] for row in imported(tmp_path)] == sorted(codes.split(","))


def test_results_of_euroeval(tmp_path):
    lines = [
        euroeval("org/model@abc", "mmlu-de", 40.0, 1.96), euroeval(str(tmp_path / "m/multi/dpo/checkpoint"), "mmlu-de", 45.0, 3.92),
        euroeval("me/tuned@main", "nb-and-de", 10.0, None, ["nb", "de"]), euroeval("m", "speed", 3.0, 1.0, task="speed"), euroeval("m", "fo", 3.0, 1.0, ["fo"]),
        euroeval("m", "val", 3.0, 1.0, results={"total": {"val_mcc": 3.0, "val_mcc_se": 1.0}}),
    ]  # fmt: skip
    import_results(tmp_path, "euroeval", write_rows(tmp_path / "r.jsonl", lines))
    base, tuned, other = imported(tmp_path)
    assert (base["pool"], base["setting"], base["task"], base["metric"]) == (
        "untuned",
        "base",
        "other/mmlu-de",
        "mcc",
    )
    assert (base["value"], base["n"], base["delta"], base["better"]) == ("0.4", "10", "", "higher")
    assert (tuned["setting"], tuned["reward_model"], tuned["baseline"], float(tuned["delta"])) == ("dpo", "rm", "base", pytest.approx(0.05))  # fmt: skip
    # Independent errors of .01 and .02, in shares.
    error = (0.01**2 + 0.02**2) ** 0.5
    assert base["se"] == "" and float(tuned["se"]) == pytest.approx(error, abs=1e-5)
    half = 1.96 * error
    assert float(tuned["delta_low"]) == pytest.approx(0.05 - half, abs=1e-5)
    assert float(tuned["delta_high"]) == pytest.approx(0.05 + half, abs=1e-5)
    assert other["eval_language"] == "de" and other["delta"] == ""
    counts = json.loads((tmp_path / "imported.manifest.json").read_text())["counts"]["other"]
    assert counts == {
        "rows": 3,
        "left out": {"speed": 1, "language not evaluated": 1, "no test result": 1},
    }


@pytest.mark.parametrize(
    "lines, said",
    [
        ([euroeval("org/stranger", "mmlu-de", 1.0, 1.0)], ["org/stranger", "not a model of this run", "r.jsonl:1"]),
        ([euroeval("org/model@abc", "a", 1.0, 1.0), euroeval("org/model@step1000", "b", 1.0, 1.0)], ["org/model@step1000, which is no", "r.jsonl:2"]),
        ([euroeval("org/model@main", "a", 1.0, 1.0)], ["org/model@main, which is no"]),
        ([euroeval("me/tuned@v0", "a", 1.0, 1.0)], ["me/tuned@v0, which is no"]),
        ([euroeval("m", "a", -100, 1.0), euroeval("m", "b", 5000.0, 1.0)], ["r.jsonl:2, field test_mcc", "5000.0 is no percentage"]),
        ([euroeval("m", "mmlu-de", 1.0, 1.0), euroeval("org/model", "mmlu-de", 2.0, 1.0)], ["two results", "other/mmlu-de"]),
        ([{"model": "m", "dataset": "x"}], ["r.jsonl:1", "field task"]),
    ],
)  # fmt: skip
def test_results_that_cannot_be_imported(tmp_path, lines, said):
    done = import_results(tmp_path, "euroeval", write_rows(tmp_path / "r.jsonl", lines), check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr and all(text in done.stderr for text in said), done.stderr  # fmt: skip
    assert not (tmp_path / "imported.csv").exists()


def every_eval_ever(model, dataset, value, half, name="test_mcc"):
    """A record with the fields that EuroEval 17.0.0 and 18.0.0 write (benchmark_result_to_eee_dict), made-up values."""
    interval = {"lower": value - half, "upper": value + half, "confidence_level": 0.95, "method": "bootstrap"}
    result = {
        "evaluation_name": name,
        "source_data": {"dataset_name": dataset, "source_type": "hf_dataset"},
        "metric_config": {"lower_is_better": False, "score_type": "continuous", "min_score": 0, "max_score": 100},
        "score_details": {"score": value, "details": {"num_failed_instances": "0.0"}, "uncertainty": {"confidence_interval": interval, "num_samples": 10}},
    }  # fmt: skip
    details = {
        "dataset": dataset, "languages": '["de"]', "task": "knowledge", "few_shot": "true", "validation_split": "false",
        "transformers_version": "4.57.1", "vllm_version": None, "raw_results": json.dumps([{name: value / 100}] * 10),
    }  # fmt: skip
    return {
        "schema_version": "0.2.1", "evaluation_id": f"{dataset}/{model}/1", "evaluation_timestamp": "2026-01-01T00:00:00+00:00", "retrieved_timestamp": "1",
        "source_metadata": {"source_name": "EuroEval", "source_type": "evaluation_run", "evaluator_relationship": "third_party"},
        "model_info": {"name": model, "id": model, "additional_details": {"generative": "true", "generative_type": None}},
        "eval_library": {"name": "euroeval", "version": "17.0.0", "additional_details": details}, "evaluation_results": [result],
    }  # fmt: skip


def rename(record):
    return {"languages" if key == "dataset_languages" else key: value for key, value in record.items()}


@pytest.mark.parametrize("version", ("15 to 16.11", "16.12", "17", "18"))
def test_files_as_each_version_of_euroeval_writes_them(tmp_path, version):
    """Up to 17 a record begins with a line break; its languages have another name since 16.12, and its form since 17."""
    pairs = (("org/model", 40.0, 1.96), ("me/tuned", 45.0, 3.92))
    if version in ("17", "18"):
        lines = [every_eval_ever(model, "mmlu-de", value, half) for model, value, half in pairs]
    else:
        lines = [euroeval(model, "mmlu-de", value, half) for model, value, half in pairs]
        lines = lines if version == "15 to 16.11" else [rename(line) for line in lines]
    text = "".join(json.dumps(line) + "\n" if version == "18" else "\n" + json.dumps(line) for line in lines)
    (tmp_path / "r.jsonl").write_text(text)
    import_results(tmp_path, "euroeval", tmp_path / "r.jsonl")
    base, tuned = imported(tmp_path)
    assert (base["task"], base["eval_language"], base["metric"], base["value"], base["n"]) == ("other/mmlu-de", "de", "mcc", "0.4", "10")  # fmt: skip
    assert float(tuned["delta"]) == pytest.approx(0.05) and float(tuned["se"]) == pytest.approx(0.05**0.5 / 10, abs=1e-5)  # fmt: skip


def test_bits_per_character_are_no_percent_and_less_is_better(tmp_path):
    lines = [every_eval_ever(model, "bpc-de", value, 0.098, "test_bits_per_character") for model, value in (("m", 1.5), ("me/tuned", 1.2))]  # fmt: skip
    import_results(tmp_path, "euroeval", write_rows(tmp_path / "r.jsonl", lines))
    base, tuned = imported(tmp_path)
    assert (base["value"], tuned["value"]) == ("1.5", "1.2") and float(tuned["delta"]) == pytest.approx(0.3)
    assert float(tuned["delta_low"]) == pytest.approx(0.3 - 0.098 * 2**0.5, abs=1e-5)


def test_which_way_each_metric_of_euroeval_is_better(tmp_path):
    """EuroEval writes all but bits per character in percent, also the rate of hallucinations."""
    lines = [
        every_eval_ever(model, f"{metric}-de", value, 1.0, f"test_{metric}")
        for metric in ("hallucination_rate", "bias_ambig", "of_a_later_version")
        for model, value in (("m", 50.0), ("me/tuned", 20.0))
    ]
    import_results(tmp_path, "euroeval", write_rows(tmp_path / "r.jsonl", lines))
    found = [[row[key] for key in ("metric", "better", "value", "delta", "baseline")] for row in imported(tmp_path)]
    assert found == [
        ["hallucination_rate", "lower", "0.5", "", ""], ["hallucination_rate", "lower", "0.2", "0.3", "base"],
        ["bias_ambig", "", "0.5", "", ""], ["bias_ambig", "", "0.2", "", ""],
    ]  # fmt: skip
    counts = json.loads((tmp_path / "imported.manifest.json").read_text())["counts"]["other"]
    assert counts["left out"] == {"unknown metric of_a_later_version": 2}


def test_results_of_a_release_by_the_folder_that_loads(tmp_path):
    folder = tmp_path / "release/m/multi/dpo/model"
    import_results(tmp_path, "euroeval", write_rows(tmp_path / "r.jsonl", [euroeval(str(folder), "a", 1.0, 1.0)]))
    assert [row["setting"] for row in imported(tmp_path)] == ["dpo"]


def test_an_imported_file_is_not_replaced(tmp_path):
    path = tmp_path / "imported.csv"
    path.write_text("model,pool,setting\n")
    done = import_results(tmp_path, "csv", path, check=False)
    assert done.returncode == 1 and "--import is the path of --output" in done.stderr
    assert path.read_text() == "model,pool,setting\n"


def test_a_file_without_the_base_is_warned_of(tmp_path):
    base, tuned = (euroeval(model, "a", 1.0, 1.0) for model in ("m", "me/tuned"))
    done = import_results(tmp_path, "euroeval", write_rows(tmp_path / "r.jsonl", [tuned]))
    assert "1 results of models tuned from m have no difference" in done.stderr
    done = import_results(tmp_path, "euroeval", write_rows(tmp_path / "r.jsonl", [base, tuned]))
    assert "warning" not in done.stderr
    done = import_results(tmp_path, "euroeval", tmp_path / "r.jsonl", "--import", "other", tmp_path / "r.jsonl", "csv", check=False)  # fmt: skip
    assert done.returncode == 1 and "--import: other twice" in done.stderr


@pytest.mark.parametrize("change, said", [
    ({"eval_library": {"name": "helm", "additional_details": {"task": "knowledge", "languages": "[]"}}}, "a record of helm"),
    ({"evaluation_results": []}, "no record of EuroEval"),
    ({"model_info": None}, "no record of EuroEval"),
])  # fmt: skip
def test_records_of_another_form_are_refused(tmp_path, change, said):
    path = write_rows(tmp_path / "r.jsonl", [every_eval_ever("m", "x", 1.0, 1.0) | change])
    done = import_results(tmp_path, "euroeval", path, check=False)
    assert (
        done.returncode == 1 and "r.jsonl:1" in done.stderr and said in done.stderr and "Traceback" not in done.stderr
    )


CELLS = {
    "value": ["1,5", "nan", "inf", "0x1", "", "1e999", "٣"],
    "n": ["12.5", "-1", "many"],
    "baseline_value": ["x"],
    "delta": ["x", "-0.1", "0.2"],
    "se": ["-0.1", "x"],
    "delta_low": ["0.3", "x", ""],
    "p": ["1.5", "-0.1", "x"],
    "pool_size": ["32", "x"],
    "seed": ["3"],
    "round": ["7", "01"],
    "reward_model": ["other"],
    "baseline": [""],
    "metric": ["", " f1", "f1\u200b"],
    "task": [""],
}


def test_each_cell_of_a_table_is_checked(tmp_path):
    good = {"model": "m", "pool": "multi", "setting": "dpo", "seed": "1", "round": "1", "reward_model": "rm", "pool_size": "64", "eval_language": "de", "task": "qa", "metric": "f1", "value": "0.5",
        "n": "12", "baseline": "base", "baseline_value": "0.4", "delta": "0.1", "se": ".05", "delta_low": "0", "delta_high": "2e-1", "p": "0.04"}  # fmt: skip
    table = tmp_path / "t.csv"

    def write(*lines):
        with open(table, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, good)
            writer.writeheader()
            writer.writerows(lines)

    lower = {**good, "metric": "ter", "delta": "-0.1", "delta_low": "-.2"}
    write(good, lower)
    import_results(tmp_path, "csv", table)
    for column, cells in CELLS.items():
        for cell in cells:
            write(lower, {**good, column: cell})
            done = import_results(tmp_path, "csv", table, check=False)
            assert done.returncode == 1 and f"t.csv:3, field {column}" in done.stderr, (column, cell, done.stderr)
            assert "Traceback" not in done.stderr


def test_a_metric_that_is_a_formula_is_guarded_once(tmp_path):
    """Also where the table comes from another run's summary.csv, which has the apostrophe."""
    table = tmp_path / "t.csv"
    for cell in ("=f1", "'=f1"):
        table.write_text(f"model,pool,setting,eval_language,task,metric,value,n\nm,multi,dpo,de,qa,{cell},0.5,12\n")
        import_results(tmp_path, "csv", table)
        assert [row["metric"] for row in imported(tmp_path)] == ["'=f1"]


def test_a_row_of_rewards_names_its_reward_model_also_for_the_base(tmp_path):
    """As summary.py writes it; another metric of the base depends on none."""
    table = tmp_path / "t.csv"
    header = "model,pool,setting,reward_model,eval_language,task,metric,value\n"
    table.write_text(f"{header}m,untuned,base,rm,de,fidelity,reward,0.5\nm,untuned,base,,de,fidelity,n_tokens,9\n")
    import_results(tmp_path, "csv", table)
    assert [row["reward_model"] for row in imported(tmp_path)] == ["rm", ""]
    for metric, name in (("reward", "other"), ("n_tokens", "rm")):
        table.write_text(f"{header}m,untuned,base,{name},de,fidelity,{metric},0.5\n")
        done = import_results(tmp_path, "csv", table, check=False)
        assert done.returncode == 1 and "t.csv:2, field reward_model" in done.stderr


def test_results_of_a_table(tmp_path):
    table = tmp_path / "t.csv"
    header = "model,pool,setting,eval_language,task,metric,value,n\n"
    table.write_text(f"{header}m,multi,dpo,de,qa,f1,0.5,12\nm,multi,dpo,it,qa,f1,0.5,12\n")
    import_results(tmp_path, "csv", table)
    (row,) = imported(tmp_path)
    assert (row["task"], row["value"], row["n"], row["reward_model"]) == ("other/qa", "0.5", "12", "rm")
    assert row["better"] == "higher"
    for text, said in (
        (f"{header}x,multi,dpo,de,qa,f1,0.5,12\n", "x/multi/dpo"),
        (f"{header}m,multi,dpo,de,qa,f1,good,12\n", "'good' is not a number"),
        ("model,value\nm,1\n", "no column pool"),
    ):
        table.write_text(text)
        done = import_results(tmp_path, "csv", table, check=False)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr


def test_comparability_says_no_where_the_run_does_not_evaluate(tmp_path):
    table = ROOT / "config/comparability.tsv"
    script("comparability", "--table", table, "--evaluated", "reading", "da,nl", "--output", tmp_path / "c.json")
    found = {row["row"]: row for row in json.loads((tmp_path / "c.json").read_text())}
    assert len(found) >= 10 and found["reading comprehension"]["languages"] == ["da", "nl"]
    assert found["reading comprehension"]["comparable"] == "partly" and "EuroEval" in found["reading comprehension"]["paper"]  # fmt: skip
    assert (found["knowledge"]["ours"], found["knowledge"]["comparable"]) == (None, "no")
    table = tmp_path / "t.tsv"
    table.write_text("row\tneeds\tpaper\tours\tcomparable\twhy\nx\t-\ty\tz\tmaybe\tw\n")
    done = script("comparability", "--table", table, "--output", tmp_path / "d.json", check=False)
    assert done.returncode == 1 and "t.tsv:2" in done.stderr and "Traceback" not in done.stderr
    table.write_text("row\tneeds\tpaper\tours\tcomparable\twhy\nx\treeding\ty\tz\tno\tw\n")
    done = script("comparability", "--table", table, "--output", tmp_path / "d.json", check=False)
    assert done.returncode == 1 and "t.tsv:2, field needs" in done.stderr and "reading" in done.stderr
    table.write_text("row\tneeds\tpaper\tours\tcomparable\twhy\nx\treading\ty\tz\tno\tw\n")
    done = script("comparability", "--table", table, "--evaluated", "maths", "en", "--output", tmp_path / "d.json", check=False)  # fmt: skip
    assert done.returncode == 1 and "no row needs maths" in done.stderr and "Traceback" not in done.stderr


def test_euroeval_is_comparable_in_the_languages_of_its_results(tmp_path):
    lines = [euroeval("m", "a", 1.0, 1.0, [code]) for code in ("de", "fo")]
    import_results(tmp_path, "euroeval", write_rows(tmp_path / "r.jsonl", lines))
    for name, languages, comparable in (("other", ["de"], "yes"), ("csv", [], "no")):
        script(
            "comparability", "--table", ROOT / "config/comparability.tsv", "--evaluated", "euroeval", "de,en,mt",
            "--imported", tmp_path / "imported.csv", "--euroeval", name, "--output", tmp_path / "c.json",
        )  # fmt: skip
        (row,) = [row for row in json.loads((tmp_path / "c.json").read_text()) if row["row"] == "EuroEval, imported"]
        assert (row["languages"], row["comparable"]) == (languages, comparable)


def test_the_run_takes_the_languages_of_euroeval_from_the_imported_results(tmp_path):
    project = copy_project(tmp_path)
    path = write_rows(project / "r.jsonl", [euroeval("mini", "a", 1.0, 1.0, ["de"])])
    config = yaml.safe_load((project / "two_languages.yaml").read_text())
    (project / "imports.yaml").write_text(yaml.safe_dump(config | {"imports": [{"name": "ee", "path": str(path), "format": "euroeval"}]}))  # fmt: skip
    snakemake(project, "results/small/comparability.json", "--cores", 1, "--configfile", "imports.yaml")
    table = json.loads((project / "results/small/comparability.json").read_text())
    assert [row["languages"] for row in table if row["row"] == "EuroEval, imported"] == [["de"]]


def test_comparability_has_a_row_for_all_that_runs_evaluate_and_for_nothing_else():
    """By what shipped configs evaluate, and by the capabilities that languages list."""
    with open(ROOT / "config/comparability.tsv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    needs = {row["needs"] for row in table} - {"-"}
    imports = {"imports": [{"name": "euroeval", "path": str(ROOT / "README.md"), "format": "euroeval"}]}
    produced = set()
    for name, changes in (("paper", {}), ("paper", imports), ("grid", {}), ("small", {})):
        evaluated = list_evaluated(read_shipped(name, changes), read_languages())
        assert evaluated.keys() <= needs, name
        produced |= evaluated.keys()
    listed = {kind for language in read_languages().values() for kind in parse_tasks(language["tasks"]).values()}
    assert listed <= needs == produced
    paper = " ".join(row["row"] + row["paper"] for row in table).lower()
    assert not any(word in paper for word in ("sentiment", "entity", "summaris"))
    assert all(word in paper for word in ("ifeval", "wic", "multiloko", "multinrc", "include", "mmlu-pro", "copa-nl", "zebra"))  # fmt: skip


@pytest.fixture(scope="module")
def listed():
    """{task of config/languages.tsv: its entry in lm-eval's index}, and the whole index."""
    from lm_eval.tasks import TaskManager

    index = TaskManager().task_index
    names = {name for language in read_languages().values() for name in parse_tasks(language["tasks"])}
    return {name: index[name] for name in sorted(names)}, index


def test_replies_of_all_listed_tasks_are_planned(listed):
    """A task that generates has a row in config/suites.tsv with the tokens of a reply, others have none there."""
    from lm_eval.tasks._yaml_loader import load_yaml

    def list_single(name):
        entry = index[name]
        settings = load_yaml(entry.yaml_path, resolve_func=False) if entry.yaml_path else {}
        parts = [
            *(entry.tags if entry.kind.name == "TAG" else ()),
            *(settings.get("task") if "group" in settings else ()),
        ]
        return [one for part in parts if isinstance(part, str) for one in list_single(part)] or [settings]

    names, index = listed
    for name in names:
        single = list_single(name)
        generates = any(settings.get("output_type") == "generate_until" for settings in single)
        planned = find_suite_task(name)
        assert generates == bool(planned and planned.max_gen_toks), name
        if generates:
            given = [settings.get("generation_kwargs") or {} for settings in single]
            most = {options.get("max_gen_toks", options.get("max_new_tokens", 256)) for options in given}
            assert (most, len(single)) == ({planned.max_gen_toks}, planned.single_tasks), name


def test_no_listed_task_downloads_its_metric(listed):
    """Tasks that are Python classes may load a metric's program from the hub, after the model has answered."""
    listed, index = listed
    classes = {name: index[name].yaml_path.parent for name in listed if "class" in (index[name].cfg or {})}
    loading = [name for name, folder in classes.items() for path in folder.glob("*.py") if "evaluate.load" in path.read_text(encoding="utf-8")]  # fmt: skip
    assert loading == []


def test_a_task_is_in_one_group_alone():
    refuse_overlap("en", {"mmlu": ["stem_a", "hum_a"], "arc": ["arc"]})
    with pytest.raises(InputError, match="en: mmlu and mmlu_stem both have the task stem_a"):
        refuse_overlap("en", {"mmlu": ["stem_a", "hum_a"], "mmlu_stem": ["stem_a"]})
