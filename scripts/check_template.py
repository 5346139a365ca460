"""Compare the token ids that a policy samples from with the token ids that TRL trains on, for its chat template.

Example:
  python scripts/check_template.py --model DIR --template-options '{"enable_thinking": false}' \\
      --output template.json

Loads only the tokenizer and the generation config; with --weights also the names and shapes of the weights, if they are on this
machine. Something that makes training on the policy's own answers wrong (a
second BOS, prompts in other tokens, no stop token) is an error, raised once the report is written. Something that
changes some answers is a warning. The report lists both under `findings`, with the remedy.

Models of other roles are not trained. Their template must take an ordinary chat, write one BOS and no date, and keep
the answers that a reward model scores. A translator's template must take a request in its --format, and write the text
and the target language.
"""

import importlib.util
import sys
from pathlib import Path

from croco import cli
from croco.digests import digest
from croco.errors import InputError
from croco.models.options import ENGINES, add_template_options
from croco.models.roles import ROLES, check_processors, examine_as, load_skeleton, load_with_stops
from croco.prompts.formats import FORMATS
from croco.records import write_json


def main():
    args = parse_arguments()
    check_engine(args)
    if args.engine == "vllm":
        check_processors(args.model, args.revision, args.trust_remote_code)
    tokenizer, stops = load_with_stops(args.model, args.revision, args.trust_remote_code)
    if args.weights:
        load_skeleton(args.role, args.model, args.revision, args.trust_remote_code)
    report = examine_as(args.role, tokenizer, stops, args.template_options, args.format, args.template)
    write_json(args.output, report)
    inputs = {"chat_template": report["template_digest"], "vocabulary": digest(tokenizer.get_vocab())}
    counts = {name: report[name] for name in ("errors", "warnings")}
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, inputs, counts=counts)
    report_findings(args, report["findings"])


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--model", required=True, help="local folder or hub id")
    parser.add_argument("--revision", help="commit or tag on the hub")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    add_template_options(parser)
    parser.add_argument("--role", choices=ROLES, default="policy", help="what the model does in the workflow")
    parser.add_argument("--format", choices=FORMATS, help="for a translator: how it is asked, as in translate.py")
    parser.add_argument("--template", help="for a translator: the user's turn for --format template")
    parser.add_argument(
        "--weights", action="store_true", help="also compare the weights in the files with what the role needs"
    )
    parser.add_argument("--engine", choices=ENGINES, help="also check that this engine is installed")
    parser.add_argument("--output", type=Path, required=True, help="report to write, JSON")
    args = parser.parse_args()
    if (args.role == "translator") != bool(args.format) or (args.format == "template") != bool(args.template):
        parser.error("--role translator needs a --format, and --format template a --template; nothing else does")
    return args


def check_engine(args):
    """Raises InputError if the model's engine is not installed here."""
    if args.engine and importlib.util.find_spec(args.engine) is None:
        raise InputError(
            f"the engine {args.engine} is not installed here",
            "make env EXTRA=vllm, or write engine: transformers in the model's row",
            args.model,
        )


def report_findings(args, findings):
    """Prints the warnings; raises InputError with the errors, if any."""
    for finding in findings:
        if finding["severity"] == "warning":
            print(f"warning: {finding['name']}: {finding['what']}\n  Remedy: {finding['remedy']}", file=sys.stderr)
    errors = [finding for finding in findings if finding["severity"] == "error"]
    if errors:
        raise InputError(
            "\n".join(f"{finding['name']}: {finding['what']}" for finding in errors),
            "; ".join(finding["remedy"] for finding in errors),
            args.model,
        )
    print(f"{args.model}: no errors, {len(findings)} warnings", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
