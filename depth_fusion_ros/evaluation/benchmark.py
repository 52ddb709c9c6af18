"""Score estimators on folders of dual-pixel captures with truth (`.npz`), side by side.

Two folder kinds, never mixed in one table: *ray-traced* scenes (exact truth, simulated light,
ideal or soft split, optional sensor noise) and *real* captures, whose gain k is calibrated on
two flat targets that are then not scored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.estimation.dual_pixel import (
    DualPixelEstimator,
    DualPixelFrame,
    DualPixelOptions,
)
from depth_fusion_ros.estimation.estimate import DepthEstimate, Intrinsics
from depth_fusion_ros.estimation.postprocess import TEXTURE_ENERGY_MIN, texture_energy
from depth_fusion_ros.evaluation.metrics import average_metrics, depth_metrics
from depth_fusion_ros.optics.thin_lens import IDEAL_DUAL_PIXEL_KAPPA, ThinLens
from depth_fusion_ros.simulation.camera import aperture_pattern
from depth_fusion_ros.simulation.sensor import (
    GREY_WEIGHTS,
    SensorBatch,
    split_weights,
    srgb_encode,
)

NOISE = {"clean": (0.0, 0.0), "good": (3e-5, 2e-7), "indoor": (2e-4, 2e-6), "dim": (1e-3, 2e-5)}
SPLITS = ("ideal", "soft")
MIN_M, MAX_M = 0.15, 20.0
OPTIONS = DualPixelOptions(min_depth_m=MIN_M, max_depth_m=MAX_M, max_sigma_ratio=math.inf,
                           edge_filter_px=0)
"""Every pixel is scored: no sigma cut, no edge filter."""
CALIBRATION_FLATS = ("dp119_flat_0600_f4", "dp119_flat_1500_f4")


@dataclass(frozen=True)
class Sample:
    """One capture with truth.

    Attributes:
        name, group: file and kind (lens or scene type).
        frame: estimator input. depth_m: (H, W) truth, NaN = none. textured: (H, W) bool.
    """

    name: str
    group: str
    frame: DualPixelFrame
    depth_m: NDArray[np.float32]
    textured: NDArray[np.bool_]


def raytraced_samples(folder: Path, split: str, noise: str, seed: int = 0) -> Iterator[Sample]:
    """Yield the scenes of a ray-traced folder.

    The lens of the soft split gets the κ that its split function implies (computed from the
    split, not fitted to the truth).

    Raises:
        FileNotFoundError: no scene_*.npz in the folder.
    """
    files = sorted(folder.glob("scene_*.npz"))
    if not files:
        raise FileNotFoundError(f"{folder}: holds no scene_*.npz; name the ray-traced folder")
    random = np.random.default_rng(seed)
    suffix = "" if split == "ideal" else "_real"
    for path in files:
        data = np.load(path)
        meta = json.loads(str(data["meta"]))
        grey = np.array(GREY_WEIGHTS, np.float32) / 4095
        views = [data[f"dp_{side}{suffix}_lin12"].astype(np.float32) @ grey
                 for side in ("left", "right")]
        full = data["full_lin12"].astype(np.float32) / 4095
        energy = texture_energy(*(np.sqrt(v) for v in views))
        left, right, full = (_noisy(image, noise, random) for image in (*views, full))
        kappa = IDEAL_DUAL_PIXEL_KAPPA
        if split == "soft":
            kappa = _soft_kappa(meta["theta0_rad"], meta["N"])
        lens = ThinLens(meta["f_m"], meta["N"], meta["pitch_m"], 1 / meta["dp_focus_m"], kappa)
        rgb = (srgb_encode(torch.from_numpy(full)).numpy() * 255).round().astype(np.uint8)
        height, width = left.shape
        fx = float(meta["fx_px"])
        intrinsics = Intrinsics(fx, fx, (width - 1) / 2, (height - 1) / 2, width, height)
        frame = DualPixelFrame(left, right, rgb, 0, "camera", intrinsics, lens)
        yield Sample(path.stem, meta["config"], frame, data["depth"].astype(np.float32),
                     energy > TEXTURE_ENERGY_MIN)


def _noisy(image: NDArray[np.float32], noise: str, random: np.random.Generator
           ) -> NDArray[np.float32]:
    a, b = NOISE[noise]
    noisy = image + np.sqrt(a * image + b) * random.standard_normal(image.shape)
    clipped: NDArray[np.float32] = np.clip(noisy, 0, 1).astype(np.float32)
    return clipped


def _soft_kappa(theta0_rad: float, f_number: float) -> float:
    """κ of w_R = (1 + tanh(θ/θ_0))/2 for θ ≈ u/f: softness θ_0·2N in aperture radii."""
    sensor = SensorBatch.ideal(1)
    sensor = replace(sensor, softness=torch.tensor([theta0_rad * 2 * f_number]))
    pattern = aperture_pattern(64, torch.Generator().manual_seed(0))
    return float(split_weights(sensor, pattern, 1)[2][0, 0])


def real_samples(folder: Path, lens: ThinLens | None = None) -> Iterator[Sample]:
    """Yield the real captures with the lens as documented, or with a calibrated `lens`.

    Depth edges are masked by 8 px on captures whose truth comes from a second device (phone
    LiDAR, time of flight), because that truth is displaced there.
    """
    files = sorted(folder.glob("dp119_*.npz"))
    if not files:
        raise FileNotFoundError(f"{folder}: holds no dp119_*.npz; name the real captures' folder")
    for path in files:
        data = np.load(path)
        meta = json.loads(str(data["meta"]))
        depth = data["depth"].astype(np.float32)
        depth[depth < 0.05] = np.nan
        if "casual" in path.stem:
            depth[_near_edges(depth, 8)] = np.nan
        left, right = (data[side].mean(-1).astype(np.float32) / 255 for side in ("left", "right"))
        rgb = ((data["left"].astype(np.uint16) + data["right"]) // 2).astype(np.uint8)
        height, width = left.shape
        fx = meta.get("fx_px", 1125.9)
        pitch_m = meta.get("pitch_m", 4.674479166666667e-05)
        documented = ThinLens(meta["f_m"], meta["N"], pitch_m, 1 / meta["dp_focus_m"])
        frame = DualPixelFrame(
            left, right, rgb, 0, "camera",
            Intrinsics(fx, fx, (width - 1) / 2, (height - 1) / 2, width, height),
            lens or documented)
        energy = texture_energy(left, right)
        yield Sample(path.stem, path.stem.split("_")[1], frame, depth,
                     energy > TEXTURE_ENERGY_MIN)


def _near_edges(depth: NDArray[np.float32], reach_px: int) -> NDArray[np.bool_]:
    """Within `reach_px` of a 5 % step or of a hole."""
    filled = np.nan_to_num(depth, nan=0.0)
    high, low = cv2.dilate(filled, np.ones((3, 3))), cv2.erode(filled, np.ones((3, 3)))
    edge = (high > 1.05 * low).astype(np.uint8)
    side = 2 * reach_px + 1
    return np.asarray(cv2.dilate(edge, np.ones((side, side), np.uint8)) > 0)


def calibrate_on_flats(folder: Path, estimator: DualPixelEstimator) -> ThinLens:
    """Fit k and the focus dioptre to the median disparity of two flat targets.

    Two equations, two unknowns: d_i = k·(F − 1/Z_i), from the textured pixels of the two f/4
    flats, with the estimator's own disparities (a first pass assumes half the ideal κ).
    """
    flats = {s.name: s for s in real_samples(folder) if s.name in CALIBRATION_FLATS}
    missing = set(CALIBRATION_FLATS) - set(flats)
    if missing:
        raise FileNotFoundError(f"{folder}: flat targets {sorted(missing)} are missing; "
                                "k cannot be calibrated")
    lens = next(iter(flats.values())).frame.lens
    assert lens is not None
    lens = replace(lens, kappa=IDEAL_DUAL_PIXEL_KAPPA / 4)
    for _ in range(2):
        points = []
        for name in CALIBRATION_FLATS:
            sample = flats[name]
            estimate = estimator.estimate(replace(sample.frame, lens=lens))
            points.append((1 / float(np.nanmedian(sample.depth_m)),
                           float(np.median(estimate.disparity_px[sample.textured]))))
        (near, d_near), (far, d_far) = points
        k = (d_far - d_near) / (near - far)
        if not k > 0:
            raise ValueError(f"flat targets give k = {k:.3f} px·m: must be > 0; are left and "
                             "right exchanged?")
        focus = d_near / k + near
        lens = replace(lens, focus_diopters=focus)
        lens = replace(lens, kappa=k / lens.blur_gain_px_m)
    return lens


def score(samples: Iterator[Sample], estimator: DualPixelEstimator
          ) -> tuple[list[dict[str, Any]], dict[str, tuple[Sample, DepthEstimate]]]:
    """Estimate and score every sample; returns rows of metrics and the estimates by name."""
    rows: list[dict[str, Any]] = []
    estimates: dict[str, tuple[Sample, DepthEstimate]] = {}
    for sample in samples:
        estimate = estimator.estimate(sample.frame)
        values = depth_metrics(estimate.depth_m, sample.depth_m, sigma_m=estimate.sigma_m,
                               min_m=MIN_M, max_m=MAX_M)
        textured = depth_metrics(estimate.depth_m, sample.depth_m, sigma_m=estimate.sigma_m,
                                 valid=sample.textured, min_m=MIN_M, max_m=MAX_M)
        rows.append({"name": sample.name, "group": sample.group, **values,
                     "textured_abs_rel": textured["abs_rel"],
                     "textured_share": float(sample.textured.mean())})
        estimates[sample.name] = (sample, estimate)
    return rows, estimates


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean over images of every metric."""
    return average_metrics([{k: v for k, v in row.items() if not isinstance(v, str)}
                            for row in rows])
