"""Our metrics against an independent implementation: scikit-learn, SciPy and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from sklearn import metrics as theirs

from depth_fusion_ros.estimation.estimate import DepthEstimate, Intrinsics, Provenance, ScaleState
from depth_fusion_ros.evaluation.metrics import depth_edges, depth_metrics, range_metrics
from depth_fusion_ros.evaluation.replay_scores import frame_row, summarise

MIN_M, MAX_M = 0.2, 10.0


@st.composite
def images(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, truth and sigma with everything that occurs: NaN, ±Inf, out of range."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(4, 30)), draw(st.integers(4, 30))
    truth = np.exp(random.uniform(math.log(0.1), math.log(15), shape)).astype(np.float32)
    depth = (truth * np.exp(random.normal(0, 0.3, shape))).astype(np.float32)
    sigma = (depth * random.uniform(0.01, 0.6, shape)).astype(np.float32)
    for image, odd in ((depth, (np.nan, np.inf, -np.inf)), (truth, (np.nan, np.inf))):
        where = random.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.4]))
        image[where] = random.choice(np.array(odd, np.float32), int(where.sum()))
    return depth, truth, sigma


def scored(depth: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat prediction and truth as float64 by the rules of `evaluation/metrics.py`."""
    z, t = [], []
    for predicted, true in zip(depth.ravel().tolist(), truth.ravel().tolist()):
        if math.isfinite(true) and MIN_M < true < MAX_M and not math.isnan(predicted):
            z.append(MAX_M if predicted == math.inf else max(predicted, MIN_M))
            t.append(true)
    return np.array(z), np.array(t)


@given(images())
@settings(max_examples=60, deadline=None)
def test_every_error_is_that_of_scikit_learn_and_scipy(image) -> None:
    depth, truth, sigma = image
    ours = depth_metrics(depth, truth, sigma_m=sigma, min_m=MIN_M, max_m=MAX_M)
    z, t = scored(depth, truth)
    if not z.size:
        assert math.isnan(ours["abs_rel"])
        return
    logs = np.log(z) - np.log(t)
    expected = {
        "abs_rel": theirs.mean_absolute_percentage_error(t, z),
        "median_abs_rel": float(np.median(np.abs(z / t - 1))),
        "bias_m": float(np.mean(z) - np.mean(t)),
        "bias_rel": float(np.mean(z / t) - 1),
        "rmse_m": math.sqrt(theirs.mean_squared_error(t, z)),
        "mae_m": theirs.mean_absolute_error(t, z),
        "mae_diopters": theirs.mean_absolute_error(1 / t, 1 / z),
        "rmse_log": math.sqrt(theirs.mean_squared_error(np.log(t), np.log(z))),
        "silog": 100 * math.sqrt(max(stats.moment(logs, 2), 0.0)),
        "coverage": z.size / int(((truth > MIN_M) & (truth < MAX_M)).sum()),
        **{f"delta_{n}": theirs.accuracy_score(np.ones(z.size), (np.maximum(z / t, t / z)
                                                                 < 1.25**n).astype(float))
           for n in (1, 2, 3)}}
    for key, value in expected.items():
        assert ours[key] == pytest.approx(value, rel=1e-9, abs=1e-9), key


@given(images())
@settings(max_examples=40, deadline=None)
def test_edges_are_what_morphology_says(image) -> None:
    truth = image[1]
    edge = np.zeros(truth.shape, bool)
    for row in range(truth.shape[0]):
        for column in range(truth.shape[1]):
            for other in ((row + 1, column), (row, column + 1)):
                if other[0] < truth.shape[0] and other[1] < truth.shape[1]:
                    pair = float(truth[row, column]), float(truth[other])
                    if max(pair) > 1.1 * min(pair) and not any(map(math.isnan, pair)):
                        edge[row, column] = edge[other] = True
    cross = ndimage.generate_binary_structure(2, 1)
    for reach in (0, 2):
        grown = ndimage.binary_dilation(edge, cross, iterations=reach) if reach else edge
        np.testing.assert_array_equal(depth_edges(truth, reach_px=reach), grown)


@given(images())
@settings(max_examples=40, deadline=None)
def test_range_bins_partition_the_scored_pixels(image) -> None:
    depth, truth, _ = image
    ours = range_metrics(depth, truth, min_m=MIN_M, max_m=MAX_M)
    z, t = scored(depth, truth)
    for low, high, name in ((0.5, 1, "0.5_1"), (2, 4, "2_4"), (8, math.inf, "8_inf")):
        inside = (t >= low) & (t < high)
        if inside.any():
            assert ours[f"abs_rel_{name}_m"] == pytest.approx(
                theirs.mean_absolute_percentage_error(t[inside], z[inside]), rel=1e-9)
    known = (truth > MIN_M) & (truth < MAX_M)
    assert sum(v for k, v in ours.items() if k.startswith("pixels_")) == known.sum()


@given(st.lists(images(), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_sigma_shares_of_many_frames_are_those_of_all_their_pixels_together(frames) -> None:
    rows, ratios = [], []
    for depth, truth, sigma in frames:
        height, width = depth.shape
        estimate = DepthEstimate(
            depth_m=depth, sigma_m=sigma,
            provenance=np.full(depth.shape, Provenance.MEASURED, np.uint8), disparity_px=None,
            sigma_px=None, stamp_ns=0, frame_id="c",
            intrinsics=Intrinsics(50.0, 50.0, width / 2, height / 2, width, height),
            scale_state=ScaleState.ABSOLUTE, model_id="m")
        rows.append(frame_row(estimate, truth, min_m=MIN_M, max_m=MAX_M))
        with np.errstate(invalid="ignore"):
            used = (truth > MIN_M) & (truth < MAX_M) & np.isfinite(depth) & np.isfinite(sigma)
        z, t, s = (values[used].astype(np.float64) for values in (depth, truth, sigma))
        ratios.append(np.abs(z - t) / s)
    together = np.concatenate(ratios)
    found = summarise(rows)["sigma"]
    if together.size:
        grid = [0.25, 1.0, 3.0]
        cumulative = stats.ecdf(together).cdf.evaluate(grid) if hasattr(stats, "ecdf") else [
            float((together < n).mean()) for n in grid]
        for n, share in zip(grid, cumulative):
            assert found["all"][f"{n:g}"] == pytest.approx(share, abs=1e-9)
        assert sum(group["pixels"] for name, group in found.items() if name != "all") == (
            found["all"]["pixels"] == together.size) * together.size
