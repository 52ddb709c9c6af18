"""What we use of message_filters and cv_bridge, for machines where they are not installed.

Only `depth_fusion_ros.ros.compat` imports this module. Behaviour, not code, follows the real
packages; test/test_ros_compat.py holds both to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class SimpleFilter:
    """A source of messages with registered callbacks."""

    def __init__(self) -> None:
        self._callbacks: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def registerCallback(self, callback: Callable[..., None], *arguments: Any) -> int:
        """Call ``callback(*messages, *arguments)`` on each signal; return its index."""
        self._callbacks.append((callback, arguments))
        return len(self._callbacks) - 1

    def signalMessage(self, *messages: Any) -> None:
        """Hand messages to all callbacks, in the order of their registration."""
        for callback, arguments in self._callbacks:
            callback(*messages, *arguments)


class TimeSynchronizer(SimpleFilter):
    """Joins one message of each filter whose header stamps are equal.

    Each filter has a queue of ``queue_size`` stamps; where it overflows, the oldest stamp goes.
    A second message with the same stamp replaces the first. A set is signalled once, messages in
    the order of the filters.
    """

    def __init__(self, filters: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self._queue_size = queue_size
        self._queues: list[dict[int, Any]] = [{} for _ in filters]
        self._lock = threading.Lock()
        for index, source in enumerate(filters):
            source.registerCallback(self._add, index)

    def _add(self, message: Any, index: int) -> None:
        stamp_ns = _stamp_ns(message)
        with self._lock:
            queue = self._queues[index]
            queue[stamp_ns] = message
            while len(queue) > self._queue_size:
                del queue[min(queue)]
            keys = self._match(stamp_ns, index) if stamp_ns in queue else None
            if keys is None:
                return
            messages = [q.pop(key) for q, key in zip(self._queues, keys)]
        self.signalMessage(*messages)

    def _match(self, stamp_ns: int, index: int) -> list[int] | None:
        """Return one stamp per queue that belong together, or None while there are none."""
        if all(stamp_ns in queue for queue in self._queues):
            return [stamp_ns] * len(self._queues)
        return None


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Joins messages whose stamps differ by less than ``slop`` seconds; the nearest wins."""

    def __init__(self, filters: Sequence[SimpleFilter], queue_size: int, slop: float) -> None:
        super().__init__(filters, queue_size)
        self._slop_ns = round(slop * 1e9)

    def _match(self, stamp_ns: int, index: int) -> list[int] | None:
        keys = []
        for number, queue in enumerate(self._queues):
            if number == index:
                keys.append(stamp_ns)
            elif queue:
                keys.append(min(queue, key=lambda key: abs(key - stamp_ns)))
            else:
                return None
        return keys if max(keys) - min(keys) < self._slop_ns else None


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


EXOTIC_ENCODINGS: dict[str, tuple[str, int]] = {
    "rgba8": ("u1", 4), "bgra8": ("u1", 4), "mono16": ("u2", 1), "16UC1": ("u2", 1),
    "bayer_rggb8": ("u1", 1), "bayer_bggr8": ("u1", 1),
    "bayer_gbrg8": ("u1", 1), "bayer_grbg8": ("u1", 1),
}


def exotic_image_to_rgb(msg: Any) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB of an Image in one of `EXOTIC_ENCODINGS`.

    Deep greys are scaled from the full 16 bits. Bayer mosaics are interpolated by averaging the
    samples of a colour within each pixel's 3x3 neighbourhood.
    """
    kind, channels = EXOTIC_ENCODINGS[msg.encoding]
    dtype = np.dtype((">" if msg.is_bigendian else "<") + kind)
    pixels = np.ndarray(
        (msg.height, msg.width, channels), dtype, memoryview(msg.data),
        strides=(msg.step, channels * dtype.itemsize, dtype.itemsize),
    )
    if msg.encoding == "rgba8":
        return np.ascontiguousarray(pixels[..., :3])
    if msg.encoding == "bgra8":
        return np.ascontiguousarray(pixels[..., 2::-1])
    if channels == 1 and dtype.itemsize == 2:
        grey = (pixels.astype(np.float32) * np.float32(255.0 / 65535.0)).round()
        return np.repeat(grey.astype(np.uint8), 3, axis=2)
    return _demosaic(pixels[..., 0], msg.encoding[6:10])


def _demosaic(mosaic: NDArray[np.uint8], pattern: str) -> NDArray[np.uint8]:
    height, width = mosaic.shape
    out = np.empty((height, width, 3), np.uint8)
    samples = mosaic.astype(np.float32)
    for channel, name in enumerate("rgb"):
        mask = np.zeros((height, width), np.float32)
        for place, colour in enumerate(pattern):
            if colour == name:
                mask[place // 2 :: 2, place % 2 :: 2] = 1.0
        out[..., channel] = (_sum3(samples * mask) / np.maximum(_sum3(mask), 1.0)).round()
        own = mask > 0
        out[..., channel][own] = mosaic[own]
    return out


def _sum3(values: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.pad(values, 1)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:])
