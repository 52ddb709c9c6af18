"""What goes into the clouds for Nav2."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from depth_fusion_ros.navigation.floor import Floor
from depth_fusion_ros.navigation.rays import FARTHEST_M, require

OBSTACLE_STEP_BYTES = 16  # x y z sigma


@dataclass(frozen=True)
class CloudOptions:
    """What goes into the clouds for Nav2.

    Attributes:
        voxel_m: smallest voxel edge of the obstacle cloud, m. voxel_sigma_scale: a point's voxel
            grows to this share of its σ, where that is more.
        max_bytes: most bytes of an obstacle or clearing cloud. Nav2 subscribes best-effort and
            both clouds leave at once: above 0.5 MB together an untuned Fast DDS loses the first.
        max_sigma_ratio: σ/Z above which a depth does not mark.
        use_prior_only: depths that rest on a prior alone mark too; they never clear.
        max_incidence_deg: angle from its normal under which a surface may be seen and mark; what
            is steeper is a veil between near and far. 90 = all mark.
        surer_square_px: side of the squares of the image within which, and in those around, a
            surer point keeps the vaguer ones just behind it from marking, px; 0 = all mark.
        floor: what may be floor does not mark.
        clearing_range_m: length of the longest clearing ray, m.
        clearing_max_sigma_ratio: σ/Z above which a depth does not clear. Rays end at Z − 2σ, so a
            depth may be vaguer than one that marks.
        clearing_stride: side of the square of pixels that gives one clearing ray, px; larger
            where one ray of each square might not fit max_bytes.
        min_m: smallest depth that the estimate reports, m; no clearing ray ends nearer.

    Raises:
        ValueError: a value outside its range; the text names it, the rule and the remedy.
    """

    voxel_m: float = 0.05
    voxel_sigma_scale: float = 0.2
    max_bytes: int = 235_000
    max_sigma_ratio: float = 0.15
    use_prior_only: bool = False
    max_incidence_deg: float = 82.0
    surer_square_px: int = 16
    floor: Floor = field(default_factory=Floor)
    clearing_range_m: float = 4.0
    clearing_max_sigma_ratio: float = 0.3
    clearing_stride: int = 8
    min_m: float = 0.15

    def __post_init__(self) -> None:
        reach = self.clearing_range_m
        require((
            ("cloud.voxel_m", self.voxel_m, 0.001 <= self.voxel_m <= 10, "from 0.001 to 10 m"),
            ("cloud.voxel_sigma_scale", self.voxel_sigma_scale,
             0 <= self.voxel_sigma_scale <= 100, "from 0 (voxels do not grow) to 100"),
            ("cloud.max_bytes", self.max_bytes, self.max_bytes >= 4 * OBSTACLE_STEP_BYTES,
             "at least 64, four points"),
            ("cloud.max_sigma_ratio", self.max_sigma_ratio, 0 < self.max_sigma_ratio <= 1,
             "above 0 and at most 1"),
            ("cloud.max_incidence_deg", self.max_incidence_deg,
             45 <= self.max_incidence_deg <= 90, "from 45 to 90 (all mark) degrees"),
            ("cloud.surer_square_px", self.surer_square_px, 0 <= self.surer_square_px <= 1000,
             "from 0 (all mark) to 1000 px"),
            ("clearing.max_sigma_ratio", self.clearing_max_sigma_ratio,
             0 < self.clearing_max_sigma_ratio <= 1, "above 0 and at most 1"),
            ("depth.min_m", self.min_m, 0 < self.min_m < math.inf, "finite and > 0"),
            ("clearing.range_m", reach, self.min_m < reach < FARTHEST_M,
             "above depth.min_m and below 1e6 m"),
            ("clearing.stride", self.clearing_stride, self.clearing_stride >= 1, "at least 1 px")))
