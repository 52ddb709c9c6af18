"""`DepthEstimate`: the only thing that travels between estimation and the rest of the house."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.optics.intrinsics import Intrinsics

__all__ = ["DepthEstimate", "Intrinsics", "Provenance", "ScaleState", "SweepFacts"]


class Provenance(IntEnum):
    """Where a pixel's depth comes from, or why it has none (labels of the `provenance` topic)."""

    NONE = 0
    MEASURED = 1
    FUSED = 2
    PRIOR_ONLY = 3
    SATURATED = 4
    TEXTURELESS = 5  # includes "edge direction unobservable"
    OUT_OF_RANGE = 6  # outside the sweep or the depth of field
    MOTION_REJECTED = 7


class ScaleState(IntEnum):
    """How metric a frame is; equals the constants SCALE_* of FrameReport.msg."""

    UNKNOWN = 0
    ABSOLUTE = 1
    ANCHORED = 2
    NOMINAL = 3
    RELATIVE = 4

    @property
    def is_metric(self) -> bool:
        """True where depth may go to a metric topic."""
        return self in (ScaleState.ABSOLUTE, ScaleState.ANCHORED, ScaleState.NOMINAL)


@dataclass(frozen=True)
class SweepFacts:
    """What is known of the focus sweep that a depth comes from.

    Attributes:
        motion_px: largest image motion found within the sweep, px; NaN = not measured.
        slices: images that were used.
        coverage_diopters: nearest minus farthest focus, 1/m.
        largest_gap_diopters: largest step between neighbouring positions, 1/m.
        complete: nothing announced is missing.
        rejected: it moved too much and was not used; `reason` says so. reason: a sentence on its
            alignment, "" where there is nothing to say.
        told_blur_gain_px_m: aperture diameter · focal length in px by the lens's data; 0 = not
            told. blur_gain_px_m: the one used, which is measured where none was told or the
            slices contradict it; 0 = not known.
    """

    motion_px: float
    slices: int
    coverage_diopters: float
    largest_gap_diopters: float
    complete: bool = True
    rejected: bool = False
    reason: str = ""
    told_blur_gain_px_m: float = 0.0
    blur_gain_px_m: float = 0.0


@dataclass(frozen=True)
class DepthEstimate:
    """Depth of one input set, as arrays on the host, on the reference (RGB) pixel grid.

    Attributes:
        depth_m: (H, W) float32, metres along the optical axis. NaN = unknown, +Inf = farther
            than the configured maximum, −Inf = nearer than the minimum (REP-117/118). All NaN
            when `scale_state` is RELATIVE.
        sigma_m: (H, W) float32, one standard deviation in metres; NaN where depth is not finite.
        provenance: (H, W) uint8, values of `Provenance`.
        disparity_px: (H, W) float32, network output x_right − x_left in px of the estimation
            grid; affine in inverse depth, so `-disparity_px` is the relative inverse depth. Of a
            focus sweep minus the inverse depth on the scale of its dioptres.
        sigma_px: (H, W) float32, one standard deviation of `disparity_px`.
        stamp_ns: stamp of the input set in nanoseconds (ROS time of the image).
        frame_id: optical frame of the reference image.
        intrinsics: of the depth image.
        scale_state: whether metres are metres.
        model_id: "<name>@<sha256[:8]>" of the weights that made it.
        stage_ms: wall time per stage in milliseconds, in order of execution.
        sweep: of a focus sweep; None on the dual-pixel path.
        lens_diopters: (H, W) float32 inverse depth by the lens's own numbers, without limits of
            range and before any anchor, 1/m; None where they are not known.
        all_in_focus: (H, W, 3) uint8 picture made of a sweep's sharpest parts, or None.
    """

    depth_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32]
    provenance: NDArray[np.uint8]
    disparity_px: NDArray[np.float32]
    sigma_px: NDArray[np.float32]
    stamp_ns: int
    frame_id: str
    intrinsics: Intrinsics
    scale_state: ScaleState
    model_id: str
    stage_ms: dict[str, float] = field(default_factory=dict)
    sweep: SweepFacts | None = None
    all_in_focus: NDArray[np.uint8] | None = None
    lens_diopters: NDArray[np.float32] | None = None

    def relative_inverse_depth(self) -> NDArray[np.float32]:
        """Return (H, W) float32 unitless inverse depth up to scale and shift: larger = nearer."""
        return -self.disparity_px

    def ratio(self, label: Provenance) -> float:
        """Share of pixels with this provenance, 0..1."""
        return float(np.mean(self.provenance == label))
