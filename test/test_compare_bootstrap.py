"""The interval over bags: by hand, against other code, and how often it holds what is true."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from depth_fusion_ros.evaluation.cluster_bootstrap import (
    cluster_bootstrap,
    expanded_tail,
    student_quantile,
)


@pytest.mark.parametrize("degrees", [5, 6, 11, 40, 1000])
def test_the_quantile_of_student_is_that_of_scipy(degrees: int) -> None:
    for share in (0.9, 0.95, 0.975, 0.995):
        assert student_quantile(share, degrees) == pytest.approx(
            stats.t.ppf(share, degrees), rel=1e-3)


def test_the_levels_widen_for_few_bags_and_reach_the_plain_ones_for_many() -> None:
    tails = [expanded_tail(units) for units in range(2, 200)]
    assert tails == sorted(tails)
    assert expanded_tail(12) == pytest.approx(
        stats.norm.cdf(-np.sqrt(12 / 11) * stats.t.ppf(0.975, 11)), rel=1e-4)
    assert expanded_tail(100_000) == pytest.approx(0.025, rel=1e-3)


def test_three_bags_of_one_frame_give_the_percentiles_of_all_27_draws() -> None:
    values = np.array([[0.0], [1.0], [5.0]])
    means = sorted(np.mean(draw) for draw in itertools.product((0.0, 1.0, 5.0), repeat=3))
    found = cluster_bootstrap(values, [0, 1, 2], resamples=200_000)
    tail = expanded_tail(3)
    assert tail < 1 / 27  # so the ends are the least and the largest draw: a bag three times
    assert (found.low[0], found.high[0]) == (means[0], means[-1]) == (0.0, 5.0)


def test_frames_of_one_bag_are_drawn_where_there_is_only_one() -> None:
    values = np.arange(20.0)[:, None]
    found = cluster_bootstrap(values, [7] * 20)
    alone = cluster_bootstrap(values, range(20))
    assert found.over == "frames" and alone.over == "bags"
    assert found.units[0] == alone.units[0] == 20
    assert found.low[0] == pytest.approx(alone.low[0], abs=0.1)
    assert found.high[0] == pytest.approx(alone.high[0], abs=0.1)


def test_a_hundred_copies_of_a_frame_are_not_a_hundred_scenes() -> None:
    scenes = np.random.default_rng(3).normal(size=10)
    copies = np.repeat(scenes, 100)[:, None]
    once = cluster_bootstrap(scenes[:, None], range(10), resamples=1000)
    often = cluster_bootstrap(copies, np.repeat(range(10), 100), resamples=1000)
    naive = cluster_bootstrap(copies, range(1000), resamples=200)
    assert often.high[0] - often.low[0] == pytest.approx(once.high[0] - once.low[0], rel=0.1)
    assert naive.high[0] - naive.low[0] < 0.2 * (often.high[0] - often.low[0])


def test_a_frame_without_a_value_counts_nowhere() -> None:
    values = np.array([[1.0, np.nan], [2.0, 5.0], [np.nan, np.nan], [4.0, np.nan]])
    found = cluster_bootstrap(values, [0, 1, 2, 3])
    assert found.units.tolist() == [3, 1]
    assert found.low[0] == 1.0 and found.high[0] == 4.0
    assert np.isnan(found.low[1]) and np.isnan(found.high[1])


def test_the_same_seed_gives_the_same_digits_and_another_one_others() -> None:
    values = np.random.default_rng(0).normal(size=(30, 2))
    bags = np.repeat(range(10), 3)
    first, again, other = (cluster_bootstrap(values, bags, seed=seed, resamples=500)
                           for seed in (4, 4, 5))
    assert np.array_equal(first.low, again.low) and np.array_equal(first.high, again.high)
    assert not np.array_equal(first.low, other.low)


@pytest.mark.parametrize(("bags", "frames", "of_bags", "of_frames"), [
    (6, 1, 1.0, 0.0), (12, 1, 1.0, 0.0), (12, 6, 1.0, 0.5)])
def test_a_known_shift_lies_within_about_95_of_100_intervals(
        bags: int, frames: int, of_bags: float, of_frames: float) -> None:
    trials, shift = 300, 0.4
    random = np.random.default_rng(bags + frames)
    values = (shift + of_bags * random.normal(size=(trials, bags, 1))
              + of_frames * random.normal(size=(trials, bags, frames))).reshape(trials, -1)
    labels = np.repeat(range(bags), frames)
    found = [cluster_bootstrap(row[:, None], labels, seed=seed, resamples=500)
             for seed, row in enumerate(values)]
    share = np.mean([one.low[0] <= shift <= one.high[0] for one in found])
    assert 0.91 <= share <= 0.985  # ± three standard errors of 300 trials, as few bags allow
    naive = [np.abs(row.mean() - shift) < 1.96 * row.std() / np.sqrt(row.size) for row in values]
    assert np.mean(naive) < share


@settings(max_examples=25, deadline=None)
@given(values=arrays(np.float64, (12, 2), elements=st.floats(-10, 10)), seed=st.integers(0, 99))
def test_the_interval_lies_within_the_values_and_turns_with_their_sign(
        values: np.ndarray, seed: int) -> None:
    bags = np.repeat(range(6), 2)
    found = cluster_bootstrap(values, bags, seed=seed, resamples=200)
    turned = cluster_bootstrap(-values, bags, seed=seed, resamples=200)
    np.testing.assert_allclose(found.low, -turned.high, atol=1e-9)
    np.testing.assert_allclose(found.high, -turned.low, atol=1e-9)
    assert np.all(values.min(axis=0) - 1e-9 <= found.low)
    assert np.all(found.low <= found.high) and np.all(found.high <= values.max(axis=0) + 1e-9)


@pytest.mark.parametrize("wrong", [
    {"values": np.zeros((0, 1)), "cluster": []}, {"values": np.zeros(3), "cluster": [0, 1, 2]},
    {"values": np.zeros((3, 1)), "cluster": [0, 1]},
    {"values": np.zeros((3, 1)), "cluster": [0, 1, 2], "resamples": 10},
    {"values": np.zeros((3, 1)), "cluster": [0, 1, 2], "level": 95.0}])
def test_what_makes_no_sense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        cluster_bootstrap(**wrong)
