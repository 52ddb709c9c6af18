"""Squares of an image: which pixel of each has the least of something."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

LOW_32 = np.uint64(0xFFFFFFFF)
"""Of what `ranked` gives: the index."""
_Number = TypeVar("_Number", np.uint64, np.float32)


def ranked(size: NDArray[np.float32], index: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Keys that sort by `size` ≥ 0, then by index, and hold the index in their low half.

    The bits of floats that are not negative sort as the floats do.
    """
    halves = np.empty((*size.shape, 2), np.uint32)  # little-endian, as the clouds are
    halves[..., 0] = index
    halves[..., 1] = np.ascontiguousarray(size, np.float32).view(np.uint32)
    return halves.view(np.uint64)[..., 0]


def least_per_square(image: NDArray[_Number], stride: int) -> NDArray[_Number]:
    """Least value of each stride x stride square; those at the right and lower edge are smaller."""
    for axis, size in enumerate(image.shape):
        image = np.minimum.reduceat(image, np.arange(0, size, stride), axis=axis)
    return image
