"""The transformers engine: sampling from a policy and scoring with a reward model, on the CPU or one GPU."""

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LogitsProcessor,
    LogitsProcessorList,
)
from transformers.utils import logging

from croco.chats import ChatModel, ChatScorer, check_reward, model_errors

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

logging.disable_progress_bar()


def place(model):
    """The model on its device, ready to run; one that engine_options (device_map) has spread stays where it is."""
    return (model if getattr(model, "hf_device_map", None) else model.to(DEVICE)).eval()


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


class Policy(ChatModel):
    """A causal language model with its chat template.

    Args:
        path: local folder or hub id; ``adapter``: folder of a LoRA adapter, or None; merged in float32 only.
        dtype: name of a torch dtype, e.g. ``bfloat16``; ``batch``: rows of a forward pass.
        options: passed on to ``from_pretrained``; ``template_options`` to the chat template.
    Raises InputError as ChatModel does, and for a model without weights.
    """

    def __init__(
        self, path, revision=None, dtype="float32", adapter=None, trust_remote_code=False, batch=64, options=None, template_options=None,
    ):  # fmt: skip
        super().__init__(path, revision, trust_remote_code, template_options, adapter)
        self.batch = batch
        with model_errors(path):
            self.model = AutoModelForCausalLM.from_pretrained(
                path,
                revision=revision,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                **(options or {}),
            )
        if adapter:
            from peft import PeftModel

            with model_errors(adapter):
                self.model = PeftModel.from_pretrained(self.model, adapter)
            if dtype == "float32":
                # In 16 bits the sum would round away most of what a small learning rate has changed.
                self.model = self.model.merge_and_unload()
        self.model = place(self.model)
        self.pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else min(self.stops)

    def sample(self, requests, temperature, top_p, max_tokens, at_once=1):
        """Samples of many prompts, one prompt after the other: a batch holds one prompt's samples only.

        Args:
            requests: [(token ids, seed of the first sample, how many)]; the low 12 bits of a seed are the sample's
                number, and batches begin at multiples of ``batch``, so that more samples later change none.
        Yields (index of the request, its responses in sample order).
        """
        for index, (tokens, seed, count) in enumerate(requests):
            responses, first = [], seed & 0xFFF
            while len(responses) < count:
                done = first + len(responses)
                stop = min(first + count, (done // self.batch + 1) * self.batch)
                seeds = range(seed + len(responses), seed + len(responses) + stop - done)
                responses += self._forward([tokens] * len(seeds), seeds, temperature, top_p, max_tokens)
            yield index, responses

    def respond(self, prompts, seeds, temperature, top_p, max_tokens):
        """One response to each prompt; temperature 0 is greedy.

        Prompts of like length share a batch: the fastest way, in which neighbours may move the last bits.
        """
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        responses = [None] * len(prompts)
        for start in range(0, len(order), self.batch):
            batch = order[start : start + self.batch]
            found = self._forward(
                [prompts[i] for i in batch], [seeds[i] for i in batch], temperature, top_p, max_tokens
            )
            for i, response in zip(batch, found, strict=True):
                responses[i] = response
        return responses

    @torch.inference_mode()
    def _forward(self, prompts, seeds, temperature, top_p, max_tokens):
        width = max(map(len, prompts))
        rooms = [self.room(tokens, max_tokens) for tokens in prompts]
        ids = torch.tensor([[self.pad] * (width - len(p)) + p for p in prompts], device=DEVICE)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=DEVICE)
        sampling = [SeededSampling(seeds, temperature, top_p, max(rooms))] if temperature > 0 else []
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=LogitsProcessorList(sampling),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=max(rooms),
            eos_token_id=sorted(self.stops),
            pad_token_id=self.pad,
        )
        return [self.response(tokens, room) for tokens, room in zip(output[:, width:].tolist(), rooms, strict=True)]


class RewardModel(ChatScorer):
    """A sequence classifier with one logit over chats."""

    def __init__(
        self, path, revision=None, dtype="float32", max_length=4096, trust_remote_code=False, batch=64, options=None, template_options=None,
    ):  # fmt: skip
        super().__init__(path, revision, max_length, trust_remote_code, template_options)
        self.batch = batch
        with model_errors(path):
            self.model = AutoModelForSequenceClassification.from_pretrained(
                path,
                revision=revision,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                **(options or {}),
            )
        self.tokenizer.padding_side = "right"
        if self.model.config.get_text_config().pad_token_id is None:
            self.model.config.get_text_config().pad_token_id = self.tokenizer.pad_token_id
        self.model = place(self.model)

    @torch.inference_mode()
    def score(self, answers):
        """(raw logit, None) or (None, reason) of answers [(messages of the prompt, text)], in order.

        Chats of like length share a batch, which wastes the least on padding.
        """
        encoded = [self.encode(messages, text) for messages, text in answers]
        ids = [tokens for tokens, _ in encoded]
        order = sorted((i for i, tokens in enumerate(ids) if tokens is not None), key=lambda i: len(ids[i]))
        rewards = [(None, reason) for _, reason in encoded]
        for start in range(0, len(order), self.batch):
            batch = order[start : start + self.batch]
            padded = self.tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt").to(DEVICE)
            logits = self.model(**padded).logits[:, 0].float().tolist()
            for i, logit in zip(batch, logits, strict=True):
                rewards[i] = check_reward(logit)
        return rewards
