"""Metrics on cases small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.evaluation.metrics import (
    average_metrics,
    depth_edges,
    depth_metrics,
    percentiles_ms,
    range_metrics,
)

INF, NAN = math.inf, math.nan


def row(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float32)


def test_two_pixels_by_hand() -> None:
    # errors +1 m at 2 m and −1 m at 4 m: ratios 1.5 and 4/3
    got = depth_metrics(row(3, 3), row(2, 4))
    assert got["abs_rel"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert got["rmse_m"] == pytest.approx(1.0)
    assert got["mae_m"] == pytest.approx(1.0)
    logs = np.log([3 / 2, 3 / 4])
    assert got["rmse_log"] == pytest.approx(math.sqrt(np.mean(logs**2)))
    assert got["silog"] == pytest.approx(100 * (logs[0] - logs[1]) / 2)
    assert (got["delta_1"], got["delta_2"], got["delta_3"]) == (0.0, 1.0, 1.0)
    assert got["coverage"] == 1.0


def test_bias_keeps_its_sign_and_the_median_ignores_an_outlier() -> None:
    # relative errors +1/2, −1/4, +4; in dioptres 1/2 − 1/3, 1/4 − 1/3, 1 − 1/5
    got = depth_metrics(row(3, 3, 5), row(2, 4, 1))
    assert got["bias_rel"] == pytest.approx((1 / 2 - 1 / 4 + 4) / 3)
    assert got["bias_m"] == pytest.approx((1 - 1 + 4) / 3)
    assert got["median_abs_rel"] == pytest.approx(1 / 2)
    assert got["mae_diopters"] == pytest.approx((1 / 6 + 1 / 12 + 4 / 5) / 3)
    assert depth_metrics(row(1, 1), row(2, 4))["bias_rel"] < 0


def test_a_perfect_prediction_has_no_error() -> None:
    got = depth_metrics(row(1, 2, 3), row(1, 2, 3))
    assert got["abs_rel"] == got["rmse_m"] == got["silog"] == 0.0
    assert got["delta_1"] == 1.0


def test_infinite_predictions_count_as_the_limits() -> None:
    far = depth_metrics(row(INF), row(4), max_m=10.0)
    assert far["mae_m"] == pytest.approx(6.0)
    near = depth_metrics(row(-INF), row(4), min_m=0.5)
    assert near["mae_m"] == pytest.approx(3.5)
    assert far["coverage"] == near["coverage"] == 1.0


def test_zero_and_negative_depths_count_as_the_near_limit_and_keep_logs_finite() -> None:
    got = depth_metrics(row(0, -3), row(1, 1), min_m=0.5)
    assert got["abs_rel"] == pytest.approx(0.5)
    assert got["rmse_log"] == pytest.approx(math.log(2))


def test_nan_predictions_are_left_out_and_show_in_coverage() -> None:
    got = depth_metrics(row(NAN, 2, NAN, NAN), row(1, 2, 3, NAN))
    assert got["abs_rel"] == 0.0
    assert got["coverage"] == pytest.approx(1 / 3)


def test_truth_outside_the_range_or_not_finite_is_not_scored() -> None:
    truth = row(0.03, 100, INF, NAN, -INF, 1)
    got = depth_metrics(row(7, 7, 7, 7, 7, 2), truth)
    assert got["mae_m"] == pytest.approx(1.0)
    assert got["coverage"] == 1.0


def test_the_valid_mask_restricts_what_is_scored() -> None:
    got = depth_metrics(row(9, 2), row(1, 2), valid=np.array([[False, True]]))
    assert got["abs_rel"] == 0.0


def test_nothing_to_score_gives_nan_and_no_warning() -> None:
    with np.errstate(all="raise"):
        got = depth_metrics(row(1.0), row(NAN), sigma_m=row(0.1))
    assert all(math.isnan(v) for v in got.values())


def test_sigma_shares_are_counted_strictly_inside_one_and_two_sigma() -> None:
    truth = row(2, 2, 2, 2, 2)
    depth = row(2.25, 2.5, 2.75, 3.0, INF)  # errors 0.5σ, 1σ, 1.5σ, 2σ with σ = 0.5; +Inf has none
    got = depth_metrics(depth, truth, sigma_m=row(0.5, 0.5, 0.5, 0.5, NAN))
    assert got["within_1_sigma"] == pytest.approx(1 / 4)
    assert got["within_2_sigma"] == pytest.approx(3 / 4)
    assert got["median_sigma_ratio"] == pytest.approx((0.5 / 2.5 + 0.5 / 2.75) / 2)


def test_gaussian_errors_with_true_sigma_are_found_calibrated() -> None:
    random = np.random.default_rng(0)
    truth = np.full((300, 300), 5.0)
    sigma = random.uniform(0.05, 0.3, truth.shape)
    got = depth_metrics(truth + sigma * random.standard_normal(truth.shape), truth, sigma_m=sigma)
    assert got["within_1_sigma"] == pytest.approx(0.683, abs=0.01)
    assert got["within_2_sigma"] == pytest.approx(0.954, abs=0.01)


def test_without_sigma_its_metrics_are_nan() -> None:
    assert math.isnan(depth_metrics(row(1.0), row(1.0))["within_1_sigma"])


def test_edge_error_looks_only_near_depth_jumps() -> None:
    truth = np.ones((1, 20))
    truth[:, 10:] = 2.0
    depth = truth.copy()
    depth[0, 0] = 5.0  # far from the jump
    depth[0, 9] = 2.0  # at it: error 1 m of 1 m
    got = depth_metrics(depth, truth)
    # jump between 9 and 10, both marked, grown by two: pixels 7..12
    assert got["edge_mae_m"] == pytest.approx(1.0 / 6)
    assert got["edge_abs_rel"] == pytest.approx(1.0 / 6)
    assert got["mae_m"] == pytest.approx(5.0 / 20)


def test_edges_are_marked_on_both_sides_and_not_by_unknown_truth() -> None:
    truth = np.array([[1, 1, 2, NAN, 2, INF], [1, 1, 2, 2, 2, INF]])
    marked = depth_edges(truth)
    assert marked.tolist() == [[False, True, True, False, True, True]] * 2
    assert depth_edges(truth, reach_px=1)[0].tolist() == [True] * 6
    assert not depth_edges(np.array([[1.0, 1.09, 1.18]])).any()


def test_range_bins_hold_their_own_pixels() -> None:
    got = depth_metrics(row(0.5, 3, 30), row(0.4, 2, 20))
    assert got["abs_rel_0_0.5_m"] == pytest.approx(0.25)
    assert got["abs_rel_2_4_m"] == pytest.approx(0.5)
    assert got["abs_rel_8_inf_m"] == pytest.approx(0.5)
    assert math.isnan(got["abs_rel_4_8_m"])


def test_every_error_is_given_per_range_bin_with_its_count_of_pixels() -> None:
    truth, depth = row(0.4, 3, 3, 3), row(0.6, 4, 2, NAN)
    got = range_metrics(depth, truth, valid=np.array([[True, True, True, True]]))
    assert got["bias_m_2_4_m"] == pytest.approx(0.0)
    assert got["rmse_m_2_4_m"] == pytest.approx(1.0)
    assert got["delta_1_0_0.5_m"] == 0.0
    assert got["pixels_2_4_m"] == 3.0, "a pixel without an answer is still there to be scored"
    assert got["pixels_8_inf_m"] == 0.0
    whole = depth_metrics(depth, truth)
    assert {k: v for k, v in got.items() if k in whole} == pytest.approx(
        {k: v for k, v in whole.items() if k.startswith("abs_rel_")}, nan_ok=True)


def test_the_average_is_per_image_then_mean_and_skips_undefined_values() -> None:
    one = depth_metrics(row(2, 2, 2, 2), row(1, 1, 1, 1))  # abs_rel 1
    two = depth_metrics(row(1, NAN, NAN, NAN), row(1, 1, 1, 1))  # abs_rel 0, one pixel only
    got = average_metrics([one, two])
    assert got["abs_rel"] == pytest.approx(0.5)
    assert got["coverage"] == pytest.approx(0.625)
    empty = depth_metrics(row(NAN), row(1.0))
    assert average_metrics([one, empty])["abs_rel"] == pytest.approx(1.0)
    assert average_metrics([]) == {}


def test_shapes_that_differ_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="truth_m has shape"):
        depth_metrics(row(1, 2), row(1))
    with pytest.raises(ValueError, match="sigma_m has shape"):
        depth_metrics(row(1, 2), row(1, 2), sigma_m=row(1))
    with pytest.raises(ValueError, match="min_m < max_m"):
        depth_metrics(row(1), row(1), min_m=2.0, max_m=1.0)


@settings(max_examples=60, deadline=None)
@given(scale=st.floats(0.2, 5.0), seed=st.integers(0, 1000))
def test_silog_does_not_see_a_common_scale_and_abs_rel_does(scale: float, seed: int) -> None:
    truth = np.random.default_rng(seed).uniform(1.0, 4.0, (5, 7))
    got = depth_metrics(truth * scale, truth, min_m=0.01)
    assert got["silog"] == pytest.approx(0.0, abs=1e-4)
    assert got["abs_rel"] == pytest.approx(abs(scale - 1.0), abs=1e-9)


def test_percentiles_ignore_latencies_that_are_not_numbers() -> None:
    got = percentiles_ms([*range(1, 101), NAN])
    assert got["p50_ms"] == pytest.approx(50.5)
    assert got["p95_ms"] == pytest.approx(95.05)
    assert got["count"] == 100
    assert math.isnan(percentiles_ms([])["p99_ms"])
