"""What both engines share: a model's tokenizer and chat template, sampled token ids as responses, clear load errors."""

import hashlib
import re
from contextlib import contextmanager

from croco.records import InputError

# Why a prompt is given no response.
TOO_LONG, REFUSED = "prompt_too_long", "refused_by_template"


class ChatModel:
    """A policy's tokenizer, stop tokens and sizes; the engines add the model.

    Args:
        path: local folder or hub id; ``adapter``: checkpoint folder of a LoRA adapter, or None.
        template_options: further variables of the chat template, e.g. {"enable_thinking": False}.
    Raises InputError for a model that cannot be loaded, without a chat template, or with an adapter trained with
    another tokenizer.
    """

    def __init__(self, path, revision=None, trust_remote_code=False, template_options=None, adapter=None):
        from transformers import AutoConfig

        self.path, self.adapter, self.template_options = path, adapter, template_options or {}
        with model_errors(path):
            self.tokenizer = load_tokenizer(path, revision, trust_remote_code)
            config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
        self.stops = set(load_stops(path, self.tokenizer, revision, trust_remote_code))
        self.context = state_context(config)
        self.vocabulary = config.get_text_config().vocab_size
        if adapter:
            self._check_adapter(adapter)

    def _check_adapter(self, adapter):
        with model_errors(adapter):
            trained = load_tokenizer(adapter)
        if trained.get_vocab() != self.tokenizer.get_vocab() or trained.chat_template != self.tokenizer.chat_template:
            raise InputError(
                f"the adapter was trained with another tokenizer or chat template than {self.path} has",
                "give the model that the adapter was trained from",
                adapter,
            )

    def encode(self, messages):
        """Token ids of a chat with the generation prompt; the template alone adds special tokens (no second BOS).

        Raises InputError for ids that the model has no embedding for.
        """
        return check_ids(encode_prompt(self.tokenizer, messages, self.template_options), self.vocabulary, self.path)

    def prepare(self, messages, max_tokens):
        """(token ids of a chat, None), or (None, the reason to skip it: TOO_LONG or REFUSED)."""
        from jinja2.exceptions import TemplateError

        try:
            tokens = self.encode(messages)
        except TemplateError:  # e.g. a template that knows no system messages
            return None, REFUSED
        return (tokens, None) if self.room(tokens, max_tokens) else (None, TOO_LONG)

    def room(self, tokens, max_tokens):
        """How many tokens a response may have, 0 where the prompt is too long.

        A response may take max_tokens, or what the context leaves, which must be half of it at least. A model that
        states no context length has no limit but max_tokens.
        """
        if self.context is None:
            return max_tokens
        left = self.context - len(tokens)
        return min(max_tokens, left) if left >= min(max_tokens, self.context // 2) else 0

    def response(self, tokens, room):
        """A sampled sequence as a row of the generations: text, finish_reason (stop or length), n_tokens, token_digest.

        The stop token counts as a token and is not part of the text, even where the tokenizer does not mark it special.
        """
        stop = next((i for i, token in enumerate(tokens[:room]) if token in self.stops), None)
        tokens = tokens[:room] if stop is None else tokens[: stop + 1]
        return {
            "text": self.tokenizer.decode(tokens[:stop], skip_special_tokens=True),
            "finish_reason": "length" if stop is None else "stop",
            "n_tokens": len(tokens),
            "token_digest": digest_tokens(tokens),
        }


class ChatScorer:
    """A reward model's tokenizer and sizes; the engines add the model.

    Raises InputError for a model with another number of logits than one, or without a chat template.
    """

    def __init__(self, path, revision=None, max_length=4096, trust_remote_code=False):
        from transformers import AutoConfig

        self.path = path
        with model_errors(path):
            config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
            if config.num_labels != 1:
                raise InputError(
                    f"the model has {config.num_labels} logits, a reward model has one",
                    "name a Bradley-Terry reward model (num_labels 1)",
                    path,
                )
            self.tokenizer = load_tokenizer(path, revision, trust_remote_code)
        self.vocabulary = config.get_text_config().vocab_size
        self.max_length = min(max_length, state_context(config) or max_length)

    def encode(self, messages, answer):
        """Token ids of a prompt's chat with an answer, or None where they are more than max_length."""
        chat = [*messages, {"role": "assistant", "content": answer}]
        ids = self.tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"]
        return check_ids(ids, self.vocabulary, self.path) if len(ids) <= self.max_length else None


def state_context(config):
    """The context length of a model in tokens, or None where its config states none (as BLOOM's)."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def digest_tokens(tokens):
    """By which sampled and trained token ids are compared; 16 hex digits."""
    return hashlib.sha256(str(list(tokens)).encode()).hexdigest()[:16]


def encode_prompt(tokenizer, messages, options=None):
    """Token ids, a list of int, of a chat with the generation prompt.

    ``options`` are extra variables of the template, {name: value} or None. The template alone adds special tokens:
    there is no second BOS. Raises jinja2.TemplateError where the template refuses the chat.
    """
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, **(options or {})
    )["input_ids"]


def load_tokenizer(path, revision=None, trust_remote_code=False):
    """A tokenizer with a chat template; raises InputError without one."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    if tokenizer.chat_template is None:
        raise InputError(
            "the tokenizer has no chat template",
            "use an instruction-tuned model, or add chat_template.jinja to its folder",
            path,
        )
    return tokenizer


def load_stops(path, tokenizer, revision=None, trust_remote_code=False):
    """Ids of the tokens that generation ends at, a list: the generation config's, else the model's; and the tokenizer's."""
    from transformers import AutoConfig, GenerationConfig

    try:
        stops = GenerationConfig.from_pretrained(path, revision=revision).eos_token_id
    except OSError:  # a model without generation_config.json
        stops = None
    if stops is None:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
        stops = config.get_text_config().eos_token_id
    stops = stops if isinstance(stops, list) else [] if stops is None else [stops]
    # vLLM and TRL stop at it in any case.
    end = tokenizer.eos_token_id
    return stops if end is None or end in stops else [*stops, end]


def check_ids(ids, vocabulary, path):
    if ids and max(ids) >= vocabulary:
        raise InputError(
            f"the tokenizer gives the id {max(ids)}, the model has {vocabulary} embeddings",
            "the tokenizer belongs to another model: put the model's own files in its folder",
            path,
        )
    return ids


@contextmanager
def model_errors(path):
    """Turns the libraries' errors about a model that cannot be loaded into one that names it and the remedy."""
    try:
        yield
    except Exception as error:
        from huggingface_hub.errors import GatedRepoError
        from safetensors import SafetensorError

        # A bare RuntimeError of transformers' and PEFT's loaders; torch's own, as of a full GPU, are other matters.
        wrong_weights = isinstance(error, RuntimeError) and re.search(
            r"loading state_dict|conversion of the weights", str(error)
        )
        if not (wrong_weights or isinstance(error, OSError | ValueError | SafetensorError)):
            raise

        gated = any(isinstance(cause, GatedRepoError) for cause in (error, error.__cause__, error.__context__))
        raise InputError(
            f"the model cannot be loaded: {error}",
            "accept its licence on the hub with the account of your token, and log in (hf auth login)"
            if gated
            else "check the path or hub id and revision, that weights (safetensors) and tokenizer are there, and access to a gated model",
            path,
        ) from error
