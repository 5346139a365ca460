"""Tables that people open in spreadsheets: texts that would run as formulas, and the same texts read again."""

import csv

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from croco.errors import InputError
from croco.results.table import COLUMNS, read_cells, read_summary, write_summary
from croco.spreadsheets import FORMULA, guard, read_csv, to_csv, unguard

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\ra", " =1", "'=1", "''-x", "=", "＝1"]  # noqa: RUF001
OTHERS = ["", "a", "a=1", "'", "'a", "-1", "+1.5", "-1e-05", "-.5", "1", "dpo.s2", "en, de", "it's"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_guarded(text):
    assert guard(text) == f"'{text}" and unguard(guard(text)) == text


@pytest.mark.parametrize("cell", [*OTHERS, -1, -0.5, None])
def test_other_texts_and_numbers_stay(cell):
    assert guard(cell) == unguard(cell) == cell


@given(st.text(alphabet=[*FORMULA, *"'1ae. \t\r\n"]))
def test_every_text_comes_back(text):
    assert unguard(guard(text)) == text
    assert not guard(text).startswith(("\t", "\r"))


def test_a_table_comes_back_with_its_numbers(tmp_path):
    table = pd.DataFrame({"task": [*FORMULAS[:4], None], "=en": [-0.5, 1.0, None, 2.0, 0.0], "n": [-1, 2, 3, 4, 5]})
    path = tmp_path / "table.csv"
    path.write_text(to_csv(table), encoding="utf-8")
    with open(path, encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["task", "'=en", "n"] and [line[0] for line in lines] == [
        *(f"'{text}" for text in FORMULAS[:4]),
        "",
    ]
    assert [line[1:] for line in lines[:2]] == [["-0.5", "-1"], ["1", "2"]]
    back = read_csv(path)
    pd.testing.assert_frame_equal(back, table, check_dtype=False)


def test_the_summary_comes_back(tmp_path):
    """Rows of other harnesses name metrics and baselines as they like."""
    row = dict.fromkeys(COLUMNS, "") | {"model": "m", "pool": "multi", "setting": "dpo", "seed": "1", "round": "1"}
    row |= {"task": "=cmd|' /C calc'!A0", "metric": "@mean", "baseline": "-x", "delta": "-0.25", "value": "+0.5"}
    path = tmp_path / "summary.csv"
    write_summary(path, [], [row])
    text = path.read_text(encoding="utf-8")
    assert (
        all(cell in text.split("\n")[1].split(",") for cell in ("'@mean", "'-x", "-0.25", "+0.5")) and ",=" not in text
    )
    assert read_cells(path) == [row]
    read = read_summary(path).iloc[0]
    assert (read["task"], read["metric"], read["delta"]) == (row["task"], "@mean", -0.25)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cells: cells[:-3], f"not {len(COLUMNS)} fields"),
        (lambda cells: [*cells, "more"], f"not {len(COLUMNS)} fields"),
        (lambda cells: ["inf" if name == "value" else cell for name, cell in zip(COLUMNS, cells, strict=True)], "'inf' is not finite"),
        (lambda cells: ["nan" if name == "p" else cell for name, cell in zip(COLUMNS, cells, strict=True)], "'nan' is not finite"),
    ],
)  # fmt: skip
def test_rows_that_were_cut_or_are_not_finite_are_refused(tmp_path, change, said):
    good = ["1" if name == "round" else "0.5" if name in ("value", "p") else "" for name in COLUMNS]
    path = tmp_path / "summary.csv"
    path.write_text("".join(",".join(cells) + "\n" for cells in (COLUMNS, good, change(good))))
    with pytest.raises(InputError, match=rf"summary\.csv:3.*{said}"):
        read_summary(path)
