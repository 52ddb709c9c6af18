"""Planes through the neighbourhood of every pixel: depth where focus tells little.

    planes = local_planes(diopters, sigma, rgb)       # planes.diopters, planes.sigma

A plane in space is an affine function of the pixel in *inverse* depth, so a wall or a floor that
is measured in some places is known in all of them. At 1/4 of the image, a plane is fitted to the
cells around each cell; a neighbour counts by how sure it is (1/σ²), how much it looks like the
cell in the picture, and whether its inverse depth lies within the uncertainties of the cell's: over
an edge of depth, or of colour, nothing is fitted.

Nothing is learned here and no gradient passes; the fusion weighs the result
(`attention_fusion.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CELL_PX = 4
RADIUS_CELLS = 16
STEP_CELLS = 2
"""Neighbours are taken at every second cell within the radius: 64 px around."""
COLOUR_DEVIATION = 0.03
"""Distance of sRGB-encoded colours, 0..1, at which a neighbour's weight is e^-1/2."""
GAP_FLOOR_DIOPTERS = 0.05
"""A difference of inverse depth that is never an edge, whatever the σ."""
SIGMA_FLOOR_DIOPTERS = 0.01
CORRELATED_CELLS = 20.0
"""How many neighbouring cells are wrong together: errors of depth from focus come in patches."""
SCATTER_SHARE = 0.1
"""What of the scatter about the plane counts as error of the plane."""
RIDGE = 0.0003
"""Of the slopes, in units of the total weight: a cell without neighbours gets a level plane."""


@dataclass(frozen=True)
class LocalPlanes:
    """Result, (B, 1, H, W) each, dioptres.

    Attributes:
        diopters: inverse depth of the cell's plane at the pixel; may be negative beyond a horizon.
        sigma: one standard deviation of it, as far as the fit can tell.
    """

    diopters: Tensor
    sigma: Tensor


@torch.no_grad()
def local_planes(diopters: Tensor, sigma: Tensor, rgb: Tensor) -> LocalPlanes:
    """Fit a plane around each cell of 4 x 4 px.

    Args:
        diopters: (B, 1, H, W) inverse depth, finite; H and W multiples of `CELL_PX`.
        sigma: its standard deviation, same shape, finite and ≥ 0, dioptres.
        rgb: (B, 3, H, W) sRGB-encoded picture, 0..1.

    Returns:
        planes in float32, evaluated at the pixels.

    Raises:
        ValueError: shapes differ, or are no multiples of a cell.
    """
    height, width = diopters.shape[-2:]
    if (sigma.shape != diopters.shape or rgb.shape[-2:] != diopters.shape[-2:]
            or height % CELL_PX or width % CELL_PX):
        raise ValueError(f"inverse depth of shape {tuple(diopters.shape)}, sigma "
                         f"{tuple(sigma.shape)}, picture {tuple(rgb.shape)}: must have one size, a "
                         f"multiple of {CELL_PX}; pad them")
    with torch.autocast(diopters.device.type, enabled=False):
        return _fit(diopters.float(), sigma.float(), rgb.float())


def _fit(diopters: Tensor, sigma: Tensor, rgb: Tensor) -> LocalPlanes:
    certainty = 1 / (sigma + SIGMA_FLOOR_DIOPTERS) ** 2
    weight = F.avg_pool2d(certainty, CELL_PX)
    d = F.avg_pool2d(certainty * diopters, CELL_PX) / weight
    cells = torch.cat([d, 1 / weight, F.avg_pool2d(rgb, CELL_PX)], 1)
    colour, variance = cells[:, 2:], cells[:, 1:2]
    reach = RADIUS_CELLS
    around = F.pad(cells, (reach,) * 4, value=-1.0)  # a variance < 0 marks what is outside
    rows, columns = d.shape[-2:]
    moments = [torch.zeros_like(d) for _ in range(6)]
    products = [torch.zeros_like(d) for _ in range(3)]
    squares = torch.zeros_like(d)
    for dy, dx in _offsets():
        near = around[:, :, reach + dy:reach + dy + rows, reach + dx:reach + dx + columns]
        gap, of_near = near[:, :1] - d, near[:, 1:2]
        unlike = ((near[:, 2:] - colour) ** 2).sum(1, keepdim=True) / (2 * COLOUR_DEVIATION**2)
        apart = gap**2 / (2 * (variance + of_near.clamp_min(0) + GAP_FLOOR_DIOPTERS**2))
        w = torch.where(of_near > 0, torch.exp(-unlike - apart) / of_near, torch.zeros_like(d))
        y, x = dy / reach, dx / reach
        for total, factor in zip(moments, (1, x, y, x * x, x * y, y * y), strict=True):
            total.add_(w, alpha=factor)
        # About the cell's own value: small numbers, so that float32 is enough for the squares.
        value = w * gap
        for total, factor in zip(products, (1, x, y), strict=True):
            total.add_(value, alpha=factor)
        squares.addcmul_(value, gap)
    (level, slope_x, slope_y), leverage = _solve(moments, products)
    explained = level * products[0] + slope_x * products[1] + slope_y * products[2]
    scatter = (squares - explained).clamp_min(0) / moments[0]
    spread = torch.sqrt(leverage * (CORRELATED_CELLS + SCATTER_SHARE * moments[0] * scatter))
    return LocalPlanes(_at_pixels(d + level, slope_x / reach, slope_y / reach),
                       F.interpolate(spread, scale_factor=float(CELL_PX), mode="bilinear"))


def _offsets() -> list[tuple[int, int]]:
    steps = range(-RADIUS_CELLS, RADIUS_CELLS + 1, STEP_CELLS)
    return [(y, x) for y in steps for x in steps if y * y + x * x <= RADIUS_CELLS**2]


def _solve(moments: list[Tensor], products: list[Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
    """Level and slopes by Cramer's rule, and the first diagonal term of the inverse.

    The ridge keeps the slopes' 2 x 2 block well above rounding.
    """
    n, x, y, xx, xy, yy = moments
    p, px, py = products
    xx, yy = xx + RIDGE * n, yy + RIDGE * n
    # Slopes about the weighted centre: the level drops out of their equations.
    a, b, c = xx - x * x / n, xy - x * y / n, yy - y * y / n
    u, v = px - x * p / n, py - y * p / n
    determinant = (a * c - b * b).clamp_min((0.5 * RIDGE * n) ** 2)
    slope_x, slope_y = (c * u - b * v) / determinant, (a * v - b * u) / determinant
    level = (p - slope_x * x - slope_y * y) / n
    mean_x, mean_y = x / n, y / n
    leverage = 1 / n + (c * mean_x**2 - 2 * b * mean_x * mean_y + a * mean_y**2) / determinant
    return (level, slope_x, slope_y), leverage


def _at_pixels(level: Tensor, slope_x: Tensor, slope_y: Tensor) -> Tensor:
    """Evaluate each cell's plane at the centres of its pixels; slopes per cell."""
    inside = (torch.arange(CELL_PX, device=level.device) + 0.5) / CELL_PX - 0.5
    rows, columns = level.shape[-2:]
    value = (level[..., :, None, :, None]
             + slope_y[..., :, None, :, None] * inside[:, None, None]
             + slope_x[..., :, None, :, None] * inside)
    return value.reshape(*level.shape[:2], rows * CELL_PX, columns * CELL_PX)
