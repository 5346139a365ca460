"""scripts/prompts.py: JSONL, TSV and CSV sources, selection, and bad input."""

import pytest
from conftest import rows, script, write_rows

TEXTS = {"en": "Hello {}", "de": "Hallo {}"}


def make_jsonl(folder, count):
    for language, text in TEXTS.items():
        write_rows(
            folder / f"{language}.jsonl",
            ({"id": f"q{i}", "text": text.format(i), "reference": None} for i in range(count)),
        )


def select(folder, language, *options, check=True, suffix="jsonl"):
    return script(
        "prompts", "--input", folder / f"{language}.{suffix}", "--parallel-to", folder / f"en.{suffix}", "--language", language,
        *options, "--output", folder / "out" / f"{language}.jsonl", check=check,
    )  # fmt: skip


def test_selection_is_parallel_and_only_grows(tmp_path):
    make_jsonl(tmp_path, 40)
    chosen = {}
    for limit in (10, 25):
        for language in TEXTS:
            select(tmp_path, language, "--limit", limit, "--seed", 3)
            chosen[language, limit] = [row["prompt_id"] for row in rows(tmp_path / "out" / f"{language}.jsonl")]
    assert chosen["en", 10] == chosen["de", 10]
    assert chosen["de", 25][:10] == chosen["de", 10] and len(set(chosen["de", 25])) == 25
    assert rows(tmp_path / "out" / "de.jsonl")[0]["messages"][0]["content"].startswith("Hallo")


def test_tsv_without_header_by_row_number(tmp_path):
    (tmp_path / "en.tsv").write_text('How many "eggs"?\t18\nA robe\t3\n', encoding="utf-8")
    (tmp_path / "de.tsv").write_text("Wie viele Eier?\t18\r\nEin Kleid\t3\r\n", encoding="utf-8")
    select(tmp_path, "de", "--columns", "q", "a", "--id", "row_number", "--text", "q", "--reference", "a", suffix="tsv")
    assert [
        (r["prompt_id"], r["messages"][0]["content"], r["reference"], r["source"])
        for r in rows(tmp_path / "out" / "de.jsonl")
    ] == [
        ("1", "Wie viele Eier?", "18", "de.tsv:1"),
        ("2", "Ein Kleid", "3", "de.tsv:2"),
    ]
    select(tmp_path, "en", "--columns", "q", "a", "--id", "row_number", "--text", "q", suffix="tsv")
    assert rows(tmp_path / "out" / "en.jsonl")[0]["messages"][0]["content"] == 'How many "eggs"?'


def test_csv_with_quoted_line_break_names_the_right_line(tmp_path):
    (tmp_path / "en.csv").write_text('id,text\na,"two\nlines, one field"\nb,plain\n', encoding="utf-8")
    select(tmp_path, "en", suffix="csv")
    assert [(r["messages"][0]["content"], r["source"]) for r in rows(tmp_path / "out" / "en.jsonl")] == [
        ("two\nlines, one field", "en.csv:2"),
        ("plain", "en.csv:4"),
    ]


BAD = {
    "broken JSON": ('{"id": "q1", "text": ', 2, "broken JSON"),
    "missing id": ('{"text": "x"}', 2, "field id"),
    "duplicate id": ('{"id": "q0", "text": "x"}', 2, "line 1"),
    "empty text": ('{"id": "q1", "text": " "}', 2, "empty text"),
    "no object": ("[1]", 2, "not a JSON object"),
    "unknown id": ('{"id": "zz", "text": "x"}', 2, "zz"),
    "boolean id": ('{"id": true, "text": "x"}', 2, "field id"),
    "not a number": ('{"id": "q1", "text": NaN}', 2, "broken JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_line_is_named(tmp_path, case):
    make_jsonl(tmp_path, 3)
    line, number, said = BAD[case]
    lines = (tmp_path / "de.jsonl").read_text().splitlines()
    lines[1] = line
    (tmp_path / "de.jsonl").write_text("\n".join(lines) + "\n")
    done = select(tmp_path, "de", check=False)
    assert done.returncode == 1
    assert f"de.jsonl:{number}" in done.stderr and said in done.stderr and "Remedy: " in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_wrong_encoding_and_missing_ids(tmp_path):
    make_jsonl(tmp_path, 3)
    (tmp_path / "de.jsonl").write_bytes('{"id": "q0", "text": "Grüße"}\n'.encode("latin-1"))
    done = select(tmp_path, "de", check=False)
    assert done.returncode == 1 and "de.jsonl:1" in done.stderr and "UTF-8" in done.stderr
    write_rows(tmp_path / "de.jsonl", [{"id": "q0", "text": "x"}, {"id": "q2", "text": "y"}])
    done = select(tmp_path, "de", check=False)
    assert done.returncode == 1 and "q1" in done.stderr and "en.jsonl line 2" in done.stderr


def test_ragged_row(tmp_path):
    (tmp_path / "en.tsv").write_text("id\ttext\na\tx\nb\ty\tz\n")
    done = select(tmp_path, "en", suffix="tsv", check=False)
    assert done.returncode == 1 and "en.tsv:3" in done.stderr and "3 fields instead of 2" in done.stderr


def test_headers_that_would_become_prompts_or_vanish(tmp_path):
    (tmp_path / "en.tsv").write_text("id\ttext\na\tx\n")
    done = select(tmp_path, "en", "--columns", "id", "text", suffix="tsv", check=False)
    assert done.returncode == 1 and "en.tsv:1" in done.stderr and "columns" in done.stderr
    (tmp_path / "en.csv").write_text("id,text,text\na,x,y\n")
    done = select(tmp_path, "en", suffix="csv", check=False)
    assert done.returncode == 1 and "stands twice" in done.stderr


def test_chats_end_with_the_user(tmp_path):
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And?"},
    ]
    write_rows(tmp_path / "en.jsonl", [{"id": 1, "text": turns}])
    select(tmp_path, "en")
    assert rows(tmp_path / "out" / "en.jsonl")[0]["messages"] == turns
    write_rows(tmp_path / "en.jsonl", [{"id": 1, "text": turns[:2]}])
    done = select(tmp_path, "en", check=False)
    assert done.returncode == 1 and "last turn" in done.stderr
    (tmp_path / "en.jsonl").write_text('{"id": 1, "text": "cut \\ud83d"}\n')
    done = select(tmp_path, "en", check=False)
    assert done.returncode == 1 and "half a character" in done.stderr and "Traceback" not in done.stderr
