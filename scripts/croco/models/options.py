"""Options of the command lines that load a model."""

from argparse import ArgumentParser
from pathlib import Path

from croco import cli

ENGINES = ("transformers", "vllm")
DTYPES = ("float32", "bfloat16", "float16")


def add_model_options(parser: ArgumentParser, required: bool = True) -> None:
    """A model that is loaded: --model, --revision, --dtype, --trust-remote-code."""
    parser.add_argument("--model", required=required, help="local folder or hub id")
    parser.add_argument("--revision", help="commit or tag on the hub")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="of the weights")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")


def add_engine_options(
    parser: ArgumentParser,
    batch: str = "rows per forward pass of the transformers engine; vLLM makes its own batches",
    required: bool = True,
) -> None:
    """A model that is run: which engine, and its own options; ``batch`` is the help of --batch."""
    add_model_options(parser, required)
    parser.add_argument("--engine", choices=ENGINES, default="transformers", help="library that runs the model")
    parser.add_argument(
        "--engine-options",
        type=cli.mapping("engine_options"),
        default={},
        metavar="JSON",
        help="""passed to vllm.LLM or from_pretrained, e.g. '{"gpu_memory_utilization": 0.85}'""",
    )
    parser.add_argument("--batch", type=cli.positive, default=64, help=batch)


def add_template_options(parser: ArgumentParser) -> None:
    """Variables of the chat template."""
    parser.add_argument(
        "--template-options",
        type=cli.mapping("template_options"),
        default={},
        metavar="JSON",
        help="""variables of the chat template, e.g. '{"enable_thinking": false}'""",
    )


def add_reward_options(parser: ArgumentParser) -> None:
    """A reward model that scores chats."""
    add_engine_options(parser, batch="texts per forward pass of the transformers engine")
    add_template_options(parser)
    parser.add_argument("--max-length", type=cli.positive, default=4096, help="tokens of prompt and response at most")


def add_chat_options(parser: ArgumentParser, required: bool = True) -> None:
    """A model that writes answers."""
    add_engine_options(parser, required=required)
    add_template_options(parser)


def add_adapter_option(parser: ArgumentParser) -> None:
    """A LoRA adapter on the model."""
    parser.add_argument("--adapter", type=Path, help="checkpoint folder with a LoRA adapter (default: the base model)")


def add_policy_options(parser: ArgumentParser) -> None:
    """A policy with its sampling parameters."""
    add_chat_options(parser)
    parser.add_argument("--temperature", type=cli.number(0), default=1.0, help="0 is greedy")
    parser.add_argument(
        "--top-p", type=cli.number(above=0, most=1), default=1.0, help="share of probability to sample from"
    )
    parser.add_argument("--max-tokens", type=cli.positive, default=4096, help="tokens per response at most")
    parser.add_argument("--seed", type=cli.whole(0), default=0, help="the run's seed")
