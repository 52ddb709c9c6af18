"""Public layouts for `depth-fusion dataset-to-bag`, read by the loaders of `training/`.

Pictures lie in the bag as the set stores them (upright; parallax along y stays along y). What a set
does not tell of its lens is UNKNOWN in LensState, what it tells without calibration APPROXIMATE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.bags.messages import LensReport, simulated_lens_report
from depth_fusion_ros.cli.dataset_recording import (
    DualPixelSet,
    Entry,
    FocusSlice,
    FocusSweepSet,
    centred_intrinsics,
    mono16,
)
from depth_fusion_ros.optics.intrinsics import Intrinsics
from depth_fusion_ros.optics.thin_lens import ThinLens
from depth_fusion_ros.training.captures import Capture, CaptureFolder, DataError
from depth_fusion_ros.training.dcdp import DcdpFolder
from depth_fusion_ros.training.ddff12 import PLANE_DISPARITIES, Ddff12File
from depth_fusion_ros.training.folders import FolderLens, PlainFolder
from depth_fusion_ros.training.google_dual_pixel import GoogleDualPixelFolder
from depth_fusion_ros.training.rgbd_sweeps import RgbdSweepFolder, SweepCamera, SweepCapture

DDFF12_FOCAL_LENGTH_PX = 521.4052
"""Of a sub-aperture image, by the set's calibration; its principal point is taken as central."""
AXES = ("x", "y")


@dataclass(frozen=True)
class LayoutOptions:
    """How a layout is read; each field is of the loaders that know it.

    Attributes:
        split: of DDFF-12. slices: of DDFF-12 and of synthetic sweeps.
        parallax_axis, swap_views: of Google's and DCDP's views. min_confidence: of Google's truth.
        fx_px: focal length of the pictures where the set tells none; 0 = not known.
        focal_length_m, f_number, pixel_pitch_m: of the lens that synthetic sweeps are taken with.

    Raises:
        ValueError: unknown axis, or an fx or a confidence that cannot be.
    """

    split: str = "val"
    slices: int = 10
    parallax_axis: str = "y"
    swap_views: bool = False
    min_confidence: float = 0.5
    fx_px: float = 0.0
    focal_length_m: float = SweepCamera.focal_length_m
    f_number: float = SweepCamera.f_number
    pixel_pitch_m: float = SweepCamera.pixel_pitch_m

    def __post_init__(self) -> None:
        if self.parallax_axis not in AXES:
            raise ValueError(f"--parallax-axis {self.parallax_axis}: use x or y")
        if not (np.isfinite(self.fx_px) and self.fx_px >= 0):
            raise ValueError(f"--fx {self.fx_px:g}: must be finite and > 0, px of the pictures")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"--min-confidence {self.min_confidence:g}: must be 0 to 1")

    def intrinsics(self, height_px: int, width_px: int) -> Intrinsics | None:
        """Intrinsics as far as they are given: None where they are not."""
        return centred_intrinsics(self.fx_px, width_px, height_px) if self.fx_px else None


def ddff12_entries(path: Path, options: LayoutOptions) -> list[Entry]:
    """Return the bags of one split of a DDFF-12 file; five slices are the published five."""
    stored = len(PLANE_DISPARITIES)
    if not 2 <= options.slices <= stored:
        raise ValueError(f"--slices {options.slices}: DDFF-12 has {stored} planes; use 2 to "
                         f"{stored} (5 = the published five)")
    frames = tuple(np.linspace(0, stored - 1, options.slices).astype(int).tolist())
    file = Ddff12File(path, options.split, frames)
    facts = {"kind": "ddff12", "data": "real light field, refocused", "truth": "metres",
             "split": options.split, "slices": str(options.slices)}

    def lens(focus_diopters: float) -> LensReport:
        # Refocused from a light field: there is no lens with an aperture and a sensor that blurs
        # so, but the planes are exact in the set's own calibration, as the truth is.
        return LensReport(focus_diopters, calibration="CALIBRATED", motion="STATIONARY")

    def load(name: str) -> FocusSweepSet:
        capture = file.load(name)
        height, width = capture.valid.shape
        return _sweep(capture, lens, centred_intrinsics(DDFF12_FOCAL_LENGTH_PX, width, height))

    return [Entry(name, path, {**facts, "source": name}, partial(load, name))
            for name in file.names]


def rgbd_entries(folder: Path, options: LayoutOptions) -> list[Entry]:
    """Return the bags of pictures with depth, each a synthetic sweep."""
    camera = SweepCamera(options.focal_length_m, options.f_number, options.pixel_pitch_m,
                         options.slices)
    source = RgbdSweepFolder(folder, camera)
    facts = {"kind": "nyu", "data": "synthetic sweep of a real picture with depth (approximate)",
             "truth": "metres", "slices": str(options.slices), "fx_px": f"{options.fx_px:g}",
             "sweep_lens": f"{camera.focal_length_m:g} m, f/{camera.f_number:g}, "
                           f"{camera.pixel_pitch_m:g} m"}

    def lens(focus_diopters: float) -> LensReport:
        return simulated_lens_report(camera.lens(focus_diopters))

    def load(name: str) -> FocusSweepSet:
        capture = source.load(name)
        return _sweep(capture, lens, options.intrinsics(*capture.valid.shape))

    return [Entry(name, folder, {**facts, "source": name}, partial(load, name))
            for name in source.names]


def google_entries(folder: Path, options: LayoutOptions) -> list[Entry]:
    """Return the bags of Google's captures: relative truth, unknown lens."""
    source = GoogleDualPixelFolder(folder, parallax_axis="x", swap_views=options.swap_views,
                                   min_confidence=options.min_confidence)
    facts = {"kind": "google-dual-pixel", "data": "real capture, truth of multi-view stereo",
             "truth": "relative inverse depth", "min_confidence": f"{options.min_confidence:g}"}

    def load(name: str) -> DualPixelSet:
        return _dual_pixel_set(source.load(name), options, metric=False)

    return _view_entries(source, folder, options, facts, load)


def dcdp_entries(folder: Path, options: LayoutOptions) -> list[Entry]:
    """Return the bags of captures like DCDP's: metric truth, unknown lens."""
    source = DcdpFolder(folder, parallax_axis="x", swap_views=options.swap_views)
    facts = {"kind": "dcdp", "data": "real capture, truth of a second camera", "truth": "metres"}

    def load(name: str) -> DualPixelSet:
        return _dual_pixel_set(source.load(name), options, metric=True)

    return _view_entries(source, folder, options, facts, load)


def folder_entries(folder: Path, options: LayoutOptions) -> list[Entry]:
    """Return the bags of the plain folder format, with what its lens.yaml tells."""
    source = PlainFolder(folder)
    has_rgb = (folder / "rgb").is_dir()
    facts = {"kind": "folder", "data": "captures of a folder", "truth": "metres",
             "rgb": "as stored" if has_rgb else "grey mean of the views"}

    def load(name: str) -> DualPixelSet:
        capture = source.load(name)
        if source.lens.parallax_axis == "y":
            capture = capture.transposed()  # the loader turned it; upright again
        return _with_lens(_dual_pixel_set(capture, options, metric=True), source.lens, name)

    options = replace(options, parallax_axis=source.lens.parallax_axis,
                      swap_views=source.lens.swap_views)
    return _view_entries(source, folder, options, facts, load)


def _view_entries(source: CaptureFolder, folder: Path, options: LayoutOptions,
                  facts: Mapping[str, str], load: Callable[[str], DualPixelSet]) -> list[Entry]:
    told = {"parallax_axis": options.parallax_axis, "fx_px": f"{options.fx_px:g}",
            "views": "exchanged" if options.swap_views else "as stored"}
    return [Entry(name.replace("/", "_"), folder, {**facts, **told, "source": name},
                  partial(load, name)) for name in source.names]


def _dual_pixel_set(capture: Capture, options: LayoutOptions, *, metric: bool) -> DualPixelSet:
    if capture.left is None or capture.right is None:
        raise DataError("the capture has no left and right view; the kind nyu makes focus sweeps "
                        "of pictures with depth")
    inverse = np.where(capture.valid, capture.inverse_depth_diopters, np.nan).astype(np.float32)
    # Loaders give square roots of light.
    left, right = (mono16(view.astype(np.float64) ** 2) for view in (capture.left, capture.right))
    return DualPixelSet(
        left, right, np.round(capture.rgb * 255).astype(np.uint8),
        _metres(inverse) if metric else None, LensReport(), options.intrinsics(*inverse.shape),
        None if metric else inverse)


def _with_lens(scene: DualPixelSet, lens: FolderLens, name: str) -> DualPixelSet:
    """The set with what lens.yaml tells of its lens; the pitch is that along the parallax."""
    focus = lens.captures.get(name, {}).get("focus_diopters", lens.focus_diopters)
    pitch = lens.pixel_pitch_m or 0.0
    report = LensReport(
        np.nan if focus is None else focus,
        calibration="UNKNOWN" if focus is None else "APPROXIMATE",
        focal_length_m=lens.focal_length_m or 0.0, f_number=lens.f_number or 0.0,
        pixel_pitch_x_m=pitch if lens.parallax_axis == "x" else 0.0,
        pixel_pitch_y_m=pitch if lens.parallax_axis == "y" else 0.0)
    facts = {}
    if "kappa" in lens.model_fields_set:
        facts["kappa"] = f"{lens.kappa:.6g}"
    if lens.disparity_gain_px_m:
        facts["disparity_gain_px_m"] = f"{lens.disparity_gain_px_m:.6g}"
    intrinsics = scene.intrinsics
    if intrinsics is None and focus is not None and lens.focal_length_m and lens.f_number and pitch:
        height, width = scene.left.shape
        fx_px = ThinLens(lens.focal_length_m, lens.f_number, pitch, focus).focal_length_px
        intrinsics = centred_intrinsics(fx_px, width, height)
        facts["intrinsics"] = "of the lens, with square pixels and a central axis"
    return replace(scene, lens=report, intrinsics=intrinsics, facts=facts)


def _sweep(capture: SweepCapture, lens: Callable[[float], LensReport],
           intrinsics: Intrinsics | None) -> FocusSweepSet:
    slices = [FocusSlice(image, lens(float(focus)), intrinsics)
              for image, focus in zip(capture.stack, capture.focus_diopters)]
    inverse = np.where(capture.valid, capture.inverse_depth_diopters, np.nan)
    return FocusSweepSet(slices, _metres(inverse.astype(np.float32)))


def _metres(inverse_depth_diopters: NDArray[np.float32]) -> NDArray[np.float32]:
    """1/x in float32: NaN stays, 0 dioptres are +Inf metres."""
    with np.errstate(divide="ignore"):
        return np.asarray(1 / inverse_depth_diopters.astype(np.float64), np.float32)
