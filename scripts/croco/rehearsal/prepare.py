"""What a rehearsal needs before it starts: replicas of the config's models, first rows of its data, and its config."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from croco import cli
from croco.config.read import DEFAULT, build_grid
from croco.config.schema import Locator
from croco.config.shipped import path_shipped
from croco.digests import derive_seed
from croco.errors import InputError
from croco.evaluation.judge_prompt import Comparison, read_template, write_request
from croco.examination.findings import list_models
from croco.grid import Grid
from croco.models.chats import UNUSABLE, encode_prompt
from croco.models.roles import load_config, load_with_stops
from croco.prompts.formats import request
from croco.prompts.sources import Source, read_source
from croco.rehearsal.cut import TASK_ROWS, choose_releases, cut
from croco.rehearsal.data import cut_prompts, cut_task
from croco.rehearsal.replicas import fetch_small_files, make_replica, teach_answers

VERDICTS = ("[[A]]", "[[B]]", "[[C]]")
WORD = re.compile(r"[^\W\d_]{3,12}")
CHATS, WORDS = 12, 12  # that a replica learns to answer, and to answer with
KIND = {"policy": "policies", "reward": "reward_models", "judge": "judges", "translator": "translators"}


@dataclass
class Prepared:
    """A rehearsal's config, what was made for it, and what of it could not be made: {where: what is wrong}.

    ``runs``: whether the workflow takes the config.
    """

    config: dict[str, Any]
    made: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    runs: bool = True


def prepare(
    checkout: Path, grid: Grid, asked: dict[str, Any], folder: Path, languages: Sequence[str], engine: str, models: Path
) -> Prepared:
    """Makes what a rehearsal with one engine needs; what another engine's made under ``models`` is used again."""
    folder.mkdir(parents=True, exist_ok=True)
    prepared = Prepared(cut(grid, asked, str(folder / "results"), languages, engine))
    texts = prepare_data(grid, prepared, list(languages), folder / "data")
    for used in cli.progress(list_models(grid), desc="replicas", unit="model"):
        where, replica = str(used), models / used.role / used.row["name"]
        try:
            if not replica.exists():
                prepared.made[where] = f"{used.path}: {replicate(grid, used, replica, texts)}"
        except Exception as error:  # any library's, of an architecture that nobody tried: the other models go on
            shutil.rmtree(replica, ignore_errors=True)
            prepared.broken[where] = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            continue
        for row in prepared.config[KIND[used.role]]:
            if row["name"] == used.row["name"]:
                row["path"] = str(replica)
                if engine == "vllm":
                    fit_cpu_build(row)
    replace_tokenizers(grid, prepared, models)
    complete_config(checkout, prepared)
    return prepared


def fit_cpu_build(row: dict[str, Any]) -> None:
    """What vLLM's CPU build needs for linear attention: its kernel is for bfloat16, its cache for chunked prefill."""
    text = load_config(row["path"], None, row.get("trust_remote_code", False)).get_text_config()
    if "linear_attention" in (getattr(text, "layer_types", None) or []):
        row["dtype"] = "bfloat16"
        row["engine_options"]["enable_prefix_caching"] = False


def complete_config(checkout: Path, prepared: Prepared) -> None:
    """Adds the releases that the cut config can make, and notes where the workflow does not take it."""
    locator = Locator([], default=path_shipped(DEFAULT, checkout))
    try:
        grid, _ = build_grid(prepared.config, checkout, locator)
    except InputError as error:
        prepared.runs, prepared.broken["the cut config"] = False, str(error)
    else:
        prepared.config["release"] = choose_releases(grid)


def prepare_data(grid: Grid, prepared: Prepared, languages: list[str], folder: Path) -> list[str]:
    """Puts first rows in the place of datasets; returns some prompts' texts."""
    config, texts = prepared.config, []
    for position, row in enumerate(config["prompts"]):
        where = f"prompts {row['use']}"
        try:
            config["prompts"][position], prepared.made[where] = cut_prompts(grid, row, languages, folder)
            texts += read_texts(grid, config["prompts"][position])
        except InputError as error:
            prepared.broken[where] = str(error)
    for position, task in enumerate(config["evaluation"]["tasks"]):
        try:
            config["evaluation"]["tasks"][position] = cut_task(grid, task, languages, TASK_ROWS, folder)
        except InputError as error:
            prepared.broken[f"task {task['name']}"] = str(error)
    return texts or ["Name three rivers.", "Why is the sky blue?", "Write a poem about winter mornings."]


def read_texts(grid: Grid, row: dict) -> list[str]:
    """Texts of the first prompts of a local source; none where the workflow makes the file."""
    path = grid.path(row["path"], language=grid.config["source_language"])
    if row["path"].startswith("{results}"):
        return []
    entries, _ = read_source(path, Source.of_row(row))
    return [entry.messages[-1]["content"] for entry in entries[:CHATS] if entry.messages]


def replicate(grid: Grid, used: Any, folder: Path, texts: list[str]) -> str:
    """Makes a replica and teaches it to answer; says how large it is, and whether it has learned to stop."""
    row, seed = used.row, derive_seed(grid.config["seed"], "rehearsal", used.row["name"], bits=31)
    trusted = row.get("trust_remote_code", False)
    model = make_replica(used.path, row.get("revision"), folder, used.role, seed, trusted)
    size = f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} million parameters"
    if used.role == "reward":
        return size
    tokenizer, stops = load_with_stops(folder, None, trusted)
    words = list(dict.fromkeys(WORD.findall(" ".join(texts))))[:WORDS]
    requests = {
        "policy": lambda text: [{"role": "user", "content": text}],
        "translator": lambda text: request(text, row["format"], row.get("template"), name_two(grid)),
        "judge": lambda text: ask_judge(row, text, words),
    }
    try:
        chats = [
            encode_prompt(tokenizer, requests[used.role](text[:400]), row.get("template_options"))
            for text in texts[:CHATS]
        ]
    except UNUSABLE:  # the check of templates says so in the run
        return f"{size}, without answers: its template refuses requests"
    answers = VERDICTS if used.role == "judge" else words
    learned = teach_answers(model, tokenizer, list(stops), chats, answers, seed)
    model.save_pretrained(folder)
    return size if learned else f"{size}, and has not learned to stop: its answers may be cut off and left out"


def ask_judge(row: dict, text: str, words: list[str]) -> list[dict]:
    """The chat that asks a judge for a verdict on two words."""
    template = read_template(row["prompt"])
    return [{"role": "user", "content": write_request(template, Comparison("English", text, words[0], words[-1]))}]


def name_two(grid: Grid) -> dict[str, str]:
    """Names and codes of the source language and another, for a request to a translator."""
    source = grid.config["source_language"]
    target = next((code for code in grid.languages if code != source), source)
    return {
        f"{end}_{what}": grid.known_languages[code][column]
        for end, code in (("source", source), ("target", target))
        for what, column in (("name", "name"), ("code", "translation"))
    }


def replace_tokenizers(grid: Grid, prepared: Prepared, models: Path) -> None:
    """Tokenizers that count prompts' tokens: a replica has the same one, others are fetched."""
    replicas = {used.path: models / used.role / used.row["name"] for used in list_models(grid)}
    for row in prepared.config["prompts"]:
        if "tokenizer" not in row or row["tokenizer"].startswith("{results}"):
            continue
        path = grid.path(row["tokenizer"])
        try:
            folder = replicas.get(path) or fetch_small_files(path, row.get("tokenizer_revision"))
        except InputError as error:
            prepared.broken[f"tokenizer {path}"] = str(error)
        else:
            row["tokenizer"] = str(folder)
            row.pop("tokenizer_revision", None)
