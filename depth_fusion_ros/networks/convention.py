"""What every network here takes and gives: the lens as a condition, and the frame of its output.

All of them are called alike, so that losses, estimators and tables need not know which one runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

CONDITION_CHANNELS = 4
LOG_SIGMA_RANGE = (-7.0, 4.0)


def lens_condition(kappa: Tensor, gain_px_m: Tensor, focus_diopters: Tensor) -> Tensor:
    """Lens condition (B, 4) from (B,) κ, k = κ·A in px·m and 1/g.

    Channels: 1 = known, κ over ideal, log k, half the disparity at infinity k/g (px). A row of
    zeros means the lens is unknown; training drops it at random, so the network runs without.
    """
    known = torch.ones_like(kappa)
    return torch.stack([known, kappa / 0.4244, torch.log(gain_px_m.clamp_min(1e-3)) / 2,
                        (gain_px_m * focus_diopters).clamp(max=24.0) / 2], -1)


NEAREST_H = 0.02
"""Least inverse depth that the log-linear heads work with: 50 m, dioptres."""
UNKNOWN_FRAME_PX = (8.0, 4.0)
"""Origin and scale of log-linear heads without a lens: d = 8 − 4·h covers ±8 px with 0 < h < 4."""


def log_linear(x: Tensor) -> Tensor:
    """h(x) > 0: exp(x) below 0, 1 + x above; smooth at 0.

    Far depth is then regressed in ratios and near depth in dioptres: a linear head must place the
    last metres before 20 m within hundredths of its range, and their gradients drown the rest.
    """
    return torch.where(x < 0, torch.exp(x.clamp(max=0.0)), 1 + x)


def inverse_log_linear(h: Tensor) -> Tensor:
    """x of `log_linear`(x) = h, for h clamped to at least `NEAREST_H`."""
    h = h.clamp_min(NEAREST_H)
    return torch.where(h < 1, torch.log(h.clamp(max=1.0)), h - 1)


def regression_frame(condition: Tensor) -> tuple[Tensor, Tensor]:
    """What the heads' numbers mean: d = origin − scale·h, (B, 1, 1, 1) each, px.

    With a known lens origin is the disparity of infinity k/g and scale is k, so h is the
    inverse depth in dioptres whatever the lens; with an unknown lens (a row of zeros) origin is
    0, scale 1 px, and h is a negative disparity.
    """
    scale = torch.exp(2 * condition[:, 2])[:, None, None, None]
    origin = (2 * condition[:, 3])[:, None, None, None]
    return origin, scale


@dataclass(frozen=True)
class DiFuseNetOutput:
    """Everything a training step wants.

    Attributes:
        disparity_px: (B, 1, H, W) signed disparity in px of the input, or the affine inverse
            depth in 0..1 where `output` is "inverse_depth".
        log_sigma: (B, 1, H, W) natural logarithm of the Laplace scale of `disparity_px`.
        intermediate: coarser (disparity, log_sigma) pairs in full-resolution px, coarse first.
        offsets_px: expected attention offsets at 1/2 and 1/4, in full-resolution px.
    """

    disparity_px: Tensor
    log_sigma: Tensor
    intermediate: list[tuple[Tensor, Tensor]]
    offsets_px: list[Tensor]


class DepthNetwork(nn.Module):
    """A network with DiFuse-Net's calling convention; `forward` is for deployment."""

    def forward(self, left: Tensor, right: Tensor, rgb: Tensor, condition: Tensor
                ) -> tuple[Tensor, Tensor]:
        """Disparity (B, 1, H, W) px and its log scale; inputs as in `forward_full`."""
        output = self.forward_full(left, right, rgb, condition)
        return output.disparity_px, output.log_sigma

    def forward_full(self, left: Tensor, right: Tensor, rgb: Tensor, condition: Tensor
                     ) -> DiFuseNetOutput:
        """Run the network, with what a training step wants besides.

        Args:
            left, right: (B, 1, H, W) square root of linear light, 0..1; H and W multiples of
                the configuration's `stride`; parallax along x (or y, `attention.axis`).
            rgb: (B, 3, H, W) sRGB-encoded, 0..1, registered to the views.
            condition: (B, 4) from `lens_condition`, zeros = unknown.
        """
        raise NotImplementedError
