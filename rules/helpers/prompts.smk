from croco.digests import file_digest, tokenizer_identity
from croco.pins import list_data_files

# The folders of the prompts of each use under the output root.
SECTIONS = {"train": "prompts", "evaluate": "prompts/evaluate"}


def options_prompt_source(use, language, start):
    """Options of scripts/prompts.py: where a block of prompts comes from, and which part it takes."""
    row, source = GRID.prompts[use], GRID.config["source_language"]
    path = GRID.prompt_file(use, language)
    subset = GRID.path(row.get("subset", ""), language=language)
    options = ["--input", path]
    if not path:
        options = options_of({**row, "subset": subset or None}, "dataset", "subset", "revision", "split")
        # Training prompts may take the first of several rows with the same id. Evaluation prompts must have unique ids,
        # because answers are paired by id.
        options += ["--unique"] if use == "evaluate" else []
    options += options_of(row, "columns", "id", "text", "reference")
    if language != source:
        return [*options, "--select", place(f"{SECTIONS[use]}/{source}/{start}.jsonl")]
    counting = ("limit", "max_tokens", "tokenizer", "tokenizer_revision")
    options += options_of({**row, "limit": GRID.block_limit(use, int(start))}, *counting)
    for column, values in row.get("where", {}).items():
        for value in values if isinstance(values, list) else [values]:
            options += ["--where", f"{column}={value if isinstance(value, str) else json.dumps(value)}"]
    if not row["language_check"]:
        options.append("--no-language-check")
    before = paths_block_before(use, start)
    return [*options, "--after", *before] if before else options


def paths_block_before(use, start):
    """The block of the source language that ends where this one starts; none before the first."""
    before = int(start) - GRID.config["block"]
    return [place(f"{SECTIONS[use]}/{GRID.config['source_language']}/{before}.jsonl")] if before >= 0 else []


def paths_block_inputs(use, wildcards):
    """The input files of a block of prompts: its source file, and the block before it or the source language's block."""
    path, source = GRID.prompt_file(use, wildcards.language), GRID.config["source_language"]
    files = [path] if path else []
    if wildcards.language != source:
        return [*files, place(f"{SECTIONS[use]}/{source}/{wildcards.start}.jsonl")]
    return [*files, *paths_block_before(use, wildcards.start)]


def hash_dataset(use):
    """Digests of further inputs of a block of prompts: a local dataset, and the tokenizer that counts tokens."""
    row = GRID.prompts[use]
    tokenizer = GRID.path(row.get("tokenizer", ""))
    made = tokenizer.startswith(place("miniature/"))
    return [hash_folder(row.get("dataset", "")), None if made or not tokenizer else tokenizer_identity(tokenizer)]


def hash_folder(path):
    """Content hash of a dataset in a local folder, which is not a declared input; None for one from the hub."""
    folder = Path(path)
    files = list_data_files(folder) if folder.name and folder.is_dir() else []
    return [[str(path), file_digest(path, f"{STATE}/digests")] for path in files] or None
