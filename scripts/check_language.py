"""Check what the workflow offers for a language: a table of what is there and what is missing, with remedies.

Example:
  python scripts/check_language.py eu --configfile config/paper.yaml

Nothing is changed, downloaded or run. The exit code is 1 if something is missing, 0 otherwise; the workflow can do
without what gives a warning. --text replaces the sample sentence of languages.tsv by a longer text, which makes the
count of tokens more precise.
"""

import json
import os
import re
import sys
from pathlib import Path

from croco import cli
from croco.commands import name_command
from croco.config.languages import COLUMNS, read_languages
from croco.errors import InputError
from croco.evaluation.tasks import CAPABILITIES, parse_tasks
from croco.records import read_lines

ROOT = Path(__file__).resolve().parent.parent
SHOWN = 12  # candidate tasks on the terminal; --json has all
COSTLY = 2  # ratio to the tokens of English from which responses may not fit in max_tokens


def main():
    args = parse_arguments()
    config, known = read_config(args.configfile), read_tasks(read_languages(args.languages), args.languages)
    row = known.get(args.code)
    text = read_text(args, row)
    checks = [check_code(args.code)]
    if checks[0]["state"] == "ok":
        checks += [
            check_row(args, row),
            check_translator(row),
            check_identification(args.code, text),
            check_tasks(args.code, row),
            *check_tokens(config, text, known["en"]["sample"], parallel=args.text is None),
            check_listed(args.code, config),
        ]
    if args.json:
        print(json.dumps({"language": args.code, "checks": checks}, ensure_ascii=False, indent=1))
    else:
        print_table(args.code, row, checks)
    sys.exit(any(check["state"] == "missing" for check in checks))


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("code", help="code of the language, e.g. eu")
    parser.add_argument("--configfile", type=Path, help="config of the run, over config/config.yaml")
    parser.add_argument("--languages", type=Path, default=ROOT / "config" / "languages.tsv", help="table of languages")
    parser.add_argument("--text", type=Path, help="text of the language, instead of the sample sentence")
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    return parser.parse_args()


def read_config(path):
    """The config as Snakemake merges it, mappings key by key over the default and lists replaced, and checked."""
    import yaml
    from snakemake.utils import update_config

    from croco.config.schema import Locator, check_config

    config, files = {}, [file for file in (ROOT / "config" / "config.yaml", path) if file]
    for file in files:
        try:
            layer = yaml.safe_load(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError("no such file", "check the path", file) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"not readable as YAML ({error})", "fix the file", file) from error
        if not isinstance(layer, dict):
            raise InputError("not a mapping of keys to values", "start from config/config.yaml", file)
        update_config(config, layer)
    check_config(config, ROOT / "config" / "schema.yaml", Locator(files[::-1]))
    return config


def read_tasks(known, path):
    """The languages' rows, with their tasks as {capability: task names}."""
    for line, row in enumerate(known.values(), start=2):
        try:
            row["tasks"] = parse_tasks(row["tasks"] if is_filled(row["tasks"]) else "")
        except ValueError as error:
            raise InputError(
                str(error), f"write capability: task, task; ... with {', '.join(CAPABILITIES)}", path, line, "tasks"
            ) from error
    if "en" not in known or not is_filled(known["en"]["sample"]):
        raise InputError("no sample for en, with which other languages are compared", "put it back", path)
    return known


def read_text(args, row):
    """What is tokenized and identified, "" where there is nothing."""
    if args.text:
        text = " ".join(line for _, line in read_lines(args.text)).strip()
        if not text:
            raise InputError("no text", "give a file with some sentences", args.text)
        return text
    return row["sample"] if row and is_filled(row["sample"]) else ""


def is_filled(value):
    return bool(value) and not value.startswith("<")


def report(check, state, found, remedy=None, **details):
    return {"check": check, "state": state, "found": found, "remedy": remedy, **details}


def list_codes(code):
    """The two-letter and three-letter codes that stand for the language: ({"no", "nb", "nn"}, {"nor", "nob", "nno"})."""
    from nltk.langnames import iso639short

    from croco.text.language import name_language

    name = name_language(code)
    two = {short for short in iso639short.values() if name_language(short) == name}
    return two, {long for long, short in iso639short.items() if short in two}


def check_code(code):
    from nltk.langnames import iso639short

    base = code.split("_")[0]
    if base in iso639short:
        return report("code", "missing", f"{base} is the three-letter code", f"write {iso639short[base]}")
    if not re.fullmatch("[a-z]{2,3}(_[A-Za-z]+)?", code) or (len(base) == 2 and base not in iso639short.values()):
        return report(
            "code", "missing", f"{code} is not an ISO 639 code", "give the language's code, e.g. eu for Basque"
        )
    return report("code", "ok", code)


def check_row(args, row):
    if row is None:
        blank = "\t".join([args.code, *(f"<{name}>" for name in COLUMNS[1:])])
        return report(
            "row",
            "missing",
            f"no row for {args.code} in {args.languages}",
            "add the row below, single tabs between the columns, with every <...> filled in or removed",
            row_to_add=blank,
        )
    empty = [name for name in ("name", "native_name", "sample") if not is_filled(row[name])]
    if empty:
        return report("row", "warning", f"no {', '.join(empty)}", f"fill in the row in {args.languages}")
    return report("row", "ok", f"{row['name']}, {row['native_name']}")


def check_translator(row):
    if row and row["translategemma"] == "yes" and is_filled(row["translation"]):
        return report("translator", "ok", f"TranslateGemma, as {row['translation']}")
    return report(
        "translator",
        "warning",
        "not among the 55 languages that TranslateGemma was evaluated on" if row else "not known without a row",
        "supply your own translations of the prompts, or try it and have someone read a sample of its output",
    )


def check_identification(code, text):
    from croco.text.language import can_identify, detect_language

    if not can_identify(code):
        return report(
            "identification",
            "warning",
            "py3langid does not know the language",
            "nothing to do: responses in other languages are neither dropped nor counted",
        )
    found = detect_language(text, code)
    if found == code:
        return report("identification", "ok", "by py3langid; the text is identified correctly")
    if found is None:
        why = "the text is too short, or of names or code" if text else "no text to try it on"
        return report("identification", "warning", f"known to py3langid; {why}", "give --text FILE")
    return report(
        "identification", "warning", f"the text is identified as {found}", "check the text; try a longer --text"
    )


def check_tasks(code, row):
    """The tasks of the row that lm-eval has, and those whose names end in a code or the name of the language."""
    print("Reading lm-eval's index of tasks, which takes about ten seconds ...", file=sys.stderr)
    from lm_eval.tasks import TaskManager

    index = set(TaskManager().all_tasks)
    listed = list(row["tasks"]) if row else []
    two, three = list_codes(code)
    ends = two | {f"{long}(_[a-z]{{4}})?" for long in three}
    if row and is_filled(row["name"]):
        ends.add(re.escape(row["name"]))
    ending = re.compile(f"_({'|'.join(ends) or '(?!)'})$", re.IGNORECASE)
    candidates = sorted(name for name in index if ending.search(name) and name not in listed)
    unknown = [name for name in listed if name not in index]
    details = {"tasks": [name for name in listed if name in index], "candidates": candidates}
    if unknown:
        return report("tasks", "warning", f"not in lm-eval: {', '.join(unknown)}", "correct column tasks", **details)
    if listed:
        return report("tasks", "ok", f"{len(listed)} listed, {len(candidates)} more by name in lm-eval", **details)
    return report(
        "tasks",
        "warning",
        f"none listed; {len(candidates)} by name in lm-eval",
        "list those that fit in column tasks" if candidates else "supply tasks of your own, as in config/tasks",
        **details,
    )


def check_tokens(config, text, english, parallel):
    """One check for each policy: tokens per word of the text and of the English sample.

    A translation of the sample (``parallel``) is judged by its number of tokens, another text by its tokens per word. In a
    script without spaces between words only a translation can be compared.
    """
    if not text:
        yield report("tokens", "warning", "no text to tokenize", "give --text FILE, or fill in column sample")
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import regex
    from transformers import AutoTokenizer

    from croco.text.measures import list_words
    from croco.text.normalise import SPACELESS

    for policy in config["policies"]:
        path = policy["path"].replace("{results}", os.path.normpath(config["results"]))
        check = f"tokens {policy['name']}"
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                path,
                revision=policy.get("revision"),
                trust_remote_code=policy["trust_remote_code"],
                local_files_only=True,
            )
        except (OSError, ValueError):
            made = "{results}/miniature/" in policy["path"]
            yield report(
                check,
                "warning",
                f"{path} is neither a local model nor in the hub's cache",
                "run the workflow once: it makes this model" if made else name_command("hf", "download", path),
            )
            continue
        here, there = (len(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (text, english))
        per_word, per_word_english = here / max(1, len(list_words(text))), there / len(list_words(english))
        details = {"tokens_per_word": round(per_word, 4), "tokens_per_word_english": round(per_word_english, 4)}
        if not parallel and regex.search(f"[{SPACELESS}]", text):
            found = f"{per_word:.2f} per word or character, which cannot be compared with English words"
            yield report(check, "warning", found, "leave --text out: the sample is a translation", **details)
            continue
        times = here / there if parallel else per_word / per_word_english
        what = "the sentence takes" if parallel else "that is"
        yield report(
            check,
            "ok" if times < COSTLY else "warning",
            f"{per_word:.2f} per word, English {per_word_english:.2f}; {what} {times:.2f} times the tokens",
            None if times < COSTLY else "responses are cut off sooner: raise max_tokens, or expect more truncated ones",
            **details,
            times_english=round(times, 4),
        )


def check_listed(code, config):
    if code in [row["code"] for row in config["languages"]]:
        return report("config", "ok", "in the run's languages")
    return report("config", "warning", "not in the run's languages", f'add under languages:  - {{code: "{code}"}}')


def print_table(code, row, checks):
    print(f"{code}  {row['name']}" if row else code)
    width = max(len(check["check"]) for check in checks)
    for check in checks:
        print(f"  {check['state']:<8} {check['check']:<{width}}  {check['found']}")
        if check["remedy"]:
            print(f"{'':{width + 13}}-> {check['remedy']}")
        if candidates := check.get("candidates"):
            more = f" and {len(candidates) - SHOWN} more (--json has all)" if len(candidates) > SHOWN else ""
            print(f"{'':{width + 13}}in lm-eval: {', '.join(candidates[:SHOWN])}{more}")
    for check in checks:
        if "row_to_add" in check:
            print(f"\n{check['row_to_add']}")


if __name__ == "__main__":
    cli.run(main)
