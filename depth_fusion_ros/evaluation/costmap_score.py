"""How a costmap fed with a bag's estimates does against one that knows the bag's reference.

    score = CostmapScore(nav2_parameters, start_s)
    score.add(Update(stamp_s, pose, intrinsics, clouds, truth_m))      # frame by frame
    costmap_figures([score.counts(), ...])                             # of one bag, or of many

Ours is the NumPy model of Nav2's voxel layer (`navigation/costmap.py`) with the parameters of a
Nav2 YAML, whose window rolls with the camera; every frame is one update. The reference says of the
cells of the same grid, in every update anew (`costmap_truth.py`): *surface in reach* (in the band
of heights that marks and within the ranges that mark), or *open* (crossed by its rays in the band,
no surface within one cell), or nothing. What it says stays until it says something else, so a cell
that goes out of view has not changed.

* False: cells marked by ours that the reference sees open, of those it sees open; all updates
  together. Missed: cells with a surface in reach and no mark of ours within one cell, of all those.
* Time to mark: a cell becomes occupied with the update in which a surface comes into reach in it
  (the first of the bag included), and free with the one in which it is seen open. Updates from the
  former, counted as 1, to a mark of ours within one cell; never, if the latter, the window's edge
  or the bag's end comes first.
* Time to clear: for each cell that ours had marked in the update before, at most one cell from a
  surface, and that is seen open now. Updates from now, counted as 1, to none of our marks in it;
  never, if a surface comes back, the window's edge or the bag's end comes first.

A reference that knows less than half of an image's pixels (LiDAR) has surfaces, but cannot say that
a cell is free: something may stand between its rays. No cell is called open by it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.evaluation.costmap_behaviour import update_with
from depth_fusion_ros.evaluation.costmap_truth import OPEN_CELLS, Bools, Floats, grown, true_cells
from depth_fusion_ros.evaluation.naive_costmap import sources_of
from depth_fusion_ros.evaluation.navigation_counts import NavigationClouds
from depth_fusion_ros.navigation.costmap import LETHAL, VoxelCostmap
from depth_fusion_ros.navigation.costmap_grid import shifted
from depth_fusion_ros.optics.intrinsics import Intrinsics

NEAR_CELLS = OPEN_CELLS
"""A mark this near to a surface is its mark; farther off, in what is seen open, it is false."""
DENSE_SHARE = 0.5
LEAST_UPDATES = 2
"""With a reference, from which on times can be told."""
NEVER = "never"

Counts = dict[str, Any]


@dataclass(frozen=True)
class Update:
    """One frame.

    Attributes:
        stamp_s: of it. pose: (4, 4) global from optical frame; z = 0 of global is the floor.
        intrinsics: of the depth. clouds: of the estimate; None = the node sent none.
        truth_m: (H, W) metres, NaN = not known; None = no reference for this frame.
    """

    stamp_s: float
    pose: Floats
    intrinsics: Intrinsics
    clouds: NavigationClouds | None
    truth_m: NDArray[np.float32] | None


class _Waiting:
    """Cells for which something has begun, each with its update, until it has come about."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.since = np.full(shape, -1, np.int32)
        self.never = 0
        self.updates: Counter[int] = Counter()
        self.milliseconds: Counter[int] = Counter()

    @property
    def cells(self) -> Bools:
        return np.asarray(self.since >= 0, np.bool_)

    def begin(self, cells: Bools, index: int) -> None:
        self.since[cells & ~self.cells] = index

    def come_about(self, cells: Bools, stamps_s: list[float]) -> None:
        """Of the waiting `cells`; in the newest update."""
        done = cells & self.cells
        for since, count in zip(*np.unique(self.since[done], return_counts=True), strict=True):
            self.updates[len(stamps_s) - int(since)] += int(count)
            waited_s = stamps_s[-1] - stamps_s[int(since)]
            self.milliseconds[round(1e3 * waited_s)] += int(count)
        self.since[done] = -1

    def give_up(self, cells: Bools) -> None:
        ended = cells & self.cells
        self.never += int(ended.sum())
        self.since[ended] = -1

    def roll(self, rows: int, columns: int) -> None:
        before = int(self.cells.sum())
        self.since = shifted(self.since, rows, columns, -1)
        self.never += before - int(self.cells.sum())

    def counts(self) -> Counts:
        return {NEVER: self.never + int(self.cells.sum()),
                "updates": {str(n): self.updates[n] for n in sorted(self.updates)},
                "ms": {str(n): self.milliseconds[n] for n in sorted(self.milliseconds)}}


class CostmapScore:
    """One bag; see the module's text.

    Args:
        parameters: dict under ros__parameters of a Nav2 costmap with one source that marks and
            one that clears. start_s: stamp of the first frame.

    Raises:
        ValueError: parameters that Nav2 would refuse, or that have other sources.
    """

    def __init__(self, parameters: Mapping[str, Any], start_s: float) -> None:
        self._map = VoxelCostmap.from_parameters(parameters, start_s=start_s)
        self._marks, self._clears = sources_of(self._map)
        shape = (self._map.config.height_cells, self._map.config.width_cells)
        self._lethal, self._occupied, self._held = (np.zeros(shape, bool) for _ in range(3))
        self._to_mark, self._to_clear = _Waiting(shape), _Waiting(shape)
        self._stamps_s: list[float] = []
        self._counts: Counter[str] = Counter()

    def add(self, update: Update) -> None:
        """Feed both costmaps with one frame."""
        self._stamps_s.append(update.stamp_s)
        self._roll(update.pose)
        before = self._lethal
        self._lethal = self._updated(update)
        if update.truth_m is not None:
            self._compare(update, update.truth_m, before)
        self._to_mark.come_about(grown(self._lethal, NEAR_CELLS), self._stamps_s)
        self._to_clear.come_about(~self._lethal, self._stamps_s)

    def counts(self) -> Counts:
        """What was found so far, as JSON types that add up over bags: `costmap_figures`."""
        timed = self._counts["with_reference"] >= LEAST_UPDATES
        none = _Waiting((0, 0))
        names = ("with_reference", "dense", "outside", "false_cells", "open_cells", "missed_cells",
                 "surface_cells")
        return {"updates": len(self._stamps_s), **{name: self._counts[name] for name in names},
                "mark": (self._to_mark if timed else none).counts(),
                "clear": (self._to_clear if timed else none).counts()}

    def _roll(self, pose: Floats) -> None:
        rows, columns = self._map.recentre(float(pose[0, 3]), float(pose[1, 3]))
        if rows or columns:
            self._lethal, self._occupied, self._held = (
                shifted(cells, rows, columns, False)
                for cells in (self._lethal, self._occupied, self._held))
            self._to_mark.roll(rows, columns)
            self._to_clear.roll(rows, columns)

    def _updated(self, update: Update) -> Bools:
        """Cells that are lethal after an update of ours."""
        clouds = {} if update.clouds is None else {
            self._marks.name: update.clouds.obstacles, self._clears.name: update.clouds.clearing}
        update_with(self._map, clouds, update.pose, update.stamp_s)
        self._counts["outside"] += any("outside the volume" in w for w in self._map.warnings)
        return np.asarray(self._map.costs == LETHAL, np.bool_)

    def _compare(self, update: Update, truth_m: NDArray[np.float32], before: Bools) -> None:
        dense = float(np.mean(~np.isnan(truth_m))) >= DENSE_SHARE
        cells = true_cells(truth_m, update.intrinsics, None, self._map, self._marks, update.pose)
        is_open = cells.is_open & dense
        surface = grown(cells.surface, NEAR_CELLS)
        near_ours = grown(self._lethal, NEAR_CELLS)
        for name, count in (
                ("with_reference", 1), ("dense", int(dense)), ("open_cells", is_open.sum()),
                ("false_cells", (is_open & self._lethal).sum()),
                ("surface_cells", cells.in_reach.sum()),
                ("missed_cells", (cells.in_reach & ~near_ours).sum())):
            self._counts[name] += int(count)
        index = len(self._stamps_s) - 1
        self._to_mark.give_up(is_open)
        self._to_mark.begin(cells.in_reach & ~self._occupied, index)
        self._occupied = (self._occupied & ~is_open) | cells.in_reach
        self._to_clear.give_up(surface)
        self._to_clear.begin(is_open & self._held & before, index)
        self._held = (self._held & ~is_open) | surface


def costmap_figures(counts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Put the counts of some bags together.

    Returns:
        false_share, missed_share: see the module's text. For `mark` and `clear`: NAME_cells (those
        that came about), NAME_never, and of the former the median and the largest number of
        updates (1 = at once) and seconds from the first of them to the last: NAME_updates_median,
        _worst, NAME_s_median, _worst. NaN where it cannot be told; `why` says for which and why.
        With them the counts that they are made of.
    """
    counts = list(counts)
    sums = {name: sum(int(entry[name]) for entry in counts) for name in (
        "updates", "with_reference", "dense", "outside", "without_pose", "false_cells",
        "open_cells", "missed_cells", "surface_cells") if all(name in entry for entry in counts)}
    found: dict[str, Any] = dict(sums)
    found["false_share"] = _ratio(sums.get("false_cells", 0), sums.get("open_cells", 0))
    found["missed_share"] = _ratio(sums.get("missed_cells", 0), sums.get("surface_cells", 0))
    for name in ("mark", "clear"):
        updates, milliseconds = (_added(entry[name][key] for entry in counts)
                                 for key in ("updates", "ms"))
        found[f"{name}_cells"] = len(updates)
        found[f"{name}_never"] = sum(int(entry[name][NEVER]) for entry in counts)
        for unit, values in (("updates", updates), ("s", milliseconds / 1e3)):
            found[f"{name}_{unit}_median"] = float(np.median(values)) if values.size else math.nan
            found[f"{name}_{unit}_worst"] = float(values.max()) if values.size else math.nan
    found["why"] = _why(found, counts)
    return found


def _added(histograms: Iterable[Mapping[str, int]]) -> NDArray[np.int64]:
    """All values, sorted, of histograms value → how many."""
    total: Counter[int] = Counter()
    for histogram in histograms:
        total.update({int(value): count for value, count in histogram.items()})
    values = sorted(total)
    return np.repeat(np.array(values, np.int64), [total[value] for value in values])


def _why(found: Mapping[str, Any], counts: list[Mapping[str, Any]]) -> dict[str, str]:
    """What cannot be told → why, and `map`: what is wrong with the costmap as a whole."""
    why: dict[str, str] = {}
    if not found["with_reference"]:
        return {"map": "no frame has a reference and a pose of the camera; record /tf as long as "
                       "the images"}
    if found["outside"]:
        why["map"] = (f"in {found['outside']} of {found['updates']} updates the camera was outside "
                      "the heights of the costmap, where nothing is cleared; check the height of "
                      "the camera, z_voxels and z_resolution")
    sparse = "" if found["dense"] else (
        f"the reference knows less than {100 * DENSE_SHARE:g} % of the pixels: it cannot say that "
        "a cell is free")
    if not found["open_cells"]:
        why["false"] = sparse or "no cell in the band of heights is seen open by the reference"
    if not found["surface_cells"]:
        why["missed"] = why["mark"] = "no surface of the reference is where obstacles are marked"
    if max(int(entry["with_reference"]) for entry in counts) < LEAST_UPDATES:
        why["mark"] = why["clear"] = "one frame: times need a recording of several"
    elif not found["clear_cells"] + found["clear_never"]:
        why["clear"] = sparse or ("nothing that was marked goes away: record a scene that changes "
                                  "before a camera at rest")
    if "mark" not in why and not found["mark_cells"]:
        why["mark"] = f"none of {found['mark_never']} cells was ever marked"
    if "clear" not in why and not found["clear_cells"]:
        why["clear"] = f"none of {found['clear_never']} cells was ever cleared"
    return why


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
