"""lm-eval on a loaded policy of either engine, so that tasks need no second load of the model.

Under vLLM an adapter stays separate from the weights, as in generation: merging it into 16 bits would round away most
changes of a small learning rate.
"""

import itertools
from argparse import Namespace
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from jinja2 import TemplateError

from croco.errors import InputError
from croco.models.chats import state_context
from croco.models.loading import model_errors

if TYPE_CHECKING:
    from lm_eval.api.model import LM

MAX_GEN_TOKS = 256  # lm-eval's limit for an answer if a task states none, with both engines


def check_options(args: Namespace) -> None:
    """Raises InputError for what lm-eval cannot do, before a model is loaded."""
    if args.template_options.get("enable_thinking"):
        raise InputError(
            "lm-eval runs no tasks with enable_thinking: a choice would be ranked where a thought begins",
            "evaluate with template_options: {enable_thinking: false}, or without tasks",
            field="template_options",
        )


def check_lengths(args: Namespace, tasks: Iterable[Mapping[str, Any]]) -> None:
    """Raises InputError where answers to a task may fill the model's context, before the model is loaded.

    lm-eval keeps room for the longest answer, so that nothing of a prompt would be left. ``tasks``: {name: lm-eval's
    task}, several times.
    """
    longest = {
        name: _longest_answer(task.config.generation_kwargs or {})
        for named in tasks
        for name, task in named.items()
        if task.OUTPUT_TYPE == "generate_until"
    }
    context = _find_context(args) if longest else None
    if too_long := [f"{name} ({length})" for name, length in longest.items() if context and length >= context]:
        raise InputError(
            f"answers may take as many tokens (max_gen_toks) as the model's context of {context}, or more: "
            + ", ".join(too_long),
            "lower max_gen_toks in the YAML of your own task; remove a task of lm-eval from the language's row in "
            "config/languages.tsv; or evaluate a model with a longer context (under vLLM, see max_model_len)",
        )


def _longest_answer(settings: dict) -> int:
    """Tokens of an answer at most, by a request's settings."""
    from lm_eval.models.utils import normalize_gen_kwargs

    return normalize_gen_kwargs(settings, MAX_GEN_TOKS)["max_gen_toks"]


def _find_context(args: Namespace) -> int | None:
    """The context in tokens of a model that is not loaded yet, None where only the engine will know."""
    from transformers import AutoConfig

    asked = args.engine_options.get("max_model_len") if args.engine == "vllm" else None
    if asked is not None:
        return asked if isinstance(asked, int) and asked > 0 else None  # such as "auto"
    with model_errors(args.model):
        config = AutoConfig.from_pretrained(
            args.model, revision=args.revision, trust_remote_code=args.trust_remote_code
        )
    return state_context(config)


def wrap(policy: Any, args: Namespace) -> "LM":
    """The policy as a model of lm-eval.

    Its chats are rendered as the policy's own prompts are, with the same variables of the chat template. The template
    alone adds special tokens: there is no second BOS.
    """
    model = _wrap(policy, args)
    model.controls, model.forged = policy.controls, set()

    def note_forged(chat: list[dict], add_generation_prompt: bool = True) -> str:
        """Collects the rendered chats in which a text spells control tokens: lm-eval would encode it as these tokens."""
        text = _render(policy, chat, add_generation_prompt, args.template_options)
        if policy.controls.in_chat(chat):
            model.forged.add(text)
        return text

    model.apply_chat_template = note_forged
    # transformers does not read the last token; vLLM always writes one.
    _note_cut(model, model.max_length + 1 if args.engine == "transformers" else model.max_length - 1)
    return model


def _render(policy: Any, chat: list[dict], add_generation_prompt: bool, options: dict) -> str:
    """A chat as text; as in lm-eval, without its system messages where the template refuses them."""
    try:
        return policy.tokenizer.apply_chat_template(
            chat,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **options,
        )
    except TemplateError:
        rest = [message for message in chat if message["role"] != "system"]
        if rest == chat:
            raise
        return _render(policy, rest, add_generation_prompt, options)


def _note_cut(model: Any, most: int) -> None:
    """Collects in ``model.cut`` the arguments of the requests that lm-eval cuts from the left to fit the context.

    ``most``: how many tokens of prompt and continuation together fit, where a log-likelihood is asked for.
    """
    model.cut = set()
    rank, generate = model._loglikelihood_tokens, model.generate_until

    def note_ranked(requests: list[tuple], *args: Any, **options: Any) -> Any:
        for texts, context, continuation in requests:
            if texts and len(context) + len(continuation) > most:  # without texts: a window of a longer text
                model.cut.add(_name_request(texts))
        return rank(requests, *args, **options)

    def note_generated(requests: list, *args: Any, **options: Any) -> Any:
        for request in requests:
            text, settings = request.args
            if len(model.tok_encode(text)) > model.max_length - _longest_answer(settings):
                model.cut.add(_name_request(request.args))
        return generate(requests, *args, **options)

    model._loglikelihood_tokens, model.generate_until = note_ranked, note_generated


def _name_request(arguments: tuple) -> tuple[str, ...]:
    """A request's prompt with its continuation, or with its settings, which are a dict."""
    return tuple(map(str, arguments))


def count_cut(model: Any, samples: Iterable[dict]) -> int:
    """How many requests of lm-eval's samples were cut from the left to fit the model's context."""
    return sum(_name_request(arguments) in model.cut for sample in samples for arguments in sample["arguments"])


def is_forged(model: Any, sample: dict) -> bool:
    """Whether the document of one of lm-eval's samples, or a chat made from it, spells control tokens."""
    chats = [arguments[0] for arguments in sample["arguments"] if isinstance(arguments[0], str)]
    return any(map(model.controls.in_text, _list_texts(sample["doc"]))) or not model.forged.isdisjoint(chats)


def _list_texts(value: Any) -> list[str]:
    """All texts in a document."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for part in parts for text in _list_texts(part)]


def _wrap(policy: Any, args: Namespace) -> Any:
    """lm-eval's model class around the model that the policy has loaded."""
    if args.engine == "transformers":
        from lm_eval.models.huggingface import HFLM

        model = HFLM(
            pretrained=policy.model,
            tokenizer=policy.tokenizer,
            batch_size=args.batch,
            max_length=policy.context,
            add_bos_token=False,
        )
        generate = model._model_generate

        def generate_from_all(*args: Any, **options: Any) -> Any:
            """If a task samples, transformers would keep only the 50 likeliest tokens; vLLM keeps all."""
            return generate(*args, **({"top_k": 0} if options.get("do_sample") else {}) | options)

        def decode_answer(tokens: list[int], skip_special_tokens: bool = True) -> str:
            """Text of an answer up to its stop token; lm-eval knows only the tokenizer's own, and would tidy spaces."""
            if skip_special_tokens:
                tokens = [*itertools.takewhile(lambda token: token not in policy.stops, tokens)]
            return policy.tokenizer.decode(
                tokens, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
            )

        model._model_generate, model.tok_decode = generate_from_all, decode_answer
        return model
    from lm_eval.models import vllm_causallms

    with patch.object(vllm_causallms, "LLM", lambda **_: policy.llm):
        model = vllm_causallms.VLLM(
            pretrained=args.model,
            revision=args.revision,
            tokenizer_revision=args.revision,
            trust_remote_code=args.trust_remote_code,
            max_model_len=policy.context,
            add_bos_token=False,
        )
    model.lora_request = policy.lora
    generate = model.modify_gen_kwargs

    def answer_as_transformers(*args: Any, **options: Any) -> tuple:
        """As in the transformers back end, only the policy's stop tokens count, and answers have no special tokens."""
        chosen, *rest = generate(*args, **options)
        return chosen | {
            "skip_special_tokens": True,
            "ignore_eos": True,
            "stop_token_ids": sorted(policy.stops),
        }, *rest

    model.modify_gen_kwargs = answer_as_transformers
    return model


def run(model: "LM", tasks: dict[str, Any], limit: int | None = None) -> dict:
    """lm-eval's output for {name: Task}; ``limit`` is the number of documents per task, or None for all."""
    import random

    import numpy as np
    import torch
    from lm_eval import evaluate

    # Not simple_evaluate, which asks pip for the environment each time; these are its seeds.
    random.seed(0)
    np.random.seed(1234)
    torch.manual_seed(1234)
    for task in tasks.values():
        task.set_fewshot_seed(seed=1234)
    return evaluate(
        lm=model,
        task_dict={"tasks": tasks, "groups": {}},
        limit=limit,
        apply_chat_template=True,
        log_samples=True,
        bootstrap_iters=0,
        verbosity="ERROR",
    )
