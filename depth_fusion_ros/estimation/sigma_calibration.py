"""From what a network calls its uncertainty to one standard deviation that holds.

    calibration = fit_sigma(error_px, scale_px)       # held-out scenes
    sigma_px = calibration.apply(scale_px)            # at inference

One factor is not enough where the network is too sure of its best pixels and too unsure of its
worst. Here log σ is a rising, piecewise linear function of the log of the network's scale: within
each quantile bin of the held-out pixels it goes through the 68.27th percentile of |error|, the
minimiser of the quantile (pinball) loss there, made rising by pooling adjacent violators.

What σ means: a share of 68.27 % of errors lies within 1σ. Errors have longer tails than a Gaussian
(mixed pixels, false matches), so no single number can hold 68 % and 95 % at once; the second is
kept beside it as `factor_95`: 95.45 % lie within ``factor_95 · σ`` (2 for a Gaussian, 2.69 for a
Laplacian). With ``aim="balanced"`` σ is widened by the factor that shares the fault between the
two, in units of the tolerances 4 % and 3 %; the shares then measured are kept as well.

Sources: pinball loss, Koenker and Bassett 1978; pooling, Barlow et al. 1972.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ONE_SIGMA_SHARE = math.erf(1 / math.sqrt(2))
TWO_SIGMA_SHARE = math.erf(math.sqrt(2))
TOLERANCES = (0.04, 0.03)
AIMS = ("one_sigma", "balanced")
BINS = 12
MIN_PER_BIN = 200
Array = NDArray[Any]


@dataclass(frozen=True)
class SigmaCalibration:
    """A rising map from the network's scale to one standard deviation, both px.

    Attributes:
        log_scale: knots, natural logarithm of the network's scale, rising; one knot = one factor.
        log_sigma: ln σ at the knots, not falling. Beyond the first and the last knot the ratio
            σ / scale stays that of the knot.
        factor_95: 95.45 % of held-out errors lie within this many σ.
        within_1_sigma, within_2_sigma: shares measured on the held-out pixels.
        aim: "one_sigma" or "balanced", see the module.

    Raises:
        ValueError: no knots, lists of different length, not finite, or not rising.
    """

    log_scale: tuple[float, ...]
    log_sigma: tuple[float, ...]
    factor_95: float = math.nan
    within_1_sigma: float = math.nan
    within_2_sigma: float = math.nan
    aim: str = "one_sigma"

    def __post_init__(self) -> None:
        knots, values = np.asarray(self.log_scale), np.asarray(self.log_sigma)
        if (knots.size == 0 or knots.shape != values.shape
                or not (np.isfinite(knots).all() and np.isfinite(values).all())
                or (np.diff(knots) <= 0).any() or (np.diff(values) < 0).any()):
            raise ValueError(
                f"sigma calibration with log_scale {self.log_scale} and log_sigma "
                f"{self.log_sigma}: needs as many of each, finite, the first rising and the "
                "second not falling; take them from the model card or fit them again")
        if self.aim not in AIMS:
            raise ValueError(f"sigma calibration aim = {self.aim!r}: use one of {AIMS}")

    @classmethod
    def factor(cls, sigma_scale: float) -> SigmaCalibration:
        """σ = sigma_scale × scale, what a card without a map means.

        Raises:
            ValueError: the factor is not finite and > 0.
        """
        if not (math.isfinite(sigma_scale) and sigma_scale > 0):
            raise ValueError(f"sigma_scale = {sigma_scale!r}: must be finite and > 0; "
                             "calibrate sigma on held-out scenes")
        return cls((0.0,), (math.log(sigma_scale),))

    def apply(self, scale_px: NDArray[np.floating]) -> NDArray[np.float32]:
        """σ in px, float32, of the network's scale in px; NaN stays NaN, 0 gives 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            log_scale = np.log(np.asarray(scale_px, np.float32))
        # The ratio is interpolated, so that it, and not σ, is constant beyond the ends.
        ratio = np.interp(log_scale, self.log_scale, np.subtract(self.log_sigma, self.log_scale))
        return np.asarray(scale_px * np.exp(ratio), dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for a model card; what was not measured is left out."""
        values: dict[str, Any] = {
            "log_scale": [round(v, 5) for v in self.log_scale],
            "log_sigma": [round(v, 5) for v in self.log_sigma], "aim": self.aim}
        for name in ("factor_95", "within_1_sigma", "within_2_sigma"):
            if math.isfinite(getattr(self, name)):
                values[name] = round(float(getattr(self, name)), 4)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SigmaCalibration:
        """Inverse of `to_dict`.

        Raises:
            ValueError: a name is unknown or missing, or the lists are not a rising map.
        """
        known = {"log_scale", "log_sigma", "aim", "factor_95", "within_1_sigma", "within_2_sigma"}
        if not {"log_scale", "log_sigma"} <= set(values) <= known:
            raise ValueError(f"sigma calibration has {sorted(values)}: needs log_scale and "
                             f"log_sigma, and may have {sorted(known)}")
        plain = dict(values)
        for name in ("log_scale", "log_sigma"):
            plain[name] = tuple(float(v) for v in values[name])
        return cls(**plain)


def fit_sigma(error_px: Array, scale_px: Array, *, bins: int = BINS,
              aim: str = "one_sigma") -> SigmaCalibration:
    """Fit the map on held-out pixels.

    Args:
        error_px: any shape, disparity minus truth. scale_px: the network's scale, same shape, > 0.
            Pixels where either is not finite do not count.
        bins: quantile bins, at most one per `MIN_PER_BIN` pixels; 1 = one factor.
        aim: "one_sigma" (68.27 % within 1σ exactly) or "balanced" (see the module).

    Raises:
        ValueError: shapes differ, fewer than `MIN_PER_BIN` pixels, or an unknown aim.
    """
    if np.shape(error_px) != np.shape(scale_px):
        raise ValueError(f"error_px has shape {np.shape(error_px)}, scale_px {np.shape(scale_px)}: "
                         "must be equal; bring both to one grid")
    error = np.abs(np.asarray(error_px, np.float64).ravel())
    scale = np.asarray(scale_px, np.float64).ravel()
    use = np.isfinite(error) & np.isfinite(scale) & (scale > 0)
    error, scale = error[use], scale[use]
    if error.size < MIN_PER_BIN:
        raise ValueError(f"{error.size} pixels with error and scale: at least {MIN_PER_BIN} are "
                         "needed to calibrate sigma; use more held-out scenes")
    if aim not in AIMS:
        raise ValueError(f"sigma calibration aim = {aim!r}: use one of {AIMS}")
    order = np.argsort(scale, kind="stable")
    log_scale, log_sigma, counts = [], [], []
    for part in np.array_split(order, max(1, min(bins, error.size // MIN_PER_BIN))):
        log_scale.append(float(np.median(np.log(scale[part]))))
        log_sigma.append(math.log(max(float(np.quantile(error[part], ONE_SIGMA_SHARE)), 1e-6)))
        counts.append(part.size)
    knots, values = _rising(np.array(log_scale), np.array(log_sigma), np.array(counts, float))
    draft = SigmaCalibration(tuple(knots.tolist()), tuple(values.tolist()), aim=aim)
    ratio = error / draft.apply(scale)
    widen = float(np.quantile(ratio, ONE_SIGMA_SHARE))
    if aim == "balanced":
        widen = _balanced(ratio)
    ratio = ratio / widen
    return SigmaCalibration(
        draft.log_scale, tuple(v + math.log(widen) for v in draft.log_sigma),
        factor_95=float(np.quantile(ratio, TWO_SIGMA_SHARE)),
        within_1_sigma=float(np.mean(ratio < 1)), within_2_sigma=float(np.mean(ratio < 2)),
        aim=aim)


def _balanced(ratio: Array) -> float:
    """Factor on σ that minimises the larger of the two faults in units of their tolerances."""
    ordered = np.sort(ratio)
    low, high = (max(float(q), 1e-9) for q in np.quantile(ordered, (0.5, 0.9)))
    candidates = np.geomspace(low, high, 400)
    shares = np.searchsorted(ordered, np.outer((1, 2), candidates)) / ordered.size
    wanted = np.array([[ONE_SIGMA_SHARE], [TWO_SIGMA_SHARE]])
    faults = np.abs(shares - wanted) / np.array(TOLERANCES)[:, None]
    return float(candidates[np.argmin(faults.max(0))])


def _rising(knots: Array, values: Array, counts: Array) -> tuple[Array, Array]:
    """Pool adjacent violators; knots that coincide are merged."""
    blocks: list[list[float]] = []  # value, weight, members
    for value, count in zip(values, counts, strict=True):
        blocks.append([float(value), float(count), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            last = blocks.pop()
            weight = blocks[-1][1] + last[1]
            blocks[-1][0] = (blocks[-1][0] * blocks[-1][1] + last[0] * last[1]) / weight
            blocks[-1][1], blocks[-1][2] = weight, blocks[-1][2] + last[2]
    pooled = np.concatenate([np.full(int(b[2]), b[0]) for b in blocks])
    keep = np.concatenate([[True], np.diff(knots) > 1e-6])
    return knots[keep], pooled[keep]
