"""What several test files share."""

from __future__ import annotations

import pytest

from depth_fusion_ros.estimation.dual_pixel import DualPixelFrame
from depth_fusion_ros.simulation.sequence import simulate_sequence


@pytest.fixture(scope="session")
def frame() -> DualPixelFrame:
    """A simulated capture of a 16 mm lens, its true depth as `truth_m`."""
    simulated = next(simulate_sequence(frames=1, width_px=160, height_px=120, seed=5,
                                       camera="robot_16mm"))
    frame = DualPixelFrame(simulated.left, simulated.right, simulated.rgb, 42, "optical",
                           simulated.intrinsics, simulated.lens)
    object.__setattr__(frame, "truth_m", simulated.depth_m)
    return frame
