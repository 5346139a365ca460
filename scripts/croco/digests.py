"""Digests that decide whether finished work may be used again, and the seeds derived from names."""

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from croco.files import replacing

SCRIPTS = Path(__file__).resolve().parent.parent
WEIGHTS = "*.safetensors"
# Names that hold texts of errors; no cache key depends on them.
WORDING = ("DATED", "MISFIT", "REMEDY", "remedy")
# The files of a local model besides its weights; other files in its folder (cards, logs) do not count.
MODEL_FILES = (
    WEIGHTS,
    "config.json",
    "hf_quant_config.json",
    "preprocessor_config.json",
    "processor_config.json",
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


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, 32 hex digits; the order of keys does not matter."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: str | Path, cache: str | Path | None = None) -> str:
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
        with suppress(OSError), replacing(known) as file:  # a folder that cannot be written only costs time
            file.write(found)
    return found


def prompt_digest(row: dict) -> str:
    """Digest of the parts of a prompt line that its responses depend on."""
    return digest([row["prompt_id"], row["language"], row["messages"]])


def derive_seed(*names: object, bits: int = 63) -> int:
    """A seed that depends on the names alone, in [0, 2**bits)."""
    raw = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(raw[:8]) >> (64 - bits)


def prompt_seed(seed: int, language: str, prompt_id: str) -> int:
    """Seed of a prompt's sample 0; sample j adds j. The low 12 bits are zero: room for 4096 samples."""
    return derive_seed(seed, language, prompt_id) & ~0xFFF


def model_identity(path: str | Path, revision: str | None = None, cache: str | Path | None = None) -> str:
    """Content hash of a local model, or the commit of one from the hub; raises FileNotFoundError without weights.

    Two models with the same identity give the same outputs, wherever they are. ``cache`` as in file_digest, for
    weights.
    """
    folder = Path(path)
    if folder.is_dir():
        if not any(folder.glob(WEIGHTS)):
            raise FileNotFoundError(f"{path}: no {WEIGHTS} in the folder")
        return digest(_digest_files(folder, MODEL_FILES, cache))
    from transformers.utils.hub import cached_file, extract_commit_hash

    return f"{path}@{extract_commit_hash(cached_file(path, 'config.json', revision=revision), None)}"


def tokenizer_identity(path: str | Path) -> str | None:
    """Content hash of a model folder without its weights, or None where there is no such folder."""
    return digest(_digest_files(Path(path), set(MODEL_FILES) - {WEIGHTS})) if Path(path).is_dir() else None


def _digest_files(folder: Path, patterns: Iterable[str], cache: str | Path | None = None) -> list[list[str]]:
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    return [[file.name, file_digest(file, cache if file.match(WEIGHTS) else None)] for file in files]


def versions(*packages: str) -> dict[str, str | None]:
    """Installed versions by distribution name, null where one is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


@functools.cache
def code_digest(script: str | Path) -> str:
    """Digest of what a script does, for re-runs: it and everything that it imports from this project.

    Comments, docstrings and layout do not change it; behaviour, messages included, does.
    """
    found, waiting = {}, [Path(script).resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path], imported = read_behaviour(path)
            waiting += imported
    return digest([[path.name, found[path]] for path in sorted(found)])


@functools.cache  # most files are imported by most scripts
def read_behaviour(path: Path) -> tuple[str, list[Path]]:
    """Digest of what a file does, and the project's files that it imports.

    Parsing the whole project takes longer than the rest of a dry-run, so what was found is kept beside the compiled
    module, under the content that it was found in; also where Python is told to write no bytecode, as in the container.
    """
    content = path.read_bytes()
    of = hashlib.sha256(_own_content() + content).hexdigest()
    known = Path(importlib.util.cache_from_source(path)).with_suffix(".behaviour.json")
    kept: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        kept = json.loads(known.read_text(encoding="utf-8"))
    if kept.get("of") != of:
        tree = ast.parse(content)
        imported = _imported_files(tree, path)
        kept = {"of": of, "digest": digest(ast.dump(_without_docstrings(tree))), "imported": imported}
        with suppress(OSError), replacing(known) as file:  # a folder that cannot be written only costs time
            json.dump(kept, file)
    return kept["digest"], [file for file in map(SCRIPTS.joinpath, kept["imported"]) if file.is_file()]


@functools.cache
def _own_content() -> bytes:
    return Path(__file__).read_bytes()


@functools.cache
def behaviour_digest(*files: str) -> str:
    """Digest of what the named files under scripts/ do by themselves, for cache keys.

    Imports are not followed. Texts of errors, prints and options' help are ignored, because they do not decide a result.
    So a key lists the files that decide its results, and a reworded message invalidates no finished work.
    """
    parsed = (ast.parse((SCRIPTS / file).read_text(encoding="utf-8")) for file in files)
    trees = [_Decisions().visit(_without_docstrings(tree)) for tree in parsed]
    return digest([[file, ast.dump(tree)] for file, tree in zip(files, trees, strict=True)])


def _imported_files(tree: ast.Module, path: Path) -> list[str]:
    """What an import statement anywhere in the file may run under scripts/, packages' __init__ among it; not all exist."""
    files: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(SCRIPTS).parts[: -node.level] if node.level else ()
            base = ".".join([*package, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            modules = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
            files |= {f"{module}.py" for module in modules} | {f"{module}/__init__.py" for module in modules}
    return sorted(files)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """The tree and each statement in it, at any depth; most of a tree are expressions, and walking them takes long."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, block, ())


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in _statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(ast.Constant(str())), *rest]:
                    node.body = rest
    return tree


class _Decisions(ast.NodeTransformer):
    """A syntax tree without texts for the user."""

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise()

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        said = all(isinstance(target, ast.Name) and target.id in WORDING for target in node.targets)
        return ast.Pass() if said else self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        return None if node.arg in ("help", "metavar", "desc") else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        match node.value:
            case ast.Call(ast.Name("print")):
                return ast.Pass()
        return self.generic_visit(node)


def lock_digest(path: str | Path) -> str:
    """Digest of the pinned versions in a requirements file, whatever its comments and order."""
    lines = (line.split("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return digest(sorted(line for line in lines if line))
