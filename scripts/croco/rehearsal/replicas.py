"""Tiny random copies of a model: its architecture, tokenizer and chat template, of which only small files are fetched.

A replica has a layer of each kind, few heads and experts, and the sizes of heads and positions that the model has, so
that its class, adapters and kernels take the same paths. Random models never stop, so a replica learns to answer in a
few letters.
"""

import json
import random
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

INDEX = "model.safetensors.index.json"
SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.py", "*.tiktoken"]
HEADS, HIDDEN, LEAST_LAYERS = 4, 64, 2
# The most that a replica has of each: name of the key in transformers' configs, value.
AT_MOST = {
    **{"intermediate_size": 128, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    **{"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2},
    **{"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1},
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 4},
    **{"sliding_window": 64, "depth": 2, "num_nextn_predict_layers": 0, "mtp_num_hidden_layers": 0},
    **{"q_lora_rank": 32, "kv_lora_rank": 32},
}
STEPS, LEARNING_RATES, BATCH = (
    120,
    (1e-2, 4e-2),
    8,
)  # per learning rate; the second is for models that scale logits down
TAIL, CHECKED = 96, 4  # tokens of a chat that it learns behind, and chats that are then tried whole
STOPS_AT_LEAST, STOPS_EARLY_AT_MOST = 0.5, 5e-3  # probability of the stop token after an answer, and instead of one


def fetch_small_files(path: str, revision: str | None) -> Path:
    """The folder with a model's files except its weights; a local folder stays where it is.

    Raises InputError where the model cannot be fetched.
    """
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    from croco.models.loading import model_errors

    with model_errors(path):
        return Path(snapshot_download(path, revision=revision, allow_patterns=SMALL_FILES))


def shrink(config: "PreTrainedConfig") -> None:
    """Makes a config tiny, in place: all of its parts, a layer of each kind in each."""
    for name in config.sub_configs:
        if getattr(config, name, None) is not None:
            shrink(getattr(config, name))
    values = vars(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    heads = getattr(config, "num_attention_heads", None) or values.get("num_heads")
    if isinstance(heads, int):
        shrink_heads(config, heads)
    for name, most in AT_MOST.items():
        if isinstance(values.get(name), int) and values[name] > most:
            setattr(config, name, most)
    if isinstance(values.get("num_hidden_layers"), int):
        keep_layers(config)
    if isinstance(values.get("deepstack_visual_indexes"), list):
        config.deepstack_visual_indexes = [
            index for index in config.deepstack_visual_indexes if index < AT_MOST["depth"]
        ]
    if isinstance(values.get("out_hidden_size"), int):
        config.out_hidden_size = HIDDEN


def shrink_heads(config: "PreTrainedConfig", heads: int) -> None:
    """Few heads of their own size: rotary positions and kernels depend on it."""
    values = vars(config)
    size = values.get("head_dim")
    if "num_key_value_heads" in values:
        kv = config.num_key_value_heads
        config.num_key_value_heads = HEADS if kv in (None, heads) else 1 if kv == 1 else HEADS // 2
    if "num_heads" in values:  # towers of images
        config.num_heads, config.hidden_size = HEADS, HIDDEN
        return
    config.num_attention_heads = HEADS
    # Without a head_dim, modules take it from the hidden size.
    config.hidden_size = HIDDEN if size else HEADS * (config.hidden_size // heads)


def keep_layers(config: "PreTrainedConfig") -> None:
    """Keeps the first layer of each kind, in order, and two at least; lists with a value per layer follow."""
    layers = config.num_hidden_layers
    lists = {name: value for name, value in vars(config).items() if isinstance(value, list) and len(value) == layers}
    kinds: dict[tuple, int] = {}
    for index in range(layers):
        kinds.setdefault(tuple(str(value[index]) for value in lists.values()), index)
    kept = sorted(kinds.values())
    kept = sorted({*kept, *range(min(LEAST_LAYERS, layers))}) if len(kept) < LEAST_LAYERS else kept
    config.num_hidden_layers = len(kept)
    for name, value in lists.items():
        setattr(config, name, [value[index] for index in kept])


def fit_vocabulary(config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> None:
    """The tokenizer's own vocabulary, and room for the ids that the config names."""
    parts = [part for part in (config, *(getattr(config, name, None) for name in config.sub_configs)) if part]
    named = [
        token
        for part in parts
        for name, value in vars(part).items()
        if name.endswith(("_token_id", "_token_index"))
        for token in (value if isinstance(value, list) else [value])
        if isinstance(token, int)
    ]
    for part in parts:
        if hasattr(part, "vocab_size"):
            part.vocab_size = max(len(tokenizer), *(token + 1 for token in named), 1)


def make_replica(
    path: str, revision: str | None, folder: Path, role: str, seed: int, trust_remote_code: bool = False
) -> "PreTrainedModel":
    """Writes a tiny random copy of a model to ``folder`` and returns it.

    Args:
        role: policy, reward, judge or translator, which decides the class that is loaded where the config names none.
    Raises InputError where the model cannot be fetched, or its class is not known.
    """
    import torch
    import transformers

    from croco.models.loading import POLICY, REWARD_MODEL, model_errors

    transformers.utils.logging.disable_progress_bar()
    source = fetch_small_files(path, revision)
    folder.mkdir(parents=True)
    for file in source.iterdir():
        small = any(file.match(pattern) for pattern in SMALL_FILES)
        if file.is_file() and small and file.name not in (INDEX, "config.json"):
            shutil.copyfile(file, folder / file.name)
    with model_errors(path):
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        shrink(config)
        fit_vocabulary(config, tokenizer)
        torch.manual_seed(seed)
        named = getattr(transformers, (config.architectures or [""])[0], None)
        if named is not None and hasattr(named, "_from_config"):
            model = named._from_config(config, dtype=torch.float32)
        else:
            auto = getattr(transformers, REWARD_MODEL if role == "reward" else POLICY)
            model = auto.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
    if role == "reward":
        spread_scores(model)
    save_as_published(model, folder, source / INDEX)
    return model


def save_as_published(model: "PreTrainedModel", folder: Path, index: Path) -> None:
    """Saves a replica under the names that the model's ``index`` of weights lists, if there is one.

    transformers knows several names of some weights, such as those of Gemma 3's image tower, and vLLM only the
    published ones. Later calls of save_pretrained keep the choice.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping

    from croco.models.loading import read_headers

    model.save_pretrained(folder)
    if not index.is_file():
        return
    published = omit_numbers(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    known = len(published & omit_numbers(read_headers(folder)))
    model._weight_conversions = get_model_conversion_mapping(model, add_legacy=False)
    model.save_pretrained(folder)
    if len(published & omit_numbers(read_headers(folder))) <= known:
        del model._weight_conversions
        model.save_pretrained(folder)


def omit_numbers(names: Iterable[str]) -> set[str]:
    """Names of weights without the numbers of layers and experts, of which a replica has fewer."""
    return {re.sub(r"\.\d+(?=\.)", ".N", name) for name in names}


def spread_scores(model: "PreTrainedModel") -> None:
    """A random head whose scores of different texts differ clearly, as a real one's do."""
    import torch

    head = next((getattr(model, name) for name in ("score", "classifier") if hasattr(model, name)), None)
    for weight in head.parameters() if head is not None else ():
        torch.nn.init.normal_(weight, std=0.5)


def teach_answers(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    stops: Sequence[int],
    chats: Sequence[list[int]],
    answers: Sequence[str],
    seed: int,
) -> bool:
    """Trains a replica to give one of the answers to any chat, and then to stop; returns whether it stops.

    Args:
        stops: ids of the tokens that end an answer; ``chats``: token ids with the generation prompt.
    """
    import torch

    draw = random.Random(seed)
    texts = [tokenizer.encode(answer, add_special_tokens=False) for answer in answers]
    model.train()
    stops_now = False
    for rate in LEARNING_RATES:
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        for step in range(STEPS):
            rows = [(draw.choice(chats)[-TAIL:], draw.choice(texts)) for _ in range(BATCH)]
            optimizer.zero_grad()
            answer_loss(model, rows, draw.choice(sorted(stops))).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % 10 == 9:
                stops_now = stops_well(model, chats[:CHECKED], texts, stops)
                if stops_now and all(answers_greedily(model, chat, texts) for chat in chats[:CHECKED]):
                    model.eval()
                    return True
        if stops_now:
            break
    model.eval()
    return stops_now


def answer_loss(model: "PreTrainedModel", rows: Sequence[tuple[list[int], list[int]]], stop: int) -> "torch.Tensor":
    """Mean negative log-likelihood of each row's answer and stop token after its chat."""
    import torch

    length = max(len(chat) + len(answer) + 1 for chat, answer in rows)
    ids = torch.full((len(rows), length), stop)
    labels = torch.full((len(rows), length), -100)
    for row, (chat, answer) in enumerate(rows):
        whole = [*chat, *answer, stop]
        ids[row, : len(whole)] = torch.tensor(whole)
        labels[row, len(chat) : len(whole)] = torch.tensor([*answer, stop])
    # The padding is on the right, so causal attention never sees it.
    logits = model(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
    )


def stops_well(
    model: "PreTrainedModel", chats: Sequence[list[int]], answers: Sequence[list[int]], stops: Sequence[int]
) -> bool:
    """Whether the model stops after each of the answers, and never instead of one."""
    import torch

    ends = sorted(stops)
    with torch.no_grad():
        for chat, answer in zip(chats, [answers[i % len(answers)] for i in range(len(chats))], strict=True):
            logits = model(input_ids=torch.tensor([[*chat, *answer]]), use_cache=False).logits[0].float()
            probabilities = logits.softmax(-1)[:, ends].sum(-1)
            if probabilities[-1] < STOPS_AT_LEAST or probabilities[len(chat) - 1] > STOPS_EARLY_AT_MOST:
                return False
    return True


def answers_greedily(model: "PreTrainedModel", chat: Sequence[int], answers: Sequence[list[int]]) -> bool:
    """Whether the model's most probable tokens, one after the other, are one of the answers."""
    import torch

    said: list[int] = []
    with torch.no_grad():
        while said not in answers:
            if not any(answer[: len(said)] == said for answer in answers):
                return False
            said.append(int(model(input_ids=torch.tensor([[*chat, *said]]), use_cache=False).logits[0, -1].argmax()))
    return True
