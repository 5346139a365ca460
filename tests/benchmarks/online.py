"""Sampling in online DPO: micro-batch by micro-batch, as TRL samples, and the whole optimizer step in one call.

  OMP_NUM_THREADS=1 python tests/benchmarks/online.py --policy MINIATURE/policy --reward-model MINIATURE/reward

MINIATURE is the folder with the miniature's policy and reward model. Both ways train on the same prompts by
scripts/train.py and take turns. Prints the tokens of answers that are sampled per second, medians, and the ratio.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import train  # noqa: E402
from croco.training import process  # noqa: E402
from croco.training.online_pairs import OnlinePairs  # noqa: E402


def main():
    args = parse_arguments()
    train.run_processes = train_here
    clock = Clock()
    ways = {"per micro-batch": args.micro_batch, "per optimizer step": args.batch}
    rates = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_prompts(folder / "prompts.jsonl", args.prompts)
        for turn in range(args.repeat):
            for name, generation_batch in ways.items():
                sys.argv = list_arguments(args, folder, folder / f"{generation_batch}-{turn}", generation_batch)
                clock.seconds, clock.tokens = 0.0, 0
                train.main()
                rates[name].append(clock.tokens / clock.seconds)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"{args.prompts} prompts, batch {args.batch}, micro-batch {args.micro_batch}, {args.repeat} turns")
    for name, median in medians.items():
        print(f"{name:18} {median:8.0f} tokens/s")
    print(f"ratio              {medians['per optimizer step'] / medians['per micro-batch']:8.2f}")


class Clock:
    """Seconds and tokens of all sampling since both were last set to 0."""

    def __init__(self):
        self.seconds, self.tokens = 0.0, 0
        take = OnlinePairs._take_responses

        def take_in_time(trainer, model):
            start = time.perf_counter()
            ids = take(trainer, model)
            self.tokens += int(ids[3].sum())  # waits for the device
            self.seconds += time.perf_counter() - start
            return ids

        OnlinePairs._take_responses = take_in_time


def train_here(path):
    """As train.run_processes, in this process."""
    job = process.read_job(path)
    process.save_examples(job)
    process.train(job)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="folder of the policy")
    parser.add_argument("--reward-model", type=Path, required=True, help="folder of the reward model")
    parser.add_argument("--dtype", default="float32", help="of both")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    return parser.parse_args()


def write_prompts(path, count):
    with open(path, "w", encoding="utf-8") as file:
        for i in range(count):
            prompt = [{"role": "user", "content": f"What is {i % 20} plus {i // 20}?"}]
            file.write(json.dumps({"prompt_id": f"p{i}", "prompt": prompt}) + "\n")


def list_arguments(args, folder, output, generation_batch):
    options = [
        "train.py", "--objective", "online_dpo", "--data", folder / "prompts.jsonl",
        "--model", args.policy, "--dtype", args.dtype, "--reward-model", args.reward_model, "--reward-dtype", args.dtype,
        "--batch", args.batch, "--micro-batch", args.micro_batch, "--generation-batch", generation_batch,
        "--max-tokens", args.max_tokens, "--max-length", args.max_tokens + 96, "--epochs", 1,
        "--state", output / "state", "--output", output / "checkpoint",
    ]  # fmt: skip
    return [str(option) for option in options]


if __name__ == "__main__":
    main()
