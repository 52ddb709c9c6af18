"""Small random focus sweeps for tests of bags and replays: no physics, but something in focus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bag_scenes import LENS
from numpy.typing import NDArray

from depth_fusion_ros.bags.sweep_writer import SweepBagWriter
from depth_fusion_ros.optics.intrinsics import Intrinsics
from depth_fusion_ros.optics.thin_lens import ThinLens

FOCUS = (2.0, 1.5, 1.0, 0.5)
WALL_DIOPTERS = 1.1
SLICE_NS, SWEEP_NS = 50_000_000, 300_000_000


@dataclass(frozen=True)
class SmallSlice:
    """A slice with the attributes of simulation.SimulatedSlice."""

    image: NDArray[np.uint8]
    lens: ThinLens
    intrinsics: Intrinsics


@dataclass(frozen=True)
class SmallSweep:
    """A sweep with the attributes of simulation.SimulatedSweep."""

    slices: tuple[SmallSlice, ...]
    depth_m: NDArray[np.float32]


def small_sweep(seed: int, focus: tuple[float, ...] = FOCUS, *, times: int = 1) -> SmallSweep:
    """Return one sweep of a random texture that breathes; its truth holds NaN, +Inf and −Inf.

    The texture is sharp at `WALL_DIOPTERS`, and has nothing to do with the truth.

    times: as many times 32x24 px a side.
    """
    random = np.random.default_rng(seed)
    width, height = 32 * times, 24 * times
    depth = random.uniform(0.5, 6.0, (height, width)).astype(np.float32)
    depth[0, :3] = np.nan, np.inf, -np.inf
    texture = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return SmallSweep(tuple(
        SmallSlice(cv2.GaussianBlur(texture, (0, 0), 0.5 + abs(position - WALL_DIOPTERS)),
                   LENS.refocused(position),
                   Intrinsics(440 + position, 440 + position, (width - 1) / 2, (height - 1) / 2,
                              width, height))
        for position in focus), depth)


def write_small_sweeps(path: Path, sweeps: int = 2, *, times: int = 1, **options: Any
                       ) -> list[SmallSweep]:
    """Write random sweeps and return them; `times` as of `small_sweep`."""
    made = [small_sweep(seed, times=times) for seed in range(sweeps)]
    with SweepBagWriter(path, metadata={"seed": "0"}, **options) as bag:
        for index, sweep in enumerate(made):
            bag.write_sweep(sweep, bag.start_ns + index * SWEEP_NS, SLICE_NS)
    return made
