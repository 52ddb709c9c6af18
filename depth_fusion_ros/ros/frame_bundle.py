"""One processed set in one file: what went in, what held, what came out.

    write_bundle(path, bundle)
    bundle = read_bundle(path)          # BundleError says why not, and what to do

The file is a zip, which `numpy.load` and `unzip` open: ``frame.json`` (`FrameHeader`),
``inputs/*.cdr`` (messages as they came), ``inputs/slice_*.npy`` (images of a sweep as they were
assembled: decoded and reduced to ``model.max_side_px``) and ``outputs/*.npy``.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image

from depth_fusion_ros.estimation.estimate import Intrinsics
from depth_fusion_ros.estimation.scale_anchor import AnchorFit
from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros import dual_pixel_frames as dual_pixel

FORMAT_VERSION: Final = 1
OUTPUTS = ("depth_m", "sigma_m", "provenance", "disparity_px")
"""Maps of a `DepthEstimate` that are kept."""
_HEADER = "frame.json"
_COMPRESSION_LEVEL = 1  # of noisy pixels, 6 makes no smaller files in twice the time
_TYPES: Mapping[str, type] = {
    dual_pixel.LEFT: Image, dual_pixel.RIGHT: Image, dual_pixel.PACKED: Image,
    dual_pixel.RGB: Image, dual_pixel.DP_INFO: CameraInfo, dual_pixel.RGB_INFO: CameraInfo,
    dual_pixel.LENS: LensState}


class BundleError(ValueError):
    """A file that cannot be read as a saved frame; one sentence with the remedy."""


class SavedSlice(BaseModel):
    """A slice of a sweep besides its image and lens state; stamp in ns, intrinsics in px."""

    model_config = ConfigDict(frozen=True)
    stamp_ns: int
    frame_id: str
    intrinsics: Intrinsics | None


class SavedSweep(BaseModel):
    """A sweep besides its slices' pixels, in rising order of focus; see `Sweep`."""

    model_config = ConfigDict(frozen=True)
    slices: tuple[SavedSlice, ...]
    complete: bool
    missing: int
    sweep_id: int


class FrameHeader(BaseModel):
    """What is told of a saved frame besides pixels.

    Attributes:
        format_version: of the file. path: dual_pixel or focus_sweep.
        node: its full name. parameters: all of them, as they held for this frame.
        model_id, weights_sha256: of what ran; "" = not known (the closed form has no weights).
        backend, device: of the engine. versions: of this package and of what computes.
        stamp_ns: of the set, or of the sweep's newest slice. frame_id: of the depth.
        scale_state: name of the `ScaleState`; "" where there is no depth.
        inference_divisor: of the overload step in force.
        anchor: correction of the dioptres by known distances that was used, if any.
        error: why there is no depth; "" where there is.
        stage_ms: wall time by stage in the node.
        sweep: on the sweep path.
    """

    model_config = ConfigDict(frozen=True)
    format_version: Literal[1]
    path: Literal["dual_pixel", "focus_sweep"]
    node: str
    parameters: dict[str, bool | int | float | str]
    model_id: str
    weights_sha256: str
    backend: str
    device: str
    versions: dict[str, str]
    stamp_ns: int
    frame_id: str
    scale_state: str
    inference_divisor: int
    anchor: AnchorFit | None
    error: str
    stage_ms: dict[str, float]
    sweep: SavedSweep | None = None


@dataclass(frozen=True)
class FrameBundle:
    """A processed set with everything that made its depth.

    Attributes:
        header: all but pixels.
        messages: relative topic → message, on the dual-pixel path.
        images: (H, W, 3) uint8 of each slice of a sweep. lens_states: of each slice.
        outputs: name in `OUTPUTS` → (H, W) map; empty where there is no depth.
    """

    header: FrameHeader
    messages: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[NDArray[np.uint8], ...] = ()
    lens_states: tuple[LensState, ...] = ()
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def write_bundle(path: Path, bundle: FrameBundle) -> None:
    """Write a frame; the file appears whole or not at all. Folders are made.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED,
                             compresslevel=_COMPRESSION_LEVEL) as archive:
            archive.writestr(_HEADER, bundle.header.model_dump_json(indent=1))
            for topic, message in bundle.messages.items():
                archive.writestr(_cdr(topic), serialize_message(message))
            for index, state in enumerate(bundle.lens_states):
                archive.writestr(_cdr(f"lens_{index:02d}"), serialize_message(state))
            for index, image in enumerate(bundle.images):
                archive.writestr(_slice(index), _npy(image))
            for name, values in bundle.outputs.items():
                archive.writestr(f"outputs/{name}.npy", _npy(values))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_bundle(path: Path) -> FrameBundle:
    """Read a saved frame.

    Raises:
        BundleError: missing, cut off, damaged, or of another format version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except BundleError:
        raise
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error}); give a file that "
                          "~/save_frame wrote") from None
    except zipfile.BadZipFile:
        raise BundleError(f"{path}: is no saved frame, or is cut off or damaged; copy it again "
                          "from where ~/save_frame wrote it") from None
    except Exception as error:  # damaged bytes may break any of the decoders
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise BundleError(f"{path}: is damaged ({reason}); copy it again from where ~/save_frame "
                          "wrote it") from None


def _read(path: Path, archive: zipfile.ZipFile) -> FrameBundle:
    names = archive.namelist()
    if _HEADER not in names:
        raise BundleError(f"{path}: holds no {_HEADER}, so it is no saved frame; give a file that "
                          "~/save_frame wrote")
    text = archive.read(_HEADER)
    found = json.loads(text)
    version = found.get("format_version")
    if version != FORMAT_VERSION:
        writer = found.get("versions", {}).get("depth_fusion_ros", "unknown")
        raise BundleError(f"{path}: has format version {version}, this program reads "
                          f"{FORMAT_VERSION}; use depth_fusion_ros {writer}, which wrote it")
    header = _header(path, text)
    slices = range(len(header.sweep.slices) if header.sweep else 0)
    return FrameBundle(
        header,
        {topic: deserialize_message(archive.read(_cdr(topic)), kind)
         for topic, kind in _TYPES.items() if _cdr(topic) in names},
        tuple(_array(archive.read(_slice(index))) for index in slices),
        tuple(deserialize_message(archive.read(_cdr(f"lens_{index:02d}")), LensState)
              for index in slices),
        {name: _array(archive.read(f"outputs/{name}.npy")) for name in OUTPUTS
         if not header.error})


def _header(path: Path, text: bytes) -> FrameHeader:
    try:
        return FrameHeader.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                           for fault in error.errors()[:3])
        raise BundleError(f"{path}: its {_HEADER} is not valid ({faults}); save the frame "
                          "again") from None


def _cdr(name: str) -> str:
    return f"inputs/{name.replace('/', '__')}.cdr"


def _slice(index: int) -> str:
    return f"inputs/slice_{index:02d}.npy"


def _npy(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(values), allow_pickle=False)
    return buffer.getvalue()


def _array(data: bytes) -> NDArray[Any]:
    return np.asarray(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False))


__all__ = ["FORMAT_VERSION", "OUTPUTS", "BundleError", "FrameBundle", "FrameHeader", "SavedSlice",
           "SavedSweep", "read_bundle", "write_bundle"]
