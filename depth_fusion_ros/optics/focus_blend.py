"""A picture that is sharp everywhere, from the aligned slices of a focus sweep."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SHARPNESS_POWER = 3.0
NOISE_FLOOR = 4.0  # counts²


def blend_in_focus(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blend aligned slices so that each pixel comes from the slices that are sharpest there.

    Weights are a softmax over the slices of the logarithm of the local Laplacian energy, smoothed
    so that no seam appears; without texture all slices weigh the same.

    Args:
        images: (N, H, W, 3) uint8, aligned and of one exposure.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no images, or another shape or dtype.
    """
    stack = np.asarray(images)
    if stack.ndim != 4 or stack.shape[3] != 3 or stack.dtype != np.uint8 or not len(stack):
        raise ValueError(f"slices are {stack.shape} {stack.dtype}: needs (N, H, W, 3) uint8 with "
                         "N >= 1")
    weights = np.empty(stack.shape[:3], np.float32)
    for image, weight in zip(stack, weights):
        detail = cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F)
        energy = cv2.GaussianBlur(detail * detail, (0, 0), 3.0)
        weight[:] = (energy + NOISE_FLOOR) ** SHARPNESS_POWER
    weights /= weights.sum(0)
    blend = np.zeros(stack.shape[1:], np.float32)
    for image, weight in zip(stack, weights):
        # Blurring is linear, so smoothed weights still sum to one.
        blend += image * cv2.GaussianBlur(weight, (0, 0), 2.0)[..., None]
    return np.clip(np.rint(blend), 0, 255).astype(np.uint8)
