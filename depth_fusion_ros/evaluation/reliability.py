"""Does sigma keep its word? Shares within n sigma, and predicted sigma against observed error.

    reliability = measure_reliability(depth_m - truth_m, sigma_m)
    draw_reliability(path, {"difuse_net_s, ray-traced": reliability})

Two questions, two panels: over all pixels, how many errors lie within n sigma (a Gaussian has
68.3 % within 1, 95.4 % within 2; a Laplacian of the same 68 % has 90 % within 2); and among the
pixels that were given a certain sigma, how large is the error really? A method can answer the
first well by luck, too sure here and too unsure there; the second shows it.

Depth errors are skewed where sigma is large (inverse depth is what is measured): give errors and
sigmas of the disparity, or of inverse depth, wherever both are known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.sigma_calibration import ONE_SIGMA_SHARE, TWO_SIGMA_SHARE

LEVELS = tuple(float(n) for n in np.arange(1, 13) / 4)
"""n = 0.25, 0.5 … 3: the multiples of sigma that are counted."""
CONFIDENCES = tuple(float(p) for p in np.arange(1, 20) / 20)
SIGMA_BINS = 10
MIN_PIXELS = 50
Array = NDArray[Any]


@dataclass(frozen=True)
class Reliability:
    """Counts over the scored pixels; unitless but for the two lists of sigmas.

    Attributes:
        pixels: how many have an error and a sigma > 0.
        within: per n of `LEVELS`, share of |error| < n·σ.
        within_1_sigma, within_2_sigma: the same at 1 and 2.
        factor_68, factor_95: 68.27 % and 95.45 % of errors lie within this many σ; a Gaussian
            has 1 and 2. The second over the first is about 2.34 for a Laplacian's tails.
        calibration_error: mean over confidences 5, 10 … 95 % of |share inside the Gaussian's
            interval − confidence|: 0 is perfect, 0.5 the worst.
        bin_sigma: median σ per bin of equal counts, rising, unit of the error.
        bin_error: 68.27th percentile of |error| in the bin: equals bin_sigma where σ is true.
        bin_log_ratio: mean of |ln(bin_error / bin_sigma)|; 0.1 = 10 % off in the typical bin.
    """

    pixels: int
    within: tuple[float, ...]
    within_1_sigma: float
    within_2_sigma: float
    factor_68: float
    factor_95: float
    calibration_error: float
    bin_sigma: tuple[float, ...]
    bin_error: tuple[float, ...]
    bin_log_ratio: float


def gaussian_share(n_sigma: float) -> float:
    """Share of a Gaussian within n standard deviations."""
    return math.erf(n_sigma / math.sqrt(2))


def laplace_share(n_sigma: float) -> float:
    """Share of a Laplacian within n times the half width that holds its 68.27 %."""
    return -math.expm1(n_sigma * math.log1p(-ONE_SIGMA_SHARE))


def measure_reliability(error: Array, sigma: Array, *, valid: Array | None = None,
                        bins: int = SIGMA_BINS) -> Reliability:
    """Compare errors with the sigmas that were given for them.

    Args:
        error: any shape, estimate minus truth. sigma: the same shape and unit, one standard
            deviation. Pixels where either is not finite, or σ ≤ 0, do not count.
        valid: bool, further restriction. bins: of equal count, by predicted σ.

    Raises:
        ValueError: shapes differ, or fewer than `MIN_PIXELS` pixels count.
    """
    for name, array in (("sigma", sigma), ("valid", valid)):
        if array is not None and np.shape(array) != np.shape(error):
            raise ValueError(f"{name} has shape {np.shape(array)}, error {np.shape(error)}: must "
                             "be equal; bring both to one grid")
    use = np.isfinite(error) & np.isfinite(sigma)
    use &= np.where(use, sigma, 0) > 0
    if valid is not None:
        use &= np.asarray(valid, bool)
    size, width = np.abs(np.asarray(error, np.float64)[use]), np.asarray(sigma, np.float64)[use]
    if size.size < MIN_PIXELS:
        raise ValueError(f"{size.size} pixels with error and sigma: at least {MIN_PIXELS} are "
                         "needed; score more images")
    ratio = np.sort(size / width)

    def share(n: float) -> float:
        return float(np.searchsorted(ratio, n) / ratio.size)

    gaps = [abs(share(_gaussian_level(p)) - p) for p in CONFIDENCES]
    parts = np.array_split(np.argsort(width, kind="stable"), max(1, min(bins, size.size // 10)))
    bin_sigma = [float(np.median(width[part])) for part in parts]
    bin_error = [float(np.quantile(size[part], ONE_SIGMA_SHARE)) for part in parts]
    with np.errstate(divide="ignore"):
        off = np.abs(np.log(np.divide(bin_error, bin_sigma)))
    factors = np.quantile(ratio, (ONE_SIGMA_SHARE, TWO_SIGMA_SHARE))
    return Reliability(
        pixels=int(size.size), within=tuple(share(n) for n in LEVELS), within_1_sigma=share(1),
        within_2_sigma=share(2), factor_68=float(factors[0]), factor_95=float(factors[1]),
        calibration_error=float(np.mean(gaps)), bin_sigma=tuple(bin_sigma),
        bin_error=tuple(bin_error), bin_log_ratio=float(np.mean(off)))


def draw_reliability(path: Path, results: Mapping[str, Reliability], *, unit: str = "px",
                     title: str = "") -> Path:
    """Draw the two panels for one or more named results to a picture; returns its path.

    Raises:
        ValueError: there are no results.
    """
    if not results:
        raise ValueError("reliability figure without results: nothing was measured; "
                         "measure at least one estimator first")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    shares, sigmas = figure.subplots(1, 2)
    fine = np.linspace(0, LEVELS[-1], 61)
    shares.plot(fine, [100 * gaussian_share(n) for n in fine], "k-", lw=1, label="Gaussian")
    shares.plot(fine, [100 * laplace_share(n) for n in fine], "k:", lw=1,
                label="Laplacian of the same 68 %")
    for name, result in results.items():
        line = shares.plot((0, *LEVELS), [0, *(100 * w for w in result.within)], "o-", ms=4,
                           label=f"{name}: {100 * result.within_1_sigma:.0f} % / "
                                 f"{100 * result.within_2_sigma:.0f} %")[0]
        sigmas.plot(result.bin_sigma, result.bin_error, "o-", ms=4, color=line.get_color(),
                    label=f"{name}: off by {100 * (math.exp(result.bin_log_ratio) - 1):.0f} %")
    shares.set(xlabel="n", ylabel="share of errors within n sigma [%]", ylim=(0, 101),
               xlim=(0, LEVELS[-1]), title="all pixels (in the legend: within 1 / 2 sigma)")
    ends = [v for r in results.values() for v in (*r.bin_sigma, *r.bin_error) if v > 0]
    low, high = min(ends) / 1.3, max(ends) * 1.3
    sigmas.plot((low, high), (low, high), "k-", lw=1)
    sigmas.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high),
               xlabel=f"predicted sigma [{unit}]", ylabel=f"68th percentile of |error| [{unit}]",
               title="groups of pixels by predicted sigma")
    for axes in (shares, sigmas):
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=9, loc="lower right")
    if title:
        figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _gaussian_level(confidence: float) -> float:
    """Return the n with `gaussian_share(n)` = confidence, by bisection."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_share(middle) < confidence else (low, middle)
    return low
