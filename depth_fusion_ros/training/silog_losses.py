"""The loss of the attention-fusion paper: scale-invariant logarithmic error and its gradients.

    L = SILog(g) + 0.5 · Σ_scales mean |∇g|,   SILog(g) = 10 · sqrt(Var(g) + (1 − λ) · mean(g)²)

with g = ln(estimate) − ln(truth) over the pixels with truth of a batch, λ = 0.85, and four scales.
Sources: the notes on the public code of HybridDepth and CrossDepth; SILog is Eigen, Puhrsch and
Fergus's (NIPS 2014) in the form of Lee et al. (BTS, 2019). g of depth is −g of inverse depth, and
neither term minds the sign.

SILog is as published, with the unbiased variance. The published gradient term compares Sobel
gradients of the values after blurred halving, at invalid pixels too; here it is taken of the
logarithms, between neighbours that both have truth, after means of 2×2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from depth_fusion_ros.training.affine_losses import pool_valid

SILOG_FACTOR = 10.0
LAMBDA = 0.85
"""How much of the squared mean error is forgiven: 1 = scale is free, 0 = plain RMSE of logs."""
GRADIENT_SCALES = 4
LOWEST_RATIO = 0.05
"""Ratio of estimate to truth below which the logarithm goes on linearly, see `log_ratio`."""


def log_ratio(estimate: Tensor, truth: Tensor) -> Tensor:
    """ln(estimate / truth), continued linearly below a ratio of `LOWEST_RATIO`.

    A fusion may put a pixel at or behind infinity, where there is no logarithm; the line keeps a
    gradient that brings it back.

    Args:
        estimate: any shape, dioptres or metres. truth: the same shape, > 0.
    """
    ratio = estimate / truth
    inside = torch.log(ratio.clamp_min(LOWEST_RATIO))
    return inside + (ratio - LOWEST_RATIO).clamp_max(0.0) / LOWEST_RATIO


def silog_loss(log_depth_error: Tensor, valid: Tensor, lambda_: float = LAMBDA) -> Tensor:
    """10 · sqrt(Var(g) + (1 − λ)·mean(g)²) over all valid pixels of the batch.

    Args:
        log_depth_error: g, any shape; any number where not valid.
        valid: the same shape, bool.
        lambda_: λ, 0 to 1.

    Returns:
        scalar ≥ 0, finite gradients also where it is 0; 0 where fewer than two pixels are valid.

    Raises:
        ValueError: λ is not within 0..1.
    """
    if not 0 <= lambda_ <= 1:
        raise ValueError(f"lambda_ = {lambda_!r}: must be within 0..1; the paper has {LAMBDA}")
    errors = log_depth_error[valid]
    if errors.numel() < 2:
        return log_depth_error.new_zeros(())
    square = errors.var(unbiased=True) + (1 - lambda_) * errors.mean() ** 2
    # The root has no gradient at 0, where there is nothing left to learn.
    safe = torch.where(square > 0, square, torch.ones_like(square))
    return SILOG_FACTOR * torch.where(square > 0, torch.sqrt(safe), torch.zeros_like(square))


def multi_scale_gradient_loss(log_depth_error: Tensor, valid: Tensor,
                              scales: int = GRADIENT_SCALES) -> Tensor:
    """Σ over scales of the mean |difference of g| between valid neighbours, across and down.

    Args:
        log_depth_error: g, (B, 1, H, W); any number where not valid.
        valid: the same shape, bool. A pixel of a coarser scale is the mean of the valid ones below
            it, and valid where half of them are.
        scales: how many; each halves the one before. Those of fewer than 2×2 pixels are left out.

    Returns:
        scalar ≥ 0; 0 for a constant g.

    Raises:
        ValueError: no scale is asked for.
    """
    if scales < 1:
        raise ValueError(f"scales = {scales!r}: at least 1; the paper has {GRADIENT_SCALES}")
    # What is not valid may be NaN, whose gradient would survive a multiplication by 0.
    error = torch.where(valid, log_depth_error, torch.zeros_like(log_depth_error))
    total = log_depth_error.new_zeros(())
    for scale in range(scales):
        if scale:
            error, valid = pool_valid(error, valid, 2)
        if min(error.shape[-2:]) < 2:
            break
        across = _mean((error[..., 1:] - error[..., :-1]).abs(),
                       valid[..., 1:] & valid[..., :-1])
        down = _mean((error[..., 1:, :] - error[..., :-1, :]).abs(),
                     valid[..., 1:, :] & valid[..., :-1, :])
        total = total + (across + down) / 2
    return total


def laplace_of_known_error(error: Tensor, log_scale: Tensor, valid: Tensor) -> Tensor:
    """Mean negative log likelihood |e|/b + ln b that trains b alone: the error has no gradient.

    Ours, not the paper's, whose networks say nothing of their uncertainty. The estimate stays what
    the paper's loss makes of it.

    Args:
        error: (B, 1, H, W), of the estimate, any unit. log_scale: ln b, same shape and unit.
        valid: same shape, bool.
    """
    per_pixel = error.detach().abs() * torch.exp(-log_scale) + log_scale
    return _mean(torch.where(valid, per_pixel, torch.zeros_like(per_pixel)), valid)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp_min(1)
