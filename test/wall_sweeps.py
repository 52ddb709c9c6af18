"""Small focus sweeps with truth for tests: textured walls through a thin lens, disc blur."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import Intrinsics, ScaleState
from depth_fusion_ros.estimation.sweep_slices import SliceImage, SliceLens, Sweep, SweepSlice

WIDTH, HEIGHT = 128, 96
BLUR_GAIN_PX_M = 8.0
"""Diameter of the blur disc per dioptre of defocus, px."""
FOCUS = (0.4, 0.8, 1.2, 1.6, 2.0, 2.4)
LEFT_M, RIGHT_M = 0.5, 1.25
PERIOD_NS = 100_000_000


def truth_m(left_m: float = LEFT_M, right_m: float = RIGHT_M) -> NDArray[np.float32]:
    """(H, W) depth: one wall on the left half, one on the right."""
    depth = np.full((HEIGHT, WIDTH), left_m, np.float32)
    depth[:, WIDTH // 2:] = right_m
    return depth


def stack(focus: tuple[float, ...] = FOCUS, *, blank_right: bool = False, seed: int = 0,
          noise: float = 1.0, left_m: float = LEFT_M, right_m: float = RIGHT_M
          ) -> list[NDArray[np.uint8]]:
    """Images (H, W, 3) uint8 of the two walls, one for each focus."""
    random = np.random.default_rng(seed)
    texture = 255 * np.clip(cv2.GaussianBlur(
        random.random((HEIGHT, 2 * WIDTH, 3)).astype(np.float32), (0, 0), 0.8) * 2.5 - 0.75, 0, 1)
    images = []
    for position in focus:
        halves = []
        for depth_m, part in ((left_m, texture[:, :WIDTH]), (right_m, texture[:, WIDTH:])):
            radius = BLUR_GAIN_PX_M * abs(position - 1 / depth_m) / 2
            halves.append(cv2.filter2D(part, cv2.CV_32F, _disc(radius)))
        if blank_right:
            halves[1] = np.full_like(halves[1], 120)
        image = halves[0].copy()
        image[:, WIDTH // 2:] = halves[1][:, WIDTH // 2:]
        image += noise * random.standard_normal(image.shape)
        images.append(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    return images


def _disc(radius_px: float) -> NDArray[np.float32]:
    reach = int(np.ceil(radius_px + 0.5))
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    disc = np.clip(radius_px + 0.5 - np.hypot(x, y), 0, 1)
    return (disc / disc.sum()).astype(np.float32)


def grid(fx_px: float = 120.0) -> Intrinsics:
    """Intrinsics of the images."""
    return Intrinsics(fx_px, fx_px, (WIDTH - 1) / 2, (HEIGHT - 1) / 2, WIDTH, HEIGHT)


def sweep(images: list[NDArray[np.uint8]], focus: tuple[float, ...] = FOCUS, *,
          fx_px: tuple[float, ...] = (), falling: bool = False) -> Sweep:
    """The images as a complete sweep, taken one after the other."""
    count = len(images)
    fx = fx_px or (120.0,) * count
    slices = []
    for index, (image, position) in enumerate(zip(images, focus, strict=True)):
        stamp_ns = 10**9 + PERIOD_NS * (count - 1 - index if falling else index)
        slices.append(SweepSlice(
            SliceImage(stamp_ns, image, "camera_rgb_optical_frame", grid(fx[index])),
            SliceLens(stamp_ns, position, sweep_id=1, sweep_index=index, sweep_size=count,
                      scale_state=ScaleState.ABSOLUTE)))
    return Sweep(tuple(slices), True, 0, 1)
