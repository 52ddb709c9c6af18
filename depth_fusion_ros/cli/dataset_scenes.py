"""The kind `npz` of `depth-fusion dataset-to-bag`: the scenes that the benchmarks score.

Pixels are those of `depth-fusion benchmark` and `benchmark-sweeps`, made by the same functions with
the same random numbers; only the linear views are rounded to 16 bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from depth_fusion_ros.bags.messages import LensReport
from depth_fusion_ros.cli.dataset_recording import (
    DualPixelSet,
    Entry,
    FocusSlice,
    FocusSweepSet,
    centred_intrinsics,
    mono16,
)
from depth_fusion_ros.evaluation.samples import (
    NOISE,
    SPLITS,
    Sample,
    raytraced_sample,
    real_sample,
)
from depth_fusion_ros.evaluation.sweep_samples import raytraced_sweep
from depth_fusion_ros.optics.thin_lens import ThinLens
from depth_fusion_ros.training.captures import DataError

DUAL_PIXEL, FOCUS_SWEEP, BOTH = "dual_pixel", "focus_sweep", "both"
PATHS = (BOTH, DUAL_PIXEL, FOCUS_SWEEP)


@dataclass(frozen=True)
class SceneOptions:
    """How samples are made of the files; the defaults are the benchmarks' first set.

    Attributes:
        path: one of `PATHS`. split: ideal or soft, of ray-traced views. noise: name of a level, of
            ray-traced scenes. seed: of the noise.
        slices: of each sweep, spread over the stored ones.
        keep_breathing: leave slices at the magnification they were taken with.

    Raises:
        ValueError: unknown path, split or noise, or fewer than two slices.
    """

    path: str = BOTH
    split: str = "ideal"
    noise: str = "clean"
    seed: int = 0
    slices: int = 10
    keep_breathing: bool = False

    def __post_init__(self) -> None:
        for name, known in (("path", PATHS), ("split", SPLITS), ("noise", NOISE)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"--{name} {value}: unknown for npz; use one of "
                                 f"{', '.join(known)}")
        if self.slices < 2:
            raise ValueError(f"--slices {self.slices}: a sweep needs at least 2; use 5 to 10")
        if self.seed < 0:
            raise ValueError(f"--seed {self.seed}: must be 0 or more")


def scene_entries(folder: Path, options: SceneOptions) -> list[Entry]:
    """Return the bags that a folder of scene_*.npz or dp119_*.npz gives.

    Raises:
        DataError: it holds none that the path can use.
    """
    traced, real = (sorted(folder.glob(f"{stem}_*.npz")) for stem in ("scene", "dp119"))
    entries = []
    if options.path != FOCUS_SWEEP:
        entries += list(_dual_pixel_entries(traced, options))
        entries += [Entry(f"{path.stem}_{DUAL_PIXEL}", path, {
            "kind": "npz", "source": path.name, "data": "real capture, truth of another device",
            "truth": "metres", "parallax_axis": "x"}, partial(_real_set, path)) for path in real]
    if options.path != DUAL_PIXEL:
        entries += [Entry(f"{path.stem}_{FOCUS_SWEEP}", path, {
            **_traced(path, options), "slices": str(options.slices),
            "breathing": "kept" if options.keep_breathing else "taken out",
        }, partial(_sweep, path, number, options)) for number, path in enumerate(traced)]
    if not entries:
        wanted = "scene_*.npz" + ("" if options.path == FOCUS_SWEEP else " and no dp119_*.npz")
        raise DataError(f"{folder}: holds no {wanted}; SOURCE must be a folder of ray-traced "
                        "scenes or of real captures" + (
                            " (which have no sweeps: --path dual_pixel)" if real else ""))
    return entries


def _traced(path: Path, options: SceneOptions) -> dict[str, str]:
    return {"kind": "npz", "source": path.name, "data": "ray-traced light, exact truth",
            "truth": "metres", "noise": options.noise, "seed": str(options.seed)}


def _dual_pixel_entries(files: list[Path], options: SceneOptions) -> Iterator[Entry]:
    # One generator for the whole folder, as in `raytraced_samples`: the noise of a scene depends
    # on how much was drawn for those before it.
    random = np.random.default_rng(options.seed)
    for path in files:
        yield Entry(f"{path.stem}_{DUAL_PIXEL}", path, {
            **_traced(path, options), "split": options.split, "parallax_axis": "x"},
            partial(_traced_set, path, options, random), load_always=options.noise != "clean")


def _traced_set(path: Path, options: SceneOptions, random: np.random.Generator) -> DualPixelSet:
    sample = raytraced_sample(path, options.split, options.noise, random)
    lens = sample.frame.lens
    assert lens is not None
    # κ is in no message: whoever plays the bag gives it to the node.
    facts = {"lens": sample.group, "kappa": f"{lens.kappa:.6g}"}
    return _dual_pixel_set(sample, lens, facts)


def _real_set(path: Path) -> DualPixelSet:
    sample = real_sample(path)
    lens = sample.frame.lens
    assert lens is not None
    meta = _meta(path)
    facts = {"origin": str(meta.get("source", "not told")),
             "truth_from": str(meta.get("depth_source", "not told"))}
    if "k_measured_px_m" in meta:
        facts["kappa"] = f"{meta['k_measured_px_m'] / lens.blur_gain_px_m:.4g}"
        facts["kappa_from"] = "measured at the image's centre; it falls towards the sides"
    # The focus is what the lens was set to, read from its scale: nobody measured it.
    report = LensReport(lens.focus_diopters, calibration="APPROXIMATE", origin="COMMANDED",
                        focal_length_m=lens.focal_length_m, f_number=lens.f_number,
                        pixel_pitch_x_m=lens.pixel_pitch_m, pixel_pitch_y_m=lens.pixel_pitch_m)
    return _dual_pixel_set(sample, report, facts)


def _dual_pixel_set(sample: Sample, lens: ThinLens | LensReport, facts: dict[str, str]
                    ) -> DualPixelSet:
    frame = sample.frame
    assert frame.rgb is not None
    return DualPixelSet(mono16(frame.left), mono16(frame.right), frame.rgb, sample.depth_m, lens,
                        frame.intrinsics, facts=facts)


def _sweep(path: Path, number: int, options: SceneOptions) -> FocusSweepSet:
    sample = raytraced_sweep(path, options.noise, options.slices,
                             np.random.default_rng([options.seed, number]),
                             align=not options.keep_breathing)
    meta = _meta(path)
    height, width = sample.depth_m.shape
    slices = [
        FocusSlice(image, ThinLens(meta["f_m"], meta["N"], meta["pitch_m"], float(focus)),
                   centred_intrinsics(float(fx), width, height))
        for image, focus, fx in zip(sample.stack, sample.focus_diopters,
                                    sample.slice_focal_length_px)]
    return FocusSweepSet(slices, sample.depth_m, {"lens": sample.group})


def _meta(path: Path) -> dict[str, Any]:
    with np.load(path) as data:
        meta: dict[str, Any] = json.loads(str(data["meta"]))
    return meta
