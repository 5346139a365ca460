"""Rehearsals on vLLM's CPU build; `make test-vllm` runs them."""

import pytest
import yaml
from conftest import ENVIRONMENT
from hub import serving
from rehearsal.stand_ins import read_json, write_hub
from rehearsal.test_rehearse import rehearse

pytest.importorskip("vllm")

CONFIG = {
    "results": "results/one",
    "languages": [{"code": "en"}],
    "samples": 64,
    "policies": [{"name": "aya", "path": "CohereLabs/tiny-aya-global", "temperature": 1.0, "max_tokens": 4096, "engine": "vllm", "size": 3.35}],
    "reward_models": [{"name": "skywork", "path": "Skywork/Skywork-Reward-V2-Qwen3-8B", "engine": "vllm", "size": 8}],
    "prompts": [
        {"use": "train", "dataset": "allenai/Dolci-Instruct-SFT", "text": "messages.first_turn", "reference": "last_turn", "limit": 100},
        {"use": "evaluate", "dataset": "CohereLabs/m-ArenaHard-v2.1", "subset": "en", "split": "test", "id": "question_id", "text": "prompt"},
    ],
    "pools": [],
    "settings": [
        {"name": "base", "objective": "none"},
        {"name": "dpo", "objective": "dpo", "target": "pair", "rejected": "mean-2sd", "pools": ["monolingual"], "evaluate": "all"},
    ],
    "recipes": [{"name": "dpo", "learning_rate": 5.0e-6, "batch": 64}],
    "evaluation": {"judge": "none", "tasks": [], "samples": 1, "temperature": 0, "max_tokens": 1024},
    "contrasts": [],
    "audit": {"in_findings": False},
}  # fmt: skip
TRANSLATOR = {"name": "translategemma", "path": "Infomaniak-AI/vllm-translategemma-27b-it", "format": "translategemma_tags", "engine": "vllm", "size": 27}  # fmt: skip
JUDGE = {"name": "qwen", "path": "Qwen/Qwen3.6-35B-A3B", "engine": "vllm", "size": 35, "template_options": {"enable_thinking": False}, "max_length": 20480}  # fmt: skip
EVERY_ROLE = CONFIG | {
    "languages": [{"code": "en"}, {"code": "mt", "train": False}],
    "translators": [TRANSLATOR],
    "judges": [JUDGE],
    "prompts": [CONFIG["prompts"][0], CONFIG["prompts"][1] | {"translator": "translategemma"}],
    "evaluation": CONFIG["evaluation"] | {"judge": "qwen"},
}
STAGES = {"generate", "score", "train", "evaluate", "write_release"}


@pytest.mark.parametrize(
    ("config", "stages"),
    [
        # Cohere2 is sampled from, tuned, merged and evaluated, Qwen3 scores.
        pytest.param(CONFIG, STAGES, id="adapter"),
        # Gemma 3 translates, and Qwen3.5-MoE, whose layers have linear attention, judges.
        pytest.param(EVERY_ROLE, STAGES | {"translate", "judge"}, id="every-role"),
    ],
)
def test_every_stage_passes_and_an_adapter_answers_as_its_release(config, stages, tmp_path):
    write_hub(tmp_path / "served")
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(config))
    with serving(tmp_path / "served") as address:
        environment = {**ENVIRONMENT, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
        done = rehearse(environment, tmp_path, "--configfile", "one.yaml", "--engines", "vllm")
    assert done.returncode == 0, done.stdout + done.stderr
    (outcome,) = read_json(tmp_path / "rehearsal/rehearsal.json")["engines"]
    passed = {row["stage"] for row in outcome["stages"] if row["passed"]}
    assert outcome["engine"] == "vllm" and stages <= passed
    assert not any(row["broken"] or row["not_reached"] for row in outcome["stages"])
