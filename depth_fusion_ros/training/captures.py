"""Real captures as training samples: crops, flips and labels, whatever the folder's layout.

A loader turns one capture of its layout into a `Capture` with parallax along x; `capture_batch`
turns captures into the batches that simulated scenes come in.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.networks.convention import CONDITION_CHANNELS, lens_condition
from depth_fusion_ros.training.datasets import TrainingBatch

CROP_TRIES = 8
FEWEST_VALID = 0.25
"""A random crop is drawn again, a few times, while less of it than this has truth."""
KAPPA_SPREAD = 0.03
"""Standard deviation of ln κ between calibration and label, as for simulated scenes."""

Array = NDArray[Any]


class DataError(ValueError):
    """A data folder that cannot be used; the text names the file and the remedy."""


@dataclass(frozen=True)
class LensFacts:
    """What the lens condition and the disparity labels need; see `optics.thin_lens`.

    Attributes:
        kappa: dual-pixel gain κ. gain_px_m: k = κ·A, px of disparity per dioptre on the loaded
            grid. focus_diopters: 1/g.
    """

    kappa: float
    gain_px_m: float
    focus_diopters: float


@dataclass(frozen=True)
class Capture:
    """One capture on one grid, parallax along x.

    Attributes:
        left, right: (H, W) float32, square root of linear light 0..1; None where the capture has
            RGB and depth only.
        rgb: (H, W, 3) float32, sRGB-encoded 0..1.
        inverse_depth_diopters: (H, W) float32; any number where not `valid`. Where `lens` is None
            it may be relative: right up to scale and shift.
        valid: (H, W) bool, where there is truth.
        lens: None = unknown.
    """

    left: Array | None
    right: Array | None
    rgb: Array
    inverse_depth_diopters: Array
    valid: Array
    lens: LensFacts | None

    def transposed(self) -> Capture:
        """With x and y exchanged: parallax along y becomes parallax along x."""
        return replace(
            self, left=None if self.left is None else self.left.T,
            right=None if self.right is None else self.right.T,
            rgb=self.rgb.transpose(1, 0, 2), valid=self.valid.T,
            inverse_depth_diopters=self.inverse_depth_diopters.T)

    def swapped(self) -> Capture:
        """With the two views exchanged: for files with the opposite sign."""
        return replace(self, left=self.right, right=self.left)

    def crop(self, x: int, y: int, width_px: int, height_px: int) -> Capture:
        """The part that begins at column x and row y."""
        part = (slice(y, y + height_px), slice(x, x + width_px))
        return replace(
            self, left=None if self.left is None else self.left[part],
            right=None if self.right is None else self.right[part], rgb=self.rgb[part],
            inverse_depth_diopters=self.inverse_depth_diopters[part], valid=self.valid[part])

    def mirrored(self) -> Capture:
        """Mirrored in x, which swaps the views.

        So d = x_right − x_left keeps its sign: (W−1−x_left) − (W−1−x_right) = x_right − x_left.
        """
        return replace(
            self, left=None if self.right is None else self.right[:, ::-1],
            right=None if self.left is None else self.left[:, ::-1], rgb=self.rgb[:, ::-1],
            inverse_depth_diopters=self.inverse_depth_diopters[:, ::-1],
            valid=self.valid[:, ::-1])

    def upside_down(self) -> Capture:
        """Mirrored in y: disparity along x stays as it is."""
        return replace(
            self, left=None if self.left is None else self.left[::-1],
            right=None if self.right is None else self.right[::-1], rgb=self.rgb[::-1],
            inverse_depth_diopters=self.inverse_depth_diopters[::-1], valid=self.valid[::-1])


class CaptureFolder(Protocol):
    """A folder of captures in some layout."""

    @property
    def names(self) -> Sequence[str]:
        """Names of its captures, sorted."""
        ...

    def load(self, name: str) -> Capture:
        """Read one capture.

        Raises:
            DataError: a file is missing or not as the layout says.
        """
        ...


def split_names(names: Sequence[str], held_out_share: float) -> tuple[list[str], list[str]]:
    """Split names into (trained on, held out) by their checksum.

    A capture keeps its side when others are added. At least one is trained on.
    """
    held = [n for n in names if zlib.crc32(n.encode()) / 2**32 < held_out_share]
    held = held[: len(names) - 1]
    return [n for n in names if n not in set(held)], held


def capture_batch(folder: CaptureFolder, names: Sequence[str], width_px: int, height_px: int,
                  generator: torch.Generator | None, *, need_views: bool = True,
                  need_lens: bool = True, unknown_lens_share: float = 0.0,
                  device: str = "cpu") -> TrainingBatch:
    """Load, crop and flip captures and compute their labels.

    Args:
        folder, names: what is loaded, one sample each.
        width_px, height_px: size of the crops.
        generator: of crops, flips and hidden lenses; None = centre crops as they are.
        need_views, need_lens: what the stage and the loss cannot do without.
        unknown_lens_share: share of samples whose lens condition is hidden.

    Returns:
        the batch. Disparity and k/Z are NaN in samples whose lens is not known, and 0 and 1 where
        there is no truth; views are 0 where a capture has none and none are needed.

    Raises:
        DataError: a capture is too small, or lacks views or a lens that are needed.
    """
    captures = []
    for name in names:
        capture = folder.load(name)
        if need_views and (capture.left is None or capture.right is None):
            raise DataError(f"capture {name!r}: has no left and right view; only the 'rgb' stage "
                            "can train on RGB and depth alone")
        if need_lens and capture.lens is None:
            raise DataError(f"capture {name!r}: its lens is not known, so it has no disparity in "
                            "px; add a lens.yaml, or train with loss: {kind: affine}")
        height, width = capture.valid.shape
        if height < height_px or width < width_px:
            raise DataError(f"capture {name!r}: {width}x{height} px with parallax along x is "
                            f"smaller than the crops of {width_px}x{height_px} px; lower "
                            "data.width_px or data.height_px")
        captures.append(_cropped(capture, width_px, height_px, generator))
    batch = _collated(captures, generator, unknown_lens_share)
    return TrainingBatch(**{k: v.to(device) for k, v in batch.items()})


def read_image(path: Path, *, colour: bool) -> Array:
    """An image file as it is: (H, W, 3) RGB or (H, W) grey, uint8 or uint16.

    Raises:
        DataError: the file is missing or not an image.
    """
    flags = cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE)
    image = cv2.imread(str(path), flags)
    if image is None:
        raise DataError(f"{path}: missing, or not an image that OpenCV reads; check the layout")
    pixels: Array = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if colour else image
    return pixels


def unit_range(image: Array, black: float = 0.0, white: float = 0.0) -> Array:
    """Counts to 0..1 float32; white 0 = the dtype's maximum (1 for floats)."""
    if not white:
        white = float(np.iinfo(image.dtype).max) if image.dtype.kind == "u" else 1.0
    linear: Array = (image.astype(np.float32) - np.float32(black)) / np.float32(white - black)
    return np.clip(linear, 0, 1)


def inverse_depth_of(depth_m: Array) -> tuple[Array, Array]:
    """Inverse depth in dioptres and validity of depth in metres.

    NaN, 0 and negative depth are no truth; +Inf is truth, 0 dioptres.
    """
    valid = depth_m > 0
    return np.where(valid, 1 / np.where(valid, depth_m, 1), 0).astype(np.float32), valid


def _cropped(capture: Capture, width: int, height: int, generator: torch.Generator | None
             ) -> Capture:
    free_y, free_x = capture.valid.shape[0] - height, capture.valid.shape[1] - width
    if generator is None:
        return capture.crop(free_x // 2, free_y // 2, width, height)
    for _ in range(CROP_TRIES):
        x, y = (int(torch.randint(free + 1, (1,), generator=generator))
                for free in (free_x, free_y))
        part = capture.crop(x, y, width, height)
        if part.valid.mean() >= FEWEST_VALID:
            break
    mirror, turn = (torch.rand(2, generator=generator) < 0.5).tolist()
    part = part.mirrored() if mirror else part
    return part.upside_down() if turn else part


def _collated(captures: list[Capture], generator: torch.Generator | None,
              unknown_lens_share: float) -> dict[str, torch.Tensor]:
    def stacked(images: list[Array]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(np.stack(images), dtype=np.float32))[:, None]

    inverse = stacked([c.inverse_depth_diopters for c in captures])
    valid = stacked([c.valid for c in captures]) > 0
    blank = np.zeros(captures[0].valid.shape, np.float32)
    lenses = [c.lens for c in captures]
    unknown = float("nan")
    kappa, gain, focus = (torch.tensor([getattr(lens, name) if lens else unknown
                                        for lens in lenses])
                          for name in ("kappa", "gain_px_m", "focus_diopters"))
    k = gain[:, None, None, None]
    known = torch.tensor([lens is not None for lens in lenses])
    told = kappa
    if generator is not None:
        known &= torch.rand(len(captures), generator=generator) >= unknown_lens_share
        # Calibration is not perfect either: the label has the true κ, the network a near one.
        told = kappa * torch.exp(KAPPA_SPREAD * torch.randn(len(captures), generator=generator))
    condition = lens_condition(told, gain * told / kappa, focus)
    rgb = np.stack([c.rgb for c in captures]).transpose(0, 3, 1, 2)
    return {
        "left": stacked([blank if c.left is None else c.left for c in captures]),
        "right": stacked([blank if c.right is None else c.right for c in captures]),
        "rgb": torch.from_numpy(np.ascontiguousarray(rgb, dtype=np.float32)),
        "condition": torch.where(known[:, None], condition,
                                 torch.zeros(len(captures), CONDITION_CHANNELS)),
        "disparity_px": (k * (focus[:, None, None, None] - inverse)).where(valid | k.isnan(), 0.0),
        "pixels_per_log": (k * inverse).where(valid | k.isnan(), 1.0),
        "inverse_depth_diopters": inverse,
        "valid": valid,
    }
