"""The paper's loss: inverse depth compared after removing scale and shift, plus its gradients.

    L = MAE(d, d̂) + λ·Grad(d, d̂),  λ = 30, at every decoder output

with d the true inverse depth and d̂ the estimate, both brought to a common scale and shift first
(DiFuse-Net, IROS 2025, as far as its loss is known). How that is done is left open there, so both
usual ways are here:

* "median": each map minus its median, over its mean absolute deviation from it (MiDaS, Ranftl et
  al., TPAMI 2022);
* "least_squares": truth as above, and the estimate fitted to it by weighted least squares.

A disparity in px is an affine function of inverse depth where one lens made the whole image, so
networks that output px can be trained with this loss too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from depth_fusion_ros.networks.convention import DiFuseNetOutput

GRADIENT_WEIGHT = 30.0
SCALE_WEIGHT = 0.5
"""Of the next coarser output; the paper does not give its weights."""
FEWEST_PIXELS = 16
"""An image with fewer true pixels than this says nothing about scale and shift."""
SMALLEST_SPREAD = 1e-4
"""Below it a map counts as constant (a fresh network's); dividing by it would be noise."""
SMALLEST_FIT = 0.1


def affine_loss(output: DiFuseNetOutput, inverse_depth: Tensor, valid: Tensor, *,
                estimates_inverse_depth: bool, alignment: str = "median",
                gradient_weight: float = GRADIENT_WEIGHT) -> tuple[Tensor, dict[str, float]]:
    """Scale-and-shift-invariant MAE and gradient MAE over all scales.

    Args:
        output: of a network in training; its sigma is not looked at.
        inverse_depth: (B, 1, H, W) truth, any unit and any shift per image, growing towards the
            camera; any number where not `valid`.
        valid: (B, 1, H, W) bool, where there is truth.
        estimates_inverse_depth: False where the network outputs disparity, which falls with
            inverse depth.
        alignment: "median" or "least_squares", see the module's docstring.
        gradient_weight: λ.

    Returns:
        scalar loss, and "affine_mae" and "affine_gradient" of the full-resolution output.
    """
    sign = 1.0 if estimates_inverse_depth else -1.0
    total = torch.zeros((), device=inverse_depth.device)
    parts: dict[str, float] = {}
    for estimate in (*(d for d, _ in output.intermediate), output.disparity_px):
        factor = inverse_depth.shape[-1] // estimate.shape[-1]
        truth, mask = pool_valid(inverse_depth, valid, factor)
        mae, gradient = affine_errors(sign * estimate, truth, mask, alignment)
        weight = SCALE_WEIGHT ** (factor.bit_length() - 1)
        total = total + weight * (mae + gradient_weight * gradient)
        parts = {"affine_mae": float(mae.detach()), "affine_gradient": float(gradient.detach())}
    return total, parts


def affine_errors(estimate: Tensor, truth: Tensor, valid: Tensor, alignment: str = "median"
                  ) -> tuple[Tensor, Tensor]:
    """Return MAE and gradient MAE of aligned maps, in mean absolute deviations of the truth.

    Both are means per image over its valid pixels (pairs of neighbours for the gradient), then
    over the images that have enough of them; 0 where none has.

    Args:
        estimate, truth: (B, 1, H, W). valid: (B, 1, H, W) bool.
        alignment: "median" or "least_squares".

    Raises:
        ValueError: unknown alignment.
    """
    enough = valid.flatten(1).sum(1) >= FEWEST_PIXELS
    # An image that does not count is normalised over all of its pixels: finite, and weighs 0.
    mask = valid | ~enough[:, None, None, None]
    truth = torch.where(valid, truth, torch.zeros_like(truth))
    target = normalise(truth, mask)
    if alignment == "median":
        aligned = normalise(estimate, mask)
    elif alignment == "least_squares":
        aligned = fit_least_squares(estimate, target, mask)
    else:
        raise ValueError(f"alignment = {alignment!r}: use 'median' or 'least_squares'")
    error = aligned - target
    mae = _masked_mean(error.abs(), mask)
    across = _masked_mean((error[..., 1:] - error[..., :-1]).abs(), mask[..., 1:] & mask[..., :-1])
    down = _masked_mean((error[..., 1:, :] - error[..., :-1, :]).abs(),
                        mask[..., 1:, :] & mask[..., :-1, :])
    images = enough.sum().clamp_min(1)
    return (mae * enough).sum() / images, ((across + down) / 2 * enough).sum() / images


def normalise(values: Tensor, mask: Tensor) -> Tensor:
    """(v − median) / mean |v − median| per image over the mask, (B, 1, H, W)."""
    holes = torch.where(mask, values, torch.full_like(values, float("nan")))
    middle = torch.nanmedian(holes.flatten(1), 1).values[:, None, None, None]
    spread = _masked_mean((values - middle).abs(), mask)[:, None, None, None]
    return (values - middle) / spread.clamp_min(SMALLEST_SPREAD)


def fit_least_squares(estimate: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """a·estimate + b, nearest to the target over the mask in least squares, per image.

    a is kept above `SMALLEST_FIT` of the ratio of spreads: an estimate that runs against the
    truth must be turned round by the loss and not by the fit.
    """
    mean_e = _masked_mean(estimate, mask)[:, None, None, None]
    mean_t = _masked_mean(target, mask)[:, None, None, None]
    e, t = estimate - mean_e, target - mean_t
    var_e, var_t = _masked_mean(e * e, mask), _masked_mean(t * t, mask)
    var_e = var_e.clamp_min(SMALLEST_SPREAD**2)
    lowest = SMALLEST_FIT * (var_t / var_e).sqrt().detach()
    a = torch.maximum(_masked_mean(e * t, mask) / var_e, lowest)
    return a[:, None, None, None] * e + mean_t


def pool_valid(values: Tensor, valid: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Means of the valid pixels of each factor × factor block, and where half of it is valid."""
    if factor == 1:
        return values, valid
    share = F.avg_pool2d(valid.float(), factor)
    total = F.avg_pool2d(torch.where(valid, values, torch.zeros_like(values)), factor)
    return total / share.clamp_min(1e-6), share >= 0.5


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask per image, (B,)."""
    kept = torch.where(mask, values, torch.zeros_like(values)).flatten(1).sum(1)
    return kept / mask.flatten(1).sum(1).clamp_min(1)
