"""What a DPO step costs: scripts/train.py beside TRL's trainer as it comes, on the same pairs, in one run.

  python tests/benchmarks/dpo_step.py                                            the miniature's size, on the CPU
  python tests/benchmarks/dpo_step.py --shape eurollm-1.7b --pairs 32 --length 4096 --batch 8 --dtype bfloat16   a GPU
  python tests/benchmarks/dpo_step.py --options "--lora-dropout 0" --options "--checkpointing never"

The model has random weights. Both sides tune the same LoRA modules with the same batches; TRL's own defaults hold for
all else (DPOConfig, with the model given as a path). Each --options adds a side: scripts/train.py with these options.
The sides take turns, each in a process of its own. The table has two figures per side, medians over the turns: tokens per
second and peak memory. Tokens are those of prompts and answers, without padding. Behind them are their ratios to TRL's.
"""

import argparse
import json
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from shapes import SHAPES, provide_model

ROOT = Path(__file__).resolve().parents[2]
TARGETS = r"^(?!.*(vision|visual|image|audio)).*\.(q|k|v|o|gate|up|down)_proj$"


def main():
    args = parse_arguments()
    if args.side:
        return run_trl(args)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        args.model = provide_model(args.models or folder, "policy", args.shape, args.dtype, 2 * args.length)
        make_pairs(folder / "pairs.jsonl", args)
        sides = {"TRL": partial(measure_trl, folder, args)}
        for i, options in enumerate(["", *args.options]):
            sides[f"train.py {options}".rstrip()] = partial(measure_croco, folder / f"croco{i}", args, options)
        runs = {side: [] for side in sides}
        for turn in range(args.repeat):
            for side, measure in sides.items():
                runs[side].append(measure(turn))
    print(
        f"{args.shape}, {args.pairs} pairs, {args.length} tokens, batch {args.batch}, micro-batch {args.micro_batch}, {args.dtype}"
    )
    table = {side: take_medians(found) for side, found in runs.items() if all(found)}
    for side in sides:
        print(f"{side:40} {describe(table[side], table.get('TRL')) if side in table else 'out of memory'}")


def take_medians(runs):
    return {name: statistics.median(run[name] for run in runs) for name in ("tokens_per_second", "peak_memory_mb")}


def describe(row, trl):
    told = f"{row['tokens_per_second']:10.0f} tokens/s {row['peak_memory_mb']:8.0f} MB"
    ratios = [row[name] / trl[name] for name in row] if trl else []
    return told + "".join(f" {ratio:8.2f}" for ratio in ratios)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="miniature")
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument(
        "--length", type=int, default=128, help="tokens of the longest pair; the shortest have a quarter"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--options", action="append", default=[], help="of scripts/train.py, for one more side; may be given again"
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--models", type=Path, help="folder that keeps the models for further benchmarks")
    parser.add_argument("--side", nargs=3, metavar=("MODEL", "PAIRS", "RESULT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def make_pairs(path, args):
    """Pairs whose lengths are spread evenly; a character is a token."""
    rng = random.Random(0)

    def text(length):
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(length))

    with open(path, "w", encoding="utf-8") as file:
        for i in range(args.pairs):
            length = rng.randint(args.length // 4, args.length) - 8
            answers = {
                name: [{"role": "assistant", "content": text(length * 3 // 4)}] for name in ("chosen", "rejected")
            }
            prompt = [{"role": "user", "content": text(length // 4)}]
            file.write(json.dumps({"prompt_id": str(i), "prompt": prompt, **answers}) + "\n")


def measure_croco(folder, args, options, turn):
    run = folder / str(turn)
    done = start(
        "scripts/train.py", "--objective", "dpo", "--data", folder.parent / "pairs.jsonl", "--model", args.model,
        "--dtype", args.dtype, "--batch", args.batch, "--micro-batch", args.micro_batch, "--max-length", args.length,
        "--save-every", 10**6, "--state", run / "state", "--output", run / "checkpoint", *shlex.split(options),
    )  # fmt: skip
    if not done:
        return None
    manifest = json.loads((run / "checkpoint/manifest.json").read_text(encoding="utf-8"))
    peak = manifest["peak_gpu_memory_mb"] or manifest["peak_memory_mb"]
    return {"tokens": manifest["tokens"], "tokens_per_second": manifest["tokens_per_second"], "peak_memory_mb": peak}


def measure_trl(folder, args, turn):
    result = folder / f"trl{turn}.json"
    done = start(
        "tests/benchmarks/dpo_step.py", "--side", args.model, folder / "pairs.jsonl", result, "--length", args.length,
        "--batch", args.batch, "--micro-batch", args.micro_batch, "--dtype", args.dtype,
    )  # fmt: skip
    if not done:
        return None
    found = json.loads(result.read_text(encoding="utf-8"))
    return {"tokens_per_second": found["tokens"] / found["seconds"], "peak_memory_mb": found["peak_memory_mb"]}


def start(script, *arguments):
    """False where the GPU's memory is not enough."""
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode and "out of memory" in done.stderr.lower():
        return False
    if done.returncode:
        sys.exit(f"{script} failed:\n{done.stderr[-4000:]}")
    return True


def run_trl(args):
    """TRL's trainer as it comes, but for the batch, the length and the LoRA modules."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    from croco.cli import peak_memory_mb

    model, pairs, result = args.side
    config = DPOConfig(
        output_dir=str(Path(result).with_suffix("")),
        per_device_train_batch_size=args.micro_batch,
        gradient_accumulation_steps=args.batch // args.micro_batch,
        num_train_epochs=1,
        max_length=args.length,
        report_to="none",
        save_strategy="no",
        use_cpu=not torch.cuda.is_available(),
        bf16=args.dtype == "bfloat16",
        model_init_kwargs={"dtype": args.dtype} if args.dtype != "float32" else None,
    )
    data = load_dataset("json", data_files=pairs, split="train", cache_dir=str(Path(result).parent / "cache"))
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=TARGETS, task_type="CAUSAL_LM")
    trainer = DPOTrainer(model=model, args=config, train_dataset=data, peft_config=lora)
    seconds = trainer.train().metrics["train_runtime"]
    peak = torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else peak_memory_mb()
    tokens = sum(
        2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in trainer.train_dataset
    )
    found = {"seconds": seconds, "tokens": tokens, "peak_memory_mb": peak}
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
