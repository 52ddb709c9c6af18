"""Errors of inverse depth that is known only up to scale and shift: AIWE(1), AIWE(2), 1 − |ρ_s|.

    truth = protocol_inverse_depth(depth_m)                      # unit of the published numbers
    values = affine_metrics(prediction, truth, valid=mask)       # one image -> dict of floats

P is the prediction, D the truth, W the weights (confidence; here mostly all 1), all
inverse-depth-like arrays. The mean over images is the caller's (`average_metrics`).

| key | meaning |
|---|---|
| aiwe_1 | Σ W·r / ΣW, r = |aP + b − D|; (a, b) by iteratively reweighted least squares |
| aiwe_2 | root of Σ W·r² / ΣW, (a, b) by weighted least squares |
| one_minus_spearman | 1 − |ρ_s|: weighted Pearson correlation of the ranks of P and D |

The five reweightings of AIWE(1) use weights W·u, u = 1 at first and then 1/max(1e-3, r); the
value is that of the last fit, which is close to the minimum but not below it. The 1e-3 is
in the unit of D, so AIWE(1) depends on that unit a little more than in proportion: bring the truth
to the protocol's unit first.

Source: the evaluation of Garg et al., ICCV 2019 (google-research, dual_pixels/eval). Its ridge of
1e-5 is handed to a solver that ignores it; here it counts, so that a constant prediction can be
fitted too. It is lost among thousands of pixels and shows in a handful of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAREST_M, FARTHEST_M = 0.2, 100.0
"""Range of the Google dual-pixel set's truth, coded linearly in inverse depth."""
PROTOCOL_CROP = (512, 384)
"""Height and width of the centre crop on the Google dual-pixel set."""
RIDGE = 1e-5
REWEIGHTINGS = 5
RESIDUAL_FLOOR = 1e-3

Array = NDArray[Any]
Flat = NDArray[np.float64]


def protocol_inverse_depth(depth_m: Array) -> NDArray[np.float64]:
    """Return inverse depth in the unit of the published numbers: 0.2 m is 1, 100 m is 0.

    One unit is 4.99 dioptres. Nothing is clipped; +Inf gives −0.002, NaN stays NaN.
    """
    depth = np.asarray(depth_m, np.float64)
    inverse: NDArray[np.float64] = 1.0 / depth
    return (inverse - 1 / FARTHEST_M) / (1 / NEAREST_M - 1 / FARTHEST_M)


def affine_metrics(
    prediction: Array,
    truth: Array,
    *,
    weights: Array | None = None,
    valid: Array | None = None,
    crop: tuple[int, int] | None = None,
) -> dict[str, float]:
    """Return the three metrics of one image (keys: see the module's table).

    Args:
        prediction: (H, W) P, any unit, nearer may be larger or smaller; finite where scored.
        truth: (H, W) D, see `protocol_inverse_depth`; not finite = not scored.
        weights: (H, W) W ≥ 0, e.g. a confidence map; None = 1. Pixels of weight 0 keep their
            place in the ranks, as in the protocol.
        valid: (H, W) bool; other pixels are taken out before anything is computed, ranks too.
        crop: height and width of the centre crop, `PROTOCOL_CROP` on the Google set.

    Returns:
        The metrics; all NaN where no pixel of positive weight is scored. A constant prediction
        orders nothing: its one_minus_spearman is NaN.

    Raises:
        ValueError: shapes differ, the crop does not fit, weights are negative, or the prediction
            is not finite at a scored pixel.
    """
    guess, target = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    weight = np.ones(guess.shape) if weights is None else np.asarray(weights, np.float64)
    used = np.isfinite(target) if valid is None else np.isfinite(target) & np.asarray(valid, bool)
    for name, array in (("truth", target), ("weights", weight), ("valid", used)):
        if array.shape != guess.shape:
            raise ValueError(f"{name} has shape {array.shape}, prediction {guess.shape}: bring "
                             "both to one grid before scoring")
    if crop is not None:
        window = _centre(guess.shape, crop)
        guess, target, weight, used = (a[window] for a in (guess, target, weight, used))
    guess, target, weight = guess[used], target[used], weight[used]
    if not np.all(weight >= 0):
        raise ValueError(f"weights: smallest is {np.min(weight)!r}, must be >= 0 everywhere; "
                         "NaN is no weight, use 0")
    if not np.isfinite(guess).all():
        raise ValueError(f"prediction: {int((~np.isfinite(guess)).sum())} scored pixels are not "
                         "finite; fill them, or take them out with valid= and report that share")
    if not weight.sum() > 0:
        return dict.fromkeys(("aiwe_1", "aiwe_2", "one_minus_spearman"), float("nan"))
    return {
        "aiwe_1": aiwe_1(guess, target, weight),
        "aiwe_2": aiwe_2(guess, target, weight),
        "one_minus_spearman": one_minus_spearman(guess, target, weight),
    }


def aiwe_1(prediction: Flat, truth: Flat, weights: Flat) -> float:
    """AIWE(1) of three flat arrays of one length: weighted mean absolute error after IRLS."""
    residual = np.zeros_like(truth)
    reweight = np.ones_like(truth)
    for _ in range(REWEIGHTINGS):
        scale, offset = _fit(prediction, truth, weights * reweight)
        residual = np.abs(scale * prediction + offset - truth)
        reweight = 1.0 / np.maximum(RESIDUAL_FLOOR, residual)
    return float(weights @ residual / weights.sum())


def aiwe_2(prediction: Flat, truth: Flat, weights: Flat) -> float:
    """AIWE(2) of three flat arrays: weighted root mean square error after least squares."""
    scale, offset = _fit(prediction, truth, weights)
    squared = np.minimum((scale * prediction + offset - truth) ** 2, np.finfo(np.float32).max)
    return float(np.sqrt(weights @ squared / weights.sum()))


def one_minus_spearman(prediction: Flat, truth: Flat, weights: Flat) -> float:
    """1 − |ρ_s| of three flat arrays; ties rank by order, so a constant prediction gives NaN."""
    if prediction.size < 2 or np.ptp(prediction) == 0:
        return float("nan")
    target = _ranks(truth)
    # Ranking −P anew, and not only flipping the sign of ρ, is what the protocol does with ties.
    both = (_correlation(_ranks(sign * prediction), target, weights) for sign in (1.0, -1.0))
    return 1.0 - max(both)


def _fit(x: Flat, y: Flat, weights: Flat) -> tuple[float, float]:
    """Scale and offset of the ridge-regularised weighted least squares."""
    weighted = weights * x
    matrix = np.array([[weighted @ x + RIDGE, weighted.sum()],
                       [weighted.sum(), weights.sum() + RIDGE]])
    scale, offset = np.linalg.solve(matrix, np.array([weighted @ y, weights @ y]))
    return float(scale), float(offset)


def _ranks(values: Flat) -> Flat:
    """Ranks rescaled to about [−1, 1]; equal values rank in the order in which they stand."""
    ranks = np.empty(values.size, np.float64)
    ranks[np.argsort(values, kind="stable")] = np.arange(values.size)
    half = values.size // 2
    return (ranks - half) / half


def _correlation(x: Flat, y: Flat, weights: Flat) -> float:
    """Weighted Pearson correlation; NaN where a variance vanishes."""
    total = weights.sum()
    dx, dy = x - weights @ x / total, y - weights @ y / total
    scale = np.sqrt((weights @ dx**2) * (weights @ dy**2))
    return float(weights @ (dx * dy) / scale) if scale > 0 else float("nan")


def _centre(shape: tuple[int, ...], crop: tuple[int, int]) -> tuple[slice, slice]:
    height, width = crop
    if not (0 < height <= shape[0] and 0 < width <= shape[1]):
        raise ValueError(f"crop {crop}: must fit into the image {shape[:2]} (height, width); leave "
                         "crop out for images of another size than the protocol's")
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    return slice(top, top + height), slice(left, left + width)
