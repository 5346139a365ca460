"""What tokenising costs a training of several processes: each encodes all rows, and each encodes its part of them.

  OMP_NUM_THREADS=1 python tests/benchmarks/encoding.py --model POLICY --data pairs.jsonl --processes 2

Prints wall time and the ratio; loading the tokenizer and writing the examples are included in the second figure.
"""

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from croco.training.policy import load_vocabulary  # noqa: E402
from croco.training.process import encode_share, save_examples  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="pairs")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    os.environ["CROCO_PARENT"] = str(os.getpid())
    with tempfile.TemporaryDirectory() as folder:
        job = argparse.Namespace(
            data=args.data, folder=Path(folder), objective="dpo", model=args.model, revision=None, loss_on="answer",
            trust_remote_code=False, template_options={}, max_length=512, too_long="drop", max_tokens=16,
            processes=args.processes,
        )  # fmt: skip
        alone = argparse.Namespace(**{**vars(job), "processes": 1})
        start = time.perf_counter()
        with ProcessPoolExecutor(args.processes, get_context("fork")) as pool:
            list(pool.map(encode_all, [alone] * args.processes))
        each = time.perf_counter() - start
        start = time.perf_counter()
        save_examples(job)
        once = time.perf_counter() - start
    print(f"{args.processes} processes: each all rows {each:.2f} s, each a part {once:.2f} s, ratio {each / once:.2f}")


def encode_all(job):
    """Number of examples, as each process encoded them before."""
    return len(encode_share(job, *load_vocabulary(job), 0)[0])


if __name__ == "__main__":
    main()
