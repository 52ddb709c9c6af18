"""Focus sweeps for tests: a training cache filled without rendering, a ray-traced folder, a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file

from depth_fusion_ros.networks.registry import architecture, build
from depth_fusion_ros.networks.sweep_depth import PARTS
from depth_fusion_ros.training.sweep_data import SweepCache, SweepCacheConfig

SIZE: dict[str, Any] = {"width_px": 64, "height_px": 64, "slices": 5, "aperture_samples": 16}
TINY: dict[str, Any] = {
    "network": "sweep_depth", "data": {"kind": "simulated_sweep", "scenes": 16, **SIZE},
    "batch": 2, "warmup_steps": 1, "checkpoint_every_steps": 2,
    "validation": {"scenes": 16, "every_steps": 50}, "threads": 1,
    "hardware": {"accelerator": "cpu"},
    "stages": [{"name": part, "steps": 1} for part in PARTS]}
HELD_OUT_SEED = 900001
WIDTH, HEIGHT, FX_PX = 96, 64, 400.0
FOCUS_M = 1 / np.linspace(3.0, 0.3, 10)
TRUE_DIOPTERS = {"robot_12mm": 1.3, "phone_b4": 2.1}
BREATHING_PX = 3.0
"""fx of the slices falls by so much from the first to the last, where they breathe."""
Array = NDArray[Any]


def filled(root: Path, seed: int) -> SweepCache:
    """Walls at 0.5 to 2 m whose texture is the blurrier the farther focus is from them."""
    cache = SweepCache(SweepCacheConfig(16, seed=seed, **SIZE), root)
    random = torch.Generator().manual_seed(seed)
    focus = torch.linspace(0.4, 2.2, SIZE["slices"])
    truth = torch.linspace(0.5, 2.0, 16)
    sharp = torch.rand(16, 3, 64, 64, generator=random)
    for index, position in enumerate(focus):
        for n in range(16):
            width = 2 * round(4 * abs(float(position - truth[n]))) + 1
            blurred = F.avg_pool2d(sharp[n], width, 1, width // 2, count_include_pad=False)
            cache.stack[n, index] = blurred.numpy()
    cache.focus[:] = focus.numpy()
    cache.blur_gain[:] = 8.0
    cache.depth[:] = (1 / truth)[:, None, None].numpy()
    (cache.folder / "done.txt").write_text("16")
    return cache


def fill_caches(root: Path) -> Path:
    """What `TINY` trains on and is measured on, in a folder for rendered scenes."""
    for seed in (1, HELD_OUT_SEED):
        filled(root, seed)
    return root


def texture(width: int = WIDTH, height: int = HEIGHT) -> Array:
    noise = np.random.default_rng(3).standard_normal((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 0.9)
    return np.repeat((0.45 + 0.15 * smooth / smooth.std()).clip(0, 1)[..., None], 3, axis=2)


def magnified(image: Array, scale: float) -> Array:
    """About the centre, by a plain inverse map of coordinates."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    cx, cy = (width - 1) / 2, (height - 1) / 2
    back = (((x - cx) / scale + cx).astype(np.float32), ((y - cy) / scale + cy).astype(np.float32))
    return cv2.remap(image, *back, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def write_raytraced(root: Path) -> Path:
    """Two flat walls; the second one's sweep breathes, and has a blank stripe on the left."""
    for number, (config, true_diopters) in enumerate(TRUE_DIOPTERS.items()):
        slice_fx = FX_PX + number * np.linspace(BREATHING_PX, -BREATHING_PX, 10) / 2
        meta = {"config": config, "fx_px": FX_PX, "f_m": 0.04, "N": 2.0,
                "stack_breathing": bool(number), "stack_fx_px": slice_fx.tolist(),
                "stack_focus_m": FOCUS_M.tolist()}
        sharp = texture()
        if number:
            sharp[:, :20] = 0.5
        stack = np.stack([magnified(cv2.GaussianBlur(sharp, (0, 0), np.hypot(
            0.3, 2 * (1 / z - true_diopters))), fx / FX_PX) for z, fx in zip(FOCUS_M, slice_fx)])
        view = (sharp**2 * 4095).astype(np.uint16)
        np.savez(root / f"scene_{number:03d}.npz", meta=json.dumps(meta),
                 depth=np.full((HEIGHT, WIDTH), 1 / true_diopters, np.float32),
                 dp_left_lin12=view, dp_right_lin12=view,
                 stack_srgb8=(stack * 255).round().clip(0, 255).astype(np.uint8),
                 stack_focus_m=FOCUS_M.astype(np.float32))
    return root


def write_run(folder: Path, name: str) -> Path:
    """A freshly initialised network, as a run that was stopped at once."""
    folder.mkdir()
    torch.manual_seed(0)
    network = build(name)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()},
              folder / f"{name}.safetensors")
    (folder / "run.json").write_text(json.dumps({
        "network": name, "architecture": architecture(network), "parameters": 1, "steps_done": 3,
        "minutes": 0.5, "training": {
            "start_from": str(Path("/", "home", "a", "prior", "prior.safetensors")),
            "data": {"scenes": 16, "width_px": 64, "height_px": 64, "slices": 5}}}))
    return folder
