"""Simulated dual-pixel recordings: a camera drifting through random scenes, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.optics.intrinsics import Intrinsics
from depth_fusion_ros.optics.thin_lens import ThinLens
from depth_fusion_ros.simulation.camera import (
    CameraBatch,
    aperture_pattern,
    render_depth,
    render_strips,
)
from depth_fusion_ros.simulation.scenes import SceneBatch, SceneView, random_scenes
from depth_fusion_ros.simulation.sensor import SensorBatch, expose, to_grey
from depth_fusion_ros.simulation.textures import make_atlas

APERTURE_SAMPLES = 48
_PRESETS: dict[str, tuple[float, float, float]] = {
    # name: focal length m, f-number, pitch m of the published (binned) pixels
    "phone": (4.4e-3, 1.8, 5.6e-6),
    "robot_12mm": (12e-3, 2.0, 27.6e-6),
    "robot_16mm": (16e-3, 2.0, 27.6e-6),
    "robot_25mm": (25e-3, 2.0, 27.6e-6),
}
CAMERAS = tuple(_PRESETS)


@dataclass(frozen=True)
class SimulatedFrame:
    """One exposure with its truth.

    Attributes:
        left, right: (H, W) uint16 linear counts 0..65535, black level 0.
        rgb: (H, W, 3) uint8, sRGB-encoded image through the whole aperture.
        depth_m: (H, W) float32 truth, metres along z of the central ray (never NaN).
        lens: lens state of this exposure; intrinsics: of all images.
    """

    left: NDArray[np.uint16]
    right: NDArray[np.uint16]
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    lens: ThinLens
    intrinsics: Intrinsics


def preset_lens(camera: str, focus_diopters: float) -> ThinLens:
    """Return a preset's lens, focused at ``focus_diopters``.

    Raises:
        ValueError: unknown preset; the text lists the known ones.
    """
    if camera not in _PRESETS:
        raise ValueError(f"camera = {camera!r}: no such simulated camera; use one of {CAMERAS}")
    focal_length_m, f_number, pitch_m = _PRESETS[camera]
    return ThinLens(focal_length_m, f_number, pitch_m, focus_diopters)


def simulate_sequence(
    *,
    frames: int,
    width_px: int = 320,
    height_px: int = 240,
    seed: int = 0,
    camera: str = "robot_12mm",
    frames_per_scene: int = 5,
    device: str = "cpu",
) -> Iterator[SimulatedFrame]:
    """Yield `frames` simulated exposures; same arguments, same frames.

    Every `frames_per_scene` frames a new scene, focus distance and light are drawn; within a
    scene the camera drifts by up to a few centimetres and degrees. Ideal half-disc split, noise
    of an indoor exposure (variance 2e-4·x + 2e-6). The fx of the intrinsics is the true one for
    the focus setting of the frame, so it breathes as a thin lens does.

    Raises:
        ValueError: unknown camera, or a size or count that is not positive.
    """
    if min(frames, width_px, height_px, frames_per_scene) <= 0:
        raise ValueError(
            f"frames={frames}, width_px={width_px}, height_px={height_px}, "
            f"frames_per_scene={frames_per_scene}: all must be > 0")
    preset_lens(camera, 1.0)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.Generator(device=device).manual_seed(seed + 1)
    for start in range(0, frames, frames_per_scene):
        near_m = float(torch.exp(torch.rand(1, generator=generator) * 1.2 - 1.2))
        far_m = near_m * float(2.0 + 3.5 * torch.rand(1, generator=generator))
        mix = float(0.25 + 0.5 * torch.rand(1, generator=generator))
        lens = preset_lens(camera, mix / near_m + (1 - mix) / far_m)
        one = torch.ones(1)
        rig = CameraBatch(
            one * lens.focal_length_m / lens.f_number, one * lens.focus_diopters,
            one * lens.focal_length_px, torch.zeros(1, 2), width_px, height_px)
        view = SceneView(rig.focal_length_px, one * near_m, one * far_m, rig.offset_px,
                         width_px, height_px)
        scene = random_scenes(view, generator, make_atlas(16, generator))
        direction = torch.randn(1, 3, generator=generator) * torch.tensor([[0.02, 0.01, 0.02]])
        yaw_rad = 0.03 * float(torch.randn(1, generator=generator))
        exposure = 0.6 + 0.6 * float(torch.rand(1, generator=generator))
        for step in range(min(frames_per_scene, frames - start)):
            phase = step / frames_per_scene
            moved = scene.moved(direction * near_m * phase, one * yaw_rad * phase)
            yield _expose_frame(moved, rig, lens, exposure, generator, noise, device)


def _expose_frame(
    scene: SceneBatch, rig: CameraBatch, lens: ThinLens, exposure: float,
    generator: torch.Generator, noise: torch.Generator, device: str,
) -> SimulatedFrame:
    pattern = aperture_pattern(APERTURE_SAMPLES, generator)
    moved = scene.to(device)
    camera = rig.to(device)
    with torch.inference_mode():
        strips = render_strips(moved, camera, pattern)
        full = (strips * pattern.area.to(device)[None, :, None, None, None]).sum(1)
        sensor = replace(
            SensorBatch.ideal(1), exposure=torch.full((1,), exposure),
            noise_a=torch.full((1,), 2e-4), noise_b=torch.full((1,), 2e-6)).to(device)
        images = expose(to_grey(strips), full.permute(0, 3, 1, 2), pattern, sensor, noise)
        depth = render_depth(moved, camera)[0]

    def counts(view: torch.Tensor) -> NDArray[np.uint16]:
        return (view[0, 0] * 65535).round().cpu().numpy().astype(np.uint16)

    rgb = (images.rgb[0].permute(1, 2, 0) * 255).round().cpu().numpy().astype(np.uint8)
    fx = lens.focal_length_px
    intrinsics = Intrinsics(fx, fx, (rig.width_px - 1) / 2, (rig.height_px - 1) / 2,
                            rig.width_px, rig.height_px)
    return SimulatedFrame(counts(images.left), counts(images.right), rgb,
                          depth.cpu().numpy().astype(np.float32), lens, intrinsics)
