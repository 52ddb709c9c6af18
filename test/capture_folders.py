"""Small synthetic copies of both folder layouts of captures with truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from depth_fusion_ros.networks.evidence import shift
from depth_fusion_ros.simulation.sensor import srgb_encode

WIDTH, HEIGHT = 160, 96
REAL_K_PX_M, FOCUS_D = 1.2, 1.05


def texture() -> torch.Tensor:
    coarse = torch.rand(1, 1, HEIGHT // 4, WIDTH // 4, generator=torch.Generator().manual_seed(2))
    return torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bicubic") * 0.5 + 0.2


def views(disparity_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Linear (H, W, 3) left and right at a constant disparity."""
    image = texture()
    offset = torch.full_like(image, disparity_px / 2)
    return tuple(shift(image, sign * offset)[0, 0].numpy()[..., None].repeat(3, -1)
                 for sign in (1, -1))  # type: ignore[return-value]


def write_raytraced(folder: Path) -> Path:
    """Two scenes of flat walls at 2 m: a robot's lens and, half as large in f, a phone's."""
    for index, (config, f_m) in enumerate((("robot_12mm", 0.012), ("phone_b4", 0.006))):
        meta = {"config": config, "f_m": f_m, "N": 2.0, "pitch_m": 27.6e-6, "dp_focus_m": 1.0,
                "fx_px": 440.0, "theta0_rad": 0.29}
        gain = 0.42441 * f_m**2 / 2 / 27.6e-6 / (1 - f_m)
        arrays = {}
        for suffix, share in (("", 1.0), ("_real", 0.46)):
            left, right = views(share * gain * (1 - 1 / 2.0))
            arrays[f"dp_left{suffix}_lin12"] = (left * 4095).astype(np.uint16)
            arrays[f"dp_right{suffix}_lin12"] = (right * 4095).astype(np.uint16)
        np.savez(folder / f"scene_{index:03d}.npz", meta=json.dumps(meta),
                 depth=np.full((HEIGHT, WIDTH), 2.0, np.float32),
                 full_lin12=arrays["dp_left_lin12"], **arrays)
    return folder


def write_real(folder: Path) -> Path:
    """Two flats and a box at known distances, all with one k and one focus."""
    meta = json.dumps({"f_m": 0.05, "N": 4, "dp_focus_m": 1.0, "pitch_m": 4.67e-5})
    for name, depth_m in (("flat_0600_f4", 0.6), ("flat_1500_f4", 1.5), ("box_001", 0.8)):
        left, right = (
            (srgb_encode(torch.from_numpy(v)).numpy() * 255).round().astype(np.uint8)
            for v in views(REAL_K_PX_M * (FOCUS_D - 1 / depth_m)))
        np.savez(folder / f"dp119_{name}.npz", left=left, right=right, meta=meta,
                 depth=np.full((HEIGHT, WIDTH), depth_m, np.float16))
    return folder
