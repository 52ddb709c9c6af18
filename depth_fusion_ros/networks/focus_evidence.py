"""Closed-form evidence of a focus sweep in torch, no parameters: where is each pixel sharpest?

The estimator of `optics/shape_from_focus.py` (sources there), as layers: on a grid of half the
resolution, over three windows, for batches and any device. A test holds both to one another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from depth_fusion_ros.networks.evidence import box, scatter

WINDOWS_CELLS = (3, 5, 11)
"""Sides of the windows over which sharpness is averaged, cells of 2 px."""
SCATTER_CELLS = (9, 9, 21)
"""For each window: σ counts what its peaks scatter within so many cells."""
NOISE_GAIN = 1 / 9 + 1 / 40 + 0.5 * 72 / 81
"""Mean of `ring_energy` for white noise of variance 1."""
NOISE_MARGIN = 1.5
NOISE_SPREAD = 0.07
"""Error of the sharpness in a Gaussian window of 3 px, relative to that of the noise itself."""
ROUNDING = 12**-0.5 / 255
TEXTURE_SPREAD = 0.03
FEWEST_ERRORS = 4.0
SURE_SPREADS = 6.0
GAP_SHARE = 0.1
SURE_SHARE = 0.01
"""σ of this share of the sweep's range has the weight 1."""
MIN_SLICES_OF_PEAK = 3


@dataclass(frozen=True)
class FocusEvidence:
    """Evidence at half resolution, W = len(`WINDOWS_CELLS`).

    Attributes:
        diopters: (B, W, H/2, W/2) inverse depth of the peak; the middle of the sweep where
            nothing stands out. sigma_diopters: its σ, same shape; the whole range there.
        known: (B, W, H/2, W/2) bool, something stands out of the noise.
        moments: (B, 2, H/2, W/2) weight (in 0..1) of each cell's own peak, and weight·dioptres:
            what `aggregation.py` sums over surfaces.
        relative: (B·N, 1, H/2, W/2) logarithm of each slice's sharpness against the sharpest's.
        energy: (B·N, 1, H, W) focus measure of each slice at full resolution, over 3×3.
        noise: (B, 1, 1, 1) standard deviation of the noise, of square-root light in 0..1.
    """

    diopters: Tensor
    sigma_diopters: Tensor
    known: Tensor
    moments: Tensor
    relative: Tensor
    energy: Tensor
    noise: Tensor


def ring_energy(grey: Tensor) -> Tensor:
    """Squared difference of 3×3 pixels to the ring around them up to 7×7, (N, 1, H, W) ≥ 0.

    Half the squared difference of a pixel to its 3×3 mean is added. Source: Jeon et al., 2020.
    """
    inner, outer = box(grey, 3), box(grey, 7)
    ring = (49 * outer - 9 * inner) / 40
    return (inner - ring) ** 2 + 0.5 * (grey - inner) ** 2


def focus_evidence(grey: Tensor, focus_diopters: Tensor) -> FocusEvidence:
    """Measure a sweep.

    Args:
        grey: (B, N, H, W) luminance of sRGB-encoded slices (about square roots of light), 0..1,
            aligned; H and W even. Slices may differ in brightness by a factor.
        focus_diopters: (B, N) rising. From fewer than three slices comes the sharper one's focus.
    """
    batch, count = grey.shape[:2]
    brightness = grey.mean((2, 3), keepdim=True)
    grey = grey * (brightness.mean(1, keepdim=True) / brightness.clamp_min(1e-6))
    noise = noise_level(grey).clamp_min(ROUNDING)
    energy = box(ring_energy(grey.reshape(batch * count, 1, *grey.shape[2:])), 3)
    above_noise = energy.view_as(grey) - NOISE_MARGIN * NOISE_GAIN * noise**2
    root = F.avg_pool2d(above_noise.clamp_min(0).sqrt(), 2)

    whole = (focus_diopters[:, -1:] - focus_diopters[:, :1])[:, :, None, None]
    found, sigmas, seen = [], [], []
    relative = root
    for index, side in enumerate(WINDOWS_CELLS):
        sharpness = box(root, side)
        width_px = 2 * side / 12**0.5  # the box's standard deviation
        error = NOISE_SPREAD * NOISE_GAIN**0.5 * noise * 3 / width_px
        diopters, sigma, known = _peak_with_sigma(sharpness, error, focus_diopters)
        sigma = torch.hypot(sigma, scatter(diopters, known, SCATTER_CELLS[index]))
        found.append(diopters)
        sigmas.append(torch.minimum(sigma, whole))
        seen.append(known)
        if index == 1:
            relative = torch.log(sharpness + error)
            relative = relative - relative.amax(1, keepdim=True)
    weight = ((SURE_SHARE * whole / sigmas[0]) ** 2).clamp_max(1.0) * seen[0]
    return FocusEvidence(torch.cat(found, 1), torch.cat(sigmas, 1), torch.cat(seen, 1),
                         torch.cat([weight, weight * found[0]], 1),
                         relative.reshape(batch * count, 1, *relative.shape[2:]), energy, noise)


def noise_level(grey: Tensor) -> Tensor:
    """Noise of (B, N, H, W) slices, (B, 1, 1, 1): what differs between neighbours, no structure."""
    batch, count, height, width = grey.shape
    kernel = grey.new_tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
    change = (grey[:, 1:] - grey[:, :-1]).reshape(batch * (count - 1), 1, height, width)
    rough = F.conv2d(change, kernel[None, None]).abs().view(batch, count - 1, -1)
    return (rough.median(2).values.amin(1) / 0.67449 / 2**0.5)[:, None, None, None]


def _peak_with_sigma(sharpness: Tensor, error: Tensor, focus: Tensor
                     ) -> tuple[Tensor, Tensor, Tensor]:
    """Peak in dioptres, its σ and whether there is one, (B, 1, h, w) each."""
    batch, count, height, width = sharpness.shape
    highest, top = sharpness.max(1, keepdim=True)
    lowest = sharpness.amin(1, keepdim=True)
    tiny = 1e-6 * highest.amax((2, 3), keepdim=True) + 1e-12
    positions = focus[:, :, None, None].expand(-1, -1, height, width)
    whole = (focus[:, -1:] - focus[:, :1])[:, :, None, None]
    if count < MIN_SLICES_OF_PEAK:
        diopters, bend, gap = positions.gather(1, top), torch.zeros_like(highest), whole
        at_end = torch.ones_like(top, dtype=torch.bool)
    else:
        middle = top.clamp(1, count - 2)
        x0, x1, x2 = (positions.gather(1, middle + k) for k in (-1, 0, 1))
        before, here, after = (torch.log(sharpness.gather(1, middle + k) + 0.3 * error + tiny)
                               for k in (-1, 0, 1))
        # Positions may be doubled by a wrong driver; they must not divide by zero.
        left, right = (x1 - x0).clamp_min(1e-4), (x2 - x1).clamp_min(1e-4)
        slope_before, slope_after = (here - before) / left, (after - here) / right
        bend = 2 * (slope_before - slope_after) / (left + right)
        slope = slope_before - bend * left / 2
        at_end = top != middle
        inside = ~at_end & (bend > 0)
        offset = slope / torch.where(inside, bend, torch.ones_like(bend))
        diopters = torch.where(inside, x1 + offset, positions.gather(1, top))
        gap = (left + right) / 2
    spread = torch.sqrt(TEXTURE_SPREAD**2 + (error / highest.clamp_min(1e-9)) ** 2)
    stands_out = (highest - lowest) / (spread * highest.clamp_min(1e-9))
    of_fit = gap * spread / (2**0.5 * (bend * gap**2).clamp_min(1e-4))
    variance = (of_fit**2 + (GAP_SHARE * gap) ** 2
                + torch.exp(-((stands_out / SURE_SPREADS) ** 2)) * (whole / 2) ** 2
                + at_end * (gap / 2) ** 2)
    known = highest - lowest > FEWEST_ERRORS * error + tiny
    middle_of_sweep = positions.mean(1, keepdim=True)
    return (torch.where(known, diopters, middle_of_sweep),
            torch.where(known, torch.minimum(variance.sqrt(), whole), whole.expand_as(highest)),
            known)
