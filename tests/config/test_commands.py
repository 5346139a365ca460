"""Commands in messages: what a user runs who has not activated the environment."""

import sys

from croco.commands import name_command


def test_a_command_names_the_programs_of_its_interpreter(tmp_path, monkeypatch):
    programs = tmp_path / "my env/bin"
    programs.mkdir(parents=True)
    (programs / "snakemake").touch()
    monkeypatch.setattr(sys, "prefix", str(programs.parent))
    monkeypatch.chdir(tmp_path)
    assert name_command("snakemake", "stage", "--cores", "1") == "'my env/bin/snakemake' stage --cores 1"
    assert name_command("hf", "download") == "hf download"
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "prefix", "/none")
    assert name_command("snakemake", "--cores", "2") == "snakemake --cores 2"


def test_programs_elsewhere_have_their_whole_path(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/hf").touch()
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")
    assert name_command("hf", "auth", "login") == f"{tmp_path}/bin/hf auth login"
