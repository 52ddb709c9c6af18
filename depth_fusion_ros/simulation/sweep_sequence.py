"""Simulated focus sweeps with truth: a new random scene for each, taken with a `FocusDrivenCamera`.

    for sweep in simulate_sweeps(sweeps=12, slices=5):
        sweep.slices[0].image, sweep.slices[0].lens.focus_diopters, sweep.depth_m
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.optics.intrinsics import Intrinsics
from depth_fusion_ros.optics.thin_lens import ThinLens
from depth_fusion_ros.simulation.focus_camera import (
    FocusCameraOptions,
    FocusDrivenCamera,
    FocusExposure,
    FocusStack,
    render_focus_stack,
)
from depth_fusion_ros.simulation.lens_drive import LensDriveOptions
from depth_fusion_ros.simulation.sequence import preset_lens

MIN_SLICES = 3
"""Fewer say nothing of where a pixel is sharpest."""
MIN_PERIOD_S = 0.02  # twice the exposure: the lens moves between exposures, not during them
_RANGE_SEED = 500_009  # scene and noise of a sweep have its own seed and the next


@dataclass(frozen=True, eq=False)
class SimulatedSlice:
    """One image of a sweep.

    Attributes:
        image: (H, W, 3) uint8, sRGB-encoded.
        lens: lens state of this exposure, standing still; intrinsics: true ones of this image.
    """

    image: NDArray[np.uint8]
    lens: ThinLens
    intrinsics: Intrinsics


@dataclass(frozen=True, eq=False)
class SimulatedSweep:
    """One sweep with its truth.

    Attributes:
        slices: in order of exposure, from the nearest focus to the farthest.
        depth_m: (H, W) float32 truth, metres along z, on the pixels of the newest slice; NaN
            where that looks past what was rendered.
    """

    slices: tuple[SimulatedSlice, ...]
    depth_m: NDArray[np.float32]


def simulate_sweeps(
    *,
    sweeps: int,
    slices: int = 5,
    width_px: int = 320,
    height_px: int = 240,
    seed: int = 0,
    camera: str = "robot_12mm",
    breathing: bool = False,
    drift_px_per_s: tuple[float, float] = (0.0, 0.0),
    slice_period_s: float = 0.1,
    device: str = "cpu",
) -> Iterator[SimulatedSweep]:
    """Yield `sweeps` simulated focus sweeps; same arguments, same sweeps.

    Scenes are as deep as those of `simulate_sequence`; the positions of focus are uniform in
    dioptres and reach a little beyond the scene at both ends. The last slice is focused farthest,
    so the depth's pixels (newest slice, magnification of the farthest focus) are its own.
    Sweep n equals the only sweep of ``seed + 2·n``.

    Args:
        sweeps: number of sweeps, > 0. slices: focus positions of each, at least `MIN_SLICES`.
        width_px, height_px: of the images. seed: of scenes, ranges and noise.
        camera: preset, see `sequence.CAMERAS`.
        breathing: whether the focal length in px follows the focus, fx0·(1 + f·D), which is the
            thin lens to first order; else it stays that of a focus at infinity.
        drift_px_per_s: image motion of a moving camera along x and y.
        slice_period_s: time between two exposures, at least `MIN_PERIOD_S`; matters for drift.
        device: of the tracer.

    Raises:
        ValueError: unknown camera, or a value outside its range; the text names it and the rule.
    """
    if sweeps < 1:
        raise ValueError(f"sweeps = {sweeps}: must be > 0")
    if slices < MIN_SLICES:
        raise ValueError(f"slices = {slices}: depth from focus needs at least {MIN_SLICES}")
    if not MIN_PERIOD_S <= slice_period_s < math.inf:
        raise ValueError(f"slice_period_s = {slice_period_s!r}: must be finite and at least "
                         f"{MIN_PERIOD_S}, so that the lens can move between two exposures")
    lens = preset_lens(camera, 0.0)
    for number in range(sweeps):
        far_diopters, near_diopters = _focus_range(seed + 2 * number)
        options = FocusCameraOptions(
            # Ideal: where a demo's depth is wrong, the estimate is to blame and not the lens.
            drive=LensDriveOptions(latency_s=0.0, slew_diopters_per_s=1e9,
                                   far_diopters=far_diopters, near_diopters=near_diopters),
            positions=slices, breathing_per_diopter=lens.focal_length_m if breathing else 0.0,
            drift_px_per_s=drift_px_per_s, seed=seed + 2 * number)
        stack = render_focus_stack(lens, width_px, height_px, options, device=device)
        yield _take(stack, options, slice_period_s)


def _focus_range(seed: int) -> tuple[float, float]:
    """Farthest and nearest focus (1/m) for a scene of random near and far end.

    `render_focus_stack` puts its objects between 15 % and 90 % of the range it is given.
    """
    generator = torch.Generator().manual_seed(seed + _RANGE_SEED)
    draw = torch.rand(2, generator=generator, dtype=torch.float64)
    near_m = math.exp(1.2 * float(draw[0]) - 1.2)
    far_m = near_m * (2.0 + 3.5 * float(draw[1]))
    span = (1 / near_m - 1 / far_m) / 0.75
    far_diopters = 1 / far_m - 0.15 * span
    return far_diopters, far_diopters + span


def _take(stack: FocusStack, options: FocusCameraOptions, period_s: float) -> SimulatedSweep:
    """Drive the lens through the rendered positions, nearest first, and expose at each."""
    positions = stack.focus_diopters[::-1]
    camera = FocusDrivenCamera(stack, options, start_diopters=float(positions[0]))
    taken = []
    for index, position in enumerate(positions):
        now_s = index * period_s
        camera.command(float(position), now_s - period_s / 2)
        exposure = camera.expose(now_s)
        taken.append((exposure, SimulatedSlice(
            exposure.image, stack.lens.refocused(exposure.focus_diopters), exposure.intrinsics)))
    return SimulatedSweep(tuple(item for _, item in taken), _truth(stack, taken[-1][0]))


def _truth(stack: FocusStack, exposure: FocusExposure) -> NDArray[np.float32]:
    """Depth on the pixels of an exposure, from that of the undisplaced one at infinity."""
    scale = exposure.intrinsics.fx_px / stack.lens.focal_length_px
    if scale == 1.0 and not any(exposure.drift_px):
        return stack.depth_m
    height, width = stack.depth_m.shape

    def source(size: int, drift_px: float) -> NDArray[np.int64]:
        middle = (size - 1) / 2
        places = (np.arange(size) - middle - drift_px) / scale + middle
        return np.asarray(np.rint(places), np.int64)

    rows, columns = source(height, exposure.drift_px[1]), source(width, exposure.drift_px[0])
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    nearest = stack.depth_m[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)]
    return np.where(inside, nearest, np.nan).astype(np.float32)


__all__ = ["SimulatedSlice", "SimulatedSweep", "simulate_sweeps"]
