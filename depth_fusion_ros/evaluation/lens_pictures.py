"""Pictures of a lens calibration: one figure a question, as PNG bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from depth_fusion_ros.evaluation.lens_bench_fit import CameraCalibration
from depth_fusion_ros.evaluation.page_figures import figure_png, new_figure
from depth_fusion_ros.optics.focus_response import focus_peaks

UP, DOWN, GREY = "#c44e00", "#1f5fa8", "#888888"
SIZE_INCHES, DOTS_PER_INCH = (6.4, 3.8), 100


def pictures(result: CameraCalibration) -> Iterator[tuple[str, str, bytes]]:
    """Yield title, caption and PNG of each picture that the recording has something for."""
    if result.sweep is not None and result.latency is not None:
        yield ("Where is each board sharp?",
               "Sharpness of the board against the reported focus, one hump a distance; orange on "
               "the way to near, blue on the way back. The gap between the two is hysteresis. "
               "A hump that is cut off at an end of the sweep takes no part.", _peaks(result))
        yield ("What do reported dioptres mean?",
               "Distance of each board (1/Z) against the report at which it is sharp; the line is "
               "the fit. Below: what the fit misses, in dioptres.", _line(result))
        yield ("How does the picture grow with the focus?",
               "Size of the board's picture against the true focus, relative to a focus at "
               "infinity. The slope is the focus breathing.", _growth(result))
        yield ("How late is the picture?",
               "Scatter within positions that the lens held, if the report is taken to belong to "
               "the image so many images later. The lowest bar is the latency.", _latency(result))
    if result.dual_pixel is not None:
        yield ("How do the two views move?",
               "Mean displacement right - left of the board against 1/Z. Disparity falls with 1/Z "
               "along the parallax axis (it rises where the views are exchanged) and stays 0 along "
               "the other one.", _parallax(result))


def _figure(rows: tuple[int, ...] = (1,)) -> tuple[Any, Any]:
    figure = new_figure(*SIZE_INCHES, dpi=DOTS_PER_INCH)
    axes = figure.subplots(len(rows), 1, sharex=True, height_ratios=rows, squeeze=False)[:, 0]
    for one in axes:
        one.grid(alpha=0.3)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _peaks(result: CameraCalibration) -> bytes:
    assert result.latency is not None
    figure, (axes,) = _figure()
    for station in result.stations:
        for peak in focus_peaks(station.trace, result.latency.frames or 0):
            colour, top = UP if peak.direction > 0 else DOWN, float(peak.sharpness.max())
            axes.plot(peak.levels, peak.sharpness / top, "o", color=colour, markersize=3)
            axes.plot(peak.levels, peak.fitted / top, "-", color=colour, linewidth=1)
            axes.axvline(peak.reported_diopters, color=colour, linewidth=0.5, linestyle=":")
    axes.set(xlabel="reported focus (dioptres)", ylabel="sharpness (peak = 1)")
    return figure_png(figure)


def _line(result: CameraCalibration) -> bytes:
    fit = result.sweep
    assert fit is not None
    figure, (above, below) = _figure((2, 1))
    for direction, colour, words in ((1, UP, "from far"), (-1, DOWN, "from near")):
        chosen = fit.directions == direction
        if chosen.any():
            above.plot(fit.peak_diopters[chosen], fit.board_diopters[chosen], "o", color=colour,
                       label=f"reached {words}")
            below.plot(fit.peak_diopters[chosen], fit.residuals_diopters[chosen], "o",
                       color=colour)
    ends = np.array([fit.peak_diopters.min() - 0.1, fit.peak_diopters.max() + 0.1])
    above.plot(ends, fit.scale * ends + fit.offset, color=GREY,
               label=f"D = {fit.scale:.3f} R {fit.offset:+.3f}")
    above.legend(fontsize=8)
    above.set(ylabel="1/Z (dioptres)")
    below.axhline(0, color=GREY, linewidth=1)
    below.set(xlabel="reported focus R (dioptres)", ylabel="residual (D)")
    return figure_png(figure)


def _growth(result: CameraCalibration) -> bytes:
    fit = result.sweep
    assert fit is not None
    figure, (axes,) = _figure()
    focus, size, station = fit.growth.T
    for number in np.unique(station):
        chosen = station == number
        name = f"board at {1 / fit.board_diopters[fit.stations == number][0]:.2f} m"
        axes.plot(focus[chosen], 100 * (size[chosen] - 1), ".", markersize=4, label=name)
    ends = np.array([focus.min(), focus.max()])
    axes.plot(ends, 100 * fit.breathing * ends, color=GREY)
    axes.legend(fontsize=8)
    axes.set(xlabel="true focus (dioptres)", ylabel="growth of the picture (%)")
    return figure_png(figure)


def _latency(result: CameraCalibration) -> bytes:
    latency = result.latency
    assert latency is not None
    figure, (axes,) = _figure()
    shifts = np.arange(len(latency.scatter))
    colours = [UP if shift == latency.frames else GREY for shift in shifts]
    axes.bar(shifts, np.nan_to_num(latency.scatter), color=colours)
    axes.set(xlabel="latency that is tried (images)", ylabel="scatter within holds")
    return figure_png(figure)


def _parallax(result: CameraCalibration) -> bytes:
    fit = result.dual_pixel
    assert fit is not None
    figure, (axes,) = _figure()
    for number, (axis, colour) in enumerate((("x", UP), ("y", DOWN))):
        axes.plot(fit.board_diopters, fit.shift_px[:, number], "o", color=colour, markersize=4,
                  label=f"along {axis}{', the parallax axis' if axis == fit.axis else ''}")
    axes.axhline(0, color=GREY, linewidth=1)
    axes.legend(fontsize=8)
    axes.set(xlabel="1/Z of the board (dioptres)", ylabel="right - left (px)")
    return figure_png(figure)


__all__ = ["pictures"]
