"""Secrets in a config or on a command line are refused, and written nowhere."""

import json

import pytest
import yaml
from conftest import ROOT, refuse_config, script

from croco.config.checks.secrets import find_secrets
from croco.errors import InputError, hide_secrets

TOKEN = "hf_" + "q7Rw2xKp" * 4
VALUES = [
    TOKEN,
    "sk-" + "abCD12ef" * 4,
    "sk-proj-x1-" + "abCD12ef" * 4,
    "ghp_" + "a1B2c3D4" * 4,
    "github_pat_" + "a1B2c3D4" * 4,
    "AKIA" + "ABCD1234" * 2,
    "Bearer eyJhbGciOi.a1B2c3D4",
    "https://me:hunter2@example.org/models",
    "https://:hunter2@example.org",
    "https://hunter2@example.org/models",
    "https://me:hun/ter2@example.org",
    "https://m@e:hunter2@example.org:8080/models",
    "https://me%3Ahunter2@example.org",
    "postgresql://me:hun/ter2@db",
    "s3://me%3Ahunter2@bucket",
    "https://example.org/w?X-Amz-Date=1&X-Amz-Signature=1a2b",
    "https://example.org/w?sv=1&sig=1a2b%3D",
    "https://example.org/w?token=opaque",
    "https://example.org/#access_token=opaque",
    "https://example.org/w?a=1&private_token=opaque",
    "AIza" + "a1B2c" * 7,
    "-----BEGIN RSA PRIVATE KEY-----",
]
KEYS = ["token", "hf_token", "hf-token", "hfToken", "api_key", "apiKey", "OPENAI_API_KEY", "Authorization", "password"]
KEYS += ["aws_secret_access_key", "client_secret", "use_auth_token", "credentials"]
KEYS += [
    "openai_key",
    "private_token",
    "pwd",
    "db_pwd",
    "connection_string",
    "connectionString",
    "sas_token",
    "sas_url",
]
HARMLESS = {
    **{"max_tokens": 3, "tokenizer": "org/name", "eos_token": "</s>", "tokens": "many", "stop_token_ids": [1]},
    **{"token": True, "use_auth_token": None, "api_key": "", "max_num_batched_tokens": 2048, "pad_token": "[PAD]"},
    "texts": ["data/sk-translations-of-questions.jsonl", "task-0123456789abcdef0123", "hf_home", "https://example.org/a@b"],
    "addresses": ["name@example.org", "hf://datasets/x", "hf://gpt2@main/config.json", "git@github.com:x/y", "see https://example.org: me@example.org", "https://example.org:8080/a@b", "https://example.org:8080?mail=a@b", "https://[::1]:8080/a@b", "http://127.0.0.1:8080/a:b@c", "https://example.org/a?pad_token=x&max_tokens=3&design=4", "https://example.org?mail=a@b", "AIza"],
    **{"sort_key": "id", "key": "id", "sas": "Sasak", "cookies": 2, "pwd": None, "signature": "kind", "tokenizer_key": "a"},
}  # fmt: skip
# {place in the config: (text of a config, key that the message names, line)}
CONFIGS = {
    "engine_options": ("reward_models:\n  - {name: r, path: p, engine_options: {token: opaque-SECRET}}\n", "reward_models[0].engine_options.token", 2),
    "template_options": ("policies:\n  - name: mini\n    template_options: {a: [{Authorization: opaque-SECRET}]}\n", "policies[0].template_options.a[0].Authorization", 3),
    "a path": (f"results: results/{TOKEN}-SECRET\n", "results", 1),
    "a value of the wrong type": (f"seed: 0\nsamples: {TOKEN}\n", "samples", 2),
    "an unknown key": ("hf_token: opaque-SECRET\n", "hf_token", 1),
    "a key": (f"evaluation:\n  {TOKEN}: 1\n", "evaluation", 1),
}  # fmt: skip


def assert_nowhere(folder, *texts):
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    for secret in (TOKEN, "opaque-SECRET"):
        assert not [text for text in texts if secret in text]
        assert not [path for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.parametrize("place", CONFIGS)
def test_a_config_with_a_secret_is_refused(place, tmp_path, fresh_project):
    text, key, line = CONFIGS[place]
    done, message = refuse_config(fresh_project, tmp_path / "secret.yaml", text)
    assert f"secret.yaml:{line}, field {key}: holds a secret" in message
    assert message.count("Remedy: ") == 1 and "HF_TOKEN" in message and "Traceback" not in message
    assert_nowhere(fresh_project, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--engine-options", json.dumps({"token": "opaque-SECRET"})], "engine_options.token"),
        (["--template-options", json.dumps({"a": {"b": TOKEN}})], "template_options"),
        (["--engine-options", json.dumps({"token": "opaque-SECRET"})[:-1]], "engine_options"),
        (["--revision", TOKEN], "revision"),
        ([f"--revision={TOKEN}"], "revision"),
        (["--token", "opaque-SECRET"], "token"),
        (["--api-key=opaque-SECRET"], "api-key"),
    ],
)
def test_a_stage_refuses_a_secret_on_its_command_line(options, field, tmp_path):
    done = script(
        "generate", "--prompts", tmp_path / "p.jsonl", "--model", tmp_path / "policy", "--samples", 1,
        "--state", tmp_path / "state", "--output", tmp_path / "generations.jsonl", *options, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and f"field {field}: " in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
    assert_nowhere(tmp_path, done.stdout, done.stderr)


def test_secrets_are_found_by_value_and_by_key():
    for value in VALUES:
        assert list(find_secrets({"a": [{"b": f"x {value} y"}]})) == [("a", 0, "b")], value
        assert list(find_secrets({"a": {value: 1}})) == [("a",)], value
    for key in KEYS:
        assert list(find_secrets({"a": {key: "opaque"}})) == [("a", key)], key
        assert list(find_secrets({key: {"header": 1}})) == [(key,)], key
    assert list(find_secrets(HARMLESS)) == []


# {text of a library's error: what may be shown of it}
ERRORS = {
    "404 Client Error for url: http://me:hunter2@mirror:80/api/a@main.": "404 Client Error for url: http://mirror:80/api/a@main.",
    "no https://hunter2@mirror/x and http://m@e:hun/ter2@mirror": "no https://mirror/x and http://mirror",
    "'https://cdn.org/w?X-Amz-Date=1&X-Amz-Signature=hunter2' is gone": "'https://cdn.org/w' is gone",
    "Max retries exceeded with url: /w?token=hunter2 (refused)": "Max retries exceeded with url: /w (refused)",
    "no rows in data/*?.jsonl, https://h.org:80/a@b: why? /a/(?P<n>b)": "no rows in data/*?.jsonl, https://h.org:80/a@b: why? /a/(?P<n>b)",
}  # fmt: skip


def test_errors_show_no_credentials_of_addresses():
    for said, shown in ERRORS.items():
        assert hide_secrets(said) == shown
        error = InputError(f"it cannot be read: {said}", "try again")
        assert error.problem == f"it cannot be read: {shown}" and "hunter2" not in str(error)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configs_have_none(path):
    assert list(find_secrets(yaml.safe_load(path.read_text(encoding="utf-8")))) == []
