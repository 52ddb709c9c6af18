"""Write dual-pixel sequences as rosbag2.

    with DualPixelBagWriter(path, metadata={"seed": "0"}) as bag:
        for index, frame in enumerate(simulate_sequence(frames=40)):
            bag.write_frame(frame, bag.start_ns + index * 100_000_000)

Every set carries one stamp on all its topics (`topics.INPUT_TOPICS` plus ground truth); log time
equals that stamp. What every bag has in common: `recording.py`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import topics as names
from .images import image_message
from .messages import IntrinsicsLike, LensLike, LensReport, camera_info, lens_state
from .recording import DEFAULT_START_NS, BagWriter, remove_bag
from .typestore import BagError

__all__ = ["DEFAULT_START_NS", "DualPixelBagWriter", "FrameLike", "remove_bag"]


class FrameLike(Protocol):
    """One set; `simulation.SimulatedFrame` fits.

    left, right: (H, W) uint16 (mono16) or uint8 (mono8), linear. rgb: (H, W, 3) uint8.
    depth_m: (H, W) float32 truth, metres along z; NaN and ±Inf as in REP-117; None = no message.
    intrinsics: None = not calibrated.
    """

    @property
    def left(self) -> NDArray[Any]: ...
    @property
    def right(self) -> NDArray[Any]: ...
    @property
    def rgb(self) -> NDArray[np.uint8]: ...
    @property
    def depth_m(self) -> NDArray[np.float32] | None: ...
    @property
    def lens(self) -> LensLike | LensReport: ...
    @property
    def intrinsics(self) -> IntrinsicsLike | None: ...


class DualPixelBagWriter(BagWriter):
    """Writer of dual-pixel sets; arguments and errors as of `BagWriter`."""

    frames_written: int = 0

    def write_frame(self, frame: FrameLike, stamp_ns: int) -> None:
        """Write one set: camera infos, lens state, left, right, RGB and true depth, one stamp.

        Raises:
            BagError: left and right differ in shape or dtype, or an array has the wrong dtype.
        """
        if frame.left.shape != frame.right.shape or frame.left.dtype != frame.right.dtype:
            raise BagError(
                f"left {frame.left.dtype} {frame.left.shape} and right {frame.right.dtype} "
                f"{frame.right.shape}: the two views must have one shape and dtype"
            )
        if self.frames_written == 0:
            self.write_static_transform(stamp_ns)
        mono = "mono8" if frame.left.dtype == np.uint8 else "mono16"
        height, width = frame.left.shape
        dp_info = camera_info(frame.intrinsics, width, height, stamp_ns, self.frame_id)
        rgb_info = camera_info(
            frame.intrinsics, frame.rgb.shape[1], frame.rgb.shape[0], stamp_ns, self.frame_id
        )
        contents = {
            names.DP_CAMERA_INFO: dp_info,
            names.RGB_CAMERA_INFO: rgb_info,
            names.LENS_STATE: lens_state(frame.lens, stamp_ns, self.frame_id),
            names.LEFT_IMAGE: image_message(frame.left, mono, stamp_ns, self.frame_id),
            names.RIGHT_IMAGE: image_message(frame.right, mono, stamp_ns, self.frame_id),
            names.RGB_IMAGE: image_message(frame.rgb, "rgb8", stamp_ns, self.frame_id),
        }
        for topic, message in contents.items():
            self.write_message(topic, names.INPUT_TOPICS[topic], message, stamp_ns)
        if frame.depth_m is not None:
            self.write_map(names.TRUTH_DEPTH, frame.depth_m, stamp_ns)
        self.frames_written += 1
