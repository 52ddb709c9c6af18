"""What a focus sweep is to be: positions, patience; and what is said of its images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep is.

    Attributes:
        positions_diopters: rising, 1/m, at least two.
        settle_frames: images that are left out after the lens was told to move.
        latency_frames: images further that are left out, for a camera whose images show a command
            so much later.
        tolerance_diopters: a focus so near to its position is there.
        corrections: commands in addition, per position, where an encoder shows the lens off it.
        slew_diopters_per_frame: travel for which another image is left out where nobody reports
            the focus; 0 = the lens is fast enough.
        alternate: every second sweep goes down.
        timeout_s: a sweep without images, or whose lens keeps moving, for so long is aborted.

    Raises:
        ValueError: positions that do not rise from 0 or more, or a number out of range.
    """

    positions_diopters: tuple[float, ...]
    settle_frames: int = 3
    latency_frames: int = 0
    tolerance_diopters: float = 0.05
    corrections: int = 3
    slew_diopters_per_frame: float = 0.0
    alternate: bool = True
    timeout_s: float = 3.0

    def __post_init__(self) -> None:
        positions = self.positions_diopters
        rising = all(a < b for a, b in pairwise(positions))
        if not (len(positions) >= 2 and rising and 0 <= positions[0] <= positions[-1] < math.inf):
            raise ValueError(f"sweep positions = {positions!r} 1/m: must be two or more, rising, "
                             "finite and >= 0 (0 = infinity); set sweep.diopters, or "
                             "sweep.far_diopters, sweep.near_diopters and sweep.slices")
        for name in ("settle_frames", "latency_frames", "corrections", "slew_diopters_per_frame"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be finite and >= 0")
        for name in ("tolerance_diopters", "timeout_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be finite and > 0")


def uniform_positions(far_diopters: float, near_diopters: float, slices: int) -> tuple[float, ...]:
    """Positions uniform in dioptres, where equal steps are equal steps of blur; rising, 1/m."""
    step = (near_diopters - far_diopters) / (slices - 1)
    return tuple(far_diopters + step * index for index in range(slices))


@dataclass(frozen=True)
class LensReport:
    """What is known of the focus during one image.

    Attributes:
        focus_diopters: 1/m; NaN = unknown.
        measured: by a sensor in the lens; False = it is what was asked for.
        moving: whether the lens moved; None = unknown.
    """

    focus_diopters: float
    measured: bool
    moving: bool | None = None


@dataclass(frozen=True)
class SliceTag:
    """Place of an image: sweep (from 1), index in order of time (from 0), size."""

    sweep_id: int
    index: int
    size: int
