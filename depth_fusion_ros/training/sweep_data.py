"""Simulated focus sweeps for training: rendered once through the lens.

The cache holds the radiance of every slice, all at one magnification, and the truth.
`sweep_exposure.py` exposes them anew at every visit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from depth_fusion_ros.simulation import fast_tracer
from depth_fusion_ros.simulation.camera import (
    AperturePattern,
    CameraBatch,
    aperture_pattern,
    render_depth,
    render_strips,
)
from depth_fusion_ros.simulation.rooms import random_rooms
from depth_fusion_ros.simulation.scenes import SceneBatch
from depth_fusion_ros.training.datasets import SceneCacheConfig, random_lenses
from depth_fusion_ros.training.render_cache import CHUNK, RenderCache, cache_key

SHORT_SHARE = 0.15
METRIC_SHARE = 0.5
"""Of the sweeps, those even in metres, as lenses marked in metres are driven: at the near end
their slices lie far apart in dioptres."""
GAINS_PX_M = (0.8, 14.0)
BLUR_SPAN_PX = (1.0, 24.0)
VALID_MIN_M, VALID_MAX_M = 0.12, 25.0


@dataclass(frozen=True)
class SweepCacheConfig:
    """What is rendered; see `SceneCacheConfig` for the fields not named here.

    Attributes:
        slices: focus positions per scene, from behind the farthest to before the nearest object.
    """

    scenes: int = 1024
    width_px: int = 192
    height_px: int = 144
    slices: int = 8
    aperture_samples: int = 24
    seed: int = 11
    frame_width_px: int = 320
    frame_height_px: int = 240
    recipe: int = 4

    @property
    def key(self) -> str:
        """Name of the cache folder."""
        return cache_key("sweeps", self)


def uniform_draws(batch: int, generator: torch.Generator) -> Callable[..., Tensor]:
    """`uniform(low, high, *shape)`: numbers of shape (batch, *shape), the next of a generator."""
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator)

    return uniform


def focus_positions(near_m: Tensor, far_m: Tensor, slices: int, generator: torch.Generator, *,
                    metric_share: float = METRIC_SHARE) -> Tensor:
    """(B, slices) dioptres, rising: even with jitter, over about the range of what is seen.

    Even in metres for `metric_share` of the sweeps, in dioptres for the rest.

    A commanded sweep does not know the scene: its far end lies at 0.4 to 1.1 of the farthest
    object's dioptres, its near end mostly just before the nearest object and for `SHORT_SHARE` of
    the sweeps behind it, so that what is beyond a sweep is seen in training, but not everywhere.
    """
    batch = len(near_m)
    uniform = uniform_draws(batch, generator)
    low = (1 / far_m) * uniform(0.4, 1.1)
    short = uniform(0, 1) < SHORT_SHARE
    high = (1 / near_m) * torch.where(short, uniform(0.75, 0.95), uniform(0.95, 1.19))
    high = torch.maximum(high, low + 0.4)
    steps = torch.linspace(0, 1, slices) + uniform(-0.25, 0.25, slices) / (slices - 1)
    steps[:, 0], steps[:, -1] = 0, 1
    positions = low[:, None] + (high - low)[:, None] * steps
    if metric_share == 0:
        return positions
    depth_m = 1 / low[:, None] + (1 / high - 1 / low)[:, None] * steps
    return torch.where(uniform(0, 1, 1) < metric_share, 1 / depth_m, positions)


def with_blur(camera: CameraBatch, near_m: Tensor, far_m: Tensor, generator: torch.Generator
              ) -> CameraBatch:
    """The cameras with apertures through which a sweep over the scene shows focus.

    Blur gains are log-uniform over `GAINS_PX_M` (phones to 25 mm lenses), as far as the blur from
    one end of the scene to the other is between `BLUR_SPAN_PX`: a phone's sweep blurs by little
    more than a pixel, and one in which nothing changes teaches nothing.
    """
    span = (1 / near_m - 1 / far_m).clamp_min(0.1)
    low, high = (math.log(gain) for gain in GAINS_PX_M)
    gain = torch.exp(low + (high - low) * torch.rand(len(span), generator=generator))
    gain = torch.maximum(gain, BLUR_SPAN_PX[0] / span).clamp_max(GAINS_PX_M[1])
    gain = torch.minimum(gain, BLUR_SPAN_PX[1] / span)
    return replace(camera, aperture_m=gain / camera.focal_length_px)


class SweepCache(RenderCache):
    """Cache of sweeps: radiance (n, slices, 3, H, W), focus (n, slices), depth (n, H, W).

    `blur_gain`: (n,) px·m, a circle of confusion's diameter per dioptre out of focus.
    """

    def __init__(self, config: SweepCacheConfig, root: Path) -> None:
        super().__init__(root / config.key, config.scenes, config.seed)
        self.config = config
        n, s, h, w = config.scenes, config.slices, config.height_px, config.width_px
        self.stack = self._array("stack", (n, s, 3, h, w), np.float16)
        self.focus = self._array("focus", (n, s), np.float32)
        self.depth = self._array("depth", (n, h, w), np.float32)
        self.blur_gain = self._array("blur_gain", (n,), np.float32)

    def _render_chunk(self, part: slice, generator: torch.Generator, atlas: Tensor, device: str
                      ) -> None:
        c = self.config
        lenses = SceneCacheConfig(width_px=c.width_px, height_px=c.height_px,
                                  frame_width_px=c.frame_width_px,
                                  frame_height_px=c.frame_height_px)
        camera, view = random_lenses(lenses, CHUNK, generator)
        scene = random_rooms(view, generator, atlas).to(device)
        depth = render_depth(scene, camera.to(device)).cpu()
        # Of the crop, not of the picture it is cut from: that may be much deeper.
        seen = depth.nan_to_num(VALID_MAX_M, VALID_MAX_M).flatten(1)
        ends = torch.quantile(seen, torch.tensor([0.02, 0.98]), dim=1)
        near_m, far_m = ends.clamp(VALID_MIN_M, VALID_MAX_M)
        camera = with_blur(camera, near_m, far_m, generator)
        focus = focus_positions(near_m, far_m, c.slices, generator)
        for index in range(c.slices):
            pattern = aperture_pattern(c.aperture_samples, generator)
            focused = replace(camera, focus_diopters=focus[:, index]).to(device)
            full = render_full(scene, focused, pattern)
            self.stack[part, index] = full.permute(0, 3, 1, 2).half().cpu().numpy()
        self.focus[part] = focus.numpy()
        self.depth[part] = depth.numpy()
        self.blur_gain[part] = (camera.aperture_m * camera.focal_length_px).numpy()


def render_full(scene: SceneBatch, camera: CameraBatch, pattern: AperturePattern) -> Tensor:
    """Image through the whole aperture, (B, H, W, 3) linear radiance."""
    compiled = scene.centre.device.type == "cpu" and fast_tracer.available()
    strips = (fast_tracer.render_strips_on_cpu(scene, camera, pattern) if compiled
              else render_strips(scene, camera, pattern))
    return (strips * pattern.area.to(strips)[None, :, None, None, None]).sum(1)
