"""Llamas of some models' shapes with random weights, for benchmarks.

python tests/benchmarks/shapes.py policy --shape eurollm-1.7b --dtype bfloat16 --context 4096 FOLDER
"""

import argparse
import subprocess
import sys
from pathlib import Path

# Hidden size, MLP size, layers, heads, heads of keys and values, vocabulary; the latter two from the models' cards.
SHAPES = {
    "miniature": (96, 256, 2, 3, 3, 1000),
    "eurollm-1.7b": (2048, 5632, 24, 16, 8, 128000),
    "eurollm-9b": (4096, 12288, 42, 32, 8, 128000),
}


ROLES = ("policy", "reward")


def provide_model(models: Path, role: str, shape: str, dtype: str, context: int) -> Path:
    """The folder of a model under ``models``; it is made where it is not there yet.

    Args:
        role: policy (a causal model) or reward (a sequence classifier with one logit).
        shape: a key of SHAPES; dtype: name of a torch dtype; context: positions.
    """
    folder = models / f"{role}-{shape}-{dtype}-{context}"
    if not (folder / "config.json").exists():
        options = ["--shape", shape, "--dtype", dtype, "--context", str(context)]
        # In a process of its own, so that no memory of the GPU stays taken.
        subprocess.run([sys.executable, __file__, role, *options, str(folder)], check=True)
    return folder


def make_model(folder: Path, role: str, shape: str, dtype: str, context: int) -> None:
    """Writes a Llama with random weights, and a byte-level tokenizer with a chat template; see provide_model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    hidden, inner, layers, heads, groups, vocabulary = SHAPES[shape]
    make_tokenizer().save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=groups, max_position_embeddings=context, eos_token_id=1, pad_token_id=0, bos_token_id=None,
        dtype=dtype, **({"num_labels": 1} if role == "reward" else {}),
    )  # fmt: skip
    torch.set_default_dtype(getattr(torch, dtype))
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = (LlamaForSequenceClassification if role == "reward" else LlamaForCausalLM)(config)
    model.save_pretrained(folder)


def make_tokenizer():
    """A tokenizer in which a letter is a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<end>", "<user>", "<assistant>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*specials, *alphabet])}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    fast.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    return fast


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--shape", choices=tuple(SHAPES), required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--context", type=int, required=True, help="positions")
    parser.add_argument("folder", type=Path, help="to write")
    args = parser.parse_args()
    make_model(args.folder, args.role, args.shape, args.dtype, args.context)


if __name__ == "__main__":
    main()
