"""A calibration bench drawn in milliseconds: a flat board, blurred as a whole by its defocus.

Not the ray tracer of `simulation/`: what the command finds is checked against optics of another
make. The board stands square to the axis, so that one blur holds for all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.optics.calibration_board import CalibrationBoard
from depth_fusion_ros.optics.intrinsics import Intrinsics
from depth_fusion_ros.optics.thin_lens import ThinLens
from depth_fusion_ros.simulation.lens_bench import BenchImage

FINE = 4
ROLL_RAD = 0.08
BACKGROUND = 120


@dataclass(frozen=True)
class DrawnCamera:
    """Truth: D = scale·R + offset; images of latency; β; softness in the middle and at the edge."""

    scale: float = 0.8
    offset: float = -0.6
    latency_frames: int = 1
    breathing_per_diopter: float = 0.03
    softness: tuple[float, float] = (0.3, 0.6)
    width_px: int = 320
    height_px: int = 240
    pair_focus_diopters: float = 1.5

    @property
    def lens(self) -> ThinLens:
        """A 12 mm f/2 lens, focused at infinity."""
        return ThinLens(0.012, 2.0, 27.6e-6 * 320 / self.width_px, 0.0)

    def fx_px(self, focus_diopters: float) -> float:
        return self.lens.focal_length_px * (1 + self.breathing_per_diopter * focus_diopters)

    def blur_px(self, focus_diopters: float, z_m: float) -> float:
        """Signed diameter: A·(D − 1/Z)."""
        return self.fx_px(focus_diopters) * 0.006 * (focus_diopters - 1 / z_m)

    @property
    def gain_px_m(self) -> float:
        """k in the middle of the image."""
        return _kappa(self.softness[0]) * self.fx_px(self.pair_focus_diopters) * 0.006

    @property
    def edge_ratio(self) -> float:
        """k at the edge relative to the middle, less 1."""
        return _kappa(self.softness[1]) / _kappa(self.softness[0]) - 1


def drawn_images(camera: DrawnCamera, distances_m: tuple[float, ...] = (0.42, 0.6, 1.0),
                 board: CalibrationBoard | None = None) -> Iterator[BenchImage]:
    """Sweeps at 30 Hz over each distance, then pairs with parallax along y, exchanged."""
    board = board or CalibrationBoard.charuco()
    random = np.random.default_rng(0)
    fx, size = camera.fx_px(0.0), (camera.width_px, camera.height_px)
    intrinsics = Intrinsics(fx, fx, (size[0] - 1) / 2, (size[1] - 1) / 2, *size)
    stamp_s = 0.0
    for z_m in distances_m:
        levels = np.linspace(0.2, 3.2, 11)
        hold = camera.latency_frames + 2
        sent = [levels[0]] * 4 + [p for p in (*levels[1:], *levels[-2::-1]) for _ in range(hold)]
        drawn = {p: _picture(board, camera, p, z_m) for p in levels}
        for index, position in enumerate(sent):
            stands = sent[max(index - camera.latency_frames, 0)]
            noisy = drawn[stands] + random.normal(0, 1.0, drawn[stands].shape)
            stamp_s += 1 / 30
            yield BenchImage(stamp_s, (position - camera.offset) / camera.scale, camera.lens,
                             intrinsics, grey=np.clip(noisy, 0, 255).round().astype(np.uint8))
        stamp_s += 3
    focus = camera.pair_focus_diopters
    for z_m in distances_m:
        for share in (-0.4, 0.0, 0.4):
            stamp_s += 0.2
            left, right = _views(board, camera, z_m, share)
            yield BenchImage(stamp_s, (focus - camera.offset) / camera.scale, camera.lens,
                             intrinsics, left=right, right=left)


def _fine(board: CalibrationBoard, camera: DrawnCamera, focus: float, z_m: float, share: float
          ) -> NDArray[np.float32]:
    """The sharp board, `FINE` times finer than the image; `share` of half the height down."""
    per_m = 3 * board.texels_per_m
    print_ = cv2.copyMakeBorder(board.picture(per_m), 24, 24, 24, 24, cv2.BORDER_CONSTANT,
                                value=255)
    scale = FINE * camera.fx_px(focus) / z_m / per_m
    turn = scale * np.array([[math.cos(ROLL_RAD), -math.sin(ROLL_RAD)],
                             [math.sin(ROLL_RAD), math.cos(ROLL_RAD)]])
    target = FINE * np.array([camera.width_px, camera.height_px * (1 + share)]) / 2 - 0.5
    middle = (np.array(print_.shape[::-1]) - 1) / 2
    onto = np.column_stack([turn, target - turn @ middle])
    return cv2.warpAffine(print_, onto, (FINE * camera.width_px, FINE * camera.height_px),
                          borderValue=BACKGROUND).astype(np.float32)


def _coarse(fine: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    blurred = cv2.filter2D(fine, -1, np.ascontiguousarray(kernel[::-1, ::-1]),
                           borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(blurred, None, fx=1 / FINE, fy=1 / FINE, interpolation=cv2.INTER_AREA)


def _picture(board: CalibrationBoard, camera: DrawnCamera, focus: float, z_m: float
             ) -> NDArray[np.float32]:
    disc = _kernel(abs(camera.blur_px(focus, z_m)))
    return 20 + 0.8 * _coarse(_fine(board, camera, focus, z_m, 0.0), disc)


def _views(board: CalibrationBoard, camera: DrawnCamera, z_m: float, share: float
           ) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Left and right, that is upper and lower half of the aperture; κ mixed over the height."""
    focus = camera.pair_focus_diopters
    blur = camera.blur_px(focus, z_m)
    fine = _fine(board, camera, focus, z_m, share)
    v = ((2 * np.arange(camera.height_px) + 1) / camera.height_px - 1)[:, None]
    views = []
    for side in (-1, 1):
        middle, edge = (_coarse(fine, _kernel(abs(blur), side if blur > 0 else -side, soft))
                        for soft in camera.softness)
        views.append((150 * (middle + v**2 * (edge - middle)) + 2000).astype(np.uint16))
    return views[0], views[1]


def _kernel(diameter_px: float, side: int = 0, softness: float = 1.0) -> NDArray[np.float32]:
    """A pillbox on the fine grid, or the part of it that one half of the pixels sees.

    Each element is the mean over 7 x 7 places in it: small kernels keep their centroid.
    """
    radius = max(FINE * diameter_px / 2, 0.3)
    reach, parts = math.ceil(radius) + 1, 7
    line = (np.arange((2 * reach + 1) * parts) + 0.5) / parts - reach - 0.5
    x, y = line[None], line[:, None]
    inside = x**2 + y**2 <= radius**2
    if side:
        inside = inside * (1 + np.tanh(side * y / radius / softness)) / 2
    blocks = inside.reshape(2 * reach + 1, parts, 2 * reach + 1, parts).mean((1, 3))
    return (blocks / blocks.sum()).astype(np.float32)


def _kappa(softness: float) -> float:
    """Gap of the centroids over the diameter, by integration over the disc."""
    u = np.linspace(-1, 1, 4001)
    weight = np.sqrt(1 - u**2) * (1 + np.tanh(u / softness)) / 2
    return float((weight * u).sum() / weight.sum())
