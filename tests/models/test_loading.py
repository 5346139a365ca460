"""The one loader: what is not wholly loaded is refused, under both engines, before anything is computed."""

import json
import shutil

import pytest
import torch
from conftest import rows, script, write_rows
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Qwen3_5ForCausalLM,
    Qwen3_5TextConfig,
)

from croco.cli import UNUSED_WEIGHTS
from croco.errors import InputError
from croco.models.loading import POLICY, REWARD_MODEL, check_files, load_adapter, load_weights

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
# By the weights themselves, as the transformers engine and training load them, and by the files' names, for vLLM.
LOADERS = pytest.mark.parametrize("load", [load_weights, check_files])


@pytest.fixture
def llama(tmp_path):
    """Saves a tiny Llama and returns its folder."""

    def save(kind=LlamaForCausalLM, **options):
        torch.manual_seed(0)
        kind(LlamaConfig(**SIZES, pad_token_id=0, **options)).save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return save


def edit(file, change):
    """Saves a safetensors file anew with what ``change`` makes of its tensors."""
    tensors = change(load_file(file))
    save_file({name: weight.contiguous() for name, weight in tensors.items()}, file, metadata={"format": "pt"})


def rename(file, old, new):
    edit(file, lambda tensors: {name.replace(old, new): weight for name, weight in tensors.items()})


def message(load, *arguments):
    with pytest.raises(InputError) as caught:
        load(*arguments)
    return str(caught.value)


@LOADERS
def test_whole_models_load(llama, load):
    load(POLICY, llama())
    assert UNUSED_WEIGHTS[str(llama())] == {}
    load(REWARD_MODEL, llama(LlamaForSequenceClassification, num_labels=1))


@LOADERS
def test_tied_embeddings_need_no_output_layer(llama, load):
    folder = llama(tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    load(POLICY, folder)
    rename(folder / "model.safetensors", "model.norm.", "model.other.")  # and what else is missing is still seen
    assert "model.norm.weight" in message(load, POLICY, folder)


@LOADERS
def test_sharded_files_load_and_a_shard_of_too_little_is_seen(llama, load):
    folder = llama()
    LlamaForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="8KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    load(POLICY, folder)
    name = next(iter(load_file(shards[-1])))
    rename(shards[-1], name, f"{name}.bak")
    assert name in message(load, POLICY, folder)


@LOADERS
def test_a_head_of_another_name_is_refused_each_time(llama, load):
    folder = llama(LlamaForSequenceClassification, num_labels=1)
    rename(folder / "model.safetensors", "score.weight", "v_head.weight")
    first, second = (message(load, REWARD_MODEL, folder) for _ in range(2))
    assert first == second
    assert "not in the file: score.weight; " in first
    assert "fit nothing in the model: v_head.weight" in first


@LOADERS
def test_a_language_model_is_no_reward_model_nor_the_other_way_round(llama, load):
    assert "score.weight" in message(load, REWARD_MODEL, llama(num_labels=1))
    folder = llama(LlamaForSequenceClassification, num_labels=1, tie_word_embeddings=True)
    assert "fit nothing in the model: score.weight" in message(load, POLICY, folder)


@LOADERS
def test_a_reward_model_may_keep_the_output_layer_it_was_made_from(llama, load):
    folder = llama(LlamaForSequenceClassification, num_labels=1)
    edit(folder / "model.safetensors", lambda tensors: {**tensors, "lm_head.weight": torch.zeros(64, 16)})
    load(REWARD_MODEL, folder)
    assert UNUSED_WEIGHTS[str(folder)] == {"lm_head.weight": 1}


@LOADERS
def test_a_layer_of_another_name_is_refused(llama, load):
    folder = llama()
    rename(folder / "model.safetensors", "layers.1.mlp", "old.layers.1.mlp")
    said = message(load, POLICY, folder)
    assert "not in the file: model.layers.1.mlp.down_proj.weight, model.layers.1.mlp.gate_proj.weight" in said
    assert "fit nothing in the model: model.old.layers.1.mlp.down_proj.weight" in said


@LOADERS
def test_more_layers_than_the_config_says_are_refused(llama, load):
    folder = llama()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    assert "model.layers.1.mlp.down_proj.weight" in message(load, POLICY, folder)
    assert "and 5 more (9)" in message(load, POLICY, folder)


@LOADERS
def test_a_weight_of_another_shape_is_refused(llama, load):
    folder = llama()
    edit(folder / "model.safetensors", lambda tensors: {**tensors, "model.norm.weight": torch.ones(8)})
    assert "model.norm.weight [8] instead of [16]" in message(load, POLICY, folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_weight_that_is_no_number_is_refused(llama, dtype, value):
    folder = llama()

    def spoil(tensors):
        tensors["model.norm.weight"][3] = float(value)
        return tensors

    edit(folder / "model.safetensors", spoil)
    assert "not finite numbers: model.norm.weight" in message(load_weights, POLICY, folder, None, dtype)


@LOADERS
def test_heads_of_several_tokens_are_listed_as_unused(tmp_path, llama, load):
    """By the class itself (Qwen3.5), by their name, and as layers that the config declares."""
    sizes = {**SIZES, "head_dim": 8, "linear_num_key_heads": 1, "linear_num_value_heads": 1}
    config = Qwen3_5TextConfig(**sizes, layer_types=["linear_attention", "full_attention"])
    Qwen3_5ForCausalLM(config).save_pretrained(tmp_path / "qwen")
    extra = {"mtp.layers.0.norm.weight": torch.ones(16), "mtp.layers.1.norm.weight": torch.ones(16)}
    for folder in (tmp_path / "qwen", llama()):
        edit(folder / "model.safetensors", lambda tensors: {**tensors, **extra})
        load(POLICY, folder)
        assert UNUSED_WEIGHTS[str(folder)] == {"mtp.layers.*.norm.weight": 2}

    folder = llama(num_nextn_predict_layers=1)
    edit(folder / "model.safetensors", lambda tensors: {**tensors, "model.layers.2.eh_proj.weight": torch.ones(16)})
    load(POLICY, folder)
    assert UNUSED_WEIGHTS[str(folder)] == {"model.layers.*.eh_proj.weight": 1}


@LOADERS
def test_towers_of_an_image_model_are_listed_where_its_text_alone_is_loaded(tmp_path, load):
    text = {**SIZES, "head_dim": 8, "layer_types": ["full_attention"] * 2}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1)
    model, folder = Gemma3ForConditionalGeneration(config), tmp_path / "gemma"
    model.save_pretrained(folder)
    load(POLICY, folder)
    assert UNUSED_WEIGHTS[str(folder)] == {}

    # As a text model with the towers still in its file.
    names = load_file(folder / "model.safetensors")
    prefix = "language_model." if "language_model.model.norm.weight" in names else "model.language_model."
    rename(folder / "model.safetensors", prefix, "" if prefix == "language_model." else "model.")
    model.config.get_text_config().save_pretrained(folder)
    load(POLICY, folder)
    assert any("vision_tower" in name for name in UNUSED_WEIGHTS[str(folder)])
    assert any("multi_modal_projector" in name for name in UNUSED_WEIGHTS[str(folder)])
    assert all("vision_tower" in name or "multi_modal_projector" in name for name in UNUSED_WEIGHTS[str(folder)])


@pytest.fixture
def adapted(llama, tmp_path):
    """(folder of a model, folder of an adapter that changes it)."""
    from peft import LoraConfig, get_peft_model

    folder = llama()
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(LlamaForCausalLM.from_pretrained(folder), lora).save_pretrained(tmp_path / "adapter")
    return folder, tmp_path / "adapter"


def load_both(model, adapter):
    return load_adapter(load_weights(POLICY, model), adapter)


def check_both(model, adapter):
    check_files(POLICY, model, adapter=adapter)


BOTH = pytest.mark.parametrize("load", [load_both, check_both])


@BOTH
def test_a_whole_adapter_loads(adapted, load):
    load(*adapted)


def test_an_adapter_to_go_on_from_is_trainable(adapted):
    model = load_adapter(load_weights(POLICY, adapted[0]), adapted[1], trainable=True)
    assert {"lora_" in name for name, weight in model.named_parameters() if weight.requires_grad} == {True}
    saved = load_file(adapted[1] / "adapter_model.safetensors")
    loaded = {name.replace(".default", ""): weight for name, weight in model.named_parameters() if "lora_" in name}
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)


@BOTH
def test_an_adapter_that_fits_in_part_or_not_at_all_is_refused(adapted, load):
    file = adapted[1] / "adapter_model.safetensors"
    rename(file, "layers.1.", "blocks.1.")
    said = message(load, *adapted)
    assert "the adapter needs are not in the file" in said and "layers.1.self_attn.q_proj.lora_A" in said
    assert "fit nothing in the adapter" in said and "blocks.1.self_attn" in said
    rename(file, "layers.0.", "blocks.0.")
    assert "and 4 more (8)" in message(load, *adapted)


@BOTH
def test_a_pickled_adapter_is_refused_before_anything_loads(adapted, load):
    file = adapted[1] / "adapter_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    (adapted[1] / "model.safetensors").touch()  # weights of another kind do not make up for it
    if load is check_both:
        (adapted[0] / "config.json").write_text("{}", encoding="utf-8")
    said = message(load, *adapted)
    assert "the weights are pickled (adapter_model.bin)" in said and "adapter_model.safetensors" in said


@BOTH
def test_an_adapter_of_another_rank_is_refused(adapted, load):
    path = adapted[1] / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "r": 4}))
    assert "size mismatch" in message(load, *adapted)


@BOTH
def test_an_adapter_that_changes_nothing_is_refused(adapted, load):
    def still(tensors):
        return {name: weight * ("lora_B" not in name) for name, weight in tensors.items()}

    edit(adapted[1] / "adapter_model.safetensors", still)
    assert "changes nothing: its 4 matrices" in message(load, *adapted)


@BOTH
def test_an_adapter_that_is_no_number_is_refused(adapted, load):
    edit(adapted[1] / "adapter_model.safetensors", lambda tensors: {name: w * torch.nan for name, w in tensors.items()})
    assert "not finite" in message(load, *adapted)


def test_stages_refuse_what_is_incomplete_and_list_what_is_unused(miniature, prompts, tmp_path):
    for role, old, new in (("policy", "layers.1.mlp", "old.layers.1.mlp"), ("reward", "score.weight", "v_head.weight")):
        shutil.copytree(miniature / role, tmp_path / role)
        rename(tmp_path / role / "model.safetensors", old, new)
    sample = ["generate", "--prompts", prompts["en"], "--samples", 1, "--max-tokens", 4, "--state", tmp_path / "state"]
    answers = tmp_path / "answers.jsonl"

    refused = script(*sample, "--model", tmp_path / "policy", "--output", answers, check=False)
    assert refused.returncode == 1 and "model.layers.1.mlp.down_proj.weight" in refused.stderr
    assert "Traceback" not in refused.stderr and "LOAD REPORT" not in refused.stderr
    assert not answers.exists()

    script(*sample, "--model", miniature / "policy", "--output", answers)
    score = ["score", "--prompts", prompts["en"], "--generations", answers, "--state", tmp_path / "state"]
    refused = script(*score, "--model", tmp_path / "reward", "--output", tmp_path / "scores.jsonl", check=False)
    assert refused.returncode == 1 and "score.weight" in refused.stderr
    assert not (tmp_path / "scores.jsonl").exists()

    shutil.copytree(miniature / "reward", tmp_path / "whole")
    edit(tmp_path / "whole" / "model.safetensors", lambda tensors: {**tensors, "lm_head.weight": torch.zeros(2, 2)})
    script(*score, "--model", tmp_path / "whole", "--output", tmp_path / "scores.jsonl")
    manifest = json.loads((tmp_path / "scores.manifest.json").read_text())
    assert manifest["unused_weights"] == {str(tmp_path / "whole"): {"lm_head.weight": 1}}
    pairs = write_rows(
        tmp_path / "rows.jsonl",
        [{"prompt_id": row["prompt_id"], "prompt": row["messages"], "completion": [{"role": "assistant", "content": "a"}]} for row in rows(prompts["en"])],
    )  # fmt: skip
    refused = script(
        "train", "--data", pairs, "--objective", "sft", "--model", tmp_path / "policy", "--batch", 4,
        "--micro-batch", 4, "--max-length", 256, "--state", tmp_path / "t", "--output", tmp_path / "c", check=False,
    )  # fmt: skip
    assert refused.returncode == 1 and "model.layers.1.mlp.down_proj.weight" in refused.stderr
    assert "Traceback" not in refused.stderr
