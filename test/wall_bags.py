"""Bags of textured walls and `depth-fusion evaluate` run on them: what its tests share."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from bag_scenes import LENS, PERIOD_NS, SmallFrame, small_frame
from typer.testing import CliRunner

from depth_fusion_ros.bags.writer import DualPixelBagWriter
from depth_fusion_ros.cli.console import console
from depth_fusion_ros.cli.main import app
from depth_fusion_ros.optics.intrinsics import Intrinsics

CLOSED = ("--model", "closed_form", "--no-pictures")
WIDTH_PX, HEIGHT_PX = 64, 48


def wall(distance_m: float, seed: int) -> SmallFrame:
    """A textured wall square to the axis, with the disparity that its distance gives."""
    random = np.random.default_rng(seed)
    disparity_px = float(LENS.disparity_px(distance_m))
    texture = random.uniform(0.1, 0.8, (HEIGHT_PX, WIDTH_PX + 40))
    for _ in range(2):
        texture = (texture + np.roll(texture, 1, 1) + np.roll(texture, -1, 1)) / 3
    columns = np.arange(WIDTH_PX) + 20.0

    def view(shift_px: float) -> np.ndarray:
        rows = [np.interp(columns - shift_px, np.arange(row.size), row) for row in texture]
        return (np.array(rows) * 65535).astype(np.uint16)

    frame = small_frame(seed, width_px=WIDTH_PX, height_px=HEIGHT_PX)
    middle = (view(0.0) >> 8).astype(np.uint8)
    return replace(
        frame, left=view(-disparity_px / 2), right=view(disparity_px / 2),
        rgb=np.repeat(middle[..., None], 3, 2),
        depth_m=np.full((HEIGHT_PX, WIDTH_PX), distance_m, np.float32),
        intrinsics=Intrinsics(440.0, 440.0, 31.5, 23.5, WIDTH_PX, HEIGHT_PX))


def write_walls(path: Path, distances_m: tuple[float, ...] = (0.8, 1.0, 1.5), seed: int = 0,
                truth: bool = True, **options) -> Path:
    with DualPixelBagWriter(path, **options) as bag:
        for index, distance_m in enumerate(distances_m):
            frame = wall(distance_m, seed + index)
            bag.write_frame(frame if truth else replace(frame, depth_m=None),
                            bag.start_ns + index * PERIOD_NS)
    return path


def evaluate(*arguments: object) -> tuple[int, str]:
    previous, console.width = console.width, 200
    try:
        result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    finally:
        console.width = previous
    return result.exit_code, result.output


def report(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())
