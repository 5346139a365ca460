"""What each role asks of a model's class, weights, tokenizer and chat template; no weights are loaded."""

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from croco.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ROLES = ("policy", "reward", "judge", "translator")
# Image-text classes that vLLM was seen to refuse without their processors' files. Others may have such files elsewhere.
NEEDS_PROCESSORS = {"Gemma3ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"}


def load_with_stops(
    path: str | Path, revision: str | None = None, trust_remote_code: bool = False
) -> "tuple[PreTrainedTokenizerBase, Collection[int]]":
    """(tokenizer, ids of the tokens that end a generation); raises InputError where they cannot be loaded."""
    from transformers import AutoTokenizer

    from croco.models.chats import TEMPLATED, load_stops
    from croco.models.loading import model_errors

    with model_errors(path):
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code, **TEMPLATED
        )
        return tokenizer, load_stops(path, tokenizer, revision, trust_remote_code)


def examine_as(
    role: str,
    tokenizer: "PreTrainedTokenizerBase",
    stops: Collection[int],
    options: dict | None = None,
    form: str | None = None,
    template: str | None = None,
) -> dict:
    """The report of template_check on a model in a role, one of ROLES.

    ``options`` are variables of the chat template; ``form`` and ``template`` say how a translator is asked. Raises
    InputError for an option that is an argument of apply_chat_template instead of a variable.
    """
    from croco.models.template_check import examine, examine_translator, examine_untrained

    taken = sorted(set(options or {}) & set(inspect.signature(tokenizer.apply_chat_template).parameters))
    if taken:
        raise InputError(
            f"{', '.join(taken)} cannot be set", "name variables of the template", field="template_options"
        )
    if role == "policy":
        return examine(tokenizer, stops, options)
    if role == "translator":
        return examine_translator(tokenizer, str(form), template, options)
    return examine_untrained(tokenizer, options, answers=role == "reward")


def load_config(path: str | Path, revision: str | None = None, trust_remote_code: bool = False) -> "PreTrainedConfig":
    """The model's config; raises InputError where the model cannot be found or is of an unknown class."""
    from transformers import AutoConfig

    from croco.models.loading import model_errors

    with model_errors(path):
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)


def check_processors(path: str | Path, revision: str | None = None, trust_remote_code: bool = False) -> None:
    """Raises InputError for an image-text model without the files that vLLM needs to load it, even for text alone."""
    from transformers.utils import cached_file

    from croco.models.loading import PROCESSORS

    if not NEEDS_PROCESSORS & set(load_config(path, revision, trust_remote_code).architectures or []):
        return
    if not any(
        cached_file(path, name, revision=revision, _raise_exceptions_for_missing_entries=False) for name in PROCESSORS
    ):
        raise InputError(
            f"vLLM does not load an image-text model without {' or '.join(PROCESSORS)} (Can't load image processor)",
            "copy them from the model that it was made from, or write engine: transformers",
            path,
        )


def load_skeleton(
    role: str, path: str | Path, revision: str | None = None, trust_remote_code: bool = False
) -> "PreTrainedModel | None":
    """The model on the meta device with the shapes in its files, here or on the hub.

    Returns None where its weights are not on this machine and HF_HUB_OFFLINE is set. Raises InputError where the files
    do not have what the role needs, as loading.check_files does.
    """
    from huggingface_hub import is_offline_mode

    from croco.models.chats import check_one_logit
    from croco.models.loading import POLICY, REWARD_MODEL, check_files, has_weights

    if role == "reward":
        check_one_logit(load_config(path, revision, trust_remote_code), path)
    if is_offline_mode() and not has_weights(path, revision):
        return None
    return check_files(REWARD_MODEL if role == "reward" else POLICY, path, revision, trust_remote_code)
