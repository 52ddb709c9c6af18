"""Simulated training scenes, rendered once into a cache and exposed anew at every visit.

The cache holds what the lens does (radiance per aperture strip, truth); the sensor (split,
shading, noise, exposure, bits) and the flips are drawn afresh for each batch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depth_fusion_ros.networks.difuse_net import lens_condition
from depth_fusion_ros.simulation.camera import (
    STRIPS,
    CameraBatch,
    Tracer,
    aperture_pattern,
    render_depth,
    render_strips,
    trace,
)
from depth_fusion_ros.simulation.scenes import SceneView, random_scenes
from depth_fusion_ros.simulation.sensor import SensorBatch, expose, to_grey
from depth_fusion_ros.simulation.textures import make_atlas

CHUNK = 16
CAMERA_FACTS = ("blur_gain_px_m", "focus_diopters", "focal_length_px")
MAX_BLUR_PX = 24.0


@dataclass(frozen=True)
class SceneCacheConfig:
    """What is rendered.

    Attributes:
        scenes: number of scenes, a multiple of 16. width_px, height_px: size of the crops.
        aperture_samples: rays per pixel. seed: of everything in the cache.
        recipe: version of the scene statistics; raise it when they change.
    """

    scenes: int = 6144
    width_px: int = 128
    height_px: int = 96
    aperture_samples: int = 40
    seed: int = 1
    recipe: int = 1

    @property
    def key(self) -> str:
        """Name of the cache folder."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"scenes-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def random_lenses(batch: int, generator: torch.Generator, width_px: int, height_px: int
                  ) -> tuple[CameraBatch, SceneView]:
    """Lenses from phones to 25 mm machine-vision optics, focus and depth ranges drawn together.

    A = 0.7–14 px·m and fx = 380–950 px log-uniform; nearest object 0.2–1.5 m, farthest up to
    20 m; the focus plane mostly inside the scene in dioptres. Blur stays below 24 px.
    """

    def log_uniform(low: float, high: float) -> Tensor:
        span = math.log(high / low)
        return low * torch.exp(span * torch.rand(batch, generator=generator))

    gain = log_uniform(0.7, 14.0)
    fx = log_uniform(380.0, 950.0)
    near = log_uniform(0.2, 1.5)
    far = torch.minimum(near * log_uniform(1.5, 14.0), torch.tensor(20.0))
    mix = torch.rand(batch, generator=generator) * 1.2 - 0.1
    focus = (mix / near + (1 - mix) / far).clamp(0.05, 4.0)
    # Where the nearest object would blur beyond the limit, move it away.
    near = torch.maximum(near, 1 / (focus + MAX_BLUR_PX / gain))
    far = torch.maximum(far, 1.3 * near)
    offset = (torch.rand(batch, 2, generator=generator) - 0.5) * torch.tensor([200.0, 140.0])
    camera = CameraBatch(gain / fx, focus, fx, offset, width_px, height_px)
    return camera, SceneView(fx, near, far, offset, width_px, height_px)


class SceneCache:
    """Memory-mapped cache of rendered scenes; rendering resumes where it stopped."""

    def __init__(self, config: SceneCacheConfig, root: Path) -> None:
        if config.scenes % CHUNK:
            raise ValueError(f"scenes = {config.scenes}: must be a multiple of {CHUNK}")
        self.config = config
        self.folder = root / config.key
        self.folder.mkdir(parents=True, exist_ok=True)
        n, h, w = config.scenes, config.height_px, config.width_px
        self.strips = self._array("strips", (n, STRIPS, h, w), np.float16)
        self.full = self._array("full", (n, 3, h, w), np.float16)
        self.depth = self._array("depth", (n, h, w), np.float32)
        self.camera = self._array("camera", (n, len(CAMERA_FACTS)), np.float32)
        self._done_file = self.folder / "done.txt"
        self.pattern = aperture_pattern(config.aperture_samples,
                                        torch.Generator().manual_seed(config.seed))

    def _array(self, name: str, shape: tuple[int, ...], dtype: type) -> Any:
        path = self.folder / f"{name}.npy"
        if path.exists():
            return np.lib.format.open_memmap(path, mode="r+")
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)

    @property
    def rendered(self) -> int:
        """Scenes rendered so far."""
        return int(self._done_file.read_text()) if self._done_file.exists() else 0

    def render(self, device: str = "cpu", progress: Callable[[int], None] = lambda n: None,
               tracer: Tracer = trace) -> None:
        """Render what is missing; chunk i depends on the seed and i alone.

        A compiled `tracer` (``torch.compile(trace)``) is four to six times faster on a CPU after
        a minute of compiling and needs a C++ compiler; the results agree to rounding.
        """
        for start in range(self.rendered, self.config.scenes, CHUNK):
            seed = self.config.seed * 1_000_003 + start
            generator = torch.Generator().manual_seed(seed)
            camera, view = random_lenses(CHUNK, generator, self.config.width_px,
                                         self.config.height_px)
            scene = random_scenes(view, generator, make_atlas(20, generator)).to(device)
            pattern = aperture_pattern(self.config.aperture_samples, generator)
            camera = camera.to(device)
            with torch.inference_mode():
                strips = render_strips(scene, camera, pattern, tracer)
                full = (strips * pattern.area.to(device)[None, :, None, None, None]).sum(1)
                depth = render_depth(scene, camera)
            part = slice(start, start + CHUNK)
            self.strips[part] = to_grey(strips).half().cpu().numpy()
            self.full[part] = full.permute(0, 3, 1, 2).half().cpu().numpy()
            self.depth[part] = depth.cpu().numpy()
            self.camera[part] = torch.stack(
                [camera.blur_gain_px_m, camera.focus_diopters, camera.focal_length_px], -1
            ).cpu().numpy()
            self._done_file.write_text(str(start + CHUNK))
            progress(start + CHUNK)


@dataclass(frozen=True)
class TrainingBatch:
    """Network inputs and truth, (B, ·, H, W) float32; see `DiFuseNet.forward_full`.

    `pixels_per_log` is k/Z: the px between a point and infinity (what a depth error costs).
    """

    left: Tensor
    right: Tensor
    rgb: Tensor
    condition: Tensor
    disparity_px: Tensor
    pixels_per_log: Tensor


def make_batch(cache: SceneCache, indices: Tensor, generator: torch.Generator, *,
               device: str = "cpu", unknown_lens_share: float = 0.1) -> TrainingBatch:
    """Expose cached scenes on random sensors, flip at random, and compute the labels."""
    rows = indices.numpy()
    strips = torch.from_numpy(cache.strips[rows]).float()
    full = torch.from_numpy(cache.full[rows]).float()
    depth = torch.from_numpy(cache.depth[rows])[:, None]
    facts = torch.from_numpy(cache.camera[rows])
    batch = len(rows)
    sensor = SensorBatch.random(batch, generator)
    # Exposure relative to the scene's mean, as an auto-exposure would choose it.
    brightness = full.mean((1, 2, 3)).clamp_min(0.02)
    sensor = SensorBatch(
        sensor.softness, sensor.bias, sensor.cat_eye, sensor.shading,
        sensor.exposure * 0.3 / brightness, sensor.noise_a, sensor.noise_b, sensor.levels)
    images = expose(strips, full, cache.pattern, sensor, generator)
    gain, focus = facts[:, 0], facts[:, 1]
    k_map = (images.kappa * gain[:, None, None, None]).expand_as(depth)
    disparity = k_map * (focus[:, None, None, None] - 1 / depth)
    left, right, rgb, cost = images.left.sqrt(), images.right.sqrt(), images.rgb, k_map / depth

    if torch.rand(1, generator=generator) < 0.5:  # mirroring swaps the two views
        left, right = right.flip(-1), left.flip(-1)
        rgb, disparity, cost = rgb.flip(-1), disparity.flip(-1), cost.flip(-1)
    if torch.rand(1, generator=generator) < 0.5:
        left, right, rgb, disparity, cost = (
            t.flip(-2) for t in (left, right, rgb, disparity, cost))
    if torch.rand(1, generator=generator) < 0.15:
        rgb = rgb.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    else:
        rgb = rgb[:, torch.randperm(3, generator=generator)]
    kappa = images.kappa.mean((1, 2, 3)) * torch.exp(
        0.03 * torch.randn(batch, generator=generator))  # calibration is not perfect either
    condition = lens_condition(kappa, kappa * gain, focus)
    known = torch.rand(batch, generator=generator) >= unknown_lens_share
    return TrainingBatch(*(t.contiguous().to(device) for t in (
        left, right, rgb, condition * known[:, None], disparity, cost)))
