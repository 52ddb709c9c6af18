"""Points that may be floor: their depth is too unsure to say that they stand above it.

A pixel of the floor that is read too near slides up its ray and stands in the way: seen from 0.4 m,
20 % too near is 8 cm high. A fixed cut in the costmap cannot know how unsure a point is; here it
stays while even the point `sigmas` standard deviations farther along its ray is above the cut, so
that low things mark from near, where they are sure, and vague ones do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.navigation.rays import require


@dataclass(frozen=True)
class Floor:
    """A level floor under the camera.

    Attributes:
        camera_height_m: of the camera above it; 0 = not known, nothing may be floor.
        up: direction opposite to gravity in the optical frame (x right, y down, z forward), a unit
            vector; the default is that of a level camera.
        cut_m: what is lower is floor. sigmas: how many σ a depth is given to be wrong by.

    Raises:
        ValueError: a value outside its range; the text names it, the rule and the remedy.
    """

    camera_height_m: float = 0.0
    up: tuple[float, float, float] = (0.0, -1.0, 0.0)
    cut_m: float = 0.08
    sigmas: float = 2.0

    def __post_init__(self) -> None:
        require((
            ("floor.camera_height_m", self.camera_height_m,
             0 <= self.camera_height_m < math.inf, "finite, and 0 (unknown) or above"),
            ("floor up", self.up, abs(math.hypot(*self.up) - 1) < 1e-6, "a unit vector"),
            ("floor.cut_m", self.cut_m, 0 <= self.cut_m < math.inf, "finite and 0 or above"),
            ("floor.sigmas", self.sigmas, 0 <= self.sigmas < math.inf, "finite and 0 or above")))

    def may_have(self, points_m: NDArray[np.float32], sigma_m: NDArray[np.float32]
                 ) -> NDArray[np.bool_]:
        """(N,) whether each point may be floor.

        Args:
            points_m: (3, N) x y z in the optical frame, z > 0. sigma_m: (N,) of z, finite.
        """
        if not self.camera_height_m:
            return np.zeros(sigma_m.shape, np.bool_)
        up_m = np.asarray(self.up, np.float32) @ points_m
        # Along its ray a point moves in proportion to its depth.
        farther = 1 + np.float32(self.sigmas) * sigma_m / points_m[2]
        return np.asarray(self.camera_height_m + up_m * farther < self.cut_m, np.bool_)
