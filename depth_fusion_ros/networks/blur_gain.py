"""How wide does a lens blur? The blur gain of a focus sweep, measured from its own slices.

`defocus_evidence.py` needs the blur gain, and an f-number is nominal, forgotten or of another
binning. With a wrong gain no depth explains all slices, so the right one leaves least unexplained:

    K = argmin over K of the mean over the picture of ln min over Z of residual²(Z; K)

The picture is a part of the slices, and slices and candidate depths are few: one number is sought
from thousands of pixels. Ours; constants were chosen on simulated rooms (`simulation/rooms.py`),
not on any evaluation set.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from depth_fusion_ros.networks.defocus_evidence import (
    MARGIN_SHARE,
    ROUNDING_VARIANCE,
    unexplained,
)
from depth_fusion_ros.networks.evidence import box

HEIGHT_PX, WIDTH_PX = 128, 160
"""Of the part that is looked at."""
MOST_SLICES = 5
CANDIDATES = 16
WINDOW_CELLS = 5
STEP = 1.2
"""Ratio of neighbouring gains."""
BLUR_SPANS_PX = (0.8, 40.0)
"""Blur from one end of the sweep to the other: where a gain nobody told is sought."""
LEAST_DEPTH = 0.05
"""A minimum's neighbours lie together this much higher; on blank walls they do not."""
WRONG_BY = 1.15
"""A told gain is believed within this factor of the measured one."""


def measured_blur_gain(light: Tensor, focus_diopters: Tensor, told_px_m: float = 0.0) -> float:
    """Blur gain to use for a sweep, px·m: the told one, unless the slices say otherwise.

    Args:
        light: (N, H, W) linear luminance, aligned, N ≥ 3. focus_diopters: (N,) rising; any unit
            that is linear in dioptres will do, the gain is then per such unit.
        told_px_m: what the lens's data say; ≤ 0 or not finite = nothing.

    Returns:
        `told_px_m` where the slices agree with it within `WRONG_BY` or cannot tell; what they say
        where they do not agree, or nothing was told; 0.0 where nothing is known.
    """
    told = told_px_m if math.isfinite(told_px_m) and told_px_m > 0 else 0.0
    span = float(focus_diopters[-1] - focus_diopters[0])
    if len(light) < 3 or span <= 0:
        return told
    part, focus = _part(light, focus_diopters)
    scores: dict[int, float] = {}
    low, high = (math.log(px / span) / math.log(STEP) for px in BLUR_SPANS_PX)
    origin = math.log(told) / math.log(STEP) if told else (low + high) / 2

    def score(step: int) -> float:
        if step not in scores:
            scores[step] = _score(part, focus, STEP ** (origin + step))
        return scores[step]

    def untold() -> float:
        # Millimetres for metres: so far off no step in either direction looks better.
        if not told or low <= origin <= high:
            return told
        return measured_blur_gain(light, focus_diopters) or told

    best = 0
    if not told:
        reach = int((high - low) / 4)
        best = min((2 * step for step in range(-reach, reach + 1)), key=score)
    while not score(best) <= min(score(best - 1), score(best + 1)):
        best += 1 if score(best + 1) < score(best - 1) else -1
        if not low - 1 < origin + best < high + 1:
            return untold()
    before, here, after = (score(best + k) for k in (-1, 0, 1))
    bend = before + after - 2 * here
    if bend < LEAST_DEPTH:
        return untold()
    measured: float = STEP ** (origin + best + 0.5 * (before - after) / bend)
    agrees = told and 1 / WRONG_BY < measured / told < WRONG_BY
    return told if agrees else measured


def _part(light: Tensor, focus: Tensor) -> tuple[Tensor, Tensor]:
    """The middle of the picture, of slices spread over the sweep: (1, n, h, w), (1, n)."""
    count, height, width = light.shape
    used = torch.linspace(0, count - 1, min(count, MOST_SLICES)).round().long()
    h, w = (min(size, side) // 2 * 2 for size, side in ((height, HEIGHT_PX), (width, WIDTH_PX)))
    top, left = (height - h) // 2, (width - w) // 2
    return light[used, top:top + h, left:left + w][None], focus[used][None]


def _score(light: Tensor, focus: Tensor, gain_px_m: float) -> float:
    """Mean logarithm of what the best depths leave unexplained."""
    low, high = focus[:, :1], focus[:, -1:]
    margin = MARGIN_SHARE * (high - low)
    share = torch.linspace(0, 1, CANDIDATES, device=focus.device)
    first = (low - margin).clamp_min(0.0)
    candidates = first + (high + margin - first) * share
    gain = torch.tensor([gain_px_m], device=light.device)
    least = box(unexplained(light, focus, gain, candidates)[0], WINDOW_CELLS).amin(1)
    return float(torch.log(least + ROUNDING_VARIANCE).mean())
