"""The vLLM engine, for GPUs, and for tests on the CPU build.

Policy and RewardModel keep the contract of engines.PolicyEngine and RewardEngine.

vLLM gets token ids, never text, so no special token is added twice. A prompt's samples share its prefill, and sample j
has the seed ``first + j``. A GPU's generator uses all 63 bits of the seed, the CPU build (for tests) the low 32.
Requests are added while others run, so the GPU does not wait at the end of a chunk.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from croco.errors import InputError
from croco.models.chats import ChatModel, ChatScorer, check_reward
from croco.models.loading import POLICY, REWARD_MODEL, check_files

ON_CPU = not torch.cuda.is_available()
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
# One process: seeded samples are then the same in every run.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
if ON_CPU:
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

from vllm import LLM, PoolingParams, SamplingParams  # noqa: E402 (reads the environment)
from vllm.lora.request import LoRARequest  # noqa: E402


def start(
    path: str | Path,
    revision: str | None,
    dtype: str,
    trust_remote_code: bool,
    options: dict,
    length: int | None,
    **needed: Any,
) -> LLM:
    """A vLLM engine; ``options`` come from the config and override all that is set here.

    ``length``: the context in tokens, None for vLLM's own choice; ``needed``: further arguments of vllm.LLM.

    Raises InputError where vLLM cannot load the model or refuses an option.
    """
    defaults = {
        "max_model_len": length,
        "generation_config": "vllm",  # the model's own would be the defaults of lm-eval's requests
        "tensor_parallel_size": max(1, torch.cuda.device_count() // options.get("pipeline_parallel_size", 1)),
    }
    if ON_CPU:
        # Seeded requests with chunked prefill end the process on the CPU.
        defaults |= {"enforce_eager": True, "enable_chunked_prefill": False}
        defaults["max_num_batched_tokens"] = max(2048, options.get("max_model_len", length) or 0)
    try:
        return LLM(
            model=path,
            revision=revision,
            tokenizer_revision=revision,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            load_format="safetensors",
            **{**defaults, **needed, **options},
        )
    except Exception as error:  # of any kind, from the class's own code, such as a KeyError for a missing token
        # The files were checked before, so that this is vLLM's own reason, such as a class that it does not support.
        raise InputError(
            f"vLLM refuses the model or its options: {type(error).__name__}: {error}",
            "follow vLLM's own message above; check engine_options and the GPU's memory, or write engine: transformers",
            path,
        ) from error


class Policy(ChatModel):
    """A causal language model under vLLM; arguments and errors as in transformers_engine."""

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
        check_files(POLICY, path, revision, trust_remote_code, adapter)
        options = options or {}
        lora: dict[str, Any] = {"enable_lora": True, "max_lora_rank": find_rank(adapter)} if adapter else {}
        # With the output layer among them, vLLM could not give the log-probabilities of a prompt, which lm-eval asks for.
        lora |= {"lora_target_modules": list_targets(adapter)} if adapter else {}
        self.llm = start(path, revision, dtype, trust_remote_code, options, self.context, **lora)
        # From engine_options, or from vLLM if the model states no context length.
        self.context = self.llm.llm_engine.model_config.max_model_len
        self.lora = LoRARequest("adapter", 1, str(adapter)) if adapter else None
        if adapter:
            check_reached(self.llm, adapter)

    def sample(
        self,
        requests: list[tuple[list[int], int, int]],
        temperature: float,
        top_p: float,
        max_tokens: int,
        at_once: int = 1,
    ) -> Iterator[tuple[int, list[dict]]]:
        """Samples of many prompts.

        Args:
            requests: [(token ids, seed of the first sample, how many)]; no tensors: lists of int go in and come out.
            at_once: number of prompts in memory at a time.
        Yields (index of the request, its responses in sample order), as they are finished; greedy ones are all the same,
        and vLLM takes such a request for one alone.
        """
        waiting, running = iter(enumerate(requests)), {}

        def feed() -> None:
            """Hands requests to the engine, as many at once as the caller allows."""
            for index, (tokens, seed, count) in waiting:
                room = self.room(tokens, max_tokens)
                parameters = SamplingParams(
                    n=count if temperature else 1,
                    seed=seed,
                    temperature=temperature,
                    top_p=top_p,
                    max_tokens=room,
                    stop_token_ids=sorted(self.stops),
                    ignore_eos=True,  # these stop tokens alone, as under transformers, not the tokenizer's too
                    detokenize=False,
                )
                (name,) = self.llm.enqueue(
                    {"prompt_token_ids": tokens}, parameters, lora_request=self.lora, use_tqdm=False
                )
                # vLLM adds "-" and eight random characters to the id in its outputs.
                running[name.rsplit("-", 1)[0]] = index, room, 1 if temperature else count
                if len(running) >= at_once:
                    return

        feed()
        while running:
            for output in self.llm.llm_engine.step():
                if output.finished:
                    index, room, times = running.pop(output.request_id)
                    samples = sorted(output.outputs, key=lambda sample: sample.index)
                    yield index, [self.response(sample.token_ids, room) for sample in samples * times]
            if len(running) < at_once:
                feed()

    def respond(
        self, prompts: list[list[int]], seeds: list[int], temperature: float, top_p: float, max_tokens: int
    ) -> list[dict]:
        """One response to each prompt; temperature 0 is greedy."""
        requests = [(tokens, seed, 1) for tokens, seed in zip(prompts, seeds, strict=True)]
        found = dict(self.sample(requests, temperature, top_p, max_tokens, at_once=4096))
        return [found[index][0] for index in range(len(prompts))]

    def close(self) -> None:
        """Gives the GPU's memory back."""
        import gc

        from vllm.distributed import cleanup_dist_env_and_memory

        del self.llm
        gc.collect()
        cleanup_dist_env_and_memory()


class RewardModel(ChatScorer):
    """A sequence classifier with one logit under vLLM."""

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
        check_files(REWARD_MODEL, path, revision, trust_remote_code)
        options = options or {}
        self.max_length = min(self.max_length, options.get("max_model_len", self.max_length))
        self.llm = start(path, revision, dtype, trust_remote_code, options, self.max_length, runner="pooling")

    def classify(self, encoded: list[tuple[list[int] | None, str | None]]) -> list[tuple[float | None, str | None]]:
        """As score, for chats that ``encode`` returned."""
        fitting = [{"prompt_token_ids": tokens} for tokens, _ in encoded if tokens is not None]
        # The default activation would give sigmoid(logit).
        outputs = iter(
            self.llm.classify(fitting, pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
            if fitting
            else []
        )
        # The field `probs` of a pooling output holds one number, the raw logit.
        return [(None, reason) if reason else check_reward(next(outputs).outputs.probs[0]) for _, reason in encoded]


def check_reached(llm: LLM, adapter: str | Path) -> None:
    """Raises InputError if modules of an adapter have no counterpart in vLLM's model: vLLM would ignore them."""
    from vllm.lora.utils import parse_fine_tuned_lora_name

    found = llm.apply_model(name_modules)  # of each worker: with a pipeline, one has the layers of its stage
    modules, (_, mapper, packed) = {name for names, _, _ in found for name in names}, found[0]
    names = {parse_fine_tuned_lora_name(name, mapper)[0] for name in read_names(adapter)}
    parts = {part: whole for whole, several in packed.items() for part in several}

    def is_there(name: str) -> bool:
        place, _, last = name.rpartition(".")
        return name in modules or f"{place}.{parts.get(last, last)}" in modules

    missed = sorted(name for name in names if not is_there(name))
    if missed:
        raise InputError(
            f"vLLM's model has no modules for {len(missed)} of the {len(names)} that the adapter changes, such as {missed[0]}",
            "evaluate with engine: transformers, or merge the adapter (target release) and give that model",
            adapter,
            field="engine",
        )


def name_modules(
    model: torch.nn.Module,
) -> tuple[set[str], Callable | None, dict[str, list[str]]]:
    """(names of all modules, how weights are renamed or None, {module: the ones that it packs}); runs in the worker."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    names = {name for name, _ in model.named_modules()}
    # Once an adapter is loaded, the module itself is a part of its wrapper.
    names |= {name.removesuffix(".base_layer") for name in names}
    return names, mapper and mapper.get_rename_mapper(), dict(getattr(model, "packed_modules_mapping", {}))


def find_rank(adapter: str | Path) -> int:
    """The smallest maximal LoRA rank that vLLM offers for an adapter."""
    from peft import PeftConfig

    rank = PeftConfig.from_pretrained(str(adapter)).r
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)


def list_targets(adapter: str | Path) -> list[str]:
    """The modules that an adapter changes, by the last part of their names."""
    return sorted({name.split(".lora_")[0].rpartition(".")[2] for name in read_names(adapter)})


def read_names(adapter: str | Path) -> list[str]:
    """The names of an adapter's tensors."""
    from safetensors import safe_open

    with safe_open(Path(adapter) / "adapter_model.safetensors", "numpy") as file:
        return list(file.keys())
