"""scripts/release.py: the bundle of a real tiny run, loaded again, its cards held against manifest and ledger."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ENVIRONMENT, ROOT, rows, script, snakemake, start, write_rows

from croco.results.table import COLUMNS
from croco.state import WEIGHT_FILES

RUN = "mini/multi/dpo"
RESULTS = [
    {"setting": "dpo", "eval_language": "de", "task": "arena", "metric": "win_rate", "value": 0.625, "n": 12, "baseline": "base", "baseline_value": 0.5, "delta": 0.125, "value_low": 0.5125, "value_high": 0.7375, "delta_low": 0.0125, "delta_high": 0.2375, "reward_model": "english"},
    {"setting": "dpo", "eval_language": "all", "task": "heldout", "metric": "exact_match", "value": 0.25, "n": 12},
    {"setting": "sft", "eval_language": "de", "task": "arena", "metric": "win_rate", "value": 0.987654, "n": 12},
]  # fmt: skip


def write_summary(path, results):
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows({"model": "mini", "pool": "multi", "seed": 1, "round": 1, **row} for row in results)
    return path


@pytest.fixture(scope="module")
def run(miniature, prompts, tmp_path_factory):
    """Folder of a run: pairs of the policy's own responses in two languages, ledger, checkpoint, summary."""
    folder = tmp_path_factory.mktemp("run")
    files = {"--prompts": list(prompts.values()), "--generations": [], "--scores": []}
    for language, path in prompts.items():
        generations, scores = folder / language / "generations.jsonl", folder / language / "scores" / "english.jsonl"
        script(
            "generate", "--prompts", path, "--model", miniature / "policy", "--samples", 8, "--max-tokens", 24,
            "--state", folder / "state", "--output", generations,
        )  # fmt: skip
        script(
            "score", "--prompts", path, "--generations", generations, "--model", miniature / "reward",
            "--max-length", 128, "--state", folder / "state", "--output", scores,
        )  # fmt: skip
        files["--generations"].append(generations)
        files["--scores"].append(scores)
    pairs, ledger = folder / "pairs.jsonl", folder / "ledger.json"
    options = [part for name, paths in files.items() for part in (name, *paths)]
    script("build_pairs", *options, "--output", pairs, "--ledger", ledger)
    script(
        "train", "--objective", "dpo", "--data", pairs, "--ledger", ledger, "--model", miniature / "policy",
        "--learning-rate", "3e-3", "--epochs", 10, "--batch", 4, "--micro-batch", 4, "--max-length", 128,
        "--state", folder / "state", "--output", folder / "checkpoint",
    )  # fmt: skip
    write_summary(folder / "summary.csv", RESULTS)
    return folder


def arguments(miniature, run, output, *options):
    return [
        "--model", miniature / "policy", "--checkpoint", run / "checkpoint", "--data", run / "pairs.jsonl",
        "--ledger", run / "ledger.json", "--data-manifest", run / "pairs.manifest.json", "--summary", run / "summary.csv",
        "--run", RUN, "--output", output, *options,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def bundles(miniature, run, tmp_path_factory):
    """{weights: bundle}."""
    folder = tmp_path_factory.mktemp("bundles")
    for weights in ("merged", "adapter"):
        options = ("--weights", weights, "--licence", "Apache-2.0", "--name", f"tiny-{weights}")
        script("release", *arguments(miniature, run, folder / weights, *options))
    return {weights: folder / weights for weights in ("merged", "adapter")}


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def table_cells(text, first):
    """The cells of a card's table lines whose first cell is ``first``."""
    lines = (line.strip("|").split("|") for line in text.splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in line] for line in lines if line[0].strip() == first]


def verify(folder):
    """Checks the checksums by coreutils; every file but the list itself must be on the list."""
    done = subprocess.run(["sha256sum", "-c", "checksums.txt"], cwd=folder, capture_output=True, text=True, check=True)
    listed = {line.removesuffix(": OK") for line in done.stdout.splitlines()}
    assert listed == files(folder) - {"checksums.txt"}
    return folder


def chats(prompts):
    return [row["messages"] for path in prompts.values() for row in rows(path)]


def greedy(prompts, path, adapter=None):
    """Answers of the project's own engine."""
    from croco.models.transformers_engine import Policy

    policy = Policy(str(path), adapter=adapter and str(adapter))
    encoded = [policy.encode(messages) for messages in chats(prompts)]
    return [answer["text"] for answer in policy.respond(encoded, [0] * len(encoded), 0, 1, 24)]


def test_merged_model_answers_as_policy_and_adapter_do(miniature, run, prompts, bundles):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tuned = greedy(prompts, miniature / "policy", run / "checkpoint")
    assert sum(a != b for a, b in zip(tuned, greedy(prompts, miniature / "policy"), strict=True)) >= 6
    assert greedy(prompts, bundles["merged"] / "model") == tuned
    assert greedy(prompts, miniature / "policy", bundles["adapter"] / "model") == tuned
    tokenizer = AutoTokenizer.from_pretrained(bundles["merged"] / "model")
    model = AutoModelForCausalLM.from_pretrained(bundles["merged"] / "model", dtype="float32")
    for messages, answer in zip(chats(prompts), tuned, strict=True):
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        output = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert tokenizer.decode(output, skip_special_tokens=True) == answer


def test_model_folders_hold_what_loads(miniature, run, bundles):
    shared = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "README.md"}
    assert files(bundles["merged"] / "model") == {*shared, "model.safetensors", "config.json"}
    assert files(bundles["adapter"] / "model") == {*shared, "adapter_model.safetensors", "adapter_config.json"}
    assert read(bundles["adapter"] / "model" / "adapter_config.json")["base_model_name_or_path"] == str(
        miniature / "policy"
    )
    for folder in bundles.values():
        for name in shared - {"README.md"}:
            assert (folder / "model" / name).read_bytes() == (run / "checkpoint" / name).read_bytes()
        verify(folder)


def test_dataset_loads_offline_with_its_types(run, bundles, tmp_path):
    from datasets import Value, load_dataset

    data = load_dataset(str(bundles["merged"] / "dataset"), split="train", cache_dir=str(tmp_path))
    assert list(data) == rows(run / "pairs.jsonl")
    text = Value("string")
    for column in ("prompt", "chosen", "rejected"):
        assert data.features[column].feature == {"role": text, "content": text}
    assert data.features["target"] == data.features["chosen_reward"] == Value("float64")


@pytest.mark.parametrize(
    ("target", "objective", "options"),
    [("reference", "sft", ()), ("prompts", "online_dpo", ("--max-tokens", 8))],
)
def test_other_data_than_pairs(miniature, prompts, run, tmp_path, target, objective, options):
    from datasets import Value, load_dataset
    from huggingface_hub import DatasetCard, ModelCard

    data, ledger, checkpoint = tmp_path / "data.jsonl", tmp_path / "ledger.json", tmp_path / "checkpoint"
    script("build_pairs", "--prompts", prompts["de"], "--target", target, "--output", data, "--ledger", ledger)
    if objective == "online_dpo":
        options = (*options, "--reward-model", miniature / "reward")
    script(
        "train", "--objective", objective, "--data", data, "--model", miniature / "policy", "--batch", 4,
        "--micro-batch", 4, "--max-length", 128, *options, "--state", tmp_path / "state", "--output", checkpoint,
    )  # fmt: skip
    bundle = tmp_path / "bundle"
    other = ("--data", data, "--ledger", ledger, "--checkpoint", checkpoint, "--data-manifest", tmp_path / "data.manifest.json")  # fmt: skip
    script("release", *arguments(miniature, run, bundle, *other, "--run", "mini/de/other", "--weights", "adapter"))
    table = load_dataset(str(bundle / "dataset"), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(table) == rows(data)
    if target == "reference":
        assert table.features["reward"] == Value("float64"), "a column of nulls"
    model, dataset = ModelCard.load(bundle / "model" / "README.md"), DatasetCard.load(bundle / "dataset" / "README.md")
    for card in (model, dataset):
        assert card.data.language == ["de"] and objective in card.data.tags
        assert table_cells(card.text, "formed")[0][1] == "12" and not table_cells(card.text, "reward model")
    assert ("- max_tokens: `8`" in model.text) == (objective == "online_dpo") and "There are none" in model.text


def run_code(card, folder):
    """Runs the one block of Python on a card as its reader would, in the folder of the bundle; returns what it prints."""
    [code] = re.findall(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.S)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_code_on_the_cards_runs(run, bundles):
    answers = {run_code(folder / "model" / "README.md", folder) for folder in bundles.values()}
    assert len(answers) == 1 and answers.pop().strip(), "merged or not, it is the same model"
    printed = run_code(bundles["merged"] / "dataset" / "README.md", bundles["merged"])
    assert f"num_rows: {len(rows(run / 'pairs.jsonl'))}" in printed


def test_cards_say_what_manifest_ledger_and_summary_say(run, bundles):
    from huggingface_hub import DatasetCard, ModelCard

    ledger, manifest = read(run / "ledger.json"), read(run / "checkpoint" / "manifest.json")
    for weights, library in (("merged", "transformers"), ("adapter", "peft")):
        card = ModelCard.load(bundles[weights] / "model" / "README.md")
        assert card.data.library_name == library and card.data.license == "apache-2.0"
        assert card.data.base_model is None, "a local folder is no id of the hub"
        assert card.data.language == ["en", "de"] and {"dpo", "croco", "trl"} <= set(card.data.tags)
        for name in ("learning_rate", "beta", "epochs", "lora_r", "lora_targets", "seed"):
            assert f"- {name}: `{manifest['options'][name]}`\n" in card.text
        for name in ("rows", "steps"):
            assert f"- {name}: {manifest['counts'][name]}\n" in card.text
        assert "temperature" not in card.text, "it has no effect on DPO"
        for value in (*manifest["inputs"].values(), manifest["versions"]["trl"]):
            assert value in card.text
        assert table_cells(card.text, "de")[1:] == [
            ["de", "arena", "win_rate", "0.625", "12", "base", "0.500", "0.125", "0.512 to 0.738"]
        ]
        assert table_cells(card.text, "all")[0][:5] == ["all", "heldout", "exact_match", "0.250", "12"]
        assert "0.988" not in card.text, "another setting's"
    dataset = DatasetCard.load(bundles["merged"] / "dataset" / "README.md")
    assert dataset.data.size_categories == ["n<1K"] and dataset.data.language == ["en", "de"]
    for text in (dataset.text, card.text):
        assert table_cells(text, "prompts")[0][1] == str(ledger["prompts"])
        assert table_cells(text, "formed")[0][1] == str(ledger["formed"])
        assert table_cells(text, "reward model")[0][1] == "english"
        assert table_cells(text, "whose responses")[0][1] == "the policy's own, from before this training"
        for language, counts in ledger["languages"].items():
            [_, *cells] = table_cells(text, language)[0]
            numbers = ("prompts", "responses", "eligible", "duplicates", "chosen", "rejected")
            assert [cells[i] for i in (0, 2, 4, 5, 6, 7)] == [str(counts[name]) for name in numbers]
        assert "zhang2026croco" in text and "2605.26293" in text


def test_no_text_of_the_data_gets_into_the_cards(run, bundles):
    texts = {row[side][0]["content"] for row in rows(run / "pairs.jsonl") for side in ("prompt", "chosen", "rejected")}
    texts = {text for text in texts if len(text) > 12}
    assert len(texts) > 12
    for folder in bundles.values():
        for part in ("model", "dataset"):
            card = (folder / part / "README.md").read_text(encoding="utf-8")
            assert not [text for text in texts if text in card]


def test_base_from_the_hub_and_no_results(miniature, run, tmp_path, monkeypatch):
    from huggingface_hub import DatasetCard, ModelCard

    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--owner--base"
    base = shutil.copytree(miniature / "policy", cached / "snapshots" / commit)
    (base / "README.md").write_text("---\nlicense: llama3\nlanguage: [en]\n---\n# Base\n")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setitem(ENVIRONMENT, "HF_HUB_CACHE", str(tmp_path / "hub"))
    checkpoint = shutil.copytree(run / "checkpoint", tmp_path / "checkpoint")
    manifest = read(checkpoint / "manifest.json")
    manifest["options"]["template_options"] = {"enable_thinking": False}
    manifest["inputs"]["policy"] = f"owner/base@{commit}+0123"  # a second round's: begun with an adapter
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    write_summary(tmp_path / "summary.csv", [])
    bundle = tmp_path / "bundle"
    other = (
        "--model", "owner/base", "--checkpoint", checkpoint, "--summary", tmp_path / "summary.csv",
        "--name", "owner/tiny", "--weights", "adapter", "--revision", "main", "--trust-remote-code",
    )  # fmt: skip
    script("release", *arguments(miniature, run, bundle, *other))
    card = ModelCard.load(bundle / "model" / "README.md")
    assert card.data.base_model == "owner/base" and card.data.datasets == ["owner/tiny"]
    assert card.data.license is None and "base model's own card: llama3." in card.text
    assert "There are none" in card.text and "path = 'owner/tiny'" in card.text
    assert "'owner/base', dtype=\"float32\", revision='main', trust_remote_code=True)" in card.text
    assert 'return_tensors="pt", enable_thinking=False\n' in card.text
    assert "load_dataset('owner/tiny'" in DatasetCard.load(bundle / "dataset" / "README.md").text
    assert read(bundle / "model" / "adapter_config.json")["base_model_name_or_path"] == "owner/base"


def test_named_templates_travel_with_checkpoint_and_release(miniature, run, prompts, tmp_path):
    """The default one is trained and evaluated with; tokenizers with several keep the others in a folder."""
    from transformers import AutoTokenizer

    policy, checkpoint = tmp_path / "policy", tmp_path / "checkpoint"
    shutil.copytree(miniature / "policy", policy)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    named = {"default": tokenizer.chat_template, "tool_use": "{{ messages[0].content }} with tools"}
    tokenizer.chat_template = named
    tokenizer.save_pretrained(policy)
    assert (policy / "additional_chat_templates" / "tool_use.jinja").exists()
    script(
        "train", "--objective", "dpo", "--data", run / "pairs.jsonl", "--model", policy, "--learning-rate", "3e-3", "--epochs", 1,
        "--batch", 4, "--micro-batch", 4, "--max-length", 128, "--state", tmp_path / "state", "--output", checkpoint,
    )  # fmt: skip
    script(
        "evaluate", "--model", policy, "--adapter", checkpoint, "--languages", "en", "--prompts", prompts["en"], "--temperature", 0,
        "--max-tokens", 8, "--state", tmp_path / "state", "--output", tmp_path / "evaluated",
    )  # fmt: skip
    assert all(line["responses"] for line in rows(tmp_path / "evaluated" / "answers" / "en.jsonl"))
    shutil.copy(run / "summary.csv", tmp_path)
    for weights in ("merged", "adapter"):
        given = ("--model", policy, "--checkpoint", checkpoint, "--weights", weights, "--licence", "MIT")
        script("release", *arguments(miniature, run, tmp_path / weights, *given))
        folder = verify(tmp_path / weights) / "model"
        assert AutoTokenizer.from_pretrained(folder).chat_template == named
    assert AutoTokenizer.from_pretrained(checkpoint).chat_template == named


def test_full_weights_are_copied_as_they_are(miniature, run, tmp_path):
    checkpoint = shutil.copytree(miniature / "policy", tmp_path / "checkpoint")
    trained = read(run / "checkpoint" / "manifest.json")
    trained["options"]["weights"] = "full"
    (checkpoint / "manifest.json").write_text(json.dumps(trained), encoding="utf-8")
    for name in WEIGHT_FILES["lora"]:
        shutil.copy(run / "checkpoint" / name, checkpoint)
    script(
        "release", *arguments(miniature, run, tmp_path / "bundle", "--checkpoint", checkpoint, "--weights", "adapter")
    )
    model = verify(tmp_path / "bundle") / "model"
    assert (model / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert (model / "config.json").is_file() and not list(model.glob("adapter*"))
    assert "library_name: transformers" in (model / "README.md").read_text()


@pytest.mark.parametrize("weights", ["merged", "adapter"])
def test_full_weights_beside_an_adapter_are_not_released(miniature, run, bundles, tmp_path, weights):
    """They are of another training: only an adapter is released, or what it is merged into."""
    checkpoint = shutil.copytree(run / "checkpoint", tmp_path / "checkpoint")
    for name in WEIGHT_FILES["full"]:
        shutil.copy(miniature / "reward" / name, checkpoint)
    given = ("--checkpoint", checkpoint, "--weights", weights)
    script("release", *arguments(miniature, run, tmp_path / "bundle", *given))
    model = tmp_path / "bundle" / "model"
    assert files(model) == files(bundles[weights] / "model")
    for name in files(model) - {"README.md"}:
        assert (model / name).read_bytes() == (bundles[weights] / "model" / name).read_bytes()


@pytest.mark.parametrize(("name", "value"), [("mini/multi/dpo/round2", "0.750"), ("mini/multi/dpo/round1", "0.250")])
def test_a_round_finds_its_own_results(miniature, run, tmp_path, name, value):
    win = {"setting": "dpo", "eval_language": "de", "task": "arena", "metric": "win_rate", "n": 12}
    table = [{**win, "round": number, "value": of_round} for number, of_round in ((1, 0.25), (2, 0.75))]
    summary = write_summary(tmp_path / "summary.csv", table)
    script("release", *arguments(miniature, run, tmp_path / "bundle", "--summary", summary, "--run", name))
    card = (tmp_path / "bundle" / "model" / "README.md").read_text(encoding="utf-8")
    assert [cells[3] for cells in table_cells(card, "de") if cells[1] == "arena"] == [value]


def test_a_card_says_what_its_intervals_are(miniature, run, tmp_path):
    """Those of a rate against chance are of the value, and another harness's are not from a bootstrap over prompts."""
    rate = {"task": "arena", "metric": "reward_judge_agreement", "baseline": "chance", "value": 0.7, "delta": 0.2}
    table = [
        {"setting": "dpo", "eval_language": "de", "n": 12, **row}
        for row in (
            rate | {"value_low": 0.6, "value_high": 0.8, "delta_low": 0.1, "delta_high": 0.3},
            {"task": "euroeval/mmlu-de", "metric": "mcc", "value": 0.4, "n": 10},
        )
    ]
    for number, imported in ((1, False), (2, True)):
        summary = write_summary(tmp_path / "summary.csv", table[:number])
        script("release", *arguments(miniature, run, tmp_path / str(number), "--summary", summary))
        card = (tmp_path / str(number) / "model" / "README.md").read_text(encoding="utf-8")
        assert table_cells(card, "de")[1][-1] == "0.600 to 0.800"
        assert "For win rates against the base and rates against chance they are those of the value" in card
        assert ("those of EuroEval are not paired" in card) is imported


def test_a_run_without_results_is_warned_of(miniature, run, tmp_path):
    for name, warned in ((RUN, False), ("mini/multi/dpoo", True)):
        done = script("release", *arguments(miniature, run, tmp_path / "bundle", "--run", name, "--weights", "adapter"))
        assert (f"warning: {run / 'summary.csv'} has no results of {name}" in done.stderr) == warned


@pytest.mark.parametrize("name", ["mini/multi", f"{RUN}/checkpoint", f"{RUN}/round", f"{RUN}/round2/", "mini//dpo"])
def test_what_is_no_name_of_a_run_is_refused(tmp_path, name):
    done = script("release", *arguments(tmp_path, tmp_path, tmp_path / "bundle", "--run", name), check=False)
    assert done.returncode and "--run is MODEL/POOL/SETTING" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("weights", "megabytes"), [("merged", "13000"), ("adapter", "8000")])
def test_memory_is_that_of_the_weights_that_are_loaded(fresh_project, tmp_path, weights, megabytes):
    """An adapter is merged in float32, whatever the policy's dtype."""
    policy = {"name": "mini", "path": "{results}/miniature/policy", "temperature": 0.6, "max_tokens": 32}
    config = {
        "policies": [{**policy, "size": 2, "dtype": "bfloat16"}],
        "evaluation": {"temperature": 0.6, "max_tokens": 32, "judge": "oracle", "tasks": []},
        "release": [{"run": "mini/en/dpo", "weights": weights}],
    }
    (tmp_path / "large.yaml").write_text(json.dumps(config), encoding="utf-8")
    options = ("--workflow-profile", "profiles/slurm", "--configfile", "two_languages.yaml", tmp_path / "large.yaml")
    output = snakemake(fresh_project, "release", "--dry-run", "--quiet", *options).stdout
    assert [line.split()[5] for line in output.splitlines() if line.startswith("write_release ")] == [megabytes]


def test_again_over_a_bundle_gives_the_same_files(miniature, run, bundles, tmp_path):
    bundle = shutil.copytree(bundles["merged"], tmp_path / "bundle")
    (bundle / "model" / "left-over.txt").write_text("of an older bundle")
    script("release", *arguments(miniature, run, bundle, "--licence", "Apache-2.0", "--name", "tiny-merged"))

    def lines(folder):
        return {line for line in (folder / "checksums.txt").read_text().splitlines() if "manifest.json" not in line}

    assert lines(verify(bundle)) == lines(bundles["merged"])
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("before", ["nothing", "a bundle"])
def test_kill_leaves_no_half_bundle(miniature, run, bundles, tmp_path, before):
    output = tmp_path / "bundle"
    if before == "a bundle":
        shutil.copytree(bundles["adapter"], output)
    process = start("release", *arguments(miniature, run, output))
    while not (tmp_path / ".bundle.partial" / "model").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (tmp_path / ".bundle.partial").is_dir(), "it was killed in the middle"
    assert files(verify(output)) == files(bundles["adapter"]) if before == "a bundle" else not output.exists()
    script("release", *arguments(miniature, run, output))
    assert files(verify(output)) == files(bundles["merged"]) and [path.name for path in tmp_path.iterdir()] == [
        "bundle"
    ]


def test_what_does_not_belong_together_is_refused_before_loading(miniature, run, tmp_path):
    changed = write_rows(tmp_path / "pairs.jsonl", rows(run / "pairs.jsonl")[1:])
    ledger = {**read(run / "ledger.json"), "formed": 1}
    (tmp_path / "ledger.json").write_text(json.dumps(ledger))
    (tmp_path / "summary.csv").write_text("model,pool\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    for options, said in (
        (("--model", miniature / "reward"), "trained from another model"),
        (("--data", changed), "trained on other data"),
        (("--data", tmp_path / "none.jsonl"), "no such file"),
        (("--checkpoint", tmp_path), "no checkpoint"),
        (("--ledger", tmp_path / "ledger.json"), "the ledger is of 1 rows"),
        (("--summary", tmp_path / "summary.csv"), "other columns than those of summary.csv"),
        (("--name", "a name; rm -rf"), "field name"),
        (("--name", "../up"), "field name"),
        (("--licence", "my own: licence"), "field licence"),
        (("--output", tmp_path / "mine"), "it holds thesis.tex"),
    ):
        done = script("release", *arguments(miniature, run, tmp_path / "bundle", *options), check=False)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr, (options, done.stderr)
        assert "Remedy" in done.stderr
    left = {"pairs.jsonl", "ledger.json", "summary.csv", "mine"}
    assert {path.name for path in tmp_path.iterdir()} == left and (tmp_path / "mine" / "thesis.tex").exists()


def test_refusal_loads_no_library_of_models(miniature, run, tmp_path):
    command = arguments(miniature, run, tmp_path / "bundle", "--model", miniature / "reward")
    path = str(ROOT / "scripts" / "release.py")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", path, *map(str, command)],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "another model" in done.stderr and "croco.records" in imported
    assert not imported & {"torch", "transformers", "peft", "datasets"}
