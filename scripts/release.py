"""Bundle a tuned model and its data for release: a model folder, a dataset folder, cards, manifest, checksums.

Example:
  python scripts/release.py --model DIR --checkpoint mini/multi/dpo/checkpoint --data mini/multi/dpo/pairs.jsonl \\
      --ledger mini/multi/dpo/ledger.json --summary summary.csv --run mini/multi/dpo --name org/name \\
      --licence apache-2.0 --output release/mini/multi/dpo

The output has
  model/         the adapter, or with --weights merged (the default) the policy with the adapter merged into it in
                 float32; tokenizer, chat template, generation config; full weights are copied as they are
  dataset/       data/train.parquet, which datasets.load_dataset reads
  manifest.json  what the bundle was made from
  checksums.txt  SHA-256 of all files, for sha256sum -c

Both folders have a card, README.md. It is made from manifests and result files alone and contains no text of the data.
The folder appears whole or not at all, and replaces an earlier bundle.
"""

import hashlib
import json
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import jinja2

from croco import cli
from croco.digests import MODEL_FILES, WEIGHTS, file_digest, model_identity
from croco.errors import InputError
from croco.files import replacing
from croco.models.loading import POLICY, check_files, copy_processors, load_adapter, load_weights, model_id
from croco.models.options import add_model_options
from croco.objectives import OBJECTIVES, SPECIAL_KEYS
from croco.records import read_jsonl, read_lines
from croco.results.table import ALL, read_summary
from croco.state import WEIGHT_FILES
from croco.training.encode import digest_rows

RUN = re.compile(r"([^/]+/[^/]+/[^/]+)(?:/round([0-9]+))?")
BUNDLE = {"model", "dataset", "manifest.json", "checksums.txt"}
# Columns that may hold only nulls or whole numbers, from which the type cannot be inferred.
TYPES = {
    **dict.fromkeys(("chosen_reward", "rejected_reward", "reward", "pool_mean", "pool_std", "target"), "float64"),
    **dict.fromkeys(("chosen_token_digest", "rejected_token_digest", "token_digest"), "string"),
}
# Training options that are not part of the recipe, and those that have an effect only on objectives that sample.
NO_RECIPE = ("data", "ledger", "model", "start", "state", "output")
OF_ONLINE = ("temperature", "top_p", "max_tokens")
SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))


def main():
    args = parse_arguments()
    check_names(args)
    check_place(args.output)
    trained = check_checkpoint(args)
    data = read_data(args)
    ledger = read_ledger(args, len(data))
    results = read_results(args)
    if not results:
        print(f"warning: {args.summary} has no results of {args.run}; the model card has none either", file=sys.stderr)
    with whole_folder(args.output) as folder:
        columns = write_dataset(data, folder / "dataset")
        weights = write_model(args, trained, folder / "model")
        facts = gather_facts(args, trained, ledger, results, columns, weights)
        write_card(folder / "dataset", "dataset_card.md.j2", describe_dataset(facts), facts)
        write_card(folder / "model", "model_card.md.j2", describe_model(args, facts), facts)
        inputs = {
            "policy": trained["inputs"]["policy"],
            "checkpoint": model_identity(args.checkpoint),
            "training": args.checkpoint / "manifest.json",
            "data": args.data,
            "data_manifest": args.data_manifest,
            "ledger": args.ledger,
            "summary": args.summary,
        }
        counts = {"rows": len(data), "results": len(results)}
        cli.write_manifest(folder / "manifest.json", __file__, args, inputs, weights=weights, counts=counts)
        write_checksums(folder)


def parse_arguments():
    parser = cli.parser(__doc__)
    add_model_options(parser)
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint folder of the run")
    parser.add_argument("--data", type=Path, required=True, help="what it was trained on: pairs, completions, prompts")
    parser.add_argument("--ledger", type=Path, required=True, help="ledger.json of the data")
    parser.add_argument("--data-manifest", type=Path, help="manifest of the data: its code and reward model")
    parser.add_argument("--summary", type=Path, required=True, help="summary.csv")
    parser.add_argument("--run", required=True, metavar="MODEL/POOL/SETTING", help="the run's name in the summary")
    parser.add_argument("--name", help="repository name on the hub, of model and dataset (default: from --run)")
    parser.add_argument("--licence", help="licence of the bundle, an SPDX identifier")
    parser.add_argument("--weights", choices=("merged", "adapter"), default="merged", help="what to release")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write or to replace")
    args = parser.parse_args()
    if not RUN.fullmatch(args.run):
        parser.error("--run is MODEL/POOL/SETTING, of a later round MODEL/POOL/SETTING/roundN")
    args.name = args.name or args.run.replace("/", "-")
    return args


def check_names(args):
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(args.name)
    except HFValidationError as error:
        raise InputError(str(error), "give a name that the hub accepts: NAME or OWNER/NAME", field="name") from error
    if args.licence and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", args.licence):
        raise InputError(
            f"{args.licence!r} is no licence identifier", "give one of https://spdx.org/licenses", field="licence"
        )


def check_place(output):
    """Raises InputError for a folder that holds anything but a bundle, because the release would delete it."""
    foreign = sorted(path.name for path in output.iterdir() if path.name not in BUNDLE) if output.is_dir() else []
    if foreign or (output.exists() and not output.is_dir()):
        raise InputError(
            f"not the folder of a bundle{f': it holds {foreign[0]}' if foreign else ''}",
            "give a new or empty folder, or one that this script wrote",
            output,
        )


def check_checkpoint(args):
    """The checkpoint's manifest; raises InputError unless the checkpoint is of this model and this data."""
    if not (list(args.checkpoint.glob(WEIGHTS)) and (args.checkpoint / "manifest.json").is_file()):
        raise InputError("no checkpoint: weights or manifest.json are missing", "check the path", args.checkpoint)
    trained = read_object(args.checkpoint / "manifest.json", ("options", "inputs", "versions", "counts"))
    # The part after the + is the adapter that a round began with; this checkpoint's adapter contains it.
    policy = str(trained["inputs"].get("policy")).split("+")[0]
    identity = model_id(args.model, args.revision)
    if policy != identity:
        raise InputError(
            f"the checkpoint was trained from another model: from {policy}, and {args.model} is {identity}",
            "give the model and revision that it was trained from",
            args.checkpoint / "manifest.json",
            field="inputs.policy",
        )
    if not args.data.is_file():
        raise InputError("no such file", "check the path", args.data)
    if trained["inputs"].get("rows") != digest_rows(args.data, trained["options"].get("objective", "dpo")):
        raise InputError(
            f"the checkpoint was trained on other data than {args.data}",
            "give the file that it was trained on, unchanged",
            args.checkpoint / "manifest.json",
            field="inputs.rows",
        )
    return trained


def read_object(path, fields):
    """A JSON file's object; raises InputError if it is not an object or lacks one of ``fields``."""
    try:
        value = json.loads("\n".join(text for _, text in read_lines(path)))
    except ValueError as error:
        raise InputError(f"broken JSON ({error})", "make it again", path) from error
    missing = next((name for name in fields if not isinstance(value, dict) or name not in value), None)
    if missing:
        raise InputError("missing", "give the file that the stage before wrote", path, field=missing)
    return value


def read_data(args):
    data = [row for _, row in read_jsonl(args.data)]
    if not data:
        raise InputError("no rows", "look at the ledger for why", args.data)
    return data


def read_ledger(args, count):
    ledger = read_object(args.ledger, ("target", "prompts", "formed", "no_pair", "languages", "formed_by_language"))
    if ledger["formed"] != count:
        raise InputError(
            f"the ledger is of {ledger['formed']} rows, {args.data} has {count}",
            "give the ledger that was written with the data",
            args.ledger,
            field="formed",
        )
    return ledger


def read_results(args):
    """The summary's rows of this run as dicts, None where a cell is empty; [] where it was not evaluated."""
    import pandas as pd

    summary = read_summary(args.summary)
    run, number = RUN.fullmatch(args.run).groups()
    own = (summary["model"] + "/" + summary["pool"] + "/" + summary["setting"] == run) & (summary["seed"] != ALL)
    own &= summary["round"] == int(number or 1)
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in summary[own].to_dict("records")
    ]


@contextmanager
def whole_folder(path):
    """A folder that appears under ``path`` only when the block has ended without an error, instead of an older one."""
    path = path.resolve()
    partial, old = (path.with_name(f".{path.name}.{name}") for name in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        partial.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_dataset(data, folder):
    """Writes the rows as Parquet, in order; returns {column: type}."""
    from datasets import Dataset, Value

    table = Dataset.from_list(data)
    known = {name: Value(kind) for name, kind in TYPES.items() if name in table.features}
    table = table.cast(type(table.features)({**table.features, **known}))
    (folder / "data").mkdir(parents=True)
    table.to_parquet(folder / "data" / "train.parquet")
    return {name: name_type(feature) for name, feature in table.features.items()}


def name_type(feature):
    """E.g. string, float64, or for a chat: list of {role, content}."""
    inner = getattr(feature, "feature", None)
    return feature.dtype if inner is None else f"list of {{{', '.join(inner)}}}" if isinstance(inner, dict) else "list"


def write_model(args, trained, folder):
    """Writes the model's files; returns what they hold: adapter, merged, or full where full weights were tuned."""
    folder.mkdir()
    weights = "full" if trained["options"].get("weights") == "full" else args.weights
    if weights == "merged":
        merge(args, folder)
    elif weights == "adapter":
        check_files(POLICY, args.model, args.revision, args.trust_remote_code, args.checkpoint)
    else:
        check_files(POLICY, args.checkpoint)
    patterns = [*MODEL_FILES, "model.safetensors.index.json"]
    # Merging wrote its own; and a training of the other kind may have left its files in the same folder.
    own = {"merged": (), "adapter": WEIGHT_FILES["lora"], "full": WEIGHT_FILES["full"]}[weights]
    left_out = {name for files in WEIGHT_FILES.values() for name in files} - {*own}
    for file in sorted({file for pattern in patterns for file in args.checkpoint.glob(pattern)}):
        target = folder / file.relative_to(args.checkpoint)
        if file.name not in left_out:
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
    if weights == "adapter":
        path = folder / "adapter_config.json"
        config = read_object(path, ()) | {"base_model_name_or_path": args.model, "revision": args.revision}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    else:
        copy_processors(args.model, folder, args.revision)
    return weights


def merge(args, folder):
    """Adds the adapter to the weights, in float32: 16 bits would round away most changes of a small learning rate."""
    from transformers import GenerationConfig

    model = load_weights(POLICY, args.model, args.revision, "float32", args.trust_remote_code)
    model = load_adapter(model, args.checkpoint).merge_and_unload(safe_merge=True)
    # The checkpoint's config replaces it, because saving refuses some models' own (a temperature without sampling).
    model.generation_config = GenerationConfig()
    model.save_pretrained(folder)


def gather_facts(args, trained, ledger, results, columns, weights):
    """All that the cards say, from files alone."""
    made = read_object(args.data_manifest, ("options",)) if args.data_manifest else None
    options = trained["options"]
    return {
        "name": args.name,
        # The names of the uploaded folders in the cards' code, or else the bundle's folders.
        "hub": args.name if "/" in args.name else None,
        "run": args.run,
        "weights": weights,
        "base": args.model,
        "base_is_local": Path(args.model).is_dir(),
        "revision": args.revision,
        "trust_remote_code": args.trust_remote_code,
        "dtype": "float32" if weights == "merged" else args.dtype,
        "template_options": options.get("template_options", {}),
        "licence": args.licence,
        "base_licence": read_licence(args),
        "languages": list(ledger["languages"]),
        "objective": options["objective"],
        "recipe": select_recipe(options),
        "trained": trained,
        "data_digest": file_digest(args.data),
        "made": made,
        "ledger": ledger,
        "reward_models": name_reward_models(made, results),
        "results": results,
        "columns": columns,
    }


def select_recipe(options):
    """The options that had an effect on the training."""
    objective = OBJECTIVES[options["objective"]]
    silent = {*NO_RECIPE, *(SPECIAL_KEYS - objective.recipe_keys), *(() if objective.samples else OF_ONLINE)}
    prefixes = () if objective.samples else ("reward_",)
    prefixes += ("lora_",) if options.get("weights") == "full" else ()
    return {
        name: value
        for name, value in options.items()
        if name not in silent and not name.startswith(prefixes) and value not in (None, {})
    }


def name_reward_models(made, results):
    """Names of the reward models from the data's manifest, else from the summary; [] if neither has them."""
    scores = made["options"].get("scores") if made else None
    found = {Path(path).stem for path in scores} if scores else {row.get("reward_model") for row in results}
    return sorted(found - {None, ""})


def read_licence(args):
    """The licence in the base model's own card if the card is on this machine, else None."""
    import yaml
    from huggingface_hub import ModelCard, try_to_load_from_cache

    local = Path(args.model).is_dir()
    card = (
        Path(args.model) / "README.md"
        if local
        else try_to_load_from_cache(args.model, "README.md", revision=args.revision)
    )
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return None
    try:
        licence = ModelCard.load(Path(card), ignore_metadata_errors=True).data.get("license")
    except (ValueError, TypeError, yaml.YAMLError):
        return None
    return licence if re.fullmatch(r"[\w.+-]+", str(licence)) else None


def describe_dataset(facts):
    from huggingface_hub import DatasetCardData

    count = facts["ledger"]["formed"]
    return DatasetCardData(
        pretty_name=facts["name"],
        language=facts["languages"],
        license=facts["licence"] and facts["licence"].lower(),
        task_categories=["text-generation"],
        size_categories=[next((name for limit, name in SIZES if count < limit), "10M<n<100M")],
        tags=["croco", "preference-tuning", "trl", facts["objective"]],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train.parquet"}]}],
    )


def describe_model(args, facts):
    from huggingface_hub import ModelCardData

    return ModelCardData(
        # The hub knows neither a local folder nor a dataset without an owner, and refuses a card that names one.
        base_model=None if facts["base_is_local"] else args.model,
        datasets=[args.name] if "/" in args.name else None,
        language=facts["languages"],
        library_name="peft" if facts["weights"] == "adapter" else "transformers",
        license=facts["licence"] and facts["licence"].lower(),
        pipeline_tag="text-generation",
        tags=["croco", "preference-tuning", "trl", facts["objective"]],
    )


def write_card(folder, template, metadata, facts):
    """Renders README.md; its metadata is read back by the hub's own library, as the hub would."""
    from huggingface_hub import DatasetCard, ModelCard

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = repr
    text = environment.get_template(template).render(metadata=metadata.to_yaml(), **facts)
    card = (ModelCard if template.startswith("model") else DatasetCard)(re.sub(r"\n{3,}", "\n\n", text))
    if card.data.to_dict() != metadata.to_dict():
        raise RuntimeError(f"the card's metadata is not what was written: {card.data}")
    card.save(folder / "README.md")


def write_checksums(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with replacing(folder / "checksums.txt") as output:
        for path in files:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            output.write(f"{digest}  {path.relative_to(folder).as_posix()}\n")


if __name__ == "__main__":
    cli.run(main)
