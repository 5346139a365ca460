"""What a run says at its start and end."""

import json
import logging
import re
import shutil

from conftest import snakemake

from croco.cli import is_unintended
from croco.endings import count_warnings


def test_a_finished_run_ends_with_its_result_and_its_page(finished_run, tmp_path):
    project = shutil.copytree(finished_run, tmp_path / "project", symlinks=True)
    (project / "results/small/report.html").unlink()
    done = snakemake(project, "--cores", 1, "--configfile", "two_languages.yaml")
    end = done.stderr[done.stderr.index("report:  results/small/report.html") - 400 :]
    manifest = json.loads((project / "results/small/report.manifest.json").read_text())
    assert manifest["headlines"] and all(headline in end for headline in manifest["headlines"])
    assert "results/small/summary.csv" in end
    assert re.search(r"page at the end: +results/small/report.html\n", done.stderr)
    assert "page at the end" not in snakemake(project, "-n", "--configfile", "two_languages.yaml").stderr


def test_warnings_are_counted_once_per_text_and_last_attempt(tmp_path):
    logs = {"a.log": "warning: x\nwarning: y\n", "b/c.log": "warning: x\nno warning: z\n", "a.20260101-000000.log": "warning: old\n"}  # fmt: skip
    for name, text in logs.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert count_warnings(tmp_path) == {"x": 2, "y": 1}


def test_only_warnings_on_what_is_intended_are_hidden():
    def is_shown(logger, message):
        return is_unintended(logging.LogRecord(logger, logging.WARNING, "", 1, message, (), None))

    intended = "heldout: Custom kwargs can be passed to `--metadata` in console"
    assert not is_shown("lm_eval.api.task", intended)
    assert is_shown("lm_eval.api.task", "heldout: no test split") and is_shown("transformers", intended)
