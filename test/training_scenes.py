"""A scene cache for tests of training, filled without rendering: the trainer is not the tracer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from depth_fusion_ros.training.datasets import SceneCache, SceneCacheConfig

SIZE: dict[str, Any] = {"width_px": 64, "height_px": 64, "aperture_samples": 16}
DATA: dict[str, Any] = {"scenes": 16, **SIZE}
HELD_OUT_SEED = 900001
TINY: dict[str, Any] = {
    "data": DATA, "steps": 4, "batch": 4, "warmup_steps": 1, "checkpoint_every_steps": 2,
    "validation": {"scenes": 16, "every_steps": 2}, "threads": 1,
    "hardware": {"accelerator": "cpu"},
}
BLUR_GAIN_PX_M, FOCUS_DIOPTERS = 8.0, 1.0


def fill_caches(root: Path) -> Path:
    """Put walls, one per scene at 0.7 to 3 m, where `TINY` expects rendered scenes.

    Through the aperture strip with centroid c (in aperture radii) a wall at Z is moved by
    c·A/2·(1/g − 1/Z) px; the texture is periodic, so the move is exact in the Fourier domain.
    """
    for seed in (1, HELD_OUT_SEED):
        cache = SceneCache(SceneCacheConfig(seed=seed, **DATA), root)
        random = torch.Generator().manual_seed(seed)
        scenes = len(cache.depth)
        depth_m = torch.linspace(0.7, 3.0, scenes)
        texture = periodic_texture(scenes, random)
        defocus_px = BLUR_GAIN_PX_M * (FOCUS_DIOPTERS - 1 / depth_m)
        shift_px = 0.5 * defocus_px[:, None] * cache.pattern.centroid
        strips = moved(texture[:, None], shift_px)
        cache.strips[:] = strips.numpy()
        full = (strips * cache.pattern.area[:, None, None]).sum(1, keepdim=True)
        cache.full[:] = (full * torch.tensor([0.8, 1.0, 0.6])[:, None, None]).numpy()
        cache.depth[:] = depth_m[:, None, None].expand(-1, 64, 64).numpy()
        cache.camera[:] = torch.tensor([BLUR_GAIN_PX_M, FOCUS_DIOPTERS, 600.0]).numpy()
        (cache.folder / "done.txt").write_text(str(scenes))
    return root


def periodic_texture(count: int, random: torch.Generator) -> Tensor:
    """(count, 64, 64) noise without what is finer than 6 px, 0.1 to 0.9."""
    spectrum = torch.fft.rfft2(torch.rand(count, 64, 64, generator=random))
    fy, fx = torch.fft.fftfreq(64)[:, None], torch.fft.rfftfreq(64)
    spectrum[:, fy**2 + fx**2 > (1 / 6) ** 2] = 0
    noise = torch.fft.irfft2(spectrum, s=(64, 64))
    low, high = noise.amin((1, 2), keepdim=True), noise.amax((1, 2), keepdim=True)
    return 0.1 + 0.8 * (noise - low) / (high - low)


def moved(images: Tensor, shift_px: Tensor) -> Tensor:
    """Images (B, 1, 64, 64) moved along x by (B, N) px: (B, N, 64, 64)."""
    phase = -2 * torch.pi * torch.fft.rfftfreq(64) * shift_px[..., None, None]
    return torch.fft.irfft(torch.fft.rfft(images) * torch.exp(1j * phase), n=64)
