"""Small things done to images before and after a network. NumPy/OpenCV."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SRGB_STEPS = 4096


def padded(image: NDArray[np.float32], multiple: int) -> NDArray[np.float32]:
    """Replicate the lower and right border so that both sides are multiples of `multiple`."""
    height, width = image.shape[:2]
    return np.ascontiguousarray(
        cv2.copyMakeBorder(image, 0, -height % multiple, 0, -width % multiple,
                           cv2.BORDER_REPLICATE), dtype=np.float32)


def resized(image: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Image of (width, height), float32, linear interpolation."""
    if (image.shape[1], image.shape[0]) == size:
        return np.ascontiguousarray(image, dtype=np.float32)
    return np.asarray(cv2.resize(np.ascontiguousarray(image, dtype=np.float32), size,
                                 interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def reduced(image: NDArray[Any], divisor: int) -> NDArray[Any]:
    """Means of squares of divisor × divisor pixels; the border is replicated to whole squares.

    Args:
        image: (H, W) or (H, W, C), uint8 or float32.

    Returns:
        (⌈H / divisor⌉, ⌈W / divisor⌉, …) of the same dtype.
    """
    if divisor == 1:
        return image
    height, width = image.shape[:2]
    whole = cv2.copyMakeBorder(np.ascontiguousarray(image), 0, -height % divisor, 0,
                               -width % divisor, cv2.BORDER_REPLICATE)
    size = (whole.shape[1] // divisor, whole.shape[0] // divisor)
    return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), image.dtype)


def enlarged(image: NDArray[Any], divisor: int, size: tuple[int, int]) -> NDArray[Any]:
    """What was said of the pixels of `reduced`, on the (width, height) it came from, float32."""
    if divisor == 1:
        return image
    whole = resized(image, (image.shape[1] * divisor, image.shape[0] * divisor))
    return np.ascontiguousarray(whole[:size[1], :size[0]])


def srgb_decoded(encoded: NDArray[np.float32]) -> NDArray[np.float32]:
    """IEC 61966-2-1 through a table of 4096 steps."""
    table = np.linspace(0, 1, _SRGB_STEPS, dtype=np.float32)
    table = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    index = (encoded * (_SRGB_STEPS - 1) + 0.5).astype(np.int32)
    return table.astype(np.float32)[index]
