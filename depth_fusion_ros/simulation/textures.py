"""Procedural albedo tiles: 1/f noise, dead leaves, stripes, wood, dots, tiles, marks and plain.

All textures are synthesised from random numbers; no photograph enters training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TILE_PX = 256
PLAIN_SHARE = 0.1
GRAIN_SHARE = 0.6


def make_atlas(tiles: int, generator: torch.Generator) -> Tensor:
    """Synthesise an atlas of albedo tiles, all periodic at the tile border.

    Args:
        tiles: number of tiles T.
        generator: CPU random generator; the same state gives the same atlas.

    Returns:
        (T, TILE_PX, TILE_PX, 3) float32 linear albedo in [0.01, 1].
    """
    makers = (_power_law, _power_law, _dead_leaves, _dead_leaves, _stripes, _wood, _dots,
              _checker, _marks)
    out = torch.empty(tiles, TILE_PX, TILE_PX, 3)
    for index in range(tiles):
        if _uniform(generator) < PLAIN_SHARE:
            pattern = 0.04 * _power_law(generator) + 0.48
            contrast = 0.3
        else:
            maker = makers[int(torch.randint(len(makers), (1,), generator=generator))]
            pattern = maker(generator)
            contrast = math.exp(_uniform(generator, math.log(0.35), 0.0))
        if _uniform(generator) < GRAIN_SHARE:
            pattern = _with_grain(pattern, generator)
        out[index] = _colourise(pattern, contrast, generator)
    return out.clamp_(0.01, 1.0)


def _uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand(1, generator=generator))


def _unit_range(pattern: Tensor) -> Tensor:
    """Map the 1st..99th percentile to 0..1."""
    low, high = torch.quantile(pattern.flatten()[::7], torch.tensor([0.01, 0.99]))
    scaled: Tensor = (pattern - low) / (high - low + 1e-6)
    return scaled.clamp(0.0, 1.0)


def _colourise(pattern: Tensor, contrast: float, generator: torch.Generator) -> Tensor:
    """Blend between two random colours; (P, P) in 0..1 to (P, P, 3) linear albedo."""
    base = 0.05 + 0.75 * torch.rand(1, generator=generator)
    tint = 0.6 * (torch.rand(2, 3, generator=generator) - 0.5)
    low = (base * (1 - 0.8 * contrast) * (1 + tint[0])).clamp(0.01, 1)
    high = (base * (1 + 0.8 * contrast) * (1 + tint[1])).clamp(0.01, 1)
    if _uniform(generator) < 0.25:  # strongly coloured pairs, nearly equal luminance included
        low, high = torch.rand(2, 3, generator=generator) * 0.8 + 0.05
    return low + pattern[..., None] * (high - low)


def _with_grain(pattern: Tensor, generator: torch.Generator) -> Tensor:
    """Fine grain over any pattern: plaster, weave, sand. Real surfaces are seldom blank."""
    grain = torch.randn(TILE_PX, TILE_PX, generator=generator)
    strength = math.exp(_uniform(generator, math.log(0.02), math.log(0.2)))
    return (pattern + strength * grain).clamp(0.0, 1.0)


def _frequencies() -> tuple[Tensor, Tensor]:
    freq = torch.fft.fftfreq(TILE_PX) * TILE_PX
    return freq[:, None], freq[None, :]


def _power_law(generator: torch.Generator) -> Tensor:
    """Gaussian noise with amplitude 1/f^β, β in 0.5..1.9, sometimes anisotropic."""
    beta = _uniform(generator, 0.5, 1.9)
    stretch = math.exp(_uniform(generator, -1.2, 1.2)) if _uniform(generator) < 0.4 else 1.0
    fy, fx = _frequencies()
    radius = torch.sqrt((fx * stretch) ** 2 + (fy / stretch) ** 2).clamp_min(1.0)
    spectrum = torch.fft.fft2(torch.randn(TILE_PX, TILE_PX, generator=generator))
    return _unit_range(torch.fft.ifft2(spectrum / radius**beta).real)


def _grid() -> tuple[Tensor, Tensor]:
    axis = torch.arange(TILE_PX, dtype=torch.float32) / TILE_PX
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return y, x


def _dead_leaves(generator: torch.Generator) -> Tensor:
    """Occluding discs with power-law radii, the simplest model of natural-image statistics."""
    y, x = _grid()
    out = torch.full((TILE_PX, TILE_PX), 0.5)
    count = int(_uniform(generator, 60, 220))
    r_min = _uniform(generator, 0.006, 0.03)
    u = torch.rand(count, 4, generator=generator)
    radii = r_min / torch.sqrt(1 - u[:, 0] * (1 - (r_min / 0.35) ** 2))
    for index in range(count):
        dx = (x - u[index, 1] + 0.5) % 1.0 - 0.5
        dy = (y - u[index, 2] + 0.5) % 1.0 - 0.5
        out = torch.where(dx * dx + dy * dy < radii[index] ** 2, u[index, 3], out)
    return out


def _stripes(generator: torch.Generator) -> Tensor:
    """Periodic stripes or a grating at a random lattice direction: the repeated-pattern trap."""
    y, x = _grid()
    nx, ny = torch.randint(-14, 15, (2,), generator=generator).tolist()
    if nx == 0 and ny == 0:
        nx = 9
    wave = torch.sin(2 * math.pi * (nx * x + ny * y) + 6.3 * _uniform(generator))
    return (wave * math.exp(_uniform(generator, 0, 2.5))).clamp(-1, 1) * 0.5 + 0.5


def _wood(generator: torch.Generator) -> Tensor:
    """Warped rings with fine grain."""
    warp = _power_law(generator)
    _, x = _grid()
    rings = torch.sin(2 * math.pi * (int(_uniform(generator, 2, 9)) * x + 2.5 * warp))
    return (0.35 * rings + 0.5 + 0.3 * (_power_law(generator) - 0.5)).clamp(0, 1)


def _dots(generator: torch.Generator) -> Tensor:
    """A regular or jittered lattice of soft dots."""
    y, x = _grid()
    count = int(_uniform(generator, 5, 24))
    jitter = 0.6 * _uniform(generator) * (_power_law(generator) - 0.5)
    cell_x = (x * count + jitter) % 1.0 - 0.5
    cell_y = (y * count) % 1.0 - 0.5
    radius = _uniform(generator, 0.15, 0.4)
    distance = torch.sqrt(cell_x**2 + cell_y**2)
    return ((radius - distance) * 12).clamp(-1, 1) * 0.5 + 0.5


def _checker(generator: torch.Generator) -> Tensor:
    """Tiles with random grey values and dark joints."""
    y, x = _grid()
    count = int(_uniform(generator, 3, 16))
    values = torch.rand(count, count, generator=generator)
    column, row = (x * count).long(), (y * count).long()
    joint = ((x * count) % 1.0 < 0.07) | ((y * count) % 1.0 < 0.07)
    grain = 0.2 * (_power_law(generator) - 0.5)
    return torch.where(joint, torch.tensor(0.05), values[row, column] + grain).clamp(0, 1)


def _marks(generator: torch.Generator) -> Tensor:
    """Sparse dark marks on a plain ground, like print or scratches."""
    field = _power_law(generator)
    threshold = torch.quantile(field.flatten()[::7], _uniform(generator, 0.8, 0.95))
    return 1.0 - ((field - threshold) * 25).clamp(0, 1)
