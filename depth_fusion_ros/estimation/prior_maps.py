"""What every prior does alike: take an image of any size, give a finite map on its grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
DEPTH_FLOOR_M = 0.05
"""Nearer depths of a metric model count as this: 1/0 is no inverse depth."""


class PriorError(ValueError):
    """A prior that cannot be used; the text names the file, the fault and the remedy."""


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 as it is; grey (H, W) or (H, W, 1) as three equal channels.

    Raises:
        PriorError: another shape or type, or empty.
    """
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.size == 0 or not (
            array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))):
        raise PriorError(f"image of a prior: {array.dtype} {array.shape}, must be uint8 "
                         "(height, width, 3) sRGB or (height, width) grey; convert it")
    if array.ndim == 2:
        array = array[..., None]
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def one_map(result: NDArray[Any], source: Path) -> Floats:
    """The (H, W) float32 map in a result of (1, H, W) or (1, 1, H, W).

    Raises:
        PriorError: another shape.
    """
    shape = np.shape(result)
    if len(shape) not in (3, 4) or any(side != 1 for side in shape[:-2]) or 0 in shape:
        raise PriorError(f"prior {source}: gave a result of shape {shape}, must be (1, height, "
                         "width) or (1, 1, height, width); export the depth alone")
    return np.asarray(result, np.float32).reshape(shape[-2:])


def finished(raw: Floats, output: str, image: NDArray[np.uint8], source: Path) -> Floats:
    """Inverse depth on the image's grid from what the network gave.

    Args:
        raw: (h, w); output: "inverse_depth" or "depth", what `raw` is; infinite depth is allowed.
        image: (H, W, 3), of which only the size counts.

    Raises:
        PriorError: NaN, or an infinity that is no depth.
    """
    depth = output == "depth"
    good = raw > -np.inf if depth else np.isfinite(raw)
    if not good.all():
        raise PriorError(f"prior {source}: {np.count_nonzero(~good)} of {raw.size} values of its "
                         f"{output} are not finite; export it in float32, and check normalisation "
                         "and input size")
    if depth:  # before resizing: a plane is linear in inverse depth, and infinity is 0
        raw = np.reciprocal(np.maximum(raw, DEPTH_FLOOR_M), dtype=np.float32)
    height, width = image.shape[:2]
    if raw.shape != (height, width):
        raw = np.asarray(cv2.resize(np.ascontiguousarray(raw), (width, height),
                                    interpolation=cv2.INTER_LINEAR), np.float32)
    return np.ascontiguousarray(raw)


def resized(image: Floats, height: int, width: int) -> Floats:
    """(h, w, 3) float32 0..1 at (height, width, 3), averaged where it shrinks."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    scaled = cv2.resize(image, (width, height), interpolation=how)
    return np.clip(scaled, 0, 1).astype(np.float32)  # cubic overshoots


def first_line(error: Exception) -> str:
    """What an engine says, cut to one line of an error message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
