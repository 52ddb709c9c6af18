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


def srgb_decoded(encoded: NDArray[np.float32]) -> NDArray[np.float32]:
    """IEC 61966-2-1 through a table of 4096 steps."""
    table = np.linspace(0, 1, _SRGB_STEPS, dtype=np.float32)
    table = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    index = (encoded * (_SRGB_STEPS - 1) + 0.5).astype(np.int32)
    return table.astype(np.float32)[index]
