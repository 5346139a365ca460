"""One set of versions: the lock, what is installed, the conda environment and the tools agree."""

import os
import re
import subprocess
import sys
from importlib import metadata

import pytest
import yaml
from conftest import ENVIRONMENT, ROOT, snakemake

PINS = dict(
    line.split("#")[0].strip().split("==")
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if "==" in line.split("#")[0]
)


def test_installed_versions_are_the_locked_ones():
    for name, version in PINS.items():
        assert metadata.version(name).split("+")[0] == version, name


def test_lock_is_exact_and_consistent():
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line) for line in lines)
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    # requirements-slurm.lock says why.
    faults = [
        line
        for line in check.stdout.splitlines()
        if not line.startswith("snakemake-executor-plugin-slurm 2.8.0 has requirement numpy")
    ]
    assert faults in ([], ["No broken requirements found."])


def test_conda_environments_install_the_locks():
    locks = {"croco": ["requirements.lock"], "vllm": ["requirements.lock", "requirements-vllm.lock"]}
    assert {path.stem for path in (ROOT / "envs").glob("*.yaml")} == set(locks)
    for name, files in locks.items():
        environment = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text(encoding="utf-8"))
        pip = next(part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
        pins = [line for file in files for line in (ROOT / file).read_text().splitlines() if "==" in line]
        assert pip == pins, "run `make envs`"
        assert f"python={sys.version_info.major}.{sys.version_info.minor}" in environment["dependencies"]


@pytest.mark.parametrize(
    "command",
    ["ruff check scripts tests", "ruff format --check scripts tests", "snakefmt --check Snakefile rules"],
)
def test_style(command):
    """snakefmt calls shfmt, which lies beside it."""
    environment = {**ENVIRONMENT, "PATH": f"{sys.prefix}/bin{os.pathsep}{ENVIRONMENT['PATH']}"}
    subprocess.run(command.split(), cwd=ROOT, env=environment, check=True)


def test_snakemake_lint_is_clean(fresh_project):
    output = snakemake(fresh_project, "--lint")
    assert "in a good condition" in output.stdout + output.stderr


def test_nothing_is_fetched_from_elsewhere_without_asking():
    """trust_remote_code stays off unless the config asks, and weights are safetensors."""
    for path in (ROOT / "scripts").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "trust_remote_code=True" not in text, path
        # The one loader checks what it loads; the miniature's reward model begins with a head drawn at random.
        if path.name not in ("loading.py", "miniature.py"):
            assert not re.search(r"(Auto|Peft)Model\w*\.from_pretrained", text), path
    assert '"use_safetensors": True' in (ROOT / "scripts/croco/models/loading.py").read_text(encoding="utf-8")
