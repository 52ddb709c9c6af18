"""Message objects of what a camera says besides its images: intrinsics, lens, frames.

    info = camera_info(frame.intrinsics, width_px, height_px, stamp_ns, frame_id)
    state = lens_state(frame.lens, stamp_ns, frame_id, SweepTag(1, index=0, size=5))
    state = lens_state(LensReport(), stamp_ns, frame_id)   # nothing is known of the lens
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .images import header
from .typestore import message_class


class LensLike(Protocol):
    """Lens of a frame; `optics.ThinLens` fits. Metres, 1/m, f-number and κ without unit."""

    @property
    def focal_length_m(self) -> float: ...
    @property
    def f_number(self) -> float: ...
    @property
    def pixel_pitch_m(self) -> float: ...
    @property
    def focus_diopters(self) -> float: ...


class IntrinsicsLike(Protocol):
    """Pinhole intrinsics of a view in px; `estimation.Intrinsics` fits."""

    @property
    def fx_px(self) -> float: ...
    @property
    def fy_px(self) -> float: ...
    @property
    def cx_px(self) -> float: ...
    @property
    def cy_px(self) -> float: ...
    @property
    def width_px(self) -> int: ...
    @property
    def height_px(self) -> int: ...


@dataclass(frozen=True)
class LensReport:
    """What a recording tells of its lens, as in LensState.msg; by default nothing.

    Attributes:
        focus_diopters, focus_sigma_diopters: 1/m, NaN = unknown.
        calibration, origin, motion: constants of LensState without their prefix.
        focal_length_m, f_number, pixel_pitch_x_m, pixel_pitch_y_m, gain: 0 = unknown.
    """

    focus_diopters: float = math.nan
    focus_sigma_diopters: float = math.nan
    calibration: str = "UNKNOWN"
    origin: str = "UNKNOWN"
    motion: str = "UNKNOWN"
    focal_length_m: float = 0.0
    f_number: float = 0.0
    pixel_pitch_x_m: float = 0.0
    pixel_pitch_y_m: float = 0.0
    gain: float = 0.0


def simulated_lens_report(lens: LensLike) -> LensReport:
    """Return what a simulated lens tells: calibrated, stationary, square pixels."""
    return LensReport(lens.focus_diopters, 0.0, "CALIBRATED", "ENCODER", "STATIONARY",
                      lens.focal_length_m, lens.f_number, lens.pixel_pitch_m, lens.pixel_pitch_m,
                      gain=1.0)


def camera_info(
    intrinsics: IntrinsicsLike | None, width_px: int, height_px: int, stamp_ns: int, frame_id: str
) -> Any:
    """Return a CameraInfo without distortion for a view of `width_px` x `height_px`.

    P[3] is 0: dual-pixel views share one lens and have no stereo baseline. Without intrinsics K
    and P are zero, which says "not calibrated".
    """
    fx = fy = cx = cy = 0.0
    if intrinsics is not None:
        sx, sy = width_px / intrinsics.width_px, height_px / intrinsics.height_px
        fx, fy = intrinsics.fx_px * sx, intrinsics.fy_px * sy
        cx, cy = (intrinsics.cx_px + 0.5) * sx - 0.5, (intrinsics.cy_px + 0.5) * sy - 0.5
    last = float(intrinsics is not None)
    roi = message_class("sensor_msgs/msg/RegionOfInterest")(
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return message_class("sensor_msgs/msg/CameraInfo")(
        header=header(stamp_ns, frame_id),
        height=height_px,
        width=width_px,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, last], dtype=np.float64),
        r=np.eye(3).reshape(-1),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, last, 0], dtype=np.float64),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


@dataclass(frozen=True)
class SweepTag:
    """Place of an image in its focus sweep; all 0 = in none.

    Attributes:
        sweep_id: number of the sweep, from 1. index: place in it, from 0. size: its images.
    """

    sweep_id: int = 0
    index: int = 0
    size: int = 0


def lens_state(
    lens: LensLike | LensReport, stamp_ns: int, frame_id: str, tag: SweepTag | None = None
) -> Any:
    """Return the LensState of a lens as reported, or of a simulated one."""
    told = lens if isinstance(lens, LensReport) else simulated_lens_report(lens)
    tag = tag or SweepTag()
    kind = message_class("depth_fusion_ros/msg/LensState")
    return kind(
        header=header(stamp_ns, frame_id),
        focus_diopters=told.focus_diopters,
        focus_diopters_start=told.focus_diopters,
        focus_diopters_end=told.focus_diopters,
        focus_diopters_stddev=told.focus_sigma_diopters,
        focus_calibration=getattr(kind, f"CALIBRATION_{told.calibration}"),
        focus_origin=getattr(kind, f"ORIGIN_{told.origin}"),
        lens_motion=getattr(kind, f"MOTION_{told.motion}"),
        focal_length_m=told.focal_length_m,
        f_number=told.f_number,
        pixel_pitch_x_m=told.pixel_pitch_x_m,
        pixel_pitch_y_m=told.pixel_pitch_y_m,
        exposure_time_s=0.0,
        gain=told.gain,
        actuator_position=0,
        sweep_id=tag.sweep_id,
        sweep_index=tag.index,
        sweep_size=tag.size,
    )


def static_transform(stamp_ns: int, optical_frame_id: str) -> Any:
    """Return /tf_static: <camera>_link (x forward) to its optical frame (z forward, REP-103)."""
    link = optical_frame_id.removesuffix("_rgb_optical_frame").removesuffix("_optical_frame")
    rotation = message_class("geometry_msgs/msg/Quaternion")(x=-0.5, y=0.5, z=-0.5, w=0.5)
    transform = message_class("geometry_msgs/msg/Transform")(
        translation=message_class("geometry_msgs/msg/Vector3")(x=0.0, y=0.0, z=0.0),
        rotation=rotation,
    )
    stamped = message_class("geometry_msgs/msg/TransformStamped")(
        header=header(stamp_ns, f"{link}_link"),
        child_frame_id=optical_frame_id,
        transform=transform,
    )
    return message_class("tf2_msgs/msg/TFMessage")(transforms=[stamped])
