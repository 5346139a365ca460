"""What an adapter reaches: real architectures, built small on the meta device, and real steps where PEFT has its own ideas."""

import json
import re
import shutil
from collections import Counter

import pytest
import torch
from conftest import rows, script, write_rows
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from croco.errors import InputError
from croco.models.lora import find_targets, projections

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
HEAD = {"head_dim": 16}
EXPERTS = {
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}  # fmt: skip
LINEAR = {
    "num_hidden_layers": 4, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}  # fmt: skip
QKV = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
ATTENTION = [*QKV, "self_attn.o_proj"]
LLAMA = dict.fromkeys([*ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"], 2)
DELTA = {f"linear_attn.{name}": 3 for name in ("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj")}
HYBRID = {**dict.fromkeys(ATTENTION, 1), **DELTA}
SHARED = {f"mlp.shared_expert.{name}_proj": 4 for name in ("gate", "up", "down")}


def build(kind, **sizes):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**{**SIZES, **HEAD, **sizes}))


@pytest.mark.parametrize(
    ("kind", "sizes", "adapted", "spared"),
    [
        *((kind, {}, LLAMA, {}) for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "cohere")),
        *((kind, {}, LLAMA, {}) for kind in ("cohere2", "olmo", "olmo2", "olmo3", "smollm3")),
        ("apertus", {}, dict.fromkeys([*ATTENTION, "mlp.up_proj", "mlp.down_proj"], 2), {}),
        ("phi", {}, dict.fromkeys([*QKV, "self_attn.dense", "mlp.fc1", "mlp.fc2"], 2), {}),
        (
            "phi3",
            {},
            dict.fromkeys(["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"], 2),
            {},
        ),
        ("glm4", {}, dict.fromkeys([*ATTENTION, "mlp.gate_up_proj", "mlp.down_proj"], 2), {}),
        ("starcoder2", {}, dict.fromkeys([*ATTENTION, "mlp.c_fc", "mlp.c_proj"], 2), {}),
        (
            "gpt_neox",
            {},
            dict.fromkeys(
                ["attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"], 2
            ),
            {},
        ),
        ("gpt2", {}, dict.fromkeys(["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"], 2), {}),
        (
            "qwen3_5_text",
            LINEAR,
            {**HYBRID, **dict.fromkeys(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"], 4)},
            {},
        ),
        ("qwen3_5_moe_text", {**LINEAR, **EXPERTS}, {**HYBRID, **SHARED}, {"experts": 8}),
        # PEFT takes shared experts of this class for the fused ones, by their names.
        (
            "qwen3_next",
            {**LINEAR, **EXPERTS},
            {
                **dict.fromkeys(ATTENTION, 1),
                **{f"linear_attn.{n}": 3 for n in ("in_proj_qkvz", "in_proj_ba", "out_proj")},
            },
            {"experts": 8, **SHARED},
        ),
        ("mixtral", EXPERTS, dict.fromkeys(ATTENTION, 2), {"experts": 4}),
        ("qwen3_moe", EXPERTS, dict.fromkeys(ATTENTION, 2), {"experts": 4}),
    ],
)
def test_every_projection_is_reached_and_nothing_else(kind, sizes, adapted, spared):
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    model = build(kind, **sizes)
    pattern, reached, left = find_targets(model)
    assert Counter(reached.values()) == adapted and left == spared
    assert {name for name, _ in model.named_modules() if re.fullmatch(pattern, name)} == set(reached)
    tuned = get_peft_model(model, LoraConfig(target_modules=pattern, lora_dropout=0.05, task_type="CAUSAL_LM"))
    layers = {name for name, module in tuned.get_base_model().named_modules() if isinstance(module, LoraLayer)}
    assert layers == set(reached), "PEFT's own ideas of a model change nothing"


def test_towers_are_spared():
    sizes = {**SIZES, "image_size": 28, "patch_size": 14}
    model = build("gemma3", text_config={**SIZES, **HEAD}, vision_config=sizes, mm_tokens_per_image=4)
    assert any("vision" in name and name.endswith("q_proj") for name, _ in model.named_modules())
    assert set(projections(model).kinds) == {
        f"model.language_model.layers.{i}.{kind}" for i in range(2) for kind in LLAMA
    }


LIKE_LLAMA = r".*\.(q|k|v|o|gate|up|down)_proj"


def test_pattern_that_misses_projections_is_an_error_unless_meant():
    model = build("phi3")
    with pytest.raises(InputError, match=r"misses .* mlp.gate_up_proj .2., self_attn.qkv_proj .2.") as error:
        find_targets(model, LIKE_LLAMA)
    fitting = re.search(r"write (\S+);", str(error.value))[1]
    assert find_targets(model, fitting) == find_targets(model)
    _, reached, left = find_targets(model, LIKE_LLAMA, "partial")
    assert set(reached.values()) == {"self_attn.o_proj", "mlp.down_proj"}
    assert left == {"mlp.gate_up_proj": 2, "self_attn.qkv_proj": 2}


@pytest.mark.parametrize(
    ("kind", "pattern", "said"),
    [
        ("qwen3_moe", LIKE_LLAMA, "reaches experts, which are not adapted"),
        ("llama", r".*\.mlp", "reaches model.layers.0.mlp, a LlamaMLP, which cannot be adapted"),
        ("llama", "(", "is not a pattern"),
        ("llama", ".*query", "no module of the model has a name like"),
    ],
)
def test_pattern_that_cannot_be_adapted_is_an_error(kind, pattern, said):
    with pytest.raises(InputError, match=said):
        find_targets(build(kind, **(EXPERTS if "moe" in kind else {})), pattern, "partial")


@pytest.mark.parametrize("part", ["lm_head", "embed_tokens"])
def test_embeddings_are_adapted_only_where_no_other_module_has_their_weights(part):
    """Merged into tied ones, an adapter of one side would change the other, and the model is not the one that was tuned."""
    pattern = rf"{LIKE_LLAMA}|(model\.)?{part}"
    with pytest.raises(InputError, match=rf"reaches \S*{part}, whose weights are those of another module too"):
        find_targets(build("llama", tie_word_embeddings=True), pattern)
    _, reached, _ = find_targets(build("llama", tie_word_embeddings=False), pattern)
    assert any(name.endswith(part) for name in reached)


@pytest.mark.parametrize(("kind", "adapted"), [("phi3", 4), ("qwen3_moe", 4), ("mixtral", 4), ("qwen3_5_moe_text", 12)])
def test_training_reaches_what_the_manifest_lists(miniature, tmp_path, kind, adapted):
    from safetensors import safe_open

    policy = tmp_path / "policy"
    shutil.copytree(miniature / "policy", policy, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    vocabulary = json.loads((miniature / "policy" / "config.json").read_text())["vocab_size"]
    sizes = {**SIZES, **HEAD, **EXPERTS, **(LINEAR if "qwen3_5" in kind else {}), "vocab_size": vocabulary}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**sizes)).save_pretrained(policy)
    turns = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    pairs = [{"prompt_id": str(i), "prompt": [{"role": "user", "content": f"What is {i}?"}], **turns} for i in range(8)]
    data, checkpoint = write_rows(tmp_path / "pairs.jsonl", pairs), tmp_path / "checkpoint"
    script(
        "train", "--objective", "dpo", "--data", data, "--model", policy, "--batch", 4, "--micro-batch", 4,
        "--state", tmp_path / "state", "--output", checkpoint,
    )  # fmt: skip
    facts = json.loads((checkpoint / "manifest.json").read_text())
    with safe_open(checkpoint / "adapter_model.safetensors", "pt") as file:
        names = [name.removeprefix("base_model.model.") for name in file.keys()]  # noqa: SIM118 (no dict)
        assert facts["trainable_parameters"] == sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    stored = Counter(re.sub(r"^model\.layers\.\d+\.(.*)\.lora_A\.weight$", r"\1", n) for n in names if ".lora_A." in n)
    assert facts["adapted"] == stored and len(stored) == adapted
    assert set(facts["not_adapted"]) == (set() if kind == "phi3" else {"experts"})
    assert facts["options"]["lora_targets"].startswith("^(model") and len(rows(checkpoint / "metrics.jsonl")) == 2
