"""Accuracy of metric depth against truth, and whether sigma keeps its word.

    values = depth_metrics(depth_m, truth_m, sigma_m=sigma_m)   # one image -> dict of floats
    mean = average_metrics([values, ...])                       # per image, then mean over images

Scored are pixels with finite truth in (min_m, max_m). There a prediction of +Inf counts as max_m
and −Inf (or anything nearer than min_m, 0 and negative values included) as min_m; NaN means "no
answer": it is left out of every error and shows in `coverage`. So a method cannot gain by calling
a wall "far", and what it gains by staying silent is visible.

| key | meaning |
|---|---|
| abs_rel, median_abs_rel | mean and median of |Z − T| / T |
| bias_rel, bias_m | mean of (Z − T) / T and of Z − T: > 0 means "too far" |
| rmse_m, mae_m | root mean square and mean absolute error, metres |
| mae_diopters | mean |1/Z − 1/T|, dioptres |
| rmse_log | root mean square of ln Z − ln T |
| silog | 100 · standard deviation of ln Z − ln T (scale-invariant log error of Eigen and KITTI) |
| delta_1, delta_2, delta_3 | share with max(Z/T, T/Z) < 1.25, 1.25², 1.25³ |
| coverage | share of scored pixels that have a prediction |
| within_1_sigma, within_2_sigma | share with |Z − T| < 1σ, 2σ; a Gaussian has 0.683, 0.954 |
| median_sigma_ratio | median of σ / Z |
| edge_abs_rel, edge_mae_m | errors within `EDGE_REACH_PX` of a depth discontinuity of the truth |
| abs_rel_<a>_<b>_m | abs_rel of pixels with truth in [a, b) metres |

`range_metrics` gives every error per range bin. A value that has no pixels to stand on is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RANGE_BINS_M = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
EDGE_RATIO = 1.1
EDGE_REACH_PX = 2
ERROR_KEYS = ("abs_rel", "median_abs_rel", "bias_rel", "bias_m", "rmse_m", "mae_m", "mae_diopters",
              "rmse_log", "silog", "delta_1", "delta_2", "delta_3")

Array = NDArray[Any]
Mask = NDArray[np.bool_]


def depth_metrics(
    depth_m: Array,
    truth_m: Array,
    *,
    sigma_m: Array | None = None,
    valid: Array | None = None,
    min_m: float = 0.05,
    max_m: float = 100.0,
) -> dict[str, float]:
    """Return the metrics of one image (keys: see the module's table).

    Args:
        depth_m: (H, W) prediction, metres; NaN, +Inf and −Inf as in REP-117.
        truth_m: (H, W) truth, metres; not finite = not scored.
        sigma_m: (H, W) one standard deviation, metres; the sigma keys are NaN without it.
        valid: (H, W) bool, further restriction of the scored pixels.
        min_m, max_m: limits of the truth, and what −Inf and +Inf count as.

    Raises:
        ValueError: shapes differ, or not 0 < min_m < max_m.
    """
    depth, truth, scored = _scored(depth_m, truth_m, sigma_m, valid, min_m, max_m)
    answered, guess = _answers(depth, scored, min_m, max_m)
    result = _errors(guess[answered], truth[answered])
    result["coverage"] = _ratio(int(answered.sum()), int(scored.sum()))
    result.update(_sigma_calibration(depth, truth, sigma_m, scored))
    edge = answered & depth_edges(truth, reach_px=EDGE_REACH_PX)
    at_edges = _errors(guess[edge], truth[edge])
    result["edge_abs_rel"], result["edge_mae_m"] = at_edges["abs_rel"], at_edges["mae_m"]
    for low, high in _range_bins():
        inside = answered & (truth >= low) & (truth < high)
        result[range_bin_key(low, high)] = _errors(guess[inside], truth[inside])["abs_rel"]
    return result


def range_metrics(
    depth_m: Array,
    truth_m: Array,
    *,
    valid: Array | None = None,
    min_m: float = 0.05,
    max_m: float = 100.0,
) -> dict[str, float]:
    """Return every error of `ERROR_KEYS` per range bin, e.g. ``delta_1_0.5_1_m``.

    Also ``pixels_<a>_<b>_m``, the number of scored pixels in the bin. Arguments and errors as in
    `depth_metrics`.
    """
    depth, truth, scored = _scored(depth_m, truth_m, None, valid, min_m, max_m)
    answered, guess = _answers(depth, scored, min_m, max_m)
    result: dict[str, float] = {}
    for low, high in _range_bins():
        inside = answered & (truth >= low) & (truth < high)
        for key, value in _errors(guess[inside], truth[inside]).items():
            result[range_bin_key(low, high, key)] = value
        result[range_bin_key(low, high, "pixels")] = float(
            (scored & (truth >= low) & (truth < high)).sum())
    return result


def average_metrics(images: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over images; an image where it is NaN does not count.

    Every image weighs the same, whatever its coverage.
    """
    rows = list(images)
    keys = dict.fromkeys(key for row in rows for key in row)
    means = {}
    for key in keys:
        values = [row[key] for row in rows if key in row and not np.isnan(row[key])]
        means[key] = float(np.mean(values)) if values else float("nan")
    return means


def depth_edges(truth_m: Array, *, ratio: float = EDGE_RATIO, reach_px: int = 0) -> Mask:
    """Return where the truth jumps: (H, W) bool, True within `reach_px` of a discontinuity.

    A discontinuity lies between two horizontal or vertical neighbours whose depths differ by more
    than the factor `ratio`; NaN neighbours make none, +Inf beside finite depth does.
    """
    truth = np.asarray(truth_m, np.float64)
    edges = np.zeros(truth.shape, dtype=bool)
    for axis in (0, 1):
        first, second = _neighbours(truth, axis)
        with np.errstate(invalid="ignore"):
            jump = np.maximum(first, second) > ratio * np.minimum(first, second)
        near, far = _neighbours(edges, axis)
        near |= jump
        far |= jump
    for _ in range(reach_px):  # grow by one pixel in the four directions
        grown = edges.copy()
        for axis in (0, 1):
            first_grown, second_grown = _neighbours(grown, axis)
            first, second = _neighbours(edges, axis)
            first_grown |= second
            second_grown |= first
        edges = grown
    return edges


def range_bin_key(low_m: float, high_m: float, metric: str = "abs_rel") -> str:
    """Return the key of a range bin, e.g. ``abs_rel_0.5_1_m`` or ``abs_rel_8_inf_m``."""
    return f"{metric}_{low_m:g}_{high_m:g}_m"


def percentiles_ms(values_ms: Sequence[float]) -> dict[str, float]:
    """Return p50, p95, p99 and the count of latencies in milliseconds; NaN if there are none."""
    finite = [v for v in values_ms if np.isfinite(v)]
    points = np.percentile(finite, (50, 95, 99)) if finite else (np.nan,) * 3
    names = ("p50_ms", "p95_ms", "p99_ms")
    return {**dict(zip(names, map(float, points), strict=True)), "count": float(len(finite))}


def _scored(
    depth_m: Array, truth_m: Array, sigma_m: Array | None, valid: Array | None, min_m: float,
    max_m: float,
) -> tuple[Array, Array, Mask]:
    """Check the arguments; return depth and truth as float64 and the mask of scored pixels."""
    depth, truth = np.asarray(depth_m, np.float64), np.asarray(truth_m, np.float64)
    for name, array in (("truth_m", truth_m), ("sigma_m", sigma_m), ("valid", valid)):
        if array is not None and np.shape(array) != depth.shape:
            raise ValueError(
                f"{name} has shape {np.shape(array)}, depth_m {depth.shape}: bring both to one "
                "grid before scoring"
            )
    if not 0.0 < min_m < max_m:
        raise ValueError(f"range ({min_m!r}, {max_m!r}) m: needs 0 < min_m < max_m")
    scored: Mask = np.isfinite(truth)
    scored[scored] &= (truth[scored] > min_m) & (truth[scored] < max_m)
    if valid is not None:
        scored &= np.asarray(valid, dtype=bool)
    return depth, truth, scored


def _answers(depth: Array, scored: Mask, min_m: float, max_m: float) -> tuple[Mask, Array]:
    """Return where there is a prediction, and it with ±Inf and out-of-range at the limits."""
    guess = np.where(np.isposinf(depth), max_m, np.maximum(depth, min_m))
    return scored & ~np.isnan(depth), guess


def _range_bins() -> list[tuple[float, float]]:
    return list(zip(RANGE_BINS_M, (*RANGE_BINS_M[1:], np.inf), strict=True))


def _errors(depth: Array, truth: Array) -> dict[str, float]:
    """Return `ERROR_KEYS` of two flat arrays of positive depths; NaN for empty ones."""
    if depth.size == 0:
        return dict.fromkeys(ERROR_KEYS, float("nan"))
    error, log_error = depth - truth, np.log(depth) - np.log(truth)
    factor, relative = np.exp(np.abs(log_error)), error / truth
    return {
        "abs_rel": float(np.mean(np.abs(relative))),
        "median_abs_rel": float(np.median(np.abs(relative))),
        "bias_rel": float(np.mean(relative)),
        "bias_m": float(np.mean(error)),
        "rmse_m": float(np.sqrt(np.mean(error**2))),
        "mae_m": float(np.mean(np.abs(error))),
        "mae_diopters": float(np.mean(np.abs(1 / depth - 1 / truth))),
        "rmse_log": float(np.sqrt(np.mean(log_error**2))),
        "silog": float(100.0 * np.std(log_error)),
        **{f"delta_{n}": float(np.mean(factor < 1.25**n)) for n in (1, 2, 3)},
    }


def _sigma_calibration(
    depth: Array, truth: Array, sigma_m: Array | None, scored: Mask
) -> dict[str, float]:
    """Return the share of errors within 1σ and 2σ over pixels with finite depth and σ > 0."""
    names = ("within_1_sigma", "within_2_sigma", "median_sigma_ratio")
    if sigma_m is None:
        return dict.fromkeys(names, float("nan"))
    sigma = np.asarray(sigma_m, np.float64)
    used = scored & np.isfinite(depth) & np.isfinite(sigma) & (sigma > 0)
    if not used.any():
        return dict.fromkeys(names, float("nan"))
    error = np.abs(depth[used] - truth[used])
    shares = (
        float(np.mean(error < sigma[used])),
        float(np.mean(error < 2 * sigma[used])),
        float(np.median(sigma[used] / depth[used])),
    )
    return dict(zip(names, shares, strict=True))


def _neighbours(array: Array, axis: int) -> tuple[Array, Array]:
    """Return two views of `array`, shifted against each other by one along `axis`."""
    return (array[:-1], array[1:]) if axis == 0 else (array[:, :-1], array[:, 1:])


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
