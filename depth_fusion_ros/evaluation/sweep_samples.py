"""Focus sweeps with truth, ready for scoring.

    for sample in raytraced_sweeps(folder, noise="indoor", slices=5): ...
    for sample in held_out_sweeps(cache): ...     # of a training, other seed, never trained on

No real focus sweep with measured depth can be had: all numbers on sweeps come from rendered ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.estimation.postprocess import TEXTURE_ENERGY_MIN, texture_energy
from depth_fusion_ros.evaluation.metrics import depth_edges
from depth_fusion_ros.evaluation.samples import LENS_GROUPS, NOISE, SMOOTH_REACH_PX
from depth_fusion_ros.simulation.sensor import GREY_WEIGHTS, srgb_decode, srgb_encode
from depth_fusion_ros.training.sweep_data import SweepCache
from depth_fusion_ros.training.sweep_exposure import make_sweep_batch

MIN_SLICES = 2


@dataclass(frozen=True)
class SweepSample:
    """One focus sweep with truth.

    Attributes:
        name, group: file, and name of the lens.
        stack: (N, H, W, 3) uint8 sRGB-encoded slices.
        focus_diopters: (N,) float32 focus of each, rising.
        slice_focal_length_px: (N,) float32 fx of each slice as it is in `stack`: all alike where
            slices were brought to one magnification, else they differ by focus breathing.
        blur_gain_px_m: aperture diameter · focal length in px.
        depth_m: (H, W) float32 truth, NaN = none.
        textured, smooth: (H, W) bool, the same pixels as in the `Sample` of that scene: something
            to match there in the views without noise, and no depth jump nearby.
    """

    name: str
    group: str
    stack: NDArray[np.uint8]
    focus_diopters: NDArray[np.float32]
    slice_focal_length_px: NDArray[np.float32]
    blur_gain_px_m: float
    depth_m: NDArray[np.float32]
    textured: NDArray[np.bool_]
    smooth: NDArray[np.bool_]

    @property
    def lens_group(self) -> str:
        """One of `LENS_GROUPS`, "" where the group names no lens."""
        return next((g for g in LENS_GROUPS if self.group.startswith(g)), "")


def raytraced_sweeps(folder: Path, noise: str = "clean", slices: int = 10, seed: int = 0,
                     *, align: bool = True) -> Iterator[SweepSample]:
    """Yield the focus sweeps of a ray-traced folder.

    Args:
        folder: holds scene_*.npz. noise: a name of `NOISE`, added to each slice in linear light
            before it is stored in 8 bits again.
        slices: how many of the stored slices are used, spread evenly over their numbers.
        seed: of the noise, which is drawn for each scene on its own.
        align: bring slices of sweeps with focus breathing to the magnification of the truth;
            False leaves them as the camera delivers them.

    Raises:
        FileNotFoundError: no scene_*.npz in the folder.
        ValueError: unknown noise, or more slices than are stored, or fewer than two.
    """
    if noise not in NOISE:
        raise ValueError(f"noise {noise!r}: unknown; use one of {', '.join(NOISE)}")
    files = sorted(folder.glob("scene_*.npz"))
    if not files:
        raise FileNotFoundError(f"{folder}: holds no scene_*.npz; name the ray-traced folder")
    for number, path in enumerate(files):
        yield raytraced_sweep(path, noise, slices, np.random.default_rng([seed, number]),
                              align=align)


def raytraced_sweep(path: Path, noise: str, slices: int, random: np.random.Generator, *,
                    align: bool = True) -> SweepSample:
    """Read one ray-traced sweep, as `raytraced_sweeps` does.

    Args:
        random: of the noise; seeded with (seed, place of the file in its sorted folder) there.

    Raises:
        ValueError: more slices than are stored, or fewer than two.
    """
    data = np.load(path)
    meta = json.loads(str(data["meta"]))
    used = _chosen(path.name, data["stack_focus_m"], slices)
    stack = with_noise(data["stack_srgb8"][used], noise, random)
    fx = float(meta["fx_px"])
    slice_fx = np.full(slices, fx, np.float32)
    if meta["stack_breathing"]:
        slice_fx = np.asarray(meta["stack_fx_px"], np.float32)[used]
        if align:
            stack = at_one_magnification(stack, slice_fx, fx)
            slice_fx = np.full(slices, fx, np.float32)
    depth = data["depth"].astype(np.float32)
    grey = np.array(GREY_WEIGHTS, np.float32) / 4095
    left, right = (np.sqrt(data[f"dp_{side}_lin12"].astype(np.float32) @ grey)
                   for side in ("left", "right"))
    return SweepSample(
        path.stem, meta["config"], stack, (1 / data["stack_focus_m"][used]).astype(np.float32),
        slice_fx, meta["f_m"] / meta["N"] * fx, depth,
        texture_energy(left, right) > TEXTURE_ENERGY_MIN,
        ~depth_edges(depth, reach_px=SMOOTH_REACH_PX))


def held_out_sweeps(cache: SweepCache, slices: int = 5) -> Iterator[SweepSample]:
    """Yield rendered sweeps of the training's own kind, exposed as a training sees them.

    Args:
        cache: of held-out scenes; rendered. slices: how many of the cached positions.

    Yields:
        samples of the group "held_out", always the same ones: noise, drift and flicker are drawn
        by the number of the scene. Where there is texture is not known: `textured` is everywhere.
    """
    for number in range(cache.config.scenes):
        batch = make_sweep_batch(cache, torch.tensor([number]),
                                 torch.Generator().manual_seed(number), slices=slices)
        stack = (batch.stack[0].permute(0, 2, 3, 1) * 255).round().byte().numpy()
        depth = torch.where(batch.valid, 1 / batch.inverse_depth_diopters,
                            torch.full_like(batch.inverse_depth_diopters, float("nan")))[0, 0]
        truth = depth.numpy()
        yield SweepSample(
            f"held_out_{number:04d}", "held_out", np.ascontiguousarray(stack),
            batch.focus_diopters[0].numpy(),
            np.full(slices, cache.config.frame_width_px, np.float32),
            float(batch.blur_gain_px_m[0]), truth,
            np.ones(truth.shape, bool), ~depth_edges(truth, reach_px=SMOOTH_REACH_PX))


def with_noise(stack: NDArray[np.uint8], noise: str, random: np.random.Generator
               ) -> NDArray[np.uint8]:
    """Add sensor noise to 8-bit sRGB slices, in linear light; "clean" returns them as they are.

    Args:
        stack: (…, 3) uint8. noise: a name of `NOISE`. random: of the noise, each value its own.
    """
    a, b = NOISE[noise]
    if a == 0 and b == 0:
        return stack
    light = srgb_decode(torch.from_numpy(stack.astype(np.float32) / 255)).numpy()
    light += np.sqrt(a * light + b) * random.standard_normal(light.shape, dtype=np.float32)
    encoded = srgb_encode(torch.from_numpy(light.clip(0, 1))).numpy()
    return np.asarray(np.round(encoded * 255), np.uint8)


def at_one_magnification(stack: NDArray[np.uint8], slice_focal_length_px: NDArray[np.float32],
                         focal_length_px: float) -> NDArray[np.uint8]:
    """Rescale slices about the image centre so that all have one focal length.

    Args:
        stack: (N, H, W, 3) uint8. slice_focal_length_px: (N,) of each as it is.
        focal_length_px: what they get. A slice with a longer one shows less of the scene; what
            it does not show repeats its border.

    Returns:
        (N, H, W, 3) uint8, by Lanczos interpolation, which blurs least.
    """
    height, width = stack.shape[1:3]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    slices = []
    for image, fx in zip(stack, slice_focal_length_px):
        scale = float(fx) / focal_length_px
        x, y = centre * (1 - scale)
        # The inverse map: where in the slice a pixel of the result lies.
        matrix = np.array([[scale, 0, x], [0, scale, y]])
        slices.append(image if scale == 1 else cv2.warpAffine(
            image, matrix, (width, height), flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE))
    return np.stack(slices).astype(np.uint8)


def _chosen(name: str, focus_m: NDArray[np.float32], slices: int) -> NDArray[np.intp]:
    """Indices of the slices in use, by rising dioptres."""
    stored = len(focus_m)
    if not MIN_SLICES <= slices <= stored:
        raise ValueError(f"slices = {slices!r}: {name} has {stored} of them; use {MIN_SLICES} to "
                         f"{stored}")
    used = np.round(np.linspace(0, stored - 1, slices)).astype(np.intp)
    by_focus: NDArray[np.intp] = used[np.argsort(1 / focus_m[used])]
    return by_focus
