"""Bad input of all kinds, one row of a table per case: exit code 1 with a message that helps, and never a traceback.

The tables are the YAML files beside this module. The keys of a case:
    name     what is wrong
    config   text of a config, which a dry-run of the workflow reads as bad.yaml; {folder} is the folder of `files`
    command  command line of a stage script, started in a folder that holds the files of FILES
    files    {name: text} of files that replace those of FILES or are added to them; the text is written as UTF-8 unless
             `encoding` names another one, or gzip; null makes a FIFO that nobody writes to, {} makes a folder
    says     parts of the message; the first error ends with a remedy
A part of a text like <<ab*3>> is repeated: ababab.
"""

import gzip
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ENVIRONMENT, INTERPRETER, ROOT

SECONDS = 60  # far more than a case takes, so that a case that hangs fails
PARTS = [{"role": "user", "content": "What is a heron?"}]
ANSWERS = [[{"role": "assistant", "content": text}] for text in ("A bird.", "A fish.")]
# Valid files of two prompts, by name.
FILES = {
    "source.jsonl": [{"id": i, "text": f"What is a heron, in {i} words?"} for i in (1, 2)],
    "prompts.jsonl": [
        {"prompt_id": f"p{i}", "language": "en", "messages": PARTS, "reference": "A bird.", "source": "t", "skip": None}
        for i in (1, 2)
    ],
    "generations.jsonl": [
        {
            "prompt_id": f"p{i}",
            "language": "en",
            "responses": [{"text": f"answer {j}", "finish_reason": "stop", "n_tokens": 2} for j in range(3)],
        }
        for i in (1, 2)
    ],
    "scores.jsonl": [{"prompt_id": f"p{i}", "language": "en", "rewards": [0.5, 1.5, 2.5]} for i in (1, 2)],
    "pairs.jsonl": [
        {
            "prompt_id": f"p{i}",
            "prompt": PARTS,
            "chosen": ANSWERS[0],
            "rejected": ANSWERS[1],
            "chosen_reward": 1.0,
            "rejected_reward": 0.0,
            "pool_size": 2,
        }
        for i in (1, 2, 3, 4)
    ],
}


def list_cases():
    return [
        pytest.param(case, id=f"{path.stem}: {case['name']}")
        for path in sorted(Path(__file__).parent.glob("*.yaml"))
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]


def repeat(text):
    """The text with each <<part*number>> written out."""
    return re.sub(r"<<(.+?)\*(\d+)>>", lambda match: match[1] * int(match[2]), text, flags=re.S)


def write_file(path, text, encoding):
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        os.mkfifo(path)
    elif text == {}:
        path.mkdir()
    elif encoding == "gzip":
        path.write_bytes(gzip.compress(repeat(text).encode()))
    else:
        path.write_bytes(repeat(text).encode(encoding))


def start(case, folder, project):
    """The finished process of a case."""
    if "config" in case:
        write_file(folder / "bad.yaml", case["config"].replace("{folder}", str(folder)), "utf-8")
        for name, text in case.get("files", {}).items():
            write_file(folder / name, text, "utf-8")
        command = ["-m", "snakemake", "--dry-run", "--quiet", "--configfile", folder / "bad.yaml"]
        folder = project
    else:
        valid = {name: "".join(f"{json.dumps(row)}\n" for row in rows) for name, rows in FILES.items()}
        for name, text in {**valid, **case.get("files", {})}.items():
            write_file(
                folder / name, text, "utf-8" if name not in case.get("files", {}) else case.get("encoding", "utf-8")
            )
        name, *arguments = shlex.split(repeat(case["command"]))
        command = [ROOT / "scripts" / f"{name}.py", *arguments]
    return subprocess.run(
        [str(INTERPRETER), *map(str, command)],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


@pytest.mark.parametrize("case", list_cases())
def test_bad_input_ends_with_a_message(case, tmp_path, fresh_project):
    done = start(case, tmp_path, fresh_project)
    output = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in output, output
    message = output[output.index("error: ") :]
    assert all(str(part) in message for part in case["says"]), message
    assert "Remedy: " in message, message


def test_the_docs_count_the_cases():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    groups = {"configs": "config", "prompt files": "prompts", "stage files": "records", "command lines": "commands"}
    for group, name in groups.items():
        count = len(yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8")))
        assert f"| {group} | {count} | {count} | 0 |" in text
