"""Time limits of jobs follow their work and the type of GPU."""

import copy
import json
from dataclasses import replace

import pytest
from conftest import ROOT

from croco.config.read import build_grid, read_files
from croco.examination.machine import expect_bytes
from croco.planning.limits import Limits
from croco.planning.speed import read_speed
from croco.planning.work import Facts, work_of

SPEEDS = ROOT / "config" / "speeds.tsv"
BLOCK = {"policy": "eurollm", "language": "de", "start": "0"}


@pytest.fixture(scope="module")
def paper():
    config, locator = read_files([ROOT / "config/paper.yaml"], ROOT)
    return config, locator


def limits(paper, **changes):
    config, locator = paper
    grid, _ = build_grid(copy.deepcopy(config) | changes, ROOT, locator)
    return Limits(grid, SPEEDS)


def test_more_samples_and_slower_gpus_take_longer(paper):
    minutes = limits(paper).minutes("generate", BLOCK, 1)
    assert limits(paper, samples=128).minutes("generate", BLOCK, 1) == pytest.approx(2 * minutes, rel=0.02)
    of_type = {
        name: limits(paper, gpu_type=name).minutes("generate", BLOCK, 1)
        for name in ("h200", "a100", "rtx4090", "mi250")
    }
    assert of_type["h200"] < minutes < of_type["a100"] < of_type["rtx4090"] < of_type["mi250"]
    config, locator = copy.deepcopy(paper[0]), paper[1]
    del config["gpu_type"]
    assert Limits(build_grid(config, ROOT, locator)[0], SPEEDS).minutes("generate", BLOCK, 1) == max(of_type.values())
    assert limits(paper).minutes("generate", BLOCK, 0) == 0, "a job on the CPU has the least"


def test_online_training_has_the_time_that_it_samples(paper):
    """Its sampling waits for memory at every token, and takes many times a training on finished pairs."""
    wildcards = {"model": "eurollm", "pool": "multi"}
    online, offline = (limits(paper).minutes("train", {**wildcards, "setting": s}, 8) for s in ("dpo_online", "dpo"))
    assert online > 10 * offline > 0


@pytest.mark.parametrize(
    ("rule", "wildcards", "kind", "calls", "tokens"),
    [
        # 5,000 prompts of 64 samples, in calls of 16; 500 answers in calls of 50; their verdicts twice; 5,000 prompts.
        ("generate", BLOCK, "policies", 5000 * 4, 4096),
        ("evaluate_language", {"run": "eurollm/de/dpo_mono", "language": "de"}, "policies", 500 / 50, 8192),
        ("judge_language", {"run": "eurollm/de/dpo_mono", "language": "de"}, "judges", 1000 / 16, 1024),
        ("translate_train", {"language": "de", "start": "0"}, "translators", 5000 / 16, 150),
    ],
)
def test_the_transformers_engine_waits_at_each_token(paper, rule, wildcards, kind, calls, tokens):
    """A call of generate takes 0.03 seconds per token, however many sequences it has."""
    config = copy.deepcopy(paper[0])
    config["evaluation"] |= {"batch": 50, "suite": "none"}
    works = {}
    for engine in ("vllm", "transformers"):
        for row in config[kind]:
            row |= {"engine": engine, "batch": 16} | ({"max_tokens": tokens} if kind == "judges" else {})
        works[engine] = work_of(limits((config, paper[1])).facts, rule, wildcards)
    assert works["vllm"].steps == 0 and works["transformers"].steps == calls * tokens
    seconds = [read_speed(SPEEDS, "h100").item_seconds(works[engine]) for engine in ("vllm", "transformers")]
    assert seconds[1] - seconds[0] == pytest.approx(0.03 * calls * tokens)


def test_larger_calls_of_generate_shorten_an_online_training(paper):
    wildcards = {"model": "eurollm", "pool": "multi", "setting": "dpo_online"}
    config = copy.deepcopy(paper[0])
    recipe = next(row for row in config["recipes"] if row["name"] == "online_dpo")
    minutes = []
    for prompts in (1, 2, 8):
        recipe["generation_batch"] = prompts
        minutes.append(limits((config, paper[1])).minutes("train", wildcards, 8))
    assert minutes[0] > minutes[1] > minutes[2] == limits(paper).minutes("train", wildcards, 8)


@pytest.mark.parametrize(("limit", "prompts"), [(None, 900), (300, 300), (2000, 900)])
def test_translated_languages_have_the_prompts_of_the_source(paper, tmp_path, limit, prompts):
    """A block of theirs takes as long as the source's, and there are no more than the source has."""
    lines = "".join(f'{{"id": {number}, "text": "t"}}\n' for number in range(900))
    (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
    config = copy.deepcopy(paper[0])
    train, evaluate = config["prompts"]
    row = {
        "use": "train",
        "path": str(tmp_path / "train.jsonl"),
        "translator": train["translator"],
    }
    config |= {"prompts": [row | ({"limit": limit} if limit else {}), evaluate]}
    facts = limits((config, paper[1])).facts
    assert facts.count_prompts("train", "mt") == facts.count_prompts("train", "en") == prompts
    assert not any("prompts per language" in sentence for sentence in facts.assumptions)
    assert expect_bytes(facts.grid) == 11 * prompts * 64 * (4096 + 4096) * 6


@pytest.mark.parametrize(
    ("rule", "wildcards"),
    [
        ("generate", {"policy": "eurollm", "language": "de"}),
        ("score", {"policy": "eurollm", "language": "de", "reward": "skywork"}),
        ("translate_train", {"language": "de"}),
    ],
)
def test_an_empty_block_loads_no_model(paper, tmp_path, rule, wildcards):
    """A limit above the number of prompts makes blocks that are empty."""
    lines = "".join(f'{{"id": {number}, "text": "t"}}\n' for number in range(900))
    (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
    config = copy.deepcopy(paper[0]) | {"block": 500}
    train, evaluate = config["prompts"]
    row = {"use": "train", "path": str(tmp_path / "train.jsonl"), "translator": train["translator"], "limit": 2000}
    of_blocks = limits((config | {"prompts": [row, evaluate]}, paper[1]))
    works = [work_of(of_blocks.facts, rule, {**wildcards, "start": start}) for start in ("0", "500", "1000", "1500")]
    assert [(work.loads, work.items > 0) for work in works] == [(1, True), (1, True), (0, False), (0, False)]
    assert of_blocks.minutes(rule, {**wildcards, "start": "1000"}, 1) == 0


@pytest.mark.parametrize(
    ("name", "text", "row"),
    [
        ("train.csv", "id,text\n" + "".join(f'{i},"one\ntwo {i}"\n' for i in range(10)), {}),
        (
            "train.jsonl",
            "".join(json.dumps({"id": i, "text": f"t {i}", "kind": "a" if i < 10 else "b"}) + "\n" for i in range(50)),
            {"where": {"kind": "a"}},
        ),
    ],
)
def test_prompts_are_counted_as_they_are_read(paper, tmp_path, name, text, row):
    """A header and the further lines of a cell are no prompts, nor are rows that `where` does not choose."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    train, evaluate = paper[0]["prompts"]
    source = {"use": "train", "path": str(tmp_path / name), "translator": train["translator"], **row}
    facts = limits(paper, prompts=[source, evaluate]).facts
    assert facts.count_prompts("train", "en") == facts.count_prompts("train", "de") == 10


def test_a_source_that_cannot_be_read_says_nothing(paper, tmp_path):
    (tmp_path / "train.jsonl").write_text("{broken\n", encoding="utf-8")
    train, evaluate = paper[0]["prompts"]
    source = {"use": "train", "path": str(tmp_path / "train.jsonl"), "translator": train["translator"]}
    facts = limits(paper, prompts=[source, evaluate]).facts
    assert facts.count_prompts("train", "en") == 500 and facts.assumes_prompts


def plan_suite(paper, names, engine="vllm", **evaluation):
    """The work of a run's evaluation in German whose tasks of lm-eval are ``names``, less that of one without tasks."""
    config = copy.deepcopy(paper[0])
    config["evaluation"] |= {"batch": 50, **evaluation}
    for row in config["policies"]:
        row |= {"engine": engine, "batch": 16}
    facts = limits((config, paper[1])).facts
    works = []
    for tasks in ([], names):
        facts.grid.suites["de"] = tasks
        works.append(work_of(facts, "evaluate_language", {"run": "eurollm/de/dpo_mono", "language": "de"}))
    assert works[0].items == works[1].items
    return [getattr(works[1], name) - getattr(works[0], name) for name in ("tokens_in", "tokens_out", "steps")]


def test_tasks_of_lm_eval_have_their_documents_and_replies(paper):
    """MMLU-Pro has 12,032 documents in 14 single tasks, and replies of at most 2,048 tokens."""
    read, sampled, steps = plan_suite(paper, ["mmlu_pro"], engine="transformers")
    assert (read, sampled, steps) == pytest.approx((12_032 * 600, 12_032 * 0.15 * 2048, 12_032 / 50 * 2048))
    assert plan_suite(paper, ["mmlu_pro"], suite_limit=100)[:2] == pytest.approx((1400 * 600, 1400 * 0.15 * 2048))
    # Choices are only read; a limit is no more than there is, and holds where the table knows nothing.
    assert plan_suite(paper, ["hellaswag"], suite_limit=5000) == [5000 * 600, 0, 0]
    assert plan_suite(paper, ["gsm8k"], suite_limit=5000)[0] == 1319 * 600
    assert plan_suite(paper, ["unheard_of"], suite_limit=5000) == [5000 * 600, 0, 0]
    assert plan_suite(paper, ["unheard_of"]) == [1000 * 600, 0, 0]


def test_pools_that_end_alike_have_their_own_languages(paper):
    config = copy.deepcopy(paper[0])
    config["pools"] = [
        {"name": "west", "languages": ["en", "de"]},
        {"name": "south_west", "languages": ["es", "nl", "it"]},
    ]
    setting = next(row for row in config["settings"] if row["name"] == "dpo")
    config |= {"settings": [config["settings"][0], {**setting, "pools": ["west"], "evaluate": "all"}], "contrasts": []}
    facts = limits((config, paper[1])).facts
    run = "eurollm/west/dpo"
    for rule in ("evaluate", "judge"):
        prompts = [work_of(facts, f"{rule}_{pool}", {"run": run}).prompts for pool in ("west", "south_west")]
        assert prompts == [1000, 1500]


def test_a_measured_length_is_no_more_than_the_limit(paper):
    grid = limits(paper).facts.grid
    facts = Facts(grid, {(grid.path(grid.policies["eurollm"]["path"]), "de"): 600.0})
    assert [facts.tokens_of_response(grid.policies["eurollm"], "de", most) for most in (256, 4096)] == [256, 600]


@pytest.mark.parametrize(("block", "copies"), [(20_000, 0), (5000, 1)])
def test_joined_files_of_several_blocks_are_copies(paper, block, copies):
    """A score takes 103 bytes in state/ and its block, and 32 in a joined file; a single block is linked."""
    facts = limits(paper, block=block).facts
    language = {"policy": "eurollm", "language": "de"}
    reward = {"reward": paper[0]["reward_models"][0]["name"]}
    blocks = [{**language, "start": str(start)} for start in range(0, 20_000, block)]
    scored = [work_of(facts, "score", {**one, **reward}) for one in blocks]
    items = 20_000 * paper[0]["samples"]
    assert sum(work.bytes for work in scored) == 103 * items
    assert work_of(facts, "gather_scores", {**language, **reward}).bytes == 32 * items * copies
    sampled = sum(work_of(facts, "generate", one).bytes for one in blocks)
    assert work_of(facts, "gather_generations", language).bytes == pytest.approx(sampled * copies)


def test_the_audit_scores_every_answer_that_it_damages(paper):
    def count_texts(**audit):
        changes = {"audit": {"prompts": 10, **audit}}
        work = work_of(limits(config, **changes).facts, "audit_reward", {"reward": reward})
        return work.items / work.prompts

    config = (copy.deepcopy(paper[0]), paper[1])
    reward = config[0]["reward_models"][0]["name"]
    config[0]["prompts"][0]["reference"] = "reference"
    assert count_texts() == count_texts(answers="policy") == 10
    assert count_texts(samples=8) == 17, "a reference is compared with each of the policy's answers"
    assert count_texts(samples=8, answers="policy") == 80
    del config[0]["prompts"][0]["reference"]
    assert count_texts(samples=8) == 80


@pytest.mark.parametrize("translated_again", [False, True])
def test_translated_prompts_that_will_be_made_again_are_as_many_as_the_source_has(paper, tmp_path, translated_again):
    """Without a limit, only the source's finished block says how many they are."""
    config = copy.deepcopy(paper[0]) | {"results": str(tmp_path)}
    for key in ("limit", "max_tokens", "tokenizer"):
        config["prompts"][0].pop(key, None)
    grid, _ = build_grid(config, ROOT, paper[1])
    for code, count in (("en", 40), ("de", 30)):
        block = tmp_path / f"prompts/{code}/0.jsonl"
        block.parent.mkdir(parents=True)
        block.write_text('{"prompt_id": "a"}\n' * count, encoding="utf-8")
    stale = [str(tmp_path / "prompts/de/0.jsonl")] if translated_again else []
    facts = Facts(grid, stale=stale)
    assert facts.count_prompts("train", "de", 0) == (40 if translated_again else 30)


def test_a_split_model_waits_with_all_its_gpus(paper):
    work = work_of(limits(paper).facts, "generate", BLOCK)
    for steps in (0, 1000):
        one, four = (read_speed(SPEEDS, "h100").item_seconds(replace(work, steps=steps), gpus) for gpus in (1, 4))
        assert four - one == pytest.approx(3 * 0.03 * steps)


def test_a_row_of_the_config_overrides_the_plan(paper):
    grid = limits(paper).facts.grid
    row = grid.policies["eurollm"]
    assert grid.resource("runtime", [row], least=5000) == 5000 < grid.resource("runtime", [row], 2, least=5000)
    assert grid.resource("runtime", [{**row, "resources": {"runtime": 30}}], least=5000) == 30
