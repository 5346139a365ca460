"""Tune a policy with LoRA or in full: DPO on pairs, SFT on completions, online DPO on prompts, by TRL.

Example:
  python scripts/train.py --objective dpo --data pairs.jsonl --model DIR --learning-rate 5e-6 \\
      --batch 64 --micro-batch 1 --processes 8 --state state --output checkpoint

The defaults are the paper's recipe. --batch is the effective batch; gradient accumulation follows from it, the
micro-batch and the number of processes (one for each GPU, started by torchrun), and is asserted. Where a GPU runs out
of memory, the training goes on with half the micro-batch and the same effective batch.

A killed run resumes from its newest whole checkpoint under --state, with any number of processes; a run whose data,
model, recipe, code and versions were already trained is linked from there.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from croco import cli
from croco.digests import behaviour_digest, versions
from croco.errors import InputError
from croco.models.loading import model_id
from croco.models.options import DTYPES, add_model_options, add_template_options
from croco.objectives import OBJECTIVES
from croco.records import read_json, read_jsonl, write_json
from croco.state import NAMED_TEMPLATES, WEIGHT_FILES, Finished, expect_finished, list_checkpoint_files
from croco.training.encode import digest_rows, read_rows
from croco.training.guards import Guards, check_guards
from croco.training.process import die_with_parent
from croco.training.recipe import SMOOTHED, find_faults

SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
OPTIMIZERS = ("adamw_torch_fused", "adamw_torch", "adafactor")
LOSSES = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "apo_zero", "apo_down")

# Options that say where, how fast and how long it is trained. The numbers of processes and of rows in a micro-batch
# or in a call of generate change last bits, and the draws of dropout and of online DPO's sampling. They are not in the
# key, so that they can follow the memory and the GPUs at hand. Gradient checkpointing changes last bits alone.
NOT_IN_CACHE_KEY = [
    "data",
    "model",
    "revision",
    "state",
    "output",
    "save_every",
    "checkpointing",
    "ledger",
    "off_policy",
    "processes",
    "micro_batch",
    "generation_batch",
    "guards",
    "start",
    "reward_model",
    "reward_revision",
    "reward_trust_remote_code",
    "identity",
    "rows_digest",
]
# The files whose behaviour decides the tuned weights.
DECIDING = (
    "croco/training/process.py",
    "croco/training/policy.py",
    "croco/training/trainers.py",
    "croco/training/by_rows.py",
    "croco/training/live.py",
    "croco/training/encode.py",
    "croco/models/lora.py",
    "croco/models/chats.py",
)
# The files that decide what online DPO samples, rewards and pairs.
DECIDING_ONLINE = (
    "croco/training/online_pairs.py",
    "croco/models/transformers_engine.py",
    "croco/text/normalise.py",
)


def main():
    args = parse_arguments()
    check_data(args)
    args.identity = model_id(args.model, args.revision, args.state, args.start)
    check_policy(args)
    args.rows_digest = digest_rows(args.data, args.objective)
    inputs = cache_key_inputs(args)
    finished = Finished(args.state, "training", inputs)
    with finished.alone():
        if finished.complete:
            check_finished(args, finished)
            print("this training is finished already: linking its checkpoint", file=sys.stderr)
        else:
            tell_of_unfinished(args, finished, inputs)
            expect_finished()
            train(args, finished)
    publish_checkpoint(args, finished)


def publish_checkpoint(args, finished):
    """Links the checkpoint to args.output, in place of another one, whose weights may be of the other kind."""
    names = list_checkpoint_files(args.weights)
    for name in {name for files in WEIGHT_FILES.values() for name in files} - {*names}:
        (args.output / name).unlink(missing_ok=True)
    for name in names:
        finished.publish_as(name, args.output / name)
    # A policy may have several named templates. Sampling and training use the default one, chat_template.jinja.
    shutil.rmtree(args.output / NAMED_TEMPLATES, ignore_errors=True)
    for path in sorted((finished.final / NAMED_TEMPLATES).glob("*")):
        finished.publish_as(f"{NAMED_TEMPLATES}/{path.name}", args.output / NAMED_TEMPLATES / path.name)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--objective", choices=tuple(OBJECTIVES), required=True, help="what is optimised")
    parser.add_argument("--data", type=Path, required=True, help="pairs.jsonl, completions.jsonl or prompts.jsonl")
    add_model_options(parser)
    add_template_options(parser)
    parser.add_argument(
        "--start", type=Path, help="checkpoint of the round before: the adapter to go on from and refer to"
    )
    parser.add_argument("--ledger", type=Path, help="ledger.json of the data: whose responses they are is checked")
    parser.add_argument("--off-policy", action="store_true", help="the responses may be another policy's")
    parser.add_argument("--learning-rate", type=cli.number(above=0), default=5e-6, help="peak")
    parser.add_argument(
        "--schedule", choices=SCHEDULES, default="cosine", help="learning-rate schedule of transformers"
    )
    parser.add_argument("--warmup", type=cli.number(0), default=0.05, help="share of steps (below 1) or steps")
    parser.add_argument("--epochs", type=cli.number(above=0), default=1.0, help="passes over the data")
    parser.add_argument("--weight-decay", type=cli.number(0), default=0.01, help="of AdamW")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default=OPTIMIZERS[0], help="by its name in transformers")
    parser.add_argument(
        "--checkpointing",
        choices=("auto", "always", "never"),
        default="auto",
        help="gradient checkpointing, which saves memory; auto uses it on a GPU",
    )
    parser.add_argument("--batch", type=cli.positive, default=64, help="effective batch: rows per optimizer step")
    parser.add_argument("--micro-batch", type=cli.positive, default=1, help="rows per forward pass and process")
    parser.add_argument("--processes", type=cli.positive, default=1, help="processes, one for each GPU")
    parser.add_argument("--max-length", type=cli.positive, default=4096, help="tokens of prompt and answer")
    parser.add_argument(
        "--too-long", choices=("drop", "truncate"), default="drop", help="what to do with longer rows; both are counted, truncate keeps the end token"
    )  # fmt: skip
    parser.add_argument(
        "--loss-on", choices=("answer", "all"), default="answer", help="for sft: which tokens of a chat to learn"
    )
    parser.add_argument("--beta", type=cli.number(above=0), default=0.1, help="strength of the DPO reference")
    parser.add_argument("--loss", choices=LOSSES, default="sigmoid", help="DPO's loss, by its name in TRL")
    parser.add_argument(
        "--label-smoothing", type=cli.number(0, below=0.5), default=0.0, help=f"for the losses {' and '.join(SMOOTHED)}"
    )
    parser.add_argument("--weights", choices=("lora", "full"), default="lora", help="what is tuned")
    parser.add_argument("--lora-r", type=cli.positive, default=16, help="rank")
    parser.add_argument("--lora-alpha", type=cli.number(above=0), default=32, help="scale")
    parser.add_argument("--lora-dropout", type=cli.number(0, below=1), default=0.05, help="kept on during training")
    parser.add_argument(
        "--lora-targets",
        help="pattern of the modules to adapt (default: all attention and MLP projections of the text model but experts)",
    )
    parser.add_argument(
        "--lora-coverage",
        choices=("all", "partial"),
        default="all",
        help="whether --lora-targets may leave projections out",
    )
    parser.add_argument(
        "--validation", type=cli.number(0, below=1), default=0.0, help="share of prompts held out, in [0, 1)"
    )
    parser.add_argument(
        "--checkpoint", choices=("last", "best"), default="last", help="which one to keep; best has the lowest validation loss"
    )  # fmt: skip
    parser.add_argument(
        "--guards",
        type=cli.mapping("guards"),
        default={},
        metavar="JSON",
        help="""when to stop, e.g. '{"collapse": 3, "chance_after": 0.5}' (see croco/training/guards.py)""",
    )
    parser.add_argument("--save-every", type=cli.positive, default=100, help="steps between resumable checkpoints")
    parser.add_argument("--reward-model", help="for online_dpo: local folder or hub id of the reward model")
    parser.add_argument("--reward-revision", help="commit or tag of the reward model on the hub")
    parser.add_argument("--reward-dtype", choices=DTYPES, default="float32", help="of the reward model's weights")
    parser.add_argument(
        "--reward-trust-remote-code", action="store_true", help="run code that comes with the reward model"
    )
    parser.add_argument(
        "--reward-max-length",
        type=cli.positive,
        default=4096,
        help="tokens of a chat at most; longer ones have no reward",
    )
    parser.add_argument(
        "--reward-template-options",
        type=cli.mapping("reward_template_options"),
        default={},
        metavar="JSON",
        help="variables of the reward model's chat template",
    )
    parser.add_argument(
        "--generation-batch",
        type=cli.positive,
        help="for online_dpo: prompts per call of generate and process "
        "(default: those of a whole optimizer step, at most 64)",
    )
    parser.add_argument("--temperature", type=cli.number(above=0), default=1.0, help="of online_dpo's sampling")
    parser.add_argument("--top-p", type=cli.number(above=0, most=1), default=1.0, help="of online_dpo's sampling")
    parser.add_argument(
        "--max-tokens", type=cli.positive, default=4096, help="tokens per response of online_dpo at most"
    )
    parser.add_argument(
        "--seed", type=cli.whole(0), default=0, help="seed of initialisation, dropout, order and validation prompts"
    )
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps resumable and finished training")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="checkpoint folder to fill")
    args = parser.parse_args()
    check_options(args, {name: value for name, value in vars(args).items() if value != parser.get_default(name)})
    return args


def check_options(args, given):
    """Raises InputError for options that contradict each other or would have no effect; ``given``: those without their defaults."""
    objective = OBJECTIVES[args.objective]
    checks = [
        (
            args.batch % (args.micro_batch * args.processes),
            f"an effective batch of {args.batch} is not a multiple of {args.micro_batch} x {args.processes} processes",
            "choose a micro-batch that divides it",
            "batch",
        ),
        *((True, fault.problem, fault.remedy, fault.key) for fault in find_faults(args.objective, given)),
        (
            objective.samples != bool(args.reward_model),
            "an objective that samples while it trains, and no other, needs a reward model",
            f"name one with {', '.join(name for name, each in OBJECTIVES.items() if each.samples)}, else leave it out",
            "reward_model",
        ),
        (
            args.weights == "full" and args.trust_remote_code,
            "full weights would be saved without the model's own code",
            "tune with LoRA",
            "weights",
        ),
        (
            args.start and (args.weights == "full" or objective.samples),
            "goes with LoRA on pairs or completions only",
            "with full weights, give the checkpoint as --model",
            "start",
        ),
    ]
    check_guards(args.guards)
    for wrong, problem, remedy, field in checks:
        if wrong:
            raise InputError(problem, remedy, field=field)


def check_data(args):
    """Raises InputError for a row that cannot be trained on, before any library is loaded."""
    number = sum(1 for _ in read_rows(args.data, args.objective))
    if number < max(2, args.processes):
        raise InputError(
            f"{number or 'no'} rows, to be trained on in {args.processes} processes",
            "look at the ledger for why no more were formed, or ask for fewer GPUs",
            args.data,
        )
    formed = read_json(args.ledger).get("formed", number) if args.ledger else number
    if number != formed:
        raise InputError(
            f"{number} rows, and the ledger says that {formed} were formed",
            "give the data and the ledger of one run of build_pairs.py, complete",
            args.data,
        )


def check_policy(args):
    """Raises InputError where the responses are not the tuned policy's own, unless --off-policy says so on purpose."""
    known = read_json(args.ledger).get("policies") if args.ledger else None
    if known not in (None, [args.identity]) and not args.off_policy:
        raise InputError(
            f"off-policy: the responses are of the policy {', '.join(known)}, the model to tune is {args.identity}",
            "generate again with this model; or, for an off-policy setting, name the policy under `responses`",
            args.ledger,
            field="policies",
        )


def cache_key_inputs(args):
    """All that decides the tuned weights, except the number of processes and the micro-batch (see NOT_IN_CACHE_KEY)."""
    online = OBJECTIVES[args.objective].samples
    left_out = {*NOT_IN_CACHE_KEY}
    if args.checkpoint == "best":
        left_out.remove("save_every")  # the best checkpoint is chosen among the saved ones
    left_out |= set() if online else {
        "temperature", "top_p", "max_tokens", "reward_dtype", "reward_max_length", "reward_template_options",
    }  # fmt: skip
    return {
        "recipe": {name: value for name, value in vars(args).items() if name not in left_out},
        "data": args.rows_digest,
        "policy": args.identity,
        "reward_model": model_id(args.reward_model, args.reward_revision, args.state) if online else None,
        "code": behaviour_digest(*DECIDING, *(DECIDING_ONLINE if online else ())),
        "versions": versions("torch", "transformers", "tokenizers", "trl", "peft", "accelerate", "datasets"),
    }


def check_finished(args, finished):
    """Raises InputError if these guards would have stopped a training that finished under other guards."""
    entries = [entry for _, entry in read_jsonl(finished.final / "metrics.jsonl")]
    guards = Guards(**args.guards)
    guards.start(max(entry["step"] for entry in entries), [], args.beta, scaled=args.dtype == "float16")
    for entry in entries:
        if guards.look(entry):
            raise guards.problem


def tell_of_unfinished(args, finished, inputs):
    """Says which trainings of this data and policy began with other options, and why they are not resumed."""
    for path in sorted(finished.folder.parent.glob("*/inputs.json")):
        other = json.loads(path.read_text(encoding="utf-8"))
        started = any(path.parent.glob("work/checkpoint-*")) and path.parent != finished.folder
        if not started or any(other.get(name) != inputs[name] for name in ("data", "policy")):
            continue
        before, now = ({**some.pop("recipe"), **some.pop("versions"), **some} for some in (other, dict(inputs)))
        changed = [
            f"{name}: {before.get(name)} -> {now.get(name)}" for name in now if before.get(name) != now.get(name)
        ]
        print(
            f"not resuming {path.parent}, which was begun with another recipe:\n  " + "\n  ".join(changed),
            file=sys.stderr,
        )


def train(args, finished):
    """Runs the processes to their end, with smaller micro-batches where memory runs out; raises InputError."""
    finished.work.mkdir(exist_ok=True)
    saving, failure, job = finished.folder / "saving", finished.work / "failure.json", finished.work / "job.json"
    micro_batch = read_micro_batch(args, finished)
    while True:
        failure.unlink(missing_ok=True)
        reward = {
            name: getattr(args, f"reward_{name}")
            for name in ("revision", "dtype", "max_length", "trust_remote_code", "template_options")
        }
        own = {
            "micro_batch": micro_batch,
            "folder": finished.work,
            "saving": saving,
            "script": __file__,
            "reward": {"path": args.reward_model, **reward},
        }
        write_json(job, {name: str(v) if isinstance(v, Path) else v for name, v in {**vars(args), **own}.items()})
        code = run_processes(job)
        if code == 0:
            finished.finish(saving)
            return
        reason = json.loads(failure.read_text(encoding="utf-8")) if failure.exists() else {}
        if "out_of_memory" in reason and micro_batch > 1:
            micro_batch = halve(micro_batch, args)
            write_json(finished.work / "micro_batch.json", [args.processes, args.micro_batch, micro_batch])
            print(
                f"out of memory: going on with a micro-batch of {micro_batch}, the same effective batch",
                file=sys.stderr,
            )
        elif "out_of_memory" in reason:
            raise InputError(
                f"out of memory with a micro-batch of 1: {reason['out_of_memory']}",
                "lower max_length, take a GPU with more memory, or tune with LoRA",
                args.model,
            )
        elif reason:
            sys.exit(f"error: {reason['problem']}")
        else:
            sys.exit(
                f"error: a training process ended with the exit code {code}, see above\n"
                "  Remedy: start again: it resumes from its last checkpoint"
            )


def read_micro_batch(args, finished):
    """The micro-batch that fitted into memory in a killed run with the same options, else the requested one."""
    known = finished.work / "micro_batch.json"
    processes, asked, fitting = json.loads(known.read_text()) if known.exists() else (None, None, None)
    return fitting if (processes, asked) == (args.processes, args.micro_batch) else args.micro_batch


def halve(micro_batch, args):
    """The largest micro-batch up to half of this one with which the effective batch can be made up."""
    share = args.batch // args.processes
    return max(size for size in range(1, micro_batch // 2 + 1) if share % size == 0)


def run_processes(job):
    """Exit code of the training processes, none of which outlives this one."""
    search = [str(Path(__file__).resolve().parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"CROCO_PARENT": str(os.getpid()), "PYTHONPATH": os.pathsep.join(search)}
    # A launcher around this one (srun, torchrun) may have set ranks that do not belong to this training.
    foreign = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    environment = {name: value for name, value in os.environ.items() if name not in foreign} | own
    command = [sys.executable, "-m", "croco.training.process", str(job)]
    # The GPUs' leases (scripts/with_gpus.py) are inherited.
    process = subprocess.Popen(command, env=environment, close_fds=False, preexec_fn=die_with_parent)
    try:
        return process.wait()
    finally:
        process.kill()


if __name__ == "__main__":
    cli.run(main)
