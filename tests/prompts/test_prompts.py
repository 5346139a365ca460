"""scripts/prompts.py: JSONL, TSV and CSV sources, datasets, selection in blocks, and bad input."""

import json
import shutil

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
    """English by itself; another language takes what was selected in English, which is selected anew first."""
    chosen = folder / "out" / "en.jsonl"
    if language != "en":
        source = folder / f"en.{suffix}"
        script("prompts", "--input", source, "--language", "en", *options, "--output", chosen)
        options = (*options, "--select", chosen)
    return script(
        "prompts", "--input", folder / f"{language}.{suffix}", "--language", language, *options,
        "--output", folder / "out" / f"{language}.jsonl", check=check,
    )  # fmt: skip


def test_selection_is_parallel_and_only_grows(tmp_path):
    make_jsonl(tmp_path, 40)
    chosen = {}
    for limit in (10, 25):
        select(tmp_path, "de", "--limit", limit, "--seed", 3)
        for language in TEXTS:
            chosen[language, limit] = [row["prompt_id"] for row in rows(tmp_path / "out" / f"{language}.jsonl")]
    assert chosen["en", 10] == chosen["de", 10]
    assert chosen["de", 25][:10] == chosen["de", 10] and len(set(chosen["de", 25])) == 25
    assert rows(tmp_path / "out" / "de.jsonl")[0]["messages"][0]["content"].startswith("Hallo")


def test_blocks_continue_where_the_one_before_ended(tmp_path):
    """Blocks of 10, 10 and what is left are the selection of 25 at once; a block past the end is empty."""
    make_jsonl(tmp_path, 25)
    select(tmp_path, "en", "--limit", 25)
    whole, found, after = rows(tmp_path / "out" / "en.jsonl"), [], []
    for block in range(4):
        output = tmp_path / f"{block}.jsonl"
        script(
            "prompts", "--input", tmp_path / "en.jsonl", "--language", "en", "--limit", 10, *after, "--output", output
        )
        found.append(rows(output))
        after = ["--after", output]
    assert [len(block) for block in found] == [10, 10, 5, 0] and [row for block in found for row in block] == whole


def make_dataset(folder):
    """A dataset in a folder, as parquet, with all that a real one has: chats, system messages, function calls, gaps."""
    import datasets

    def turn(role, content, calls=None):
        return {"role": role, "content": content, "function_calls": calls}

    table = []
    for i in range(60):
        chat = [turn("user", f"Question {i} " + "long " * (i % 7)), turn("assistant", f"Answer {i}")]
        if i % 5 == 1:
            chat = [turn("system", "Be brief."), *chat, turn("user", "And then?"), turn("assistant", f"Then {i}")]
        if i % 10 == 3:
            chat[-1]["function_calls"] = "call()"
        if i % 10 == 7:
            chat = chat[1:]
        if i % 20 == 9:
            chat[0]["content"] = " "
        table.append({"key": f"d{i if i != 50 else 49}", "talk": {"messages": chat}})
    datasets.Dataset.from_list(table).to_parquet(folder / "data" / "train-00000.parquet")
    return folder / "data"


def test_dataset_is_sampled_filtered_and_counted(tmp_path, miniature):
    data = make_dataset(tmp_path)
    options = (
        "--dataset",
        data,
        "--id",
        "key",
        "--text",
        "talk.messages",
        "--reference",
        "last_turn",
        "--language",
        "en",
    )
    script("prompts", *options, "--limit", 100, "--output", tmp_path / "all.jsonl")
    lines, manifest = rows(tmp_path / "all.jsonl"), json.loads((tmp_path / "all.manifest.json").read_text())
    counts = manifest["counts"]
    assert manifest["origin"]["rows"] == 60 == counts["selected"] + sum(counts["left out"].values())
    assert counts["selected"] == len(lines) == len({line["prompt_id"] for line in lines})
    assert set(counts["left out"]) == {
        "a tool or function call", "the last turn is not the user's", "empty text", "the id of an earlier row",
    }  # fmt: skip
    chat = next(line for line in lines if line["prompt_id"] == "d11")
    assert [message["role"] for message in chat["messages"]] == ["system", "user", "assistant", "user"]
    assert chat["reference"] == "Then 11" and chat["source"] == f"{data}#11"
    # A token filter works on the source text: the shorter ones of the same order.
    script("prompts", *options, "--limit", 12, "--max-tokens", 24, "--tokenizer", miniature / "policy", "--output", tmp_path / "few.jsonl")  # fmt: skip
    few = [line["prompt_id"] for line in rows(tmp_path / "few.jsonl")]
    order = [line["prompt_id"] for line in lines]
    assert len(few) == 12 and few == sorted(few, key=order.index) and few != order[:12]
    done = script("prompts", *options[:2], "--id", "key", "--text", "key.no", "--language", "en", "--output", tmp_path / "x", check=False)  # fmt: skip
    assert done.returncode == 1 and "none of the 60 rows" in done.stderr and "missing field" in done.stderr
    done = script("prompts", *options[:2], "--id", "no", "--language", "en", "--output", tmp_path / "x", check=False)
    assert done.returncode == 1 and "field no" in done.stderr and "key, talk" in done.stderr
    done = script(
        "prompts", "--dataset", data, "--split", "test", "--language", "en", "--output", tmp_path / "x", check=False
    )
    assert done.returncode == 1 and "split" in done.stderr and "Traceback" not in done.stderr


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
    "boolean id": ('{"id": true, "text": "x"}', 2, "field id"),
    "not a number": ('{"id": "q1", "text": NaN}', 2, "broken JSON"),
    "half a character": ('{"id": "q1", "text": "x", "note": ["cut \\ud83d"]}', 2, "field note: half a character"),
    "too deep": ("[" * 200000, 2, "broken JSON"),
    "chat as Python's text": (
        """{"id": "q1", "text": "[{'role': 'user', 'content': 'x'}]"}""",
        2,
        "field text: a chat written as text",
    ),
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
    assert "Traceback" not in done.stderr and not (tmp_path / "out" / "de.jsonl").exists()


def test_wrong_encoding_and_missing_ids(tmp_path):
    make_jsonl(tmp_path, 3)
    (tmp_path / "de.jsonl").write_bytes('{"id": "q0", "text": "Grüße"}\n'.encode("latin-1"))
    done = select(tmp_path, "de", check=False)
    assert done.returncode == 1 and "de.jsonl:1" in done.stderr and "UTF-8" in done.stderr
    write_rows(tmp_path / "de.jsonl", [{"id": "q0", "text": "x"}, {"id": "q2", "text": "y"}])
    done = select(tmp_path, "de", check=False)
    assert done.returncode == 1 and "the id q1" in done.stderr and "de.jsonl" in done.stderr


def test_ragged_row(tmp_path):
    (tmp_path / "en.tsv").write_text("id\ttext\na\tx\nb\ty\tz\n")
    done = select(tmp_path, "en", suffix="tsv", check=False)
    assert done.returncode == 1 and "en.tsv:3" in done.stderr and "3 fields instead of 2" in done.stderr


def test_headers_that_would_become_prompts_or_vanish(tmp_path):
    (tmp_path / "en.tsv").write_text("id\ttext\na\tx\n")
    done = select(tmp_path, "en", "--columns", "id", "text", suffix="tsv", check=False)
    assert done.returncode == 1 and "en.tsv:1" in done.stderr and "columns" in done.stderr
    (tmp_path / "en.tsv").write_text("Id\tText \na\tx\n")
    done = select(tmp_path, "en", "--columns", "id", "text", suffix="tsv", check=False)
    assert done.returncode == 1 and "en.tsv:1" in done.stderr and "a header line" in done.stderr
    (tmp_path / "en.csv").write_text("id,text,text\na,x,y\n")
    done = select(tmp_path, "en", suffix="csv", check=False)
    assert done.returncode == 1 and "duplicate column" in done.stderr


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


def test_blocks_of_a_source_that_has_changed_are_refused(tmp_path):
    make_jsonl(tmp_path, 20)
    first, second = tmp_path / "0.jsonl", tmp_path / "10.jsonl"
    script("prompts", "--input", tmp_path / "en.jsonl", "--language", "en", "--limit", 10, "--output", first)
    make_jsonl(tmp_path, 30)
    options = (
        "--input",
        tmp_path / "en.jsonl",
        "--language",
        "en",
        "--limit",
        10,
        "--after",
        first,
        "--output",
        second,
    )
    done = script("prompts", *options, check=False)
    assert done.returncode == 1 and "20 rows" in done.stderr and "30 rows" in done.stderr and not second.exists()
    shutil.copy(first, second)
    shutil.copy(first.with_suffix(".manifest.json"), second.with_suffix(".manifest.json"))
    done = script("gather", "--parts", first, second, "--output", tmp_path / "all.jsonl", check=False)
    assert done.returncode == 1 and "duplicate prompt_id" in done.stderr and not (tmp_path / "all.jsonl").exists()


def make_arena(folder, **changed):
    """A dataset as m-ArenaHard is: a configuration a language, parallel by question_id, in another order."""
    import datasets

    for code in ("en", "de"):
        rows = [
            {"question_id": f"{i:032x}", "category": "hard", "subcategory": "code", "prompt": f"{code} {i}", "language": code}
            for i in (range(6) if code == "en" else range(7, -1, -1))
        ]  # fmt: skip
        datasets.Dataset.from_list(changed.get(code, lambda rows: rows)(rows)).to_parquet(
            folder / "arena" / code / "test-00000.parquet"
        )
    configs = "".join(
        f"- config_name: {code}\n  data_files:\n  - split: test\n    path: {code}/test-*\n" for code in ("en", "de")
    )
    (folder / "arena" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return folder / "arena"


def select_arena(folder, data, code, *options, check=True):
    return script(
        "prompts", "--dataset", data, "--subset", code, "--split", "test", "--id", "question_id", "--text", "prompt", "--language", code,
        "--unique", *options, "--output", folder / f"{code}.jsonl", check=check,
    )  # fmt: skip


def test_parallel_subsets_are_joined_by_id(tmp_path):
    data = make_arena(tmp_path)
    select_arena(tmp_path, data, "en", "--limit", 4)
    select_arena(tmp_path, data, "de", "--select", tmp_path / "en.jsonl")
    english, german = rows(tmp_path / "en.jsonl"), rows(tmp_path / "de.jsonl")
    assert [row["prompt_id"] for row in german] == [row["prompt_id"] for row in english] and len(german) == 4
    for one, other in zip(english, german, strict=True):
        assert other["messages"][0]["content"] == one["messages"][0]["content"].replace("en", "de")


def test_parallel_subsets_that_do_not_fit(tmp_path):
    """An id twice names both rows; one that is missing or without text is no prompt to leave out silently."""
    data = make_arena(tmp_path / "twice", en=lambda rows: [*rows, {**rows[2], "prompt": "another"}])
    done = select_arena(tmp_path, data, "en", check=False)
    assert done.returncode == 1 and "arena:6" in done.stderr and f"duplicate id {2:032x}, first in row 2" in done.stderr
    data = make_arena(tmp_path / "missing", de=lambda rows: rows[:-3])
    select_arena(tmp_path, data, "en")
    done = select_arena(tmp_path, data, "de", "--select", tmp_path / "en.jsonl", check=False)
    assert done.returncode == 1 and "is not here" in done.stderr and "de, field question_id" in done.stderr
    data = make_arena(tmp_path / "empty", de=lambda rows: [{**row, "prompt": " "} for row in rows])
    done = select_arena(tmp_path, data, "de", "--select", tmp_path / "en.jsonl", check=False)
    assert done.returncode == 1 and "cannot be used: empty text" in done.stderr and "Traceback" not in done.stderr


def select_rows(folder, chats, *options, suffix=".jsonl", check=True):
    """(prompts selected from {"id", "messages", ...} rows, counts of what was left out)."""
    write_rows(folder / f"chats{suffix}", chats)
    output = folder / "chosen.jsonl"
    script("prompts", "--input", folder / f"chats{suffix}", "--language", "en", "--text", "messages", *options, "--output", output, check=check)  # fmt: skip
    return rows(output), json.loads(output.with_suffix(".manifest.json").read_text())["counts"]["left out"]


USER, ASSISTANT = {"role": "user", "content": "Name a lake."}, {"role": "assistant", "content": "Lake Como."}
SHAPES = {
    "further keys": [{**USER, "toxic": False, "country": "Malta", "turn": 7}, {**ASSISTANT, "timestamp": "2023-05-01T10:00:00"}],
    "empty tool fields": [{**USER, "tool_calls": None, "function_call": {"name": None}}, {**ASSISTANT, "tool_calls": []}],
    "empty system turns": [{"role": "system", "content": ""}, {"role": "system", "content": None}, USER, ASSISTANT],
    "ShareGPT": [{"from": "human", "value": "Name a lake."}, {"from": "gpt", "value": "Lake Como."}],
    "OASST": [{"role": "prompter", "text": "Name a lake.", "lang": "en"}, {"role": "assistant", "text": "Lake Como."}],
    "OpenAI parts": [{"role": "user", "content": [{"type": "text", "text": "Name a lake.", "image_url": None}]}, ASSISTANT],
}  # fmt: skip


def test_chats_of_public_data_are_read_by_role_and_content(tmp_path):
    """Each shape, and as a dataset, whose table fills in keys that a turn lacks."""
    import datasets

    options = ("--text", "messages", "--reference", "last_turn", "--language", "en", "--output", tmp_path / "o.jsonl")
    source = write_rows(tmp_path / "s.jsonl", [{"id": name, "messages": chat} for name, chat in SHAPES.items()])
    script("prompts", "--input", source, *options)
    found = {row["prompt_id"]: (row["messages"], row["reference"]) for row in rows(tmp_path / "o.jsonl")}
    assert found == dict.fromkeys(SHAPES, ([USER], "Lake Como."))
    names = [name for name in SHAPES if name != "OpenAI parts"]
    datasets.Dataset.from_list([{"id": name, "messages": SHAPES[name]} for name in names]).to_parquet(
        tmp_path / "d" / "train.parquet"
    )
    script("prompts", "--dataset", tmp_path / "d", *options)
    found = {row["prompt_id"]: (row["messages"], row["reference"]) for row in rows(tmp_path / "o.jsonl")}
    assert found == dict.fromkeys(names, ([USER], "Lake Como."))


def test_parts_are_joined_and_what_no_text_answers_is_counted(tmp_path):
    def ask(*parts):
        return [{"role": "user", "content": list(parts)}]

    text, picture = {"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x"}}
    chats = [
        ask(text, {"type": "text", "text": "Be brief."}),
        ask(text, picture),
        [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}, {"role": "tool", "content": "4"}, USER],
        [{**USER, "images": ["x.png"]}],
        [{"from": "human", "value": "Hi"}, {"from": "observation", "value": "{}"}, {"from": "human", "value": "And?"}],
    ]  # fmt: skip
    found, left_out = select_rows(tmp_path, [{"id": i, "messages": chat} for i, chat in enumerate(chats)])
    assert [row["messages"] for row in found] == [[{"role": "user", "content": "What is this?\nBe brief."}]]
    assert left_out == {"content that is no text": 2, "a tool or function call": 2}
    write_rows(tmp_path / "bad.jsonl", [{"id": 1, "messages": [{"role": "narrator", "content": "Once"}]}])
    done = script("prompts", "--input", tmp_path / "bad.jsonl", "--text", "messages", "--language", "en", "--output", tmp_path / "x", check=False)  # fmt: skip
    assert done.returncode == 1 and "bad.jsonl:1, field messages" in done.stderr and "narrator" in done.stderr


def test_media_and_tools_beside_a_chat(tmp_path):
    """As LLaVA and tool data have them, in the row or beside a nested chat; empty, or beside a text, they say nothing."""
    chat = [{"from": "human", "value": "<image>\nWhat is this?"}]
    lines = [
        {"id": 1, "image": "coco/1.jpg", "messages": chat},
        {"id": 2, "tools": json.dumps([{"name": "search"}]), "messages": [USER]},
        {"id": 3, "image": None, "images": [], "tools": "[]", "functions": {}, "messages": [USER]},
        {"id": 4, "image": "coco/1.jpg", "messages": "Name a lake."},
    ]
    found, left_out = select_rows(tmp_path, lines)
    assert [row["prompt_id"] for row in found] == ["3", "4"]
    assert left_out == {"content that is no text": 1, "a tool or function call": 1}
    nested = [{"id": line["id"], "talk": line} for line in lines[:3]]
    assert select_rows(tmp_path, nested, "--text", "talk.messages")[1] == left_out


def test_the_first_turn_alone(tmp_path):
    chat = [{"role": "system", "content": "Be kind."}, USER, ASSISTANT, {"role": "user", "content": "And a river?"}, {"role": "assistant", "content": "The Po."}]  # fmt: skip
    source = write_rows(tmp_path / "c.jsonl", [{"id": 1, "messages": chat, "talk": {"turns": chat[3:]}}])
    for column, prompt, answer in (("first_turn", "Name a lake.", "Lake Como."), ("talk.turns.first_turn", "And a river?", "The Po.")):  # fmt: skip
        for reference in ("last_turn", None):
            options = ("--reference", reference) if reference else ()
            script("prompts", "--input", source, "--text", column, *options, "--language", "en", "--output", tmp_path / "o.jsonl")  # fmt: skip
            (line,) = rows(tmp_path / "o.jsonl")
            assert line["messages"] == [{"role": "user", "content": prompt}]
            assert line["reference"] == (answer if reference else None), "the answer to that turn, not the chat's last"


def test_chats_that_a_table_holds_as_text(tmp_path):
    """JSON in a cell is a chat as in JSONL; what only looks like one, or is none where one is asked for, is no prompt."""
    import pandas as pd

    chat = [{"role": "system", "content": "Be kind."}, USER, ASSISTANT]

    def select_cell(cell, *options):
        pd.DataFrame({"id": ["1"], "messages": [cell]}).to_csv(tmp_path / "en.csv", index=False)
        return select(tmp_path, "en", *options, suffix="csv", check=False)

    last, first = ("--text", "messages", "--reference", "last_turn"), ("--text", "first_turn")
    for options, found in ((last, chat[:2]), (first, [USER])):
        assert select_cell(json.dumps(chat), *options).returncode == 0
        assert rows(tmp_path / "out" / "en.jsonl")[0]["messages"] == found
    assert rows(tmp_path / "out" / "en.jsonl")[0]["reference"] is None
    wrong = [(str(chat), "a chat written as text"), ("Name a lake.", "a text where the turns of a chat are asked for")]
    wrong += [(json.dumps([{**USER, "content": "cut \ud83d"}]), "half a character")]
    for cell, said in wrong:
        for options in (last, first):
            done = select_cell(cell, *options)
            assert done.returncode == 1 and said in done.stderr and "en.csv:2, field messages" in done.stderr
            assert "Traceback" not in done.stderr
    done = select_cell(str(chat), "--text", "messages")
    assert done.returncode == 1 and "a chat written as text" in done.stderr, "whatever is asked for"
    for text in ("[1, 2] or {'role': 1}?", '[{"name": "Ann", "role": "admin"}]\nConvert this to CSV.'):
        assert select_cell(text, "--text", "messages").returncode == 0


@pytest.mark.parametrize("data", ("file", "dataset"))
def test_rows_chosen_by_a_column(tmp_path, data):
    """The others are counted once, in the first block; row numbers stay those of the whole source."""
    table = [{"lang": "English" if i % 3 else "French", "part": {"no": i % 2}, "old": i > 8, "text": f"Say {i}"} for i in range(12)]  # fmt: skip
    source = write_rows(tmp_path / "d" / "train.jsonl", table)
    options = ("--input", source) if data == "file" else ("--dataset", tmp_path / "d")
    options += ("--id", "row_number", "--language", "en", "--where", "lang=English", "--where", "old=false", "--where", "part.no=1", "--where", "part.no=0", "--limit", 4)  # fmt: skip
    script("prompts", *options, "--output", tmp_path / "0.jsonl")
    script("prompts", *options, "--after", tmp_path / "0.jsonl", "--output", tmp_path / "4.jsonl")
    script("gather", "--parts", tmp_path / "0.jsonl", tmp_path / "4.jsonl", "--output", tmp_path / "all.jsonl")
    wanted = [i for i in range(12) if i % 3 and i <= 8]
    found = rows(tmp_path / "all.jsonl")
    assert sorted(int(row["prompt_id"]) - 1 for row in found) == wanted
    assert all(row["messages"][0]["content"] == f"Say {int(row['prompt_id']) - 1}" for row in found)
    counts = json.loads((tmp_path / "all.manifest.json").read_text())["counts"]
    assert counts["selected"] == len(wanted) and counts["left out"] == {"not chosen by where": 12 - len(wanted)}
    done = script("prompts", *options[:6], "--where", "tongue=English", "--output", tmp_path / "x", check=False)
    assert done.returncode == 1 and "field tongue" in done.stderr and "Traceback" not in done.stderr
    done = script("prompts", *options[:6], "--where", "lang=english", "--output", tmp_path / "x", check=False)
    assert done.returncode == 1 and "12 rows" in done.stderr, "no row is chosen"


@pytest.mark.parametrize("data", ("file", "dataset"))
def test_rows_without_the_column_are_not_chosen(tmp_path, data):
    """A row without it, or without the record that holds it; numbers are the same whatever their form."""
    metas = [
        {"n": 1.0, "lang": "en"},
        None,
        {"n": 2.5, "lang": "en"},
        {"n": 1.0, "lang": None},
        {"n": 2.5, "lang": "de"},
    ]
    table = [{"id": f"r{i}", "text": f"Say {i}", "meta": meta} for i, meta in enumerate(metas)]
    if data == "file":
        table[1].pop("meta")
    source = write_rows(tmp_path / "d" / "train.jsonl", table)
    options = ("--input", source) if data == "file" else ("--dataset", tmp_path / "d")

    def choose(*where):
        where = [part for condition in where for part in ("--where", condition)]
        done = script("prompts", *options, "--language", "en", *where, "--output", tmp_path / "o.jsonl", check=False)
        counts = json.loads((tmp_path / "o.manifest.json").read_text())["counts"] if done.returncode == 0 else None
        return done, counts and ([row["prompt_id"] for row in rows(tmp_path / "o.jsonl")], counts["left out"])

    assert choose("meta.lang=en")[1] == (["r0", "r2"], {"not chosen by where": 3})
    for one in ("1", "1.0", "1e0"):
        assert choose(f"meta.n={one}")[1] == (["r0", "r3"], {"not chosen by where": 3})
    assert choose("meta.n=2.5", "meta.n=one", "meta.lang=de")[1] == (["r4"], {"not chosen by where": 4})
    done, _ = choose("meta.tongue=en")
    assert done.returncode == 1 and "field meta.tongue: no row has the field" in done.stderr


def test_prompts_in_another_language_are_counted_and_left_out(tmp_path):
    texts = [
        "Which mountains lie between Spain and France?",
        "Quelles montagnes séparent la France de l'Espagne, et quelle est la plus haute ?",
        "Welche Berge liegen zwischen Spanien und Frankreich, und welcher ist der höchste?",
        "Wie bitte?",
    ]
    source = write_rows(tmp_path / "s.jsonl", [{"id": i, "text": text} for i, text in enumerate(texts)])
    for option, kept, left_out in (((), ["0", "3"], {"wrong_language": 2}), (("--no-language-check",), ["0", "1", "2", "3"], {})):  # fmt: skip
        script("prompts", "--input", source, "--language", "en", *option, "--output", tmp_path / "o.jsonl")
        assert [row["prompt_id"] for row in rows(tmp_path / "o.jsonl")] == kept, "under 20 letters nothing can be told"
        assert json.loads((tmp_path / "o.manifest.json").read_text())["counts"]["left out"] == left_out


def test_the_miniatures_prompts_are_all_kept(miniature, tmp_path):
    for use in ("train", "dev"):
        source = miniature / "prompts" / use / "en.jsonl"
        script("prompts", "--input", source, "--language", "en", "--output", tmp_path / "o.jsonl")
        assert len(rows(tmp_path / "o.jsonl")) == len(rows(source)) > 0


CELLS = ['Explain "ad hoc".', "Two\nlines", '"Quoted" first', "a, b; c\td", 'plain "middle"']


@pytest.mark.parametrize("suffix, separator, encoding", [
    ("tsv", "\t", "utf-8"), ("tsv", "\t", "utf-8-sig"), ("csv", ",", "utf-8"), ("csv", ";", "utf-8-sig"), ("csv", "\t", "utf-8"), ("tsv", ";", "utf-8"),
])  # fmt: skip
def test_tables_of_pandas_and_spreadsheets(tmp_path, suffix, separator, encoding):
    import pandas as pd

    table = pd.DataFrame({"id": [f"q{i}" for i in range(len(CELLS))], "text": CELLS, "note": "x"})
    table.to_csv(tmp_path / f"en.{suffix}", sep=separator, index=False, encoding=encoding, lineterminator="\r\n")
    select(tmp_path, "en", suffix=suffix)
    assert [row["messages"][0]["content"] for row in rows(tmp_path / "out" / "en.jsonl")] == CELLS


@pytest.mark.parametrize("text, line", [
    ('id\ttext\na\t"Yes" she said\nb\tWhy?\n', 2),  # neither quoted throughout, nor without quotes at the start
    ('id\ttext\na\t"one\nb\ttwo"\nc\tthree\n', 2),  # one cell of two lines, or two cells
    ('id\ttext\na\t"never closed\nb\ttwo\n', 3),
])  # fmt: skip
def test_a_table_that_can_be_read_in_two_ways_is_refused(tmp_path, text, line):
    (tmp_path / "en.tsv").write_text(text)
    done = select(tmp_path, "en", suffix="tsv", check=False)
    assert done.returncode == 1 and f"en.tsv:{line}" in done.stderr and "begins with a quote" in done.stderr, (
        done.stderr
    )
    assert "Traceback" not in done.stderr and not (tmp_path / "out" / "en.jsonl").exists()


@pytest.mark.parametrize("text", ["id\ttext\na\thello\rworld\n", "id\ttext\ra\thello\r"])
def test_a_lone_carriage_return_is_named(tmp_path, text):
    (tmp_path / "en.tsv").write_bytes(text.encode())
    done = select(tmp_path, "en", suffix="tsv", check=False)
    assert done.returncode == 1 and "a carriage return" in done.stderr and "quote the field" in done.stderr, done.stderr


@pytest.mark.parametrize("suffix, text, found", [
    ("csv", "1;Hello, world\n2;Oh; world\n", None),  # broken either way
    ("csv", "1;Hello, world\n2;Good, day\n", None),  # whole either way
    ("csv", "1;Hello, world\n2;Good day\n", ["Hello, world", "Good day"]),
    ("csv", "1,Hello; world\n2,Good day\n", ["Hello; world", "Good day"]),
    ("tsv", "1\tHello, world\n2\tGood, day\n", ["Hello, world", "Good, day"]),
])  # fmt: skip
def test_the_separator_of_a_table_without_header_is_the_one_that_fits_alone(tmp_path, suffix, text, found):
    (tmp_path / f"en.{suffix}").write_text(text)
    done = select(tmp_path, "en", "--columns", "id", "text", suffix=suffix, check=False)
    if found:
        assert [row["messages"][0]["content"] for row in rows(tmp_path / "out" / "en.jsonl")] == found
    else:
        assert done.returncode == 1 and f"en.{suffix}:" in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / "out" / "en.jsonl").exists()


def select_from(folder, *options, check=True):
    """(prompts selected from the folder "d" as a dataset, counts of what was left out)."""
    done = script("prompts", "--dataset", folder / "d", "--language", "en", *options, "--output", folder / "o.jsonl", check=check)  # fmt: skip
    if done.returncode:
        return done
    counts = json.loads((folder / "o.manifest.json").read_text())
    assert counts["origin"]["rows"] == counts["counts"]["selected"] + sum(counts["counts"]["left out"].values())
    return rows(folder / "o.jsonl"), counts["counts"]["left out"]


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_cells_of_a_dataset_of_tables_are_text(tmp_path, suffix, separator):
    table = [("id", "text", "answer"), ("007", "None", "1.50"), ("7", "NA", "true"), ("1e3", "2024-01-01", "")]
    (tmp_path / "d").mkdir()
    (tmp_path / f"d/train.{suffix}").write_text("".join(separator.join(cells) + "\n" for cells in table))
    found, left_out = select_from(tmp_path, "--reference", "answer")
    assert [(row["prompt_id"], row["messages"][0]["content"], row["reference"]) for row in found] == [
        ("007", "None", "1.50"), ("7", "NA", "true"), ("1e3", "2024-01-01", None),
    ]  # fmt: skip
    assert left_out == {}


@pytest.mark.parametrize(("ids", "said"), [
    (["2024-01-01T10:00:00", "2024-01-02T10:00:00"], ["the id was read as a time", "`path`"]),
    ([1.0, 2.5], ["the id 1.0 is not a whole number"]),
])  # fmt: skip
def test_ids_of_a_dataset_that_are_no_ids(tmp_path, ids, said):
    write_rows(tmp_path / "d/train.jsonl", [{"id": one, "text": f"Say {one}"} for one in ids])
    done = select_from(tmp_path, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(text in done.stderr for text in said), done.stderr


def test_rows_of_a_dataset_without_an_id_are_counted(tmp_path):
    """Also over two blocks; where ids must be unique, such a row is an error."""
    ids = ["a", None, "b", " ", "c"]
    write_rows(tmp_path / "d/train.jsonl", [{"id": one, "text": f"Say {i}"} for i, one in enumerate(ids)])
    found, left_out = select_from(tmp_path)
    assert [row["prompt_id"] for row in found] == ["a", "b", "c"] and left_out == {"no id": 2}
    assert [row["source"].rpartition("#")[2] for row in found] == ["0", "2", "4"]
    done = select_from(tmp_path, "--unique", check=False)
    assert done.returncode == 1 and "the id is empty" in done.stderr and "d:1, field id" in done.stderr
    options = ("prompts", "--dataset", tmp_path / "d", "--language", "en", "--limit", 2)
    script(*options, "--output", tmp_path / "0.jsonl")
    script(*options, "--after", tmp_path / "0.jsonl", "--output", tmp_path / "2.jsonl")
    counts = [json.loads((tmp_path / f"{i}.manifest.json").read_text())["counts"] for i in (0, 2)]
    assert [count["selected"] for count in counts] == [2, 1] and [count["left out"] for count in counts] == [left_out, {}]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "found"), [("level=5", ["a", "b"]), ("level=5.0", ["a", "b"]), ("level=five", ["c"])]
)
def test_numbers_in_a_table_are_compared_by_value(tmp_path, where, found):
    (tmp_path / "en.csv").write_text("id,text,level\na,x,5.0\nb,y,5\nc,z,five\nd,w,\ne,v,05\n")
    select(tmp_path, "en", "--where", where, suffix="csv")
    assert [row["prompt_id"] for row in rows(tmp_path / "out" / "en.jsonl")] == found


def test_a_block_follows_none_that_was_selected_by_ids(tmp_path):
    make_jsonl(tmp_path, 3)
    select(tmp_path, "de")
    done = select(tmp_path, "en", "--limit", 1, "--after", tmp_path / "out" / "de.jsonl", check=False)
    assert done.returncode == 1 and "de.jsonl" in done.stderr and "--select" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_block_follows_none_of_another_stage(tmp_path):
    make_jsonl(tmp_path, 3)
    select(tmp_path, "en")
    block = tmp_path / "out" / "en.jsonl"
    script("audit", "select", "--prompts", block, "--output", tmp_path / "first.jsonl")
    done = select(tmp_path, "en", "--limit", 1, "--after", tmp_path / "first.jsonl", check=False)
    assert done.returncode == 1 and "first.manifest.json, is of the stage audit" in done.stderr


def test_invisible_characters_of_an_id_are_shown(tmp_path):
    make_jsonl(tmp_path, 2)
    write_rows(tmp_path / "en.jsonl", [{"id": "q\ufeff0", "text": "Hello"}])
    done = select(tmp_path, "de", check=False)
    assert done.returncode == 1 and r"the id 'q\ufeff0' of" in done.stderr, done.stderr


def test_the_files_of_a_dataset_may_have_other_columns(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/train.csv").write_text("id,prompt,answer\n007,Hello there,1.50\n7,Hi there,\n")
    (tmp_path / "d/test.csv").write_text("id,prompt\n08,Good day\n")
    for split, ids in (("train", ["007", "7"]), ("test", ["08"])):
        options = ("--dataset", tmp_path / "d", "--split", split, "--text", "prompt", "--language", "en")
        script("prompts", *options, "--output", tmp_path / f"{split}.jsonl")
        assert sorted(row["prompt_id"] for row in rows(tmp_path / f"{split}.jsonl")) == ids


@pytest.mark.parametrize("where", ["version=1.10", "version=01", "version=1e5"])
def test_texts_that_look_like_other_numbers_are_not_chosen(tmp_path, where):
    write_rows(tmp_path / "en.jsonl", [{"id": f"{i}", "text": "x", "version": text} for i, text in enumerate(["1.1", "1", "100000"])])  # fmt: skip
    done = select(tmp_path, "en", "--where", where, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
