"""The transformers engine: sampling from a policy and scoring with a reward model, on the CPU or one GPU."""

import hashlib
from contextlib import contextmanager

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
)
from transformers.utils import logging

from croco.records import InputError

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

logging.disable_progress_bar()


class SeededSampling(LogitsProcessor):
    """Sampling in which every row has its own seed, so that a sample does not depend on its neighbours.

    Each row's tokens follow from its own stream of uniform numbers by inverting the cumulative distribution; the
    chosen token is left as the only possible one, and ``generate`` picks it greedily.

    Args:
        seeds: one integer a row, in [0, 2**63).
        temperature, top_p: as in the sampling of transformers; top_p = 1 keeps the whole distribution.
        max_tokens: how many steps to draw numbers for.
    """

    def __init__(self, seeds, temperature, top_p, max_tokens):
        self.temperature, self.top_p = temperature, top_p
        draws = [
            torch.rand(max_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds
        ]
        self.uniforms = torch.stack(draws).to(DEVICE)
        self.step = 0

    def __call__(self, input_ids, scores):
        probabilities = torch.softmax(scores.double() / self.temperature, dim=-1)
        order = None
        if self.top_p < 1:
            probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
            before = probabilities.cumsum(dim=-1) - probabilities
            probabilities = probabilities.masked_fill(before >= self.top_p, 0.0)
        cumulative = probabilities.cumsum(dim=-1)
        threshold = self.uniforms[:, self.step : self.step + 1] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, threshold, right=True).clamp(max=scores.shape[-1] - 1)
        if order is not None:
            token = order.gather(-1, token)
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter_(-1, token, 0.0)


class Policy:
    """A causal language model with its chat template.

    Args:
        path: local folder or hub id; ``adapter``: folder of a LoRA adapter to merge, or None.
        dtype: name of a torch dtype, e.g. ``bfloat16``.
    Raises InputError for a model without weights or without a chat template.
    """

    def __init__(self, path, revision=None, dtype="float32", adapter=None, trust_remote_code=False):
        with model_errors(path):
            self.tokenizer = AutoTokenizer.from_pretrained(
                path, revision=revision, trust_remote_code=trust_remote_code, padding_side="left"
            )
            self.model = AutoModelForCausalLM.from_pretrained(
                path, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code, use_safetensors=True
            )
        if self.tokenizer.chat_template is None:
            raise InputError(
                "the tokenizer has no chat template",
                "use an instruction-tuned model, or add chat_template.jinja to its folder",
                path,
            )
        if adapter:
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, adapter).merge_and_unload()
        self.model.to(DEVICE).eval()
        stops = self.model.generation_config.eos_token_id or self.tokenizer.eos_token_id
        self.stops = set(stops if isinstance(stops, list) else [stops])
        self.pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else min(self.stops)
        self.context = self.model.config.get_text_config().max_position_embeddings

    def encode(self, messages):
        """Token ids of a chat with the generation prompt; the template alone adds special tokens (no second BOS)."""
        return self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"]

    @torch.inference_mode()
    def respond(self, prompts, seeds, temperature, top_p, max_tokens):
        """One response to each prompt.

        Args:
            prompts: token ids, one list a row; rows may repeat a prompt.
            seeds: one integer a row; unused at temperature 0, which is greedy.
        Returns one dict a row: text, finish_reason (stop or length), n_tokens, token_digest.
        """
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (width - len(p)) + p for p in prompts], device=DEVICE)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=DEVICE)
        sampling = [SeededSampling(seeds, temperature, top_p, max_tokens)] if temperature > 0 else []
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=LogitsProcessorList(sampling),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=max_tokens,
            eos_token_id=sorted(self.stops),
            pad_token_id=self.pad,
        )
        return [self._response(tokens) for tokens in output[:, width:].tolist()]

    def _response(self, tokens):
        stop = next((i for i, token in enumerate(tokens) if token in self.stops), None)
        tokens = tokens if stop is None else tokens[: stop + 1]
        return {
            "text": self.tokenizer.decode(tokens, skip_special_tokens=True),
            "finish_reason": "length" if stop is None else "stop",
            "n_tokens": len(tokens),
            "token_digest": hashlib.sha256(str(tokens).encode()).hexdigest()[:16],
        }


class RewardModel:
    """A sequence classifier with one logit over chats.

    Raises InputError for a model with another number of logits or without a chat template.
    """

    def __init__(self, path, revision=None, dtype="float32", max_length=4096, trust_remote_code=False):
        with model_errors(path):
            self.tokenizer = AutoTokenizer.from_pretrained(
                path, revision=revision, trust_remote_code=trust_remote_code, padding_side="right"
            )
            self.model = AutoModelForSequenceClassification.from_pretrained(
                path, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code, use_safetensors=True
            )
        if self.model.config.num_labels != 1:
            raise InputError(
                f"the model has {self.model.config.num_labels} logits, a reward model has one",
                "name a Bradley-Terry reward model (num_labels 1)",
                path,
            )
        if self.tokenizer.chat_template is None:
            raise InputError("the tokenizer has no chat template", "name a reward model that scores chats", path)
        if self.model.config.get_text_config().pad_token_id is None:
            self.model.config.get_text_config().pad_token_id = self.tokenizer.pad_token_id
        self.model.to(DEVICE).eval()
        self.max_length = min(max_length, self.model.config.get_text_config().max_position_embeddings)

    @torch.inference_mode()
    def score(self, chats, batch_size):
        """Raw logits of whole chats, in their order; None where a chat is longer than max_length.

        Chats of like length share a batch, which wastes the least on padding.
        """
        ids = [self.tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"] for chat in chats]
        order = sorted((i for i in range(len(ids)) if len(ids[i]) <= self.max_length), key=lambda i: len(ids[i]))
        rewards = [None] * len(ids)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            padded = self.tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt").to(DEVICE)
            logits = self.model(**padded).logits[:, 0].float().tolist()
            for i, logit in zip(batch, logits, strict=True):
                rewards[i] = logit if abs(logit) < float("inf") else None
        return rewards


@contextmanager
def model_errors(path):
    """Turns the libraries' errors about a model that cannot be loaded into one that names it and the remedy."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise InputError(
            f"the model cannot be loaded: {error}",
            "check the path or hub id and revision, that weights (safetensors) and tokenizer are there, and access to a gated model",
            path,
        ) from error
