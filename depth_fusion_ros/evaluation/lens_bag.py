"""Images of a calibration board out of rosbag2: focus sweeps and dual-pixel pairs.

    for image in lens_images(path, ViewLevels()):      # `LensImage`, in order of time
        collector.add(image)

Sweeps: `sweep/image_raw`, `sweep/camera_info`. Pairs: `dp/left/image_raw`, `dp/right/image_raw`,
`dp/camera_info`. Both: `lens_state`, joined by exact stamp. A camera_info that is not sent with
every image holds until the next one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.images import image_array, stamp_ns
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.evaluation.lens_stations import LensImage, Optics

PINHOLE_MODELS = ("plumb_bob", "rational_polynomial", "")


@dataclass(frozen=True)
class ViewLevels:
    """How counts of dual-pixel views become light, as the parameters dp.* of the node.

    Attributes:
        black: counts of no light. white: of full scale; 0 = of the type. linear: False = sRGB.
    """

    black: float = 0.0
    white: float = 0.0
    linear: bool = True

    def light(self, counts: NDArray[Any]) -> NDArray[np.float32]:
        """Light, 1 = full scale, of counts (H, W) uint8 or uint16."""
        white = self.white or float(np.iinfo(counts.dtype).max)
        light = np.clip((counts.astype(np.float32) - self.black) / (white - self.black), 0, 1)
        if not self.linear:
            light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055)**2.4)
        return np.asarray(light, np.float32)


def count_images(path: Path, namespace: str = names.DEFAULT_NAMESPACE) -> int:
    """Number of messages that `lens_images` will go through, for a progress bar."""
    with BagReader(path) as bag:
        wanted = {names.resolve(namespace, t) for t in (
            names.SWEEP_IMAGE, names.LEFT_IMAGE, names.RIGHT_IMAGE)}
        return sum(t.message_count for t in bag.topics if t.name in wanted)


def lens_images(path: Path, levels: ViewLevels, namespace: str = names.DEFAULT_NAMESPACE
                ) -> Iterator[LensImage | None]:
    """Yield what can be used, in order of time; None for a message that gives nothing yet.

    Raises:
        BagError: no images or no lens states, none of them with equal stamps, no camera_info, a
            lens that is no pinhole, or a bag that is truncated.
    """
    topic = {t: names.resolve(namespace, t) for t in (
        names.SWEEP_IMAGE, names.SWEEP_CAMERA_INFO, names.LEFT_IMAGE, names.RIGHT_IMAGE,
        names.DP_CAMERA_INFO, names.LENS_STATE)}
    with BagReader(path) as bag:
        recorded = {t.name for t in bag.topics if t.message_count}
        _check_topics(path, topic, recorded)
        states = {stamp_ns(m): m for _, _, m in bag.messages([topic[names.LENS_STATE]])}
        used = 0
        for image in _joined(bag, topic, recorded, states, levels):
            used += image is not None
            yield image
        if not used:
            raise BagError(
                f"bag {path}: none of its images has a lens state with its stamp and a focus that "
                f"is a number ({len(states)} messages on {topic[names.LENS_STATE]}); stamp each "
                "LensState like the image it describes")


def live_image(message: Any, state: Any, info: Any, levels: ViewLevels, *, is_view: bool
               ) -> LensImage:
    """One image for a look at it, without waiting for messages of its stamp.

    Args:
        message: sensor_msgs/Image; a left view where `is_view`. state, info: the newest ones.

    Raises:
        BagError: camera_info does not suit, as in `lens_images`.
    """
    if is_view:
        return _image(stamp_ns(message), state, info, left=levels.light(image_array(message)))
    return _image(stamp_ns(message), state, info,
                  grey=_grey(image_array(message), message.encoding))


def _check_topics(path: Path, topic: dict[str, str], recorded: set[str]) -> None:
    sweep = topic[names.SWEEP_IMAGE] in recorded
    pairs = {topic[names.LEFT_IMAGE], topic[names.RIGHT_IMAGE]} <= recorded
    known = ", ".join(sorted(recorded)) or "nothing"
    if not sweep and not pairs:
        raise BagError(
            f"bag {path}: has neither {topic[names.SWEEP_IMAGE]} nor {topic[names.LEFT_IMAGE]} and "
            f"{topic[names.RIGHT_IMAGE]}, only {known}; record one of them, or set --namespace")
    if topic[names.LENS_STATE] not in recorded:
        raise BagError(
            f"bag {path}: has no messages on {topic[names.LENS_STATE]}, only {known}: a focus must "
            "be reported for each image; record it too (lens_state_bridge publishes it)")
    for there, info in ((sweep, names.SWEEP_CAMERA_INFO), (pairs, names.DP_CAMERA_INFO)):
        if there and topic[info] not in recorded:
            raise BagError(
                f"bag {path}: has no messages on {topic[info]}, only {known}: distances come from "
                "the camera matrix; calibrate the camera (camera_calibration) and record it")


def _joined(bag: BagReader, topic: dict[str, str], recorded: set[str], states: dict[int, Any],
            levels: ViewLevels) -> Iterator[LensImage | None]:
    infos: dict[str, Any] = {}
    for info in (names.SWEEP_CAMERA_INFO, names.DP_CAMERA_INFO):
        # The first one may come after the first image.
        first = next((m for _, _, m in bag.messages([topic[info]])), None) if (
            topic[info] in recorded) else None
        if first is not None:
            infos[topic[info]] = first
    waiting: dict[int, dict[str, Any]] = {}
    wanted = sorted(set(topic.values()) & recorded - {topic[names.LENS_STATE]})
    sides = (topic[names.LEFT_IMAGE], topic[names.RIGHT_IMAGE])
    for name, _, message in bag.messages(wanted):
        if name in infos:
            infos[name] = message
            continue
        stamp = stamp_ns(message)
        state = states.get(stamp)
        if state is None or not math.isfinite(state.focus_diopters):
            yield None
        elif name == topic[names.SWEEP_IMAGE]:
            yield _image(stamp, state, infos[topic[names.SWEEP_CAMERA_INFO]],
                         grey=_grey(image_array(message), message.encoding))
        elif name in sides:
            both = waiting.setdefault(stamp, {})
            both[name] = levels.light(image_array(message))
            if len(both) < 2:
                yield None
                continue
            del waiting[stamp]
            left, right = (both[side] for side in sides)
            if left.shape != right.shape or left.ndim != 2:
                raise BagError(
                    f"bag {bag.path}: left view {left.shape} and right view {right.shape}: must be "
                    "mono images of one size; record the views as the driver sends them")
            yield _image(stamp, state, infos[topic[names.DP_CAMERA_INFO]], left=left, right=right)


def _image(stamp: int, state: Any, info: Any, **views: NDArray[Any]) -> LensImage:
    if info.distortion_model not in PINHOLE_MODELS:
        raise BagError(
            f"camera_info distortion_model = {info.distortion_model!r}: must be one of "
            f"{', '.join(PINHOLE_MODELS[:2])}; rectify the images first")
    matrix = np.asarray(info.k, np.float64).reshape(3, 3).copy()
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise BagError(f"camera_info fx, fy = {matrix[0, 0]!r}, {matrix[1, 1]!r}: must be > 0 (0 = "
                       "not calibrated); calibrate the camera (camera_calibration) first")
    height, width = next(iter(views.values())).shape[:2]
    if (info.width, info.height) != (width, height):
        raise BagError(f"camera_info of {info.width}x{info.height} px with an image of "
                       f"{width}x{height}: must be one size; record unscaled images")
    optics = Optics(float(state.focal_length_m), float(state.f_number),
                    float(state.pixel_pitch_x_m), float(state.pixel_pitch_y_m))
    return LensImage(stamp / 1e9, float(state.focus_diopters), matrix,
                     np.asarray(info.d, np.float64), optics, **views)


def _grey(image: NDArray[Any], encoding: str) -> NDArray[np.uint8]:
    if image.ndim == 3:
        code = cv2.COLOR_BGR2GRAY if encoding == "bgr8" else cv2.COLOR_RGB2GRAY
        image = np.asarray(cv2.cvtColor(image, code))
    if image.dtype != np.uint8:
        image = (image.astype(np.float32) / np.iinfo(image.dtype).max * 255).round()
    return np.asarray(image, np.uint8)


__all__ = ["ViewLevels", "count_images", "lens_images", "live_image"]
