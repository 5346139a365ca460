"""What a digest depends on: behaviour, not looks."""

import re
import shutil
import subprocess

import pytest
from conftest import ROOT, forget_code, write_rows
from hypothesis import given
from hypothesis import strategies as st

from croco import cli, digests


@pytest.fixture
def copied(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    monkeypatch.setattr(digests, "SCRIPTS", tmp_path / "scripts")
    forget_code()
    return tmp_path / "scripts"


def digest_after_edit(folder, file, old, new):
    """The digest of build_pairs.py after one edit, which must have changed the file."""
    path = folder / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    forget_code()
    return digests.code_digest(folder / "build_pairs.py")


def test_looks_do_not_change_the_code_digest(copied):
    before = digests.code_digest(copied / "build_pairs.py")
    for file, old, new in (
        ("build_pairs.py", '"""Form preference', '"""Build preference'),
        ("build_pairs.py", "import Counter\n", "import Counter\n# a comment\n\n"),
        ("croco/pairs/rules.py", '"""The pair rules:', '"""Rules:'),
        (
            "croco/pairs/rules.py",
            "    ranked = sorted(rewards)",
            "    # why\n\n    ranked = sorted(rewards)",
        ),
        ("croco/models/transformers_engine.py", "return rewards", "return 0, rewards"),
    ):
        assert digest_after_edit(copied, file, old, new) == before, file


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("build_pairs.py", "count += 1", "count += 2"),
        ("croco/pairs/rules.py", "mean - 2 * std", "mean - 3 * std"),
        ("croco/records.py", "sep", "sap"),
    ],
)
def test_behaviour_of_script_or_helper_changes_it(copied, file, old, new):
    before = digests.code_digest(copied / "build_pairs.py")
    assert digest_after_edit(copied, file, old, new) != before


@pytest.mark.parametrize(
    ("script", "file"),
    [
        (script, f"croco/models/{engine}_engine.py")
        for script in ("generate", "score", "judge", "translate", "evaluate", "audit")
        for engine in ("transformers", "vllm")
    ]
    + [
        *(
            ("train", f"croco/training/{room}.py")
            for room in ("process", "policy", "trainers", "by_rows", "online_pairs", "live")
        ),
        ("check_template", "croco/models/template_check.py"),
        ("build_pairs", "croco/__init__.py"),
    ],
)
def test_re_runs_follow_every_import(copied, script, file):
    before = digests.code_digest(copied / f"{script}.py")
    (copied / file).write_text((copied / file).read_text(encoding="utf-8") + "\nx = 1\n", encoding="utf-8")
    forget_code()
    assert digests.code_digest(copied / f"{script}.py") != before


@pytest.mark.parametrize("damage", [None, "{}", "no JSON", '{"of": "other content", "digest": "0", "imported": []}'])
def test_what_is_kept_beside_a_module_changes_no_digest(copied, damage):
    before = digests.code_digest(copied / "build_pairs.py")
    kept = list(copied.rglob("*.behaviour.json"))
    for file in kept:
        file.write_text(damage, encoding="utf-8") if damage else file.unlink()
    forget_code()
    assert kept and digests.code_digest(copied / "build_pairs.py") == before


def test_a_module_that_an_import_did_not_find_counts_once_it_is_there(copied):
    (copied / "stage.py").write_text("try:\n    import croco.later\nexcept ImportError:\n    pass\n", encoding="utf-8")
    before = digests.code_digest(copied / "stage.py")
    (copied / "croco/later.py").write_text("x = 1\n", encoding="utf-8")
    forget_code()
    assert digests.code_digest(copied / "stage.py") != before


def test_re_runs_follow_packages_and_relative_imports(copied):
    for name, text in {
        "croco/inner/__init__.py": "from . import near\n",
        "croco/inner/near.py": "from ..far import z\n",
        "croco/far.py": "z = 1\n",
        "stage.py": "def main():\n    import croco.inner\n",
    }.items():
        (copied / name).parent.mkdir(exist_ok=True)
        (copied / name).write_text(text, encoding="utf-8")
    found = {digests.code_digest(copied / "stage.py")}
    for name in ("croco/inner/__init__.py", "croco/inner/near.py", "croco/far.py", "croco/__init__.py"):
        (copied / name).write_text((copied / name).read_text(encoding="utf-8") + "y = 1\n", encoding="utf-8")
        forget_code()
        found.add(digests.code_digest(copied / "stage.py"))
    assert len(found) == 5


def test_no_import_hides_from_the_re_run_digest():
    for path in (ROOT / "scripts").rglob("*.py"):
        assert not {"import_module(", "__import__("} & set(re.findall(r"\w+\(", path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"prompt_too_long"', '"too_long"', False),
        ("self.tokenizer.decode(", "self.tokenizer.batch_decode(", False),
        ("the tokenizer has no chat template", "there is no chat template", True),
        ("use an instruction-tuned model", "take another model", True),
        ('"""Token ids', '"""The ids', True),
        ("the chat template writes today's date", "the template is dated", True),
    ],
)
def test_cache_keys_follow_decisions_and_no_wording(copied, old, new, same):
    before = digests.behaviour_digest("croco/models/chats.py")
    text = (copied / "croco/models/chats.py").read_text(encoding="utf-8")
    assert old in text
    (copied / "croco/models/chats.py").write_text(text.replace(old, new), encoding="utf-8")
    forget_code()
    assert (digests.behaviour_digest("croco/models/chats.py") == before) is same


def test_cache_keys_follow_no_import_and_no_help(copied):
    before = digests.behaviour_digest("evaluate.py", "croco/models/transformers_engine.py")
    for file, old, new in (
        ("croco/records.py", "no such file", "this file is not there"),
        ("evaluate.py", "answers per prompt", "answers for each prompt"),
    ):
        text = (copied / file).read_text(encoding="utf-8")
        assert old in text
        (copied / file).write_text(text.replace(old, new), encoding="utf-8")
    forget_code()
    assert digests.behaviour_digest("evaluate.py", "croco/models/transformers_engine.py") == before


def test_lock_digest_ignores_comments_and_order(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text("# why\ntorch==2.13.0\nnumpy==2.3.5\n")
    before = digests.lock_digest(lock)
    lock.write_text("numpy==2.3.5  # fits vLLM\n\ntorch==2.13.0\n")
    assert digests.lock_digest(lock) == before
    lock.write_text("numpy==2.3.6\ntorch==2.13.0\n")
    assert digests.lock_digest(lock) != before


@given(st.integers(0, 9), st.text(max_size=8), st.text(max_size=8))
def test_prompt_seeds_leave_room_for_samples(seed, language, prompt_id):
    value = digests.prompt_seed(seed, language, prompt_id)
    assert 0 <= value < 2**63 and value % 4096 == 0
    assert value == digests.prompt_seed(seed, language, prompt_id)


def test_model_identity_is_its_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "config.json").write_text("{}")
    assert digests.model_identity(tmp_path / "a") == digests.model_identity(tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("a card does not count")
    assert digests.model_identity(tmp_path / "a") == digests.model_identity(tmp_path / "b")
    (tmp_path / "b" / "chat_template.jinja").write_text("another template does")
    assert digests.model_identity(tmp_path / "a") != digests.model_identity(tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        (tmp_path / "empty").mkdir()
        digests.model_identity(tmp_path / "empty")


def test_the_commit_of_another_repository_around_the_code_is_not_taken(tmp_path, monkeypatch):
    """As of an archive that was unpacked in the user's own repository; and there may be no git."""
    code, git = tmp_path / "croco/scripts", ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c"]
    write_rows(code / "stage.py", [])
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "mine"], check=True)
    unknown = {"code_commit": None, "code_dirty": None}
    assert cli.find_commit(code) == unknown
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "all"], check=True)
    known = cli.find_commit(code)
    assert len(known["code_commit"]) == 40 and known["code_dirty"] is False
    write_rows(code / "stage.py", [1])
    assert cli.find_commit(code) == {**known, "code_dirty": True}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.find_commit(code) == unknown
