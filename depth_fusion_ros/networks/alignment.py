"""Scale and shift that bring a relative inverse depth to metric dioptres, in closed form.

    scale, shift = align(prior, measured_diopters, weight)
    metric = scale * prior + shift

A monocular prior knows shape but neither scale nor shift; a focus sweep knows both, with a sigma
that says where. The weighted least-squares solution trusts it in proportion to 1/σ². It is
differentiable, and robust: pixels whose residual is large are weighted down and it is solved again.
What the aligned prior then still misses says how far to trust it where nothing was measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

ITERATIONS = 3
RESIDUAL_SCALE_DIOPTERS = 0.15
"""Residual at which a pixel's weight has fallen to one half (Cauchy's weights)."""
RIDGE = 1e-4
"""Of the prior's normalised variance: keeps a flat prior's scale finite."""
DEVIATION_RANGE_DIOPTERS = (0.03, 3.0)
"""Limits of `prior_deviation`: no prior is surer than the first, or worth less than the second."""


def normalise_prior(prior: Tensor) -> Tensor:
    """Shift and scale each map to median 0 and mean absolute deviation 1.

    Args:
        prior: (B, 1, H, W) relative inverse depth in any unit; larger = nearer.

    Returns:
        the same shape; a constant map becomes zeros.
    """
    median, spread = median_and_spread(prior)
    return (prior - median) / spread.clamp_min(1e-6)


def median_and_spread(prior: Tensor) -> tuple[Tensor, Tensor]:
    """Median of each map and mean absolute deviation from it, (B, 1, 1, 1) each."""
    median = prior.flatten(1).median(1).values[:, None, None, None]
    return median, (prior - median).abs().flatten(1).mean(1)[:, None, None, None]


def align(prior: Tensor, measured: Tensor, weight: Tensor, *, iterations: int = ITERATIONS
          ) -> tuple[Tensor, Tensor]:
    """Weighted robust least squares of measured ≈ scale·prior + shift.

    Args:
        prior: (B, 1, H, W) normalised prior. measured: the same shape, dioptres.
        weight: the same shape, ≥ 0, e.g. 1/σ²; 0 = do not look. Non-finite measurements must
            have weight 0 and a finite stand-in.
        iterations: of reweighting; 1 = plain weighted least squares.

    Returns:
        scale (never negative) and shift, (B, 1, 1, 1) each. Where nothing has weight: 0 and 0.
    """
    total = weight
    scale = shift = measured.new_zeros(len(measured), 1, 1, 1)
    for step in range(max(1, iterations)):
        if step:
            residual = (scale * prior + shift - measured) / RESIDUAL_SCALE_DIOPTERS
            total = weight / (1 + residual * residual)
        norm = _sum(total).clamp_min(1e-12)
        mean_prior, mean_measured = _sum(total * prior) / norm, _sum(total * measured) / norm
        a, b = prior - mean_prior, measured - mean_measured
        covariance, variance = _sum(total * a * b) / norm, _sum(total * a * a) / norm
        scale = (covariance / (variance + RIDGE)).clamp_min(0.0)
        shift = mean_measured - scale * mean_prior
    return scale, shift


def prior_deviation(aligned: Tensor, measured: Tensor, sigma: Tensor, weight: Tensor) -> Tensor:
    """How far an aligned prior is off, judged where focus is sure: σ_g, dioptres.

        σ_g² = Σ w·((D_g − D_m)² − σ_m²) / Σ w

    Args:
        aligned: (B, 1, H, W) D_g. measured: D_m. sigma: σ_m of it, finite. weight: w, ≥ 0, as
            given to `align`; 0 where nothing was measured.

    Returns:
        (B, 1, 1, 1) within `DEVIATION_RANGE_DIOPTERS`; its upper end where nothing has weight. Not
        robust on purpose: a prior that is right on most surfaces and wild on some is not sure.
    """
    least, most = DEVIATION_RANGE_DIOPTERS
    norm = _sum(weight)
    missed = _sum(weight * ((aligned - measured) ** 2 - sigma * sigma)) / norm.clamp_min(1e-12)
    missed = torch.where(norm > 0, missed, torch.full_like(missed, most * most))
    return torch.sqrt(missed.clamp(least * least, most * most))


def _sum(x: Tensor) -> Tensor:
    return x.sum((1, 2, 3), keepdim=True)


def inverse_variance(sigma: Tensor, floor: float = 0.02) -> Tensor:
    """Weights 1/(σ² + floor²), at most 1/floor²; 0 where σ is not finite. σ in dioptres."""
    known = torch.isfinite(sigma)
    safe = torch.where(known, sigma, torch.ones_like(sigma))
    return torch.where(known, 1 / (safe * safe + floor * floor), torch.zeros_like(sigma))
