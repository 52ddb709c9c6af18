"""Images and headers between NumPy arrays and the message objects of `rosbags`.

No colour conversion and no copies of meaning: encoding says what the numbers are, and only the
encodings of the wire contract are known (mono8, mono16, rgb8, bgr8, 16UC1, 32FC1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .typestore import BagError, message_class

# encoding -> (dtype, channels)
ENCODINGS: dict[str, tuple[type[np.generic], int]] = {
    "mono8": (np.uint8, 1),
    "mono16": (np.uint16, 1),
    "rgb8": (np.uint8, 3),
    "bgr8": (np.uint8, 3),
    "16UC1": (np.uint16, 1),
    "32FC1": (np.float32, 1),
}
NANOSECONDS = 1_000_000_000


def header(stamp_ns: int, frame_id: str) -> Any:
    """Return a std_msgs/Header; `stamp_ns` is nanoseconds since the epoch of the bag's clock."""
    time_class = message_class("builtin_interfaces/msg/Time")
    stamp = time_class(sec=stamp_ns // NANOSECONDS, nanosec=stamp_ns % NANOSECONDS)
    return message_class("std_msgs/msg/Header")(stamp=stamp, frame_id=frame_id)


def stamp_ns(message: Any) -> int:
    """Return the header stamp of a message in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def image_message(array: NDArray[Any], encoding: str, stamp: int, frame_id: str) -> Any:
    """Return a sensor_msgs/Image (little endian, rows without padding).

    Args:
        array: (H, W) or (H, W, 3) of the dtype that belongs to `encoding`; copied if not
            contiguous.
        encoding: one of `ENCODINGS`.
        stamp: nanoseconds.
        frame_id: optical frame of the image.

    Raises:
        BagError: unknown encoding, or array shape or dtype that do not belong to it.
    """
    if encoding not in ENCODINGS:
        raise BagError(f"image encoding {encoding!r}: must be one of {', '.join(ENCODINGS)}")
    dtype, channels = ENCODINGS[encoding]
    wanted_ndim = 2 if channels == 1 else 3
    if (
        array.dtype != dtype
        or array.ndim != wanted_ndim
        or array.shape[2:] not in ((), (channels,))
    ):
        raise BagError(
            f"image {array.dtype} {array.shape} for encoding {encoding}: needs "
            f"{np.dtype(dtype).name} with {channels} channel(s); convert it first"
        )
    rows = np.ascontiguousarray(array)
    return message_class("sensor_msgs/msg/Image")(
        header=header(stamp, frame_id),
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=array.shape[1] * channels * rows.itemsize,
        data=rows.reshape(-1).view(np.uint8),
    )


def image_array(message: Any) -> NDArray[Any]:
    """Return a sensor_msgs/Image as (H, W) or (H, W, 3) array in native byte order.

    The array may share memory with the message. Rows may be padded (`step` larger than needed).

    Raises:
        BagError: unknown encoding, or size, step and data that do not fit together.
    """
    if message.encoding not in ENCODINGS:
        raise BagError(
            f"image encoding {message.encoding!r}: must be one of {', '.join(ENCODINGS)}"
        )
    dtype, channels = ENCODINGS[message.encoding]
    height, width, step = int(message.height), int(message.width), int(message.step)
    row_bytes = width * channels * np.dtype(dtype).itemsize
    data = np.asarray(message.data, dtype=np.uint8)
    if height < 1 or width < 1 or step < row_bytes or data.size < step * height:
        raise BagError(
            f"image {width}x{height} {message.encoding} with step {step} and {data.size} bytes: "
            f"needs step >= {row_bytes} and step x height bytes; the recording is damaged"
        )
    rows = np.ascontiguousarray(data[: step * height].reshape(height, step)[:, :row_bytes])
    stored = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    values = rows.view(stored).astype(dtype, copy=False)
    return values.reshape((height, width) if channels == 1 else (height, width, channels))
