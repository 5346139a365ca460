"""Evaluate one model (a policy, with or without an adapter) in several languages, with one model load.

Example:
  python scripts/evaluate.py --model DIR --adapter checkpoint --languages en de \\
      --prompts prompts/eval/en.jsonl prompts/eval/de.jsonl --samples 4 --temperature 0.7 --max-tokens 256 \\
      --task heldout config/tasks/question_answer.yaml 'tasks/heldout/{language}.jsonl' \\
      --state state --output mini/multi/dpo

Writes for each language, under --output:
  answers/LANGUAGE.jsonl       sampled answers to the evaluation prompts, for pairwise judging
  eval/LANGUAGE.json           lm-eval results of the structured tasks
  eval/LANGUAGE.samples.jsonl  every sample of these tasks, to pair models by doc_hash

A language whose inputs were evaluated before is linked from --state and not computed again.
"""

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from croco import cli
from croco.digests import code_digest, digest, file_digest, prompt_digest, prompt_seed, versions
from croco.engines import describe_engine, load_policy
from croco.records import InputError, prompt_rows, read_jsonl, write_json, write_jsonl
from croco.store import Finished

OUTPUTS = {"answers.jsonl": "answers/{}.jsonl", "eval.json": "eval/{}.json", "samples.jsonl": "eval/{}.samples.jsonl"}


def main():
    args = parse_arguments()
    inputs = describe_inputs(args)
    finished = {language: Finished(args.state, "evaluation", inputs[language]) for language in args.languages}
    with ExitStack() as stack:
        for language in sorted(args.languages):  # in one order, so that two jobs never wait for each other
            stack.enter_context(finished[language].alone())
        missing = [language for language in args.languages if not finished[language].complete]
        print(f"{len(args.languages)} languages, to evaluate: {' '.join(missing) or 'none'}", file=sys.stderr)
        if missing:
            evaluate(args, missing, finished)
    for language in args.languages:
        for name, place in OUTPUTS.items():
            finished[language].publish_as(name, args.output / place.format(language))
        manifest = args.output / "eval" / f"{language}.manifest.json"
        cli.write_manifest(manifest, __file__, args, inputs[language], evaluated=language in missing)


def parse_arguments():
    parser = cli.parser(__doc__)
    cli.add_policy_options(parser)
    cli.add_adapter_option(parser)
    parser.add_argument("--languages", nargs="+", required=True, help="languages to evaluate in")
    parser.add_argument("--prompts", nargs="+", type=Path, required=True, help="prompt files, one a language")
    parser.add_argument("--samples", type=cli.positive, default=1, help="answers a prompt")
    parser.add_argument(
        "--task",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "YAML", "DATA"),
        help="a structured task: its name, lm-eval YAML and data file, with {language} for the language",
    )
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps finished evaluations")
    parser.add_argument("--output", type=Path, required=True, help="folder to write answers/ and eval/ to")
    args = parser.parse_args()
    if len(args.prompts) != len(args.languages):
        parser.error("--prompts needs one file per language")
    return args


def describe_inputs(args):
    """{language: all that decides its results}."""
    shared = {
        "policy": cli.identify(args.model, args.revision, args.state),
        "adapter": cli.identify(str(args.adapter), None) if args.adapter else None,
        "answers": {
            **describe_engine(args),
            **{
                n: getattr(args, n)
                for n in ("samples", "temperature", "top_p", "max_tokens", "template_options", "seed")
            },
        },
        "batch": args.batch,
        "code": code_digest(__file__),
        "versions": versions("torch", "transformers", "tokenizers", "peft", "lm_eval", "datasets"),
    }
    inputs = {}
    for language, prompts in zip(args.languages, args.prompts, strict=True):
        tasks = {name: [file_digest(yaml), file_digest(task_data(data, language))] for name, yaml, data in args.task}
        inputs[language] = {
            **shared,
            "language": language,
            "prompts": digest([[prompt_digest(row), row.get("skip")] for row in prompt_rows(prompts)]),
            "tasks": tasks,
        }
    return inputs


def task_data(pattern, language):
    path = Path(pattern.replace("{language}", language))
    if not path.is_file():
        raise InputError("no data for the structured task", "check the task's data pattern in the config", path)
    for _ in read_jsonl(path):
        pass  # raises for a line that is broken, before a model is loaded
    return path.resolve()


def evaluate(args, languages, finished):
    # The libraries' caches belong to the run's own folder; nothing here needs a network.
    os.environ.setdefault("HF_DATASETS_CACHE", str((args.state / "datasets_cache").resolve()))
    prompts = dict(zip(args.languages, args.prompts, strict=True))
    folders = {language: finished[language].folder / "saving" for language in languages}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    policy = load_policy(args, args.adapter)
    for language in cli.progress(languages, desc=f"answers {args.output.name}", unit="language"):
        write_jsonl(
            folders[language] / "answers.jsonl", answer_prompts(args, policy, list(prompt_rows(prompts[language])))
        )
    if args.engine != "transformers" and args.task:
        # lm-eval takes a transformers model; two engines at once would not fit on one GPU.
        policy.close()
        from croco.transformers_engine import Policy

        policy = Policy(args.model, args.revision, args.dtype, args.adapter, args.trust_remote_code)
    for language in cli.progress(languages, desc=f"tasks {args.output.name}", unit="language"):
        results, samples = run_tasks(args, policy, language)
        write_json(folders[language] / "eval.json", results)
        write_jsonl(folders[language] / "samples.jsonl", samples)
        finished[language].finish(folders[language])


def answer_prompts(args, policy, prompts):
    """One line a prompt, in prompt order; prompts of like length share a batch, which follows from the file alone."""
    lines, work = [], []
    for row in prompts:
        line = {"prompt_id": row["prompt_id"], "language": row["language"], "prompt_digest": prompt_digest(row), "skip": row.get("skip"), "responses": []}  # fmt: skip
        lines.append(line)
        if not line["skip"]:
            tokens, line["skip"] = policy.prepare(row["messages"], args.max_tokens)
        if not line["skip"]:
            first = prompt_seed(args.seed, row["language"], row["prompt_id"])
            work += [(line, tokens, first + j) for j in range(args.samples)]
    if lines and not work:
        raise InputError(
            f"no prompt can be answered: each is skipped ({', '.join(sorted({line['skip'] for line in lines}))})",
            f"give prompts that fit in the model's context of {policy.context} tokens",
            field="prompts",
        )
    tokens, seeds = [tokens for _, tokens, _ in work], [seed for *_, seed in work]
    responses = policy.respond(tokens, seeds, args.temperature, args.top_p, args.max_tokens)
    for (line, _, _), response in zip(work, responses, strict=True):
        line["responses"].append(response)
    return lines


def run_tasks(args, policy, language):
    """Results by task and all samples of the structured tasks in one language, by lm-eval."""
    if not args.task:
        return {}, []
    import yaml
    from lm_eval import evaluate as run_lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager, get_task_dict

    tasks = []
    for name, path, data in args.task:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        files = {config["test_split"]: str(task_data(data, language))}
        tasks.append({**config, "task": name, "dataset_kwargs": {"data_files": files}})
    # Not simple_evaluate, which asks pip for the environment each time; the manifest has the versions.
    output = run_lm_eval(
        lm=HFLM(
            pretrained=policy.model,
            tokenizer=policy.tokenizer,
            batch_size=args.batch,
            chat_template_args=args.template_options,
        ),
        task_dict=get_task_dict(tasks, TaskManager(include_defaults=False)),
        apply_chat_template=True,
        log_samples=True,
        bootstrap_iters=0,
        verbosity="ERROR",
    )
    results, samples = {}, []
    for name, *_ in args.task:
        of_task = sorted(output["samples"][name], key=lambda sample: sample["doc_id"])
        metrics = of_task[0]["metrics"]
        for metric in metrics:
            if not isinstance(of_task[0][metric], int | float):
                raise InputError(
                    f"the task {name} has the metric {metric}, which is no number a sample",
                    "use metrics with the aggregation mean, such as exact_match or acc",
                    dict((task, path) for task, path, _ in args.task)[name],
                    field="metric_list",
                )
        results[name] = {"n": len(of_task), **{m: sum(s[m] for s in of_task) / len(of_task) for m in metrics}}
        for sample in of_task:
            samples.append(
                {
                    "task": name,
                    "prompt_id": sample["doc"].get("id"),
                    "doc_hash": sample["doc_hash"],
                    "target": sample["target"],
                    "response": sample["filtered_resps"][0],
                    **{metric: float(sample[metric]) for metric in metrics},
                }
            )
    return results, samples


if __name__ == "__main__":
    cli.run(main)
