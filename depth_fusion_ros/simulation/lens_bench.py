"""Simulated cameras on a calibration bench: boards at known distances, a lens with known faults.

    for image in bench_images(BENCH_CAMERAS["scaled"], board):
        image.stamp_s, image.grey, image.reported_diopters       # a sweep, stepped and held
        image.left, image.right                                  # or a dual-pixel pair

The camera reports what its lens was *commanded*, as libcamera does, in dioptres of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.optics.calibration_board import CalibrationBoard
from depth_fusion_ros.optics.intrinsics import Intrinsics
from depth_fusion_ros.optics.thin_lens import ThinLens, breathing_scale
from depth_fusion_ros.simulation.board_scene import (
    BoardPlace,
    render_board_stack,
    render_board_views,
)
from depth_fusion_ros.simulation.camera import aperture_pattern
from depth_fusion_ros.simulation.focus_camera import FocusCameraOptions, FocusDrivenCamera
from depth_fusion_ros.simulation.lens_drive import LensDriveOptions
from depth_fusion_ros.simulation.sensor import SensorBatch, split_weights
from depth_fusion_ros.simulation.sequence import preset_lens

FAR_DIOPTERS, NEAR_DIOPTERS = 0.2, 3.2
SLEW_DIOPTERS_PER_S = 80.0
PAUSE_S = 3.0
DUAL_PIXEL_RATE_HZ = 5.0
BOARD_TILT_RAD, BOARD_ROLL_RAD = 0.03, 0.07


@dataclass(frozen=True)
class BenchCamera:
    """A camera with known truth.

    Attributes:
        scale, offset: true focus D = scale·R + offset of the reported focus R.
        latency_frames: images by which the picture lags behind the report.
        hysteresis_diopters: true dioptres by which the lens stops short.
        breathing_per_diopter: β of fx0·(1 + β·D).
        softness: of the split of the pixels in the middle and at the edges of the image along the
            parallax; 0 = ideal half discs. Softer edges make k fall towards the sides.
        swap_views: whether left and right are exchanged. axis: of the parallax.
        seed: of wall and noise.
    """

    scale: float = 1.0
    offset: float = 0.0
    latency_frames: int = 0
    hysteresis_diopters: float = 0.0
    breathing_per_diopter: float = 0.012
    softness: tuple[float, float] = (0.0, 0.0)
    swap_views: bool = False
    axis: str = "x"
    seed: int = 0


BENCH_CAMERAS: dict[str, BenchCamera] = {
    "plain": BenchCamera(),
    "scaled": BenchCamera(0.8, -0.6, 3, 0.0, 0.04, (0.4, 0.4), seed=1),
    "inverted": BenchCamera(1.15, 0.1, 1, 0.02, 0.02, (0.5, 0.8), swap_views=True, seed=2),
    "vertical": BenchCamera(0.9, -1.2, 2, 0.03, 0.03, (0.3, 0.5), axis="y", seed=3),
    "loose": BenchCamera(1.3, -0.3, 5, 0.08, -0.01, (0.8, 1.2), seed=4),
}
"""Name → camera: a faultless one; dioptres, latency and breathing; exchanged views; a parallax
along y; large hysteresis with breathing the other way."""


@dataclass(frozen=True)
class BenchPlan:
    """What is recorded.

    Attributes:
        distances_m: of the board. width_px, height_px: of all images.
        step_diopters: true dioptres between two positions of the sweep. rate_hz: of its images.
        aperture_samples: rays per pixel of the sweep; the views have four times as many.
        dual_pixel_focus_diopters: true focus of the dual-pixel sets, reached from far; 0 = none.
        sideways: places of the board in the dual-pixel sets at each distance, as shares of the
            half image, along the parallax axis.
    """

    distances_m: tuple[float, ...] = (0.42, 0.6, 0.8, 1.1)
    width_px: int = 320
    height_px: int = 240
    step_diopters: float = 0.2
    rate_hz: float = 30.0
    aperture_samples: int = 32
    dual_pixel_focus_diopters: float = 1.5
    sideways: tuple[float, ...] = (-0.5, 0.0, 0.5)


QUICK_PLAN = BenchPlan((0.4, 0.6, 0.9), 240, 180, 0.3, aperture_samples=16, sideways=(-0.5, 0.5))
"""Enough to try everything: a quarter of the images and rays."""


@dataclass(frozen=True, eq=False)
class BenchImage:
    """One recorded image, or pair.

    Attributes:
        stamp_s: since the start. reported_diopters: what the lens state says.
        intrinsics: of camera_info, which holds at infinity whatever the focus.
        grey: (H, W) uint8 sRGB-encoded, of a sweep; or left, right: (H, W) uint16 linear.
    """

    stamp_s: float
    reported_diopters: float
    lens: ThinLens
    intrinsics: Intrinsics
    grey: NDArray[np.uint8] | None = None
    left: NDArray[np.uint16] | None = None
    right: NDArray[np.uint16] | None = None


@dataclass(frozen=True)
class BenchTruth:
    """True values beyond those of the camera: k at the image centre and its field (px·m, 1)."""

    gain_px_m: float
    gain_field: dict[str, float]


def bench_lens(width_px: int) -> ThinLens:
    """Lens of all bench cameras, focused at infinity; one field of view at all image sizes."""
    lens = preset_lens("robot_12mm", 0.0)
    return replace(lens, pixel_pitch_m=lens.pixel_pitch_m * 320 / width_px)


def bench_images(camera: BenchCamera, board: CalibrationBoard, plan: BenchPlan
                 ) -> Iterator[BenchImage]:
    """Yield the images of a recording, in order of time: sweeps first, then dual-pixel sets."""
    lens = bench_lens(plan.width_px)
    clock_s = 0.0
    for distance_m in plan.distances_m:
        for image in _sweep(camera, board, plan, lens, distance_m, clock_s):
            yield image
            clock_s = image.stamp_s
        clock_s += PAUSE_S
    if plan.dual_pixel_focus_diopters > 0:
        yield from _pairs(camera, board, plan, lens, clock_s)


def bench_truth(camera: BenchCamera, plan: BenchPlan) -> BenchTruth:
    """Return k and its field, from the split's centroids; k at the image centre."""
    lens = bench_lens(plan.width_px)
    focus = plan.dual_pixel_focus_diopters - camera.hysteresis_diopters
    pattern = aperture_pattern(64, torch.Generator().manual_seed(0))
    middle, edge = (float(split_weights(replace(
        SensorBatch.ideal(1), softness=torch.tensor([soft])), pattern, 1)[2]) for soft
        in camera.softness)
    fx = lens.focal_length_px * breathing_scale(focus, 0.0, camera.breathing_per_diopter)
    return BenchTruth(middle * fx * lens.focal_length_m / lens.f_number,
                      {f"{camera.axis}2": edge / middle - 1})


def _sweep(camera: BenchCamera, board: CalibrationBoard, plan: BenchPlan, lens: ThinLens,
           distance_m: float, start_s: float) -> Iterator[BenchImage]:
    """Step the lens from far to near and back, holding it longer than its latency."""
    period_s = 1 / plan.rate_hz
    count = round((NEAR_DIOPTERS - FAR_DIOPTERS) / plan.step_diopters) + 1
    rising, short = np.linspace(FAR_DIOPTERS, NEAR_DIOPTERS, count), camera.hysteresis_diopters
    seed = camera.seed + round(1e3 * distance_m)
    options = FocusCameraOptions(
        drive=LensDriveOptions(camera.latency_frames * period_s, SLEW_DIOPTERS_PER_S, short,
                               FAR_DIOPTERS, NEAR_DIOPTERS),
        exposure_s=period_s / 5, seed=seed)
    # Where the lens will stand: exposures while it moves lie between and are interpolated.
    stops = np.unique(np.round([FAR_DIOPTERS, *(rising[1:] - short), *(rising[:-1] + short)], 9))
    stack = render_board_stack(
        board, _place(distance_m), lens, plan.width_px, plan.height_px, stops,
        samples=plan.aperture_samples, breathing_per_diopter=camera.breathing_per_diopter,
        seed=seed)
    driven = FocusDrivenCamera(stack, options)
    hold = camera.latency_frames + 3
    positions = [rising[0]] * (hold + 2) + [p for way in (rising[1:], rising[-2::-1])
                                            for p in way for _ in range(hold)]
    intrinsics = _intrinsics(lens, plan)
    sent = rising[0]
    for index, position in enumerate(positions):
        now_s = start_s + (index + 1) * period_s
        if position != sent:
            driven.command(float(position), now_s - period_s / 2)
            sent = position
        exposure = driven.expose(now_s)
        yield BenchImage(now_s, (float(position) - camera.offset) / camera.scale,
                         lens, intrinsics, grey=np.ascontiguousarray(exposure.image[..., 1]))


def _pairs(camera: BenchCamera, board: CalibrationBoard, plan: BenchPlan, lens: ThinLens,
           start_s: float) -> Iterator[BenchImage]:
    """Dual-pixel sets at one focus, the board at all distances and at several places of each."""
    focus = plan.dual_pixel_focus_diopters
    held = lens.refocused(focus - camera.hysteresis_diopters)
    noise = torch.Generator().manual_seed(camera.seed)
    number = 0
    for distance_m in plan.distances_m:
        for share in plan.sideways:
            pixels = plan.width_px if camera.axis == "x" else plan.height_px
            free = 0.5 * pixels / lens.focal_length_px * distance_m
            place = _place(distance_m, share * free, camera.axis)
            left, right = render_board_views(
                board, place, held, plan.width_px, plan.height_px, camera.softness, noise,
                samples=4 * plan.aperture_samples, axis=camera.axis, seed=camera.seed + number,
                breathing_per_diopter=camera.breathing_per_diopter)
            if camera.swap_views:
                left, right = right, left
            number += 1
            yield BenchImage(
                start_s + number / DUAL_PIXEL_RATE_HZ, (focus - camera.offset) / camera.scale,
                lens, _intrinsics(lens, plan), left=left, right=right)


def _place(distance_m: float, sideways_m: float = 0.0, axis: str = "x") -> BoardPlace:
    x_m, y_m = (sideways_m, 0.0) if axis == "x" else (0.0, sideways_m)
    return BoardPlace(x_m, y_m, distance_m, BOARD_TILT_RAD, -BOARD_TILT_RAD,
                      BOARD_ROLL_RAD)


def _intrinsics(lens: ThinLens, plan: BenchPlan) -> Intrinsics:
    fx = lens.focal_length_px
    return Intrinsics(fx, fx, (plan.width_px - 1) / 2, (plan.height_px - 1) / 2, plan.width_px,
                      plan.height_px)


__all__ = ["BENCH_CAMERAS", "BenchCamera", "BenchImage", "BenchPlan", "BenchTruth", "QUICK_PLAN",
           "bench_images", "bench_lens", "bench_truth"]
