"""How far a mean over frames is known, when frames of one bag are alike.

    found = cluster_bootstrap(values, bag_of_frame, seed=0)
    found.low, found.high       # one interval for each column of `values`

Frames of a bag show the same scene in the same light: a hundred of them are not a hundred scenes.
So bags are drawn with replacement, then frames within each bag that was drawn (two-stage cluster
bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). With
one bag only, its frames are drawn.

Percentiles of the drawn means are too narrow for few bags: they lack the factor √(n/(n−1)) and take
a Gaussian where Student's t is due. The levels are widened for both (expanded percentile interval:
Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69(4), 2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 10_000
FEWEST = 6
"""Independent units below which no difference is called clear: that n differences have one sign
happens by luck with probability 2·2^−n, 6 % for five and 3 % for six."""
_CHUNK_VALUES = 2_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Intervals:
    """What the draws say; arrays have one entry for each column.

    Attributes:
        low, high: ends of the interval, in the unit of the values; NaN where fewer than two units
            have a value.
        units: number of bags (or, with one bag, of frames) that have a value.
        over: "bags" or "frames": what was taken as independent.
    """

    low: Floats
    high: Floats
    units: NDArray[np.int64]
    over: str


def cluster_bootstrap(values: Floats, cluster: Sequence[int] | NDArray[np.int64], *, seed: int = 0,
                      resamples: int = RESAMPLES, level: float = LEVEL) -> Intervals:
    """Interval of the mean of every column.

    Args:
        values: (N, M), one row for each frame, one column for each quantity; NaN = no value.
        cluster: (N,) integers: which bag a frame is of.
        seed: of the draws; the same seed gives the same digits.
        resamples: number of draws, at least 100.
        level: share of true means that the interval shall hold, between 0 and 1.

    Raises:
        ValueError: shapes do not fit, there are no frames, or an option is out of its range.
    """
    _, labels = np.unique(np.asarray(cluster), return_inverse=True)
    if values.ndim != 2 or not len(values) or labels.shape != (len(values),):
        raise ValueError(f"values {values.shape} and cluster {labels.shape}: must be (N, M) and "
                         "(N,) with N ≥ 1")
    if resamples < 100 or not 0.0 < level < 1.0:
        raise ValueError(f"resamples {resamples}, level {level}: must be at least 100, and "
                         "between 0 and 1")
    many = labels.max() > 0
    known = np.isfinite(values)
    if not many:
        units = known.sum(axis=0)
    else:
        units = np.array([np.unique(labels[column]).size for column in known.T], np.int64)
    means = _drawn_means(np.where(known, values, 0.0), known, labels if many else None,
                         np.random.default_rng(seed), resamples)
    low, high = np.full((2, values.shape[1]), np.nan)
    for column in np.flatnonzero(units >= 2):
        drawn = means[:, column]
        tail = expanded_tail(int(units[column]), level)
        low[column], high[column] = np.quantile(drawn[np.isfinite(drawn)], (tail, 1.0 - tail))
    return Intervals(low, high, units.astype(np.int64), "bags" if many else "frames")


def _drawn_means(filled: Floats, known: NDArray[np.bool_], labels: NDArray[np.intp] | None,
                 random: np.random.Generator, resamples: int) -> Floats:
    """(resamples, M): mean of each draw; NaN where it drew no value."""
    counts = known.astype(np.float64)
    means = np.empty((resamples, filled.shape[1]))
    size = max(1, _CHUNK_VALUES // len(filled))
    for start in range(0, resamples, size):
        chosen = means[start:start + size]
        times = _times_drawn(len(filled), labels, random, len(chosen))
        with np.errstate(invalid="ignore"):
            np.divide(times @ filled, times @ counts, out=chosen)
    return means


def _times_drawn(frames: int, labels: NDArray[np.intp] | None, random: np.random.Generator,
                 draws: int) -> Floats:
    """(draws, frames): how often each frame was drawn."""
    if labels is None:
        return random.multinomial(frames, np.full(frames, 1.0 / frames), draws).astype(np.float64)
    members = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    bags = random.multinomial(len(members), np.full(len(members), 1.0 / len(members)), draws)
    times = np.empty((draws, frames))
    for index, rows in enumerate(members):
        times[:, rows] = random.multinomial(
            bags[:, index] * rows.size, np.full(rows.size, 1.0 / rows.size))
    return times


def expanded_tail(units: int, level: float = LEVEL) -> float:
    """Share of the draws to leave out at either end for `units` ≥ 2 independent units.

    Hesterberg 2015: Φ(−√(n/(n−1)) · t), t of n − 1 degrees of freedom.
    """
    gaussian = NormalDist()
    t = student_quantile(0.5 + level / 2, units - 1)
    return gaussian.cdf(-math.sqrt(units / (units - 1)) * t)


def student_quantile(share: float, degrees: int) -> float:
    """Quantile of Student's t by its expansion about the Gaussian.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5: within 0.1 % from five
    degrees of freedom on for the shares that are used here, too small below.
    """
    z = NormalDist().inv_cdf(share)
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96,
             (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
             (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160)
    return sum(term / float(degrees)**power for power, term in enumerate(terms))
