"""What makes a result repeatable: command, versions, hardware, seeds and time, as JSON types."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from depth_fusion_ros import __version__

PACKAGES = ("torch", "numpy", "opencv-python-headless", "onnxruntime")


def run_record(command: str, options: Mapping[str, Any], *, seeds: Mapping[str, int],
               wall_time_s: float) -> dict[str, Any]:
    """Describe a finished run.

    Args:
        command: e.g. "depth-fusion benchmark". options: long name → value; None and "" are left
            out, and of an absolute path only the last part is told.
        seeds: what each number seeded. wall_time_s: of the run.
    """
    return {
        "command": _command_line(command, options), "versions": versions(),
        "hardware": hardware(), "seeds": dict(seeds), "wall_time_s": round(wall_time_s, 1)}


def versions() -> dict[str, str]:
    """Versions of this package, Python and what computes; missing packages are left out."""
    found = {"depth_fusion_ros": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """CPU model, its cores, the threads torch uses, and the GPU where there is one."""
    found: dict[str, Any] = {"cpu": _cpu_model(), "cores": os.cpu_count(),
                             "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(0)
    return found


def _cpu_model() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _command_line(command: str, options: Mapping[str, Any]) -> str:
    words = command.split()
    for name, value in options.items():
        if value is None or value == "":
            continue
        if isinstance(value, Path) and value.is_absolute():
            value = value.name
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
