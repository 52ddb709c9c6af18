"""Scale and shift that bring a relative inverse depth to metric dioptres, in closed form.

    scale, shift = align(prior, measured_diopters, weight)
    metric = scale * prior + shift

A monocular prior knows shape but neither scale nor shift; a focus sweep knows both, with a sigma
that says where. The weighted least-squares solution trusts it in proportion to 1/σ². It is
differentiable, and robust: pixels whose residual is large are weighted down and it is solved again.
"""

from __future__ import annotations

import torch
from torch import Tensor

ITERATIONS = 3
RESIDUAL_SCALE_DIOPTERS = 0.15
"""Residual at which a pixel's weight has fallen to one half (Cauchy's weights)."""
RIDGE = 1e-4
"""Of the prior's normalised variance: keeps a flat prior's scale finite."""


def normalise_prior(prior: Tensor) -> Tensor:
    """Shift and scale each map to median 0 and mean absolute deviation 1.

    Args:
        prior: (B, 1, H, W) relative inverse depth in any unit; larger = nearer.

    Returns:
        the same shape; a constant map becomes zeros.
    """
    flat = prior.flatten(1)
    median = flat.median(1).values[:, None, None, None]
    centred = prior - median
    spread = centred.abs().flatten(1).mean(1)[:, None, None, None]
    return centred / spread.clamp_min(1e-6)


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


def _sum(x: Tensor) -> Tensor:
    return x.sum((1, 2, 3), keepdim=True)


def inverse_variance(sigma: Tensor, floor: float = 0.02) -> Tensor:
    """Weights 1/(σ² + floor²), at most 1/floor²; 0 where σ is not finite. σ in dioptres."""
    known = torch.isfinite(sigma)
    safe = torch.where(known, sigma, torch.ones_like(sigma))
    return torch.where(known, 1 / (safe * safe + floor * floor), torch.zeros_like(sigma))
