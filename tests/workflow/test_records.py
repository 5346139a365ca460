"""What is read of the files between stages, and what of a text can be seen: croco.records and croco.text.normalise."""

import json
import unicodedata

import pytest
from conftest import rows, script, write_rows
from hypothesis import given
from hypothesis import strategies as st

from croco.digests import prompt_digest
from croco.errors import InputError
from croco.records import Generation, Prompt, Record, Score, check_same_text, read_records, rows_in_step
from croco.text.language import detect_language
from croco.text.normalise import fold, is_blank, normalise_id, strip_invisible

NOTHING = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u061c\u202a\u2066\u115f\u1160\u3164\uffa0\u2800\u034f\ufe0f\U000e0041\U000e0100\u180e\x00\x1b\x7f \t\n\r\u00a0\u3000\u2028"  # fmt: skip
CHAT = [{"role": "user", "content": "Say a word."}]
RESPONSE = {"text": "Word.", "finish_reason": "stop", "n_tokens": 2}


def prompt(prompt_id="p", language="en", **more):
    return {"prompt_id": prompt_id, "language": language, "messages": CHAT, "reference": None, "skip": None, **more}


def generation(*responses, prompt_id="p"):
    return {"prompt_id": prompt_id, "language": "en", "responses": list(responses), "skip": None}


@pytest.mark.parametrize("character", NOTHING, ids=ascii)
def test_characters_that_show_nothing(character):
    assert is_blank(character) and is_blank(character * 3)
    assert not is_blank(f"{character}a{character}")


@given(st.text(st.sampled_from(NOTHING)), st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters=NOTHING + "\u17b4\u17b5"), min_size=1))  # fmt: skip
def test_text_is_blank_only_where_all_of_it_is(nothing, seen):
    assert is_blank(nothing) and not is_blank(nothing + seen)
    assert strip_invisible(nothing + seen).strip() and not strip_invisible(nothing.replace("\u2800", "")).strip()


@given(st.text())
def test_forms_of_a_text_are_one(text):
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert len({normalise_id(form) for form in forms}) == len({strip_invisible(form) for form in forms}) == 1
    assert fold(forms[0]) == fold(forms[1]) == fold(f" \n{fold(text)}\t")


@pytest.mark.parametrize("character", filter(str.isspace, map(chr, range(0x3001))), ids=ascii)
def test_white_space_keeps_words_apart(character):
    assert fold(f"a{character}b") == fold(f"{character}A \u200b b") == "a b"


def test_invisible_characters_do_not_decide_the_language():
    text = "Mae fy chwaer yn byw mewn tŷ bach ger y môr, a phob haf rydyn ni'n beicio i'r traeth."
    hidden = unicodedata.normalize("NFD", "\u00ad\u200b".join(text))
    assert detect_language(hidden, "cy") == detect_language(text, "cy") == "cy"
    assert detect_language("\u3164" * 40, "en") is None  # fillers count as letters, by their category


WRONG = {
    "a string": (generation("Word."), "responses[0]"),
    "null": (generation(RESPONSE, None), "responses[1]"),
    "null text": (generation(RESPONSE, {**RESPONSE, "text": None}), "responses[1].text"),
    "no reason": (generation({"text": "Word."}), "responses[0].finish_reason"),
    "other reason": (generation({**RESPONSE, "finish_reason": "eos"}), "responses[0].finish_reason"),
    "counted in text": (generation({**RESPONSE, "n_tokens": "2"}), "responses[0].n_tokens"),
    "no list": ({**generation(), "responses": None}, "responses"),
    "no id": ({"language": "en", "responses": []}, "prompt_id"),
}


@pytest.mark.parametrize("stage", ["score", "identify", "build_pairs", "fidelity", "judge"])
@pytest.mark.parametrize("case", ["a string", "null text", "no reason"])
def test_each_stage_refuses_responses_that_are_none(tmp_path, stage, case):
    wrong, field = WRONG[case]
    prompts = write_rows(tmp_path / "prompts.jsonl", [prompt("o"), prompt()])
    answers = write_rows(tmp_path / "generations.jsonl", [generation(RESPONSE, prompt_id="o"), wrong])
    good = write_rows(tmp_path / "good.jsonl", [generation(RESPONSE, prompt_id="o"), generation(RESPONSE)])
    scores = write_rows(tmp_path / "scores.jsonl", [{"prompt_id": i, "language": "en", "rewards": [1.5]} for i in "op"])
    output, ledger = tmp_path / "output.jsonl", tmp_path / "ledger.json"
    options = {
        "score": ("--generations", answers, "--model", write_model(tmp_path), "--state", tmp_path, "--output", output),
        "identify": ("--generations", answers, "--language", "en", "--output", output),
        "build_pairs": ("--generations", answers, "--scores", scores, "--output", output, "--ledger", ledger),
        "fidelity": ("--answers", answers, "--languages", "en", "--output", tmp_path / "fidelity"),
        "judge": (
            *("--answers", good, "--baseline", answers, "--languages", "en"),
            *("--output", tmp_path / "arena"),
        ),
    }[stage]
    done = script(stage, "--prompts", prompts, *options, check=False)
    assert done.returncode == 1 and f"{answers}:2, field {field}" in done.stderr and "Remedy: " in done.stderr
    assert not output.exists()


def write_model(folder):
    """A folder that passes for a model until its weights are read, which these tests never reach."""
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "model.safetensors").touch()
    return folder / "model"


@pytest.mark.parametrize("case", WRONG)
def test_generations_are_checked_to_their_elements(tmp_path, case):
    wrong, field = WRONG[case]
    refuse(tmp_path, wrong, Generation, field)


@pytest.mark.parametrize("reward", [True, "1.5", 1e999, 10**400, [1.5]], ids=lambda reward: type(reward).__name__)
def test_rewards_are_finite_numbers_or_null(tmp_path, reward):
    line = '{"prompt_id": "p", "language": "en", "rewards": [1, null, -0.5, %s]}\n'
    path = tmp_path / "scores.jsonl"
    said = "1e999" if isinstance(reward, float) else json.dumps(reward)
    path.write_text(line % said)
    with pytest.raises(InputError, match=r"field rewards\[3\]"):
        list(read_records(path, Score))
    path.write_text(line % "2")
    assert [row["rewards"] for _, row in read_records(path, Score)] == [[1, None, -0.5, 2]]


@pytest.mark.parametrize("chat", [[], ["Say"], [{"role": "user"}], [{"role": "user", "content": None}]], ids=str)
def test_chats_are_texts_with_roles(tmp_path, chat):
    refuse(tmp_path, prompt(messages=chat), Prompt, "messages")


def refuse(folder, row, kind, field):
    path = write_rows(folder / "wrong.jsonl", [row])
    with pytest.raises(InputError) as caught:
        list(read_records(path, kind))
    assert f"{path}:1, field {field}" in str(caught.value) and "Remedy: " in str(caught.value)


def test_ids_of_stage_files_are_compared_in_one_form(tmp_path):
    files = [
        (write_rows(tmp_path / f"{form}.jsonl", [{"prompt_id": unicodedata.normalize(form, "tŷ")}]), Record)
        for form in ("NFC", "NFD")
    ]
    assert [[row["prompt_id"] for row in step] for step in rows_in_step(files)] == [["t\u0177"] * 2]


def test_a_prompt_that_stands_twice_is_refused(tmp_path):
    path = write_rows(tmp_path / "prompts.jsonl", [prompt("a"), prompt("b"), prompt("a")])
    with pytest.raises(InputError, match=r"prompts.jsonl:3, field prompt_id: a second row for the prompt 'a'"):
        list(rows_in_step([(path, Prompt), (path, Record)]))


def test_half_characters_and_endless_nesting_are_broken_lines(tmp_path):
    path, whole = tmp_path / "generations.jsonl", generation({**RESPONSE, "text": "whole \U0001f600 \\ud83d"})
    write_rows(path, [whole])  # escapes the pair
    assert [row for _, row in read_records(path, Generation)] == [whole]
    write_rows(path, [whole, generation({**RESPONSE, "text": "cut \ud83d"})])
    with pytest.raises(InputError, match=r"generations.jsonl:2, field responses: half a character"):
        list(read_records(path, Generation))
    path.write_text("[" * 200000)
    with pytest.raises(InputError, match=r"generations.jsonl:1: broken JSON"):
        list(read_records(path, Generation))


@pytest.mark.parametrize(
    ("encoding", "text", "advice"),
    [
        ("cp1250", "žába", "iconv -f ITS_ENCODING"),
        ("cp1251", "жаба", "look at the letters with accents afterwards"),
        ("utf-16", "frog", "iconv -f utf-16 -t utf-8"),
    ],
)
def test_the_advice_on_another_encoding_loses_no_letters(tmp_path, encoding, text, advice):
    (tmp_path / "other.jsonl").write_text(f'{{"prompt_id": "{text}"}}\n', encoding=encoding)
    with pytest.raises(InputError, match=r"other.jsonl:1: not valid UTF-8") as caught:
        list(read_records(tmp_path / "other.jsonl", Record))
    assert advice in caught.value.remedy and "latin1" not in caught.value.remedy


@pytest.mark.parametrize("said", [{"prompt_digest": None}, {}, {"prompt_digest": prompt_digest(prompt())}])
def test_responses_without_a_digest_are_to_any_text(said):
    check_same_text(prompt(), {**generation(), **said})
    with pytest.raises(InputError, match="another text"):
        check_same_text(prompt(), {**generation(), **said, "prompt_digest": "x"})


def test_prompts_that_differ_in_their_form_are_one(tmp_path):
    def select(language, *lines, options=()):
        own = write_rows(tmp_path / "source.jsonl", lines)
        return script("prompts", "--input", own, "--language", language, *options, "--output", tmp_path / f"{language}.jsonl", check=False)  # fmt: skip

    nfc, nfd = ({"id": unicodedata.normalize(form, "tŷ"), "text": form} for form in ("NFC", "NFD"))
    assert (
        select("en", nfc).returncode == select("cy", nfd, options=("--select", tmp_path / "en.jsonl")).returncode == 0
    )
    assert [rows(tmp_path / f"{code}.jsonl")[0]["prompt_id"] for code in ("en", "cy")] == ["t\u0177"] * 2
    done = select("de", nfc, nfd)
    assert done.returncode == 1 and "source.jsonl:2, field id" in done.stderr
    assert r"'t\u0177' and 'ty\u0302'" in done.stderr
    done = select("de", {"id": "1", "text": "\u2060\u3164"})
    assert done.returncode == 1 and "source.jsonl:1, field text: empty text" in done.stderr
