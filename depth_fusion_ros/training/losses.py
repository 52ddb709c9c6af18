"""Training losses on signed disparity, with the lens's own measure of what an error costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from depth_fusion_ros.networks.convention import DiFuseNetOutput

SCALE_WEIGHTS = (0.1, 0.1, 0.1, 0.15, 0.25, 0.4, 0.4)
"""Deep supervision from coarse to half resolution (regressed and voted); the full-resolution
output weighs 1."""


def scale_weights(coarse: int) -> tuple[float, ...]:
    """Weights of `coarse` outputs below the full-resolution one, and of that: the last is 1."""
    return (*SCALE_WEIGHTS[len(SCALE_WEIGHTS) - coarse:], 1.0)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts of `disparity_loss`."""

    likelihood: float = 0.5
    log_depth: float = 1.0
    relative: float = 0.0
    gradient: float = 0.5
    offset: float = 0.05


def laplace_nll(error_px: Tensor, log_scale: Tensor) -> Tensor:
    """Negative log likelihood of a Laplace error: |e|/b + log b, per pixel (constant dropped)."""
    return error_px.abs() * torch.exp(-log_scale) + log_scale


def log_depth_error(error_px: Tensor, pixels_per_log: Tensor) -> Tensor:
    """|ln Ẑ/Z| from a disparity error.

    With d = k(1/g − 1/Z) and e = d̂ − d the depth ratio is Ẑ/Z = 1/(1 − e·Z/k). The logarithm is
    continued linearly from e·Z/k = 0.8, where the depth is 5 times too large, so that estimates
    at and beyond infinity keep a gradient.

    Args:
        error_px: (B, 1, H, W) d̂ − d.
        pixels_per_log: (B, 1, H, W) k/Z, the disparity between the point and infinity, px.
    """
    r = error_px / pixels_per_log.clamp_min(1e-3)
    inside = -torch.log1p(-r.clamp(max=0.8))
    return torch.where(r < 0.8, inside.abs(), inside + (r - 0.8) * 5).clamp(max=8.0)


def relative_depth_error(error_px: Tensor, pixels_per_log: Tensor) -> Tensor:
    """|Ẑ − Z|/Z from a disparity error: what AbsRel means, so unsure pixels lean to the near side.

    Ẑ/Z − 1 = r/(1 − r) with r = e·Z/k, continued linearly from r = 0.5 (twice too far).

    Args:
        error_px, pixels_per_log: as in `log_depth_error`.
    """
    r = error_px / pixels_per_log.clamp_min(1e-3)
    inside = r.clamp(max=0.5)
    return ((inside / (1 - inside)).abs() + 4 * (r - 0.5).clamp_min(0.0)).clamp(max=8.0)


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def _mean(x: Tensor, weight: Tensor | None) -> Tensor:
    return x.mean() if weight is None else (x * weight).sum() / weight.sum().clamp_min(1.0)


def disparity_loss(output: DiFuseNetOutput, disparity_px: Tensor, pixels_per_log: Tensor,
                   reach_px: float, weights: LossWeights, valid: Tensor | None = None
                   ) -> tuple[Tensor, dict[str, float]]:
    """Sum of likelihood, log-depth, gradient and attention-offset losses over all scales.

    Args:
        output: of the network in training.
        disparity_px: (B, 1, H, W) true disparity.
        pixels_per_log: (B, 1, H, W) k/Z, see `log_depth_error`.
        reach_px: largest offset that the attention can find, in feature pixels.
        weights: of the parts.
        valid: (B, 1, H, W) bool, where the truth counts; None = everywhere. A coarse pixel counts
            where everything below it does.

    Returns:
        scalar loss and its parts as numbers, those of the full-resolution output.
    """
    scales = [*output.intermediate, (output.disparity_px, output.log_sigma)]
    total = torch.zeros((), device=disparity_px.device)
    parts: dict[str, float] = {}
    for weight, (estimate, log_scale) in zip(
            scale_weights(len(output.intermediate)), scales, strict=True):
        factor = disparity_px.shape[-1] // estimate.shape[-1]
        truth = F.avg_pool2d(disparity_px, factor) if factor > 1 else disparity_px
        cost = F.avg_pool2d(pixels_per_log, factor) if factor > 1 else pixels_per_log
        weight_map = None
        if valid is not None:
            weight_map = valid.float()
            if factor > 1:
                weight_map = (F.avg_pool2d(weight_map, factor) > 0.999).float()
        error = estimate.float() - truth
        likelihood = _mean(laplace_nll(error, log_scale.float()), weight_map)
        log_depth = _mean(log_depth_error(error, cost), weight_map)
        costly = (weights.relative * _mean(relative_depth_error(error, cost), weight_map)
                  if weights.relative else 0.0)
        # Gradients of the relative error: a step of 1 % of depth weighs the same on every lens.
        relative = (error / cost.clamp_min(1e-3)).clamp(-1.5, 1.5)
        if weight_map is not None:
            relative = relative * weight_map
        gradient = torch.stack([g.abs().mean() for g in _gradients(relative)]).mean()
        total = total + weight * (weights.likelihood * likelihood + weights.log_depth * log_depth
                                  + costly + weights.gradient * gradient)
        parts = {"likelihood": float(likelihood.detach()), "log_depth": float(log_depth.detach()),
                 "gradient": float(gradient.detach()),
                 "mae_px": float(_mean(error.detach().abs(), weight_map))}
    offset_loss = torch.zeros((), device=disparity_px.device)
    for offset in output.offsets_px:
        factor = disparity_px.shape[-1] // offset.shape[-1]
        truth = F.avg_pool2d(disparity_px, factor)
        reachable = (truth.abs() < factor * reach_px).float()
        offset_loss = offset_loss + ((offset.float() - truth).abs() * reachable).mean()
    parts["offset_px"] = float(offset_loss.detach()) / max(1, len(output.offsets_px))
    return total + weights.offset * offset_loss, parts
