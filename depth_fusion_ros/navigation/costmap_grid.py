"""Geometry of the costmap model: which voxels a ray crosses, which lethal cells form a group.

Sources: Bresenham's line in closed form, as Nav2's voxel grid walks it; connected components.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

RAYS_AT_ONCE = 20_000
"""Bounds the memory that `crossed_voxels` takes, to some 100 MB on a map of 200 cells."""


def crossed_voxels(
    shape: tuple[int, int, int], start: Floats, ends: Floats, min_voxels: int, max_voxels: int
) -> Bools:
    """Return the voxels on the lines from `start` to `ends`: a mask of `shape` (z, y, x).

    A line takes one voxel for each step along its longest axis. Of it, the part from `min_voxels`
    to about `max_voxels` is taken. Lengths are in voxels whatever their sides, so in metres they
    depend on the slope of the line where voxels are not cubes; both are as in Nav2.

    Args:
        shape: voxels along z, y and x.
        start: (3,) x, y, z of the sensor in voxels from the grid's corner; within the grid.
        ends: (N, 3), likewise; all within the grid.
        min_voxels, max_voxels: ≥ 0.
    """
    crossed = np.zeros(shape, bool)
    for begin in range(0, len(ends), RAYS_AT_ONCE):
        x, y, z = _line_voxels(start, ends[begin : begin + RAYS_AT_ONCE], min_voxels, max_voxels).T
        crossed[z, y, x] = True
    return crossed


def _line_voxels(start: Floats, ends: Floats, min_voxels: int, max_voxels: int) -> Ints:
    """Return (M, 3) int64 x, y, z of the voxels of all lines, some of them more than once."""
    delta = ends - start
    length = np.linalg.norm(delta, axis=1)
    reaching = np.floor(length) >= min_voxels
    ends, delta, length = ends[reaching], delta[reaching], length[reaching]
    share = min_voxels / np.maximum(length, 1e-12)
    first = (start + delta * np.where(length > 0, share, 0)[:, None]).astype(np.int64)
    span = ends.astype(np.int64) - first
    longest = np.abs(span).max(axis=1, initial=0)
    kept = np.minimum(1.0, max_voxels / np.maximum(length, 1e-12))
    steps = (kept * longest).astype(np.int64)
    ray = np.repeat(np.arange(len(steps)), steps + 1)
    step = np.arange(len(ray)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    # An axis has advanced once for each time its error, begun at half, has passed the longest.
    over = np.maximum(longest, 1)[ray, None]
    advance = (longest[ray, None] // 2 + step[:, None] * np.abs(span)[ray]) // over
    voxels: Ints = first[ray] + np.sign(span)[ray] * advance
    return voxels


def without_small_groups(lethal: Bools, least_cells: int, connectivity: int) -> Bools:
    """Return `lethal` (H, W) without its connected groups of fewer than `least_cells` cells.

    Args:
        connectivity: 4 or 8 neighbours of a cell.
    """
    if least_cells < 2 or not lethal.any():
        return lethal.copy()
    height, width = lethal.shape
    labels = np.where(lethal, np.arange(1, lethal.size + 1).reshape(lethal.shape), 0)
    shifts = [(dy, dx) for dy in (0, 1, 2) for dx in (0, 1, 2)
              if connectivity == 8 or 1 in (dy, dx)]
    while True:
        padded = np.pad(labels, 1)
        largest = np.max([padded[y : y + height, x : x + width] for y, x in shifts], axis=0)
        spread = np.where(lethal, largest, 0)
        if np.array_equal(spread, labels):
            break
        labels = spread
    cells = np.bincount(labels.ravel())
    kept: Bools = lethal & (cells[labels] >= least_cells)
    return kept


def shifted(cells: NDArray[Any], rows: int, columns: int, fill: float) -> NDArray[Any]:
    """Return cells (…, H, W) as a window sees them that moved by whole cells towards +y and +x.

    What was at (r + rows, c + columns) is at (r, c); cells that were not in the window have `fill`.
    """
    height, width = cells.shape[-2:]
    moved = np.full_like(cells, fill)
    to_rows, to_columns = (slice(max(-by, 0), max(size - max(by, 0), 0))
                           for by, size in ((rows, height), (columns, width)))
    from_rows, from_columns = (slice(max(by, 0), max(size - max(-by, 0), 0))
                               for by, size in ((rows, height), (columns, width)))
    moved[..., to_rows, to_columns] = cells[..., from_rows, from_columns]
    return moved
