"""OpenCV's semi-global matching as the baseline that it is in the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from capture_folders import HEIGHT, WIDTH, views, write_raytraced

from depth_fusion_ros.evaluation import benchmark
from depth_fusion_ros.evaluation.methods import open_method
from depth_fusion_ros.evaluation.semi_global import semi_global_disparity


@pytest.mark.parametrize("disparity_px", [-4.3, -0.6, 0.0, 1.25, 5.7])
def test_semi_global_matching_finds_fractions_of_both_signs_up_to_the_border(
    disparity_px: float
) -> None:
    left, right = (np.sqrt(v[..., 0]) for v in views(disparity_px))
    found = semi_global_disparity(left, right)
    assert found.shape == (HEIGHT, WIDTH)
    assert np.isfinite(found).all()
    assert np.median(found) == pytest.approx(disparity_px, abs=0.05)
    assert np.mean(np.abs(found - disparity_px) < 0.3) > 0.9


def test_semi_global_matching_stays_within_its_limits() -> None:
    left, right = (np.sqrt(v[..., 0]) for v in views(3.0))
    found = semi_global_disparity(left, right, (-1.0, 2.5))
    assert found.max() == 2.5
    assert found.min() >= -1.0
    with pytest.raises(ValueError, match="must be below"):
        semi_global_disparity(left, right, (1.0, 1.0))
    with pytest.raises(ValueError, match="of one size"):
        semi_global_disparity(left, right[:-1])


def test_semi_global_matching_is_metric_through_the_lens(tmp_path: Path) -> None:
    method = open_method("sgbm")
    samples = benchmark.raytraced_samples(write_raytraced(tmp_path), "soft", "clean")
    rows = benchmark.score(samples, [method])
    assert rows[method.name][0].values["abs_rel"] < 0.15
    assert rows[method.name][0].values["coverage"] == 1.0
