"""Write focus sweeps as rosbag2.

    with SweepBagWriter(path, metadata={"seed": "0"}) as bag:
        for index, sweep in enumerate(simulate_sweeps(sweeps=12)):
            bag.write_sweep(sweep, bag.start_ns + index * 1_000_000_000, 100_000_000)

Every slice carries one stamp on all its topics (`topics.SWEEP_INPUT_TOPICS`); its lens state tells
its place in the sweep. The truth has the stamp of the newest slice, whose grid the depth has. Log
time equals the stamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from . import topics as names
from .images import image_message
from .messages import (
    IntrinsicsLike,
    LensLike,
    LensReport,
    SweepTag,
    camera_info,
    lens_state,
)
from .recording import BagWriter
from .typestore import BagError


class SliceLike(Protocol):
    """One image of a sweep; `simulation.SimulatedSlice` fits. image: (H, W, 3) uint8 sRGB."""

    @property
    def image(self) -> NDArray[np.uint8]: ...
    @property
    def lens(self) -> LensLike | LensReport: ...
    @property
    def intrinsics(self) -> IntrinsicsLike | None: ...


class SweepLike(Protocol):
    """One sweep; `simulation.SimulatedSweep` fits.

    slices: in order of exposure. depth_m: (H, W) float32 truth on the grid of the depth, metres
    along z; NaN and ±Inf as in REP-117.
    """

    @property
    def slices(self) -> Sequence[SliceLike]: ...
    @property
    def depth_m(self) -> NDArray[np.float32]: ...


class SweepBagWriter(BagWriter):
    """Writer of focus sweeps; arguments and errors as of `BagWriter`."""

    sweeps_written: int = 0

    def write_sweep(self, sweep: SweepLike, first_stamp_ns: int, slice_period_ns: int) -> int:
        """Write one sweep and its truth; returns the stamp of its newest slice.

        Args:
            sweep: at least one slice. first_stamp_ns: of the first slice, later than all that is
                written already. slice_period_ns: between two slices, > 0.

        Raises:
            BagError: no slices, slices of different shape, an array of the wrong dtype, or a
                period that is not positive.
        """
        shapes = {tuple(item.image.shape) for item in sweep.slices}
        if len(shapes) != 1:
            raise BagError(f"sweep with images of {len(shapes)} shapes {sorted(shapes)}: needs "
                           "slices, all of one shape")
        if slice_period_ns <= 0:
            raise BagError(f"slice_period_ns = {slice_period_ns}: must be > 0, each slice needs "
                           "a stamp of its own")
        if self.sweeps_written == 0:
            self.write_static_transform(first_stamp_ns)
        self.sweeps_written += 1  # also the number in the tags: 0 means "in no sweep"
        stamp_ns = first_stamp_ns
        for index, item in enumerate(sweep.slices):
            stamp_ns = first_stamp_ns + index * slice_period_ns
            tag = SweepTag(self.sweeps_written, index, len(sweep.slices))
            height, width = item.image.shape[:2]
            contents = {
                names.LENS_STATE: lens_state(item.lens, stamp_ns, self.frame_id, tag),
                names.SWEEP_CAMERA_INFO: camera_info(
                    item.intrinsics, width, height, stamp_ns, self.frame_id),
                names.SWEEP_IMAGE: image_message(item.image, "rgb8", stamp_ns, self.frame_id),
            }
            for topic, message in contents.items():
                self.write_message(topic, names.SWEEP_INPUT_TOPICS[topic], message, stamp_ns)
        self.write_map(names.TRUTH_DEPTH, sweep.depth_m, stamp_ns)
        return stamp_ns


__all__ = ["SliceLike", "SweepBagWriter", "SweepLike"]
