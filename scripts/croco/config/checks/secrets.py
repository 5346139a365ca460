"""Secrets, such as access tokens: they belong in the environment, because configs and options are recorded and shared.

Imports nothing of the project but the error, so that the command lines can use it, too.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from croco.errors import USER_INFO, InputError

PROBLEM = "holds a secret, which would be written to manifests and logs"
REMEDY = (
    "remove it, and set it as an environment variable: HF_TOKEN for the hub, or the variable that the engine reads. "
    "If others could read the file, revoke the secret"
)
# Keys whose value is a secret. Keys such as max_tokens, tokenizer and eos_token are none.
NAME = re.compile(
    r"(.+_)?(api_?key|access_key(_id)?|secret|secret_(access_)?key|private_key|passw(or)?d|pwd|passphrase|authorization"
    r"|credentials?|connection_?string|sas_(key|url))"
    r"|(.+_)?(anthropic|azure|cohere|gemini|google|groq|hf|huggingface|mistral|openai|openrouter|together|wandb)_?key"
    r"|((.+_)?(hf|hub|huggingface|access|auth|api|github|gitlab|bearer|session|refresh|private|security|sas)_?)?token"
)
# Values that are secrets under any key. Letters before a prefix would make it a part of a word, as in `task-`.
VALUE = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}"
    r"|sk-(?:[A-Za-z0-9]+[-_])*(?=[A-Za-z]*[0-9])[A-Za-z0-9]{16,}"  # `sk` is a language, too: a key has digits
    r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[\w-]{35}(?![\w-])"
    r"|(?i:bearer)\s+(?=\S*[0-9])[A-Za-z0-9._~+/=-]{16,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|(?i:[?&](?:x-(?:amz|goog)-)?sig(?:nature)?=)[^&#\s]"  # a signed address
    rf"|{USER_INFO}"
)
# The names in the query of an address.
QUERY_NAME = re.compile(r"[?&#]([\w.-]+)=[^&#\s]")


def find_secrets(value: Any, keys: tuple = ()) -> Iterator[tuple]:
    """The keys that lead to each secret in nested mappings and lists; ``keys`` are those that lead to ``value``.

    If a key is a secret itself, the keys end before it, so that they can be printed.
    """
    if isinstance(value, dict):
        for key, part in value.items():
            if _is_secret(str(key)):
                yield keys
            elif _is_name(key) and _is_filled(part):
                yield (*keys, key)
            else:
                yield from find_secrets(part, (*keys, key))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from find_secrets(part, (*keys, i))
    elif isinstance(value, str | PurePath) and _is_secret(str(value)):
        yield keys


def refuse_secrets(arguments: Sequence[str], options: dict[str, Any]) -> None:
    """Raises InputError for a secret in the arguments of a command line, or in {option: value} that was read of them."""
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name = argument[2:].split("=")[0]
            if _is_name(name):
                raise InputError(PROBLEM, REMEDY, field=name)
        if _is_secret(argument):
            raise InputError(PROBLEM, REMEDY, field=None if _is_secret(name) else name.replace("-", "_") or None)
    for keys in find_secrets(options):
        raise InputError(PROBLEM, REMEDY, field=".".join(map(str, keys)))


def _is_secret(text: str) -> bool:
    return bool(VALUE.search(text)) or any(map(_is_name, QUERY_NAME.findall(text)))


def _is_name(key: object) -> bool:
    return bool(NAME.fullmatch(re.sub(r"(?<=[a-z])(?=[A-Z])|[-. ]", "_", str(key)).lower()))


def _is_filled(value: object) -> bool:
    """Whether something other than a switch is given: `token: true` takes the token of the environment."""
    return value not in (None, "", [], {}) and not isinstance(value, bool)
