"""A rehearsal on vLLM's CPU build; `make test-vllm` runs it."""

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
    "policies": [{"name": "aya", "path": "CohereLabs/tiny-aya-global", "temperature": 1.0, "max_tokens": 4096, "engine": "vllm"}],
    "reward_models": [{"name": "skywork", "path": "Skywork/Skywork-Reward-V2-Qwen3-8B", "engine": "vllm"}],
    "prompts": [
        {"use": "train", "dataset": "allenai/Dolci-Instruct-SFT", "text": "messages.first_turn", "reference": "last_turn", "limit": 100},
        {"use": "evaluate", "dataset": "CohereLabs/m-ArenaHard-v2.1", "subset": "en", "split": "test", "id": "question_id", "text": "prompt"},
    ],
    "pools": [],
    "settings": [
        {"name": "base", "objective": "none"},
        {"name": "dpo", "objective": "dpo", "target": "pair", "rejected": "mean-2sd", "pools": ["monolingual"]},
    ],
    "recipes": [{"name": "dpo", "learning_rate": 5.0e-6, "batch": 64}],
    "evaluation": {"judge": "none", "tasks": [], "samples": 1, "temperature": 0, "max_tokens": 1024},
    "contrasts": [],
    "audit": {"in_findings": False},
}  # fmt: skip


def test_an_adapter_and_its_merged_release_give_the_same_answers(tmp_path):
    """Cohere2 as policy and Qwen3 as reward model: sampled, scored, tuned, merged and evaluated by vLLM."""
    write_hub(tmp_path / "served")
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(CONFIG))
    with serving(tmp_path / "served") as address:
        environment = {**ENVIRONMENT, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
        done = rehearse(environment, tmp_path, "--configfile", "one.yaml", "--engines", "vllm")
    assert done.returncode == 0, done.stdout + done.stderr
    (outcome,) = read_json(tmp_path / "rehearsal/rehearsal.json")["engines"]
    passed = {row["stage"] for row in outcome["stages"] if row["passed"]}
    assert outcome["engine"] == "vllm" and {"generate", "score", "train", "evaluate", "write_release"} <= passed
