"""One bag of one scene of a data set: what it holds, how it is written, whether it is there.

    entry = Entry("scene_000_dual_pixel", path, {"kind": "npz", ...}, load)
    outcome = convert(entry, Path("bags"), storage="mcap", overwrite=False)

Loading is left to the kinds (`dataset_scenes.py`, `dataset_captures.py`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.messages import IntrinsicsLike, LensLike, LensReport
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.recording import remove_bag
from depth_fusion_ros.bags.sweep_writer import SweepBagWriter
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.bags.writer import DualPixelBagWriter
from depth_fusion_ros.optics.intrinsics import Intrinsics

SLICE_PERIOD_NS = 100_000_000
MONO16_WHITE = 65535


@dataclass(frozen=True)
class DualPixelSet:
    """One dual-pixel set of a data set, as `DualPixelBagWriter.write_frame` takes it.

    Attributes:
        left, right: (H, W) uint16 linear, 65535 = full scale. rgb: (H, W, 3) uint8 sRGB.
        depth_m: (H, W) float32 truth in metres, NaN = none; None = its scale is not known.
        lens, intrinsics: what is known of them; no intrinsics = not calibrated.
        relative_inverse_depth: (H, W) float32 truth up to scale and shift, larger is nearer.
        facts: custom data of the bag that is known only now.
    """

    left: NDArray[np.uint16]
    right: NDArray[np.uint16]
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32] | None
    lens: LensLike | LensReport
    intrinsics: IntrinsicsLike | None
    relative_inverse_depth: NDArray[np.float32] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FocusSlice:
    """One image of a sweep; image: (H, W, 3) uint8 sRGB."""

    image: NDArray[np.uint8]
    lens: LensLike | LensReport
    intrinsics: IntrinsicsLike | None


@dataclass(frozen=True)
class FocusSweepSet:
    """One focus sweep of a data set, as `SweepBagWriter.write_sweep` takes it.

    Attributes:
        slices: by rising dioptres. depth_m: (H, W) float32 truth in metres, NaN = none.
        facts: custom data of the bag that is known only now.
    """

    slices: Sequence[FocusSlice]
    depth_m: NDArray[np.float32]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A bag that is to be.

    Attributes:
        name: of its folder. source: file that it comes from.
        options: custom data of the bag that tells how it is made.
        load: reads the scene.
        load_always: read it although its bag is there: what follows depends on it (noise).
    """

    name: str
    source: Path
    options: Mapping[str, str]
    load: Callable[[], DualPixelSet | FocusSweepSet]
    load_always: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of an entry; sentence: "" where there is nothing to say."""

    status: Literal["written", "kept", "failed"]
    sentence: str = ""
    calibrated: bool = True
    """False where CameraInfo had to say that nothing is known: depth nodes refuse such sets."""


def convert(entry: Entry, out: Path, *, storage: str, overwrite: bool, wanted: bool = True
            ) -> Outcome | None:
    """Write the bag of an entry into `out`; a bag that is there is kept unless `overwrite`.

    Args:
        wanted: False = nothing is written, but what must be read is read; the result is None.
    """
    path = out / entry.name
    kept = _kept(path, entry) if wanted and path.exists() and not overwrite else None
    if (kept or not wanted) and not entry.load_always:
        return kept
    try:
        scene = entry.load()
        _check_sizes(scene)
    except MemoryError:
        raise
    except Exception as error:  # zipfile, zlib, OpenCV, HDF5 … each with a class of its own
        return _unreadable(entry, error) if wanted and not kept else kept
    if kept or not wanted:
        return kept
    try:
        _write(path, scene, storage, {**entry.options, **scene.facts})
    except BagError as error:
        return Outcome("failed", str(error))
    except OSError as error:
        return Outcome("failed", f"{path}: cannot be written ({error}); free space or choose "
                       "another --out")
    views = scene.slices if isinstance(scene, FocusSweepSet) else [scene]
    return Outcome("written", calibrated=all(v.intrinsics is not None for v in views))


def mono16(light: NDArray[Any]) -> NDArray[np.uint16]:
    """Linear light 0..1 as counts of 65535; rounding moves a value by 7.6e-6 at most."""
    return np.round(np.clip(light, 0, 1) * MONO16_WHITE).astype(np.uint16)


def centred_intrinsics(fx_px: float, width_px: int, height_px: int) -> Intrinsics:
    """Intrinsics with square pixels and the principal point in the middle of the image."""
    return Intrinsics(fx_px, fx_px, (width_px - 1) / 2, (height_px - 1) / 2, width_px, height_px)


def _kept(path: Path, entry: Entry) -> Outcome:
    try:
        with BagReader(path) as bag:
            there = bag.metadata
    except BagError:
        return Outcome("failed", f"{path}: exists and is no readable bag; give --overwrite, or "
                       "another --out")
    other = [f"{key} = {there.get(key, 'not told')}, now {value}"
             for key, value in entry.options.items() if there.get(key) != value]
    return Outcome("kept", f"{path}: kept, but it was made otherwise ({'; '.join(other)}); give "
                   "--overwrite to replace it, or another --out" if other else "")


def _unreadable(entry: Entry, error: Exception) -> Outcome:
    # Our own errors name the file and the remedy; those of libraries do not.
    text = str(error)
    if isinstance(error, KeyError):
        text = str(error.args[0]) if error.args else ""
        text = text if " " in text else f"has no {text!r}"
    if str(entry.source) not in text:
        text = f"{entry.source}: cannot be used for {entry.name} ({text or type(error).__name__})"
    remedy = "" if ";" in text else "; fetch the file again, or leave it out"
    return Outcome("failed", " ".join(text.split()) + remedy)


def _check_sizes(scene: DualPixelSet | FocusSweepSet) -> None:
    if isinstance(scene, FocusSweepSet):
        sizes = {f"slice {n}": s.image.shape[:2] for n, s in enumerate(scene.slices)}
        sizes["depth"] = scene.depth_m.shape
    else:
        arrays: dict[str, NDArray[Any] | None] = {
            "left": scene.left, "right": scene.right, "rgb": scene.rgb,
            "depth": scene.depth_m, "inverse depth": scene.relative_inverse_depth}
        sizes = {name: a.shape[:2] for name, a in arrays.items() if a is not None}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {'x'.join(map(str, size[::-1]))}" for name, size in sizes.items())
        raise ValueError(f"sizes differ: {told} px, where one is needed")


def _write(path: Path, scene: DualPixelSet | FocusSweepSet, storage: str,
           metadata: Mapping[str, str]) -> None:
    """Write the bag; a folder appears at `path` only when it is complete."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if isinstance(scene, FocusSweepSet):
            with SweepBagWriter(partial, storage=storage, metadata=metadata) as bag:
                bag.write_sweep(scene, bag.start_ns, SLICE_PERIOD_NS)
        else:
            with DualPixelBagWriter(partial, storage=storage, metadata=metadata) as bag:
                bag.write_frame(scene, bag.start_ns)
                if scene.relative_inverse_depth is not None:
                    bag.write_map(
                        names.TRUTH_INVERSE_DEPTH, scene.relative_inverse_depth, bag.start_ns)
        remove_bag(path)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
