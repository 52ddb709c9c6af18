"""A calibration board in front of a wall, seen by the ray-tracing camera.

    stack = render_board_stack(board, place, lens, 320, 240, positions)   # for a focus sweep
    left, right = render_board_views(board, place, lens, 320, 240, (0.4, 0.6), noise)

The board is a panel whose texture is its print, cell for cell, so its corners are exactly where
the print has them. Parallax along y is made by tracing everything with x and y exchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depth_fusion_ros.optics.calibration_board import CalibrationBoard
from depth_fusion_ros.optics.gain_field import normalised_grid
from depth_fusion_ros.optics.thin_lens import ThinLens, breathing_scale
from depth_fusion_ros.simulation import fast_tracer
from depth_fusion_ros.simulation.camera import (
    STRIPS,
    AperturePattern,
    CameraBatch,
    aperture_pattern,
    render_strips,
)
from depth_fusion_ros.simulation.focus_camera import (
    NOISE_A,
    NOISE_B,
    FocusStack,
)
from depth_fusion_ros.simulation.places import Place
from depth_fusion_ros.simulation.scenes import SceneBatch
from depth_fusion_ros.simulation.sensor import SensorBatch, split_weights, to_grey
from depth_fusion_ros.simulation.textures import TILE_PX

WALL_M = 4.0
BLACK, WHITE = 0.06, 0.85
"""Albedo of the print."""
FULL_WHITE = 0.8
"""What white paper is exposed to, 1 = full scale."""
MARGIN_SHARE = 0.06
"""White rim around the print, of its width."""
WORTH_COMPILING = 1e7
"""Rays from which the compiled tracer saves time."""
_BOARD = 1  # number of its surface: the wall comes first


@dataclass(frozen=True)
class BoardPlace:
    """Where the board's middle stands: metres in camera axes; turned about x, y, z, radians."""

    x_m: float = 0.0
    y_m: float = 0.0
    z_m: float = 1.0
    pitch_rad: float = 0.0
    yaw_rad: float = 0.0
    roll_rad: float = 0.0

    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Directions of the board's x and y in camera axes."""
        cos, sin = math.cos(self.yaw_rad), math.sin(self.yaw_rad)
        level = np.array([cos, 0.0, -sin])
        upright = np.array([sin * math.sin(self.pitch_rad), math.cos(self.pitch_rad),
                            cos * math.sin(self.pitch_rad)])
        cos, sin = math.cos(self.roll_rad), math.sin(self.roll_rad)
        right, down = cos * level + sin * upright, cos * upright - sin * level
        return right, down


def render_board_stack(
    board: CalibrationBoard, place: BoardPlace, lens: ThinLens, width_px: int, height_px: int,
    focus_diopters: NDArray[np.float64], *, samples: int = 32,
    breathing_per_diopter: float = 0.0, seed: int = 0,
) -> FocusStack:
    """Render the board at chosen settings of the focus, for a `FocusDrivenCamera`.

    The picture is traced as large as the lens shows it at each setting and not resampled, which
    would blur it by what no lens does: the camera's own breathing must be 0.

    Args:
        lens: focal length, f-number and pitch count. focus_diopters: (N,) rising, N ≥ 2.
        samples: rays per pixel. breathing_per_diopter: β of fx0·(1 + β·D).
    """
    lens = lens.refocused(0.0)
    pattern = _opposed(aperture_pattern(samples // 2, torch.Generator().manual_seed(seed)))
    rays = width_px * height_px * samples * len(focus_diopters)
    slices = []
    for position in focus_diopters:
        fx = lens.focal_length_px * breathing_scale(float(position), 0.0, breathing_per_diopter)
        scene = _scene(board, place, fx, seed, transposed=False)
        camera = _camera(lens, float(position), fx, width_px, height_px)
        slices.append(_whole(_strips(scene, camera, pattern, rays), pattern)[0])
    light = torch.stack(slices) * (FULL_WHITE / WHITE)
    depth_m = np.full((height_px, width_px), place.z_m, np.float32)
    return FocusStack(light, focus_diopters, depth_m, lens)


def render_board_views(
    board: CalibrationBoard, place: BoardPlace, lens: ThinLens, width_px: int, height_px: int,
    softness: tuple[float, float], noise: torch.Generator, *, samples: int = 96, axis: str = "x",
    breathing_per_diopter: float = 0.0, seed: int = 0,
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Render left and right view of the board.

    κ changes from the middle to the edges along the parallax axis, as u²: every pixel's split is
    a mixture of two splits, and the centroid of a mixture is that of the centroids.

    Args:
        lens: focused as for this exposure. softness: of the split in the middle and at the edges,
            see `SensorBatch`; 0 = half discs. axis: of the parallax.
        breathing_per_diopter: β; fx is fx0·(1 + β·D), so k = κ·fx·f/N.

    Returns:
        left, right: (H, W) uint16 linear counts.
    """
    across, down = (width_px, height_px) if axis == "x" else (height_px, width_px)
    fx = lens.refocused(0.0).focal_length_px * breathing_scale(
        lens.focus_diopters, 0.0, breathing_per_diopter)
    scene = _scene(board, place, fx, seed, transposed=axis == "y")
    camera = _camera(lens, lens.focus_diopters, fx, across, down)
    pattern = aperture_pattern(samples // 2, torch.Generator().manual_seed(seed))
    pattern = _mirrored(pattern)
    strips = _strips(scene, camera, pattern, 12 * across * down * samples)
    u = torch.from_numpy(normalised_grid(across, down)[0]).float()
    views: list[NDArray[np.uint16]] = []
    with torch.inference_mode():
        middle, edge = (_split(strips, pattern, soft) for soft in softness)
        for inner, outer in zip(middle, edge):
            light = (inner + u * u * (outer - inner)) * (FULL_WHITE / WHITE)
            spread = torch.sqrt(NOISE_A * light.clamp_min(0) + NOISE_B)
            light = light + spread * torch.randn(light.shape, generator=noise)
            counts = (light.clamp(0, 1) * 65535).round().numpy().astype(np.uint16)
            views.append(np.ascontiguousarray(counts if axis == "x" else counts.T))
    return views[0], views[1]


def _split(strips: Tensor, pattern: AperturePattern, softness: float) -> tuple[Tensor, Tensor]:
    """Light of the left and the right halves of pixels, (H, W) each, white = `WHITE`."""
    sensor = replace(SensorBatch.ideal(1), softness=torch.tensor([softness]))
    weights = split_weights(sensor, pattern, strips.shape[3])[:2]
    grey = to_grey(strips)
    left, right = (2 * (grey * w[:, :, None]).sum(1)[0] for w in weights)
    return left, right


def _scene(board: CalibrationBoard, place: BoardPlace, fx_px: float, seed: int, *,
           transposed: bool) -> SceneBatch:
    """The board and a wall; x and y exchanged where `transposed`."""
    room = Place(fx_px, np.random.default_rng(seed))
    room.plane((0, 0, WALL_M), (0, 0, -1), "voronoi", 0.6)
    right, down = place.axes()
    centre = np.array([place.x_m, place.y_m, place.z_m])
    half = tuple((1 + 2 * MARGIN_SHARE * board.size_m[0] / side) * side / 2
                 for side in board.size_m)
    if transposed:
        centre, right, down = (v[[1, 0, 2]] for v in (centre, right, down))
    room.panel(centre, right, down, (half[0], half[1]), "gradient")
    (scene,) = (replace(layer, gloss=None) for layer in room.scenes())
    texels_per_m = board.texels_per_m
    picture = torch.from_numpy(board.picture(texels_per_m).astype(np.float32) / 255)
    tile = torch.full((TILE_PX, TILE_PX), WHITE)
    top, left = ((TILE_PX - side) // 2 for side in picture.shape)
    tile[top:top + picture.shape[0], left:left + picture.shape[1]] = (
        BLACK + (WHITE - BLACK) * picture)
    scene.atlas[_BOARD] = tile[..., None]
    (slot,) = [i for i in range(scene.tile.shape[1]) if int(scene.tile[0, i]) == _BOARD]
    scene.texels_per_m[0, slot] = texels_per_m
    scene.texel_offset[0, slot] = torch.tensor(
        [left + picture.shape[1] / 2, top + picture.shape[0] / 2])
    scene.ambient[:] = 1.0  # even light: the exposure is that of the paper
    return scene


def _camera(lens: ThinLens, focus_diopters: float, fx_px: float, width_px: int, height_px: int
            ) -> CameraBatch:
    one = torch.ones(1)
    return CameraBatch(one * lens.focal_length_m / lens.f_number, one * focus_diopters,
                       one * fx_px, torch.zeros(1, 2), width_px, height_px)


def _strips(scene: SceneBatch, camera: CameraBatch, pattern: AperturePattern, rays: float
            ) -> Tensor:
    compiled = fast_tracer.available() and rays > WORTH_COMPILING
    with torch.inference_mode():
        if compiled:
            return fast_tracer.render_strips_on_cpu(scene, camera, pattern)
        return render_strips(scene, camera, pattern)


def _whole(strips: Tensor, pattern: AperturePattern) -> Tensor:
    """Light of the whole aperture, (B, 3, H, W)."""
    with torch.inference_mode(False):
        return (strips.clone() * pattern.area[None, :, None, None, None]).sum(1).permute(
            0, 3, 1, 2)


def _mirrored(pattern: AperturePattern) -> AperturePattern:
    """Each point and its mirror image across the parallax: few points would couple x and y."""
    across = torch.tensor([1.0, -1.0])
    return replace(pattern, points=torch.cat([pattern.points, pattern.points * across]),
                   jitter_px=torch.cat([pattern.jitter_px, pattern.jitter_px * across]),
                   strip=torch.cat([pattern.strip, pattern.strip]))


def _opposed(pattern: AperturePattern) -> AperturePattern:
    """Each point and its opposite, at one place in the pixel.

    Where points of the aperture and places in the pixel are correlated, as a few random ones are,
    pictures are sharpest out of focus: by up to 0.1 D here.
    """
    return replace(pattern, points=torch.cat([pattern.points, -pattern.points]),
                   jitter_px=pattern.jitter_px.repeat(2, 1),
                   strip=torch.cat([pattern.strip, STRIPS - 1 - pattern.strip]))


__all__ = ["BoardPlace", "render_board_stack", "render_board_views"]
