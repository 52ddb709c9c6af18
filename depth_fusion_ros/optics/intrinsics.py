"""Pinhole intrinsics of an image, and what resampling does to them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole intrinsics of an image: focal lengths and principal point in px, size in px.

    (cx, cy) = 0, 0 is the centre of the top-left pixel, as in sensor_msgs/CameraInfo.
    """

    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    width_px: int
    height_px: int

    def resized(self, width_px: int, height_px: int) -> Intrinsics:
        """Return intrinsics of the same view resampled to another size (pixel centres kept)."""
        sx, sy = width_px / self.width_px, height_px / self.height_px
        return Intrinsics(
            self.fx_px * sx,
            self.fy_px * sy,
            (self.cx_px + 0.5) * sx - 0.5,
            (self.cy_px + 0.5) * sy - 0.5,
            width_px,
            height_px,
        )
