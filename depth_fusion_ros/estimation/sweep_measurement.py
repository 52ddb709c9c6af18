"""What a focus sweep measures without learning, by all that is known of the lens.

    gain_px_m = sweep_blur_gain(stack, focus_diopters, told_px_m)
    diopters, sigma_diopters = measure_sweep(stack, focus_diopters, gain_px_m)

How wide the lens blurs is told by its data or measured (`networks/blur_gain.py`). Where it is
known, the depth whose blur explains every slice (`networks/defocus_evidence.py`), of the window
whose σ is least; elsewhere, and where it says nothing, the sharpest slice
(`optics/shape_from_focus.py`).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from depth_fusion_ros.networks.blur_gain import measured_blur_gain
from depth_fusion_ros.networks.defocus_evidence import defocus_evidence
from depth_fusion_ros.networks.focus_volume import linear_luminance
from depth_fusion_ros.optics.shape_from_focus import shape_from_focus

SURROUNDINGS_PX = 11
"""Blur mixes near and far at an edge of depth: σ counts what scatters within such a square."""

Image = NDArray[np.float32]


def sweep_blur_gain(stack: NDArray[np.uint8], focus_diopters: NDArray[np.float32],
                    told_px_m: float) -> float:
    """`measured_blur_gain` of (N, H, W, 3) sRGB slices, px·m; 0 = not known."""
    pixels = torch.from_numpy(stack).permute(0, 3, 1, 2)[None] / 255.0
    return measured_blur_gain(linear_luminance(pixels)[0], torch.from_numpy(focus_diopters),
                              told_px_m)


def measure_sweep(stack: NDArray[np.uint8], focus_diopters: NDArray[np.float32],
                  blur_gain_px_m: float = 0.0,
                  unaligned: tuple[NDArray[np.uint8], NDArray[np.float64]] | None = None
                  ) -> tuple[Image, Image]:
    """Inverse depth of each pixel and its standard deviation, NaN where nothing is measured.

    Args:
        stack, focus_diopters, unaligned: as of `shape_from_focus`, focus rising.
        blur_gain_px_m: aperture diameter · focal length in px, of the pixels of `stack`; ≤ 0 or
            NaN = not known.

    Returns:
        diopters, sigma_diopters: (H, W) float32. Diopters lie within the sweep; at its ends the
        truth may lie beyond, and σ is at least half a gap there.

    Raises:
        ValueError: as `shape_from_focus`.
    """
    diopters, sigma = shape_from_focus(stack, focus_diopters, unaligned=unaligned)
    if not (math.isfinite(blur_gain_px_m) and blur_gain_px_m > 0):
        return diopters, sigma
    by_blur, sigma_by_blur = _by_blur(stack, focus_diopters, blur_gain_px_m)
    found = np.isfinite(by_blur)
    return np.where(found, by_blur, diopters), np.where(found, sigma_by_blur, sigma)


def _by_blur(stack: NDArray[np.uint8], focus: NDArray[np.float32], gain_px_m: float
             ) -> tuple[Image, Image]:
    """`measure_sweep` through the lens alone."""
    height, width = stack.shape[1:3]
    pixels = torch.from_numpy(stack).permute(0, 3, 1, 2)[None] / 255.0
    pixels = F.pad(pixels.flatten(0, 1), (0, width % 2, 0, height % 2), mode="replicate")[None]
    evidence = defocus_evidence(linear_luminance(pixels), torch.from_numpy(focus)[None],
                                torch.tensor([gain_px_m]))
    known = evidence.known[0]
    sigmas = torch.where(known, evidence.sigma_diopters[0], torch.inf)
    best = sigmas.argmin(0, keepdim=True)
    cells = torch.stack([evidence.diopters[0].gather(0, best)[0], sigmas.gather(0, best)[0]])
    # Means of neighbours where all of them know, else each pixel its own cell.
    smooth = F.interpolate(cells[None], scale_factor=2.0, mode="bilinear", align_corners=False)[0]
    own = cells.repeat_interleave(2, 1).repeat_interleave(2, 2)
    diopters, sigma = torch.where(torch.isfinite(smooth[1]), smooth, own)[:, :height, :width]
    beyond = (diopters < focus[0]) | (diopters > focus[-1])
    gaps = torch.from_numpy(np.diff(focus))
    end_gap = torch.where(diopters < focus[0], gaps[0], gaps[-1])
    sigma = torch.where(beyond, torch.hypot(sigma, end_gap / 2), sigma)
    unknown = ~torch.isfinite(sigma)
    diopters = diopters.clamp(float(focus[0]), float(focus[-1])).masked_fill(unknown, torch.nan)
    sigma = sigma.masked_fill(unknown, torch.nan)
    return diopters.numpy(), np.hypot(sigma.numpy(), _scatter(diopters.numpy()))


def _scatter(values: Image) -> Image:
    """Standard deviation of what is finite within `SURROUNDINGS_PX`, (H, W)."""
    side = (SURROUNDINGS_PX, SURROUNDINGS_PX)
    known = cv2.blur(np.isfinite(values).astype(np.float32), side)
    filled = np.nan_to_num(values)
    mean, square = (cv2.blur(v, side) / np.maximum(known, 1e-6) for v in (filled, filled * filled))
    return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0)), np.float32)
