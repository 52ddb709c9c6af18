"""Focus sweeps made from pictures with depth, such as NYU Depth v2: RGB in, a synthetic sweep out.

    rgb/NAME.png|jpg     depth/NAME.npz|npy|png

Depth is metres along the optical axis in .npz (key `depth`) and .npy, millimetres in 16-bit .png;
0 and NaN = no truth. Both files of a capture have one size.

**Approximate, by construction.** The picture is cut into layers of equal inverse depth; each is
blurred by a disc as wide as the thin lens's circle of confusion and laid over the farther ones.
There is no occlusion physics: what a near thing hides is not in the picture, so a blurred border
never shows what lies behind it, only its own colours and those beside it. The picture's own
blur, noise and sRGB clipping stay in every slice, and slices are rendered at one magnification
(no focus breathing). Where light must be right, trace rays: `simulation/camera.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.optics.thin_lens import ThinLens
from depth_fusion_ros.simulation.sensor import srgb_decode, srgb_encode
from depth_fusion_ros.training.captures import (
    Array,
    DataError,
    inverse_depth_of,
    read_image,
    unit_range,
)

LAYER_BLUR_PX = 0.5
"""Blur may change by so much from one layer to the next."""
MAX_LAYERS = 64
RANGE_PERCENTILES = (1.0, 99.0)
"""Of valid inverse depth: first and last slice of a sweep."""
FLATTEST_RANGE_DIOPTERS = 0.05
"""A scene that is flatter than this is swept over so much, around its depth."""
DEPTH_SUFFIXES, RGB_SUFFIXES = (".npz", ".npy", ".png"), (".png", ".jpg")


@dataclass(frozen=True)
class SweepCapture:
    """One focus sweep with truth, all on one grid, as a network is trained on it.

    Attributes:
        name: of the capture.
        stack: (N, H, W, 3) uint8, sRGB-encoded slices, aligned to one another.
        focus_diopters: (N,) float32, rising.
        inverse_depth_diopters: (H, W) float32; any finite number where not `valid`.
        valid: (H, W) bool, where there is truth.
    """

    name: str
    stack: NDArray[np.uint8]
    focus_diopters: NDArray[np.float32]
    inverse_depth_diopters: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def padded(self, multiple_px: int) -> SweepCapture:
        """Height and width brought up to a multiple: slices reflected, truth 0 and not valid.

        Rows are added below and columns on the right, so that pixels keep their coordinates.
        """
        height, width = self.valid.shape
        below, right = -height % multiple_px, -width % multiple_px
        edge = ((0, below), (0, right))
        return replace(
            self, stack=np.pad(self.stack, ((0, 0), *edge, (0, 0)), mode="reflect"),
            inverse_depth_diopters=np.pad(self.inverse_depth_diopters, edge),
            valid=np.pad(self.valid, edge))


@dataclass(frozen=True)
class SweepCamera:
    """The lens that a synthetic sweep is taken with.

    Attributes:
        focal_length_m, f_number: of the thin lens. pixel_pitch_m: of the pictures as they are
            loaded. slices: positions, in equal steps of dioptres over the scene's range.

    Raises:
        ValueError: a number of the lens is not finite and positive, or fewer than two slices.
    """

    focal_length_m: float = 0.05
    f_number: float = 8.0
    pixel_pitch_m: float = 12e-6
    slices: int = 10

    def __post_init__(self) -> None:
        self.lens(0.0)
        if self.slices < 2:
            raise ValueError(f"slices = {self.slices!r}: a sweep needs at least 2; use 5 to 10")

    def lens(self, focus_diopters: float) -> ThinLens:
        """The lens focused there."""
        return ThinLens(self.focal_length_m, self.f_number, self.pixel_pitch_m, focus_diopters)


class RgbdSweepFolder:
    """Synthetic sweeps from a folder of pictures with depth; see the module docstring.

    Args:
        root: holds rgb/ and depth/. camera: what the sweeps are taken with.

    Raises:
        DataError: there is no depth in `root`.
    """

    def __init__(self, root: Path, camera: SweepCamera | None = None) -> None:
        self.root, self.camera = root, camera or SweepCamera()
        self.names = sorted({p.stem for p in (root / "depth").glob("*")
                             if p.suffix in DEPTH_SUFFIXES})
        if not self.names:
            raise DataError(f"{root}: no files in depth/ (.npz or .npy in metres, or 16-bit .png "
                            "in mm); path must be the folder that holds rgb/ and depth/")

    def load(self, name: str) -> SweepCapture:
        """Read a picture and its depth, and render the sweep.

        Raises:
            DataError: a file is missing, of another size or type, or has no truth at all.
        """
        inverse, valid = inverse_depth_of(self._depth_m(name))
        path = _found(self.root / "rgb", name, RGB_SUFFIXES)
        rgb = unit_range(read_image(path, colour=True))
        if rgb.shape[:2] != valid.shape:
            raise DataError(f"{path}: {rgb.shape[1]}x{rgb.shape[0]} px, its depth "
                            f"{valid.shape[1]}x{valid.shape[0]}: bring both to one grid")
        if not valid.any():
            raise DataError(f"{self.root / 'depth'}: {name!r} has no pixel with depth; "
                            "remove the capture")
        focus = sweep_positions(inverse[valid], self.camera.slices)
        stack = render_sweep(rgb, fill_nearest(inverse, valid), focus, self.camera)
        return SweepCapture(name, stack, focus, inverse, valid)

    def _depth_m(self, name: str) -> Array:
        path = _found(self.root / "depth", name, DEPTH_SUFFIXES)
        if path.suffix == ".png":
            depth = read_image(path, colour=False)
            if depth.dtype != np.uint16:
                raise DataError(f"{path}: is {depth.dtype}; depth must be 16-bit PNG in "
                                "millimetres (0 = no truth), or .npz or .npy in metres")
            return depth.astype(np.float32) * np.float32(1e-3)
        try:
            loaded: Any = np.load(path, allow_pickle=False)
            array = loaded["depth"] if path.suffix == ".npz" else loaded
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: cannot be read ({error}); write it with numpy.save, or "
                            "numpy.savez(…, depth=…)") from error
        if array.ndim != 2:
            raise DataError(f"{path}: shape {array.shape}; depth must be (H, W)")
        return np.asarray(array, np.float32)


def sweep_positions(inverse_depth_diopters: Array, slices: int) -> NDArray[np.float32]:
    """Positions in equal steps of dioptres from the farthest to the nearest depth, rising.

    Args:
        inverse_depth_diopters: (P,) of the pixels with truth; their outermost per cents do not
            count. slices: number of positions.
    """
    far, near = (float(np.percentile(inverse_depth_diopters, p)) for p in RANGE_PERCENTILES)
    missing = max(0.0, FLATTEST_RANGE_DIOPTERS - (near - far))
    far = max(0.0, far - missing / 2)
    near = max(near + missing / 2, far + FLATTEST_RANGE_DIOPTERS)
    return np.linspace(far, near, slices, dtype=np.float32)


def render_sweep(rgb: Array, inverse_depth_diopters: Array, focus_diopters: Array,
                 camera: SweepCamera) -> NDArray[np.uint8]:
    """Blur a picture as a thin lens would, once for each position of the focus.

    Approximate: see the module docstring.

    Args:
        rgb: (H, W, 3) float32 sRGB-encoded 0..1, taken as sharp everywhere.
        inverse_depth_diopters: (H, W), finite everywhere (`fill_nearest`).
        focus_diopters: (N,) positions.

    Returns:
        (N, H, W, 3) uint8 sRGB-encoded.
    """
    light = srgb_decode(torch.from_numpy(np.asarray(rgb, np.float32))).numpy()
    far, near = (float(f(inverse_depth_diopters)) for f in (np.min, np.max))
    gain = camera.lens(float(np.max(focus_diopters))).blur_gain_px_m
    count = min(MAX_LAYERS, 1 + math.ceil((near - far) * gain / LAYER_BLUR_PX))
    centres = np.linspace(far, near, count)
    step = max((near - far) / max(count - 1, 1), 1e-9)
    slices = []
    for focus in np.asarray(focus_diopters, np.float64):
        lens = camera.lens(float(focus))
        over = np.zeros((*rgb.shape[:2], 4), np.float32)
        for centre in centres:  # rising dioptres: from far to near
            # A pixel between two layers belongs to both in part, else slopes would show bands.
            share = np.clip(1 - np.abs(inverse_depth_diopters - centre) / step, 0, 1)
            if not share.any():
                continue
            sharp = np.dstack([light * share[..., None], share]).astype(np.float32)
            signed_coc_px = lens.blur_gain_px_m * (focus - centre)
            layer: Array = cv2.filter2D(sharp, cv2.CV_32F, disc_kernel(abs(signed_coc_px)),
                                        borderType=cv2.BORDER_REFLECT)
            over = layer + over * (1 - layer[..., 3:])
        seen = np.clip(over[..., :3] / np.maximum(over[..., 3:], 1e-6), 0, 1)
        encoded = srgb_encode(torch.from_numpy(seen.astype(np.float32))).numpy()
        slices.append(np.round(encoded * 255).astype(np.uint8))
    return np.stack(slices)


def disc_kernel(diameter_px: float) -> NDArray[np.float32]:
    """A disc of this diameter with soft rim, sum 1; a single 1 up to a diameter of 1 px."""
    radius = max(diameter_px / 2, 0.5)
    reach = math.ceil(radius - 0.5)
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    cover = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    return np.asarray(cover / cover.sum(), np.float32)


def fill_nearest(values: Array, valid: Array) -> NDArray[np.float32]:
    """(H, W) values with those that are not `valid` replaced by the nearest valid one."""
    if valid.all():
        return np.asarray(values, np.float32)
    _, label = cv2.distanceTransformWithLabels(
        (~valid).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros(label.max() + 1, np.float32)
    of_label[label[valid]] = values[valid]
    return np.asarray(of_label[label], np.float32)


def _found(folder: Path, name: str, suffixes: tuple[str, ...]) -> Path:
    for suffix in suffixes:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path
    raise DataError(f"{folder}: no {name}{' or '.join(suffixes)}, which the capture needs; add it "
                    "or remove the capture from depth/")
