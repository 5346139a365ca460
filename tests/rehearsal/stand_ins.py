"""A hub of the shipped configs' models and datasets without their weights: real classes and sizes, tokenizers of our text.

The sizes are those of the models' configs; nobody here has read their files. Chat templates are like the models' own in
what they write and refuse.
"""

import csv
import json
from pathlib import Path

import transformers
from conftest import write_rows
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

UDHR = Path(__file__).resolve().parents[1] / "data" / "udhr.tsv"
TURNS = "{% for m in messages %}{{ START }}{{ m['role'] }}\n{{ m['content'] }}{{ END }}\n{% endfor %}"
CHATML = TURNS.replace("{{ START }}", "<|im_start|>").replace("{{ END }}", "<|im_end|>")
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
QWEN = (
    CHATML
    + "{% if add_generation_prompt %}<|im_start|>assistant\n"
    + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
COHERE = (
    "{{ bos_token }}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>You answer in the language of the user.<|END_OF_TURN_TOKEN|>"
    "{% for m in messages %}<|START_OF_TURN_TOKEN|>{% if m['role'] == 'user' %}<|USER_TOKEN|>{% elif m['role'] == 'system' %}"
    "<|SYSTEM_TOKEN|>{% else %}<|CHATBOT_TOKEN|>{% endif %}{{ m['content'] | trim }}<|END_OF_TURN_TOKEN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
COHERE_TOKENS = [
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>")
]
# {family: {name of an attribute of the tokenizer: token}}; processors of images ask for them.
IMAGE_TOKENS = {
    "qwen": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    },
    "gemma": {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
}
# {class: {file of a processor: its content}}; vLLM does not load the class without them.
QWEN_PROCESSORS = {
    "preprocessor_config.json": {"image_processor_type": "Qwen2VLImageProcessor"},
    "video_preprocessor_config.json": {"video_processor_type": "Qwen3VLVideoProcessor"},
}
PROCESSORS = {
    "Gemma3ForConditionalGeneration": {"preprocessor_config.json": {"image_processor_type": "Gemma3ImageProcessor"}},
    "Qwen3_5ForConditionalGeneration": QWEN_PROCESSORS,
    "Qwen3_5MoeForConditionalGeneration": QWEN_PROCESSORS,
}
# {class: weights under names of which transformers' own differ}.
PUBLISHED = {"Gemma3ForConditionalGeneration": ["vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight"]}
# Chat template, special tokens, and of them BOS, end of a turn, padding.
FAMILIES = {
    "chatml": (
        "{{ bos_token }}" + CHATML + ASK,
        ["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        "<s>",
        "<|im_end|>",
        "</s>",
    ),
    "qwen": (QWEN, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], None, "<|im_end|>", "<|endoftext|>"),
    "cohere": (COHERE, ["<PAD>", "<BOS_TOKEN>", *COHERE_TOKENS], "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<PAD>"),
    "gemma": (
        GEMMA,
        ["<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        "<bos>",
        "<end_of_turn>",
        "<pad>",
    ),
}


def llama(layers, hidden, heads, kv, intermediate, context):
    return "LlamaForCausalLM", transformers.LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
        intermediate_size=intermediate, max_position_embeddings=context, head_dim=128, vocab_size=128000,
    )  # fmt: skip


def qwen3(layers, hidden, heads, intermediate, **options):
    return transformers.Qwen3Config(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=8, head_dim=128,
        intermediate_size=intermediate, max_position_embeddings=40960, **options,
    )  # fmt: skip


def gemma3():
    text = {
        "hidden_size": 5376, "num_hidden_layers": 62, "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128,
        "intermediate_size": 21504, "sliding_window": 1024, "max_position_embeddings": 131072,
    }  # fmt: skip
    vision = {
        "hidden_size": 1152,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "intermediate_size": 4304,
        "vision_use_head": False,
    }
    return "Gemma3ForConditionalGeneration", transformers.Gemma3Config(text_config=text, vision_config=vision)


def aya():
    return "Cohere2ForCausalLM", transformers.Cohere2Config(
        hidden_size=2048, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=4, intermediate_size=11008,
        max_position_embeddings=8192, vocab_size=262144, logit_scale=1.0,
    )  # fmt: skip


# {id: (family of the tokenizer, function that gives class and config)}
MODELS = {
    "utter-project/EuroLLM-9B-Instruct-2512": ("chatml", lambda: llama(42, 4096, 32, 8, 12288, 32768)),
    "utter-project/EuroLLM-9B-Instruct": ("chatml", lambda: llama(42, 4096, 32, 8, 12288, 4096)),
    "utter-project/EuroLLM-1.7B-Instruct": ("chatml", lambda: llama(24, 2048, 16, 8, 5632, 4096)),
    "CohereLabs/tiny-aya-global": ("cohere", aya),
    "Skywork/Skywork-Reward-V2-Qwen3-8B": ("qwen", lambda: ("Qwen3ForSequenceClassification", qwen3(36, 4096, 32, 12288, num_labels=1))),
    "Skywork/Skywork-Reward-V2-Qwen3-0.6B": ("qwen", lambda: ("Qwen3ForSequenceClassification", qwen3(28, 1024, 16, 3072, num_labels=1))),
    "Qwen/Qwen3-8B": ("qwen", lambda: ("Qwen3ForCausalLM", qwen3(36, 4096, 32, 12288))),
    "Infomaniak-AI/vllm-translategemma-27b-it": ("gemma", gemma3),
    "Qwen/Qwen3.6-35B-A3B": ("qwen", lambda: ("Qwen3_5MoeForConditionalGeneration", transformers.Qwen3_5MoeConfig())),
}  # fmt: skip


def write_hub(folder):
    """Puts all models and datasets under ``folder``, in the form of tests/hub.py."""
    with open(UDHR, encoding="utf-8") as file:
        sentences = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    tokenizers = {family: make_tokenizer(family, [row["text"] for row in sentences]) for family in FAMILIES}
    for name, (family, make) in MODELS.items():
        write_model(folder / "models" / name, tokenizers[family], *make())
    write_datasets(folder / "datasets", sentences)


def make_tokenizer(family, texts):
    template, special, bos, end, pad = FAMILIES[family]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    images = IMAGE_TOKENS.get(family, {})
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=[*special, *images.values()],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=end, pad_token=pad, extra_special_tokens=images
    )
    if family == "gemma":  # vLLM looks these up in the vocabulary
        fast.add_tokens(["\n" * count for count in range(1, 5)])
    fast.chat_template = template
    return fast


def write_model(folder, tokenizer, architecture, config):
    config.architectures = [architecture]
    text = config.get_text_config()
    for part in {id(part): part for part in (config, text)}.values():
        part.bos_token_id, part.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        part.pad_token_id = tokenizer.pad_token_id
    for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "image_token_index",
                 "boi_token_index", "eoi_token_index"):  # fmt: skip
        if getattr(config, name, None) is not None:
            token = name.removesuffix("_id").removesuffix("_index")
            setattr(config, name, getattr(tokenizer, f"{token}_id", tokenizer.pad_token_id))
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, content in PROCESSORS.get(architecture, {}).items():
        (folder / name).write_text(json.dumps(content))
    if architecture in PUBLISHED:
        index = {"weight_map": dict.fromkeys(PUBLISHED[architecture], "model-00001-of-00002.safetensors")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if "SequenceClassification" not in architecture:
        transformers.GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=[tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
        ).save_pretrained(folder)


def write_datasets(folder, sentences):
    of = {}
    for row in sentences:
        of.setdefault(row["language"], []).append(row["text"][:200])
    chats = [
        {"id": f"d{i}", "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": of["en"][-1 - i]}],
         "source_dataset": "ours", "domain": "law"}
        for i, text in enumerate(of["en"][:14])
    ]  # fmt: skip
    write_rows(folder / "allenai/Dolci-Instruct-SFT/train.jsonl", chats)
    arena = {
        code: [{"question_id": f"q{i}", "category": "law", "subcategory": "rights", "prompt": text, "language": code}
               for i, text in enumerate(texts[14:24])]
        for code, texts in of.items()
    }  # fmt: skip
    write_configs(folder / "CohereLabs/m-ArenaHard-v2.1", arena)
    reading = {f"mc_answer{i + 1}": f"{i} articles" for i in range(4)}
    rows = [
        {"flores_passage": text, "question": "How many?", "correct_answer_num": "1", **reading} for text in of["en"][:6]
    ]
    write_configs(folder / "facebook/belebele", {"eng_Latn": rows})
    options = {f"option_{letter}": f"answer {letter}" for letter in "abcd"}
    rows = [{"sample_id": f"s{i}", "question": text, "answer": "A", **options} for i, text in enumerate(of["en"][:6])]
    write_configs(folder / "CohereLabs/Global-MMLU-Lite", {"en": rows})


def write_configs(folder, configs):
    """A dataset with a test split per configuration."""
    said = ["---", "configs:"]
    for name, rows in configs.items():
        write_rows(folder / name / "test.jsonl", rows)
        said += [f'- config_name: "{name}"', "  data_files:", f"  - {{split: test, path: {name}/test.jsonl}}"]
    (folder / "README.md").write_text("\n".join([*said, "---", ""]))


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))
