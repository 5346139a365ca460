"""The processor and the GPUs that a process uses, for its manifests and for the doctor."""

import functools
import os
import platform
import re
import subprocess
import sys
from pathlib import Path


def name_cpu() -> str | None:
    """The model of the processor; its architecture where the kernel names no model, None where neither is known."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (model := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)):
        return " ".join(model[1].split())
    return platform.processor() or platform.machine() or None


def name_gpus() -> list[str]:
    """The models of the GPUs that this process sees, one entry per GPU; empty where they are unknown."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    # vLLM uses the GPUs in processes of its own. A query by torch would take GPU memory in this process, too.
    return list_visible(_query_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def list_visible(gpus: list[tuple[str, str, str]], visible: str | None) -> list[str]:
    """The facts of the GPUs that a value of CUDA_VISIBLE_DEVICES shows; ``gpus`` are [(index, UUID, fact)].

    As CUDA reads it: up to the first device that does not exist, and each device once.
    """
    if visible is None:
        return [fact for _, _, fact in gpus]
    shown: dict[str, str] = {}
    for device in visible.lower().split(","):
        name = device.strip()
        found = {
            index: fact
            for index, uuid, fact in gpus
            if name == index or (name.startswith("gpu-") and uuid.lower().startswith(name))
        }
        if not found:
            break
        shown |= {index: fact for index, fact in found.items() if index not in shown}
    return list(shown.values())


@functools.cache
def _query_gpus() -> list[tuple[str, str, str]]:
    """[(index, UUID, name)] by nvidia-smi; empty without it."""
    return query_gpus("name") or []


def query_gpus(fact: str) -> list[tuple[str, str, str]] | None:
    """[(index, UUID, fact)] of all GPUs by nvidia-smi, None without it; ``fact`` is one of its --query-gpu."""
    query = ["nvidia-smi", f"--query-gpu=index,uuid,{fact}", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [[part.strip() for part in line.split(",", 2)] for line in done.stdout.splitlines()]
    return [(line[0], line[1], line[2]) for line in lines if len(line) == 3]
