"""What a depth node has to know of the engine that runs its network."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from typing import Any, Protocol


class ConfigureError(RuntimeError):
    """The node cannot be configured; the text says what to do."""


class Engine(Protocol):
    """What a depth node tells of the engine it runs."""

    model_id: str
    backend_name: str
    device_name: str


def fell_back_to_cpu(engine: Engine, values: Mapping[str, Any]) -> bool:
    """Whether a GPU was asked for and the CPU is what runs.

    Args:
        engine: loaded. values: of the node: device, allow_cpu_fallback, model.path.

    Raises:
        ConfigureError: it is so, and not allowed.
    """
    fell_back = values["device"].startswith("cuda") and engine.device_name.startswith("cpu")
    if fell_back and not values["allow_cpu_fallback"]:
        raise ConfigureError(
            f"device = {values['device']!r}: {values['model.path']} runs on the CPU only and "
            "allow_cpu_fallback is false; set device: cpu or allow_cpu_fallback: true")
    return bool(fell_back)


def free_memory() -> None:
    """Give back what a dropped engine held, on the accelerator too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
