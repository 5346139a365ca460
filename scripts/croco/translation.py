"""How a chat is cut into pieces that a translation model can take, what it is asked, and how pieces are put back."""

import re

from croco.identification import identify

# Of the models' own cards: https://huggingface.co/google/translategemma-4b-it and arXiv 2601.09012, and of
# https://huggingface.co/Infomaniak-AI/vllm-translategemma-4b-it, which takes plain text.
FORMATS = ("translategemma", "translategemma_prompt", "translategemma_tags", "template")
PROMPT = (
    "You are a professional {source_name} ({source_code}) to {target_name} ({target_code}) translator. Your goal is to "
    "accurately convey the meaning and nuances of the original {source_name} text while adhering to {target_name} "
    "grammar, vocabulary, and cultural sensitivities.\nProduce only the {target_name} translation, without any "
    "additional explanations or commentary. Please translate the following {source_name} text into {target_name}:"
    "\n\n\n{text}"
)
TAGS = "<<<source>>>{source_code}<<<target>>>{target_code}<<<text>>>{text}"
FENCE = re.compile(r"(^[ \t>]*(`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t>]*\2[ \t]*$|\Z))", re.DOTALL | re.MULTILINE)
PARAGRAPHS = re.compile(r"(\n[ \t]*\n\s*)")


def split_text(text, longest):
    """A text as alternating pieces: at even places to translate, at odd places to keep as they are.

    Fenced code is kept, and so is the white space around pieces. Paragraphs share a piece while it has at most
    ``longest`` characters; a longer paragraph is one piece. Joined, the pieces are the text.
    """
    pieces = [""]
    for i, part in enumerate(_split_fences(text)):
        if i % 2:
            _keep(pieces, part)
            continue
        for j, paragraph in enumerate(PARAGRAPHS.split(part)):
            if j % 2 or not any(map(str.isalpha, paragraph)):
                _keep(pieces, paragraph)
                continue
            body = paragraph.strip()
            left, right = paragraph.split(body, 1)
            _keep(pieces, left)
            gap = pieces[-2] if len(pieces) > 2 and not pieces[-1] else None
            if gap is not None and not gap.strip() and pieces[-3] and len(pieces[-3] + gap + body) <= longest:
                pieces[-3:] = [pieces[-3] + gap + body]
            else:
                pieces[-1] += body
            _keep(pieces, right)
    return pieces


def _split_fences(text):
    """Prose and code in turn."""
    parts, end = [], 0
    for match in FENCE.finditer(text):
        parts += [text[end : match.start()], match[0]]
        end = match.end()
    return [*parts, text[end:]]


def _keep(pieces, text):
    """Adds text that is not translated: to the kept piece at the end, or as a new one."""
    if not text:
        return
    if not pieces[-1] and len(pieces) > 1:
        pieces[-2] += text
    else:
        pieces += [text, ""]


def request(piece, form, template, names):
    """The chat that asks for a piece's translation.

    Args:
        form: one of FORMATS; ``template``: for "template", text with {text} and the names' fields.
        names: source_name, source_code, target_name, target_code.
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
    text = {"translategemma_prompt": PROMPT, "translategemma_tags": TAGS, "template": template}[form]
    # Not str.format: the piece, or the template, may hold other braces.
    fields = {**names, "text": piece}
    return [{"role": "user", "content": re.sub(r"\{(\w+)\}", lambda m: fields.get(m[1], m[0]), text)}]


def find_fault(response, language):
    """Why a translated piece cannot be used, or None: truncated, empty or wrong_language."""
    if response["finish_reason"] == "length":
        return "truncated"
    if not response["text"].strip():
        return "empty"
    if identify(response["text"], language) not in (language, None):
        return "wrong_language"
    return None
