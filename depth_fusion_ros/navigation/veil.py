"""Points of a veil: depth that a network drew from the edge of a thing back to what is behind it.

A network smooths over a depth edge, and along the ramp every point hangs in the air. On no real
surface does depth rise so fast with the image: it would be seen at grazing incidence, nearly along
the ray. Laser scans have the same points, which their drivers call shadows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import Intrinsics


def is_veil(depth_m: NDArray[np.float32], intrinsics: Intrinsics,
            max_incidence_deg: float) -> NDArray[np.bool_]:
    """(H, W) pixels that on some axis of the image are level with no neighbour, and no thin thing.

    Two neighbours are level when a surface through both is seen under an angle of incidence (from
    its normal) of max_incidence_deg or less; on the optical axis, where tan(incidence) =
    |d ln Z / dx| with x = u/f. The end of a surface is level with its other neighbour. What is
    nearer than the neighbours on both sides is a thin thing.

    Args:
        depth_m: (H, W) float32 m > 0; neighbours without finite depth say nothing.
        intrinsics: of the depth image. max_incidence_deg: 90 = no surface is too steep.
    """
    veil = np.zeros(depth_m.shape, np.bool_)
    if max_incidence_deg >= 90:
        return veil
    steepness = math.tan(math.radians(max_incidence_deg))
    for image, found, focal_px in ((depth_m, veil, intrinsics.fx_px),
                                   (depth_m.T, veil.T, intrinsics.fy_px)):
        before, after = image[:, :-1], image[:, 1:]
        with np.errstate(invalid="ignore", over="ignore"):
            rise_m = after - before
            limit_m = np.minimum(before, after) * np.float32(steepness / focal_px)
            level = np.abs(rise_m) <= limit_m
            steep = np.isfinite(rise_m) & ~level
        nearer_before, nearer_after = steep & (rise_m > 0), steep & (rise_m < 0)
        alone = np.zeros_like(found)
        alone[:, 1:] = steep
        alone[:, :-1] |= steep
        alone[:, 1:] &= ~level
        alone[:, :-1] &= ~level
        alone[:, 1:-1] &= ~(nearer_after[:, :-1] & nearer_before[:, 1:])
        found |= alone
    return veil
