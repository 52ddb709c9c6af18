"""Write simulated dual-pixel sequences as rosbag2 (MCAP by default, sqlite3 on request).

    with DualPixelBagWriter(path, metadata={"seed": "0"}) as bag:
        for index, frame in enumerate(simulate_sequence(frames=40)):
            bag.write_frame(frame, bag.start_ns + index * 100_000_000)

Every set carries one stamp on all its topics (`topics.INPUT_TOPICS` plus ground truth); log time
equals that stamp. The file is complete only after a clean exit from the `with` block: after an
exception the folder has no metadata.yaml and readers refuse it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError

from . import topics as names
from .images import header, image_message
from .typestore import BagError, bag_typestore, message_class

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_START_NS = 1_000_000_000 * 1_000_000_000
"""Stamp of the first frame: fixed, so that the same seed gives the same bag (September 2001)."""


class LensLike(Protocol):
    """Lens of a frame; `optics.ThinLens` fits. Metres, 1/m, f-number and κ without unit."""

    @property
    def focal_length_m(self) -> float: ...
    @property
    def f_number(self) -> float: ...
    @property
    def pixel_pitch_m(self) -> float: ...
    @property
    def focus_diopters(self) -> float: ...


class IntrinsicsLike(Protocol):
    """Pinhole intrinsics of a view in px; `estimation.Intrinsics` fits."""

    @property
    def fx_px(self) -> float: ...
    @property
    def fy_px(self) -> float: ...
    @property
    def cx_px(self) -> float: ...
    @property
    def cy_px(self) -> float: ...
    @property
    def width_px(self) -> int: ...
    @property
    def height_px(self) -> int: ...


class FrameLike(Protocol):
    """One simulated set; `simulation.SimulatedFrame` fits.

    left, right: (H, W) uint16 (mono16) or uint8 (mono8), linear. rgb: (H, W, 3) uint8.
    depth_m: (H, W) float32 truth, metres along z; NaN and ±Inf as in REP-117.
    """

    @property
    def left(self) -> NDArray[Any]: ...
    @property
    def right(self) -> NDArray[Any]: ...
    @property
    def rgb(self) -> NDArray[np.uint8]: ...
    @property
    def depth_m(self) -> NDArray[np.float32]: ...
    @property
    def lens(self) -> LensLike: ...
    @property
    def intrinsics(self) -> IntrinsicsLike: ...


class DualPixelBagWriter:
    """Writer of one bag; use as a context manager.

    Args:
        path: folder to create; must not exist unless `overwrite`.
        namespace: of all relative topics.
        frame_id: optical frame of all images.
        storage: "mcap" or "sqlite3".
        metadata: custom data of the bag (strings), e.g. seed and camera.
        start_ns: suggested stamp of the first frame, kept for the caller.
        overwrite: remove an existing *bag* at `path` first; anything else there is left alone.

    Raises:
        BagError: the path is taken, or the storage is unknown.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        namespace: str = names.DEFAULT_NAMESPACE,
        frame_id: str = names.DEFAULT_FRAME_ID,
        storage: str = "mcap",
        metadata: Mapping[str, str] | None = None,
        start_ns: int = DEFAULT_START_NS,
        overwrite: bool = False,
    ) -> None:
        plugins = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
        if storage not in plugins:
            raise BagError(f"bag storage {storage!r}: must be one of {', '.join(plugins)}")
        self.path = Path(path)
        self.namespace = namespace
        self.frame_id = frame_id
        self.start_ns = start_ns
        self.frames_written = 0
        if overwrite:
            remove_bag(self.path)
        try:
            self._writer = Writer(self.path, version=9, storage_plugin=plugins[storage])
            for key, value in (metadata or {}).items():
                self._writer.set_custom_data(key, value)
        except WriterError as error:
            raise BagError(
                f"bag {self.path}: {error}; choose another path or remove it first"
            ) from None
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> Self:
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def add_metadata(self, key: str, value: str) -> None:
        """Add custom data that is known only after some frames; call before the block ends."""
        self._writer.set_custom_data(key, value)

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
            self.write_message(
                names.TF_STATIC,
                "tf2_msgs/msg/TFMessage",
                static_transform(stamp_ns, self.frame_id),
                stamp_ns,
                latched=True,
            )
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
        truth = image_message(
            frame.depth_m.astype(np.float32, copy=False), "32FC1", stamp_ns, self.frame_id
        )
        self.write_message(names.TRUTH_DEPTH, "sensor_msgs/msg/Image", truth, stamp_ns)
        self.frames_written += 1

    def write_message(
        self, topic: str, type_name: str, message: Any, log_time_ns: int, *, latched: bool = False
    ) -> None:
        """Serialise (CDR) and write one message; the topic is resolved in the namespace."""
        absolute = names.resolve(self.namespace, topic)
        store = bag_typestore()
        if absolute not in self._connections:
            self._connections[absolute] = self._writer.add_connection(
                absolute,
                type_name,
                typestore=store,
                offered_qos_profiles=[names.recorded_qos(latched=latched)],
            )
        data = store.serialize_cdr(message, type_name)
        self._writer.write(self._connections[absolute], log_time_ns, bytes(data))


def camera_info(
    intrinsics: IntrinsicsLike, width_px: int, height_px: int, stamp_ns: int, frame_id: str
) -> Any:
    """Return a CameraInfo without distortion for a view of `width_px` x `height_px`.

    P[3] is 0: dual-pixel views share one lens and have no stereo baseline.
    """
    sx, sy = width_px / intrinsics.width_px, height_px / intrinsics.height_px
    fx, fy = intrinsics.fx_px * sx, intrinsics.fy_px * sy
    cx, cy = (intrinsics.cx_px + 0.5) * sx - 0.5, (intrinsics.cy_px + 0.5) * sy - 0.5
    roi = message_class("sensor_msgs/msg/RegionOfInterest")(
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return message_class("sensor_msgs/msg/CameraInfo")(
        header=header(stamp_ns, frame_id),
        height=height_px,
        width=width_px,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1], dtype=np.float64),
        r=np.eye(3).reshape(-1),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0], dtype=np.float64),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def lens_state(lens: LensLike, stamp_ns: int, frame_id: str) -> Any:
    """Return the LensState of a simulated lens: calibrated, stationary, square pixels."""
    kind = message_class("depth_fusion_ros/msg/LensState")
    return kind(
        header=header(stamp_ns, frame_id),
        focus_diopters=lens.focus_diopters,
        focus_diopters_start=lens.focus_diopters,
        focus_diopters_end=lens.focus_diopters,
        focus_diopters_stddev=0.0,
        focus_calibration=kind.CALIBRATION_CALIBRATED,
        focus_origin=kind.ORIGIN_ENCODER,
        lens_motion=kind.MOTION_STATIONARY,
        focal_length_m=lens.focal_length_m,
        f_number=lens.f_number,
        pixel_pitch_x_m=lens.pixel_pitch_m,
        pixel_pitch_y_m=lens.pixel_pitch_m,
        exposure_time_s=0.0,
        gain=1.0,
        actuator_position=0,
        sweep_id=0,
        sweep_index=0,
        sweep_size=0,
    )


def static_transform(stamp_ns: int, optical_frame_id: str) -> Any:
    """Return /tf_static: <camera>_link (x forward) to its optical frame (z forward, REP-103)."""
    link = optical_frame_id.removesuffix("_rgb_optical_frame").removesuffix("_optical_frame")
    rotation = message_class("geometry_msgs/msg/Quaternion")(x=-0.5, y=0.5, z=-0.5, w=0.5)
    transform = message_class("geometry_msgs/msg/Transform")(
        translation=message_class("geometry_msgs/msg/Vector3")(x=0.0, y=0.0, z=0.0),
        rotation=rotation,
    )
    stamped = message_class("geometry_msgs/msg/TransformStamped")(
        header=header(stamp_ns, f"{link}_link"),
        child_frame_id=optical_frame_id,
        transform=transform,
    )
    return message_class("tf2_msgs/msg/TFMessage")(transforms=[stamped])


def remove_bag(path: Path) -> None:
    """Remove a bag's folder; nothing happens where there is none.

    Raises:
        BagError: the folder holds anything but rosbag2 files: it is left as it is.
    """
    if not path.exists():
        return
    if not _is_bag(path):
        raise BagError(
            f"{path} exists and is no rosbag2 folder: it is left alone; choose another path or "
            "remove it first"
        )
    shutil.rmtree(path)


def _is_bag(path: Path) -> bool:
    """True for a folder that holds nothing but rosbag2 files (so that removing it is safe)."""
    if not path.is_dir():
        return False
    known = {".mcap", ".db3", ".yaml", ".db3-wal", ".db3-shm", ".tmp"}
    entries = list(path.iterdir())
    return bool(entries) and all(e.is_file() and e.suffix in known for e in entries)
