"""Cached focus sweeps exposed anew at every visit, as a camera and the node's alignment leave them.

Drawn afresh for a batch: how many slices and which, exposure, its flicker from slice to slice, what
alignment does (slices of a lens that breathes and drifts are resampled with their noise) and what
it leaves over (fractions of a pixel, permille of scale), noise of several kinds, mirroring, colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from depth_fusion_ros.simulation.sensor import srgb_encode
from depth_fusion_ros.training.sweep_data import (
    VALID_MAX_M,
    VALID_MIN_M,
    SweepCache,
    uniform_draws,
)

MIN_SLICES = 4
EVEN_SHARE = 0.5
"""Of the batches: those whose slices are spread evenly over the cached ones."""
LIVELY_SHARE = 0.4
"""Of the sweeps: those in which camera or light are not still."""
RESAMPLED_SHARE = 0.6
"""Of the lively sweeps: those that breathe and drift by so much that they are resampled."""
BREATHING_PER_DIOPTER = 0.06
"""Most growth of the image with focus, either way."""
MOST_BREATHING = 0.12
"""Of the image's size: lenses that breathe more are not used over such a range."""
MOST_DRIFT_PX = 4.0
LEFT_OVER_PX, LEFT_OVER_SCALE = 0.4, 0.003
"""Most by which a slice is off after alignment."""
PATTERN_NOISE = 0.012
"""Most by which pixels differ in gain, alike in every slice: the half of the sensors that do."""
LASTING_NOISE = 0.006
"""Most noise, of full scale, that is alike in neighbouring slices: cameras that filter in time
(alike from slice to slice), renderers that reuse their rays (alike for like focus; measured on two
ray-traced sweeps: correlation 0.92 at 0.06 dioptres, 0.45 at 0.67, σ 1.1 to 1.5 of 255)."""
LASTING_DIOPTERS = (0.2, 3.0)
"""Distance over which the second kind falls to 1/e."""
LENS_ERROR = 0.03
"""Relative, one standard deviation: f-numbers are nominal, focal lengths rounded."""


@dataclass(frozen=True)
class SweepBatch:
    """Network inputs and truth, float32.

    Attributes:
        stack: (B, N, 3, H, W) sRGB-encoded 0..1, rising focus. focus_diopters: (B, N).
        blur_gain_px_m: (B,) as it is told: a few per cent wrong, 0 = hidden.
        inverse_depth_diopters: (B, 1, H, W). valid: the same shape, bool.
        stand_in: (B, 1, H, W) priors in place of the network's own (`stand_in_priors.py`), NaN in
            sweeps that keep theirs; None = all do.
    """

    stack: Tensor
    focus_diopters: Tensor
    blur_gain_px_m: Tensor
    inverse_depth_diopters: Tensor
    valid: Tensor
    stand_in: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments of `SweepDepth`."""
        return self.stack, self.focus_diopters, self.blur_gain_px_m


def make_sweep_batch(cache: SweepCache, indices: Tensor, generator: torch.Generator, *,
                     device: str = "cpu", slices: int = 0, even: bool | None = None,
                     unknown_lens_share: float = 0.0) -> SweepBatch:
    """Expose cached sweeps.

    Args:
        cache: rendered. indices: of scenes. generator: same state, same batch.
        slices: how many of the cached positions, 0 = drawn between `MIN_SLICES` and all.
        even: True = spread over all of them, as lenses are driven; False = any of them, so that
            gaps and missing ends are met; None = drawn, True for `EVEN_SHARE`.
        unknown_lens_share: share of sweeps whose blur gain is hidden.
    """
    c, batch, rows = cache.config, len(indices), indices.numpy()
    uniform = uniform_draws(batch, generator)
    count = slices or int(torch.randint(MIN_SLICES, c.slices + 1, (1,), generator=generator))
    if even is None:
        even = bool(torch.rand(1, generator=generator) < EVEN_SHARE)
    chosen = (torch.linspace(0, c.slices - 1, count).round().long() if even
              else torch.randperm(c.slices, generator=generator)[:count].sort().values)
    light = torch.from_numpy(cache.stack[rows][:, chosen.numpy()]).float()
    focus = torch.from_numpy(cache.focus[rows][:, chosen.numpy()])
    depth = torch.from_numpy(cache.depth[rows])[:, None]
    stack = exposed(light, focus, generator)
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


def exposed(light: Tensor, focus: Tensor, generator: torch.Generator) -> Tensor:
    """Slices (B, N, 3, H, W), sRGB 0..1 in steps of 8 bits, of radiance of that shape, ≥ 0.

    Light and exposure, the slice as it was taken with its noise, then what alignment makes of it.

    Args:
        focus: (B, N) dioptres, rising.
    """
    batch, count = focus.shape
    uniform = uniform_draws(batch, generator)
    brightness = light.mean((1, 2, 3, 4), keepdim=True).clamp_min(0.02)
    exposure = torch.exp(uniform(math.log(0.35), math.log(1.5)))[:, None, None, None, None]
    lively = (uniform(0, 1) < LIVELY_SHARE).float()[:, None]
    light = light * 0.3 * exposure / brightness
    light = light * (1 + lively * uniform(-0.05, 0.05, count))[:, :, None, None, None]
    motion = draw_motion(focus, lively, generator)
    light = displaced(light, motion.shift_px, motion.scale)
    pattern = PATTERN_NOISE * uniform(-1, 1).clamp_min(0)[:, None, None, None, None]
    light = light * (1 + pattern * torch.randn(light[:, :1].shape, generator=generator))
    clean = uniform(0, 1) < 0.3
    a = torch.where(clean, torch.full((batch,), 1e-6),
                    torch.exp(uniform(math.log(3e-6), math.log(1e-3))))[:, None, None, None, None]
    variance = a * light.clamp_min(0) + 0.01 * a
    light = light + variance.sqrt() * torch.randn(light.shape, generator=generator)
    lasting = LASTING_NOISE * uniform(-1, 1).clamp_min(0)[:, None, None, None, None]
    of_focus = uniform(0, 1, 1) < 0.5
    shortest, longest = (math.log(d) for d in LASTING_DIOPTERS)
    reach = torch.exp(uniform(shortest, longest, 1))
    alike = torch.where(of_focus, torch.exp(-focus.diff(dim=1) / reach), uniform(0.5, 1, 1))
    light = light + lasting * lasting_noise(light.shape, alike, generator)
    stack = (srgb_encode(light.clamp(0, 1)) * 255).round() / 255
    aligned = displaced(stack, *motion.undone)
    return (aligned.clamp(0, 1) * 255).round() / 255


@dataclass(frozen=True)
class Motion:
    """What happens to slices before the noise, and what alignment does to them afterwards.

    Attributes:
        shift_px: (B, N, 2) and scale: (B, N) as of `displaced`, before the noise.
        undone: the same, after it.
    """

    shift_px: Tensor
    scale: Tensor
    undone: tuple[Tensor, Tensor]


def draw_motion(focus: Tensor, lively: Tensor, generator: torch.Generator) -> Motion:
    """Draw what happens to sweeps.

    Args:
        focus: (B, N) dioptres. lively: (B, 1), 0 = camera and light are still, else 1.

    Lively sweeps keep what alignment leaves over. For `RESAMPLED_SHARE` of them the rest is played
    too: the slice as it was taken, then brought back. One slice, the reference, stays as it is.
    """
    batch, count = focus.shape
    uniform = uniform_draws(batch, generator)
    left_px = lively[..., None] * uniform(-LEFT_OVER_PX, LEFT_OVER_PX, count, 2)
    left_scale = 1 + lively * uniform(-LEFT_OVER_SCALE, LEFT_OVER_SCALE, count)
    resampled = lively * (uniform(0, 1, 1) < RESAMPLED_SHARE)
    reference = torch.randint(count, (batch, 1), generator=generator)
    from_reference = focus - focus.gather(1, reference)
    breathing = uniform(-BREATHING_PER_DIOPTER, BREATHING_PER_DIOPTER, 1) * from_reference
    taken_scale = 1 + resampled * breathing.clamp(-MOST_BREATHING, MOST_BREATHING)
    taken_px = resampled[..., None] * uniform(-MOST_DRIFT_PX, MOST_DRIFT_PX, count, 2)
    taken_px = taken_px * (from_reference != 0)[..., None]
    return Motion(taken_px + left_px, taken_scale * left_scale,
                   (-taken_px / taken_scale[..., None], 1 / taken_scale))


def lasting_noise(shape: torch.Size, correlation: Tensor, generator: torch.Generator) -> Tensor:
    """Noise (B, N, 3, H, W) of variance 1, correlated with the slice before by (B, N - 1)."""
    fresh = torch.randn(shape, generator=generator)
    slices = [fresh[:, 0]]
    for new, keep in zip(fresh.unbind(1)[1:], correlation[..., None, None, None].unbind(1)):
        slices.append(keep * slices[-1] + (1 - keep**2).sqrt() * new)
    return torch.stack(slices, 1)


def displaced(stack: Tensor, shift_px: Tensor, scale: Tensor) -> Tensor:
    """Slices resampled by cubic interpolation; what lies outside repeats the border.

    Args:
        stack: (B, N, 3, H, W) ≥ 0. shift_px: (B, N, 2) x and y. scale: (B, N). The value at p from
            the image centre is what was at scale · p + shift.

    Returns:
        the same shape, ≥ 0; slices with no shift and scale 1 untouched.
    """
    shift, factor, slices = shift_px.flatten(0, 1), scale.flatten(), stack.flatten(0, 1)
    moved = ((shift != 0).any(1) | (factor != 1)).nonzero().squeeze(1)
    if not len(moved):
        return stack
    height, width = stack.shape[-2:]
    theta = torch.zeros(len(moved), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = factor[moved]
    theta[:, :, 2] = shift[moved] / (torch.tensor([width, height]) / 2)
    grid = F.affine_grid(theta, [len(moved), 3, height, width], align_corners=False)
    resampled = F.grid_sample(slices[moved], grid, mode="bicubic", padding_mode="border",
                              align_corners=False).clamp_min(0)
    return slices.index_copy(0, moved, resampled).view_as(stack)
