"""Replicas of many architectures: tiny, of the same kinds of layers, and accepted by the project's own checks."""

import pytest
import torch
import transformers
from rehearsal.stand_ins import MODELS, UDHR, make_tokenizer, write_model

from croco.errors import InputError
from croco.models.loading import read_headers
from croco.models.lora import find_targets
from croco.models.roles import check_processors, load_skeleton, load_with_stops
from croco.rehearsal.replicas import make_replica, shrink, teach_answers

# {class: its config with transformers' own sizes}
ARCHITECTURES = {
    "ApertusForCausalLM": "ApertusConfig",
    "Cohere2ForCausalLM": "Cohere2Config",
    "Gemma2ForSequenceClassification": "Gemma2Config",
    "Gemma3ForCausalLM": "Gemma3TextConfig",
    "Gemma3ForConditionalGeneration": "Gemma3Config",
    "GptOssForCausalLM": "GptOssConfig",
    "LlamaForCausalLM": "LlamaConfig",
    "MistralForCausalLM": "MistralConfig",
    "MixtralForCausalLM": "MixtralConfig",
    "Olmo2ForCausalLM": "Olmo2Config",
    "Olmo3ForCausalLM": "Olmo3Config",
    "Phi3ForCausalLM": "Phi3Config",
    "Qwen3ForCausalLM": "Qwen3Config",
    "Qwen3MoeForCausalLM": "Qwen3MoeConfig",
    "Qwen3_5ForConditionalGeneration": "Qwen3_5Config",
    "Qwen3_5MoeForConditionalGeneration": "Qwen3_5MoeConfig",
    "SmolLM3ForCausalLM": "SmolLM3Config",
}
TEXTS = [
    "All human beings are born free and equal in dignity and rights.",
    "Alle Menschen sind frei und gleich geboren.",
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_replica_has_every_kind_of_layer_and_passes_the_checks(architecture, tmp_path):
    """A model folder as a hub has it, without weights, becomes a model that the loader and the adapters accept."""
    options = {"num_labels": 1} if "Sequence" in architecture else {}
    config = getattr(transformers, ARCHITECTURES[architecture])(**options)
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or [])
    tokenizer = make_tokenizer("qwen", TEXTS)
    write_model(tmp_path / "real", tokenizer, architecture, config)
    role = "reward" if "Sequence" in architecture else "policy"
    model = make_replica(str(tmp_path / "real"), None, tmp_path / "replica", role, seed=0)
    assert type(model).__name__ == architecture and sum(weight.numel() for weight in model.parameters()) < 6e6
    text = model.config.get_text_config()
    assert set(getattr(text, "layer_types", None) or []) == kinds and text.num_hidden_layers >= 2
    skeleton = load_skeleton(role, tmp_path / "replica")
    assert skeleton is not None
    if role == "policy":
        _, reached, _ = find_targets(skeleton, None, "partial", tmp_path / "replica")
        assert reached


def test_replica_of_another_head_count_keeps_its_grouping():
    for kv, expected in ((32, 4), (8, 2), (1, 1)):
        config = transformers.LlamaConfig(num_attention_heads=32, num_key_value_heads=kv)
        shrink(config)
        assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, expected, 128)


@pytest.mark.parametrize("name", ["CohereLabs/tiny-aya-global", "Infomaniak-AI/vllm-translategemma-27b-it"])
def test_replica_learns_to_stop(name, tmp_path):
    """Also with tied embeddings; most of its sampled answers are one of those that it was taught."""
    family, make = MODELS[name]
    tokenizer = make_tokenizer(family, TEXTS)
    write_model(tmp_path / "real", tokenizer, *make())
    model = make_replica(str(tmp_path / "real"), None, tmp_path / "replica", "policy", seed=0)
    tokenizer, stops = load_with_stops(tmp_path / "replica")
    chats = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)["input_ids"]
        for text in TEXTS
    ]
    assert teach_answers(model, tokenizer, list(stops), chats, ["born", "frei"], seed=0)
    torch.manual_seed(0)
    sampled = model.generate(
        torch.tensor([chats[0]] * 16), do_sample=True, max_new_tokens=8, eos_token_id=list(stops), pad_token_id=0
    )
    answers = [tokenizer.decode(row[len(chats[0]) :], skip_special_tokens=True).strip() for row in sampled]
    assert sum(answer in ("born", "frei") for answer in answers) >= 8, answers


def test_replica_of_a_judge_gives_verdicts(tmp_path):
    """Also on texts that it has not seen; a judge answers greedily, and a replica that only knew when to stop would loop."""
    texts = [line.rpartition("\t")[2] for line in UDHR.read_text(encoding="utf-8").splitlines()[1:161]]
    verdicts = ("[[A]]", "[[B]]", "[[C]]")
    family, make = MODELS["Qwen/Qwen3-8B"]
    write_model(tmp_path / "real", make_tokenizer(family, texts), *make())
    model = make_replica(str(tmp_path / "real"), None, tmp_path / "replica", "judge", seed=0)
    tokenizer, stops = load_with_stops(tmp_path / "replica")
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": f"Which is better? Say {', '.join(verdicts)}.\n{text}"}],
            add_generation_prompt=True,
        )["input_ids"]
        for text in texts[::8]
    ]
    assert teach_answers(model, tokenizer, list(stops), chats[:10], verdicts, seed=0)
    for chat in chats[10:]:
        said = model.generate(
            torch.tensor([chat]), do_sample=False, max_new_tokens=16, eos_token_id=list(stops), pad_token_id=0
        )
        assert tokenizer.decode(said[0, len(chat) :], skip_special_tokens=True) in verdicts


def test_an_image_text_model_without_its_processors_is_refused_for_vllm(tmp_path):
    """vLLM would refuse it when the model is loaded, in the middle of a run."""
    family, make = MODELS["Infomaniak-AI/vllm-translategemma-27b-it"]
    write_model(tmp_path, make_tokenizer(family, TEXTS), *make())
    check_processors(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="Can't load image processor"):
        check_processors(tmp_path)


def test_a_replica_has_the_names_of_the_published_weights(tmp_path):
    """vLLM knows only those of Gemma 3's image tower, and transformers would write others."""
    family, make = MODELS["Infomaniak-AI/vllm-translategemma-27b-it"]
    write_model(tmp_path / "real", make_tokenizer(family, TEXTS), *make())
    model = make_replica(str(tmp_path / "real"), None, tmp_path / "replica", "translator", seed=0)
    model.save_pretrained(tmp_path / "replica")  # as after the replica has learned to answer
    tower = [name for name in read_headers(tmp_path / "replica") if name.startswith("vision_tower.")]
    assert tower and all(name.startswith("vision_tower.vision_model.") for name in tower)
