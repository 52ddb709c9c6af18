"""From aperture-strip radiance to what a dual-pixel sensor delivers.

The split: a pixel's right half weights light by ``w_R = (1 + tanh(u/softness + bias(x)))/2`` with
u the aperture coordinate in units of the radius; softness → 0 is the ideal half-disc split.
Its effective gain κ follows from the weights' centroids, so labels stay exact for any split.
Source of the soft split: fits to real lenses (Canon RF 50 mm and a phone; θ_0 0.29–0.35 rad).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from depth_fusion_ros.simulation.camera import AperturePattern

GREY_WEIGHTS = (0.25, 0.5, 0.25)
"""Bayer-like grey: dual-pixel views of phones are green only, of cameras mostly green."""
FIXED_PATTERN_SHARE = 0.6


@dataclass(frozen=True)
class SensorBatch:
    """Per-image sensor properties, (B,) float32 unless noted.

    Attributes:
        softness: softness of the split in aperture radii; 0 = ideal half discs.
        bias: (B, 2) offset and slope over normalised x (−1..1) of the split's argument: the
            field dependence of κ and of left/right shading.
        cat_eye: strength of the linear aperture fall-off across the field, 0..0.5.
        shading: (B, 2, 2) extra gain offset and slope over x of left and right, e.g. ±0.2.
        exposure: radiance → full scale.
        noise_a, noise_b: variance = a·x + b at signal x in 0..1, per view.
        levels: quantisation steps of full scale (2^bits − 1).
        encoded: bool; the camera stores sRGB-encoded values, which are decoded again after
            quantisation (8-bit camera JPEGs and raw developers).
        black: (B, 2) error of the subtracted black level of left and right, of full scale.
        fixed_pattern: relative standard deviation, pixel to pixel, of a response that both halves
            of a pixel share (microlens, colour filter, dust). It stays in place whatever the
            depth, so on a blank surface it looks like texture at zero disparity.
    """

    softness: Tensor
    bias: Tensor
    cat_eye: Tensor
    shading: Tensor
    exposure: Tensor
    noise_a: Tensor
    noise_b: Tensor
    levels: Tensor
    encoded: Tensor
    black: Tensor
    fixed_pattern: Tensor

    @staticmethod
    def ideal(batch: int) -> SensorBatch:
        """Half-disc split, no shading, no noise, 16 bits."""
        zero = torch.zeros(batch)
        return SensorBatch(zero, torch.zeros(batch, 2), zero, torch.zeros(batch, 2, 2),
                           torch.ones(batch), zero, zero, torch.full((batch,), 65535.0),
                           torch.zeros(batch, dtype=torch.bool), torch.zeros(batch, 2), zero)

    @staticmethod
    def random(batch: int, generator: torch.Generator) -> SensorBatch:
        """Vary what real sensors vary: split, field dependence, shading, light, noise, bits."""

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(batch, *shape, generator=generator)

        def log_uniform(low: float, high: float) -> Tensor:
            return torch.exp(uniform(math.log(low), math.log(high)))

        hard = uniform(0, 1) < 0.45
        softness = torch.where(hard, torch.zeros(batch), log_uniform(0.15, 2.0))
        field = (uniform(0, 1) < 0.6) & ~hard
        bias = torch.stack([uniform(-0.6, 0.6), uniform(-0.4, 0.4)], -1) * field[:, None]
        clean = uniform(0, 1) < 0.3
        noise_a = torch.where(clean, torch.full((batch,), 1e-6), log_uniform(3e-6, 2e-3))
        bits = torch.randint(8, 15, (batch,), generator=generator).float()
        return SensorBatch(
            softness=softness,
            bias=bias,
            cat_eye=uniform(0, 0.4) * (uniform(0, 1) < 0.5),
            shading=uniform(-0.2, 0.2, 2, 2),
            exposure=log_uniform(0.35, 1.5),
            noise_a=noise_a,
            noise_b=noise_a * log_uniform(0.003, 0.03),
            levels=2.0**bits - 1,
            encoded=uniform(0, 1) < 0.3,
            black=uniform(-0.004, 0.004, 2) * (uniform(0, 1) < 0.3)[:, None],
            fixed_pattern=log_uniform(5e-4, 1.2e-2) * (uniform(0, 1) < FIXED_PATTERN_SHARE),
        )

    def to(self, device: torch.device | str) -> SensorBatch:
        """Return the same sensors on another device."""
        return SensorBatch(*(value.to(device) for value in (
            self.softness, self.bias, self.cat_eye, self.shading, self.exposure,
            self.noise_a, self.noise_b, self.levels, self.encoded, self.black,
            self.fixed_pattern)))


@dataclass(frozen=True)
class DualPixelImages:
    """Sensor output: left, right (B, 1, H, W) linear 0..1 with noise and quantisation; rgb
    (B, 3, H, W) sRGB-encoded 0..1; kappa (B, 1, 1, W) effective gain κ per column."""

    left: Tensor
    right: Tensor
    rgb: Tensor
    kappa: Tensor


def split_weights(sensor: SensorBatch, pattern: AperturePattern, width_px: int
                  ) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of each strip in left and right, and the κ they give.

    Returns:
        left, right (B, STRIPS, W): share of a strip's light, including strip area and cat-eye;
        kappa (B, W): centroid gap over the aperture diameter (0.4244 for ideal halves).
    """
    device = sensor.softness.device
    u = pattern.centroid.to(device)[None, :, None]
    x = torch.linspace(-1, 1, width_px, device=device)[None, None]
    bias = sensor.bias[:, :1, None] + sensor.bias[:, 1:, None] * x
    hard = (sensor.softness <= 0)[:, None, None]
    argument = u / sensor.softness.clamp_min(1e-3)[:, None, None] + bias
    right = torch.where(hard, (u > 0).float().expand_as(argument), (1 + torch.tanh(argument)) / 2)
    area = pattern.area.to(device)[None, :, None] * (
        1 - sensor.cat_eye[:, None, None] * x * u).clamp_min(0)
    w_left, w_right = area * (1 - right), area * right
    centroid_left = (w_left * u).sum(1) / w_left.sum(1)
    centroid_right = (w_right * u).sum(1) / w_right.sum(1)
    return w_left, w_right, (centroid_right - centroid_left) / 2


def expose(grey_strips: Tensor, full_rgb: Tensor, pattern: AperturePattern, sensor: SensorBatch,
           noise: torch.Generator | None = None) -> DualPixelImages:
    """Expose a scene on a dual-pixel sensor.

    Args:
        grey_strips: (B, STRIPS, H, W) linear radiance per aperture strip, see `render_strips`.
        full_rgb: (B, 3, H, W) linear radiance through the whole aperture.
        pattern: the aperture pattern the strips were rendered with.
        sensor: properties of each image's sensor.
        noise: generator on the images' device for the noise; None = no noise.
    """
    height, width = grey_strips.shape[-2:]
    w_left, w_right, kappa = split_weights(sensor, pattern, width)
    exposure = sensor.exposure[:, None, None, None]
    if noise is not None and bool((sensor.fixed_pattern > 0).any()):
        exposure = exposure * (1 + sensor.fixed_pattern[:, None, None, None] * torch.randn(
            len(exposure), 1, height, width, generator=noise, device=grey_strips.device))
    x = torch.linspace(-1, 1, width, device=grey_strips.device)
    views = []
    for index, weights in enumerate((w_left, w_right)):
        view = (grey_strips * weights[:, :, None]).sum(1, keepdim=True) * 2
        gain = 1 + sensor.shading[:, index, 0, None] + sensor.shading[:, index, 1, None] * x
        views.append(_read_out(view * gain[:, None, None, :] * exposure, sensor, noise,
                               sensor.black[:, index]))
    rgb = _read_out(full_rgb * exposure, sensor, noise, torch.zeros_like(sensor.softness))
    return DualPixelImages(views[0], views[1], torch.round(srgb_encode(rgb) * 255) / 255,
                           kappa[:, None, None, :])


def _read_out(signal: Tensor, sensor: SensorBatch, noise: torch.Generator | None, black: Tensor
              ) -> Tensor:
    """Shot and read noise, black level error, clipping at full scale, quantisation."""
    signal = signal.clamp(0, 1)
    if noise is not None:
        variance = sensor.noise_a[:, None, None, None] * signal + sensor.noise_b[
            :, None, None, None]
        signal = signal + torch.sqrt(variance) * torch.randn(
            signal.shape, generator=noise, device=signal.device)
    signal = (signal + black[:, None, None, None]).clamp(0, 1)
    levels = sensor.levels[:, None, None, None]
    stored = torch.where(sensor.encoded[:, None, None, None], srgb_encode(signal), signal)
    stored = torch.round(stored * levels) / levels
    return torch.where(sensor.encoded[:, None, None, None], srgb_decode(stored), stored)


def srgb_encode(linear: Tensor) -> Tensor:
    """IEC 61966-2-1 transfer function, linear 0..1 to encoded 0..1."""
    return torch.where(linear <= 0.0031308, 12.92 * linear,
                       1.055 * linear.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def srgb_decode(encoded: Tensor) -> Tensor:
    """Inverse of `srgb_encode`."""
    return torch.where(encoded <= 0.04045, encoded / 12.92,
                       ((encoded.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def to_grey(rgb: Tensor, dim: int = -1) -> Tensor:
    """Weighted grey of linear RGB along `dim` (which is dropped)."""
    weights = torch.tensor(GREY_WEIGHTS, device=rgb.device)
    shape = [1] * rgb.ndim
    shape[dim] = 3
    return (rgb * weights.reshape(shape)).sum(dim)
