"""Look before training: random prompts with their pools and pairs on one page, and blind ballots for native speakers.

Example, two languages; the k-th value of each list belongs to the k-th language:
  python scripts/preview.py --source prompts/en.jsonl --language de fr --prompts prompts/de.jsonl prompts/fr.jsonl \\
      --generations mini/de/generations.jsonl mini/fr/generations.jsonl \\
      --scores mini/de/scores/rm.jsonl mini/fr/scores/rm.jsonl --pairs mini/de/dpo/pairs.jsonl mini/fr/dpo/pairs.jsonl \\
      --ledger mini/de/dpo/ledger.json mini/fr/dpo/ledger.json \\
      --count 10 --seed 0 --votes votes/de.anna.csv votes/de.ben.csv --output preview.html --ballots preview

The pools are monolingual. A seeded hash of the id draws the prompts: the same ones in every language, whether or not
they formed a pair. A larger --count only adds prompts at the end. All files are streamed.

The output is the page (one file, which opens offline) and in the folder --ballots:
  LANGUAGE.csv   prompt_id, prompt, answer_a, answer_b, vote, comment; it does not show which answer is the chosen one
  agreement.csv  language, votes, ties, agree, agreement, ci_low, ci_high; the row `all` pools the languages

A voter writes a, b, tie or nothing in the column vote, and saves a copy in another folder under a name that begins with
the language's code. --votes compares these copies with the reward model: agreement is the share of decided votes that
prefer the chosen response, with its 95 % Wilson interval. An existing ballot with other content is never overwritten.
"""

import csv
import heapq
import io
import re
import sys
from collections import Counter, defaultdict
from itertools import chain, combinations
from pathlib import Path

from croco import cli
from croco.digests import derive_seed
from croco.errors import InputError
from croco.files import replacing
from croco.pairs.hygiene import find_reason
from croco.pairs.pools import IN_EVALUATION
from croco.pairs.rules import mean_std
from croco.prompts.overlap import read_found
from croco.records import (
    Generation,
    Identified,
    Prompt,
    Score,
    ScoredPair,
    check_same_text,
    read_json,
    read_lines,
    read_records,
    rows_in_step,
)
from croco.report.render import TEMPLATES, render_page
from croco.spreadsheets import guard, guard_row
from croco.text.normalise import normalise_id

PER_LANGUAGE = ("language", "prompts", "generations", "scores", "pairs", "ledger")
NO_PAIR = {
    IN_EVALUATION: "the prompt is part of the evaluation data",
    "pool_too_small": "fewer than two responses stay in the pool",
    "all_texts_equal": "all responses are the same text",
    "no_lower_reward": "no response has a lower reward than the best",
}
BALLOT = ("prompt_id", "prompt", "answer_a", "answer_b", "vote", "comment")
AGREEMENT = ("language", "votes", "ties", "agree", "agreement", "ci_low", "ci_high")


def main():
    args = parse_arguments()
    entries = [
        dict(zip(PER_LANGUAGE, values, strict=True))
        for values in zip(*(getattr(args, name) for name in PER_LANGUAGE), strict=True)
    ]
    removed = {(found.language, prompt) for found in map(read_found, args.exclude) for prompt in found.removed}
    for entry, path in zip(entries, args.identified or [None] * len(entries), strict=True):
        entry |= {"identified": path, "removed": removed}
    languages = [read_language(args, entry) for entry in cli.progress(entries, desc="preview", unit="language")]
    ballots = {language["code"]: make_ballot(args, language) for language in languages}
    check_ballots(args, ballots)
    votes = read_votes(args, ballots)
    table = measure_agreement(votes, args.language)
    html = render_page(
        args.template,
        contents=[("agreement", "Agreement"), *((code, code) for code in args.language)],
        title=args.title,
        ballots=args.ballots.name,
        languages=languages,
        votes=votes,
        agreement=table,
        no_pair=NO_PAIR,
    )
    for language, ballot in ballots.items():
        with replacing(args.ballots / f"{language}.csv") as file:
            file.write(format_ballot(ballot))
    write_agreement(args.ballots / "agreement.csv", table)
    with replacing(args.output) as file:
        file.write(html)
    files = [path for name in (*PER_LANGUAGE[1:], "identified", "exclude", "votes") for path in getattr(args, name)]
    cli.write_manifest(
        args.output.with_suffix(".manifest.json"),
        __file__,
        args,
        {str(path): path for path in [args.source, *files]},
        drawn={language["code"]: len(language["prompts"]) for language in languages},
        ballots={language: len(ballot) for language, ballot in ballots.items()},
        votes=len(votes),
    )


def parse_arguments():
    parser = cli.parser(__doc__, outputs=("output", "ballots"))
    parser.add_argument(
        "--source", type=Path, required=True, help="prompt file of the source language, shown beside the others"
    )
    parser.add_argument("--language", nargs="+", required=True, help="codes of the languages")
    for name, of in (
        ("prompts", "prompt file"),
        ("generations", "generations"),
        ("scores", "scores"),
        ("pairs", "pairs.jsonl of the monolingual pool"),
        ("ledger", "ledger.json beside the pairs"),
    ):
        parser.add_argument(f"--{name}", type=Path, nargs="+", required=True, help=f"{of}, one a language")
    parser.add_argument(
        "--identified",
        type=Path,
        nargs="+",
        default=[],
        help="languages of the responses, if the hygiene wrong_language excluded",
    )
    parser.add_argument(
        "--exclude",
        type=Path,
        nargs="+",
        default=[],
        help="files of scripts/contamination.py, as the pairs were built with",
    )
    parser.add_argument("--pool-size", type=cli.positive, help="as the pairs were built with (default: all responses)")
    parser.add_argument("--count", type=cli.positive, default=10, help="prompts to draw")
    parser.add_argument("--seed", type=cli.whole(0), default=0, help="seed of the draw, and of the order of a and b")
    parser.add_argument("--votes", type=Path, nargs="+", default=[], help="filled ballots, each LANGUAGE[.VOTER].csv")
    parser.add_argument("--title", help="what the page shows, such as policy and setting (default: the page's name)")
    parser.add_argument("--template", type=Path, default=TEMPLATES / "preview.html.j2", help="of the page")
    parser.add_argument("--output", type=Path, required=True, help="page to write, .html")
    parser.add_argument(
        "--ballots", type=Path, required=True, metavar="DIR", help="folder for the blank ballots and agreement.csv"
    )
    args = parser.parse_args()
    lists = {f"--{name}": getattr(args, name) for name in (*PER_LANGUAGE, "identified")}
    if any(len(values) != len(args.language) for name, values in lists.items() if name != "--identified" or values):
        parser.error(f"{', '.join(lists)} need one value per language")
    if len(set(args.language)) < len(args.language):
        parser.error("duplicate language in --language")
    args.title = args.title or args.output.stem
    return args


def read_language(args, entry):
    """One language's section of the page: its ledger and the drawn prompts, the first rank first."""
    ledger = read_ledger(entry)
    steps = heapq.nsmallest(
        args.count, walk(args, entry), key=lambda step: derive_seed(args.seed, "preview", step[0]["prompt_id"])
    )
    return {
        "code": entry["language"],
        "ledger": ledger,
        "prompts": [describe_prompt(args, entry, ledger, *step) for step in steps],
    }


def read_ledger(entry):
    ledger = read_json(entry["ledger"])
    found = ledger.get("target"), list(ledger.get("languages", ()))
    if found != ("pair", [entry["language"]]):
        raise InputError(
            f"the ledger is of {found[0]} in {', '.join(found[1]) or 'no language'}, not of pairs in {entry['language']}",
            "give pairs and ledger of a monolingual pool, in the order of --language",
            entry["ledger"],
            field="languages",
        )
    if "wrong_language" in ledger["hygiene"] and not entry["identified"]:
        raise InputError(
            "responses in the wrong language left the pools", "give --identified as for build_pairs.py", entry["ledger"]
        )
    return ledger


def walk(args, entry):
    """Yields (prompt, its source, generation, score, languages or None, pair or None) for each prompt, streaming."""
    pairs = read_records(entry["pairs"], ScoredPair)
    line, waiting = next(pairs, (None, None))
    files = [
        (entry["prompts"], Prompt),
        (args.source, Prompt),
        (entry["generations"], Generation),
        (entry["scores"], Score),
        *([(entry["identified"], Identified)] if entry["identified"] else []),
    ]
    for step in rows_in_step(files):
        pair = None
        if waiting and waiting["prompt_id"] == step[0]["prompt_id"]:
            pair = waiting
            line, waiting = next(pairs, (None, None))
        yield *step, *([] if entry["identified"] else [None]), pair
    if waiting:
        raise InputError(
            f"no such prompt here, or not in this order: {waiting['prompt_id']!r}",
            "give files of the same run",
            entry["pairs"],
            line,
            "prompt_id",
        )


def describe_prompt(args, entry, ledger, prompt, source, generation, score, identified, pair):
    """What the page shows of one prompt; raises InputError where the files are not of the same run."""
    name = f"{entry['language']} {prompt['prompt_id']}"
    found = [row["language"] for row in (prompt, generation, score, identified or prompt)]
    if set(found) != {entry["language"]}:
        raise InputError(
            f"{name}: rows of different languages: {', '.join(found)}",
            "give all lists in the order of --language",
            field="language",
        )
    check_same_text(prompt, generation)
    responses, rewards = generation["responses"], score["rewards"]
    codes = identified["languages"] if identified else [None] * len(responses)
    if not len(responses) == len(rewards) == len(codes):
        raise InputError(
            f"{name}: {len(responses)} responses, {len(rewards)} rewards, {len(codes)} languages",
            "give scores and languages of these generations",
            field="rewards",
        )
    first = [values[: args.pool_size] for values in (responses, rewards, codes)]
    groups = group_responses(ledger["hygiene"], entry["language"], *first)
    pool = [group["reward"] for group in groups.values() if not group["left_out"] for _ in range(group["count"])]
    view = {
        "prompt_id": prompt["prompt_id"],
        "language": entry["language"],
        "messages": prompt["messages"],
        "source": None if source["language"] == prompt["language"] else source,
        "pool_size": len(pool),
        "mean": mean_std(pool)[0] if pool else None,
        "std": mean_std(pool)[1] if pool else None,
        "pair": pair,
        "votes": [],
    }
    if pair:
        chosen, rejected = (
            groups.pop((pair[side][0]["content"], pair[f"{side}_reward"], None), None)
            for side in ("chosen", "rejected")
        )
        if pair["pool_size"] != len(pool) or not chosen or not rejected:
            raise InputError(
                f"{name}: the pair was not formed from these {len(pool)} responses and rewards",
                "give the generations, scores, --identified, --exclude and --pool-size that the pairs were built with",
                entry["pairs"],
            )
        view |= {"chosen": chosen, "rejected": rejected}
    else:
        removed = {(row["language"], row["prompt_id"]) for row in (prompt, source)} & entry["removed"]
        view["why"] = IN_EVALUATION if removed else explain_no_pair(name, entry, ledger, generation, pool, groups)
    others = sorted(groups.values(), key=lambda group: (group["reward"] is None, -(group["reward"] or 0)))
    return view | {"others": others, "strip": draw_strip(view, others)}


def group_responses(hygiene, language, responses, rewards, codes):
    """{(text, reward, why it left the pool or None): what is shown of these equal responses}, in sample order."""
    groups = {}
    for response, reward, code in zip(responses, rewards, codes, strict=True):
        left_out = find_reason(hygiene, response, reward, language, code)
        group = groups.setdefault(
            (response["text"], reward, left_out),
            {"text": response["text"], "reward": reward, "left_out": left_out, "count": 0, "finish": {}, "tokens": {}},
        )
        group["count"] += 1
        group["finish"][response["finish_reason"]] = True
        if response.get("n_tokens") is not None:
            group["tokens"][response["n_tokens"]] = True
    return groups


def explain_no_pair(name, entry, ledger, generation, pool, groups):
    """The reason, as in the ledger, why a prompt formed no pair."""
    if generation.get("skip"):
        return generation["skip"]
    if len(pool) < 2:
        return "pool_too_small"
    drawn = ledger["rejected"] == "random"
    values = {text if drawn else reward for text, reward, left_out in groups if not left_out}
    if len(values) > 1:
        raise InputError(
            f"{name}: these responses and rewards form a pair, and there is none",
            "give the generations, scores, --identified, --exclude and --pool-size that the pairs were built with",
            entry["pairs"],
        )
    return "all_texts_equal" if drawn else "no_lower_reward"


def draw_strip(view, others):
    """Places on the line of rewards in per cent of its width: {ticks, mean, band: (begin, width), marks}, or None without a pool."""
    pair = view["pair"]
    groups = [group for group in [view.get("chosen"), view.get("rejected"), *others] if group and not group["left_out"]]
    if not groups:
        return None
    marks = (
        {"target": pair.get("target"), "rejected": pair["rejected_reward"], "chosen": pair["chosen_reward"]}
        if pair
        else {}
    )
    marks = {name: value for name, value in marks.items() if value is not None}
    values = [*(group["reward"] for group in groups), *marks.values()]
    low, high = min(values), max(values)

    def place(value):
        return round(3 + 94 * ((min(max(value, low), high) - low) / (high - low) if high > low else 0.5), 2)

    counts = Counter()
    for group in groups:
        counts[place(group["reward"])] += group["count"]
    begin, end = place(view["mean"] - view["std"]), place(view["mean"] + view["std"])
    return {
        "ticks": [(at, round(8 + 14 * count / max(counts.values()), 1)) for at, count in sorted(counts.items())],
        "mean": place(view["mean"]),
        "band": (begin, round(end - begin, 2)),
        "marks": {name: (place(value), value) for name, value in marks.items()},
    }


def make_ballot(args, language):
    """{prompt id, as a spreadsheet gives it back: a ballot row, the letter of the chosen answer and the page's view}."""
    ballot = {}
    for view in language["prompts"]:
        if not view["pair"]:
            continue
        swapped = derive_seed(args.seed, "ballot", language["code"], view["prompt_id"], bits=1)
        answers = [view["chosen"]["text"], view["rejected"]["text"]]
        a, b = reversed(answers) if swapped else answers
        turns = view["messages"]
        prompt = (
            "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns) if turns[1:] else turns[0]["content"]
        )
        cells = {"prompt_id": view["prompt_id"], "prompt": prompt, "answer_a": a, "answer_b": b}
        ballot[normalise(view["prompt_id"])] = {"cells": cells, "chosen": "b" if swapped else "a", "view": view}
    return ballot


def guard_text(text):
    """The cell for a text; an apostrophe leads it if a spreadsheet could run a formula or rewrite a number or date."""
    start = text.strip()
    number = re.fullmatch(r"[\d.,:/%eE+ -]*\d[\d.,:/%eE+ -]*", start) and not re.fullmatch(r"0|[1-9][0-9]{0,14}", start)
    return f"'{text}" if number else guard(text)


def normalise(cell):
    """A cell without what a spreadsheet may change: white space, Unicode's form, and leading apostrophes."""
    return normalise_id(" ".join(cell.split()).lstrip("' "))


def format_ballot(ballot):
    """A ballot as RFC 4180 text, led by a byte order mark, without which Excel takes UTF-8 for Latin-1."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, BALLOT, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: guard_text(cell) for name, cell in row["cells"].items()} for row in ballot.values())
    return "\ufeff" + text.getvalue()


def check_ballots(args, ballots):
    """Raises InputError before anything is written if a ballot would be overwritten, or is given as votes."""
    for language, ballot in ballots.items():
        path = args.ballots / f"{language}.csv"
        if path.exists() and path.read_bytes() != format_ballot(ballot).encode():
            raise InputError(
                "there is another ballot: filled in, or drawn from other pairs",
                "if filled in, move it to another folder and give it by --votes; otherwise delete it",
                path,
            )
    for path in args.votes:
        if path.resolve().parent == args.ballots.resolve():
            raise InputError("votes in the folder of blank ballots", "save filled ballots in another folder", path)


def read_votes(args, ballots):
    """All votes, [{language, prompt_id, preferred: chosen, rejected or tie}]; adds them to the prompts' views.

    Raises InputError for a cell that is not a vote, and for a ballot that is not one of these.
    """
    votes, seen = [], {}
    for path in args.votes:
        language = path.name.split(".")[0]
        if language not in ballots:
            raise InputError(
                f"{language!r} is not one of the languages {', '.join(ballots)}",
                "begin the file's name with the language's code, such as de.anna.csv",
                path,
            )
        if path.resolve() in seen:
            raise InputError("the same file twice", "give each voter's ballot once", path)
        lines = seen[path.resolve()] = {}
        for line, cells in read_ballot(path):
            row = find_row(path, line, cells, ballots[language])
            prompt_id = row["cells"]["prompt_id"]
            if prompt_id in lines:
                raise InputError(
                    f"duplicate {prompt_id!r}, first on line {lines[prompt_id]}",
                    "keep one of the rows; each voter has a file",
                    path,
                    line,
                    "prompt_id",
                )
            lines[prompt_id] = line
            vote = cells["vote"].strip().lower()
            if vote not in ("a", "b", "tie", ""):
                raise InputError(
                    f"{prompt_id!r}: {cells['vote']!r} is not a vote",
                    "write a, b or tie, or leave it empty",
                    path,
                    line,
                    "vote",
                )
            preferred = vote if vote in ("", "tie") else "chosen" if vote == row["chosen"] else "rejected"
            comment = cells.get("comment", "").strip()
            if preferred:
                votes.append({"language": language, "prompt_id": prompt_id, "preferred": preferred})
            if preferred or comment:
                row["view"]["votes"].append({"preferred": preferred, "comment": comment})
    return votes


def read_ballot(path):
    """Yields (line, {column: cell}) of a filled ballot; takes the semicolons and tabs of other locales too."""
    csv.field_size_limit(sys.maxsize)  # an answer may be long
    texts = (f"{text}\n" for _, text in read_lines(path))
    header = next(texts, "")
    reader = csv.DictReader(chain([header], texts), restval="", delimiter=max(",;\t", key=header.count), strict=True)
    try:
        missing = [name for name in BALLOT if name not in (reader.fieldnames or ()) and name != "comment"]
        if missing:
            raise InputError(f"no column {', '.join(missing)}", "keep the ballot's header line", path, 1)
        while True:
            line = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return
            if None in cells:
                raise InputError(
                    "more cells than columns", "quote cells that hold the separator, as spreadsheets do", path, line
                )
            if any(cell.strip() for cell in cells.values()):
                yield line, cells
    except csv.Error as error:
        raise InputError(
            f"broken CSV ({error})", "save the ballot as CSV from a spreadsheet", path, reader.line_num
        ) from error


def find_row(path, line, cells, ballot):
    """The ballot row that a filled one belongs to; raises InputError if the id or an answer differs."""
    row = ballot.get(normalise(cells["prompt_id"]))
    if row is None:
        raise InputError(
            f"{cells['prompt_id']!r} is not on the ballot",
            "give the pairs, --count and --seed that the ballot was drawn with",
            path,
            line,
            "prompt_id",
        )
    for name in ("answer_a", "answer_b"):
        if normalise(cells[name]) != normalise(row["cells"][name]):
            raise InputError(
                f"{row['cells']['prompt_id']!r}: the answer is not the ballot's",
                "copy it from the blank ballot; if that is another too, the vote was on other pairs or another --seed",
                path,
                line,
                name,
            )
    return row


def measure_agreement(votes, languages):
    """One row per language and one of all: AGREEMENT's columns, and how voters agree among themselves.

    ``agree`` counts votes for the chosen response, ``agreement`` is its share of the decided votes in [0, 1] with a
    95 % Wilson interval; ``same`` of ``compared`` pairs of votes on one prompt are equal. Null where nothing counts.
    """
    from statsmodels.stats.proportion import proportion_confint

    table = []
    for language in [*languages, "all"]:
        some = [vote for vote in votes if language in (vote["language"], "all")]
        counts = Counter(vote["preferred"] for vote in some)
        decided = counts["chosen"] + counts["rejected"]
        low, high = proportion_confint(counts["chosen"], decided, method="wilson") if decided else (None, None)
        by_prompt = defaultdict(list)
        for vote in some:
            by_prompt[vote["language"], vote["prompt_id"]].append(vote["preferred"])
        same = [one == other for group in by_prompt.values() for one, other in combinations(group, 2)]
        table.append(
            {
                "language": language,
                "votes": len(some),
                "ties": counts["tie"],
                "agree": counts["chosen"],
                "agreement": counts["chosen"] / decided if decided else None,
                "ci_low": None if low is None else float(low),
                "ci_high": None if high is None else float(high),
                "same": sum(same),
                "compared": len(same),
            }
        )
    return table


def write_agreement(path, table):
    with replacing(path) as file:
        writer = csv.DictWriter(file, AGREEMENT, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(guard_row, table))


if __name__ == "__main__":
    cli.run(main)
