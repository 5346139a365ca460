"""What a run still has to fetch, by what is in the hub's cache."""

import json

import pytest
from conftest import ROOT
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from croco.config.read import build_grid, read_files
from croco.planning.downloads import list_downloads

MODEL, DATASET = ("model", "utter-project/EuroLLM-9B-Instruct-2512"), ("dataset", "allenai/Dolci-Instruct-SFT")
INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
EXAMINED = {"config.json": "{}", "tokenizer.json": "{}"}
CARD = {"README.md": "", ".gitattributes": ""}


@pytest.mark.parametrize(
    ("item", "files", "fetched"),
    [
        (MODEL, EXAMINED, False),
        (MODEL, {**EXAMINED, "model.safetensors.index.json": INDEX}, False),
        (MODEL, {"model.safetensors.index.json": INDEX, "model-1.safetensors": ""}, False),
        (MODEL, {"model.safetensors.index.json": INDEX, "model-1.safetensors": "", "model-2.safetensors": ""}, True),
        (MODEL, {**EXAMINED, "model.safetensors": ""}, True),
        (DATASET, CARD, False),
        (DATASET, {**CARD, "data/train.parquet": ""}, True),
    ],
)
def test_what_the_doctor_reads_is_no_download(item, files, fetched, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    kind, path = item
    snapshot = tmp_path / repo_folder_name(repo_id=path, repo_type=kind) / "snapshots" / ("0" * 40)
    config, locator = read_files([ROOT / "config/paper.yaml"], ROOT)
    grid, _ = build_grid(config, ROOT, locator)
    before = [download.name for download in list_downloads(grid)]
    for name, text in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_text(text, encoding="utf-8")
    after = [download.name for download in list_downloads(grid)]
    assert path in before and after == [name for name in before if name != path or not fetched]
