"""Digests that decide whether finished work may be used again, and the seeds derived from names."""

import ast
import functools
import hashlib
import json
import os
from importlib import metadata
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
WEIGHTS = "*.safetensors"
# What makes a local model besides its weights; other files in its folder (cards, logs) do not count.
MODEL_FILES = (
    WEIGHTS,
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer*",
    "added_tokens.json",
    "vocab.txt",
    "tekken.json",
    "*.tiktoken",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "*.model",
    "*.py",
    "chat_template.*",
    "additional_chat_templates/*",
)


def digest(value):
    """SHA-256 of a JSON value, 32 hex digits; the order of keys does not matter."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path, cache=None):
    """SHA-256 of a file, 32 hex digits; under ``cache``, a folder, it is remembered while size and time stay."""
    if cache is None:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    stat = Path(path).stat()
    known = Path(cache) / digest([str(Path(path).resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino])
    found = known.read_text(encoding="utf-8") if known.exists() else ""
    if len(found) != 32:  # not there, or cut by a crash
        found = file_digest(path)
        known.parent.mkdir(parents=True, exist_ok=True)
        partial = known.with_suffix(f".{os.getpid()}")
        partial.write_text(found, encoding="utf-8")
        partial.replace(known)
    return found


def prompt_digest(row):
    """What a response depends on, of a line of the prompt file."""
    return digest([row["prompt_id"], row["language"], row["messages"]])


def derive_seed(*names, bits=63):
    """A seed that depends on the names alone, in [0, 2**bits)."""
    raw = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(raw[:8]) >> (64 - bits)


def prompt_seed(seed, language, prompt_id):
    """Seed of a prompt's sample 0; sample j adds j. The low 12 bits are zero: room for 4096 samples."""
    return derive_seed(seed, language, prompt_id) & ~0xFFF


def model_identity(path, revision=None, cache=None):
    """Content hash of a local model, or the commit of one from the hub; raises FileNotFoundError without weights.

    Two models with the same identity give the same outputs, wherever they lie. ``cache`` as in file_digest, for
    weights.
    """
    folder = Path(path)
    if folder.is_dir():
        files = sorted({file for pattern in MODEL_FILES for file in folder.glob(pattern)})
        if not any(file.match(WEIGHTS) for file in files):
            raise FileNotFoundError(f"{path}: no {WEIGHTS} in the folder")
        return digest([[f.name, file_digest(f, cache if f.match(WEIGHTS) else None)] for f in files])
    from transformers.utils.hub import cached_file, extract_commit_hash

    return f"{path}@{extract_commit_hash(cached_file(path, 'config.json', revision=revision), None)}"


def versions(*packages):
    """Installed versions by distribution name, null where one is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


@functools.cache
def code_digest(script, follow=True):
    """Digest of what a script does: the syntax trees, docstrings removed, of it and all it imports from croco.

    Comments, docstrings and layout do not change it; behaviour, messages included, does. Without ``follow`` the script
    counts alone.
    """
    trees, waiting = {}, [Path(script).resolve()]
    while waiting:
        path = waiting.pop()
        if path in trees:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "croco":
                names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.split(".")[0] == "croco"]
            else:
                continue
            files = (SCRIPTS / (name.replace(".", "/") + ".py") for name in names)
            waiting += [file for file in files if follow and file.is_file()]
        trees[path] = ast.dump(_without_docstrings(tree))
    return digest([[path.name, trees[path]] for path in sorted(trees)])


def _without_docstrings(tree):
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            node.body = body[1:]
    return tree


def lock_digest(path):
    """Digest of the pinned versions in a requirements file, whatever its comments and order."""
    lines = (line.split("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return digest(sorted(line for line in lines if line))
