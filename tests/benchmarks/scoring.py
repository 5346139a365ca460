"""How long a device waits for tokenising while it scores: chunk after chunk, and with the next chunk encoded ahead.

  OMP_NUM_THREADS=1 python tests/benchmarks/scoring.py --model MINIATURE/reward

The tokenizer is that of the model, and chats are encoded by the engine's own code. The device is a stand-in: it sleeps
as long as one with --rate tokens per second would work. Both ways take turns. Prints medians and the ratio.
"""

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from croco.models.chats import ChatScorer  # noqa: E402
from score import encode_chunk, run_ahead  # noqa: E402


def main():
    args = parse_arguments()
    model = ChatScorer(args.model, max_length=10**6)
    chunks = [(model, chunk) for chunk in make_chunks(args)]
    tokens = sum(len(ids) for step in chunks for ids, _ in encode_chunk(*step))
    seconds = {"chunk after chunk": [], "encoded ahead": []}
    for _ in range(args.repeat):
        for name, steps in (
            ("chunk after chunk", ((step, encode_chunk(*step)) for step in chunks)),
            ("encoded ahead", run_ahead(encode_chunk, chunks)),
        ):
            start = time.perf_counter()
            for _, encoded in steps:
                time.sleep(sum(len(ids) for ids, _ in encoded) / args.rate)
            seconds[name].append(time.perf_counter() - start)
    device = tokens / args.rate
    print(f"{tokens} tokens in {args.chunks} chunks, a device of {args.rate:.0f} tokens per second")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:18} {median:6.2f} s, the device waits {1 - device / median:6.1%}")
    print(
        f"ratio              {statistics.median(seconds['chunk after chunk']) / statistics.median(seconds['encoded ahead']):6.3f}"
    )


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a reward model")
    parser.add_argument("--rate", type=float, default=25000, help="tokens per second that the device classifies")
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--texts", type=int, default=256, help="texts per chunk")
    parser.add_argument("--words", type=int, default=100, help="words per text")
    parser.add_argument("--repeat", type=int, default=3)
    return parser.parse_args()


def make_chunks(args):
    """Chunks of one prompt with many answers, in the form of score.missing_chunks."""
    rng, words = (
        random.Random(0),
        [
            "the",
            "answer",
            "is",
            "seven",
            "because",
            "three",
            "and",
            "four",
            "make",
            "it",
            "so",
            ".",
            "you",
            "can",
            "see",
            "that",
        ],
    )
    prompt = {"messages": [{"role": "user", "content": "What is 3 plus 4?"}]}
    for _ in range(args.chunks):
        yield [(prompt, [" ".join(rng.choices(words, k=args.words)) for _ in range(args.texts)])]


if __name__ == "__main__":
    main()
