"""Closed-form dual-pixel evidence: pyramid Lucas–Kanade along the parallax axis, no parameters.

Both views are first equalised locally (left/right shading differs by 10–40 % on real sensors),
then disparity d = x_right − x_left is refined coarse to fine on the cyclopean grid, where
``right(x + d/2) = left(x − d/2)``. Everything is plain torch that traces and exports.
Source: Lucas and Kanade 1981, one-dimensional and symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 3
REFINEMENTS = 2
COARSE_WINDOW_PX = 9
WINDOWS_PX = (7, 15, 31)
EQUALISE_PX = 31
ENERGY_FLOOR = 1e-7
LIMIT_PX = 16.0
CHANNELS = 2 * len(WINDOWS_PX) + 3


@dataclass(frozen=True)
class Evidence:
    """Evidence at half resolution.

    Attributes:
        disparity_px: (B, len(WINDOWS_PX), H/2, W/2) full-resolution pixels, one per window size.
        energy: (B, len(WINDOWS_PX), H/2, W/2) mean squared gradient across the split per window
            (≥ 0, of locally normalised images): how much there is to match.
        residual: (B, 1, H/2, W/2) root mean squared difference left after alignment.
    """

    disparity_px: Tensor
    energy: Tensor
    residual: Tensor

    def channels(self) -> Tensor:
        """(B, CHANNELS − 2, …): quarter disparities, scaled log10 energies and log10 residual."""
        log_energy = torch.log10(self.energy + 1e-6) / 3 + 1
        log_residual = torch.log10(self.residual + 1e-3) + 1.5
        return torch.cat([self.disparity_px / 4, log_energy, log_residual], 1)


def box(x: Tensor, size_px: int, stride: int = 1) -> Tensor:
    """Mean over a size×size window (odd size) of the pixels inside the image, separable."""
    half = size_px // 2
    rows = F.avg_pool2d(x, (size_px, 1), (stride, 1), (half, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, size_px), (1, stride), (0, half), count_include_pad=False)


def equalise(view: Tensor) -> Tensor:
    """Local relative contrast of a non-negative (B, 1, H, W) view: x / local mean − 1."""
    return view / (box(view, EQUALISE_PX) + 0.02) - 1


def shift(image: Tensor, offset_px: Tensor) -> Tensor:
    """Sample (B, 1, H, W) at x + offset along the last axis, linear, clamped at the border."""
    width = image.shape[-1]
    x = torch.arange(width, device=image.device, dtype=image.dtype) + offset_px
    x = x.clamp(0, width - 1)
    left = x.floor().clamp(max=width - 2)
    share = x - left
    index = left.long()
    return (torch.gather(image, 3, index) * (1 - share)
            + torch.gather(image, 3, index + 1) * share)


def gradient_x(image: Tensor) -> Tensor:
    """Central difference along x with replicated borders."""
    padded = F.pad(image, (1, 1, 0, 0), mode="replicate")
    return (padded[..., 2:] - padded[..., :-2]) / 2


def _terms(left: Tensor, right: Tensor, disparity: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and difference of the views aligned by ± half the disparity."""
    warped_left = shift(left, -disparity / 2)
    warped_right = shift(right, disparity / 2)
    return (gradient_x(warped_left) + gradient_x(warped_right)) / 2, warped_right - warped_left


def dual_pixel_evidence(left: Tensor, right: Tensor) -> Evidence:
    """Match two views along x.

    Args:
        left, right: (B, 1, H, W) float, any non-negative encoding (square root of linear light
            equalises shot noise), H and W multiples of 8.

    Returns:
        `Evidence` at half resolution; disparities are in full-resolution pixels.
    """
    left, right = equalise(left), equalise(right)
    pyramid = [(left, right)]
    for _ in range(LEVELS - 1):
        pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
    disparity = torch.zeros_like(pyramid[-1][0])
    for level in range(LEVELS - 1, -1, -1):
        view_left, view_right = pyramid[level]
        if level < LEVELS - 1:
            disparity = 2 * F.interpolate(disparity, scale_factor=2.0, mode="bilinear",
                                          align_corners=False)
        for _ in range(REFINEMENTS if level else 1):
            g, t = _terms(view_left, view_right, disparity)
            energy = box(g * g, COARSE_WINDOW_PX)
            step = -box(g * t, COARSE_WINDOW_PX) / (energy + 1e-4)
            disparity = box(disparity + step.clamp(-1.0, 1.0), 5)
    g, t = _terms(left, right, disparity)
    squared, mixed = g * g, g * g * disparity - g * t
    disparities, energies = [], []
    for size in WINDOWS_PX:
        energy = box(squared, size, 2)
        # The floor only keeps 0/0 away; it is far below noise, so nothing is shrunk.
        start = box(disparity, size, 2)
        disparities.append((box(mixed, size, 2) + ENERGY_FLOOR * start) / (energy + ENERGY_FLOOR))
        energies.append(energy)
    residual = torch.sqrt(box(t * t, WINDOWS_PX[1], 2) + 1e-12)
    return Evidence(torch.cat(disparities, 1).clamp(-LIMIT_PX, LIMIT_PX), torch.cat(energies, 1),
                    residual)


def evidence_channels(left: Tensor, right: Tensor, evidence: Evidence) -> Tensor:
    """Evidence and the two equalised views as network input: (B, CHANNELS, H/2, W/2)."""
    views = torch.cat([equalise(left), equalise(right)], 1)
    return torch.cat([evidence.channels(), F.avg_pool2d(views, 2)], 1)
