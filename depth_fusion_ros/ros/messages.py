"""Image and CameraInfo messages <-> NumPy, without copies where possible and never trusting input.

    view = image_to_array(msg, "dp/left/image_raw", VIEW_ENCODINGS)   # a view into msg.data
    rgb = image_to_rgb(msg, "rgb/image_rect")                         # (H, W, 3) uint8
    k = camera_info_to_intrinsics(info, "rgb/camera_info", w, h)      # of the published image
    msg = array_to_image(depth_m, "32FC1", header)                    # one copy into array.array

Everything wrong with an input raises `InputError`: a cause for the drop counters and a sentence
with topic, value, rule and remedy. Outgoing data is always ``array.array``: with field checks on,
``bytes`` are checked element by element (321 ms for one VGA cloud).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_msgs.msg import Header

from depth_fusion_ros.estimation.estimate import Intrinsics
from depth_fusion_ros.navigation.rays import ray_grid
from depth_fusion_ros.ros import compat

ENCODINGS: dict[str, tuple[str, int]] = {
    "mono8": ("u1", 1), "8UC1": ("u1", 1),
    "mono16": ("u2", 1), "16UC1": ("u2", 1),
    "32FC1": ("f4", 1), "mono32FC1": ("f4", 1),
    "rgb8": ("u1", 3), "bgr8": ("u1", 3), "8UC3": ("u1", 3),
}
"""Encodings read as NumPy views: name -> (dtype without byte order, channels)."""

VIEW_ENCODINGS = ("mono8", "8UC1", "mono16", "16UC1", "32FC1", "mono32FC1")
"""Encodings of a dual-pixel view."""


class InputError(ValueError):
    """An input message cannot be used.

    Attributes:
        cause: short snake_case name, the ``dropped.<cause>`` counter in diagnostics.
        topic: topic the message came from, relative.
    """

    def __init__(self, cause: str, topic: str, sentence: str) -> None:
        super().__init__(f"{topic}: {sentence}")
        self.cause = cause
        self.topic = topic


def stamp_to_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


# -- in -------------------------------------------------------------------------------------------


def image_to_array(msg: Image, topic: str, allowed: Collection[str]) -> NDArray[Any]:
    """View the pixels of an image message.

    Args:
        msg: image in one of `ENCODINGS`.
        topic: name for error sentences.
        allowed: encodings accepted on this topic.

    Returns:
        (H, W) or (H, W, 3) array in native byte order. It shares memory with ``msg.data`` (a copy
        only where the byte order is foreign): keep the message as long as the array.

    Raises:
        InputError: zero_size, bad_encoding, bad_step or truncated_data.
    """
    if msg.encoding not in allowed or msg.encoding not in ENCODINGS:
        raise InputError(
            "bad_encoding", topic,
            f"encoding = {msg.encoding!r}: must be one of {', '.join(allowed)}; "
            "convert it in the driver or with image_proc",
        )
    return _pixels(msg, topic, *ENCODINGS[msg.encoding])


def image_to_rgb(msg: Image, topic: str) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB of a colour or grey image; a view only for rgb8.

    Raises:
        InputError: zero_size, bad_encoding, bad_step or truncated_data.
    """
    encoding = msg.encoding
    if encoding == "rgb8":
        return _pixels(msg, topic, "u1", 3)
    if encoding in ("bgr8", "8UC3"):  # 8UC3 has no order; OpenCV's is what drivers mean by it
        return np.ascontiguousarray(_pixels(msg, topic, "u1", 3)[..., ::-1])
    if encoding in ("mono8", "8UC1"):
        return np.repeat(_pixels(msg, topic, "u1", 1)[..., None], 3, axis=2)
    if encoding in compat.EXOTIC_ENCODINGS:
        _pixels(msg, topic, *compat.EXOTIC_ENCODINGS[encoding])  # the same checks of size and step
        return compat.exotic_image_to_rgb(msg)
    raise InputError(
        "bad_encoding", topic,
        f"encoding = {encoding!r}: must be one of rgb8, bgr8, mono8, "
        f"{', '.join(compat.EXOTIC_ENCODINGS)}; convert it in the driver or with image_proc",
    )


def _pixels(msg: Image, topic: str, kind: str, channels: int) -> NDArray[Any]:
    """Check size, step and length of an image message, then view it."""
    height, width, step = msg.height, msg.width, msg.step
    if height == 0 or width == 0:
        raise InputError(
            "zero_size", topic, f"size = {width}x{height}: both must be > 0; check the driver"
        )
    dtype = np.dtype((">" if msg.is_bigendian else "<") + kind)
    row_bytes = width * channels * dtype.itemsize
    if step < row_bytes:
        raise InputError(
            "bad_step", topic,
            f"step = {step}: must be at least {row_bytes} bytes for {width} px of "
            f"{msg.encoding}; check the driver's encoding and step",
        )
    needed = step * (height - 1) + row_bytes
    if len(msg.data) < needed:
        raise InputError(
            "truncated_data", topic,
            f"data has {len(msg.data)} bytes: {needed} are needed for {width}x{height} "
            f"{msg.encoding} with step {step}; check the driver and the transport",
        )
    shape: tuple[int, ...] = (height, width)
    strides: tuple[int, ...] = (step, channels * dtype.itemsize)
    if channels > 1:
        shape, strides = (*shape, channels), (*strides, dtype.itemsize)
    pixels = np.ndarray(shape, dtype, memoryview(msg.data), strides=strides)
    return pixels if dtype.isnative else pixels.astype(dtype.newbyteorder("="))


def split_views(packed: NDArray[Any], layout: str, topic: str
                ) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return left and right views, each (H, W), of a packed (H, 2W) dual-pixel image.

    Raises:
        InputError: odd_width.
        ValueError: ``layout`` is neither side_by_side nor column_interleaved.
    """
    width = packed.shape[1]
    if width % 2:
        raise InputError(
            "odd_width", topic,
            f"width = {width}: must be even for dp.layout {layout} (two views of equal width); "
            "check the driver's crop and dp.layout",
        )
    if layout == "side_by_side":
        return packed[:, : width // 2], packed[:, width // 2 :]
    if layout == "column_interleaved":
        return packed[:, 0::2], packed[:, 1::2]
    raise ValueError(f"dp.layout = {layout!r}: must be side_by_side or column_interleaved here")


def camera_info_to_intrinsics(info: CameraInfo, topic: str, width_px: int, height_px: int
                              ) -> Intrinsics:
    """Return the pinhole intrinsics of the image that ``info`` came with.

    P is used where it is filled in (the image is rectified), K otherwise. K and P are for the
    full sensor; binning and region of interest are applied here (REP-104).

    Args:
        info: calibration.
        topic: name for error sentences.
        width_px, height_px: size of the image message.

    Raises:
        InputError: camera_info_zero (all-zero or non-finite calibration), camera_info_size, or
            camera_info_absurd (no camera has such rays).
    """
    p, k = info.p, info.k
    fx, fy, cx, cy = (p[0], p[5], p[2], p[6]) if p[0] > 0 else (k[0], k[4], k[2], k[5])
    if not (fx > 0 and fy > 0 and all(map(math.isfinite, (fx, fy, cx, cy)))):
        raise InputError(
            "camera_info_zero", topic,
            f"fx, fy, cx, cy = {fx:g}, {fy:g}, {cx:g}, {cy:g}: focal lengths must be finite and "
            "> 0; calibrate the camera or set its calibration file",
        )
    bin_x, bin_y = max(1, info.binning_x), max(1, info.binning_y)
    roi = info.roi
    full_width = roi.width or info.width
    full_height = roi.height or info.height
    if full_width // bin_x != width_px or full_height // bin_y != height_px:
        raise InputError(
            "camera_info_size", topic,
            f"describes {full_width // bin_x}x{full_height // bin_y} px (binning and roi applied) "
            f"but the image has {width_px}x{height_px}: must be equal; fix the calibration file, "
            "binning_x/binning_y or roi",
        )
    found = Intrinsics(
        fx / bin_x,
        fy / bin_y,
        (cx - roi.x_offset + 0.5) / bin_x - 0.5,
        (cy - roi.y_offset + 0.5) / bin_y - 0.5,
        width_px,
        height_px,
    )
    try:
        ray_grid(found)
    except ValueError as error:
        raise InputError("camera_info_absurd", topic, f"{error}; check the unit (px)") from None
    return found


# -- out ------------------------------------------------------------------------------------------


def array_to_data(values: NDArray[Any]) -> array[int]:
    """Copy an array once into the ``array.array('B')`` that message fields want."""
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return data


def array_to_image(values: NDArray[Any], encoding: str, header: Header) -> Image:
    """Return an Image of (H, W) or (H, W, C) pixels in native byte order.

    Raises:
        ValueError: dtype or channels do not fit ``encoding``.
    """
    kind, channels = ENCODINGS[encoding]
    found = 1 if values.ndim == 2 else values.shape[2]
    if values.dtype != np.dtype(kind) or found != channels:
        raise ValueError(
            f"{encoding} needs {channels} channel(s) of {np.dtype(kind)}, "
            f"got {found} of {values.dtype}"
        )
    height, width = values.shape[:2]
    msg = Image(header=header, height=height, width=width, encoding=encoding,
                is_bigendian=int(values.dtype.byteorder == ">"),
                step=width * channels * values.dtype.itemsize)
    msg.data = array_to_data(values)
    return msg


def intrinsics_to_camera_info(
    intrinsics: Intrinsics, header: Header, source: CameraInfo | None = None
) -> CameraInfo:
    """Return a CameraInfo for an image with these intrinsics: no binning, no roi, P[3] = 0.

    P[3] stays 0 because the two sub-apertures share one lens: there is no stereo baseline.
    Distortion model, D and R are taken from ``source``, where given.
    """
    fx, fy, cx, cy = (intrinsics.fx_px, intrinsics.fy_px, intrinsics.cx_px, intrinsics.cy_px)
    info = CameraInfo(header=header, width=intrinsics.width_px, height=intrinsics.height_px)
    info.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    info.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    if source is None:
        info.distortion_model = "plumb_bob"
        info.d = [0.0] * 5
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    else:
        info.distortion_model, info.d, info.r = source.distortion_model, source.d, source.r
    info.roi = RegionOfInterest()
    return info
