"""Online DPO's step: two sampled answers per prompt, rewarded and paired as the stages pair them offline."""

import contextlib
import functools
import inspect
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch.nn.functional import logsigmoid

from croco.models.transformers_engine import only_stops
from croco.text.normalise import is_blank
from croco.training.by_rows import take_rows
from croco.training.policy import find_base
from croco.training.resume import WORLD

if TYPE_CHECKING:
    from trl.experimental.online_dpo import OnlineDPOTrainer

    from croco.models.engines import RewardEngine
else:
    OnlineDPOTrainer = object


class OnlinePairs(OnlineDPOTrainer):
    """In front of ByRows and TRL's OnlineDPOTrainer: samples without dropout and forms pairs as offline (``choose``).

    The step is this project's: TRL 1.16 adds up micro-batches where its other trainers take means, and pairs two answers
    of which neither came to its end. A prompt without a pair weighs in the step's mean, and adds nothing to it. Of the
    policy's own generation settings only the stop tokens take part; the checkpoint keeps all of them.

    TRL samples in each micro-batch. The policy does not change within an optimizer step, so one call of generate can
    answer the prompts of several micro-batches, up to the whole step.

    Args:
        scorer: the reward model of the stage of scores; an answer that it cannot score has no reward.
        stops: ids of the stop tokens (TRL's are the generation config's alone).
        generation_batch: prompts per call of generate, in whole micro-batches. The other arguments are the trainer's.
    """

    def __init__(
        self, *args: Any, scorer: "RewardEngine", stops: list[int], generation_batch: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.generation_batch = generation_batch
        self.waiting: list[list[list[dict]]] = []  # the chat lists of the step's micro-batches without responses
        self.sampled: list[list[torch.Tensor]] = []  # the responses of the micro-batches that come next
        self.scorer, self.eos_token_ids = scorer, sorted(stops)
        self.stats: dict = {}
        self.sums: dict[str, torch.Tensor] = {}  # TRL's are means of means

    def _generate(self, model: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        policy = find_base(getattr(model, "module", model))  # within that of several processes
        own, policy.generation_config = policy.generation_config, only_stops(self.eos_token_ids)
        model.eval()
        try:
            return super()._generate(model, *args, **kwargs)
        finally:
            policy.generation_config = own
            model.train()

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict], num_batches: int, device: torch.device
    ) -> tuple[list[dict], Any]:
        """As ByRows.get_batch_samples; also notes the prompts of the step.

        Nothing is sampled here, because a resumed training restores its random state only after this call.
        """
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.waiting, self.sampled = [inputs["prompt"] for inputs in batches], []
        return batches, items

    def _take_responses(self, model: torch.nn.Module) -> list[torch.Tensor]:
        """Two responses per prompt of the next micro-batch, sampled with those of the micro-batches that follow it.

        If memory runs out, all calls from then on answer half the prompts, but never less than a micro-batch. Returns ids
        and mask of the prompts, then of the answers, each (2 x prompts, tokens).
        """
        while not self.sampled:
            count = self.generation_batch // self.args.train_batch_size
            together = self.waiting[:count]
            prompts = [prompt for micro_batch in together for prompt in micro_batch]
            try:
                *ids, _ = self._generate(model, prompts)
            except Exception as error:
                if len(together) == 1 or not should_reduce_batch_size(error):
                    raise
                self.generation_batch = len(together) // 2 * self.args.train_batch_size
                print(
                    f"warning: out of memory while {len(prompts)} prompts were sampled in one call: going on with "
                    f"{self.generation_batch}; set generation_batch in the recipe to start with that",
                    file=sys.stderr,
                )
                clear_device_cache(garbage_collection=True)
                continue
            self.waiting = self.waiting[count:]
            self.sampled = split_responses(ids, [len(micro_batch) for micro_batch in together])
        return self.sampled.pop(0)

    def step_by_rows(
        self, model: torch.nn.Module, inputs: dict, rows: int, own: int, left: int, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """As ByRows.step_by_rows; `prompt` of the inputs holds the chat lists of a micro-batch."""
        prompts = inputs["prompt"]
        # Answers in rows: the first to every prompt, then the second to every prompt.
        ids = self._take_responses(model)
        policy, reference = self._sum_log_probabilities(model, ids)  # each (2, rows), nats
        rewards, whole, ended = self._rate_answers(prompts, *ids[2:])  # each (2, rows)
        first, paired = choose(rewards, whole)  # each (rows,)
        real = torch.arange(rows, device=ended.device) < own
        paired &= real
        sides = torch.stack([~first, first]).long()  # (2, rows): which answer is chosen, which rejected
        chosen, rejected = policy.gather(0, sides)
        gains = (policy - reference).gather(0, sides)
        lengths = ids[3].sum(1).view(2, -1).gather(0, sides)
        loss = (self._pair_losses(gains, lengths) * paired).sum() * WORLD / self.step_rows
        gains, better = self.beta * gains.detach(), rewards.gather(0, sides)
        self._add_metrics(
            {
                "objective/scores": (rewards, real & rewards.isfinite()),
                "objective/scores_margin": (better[0] - better[1], paired),
                "val/contain_eos_token": (ended, real),
                "logps/chosen": (chosen, paired),
                "logps/rejected": (rejected, paired),
                "rewards/chosen": (gains[0], paired),
                "rewards/rejected": (gains[1], paired),
                "rewards/margins": (gains[0] - gains[1], paired),
                "rewards/accuracies": (gains[0] > gains[1], paired),
                "no_pair": (~paired, real),
                "no_reward": (rewards.isnan(), real),
            }
        )
        self.accelerator.backward(loss)
        return loss.detach()

    def _forward(
        self,
        model: torch.nn.Module,
        prompts: torch.Tensor,
        prompt_mask: torch.Tensor,
        answers: torch.Tensor,
        answer_mask: torch.Tensor,
        *args: Any,
    ) -> torch.Tensor:
        """As TRL's, with each token's position in its own row, as in sampling: prompts are padded on the left.

        A model with an embedding for each position would otherwise see a prompt beside a longer one further on.
        """
        policy = find_base(getattr(model, "module", model))
        if "position_ids" in inspect.signature(type(policy).forward).parameters:
            positions = (torch.cat([prompt_mask, answer_mask], 1).cumsum(1) - 1).clamp(min=0)
            model = functools.partial(model, position_ids=positions)
        return super()._forward(model, prompts, prompt_mask, answers, answer_mask, *args)

    def _sum_log_probabilities(
        self, model: torch.nn.Module, ids: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities (nats) of the answers under policy and reference, each (2, prompts); gradients of the first."""
        mask = ids[3]  # (2 x prompts, tokens), 0 behind an answer's end
        policy = (self._forward(model, *ids) * mask).sum(1)
        with torch.no_grad(), contextlib.ExitStack() as without:
            if self.ref_model is None:
                without.enter_context(self.model.disable_adapter())
            reference = self._forward(self.ref_model or self.model, *ids)
        reference = (reference * mask).sum(1)
        return policy.view(2, -1), reference.view(2, -1)

    def _rate_answers(
        self, prompts: list[list[dict]], ids: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(rewards, nan where unknown; whether it ended and is not empty; whether it ended), each (2, prompts).

        Args:
            prompts: chat lists; ``ids``, ``mask``: of the answers' tokens, each (2 x prompts, tokens).
        """
        count = len(prompts)
        stop = torch.isin(ids, torch.tensor(self.eos_token_ids, device=ids.device))
        ended = stop.any(1).view(2, count)
        # A stop token is no part of the text, even where the tokenizer does not mark it special.
        answers = [row[kept].tolist() for row, kept in zip(ids, mask.bool() & ~stop, strict=True)]
        # Spaces stay as they are in sampled responses (ChatModel.response).
        as_they_are = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        texts = [self.processing_class.decode(answer, **as_they_are) for answer in answers]
        # Once for two equal answers, which neighbours in a batch could tell apart by their last bits.
        keys = [(i % count, text) for i, text in enumerate(texts)]
        once = list(dict.fromkeys(keys))
        known = dict(zip(once, self.scorer.score([(prompts[i], text) for i, text in once]), strict=True))
        scores = [math.nan if known[key][0] is None else known[key][0] for key in keys]
        rewards = torch.tensor(scores, dtype=torch.float64, device=ids.device).view(2, count)
        whole = ended & torch.tensor([not is_blank(text) for text in texts], device=ids.device).view(2, count)
        return rewards, whole, ended

    def _pair_losses(self, gains: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The loss of each pair, as DPOTrainer's: ipo's is of gains per token.

        ``gains`` (nats) of the policy over its reference, and ``lengths`` (tokens), of the chosen answers and of the
        rejected ones, both (2, pairs).
        """
        if self.args.loss_type == "sigmoid":
            return -logsigmoid(self.beta * (gains[0] - gains[1]))
        chosen, rejected = gains / lengths.clamp(min=1)
        return (chosen - rejected - 1 / (2 * self.beta)) ** 2

    def _add_metrics(self, metrics: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Adds to this step's sums {name: (values, which of them count)}."""
        for name, (values, mask) in metrics.items():
            mask = mask.expand_as(values)
            part = torch.stack([values.detach()[mask].double().sum(), mask.sum()])
            self.sums[name] = self.sums.get(name, 0) + part

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As Trainer's, with the means of this project's metrics over all rows since the last entry."""
        if self.sums:
            totals = self.accelerator.reduce(torch.stack(list(self.sums.values())), "sum").tolist()
            logs |= {
                name: total / count if count else math.nan
                for name, (total, count) in zip(self.sums, totals, strict=True)
            }
            for name in ("no_pair", "no_reward"):
                logs[name] = int(totals[list(self.sums).index(name)][0])
            self.sums = {}
        super().log(logs, *args, **kwargs)


def split_responses(ids: list[torch.Tensor], sizes: list[int]) -> list[list[torch.Tensor]]:
    """The parts of a sampled batch that belong to micro-batches of ``sizes`` prompts, without columns of padding only.

    Args:
        ids: ids and mask of the prompts, padded on the left, then of the answers, padded on the right; each
            (2 x prompts, tokens), with the first answers before the second ones. The parts have the same form.
    """
    parts, start = [], 0
    for size in sizes:
        numbers = range(start, start + size)
        part = take_rows(dict(enumerate(ids)), sum(sizes), numbers)
        used = [part[1].any(0), part[3].any(0)]
        parts.append([part[0][:, used[0]], part[1][:, used[0]], part[2][:, used[1]], part[3][:, used[1]]])
        start += size
    return parts


def choose(rewards: torch.Tensor, whole: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(whether the first of two answers is chosen, whether the two form a pair), each of the shape (prompts,).

    ``rewards`` and ``whole``, which is false where an answer was cut off or is empty, have the shape (2, prompts): the
    first answers and the second ones. One that is not whole loses, and two of them, or two of equal reward, form no
    pair, as offline; nor does one whose reward is unknown (nan).
    """
    first = (whole[0] & ~whole[1]) | ((whole[0] == whole[1]) & (rewards[0] >= rewards[1]))
    told_apart = (whole[0] != whole[1]) | (whole[0] & whole[1] & (rewards[0] != rewards[1]))
    return first, told_apart & ~rewards.isnan().any(0)
