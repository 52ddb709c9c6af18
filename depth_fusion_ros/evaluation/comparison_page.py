"""What `depth-fusion compare` found as one HTML file that opens without a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.evaluation.comparison import most_different
from depth_fusion_ros.evaluation.page_figures import inline_figure, inline_png, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
TEMPLATE = Path(__file__).with_name("comparison_page.html")
SHOWN_BAGS = 6
SHOWN_FRAMES = 12
NAMED_BAGS = 4
"""Bags that the scatter names at most: those farthest from the diagonal."""
NAME_WIDTH, NAME_HEIGHT = 0.0135, 0.035
"""Of a letter and of a line of the scatter's names, in widths of its axes."""
A_COLOUR, B_COLOUR = "#4c78a8", "#e07b39"
"""Blue where A is better, orange where B is: told apart by colour-blind eyes."""


def page(report: Mapping[str, Any], picture_of_a: Callable[[str], Path],
         picture_of_b: Callable[[str], Path]) -> str:
    """Return the page.

    Args:
        report: as in compare.json, NaN where null, and the `command`.
        picture_of_a, picture_of_b: name of a bag → PNG of its frames in that run; where there is
            no such file the page says so.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": _number, "signed": _signed, "seconds": _seconds,
                            "interval": _interval, "folder": _folder}
    bags = most_different(report["by_bag"], SHOWN_BAGS)
    main = next((row for row in report["metrics"] if row["key"] == "abs_rel"), None)
    plots = []
    if report["by_bag"] and main is not None:
        plots = [("AbsRel of each bag", inline_figure(_scatter(report["by_bag"]))),
                 ("Difference of AbsRel in each frame", inline_figure(
                     _histogram(report["by_frame"], main)))]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report, plots=plots, frames=most_different(report["by_frame"], SHOWN_FRAMES),
        pictures=[(row, _picture(picture_of_a(row["bag"])), _picture(picture_of_b(row["bag"])))
                  for row in bags])


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}".replace("-", "−")


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.4f}".replace("-", "−")


def _folder(path: str) -> str:
    return Path(path).name or path


def _interval(row: Mapping[str, Any]) -> str:
    return "–" if math.isnan(row["low"]) else f"{_signed(row['low'])} … {_signed(row['high'])}"


def _seconds(stamp_ns: int) -> str:
    return f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}"


def _picture(path: Path) -> str:
    return inline_png(path.read_bytes()) if path.is_file() else ""


def _scatter(bags: Sequence[Mapping[str, Any]]) -> Figure:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    a, b = (np.array([row[side] for row in bags]) for side in ("a", "b"))
    positive = np.concatenate([a, b])[np.concatenate([a, b]) > 0]
    low, high = (positive.min(), positive.max()) if positive.size else (0.1, 1.0)
    low, high = min(low / 1.25, low * 0.9), high * 1.25
    a, b = np.maximum(a, low), np.maximum(b, low)  # a log axis has no 0
    figure = new_figure(6.0, 5.0, dpi=120)
    axes = figure.subplots()
    line = np.array([low, high])
    axes.fill_between(line, line, high, color=A_COLOUR, alpha=0.08, lw=0)
    axes.fill_between(line, low, line, color=B_COLOUR, alpha=0.08, lw=0)
    axes.plot(line, line, "k-", lw=1)
    for better, colour in ((b > a, A_COLOUR), (b < a, B_COLOUR), (b == a, "#555555")):
        axes.plot(a[better], b[better], "o", color=colour, ms=7, mec="white", mew=0.7)
    axes.text(0.03, 0.97, "A better", transform=axes.transAxes, va="top", color=A_COLOUR,
              fontweight="bold")
    axes.text(0.97, 0.03, "B better", transform=axes.transAxes, ha="right", color=B_COLOUR,
              fontweight="bold")
    span = math.log(high / low)
    for index, side in _names(np.log(a / low) / span, np.log(b / low) / span,
                              [_short(row["bag"]) for row in bags]):
        axes.annotate(_short(bags[index]["bag"]), (a[index], b[index]), fontsize=8,
                      xytext=(7 * side, 0), textcoords="offset points",
                      ha="left" if side > 0 else "right", va="center")
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal",
             xlabel="AbsRel of A", ylabel="AbsRel of B")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 30 * low else (1.0,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    return figure


def _names(across: Floats, up: Floats, names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Which points to name, and to the left (−1) or right (+1), so that no name covers anything.

    Args:
        across, up: (N,) places of the points, 0 to 1 in the axes.
    """
    taken = [(x - 0.01, x + 0.01, y) for x, y in zip(across, up)]
    named = 0
    for index in np.argsort(-np.abs(up - across), kind="stable"):
        outwards = 1 if up[index] < across[index] else -1  # away from the diagonal first
        for side in (outwards, -outwards):
            near, far = across[index] + side * 0.015, across[index] + side * (
                0.025 + NAME_WIDTH * len(names[index]))
            left, right = min(near, far), max(near, far)
            if left < 0 or right > 1 or any(
                    left < end and start < right and abs(y - up[index]) < NAME_HEIGHT
                    for start, end, y in taken):
                continue
            taken.append((left, right, float(up[index])))
            named += 1
            yield int(index), side
            break
        if named == NAMED_BAGS:
            return


def _histogram(frames: Sequence[Mapping[str, Any]], main: Mapping[str, Any]) -> Figure:
    from matplotlib.ticker import MaxNLocator

    values = np.array([row["difference"] for row in frames])
    reach = max(float(np.abs(values).max()), 1e-6)
    figure = new_figure(6.0, 5.0, dpi=120)
    axes = figure.subplots()
    half = max(5, min(25, round(math.sqrt(values.size))))
    edges = np.linspace(-reach, reach, 2 * half + 1)  # 0 is an edge: no bar is of both signs
    same = int(np.count_nonzero(values == 0.0))
    counts, _ = np.histogram(values[values != 0.0], edges)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", edgecolor="white", linewidth=0.6,
             color=np.where(edges[:-1] < -1e-12 * reach, B_COLOUR, A_COLOUR))
    if same:
        axes.bar(0.0, same, 0.25 * (edges[1] - edges[0]), color="#555555",
                 label=f"the same ({same})")
    above = 1.1 * max(counts.max(), same)
    if not math.isnan(main["low"]):
        axes.plot([main["low"], main["high"]], [above, above], "k|-", lw=2, ms=12, mew=2,
                  label="95 % interval of the mean")
    axes.plot(main["difference"], above, "kD", ms=7, label="mean")
    axes.axvline(0.0, color="black", lw=1, ls=":")
    axes.set(xlabel="AbsRel of B − AbsRel of A  (left of 0: B is better)", ylabel="frames",
             xlim=(min(values.min(), main["low"], -0.15 * reach) - 0.05 * reach,
                 max(values.max(), main["high"], 0.15 * reach) + 0.05 * reach))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure


def _short(name: str, longest: int = 22) -> str:
    return name if len(name) <= longest else f"…{name[1 - longest:]}"
