"""What the stages of sampling and scoring cost: scripts beside bare calls of the same library, in one run.

  python tests/benchmarks/stages.py                                        the miniature's size, on the CPU
  python tests/benchmarks/stages.py --shape eurollm-1.7b --dtype bfloat16  a GPU
  .venv-vllm/bin/python tests/benchmarks/stages.py --engine vllm           vLLM

Models have random weights, so nearly all answers have --max-tokens tokens. A bare call loads the model, tokenises,
samples or classifies in batches of the same size, and decodes; it checks and keeps nothing. A stage does what
scripts/generate.py and scripts/score.py do, with seeds, digests, finished work on disk and manifests. The stage and the
bare call run in turns, each time in a new process, which first does the work of one prompt: the load of the model and the
first use of its operators are not part of the time. Prints tokens per second of both (sampled tokens for generate, tokens
read for score; medians over the turns) and the ratio.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from shapes import SHAPES, provide_model

ROOT = Path(__file__).resolve().parents[2]
ROLES = {"generate": "policy", "score": "reward"}


def main():
    args = parse_arguments()
    if args.side:
        side, stage, *folders = args.side
        return (run_bare if side == "bare" else run_stage)(stage, *map(Path, folders), args)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_work(folder, args.sampled or args.prompts, args.prompts, args)
        write_work(folder / "one", 1, 1, args, seed=2)
        context = args.prompt_tokens + args.max_tokens + 64
        models = {
            stage: provide_model(args.models or folder, role, args.shape, args.dtype, context)
            for stage, role in ROLES.items()
        }
        rates = {(stage, side): [] for stage in ROLES for side in ("stage", "bare")}
        for turn in range(args.repeat):
            for stage, side in rates:
                rates[stage, side].append(measure(stage, side, folder, models[stage], args, turn))
    medians = {key: statistics.median(values) for key, values in rates.items()}
    print(
        f"{args.engine}, {args.shape}, {args.dtype}: {args.prompts} prompts of {args.prompt_tokens} tokens, {args.samples} "
        f"answers of {args.max_tokens} tokens each, batch {args.batch}, {args.repeat} turns"
    )
    for stage in ROLES:
        own, bare = medians[stage, "stage"], medians[stage, "bare"]
        print(f"{stage:9} {own:10.0f} tokens/s, bare {bare:10.0f} tokens/s, ratio {own / bare:.2f}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="miniature")
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--sampled", type=int, help="how many of the prompts get samples (default: all)")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seeded", action="store_true", help="give bare calls of vLLM a seed, too")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--models", type=Path, help="folder that keeps the models for further benchmarks")
    parser.add_argument("--side", nargs=4, metavar=("SIDE", "STAGE", "FOLDER", "MODEL"), help=argparse.SUPPRESS)
    return parser.parse_args()


def write_work(folder, sampled, scored, args, seed=0):
    """What both sides work on: prompts to sample from, and prompts with answers to score."""
    folder.mkdir(exist_ok=True)
    write_prompts(folder / "generate.jsonl", sampled, args, seed)
    write_prompts(folder / "score.jsonl", scored, args, seed)
    write_generations(folder, args)


def write_prompts(path, count, args, seed):
    """Prompts in which a letter is a token; their chat adds three tokens."""
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        for i in range(count):
            text = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(args.prompt_tokens - 3))
            message = {"role": "user", "content": text}
            row = {"prompt_id": f"p{i}", "language": "en", "messages": [message], "reference": None}
            file.write(json.dumps(row | {"source": "random", "skip": None}) + "\n")


def write_generations(folder, args):
    """Answers to score, of half to all of the tokens that an answer may have."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from croco.digests import prompt_digest

    rng = random.Random(1)
    prompts = (folder / "score.jsonl").read_text(encoding="utf-8").splitlines()
    with open(folder / "generations.jsonl", "w", encoding="utf-8") as file:
        for prompt in map(json.loads, prompts):
            lengths = [rng.randint(args.max_tokens // 2, args.max_tokens) for _ in range(args.samples)]
            responses = [
                {
                    "text": "".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=n)),
                    "finish_reason": "stop",
                    "n_tokens": n,
                    "token_digest": f"{i:016x}",
                }
                for i, n in enumerate(lengths)
            ]
            file.write(
                json.dumps(
                    {
                        "prompt_id": prompt["prompt_id"],
                        "language": "en",
                        "prompt_digest": prompt_digest(prompt),
                        "skip": None,
                        "start": 0,
                        "responses": responses,
                    }
                )
                + "\n"
            )


def measure(stage, side, folder, model, args, turn):
    """Tokens per second of one side in a process of its own."""
    run = folder / f"{stage}-{side}-{turn}"
    run.mkdir()
    options = ["shape", "engine", "prompts", "samples", "prompt_tokens", "max_tokens", "batch", "dtype"]
    given = [f"--{name.replace('_', '-')}={getattr(args, name)}" for name in options]
    given += ["--seeded"] if args.seeded else []
    done = subprocess.run(
        [sys.executable, __file__, *given, "--side", side, stage, str(run), str(model)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{side} {stage} failed:\n{done.stderr[-4000:]}")
    found = json.loads((run / "found.json").read_text(encoding="utf-8"))
    return found["tokens"] / found["seconds"]


def run_stage(stage, run, model, args):
    """The stage's own main in this process, with one model for both works."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import generate
    import score

    module, loader = (generate, "load_policy") if stage == "generate" else (score, "load_reward_model")
    load, loaded = getattr(module, loader), []

    def load_once(*arguments):
        if not loaded:
            loaded.append(load(*arguments))
        return loaded[0]

    setattr(module, loader, load_once)
    for work in (run.parent / "one", run.parent):
        common = [
            "--prompts", work / f"{stage}.jsonl", "--model", model, "--engine", args.engine, "--dtype", args.dtype,
            "--batch", args.batch, "--state", run / "state", "--output", run / work.name / "output.jsonl",
        ]  # fmt: skip
        if stage == "generate":
            options = ["--samples", args.samples, "--temperature", 1, "--max-tokens", args.max_tokens]
        else:
            options = ["--generations", work / "generations.jsonl", "--max-length", 10**5]
        sys.argv = [f"{stage}.py", *map(str, common + options)]
        start = time.perf_counter()
        module.main()
        seconds = time.perf_counter() - start
    if stage == "generate":  # an answer may have ended early
        tokens = json.loads((run / work.name / "output.manifest.json").read_text(encoding="utf-8"))["counts"]["tokens"]
    else:
        tokens = count_scored(work, args)
    write_found(run, tokens, seconds)


def count_scored(folder, args):
    """Tokens of all chats with their answers."""
    answers = (folder / "generations.jsonl").read_text(encoding="utf-8").splitlines()
    lengths = [response["n_tokens"] for line in answers for response in json.loads(line)["responses"]]
    return sum(lengths) + len(lengths) * (args.prompt_tokens + 1)  # the chat has one token more at each end


def write_found(run, tokens, seconds):
    (run / "found.json").write_text(json.dumps({"tokens": tokens, "seconds": seconds}), encoding="utf-8")


def run_bare(stage, run, model, args):
    """The shortest program for the same work."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = (load_vllm if args.engine == "vllm" else load_transformers)(stage, model, args)
    for work in (run.parent / "one", run.parent):
        start = time.perf_counter()
        tokens = (sample_bare if stage == "generate" else score_bare)(work, tokenizer, loaded, args)
        seconds = time.perf_counter() - start
    write_found(run, tokens, seconds)


def read_lines(path):
    return map(json.loads, path.read_text(encoding="utf-8").splitlines())


def sample_bare(work, tokenizer, loaded, args):
    """Samples of all prompts of a folder; returns the number of their tokens."""
    sample = sample_vllm if args.engine == "vllm" else sample_transformers
    encode = partial(tokenizer.apply_chat_template, add_generation_prompt=True, tokenize=True, return_dict=False)
    prompts = [encode(row["messages"]) for row in read_lines(work / "generate.jsonl")]
    answers = sample(loaded, tokenizer, prompts, args)
    assert len(answers) == len(prompts) * args.samples
    return len(answers) * args.max_tokens


def score_bare(work, tokenizer, loaded, args):
    """Rewards of all answers of a folder; returns the number of tokens read."""
    rows = zip(read_lines(work / "score.jsonl"), read_lines(work / "generations.jsonl"), strict=True)
    chats = [
        [*prompt["messages"], {"role": "assistant", "content": response["text"]}]
        for prompt, row in rows
        for response in row["responses"]
    ]
    ids = [tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False) for chat in chats]
    rewards = (classify_vllm if args.engine == "vllm" else classify_transformers)(loaded, ids, args)
    assert len(rewards) == len(chats)
    return sum(map(len, ids))


def load_transformers(stage, folder, args):
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForCausalLM if stage == "generate" else AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, dtype=args.dtype)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def sample_transformers(model, tokenizer, prompts, args):
    import torch

    answers = []
    with torch.inference_mode():
        for tokens in prompts:
            for first in range(0, args.samples, args.batch):
                rows = min(args.batch, args.samples - first)
                ids = torch.tensor([tokens] * rows, device=model.device)
                output = model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_p=1.0,
                    top_k=0, min_new_tokens=args.max_tokens, max_new_tokens=args.max_tokens, pad_token_id=0,
                )  # fmt: skip
                answers += tokenizer.batch_decode(output[:, ids.shape[1] :].tolist(), skip_special_tokens=True)
    return answers


def classify_transformers(model, ids, args):
    import torch

    rewards = {}
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    with torch.inference_mode():
        for start in range(0, len(order), args.batch):
            batch = order[start : start + args.batch]
            width = max(len(ids[i]) for i in batch)
            tokens = torch.tensor([ids[i] + [0] * (width - len(ids[i])) for i in batch], device=model.device)
            logits = model(input_ids=tokens, attention_mask=(tokens != 0).long()).logits[:, 0].float().tolist()
            rewards.update(zip(batch, logits, strict=True))
    return [rewards[i] for i in range(len(ids))]


def load_vllm(stage, folder, args):
    import torch

    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    options = {}
    if not torch.cuda.is_available():
        os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
        options = {"enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": 2048}
    from vllm import LLM

    return LLM(str(folder), dtype=args.dtype, **options, **({} if stage == "generate" else {"runner": "pooling"}))


def sample_vllm(llm, tokenizer, prompts, args):
    from vllm import SamplingParams

    seed = {"seed": 0} if args.seeded else {}
    parameters = SamplingParams(n=args.samples, temperature=1.0, max_tokens=args.max_tokens, ignore_eos=True, **seed)
    outputs = llm.generate([{"prompt_token_ids": tokens} for tokens in prompts], parameters, use_tqdm=False)
    return [sample.text for output in outputs for sample in output.outputs]


def classify_vllm(llm, ids, args):
    from vllm import PoolingParams

    outputs = llm.classify(
        [{"prompt_token_ids": tokens} for tokens in ids],
        pooling_params=PoolingParams(use_activation=False),
        use_tqdm=False,
    )
    return [output.outputs.probs[0] for output in outputs]


if __name__ == "__main__":
    main()
