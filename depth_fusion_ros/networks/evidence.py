"""Closed-form dual-pixel evidence: pyramid Lucas–Kanade along the parallax axis, no parameters.

Both views are first equalised locally (left/right shading differs by 10–40 % on real sensors),
then disparity d = x_right − x_left is refined coarse to fine on the cyclopean grid, where
``right(x + d/2) = left(x − d/2)``. Everything is plain torch that traces and exports.
Source: Lucas and Kanade 1981, one-dimensional and symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from depth_fusion_ros.networks.blocks import enlarge

LEVELS = 3
REFINEMENTS = 2
COARSE_WINDOW_PX = 9
WINDOWS_PX = (6, 14, 30, 60, 124)
"""Nominal sides of the matching windows; the two largest are taken on a grid of 8 px."""
ENERGY_FLOOR = 1e-7
LIMIT_PX = 16.0


def channel_count(windows: int) -> int:
    """Channels of `Evidence.channels` with so many windows."""
    return 2 * windows + 3


@dataclass(frozen=True)
class Evidence:
    """Evidence at half resolution.

    Attributes:
        disparity_px: (B, len(WINDOWS_PX), H/2, W/2) full-resolution pixels, one per window size.
        energy: (B, len(WINDOWS_PX), H/2, W/2) mean squared gradient across the split per window
            (≥ 0, of locally normalised images): how much there is to match.
        residual: (B, 1, H/2, W/2) root mean squared difference left after alignment.
        views: (B, 2, H/2, W/2) the two equalised views.
        moments: (B, 2, H/2, W/2) mean g² and g²·d of each cell's own pixels.
    """

    disparity_px: Tensor
    energy: Tensor
    residual: Tensor
    views: Tensor
    moments: Tensor

    def smallest(self, windows: int) -> Evidence:
        """The same with the `windows` smallest windows only."""
        return replace(self, disparity_px=self.disparity_px[:, :windows],
                       energy=self.energy[:, :windows])

    def channels(self) -> Tensor:
        """(B, `channel_count`, H/2, W/2): disparity / 4, log10 of energy and residual, views."""
        log_energy = torch.log10(self.energy + 1e-6) / 3 + 1
        log_residual = torch.log10(self.residual + 1e-3) + 1.5
        return torch.cat([self.disparity_px / 4, log_energy, log_residual, self.views], 1)


def box(x: Tensor, size_px: int) -> Tensor:
    """Mean over a size×size window (odd size) of the pixels inside the image, separable."""
    half = size_px // 2
    rows = F.avg_pool2d(x, (size_px, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, size_px), 1, (0, half), count_include_pad=False)


def box_of_many(x: Tensor, size_px: int) -> Tensor:
    """`box` as two matrix products: of many maps (B, K, h, w) at once four to six times as fast."""
    along_y, along_x = (_averaging(side, size_px, x) for side in x.shape[-2:])
    return along_y @ (x @ along_x.T)


def _averaging(side: int, size_px: int, like: Tensor) -> Tensor:
    """(side, side): each row averages the cells within half a window of its own."""
    place = torch.arange(side, device=like.device)
    inside = ((place[:, None] - place).abs() <= size_px // 2).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def scatter(values: Tensor, known: Tensor, size_px: int) -> Tensor:
    """Standard deviation of what is known within a size×size window, (B, W, h, w) ≥ 0.

    What noise has made varies from place to place by much more than each place claims; so do
    answers at an edge, where blur mixes two surfaces.
    """
    share = known.to(values.dtype)
    # Differences to the mean of the map: squares of large numbers would lose the small scatter.
    count = share.sum((2, 3), keepdim=True).clamp_min(1)
    values = (values - (share * values).sum((2, 3), keepdim=True) / count) * share
    part, mean, square = (box_of_many(v, size_px) for v in (share, values, values * values))
    part = part.clamp_min(1e-6)
    return (square / part - (mean / part) ** 2).clamp_min(0).sqrt()


def equalise(view: Tensor) -> Tensor:
    """Local relative contrast of a non-negative (B, 1, H, W) view: x / local mean − 1.

    The local mean (about 28 px wide) is taken on a grid of 4 px, which is eight times cheaper.
    """
    return view / (enlarge(box(F.avg_pool2d(view, 4), 7), 4) + 0.02) - 1


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


def _coarse_to_fine(left: Tensor, right: Tensor) -> Tensor:
    """Smooth disparity (B, 1, H, W) px that aligns the views well enough for one more step."""
    pyramid = [(left, right)]
    for _ in range(LEVELS - 1):
        pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
    disparity = torch.zeros_like(pyramid[-1][0])
    for level in range(LEVELS - 1, 0, -1):
        if level < LEVELS - 1:
            disparity = 2 * enlarge(disparity, 2)
        for _ in range(REFINEMENTS):
            g, t = _terms(*pyramid[level], disparity)
            energy = box(g * g, COARSE_WINDOW_PX)
            step = -box(g * t, COARSE_WINDOW_PX) / (energy + 1e-4)
            disparity = box(disparity + step.clamp(-1.0, 1.0), 5)
    disparity = 2 * enlarge(disparity, 2)
    g, t = _terms(left, right, disparity)
    moments = box(F.avg_pool2d(torch.cat([g * g, g * t], 1), 2), 5)
    step = -moments[:, 1:] / (moments[:, :1] + 1e-4)
    return disparity + enlarge(box(step.clamp(-1.0, 1.0), 3), 2)


def dual_pixel_evidence(left: Tensor, right: Tensor) -> Evidence:
    """Match two views along x.

    Args:
        left, right: (B, 1, H, W) float, any non-negative encoding (square root of linear light
            equalises shot noise), H and W multiples of 8.

    Returns:
        `Evidence` at half resolution; disparities are in full-resolution pixels.
    """
    left, right = equalise(left), equalise(right)
    disparity = _coarse_to_fine(left, right)
    g, t = _terms(left, right, disparity)
    # Weighted least squares over a window: disparity of the pixels' own solutions, by energy.
    moments = F.avg_pool2d(torch.cat([g * g, g * g * disparity - g * t, t * t, disparity,
                                      left, right], 1), 2)
    sums, views = moments[:, :4], moments[:, 4:]
    coarse = F.avg_pool2d(sums, 4)
    windows = [box(sums, 3), box(sums, 7), box(sums, 15), enlarge(box(coarse, 7), 4),
               enlarge(box(coarse, 15), 4)]
    # The floor only keeps 0/0 away; it is far below noise, so nothing is shrunk.
    disparities = [(w[:, 1:2] + ENERGY_FLOOR * w[:, 3:]) / (w[:, :1] + ENERGY_FLOOR)
                   for w in windows]
    residual = torch.sqrt(windows[1][:, 2:3] + 1e-12)
    return Evidence(torch.cat(disparities, 1).clamp(-LIMIT_PX, LIMIT_PX),
                    torch.cat([w[:, :1] for w in windows], 1), residual, views, moments[:, :2])
