"""Disk, time and memory of results at the paper's scale, on synthetic files in a temporary folder.

  python tests/benchmarks/scale.py disk --prompts 20000 --samples 8
  python tests/benchmarks/scale.py report --prompts 20000 --samples 64
  python tests/benchmarks/scale.py summary --runs 90 --languages 15 --documents 10000

`disk` writes one policy's responses and rewards through the workflow's own record writers, joins the blocks with
scripts/gather.py, and prints the bytes of each folder. A file with several hard links counts once, where it is seen
first. `report` and `summary` run the script in a process of its own and print its time and peak memory.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from conftest import write_runs  # noqa: E402

from croco.digests import digest, prompt_digest  # noqa: E402
from croco.files import publish  # noqa: E402
from croco.records import write_json, write_jsonl  # noqa: E402
from croco.results.table import COLUMNS  # noqa: E402
from croco.state import Parts  # noqa: E402
from generate import describe  # noqa: E402

BLOCK, CHUNK = 5000, 64
MODEL, REWARD, POOL, SETTING = "policy", "rm", "multi", "dpo"
VARIANTS = 4  # runs that differ; the others are links to these, so that writing takes minutes and not hours


def main():
    args = parse_arguments()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        args.measure(args, Path(folder))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    commands = parser.add_subparsers(required=True)
    for name, measure in (("disk", measure_disk), ("report", measure_report), ("summary", measure_summary)):
        command = commands.add_parser(name)
        command.set_defaults(measure=measure)
        command.add_argument("--languages", type=int, default=1)
        if name == "summary":
            command.add_argument("--runs", type=int, default=90, help="tuned models; the base comes on top")
            command.add_argument("--documents", type=int, default=10000, help="documents of tasks per language and run")
        else:
            command.add_argument("--prompts", type=int, default=20000)
            command.add_argument("--samples", type=int, default=8 if name == "disk" else 64)
            command.add_argument("--words", type=int, default=100, help="words per response")
    return parser.parse_args()


def measure_disk(args, root):
    """Prints the bytes of each layer of responses and rewards."""
    random.seed(0)
    for code in name_languages(args):
        generations, scores = root / MODEL / code / "generations", root / MODEL / code / "scores" / REWARD
        for start in range(0, args.prompts, BLOCK):
            prompts = make_prompts(code, range(start, min(start + BLOCK, args.prompts)))
            rows = [(prompt, write_texts(args)) for prompt in prompts]
            publish(settle(root, "generations", prompts, [describe_responses(*row) for row in rows]), block(generations, start))  # fmt: skip
            results = [(prompt, texts, [random.gauss(0, 3) for _ in texts]) for prompt, texts in rows]
            settle(root, "scores", prompts, [describe_scores(*row) for row in results])
            write_jsonl(block(scores, start), (describe_rewards(prompt, rewards) for prompt, _, rewards in results))
        for folder in (generations, scores):
            parts = [block(folder, start) for start in range(0, args.prompts, BLOCK)]
            run("gather", "--parts", *parts, "--output", folder.with_suffix(".jsonl"))
    responses = len(name_languages(args)) * args.prompts * args.samples
    print("| files | bytes per response | without those linked above |\n|---|---|---|")
    seen = set()
    for name, pattern in (
        ("finished chunks, state/generations", "state/generations/**/*.jsonl"),
        ("their index, state/generations", "state/generations/**/*.index"),
        ("blocks, MODEL/LANGUAGE/generations/", "*/*/generations/*.jsonl"),
        ("joined, MODEL/LANGUAGE/generations.jsonl", "*/*/generations.jsonl"),
        ("finished chunks, state/scores", "state/scores/**/*.jsonl"),
        ("blocks, MODEL/LANGUAGE/scores/REWARD/", f"*/*/scores/{REWARD}/*.jsonl"),
        ("joined, MODEL/LANGUAGE/scores/REWARD.jsonl", f"*/*/scores/{REWARD}.jsonl"),
    ):
        found = [path.stat() for path in root.glob(pattern)]
        new = {stat.st_ino: stat.st_size for stat in found if stat.st_ino not in seen}
        seen |= new.keys()
        print(f"| {name} | {sum(stat.st_size for stat in found) / responses:,.0f} | {sum(new.values()) / responses:,.0f} |")  # fmt: skip


def settle(root, stage, prompts, lines):
    """Writes lines as finished chunks and then as a block's one part, as the stages do; returns the part."""
    digests = [prompt_digest(prompt) for prompt in prompts]
    parts = Parts(root / "state", stage, {"language": prompts[0]["language"]}, digests, lambda line: 1)
    for start in range(0, len(lines), CHUNK):
        parts.add(lines[start : start + CHUNK])
    return parts.settle(lines) if stage == "generations" else None


def block(folder, start):
    """The path of a block's file; its manifest is written."""
    write_json(folder / f"{start}.manifest.json", {"counts": {}, "inputs": {}})
    return folder / f"{start}.jsonl"


def make_prompts(code, numbers):
    return [
        {"prompt_id": f"p{i}", "language": code, "messages": [{"role": "user", "content": f"Question {i}"}]}
        for i in numbers
    ]


def write_texts(args):
    return [" ".join(random.choices(WORDS, k=args.words)) for _ in range(args.samples)]


def describe_responses(prompt, texts):
    responses = [
        {"text": text, "finish_reason": "stop", "n_tokens": len(text) // 4, "token_digest": digest(text)[:16]}
        for text in texts
    ]
    return describe(prompt, 0, responses, None)


def describe_scores(prompt, texts, rewards):
    return {
        "prompt_digest": prompt_digest(prompt),
        "texts": [digest(text) for text in texts],
        "results": [[reward, None] for reward in rewards],
    }


def describe_rewards(prompt, rewards):
    names = {name: prompt[name] for name in ("prompt_id", "language")}
    return {**names, "rewards": rewards, "reasons": [None] * len(rewards)}


def measure_report(args, root):
    """Prints what report.py takes for a model of which all responses have rewards; nothing else is there."""
    random.seed(0)
    for code in name_languages(args):
        rows = (
            describe_rewards(prompt, [random.gauss(0, 3) for _ in range(args.samples)])
            for prompt in make_prompts(code, range(args.prompts))
        )
        write_jsonl(root / MODEL / code / "scores" / f"{REWARD}.jsonl", rows)
    pairs = (
        describe_pair(prompt, args)
        for code in name_languages(args)
        for prompt in make_prompts(code, range(args.prompts))
    )
    write_jsonl(root / MODEL / POOL / SETTING / "pairs.jsonl", pairs)
    (root / "summary.csv").write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    runs = write_run_table(args, root, 1)
    summary = ["--summary", root / "summary.csv"]
    measure(
        args, "report", "--root", root, "--runs", runs, *summary, "--examples", "0", "--output", root / "report.html"
    )


def describe_pair(prompt, args):
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in write_texts(args)[:2])
    languages = dict.fromkeys(("prompt_language", "chosen_language", "rejected_language"), prompt["language"])
    pool = {"pool_size": args.samples, "pool_mean": 0.0, "pool_std": 3.0, "target": -6.0}
    rewards = {"chosen_reward": random.gauss(6, 1), "rejected_reward": random.gauss(-6, 1)}
    texts = {"prompt": prompt["messages"], "chosen": chosen, "rejected": rejected}
    return {"prompt_id": prompt["prompt_id"], **texts, **rewards, **languages, **pool}


def measure_summary(args, root):
    """Prints what summary.py takes for the documents of structured tasks in all runs and languages."""
    random.seed(0)
    for code in name_languages(args):
        sources = [root / "variants" / code / str(number) for number in range(VARIANTS)]
        for source in sources:
            write_jsonl(source, (describe_sample(code, i) for i in range(args.documents)))
        for number, folder in enumerate(name_runs(args, root)):
            write_json(folder / f"eval/{code}.json", {"task": {"n": args.documents}})
            publish(sources[number % VARIANTS], folder / f"eval/{code}.samples.jsonl")
    runs = write_run_table(args, root, args.runs)
    measure(args, "summary", "--root", root, "--runs", runs, "--output", root / "summary.csv")


def describe_sample(code, number):
    names = {"task": "task", "prompt_id": f"p{number}", "doc_hash": digest([code, number])}
    return {**names, "target": "A", "response": "A", "exact_match": float(random.random() < 0.6)}


def name_languages(args):
    return [f"l{i:02}" for i in range(args.languages)]


def name_setting(number):
    return f"{SETTING}{number}" if number else SETTING


def name_runs(args, root):
    return [
        root / MODEL / "untuned" / "base",
        *(root / MODEL / POOL / name_setting(number) for number in range(args.runs)),
    ]


def write_run_table(args, root, count):
    codes = ",".join(name_languages(args))
    tuned = [(MODEL, POOL, name_setting(number), 1, REWARD, 64, codes) for number in range(count)]
    return write_runs(root / "runs.jsonl", (MODEL, "untuned", "base", 1, "-", "-", codes), *tuned)


def measure(args, stage, *options):
    """Prints the time and peak memory of a script in a process of its own."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, ROOT / "scripts" / f"{stage}.py", *map(str, options)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{stage}.py failed: {status}")
    given = {name: value for name, value in vars(args).items() if name not in ("folder", "measure")}
    print(f"{stage}.py, {given}: {time.perf_counter() - start:.0f} s, {usage.ru_maxrss / 1024:,.0f} MB")


def run(stage, *options):
    subprocess.run([sys.executable, ROOT / "scripts" / f"{stage}.py", *map(str, options)], check=True)


WORDS = [f"word{i}" for i in range(1000)]

if __name__ == "__main__":
    main()
