"""Evaluate one model (a policy, with or without an adapter) in several languages, with one model load.

Example:
  python scripts/evaluate.py --model DIR --adapter checkpoint --languages en de \\
      --prompts prompts/eval/en.jsonl prompts/eval/de.jsonl --samples 4 --temperature 0.7 --max-tokens 256 \\
      --task heldout config/tasks/question_answer.yaml 'tasks/heldout/{language}.jsonl' \\
      --suite de belebele_deu_Latn include_base_44_german --state state --output mini/multi/dpo

Writes for each language, under --output:
  answers/LANGUAGE.jsonl       sampled answers to the evaluation prompts, for pairwise judging
  eval/LANGUAGE.json           results of the structured tasks: means of the metrics that are one number per document.
                               left_out: the other metrics, with lm-eval's own value over the task
                               lower_is_better: metrics where lower is better (in the samples, too)
                               control_tokens: how many documents spell control tokens of the policy; they are
                               excluded from n, the means and the samples
                               cut_requests: how many requests (one per answer or choice) exceeded the model's context,
                               so that lm-eval cut the beginning of their prompts; they count in the means
  eval/LANGUAGE.manifest.json  counts: how many answers were cut off (truncated), and how many of these where the
                               model's context ends, before --max-tokens (cut_by_context)
  eval/LANGUAGE.samples.jsonl  every document of these tasks, to pair models by doc_hash

lm-eval runs the tasks: your own, with a YAML file and local data (--task), and lm-eval's by name (--suite), where a
group becomes its single tasks. The YAML of your own tasks can run code, so a task that does is refused unless
--trust-task-code names it. Names, data and lengths of answers are checked before the model is loaded. If a task has
several filters (gsm8k), the metrics' names contain the filter: exact_match_strict_match.

Answers and structured tasks are kept in --state by what decides each of them. What is there is linked and not computed
again: other tasks make no new answers, other prompts run no task again, and a try after a failure goes on.
"""

import json
import math
import re
import sys
from contextlib import ExitStack
from itertools import chain
from numbers import Real
from pathlib import Path

from croco import cli
from croco.digests import behaviour_digest, digest, file_digest, prompt_digest, prompt_seed, versions
from croco.errors import InputError
from croco.evaluation import directions, harness
from croco.evaluation.task_files import list_files, refuse_code, sandbox_templates
from croco.evaluation.tasks import REMEDY, describe, load_suite, refuse_overlap
from croco.models.chats import TOO_LONG
from croco.models.engines import describe_engine, load_policy
from croco.models.loading import model_id
from croco.models.options import add_adapter_option, add_policy_options
from croco.records import prompt_rows, read_jsonl, write_json, write_jsonl
from croco.state import Finished

ANSWERS, TASKS = "answers", "tasks"  # folders of --state
# {part: {file in --state: place under --output}}
OUTPUTS = {
    ANSWERS: {"answers.jsonl": "answers/{}.jsonl"},
    TASKS: {"eval.json": "eval/{}.json", "samples.jsonl": "eval/{}.samples.jsonl"},
}


def main():
    args = parse_arguments()
    inputs = cache_key_inputs(args)
    finished = {
        part: {language: Finished(args.state, part, inputs[language][part]) for language in args.languages}
        for part in OUTPUTS
    }
    with ExitStack() as stack:
        for language in sorted(args.languages):  # always in the same order, so that two jobs never wait for each other
            for part in OUTPUTS:
                stack.enter_context(finished[part][language].alone())
        missing = {
            part: [language for language in args.languages if not found[language].complete]
            for part, found in finished.items()
        }
        some = [language for language in args.languages if any(language in codes for codes in missing.values())]
        print(f"{len(args.languages)} languages, to evaluate: {' '.join(some) or 'none'}", file=sys.stderr)
        if some:
            evaluate(args, missing, finished)
    for language in args.languages:
        for part, files in OUTPUTS.items():
            for name, place in files.items():
                finished[part][language].publish_as(name, args.output / place.format(language))
        manifest = args.output / "eval" / f"{language}.manifest.json"
        counts = count_answers(args.output / "answers" / f"{language}.jsonl", args.max_tokens)
        evaluated = language in missing[ANSWERS]
        cli.write_manifest(manifest, __file__, args, inputs[language], evaluated=evaluated, counts=counts)
        if counts["cut_by_context"]:
            cut = f"{counts['cut_by_context']} of {counts['answers']} answers"
            print(f"warning: {language}: {cut} were cut where the model's context ends", file=sys.stderr)


def parse_arguments():
    parser = cli.parser(__doc__, writes=list_written)
    add_policy_options(parser)
    add_adapter_option(parser)
    parser.add_argument("--languages", nargs="+", required=True, help="languages to evaluate in")
    parser.add_argument("--prompts", nargs="+", type=Path, required=True, help="prompt files, one per language")
    parser.add_argument("--samples", type=cli.positive, default=1, help="answers per prompt")
    parser.add_argument(
        "--task",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME YAML DATA", "LANGUAGE"),
        help="a structured task: its name, lm-eval YAML and data file, with {language} for the language; "
        "then its languages, if it is not for all",
    )
    parser.add_argument(
        "--trust-task-code",
        nargs="+",
        default=[],
        metavar="NAME",
        help="tasks of --task whose YAML may run code: functions (!function), and metrics from the hub",
    )
    parser.add_argument(
        "--suite",
        nargs="+",
        action="append",
        default=[],
        metavar=("LANGUAGE", "TASK"),
        help="lm-eval's own tasks for a language, by name",
    )
    parser.add_argument("--suite-limit", type=cli.positive, help="documents per task of --suite at most (default: all)")
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps finished evaluations")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder to write answers/ and eval/ to"
    )
    args = parser.parse_args()
    if len(args.prompts) != len(args.languages):
        parser.error("--prompts needs one file per language")
    if any(len(task) < 3 for task in args.task):
        parser.error("--task needs NAME YAML DATA")
    for name, yaml, *_ in args.task:
        if name not in args.trust_task_code:
            refuse_code(yaml)
    args.suite = {language: tasks for language, *tasks in args.suite}
    return args


def list_written(args):
    """The results under --output."""
    places = [place for of_part in OUTPUTS.values() for place in of_part.values()]
    return [args.output / place.format(language) for language in args.languages for place in places]


def cache_key_inputs(args):
    """{language: {part: all that decides its results}}."""
    libraries = ("torch", "transformers", "tokenizers", "peft")
    shared = {
        "policy": model_id(args.model, args.revision, args.state),
        "adapter": model_id(args.adapter) if args.adapter else None,
        **describe_engine(args),
        "template_options": args.template_options,
        "batch": None if args.engine == "vllm" else args.batch,  # vLLM makes its own batches
    }
    answers = {
        **shared,
        "sampling": {n: getattr(args, n) for n in ("samples", "temperature", "top_p", "max_tokens", "seed")},
        "stage_code": behaviour_digest("evaluate.py"),
        "stage_versions": versions(*libraries),
    }
    tasks = {
        **shared,
        "stage_code": behaviour_digest(
            "evaluate.py", "croco/evaluation/harness.py", "croco/evaluation/tasks.py", "croco/evaluation/directions.py"
        ),
        "stage_versions": versions(*libraries, "lm_eval", "datasets"),
    }
    inputs = {}
    for language, prompts in zip(args.languages, args.prompts, strict=True):
        suite = args.suite.get(language, [])
        own = {
            name: [*map(file_digest, list_files(yaml)), file_digest(data)]
            for name, yaml, data in list_own_tasks(args, language)
        }
        asked = digest([[prompt_digest(row), row.get("skip")] for row in prompt_rows(prompts, language)])
        inputs[language] = {
            ANSWERS: {**answers, "language": language, "prompts": asked},
            # The limit is not for own tasks.
            TASKS: {**tasks, "language": language, "tasks": own, "suite": [suite, args.suite_limit if suite else None]},
        }
    return inputs


def list_own_tasks(args, language):
    """(name, YAML, data file) of the tasks of --task that the language has."""
    return [
        (name, yaml, task_data(data, language)) for name, yaml, data, *only in args.task if not only or language in only
    ]


def task_data(pattern, language):
    path = Path(pattern.replace("{language}", language))
    if not path.is_file():
        raise InputError("no data for the structured task", "check the task's data pattern in the config", path)
    for _ in read_jsonl(path):
        pass  # raises for a line that is broken, before a model is loaded
    return path.resolve()


def evaluate(args, missing, finished):
    tasks = {language: load_tasks(args, language) for language in missing[TASKS]}
    suites = load_suites(args, missing[TASKS])
    prompts = dict(zip(args.languages, args.prompts, strict=True))
    harness.check_lengths(args, chain(tasks.values(), *(suite.values() for suite in suites.values())))
    with_tasks = any(tasks.values()) or bool(suites)
    policy = load_policy(args, args.adapter) if missing[ANSWERS] or with_tasks else None
    for language in cli.progress(missing[ANSWERS], desc=f"answers {args.output.name}", unit="language"):
        with finished[ANSWERS][language].saving() as folder:
            lines = answer_prompts(args, policy, list(prompt_rows(prompts[language])))
            write_jsonl(folder / "answers.jsonl", lines)
    model = harness.wrap(policy, args) if with_tasks else None
    for language in cli.progress(missing[TASKS], desc=f"tasks {args.output.name}", unit="language"):
        with finished[TASKS][language].saving() as folder:
            results, samples = run_tasks(args, model, tasks[language], suites.get(language, {}))
            write_json(folder / "eval.json", results)
            write_jsonl(folder / "samples.jsonl", samples)


def load_tasks(args, language):
    """{name: lm-eval's task} of the own tasks; raises InputError for a task that lm-eval cannot make."""
    if not args.task:
        return {}
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    sandbox_templates()
    manager, tasks = TaskManager(include_defaults=False), {}
    for name, path, data in list_own_tasks(args, language):
        try:
            config = load_yaml(path, resolve_func=name in args.trust_task_code)
            dataset = {config["test_split"]: read_documents(data)}
            own = {"task": name, "custom_dataset": lambda dataset=dataset, **_: dataset}
            tasks |= manager.load({**config, **own, "dataset_kwargs": {}})["tasks"]
        except Exception as error:
            raise InputError(
                f"lm-eval cannot make the task {name} over {data}: {describe(error)}",
                "write the YAML as in config/tasks/, with test_split, and the fields that the data has",
                path,
            ) from error
    return tasks


def read_documents(path):
    """A task's JSON Lines as a dataset whose values are what the file says.

    The library's own loader guesses types: it turns texts such as 1957-03-25 into times, and fails on mixed columns.
    """
    from datasets import Dataset, Features, Json, Value

    table = [row for _, row in read_jsonl(path)]
    columns = {name: [row.get(name) for row in table] for name in dict.fromkeys(name for row in table for name in row)}
    features = {}
    for name, values in columns.items():
        kinds = {type(value) for value in values if value is not None}
        plain_kind = {str: "string", bool: "bool", float: "float64"}.get(*kinds) if len(kinds) == 1 else None
        features[name] = Value(plain_kind) if plain_kind else Json()
        if not plain_kind:
            columns[name] = [json.dumps(value) for value in values]  # a plain text would be parsed as JSON
    return Dataset.from_dict(columns, features=Features(features))


def load_suites(args, languages):
    """{language: {name of --suite: {task: lm-eval's task}}}; raises InputError for names or data that are missing."""
    if args.task or args.suite:
        harness.check_options(args)
    wanted = {language: args.suite[language] for language in languages if language in args.suite}
    if not wanted:
        return {}
    found, failures = load_suite(list(dict.fromkeys(name for names in wanted.values() for name in names)))
    if failures:
        lines = "".join(f"\n    {name}: {why}" for name, why in failures.items())
        raise InputError(f"{len(failures)} tasks cannot be loaded with their data:{lines}", REMEDY)
    suites = {language: {name: found[name] for name in names} for language, names in wanted.items()}
    for language, tasks in suites.items():
        refuse_overlap(language, tasks)
    return suites


def answer_prompts(args, policy, prompts):
    """One line per prompt, in prompt order; prompts of like length share a batch, which follows from the file alone."""
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
        reasons = {line["skip"] for line in lines}
        remedies = (
            [f"prompts that fit in the model's context of {policy.context} tokens"] if TOO_LONG in reasons else []
        )
        if any(reason.startswith("translation_") for reason in reasons):
            remedies.append("another translator, or prompts of your own in this language")
        raise InputError(
            f"no prompt can be answered: each is skipped ({', '.join(sorted(reasons))})",
            f"give {', or '.join(remedies or ['other prompts'])}",
            field="prompts",
        )
    tokens, seeds = [tokens for _, tokens, _ in work], [seed for *_, seed in work]
    responses = policy.respond(tokens, seeds, args.temperature, args.top_p, args.max_tokens)
    for (line, _, _), response in zip(work, responses, strict=True):
        line["responses"].append(response)
    return lines


def count_answers(path, max_tokens):
    """Numbers of answers, of those that were cut off, of those that the context cut off, and of skipped prompts."""
    counts = {"prompts": 0, "answers": 0, "truncated": 0, "cut_by_context": 0, "skipped": {}}
    for _, line in read_jsonl(path):
        counts["prompts"] += 1
        if line["skip"]:
            counts["skipped"][line["skip"]] = counts["skipped"].get(line["skip"], 0) + 1
        for response in line["responses"]:
            truncated = response["finish_reason"] == "length"
            counts["answers"] += 1
            counts["truncated"] += truncated
            counts["cut_by_context"] += truncated and response["n_tokens"] < max_tokens
    return counts


def run_tasks(args, model, own, suite):
    """Results by task, and a line for each document, of the structured tasks in one language."""
    results, lines = {}, []
    single = {task: made for tasks in suite.values() for task, made in tasks.items()}
    for tasks, limit in ((own, None), (single, args.suite_limit)):
        if not tasks:
            continue
        output = harness.run(model, tasks, limit)
        for name in tasks:
            declared = tasks[name].higher_is_better()
            samples = output["samples"][name]
            forged = {sample["doc_id"] for sample in samples if harness.is_forged(model, sample)}
            results[name], found = read_samples(name, samples, output["results"][name], declared, forged)
            lines += found
            if results[name]["n"] and results[name].keys() <= {"n", "left_out"}:
                print(f"warning: {name}: no metric is one number per document, so it has no result", file=sys.stderr)
            counted = {sample["doc_id"]: sample for sample in samples if sample["doc_id"] not in forged}
            if cut := harness.count_cut(model, counted.values()):
                results[name]["cut_requests"] = cut
                print(
                    f"warning: {name}: {cut} requests exceed the model's context; the beginning of their prompts was cut",
                    file=sys.stderr,
                )
            if forged:
                results[name]["control_tokens"] = len(forged)
                print(
                    f"warning: {name}: {len(forged)} documents spell control tokens, and are excluded", file=sys.stderr
                )
    for group, tasks in suite.items():
        for task in tasks:
            results[task]["suite"] = group
    return results, lines


def read_samples(task, samples, aggregated, declared, forged):
    """(n, means and excluded metrics of a task; one line per document) from lm-eval's samples.

    Args:
        samples: lm-eval's, one for each document and filter; ``aggregated``: its results over the task; ``declared``:
            {metric: whether higher is better}, as the task says; ``forged``: doc_ids to exclude.
    A metric is excluded if it is not one finite number per document, such as f1 over labels, or if the mean of these
    numbers is not lm-eval's own value: then they are not what the metric's name says. A document's ``perplexity`` is
    its log-likelihood and is renamed so, because its sign is the opposite.
    """
    documents, metrics, values, names, lower = {}, {}, {}, {}, []
    several = len({sample["filter"] for sample in samples}) > 1
    for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
        documents.setdefault(sample["doc_id"], sample)
        for metric in sample["metrics"]:
            name = re.sub(r"\W+", "_", f"{metric}_{sample['filter']}") if several else metric
            names[name] = metric, f"{metric},{sample['filter']}"
            values.setdefault(name, {})[sample["doc_id"]] = sample[metric]
    left_out = {}
    for name, by_document in values.items():
        metric, key = names[name]
        whole = aggregated.get(key)
        if len(by_document) == len(documents) and all(map(is_number, [*by_document.values(), whole])):
            numbers = {document: float(value) for document, value in by_document.items()}
            mean = sum(numbers.values()) / len(numbers)
            if math.isclose(whole, mean, rel_tol=1e-6, abs_tol=1e-9):
                metrics[name] = numbers
                if directions.direction(metric, declared.get(metric)) == directions.LOWER:
                    lower.append(name)
                continue
            if metric == "perplexity" and math.isclose(whole, math.exp(min(-mean, 700)), rel_tol=1e-6):
                metrics[name.replace("perplexity", "log_likelihood", 1)] = numbers
        left_out[name] = whole
    documents = {document: sample for document, sample in documents.items() if document not in forged}
    means = {
        name: sum(some[document] for document in documents) / len(documents)
        for name, some in metrics.items()
        if documents
    }
    results = {"n": len(documents), **means}
    direction = {"lower_is_better": sorted(lower)} if lower else {}
    results |= direction
    if left_out:
        results["left_out"] = {name: float(v) if is_number(v) else None for name, v in left_out.items()}
    ids = [find_id(sample["doc"]) for sample in documents.values()]
    if len(set(ids)) < len(ids):
        ids = [None] * len(ids)
    lines = [
        {
            "task": task,
            "prompt_id": prompt_id,
            "doc_hash": sample["doc_hash"],
            "target": plain(sample["target"]),
            "response": plain(find_response(sample["filtered_resps"])),
            **{name: metrics[name][document] for name in metrics},
            **direction,
        }
        for prompt_id, (document, sample) in zip(ids, documents.items(), strict=True)
    ]
    return results, lines


def is_number(value):
    # NumPy's booleans are not Real either.
    return (isinstance(value, Real) or type(value).__name__ == "bool") and math.isfinite(value)


def find_id(document):
    found = document.get("id") if isinstance(document, dict) else None
    return found if isinstance(found, str | int) else None


def find_response(filtered):
    """The answer, or the log-likelihoods of several choices."""
    return filtered[0] if len(filtered) == 1 else [choice[0] for choice in filtered]


def plain(value):
    """A value of a task's own code as JSON can hold it."""
    return json.loads(json.dumps(value, default=str))


if __name__ == "__main__":
    cli.run(main)
