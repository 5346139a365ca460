"""scripts/audit.py with a real tiny reward model, the damages by their properties, and the target audit."""

import json
import random
import re
import shutil
import time
from collections import Counter

import pytest
import yaml
from conftest import copy_project, planned, rows, script, snakemake, write_rows
from hypothesis import given
from hypothesis import strategies as st
from lxml import html

from audit import DAMAGES, FEWEST, decide, is_elsewhere
from croco.miniature.world import oracle_quality, question_by_id, spoil_answer
from croco.prompts.overlap import WORD as OVERLAP_WORD
from croco.text.damage import FEWEST_REPEATS, UNIT, repeat, rotate, shuffle, truncate

LANGUAGES = ("en", "de")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.lists(
    st.sampled_from(["a", "b.", "Ünï", "你好", "...", "\n", " ", "3.5 "]), max_size=12
).map(" ".join)


@given(TEXTS, st.integers())
def test_shuffled_is_another_order_of_the_same_words(text, seed):
    copy = shuffle(text, seed)
    assert copy == shuffle(text, seed)
    if len(set(UNIT.findall(text))) < 2:
        assert copy is None
    else:
        assert copy != text and sorted(copy) == sorted(text)
        if text.isascii():  # where scripts with and without spaces meet, two words may come to stand together
            assert Counter(copy.split()) == Counter(text.split())


@given(st.lists(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=9))
def test_white_space_stays_in_its_place(words):
    copy = shuffle("\n\n ".join(words), 0)
    assert copy is None or copy.count("\n\n ") == len(words) - 1


@given(TEXTS)
def test_truncated_is_a_proper_prefix(text):
    copy = truncate(text)
    if copy is None:
        assert not text[: len(text) // 2].strip()
    else:
        assert text.startswith(copy) and len(copy) < len(text) and copy.strip()


@given(TEXTS)
def test_repeated_is_one_sentence_of_the_text_again_and_again(text):
    copy = repeat(text)
    if not text.strip():
        assert copy is None
        return
    period = next(size for size in range(1, len(copy) + 1) if (copy + " ") == (copy[:size] + " ") * ((len(copy) + 1) // (size + 1)))  # fmt: skip
    assert copy[:period] in text
    assert (len(copy) + 1) // (period + 1) >= FEWEST_REPEATS and len(copy) >= len(text.strip())


def test_repeated_takes_the_first_sentence():
    assert repeat("Pi is 3.14. It is no whole number.").startswith("Pi is 3.14. Pi is 3.14. ")
    assert repeat("... It is 7.").startswith("... It is 7. ... It is 7.")
    assert repeat("今天很好。明天见。").startswith("今天很好。 今天很好。")


@pytest.mark.parametrize(
    "sentence",
    [
        "यह एक छोटा वाक्य है।", "এটি একটি ছোট বাক্য।", "یہ ایک چھوٹا جملہ ہے۔", "هل هذه جملة قصيرة؟",  # noqa: RUF001
        "នេះជាប្រយោគខ្លី។", "ဒါက ဝါကျတိုတစ်ခုပါ။", "ይህ አጭር ዓረፍተ ነገር ነው።", "これは短い文です。", "Das ist ein kurzer Satz!",
        "Selbstverständlich.", "È vero.", "1. Das ist ein Satz.", "1) Das ist ein Satz.", "১। এটি একটি ছোট বাক্য।",
        "Z. B. kann man das sagen.", "e.g. this one.", "Dr. Smith said so.", "1.1. Das ist ein Satz.", "Ja. Das ist gut.",
    ],
)  # fmt: skip
def test_repeated_takes_the_first_sentence_in_every_script(sentence):
    assert repeat(f"{sentence} {sentence}") == " ".join([sentence] * FEWEST_REPEATS)


@pytest.mark.parametrize("text", ["1.\n2. Brot und Salz", "1. 2. 3.", "z. B.", "Ja."])
def test_repeated_is_the_whole_text_where_no_sentence_ends(text):
    assert repeat(text) == " ".join([text] * FEWEST_REPEATS)


@pytest.mark.parametrize(
    "text", ["ab cd" + "." * 16_000, "1" * 16_000 + ".", "1. " * 6_000, "\n" * 16_000, "é." * 6_000]
)
def test_damages_take_no_time_on_degenerate_answers(text):
    before = time.perf_counter()
    repeat(text)
    shuffle(text, 0)
    assert time.perf_counter() - before < 2


@pytest.mark.parametrize("text", ["นี่คือประโยค", "ນີ້ແມ່ນ", "នេះជាប្រយោគ", "ဒါကဝါကျ", "今天很好", "これはカタカナ"])
def test_scripts_without_spaces_are_shuffled_by_character(text):
    """In the same scripts as the overlap of prompts is found by character."""
    copy = shuffle(text, 0)
    assert copy != text and sorted(copy) == sorted(text)
    assert UNIT.findall(text) == OVERLAP_WORD.findall(text) == list(text)


@given(st.lists(st.integers(), max_size=5), st.integers(0, 20))
def test_rotation_takes_all_in_turn(values, start):
    turned = rotate(values, start)
    assert (
        Counter(turned) == Counter(values) and turned[:1] == values[start % len(values) :][:1] if values else not turned
    )


@given(st.sampled_from(["add-2-3-a", "capital-4-b", "opposite-7-a", "after-3-b"]), st.sampled_from(["en", "de", "nl"]), st.integers())  # fmt: skip
def test_the_oracle_finds_spoilt_answers_worse(prompt_id, language, seed):
    question = question_by_id(prompt_id, language)
    quality = {
        check: oracle_quality(question, text) for check, text in spoil_answer(question, random.Random(seed)).items()
    }
    assert quality == {"hedged": 0.8, "evasive": 0.2, "wrong_value": 0.0}


def results_of(low=0.95, **others):
    """Checks as decide() takes them: every damage told from the answer, but for ``others``, {check: (n, accuracy, low)}."""
    checks = dict.fromkeys((*DAMAGES, "weak"), (64, 1.0, low)) | others
    return {check: dict(zip(("n", "accuracy", "ci_low"), result, strict=True)) for check, result in checks.items()}


@pytest.mark.parametrize(
    ("others", "correlation", "verdict", "remedy"),
    [
        ({}, 0.1, "fit", "none needed"),
        ({"off_topic": (64, 0.55, 0.43)}, None, "unfit", "not distinguish off_topic"),
        ({"shuffled": (64, 0.2, 0.1)}, None, "unfit", "another one"),
        ({"wrong_language": (64, 0.3, 0.2)}, None, "weak", "leave wrong_language in hygiene"),
        ({"repeated": (64, 0.8, 0.7)}, None, "weak", "preview"),
        ({"mine": (64, 0.5, 0.4)}, None, "weak", "expect no gain in what `mine` tests"),
        ({"weak": (64, 0.3, 0.2)}, None, "fit", "references"),
        ({}, 0.8, "fit", "longer answers"),
        ({}, -0.8, "fit", "shorter answers"),
        ({"wrong_language": (0, None, None)}, None, "fit", "none needed"),
        ({"shuffled": (FEWEST - 1, 1.0, 0.6)}, None, "weak", "too few comparisons for shuffled"),
        (dict.fromkeys(DAMAGES, (FEWEST - 1, 1.0, 0.6)), None, None, "raise audit.prompts"),
    ],
)  # fmt: skip
def test_verdicts(others, correlation, verdict, remedy):
    found, text = decide("de", results_of(**others), correlation)
    assert found == verdict and remedy in text


def answer(text, finish="stop"):
    return {"text": text, "finish_reason": finish, "n_tokens": 1, "token_digest": "x"}


def write_answers(path, prompts, texts):
    """A generations file with ``texts(i)``, a list, for the i-th prompt."""
    lines = [
        {"prompt_id": row["prompt_id"], "language": row["language"], "skip": None, "responses": [answer(t) for t in texts(i)]}
        for i, row in enumerate(rows(prompts))
    ]  # fmt: skip
    return write_rows(path, lines)


def without_references(prompts, folder):
    return {
        code: write_rows(folder / f"plain.{code}.jsonl", [{**row, "reference": None} for row in rows(path)])
        for code, path in prompts.items()
    }


def audit(miniature, prompts, folder, *options, answers=None, name="tiny", check=True):
    given = ["--answers", *answers.values()] if answers else []
    return script(
        "audit", "score", "--languages", *prompts, "--prompts", *prompts.values(), *given, *options,
        "--model", miniature / "reward", "--max-length", 256, "--state", folder / "state",
        "--output", folder / f"{name}.json", check=check,
    )  # fmt: skip


def read(folder, name="tiny"):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def audited(miniature, prompts, tmp_path_factory):
    """(folder of a finished audit of policy-like answers, two a prompt, and of the world's comparisons; its inputs)."""
    folder = tmp_path_factory.mktemp("audited")
    words = {"en": "The answer to this one is", "de": "Die Antwort auf diese Frage ist"}
    answers = {
        code: write_answers(folder / f"{code}.jsonl", path, lambda i, code=code: [f"{words[code]} {i}.", f"{words[code]} {i + 20}, yes."])
        for code, path in prompts.items()
    }  # fmt: skip
    brought = ["--comparisons", *(miniature / "comparisons" / f"{code}.jsonl" for code in prompts)]
    options = ["--audited", "policy", "--policy", "mini", *brought]
    audit(miniature, prompts, folder, *options, answers=answers)
    return folder, answers, options


def test_report_adds_up_from_its_lines(audited, prompts):
    folder, *_ = audited
    report, lines = read(folder), rows(folder / "tiny.jsonl")
    assert report["reward_model"] == "tiny" and report["policy"] == "mini" and set(report["languages"]) == set(prompts)
    for code, found in report["languages"].items():
        assert found["n"] == 12 and found["reward_sd"] > 0 and -1 <= found["length_correlation"] <= 1
        assert list(found["checks"]) == [*DAMAGES, "weak", "hedged", "evasive", "wrong_value"]
        for check, result in found["checks"].items():
            mine = [line for line in lines if (line["language"], line["check"]) == (code, check)]
            by_prompt = {}
            for line in mine:
                gap = line["reward_answer"] - line["reward_damaged"]
                by_prompt.setdefault(line["prompt_id"], []).append((gap > 0) + 0.5 * (gap == 0))
            assert result["n"] == len(by_prompt) == 12
            means = [sum(scores) / len(scores) for scores in by_prompt.values()]
            assert result["accuracy"] == pytest.approx(sum(means) / len(means))
            assert result["ci_low"] <= result["accuracy"] <= result["ci_high"] and result["ci_low"] < result["ci_high"]
            if check in DAMAGES:
                assert len(mine) + sum(found["left_out"].get(check, {}).values()) == 24
    for line in lines:
        assert line["answer"].strip() != line["damaged"].strip()
    table = (folder / "tiny.md").read_text(encoding="utf-8")
    assert max(map(len, table.splitlines())) <= 100
    assert report["languages"]["de"]["remedy"] in " ".join(table.split())
    page = html.fromstring((folder / "tiny.html").read_text(encoding="utf-8"))
    for code in LANGUAGES:
        checks = report["languages"][code]["checks"]
        assert len(re.findall(rf"^\| {code} .* to ", table, re.MULTILINE)) == sum(
            bool(found["n"]) for found in checks.values()
        )
    shown = [[cell.text for cell in row] for row in page.xpath("//section[@id='checks']//tbody/tr")]
    printed = [line.strip("| ").split("|") for line in table.splitlines() if " to 0." in line or " to 1." in line]
    assert shown == [[cell.strip() for cell in line] for line in printed]
    remedies = [row.xpath("string(./td[2])") for row in page.xpath("//section[@id='verdicts']//tbody/tr")]
    assert remedies == [report["languages"][code]["remedy"] for code in LANGUAGES] and not page.xpath(
        "//script | //*[@src]"
    )
    manifest = json.loads((folder / "tiny.manifest.json").read_text(encoding="utf-8"))
    assert manifest["counts"]["comparisons"] == len(lines) and manifest["inputs"]["reward_model"]


def test_copies_are_what_their_names_say(audited, prompts):
    folder, answers, _ = audited
    texts = {code: {r["prompt_id"]: [a["text"] for a in r["responses"]] for r in rows(path)} for code, path in answers.items()}  # fmt: skip
    for line in rows(folder / "tiny.jsonl"):
        code, prompt_id, copy = line["language"], line["prompt_id"], line["damaged"]
        if line["check"] == "wrong_language":
            other = next(other for other in LANGUAGES if other != code)
            assert copy in texts[other][prompt_id]
        if line["check"] == "off_topic":
            assert any(copy in some for other, some in texts[code].items() if other != prompt_id)
        if line["check"] == "weak":
            assert copy in texts[code][prompt_id] and line["answer"] not in texts[code][prompt_id]


def test_rewards_are_those_of_the_scoring_stage(audited, miniature, prompts, tmp_path):
    folder, answers, _ = audited
    script(
        "score", "--prompts", prompts["de"], "--generations", answers["de"], "--model", miniature / "reward",
        "--state", tmp_path, "--output", tmp_path / "scores.jsonl",
    )  # fmt: skip
    known = {
        (line["prompt_id"], response["text"]): reward
        for line, scored in zip(rows(answers["de"]), rows(tmp_path / "scores.jsonl"), strict=True)
        for response, reward in zip(line["responses"], scored["rewards"], strict=True)
    }
    lines = [line for line in rows(folder / "tiny.jsonl") if line["language"] == "de" and line["check"] in DAMAGES]
    assert len(lines) > 100
    for line in lines:
        assert line["reward_answer"] == pytest.approx(known[line["prompt_id"], line["answer"]], abs=1e-5)


def test_an_audit_goes_on_with_the_chunks_that_a_kill_left(audited, miniature, prompts, tmp_path):
    folder, answers, options = audited
    shutil.copytree(folder / "state", tmp_path / "state")
    parts = sorted((tmp_path / "state" / "audit").rglob("*.jsonl"))
    assert len(parts) == 2  # 24 prompts in chunks of 16
    parts[0].unlink()
    done = audit(miniature, prompts, tmp_path, *options, answers=answers)
    to_score, known = map(int, re.search(r"(\d+) texts to score, (\d+) are scored already", done.stderr).groups())
    assert to_score > 50 and known > 50
    for one, other in zip(rows(folder / "tiny.jsonl"), rows(tmp_path / "tiny.jsonl"), strict=True):
        for side in ("reward_answer", "reward_damaged"):
            assert one.pop(side) == pytest.approx(other.pop(side), abs=1e-5)
        assert one == other


def test_references_come_first_and_what_is_left_out_is_counted(miniature, prompts, tmp_path):
    lines = rows(prompts["en"])[:5]
    for line, reference in zip(
        lines, ["Paris", "The capital is Paris.", None, None, "far too long " * 300], strict=True
    ):
        line["reference"] = reference
    lines.append({**rows(prompts["en"])[5], "skip": "too_long"})
    given = {"en": write_rows(tmp_path / "p.jsonl", lines)}
    texts = [["Paris"], ["I do not know, sorry."], ["It is good.", "It is good.", " "], [], ["No."], []]
    answers = {"en": write_answers(tmp_path / "a.jsonl", given["en"], lambda i: texts[i])}
    cut = rows(answers["en"])
    cut[3]["responses"] = [
        answer("Das ist eine gute Frage und viele Leute stellen sie."),
        answer("It is cut", "length"),
    ]
    write_rows(answers["en"], cut)
    audit(miniature, given, tmp_path, answers=answers)
    found = read(tmp_path)["languages"]["en"]
    assert found["n"] == 4 and found["verdict"] is None and found["length_correlation"] is None
    assert found["left_out"]["prompts"] == {"too_long": 1, "no_answer": 1}
    assert found["left_out"]["answers"] == {"duplicate": 1, "empty": 1, "wrong_language": 1, "cut_off": 1}
    assert found["left_out"]["shuffled"] == {"one_word": 1, "too_long": 1}
    assert found["left_out"]["wrong_language"] == {"no_answer_in_another_language": 4}
    assert found["left_out"]["weak"] == {"equal": 1, "too_long": 1, "no_reference": 2}
    truncated = [line["answer"] for line in rows(tmp_path / "tiny.jsonl") if line["check"] == "truncated"]
    assert truncated == ["Paris", "The capital is Paris.", "It is good."]


def refused(done, *parts):
    assert done.returncode == 1 and "Traceback" not in done.stderr and "Remedy" in done.stderr, done.stderr
    assert all(part in done.stderr for part in parts), done.stderr


def test_bad_input_ends_the_run_before_a_model_is_loaded(miniature, prompts, tmp_path):
    plain = without_references(prompts, tmp_path)
    refused(audit(miniature, plain, tmp_path, check=False), "no prompt has an answer")
    one = {"en": write_rows(tmp_path / "one.jsonl", [{**rows(prompts["en"])[0], "reference": "x"}])}
    looped = write_answers(tmp_path / "x.jsonl", one["en"], lambda i: ["x"])
    brought = {"language": "en", "prompt_id": rows(one["en"])[0]["prompt_id"], "check": "mine", "answer": "x", "damaged": " x"}  # fmt: skip
    path = write_rows(tmp_path / "brought.jsonl", [brought])
    refused(audit(miniature, one, tmp_path, "--comparisons", path, check=False), "brought.jsonl", "nothing to compare")
    write_rows(path, [{**brought, "check": "shuffled"}])
    refused(audit(miniature, one, tmp_path, "--comparisons", path, check=False), "brought.jsonl:1", "audit's own")
    write_rows(path, [{**brought, "damaged": None}])
    refused(audit(miniature, one, tmp_path, "--comparisons", path, check=False), "brought.jsonl:1", "damaged")
    swapped = {"de": prompts["en"], "en": prompts["de"]}
    refused(audit(miniature, swapped, tmp_path, check=False), "en.jsonl:1", "not de")
    refused(audit(miniature, prompts, tmp_path, answers={"en": looped, "de": looped}, check=False), "prompt_id")


@pytest.mark.parametrize(
    ("answer", "copy", "expected"),
    [
        ("Die Hauptstadt von Frankreich ist Paris.", "The capital of France is Paris.", True),
        ("Die Hauptstadt von Frankreich ist Paris.", "It is Paris.", True),
        ("Die Hauptstadt von Frankreich ist Paris.", "Die Hauptstadt ist natürlich Paris.", False),
        ("Es ist Paris.", "It is Paris.", False),
        ("```\nprint(1)\n```", "```\nprint(2)\n```", False),
    ],
)
def test_a_copy_in_another_language_is_known_to_be_one(answer, copy, expected):
    assert is_elsewhere(copy, "de", answer) is expected


def test_no_file_beside_the_output_replaces_an_input(miniature, prompts, tmp_path):
    answers = {code: write_answers(tmp_path / f"{code}.jsonl", path, lambda i: ["x"]) for code, path in prompts.items()}
    before = answers["de"].read_bytes()
    refused(audit(miniature, prompts, tmp_path, answers=answers, name="de", check=False), "de.jsonl would be replaced")
    assert answers["de"].read_bytes() == before
    script("audit", "select", "--prompts", prompts["de"], "--output", tmp_path / "selected.jsonl")


@pytest.mark.parametrize("name", ["folder.jsonl", "."])
def test_an_output_that_is_a_folder_is_refused_at_once(prompts, tmp_path, name):
    (tmp_path / name).mkdir(exist_ok=True)
    done = script("audit", "select", "--prompts", prompts["de"], "--output", tmp_path / name, check=False)
    refused(done, f"{tmp_path / name} is a folder, not a file")


def test_equal_copies_are_left_out(miniature, prompts, tmp_path):
    """A letter has no first half and no other order; both prompts and languages answer with it; it can be repeated."""
    lines = {code: [{**row, "reference": "7"} for row in rows(path)[:2]] for code, path in prompts.items()}
    given = {code: write_rows(tmp_path / f"{code}.jsonl", some) for code, some in lines.items()}
    audit(miniature, given, tmp_path)
    found = read(tmp_path)["languages"]["de"]
    assert {check: result["n"] for check, result in found["checks"].items() if result["n"]} == {"repeated": 2}
    assert found["left_out"]["off_topic"] == {"equal": 2}
    assert found["left_out"]["wrong_language"] == {"no_answer_in_another_language": 2}, "7 is in no language"
    assert found["verdict"] is None and found["length_correlation"] is None


def test_one_prompt_in_one_language(miniature, prompts, tmp_path):
    lines = [{**rows(prompts["en"])[0], "reference": "It is seven."}]
    audit(miniature, {"en": write_rows(tmp_path / "one.jsonl", lines)}, tmp_path)
    found = read(tmp_path)["languages"]["en"]
    assert found["n"] == 1 and found["verdict"] is None and found["reward_sd"] is None
    assert found["left_out"]["off_topic"] == {"no_other_prompt": 1}
    assert found["checks"]["off_topic"] == {"n": 0, "accuracy": None, "ci_low": None, "ci_high": None}


@pytest.fixture(scope="module")
def project(miniature, tmp_path_factory):
    """(folder of a copy of the project, arguments for a config with two languages and blocks of 8 prompts)."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    prompts = [
        {"use": use, "path": f"{miniature}/prompts/{split}/{{language}}.jsonl", "limit": 32}
        for use, split in (("train", "train"), ("evaluate", "dev"))
    ]
    config = {
        "results": "results/audit",
        "languages": [{"code": code} for code in LANGUAGES],
        "samples": 8,
        "block": 8,
        "policies": [{"name": "mini", "path": str(miniature / "policy"), "temperature": 0.6, "max_tokens": 16}],
        "reward_models": [{"name": "tiny", "path": str(miniature / "reward"), "max_length": 128}],
        "prompts": prompts,
        "pools": [],
        "settings": [
            {"name": "base", "objective": "none"},
            {"name": "dpo", "objective": "dpo", "target": "pair", "rejected": "mean-2sd", "pools": ["monolingual"]},
        ],
        "evaluation": {"judge": "none", "tasks": [], "samples": 1, "temperature": 0, "max_tokens": 16},
        "contrasts": [],
        "audit": {"prompts": 10, "samples": 2, "comparisons": f"{miniature}/comparisons/{{language}}.jsonl"},
    }
    (folder / "audit.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder, ["--configfile", "audit.yaml"]


def test_target_plans_a_few_answers_to_the_first_prompts_alone(project):
    folder, arguments = project
    assert planned(folder, "audit", *arguments) == {
        "audit": 1, "audit_reward": 1, "check_models": 1, "check_template": 1, "check_role_template": 1, "generate_audited": 2, "select_audited": 2, "select_train": 4, "select_evaluate": 8, "gather_prompts_evaluate": 2, "check_contamination": 4,
    }  # fmt: skip


def test_target_writes_its_files_and_its_answers_are_those_of_generation(project):
    folder, arguments = project
    later = "results/audit/mini/de/generations/0.jsonl"
    snakemake(folder, "audit", later, "--cores", 2, *arguments)
    results = folder / "results" / "audit"
    found = json.loads((results / "audit" / "tiny.json").read_text(encoding="utf-8"))
    assert found["policy"] == "mini" and [language["n"] for language in found["languages"].values()] == [10, 10]
    assert found["languages"]["de"]["checks"]["hedged"]["n"] == 10
    answers = rows(results / "audit/mini/de.jsonl")
    assert [len(line["responses"]) for line in answers] == [2] * 10
    assert not planned(folder, "audit", *arguments)
    all_samples = rows(folder / later)
    assert [len(line["responses"]) for line in all_samples] == [8] * 8
    assert [line["responses"][:2] for line in all_samples] == [line["responses"] for line in answers[:8]]
