"""The report of `depth-fusion evaluate` as one HTML file that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depth_fusion_ros.evaluation.metrics import RANGE_BINS_M, range_bin_key
from depth_fusion_ros.evaluation.page_figures import inline_figure, inline_png, new_figure
from depth_fusion_ros.evaluation.provenance_colours import PROVENANCE_COLOURS
from depth_fusion_ros.evaluation.reliability import LEVELS, gaussian_share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("replay_page.html")
SHOWN_PICTURES = 12
"""Of the worst bags; the others lie beside their JSON."""
COLUMNS = {
    "abs_rel": "AbsRel", "median_abs_rel": "median", "rmse_m": "RMSE [m]", "rmse_log": "RMSE log",
    "delta_1": "δ<1.25", "delta_2": "δ<1.25²", "delta_3": "δ<1.25³", "edge_abs_rel": "at edges",
    "coverage": "coverage", "within_1_sigma": "<1σ", "within_2_sigma": "<2σ"}
COSTMAP_COLUMNS = {
    "false_share": "false %", "missed_share": "missed %", "mark": "mark", "mark_s": "s",
    "mark_never": "never", "clear": "clear", "clear_s": "s", "clear_never": "never"}
"""Of the costmap: `mark` and `clear` are updates until then, median/worst, then in seconds."""


def write_page(path: Path, report: Mapping[str, Any], pictures: Mapping[str, Path],
               recordings: Sequence[str] = ()) -> Path:
    """Write the page.

    Args:
        report: as in report.json, NaN where null. pictures: name of a bag → its PNG.
        recordings: Rerun files, relative to the page.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = _number
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    worst = sorted(report["bags"], key=lambda bag: -_or_zero(bag["summary"]["metrics"]["abs_rel"]))
    shown = [(bag["name"], inline_png(pictures[bag["name"]].read_bytes()))
             for bag in worst[:SHOWN_PICTURES] if bag["name"] in pictures
             and pictures[bag["name"]].is_file()]
    path.write_text(template.render(
        report=report, columns=COLUMNS, costmap_columns=COSTMAP_COLUMNS,
        costmap_text=costmap_text, recordings=recordings, plots=[
            ("Error by true distance", inline_figure(_ranges(report["summary"]))),
            ("Does σ keep its word?", inline_figure(_sigma(report["summary"]))),
            ("Where the pixels come from", inline_figure(_provenance(report["bags"]))),
            ("Error of each bag", inline_figure(_spread(report["bags"])))],
        pictures=shown), encoding="utf-8")
    return path


def costmap_text(figures: Mapping[str, Any]) -> list[str]:
    """Cells of a row under `COSTMAP_COLUMNS`; "–" where something cannot be told.

    Args:
        figures: of `costmap_figures`.
    """
    def share(name: str) -> str:
        value = figures[name]
        return "–" if np.isnan(value) else f"{100 * value:.2f}"

    def times(name: str, form: str) -> str:
        median, worst = figures[f"{name}_median"], figures[f"{name}_worst"]
        return "–" if np.isnan(median) else f"{median:{form}}/{worst:{form}}"

    def never(name: str) -> str:
        lost = figures[f"{name}_never"]
        asked = lost + figures[f"{name}_cells"]
        return f"{lost}/{asked}" if asked else "–"

    return [share("false_share"), share("missed_share"), *(
        text for name in ("mark", "clear") for text in (
            times(f"{name}_updates", "g"), times(f"{name}_s", ".1f"), never(name)))]


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "–" if np.isnan(value) else f"{value:.3f}"


def _or_zero(value: float) -> float:
    return 0.0 if np.isnan(value) else value


def _ranges(summary: Mapping[str, Any]) -> Figure:
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    bins = list(zip(RANGE_BINS_M, (*RANGE_BINS_M[1:], np.inf)))
    keys = [range_bin_key(low, high) for low, high in bins]
    values = [summary["ranges"].get(key, np.nan) for key in keys]
    pixels = [summary["ranges"].get(range_bin_key(low, high, "pixels"), 0) for low, high in bins]
    names = [f"{low:g}–{high:g} m" if np.isfinite(high) else f"> {low:g} m" for low, high in bins]
    bars = axes.bar(names, np.nan_to_num(values), color="#4c78a8")
    for bar, value, count in zip(bars, values, pixels):
        if not np.isnan(value):
            axes.annotate(f"{value:.3f}\n{count:,.0f} px", (bar.get_x() + bar.get_width() / 2,
                          value), ha="center", va="bottom", fontsize=8)
    axes.set(ylabel="AbsRel", xlabel="true distance (pixels: mean of a frame)")
    axes.margins(y=0.25)
    axes.grid(axis="y", alpha=0.3)
    return figure


def _sigma(summary: Mapping[str, Any]) -> Figure:
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    fine = np.linspace(0, LEVELS[-1], 61)
    axes.plot(fine, [100 * gaussian_share(n) for n in fine], "k-", lw=1.2, label="a Gaussian")
    for group, shares in summary["sigma"].items():
        line = [0.0, *(100 * shares[f"{n:g}"] for n in LEVELS)]
        everything = group == "all"
        axes.plot((0, *LEVELS), line, "o-" if everything else "-", lw=2.5 if everything else 1,
                  ms=4, label="all pixels" if everything else f"σ/Z ≥ {group}")
    axes.set(xlabel="n", ylabel="errors within n·σ [%]", ylim=(0, 101), xlim=(0, LEVELS[-1]))
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)
    return figure


def _provenance(bags: Sequence[Mapping[str, Any]]) -> Figure:
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    left = np.zeros(len(bags))
    places = np.arange(len(bags))
    for name, colour in PROVENANCE_COLOURS.items():
        shares = np.array([bag["summary"]["provenance"].get(name, 0.0) for bag in bags])
        if shares.any():
            axes.barh(places, 100 * shares, left=left, color=colour, label=name, height=0.9)
            left += 100 * shares
    axes.invert_yaxis()
    axes.set(xlabel="share of pixels [%]", xlim=(0, 100))
    if len(bags) <= SHOWN_PICTURES:
        axes.set_yticks(places, [bag["name"] for bag in bags], fontsize=8)
    else:
        axes.set_ylabel("bags")
    figure.legend(fontsize=8, loc="outside upper center", ncols=4)
    return figure


def _spread(bags: Sequence[Mapping[str, Any]]) -> Figure:
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    errors = [[row for row in bag["frame_abs_rel"] if not np.isnan(row)] for bag in bags]
    few = len(bags) <= SHOWN_PICTURES
    order = range(len(bags)) if few else np.argsort([np.mean(e) if e else 0 for e in errors])
    for place, index in enumerate(order):
        axes.plot(np.full(len(errors[index]), place), errors[index], ".", color="#4c78a8",
                  alpha=0.5, ms=5)
        if errors[index]:
            axes.plot(place, np.mean(errors[index]), "k_", ms=10, mew=2)
    axes.set(ylabel="AbsRel: frames, and their mean", ylim=(0, None))
    if few:
        axes.set_xticks(range(len(bags)), [bag["name"] for bag in bags], rotation=20, ha="right",
                        fontsize=8)
    else:
        axes.set_xlabel("bags, by mean error")
    axes.grid(axis="y", alpha=0.3)
    return figure
