"""Affine-invariant metrics: cases worked by hand, invariances, and independent arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.evaluation.affine_metrics import (
    PROTOCOL_CROP,
    affine_metrics,
    protocol_inverse_depth,
)

NAN = math.nan


def row(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float64)


def scene(seed: int, size: tuple[int, int] = (14, 17)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction, truth and weights with correlation, outliers and no ties."""
    random = np.random.default_rng(seed)
    truth = random.uniform(0.0, 1.0, size)
    guess = truth + 0.2 * random.standard_normal(size) + 2.0 * (random.random(size) < 0.05)
    return guess, truth, random.uniform(0.1, 1.0, size)


def test_the_unit_is_that_of_the_published_numbers() -> None:
    got = protocol_inverse_depth(np.array([0.2, 100.0, 1.0, np.inf]))
    assert got == pytest.approx([1.0, 0.0, 0.99 / 4.99, -0.01 / 4.99])


def test_an_affine_prediction_has_no_error() -> None:
    truth = row(0.1, 0.5, 0.2, 0.9)
    got = affine_metrics(3.0 - 2.0 * truth, truth)
    assert got["aiwe_1"] == pytest.approx(0.0, abs=1e-4)  # the ridge leaves a trace at 4 pixels
    assert got["aiwe_2"] == pytest.approx(0.0, abs=1e-4)
    assert got["one_minus_spearman"] == pytest.approx(0.0, abs=1e-12)


def test_least_squares_case_by_hand() -> None:
    # P = 0, 0, 1, 1 can only separate two means: D = 0, 2 | 4, 8 -> fit 1 and 6,
    # residuals 1, 1, 2, 2 -> root of 10/4
    got = affine_metrics(row(0, 0, 1, 1), row(0, 2, 4, 8))
    assert got["aiwe_2"] == pytest.approx(math.sqrt(2.5), rel=1e-5)
    assert got["aiwe_1"] == pytest.approx(1.5, rel=1e-4)


def test_reweighting_goes_to_the_median_and_leaves_the_outlier_alone() -> None:
    # Two groups; the medians of D are 1 and 3, the only residual is the outlier's 10 of 10 pixels.
    guess = row(0, 0, 0, 0, 0, 1, 1, 1, 1, 1)
    truth = row(1, 1, 1, 1, 11, 3, 3, 3, 3, 3)
    got = affine_metrics(guess, truth)
    assert got["aiwe_1"] == pytest.approx(1.0, rel=0.01)
    assert got["aiwe_2"] == pytest.approx(math.sqrt((4 * 2**2 + 8**2) / 10), rel=1e-4)


def test_weights_count_like_repeated_pixels() -> None:
    guess, truth = row(0.0, 0.4, 1.0, 0.7), row(0.1, 0.9, 0.8, 0.2)
    weights = row(1, 3, 2, 1)
    repeated = [np.repeat(a, weights[0].astype(int), axis=1) for a in (guess, truth)]
    one, other = affine_metrics(guess, truth, weights=weights), affine_metrics(*repeated)
    assert one["aiwe_1"] == pytest.approx(other["aiwe_1"], rel=1e-6)
    assert one["aiwe_2"] == pytest.approx(other["aiwe_2"], rel=1e-6)


def test_rank_correlation_by_hand() -> None:
    # ranks 0 1 2 3 against 1 0 2 3: rho = 1 - 6·(1 + 1)/(4·15) = 0.8
    assert affine_metrics(row(1, 2, 3, 4), row(20, 10, 30, 40))["one_minus_spearman"] == (
        pytest.approx(0.2))
    assert affine_metrics(row(4, 3, 2, 1), row(20, 10, 30, 40))["one_minus_spearman"] == (
        pytest.approx(0.2)), "decreasing counts like increasing"


def test_ties_rank_by_their_order() -> None:
    # P = 5 5 9 ranks 0 1 2 like D, and −P = −5 −5 −9 ranks 1 2 0
    assert affine_metrics(row(5, 5, 9), row(1, 2, 3))["one_minus_spearman"] == pytest.approx(0.0)
    # D = 2 1 3: rho of ranks 0 1 2 and 1 0 2 is 1/2
    assert affine_metrics(row(5, 5, 9), row(2, 1, 3))["one_minus_spearman"] == pytest.approx(0.5)


def test_weighted_rank_correlation_by_hand() -> None:
    # the third pixel has weight 0 but keeps its rank: x = 0, 2 | y = 0, 1 -> two points, rho 1
    got = affine_metrics(row(1, 3, 2), row(1, 2, 3), weights=row(1, 1, 0))
    assert got["one_minus_spearman"] == pytest.approx(0.0)
    # weights 1 1 2 on x = 0 2 1, y = 0 1 2 (means 1 and 5/4): cov 1/4, variances 1/2 and 11/16
    got = affine_metrics(row(1, 3, 2), row(1, 2, 3), weights=row(1, 1, 2))
    assert got["one_minus_spearman"] == pytest.approx(1 - 0.25 / math.sqrt(0.5 * 11 / 16))


def test_a_constant_prediction_has_an_error_but_no_order() -> None:
    got = affine_metrics(row(7, 7, 7, 7), row(0, 0, 1, 1))
    assert got["aiwe_2"] == pytest.approx(0.5, rel=1e-4)
    assert math.isnan(got["one_minus_spearman"])


def test_invalid_pixels_are_as_if_they_were_not_there() -> None:
    guess, truth, weights = scene(3)
    mask = np.random.default_rng(0).random(guess.shape) < 0.6
    got = affine_metrics(guess, truth, weights=weights, valid=mask)
    small = affine_metrics(guess[mask][None], truth[mask][None], weights=weights[mask][None])
    holes = affine_metrics(np.where(mask, guess, NAN), np.where(mask, truth, NAN), weights=weights)
    assert got == small == holes


def test_the_crop_is_the_centre() -> None:
    guess, truth, _ = scene(5, (8, 10))
    got = affine_metrics(guess, truth, crop=(4, 6))
    assert got == affine_metrics(guess[2:6, 2:8], truth[2:6, 2:8])


def test_what_cannot_be_scored_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="truth has shape"):
        affine_metrics(row(1, 2), row(1))
    with pytest.raises(ValueError, match=r"crop \(512, 384\): must fit"):
        affine_metrics(row(1, 2), row(1, 2), crop=PROTOCOL_CROP)
    with pytest.raises(ValueError, match="must be >= 0"):
        affine_metrics(row(1, 2), row(1, 2), weights=row(1, -1))
    with pytest.raises(ValueError, match="1 scored pixels are not finite"):
        affine_metrics(row(1, NAN), row(1, 2))


def test_nothing_to_score_gives_nan() -> None:
    for got in (affine_metrics(row(1, 2), row(NAN, NAN)),
                affine_metrics(row(1, 2), row(1, 2), weights=row(0, 0))):
        assert all(math.isnan(v) for v in got.values())


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0.1, 20.0), sign=st.sampled_from((-1.0, 1.0)),
       offset=st.floats(-10.0, 10.0), seed=st.integers(0, 500))
def test_aiwe_does_not_see_scale_sign_and_offset(
    scale: float, sign: float, offset: float, seed: int
) -> None:
    guess, truth, weights = scene(seed, (60, 80))  # enough pixels to outweigh the ridge
    before = affine_metrics(guess, truth, weights=weights)
    after = affine_metrics(sign * scale * guess + offset, truth, weights=weights)
    assert after["aiwe_1"] == pytest.approx(before["aiwe_1"], rel=2e-3)
    assert after["aiwe_2"] == pytest.approx(before["aiwe_2"], rel=2e-3)
    assert after["one_minus_spearman"] == pytest.approx(before["one_minus_spearman"], abs=1e-9)


MONOTONE = (np.exp, np.arctan, lambda p: p**3, lambda p: -np.exp(p), lambda p: 1 / (p + 9.0))


@settings(max_examples=40, deadline=None)
@given(which=st.integers(0, len(MONOTONE) - 1), seed=st.integers(0, 500))
def test_rank_correlation_does_not_see_a_monotone_map(which: int, seed: int) -> None:
    guess, truth, weights = scene(seed)
    before = affine_metrics(guess, truth, weights=weights)["one_minus_spearman"]
    after = affine_metrics(MONOTONE[which](guess), truth, weights=weights)["one_minus_spearman"]
    assert after == pytest.approx(before, abs=1e-12)
    assert before > 0.01, "the case must not be trivial"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500))
def test_aiwe_2_agrees_with_a_least_squares_solver(seed: int) -> None:
    guess, truth, weights = scene(seed)
    root = np.sqrt(weights.ravel())
    design = np.stack([guess.ravel(), np.ones(guess.size)], 1) * root[:, None]
    fit, *_ = np.linalg.lstsq(design, truth.ravel() * root, rcond=None)
    residual = design @ fit - truth.ravel() * root
    expected = math.sqrt(float(residual @ residual) / weights.sum())
    assert affine_metrics(guess, truth, weights=weights)["aiwe_2"] == pytest.approx(
        expected, rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500))
def test_aiwe_1_is_near_the_least_absolute_error_and_below_that_of_least_squares(
    seed: int
) -> None:
    guess, truth, _ = scene(seed)
    p, d = guess.ravel(), truth.ravel()
    # The least absolute line runs through two of the points: try them all.
    i, j = np.triu_indices(p.size, 1)
    slope = (d[j] - d[i]) / (p[j] - p[i])
    best = min(
        np.abs(np.outer(slope[part], p) + (d[i[part]] - slope[part] * p[i[part]])[:, None]
               - d).mean(1).min()
        for part in np.array_split(np.arange(i.size), 20))
    got = affine_metrics(guess, truth)
    squares = np.polyfit(p, d, 1)
    assert best * 0.999 <= got["aiwe_1"] <= 1.05 * best
    assert got["aiwe_1"] <= np.abs(np.polyval(squares, p) - d).mean() + 1e-9


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500))
def test_unweighted_rank_correlation_agrees_with_the_textbook_formula(seed: int) -> None:
    guess, truth, _ = scene(seed)
    n = guess.size
    ranks = [np.argsort(np.argsort(a.ravel())) for a in (guess, truth)]
    rho = 1 - 6 * float(((ranks[0] - ranks[1]) ** 2).sum()) / (n * (n * n - 1))
    got = affine_metrics(-guess, truth)["one_minus_spearman"]
    assert got == pytest.approx(1 - abs(rho), abs=1e-9)


def test_unweighted_rank_correlation_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    guess, truth, _ = scene(11)
    rho = float(stats.spearmanr(guess.ravel(), truth.ravel()).statistic)
    assert affine_metrics(guess, truth)["one_minus_spearman"] == pytest.approx(
        1 - abs(rho), abs=1e-9)
