"""Stand-ins for monocular priors better than ours: the true shape with errors of their kind.

A user may bring a large network in place of the shipped prior (`estimation/priors.py`), and none of
those can be run here: nothing may be downloaded. A fusion that has only met a weak prior learns to
leave every prior out. So for a share of its training sweeps the prior is the true inverse depth
with what such networks get wrong: scale and shift unknown, a bent tone curve, smooth regional
errors, soft edges. A benchmark row made with one says so (`evaluation/learned_sweeps.py`); no node
has any.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from depth_fusion_ros.networks.alignment import median_and_spread, normalise_prior
from depth_fusion_ros.training.sweep_data import uniform_draws

LEVELS = (0.05, 0.6)
"""Regional error, one standard deviation in units of the scene's mean absolute deviation."""
BEND = 0.4
"""Most by which the logarithm of the tone curve's exponent differs from 0."""
REGIONS = ((3, 4), (6, 8))
"""Cells of the regional errors, rows and columns; the finer ones are half as large."""
SOFT_PX = (1, 3, 5)
"""Windows over which edges may be averaged."""


def stand_in_prior(inverse_depth: Tensor, valid: Tensor, generator: torch.Generator, *,
                   level: float | None = None) -> Tensor:
    """Relative inverse depth as a good monocular network might give it.

    Args:
        inverse_depth: (B, 1, H, W) truth, any finite or infinite number where it is not valid.
        valid: (B, 1, H, W) bool. generator: same state, same stand-ins.
        level: regional error in the unit of `LEVELS`; None = drawn for each.

    Returns:
        (B, 1, H, W) finite, median about 0 and mean absolute deviation 1; larger = nearer. Where
        there is no truth it is about the scene's median.
    """
    batch, _, height, width = inverse_depth.shape
    uniform = uniform_draws(batch, generator)
    median = torch.where(valid, inverse_depth, torch.nan).flatten(1).nanmedian(1).values
    median = median.nan_to_num(0.0)[:, None, None, None]
    shape = normalise_prior(torch.where(valid, inverse_depth, median))
    low, high = shape.amin((2, 3), keepdim=True), shape.amax((2, 3), keepdim=True)
    exponent = torch.exp(uniform(-BEND, BEND))[:, None, None, None]
    tone = ((shape - low) / (high - low).clamp_min(1e-6)) ** exponent
    soft = torch.randint(len(SOFT_PX), (batch,), generator=generator)
    tone = torch.cat([_averaged(t[None], SOFT_PX[int(n)]) for t, n in zip(tone, soft)])
    levels = torch.exp(uniform(*map(math.log, LEVELS)))[:, None, None, None]
    if level is not None:
        levels = torch.full_like(levels, level)
    error = torch.zeros_like(tone)
    for number, cells in enumerate(REGIONS):
        coarse = torch.randn(batch, 1, *cells, generator=generator)
        error += 0.5**number * F.interpolate(coarse, (height, width), mode="bicubic",
                                             align_corners=False)
    error = error / error.flatten(1).std(1)[:, None, None, None]
    return normalise_prior(normalise_prior(tone) + levels * error)


def draw_stand_ins(inverse_depth: Tensor, valid: Tensor, share: float,
                   generator: torch.Generator) -> Tensor:
    """`stand_in_prior` for a drawn `share` of the sweeps of a batch, NaN for all others."""
    stand_ins = stand_in_prior(inverse_depth, valid, generator)
    drawn = torch.rand(len(valid), generator=generator) < share
    return torch.where(drawn[:, None, None, None], stand_ins, torch.nan)


def with_stand_ins(prior: Tensor, stand_ins: Tensor) -> Tensor:
    """The network's own priors (B, 1, H, W), and stand-ins where those are not NaN.

    A stand-in gets the median and spread of the prior that it replaces: fusions that take numbers
    as they are meet the range that they know.
    """
    median, spread = median_and_spread(prior)
    return torch.where(stand_ins.isnan(), prior, median + spread * stand_ins)


def _averaged(x: Tensor, window_px: int) -> Tensor:
    padded = F.pad(x, (window_px // 2,) * 4, mode="replicate")
    return F.avg_pool2d(padded, window_px, 1)
