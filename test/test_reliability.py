"""Reliability of sigma: shares against hand-worked cases, and the map that calibrates it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from depth_fusion_ros.estimation.sigma_calibration import (
    ONE_SIGMA_SHARE,
    TWO_SIGMA_SHARE,
    SigmaCalibration,
    fit_sigma,
)
from depth_fusion_ros.evaluation.reliability import (
    LEVELS,
    draw_reliability,
    gaussian_share,
    laplace_share,
    measure_reliability,
)

COUNT = 40_000


def gaussian_pixels(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Errors that are exactly as large as their sigma says; sigmas over two decades."""
    random = np.random.default_rng(seed)
    sigma = 10 ** random.uniform(-2, 0, COUNT)
    return sigma * random.standard_normal(COUNT), sigma


def test_shares_of_hand_worked_errors() -> None:
    """Errors 0.5, 1.5, 2.5 and 3.5 sigma, each 25 times."""
    error = np.repeat([0.5, -1.5, 2.5, -3.5], 25)
    result = measure_reliability(error, np.ones(100))
    shares = dict(zip(LEVELS, result.within, strict=True))
    assert (shares[0.25], shares[1.0], shares[2.0], shares[3.0]) == (0, 0.25, 0.5, 0.75)
    assert (result.within_1_sigma, result.within_2_sigma, result.pixels) == (0.25, 0.5, 100)
    assert result.factor_68 == 2.5 and result.factor_95 == 3.5


def test_true_gaussian_sigmas_are_reliable_at_every_level_and_in_every_bin() -> None:
    result = measure_reliability(*gaussian_pixels())
    assert np.allclose(result.within, [gaussian_share(n) for n in LEVELS], atol=0.01)
    assert result.calibration_error < 0.01
    assert np.allclose(result.bin_error, result.bin_sigma, rtol=0.1)
    assert result.bin_log_ratio < 0.05
    assert result.factor_95 == pytest.approx(2, rel=0.03)


def test_a_laplacian_shows_its_tails() -> None:
    random = np.random.default_rng(1)
    scale = -math.log(1 - ONE_SIGMA_SHARE)  # half width of 68.27 %, in units of b
    result = measure_reliability(random.laplace(size=COUNT) / scale, np.ones(COUNT))
    assert np.allclose(result.within, [laplace_share(n) for n in LEVELS], atol=0.01)
    assert result.within_1_sigma == pytest.approx(0.6827, abs=0.01)
    assert result.within_2_sigma == pytest.approx(0.899, abs=0.01)
    assert result.factor_95 == pytest.approx(2.69, rel=0.03), "ln 0.0455 / ln 0.3173"


def test_a_sigma_of_half_the_size_is_found_out_and_by_how_much() -> None:
    error, sigma = gaussian_pixels()
    result = measure_reliability(error, sigma / 2)
    assert result.factor_68 == pytest.approx(2, rel=0.03)
    assert result.within_1_sigma == pytest.approx(gaussian_share(0.5), abs=0.01)
    assert result.bin_log_ratio == pytest.approx(math.log(2), abs=0.05)
    assert result.calibration_error > 0.2


def test_right_over_all_and_wrong_everywhere_shows_in_the_bins_only() -> None:
    """Sigma sorted against the errors: the same multiset of numbers, in the wrong places."""
    error, sigma = gaussian_pixels()
    blind = np.full_like(sigma, measure_reliability(error, np.ones(COUNT)).factor_68)
    jitter = blind * np.random.default_rng(2).uniform(0.9, 1.1, COUNT)
    result = measure_reliability(error, jitter)
    assert result.within_1_sigma == pytest.approx(0.68, abs=0.01)
    anti = measure_reliability(error, 0.1 * 0.1 / sigma)
    assert anti.bin_log_ratio > 1 and anti.bin_error[0] > 5 * anti.bin_sigma[0]


def test_unknown_pixels_and_zero_sigmas_do_not_count() -> None:
    error, sigma = (a[:300].copy() for a in gaussian_pixels())
    error[:10], sigma[10:20], sigma[20:30], sigma[30:40] = np.nan, np.inf, 0, -1
    valid = np.ones(300, bool)
    valid[40:50] = False
    assert measure_reliability(error, sigma, valid=valid).pixels == 250
    image = measure_reliability(error.reshape(15, 20), sigma.reshape(15, 20))
    assert image.within == measure_reliability(error, sigma).within, "any shape"


@given(st.floats(1e-3, 1e3))
@settings(max_examples=10, deadline=None)
def test_the_unit_does_not_matter(factor: float) -> None:
    error, sigma = (a[:2000] for a in gaussian_pixels())
    one, other = measure_reliability(error, sigma), measure_reliability(factor * error,
                                                                        factor * sigma)
    assert other.within == pytest.approx(one.within, abs=1e-3)
    assert other.bin_sigma == pytest.approx([factor * s for s in one.bin_sigma])


def test_a_map_repairs_what_one_factor_cannot() -> None:
    """The network's scale is the square root of the truth: too sure where it is worst."""
    error, sigma = gaussian_pixels()
    scale = np.sqrt(sigma)
    held_error, held_sigma = gaussian_pixels(seed=5)
    one = fit_sigma(error, scale, bins=1).apply(np.sqrt(held_sigma))
    many = fit_sigma(error, scale).apply(np.sqrt(held_sigma))
    before, after = (measure_reliability(held_error, s) for s in (one, many))
    assert before.within_1_sigma == pytest.approx(0.68, abs=0.02), "right over all, and yet"
    assert before.bin_log_ratio > 0.4
    assert after.bin_log_ratio < 0.1
    assert after.within_1_sigma == pytest.approx(ONE_SIGMA_SHARE, abs=0.01)
    assert after.within_2_sigma == pytest.approx(TWO_SIGMA_SHARE, abs=0.01)


@given(exponent=st.floats(0.3, 2), factor=st.floats(0.1, 10), seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_the_fitted_map_holds_68_percent_exactly_and_rises(
    exponent: float, factor: float, seed: int
) -> None:
    error, sigma = (a[:5000] for a in gaussian_pixels(seed))
    fitted = fit_sigma(error, factor * sigma**exponent)
    assert fitted.within_1_sigma == pytest.approx(ONE_SIGMA_SHARE, abs=0.002)
    assert (np.diff(fitted.apply(np.geomspace(1e-4, 1e2, 200))) >= 0).all()


def test_balanced_sigma_shares_the_fault_between_68_and_95_percent() -> None:
    error = np.random.default_rng(3).laplace(size=COUNT)
    one = fit_sigma(error, np.ones(COUNT), bins=1)
    balanced = fit_sigma(error, np.ones(COUNT), bins=1, aim="balanced")
    assert one.within_2_sigma == pytest.approx(0.899, abs=0.01)
    assert balanced.within_1_sigma == pytest.approx(0.721, abs=0.01)
    assert balanced.within_2_sigma == pytest.approx(0.922, abs=0.01)
    assert one.factor_95 == pytest.approx(2.69, rel=0.03)
    faults = (abs(balanced.within_1_sigma - ONE_SIGMA_SHARE) / 0.04,
              abs(balanced.within_2_sigma - TWO_SIGMA_SHARE) / 0.03)
    assert faults[0] == pytest.approx(faults[1], rel=0.1)


def test_one_knot_is_one_factor_and_the_ends_keep_their_ratio() -> None:
    scale = np.array([0.01, 0.5, 20.0, np.nan, 0.0], np.float32)
    assert np.allclose(SigmaCalibration.factor(1.5).apply(scale), 1.5 * scale, equal_nan=True)
    line = SigmaCalibration((0.0, math.log(4)), (0.0, math.log(2)))  # ratios 1 and 1/2
    assert np.allclose(line.apply(np.array([0.1, 1, 2, 4, 40])), [0.1, 1, math.sqrt(2), 2, 20])
    assert line.apply(scale).dtype == np.float32


def test_a_map_survives_json() -> None:
    fitted = fit_sigma(*gaussian_pixels())
    again = SigmaCalibration.from_dict(json.loads(json.dumps(fitted.to_dict())))
    scale = np.geomspace(0.001, 10, 50)
    assert np.allclose(again.apply(scale), fitted.apply(scale), rtol=1e-3)
    assert again.aim == "one_sigma" and again.factor_95 == pytest.approx(fitted.factor_95, abs=1e-3)


@pytest.mark.parametrize(("knots", "values"), [
    ((), ()), ((0.0,), (0.0, 1.0)), ((1.0, 0.0), (0.0, 1.0)), ((0.0, 1.0), (1.0, 0.0)),
    ((0.0, math.nan), (0.0, 1.0))])
def test_a_map_that_does_not_rise_is_refused(
    knots: tuple[float, ...], values: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="model card"):
        SigmaCalibration(knots, values)


def test_too_few_pixels_and_wrong_shapes_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="10 pixels"):
        fit_sigma(np.zeros(10), np.ones(10))
    with pytest.raises(ValueError, match=r"aim = 'best'"):
        fit_sigma(np.zeros(300), np.ones(300), aim="best")
    with pytest.raises(ValueError, match="score more"):
        measure_reliability(np.zeros(10), np.ones(10))
    with pytest.raises(ValueError, match="one grid"):
        measure_reliability(np.zeros(100), np.ones(99))
    with pytest.raises(ValueError, match="scale_px"):
        fit_sigma(np.zeros(300), np.ones(299))
    with pytest.raises(ValueError, match="sigma_scale"):
        SigmaCalibration.factor(0)
    with pytest.raises(ValueError, match="needs log_scale"):
        SigmaCalibration.from_dict({"log_scale": [0.0]})


def test_the_figure_is_a_picture_of_both_panels(tmp_path: Path) -> None:
    error, sigma = gaussian_pixels()
    path = draw_reliability(tmp_path / "new" / "reliability.png",
                            {"true": measure_reliability(error, sigma),
                             "half": measure_reliability(error, sigma / 2)}, title="test")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert (content[16:20], content[20:24]) == ((1100).to_bytes(4, "big"), (480).to_bytes(4, "big"))
    with pytest.raises(ValueError, match="without results"):
        draw_reliability(path, {})
