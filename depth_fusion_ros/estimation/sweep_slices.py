"""What a focus sweep is made of: images, lens states, joined slices, and how they are gathered."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import Intrinsics, ScaleState


@dataclass(frozen=True, eq=False)
class SliceImage:
    """One image of a sweep: (H, W, 3) uint8 sRGB, its stamp in ns, optical frame, intrinsics.

    Raises:
        ValueError: another shape or dtype.
    """

    stamp_ns: int
    image: NDArray[np.uint8]
    frame_id: str = ""
    intrinsics: Intrinsics | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(f"slice image is {self.image.shape} {self.image.dtype}: must be "
                             "(H, W, 3) uint8; decode it before")


@dataclass(frozen=True)
class SliceLens:
    """State of the lens during the image of the same stamp; fields as in LensState.msg.

    Attributes:
        focus_diopters: at mid-exposure, 1/m; 0 = infinity, NaN = unknown.
        moving: whether the lens moved during the exposure; None = unknown.
        sweep_id: number of the sweep; 0 = the source tells none. sweep_index: place in it.
        sweep_size: slices the sweep is meant to have; 0 = unknown.
        focus_start_diopters, focus_end_diopters: at first and last row, 1/m; NaN = unknown.
        scale_state: what metres made from its dioptres are worth.
        focus_sigma_diopters: one standard deviation of the focus; 0 = taken as exact.
        aperture_m: diameter of the entrance pupil, focal length / f-number; 0 = unknown.
    """

    stamp_ns: int
    focus_diopters: float
    moving: bool | None = None
    sweep_id: int = 0
    sweep_index: int = 0
    sweep_size: int = 0
    focus_start_diopters: float = math.nan
    focus_end_diopters: float = math.nan
    scale_state: ScaleState = ScaleState.ABSOLUTE
    focus_sigma_diopters: float = 0.0
    aperture_m: float = 0.0


@dataclass(frozen=True)
class SweepSlice:
    """An image with its lens state."""

    image: SliceImage
    lens: SliceLens

    @property
    def stamp_ns(self) -> int:
        return self.image.stamp_ns

    @property
    def focus_diopters(self) -> float:
        return self.lens.focus_diopters


@dataclass(frozen=True)
class Sweep:
    """Slices of one size in rising order of focus, positions further apart than "the same".

    Attributes:
        slices: at least `min_slices`, at most `max_slices`.
        complete: nothing announced is missing, and the source ended the sweep (its last slice, a
            turn of the focus or a pause), not a timeout.
        missing: announced slices that are not there; 0 where the source announces no size.
        sweep_id: 0 = the source tells none. Sliding: of the newest slice.
    """

    slices: tuple[SweepSlice, ...]
    complete: bool
    missing: int
    sweep_id: int

    @property
    def focus_diopters(self) -> tuple[float, ...]:
        """Focus of the slices, rising, 1/m."""
        return tuple(item.focus_diopters for item in self.slices)

    @property
    def span_diopters(self) -> float:
        """Nearest minus farthest focus, 1/m."""
        return self.focus_diopters[-1] - self.focus_diopters[0]

    @property
    def largest_gap_diopters(self) -> float:
        """Largest distance between neighbouring positions, 1/m."""
        return max(b - a for a, b in pairwise(self.focus_diopters))

    @property
    def first_stamp_ns(self) -> int:
        return min(item.stamp_ns for item in self.slices)

    @property
    def last_stamp_ns(self) -> int:
        return max(item.stamp_ns for item in self.slices)


@dataclass(frozen=True)
class SweepOptions:
    """How slices become sweeps; the parameters sweep.* of the nodes.

    Attributes:
        min_slices: sweeps with fewer are dropped. max_slices: of more positions, those that
            leave the smallest gaps are dropped.
        timeout_s: an unfinished sweep ends, and an image without lens state is dropped, this long
            after it began to wait; sliding: oldest slice that is still used.
        mode: "complete" = each slice in one sweep; "sliding" = each new slice gives a sweep of
            the last positions.
        settle_frames: frames discarded after each change of focus; untagged slices only.
        require_stationary_lens: drop slices during which the lens is known to have moved.
        gap_s: a longer pause, without frames or at one focus, ends an untagged sweep.
        same_focus_diopters: positions not further apart are one.

    Raises:
        ValueError: a value outside its range; the text names it and the rule.
    """

    min_slices: int = 3
    max_slices: int = 15
    timeout_s: float = 3.0
    mode: str = "complete"
    settle_frames: int = 3
    require_stationary_lens: bool = True
    gap_s: float = 1.0
    same_focus_diopters: float = 0.02

    def __post_init__(self) -> None:
        rules = (
            ("min_slices", self.min_slices >= 2, "at least 2"),
            ("max_slices", self.max_slices >= self.min_slices, "at least sweep.min_slices"),
            ("timeout_s", 0 < self.timeout_s < math.inf, "finite and > 0"),
            ("mode", self.mode in ("complete", "sliding"), "'complete' or 'sliding'"),
            ("settle_frames", self.settle_frames >= 0, "at least 0 (0 = discard none)"),
            ("gap_s", 0 < self.gap_s < math.inf, "finite and > 0"),
            ("same_focus_diopters", 0 <= self.same_focus_diopters < math.inf, "finite and >= 0"))
        for name, holds, rule in rules:
            if not holds:
                raise ValueError(f"sweep.{name} = {getattr(self, name)!r}: must be {rule}; "
                                 f"set sweep.{name}")
