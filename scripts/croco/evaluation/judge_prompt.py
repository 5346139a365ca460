"""The judge's prompt for two answers, built so that no answer can imitate other parts of the prompt."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from croco.digests import digest
from croco.errors import InputError
from croco.models.chats import CONTROL, TOO_LONG, match_any

FIELDS = ("language", "question", "answer_a", "answer_b", "nonce")


@dataclass(frozen=True)
class Comparison:
    """Two answers to a question in the order that the judge sees; ``language`` is the name of the prompt's language."""

    language: str
    question: str
    answer_a: str
    answer_b: str

    @property
    def key(self) -> str:
        """Digest that identifies the verdict on it."""
        return digest([self.language, self.question, self.answer_a, self.answer_b])


def read_template(path: str | Path) -> str:
    """The judge's prompt, text with FIELDS in braces; raises InputError where one is missing."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the judge's prompt cannot be read: {error}", "name a UTF-8 text file", path) from error
    for name in FIELDS:
        if f"{{{name}}}" not in text:
            raise InputError(
                "the judge's prompt lacks a field",
                f"write it where it belongs; all are needed: {', '.join(f'{{{field}}}' for field in FIELDS)}",
                path,
                field=f"{{{name}}}",
            )
    return text


def write_question(messages: list[dict]) -> str:
    """A prompt's chat as one text: a single turn as it is, several turns each under its role."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)


def write_request(template: str, comparison: Comparison) -> str:
    """The user's turn that asks for a verdict.

    The nonce of the marker lines is derived from all compared texts and occurs in none of them, so that no answer can
    close its own quotation.
    """
    texts = (comparison.question, comparison.answer_a, comparison.answer_b)
    nonce = comparison.key[:16]
    while any(nonce in text for text in texts):
        nonce = digest(nonce)[:16]
    fields = dict(zip(FIELDS, (comparison.language, *texts, nonce), strict=True))
    # All fields are replaced in one pass, because an answer may contain a field's name in braces.
    return re.sub(rf"\{{({'|'.join(FIELDS)})\}}", lambda match: fields[match[1]], template)


class Encoder:
    """Encodes comparisons for a judge; texts from outside cannot become its control tokens.

    The control tokens are those of chats.Controls. If a question or an answer spells one, a space is put after its first
    character: the judge can still read it, and no tokenizer takes it for the token.

    Args:
        model: a policy of an engine; ``template``: the judge's prompt with fields.
        max_tokens: maximal tokens of the judge's reply; ``max_length``: maximal tokens of the judge's prompt.
    """

    def __init__(self, model: Any, template: str, max_tokens: int, max_length: int) -> None:
        self.model, self.template, self.max_tokens, self.max_length = model, template, max_tokens, max_length
        self.controls, self._pattern = model.controls.ids, match_any(model.controls.texts)
        self._expected: list[int] | None = None

    def disarm(self, text: str) -> str:
        """The text without control tokens of the judge."""
        while self._pattern.search(text):
            text = self._pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return text

    def encode(self, comparison: Comparison) -> tuple[list[int] | None, str | None]:
        """(token ids, None), or (None, why the judge cannot be asked: TOO_LONG, REFUSED or CONTROL)."""
        if self._expected is None:
            plain, reason = self._prepare(Comparison("English", "x", "x", "x"))
            self._expected = self._list_controls(plain or [])
            if reason:
                return None, reason
        texts = (comparison.question, comparison.answer_a, comparison.answer_b)
        tokens, reason = self._prepare(Comparison(comparison.language, *map(self.disarm, texts)))
        if tokens is None:
            return None, reason
        if len(tokens) > self.max_length:
            return None, TOO_LONG
        # A tokenizer's normalisation may still produce a control token.
        return (tokens, None) if self._list_controls(tokens) == self._expected else (None, CONTROL)

    def _prepare(self, comparison: Comparison) -> tuple[list[int] | None, str | None]:
        messages = [{"role": "user", "content": write_request(self.template, comparison)}]
        return self.model.prepare_trusted(messages, self.max_tokens)

    def _list_controls(self, tokens: list[int]) -> list[int]:
        return [token for token in tokens if token in self.controls]
