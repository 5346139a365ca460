"""What both engines share: a model's tokenizer and chat template, sampled token ids as responses."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from croco.errors import InputError
from croco.models.loading import model_errors

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

# Why a prompt is given no response. CONTROL: its text would become control tokens (see Controls).
TOO_LONG, REFUSED, CONTROL = "prompt_too_long", "refused_by_template", "control_tokens"
SKIPS = (TOO_LONG, REFUSED, CONTROL)
# Why a response has no reward, besides REFUSED and CONTROL.
LONG_CHAT, NOT_FINITE = "too_long", "not_finite"

# mistral-common, which comes with vLLM, has tokenizers whose template cannot be inspected.
TEMPLATED = {"mistral_format": False}
UNUSABLE = (TemplateError, TypeError, ValueError)  # errors of a template, raised on purpose or not
THINKING = re.compile("think|thought|reason", re.IGNORECASE)


class ChatModel:
    """A policy's tokenizer, stop tokens and sizes; the engines add the model.

    Args:
        path: local folder or hub id; ``adapter``: checkpoint folder of a LoRA adapter, or None.
        template_options: further variables of the chat template, e.g. {"enable_thinking": False}.
    Raises InputError for a model that cannot be loaded, without a chat template, or with an adapter trained with
    another tokenizer.
    """

    def __init__(
        self,
        path: str | Path,
        revision: str | None = None,
        trust_remote_code: bool = False,
        template_options: dict | None = None,
        adapter: str | Path | None = None,
    ) -> None:
        from transformers import AutoConfig

        self.path, self.adapter, self.template_options = path, adapter, template_options or {}
        with model_errors(path):
            self.tokenizer = load_tokenizer(path, revision, trust_remote_code, self.template_options)
            config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
            self.stops = set(load_stops(path, self.tokenizer, revision, trust_remote_code))
        self.context = state_context(config)
        self.vocabulary = config.get_text_config().vocab_size
        self.controls = Controls(self.tokenizer, self.template_options)
        if adapter:
            self._check_adapter(adapter, trust_remote_code)

    def _check_adapter(self, adapter: str | Path, trust_remote_code: bool) -> None:
        with model_errors(adapter):
            trained = load_tokenizer(adapter, None, trust_remote_code, self.template_options)
        if (trained.get_vocab(), trained.get_chat_template()) != (
            self.tokenizer.get_vocab(),
            self.tokenizer.get_chat_template(),
        ):
            raise InputError(
                f"the adapter was trained with another tokenizer or chat template than {self.path} has",
                "give the model that the adapter was trained from",
                adapter,
            )

    def encode(self, messages: list[dict]) -> list[int]:
        """Token ids of a chat with the generation prompt; the template alone adds special tokens (no second BOS).

        Raises jinja2.TemplateError where the template refuses the chat, InputError for ids that the model has no
        embedding for.
        """
        return check_ids(encode_prompt(self.tokenizer, messages, self.template_options), self.vocabulary, self.path)

    def prepare(self, messages: list[dict], max_tokens: int) -> tuple[list[int] | None, str | None]:
        """(token ids of a chat, None), or (None, the reason to skip it, one of SKIPS)."""
        return (None, CONTROL) if self.controls.in_chat(messages) else self.prepare_trusted(messages, max_tokens)

    def prepare_trusted(self, messages: list[dict], max_tokens: int) -> tuple[list[int] | None, str | None]:
        """As prepare, for a chat that may spell control tokens."""
        try:
            tokens = self.encode(messages)
        except TemplateError:  # e.g. a template that knows no system messages
            return None, REFUSED
        return (tokens, None) if self.room(tokens, max_tokens) else (None, TOO_LONG)

    def room(self, tokens: list[int], max_tokens: int) -> int:
        """How many tokens a response may have, 0 where the prompt is too long.

        A response may take max_tokens, or what the context leaves, which must be half of it at least. A model that
        states no context length has no limit but max_tokens.
        """
        if self.context is None:
            return max_tokens
        left = self.context - len(tokens)
        return min(max_tokens, left) if left >= min(max_tokens, self.context // 2) else 0

    def response(self, tokens: Sequence[int], room: int) -> dict:
        """A sampled sequence as a row of the generations: text, finish_reason (stop or length), n_tokens, token_digest.

        The stop token counts as a token and is not part of the text, even where the tokenizer does not mark it special.
        """
        stop = next((i for i, token in enumerate(tokens[:room]) if token in self.stops), None)
        tokens = tokens[:room] if stop is None else tokens[: stop + 1]
        return {
            "text": self.tokenizer.decode(tokens[:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False),
            "finish_reason": "length" if stop is None else "stop",
            "n_tokens": len(tokens),
            "token_digest": digest_tokens(tokens),
        }


class ChatScorer:
    """A reward model's tokenizer and sizes; the engines add the model, and ``classify``.

    Args:
        max_length: tokens of a chat at most; template_options: further variables of the chat template, or None.
    Raises InputError for a model with another number of logits than one, without a chat template, or with one that
    writes the current date or time.
    """

    def __init__(
        self,
        path: str | Path,
        revision: str | None = None,
        max_length: int = 4096,
        trust_remote_code: bool = False,
        template_options: dict | None = None,
    ) -> None:
        from transformers import AutoConfig

        self.path, self.template_options = path, template_options or {}
        with model_errors(path):
            config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
            check_one_logit(config, path)
            self.tokenizer = load_tokenizer(path, revision, trust_remote_code, self.template_options)
        self.controls = Controls(self.tokenizer, self.template_options)
        self.vocabulary = config.get_text_config().vocab_size
        self.max_length = min(max_length, state_context(config) or max_length)

    def encode(self, messages: list[dict], answer: str) -> tuple[list[int] | None, str | None]:
        """(token ids of a prompt's chat with an answer, None), or (None, why it has no reward).

        The reasons are LONG_CHAT, REFUSED and CONTROL; NOT_FINITE is known only when the model has run.
        Raises InputError for ids that the model has no embedding for.
        """
        chat = [*messages, {"role": "assistant", "content": answer}]
        if self.controls.in_chat(chat):
            return None, CONTROL
        try:
            ids = self.tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, **self.template_options)
        except TemplateError:  # e.g. a template that knows no system messages
            return None, REFUSED
        ids = ids["input_ids"]
        return (check_ids(ids, self.vocabulary, self.path), None) if len(ids) <= self.max_length else (None, LONG_CHAT)

    def score(self, answers: list[tuple[list[dict], str]]) -> list[tuple[float | None, str | None]]:
        """(raw logit, None), or (None, reason), of answers [(messages of the prompt, text)], in order."""
        return self.classify([self.encode(messages, text) for messages, text in answers])

    def classify(self, encoded: list[tuple[list[int] | None, str | None]]) -> list[tuple[float | None, str | None]]:
        """As score, for chats that ``encode`` returned."""
        raise NotImplementedError


class Controls:
    """The control tokens of a tokenizer, and which texts would become them.

    Control tokens are the special tokens, and the added tokens that the chat template writes. A tokenizer produces them
    for any text that spells them, so that a prompt could contain its own turns. In answers, added tokens that are not
    special count only if the template writes them between the turns of a chat: a policy samples the others (``<think>``,
    ``<tool_call>``) as part of its answer.

    Args:
        options: further variables of the chat template, {name: value} or None.
    Attributes: ``ids``, a set, and ``texts``, their spellings. Tokens of white space or one character are ordinary text.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", options: dict | None = None) -> None:
        template = tokenizer.get_chat_template()
        added = tokenizer.added_tokens_decoder
        special = {i for i, token in added.items() if token.special} | set(tokenizer.all_special_ids)
        texts = {i: tokenizer.convert_ids_to_tokens(i) for i in special} | {i: t.content for i, t in added.items()}
        texts = {i: text for i, text in texts.items() if len(text.strip()) > 1}
        turns = _render_turns(tokenizer, options)
        self.ids = {i for i, text in texts.items() if i in special or text in template or text in turns}
        between = {i for i in self.ids if texts[i] in turns and not THINKING.search(texts[i])}
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._normalizer = backend.normalizer if backend is not None else None
        self.texts = {texts[i] for i in self.ids}
        # A tokenizer finds some tokens in the normalised text, so their spelling is normalised as well.
        normal = {i: self._normalize(text) for i, text in texts.items() if i in added and added[i].normalized}
        in_answers = self.ids & (special | between)
        self._anywhere, self._in_answers = (
            match_any({texts[i] for i in ids} | {normal[i] for i in ids if len(normal.get(i, "").strip()) > 1})
            for ids in (self.ids, in_answers)
        )
        # A text may hold characters that the tokenizer does not know.
        self.ids.discard(tokenizer.unk_token_id)

    def _normalize(self, text: str) -> str:
        return text if self._normalizer is None else self._normalizer.normalize_str(text)

    def in_text(self, text: str, answer: bool = False) -> bool:
        """Whether a text spells a control token; ``answer``: the text is of an assistant's turn."""
        pattern = self._in_answers if answer else self._anywhere
        return bool(pattern.search(text) or pattern.search(self._normalize(text)))

    def in_chat(self, messages: list[dict]) -> bool:
        """Whether any message of a chat spells a control token."""
        return any(
            self.in_text(text, message.get("role") == "assistant")
            for message in messages
            for text in list_texts(message)
        )


def match_any(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern for any of the texts, the longest first; without texts, one that never matches."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=lambda text: (-len(text), text)))) or "(?!)")


def list_texts(message: dict) -> list[str]:
    """The texts of a message, whose content is text or a list of parts."""
    content = message["content"]
    return [content] if isinstance(content, str) else [part["text"] for part in content if "text" in part]


def _render_turns(tokenizer: "PreTrainedTokenizerBase", options: dict | None) -> str:
    """The text that the template writes around finished turns; "" if it refuses such a chat."""
    chat = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    try:
        return tokenizer.apply_chat_template(chat, tokenize=False, **(options or {}))
    except UNUSABLE:  # a translator's template refuses plain text
        return ""


def check_one_logit(config: "PreTrainedConfig", path: str | Path) -> None:
    """Raises InputError where a model has not the one output of a reward model."""
    if config.num_labels != 1:
        raise InputError(
            f"the model has {config.num_labels} logits, a reward model has one",
            "name a Bradley-Terry reward model, a sequence classifier with one output (num_labels 1)",
            path,
        )


def check_reward(logit: float) -> tuple[float | None, str | None]:
    """(reward, None), or (None, NOT_FINITE)."""
    return (logit, None) if abs(logit) < float("inf") else (None, NOT_FINITE)


# Models that number their tokens from behind the padding id, so that as many of their positions are never used.
BEHIND_PADDING = ("camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl")


def state_context(config: "PreTrainedConfig") -> int | None:
    """The context length of a model in tokens, or None where its config states none (as BLOOM's)."""
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None)
    if length is not None and text.model_type in BEHIND_PADDING:
        return length - text.pad_token_id - 1
    return length


def digest_tokens(tokens: Iterable[int]) -> str:
    """Digest of token ids, 16 hex digits, to compare sampled with trained ones."""
    return hashlib.sha256(str(list(tokens)).encode()).hexdigest()[:16]


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", messages: list[dict], options: dict | None = None) -> list[int]:
    """Token ids, a list of int, of a chat with the generation prompt.

    ``options`` are extra variables of the template, {name: value} or None. The template alone adds special tokens:
    there is no second BOS. Raises jinja2.TemplateError where the template refuses the chat.
    """
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, **(options or {})
    )["input_ids"]


def load_tokenizer(
    path: str | Path, revision: str | None = None, trust_remote_code: bool = False, options: dict | None = None
) -> "PreTrainedTokenizerBase":
    """A tokenizer with a chat template.

    Raises InputError without one, or if the template writes a date or time that ``options``, variables of the
    template, do not set: prompts and rewards would change from one day to the next.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code, **TEMPLATED)
    try:
        tokenizer.get_chat_template()
    except ValueError as error:
        raise InputError(
            "the tokenizer has no chat template",
            "use an instruction-tuned model, or add chat_template.jinja to its folder",
            path,
        ) from error
    if follows_clock(tokenizer, options):
        raise InputError(DATED[0], DATED[1], path, field="template_options")
    return tokenizer


DATED = (
    "the chat template writes today's date: chats change from one day to the next",
    'set the date in template_options, under its name in the template, e.g. {"date_string": "26 Jul 2024"}; '
    "if it has none, write the date into chat_template.jinja in a local copy of the model",
)


def follows_clock(
    tokenizer: "PreTrainedTokenizerBase", options: dict | None = None, chats: Sequence[list[dict]] | None = None
) -> bool:
    """Whether the template's text around chats (by default ordinary ones) depends on the day or the time of day."""
    system, user, answer = ({"role": role, "content": "x"} for role in ("system", "user", "assistant"))
    chats = chats or ([user], [user, answer], [user, answer, user], [system, user], [system, user, answer])
    moments = (datetime(2001, 2, 3, 4, 5, 6), datetime(2010, 11, 12, 13, 14, 15))
    for chat in chats:
        try:
            texts = {
                tokenizer.apply_chat_template(
                    chat,
                    tokenize=False,
                    add_generation_prompt=chat[-1]["role"] == "user",
                    **{**(options or {}), "strftime_now": moment.strftime},
                )
                for moment in moments
            }
        except UNUSABLE:
            continue
        if len(texts) > 1:
            return True
    return False


def load_stops(
    path: str | Path,
    tokenizer: "PreTrainedTokenizerBase",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> list[int]:
    """Ids of the tokens that end a generation: the generation config's, else the model's; and the tokenizer's."""
    from transformers import AutoConfig, GenerationConfig
    from transformers.utils import cached_file

    name, stops = "generation_config.json", None
    if cached_file(path, name, revision=revision, _raise_exceptions_for_missing_entries=False):
        stops = GenerationConfig.from_pretrained(path, revision=revision).eos_token_id
    if stops is None:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
        stops = config.get_text_config().eos_token_id
    stops = stops if isinstance(stops, list) else [] if stops is None else [stops]
    # vLLM and TRL stop at it in any case.
    end = tokenizer.eos_token_id
    return stops if end is None or end in stops else [*stops, end]


def check_ids(ids: list[int], vocabulary: int, path: str | Path) -> list[int]:
    """The ids; raises InputError where one has no embedding in a model of ``vocabulary`` embeddings."""
    if ids and max(ids) >= vocabulary:
        raise InputError(
            f"the tokenizer gives the id {max(ids)}, the model has {vocabulary} embeddings",
            "the tokenizer belongs to another model: put the model's own files in its folder",
            path,
        )
    return ids
