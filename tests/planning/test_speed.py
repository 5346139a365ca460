"""What model work costs: by the table of GPU types, and by the manifests of a pilot."""

import json
from dataclasses import replace

import pytest
from conftest import ROOT

from croco.errors import InputError
from croco.planning.jobs import NEW, PlannedJob
from croco.planning.plan import Plan, Step
from croco.planning.speed import Measured, Speed, describe_other_gpus, estimate, find_speed, read_measured, read_speeds
from croco.planning.work import Work

SPEED = Speed("x", 80, 100, sampling=0.1, prefill=0.5, training=0.4, load_gb_s=2, start_s=0, source="estimate")
NOTHING = Measured({}, {})
POLICY = {"model": "p", "path": "org/p", "size": 9, "active": 9, "gigabytes": 18}


def write_manifest(results, name, **values):
    path = results / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def write_pilot(results, language, seconds, responses=1600, tokens=160_000, gpus=1, sampled=100, skipped=(), gpu=None):
    write_manifest(
        results,
        f"p/{language}/generations/0.manifest.json",
        stage="generate",
        options={"model": "org/p", "adapter": None, "prompts": f"{results}/prompts/{language}/0.jsonl"},
        counts={"prompts": 100, "responses": responses, "tokens": tokens, "skipped": dict(skipped)},
        sampled=sampled,
        seconds=seconds,
        gpus=gpus,
        gpu_names=[gpu] * gpus if gpu else [],
        job=language,
    )


def step(work, gpus=1, measured=NOTHING, after=(), outputs=("a",), exist=False):
    job = PlannedJob("generate", {}, NEW, gpus, 60, outputs, None, exist, after)
    return Step(job, work, estimate(work, gpus, SPEED, measured))


def test_shipped_speeds_name_their_sources():
    speeds = read_speeds(ROOT / "config" / "speeds.tsv")
    assert {"h100", "a100", "l40s", "rtx4090", "h200", "mi250"} <= speeds.keys()
    assert all("estimate" in speed.source for speed in speeds.values())
    assert all(share < 1 for speed in speeds.values() for share in (speed.sampling, speed.prefill, speed.training))


def test_wrong_figure_is_refused(tmp_path):
    text = (ROOT / "config" / "speeds.tsv").read_text(encoding="utf-8")
    for wrong in ("fast", "-1", "0"):
        path = tmp_path / "speeds.tsv"
        path.write_text(text.replace("989", wrong, 1), encoding="utf-8")
        with pytest.raises(InputError, match=r"speeds\.tsv.*2"):
            read_speeds(path)


def test_operations_and_loads():
    sampled = Work("generate", **POLICY, loads=1, tokens_out=1e6)
    # 2 x 9e9 parameters x 1e6 tokens at a tenth of 1e14 operations per second, and 18 GB at 2 GB per second.
    assert estimate(sampled, 1, SPEED, NOTHING).seconds == pytest.approx(1800 + 9)
    tuned = Work("train", **POLICY, loads=1, tokens_trained=1e6, training_factor=6)
    # Each of 8 processes loads the weights.
    assert estimate(tuned, 8, SPEED, NOTHING).seconds == pytest.approx(6 * 9e15 / 4e13 + 8 * 9)
    assert estimate(sampled, 0, SPEED, NOTHING).seconds == 0
    # The start of an engine takes its time, too.
    assert estimate(sampled, 1, replace(SPEED, start_s=60), NOTHING).seconds == pytest.approx(1800 + 9 + 60)


def test_pilot_replaces_the_table(tmp_path):
    write_pilot(tmp_path, "en", seconds=169)
    write_pilot(tmp_path, "de", seconds=209, tokens=320_000)
    measured = read_measured(tmp_path, SPEED, {"org/p": 18})
    assert measured.response_tokens == {("org/p", "en"): 100, ("org/p", "de"): 200}
    rate = measured.rates["generate", "org/p", ""]
    assert rate.mean == pytest.approx((160 + 200) / 3200) and rate.jobs == 2
    steps = [step(Work("generate", **POLICY, loads=1, items=32_000), measured=measured)]
    low, high = Plan(steps, [], []).interval()
    assert steps[0].hours == pytest.approx((3600 + 9) / 3600)
    assert low < steps[0].hours < high and low + high == pytest.approx(2 * steps[0].hours)


def test_times_of_other_gpus_are_scaled_or_said(tmp_path):
    table = {"h100": replace(SPEED, gpu="h100"), "rtx4090": replace(SPEED, gpu="rtx4090", tflops=25)}
    work = Work("generate", **POLICY, loads=1, items=1600, tokens_out=160_000)
    for gpu, planned, seconds, said in (
        ("NVIDIA GeForce RTX 4090", "rtx4090", 160, None),
        ("NVIDIA GeForce RTX 4090", "h100", 40, "times measured on NVIDIA GeForce RTX 4090 are scaled to h100"),
        (
            "NVIDIA A10",
            "h100",
            160,
            "times measured on NVIDIA A10, which config/speeds.tsv lacks, are taken as they are",
        ),
        (None, "h100", 160, None),
    ):
        write_pilot(tmp_path, "en", seconds=169, gpu=gpu)
        measured = read_measured(tmp_path, table[planned], {"org/p": 18}, table)
        assert estimate(work, 1, table[planned], measured).seconds == pytest.approx(seconds + 9)
        sentences = describe_other_gpus(measured, table[planned])
        assert len(sentences) == bool(said) and all(sentence.startswith(said) for sentence in sentences)
    # A pilot on both types of GPUs says of each what it measured there.
    write_pilot(tmp_path, "de", seconds=89, gpu="NVIDIA H100 80GB HBM3")
    write_pilot(tmp_path, "en", seconds=169, gpu="NVIDIA GeForce RTX 4090")
    for planned, seconds in (("h100", 80), ("rtx4090", 160)):
        measured = read_measured(tmp_path, table[planned], {"org/p": 18}, table)
        assert estimate(work, 1, table[planned], measured).seconds == pytest.approx(seconds + 9)


def test_shipped_speeds_are_found_by_the_names_of_drivers():
    speeds = read_speeds(ROOT / "config" / "speeds.tsv")
    for name, gpu in (
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA H200", "h200"),
        ("AMD Instinct MI250X", "mi250"),
        ("NVIDIA L40", None),
    ):
        found = find_speed(speeds, name)
        assert (found and found.gpu) == gpu
    # One die of an MI250 is a GPU.
    assert (speeds["mi250"].memory_gb, speeds["mi250"].tflops) == (64, 181)


def test_one_measured_job_gives_no_interval(tmp_path):
    write_pilot(tmp_path, "en", seconds=169)
    measured = read_measured(tmp_path, SPEED, {})
    steps = [step(Work("generate", **POLICY, loads=1, items=32_000), measured=measured)]
    assert Plan(steps, [], []).interval() is None


@pytest.mark.parametrize("values", [{"gpus": 0}, {"sampled": 0}, {"sampled": 40}])
def test_jobs_that_say_nothing_of_speed(tmp_path, values):
    write_pilot(tmp_path, "en", seconds=169, **values)
    assert not read_measured(tmp_path, SPEED, {}).rates


def test_prompts_that_are_skipped_do_not_hide_a_measured_block(tmp_path):
    write_pilot(tmp_path, "en", seconds=169, sampled=97, skipped={"prompt_too_long": 3})
    assert read_measured(tmp_path, SPEED, {}).rates["generate", "org/p", ""].mean == pytest.approx(169 / 1600)


def test_kinds_of_training_have_rates_of_their_own(tmp_path):
    """A training that was resumed says nothing: its rows are those of all starts, its seconds those of the last one."""
    shared = {"stage": "train", "gpus": 1, "counts": {}}
    for name, objective, seconds, runs in (("sft", "sft", 10, 1), ("dpo", "dpo", 30, 1), ("cut_off", "dpo", 1, 2)):
        options = {"model": "org/p", "objective": objective, "weights": "lora"}
        seen = {"rows_seen": {"sum": 100}, "runs": [{}] * runs}
        path = f"m/multi/{name}/checkpoint/manifest.json"
        write_manifest(tmp_path, path, **shared, **seen, options=options, seconds=seconds, job=name)
    rates = read_measured(tmp_path, SPEED, {}).rates
    assert {key[2]: rate.mean for key, rate in rates.items()} == {"sft lora": 0.1, "dpo lora": 0.3}
    work = Work("train", **POLICY, kind="dpo lora", items=1000)
    assert estimate(work, 1, SPEED, Measured(rates, {})).seconds == pytest.approx(300)


def test_languages_of_one_job_share_its_time(tmp_path):
    for language, seconds in (("en", 50), ("de", 100)):
        write_manifest(
            tmp_path,
            f"m/multi/dpo/arena/{language}.manifest.json",
            stage="judge",
            options={"model": "org/j"},
            counts={"verdicts": 100},
            asked=400,
            comparisons=400,
            seconds=seconds,
            gpus=2,
            job="one",
        )
    assert read_measured(tmp_path, SPEED, {}).rates["judge", "org/j", ""].mean == pytest.approx(2 * 100 / 200)


def test_longest_chain_waits_for_each_job():
    hour = Work("generate", **POLICY, tokens_out=2e6)
    steps = [step(hour), step(hour, after=(0,)), step(hour, gpus=2, after=(1,)), step(hour, after=(0,))]
    assert steps[0].hours == pytest.approx(1)
    assert Plan(steps, [], []).longest_chain() == pytest.approx(2.5)
