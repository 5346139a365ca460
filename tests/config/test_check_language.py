"""scripts/check_language.py on a copy of the table of languages, with a tiny tokenizer as a local policy."""

import json
import re

import pytest
from conftest import ROOT, script

from croco.config.languages import read_languages
from croco.errors import InputError
from croco.evaluation.tasks import parse_tasks

TABLE = ROOT / "config" / "languages.tsv"
BASQUE = "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela."


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A config over the default with two policies: one local, with a tokenizer of English words, and one missing."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("policy")
    # Words of the English sample are one token each; all else is one token a byte.
    words = ["All", "Ġhuman", "Ġbeings", "Ġare", "Ġborn", "Ġfree", "Ġand", "Ġequal", "Ġin", "Ġdignity", "Ġrights"]
    vocabulary = dict.fromkeys([*sorted(pre_tokenizers.ByteLevel.alphabet()), *(w[:n] for w in words for n in range(2, len(w) + 1))])  # fmt: skip
    merges = list(dict.fromkeys((w[:n], w[n]) for w in words for n in range(1, len(w))))
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder / "models" / "tiny")
    path = folder / "config.yaml"
    path.write_text(
        f"results: {folder}/\n"
        "policies:\n"
        '  - {name: tiny, path: "{results}/models/tiny", temperature: 1.0, max_tokens: 8}\n'
        "  - {name: far, path: nobody/no-such-model, temperature: 1.0, max_tokens: 8}\n",
        encoding="utf-8",
    )
    return path


def check(*arguments):
    """(exit code, {check: entry}) of a run with --json."""
    done = script("check_language", *arguments, "--json", check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, {entry["check"]: entry for entry in json.loads(done.stdout)["checks"]}


def test_known_language(config):
    code, checks = check("de", "--configfile", config)
    assert code == 0
    states = {name: entry["state"] for name, entry in checks.items()}
    assert states.pop("tokens far") == "warning" and states.pop("tokens tiny") == "warning"
    assert set(states.values()) == {"ok"} and set(states) == {
        "code", "row", "translator", "identification", "tasks", "config"
    }  # fmt: skip
    assert "belebele_deu_Latn" in checks["tasks"]["tasks"] and "lambada_openai_mt_de" in checks["tasks"]["candidates"]
    assert checks["tokens far"]["remedy"].endswith("/bin/hf download nobody/no-such-model")
    sample = "Alle Menschen sind frei und gleich an Würde und Rechten geboren."
    # English takes a token for each word and one for the full stop, German little less than one for each byte.
    tokens = checks["tokens tiny"]
    assert tokens["tokens_per_word_english"] == pytest.approx(13 / 12, abs=1e-4)
    assert 2 < tokens["tokens_per_word"] < len(sample.encode()) / len(sample.split())
    times = tokens["tokens_per_word"] * len(sample.split()) / 13
    assert tokens["times_english"] == pytest.approx(times, abs=1e-3)


def test_every_row_is_complete_and_lists_tasks_that_lm_eval_has():
    from lm_eval.tasks import TaskManager

    index = set(TaskManager().all_tasks)
    header, *lines = TABLE.read_text(encoding="utf-8").splitlines()
    assert '"' not in header + "".join(lines)
    for line in lines:
        row = dict(zip(header.split("\t"), line.split("\t"), strict=True))
        assert all(row.values()) and row["translategemma"] in ("yes", "no")
        assert set(parse_tasks(row["tasks"])) <= index


def test_language_without_a_row_is_told_the_row_to_add(config):
    done = script("check_language", "eu", "--configfile", config, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    *_, printed = done.stdout.rstrip("\n").splitlines()
    assert printed.split("\t") == ["eu", *(f"<{name}>" for name in TABLE.read_text().splitlines()[0].split("\t")[1:])]
    assert '- {code: "eu"}' in done.stdout and "belebele_eus_Latn" in done.stdout


def test_language_with_the_row_added(config, tmp_path):
    table = tmp_path / "languages.tsv"
    added = "\t".join(
        ["eu", "Basque", "Euskara", "eu", "no", "semantics: xnli_eu; knowledge: no_such_task", BASQUE, "low"]
    )
    table.write_text(TABLE.read_text(encoding="utf-8") + added + "\n", encoding="utf-8")
    code, checks = check("eu", "--configfile", config, "--languages", table)
    assert code == 0 and checks["row"]["found"] == "Basque, Euskara"
    assert checks["identification"]["state"] == "ok"
    assert checks["translator"]["state"] == "warning" and "translations" in checks["translator"]["remedy"]
    assert checks["tasks"]["state"] == "warning" and "no_such_task" in checks["tasks"]["found"]
    assert checks["tasks"]["tasks"] == ["xnli_eu"] and "include_base_44_basque" in checks["tasks"]["candidates"]
    assert checks["config"]["state"] == "warning"


def test_text_replaces_the_sample(config, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("All human beings are born free and equal in dignity and rights.\n" * 3, encoding="utf-8")
    code, checks = check("de", "--configfile", config, "--text", text)
    assert code == 0 and checks["identification"]["state"] == "warning" and "en" in checks["identification"]["found"]
    assert checks["tokens tiny"]["state"] == "ok"
    assert checks["tokens tiny"]["times_english"] < 1.5


def test_a_text_without_spaces_is_not_compared_by_words(config, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("人人生而自由，在尊严和权利上一律平等。\n", encoding="utf-8")  # noqa: RUF001
    checks = check("zh", "--configfile", config, "--text", text)[1]
    assert checks["identification"]["state"] == "ok"
    assert "times" not in checks["tokens tiny"]["found"] and "times_english" not in checks["tokens tiny"]


@pytest.mark.parametrize("code, remedy", [("eus", "write eu"), ("xq", "ISO 639"), ("Deutsch", "ISO 639")])
def test_unknown_code_blocks(code, remedy):
    done = script("check_language", code, check=False)
    assert done.returncode == 1 and remedy in done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "content, message",
    [("policies: [", "not readable as YAML"), ("- a list", "not a mapping"), ("samples: many", "field samples"),
     ("languages:\n  - {code: no}", "is a boolean here")],
)  # fmt: skip
def test_broken_config_ends_with_one_message(tmp_path, content, message):
    path = tmp_path / "broken.yaml"
    path.write_text(content, encoding="utf-8")
    done = script("check_language", "de", "--configfile", path, check=False)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


def test_table_with_a_ragged_row_is_refused(tmp_path):
    table = tmp_path / "languages.tsv"
    table.write_text(TABLE.read_text(encoding="utf-8") + "eu\tBasque\n", encoding="utf-8")
    done = script("check_language", "eu", "--languages", table, check=False)
    assert done.returncode == 1 and f"{table}:17" in done.stderr and "native_name" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("\thigh\n", "\tHigh\n", ":2, field resource: 'High' is not one of high, low"),
     ("\nnl\t", "\nda\t", ":3, field code: a second row for da")],
)  # fmt: skip
def test_table_with_a_wrong_cell_is_refused(tmp_path, old, new, message):
    table = tmp_path / "languages.tsv"
    table.write_text(TABLE.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(message)):
        read_languages(table)


def test_a_table_that_a_spreadsheet_wrote_is_read(tmp_path):
    table = tmp_path / "languages.tsv"
    table.write_text(TABLE.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert read_languages(table) == read_languages(TABLE)
