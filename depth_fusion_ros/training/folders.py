"""The plain folder format: one file per capture and kind of data (docs/training_data.md).

    left/NAME.png|npy   right/NAME.png|npy   rgb/NAME.png|jpg   depth/NAME.npy|png   lens.yaml

Captures are the names in `depth/`. All files of a capture have one size. `rgb/` may be missing
(the grey mean of the views stands in for it), or `left/` and `right/` may be (RGB-D alone).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from depth_fusion_ros.optics.thin_lens import IDEAL_DUAL_PIXEL_KAPPA, ThinLens
from depth_fusion_ros.training.captures import (
    Array,
    Capture,
    DataError,
    LensFacts,
    inverse_depth_of,
    read_image,
    unit_range,
)

SUFFIXES = {"left": (".npy", ".png"), "right": (".npy", ".png"), "rgb": (".png", ".jpg"),
            "depth": (".npy", ".png")}
MILLIMETRE_M = 1e-3


class FolderLens(BaseModel):
    """Contents of lens.yaml; every field may be left out.

    Attributes:
        disparity_gain_px_m: k, px of disparity per dioptre; or the three numbers it follows from:
        focal_length_m, f_number, pixel_pitch_m: of a thin lens, pitch of the stored images along
            the parallax axis.
        kappa: dual-pixel gain.
        focus_diopters: 1/g of every capture that `captures` does not name.
        captures: NAME: {focus_diopters: …}.
        parallax_axis, swap_views: how the views are shifted; d = x_right − x_left must be
            positive behind the focus plane.
        encoding, black_level, white_level: of the views, counts; white 0 = the dtype's maximum
            (1 for floats).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    disparity_gain_px_m: Annotated[float, Field(gt=0)] | None = None
    focal_length_m: Annotated[float, Field(gt=0)] | None = None
    f_number: Annotated[float, Field(gt=0)] | None = None
    pixel_pitch_m: Annotated[float, Field(gt=0)] | None = None
    kappa: Annotated[float, Field(gt=0)] = IDEAL_DUAL_PIXEL_KAPPA
    focus_diopters: Annotated[float, Field(ge=0)] | None = None
    captures: dict[str, dict[Literal["focus_diopters"], float]] = {}
    parallax_axis: Literal["x", "y"] = "x"
    swap_views: bool = False
    encoding: Literal["linear", "srgb"] = "linear"
    black_level: float = 0.0
    white_level: float = 0.0

    @model_validator(mode="after")
    def _gain_is_given_once(self) -> Self:
        thin = [self.focal_length_m, self.f_number, self.pixel_pitch_m]
        if any(thin) and (not all(thin) or self.disparity_gain_px_m):
            raise ValueError("give either disparity_gain_px_m or all of focal_length_m, f_number "
                             "and pixel_pitch_m")
        return self

    def facts(self, name: str) -> LensFacts | None:
        """The lens of one capture; None where its gain or focus is not given."""
        focus = self.captures.get(name, {}).get("focus_diopters", self.focus_diopters)
        if focus is None:
            return None
        if self.disparity_gain_px_m is not None:
            return LensFacts(self.kappa, self.disparity_gain_px_m, focus)
        if self.focal_length_m is None or self.f_number is None or self.pixel_pitch_m is None:
            return None
        lens = ThinLens(self.focal_length_m, self.f_number, self.pixel_pitch_m, focus, self.kappa)
        return LensFacts(self.kappa, lens.disparity_gain_px_m, focus)


class PlainFolder:
    """Captures of a plain folder; see the module docstring.

    Raises:
        DataError: the folder has no captures, or its lens.yaml is wrong.
    """

    folder_of: ClassVar[dict[str, str]] = {}
    """Names of folders that differ from the part's own (other layouts)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = sorted({p.stem for p in (root / "depth").glob("*")
                             if p.suffix in SUFFIXES["depth"]})
        if not self.names:
            raise DataError(f"{root}: no files in depth/ (.npy in metres or 16-bit .png in mm); "
                            "see docs/training_data.md")
        self.lens = _read_lens(root / "lens.yaml")
        self._has = {part: self._folder(part).is_dir() for part in SUFFIXES}
        if self._has["left"] != self._has["right"] or not (self._has["left"] or self._has["rgb"]):
            raise DataError(f"{root}: has {[p for p, there in self._has.items() if there]}; needs "
                            "left and right, or rgb, or all three")

    def load(self, name: str) -> Capture:
        """Read one capture.

        Raises:
            DataError: a file is missing, or its size or type is not that of the format.
        """
        inverse, valid = inverse_depth_of(self._depth_m(name))
        left = right = None
        if self._has["left"]:
            left, right = (self._view(part, name) for part in ("left", "right"))
        if self._has["rgb"]:
            rgb = unit_range(read_image(self._file("rgb", name), colour=True))
        else:
            assert left is not None and right is not None
            # The views are square roots of light: near enough to sRGB's encoding.
            rgb = np.repeat(((left + right) / 2)[..., None], 3, axis=2)
        for part, image in (("left", left), ("right", right), ("rgb", rgb)):
            if image is not None and image.shape[:2] != valid.shape:
                raise DataError(
                    f"{self._folder(part)}: {name!r} is {image.shape[1]}x{image.shape[0]} px, its "
                    f"depth {valid.shape[1]}x{valid.shape[0]}: bring all to one grid")
        capture = Capture(left, right, rgb, inverse, valid, self.lens.facts(name))
        if self.lens.swap_views:
            capture = capture.swapped()
        return capture.transposed() if self.lens.parallax_axis == "y" else capture

    def _depth_m(self, name: str) -> Array:
        path = self._file("depth", name)
        if path.suffix == ".npy":
            return _load_array(path).astype(np.float32)
        depth = read_image(path, colour=False)
        if depth.dtype != np.uint16:
            raise DataError(f"{path}: is {depth.dtype}; depth must be 16-bit PNG in millimetres "
                            "(0 = no truth) or .npy in metres")
        return depth.astype(np.float32) * np.float32(MILLIMETRE_M)

    def _view(self, part: str, name: str) -> Array:
        path = self._file(part, name)
        image = _load_array(path) if path.suffix == ".npy" else read_image(path, colour=False)
        light = unit_range(image, self.lens.black_level, self.lens.white_level)
        if self.lens.encoding == "srgb":
            light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
        return np.sqrt(light).astype(np.float32)

    def _folder(self, part: str) -> Path:
        return self.root / self.folder_of.get(part, part)

    def _file(self, part: str, name: str) -> Path:
        for suffix in SUFFIXES[part]:
            path = self._folder(part) / f"{name}{suffix}"
            if path.is_file():
                return path
        raise DataError(f"{self._folder(part)}: no {name}{' or '.join(SUFFIXES[part])}, which "
                        "depth/ has; add it or remove the capture from depth/")


def _load_array(path: Path) -> Array:
    try:
        array: Any = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as .npy ({error}); write it with numpy.save"
                        ) from error
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        raise DataError(f"{path}: shape {np.shape(array)}; must be (H, W)")
    return array


def _read_lens(path: Path) -> FolderLens:
    if not path.exists():
        return FolderLens()
    try:
        return FolderLens(**(yaml.safe_load(path.read_text()) or {}))
    except (ValidationError, TypeError, yaml.YAMLError) as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()] if (
            isinstance(error, ValidationError)) else [str(error)]
        raise DataError(f"{path}: {'; '.join(lines)}; see docs/training_data.md") from error
