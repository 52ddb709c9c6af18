"""Captures with truth, ready for scoring: simulated places, ray-traced scenes, real captures.

    for sample in simulated_samples("eval", Path("runs/eval"), split="soft", noise="indoor"): ...

Three kinds, never mixed in one table. *Simulated* places are rendered here by seed; *ray-traced*
scenes come from a folder made by another renderer; both have exact truth, an ideal or a soft
split, and sensor noise added on reading. *Real* captures have the noise they have, and truth from
a second device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.estimation.dual_pixel import DualPixelFrame
from depth_fusion_ros.estimation.estimate import Intrinsics
from depth_fusion_ros.estimation.postprocess import TEXTURE_ENERGY_MIN, texture_energy
from depth_fusion_ros.evaluation.disparity_bound import disparity_bound_px
from depth_fusion_ros.evaluation.metrics import depth_edges
from depth_fusion_ros.optics.thin_lens import IDEAL_DUAL_PIXEL_KAPPA, ThinLens
from depth_fusion_ros.simulation.camera import aperture_pattern
from depth_fusion_ros.simulation.evaluation_scenes import PRESETS, cached_evaluation_scenes
from depth_fusion_ros.simulation.sensor import (
    GREY_WEIGHTS,
    SensorBatch,
    split_weights,
    srgb_decode,
    srgb_encode,
)

NOISE = {"clean": (0.0, 0.0), "good": (3e-5, 2e-7), "indoor": (2e-4, 2e-6), "dim": (1e-3, 2e-5)}
"""Name → (a, b) of variance = a·x + b at signal x in 0..1, each view on its own."""
SPLITS = ("ideal", "soft")
RAYTRACED_RENDER_SIGMA = 0.0017
"""Noise that path tracing left in the views of the ray-traced folder, of full scale."""
LUMINANCE_WEIGHTS = (0.2126, 0.7152, 0.0722)
"""Of linear RGB, ITU-R BT.709."""
SMOOTH_REACH_PX = 8
"""A pixel is smooth where no depth jump lies this near: half the window of the bound."""
LENS_GROUPS = ("robot", "phone")


@dataclass(frozen=True)
class Sample:
    """One capture with truth.

    Attributes:
        name, group: file, and kind (name of the lens; scene type of real captures).
        frame: estimator input. depth_m: (H, W) truth, NaN = none.
        textured: (H, W) bool, something to match there (before noise, where that is known).
        smooth: (H, W) bool, no depth jump within `SMOOTH_REACH_PX`.
        bound_px: (H, W) Cramér–Rao bound of the disparity's standard deviation at this noise, px;
            None where the noise is not known.
    """

    name: str
    group: str
    frame: DualPixelFrame
    depth_m: NDArray[np.float32]
    textured: NDArray[np.bool_]
    smooth: NDArray[np.bool_]
    bound_px: NDArray[np.float32] | None = None

    @property
    def lens_group(self) -> str:
        """One of `LENS_GROUPS`, "" where the group names no lens."""
        return next((g for g in LENS_GROUPS if self.group.startswith(g)), "")

    def true_disparity_px(self) -> NDArray[np.float32]:
        """Disparity of the truth through the sample's lens, (H, W) px; NaN where there is none.

        Raises:
            ValueError: the sample has no lens.
        """
        lens = self.frame.lens
        if lens is None:
            raise ValueError(f"sample {self.name}: has no lens state, so its disparity is unknown")
        height, width = self.depth_m.shape
        gain, focus = lens.gain_map_px_m(width, height), lens.focus_map_diopters(width, height)
        return np.asarray(gain * (focus - 1 / self.depth_m), np.float32)


def simulated_samples(
    preset: str, cache: Path, split: str = "ideal", noise: str = "clean", seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Sample]:
    """Yield the scenes of a simulated evaluation set, rendered into `cache` where missing.

    Args:
        preset: a name of `PRESETS`. cache: a folder; each preset has its own in it.
        split: one of `SPLITS`; the lens carries the κ of that split, averaged over the field.
        noise: a name of `NOISE`. seed: of the noise, which is drawn for each scene on its own.
        progress: called with scenes at hand and their total.

    Raises:
        ValueError: unknown preset, split or noise.
    """
    _check("preset", preset, PRESETS)
    _check("split", split, SPLITS)
    _check("noise", noise, NOISE)
    for scene in cached_evaluation_scenes(PRESETS[preset], cache / preset, progress):
        meta = scene.meta
        views = (scene.left, scene.right) if split == "ideal" else (
            scene.left_soft, scene.right_soft)
        lens = ThinLens(**{**meta["lens"], "kappa": meta[f"kappa_{split}"]})
        yield _exposed(
            f"{meta['index']:03d}_{meta['kind']}", meta["lens_name"], views, scene.full,
            scene.depth_m, lens, lens.focal_length_px, noise, meta[f"render_sigma_{split}"],
            np.random.default_rng([seed, meta["index"]]))


def raytraced_samples(folder: Path, split: str, noise: str, seed: int = 0,
                      lenses: Mapping[str, ThinLens] | None = None) -> Iterator[Sample]:
    """Yield the scenes of a ray-traced folder.

    The lens of the soft split gets the κ that its split function implies in the centre of the
    field (computed from the split, not fitted to the truth), or that of `lenses` by name, see
    `split_calibration.py`.

    Raises:
        FileNotFoundError: no scene_*.npz in the folder.
        ValueError: unknown split or noise.
    """
    _check("split", split, SPLITS)
    _check("noise", noise, NOISE)
    files = sorted(folder.glob("scene_*.npz"))
    if not files:
        raise FileNotFoundError(f"{folder}: holds no scene_*.npz; name the ray-traced folder")
    random = np.random.default_rng(seed)
    for path in files:
        yield raytraced_sample(path, split, noise, random, (lenses or {}).get(path.stem))


def raytraced_sample(path: Path, split: str, noise: str, random: np.random.Generator,
                     lens: ThinLens | None = None) -> Sample:
    """Read one ray-traced scene.

    Args:
        path, split, noise: as of `raytraced_samples`. random: of the noise; the scenes of a folder
            share one, in the order of their names. lens: None = as documented.
    """
    data = np.load(path)
    meta = json.loads(str(data["meta"]))
    suffix = "" if split == "ideal" else "_real"
    grey = np.array(GREY_WEIGHTS, np.float32) / 4095
    left, right = (data[f"dp_{side}{suffix}_lin12"].astype(np.float32) @ grey
                   for side in ("left", "right"))
    full = data["full_lin12"].astype(np.float32) / 4095
    kappa = IDEAL_DUAL_PIXEL_KAPPA
    if split == "soft":
        kappa = _soft_kappa(meta["theta0_rad"], meta["N"])
    documented = ThinLens(meta["f_m"], meta["N"], meta["pitch_m"], 1 / meta["dp_focus_m"], kappa)
    return _exposed(path.stem, meta["config"], (left, right), full,
                    data["depth"].astype(np.float32), lens or documented, float(meta["fx_px"]),
                    noise, RAYTRACED_RENDER_SIGMA, random)


def real_samples(folder: Path, lens: ThinLens | None = None) -> Iterator[Sample]:
    """Yield the real captures with the lens as documented, or with a calibrated `lens`.

    Depth edges are masked by 8 px on captures whose truth comes from a second device (phone
    LiDAR, time of flight), because that truth is displaced there. The stored views are sRGB;
    each channel is decoded before they are mixed to luminance, as the channels do not match alike
    (k of red is a quarter below that of green and blue on this lens).

    Raises:
        FileNotFoundError: no dp119_*.npz in the folder.
    """
    files = sorted(folder.glob("dp119_*.npz"))
    if not files:
        raise FileNotFoundError(f"{folder}: holds no dp119_*.npz; name the real captures' folder")
    for path in files:
        yield real_sample(path, lens)


def real_sample(path: Path, lens: ThinLens | None = None) -> Sample:
    """Read one real capture, as `real_samples` does."""
    data = np.load(path)
    meta = json.loads(str(data["meta"]))
    depth = data["depth"].astype(np.float32)
    depth[depth < 0.05] = np.nan
    if "casual" in path.stem:
        depth[_near_edges(depth, 8)] = np.nan
    colours = [srgb_decode(torch.from_numpy(data[side].astype(np.float32) / 255)).numpy()
               for side in ("left", "right")]
    left, right = (colour @ np.array(LUMINANCE_WEIGHTS, np.float32) for colour in colours)
    seen = srgb_encode(torch.from_numpy((colours[0] + colours[1]) / 2)).numpy()
    rgb = (seen * 255).round().astype(np.uint8)
    height, width = left.shape
    fx = meta.get("fx_px", 1125.9)
    pitch_m = meta.get("pitch_m", 4.674479166666667e-05)
    documented = ThinLens(meta["f_m"], meta["N"], pitch_m, 1 / meta["dp_focus_m"])
    frame = DualPixelFrame(
        left, right, rgb, 0, "camera",
        Intrinsics(fx, fx, (width - 1) / 2, (height - 1) / 2, width, height),
        lens or documented)
    energy = texture_energy(np.sqrt(left), np.sqrt(right))
    return Sample(path.stem, path.stem.split("_")[1], frame, depth,
                  energy > TEXTURE_ENERGY_MIN, _smooth(depth))


def _exposed(
    name: str, group: str, views: tuple[NDArray[np.float32], NDArray[np.float32]],
    full: NDArray[np.float32], depth_m: NDArray[np.float32], lens: ThinLens, fx: float, noise: str,
    render_sigma: float, random: np.random.Generator,
) -> Sample:
    """Add noise to linear images (left, right, full in this order) and make a sample of them."""
    a, b = NOISE[noise]
    energy = texture_energy(*(np.sqrt(v) for v in views))
    bound = disparity_bound_px(*views, noise_a=a, noise_b=b, extra_sigma=render_sigma)
    left, right, seen = (_noisy(image, a, b, random) for image in (*views, full))
    rgb = (srgb_encode(torch.from_numpy(seen)).numpy() * 255).round().astype(np.uint8)
    height, width = left.shape
    intrinsics = Intrinsics(fx, fx, (width - 1) / 2, (height - 1) / 2, width, height)
    frame = DualPixelFrame(left, right, rgb, 0, "camera", intrinsics, lens)
    return Sample(name, group, frame, depth_m, energy > TEXTURE_ENERGY_MIN, _smooth(depth_m),
                  bound)


def _noisy(image: NDArray[np.float32], a: float, b: float, random: np.random.Generator
           ) -> NDArray[np.float32]:
    noisy = image + np.sqrt(a * image + b) * random.standard_normal(image.shape)
    clipped: NDArray[np.float32] = np.clip(noisy, 0, 1).astype(np.float32)
    return clipped


def _soft_kappa(theta0_rad: float, f_number: float) -> float:
    """κ of w_R = (1 + tanh(θ/θ_0))/2 for θ ≈ u/f: softness θ_0·2N in aperture radii."""
    sensor = SensorBatch.ideal(1)
    sensor = replace(sensor, softness=torch.tensor([theta0_rad * 2 * f_number]))
    pattern = aperture_pattern(64, torch.Generator().manual_seed(0))
    return float(split_weights(sensor, pattern, 1)[2][0, 0])


def _smooth(depth_m: NDArray[np.float32]) -> NDArray[np.bool_]:
    return ~depth_edges(depth_m, reach_px=SMOOTH_REACH_PX)


def _near_edges(depth: NDArray[np.float32], reach_px: int) -> NDArray[np.bool_]:
    """Within `reach_px` of a 5 % step or of a hole."""
    filled = np.nan_to_num(depth, nan=0.0)
    high, low = cv2.dilate(filled, np.ones((3, 3))), cv2.erode(filled, np.ones((3, 3)))
    edge = (high > 1.05 * low).astype(np.uint8)
    side = 2 * reach_px + 1
    return np.asarray(cv2.dilate(edge, np.ones((side, side), np.uint8)) > 0)


def _check(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ValueError(f"{what} {name!r}: unknown; use one of {', '.join(known)}")
