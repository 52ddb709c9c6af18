"""Simulated training scenes, rendered once into a cache and exposed anew at every visit.

The cache holds what the lens does (radiance per aperture strip, truth); the sensor (split,
shading, noise, exposure, bits) and the flips are drawn afresh for each batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from depth_fusion_ros.networks.convention import lens_condition
from depth_fusion_ros.simulation import fast_tracer
from depth_fusion_ros.simulation.camera import (
    STRIPS,
    CameraBatch,
    aperture_pattern,
    render_depth,
    render_strips,
)
from depth_fusion_ros.simulation.rooms import random_rooms
from depth_fusion_ros.simulation.scenes import SceneView
from depth_fusion_ros.simulation.sensor import SensorBatch, expose, to_grey
from depth_fusion_ros.training.render_cache import CHUNK, RenderCache, cache_key

CAMERA_FACTS = ("blur_gain_px_m", "focus_diopters", "focal_length_px")
MAX_BLUR_PX = 24.0
VALID_MIN_M, VALID_MAX_M, VALID_BLUR_PX = 0.12, 25.0, 40.0


@dataclass(frozen=True)
class SceneCacheConfig:
    """What is rendered.

    Attributes:
        scenes: number of scenes, a multiple of 16. width_px, height_px: size of the crops.
        aperture_samples: rays per pixel. seed: of everything in the cache.
        frame_width_px, frame_height_px: the picture that is composed, of which a crop is cut.
        recipe: version of the scene statistics; raise it when they change.
    """

    scenes: int = 4096
    width_px: int = 256
    height_px: int = 192
    aperture_samples: int = 40
    seed: int = 1
    frame_width_px: int = 320
    frame_height_px: int = 240
    recipe: int = 3

    @property
    def key(self) -> str:
        """Name of the cache folder."""
        return cache_key("scenes", self)


def random_lenses(config: SceneCacheConfig, batch: int, generator: torch.Generator
                  ) -> tuple[CameraBatch, SceneView]:
    """Lenses from phones to 25 mm machine-vision optics, focus and depth ranges drawn together.

    A = 0.7–14 px·m and fx = 350–1000 px log-uniform; nearest object 0.2–1.5 m, farthest up to
    20 m; the focus plane mostly inside the scene in dioptres. Blur of objects stays below 24 px.

    Returns:
        cameras that see the crops, and the whole pictures in which scenes are composed.
    """

    def log_uniform(low: float, high: float) -> Tensor:
        span = math.log(high / low)
        return low * torch.exp(span * torch.rand(batch, generator=generator))

    gain = log_uniform(0.7, 14.0)
    fx = log_uniform(350.0, 1000.0)
    near = log_uniform(0.2, 1.5)
    far = torch.minimum(near * log_uniform(1.5, 14.0), torch.tensor(20.0))
    mix = torch.rand(batch, generator=generator) * 1.2 - 0.1
    focus = (mix / near + (1 - mix) / far).clamp(0.05, 4.0)
    # Where the nearest object would blur beyond the limit, move it away.
    near = torch.maximum(near, 1 / (focus + MAX_BLUR_PX / gain))
    far = torch.maximum(far, 1.3 * near)
    frame = torch.tensor([config.frame_width_px, config.frame_height_px], dtype=torch.float32)
    spare = (frame - torch.tensor([config.width_px, config.height_px])).clamp_min(0)
    centre = 40.0 * (torch.rand(batch, 2, generator=generator) - 0.5)
    crop = centre + spare * (torch.rand(batch, 2, generator=generator) - 0.5)
    camera = CameraBatch(gain / fx, focus, fx, crop, config.width_px, config.height_px)
    return camera, SceneView(fx, near, far, centre, int(frame[0]), int(frame[1]))


class SceneCache(RenderCache):
    """Cache of dual-pixel scenes: radiance per aperture strip, RGB, truth and camera.

    On a CPU with numba the compiled tracer renders (`simulation/fast_tracer.py`), elsewhere the
    tensor version; they agree to rounding.
    """

    def __init__(self, config: SceneCacheConfig, root: Path) -> None:
        super().__init__(root / config.key, config.scenes, config.seed)
        self.config = config
        n, h, w = config.scenes, config.height_px, config.width_px
        self.strips = self._array("strips", (n, STRIPS, h, w), np.float16)
        self.full = self._array("full", (n, 3, h, w), np.float16)
        self.depth = self._array("depth", (n, h, w), np.float32)
        self.camera = self._array("camera", (n, len(CAMERA_FACTS)), np.float32)
        self.pattern = aperture_pattern(config.aperture_samples,
                                        torch.Generator().manual_seed(config.seed))

    def _render_chunk(self, part: slice, generator: torch.Generator, atlas: Tensor, device: str
                      ) -> None:
        camera, view = random_lenses(self.config, CHUNK, generator)
        scene = random_rooms(view, generator, atlas).to(device)
        pattern = aperture_pattern(self.config.aperture_samples, generator)
        camera = camera.to(device)
        compiled = device == "cpu" and fast_tracer.available()
        strips = (fast_tracer.render_strips_on_cpu(scene, camera, pattern) if compiled
                  else render_strips(scene, camera, pattern))
        full = (strips * pattern.area.to(device)[None, :, None, None, None]).sum(1)
        self.strips[part] = to_grey(strips).half().cpu().numpy()
        self.full[part] = full.permute(0, 3, 1, 2).half().cpu().numpy()
        self.depth[part] = render_depth(scene, camera).cpu().numpy()
        self.camera[part] = torch.stack(
            [camera.blur_gain_px_m, camera.focus_diopters, camera.focal_length_px], -1
        ).cpu().numpy()


@dataclass(frozen=True)
class TrainingBatch:
    """Network inputs and truth, (B, ·, H, W) float32; see `DiFuseNet.forward_full`.

    Attributes:
        pixels_per_log: k/Z, the px between a point and infinity (what a depth error costs).
        inverse_depth_diopters: 1/Z.
        valid: bool; False where the truth is not to be learned (nearer than `VALID_MIN_M`,
            farther than `VALID_MAX_M`, or blurred by more than `VALID_BLUR_PX`).
    """

    left: Tensor
    right: Tensor
    rgb: Tensor
    condition: Tensor
    disparity_px: Tensor
    pixels_per_log: Tensor
    inverse_depth_diopters: Tensor
    valid: Tensor


def make_batch(cache: SceneCache, indices: Tensor, generator: torch.Generator, *,
               device: str = "cpu", unknown_lens_share: float = 0.1) -> TrainingBatch:
    """Expose cached scenes on random sensors, mirror at random, and compute the labels."""
    rows = indices.numpy()
    strips = torch.from_numpy(cache.strips[rows]).float()
    full = torch.from_numpy(cache.full[rows]).float()
    depth = torch.from_numpy(cache.depth[rows])[:, None]
    facts = torch.from_numpy(cache.camera[rows])
    batch = len(rows)
    sensor = SensorBatch.random(batch, generator)
    # Exposure relative to the scene's mean, as an auto-exposure would choose it.
    brightness = full.mean((1, 2, 3)).clamp_min(0.02)
    sensor = replace(sensor, exposure=sensor.exposure * 0.3 / brightness)
    images = expose(strips, full, cache.pattern, sensor, generator)
    gain, focus = facts[:, :1, None, None], facts[:, 1:2, None, None]
    inverse = 1 / depth
    k_map = (images.kappa * gain).expand_as(depth)
    valid = (depth > VALID_MIN_M) & (depth < VALID_MAX_M) & (
        gain * (focus - inverse).abs() < VALID_BLUR_PX)
    left, right = images.left.sqrt(), images.right.sqrt()

    def flags(share: float) -> Tensor:
        return (torch.rand(batch, generator=generator) < share)[:, None, None, None]

    grey = images.rgb.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    rgb = torch.where(flags(0.15), grey,
                      images.rgb[:, torch.randperm(3, generator=generator)])
    mirrored, upside_down = flags(0.5), flags(0.2)
    left, right = (torch.where(mirrored, right.flip(-1), left),  # mirroring swaps the views
                   torch.where(mirrored, left.flip(-1), right))
    rest = (rgb, k_map * (focus - inverse), k_map * inverse, inverse, valid)
    moved = [left, right, *(torch.where(mirrored, t.flip(-1), t) for t in rest)]
    left, right, rgb, disparity, cost, inverse, valid = (
        torch.where(upside_down, t.flip(-2), t) for t in moved)
    kappa = images.kappa.mean((1, 2, 3)) * torch.exp(
        0.03 * torch.randn(batch, generator=generator))  # calibration is not perfect either
    condition = lens_condition(kappa, kappa * facts[:, 0], facts[:, 1])
    known = torch.rand(batch, generator=generator) >= unknown_lens_share
    return TrainingBatch(*(t.contiguous().to(device) for t in (
        left, right, rgb, condition * known[:, None], disparity, cost, inverse, valid)))
