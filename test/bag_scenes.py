"""Small random dual-pixel sets for tests of bags and players: no physics, only shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.bags.writer import DualPixelBagWriter
from depth_fusion_ros.estimation.estimate import Intrinsics
from depth_fusion_ros.optics.thin_lens import ThinLens

PERIOD_NS = 100_000_000
LENS = ThinLens(focal_length_m=0.012, f_number=2.0, pixel_pitch_m=27.6e-6, focus_diopters=0.8)


@dataclass(frozen=True)
class SmallFrame:
    """A set with the attributes of simulation.SimulatedFrame."""

    left: NDArray[Any]
    right: NDArray[Any]
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    lens: ThinLens
    intrinsics: Intrinsics


def small_frame(seed: int, *, width_px: int = 32, height_px: int = 24) -> SmallFrame:
    """Return one random set; its truth holds a NaN, a +Inf and a −Inf pixel."""
    random = np.random.default_rng(seed)
    shape = (height_px, width_px)
    depth = random.uniform(0.5, 6.0, shape).astype(np.float32)
    depth[0, :3] = np.nan, np.inf, -np.inf
    return SmallFrame(
        left=random.integers(0, 65536, shape, dtype=np.uint16),
        right=random.integers(0, 65536, shape, dtype=np.uint16),
        rgb=random.integers(0, 256, (*shape, 3), dtype=np.uint8),
        depth_m=depth,
        lens=LENS,
        intrinsics=Intrinsics(440.0, 440.0, 15.5, 11.5, width_px, height_px),
    )


def write_small_bag(
    path: Path, frames: int = 3, *, width_px: int = 32, height_px: int = 24, **options: Any
) -> list[SmallFrame]:
    """Write `frames` random sets at 10 Hz and return them."""
    sets = [small_frame(seed, width_px=width_px, height_px=height_px) for seed in range(frames)]
    with DualPixelBagWriter(path, metadata={"seed": "0", "camera": "random"}, **options) as bag:
        for index, frame in enumerate(sets):
            bag.write_frame(frame, bag.start_ns + index * PERIOD_NS)
    return sets
