"""A simulated camera whose focus is driven from outside: what a focus sweep is taken with.

    stack = render_focus_stack(preset_lens("robot_12mm", 0.0), 320, 240, options)   # once, slow
    camera = FocusDrivenCamera(stack, options)
    camera.command(2.0, now_s)                                                      # at any time
    exposure = camera.expose(now_s)                                                 # fast

The scene stands still and is rendered once, focused at positions uniform in dioptres; an exposure
is interpolated between the two nearest of them, magnified as the focus breathes, displaced by the
camera's drift and given noise. How the lens follows its commands: `lens_drive.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from depth_fusion_ros.optics.intrinsics import Intrinsics
from depth_fusion_ros.optics.thin_lens import ThinLens, breathing_scale
from depth_fusion_ros.simulation import fast_tracer
from depth_fusion_ros.simulation.camera import (
    CameraBatch,
    aperture_pattern,
    render_depth,
    render_strips,
)
from depth_fusion_ros.simulation.lens_drive import LensDrive, LensDriveOptions
from depth_fusion_ros.simulation.rooms import random_rooms
from depth_fusion_ros.simulation.scenes import SceneView
from depth_fusion_ros.simulation.sensor import srgb_encode
from depth_fusion_ros.simulation.textures import make_atlas

DRIFT_MARGIN_PX = 16
"""Rendered beyond each edge where the camera drifts; the drift turns round there."""
NOISE_A, NOISE_B = 2e-4, 2e-6
"""Variance NOISE_A·x + NOISE_B at signal x in 0..1: an indoor exposure, as in `sequence.py`."""
WORTH_COMPILING = 4e7
"""Rays (pixels × aperture samples × positions) from which the compiled tracer saves time."""


@dataclass(frozen=True)
class FocusCameraOptions:
    """Scene, lens and sensor of the camera.

    Attributes:
        drive: how the lens moves, and its range.
        positions: focus positions rendered over that range.
        aperture_samples: rays per pixel.
        breathing_per_diopter: β of fx(D) = fx0·(1 + β·D).
        exposure_s: length of an exposure.
        drift_px_per_s: image motion of the moving camera, along x and y.
        seed: of the scene and the noise.

    Raises:
        ValueError: a value outside its range; the text names it and the rule.
    """

    drive: LensDriveOptions = field(default_factory=LensDriveOptions)
    positions: int = 24
    aperture_samples: int = 32
    breathing_per_diopter: float = 0.0
    exposure_s: float = 0.01
    drift_px_per_s: tuple[float, float] = (0.0, 0.0)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("positions", 2), ("aperture_samples", 8), ("exposure_s", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be at least {least}; "
                                 "raise it")
        breathing_scale(self.drive.near_diopters, 0.0, self.breathing_per_diopter)

    @property
    def margin_px(self) -> int:
        """Pixels rendered beyond each edge."""
        return DRIFT_MARGIN_PX if any(self.drift_px_per_s) else 0


@dataclass(frozen=True, eq=False)
class FocusStack:
    """A still scene seen by one lens at many focus settings.

    Attributes:
        light: (N, 3, H + 2m, W + 2m) float32 linear radiance, exposed; m = `margin_px`. All at
            one magnification, that of a focus at infinity.
        focus_diopters: (N,) uniform, rising, 1/m.
        depth_m: (H, W) float32 truth at that magnification, without drift.
        lens: focused at infinity; its focal_length_px is fx0.
        margin_px: pixels beyond each edge.
    """

    light: Tensor
    focus_diopters: NDArray[np.float64]
    depth_m: NDArray[np.float32]
    lens: ThinLens
    margin_px: int = 0


def render_focus_stack(
    lens: ThinLens, width_px: int, height_px: int, options: FocusCameraOptions, *,
    device: str = "cpu", progress: Callable[[int, int], bool | None] | None = None,
) -> FocusStack:
    """Render a random room, its objects spread over the range of the lens.

    Args:
        lens: focal length, f-number and pitch count; its focus does not.
        width_px, height_px: of the published images.
        options: see `FocusCameraOptions`.
        device: of the tracer. progress: called with positions done and wanted; True stops.

    Raises:
        ValueError: a size that is not positive.
        InterruptedError: `progress` returned True.
    """
    if min(width_px, height_px) <= 0:
        raise ValueError(f"width_px={width_px}, height_px={height_px}: both must be > 0")
    lens, margin = lens.refocused(0.0), options.margin_px
    far, near = options.drive.far_diopters, options.drive.near_diopters
    generator = torch.Generator().manual_seed(options.seed)
    one, wide, high = torch.ones(1), width_px + 2 * margin, height_px + 2 * margin
    # Objects within the range, the back wall near its far end: every pixel has a sharp position.
    view = SceneView(one * lens.focal_length_px, one / (far + 0.9 * (near - far)),
                     one / (far + 0.15 * (near - far)), torch.zeros(1, 2), wide, high)
    scene = random_rooms(view, generator, make_atlas(16, generator)).to(device)
    focus = np.linspace(far, near, options.positions)
    compiled = (device == "cpu" and fast_tracer.available()
                and wide * high * options.aperture_samples * len(focus) > WORTH_COMPILING)
    render = fast_tracer.render_strips_on_cpu if compiled else render_strips
    slices = []
    with torch.inference_mode():
        pattern = aperture_pattern(options.aperture_samples, generator)
        rig = CameraBatch(one * lens.focal_length_m / lens.f_number, one * 0.0,
                          view.focal_length_px, view.offset_px, wide, high).to(device)
        depth = render_depth(scene, rig)[0].cpu().numpy().astype(np.float32)
        for count, position in enumerate(focus, 1):
            focused = CameraBatch(rig.aperture_m, one.to(device) * float(position),
                                  rig.focal_length_px, rig.offset_px, wide, high)
            strips = render(scene, focused, pattern)
            full = (strips * pattern.area.to(strips)[None, :, None, None, None]).sum(1)
            slices.append(full[0].permute(2, 0, 1).cpu())
            if progress is not None and progress(count, len(focus)):
                raise InterruptedError(f"stopped after {count} of {len(focus)} focus positions")
    light = torch.stack(slices).clone()  # out of inference mode
    light *= 0.3 / float(light.mean().clamp_min(0.02))
    inner = (slice(margin, margin + height_px), slice(margin, margin + width_px))
    return FocusStack(light, focus, depth[inner], lens, margin)


@dataclass(frozen=True, eq=False)
class FocusExposure:
    """One image and the truth about it.

    Attributes:
        image: (H, W, 3) uint8 sRGB.
        focus_diopters: true focus at mid-exposure, 1/m; start and end: of the exposure.
        commanded_diopters: the last command, 1/m.
        moving: whether the lens moved during the exposure.
        intrinsics: of this image; fx breathes with the focus.
        drift_px: (x, y) displacement of the image content.
    """

    image: NDArray[np.uint8]
    focus_diopters: float
    focus_start_diopters: float
    focus_end_diopters: float
    commanded_diopters: float
    moving: bool
    intrinsics: Intrinsics
    drift_px: tuple[float, float]


class FocusDrivenCamera:
    """The camera; see the module's text. One thread at a time."""

    def __init__(self, stack: FocusStack, options: FocusCameraOptions,
                 start_diopters: float | None = None) -> None:
        """Focus at `start_diopters`, the far end of the range by default."""
        self.stack, self.options = stack, options
        far = options.drive.far_diopters
        self._drive = LensDrive(options.drive, far if start_diopters is None else start_diopters)
        self._noise = torch.Generator().manual_seed(options.seed + 1)
        self._since_s: float | None = None
        self._last_s = -math.inf

    @property
    def depth_m(self) -> NDArray[np.float32]:
        """Truth, (H, W) float32 metres, at the magnification of a focus at infinity."""
        return self.stack.depth_m

    def command(self, diopters: float, now_s: float) -> None:
        """Drive the lens (1/m); see `LensDrive.command`."""
        self._drive.command(diopters, now_s)

    def expose(self, now_s: float) -> FocusExposure:
        """Take the image whose exposure ends now.

        Its exposure begins at the end of the last one where they would overlap: a timer that is
        late catches up with two ticks in a row.

        Raises:
            ValueError: the clock runs backwards.
        """
        start_s = max(now_s - self.options.exposure_s, self._last_s)
        start, _ = self._drive.advance(start_s)
        middle, first = self._drive.advance((start_s + now_s) / 2)
        end, second = self._drive.advance(now_s)
        self._last_s = now_s
        self._since_s = now_s if self._since_s is None else self._since_s
        drift = tuple(_there_and_back(speed * (now_s - self._since_s), self.stack.margin_px)
                      for speed in self.options.drift_px_per_s)
        scale = breathing_scale(middle, 0.0, self.options.breathing_per_diopter)
        height, width = self.stack.depth_m.shape
        fx = self.stack.lens.focal_length_px * scale
        return FocusExposure(
            image=self._developed(self._light(middle, scale, drift)),
            focus_diopters=middle, focus_start_diopters=start, focus_end_diopters=end,
            commanded_diopters=self._drive.commanded_diopters, moving=first or second,
            intrinsics=Intrinsics(fx, fx, (width - 1) / 2, (height - 1) / 2, width, height),
            drift_px=(drift[0], drift[1]))

    def _light(self, focus: float, scale: float, drift: tuple[float, ...]) -> Tensor:
        """Radiance (3, H, W) at a focus, magnified by `scale` and moved by `drift` px."""
        stack = self.stack
        place = float(np.interp(focus, stack.focus_diopters, np.arange(len(stack.light))))
        low = min(int(place), len(stack.light) - 2)
        light = torch.lerp(stack.light[low], stack.light[low + 1], place - low)
        height, width = stack.depth_m.shape
        if scale == 1.0 and not any(drift):
            m = stack.margin_px
            return light[:, m:m + height, m:m + width]
        wide, high = light.shape[2], light.shape[1]
        # Where the content of each published pixel lies in the rendered image, -1..1 over it.
        x = (torch.arange(width) - (width - 1) / 2 - drift[0]) / scale * 2 / wide
        y = (torch.arange(height) - (height - 1) / 2 - drift[1]) / scale * 2 / high
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
        moved: Tensor = F.grid_sample(light[None], grid, padding_mode="border",
                                      align_corners=False)
        return moved[0]

    def _developed(self, light: Tensor) -> NDArray[np.uint8]:
        """Noise and sRGB of radiance (3, H, W): (H, W, 3) uint8."""
        variance = NOISE_A * light.clamp_min(0) + NOISE_B
        noisy = light + variance.sqrt() * torch.randn(light.shape, generator=self._noise)
        encoded = (srgb_encode(noisy.clamp(0, 1)) * 255).round().to(torch.uint8)
        return np.ascontiguousarray(encoded.permute(1, 2, 0).numpy())


def _there_and_back(way_px: float, margin_px: int) -> float:
    """A triangular wave of slope 1 within ±margin: drift that never runs out of picture."""
    if margin_px == 0:
        return 0.0
    phase = math.fmod(way_px + margin_px, 4 * margin_px)
    phase += 4 * margin_px * (phase < 0)
    return phase - margin_px if phase < 2 * margin_px else 3 * margin_px - phase
