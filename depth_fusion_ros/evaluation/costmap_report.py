"""Targets, table and pictures of `costmap_behaviour`.

    rows = behaviour_rows({"box": outcome})
    write_scene_picture(path, [shown], title="box")
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.evaluation.costmap_behaviour import CostmapBehaviour, SceneOutcome
from depth_fusion_ros.evaluation.costmap_truth import Bools

MOST_FALSE_SHARE = 0.001
VIEW_M = (3.4, 1.6)  # ahead and to each side, of the views from above

_WORDS = {
    "updates_to_mark": "updates to mark",
    "updates_to_clear": "updates to clear",
    "cells_left": "cells left where it was",
    "points_in_front": "points in front of it by > 3 sigma",
    "false_share": "false marks / open cells",
    "farthest_false_m": "farthest false mark [m]",
    "found_share": "surface cells marked",
    "rays_through": "rays that clear through",
    "kept_share": "kept after its 2nd update",
    "times_lost": "times lost in view",
    "cleared_blind": "cells cleared by blind frames",
    "current_blind": "still current when blind for 1 s",
    "blind_frames": "blind frames",
}
_SHARES = ("false_share", "found_share", "kept_share")
_CELLS = ListedColormap(["#d9d9d9", "#ffffff", "#4c78c8", "#111111", "#e02020"])
_CELL_NAMES = ("not seen", "open", "true surface", "marked", "marked, but open")


@dataclass(frozen=True)
class BehaviourRow:
    """One measure of one scene.

    Attributes:
        ours, naive: numbers; NaN = not asked, +Inf = never. target: in words, "" = none.
        met: whether ours reaches the target; True where there is none.
    """

    scene: str
    measure: str
    target: str
    ours: float
    naive: float
    met: bool

    @property
    def words(self) -> str:
        """What is measured."""
        return _WORDS[self.measure]

    def text(self, value: float) -> str:
        """Return one of its values for a reader."""
        if not math.isfinite(value):
            return "-" if math.isnan(value) else "never"
        if self.measure == "current_blind":
            return "yes" if value else "no"
        if self.measure in _SHARES:
            return f"{100 * value:.2f} %"
        return f"{value:.2f}" if self.measure.endswith("_m") else f"{value:.0f}"


def behaviour_rows(outcomes: Mapping[str, SceneOutcome]) -> list[BehaviourRow]:
    """Return every measure that a scene asks, with its target; scene -> outcome."""
    rows = []
    for scene, outcome in outcomes.items():
        for measure in _WORDS:
            ours, naive = (float(getattr(b, measure)) for b in (outcome.ours, outcome.naive))
            if math.isnan(ours) and math.isnan(naive):
                continue
            target, met = _judged(scene, measure, ours)
            rows.append(BehaviourRow(scene, measure, target, ours, naive, met))
    return rows


def behaviour_values(behaviour: CostmapBehaviour) -> dict[str, float | str | None]:
    """Return the measures for JSON: null = not asked, "never" = it never happened."""
    values = {name: float(getattr(behaviour, name)) for name in _WORDS}
    return {
        name: None if math.isnan(v) else "never" if math.isinf(v) else float(f"{v:.6g}")
        for name, v in values.items()}


def _judged(scene: str, measure: str, ours: float) -> tuple[str, bool]:
    """Return the target in words ("" = none) and whether it is met."""
    if scene == "box" and measure in ("updates_to_mark", "updates_to_clear"):
        return "ever", math.isfinite(ours)
    if measure == "false_share":
        return f"<= {100 * MOST_FALSE_SHARE:g} %", ours <= MOST_FALSE_SHARE
    zero = (("points_in_front", "blank_wall"), ("rays_through", "missing"),
            ("times_lost", "thin_pole"))
    if (measure, scene) in zero or measure == "cleared_blind":
        return "0", ours == 0
    if (measure, scene) == ("kept_share", "thin_pole"):
        return "100 %", ours == 1
    if measure == "current_blind":
        return "no", ours == 0
    return "", True


@dataclass(frozen=True)
class ShownUpdate:
    """One row of a scene's picture.

    Attributes:
        label: at its left. index: of the update.
        rgb: (H, W, 3) uint8. provenance: (H, W) uint8, or None if none came.
        obstacles, clearing: (N, 3…) in the global frame, metres.
    """

    label: str
    index: int
    rgb: NDArray[np.uint8]
    provenance: NDArray[np.uint8] | None
    obstacles: NDArray[np.float64]
    clearing: NDArray[np.float64]


def write_scene_picture(
    path: Path, outcome: SceneOutcome, shown: Sequence[ShownUpdate], *, title: str
) -> Path:
    """Draw RGB, provenance, points from above and both costmaps of some updates to a PNG.

    Raises:
        ValueError: nothing is shown.
    """
    if not shown:
        raise ValueError("picture without updates: nothing was received, nothing to draw")
    size = (19.0, 3.9 * len(shown) + 1.6)
    figure = Figure(figsize=size, dpi=80, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(shown), 5, squeeze=False)
    figure.subplots_adjust(left=0.04, right=0.99, top=1 - 0.95 / size[1], bottom=0.95 / size[1],
                           wspace=0.12, hspace=0.16)
    figure.suptitle(title, fontsize=15)
    for cells, update in zip(axes, shown, strict=True):
        _draw_update(cells, outcome, update)
    titles = ("RGB", "provenance", "points from above [m]", "costmap, ours", "costmap, naive")
    for cell, text in zip(axes[0], titles, strict=True):
        cell.set_title(text, fontsize=13)
    labels = [Patch(facecolor=_label_colour(p), edgecolor="black", label=p.name.lower())
              for p in Provenance if p <= Provenance.OUT_OF_RANGE]
    kinds = [Patch(facecolor=_CELLS(i), edgecolor="black", label=name)
             for i, name in enumerate(_CELL_NAMES)]
    dots = [Patch(facecolor=colour, label=name)
            for colour, name in (("#e02020", "obstacle point"), ("#2ca02c", "end of a free ray"))]
    for handles, x in ((labels, 0.02), (dots, 0.42), (kinds, 0.6)):
        figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(x, 0), fontsize=10,
                      ncols=4 if handles is labels else 1 if handles is dots else 3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _draw_update(cells: Sequence[Axes], outcome: SceneOutcome, shown: ShownUpdate) -> None:
    view = outcome.updates[shown.index]
    cells[0].imshow(shown.rgb)
    cells[0].set_ylabel(shown.label, fontsize=12)
    if shown.provenance is not None:
        colours = np.array([_label_colour(p) for p in Provenance])
        cells[1].imshow(colours[shown.provenance])
    for cell in cells[:2]:
        cell.set_xticks([])
        cell.set_yticks([])
    rows, columns = np.nonzero(view.surface)
    x, y = outcome.corner_m
    step = outcome.resolution_m
    cells[2].plot(y + (rows + 0.5) * step, x + (columns + 0.5) * step, "s", color="#4c78c8",
                  markersize=2.5)
    for points, colour in ((shown.clearing, "#2ca02c"), (shown.obstacles, "#e02020")):
        cells[2].plot(points[:, 1], points[:, 0], ".", color=colour, markersize=2, alpha=0.6)
    extent = (y, y + len(view.surface) * step, x, x + view.surface.shape[1] * step)
    for cell, lethal in ((cells[3], view.ours), (cells[4], view.naive)):
        cell.imshow(_kinds(lethal, view.surface, view.is_open).T, cmap=_CELLS, vmin=0, vmax=4,
                    origin="lower", extent=extent, interpolation="nearest")
    for cell in cells[2:]:
        cell.set_xlim(VIEW_M[1], -VIEW_M[1])  # left is left
        cell.set_ylim(-0.1, VIEW_M[0])
        cell.set_aspect("equal")


def _kinds(lethal: Bools, surface: Bools, is_open: Bools) -> NDArray[np.uint8]:
    """Return numbers of `_CELL_NAMES` for cells (H, W)."""
    kinds = np.zeros(lethal.shape, np.uint8)
    for kind, where in enumerate((is_open, surface, lethal, lethal & is_open), start=1):
        kinds[where] = kind
    return kinds


def _label_colour(label: Provenance) -> tuple[float, float, float]:
    if label is Provenance.NONE:
        return (0.55, 0.55, 0.55)
    red, green, blue, _ = colormaps["Set2"](int(label) - 1)
    return (float(red), float(green), float(blue))
