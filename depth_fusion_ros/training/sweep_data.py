"""Simulated focus sweeps for training: rendered once through the lens, exposed anew at every visit.

The cache holds the radiance of every slice, all at one magnification (the node compensates focus
breathing before the network), and the truth. Drawn afresh for a batch: how many slices and which,
noise, exposure, its flicker from slice to slice, what alignment leaves over (fractions of a pixel
of drift, permille of breathing), pixels of unequal gain, mirroring and colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
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
from depth_fusion_ros.simulation.sensor import srgb_encode
from depth_fusion_ros.training.datasets import SceneCacheConfig, random_lenses
from depth_fusion_ros.training.render_cache import CHUNK, RenderCache, cache_key

MIN_SLICES = 4
LIVELY_SHARE = 0.4
SHORT_SHARE = 0.15
GAINS_PX_M = (0.8, 14.0)
BLUR_SPAN_PX = (1.0, 24.0)
PATTERN_NOISE = 0.012
"""Most by which pixels differ in gain, alike in every slice: the half of the sensors that do."""
LASTING_NOISE = 0.006
"""Most noise, of full scale, that is alike in neighbouring slices: cameras that filter in time."""
LENS_ERROR = 0.03
"""Relative, one standard deviation: f-numbers are nominal, focal lengths rounded."""
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
    recipe: int = 3

    @property
    def key(self) -> str:
        """Name of the cache folder."""
        return cache_key("sweeps", self)


def focus_positions(near_m: Tensor, far_m: Tensor, slices: int, generator: torch.Generator
                    ) -> Tensor:
    """(B, slices) dioptres, rising: uniform with jitter, over about the range of what is seen.

    A commanded sweep does not know the scene: its far end lies at 0.4 to 1.1 of the farthest
    object's dioptres, its near end mostly just before the nearest object and for `SHORT_SHARE` of
    the sweeps behind it, so that what is beyond a sweep is seen in training, but not everywhere.
    """
    batch = len(near_m)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator)

    low = (1 / far_m) * uniform(0.4, 1.1)
    short = uniform(0, 1) < SHORT_SHARE
    high = (1 / near_m) * torch.where(short, uniform(0.75, 0.95), uniform(0.95, 1.19))
    high = torch.maximum(high, low + 0.4)
    steps = torch.linspace(0, 1, slices) + uniform(-0.25, 0.25, slices) / (slices - 1)
    steps[:, 0], steps[:, -1] = 0, 1
    return low[:, None] + (high - low)[:, None] * steps


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


@dataclass(frozen=True)
class SweepBatch:
    """Network inputs and truth, float32.

    Attributes:
        stack: (B, N, 3, H, W) sRGB-encoded 0..1, rising focus. focus_diopters: (B, N).
        blur_gain_px_m: (B,) as it is told: a few per cent wrong, 0 = hidden.
        inverse_depth_diopters: (B, 1, H, W). valid: the same shape, bool.
    """

    stack: Tensor
    focus_diopters: Tensor
    blur_gain_px_m: Tensor
    inverse_depth_diopters: Tensor
    valid: Tensor

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments of `SweepDepth`."""
        return self.stack, self.focus_diopters, self.blur_gain_px_m


def make_sweep_batch(cache: SweepCache, indices: Tensor, generator: torch.Generator, *,
                     device: str = "cpu", slices: int = 0, unknown_lens_share: float = 0.0
                     ) -> SweepBatch:
    """Expose cached sweeps.

    Args:
        cache: rendered. indices: of scenes. generator: same state, same batch.
        slices: how many of the cached positions, 0 = drawn between `MIN_SLICES` and all.
        unknown_lens_share: share of sweeps whose blur gain is hidden.
    """
    c, batch, rows = cache.config, len(indices), indices.numpy()

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator)

    count = slices or int(torch.randint(MIN_SLICES, c.slices + 1, (1,), generator=generator))
    chosen = torch.randperm(c.slices, generator=generator)[:count].sort().values
    light = torch.from_numpy(cache.stack[rows][:, chosen.numpy()]).float()
    focus = torch.from_numpy(cache.focus[rows][:, chosen.numpy()])
    depth = torch.from_numpy(cache.depth[rows])[:, None]
    brightness = light.mean((1, 2, 3, 4), keepdim=True).clamp_min(0.02)
    exposure = torch.exp(uniform(math.log(0.35), math.log(1.5)))[:, None, None, None, None]
    lively = (uniform(0, 1) < LIVELY_SHARE).float()[:, None]
    light = light * 0.3 * exposure / brightness
    light = light * (1 + lively * uniform(-0.05, 0.05, count))[:, :, None, None, None]
    light = _displaced(light, lively[..., None] * uniform(-0.4, 0.4, count, 2),
                       1 + lively * uniform(-0.003, 0.003, count))
    pattern = PATTERN_NOISE * uniform(-1, 1).clamp_min(0)[:, None, None, None, None]
    light = light * (1 + pattern * torch.randn(light[:, :1].shape, generator=generator))
    clean = uniform(0, 1) < 0.3
    a = torch.where(clean, torch.full((batch,), 1e-6),
                    torch.exp(uniform(math.log(3e-6), math.log(1e-3))))[:, None, None, None, None]
    variance = a * light.clamp_min(0) + 0.01 * a
    light = light + variance.sqrt() * torch.randn(light.shape, generator=generator)
    lasting = LASTING_NOISE * uniform(-1, 1).clamp_min(0)[:, None, None, None, None]
    light = light + lasting * _alike(light.shape, uniform(0.5, 1), generator)
    stack = (srgb_encode(light.clamp(0, 1)) * 255).round() / 255
    stack = stack[:, :, torch.randperm(3, generator=generator)]
    grey = (uniform(0, 1) < 0.15)[:, None, None, None, None]
    stack = torch.where(grey, stack.mean(2, keepdim=True).expand_as(stack), stack)
    inverse = 1 / depth
    valid = (depth > VALID_MIN_M) & (depth < VALID_MAX_M)
    mirrored = (uniform(0, 1) < 0.5)[:, None, None, None]
    inverse, valid = (torch.where(mirrored, t.flip(-1), t) for t in (inverse, valid))
    stack = torch.where(mirrored[:, None], stack.flip(-1), stack)
    told = torch.from_numpy(cache.blur_gain[rows]) * torch.exp(
        LENS_ERROR * torch.randn(batch, generator=generator))
    told = told * (uniform(0, 1) >= unknown_lens_share)
    return SweepBatch(*(t.contiguous().to(device) for t in (stack, focus, told, inverse, valid)))


def _alike(shape: torch.Size, correlation: Tensor, generator: torch.Generator) -> Tensor:
    """Noise (B, N, 3, H, W) of variance 1, correlated from each slice to the next by (B,)."""
    fresh = torch.randn(shape, generator=generator)
    keep = correlation[:, None, None, None]
    slices = [fresh[:, 0]]
    for new in fresh.unbind(1)[1:]:
        slices.append(keep * slices[-1] + (1 - keep**2).sqrt() * new)
    return torch.stack(slices, 1)


def _displaced(light: Tensor, shift_px: Tensor, scale: Tensor) -> Tensor:
    """Slices (B, N, 3, H, W) moved by (B, N, 2) px and scaled by (B, N), cubic interpolation."""
    if not shift_px.any() and bool((scale == 1).all()):
        return light
    batch, count, _, height, width = light.shape
    theta = torch.zeros(batch * count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale.flatten()
    size = torch.tensor([width, height]) / 2
    theta[:, :, 2] = shift_px.flatten(0, 1) / size
    grid = F.affine_grid(theta, [batch * count, 3, height, width], align_corners=False)
    moved = F.grid_sample(light.flatten(0, 1), grid, mode="bicubic", padding_mode="border",
                          align_corners=False).clamp_min(0)
    still = (shift_px.flatten(0, 1) == 0).all(1) & (scale.flatten() == 1)
    return torch.where(still[:, None, None, None], light.flatten(0, 1), moved).view_as(light)
