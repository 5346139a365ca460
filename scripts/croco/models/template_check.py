"""Checks a chat template: are the token ids that a policy samples from the ids that TRL trains on?

The sampled ids are the prompt with its generation prompt, the answer's text as the tokenizer splits it behind that
prompt, and the special tokens with which the template closes an answer, up to the stop token. The trained ids are those
of DPOTrainer and SFTTrainer for `prompt` and `chosen` or `completion` chat lists: they render and tokenise the whole
chat at once.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from croco.digests import digest
from croco.models.chats import DATED, THINKING, UNUSABLE, encode_prompt, follows_clock
from croco.prompts.formats import MISFIT, find_misfit, request
from croco.training.encode import trained_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

USER = {"role": "user", "content": "Why is the sky blue?"}
OTHER_USER = {"role": "user", "content": "Name three rivers of Malta."}
ASSISTANT = {"role": "assistant", "content": "Because air scatters blue light."}
SYSTEM = {"role": "system", "content": "You answer in one short sentence."}
CHATS = {"single": [USER], "turns": [USER, ASSISTANT, OTHER_USER], "system": [SYSTEM, USER]}

# Ordinary answers: for these the prompt must never change.
ORDINARY = {
    "plain": "Blue light is scattered most.",
    "code": 'Run this:\n\n```python\nfor i in range(3):\n    print(f"{i}\\t{i ** 2}")\n```',
    "non_latin": "Γη και ουρανός. السماء زرقاء. आसमान नीला है। 天空是蓝色的 🙂",
    "empty_lines": "First line.\n\n\nLast line.",
}
WHITE_SPACE = {
    "leading_spaces": "  Blue light is scattered most.",
    "trailing_spaces": "Blue light is scattered most.  ",
    "leading_newlines": "\n\nBlue light is scattered most.",
    "trailing_newlines": "Blue light is scattered most.\n\n",
}
REASONING = "The user wants a short answer."
ANSWERS = {**ORDINARY, **WHITE_SPACE, "think": f"<think>\n{REASONING}\n</think>\n\nBlue light is scattered most."}

MEASURES = ("bos", "preamble_tokens", "stop", "white_space", "date", "think", "added_text", "system")


def examine_untrained(tokenizer: "PreTrainedTokenizerBase", options: dict | None = None, answers: bool = False) -> dict:
    """The report of a model that is not tuned: a judge, or with ``answers`` a reward model.

    Returns as examine; only bos, date and system are measured, and of a judge added_text.
    """
    report: dict[str, Any] = {
        "template_digest": None,
        "options": options or {},
        **dict.fromkeys(MEASURES),
        "probes": [],
    }
    if findings := refuse_template(tokenizer, options or {}, report):
        return close_report(report, findings)
    report["system"] = describe_system(tokenizer, options or {})
    report["date"] = follows_clock(tokenizer, options)
    findings = find_second_bos(tokenizer, CHATS["single"], options, report)
    if answers and not all(keeps_rendered(tokenizer, text, options or {}) for text in ORDINARY.values()):
        what = "the template changes or omits ordinary answers"
        findings.append(error("changes_answer", what, "use a template that does not change the text of answers"))
    if not answers:
        before, after = surroundings(tokenizer, CHATS["single"], answer_of(ORDINARY["plain"]), options or {})
        report["added_text"] = {"before": before, "after": after, "marks": list_marks(tokenizer, before)}
        findings += find_unprompted(report["added_text"])
    return close_report(report, [*findings, *find_shared_faults(report)])


def examine_translator(
    tokenizer: "PreTrainedTokenizerBase", form: str, template: str | None = None, options: dict | None = None
) -> dict:
    """The report of a translator that is asked in a format of croco.prompts.formats; only bos and date are measured."""
    report: dict[str, Any] = {
        "template_digest": None,
        "options": options or {},
        **dict.fromkeys(MEASURES),
        "probes": [],
    }
    if findings := refuse_missing(tokenizer, report):
        return close_report(report, findings)
    names = {"source_name": "English", "source_code": "en", "target_name": "German", "target_code": "de"}
    if misfit := find_misfit(tokenizer, {**names, "format": form, "template": template}, options):
        what = f"the chat template does not fit the format {form}: it {misfit}"
        return close_report(report, [error("format_does_not_fit", what, MISFIT)])
    chat = request(USER["content"], form, template, names)
    report["date"] = follows_clock(tokenizer, options, [chat])
    findings = find_second_bos(tokenizer, chat, options, report)
    return close_report(report, [*findings, *find_shared_faults(report)])


def find_second_bos(
    tokenizer: "PreTrainedTokenizerBase", chat: list[dict], options: dict | None, report: dict
) -> list[dict]:
    """Findings on the BOS of a chat that is not trained on; notes its measure in the report."""
    ids = encode_prompt(tokenizer, chat, options)
    text = render(tokenizer, chat, options or {}, True)
    report["bos"] = {
        "token": tokenizer.bos_token,
        "sampled": count_bos(tokenizer, ids),
        "trained": None,
        "as_text": count_bos(tokenizer, tokenizer(text)["input_ids"]),
    }
    if report["bos"]["sampled"] <= 1:
        return []
    what = f"a chat starts with {report['bos']['sampled']} {tokenizer.bos_token}"
    return [error("double_bos", what, "let the template write the BOS once, and nothing else")]


def keeps_rendered(tokenizer: "PreTrainedTokenizerBase", text: str, options: dict) -> bool:
    """Whether an answer's text is in the rendered chat as it is."""
    return text in render(tokenizer, CHATS["single"] + answer_of(text), options)


def examine(tokenizer: "PreTrainedTokenizerBase", stops: Collection[int], options: dict | None = None) -> dict:
    """Compares sampled with trained ids for every chat of CHATS with every answer of ANSWERS.

    Args:
        tokenizer: of the policy; stops: ids of the tokens that end its answers.
        options: extra variables of the template, {name: value} or None.
    Returns the report, a JSON value: template_digest, options, what MEASURES names (null where it could not be
    measured), probes, the counts `errors` and `warnings`, and findings: [{name, severity, what, remedy}], errors first.
    """
    report: dict[str, Any] = {
        "template_digest": None,
        "options": options or {},
        **dict.fromkeys(MEASURES),
        "probes": [],
    }
    findings = refuse_template(tokenizer, options or {}, report)
    if not findings:
        report |= measure(tokenizer, set(stops), options or {})
        findings = [*find_faults(report), *find_shared_faults(report)]
    return close_report(report, findings)


def refuse_missing(tokenizer: "PreTrainedTokenizerBase", report: dict) -> list[dict]:
    """Findings of a tokenizer without a chat template, else []; notes the template's digest in the report."""
    try:
        report["template_digest"] = digest(tokenizer.get_chat_template())
    except ValueError:
        remedy = "use an instruction-tuned model, or add chat_template.jinja to its folder"
        return [error("no_chat_template", "the tokenizer has no chat template", remedy)]
    return []


def refuse_template(tokenizer: "PreTrainedTokenizerBase", options: dict, report: dict) -> list[dict]:
    """As refuse_missing, and for a template that refuses an ordinary chat."""
    if findings := refuse_missing(tokenizer, report):
        return findings
    if fault := refusal(tokenizer, options):
        what = f"the chat template refuses an ordinary chat: {fault}"
        return [error("template_fails", what, "fix the template, or the template options")]
    return []


def close_report(report: dict, findings: list[dict]) -> dict:
    """The report with its findings, errors first, and their counts."""
    findings.sort(key=lambda finding: finding["severity"])
    severities = [finding["severity"] for finding in findings]
    counts = {"errors": severities.count("error"), "warnings": severities.count("warning")}
    return {**report, **counts, "findings": findings}


def refusal(tokenizer: "PreTrainedTokenizerBase", options: dict) -> str | None:
    """The template's error for a chat of user and assistant, or None."""
    try:
        for chat in (CHATS["single"], CHATS["turns"]):
            render(tokenizer, chat, options, True)
            render(tokenizer, chat + answer_of(ORDINARY["plain"]), options)
    except UNUSABLE as fault:
        return str(fault)
    return None


def measure(tokenizer: "PreTrainedTokenizerBase", stops: set[int], options: dict) -> dict:
    """The measured parts of the report, of a template that accepts chats of user and assistant."""
    prompt, plain = CHATS["single"], answer_of(ORDINARY["plain"])
    system = describe_system(tokenizer, options)
    chats = {name: chat for name, chat in CHATS.items() if name != "system" or system != "refused"}
    prompt_ids = encode_prompt(tokenizer, prompt, options)
    kept_ids, completion_ids = trained_ids(tokenizer, prompt, plain, options)
    end = next((i + 1 for i, token in enumerate(completion_ids) if token in stops), None)
    before, after = surroundings(tokenizer, prompt, plain, options)
    emitted, inserted = split_closing(tokenizer, after, stops) if end else (sorted(stops)[:1], [])
    probes = [
        {"chat": name, "answer": answer, **compare(tokenizer, chat, text, emitted, options)}
        for name, chat in chats.items()
        for answer, text in ANSWERS.items()
    ]
    return {
        "bos": {
            "token": tokenizer.bos_token,
            "sampled": count_bos(tokenizer, prompt_ids),
            "trained": count_bos(tokenizer, kept_ids + completion_ids),
            "as_text": count_bos(tokenizer, tokenizer(render(tokenizer, prompt, options, True))["input_ids"]),
        },
        "preamble_tokens": count_shared(prompt_ids, encode_prompt(tokenizer, [OTHER_USER], options)),
        "stop": {
            "ids": sorted(stops),
            "tokens": tokenizer.convert_ids_to_tokens(sorted(stops)),
            "trained": tokenizer.convert_ids_to_tokens(completion_ids[end - 1]) if end else None,
            "trailing_tokens": len(completion_ids) - end if end else None,
            "trailing_text": decode(tokenizer, completion_ids[end:]) if end else None,
        },
        "white_space": {
            probe["answer"]: probe["text_kept"]
            for probe in probes
            if probe["chat"] == "single" and probe["answer"] in WHITE_SPACE
        },
        "date": follows_clock(tokenizer, options),
        "think": {
            "added": bool(THINKING.search(before)),
            "kept": REASONING in render(tokenizer, prompt + answer_of(ANSWERS["think"]), options),
        },
        "added_text": {
            "before": before,
            "after": decode(tokenizer, inserted),
            "marks": list_marks(tokenizer, before),
        },
        "system": system,
        "probes": probes,
    }


def compare(
    tokenizer: "PreTrainedTokenizerBase", prompt: list[dict], text: str, closing: list[int], options: dict | None = None
) -> dict:
    """One probe: whether sampled and trained ids agree, and where and how they first differ.

    Args:
        prompt: chat list; text: of the answer; options: extra variables of the template, {name: value} or None.
        closing: ids that a policy emits behind the text, the stop token last.
    """
    options = options or {}
    prompt_ids = encode_prompt(tokenizer, prompt, options)
    sampled = prompt_ids + answer_ids(tokenizer, prompt, prompt_ids, text, options) + closing
    kept_ids, completion_ids = trained_ids(tokenizer, prompt, answer_of(text), options)
    trained = kept_ids + completion_ids
    place = None if sampled == trained else count_shared(sampled, trained)
    near = slice(max(0, (place or 0) - 6), (place or 0) + 6)
    return {
        "agree": place is None,
        "prompt_agrees": kept_ids == prompt_ids,
        "text_kept": keeps_text(tokenizer, prompt, text, options),
        "sampled_tokens": len(sampled),
        "trained_tokens": len(trained),
        "first_difference": place,
        "sampled": None if place is None else decode(tokenizer, sampled[near]),
        "trained": None if place is None else decode(tokenizer, trained[near]),
    }


def keeps_text(tokenizer: "PreTrainedTokenizerBase", prompt: list[dict], text: str, options: dict) -> bool:
    """Whether every character of an answer is trained on, and nothing around it differs from a plain answer's chat."""
    # Decoded ids show more than the rendered text only if the tokenizer decodes to exactly what it encoded.
    faithful = decode(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"]) == text

    def write(text: str) -> str:
        if not faithful:
            return render(tokenizer, prompt + answer_of(text), options)
        prompt_ids, completion_ids = trained_ids(tokenizer, prompt, answer_of(text), options)
        return decode(tokenizer, prompt_ids + completion_ids)

    before, found, after = write(ORDINARY["plain"]).rpartition(ORDINARY["plain"])
    return bool(found) and write(text) == before + text + after


def answer_ids(
    tokenizer: "PreTrainedTokenizerBase", prompt: list[dict], prompt_ids: list[int], text: str, options: dict
) -> list[int]:
    """The tokens in which a policy emits a text: as split behind the prompt, whose own tokens are fixed by then."""
    whole = tokenizer(render(tokenizer, prompt, options, True) + text, add_special_tokens=False)["input_ids"]
    if whole[: len(prompt_ids)] == prompt_ids and decode(tokenizer, whole).endswith(text):
        return whole[len(prompt_ids) :]
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def surroundings(
    tokenizer: "PreTrainedTokenizerBase", prompt: list[dict], answer: list[dict], options: dict
) -> tuple[str, str]:
    """Texts that the template puts around an answer in training: behind the prompt as it is sampled, and after."""
    start = render(tokenizer, prompt, options, True)
    before, _, after = render(tokenizer, prompt + answer, options).rpartition(answer[0]["content"])
    return before[len(start) :] if before.startswith(start) else "", after


def split_closing(tokenizer: "PreTrainedTokenizerBase", text: str, stops: set[int]) -> tuple[list[int], list[int]]:
    """(special tokens, other tokens) of the text behind an answer, up to its stop token.

    A policy emits the special tokens that its template closes an answer with; its decoded text ends before them.
    """
    special = special_ids(tokenizer) | stops
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens = tokens[: next((i + 1 for i, token in enumerate(tokens) if token in stops), 0)]
    return [token for token in tokens if token in special], [token for token in tokens if token not in special]


def special_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Ids of the tokens that are left out of decoded answers."""
    added = tokenizer.added_tokens_decoder
    return {token for token, entry in added.items() if entry.special} | set(tokenizer.all_special_ids)


def list_marks(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[str]:
    """The special tokens around other text, in its order; none of a text that is special tokens alone, or has none."""
    special = special_ids(tokenizer) - {tokenizer.unk_token_id}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    others = decode(tokenizer, [token for token in ids if token not in special])
    return tokenizer.convert_ids_to_tokens([token for token in ids if token in special]) if others.strip() else []


def describe_system(tokenizer: "PreTrainedTokenizerBase", options: dict) -> str:
    """How the template treats a system message: separate (its own turn), merged (with the user's), dropped or refused."""
    try:
        text = render(tokenizer, CHATS["system"], options, True)
    except UNUSABLE:
        return "refused"
    between = re.search(re.escape(SYSTEM["content"]) + "(.*)" + re.escape(USER["content"]), text, re.DOTALL)
    if not between:
        return "dropped"
    return "separate" if between[1].strip() else "merged"


def render(
    tokenizer: "PreTrainedTokenizerBase", messages: list[dict], options: dict, add_generation_prompt: bool = False
) -> str:
    """The text that the template makes of a chat; raises one of chats.UNUSABLE where it refuses."""
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt, **options
    )


def answer_of(text: str) -> list[dict]:
    """An answer as the end of a chat."""
    return [{"role": "assistant", "content": text}]


def decode(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    """The text of ids, special tokens included."""
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def count_shared(ids: Sequence[int], others: Sequence[int]) -> int:
    """Number of leading ids that two sequences share."""
    length = min(len(ids), len(others))
    return next((i for i in range(length) if ids[i] != others[i]), length)


def count_bos(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> int:
    """Number of BOS tokens at the start."""
    return next((i for i, token in enumerate(ids) if token != tokenizer.bos_token_id), len(ids))


def error(name: str, what: str, remedy: str) -> dict:
    """A finding for which the model is refused."""
    return {"name": name, "severity": "error", "what": what, "remedy": remedy}


def warning(name: str, what: str, remedy: str) -> dict:
    """A finding that leaves the model usable."""
    return {"name": name, "severity": "warning", "what": what, "remedy": remedy}


def find_faults(report: dict) -> Iterator[dict]:
    """Yields the findings that follow from what was measured of a policy."""
    probes = {f"{probe['chat']}/{probe['answer']}": probe for probe in report["probes"]}
    yield from find_bos_faults(report["bos"])
    yield from find_prompt_faults(probes)
    yield from find_stop_faults(report["stop"])
    yield from find_text_faults(report, probes)
    yield from find_other_faults(report, probes)


def list_ordinary(probes: dict[str, dict]) -> dict[str, dict]:
    """The probes with ordinary answers, {chat/answer: probe}."""
    return {name: probe for name, probe in probes.items() if probe["answer"] in ORDINARY}


def find_bos_faults(bos: dict) -> Iterator[dict]:
    """Yields the findings on the BOS at the start of a prompt."""
    if max(bos["sampled"], bos["trained"]) > 1:
        yield error(
            "double_bos",
            f"a prompt starts with {bos['sampled']} {bos['token']} when sampled, {bos['trained']} when trained",
            "let the template write the BOS once, and nothing else",
        )
    elif bos["as_text"] > 1:
        yield warning(
            "double_bos_as_text",
            f"template and tokenizer both write {bos['token']}: a rendered chat, tokenised as text, starts with "
            f"{bos['as_text']}; chat lists and token ids, which this workflow uses, with {bos['sampled']}",
            "give other tools chat lists or token ids, or tokenise with add_special_tokens=False",
        )


def find_prompt_faults(probes: dict[str, dict]) -> Iterator[dict]:
    """Yields the findings on prompts that have other tokens in training than in sampling."""
    other_prompt = [name for name, probe in probes.items() if not probe["prompt_agrees"]]
    if changed := [name for name in other_prompt if name in list_ordinary(probes)]:
        yield error(
            "prompt_ids_differ",
            f"prompts are trained on in other tokens than they are sampled from: {describe(probes, changed)}",
            "use a template, or template options, that render a prompt alone as they do before an answer",
        )
    elif other_prompt:
        yield warning(
            "answer_changes_prompt",
            f"before some answers the end of the prompt has other tokens: {describe(probes, other_prompt)}",
            "nothing to do if such answers are rare; otherwise drop them",
        )


def find_stop_faults(stop: dict) -> Iterator[dict]:
    """Yields the findings on the stop token of trained answers, and on what follows it."""
    if stop["trained"] is None:
        yield error(
            "no_stop_token",
            f"trained answers hold none of the model's stop tokens ({', '.join(stop['tokens']) or 'it has none'})",
            "add the token that closes an answer in the template to eos_token_id in generation_config.json",
        )
    elif stop["trailing_tokens"]:
        yield warning(
            "trailing_tokens",
            f"trained but never sampled, behind {stop['trained']}: {stop['trailing_text']!r}",
            "nothing to do: the same follows every answer; a template that ends with the stop token avoids it",
        )


def find_text_faults(report: dict, probes: dict[str, dict]) -> Iterator[dict]:
    """Yields the findings on the text of answers, and on the text that training has around it."""
    think, added = report["think"], report["added_text"]
    other_text = [name for name, probe in list_ordinary(probes).items() if not probe["text_kept"]]
    stripped = [name for name, kept in report["white_space"].items() if not kept]
    if other_text:
        yield error(
            "changes_answer",
            f"the template changes ordinary answers: {describe(probes, other_text)}",
            "use a template that does not change the text of answers",
        )
    yield from find_unprompted(added)
    before = "" if added["marks"] else added["before"]
    if think["added"] and before:
        yield warning(
            "think_block",
            f"in training {before!r} precedes answers that were sampled without it",
            'sample and train with thinking off, if the template can: {"enable_thinking": false}',
        )
    elif not think["added"] and not think["kept"]:
        yield warning(
            "think_block",
            "the think block that a policy samples is dropped in training",
            'sample with thinking off, if the template can: {"enable_thinking": false}',
        )
    if (before and not think["added"]) or added["after"]:
        yield warning(
            "adds_text",
            f"in training answers are between {before!r} and {added['after']!r}, not when sampled",
            "use a template that puts nothing but special tokens around an answer",
        )
    if stripped:
        yield warning(
            "strips_whitespace",
            f"answers are not trained with the white space they were sampled with: {', '.join(stripped)}",
            "nothing to do if answers rarely have any; otherwise remove the trim filter from the template",
        )


def find_unprompted(added: dict) -> Iterator[dict]:
    """Yields the finding on text between special tokens before an answer that the generation prompt leaves to the model."""
    if added["marks"]:
        yield error(
            "unprompted_tokens",
            f"before an answer the template writes {added['before']!r}, which is not in the generation prompt: the model "
            f"would sample {', '.join(dict.fromkeys(added['marks']))} itself, and what is between them, such as its "
            "reasoning, would be in the answer's text without a mark",
            "set template_options with which the generation prompt ends where an answer begins, or write these tokens "
            "into the generation prompt of chat_template.jinja in a local copy of the model",
        )


def find_other_faults(report: dict, probes: dict[str, dict]) -> Iterator[dict]:
    """Yields the finding on ordinary answers that differ for a reason that no other finding explains."""
    ordinary = list_ordinary(probes)
    added = report["added_text"]
    named = added["before"] or added["after"] or report["stop"]["trained"] is None
    if named or not all(probe["prompt_agrees"] and probe["text_kept"] for probe in ordinary.values()):
        return
    if other_ids := [name for name, probe in ordinary.items() if differs_before_stop(probe)]:
        yield warning(
            "answer_ids_differ",
            f"ordinary answers are trained on in other tokens than sampled: {describe(probes, other_ids)}",
            "look at the probes for what the template or the tokenizer does there",
        )


def find_shared_faults(report: dict) -> Iterator[dict]:
    """Yields the findings that hold for every role."""
    if report["date"]:
        yield error("date_in_template", *DATED)
    if report["system"] in ("refused", "dropped"):
        yield warning(
            "no_system_role",
            f"the template has no place for system messages: they are {report['system']}",
            "use prompts without them, or put their text into the first user message",
        )


def differs_before_stop(probe: dict) -> bool:
    """Whether sampled and trained ids of a probe differ before the sampled ones end."""
    return probe["first_difference"] is not None and probe["first_difference"] < probe["sampled_tokens"]


def describe(probes: dict[str, dict], names: list[str]) -> str:
    """How many probes, and the first one's difference."""
    probe = probes[names[0]]
    return f"{len(names)} of {len(probes)} probes, in {names[0]} sampled {probe['sampled']!r}, trained {probe['trained']!r}"
