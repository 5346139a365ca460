"""The names of the processor and the GPUs that a process uses, for its manifests."""

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
    """The names of the GPUs that a value of CUDA_VISIBLE_DEVICES shows; ``gpus`` are [(index, UUID, name)]."""
    if visible is None:
        return [name for _, _, name in gpus]
    devices = [device.strip().lower() for device in visible.split(",") if device.strip()]
    return [
        name
        for device in devices
        for index, uuid, name in gpus
        if device == index or (not device.isdigit() and uuid.lower().startswith(device))
    ]


@functools.cache
def _query_gpus() -> list[tuple[str, str, str]]:
    """[(index, UUID, name)] by nvidia-smi; empty without it."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [[part.strip() for part in line.split(",", 2)] for line in done.stdout.splitlines()]
    return [(line[0], line[1], line[2]) for line in lines if len(line) == 3]
