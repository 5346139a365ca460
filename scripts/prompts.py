"""Select the prompts of one language from a parallel source.

Example:
  python scripts/prompts.py --input data/de.tsv --parallel-to data/en.tsv --language de \\
      --columns question answer --id row_number --text question --reference answer --output prompts/de.jsonl

With --limit K, the K prompts whose seeded hash of the id ranks first are taken, in that order: the same ones in
every language, and a larger K later only adds to the end.
"""

from pathlib import Path

from croco import cli
from croco.digests import derive_seed
from croco.records import write_jsonl
from croco.sources import ROW_NUMBER, Source, check_parallel, read_source


def main():
    args = parse_arguments()
    source = Source(args.id, args.text, args.reference, args.columns)
    entries = read_source(args.input, source)
    leading = read_source(args.parallel_to, source)
    check_parallel(args.input, entries, args.parallel_to, leading)
    by_id = {entry.prompt_id: entry for entry in entries}
    # The source language's file gives the order, so that all languages' rows stay in step.
    ids = [entry.prompt_id for entry in leading]
    if args.limit:
        ids = sorted(ids, key=lambda prompt_id: derive_seed(args.seed, "select", prompt_id))[: args.limit]
    count = write_jsonl(
        args.output,
        (
            {
                "prompt_id": prompt_id,
                "language": args.language,
                "messages": by_id[prompt_id].messages,
                "reference": by_id[prompt_id].reference,
                "source": f"{args.input.name}:{by_id[prompt_id].line}",
                "skip": None,
            }
            for prompt_id in ids
        ),
    )
    counts = {
        "in source": len(entries),
        "selected": count,
        "without reference": sum(not by_id[i].reference for i in ids),
    }
    manifest = args.output.with_suffix(".manifest.json")
    cli.write_manifest(manifest, __file__, args, {"source": args.input}, counts=counts)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--input", type=Path, required=True, help="source file of the language: .jsonl, .tsv or .csv")
    parser.add_argument("--parallel-to", type=Path, required=True, help="source file of the source language")
    parser.add_argument("--language", required=True, help="code of the language")
    parser.add_argument("--columns", nargs="+", help="names of the columns, for a TSV or CSV without a header")
    parser.add_argument("--id", default="id", help=f"column with the id, or {ROW_NUMBER}")
    parser.add_argument("--text", default="text", help="column with the prompt: text, or in JSONL a list of messages")
    parser.add_argument("--reference", help="column with a reference answer")
    parser.add_argument("--limit", type=cli.positive, help="how many prompts to take (default: all, in file order)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the selection")
    parser.add_argument("--output", type=Path, required=True, help="prompt file to write")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
