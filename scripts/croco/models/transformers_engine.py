"""The transformers engine: sampling from a policy and scoring with a reward model, on the CPU or one GPU.

Policy and RewardModel keep the contract of engines.PolicyEngine and RewardEngine. Batches are padded on the left for
sampling and on the right for scoring.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel
from transformers.utils import logging

from croco.errors import InputError
from croco.models.chats import ChatModel, ChatScorer, check_reward
from croco.models.loading import POLICY, REWARD_MODEL, load_adapter, load_weights

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

logging.disable_progress_bar()


def place(model: PreTrainedModel) -> PreTrainedModel:
    """The model on its device, ready to run; a model distributed by engine_options (device_map) is not moved."""
    return (model if getattr(model, "hf_device_map", None) else model.to(DEVICE)).eval()


def count_learned_positions(model: PreTrainedModel, context: int | None) -> int | None:
    """``context`` where the model has an embedding for each of its positions, as GPT-2 and OPT have; else None."""
    tokens = model.get_input_embeddings()
    tables = [part for part in model.modules() if isinstance(part, torch.nn.Embedding) and part is not tokens]
    # OPT's table has two rows more.
    return context if context and any(context <= table.num_embeddings <= context + 2 for table in tables) else None


def only_stops(stops: Collection[int]) -> GenerationConfig:
    """Generation settings with stop tokens only, to replace a model's own.

    ``generate`` takes settings that its caller does not give from ``model.generation_config``: penalties, beams, a
    minimal length.
    """
    return GenerationConfig(eos_token_id=sorted(stops) or None)


def pool_last_token(model: PreTrainedModel) -> PreTrainedModel:
    """Makes a sequence classifier read the last token of each row, whatever pads the rows; returns the model.

    The classifiers of transformers read the last token that is not ``config.pad_token_id``, even in a row without
    padding. So all padding is filled with an id that no row of the batch ends in, and the config names that id.
    """
    config = model.config.get_text_config()
    own = config.pad_token_id

    def fill(module: torch.nn.Module, arguments: tuple, inputs: dict) -> tuple[tuple, dict]:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]  # each (rows, tokens)
        last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(-1, keepdim=True)  # (rows, 1)
        ends = set(ids.gather(1, last).flatten().tolist())
        usable = own is not None and 0 <= own < config.vocab_size and own not in ends
        config.pad_token_id = own if usable else next(i for i in itertools.count() if i not in ends)
        return arguments, {**inputs, "input_ids": ids.masked_fill(mask == 0, config.pad_token_id)}

    model.register_forward_pre_hook(fill, with_kwargs=True)
    return model


class SeededSampling(LogitsProcessor):
    """Sampling in which every row has its own seed, so that a sample does not depend on its neighbours.

    Each row's tokens follow from its own stream of uniform numbers by inverting the cumulative distribution; the
    chosen token is left as the only possible one, and ``generate`` picks it greedily.

    Args:
        seeds: one integer per row, in [0, 2**63): the key of the row's generator, so no two seeds share a stream.
        temperature, top_p: as in the sampling of transformers; top_p = 1 keeps the whole distribution.
        max_tokens: how many steps to draw numbers for.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float, max_tokens: int) -> None:
        self.temperature, self.top_p = temperature, top_p
        # torch's generator would keep the low 32 bits of a seed on the CPU.
        draws = [np.random.Generator(np.random.Philox(key=seed)).random(max_tokens) for seed in seeds]
        self.uniforms = torch.from_numpy(np.stack(draws)).to(DEVICE)  # (rows, max_tokens), in [0, 1)
        self.step = 0

    def weigh(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(each token's probability after temperature and top_p, or 0; its id, or None for the usual order).

        ``scores`` are logits; all are of the shape (rows, vocabulary).
        """
        probabilities = torch.softmax(scores.double() / self.temperature, dim=-1)
        if self.top_p == 1:
            return probabilities, None
        probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(dim=-1) - probabilities
        return probabilities.masked_fill(before >= self.top_p, 0.0), order

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """One token per row from ``scores``, shape (rows, vocabulary), as logits that leave only this token."""
        probabilities, order = self.weigh(scores)
        cumulative = probabilities.cumsum(dim=-1)
        threshold = self.uniforms[:, self.step : self.step + 1] * cumulative[:, -1:]  # (rows, 1)
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
    Raises InputError as ChatModel does, and as loading.load_weights and load_adapter do.
    """

    def __init__(
        self,
        path: str | Path,
        revision: str | None = None,
        dtype: str = "float32",
        adapter: str | Path | None = None,
        trust_remote_code: bool = False,
        batch: int = 64,
        options: dict | None = None,
        template_options: dict | None = None,
    ) -> None:
        super().__init__(path, revision, trust_remote_code, template_options, adapter)
        self.batch = batch
        self.model = load_weights(POLICY, path, revision, dtype, trust_remote_code, options)
        if adapter:
            self.model = load_adapter(self.model, adapter)
            if dtype == "float32":
                # In 16 bits the sum would round away most changes of a small learning rate.
                self.model = self.model.merge_and_unload()
        self.model = place(self.model)
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        base.generation_config = only_stops(self.stops)
        for module in {self.model, base}:
            module.register_forward_hook(self._refuse_nan)
        self.positions = count_learned_positions(base, self.context)
        pad = self.tokenizer.pad_token_id
        self.pad = pad if pad is not None and pad < self.vocabulary else 0  # masked: any id will do

    def _refuse_nan(self, module: torch.nn.Module, inputs: tuple, output: Any) -> None:
        """If a model overflows, all logits of a row are nan, and its answers would repeat the first or last token."""
        if not output.logits[:, -1, 0].isfinite().all():  # logits: (rows, tokens, vocabulary)
            raise InputError(
                "the model's outputs are not finite numbers", "use bfloat16 or float32", self.path, field="dtype"
            )

    def sample(
        self,
        requests: list[tuple[list[int], int, int]],
        temperature: float,
        top_p: float,
        max_tokens: int,
        at_once: int = 1,
    ) -> Iterator[tuple[int, list[dict]]]:
        """Samples of many prompts, one prompt after the other: a batch holds one prompt's samples only.

        Args:
            requests: [(token ids, seed of the first sample, how many)]; the low 12 bits of a seed are the sample's
                number, and batches begin at multiples of ``batch``, so that more samples later change none.
            at_once: has no effect, because one prompt is processed at a time.
        Yields (index of the request, its responses in sample order). Raises InputError where logits are not finite.
        """
        for index, (tokens, seed, count) in enumerate(requests):
            responses: list[dict] = []
            first = seed & 0xFFF
            while len(responses) < count:
                done = first + len(responses)
                stop = min(first + count, (done // self.batch + 1) * self.batch)
                seeds = range(seed + len(responses), seed + len(responses) + stop - done)
                responses += self._forward([tokens] * len(seeds), seeds, temperature, top_p, max_tokens)
            yield index, responses

    def respond(
        self, prompts: list[list[int]], seeds: list[int], temperature: float, top_p: float, max_tokens: int
    ) -> list[dict]:
        """One response to each prompt; temperature 0 is greedy.

        Prompts of similar length share a batch. This is fastest, but the others in a batch may change the last bits.
        Raises InputError if logits are not finite.
        """
        responses: list[dict] = [{}] * len(prompts)
        for batch in self._arrange([len(tokens) for tokens in prompts], max_tokens):
            found = self._forward(
                [prompts[i] for i in batch], [seeds[i] for i in batch], temperature, top_p, max_tokens
            )
            for i, response in zip(batch, found, strict=True):
                responses[i] = response
        return responses

    def _arrange(self, lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
        """Yields batches of prompts of similar length, as indexes, shorter ones first.

        A batch runs until its last response ends: its longest prompt may reach further than the context, up to the room of
        the shortest one. Rotary positions allow that. Where positions are learned, such prompts are in other batches.
        """
        batch: list[int] = []
        for i in sorted(range(len(lengths)), key=lengths.__getitem__):
            if batch and (len(batch) == self.batch or self._overruns(lengths[batch[0]], lengths[i], max_tokens)):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _overruns(self, shortest: int, longest: int, max_tokens: int) -> bool:
        """Whether a batch of such prompts may need a position that the model does not have."""
        return self.positions is not None and longest + min(max_tokens, self.positions - shortest) > self.positions

    @torch.inference_mode()
    def _forward(
        self, prompts: list[list[int]], seeds: Sequence[int], temperature: float, top_p: float, max_tokens: int
    ) -> list[dict]:
        """One response to each prompt, in one batch."""
        width = max(map(len, prompts))
        rooms = [self.room(tokens, max_tokens) for tokens in prompts]
        # Both (rows, width); the output of generate is (rows, width + new tokens).
        ids = torch.tensor([[self.pad] * (width - len(p)) + p for p in prompts], device=DEVICE)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=DEVICE)
        sampling = [SeededSampling(seeds, temperature, top_p, max(rooms))] if temperature > 0 else []
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=LogitsProcessorList(sampling),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=max(rooms),
                eos_token_id=sorted(self.stops) or None,
                pad_token_id=self.pad,
            ),
        )
        return [self.response(tokens, room) for tokens, room in zip(output[:, width:].tolist(), rooms, strict=True)]


class RewardModel(ChatScorer):
    """A sequence classifier with one logit over chats."""

    def __init__(
        self,
        path: str | Path,
        revision: str | None = None,
        dtype: str = "float32",
        max_length: int = 4096,
        trust_remote_code: bool = False,
        batch: int = 64,
        options: dict | None = None,
        template_options: dict | None = None,
    ) -> None:
        super().__init__(path, revision, max_length, trust_remote_code, template_options)
        self.batch = batch
        self.model = pool_last_token(
            place(load_weights(REWARD_MODEL, path, revision, dtype, trust_remote_code, options))
        )

    @torch.inference_mode()
    def classify(self, encoded: list[tuple[list[int] | None, str | None]]) -> list[tuple[float | None, str | None]]:
        """As score, for chats that ``encode`` returned. Chats of similar length share a batch, to need little padding."""
        ids = [tokens or [] for tokens, _ in encoded]
        order = sorted((i for i, (tokens, _) in enumerate(encoded) if tokens is not None), key=lambda i: len(ids[i]))
        rewards: list[tuple[float | None, str | None]] = [(None, reason) for _, reason in encoded]
        for start in range(0, len(order), self.batch):
            batch = order[start : start + self.batch]
            lengths = [len(ids[i]) for i in batch]
            # tokens and mask: (rows, longest); the model's logits: (rows, 1).
            tokens = torch.tensor([ids[i] + [0] * (max(lengths) - len(ids[i])) for i in batch], device=DEVICE)
            mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths], device=DEVICE)
            logits = self.model(input_ids=tokens, attention_mask=mask).logits[:, 0].float().tolist()
            for i, logit in zip(batch, logits, strict=True):
                rewards[i] = check_reward(logit)
        return rewards
