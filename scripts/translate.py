"""Translate prompts from the source language, message by message, with a translation model.

Example:
  python scripts/translate.py --prompts prompts/en/0.jsonl --language da --model DIR --format translategemma \\
      --languages config/languages.tsv --state state --output prompts/da/0.jsonl
  python scripts/translate.py --prompts facebook/belebele --subset eng_Latn --split test --id row_number \\
      --fields flores_passage question mc_answer1 mc_answer2 mc_answer3 mc_answer4 --source-language en --language cy \\
      --model DIR --format translategemma --languages config/languages.tsv --state state --output tasks/reading/cy.jsonl

--fields translates rows of a structured task instead of prompts: in each row these fields, which hold texts or lists of
texts. The other fields stay. `translated` names the source language and the model. A row that fails is excluded and
counted.

Fenced code stays as it is. Long messages are translated in groups of paragraphs. A translation fails if it was cut off,
is empty, repeats the source or is in another language. It is then tried again with sampling. If all attempts fail, the
prompt's line says skip: translation_..., and no response is sampled for it. References are translated too; one that
fails is null and counted. Translations are kept under --state, so that only new or changed prompts are translated.

Formats: translategemma (codes as fields of the chat template), translategemma_prompt (the same as plain text),
translategemma_tags (Infomaniak's variant), template (any chat model: --template with {text}, {source_name},
{target_name}, {source_code}, {target_code}).
"""

import csv
import sys
from pathlib import Path

from croco import cli
from croco.digests import behaviour_digest, digest, prompt_digest, versions
from croco.errors import InputError
from croco.models.engines import describe_engine, load_policy
from croco.models.loading import model_errors, model_id
from croco.models.options import add_chat_options
from croco.prompts.formats import FORMATS, MISFIT, find_misfit
from croco.prompts.sources import ROW_NUMBER, open_dataset, read_prompt_id
from croco.prompts.translation import translate_chunk
from croco.records import dump, prompt_rows, read_jsonl, write_jsonl
from croco.state import Parts


def main():
    args = parse_arguments()
    task = read_task(args) if args.fields else None
    prompts = [make_prompt(args, row) for row in task] if task else list(prompt_rows(args.prompts))
    how = describe_how(args, read_names(args, prompts))
    identity = model_id(args.model, args.revision, args.state)
    parts = Parts(args.state, "translations", cache_key_inputs(args, identity, how), map(source_digest, prompts))
    missing = find_missing(args, parts, prompts)
    print(f"{len(prompts)} prompts; {len(missing)} to translate", file=sys.stderr)
    if missing:
        translate(args, how, parts, missing)
    counts = write_task(args, parts, task, prompts) if task else write(args, parts, prompts)
    inputs = {"prompts": args.prompts, "translator": identity}
    cli.write_manifest(
        args.output.with_suffix(".manifest.json"), __file__, args, inputs, counts=counts, translated=len(missing)
    )


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--prompts",
        type=Path,
        required=True,
        help="prompt file of the source language; with --fields, rows: JSONL or a dataset",
    )
    parser.add_argument("--language", required=True, help="code of the language to translate to")
    parser.add_argument("--languages", type=Path, required=True, help="languages.tsv: names and translation codes")
    add_chat_options(parser)
    parser.set_defaults(batch=16)
    parser.add_argument("--format", choices=FORMATS, required=True, help="how the model is asked")
    parser.add_argument("--template", help="the user's turn for --format template")
    parser.add_argument("--max-tokens", type=cli.positive, default=2048, help="tokens of a translated piece at most")
    parser.add_argument(
        "--longest", type=cli.positive, default=3000, help="characters of a piece, paragraphs permitting"
    )
    parser.add_argument(
        "--attempts", type=cli.positive, default=3, help="attempts per piece; the first is greedy, others are sampled"
    )
    parser.add_argument("--seed", type=cli.whole(0), default=0, help="seed of further attempts")
    parser.add_argument("--fields", nargs="+", help="fields to translate of a structured task's rows")
    parser.add_argument("--id", default="id", help=f"with --fields: field with the id, or {ROW_NUMBER}")
    parser.add_argument("--source-language", default="en", help="with --fields: code of the rows' language")
    parser.add_argument("--subset", help="with --fields: configuration of the dataset")
    parser.add_argument("--dataset-revision", help="with --fields: commit or tag of the dataset")
    parser.add_argument("--split", default="test", help="with --fields: split of the dataset")
    cli.add_state_options(parser, chunk=64)
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    if (args.format == "template") != bool(args.template and "{text}" in args.template):
        parser.error("--format template, and nothing else, goes with a --template that holds {text}")
    return args


def read_task(args):
    """The rows of a structured task, each with its id as text; raises InputError for a field that cannot be translated."""
    if args.prompts.suffix == ".jsonl":
        found = read_jsonl(args.prompts)
    else:
        found = enumerate(open_dataset(str(args.prompts), args.subset, args.dataset_revision, args.split), start=1)
    task, seen = [], set()
    for number, (line, row) in enumerate(found, start=1):
        row = {**row, "id": str(number) if args.id == ROW_NUMBER else read_prompt_id(row, args, args.prompts, line)}
        if row["id"] in seen:
            raise InputError(f"duplicate id {row['id']}", f"write id: {ROW_NUMBER}", args.prompts, line, args.id)
        seen.add(row["id"])
        for field, value in row.items():
            try:
                dump(value)
            except (TypeError, ValueError) as error:
                remedy = "take the field out of the rows, or write it as text, number, list, or null"
                raise InputError(f"cannot be written as JSON ({error})", remedy, args.prompts, line, field) from error
        for field in args.fields:
            texts = row.get(field)
            if not all(isinstance(text, str) for text in (texts if isinstance(texts, list) else [texts])):
                raise InputError(
                    "neither text nor a list of texts",
                    f"name other fields; the row has {', '.join(row)}",
                    args.prompts,
                    line,
                    field,
                )
        task.append(row)
    if not task:
        raise InputError("no rows", "give a file or dataset with at least one", args.prompts)
    return task


def make_prompt(args, row):
    """A row's texts as the messages of a prompt, which are translated one by one."""
    texts = [text for field in args.fields for text in ([row[field]] if isinstance(row[field], str) else row[field])]
    messages = [{"role": "user", "content": text} for text in texts]
    return {"prompt_id": row["id"], "language": args.source_language, "messages": messages, "reference": None}


def read_names(args, prompts):
    """Names and codes of both languages for the translator."""
    with open(args.languages, encoding="utf-8") as file:
        table = {row["code"]: row for row in csv.DictReader(file, delimiter="\t")}
    source = prompts[0]["language"] if prompts else args.language
    for code in (source, args.language):
        if not (table.get(code) or {}).get("translation"):
            raise InputError(f"no translation code for {code}", "fill in its row", args.languages, field="translation")
    return {
        "source_name": table[source]["name"],
        "source_code": table[source]["translation"],
        "target_name": table[args.language]["name"],
        "target_code": table[args.language]["translation"],
    }


def describe_how(args, names):
    """What decides a translation besides the model, as translate_chunk takes it."""
    options = ("language", "format", "template", "max_tokens", "longest", "seed")
    return {**names, **{name: getattr(args, name) for name in options}}


def cache_key_inputs(args, identity, how):
    return {
        "translator": identity,
        **describe_engine(args),
        "template_options": args.template_options,
        **how,
        "translation": behaviour_digest(
            "croco/prompts/translation.py",
            "croco/prompts/formats.py",
            "croco/text/language.py",
            "croco/text/normalise.py",
        ),
        "identifier": versions("py3langid"),
    }


def find_missing(args, parts, prompts):
    """Prompts without a line, and failed ones with attempts left."""
    missing = []
    for row in prompts:
        found = parts.lines(source_digest(row))
        if not any(whole(line) or line["attempts_allowed"] >= args.attempts for line in found):
            missing.append(row)
    return missing


def source_digest(row):
    """Digest of the parts of a source line that its translation depends on."""
    return digest([prompt_digest(row), row.get("reference")])


def whole(line):
    return not line["skip"] and not line["reference_skip"]


def check_format(args, how):
    """Raises InputError where the translator's template does not take the format, before the model is loaded."""
    from croco.models.chats import load_tokenizer

    with model_errors(args.model):
        tokenizer = load_tokenizer(args.model, args.revision, args.trust_remote_code, args.template_options)
    if misfit := find_misfit(tokenizer, how, args.template_options):
        what = f"the chat template does not fit the format {args.format} for {how['target_code']}: it {misfit}"
        raise InputError(what, MISFIT, args.model, field="format")


def translate(args, how, parts, missing):
    check_format(args, how)
    model = load_policy(args)
    with cli.progress(total=len(missing), desc=f"translate to {args.language}", unit="prompt") as bar:
        for begin in range(0, len(missing), args.chunk):
            chunk = missing[begin : begin + args.chunk]
            lines = translate_chunk(model, chunk, how, args.attempts)
            parts.add(
                [
                    {"prompt_digest": source_digest(row), **line, "attempts_allowed": args.attempts}
                    for row, line in zip(chunk, lines, strict=True)
                ]
            )
            bar.update(len(chunk))


def find_best(parts, row):
    return max(parts.lines(source_digest(row)), key=lambda line: (whole(line), line["attempts_allowed"]))


def write_task(args, parts, task, prompts):
    """Writes the translated rows in order; returns counts."""
    counts = {"rows": len(task), "left out": {}, "tried again": 0}

    def lines():
        for row, prompt in zip(task, prompts, strict=True):
            part = find_best(parts, prompt)
            counts["tried again"] += part["attempts"] > 1
            if part["skip"]:
                counts["left out"][part["skip"]] = counts["left out"].get(part["skip"], 0) + 1
                continue
            texts = iter(message["content"] for message in part["messages"])
            translations = {
                f: next(texts) if isinstance(row[f], str) else [next(texts) for _ in row[f]] for f in args.fields
            }
            yield {**row, **translations, "translated": {"from": args.source_language, "by": args.model}}

    if not write_jsonl(args.output, lines()):
        raise InputError(f"no row could be translated: {counts['left out']}", "try another translator", args.prompts)
    return counts


def write(args, parts, prompts):
    """Writes the translated prompts in order; returns counts."""
    counts = {"prompts": 0, "skipped": {}, "references lost": {}, "tried again": 0, "without reference": 0}

    def lines():
        for row in prompts:
            part = find_best(parts, row)
            line = {
                "prompt_id": row["prompt_id"],
                "language": args.language,
                "messages": part["messages"],
                "reference": part["reference"],
                "source": f"{row['language']} by {args.model}",
                "skip": row.get("skip") or part["skip"],
            }
            counts["prompts"] += 1
            counts["tried again"] += part["attempts"] > 1
            counts["without reference"] += not line["reference"]
            for name, reason in (("skipped", line["skip"]), ("references lost", part["reference_skip"])):
                if reason:
                    counts[name][reason] = counts[name].get(reason, 0) + 1
            yield line

    write_jsonl(args.output, lines())
    return counts


if __name__ == "__main__":
    cli.run(main)
