"""Recordings for the Rerun viewer (.rrd); rerun-sdk is optional (requirements/rerun.txt).

    write_rerun(path, [(stamp_ns, {"rgb": colour, "depth": depth_m})])        # what the demo shows
    with RerunFile(path) as file:
        file.at(stamp_ns)
        file.log_picture("rgb", colour)
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.evaluation.provenance_colours import PROVENANCE_COLOURS
from depth_fusion_ros.optics.intrinsics import Intrinsics

if TYPE_CHECKING:
    from typing_extensions import Self

HOW_TO_INSTALL = "pip install -r requirements/rerun.txt (rerun-sdk)"
TIMELINE = "stamp"
JPEG_QUALITY = 85


def rerun_is_installed() -> bool:
    """Whether recordings can be written; does not import it."""
    return importlib.util.find_spec("rerun") is not None


class RerunFile:
    """One recording that is being written; it is at its path only when the block has ended well.

    Args:
        path: file to write. name: of the recording in the viewer.

    Raises:
        ImportError: rerun-sdk is not installed.
    """

    def __init__(self, path: Path, *, name: str = "") -> None:
        self.rerun: Any = importlib.import_module("rerun")
        self._path = path
        self._part = path.with_suffix(f".rrd.{os.getpid()}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.recording: Any = self.rerun.RecordingStream(
            "depth_fusion_ros", recording_id=name or None)

    def __enter__(self) -> Self:
        self.recording.save(str(self._part), default_blueprint=self._blueprint())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.recording.flush()
        self.recording.disconnect()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)

    def _blueprint(self) -> Any:
        """None = the viewer arranges what there is."""
        return None

    def at(self, stamp_ns: int) -> None:
        """What is logged from now on belongs to this stamp."""
        self.recording.set_time(TIMELINE, timestamp=np.datetime64(stamp_ns, "ns"))

    def log_picture(self, name: str, picture: NDArray[Any], *, farthest_m: float = 0.0) -> None:
        """Log (H, W, 3) uint8 colour as JPEG, or (H, W) metres in half precision.

        Args:
            farthest_m: end of the colours of metres; 0 = the viewer chooses.
        """
        if picture.ndim == 3:
            _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]),
                                   [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            self.recording.log(name, self.rerun.EncodedImage(
                contents=jpeg.tobytes(), media_type="image/jpeg"))
            return
        # A relative step of 1/2048 is far under any σ; the last bits are noise, which no packing
        # makes smaller.
        self.recording.log(name, self.rerun.DepthImage(
            picture.astype(np.float16), meter=1.0,
            depth_range=[0.0, farthest_m] if farthest_m else None))

    def name_labels(self, name: str) -> None:
        """Give the values of `Provenance` in a picture their names and colours."""
        colours = {label: PROVENANCE_COLOURS[label.name.lower()] for label in Provenance}
        self.recording.log(name, self.rerun.AnnotationContext([
            (int(label), label.name.lower(), tuple(bytes.fromhex(colour[1:])))
            for label, colour in colours.items()]), static=True)

    def log_labels(self, name: str, labels: NDArray[np.uint8]) -> None:
        """Log (H, W) values of `Provenance`; see `name_labels`."""
        self.recording.log(name, self.rerun.SegmentationImage(labels))

    def log_points(self, name: str, points_m: NDArray[np.float32], colour: tuple[int, int, int]
                   ) -> None:
        """Log (N, 3) x, y, z in the frame of the entity above."""
        self.recording.log(name, self.rerun.Points3D(points_m, colors=colour, radii=0.01))

    def log_pose(self, name: str, pose: NDArray[np.float64]) -> None:
        """Log (4, 4) parent ← entity, rigid."""
        self.recording.log(name, self.rerun.Transform3D(
            translation=pose[:3, 3], mat3x3=pose[:3, :3]))

    def log_pinhole(self, name: str, k: Intrinsics) -> None:
        """Log the camera of the pictures under this entity, which looks along its z."""
        self.recording.log(name, self.rerun.Pinhole(
            image_from_camera=[[k.fx_px, 0, k.cx_px], [0, k.fy_px, k.cy_px], [0, 0, 1]],
            resolution=[k.width_px, k.height_px], image_plane_distance=0.3))

    def log_number(self, name: str, value: float) -> None:
        """Log a point of a plot; NaN leaves a gap."""
        self.recording.log(name, self.rerun.Scalars([value]))


def write_rerun(
    path: Path, frames: Sequence[tuple[int, Mapping[str, NDArray[Any]]]]
) -> Path | None:
    """Write images to a Rerun recording (.rrd); return None if rerun-sdk is not installed.

    Args:
        path: file to write.
        frames: (stamp in ns, name -> array) with (H, W, 3) uint8 colour or (H, W) metres.
    """
    if not rerun_is_installed():
        return None
    with RerunFile(path) as file:
        for stamp_ns, pictures in frames:
            file.at(stamp_ns)
            for name, picture in pictures.items():
                file.log_picture(name, picture)
    return path
