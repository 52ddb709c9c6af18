"""Walls seen through a lens whose blur is a disc drawn in space: sweeps with a known blur gain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HEIGHT, WIDTH, FINE = 80, 96, 4
FOCUS = torch.tensor([0.4, 0.8, 1.4, 1.7, 2.4])


def texture(seed: int = 0, height: int = FINE * HEIGHT, width: int = FINE * WIDTH) -> Tensor:
    """Light of a 1/f texture, (H, W) about 0.3, finer than the pixels."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.fft.rfft2(torch.randn(height, width, generator=generator))
    frequency = frequencies(height, width).clamp_min(0.05 / FINE)
    grown = torch.fft.irfft2(noise / frequency, s=(height, width))
    return (0.3 + 0.08 * grown / grown.std()).clamp(0.02, 1)


def frequencies(height: int, width: int) -> Tensor:
    y = torch.fft.fftfreq(height)[:, None] * 2 * math.pi
    return torch.hypot(y, torch.fft.rfftfreq(width)[None] * 2 * math.pi)


def sweep(diopters: float, gain: float, focus: Tensor = FOCUS, noise: float = 1e-4, seed: int = 0
          ) -> Tensor:
    """A wall at 1/`diopters` seen through a lens of `gain` px·m: (1, N, H, W) light.

    The blur is a uniform disc drawn in space on a grid four times as fine, whose squares are then
    averaged as pixels do: not the formula that is under test.
    """
    sharp, generator = texture(seed), torch.Generator().manual_seed(seed + 1)
    slices = [disc_blurred(sharp, FINE * gain * abs(float(f) - diopters)) for f in focus]
    stack = torch.nn.functional.avg_pool2d(torch.stack(slices)[None], FINE)[0]
    return (stack + noise * torch.randn(stack.shape, generator=generator)).clamp_min(0)[None]


def disc_blurred(image: Tensor, diameter_px: float) -> Tensor:
    reach = math.ceil(diameter_px / 2) + 1
    fine = (np.arange((2 * reach + 1) * 8) + 0.5) / 8 - reach - 0.5
    inside = np.hypot(fine[:, None], fine[None]) <= max(diameter_px / 2, 1e-6)
    kernel = inside.reshape(2 * reach + 1, 8, 2 * reach + 1, 8).sum((1, 3)).astype(np.float32)
    if kernel.sum() == 0:
        return image
    weight = torch.from_numpy(kernel / kernel.sum())[None, None]
    padded = torch.nn.functional.pad(image[None, None], (reach,) * 4, mode="circular")
    return torch.nn.functional.conv2d(padded, weight)[0, 0]


def encoded(light: Tensor) -> NDArray[Any]:
    """(1, N, H, W) light to (N, H, W, 3) sRGB counts."""
    x = light[0].clamp(0, 1)
    srgb = torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    counts = (srgb * 255).round().byte()
    return counts[..., None].expand(-1, -1, -1, 3).contiguous().numpy()
