"""DDFF-12 (Hazirbas et al., ACCV 2018): focus sweeps refocused from a light-field camera, h5 files.

    stack_train, stack_val   (n, 10, 383, 552, 3), 0–255
    disp_train, disp_val     (n, 383, 552), disparity of the light field, 0 = no truth

One file holds one or both splits; the keys say which. The ten planes of a sweep lie at
`PLANE_DISPARITIES`, linear in disparity and so in dioptres, and are stored from near to far.
Disparity times depth is `DISPARITY_TIMES_DEPTH_M`, so a dioptre is 0.141238 of disparity. Published
tables are in disparity, over the mask 0.02 < disparity < 0.28: multiply dioptres by that number to
compare (DDFF-12's calibration: baseline 0.00027088 m, focal length 521.4052 px of a sub-aperture).

The training rooms are social corner, student lab, seminar room and kitchen (400 sweeps), those of
`val` glass room and office 41 (200).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np

from depth_fusion_ros.training.captures import DataError
from depth_fusion_ros.training.rgbd_sweeps import SweepCapture

DISPARITY_TIMES_DEPTH_M = 0.141238
PLANE_DISPARITIES = tuple(np.linspace(0.28, 0.02, 10).tolist())
"""Of the planes in the file's order: 0.504 m to 7.06 m."""
MIN_DISPARITY, MAX_DISPARITY = 0.02, 0.28
"""Truth counts strictly between them, as in the published tables."""
DDFF12_TEST_FRAMES = (0, 2, 4, 6, 9)
"""The five planes that published five-slice results use: linspace(0, 9, 5) cut to integers, so
the last step is wider than the others."""
SPLITS = ("train", "val")
_STACK_KEYS = ("stack_{}", "stacks_{}")  # the set's own README prints both


class Ddff12File:
    """Sweeps of one split of a DDFF-12 file; names are "SPLIT_0000" and so on.

    Args:
        path: the .h5 file. split: one of `SPLITS`.
        frames: which planes of a sweep are used, as indices in the file's order.

    Raises:
        DataError: the file is missing, or lacks the split, or its arrays do not fit each other.
        ValueError: unknown split, or frames that no sweep has.
    """

    def __init__(self, path: Path, split: str,
                 frames: Sequence[int] = tuple(range(len(PLANE_DISPARITIES)))) -> None:
        if split not in SPLITS:
            raise ValueError(f"split {split!r}: unknown; use one of {', '.join(SPLITS)}")
        known = range(len(PLANE_DISPARITIES))
        if len(set(frames)) != len(frames) or len(frames) < 2 or not set(frames) <= set(known):
            raise ValueError(f"frames = {tuple(frames)!r}: must be at least two different numbers "
                             f"in 0..{known[-1]}; the published five are {DDFF12_TEST_FRAMES}")
        self.path, self.split = path, split
        # By rising dioptres: the file goes from near to far.
        self._frames = sorted(frames, reverse=True)
        with self._open() as file:
            keys = [k.format(split) for k in _STACK_KEYS if k.format(split) in file]
            if not keys or f"disp_{split}" not in file:
                raise DataError(f"{path}: has {sorted(file)}, not stack_{split} and disp_{split}; "
                                "take the trainval file, or another split")
            self._key = keys[0]
            stacks, truth = file[self._key].shape, file[f"disp_{split}"].shape
        if len(stacks) != 5 or stacks[1] != len(known) or stacks[4] != 3:
            raise DataError(f"{path}: {self._key} has shape {stacks}; must be (n, 10, H, W, 3)")
        if tuple(n for n in truth if n != 1) != tuple(n for n in (stacks[0], *stacks[2:4])
                                                      if n != 1):
            raise DataError(f"{path}: disp_{split} has shape {truth}, {self._key} {stacks}; must "
                            "agree in n, H and W: fetch the file again")
        self._shape = stacks[2:4]
        self.names = [f"{split}_{index:04d}" for index in range(stacks[0])]

    def load(self, name: str) -> SweepCapture:
        """Read one sweep, in dioptres; the file is opened for each, so workers may share this.

        Raises:
            DataError: no sweep of that name.
        """
        if name not in self.names:
            raise DataError(f"{self.path}: has no sweep {name!r}; names are {self.names[0]} to "
                            f"{self.names[-1]}")
        index = self.names.index(name)
        with self._open() as file:
            stack = np.asarray(file[self._key][index])[self._frames]
            disparity = np.asarray(file[f"disp_{self.split}"][index], np.float32)
        disparity = np.nan_to_num(disparity.reshape(self._shape))
        planes = np.array(PLANE_DISPARITIES, np.float64)[self._frames]
        return SweepCapture(
            name, np.clip(np.round(stack), 0, 255).astype(np.uint8),
            (planes / DISPARITY_TIMES_DEPTH_M).astype(np.float32),
            (disparity / np.float32(DISPARITY_TIMES_DEPTH_M)).astype(np.float32),
            (disparity > MIN_DISPARITY) & (disparity < MAX_DISPARITY))

    def _open(self) -> Any:
        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be opened as HDF5 ({error}); path must be "
                            "DDFF-12's trainval .h5 file") from error
