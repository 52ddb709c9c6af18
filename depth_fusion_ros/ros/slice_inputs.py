"""Messages of a focus sweep -> slices for the `SweepAssembler`, every image under one counter.

    inputs = SliceInputs(options, max_side_px=640)
    sweeps = inputs.add_image(message, received_ns)     # and add_info, add_lens: in any order
    sweeps = inputs.tick(now_ns)
    inputs.totals()     # received = used + dropped, by cause, + pending

An image needs the camera_info of exactly its stamp, and a LensState of exactly its stamp.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo

from depth_fusion_ros.estimation.estimate import ScaleState
from depth_fusion_ros.estimation.sweep_assembly import SweepAssembler
from depth_fusion_ros.estimation.sweep_slices import SliceImage, SliceLens, Sweep, SweepOptions
from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.messages import (
    InputError,
    camera_info_to_intrinsics,
    image_to_rgb,
    stamp_to_ns,
)

IMAGE, INFO, LENS = "sweep/image_raw", "sweep/camera_info", "lens_state"
_WAITING = 32
_REMEMBERED = 512


@dataclass(frozen=True)
class SweepItem:
    """A sweep for the worker.

    Attributes:
        sweep: assembled. info: camera_info of its newest slice.
        stamp_ns: of the newest slice. first_received_ns, last_received_ns: system time at which
            the middleware received its first and its last message.
    """

    sweep: Sweep
    info: CameraInfo
    stamp_ns: int
    first_received_ns: int
    last_received_ns: int


class SliceInputs:
    """Joins images with their camera_info, decodes them, and assembles sweeps.

    All calls from one thread.

    Args:
        options: how sweeps are assembled. max_side_px: larger images are reduced to it.
        on_drop: called with cause and sentence for each image that is refused here; what the
            assembler drops is in its counters.
    """

    def __init__(self, options: SweepOptions, max_side_px: int,
                 on_drop: Callable[[str, str], None]) -> None:
        self.assembler = SweepAssembler(options)
        self.messages: Counter[str] = Counter()
        self.orphans: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._max_side_px, self._on_drop = max_side_px, on_drop
        self._images: OrderedDict[int, tuple[Any, int]] = OrderedDict()
        self._since: dict[int, int] = {}
        self._infos: OrderedDict[int, tuple[CameraInfo, int]] = OrderedDict()
        self._received: OrderedDict[int, tuple[CameraInfo, int, int]] = OrderedDict()

    def add_image(self, message: Any, received_ns: int) -> list[SweepItem]:
        """Enter a message of `sweep/image_raw`; returns the sweeps that it ends."""
        self.messages[IMAGE] += 1
        stamp_ns = stamp_to_ns(message.header.stamp)
        if stamp_ns < 0:
            self._refuse("bad_stamp", f"{IMAGE}: stamp is negative: check the driver's clock")
            return []
        if stamp_ns in self._images:
            self._refuse("duplicate", f"{IMAGE}: two images with stamp {stamp_ns} ns: each "
                         "exposure needs its own; check whether two sources publish")
            return []
        info = self._infos.pop(stamp_ns, None)
        if info is not None:
            return self._join(stamp_ns, message, received_ns, *info)
        self._images[stamp_ns] = message, received_ns
        if len(self._images) > _WAITING:
            self._without_info(next(iter(self._images)))
        return []

    def add_info(self, message: CameraInfo, received_ns: int) -> list[SweepItem]:
        """Enter a message of `sweep/camera_info`."""
        self.messages[INFO] += 1
        stamp_ns = stamp_to_ns(message.header.stamp)
        waiting = self._images.pop(stamp_ns, None)
        if waiting is not None:
            self._since.pop(stamp_ns, None)
            return self._join(stamp_ns, *waiting, message, received_ns)
        self._infos[stamp_ns] = message, received_ns
        if len(self._infos) > _WAITING:
            self._infos.popitem(last=False)
            self.orphans[INFO] += 1
        return []

    def add_lens(self, message: LensState, received_ns: int, values: Mapping[str, Any]
                 ) -> list[SweepItem]:
        """Enter a message of `lens_state`; values: the node's parameters."""
        self.messages[LENS] += 1
        lens = slice_lens(message, values)
        known = self._received.get(lens.stamp_ns)
        if known is not None:
            self._received[lens.stamp_ns] = known[0], known[1], max(known[2], received_ns)
        return self._items(self.assembler.add_lens(lens), received_ns)

    def tick(self, now_ns: int) -> list[SweepItem]:
        """End what has waited too long; see `SweepAssembler.tick`."""
        limit_ns = self.assembler.options.timeout_s * 1e9
        for stamp_ns in list(self._images):
            if now_ns - self._since.setdefault(stamp_ns, now_ns) > limit_ns:
                self._without_info(stamp_ns)
        return self._items(self.assembler.tick(now_ns), 0)

    def flush(self, cause: str) -> list[SweepItem]:
        """End everything: images that still wait are counted under `cause`."""
        self.refused[cause] += len(self._images)
        self._images.clear()
        self._since.clear()
        self._infos.clear()
        done = self._items(self.assembler.flush(), 0)
        self._received.clear()
        return done

    def totals(self) -> dict[str, int]:
        """Images: received, pending, and every counter; received is the sum of the others."""
        pending = len(self._images) + self.assembler.pending
        return {"received": self.messages[IMAGE], "pending": pending,
                **(Counter(self.assembler.counters) + self.refused)}

    def _join(self, stamp_ns: int, message: Any, received_ns: int, info: CameraInfo,
              info_received_ns: int) -> list[SweepItem]:
        try:
            rgb = image_to_rgb(message, IMAGE)
            height, width = rgb.shape[:2]
            grid = camera_info_to_intrinsics(info, INFO, width, height)
        except InputError as error:
            self._refuse(error.cause, str(error))
            return []
        if max(width, height) > self._max_side_px:
            shrink = self._max_side_px / max(width, height)
            size = max(1, round(width * shrink)), max(1, round(height * shrink))
            rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
            grid = grid.resized(*size)
        newest_ns = max(received_ns, info_received_ns)
        self._received[stamp_ns] = info, min(received_ns, info_received_ns), newest_ns
        while len(self._received) > _REMEMBERED:
            self._received.popitem(last=False)
        image = SliceImage(stamp_ns, rgb, message.header.frame_id, grid)
        return self._items(self.assembler.add_image(image), newest_ns)

    def _items(self, sweeps: list[Sweep], received_ns: int) -> list[SweepItem]:
        items = []
        for sweep in sweeps:
            parts = [self._received[item.stamp_ns] for item in sweep.slices]
            newest = max(sweep.slices, key=lambda item: item.stamp_ns)
            last_ns = max(received_ns, *(part[2] for part in parts))
            items.append(SweepItem(sweep, self._received[newest.stamp_ns][0], newest.stamp_ns,
                                   min(part[1] for part in parts), last_ns))
        return items

    def _without_info(self, stamp_ns: int) -> None:
        self._images.pop(stamp_ns)
        self._since.pop(stamp_ns, None)
        self._refuse("no_camera_info", f"{INFO}: no message with stamp {stamp_ns} ns, which the "
                     "image needs; publish camera_info with the image's stamp")

    def _refuse(self, cause: str, sentence: str) -> None:
        self.refused[cause] += 1
        self._on_drop(cause, sentence)


def slice_lens(state: LensState, values: Mapping[str, Any]) -> SliceLens:
    """What a LensState says of a slice.

    Only LensState.CALIBRATION_CALIBRATED makes dioptres ABSOLUTE; others are NOMINAL where
    lens.allow_nominal permits and RELATIVE otherwise. lens.diopter_scale and lens.diopter_offset
    correct what the lens reports. An infinite or negative focus is unknown (NaN).
    """
    scale = float(values["lens.diopter_scale"])
    offset = float(values["lens.diopter_offset"])

    def corrected(reported: float) -> float:
        found = scale * float(reported) + offset
        return found if math.isfinite(found) and found >= 0 else math.nan

    if state.focus_calibration == LensState.CALIBRATION_CALIBRATED:
        scale_state = ScaleState.ABSOLUTE
    else:
        nominal = bool(values["lens.allow_nominal"])
        scale_state = ScaleState.NOMINAL if nominal else ScaleState.RELATIVE
    spread = float(state.focus_diopters_stddev)
    known = math.isfinite(spread) and spread > 0
    moving = {LensState.MOTION_MOVING: True, LensState.MOTION_STATIONARY: False}
    return SliceLens(
        stamp_ns=stamp_to_ns(state.header.stamp), focus_diopters=corrected(state.focus_diopters),
        moving=moving.get(state.lens_motion), sweep_id=state.sweep_id,
        sweep_index=state.sweep_index, sweep_size=state.sweep_size,
        focus_start_diopters=corrected(state.focus_diopters_start),
        focus_end_diopters=corrected(state.focus_diopters_end), scale_state=scale_state,
        focus_sigma_diopters=abs(scale) * spread if known
        else float(values["lens.focus_sigma_diopters"]), aperture_m=_aperture_m(state))


def _aperture_m(state: LensState) -> float:
    """Diameter of the entrance pupil; 0 where the driver does not tell the lens."""
    focal_length_m, f_number = float(state.focal_length_m), float(state.f_number)
    if not (math.isfinite(focal_length_m) and math.isfinite(f_number)):
        return 0.0
    return focal_length_m / f_number if focal_length_m > 0 and f_number > 0 else 0.0
