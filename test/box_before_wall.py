"""A box before a wall above a floor, as true depth and as points: what tests of costmaps share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from depth_fusion_ros.evaluation.costmap_truth import camera_pose
from depth_fusion_ros.optics.intrinsics import Intrinsics

YAML = Path(__file__).resolve().parents[1] / "config" / "nav2" / "voxel_layer.yaml"
PARAMETERS: dict[str, Any] = yaml.safe_load(YAML.read_text())["local_costmap"]["local_costmap"][
    "ros__parameters"]
WIDTH, HEIGHT = 80, 60
CAMERA = Intrinsics(110.0, 110.0, (WIDTH - 1) / 2, (HEIGHT - 1) / 2, WIDTH, HEIGHT)
POSE = camera_pose(0.4)
WALL_M, THING_M, SIGMA_M = 2.31, 1.21, 0.02
THING = (slice(None), slice(30, 44))  # pixels: 0.15 m wide


def truth(*, thing: bool = False, wall_m: float = WALL_M) -> np.ndarray:
    """True depth of a wall across the view above a floor, and of a thing before it."""
    drop = (np.arange(HEIGHT) - CAMERA.cy_px) / CAMERA.fy_px
    floor = np.where(drop > 0, 0.4 / np.maximum(drop, 1e-9), np.inf)
    depth = np.repeat(np.minimum(wall_m, floor)[:, None], WIDTH, 1).astype(np.float32)
    if thing:
        depth[THING] = np.minimum(depth[THING], THING_M)
    return depth


def on_thing(depth_m: np.ndarray) -> np.ndarray:
    return np.abs(depth_m - THING_M) < 1e-3


def points(depth_m: np.ndarray, sigma_m: float = SIGMA_M) -> np.ndarray:
    """(H·W, 4) x, y, z, σ in the optical frame."""
    rows, columns = np.indices(depth_m.shape)
    x = (columns - CAMERA.cx_px) / CAMERA.fx_px * depth_m
    y = (rows - CAMERA.cy_px) / CAMERA.fy_px * depth_m
    sigma = np.full_like(depth_m, sigma_m)
    return np.stack([x, y, depth_m, sigma], -1).reshape(-1, 4).astype(np.float32)
