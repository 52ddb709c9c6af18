"""How the picture of a board that stands still answers to a lens that is stepped through focus.

    latency = latency_frames([trace, …])           # one trace a distance
    peaks = focus_peaks(trace, latency.frames)     # where the board is sharpest, going up and down

A *trace* is one number per image (sharpness of the board) beside the focus that was reported for
it. The lens is stepped and held: within a hold the picture does not change once it has arrived,
so the shift of the reports under which pictures of one hold differ least is the latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.optics.robust_fit import damped_least_squares

MAX_LATENCY_FRAMES = 10
SAME_FOCUS_DIOPTERS = 1e-3
"""Reports that differ by less are one position."""
MIN_LEVELS = 5
CLEAR_RATIO = 1.5
"""A neighbouring shift must leave so many times the scatter, or the latency is not clear."""
SMOOTH_PX = 1.2
PIXEL_VARIANCE = 1 / 12 + 1 / 3
"""Of what blurs a gradient whatever the smoothing, px²: the pixel, and a difference over 2 px."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """One board, standing still, through a sweep.

    Attributes:
        reported_diopters: (N,) focus as reported with each image, in order of time.
        sharpness: (N,) > 0, of the board; see `board_sharpness`.
    """

    reported_diopters: Numbers
    sharpness: Numbers


@dataclass(frozen=True)
class Latency:
    """From a report to the image that shows it.

    Attributes:
        frames: images, or None where nothing was held long enough to tell.
        scatter: (L + 1,) mean scatter of log sharpness within holds for each shift tried.
        clear: whether the neighbouring shifts are clearly worse.
    """

    frames: int | None
    scatter: Numbers
    clear: bool


@dataclass(frozen=True)
class FocusPeak:
    """Where a board is sharpest.

    Attributes:
        reported_diopters, error_diopters: position and its standard error, as reported.
        direction: +1 where the reports rose (towards near), −1 where they fell.
        levels, sharpness: the points it was found from, (M,) each. fitted: (M,) the curve there.
    """

    reported_diopters: float
    error_diopters: float
    direction: int
    levels: Numbers
    sharpness: Numbers
    fitted: Numbers


def board_sharpness(grey: NDArray[Any], window: NDArray[np.floating],
                    growth: float = 1.0) -> float:
    """Mean squared gradient of a print, of a picture normalised by its mean.

    A lens that breathes shows the print larger as it focuses nearer. Its picture is therefore
    smoothed as much more as it has grown, and gradients are counted per length of the print:
    what is left depends on the defocus alone, and that to both sides alike.

    Args:
        grey, window: (H, W) picture and weights. growth: size of the picture, relative.
    """
    sigma_px = float(np.sqrt((SMOOTH_PX**2 + PIXEL_VARIANCE) * growth**2 - PIXEL_VARIANCE))
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), sigma_px)
    total = float(window.sum())
    level = max(float((window * smooth).sum()) / total, 1e-6)
    along_x, along_y = (cv2.Sobel(smooth, cv2.CV_32F, dx, 1 - dx, ksize=1) for dx in (1, 0))
    energy = float((window * (along_x**2 + along_y**2)).sum()) / total
    return energy * growth**2 / level**2 + 1e-12


def latency_frames(traces: Sequence[Trace], most: int = MAX_LATENCY_FRAMES) -> Latency:
    """Find by how many images the pictures lag behind the reports.

    Args:
        traces: of boards that stand still, stepped and held; before its first step the lens is
            taken to rest where it was reported.
        most: longest latency tried; a hold must be longer than the latency itself.
    """
    costs = np.full(most + 1, np.nan)
    held = any(_typical_hold(t.reported_diopters) >= 2 and len(_runs(t.reported_diopters)) >= 3
               for t in traces)
    if not held:
        return Latency(None, costs, False)
    for shift in range(most + 1):
        parts = [_scatter(trace, shift) for trace in traces]
        costs[shift] = float(np.mean(np.concatenate(parts)))
    best = int(np.argmin(costs))
    beside = [costs[i] for i in (best - 1, best + 1) if 0 <= i <= most]
    return Latency(best, costs, bool(min(beside) > CLEAR_RATIO * costs[best]))


def focus_peaks(trace: Trace, latency: int) -> list[FocusPeak]:
    """Fit the sharpest position of each direction; none where it lies at an end of the sweep."""
    lagged = shifted(trace.reported_diopters, latency)
    points: dict[int, list[tuple[float, float]]] = {1: [], -1: []}
    before: float | None = None
    for start, stop in _runs(lagged):
        level = float(lagged[start])
        # The first image of a hold may have been exposed while the lens still moved.
        first = start + 1 if stop - start > 1 and start > 0 else start
        if before is not None:
            points[1 if level > before else -1].append(
                (level, float(np.median(trace.sharpness[first:stop]))))
        before = level
    peaks = (_peak(np.array(sorted(found)), direction) for direction, found in points.items()
             if len({point[0] for point in found}) >= MIN_LEVELS)
    return [peak for peak in peaks if peak is not None]


def shifted(reported_diopters: Numbers, latency: int) -> Numbers:
    """Reports that belong to the pictures: those of `latency` images before, (N,)."""
    order = np.maximum(np.arange(len(reported_diopters)) - latency, 0)
    return np.asarray(reported_diopters[order])


def _peak(points: Numbers, direction: int) -> FocusPeak | None:
    """A symmetric curve o + h·(1 + (x/w)²)^−q through (M, 2) levels and sharpness."""
    levels, sharpness = points[:, 0], points[:, 1]
    top = int(np.argmax(sharpness))
    if top in (0, len(levels) - 1):
        return None
    height = float(sharpness[top])
    relative = sharpness / height

    def curve(p: Numbers) -> Numbers:
        width, power = np.exp(p[1]), np.exp(np.clip(p[2], -2, 2))
        return np.asarray(p[3] + p[4] * (1 + ((levels - p[0]) / width)**2)**-power)

    gap = float(np.median(np.diff(levels)[np.diff(levels) > 0]))
    start = np.array([levels[top], np.log(2 * gap), 0.0, float(relative.min()) / 2, 1.0])
    fit = damped_least_squares(lambda p: curve(p) - relative, start)
    place = float(fit.parameters[0])
    if not levels[0] < place < levels[-1]:
        return None
    return FocusPeak(place, float(fit.errors[0]), direction, levels, sharpness,
                     height * curve(fit.parameters))


def _runs(values: Numbers) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each stretch of one position."""
    edges = np.flatnonzero(np.abs(np.diff(values)) > SAME_FOCUS_DIOPTERS) + 1
    bounds = [0, *edges.tolist(), len(values)]
    return [(bounds[i], bounds[i + 1]) for i in range(len(bounds) - 1)]


def _typical_hold(values: Numbers) -> int:
    lengths = sorted(stop - start for start, stop in _runs(values))
    return lengths[len(lengths) // 2] if lengths else 0


def _scatter(trace: Trace, shift: int) -> Numbers:
    """|log sharpness − median of its hold| of each image, in units of the whole trace's spread."""
    values = np.log(trace.sharpness)
    spread = max(float(np.std(values)), 1e-9)
    lagged = shifted(trace.reported_diopters, shift)
    apart = np.zeros_like(values)
    for start, stop in _runs(lagged):
        apart[start:stop] = np.abs(values[start:stop] - np.median(values[start:stop]))
    return np.asarray(apart / spread)


__all__ = ["FocusPeak", "Latency", "Trace", "board_sharpness", "focus_peaks", "latency_frames",
           "shifted"]
