"""Surfaces of the evaluation places: families of texture that training does not draw.

Training tiles (`textures.py`) are spectral noise, dead leaves, gratings, warped rings, dots, grey
mosaics and marks. Here: Voronoi cells, planks with rings, plaster, bricks, printed text,
chessboards, weave, marble and smooth gradients, all from lattice noise and geometry. No photograph
enters.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depth_fusion_ros.simulation.textures import TILE_PX

Pattern = NDArray[np.float64]
_AXIS = (np.arange(TILE_PX) + 0.5) / TILE_PX
_X, _Y = np.meshgrid(_AXIS, _AXIS)


def surface_tile(family: str, random: np.random.Generator) -> Tensor:
    """Draw one albedo tile of a family.

    Args:
        family: a name in `FAMILIES`. random: same state, same tile.

    Returns:
        (TILE_PX, TILE_PX, 3) float32 linear albedo in [0.02, 0.95].

    Raises:
        ValueError: no such family.
    """
    if family not in FAMILIES:
        raise ValueError(f"texture family {family!r}: use one of {', '.join(FAMILIES)}")
    maker, contrast = FAMILIES[family]
    pattern = maker(random)
    low, high = contrast
    spread = random.uniform(low, high)
    middle = math.exp(random.uniform(math.log(0.08), math.log(0.6)))
    tint = 1 + random.uniform(-0.22, 0.22, (2, 3))
    dark, bright = middle * (1 - spread) * tint[0], middle * (1 + spread) * tint[1]
    albedo = dark + pattern[..., None] * (bright - dark)
    return torch.from_numpy(albedo.clip(0.02, 0.95).astype(np.float32))


def _lattice_noise(random: np.random.Generator, cells: int) -> Pattern:
    """Periodic value noise: random numbers on a lattice, smoothly interpolated, 0..1."""
    values = random.random((cells, cells))
    position = _AXIS * cells
    index = position.astype(int)
    share = position - index
    share = share * share * (3 - 2 * share)
    after = (index + 1) % cells
    index %= cells
    rows = values[index] * (1 - share)[:, None] + values[after] * share[:, None]
    noise: Pattern = rows[:, index] * (1 - share) + rows[:, after] * share
    return noise


def _octaves(random: np.random.Generator, first: int, count: int, decay: float = 0.5) -> Pattern:
    """Sum of lattice noises at doubling frequencies, 0..1 by construction."""
    weights = decay ** np.arange(count)
    total = sum(w * _lattice_noise(random, first * 2**i) for i, w in enumerate(weights))
    return np.asarray(total / weights.sum())


def _nearest_seeds(random: np.random.Generator, count: int) -> tuple[Pattern, Pattern]:
    """Index of the nearest of `count` seeds and the gap to the second, on the torus."""
    first = np.full((TILE_PX, TILE_PX), np.inf)
    second, owner = first.copy(), np.zeros_like(first)
    for number, (x, y) in enumerate(random.random((count, 2))):
        across, along = ((_AXIS - at + 0.5) % 1 - 0.5 for at in (x, y))
        squared = across**2 + (along**2)[:, None]
        nearer = squared < first
        second = np.minimum(second, np.maximum(first, squared))
        owner[nearer] = number
        first = np.minimum(first, squared)
    return owner, np.sqrt(second) - np.sqrt(first)


def _voronoi(random: np.random.Generator) -> Pattern:
    """Cells of random tone with dark seams: terrazzo, cobbles, giraffe."""
    count = int(random.integers(25, 160))
    owner, gap = _nearest_seeds(random, count)
    tone = random.random(count)[owner.astype(int)]
    seam = random.uniform(0.0, 0.012)
    return np.where(gap < seam, 0.0, 0.15 + 0.85 * tone)


def _planks(random: np.random.Generator) -> Pattern:
    """Boards cut beside the heart of a tree: arcs of distorted rings, dark joints."""
    boards = int(random.integers(2, 6))
    column = (_X * boards).astype(int)
    heart = random.uniform(-1.5, 1.5, (boards, 2))[column]
    bend = 0.08 * _octaves(random, 3, 3)
    radius = np.hypot((_X * boards) % 1 - heart[..., 0], 0.25 * (_Y - heart[..., 1])) + bend
    rings = (radius * random.uniform(8, 18)) % 1
    joint = ((_X * boards) % 1) < 0.025
    tone = random.uniform(0.7, 1.0, boards)[column]
    boarded = np.where(joint, 0.0, tone * (1 - 0.75 * rings**2))
    return boarded if random.random() < 0.5 else boarded.T


def _plaster(random: np.random.Generator) -> Pattern:
    """A rough coat under raking light: the slope of lattice noise."""
    height = _octaves(random, int(random.integers(12, 40)), 3, 0.7)
    angle = random.uniform(0, 2 * math.pi)
    slope = (math.cos(angle) * (np.roll(height, 1, 1) - height)
             + math.sin(angle) * (np.roll(height, 1, 0) - height))
    return np.asarray((0.5 + slope / (6 * slope.std())).clip(0, 1))


def _bricks(random: np.random.Generator) -> Pattern:
    """Running bond: bricks of varying tone, light mortar."""
    rows = 2 * int(random.integers(3, 9))
    columns = max(2, rows // 2)
    row = (_Y * rows).astype(int)
    along = _X * columns + 0.5 * (row % 2)
    tone = random.uniform(0.0, 0.6, (rows, columns))[row, along.astype(int) % columns]
    mortar = ((_Y * rows) % 1 < 0.12) | (along % 1 < 0.06)
    return np.where(mortar, 1.0, tone + 0.2 * _octaves(random, 32, 2))


def _text(random: np.random.Generator) -> Pattern:
    """A printed page: words of random strokes in lines, ragged at the right."""
    page = np.ones((TILE_PX, TILE_PX))
    size = int(random.integers(6, 15))  # height of a letter, texels
    ink = max(1, size // 6)
    for top in range(size // 2, TILE_PX - 2 * size, 2 * size):
        left = size
        line_end = int(random.uniform(0.6, 1.0) * TILE_PX) - size
        while left < line_end:
            if random.random() < 0.18:  # space between words
                left += size
                continue
            for _ in range(int(random.integers(2, 4))):
                shift_x, shift_y = random.integers(0, max(1, size // 2), 2)
                if random.random() < 0.5:  # upright stroke, else level stroke
                    page[top:top + size, left + shift_x:left + shift_x + ink] = 0
                else:
                    page[top + 2 * shift_y:top + 2 * shift_y + ink, left:left + size // 2 + 1] = 0
            left += size // 2 + 1 + ink
    return page


def _chessboard(random: np.random.Generator) -> Pattern:
    """A printed calibration board: strictly alternating squares with a white margin."""
    count = 2 * int(random.integers(3, 9))
    inside = (np.abs(_X - 0.5) < 0.47) & (np.abs(_Y - 0.5) < 0.47)
    black = ((_X * count).astype(int) + (_Y * count).astype(int)) % 2 == 0
    return np.where(inside & black, 0.0, 1.0)


def _weave(random: np.random.Generator) -> Pattern:
    """Plain weave: threads over and under, rounded by shading, uneven in tone."""
    count = 2 * int(random.integers(8, 22))
    across, along = _X * count, _Y * count
    over = (across.astype(int) + along.astype(int)) % 2 == 0
    warp = random.uniform(0.5, 1.0, count)[across.astype(int)]
    weft = random.uniform(0.5, 1.0, count)[along.astype(int)]
    round_warp, round_weft = np.sin(math.pi * (across % 1)), np.sin(math.pi * (along % 1))
    return np.asarray(np.where(over, warp * round_warp, weft * round_weft))


def _marble(random: np.random.Generator) -> Pattern:
    """Veins where folded turbulence crosses zero."""
    fold = np.abs(2 * _octaves(random, int(random.integers(3, 7)), 4, 0.6) - 1)
    return np.asarray((1 - np.exp(-fold * random.uniform(8, 25))).clip(0, 1))


def _gradient(random: np.random.Generator) -> Pattern:
    """Nothing to match: one slow period of light and dark."""
    phase_x, phase_y = random.uniform(0, 1, 2)
    share = random.uniform(0.2, 0.8)
    waves = (share * np.cos(2 * math.pi * (_X + phase_x))
             + (1 - share) * np.cos(2 * math.pi * (_Y + phase_y)))
    return np.asarray(0.5 + 0.5 * waves)


FAMILIES: dict[str, tuple[Callable[[np.random.Generator], Pattern], tuple[float, float]]] = {
    "voronoi": (_voronoi, (0.3, 0.8)),
    "planks": (_planks, (0.2, 0.6)),
    "plaster": (_plaster, (0.04, 0.2)),
    "bricks": (_bricks, (0.3, 0.6)),
    "text": (_text, (0.6, 0.9)),
    "chessboard": (_chessboard, (0.6, 0.9)),
    "weave": (_weave, (0.3, 0.7)),
    "marble": (_marble, (0.3, 0.7)),
    "gradient": (_gradient, (0.1, 0.4)),
}
"""Name → maker of a pattern in 0..1 and the range of its contrast."""
