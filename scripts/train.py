"""Tune a policy with LoRA: DPO on preference pairs, or SFT on completions, by TRL.

Example:
  python scripts/train.py --objective dpo --data pairs.jsonl --model DIR --learning-rate 5e-6 \\
      --batch 64 --micro-batch 1 --state state --output checkpoint

The defaults are the paper's recipe. --batch is the effective batch; gradient accumulation follows from it, the
micro-batch and the number of processes, and is asserted. A killed run resumes from its newest whole checkpoint
under --state; a run whose data, model, recipe, code and versions were already trained is linked from there.
For several processes start it with `accelerate launch`.
"""

import json
import math
import os
import re
import shutil
import sys
from pathlib import Path

from croco import cli
from croco.digests import code_digest, digest, versions
from croco.records import InputError, dump, read_jsonl, rows, write_jsonl
from croco.store import CHECKPOINT_FILES, Finished

PROCESSES = int(os.environ.get("WORLD_SIZE", 1))
COLUMNS = {"dpo": ("prompt", "chosen", "rejected"), "sft": ("prompt", "completion")}


def main():
    args = parse_arguments()
    check_data(args)
    identity = cli.identify(args.model, args.revision, args.state)
    check_policy(args, identity)
    finished = Finished(args.state, "training", describe_inputs(args, identity))
    with finished.alone():
        if finished.complete:
            print("this training is finished already: linking its checkpoint", file=sys.stderr)
        else:
            train(args, identity, finished)
    if int(os.environ.get("RANK", 0)) == 0:
        for name in CHECKPOINT_FILES:
            finished.publish_as(name, args.output / name)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--objective", choices=tuple(COLUMNS), required=True, help="dpo on pairs or sft on completions")
    parser.add_argument("--data", type=Path, required=True, help="pairs.jsonl or completions.jsonl")
    cli.add_model_options(parser)
    cli.add_template_options(parser)
    parser.add_argument("--ledger", type=Path, help="ledger.json of the data: whose responses they are is checked")
    parser.add_argument("--off-policy", action="store_true", help="the responses may be another policy's")
    parser.add_argument("--learning-rate", type=float, default=5e-6, help="peak")
    parser.add_argument("--schedule", default="cosine", help="learning-rate schedule, by its name in transformers")
    parser.add_argument("--warmup", type=float, default=0.05, help="share of steps (below 1) or steps")
    parser.add_argument("--epochs", type=float, default=1.0, help="passes over the data")
    parser.add_argument("--weight-decay", type=float, default=0.01, help="of AdamW")
    parser.add_argument("--batch", type=cli.positive, default=64, help="effective batch: rows an optimizer step")
    parser.add_argument("--micro-batch", type=cli.positive, default=1, help="rows a forward pass and process")
    parser.add_argument(
        "--max-length", type=cli.positive, default=4096, help="tokens; longer rows are dropped, counted"
    )
    parser.add_argument("--beta", type=float, default=0.1, help="strength of the DPO reference")
    parser.add_argument("--lora-r", type=cli.positive, default=16, help="rank")
    parser.add_argument("--lora-alpha", type=float, default=32, help="scale")
    parser.add_argument("--lora-dropout", type=float, default=0.05, help="kept on during training")
    parser.add_argument(
        "--lora-targets",
        default=r"^(?!.*vision).*\.(q|k|v|o|gate|up|down)_proj$",
        help="pattern of the modules to adapt; the default spares vision towers",
    )
    parser.add_argument("--save-every", type=cli.positive, default=100, help="steps between resumable checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="of initialisation, dropout and order")
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps resumable and finished training")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint folder to fill")
    return parser.parse_args()


def check_data(args):
    """Raises InputError for a batch or row that cannot be trained on, before any library is loaded."""
    if args.batch % (args.micro_batch * PROCESSES):
        raise InputError(
            f"an effective batch of {args.batch} is no multiple of {args.micro_batch} x {PROCESSES} processes",
            "choose a micro-batch that divides it",
            field="batch",
        )
    number = 0
    for number, row in read_jsonl(args.data):
        for column in COLUMNS[args.objective]:
            if not isinstance(row.get(column), list) or not all("content" in message for message in row[column]):
                raise InputError(
                    "not a chat list",
                    f"{args.objective} needs {', '.join(COLUMNS[args.objective])}",
                    args.data,
                    number,
                    column,
                )
    if not number:
        raise InputError("no rows", "look at the ledger for why no pair was formed", args.data)


def check_policy(args, identity):
    """Raises InputError where the responses are not the tuned policy's own, unless --off-policy says so on purpose."""
    known = json.loads(args.ledger.read_text(encoding="utf-8")).get("policies") if args.ledger else None
    if known not in (None, [identity]) and not args.off_policy:
        raise InputError(
            f"off-policy: the responses are of the policy {', '.join(known)}, the model to tune is {identity}",
            "generate again with this model; or, for an off-policy setting, name the policy under `responses`",
            args.ledger,
            field="policies",
        )


def describe_inputs(args, identity):
    """All that decides the adapter's bytes; --save-every and paths do not."""
    aside = ("data", "model", "revision", "state", "output", "save_every", "ledger", "off_policy")
    recipe = {name: value for name, value in vars(args).items() if name not in aside}
    return {
        "recipe": recipe,
        # Only what is trained on: a pool's mean or target may change where its pair stays the same.
        "data": digest([[row[column] for column in COLUMNS[args.objective]] for row in rows(args.data)]),
        "policy": identity,
        "processes": PROCESSES,
        "code": code_digest(__file__),
        "versions": versions("torch", "transformers", "tokenizers", "trl", "peft", "accelerate", "datasets"),
    }


def train(args, identity, finished):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback

    from croco.chats import model_errors

    with model_errors(args.model):
        tokenizer = AutoTokenizer.from_pretrained(
            args.model, revision=args.revision, trust_remote_code=args.trust_remote_code
        )
        model = AutoModelForCausalLM.from_pretrained(
            args.model,
            revision=args.revision,
            dtype=args.dtype,
            trust_remote_code=args.trust_remote_code,
            use_safetensors=True,
        )
    data, too_long = load_data(args, tokenizer)
    trainer = make_trainer(args, model, tokenizer, data, finished.work)
    batch = args.micro_batch * trainer.args.gradient_accumulation_steps * trainer.args.world_size
    if batch != args.batch:
        raise RuntimeError(f"effective batch is {batch}, not {args.batch}")
    trainer.remove_callback(PrinterCallback)
    # Constructing the trainer draws random numbers; from here on they follow from the seed alone.
    torch.manual_seed(trainer.args.seed)
    checkpoint = newest_whole_checkpoint(finished.work, trainer.args.world_size)
    print(f"resuming from {checkpoint}" if checkpoint else "training from the start", file=sys.stderr)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    weights = (parameter for parameter in trainer.model.parameters() if parameter.requires_grad)
    if not all(torch.isfinite(parameter).all() for parameter in weights):
        raise InputError(
            "the training diverged: the adapter holds values that are not finite",
            "lower the learning rate; look at metrics.jsonl for the step",
            finished.work / "metrics.jsonl",
        )
    save(
        args,
        identity,
        finished,
        trainer,
        tokenizer,
        {"rows": len(data), "too_long": too_long, "steps": result.global_step},
    )


def load_data(args, tokenizer):
    """The rows that fit in --max-length, in file order, and how many did not."""
    from datasets import Dataset

    columns = COLUMNS[args.objective]

    def tokens(row, answer):
        return len(
            tokenizer.apply_chat_template(
                row["prompt"] + row[answer], tokenize=True, return_dict=True, **args.template_options
            )["input_ids"]
        )

    total, fitting = 0, []
    for row in rows(args.data):
        total += 1
        if all(tokens(row, answer) <= args.max_length for answer in columns[1:]):
            fitting.append({column: row[column] for column in columns})
            if args.template_options:  # the column by which TRL passes them to the template
                fitting[-1]["chat_template_kwargs"] = args.template_options
    if not fitting:
        raise InputError(f"all {total} rows are longer than {args.max_length} tokens", "raise max_length", args.data)
    return Dataset.from_list(fitting), total - len(fitting)


def make_trainer(args, model, tokenizer, data, folder):
    """A TRL trainer with LoRA; the reference of DPO is the policy with the adapter switched off."""
    import torch
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    common = {
        "output_dir": str(folder),
        "learning_rate": args.learning_rate,
        "lr_scheduler_type": args.schedule,
        "warmup_steps": args.warmup,
        "num_train_epochs": args.epochs,
        "weight_decay": args.weight_decay,
        "per_device_train_batch_size": args.micro_batch,
        "gradient_accumulation_steps": args.batch // (args.micro_batch * PROCESSES),
        "max_length": args.max_length,
        "seed": args.seed,
        "bf16": args.dtype == "bfloat16",
        "fp16": args.dtype == "float16",
        "gradient_checkpointing": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_steps": args.save_every,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
    }
    lora = LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=args.lora_targets,
        task_type="CAUSAL_LM",
    )
    shared = {"model": model, "train_dataset": data, "processing_class": tokenizer, "peft_config": lora}
    callbacks = [live_metrics(folder / "metrics.jsonl")]
    if args.objective == "sft":
        return SFTTrainer(args=SFTConfig(**common), callbacks=callbacks, **shared)
    # TRL's default disable_dropout=True would silently switch LoRA's dropout off.
    return DPOTrainer(args=DPOConfig(beta=args.beta, disable_dropout=False, **common), callbacks=callbacks, **shared)


def live_metrics(path):
    """A callback with a progress bar that appends each step's metrics to a JSONL file as they come.

    On resuming it drops what lies after the checkpoint.
    """
    from transformers import TrainerCallback

    class LiveMetrics(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            if state.is_world_process_zero:
                write_jsonl(path, (plain(entry) for entry in state.log_history if "loss" in entry))
                self.bar = cli.progress(total=state.max_steps, initial=state.global_step, desc="train", unit="step")

        def on_log(self, args, state, control, logs=None, **kwargs):
            if state.is_world_process_zero and "loss" in logs:
                entry = plain({**logs, "step": state.global_step})
                with open(path, "a", encoding="utf-8") as file:
                    file.write(dump(entry) + "\n")
                shown = {name: entry[name] for name in ("loss", "rewards_margins") if name in entry}
                self.bar.set_postfix(shown, refresh=False)
                self.bar.update(state.global_step - self.bar.n)

        def on_train_end(self, args, state, control, **kwargs):
            if state.is_world_process_zero:
                self.bar.close()

    def plain(entry):
        return {
            re.sub(r"^(rewards|logps)/", r"\1_", name): value if math.isfinite(value) else None
            for name, value in sorted(entry.items())
            # TRL counts num_tokens anew when it resumes.
            if isinstance(value, int | float) and name != "num_tokens"
        }

    return LiveMetrics()


def newest_whole_checkpoint(folder, world_size):
    """The newest checkpoint that has all it needs; one torn by a kill would resume without an error, wrongly."""
    rng = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    needed = ["trainer_state.json", "optimizer.pt", "scheduler.pt", "adapter_model.safetensors", *rng]
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    return next((str(path) for path in found if all(readable(path / name) for name in needed)), None)


def readable(path):
    """Whether a checkpoint's file is there and whole: torch's and safetensors' formats fail to open when cut."""
    import torch
    from safetensors import safe_open

    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            safe_open(path, "pt").keys()
        else:
            torch.load(path, weights_only=False)
    except Exception as error:  # whatever the fault, the answer is an older checkpoint
        print(f"skipping a torn checkpoint: {path}: {error}", file=sys.stderr)
        return False
    return True


def save(args, identity, finished, trainer, tokenizer, counts):
    if not trainer.is_world_process_zero():
        return
    folder = finished.folder / "saving"
    shutil.rmtree(folder, ignore_errors=True)
    trainer.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # As save_pretrained, but a model's own odd settings (a temperature without sampling) are not refused at the end.
    trainer.model.generation_config.to_json_file(folder / "generation_config.json", use_diff=True)
    shutil.copyfile(finished.work / "metrics.jsonl", folder / "metrics.jsonl")
    inputs = {"data": args.data, "policy": identity}
    cli.write_manifest(folder / "manifest.json", __file__, args, inputs, counts=counts)
    finished.finish(folder)


if __name__ == "__main__":
    cli.run(main)
