"""The requests to a translation model in each format, and whether its chat template takes them."""

import re
from typing import Any

from croco.models.chats import UNUSABLE

# From the models' own cards: https://huggingface.co/google/translategemma-4b-it and arXiv 2601.09012, and of
# https://huggingface.co/Infomaniak-AI/vllm-translategemma-4b-it, which takes plain text.
NAMES = ("source_name", "source_code", "target_name", "target_code")
FORMATS = ("translategemma", "translategemma_prompt", "translategemma_tags", "template")
PROMPT = (
    "You are a professional {source_name} ({source_code}) to {target_name} ({target_code}) translator. Your goal is to "
    "accurately convey the meaning and nuances of the original {source_name} text while adhering to {target_name} "
    "grammar, vocabulary, and cultural sensitivities.\nProduce only the {target_name} translation, without any "
    "additional explanations or commentary. Please translate the following {source_name} text into {target_name}:"
    "\n\n\n{text}"
)
TAGS = "<<<source>>>{source_code}<<<target>>>{target_code}<<<text>>>{text}"
PROBE = "Seven grey herons crossed the river at noon."
NO_LANGUAGE = {"target_name": "Nolanguish", "target_code": "qzz"}


def request(piece: str, form: str, template: str | None, names: dict[str, str]) -> list[dict]:
    """The chat that asks for a piece's translation.

    Args:
        form: one of FORMATS; ``template``: for "template", text with {text} and the names' fields.
        names: those of NAMES; others are not filled in.
    """
    if form == "translategemma":
        content = [
            {
                "type": "text",
                "source_lang_code": names["source_code"],
                "target_lang_code": names["target_code"],
                "text": piece,
            }
        ]
        return [{"role": "user", "content": content}]
    text = {"translategemma_prompt": PROMPT, "translategemma_tags": TAGS, "template": template or ""}[form]
    # str.format would fail on other braces in the piece or the template.
    fields = {**{name: names[name] for name in NAMES}, "text": piece}
    return [{"role": "user", "content": re.sub(r"\{(\w+)\}", lambda m: fields.get(m[1], m[0]), text)}]


def find_misfit(tokenizer: Any, how: dict, options: dict | None = None) -> str | None:
    """Why a request in this format does not reach the translator, or None.

    Args:
        tokenizer: of the translator; ``how``: format, template, source and target names and codes.
        options: variables of the chat template, or None.
    Some templates take codes in the parts of a message's content, others take plain text and ignore such parts.
    """

    def render(names: dict[str, str]) -> str:
        (message,) = request(PROBE, how["format"], how["template"], {**how, **names})
        return tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True, **(options or {}))

    try:
        text = render({})
    except UNUSABLE as error:
        return f"refuses it: {error}"
    if PROBE not in text:
        return "leaves out the text to translate"
    if "target_lang_code" in text:
        return "writes the parts of the message as they are"
    try:
        # Both texts are also equal if the template knows neither language and writes nothing.
        return "leaves out the language to translate to" if render(NO_LANGUAGE) == text else None
    except UNUSABLE:  # it knows no such language, as it should
        return None


MISFIT = (
    "choose the format that the model's card describes: translategemma where the template takes language codes, "
    "else another; a --template names the language to translate to, by {target_name} or {target_code}"
)
