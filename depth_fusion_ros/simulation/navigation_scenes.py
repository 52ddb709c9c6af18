"""Six scripted sequences for a costmap: a robot stands still, and something is in its way or not.

    for frame in navigation_frames("box", seed=0):
        frame.left, frame.right, frame.rgb, frame.depth_m

Camera axes: x right, y down, z forward, lens at the origin, `CAMERA_HEIGHT_M` above a level floor,
looking straight ahead. Each state of a sequence is rendered once and exposed anew, with fresh
noise, for each of its frames. Truth is exact: the depth of the central ray.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.optics.intrinsics import Intrinsics
from depth_fusion_ros.optics.thin_lens import ThinLens
from depth_fusion_ros.simulation.camera import (
    AperturePattern,
    CameraBatch,
    aperture_pattern,
    render_depth,
    render_strips,
)
from depth_fusion_ros.simulation.places import Place
from depth_fusion_ros.simulation.sensor import SensorBatch, expose, to_grey
from depth_fusion_ros.simulation.sequence import SimulatedFrame, preset_lens

CAMERA = "robot_12mm"
CAMERA_HEIGHT_M = 0.4
FOCUS_M = 1.2
FRAMES = 10
APERTURE_SAMPLES = 128
MARGIN_M = 0.01  # by which a volume is larger than what stands in it: depths are float32

_TEXELS_PER_PX = 0.6
_WHITE = 0.85  # what the brightest per cent of the brightest state is exposed to, 1 = full scale
_BLACK_LEVEL_NOISE = 1e-2  # noise_b / noise_a of an indoor exposure

Corner = tuple[float, float, float]
Builder = Callable[[Place], dict[int, float]]
"""Adds the surfaces of a state; returns albedos of surfaces (counted from 0) without texture."""


@dataclass(frozen=True)
class Volume:
    """A box along the camera's axes: low and high corner x, y, z, metres."""

    low_m: Corner
    high_m: Corner

    def holds(self, points_m: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return which of the points (…, 3) lie in it, (…) bool; NaN does not."""
        inside = (points_m >= np.array(self.low_m)) & (points_m <= np.array(self.high_m))
        return np.asarray(inside.all(axis=-1), np.bool_)


@dataclass(frozen=True)
class NavigationScene:
    """One sequence.

    Attributes:
        asks: what the costmap is to show, in words.
        subject: where the thing stands that the scene is about; None = there is none.
        states: builders, each of one state of the scene. schedule: state of each of `FRAMES`.
        light: exposure relative to a well exposed image.
        noise_a: variance of the sensor's noise per signal (both 1 = full scale).
    """

    asks: str
    subject: Volume | None
    states: tuple[Builder, ...]
    schedule: tuple[int, ...]
    light: float = 1.0
    noise_a: float = 2e-4


def navigation_frames(
    name: str, *, frames: int = FRAMES, width_px: int = 320, height_px: int = 240, seed: int = 0,
) -> Iterator[SimulatedFrame]:
    """Yield the frames of a scene; same arguments, same frames.

    Args:
        name: of `NAVIGATION_SCENES`.
        frames: number; the schedule is stretched or shortened to it.
        width_px, height_px: of the images; the field of view stays that of 320 x 240.
        seed: of textures, light and noise.

    Raises:
        ValueError: no such scene, or a number that is not positive.
    """
    if name not in NAVIGATION_SCENES:
        raise ValueError(f"scene = {name!r}: no such scene; use one of "
                         f"{', '.join(NAVIGATION_SCENES)}")
    if min(frames, width_px, height_px) <= 0:
        raise ValueError(f"frames={frames}, width_px={width_px}, height_px={height_px}: all must "
                         "be > 0")
    scene = NAVIGATION_SCENES[name]
    lens = _lens(width_px)
    fx = lens.focal_length_px
    intrinsics = Intrinsics(fx, fx, (width_px - 1) / 2, (height_px - 1) / 2, width_px, height_px)
    seeds = np.random.SeedSequence([seed, tuple(NAVIGATION_SCENES).index(name)])
    place_seed, pattern_seed, noise_seed = (int(s) for s in seeds.generate_state(3))
    pattern = _mirrored(aperture_pattern(
        APERTURE_SAMPLES // 2, torch.Generator().manual_seed(pattern_seed)))
    noise = torch.Generator().manual_seed(noise_seed)
    states = [scene.schedule[i * len(scene.schedule) // frames] for i in range(frames)]
    rendered: dict[int, _Rendered] = {}
    for state in sorted(set(states)):
        place = Place(fx, np.random.default_rng(place_seed))
        plain = scene.states[state](place)
        rendered[state] = _render(place, plain, lens, pattern, width_px, height_px)
    sensor = _sensor(scene, rendered.values())
    for state in states:
        shot = rendered[state]
        with torch.inference_mode():
            images = expose(to_grey(shot.strips), shot.full, pattern, sensor, noise)
        rgb = (images.rgb[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
        yield SimulatedFrame(_counts(images.left), _counts(images.right), rgb, shot.depth_m, lens,
                             intrinsics)


@dataclass(frozen=True)
class _Rendered:
    """Light of one state, 1 = a white surface in full light: strips (1, STRIPS, H, W, 3), the
    whole aperture (1, 3, H, W), and the truth (H, W) in metres."""

    strips: torch.Tensor
    full: torch.Tensor
    depth_m: NDArray[np.float32]


def _mirrored(pattern: AperturePattern) -> AperturePattern:
    """Add every point's mirror image in y.

    A costmap shows a bias of one per cent. Few random points leave x and y correlated, which
    shifts fine diagonal texture by up to 0.07 px between the views; with these it is 0.02 px.
    """
    down = torch.tensor([1.0, -1.0])
    return replace(
        pattern, points=torch.cat([pattern.points, pattern.points * down]),
        jitter_px=torch.cat([pattern.jitter_px, pattern.jitter_px * down]),
        strip=torch.cat([pattern.strip, pattern.strip]))


def _lens(width_px: int) -> ThinLens:
    """Return the preset's lens; smaller images have larger pixels, so one field of view."""
    lens = preset_lens(CAMERA, 1 / FOCUS_M)
    return replace(lens, pixel_pitch_m=lens.pixel_pitch_m * 320 / width_px)


def _render(place: Place, plain: dict[int, float], lens: ThinLens, pattern: AperturePattern,
            width_px: int, height_px: int) -> _Rendered:
    one = torch.ones(1)
    camera = CameraBatch(one * lens.focal_length_m / lens.f_number, one * lens.focus_diopters,
                         one * lens.focal_length_px, torch.zeros(1, 2), width_px, height_px)
    (scene,) = (replace(layer, gloss=None) for layer in place.scenes())
    for surface, albedo in plain.items():  # each surface has a tile of its own, in their order
        scene.atlas[surface] = albedo
    with torch.inference_mode():
        strips = render_strips(scene, camera, pattern)
        full = (strips * pattern.area[None, :, None, None, None]).sum(1).permute(0, 3, 1, 2)
        depth = render_depth(scene, camera)[0]
    return _Rendered(strips, full, depth.numpy().astype(np.float32))


def _sensor(scene: NavigationScene, states: Collection[_Rendered]) -> SensorBatch:
    """Return an ideal split with one exposure for all states, that of the brightest."""
    greys = [to_grey(state.full, 1).flatten() for state in states]
    white = max(float(torch.quantile(grey[grey < _CLIPPED / 10], 0.99)) for grey in greys)
    return replace(
        SensorBatch.ideal(1), exposure=torch.tensor([scene.light * _WHITE / white]),
        noise_a=torch.tensor([scene.noise_a]),
        noise_b=torch.tensor([scene.noise_a * _BLACK_LEVEL_NOISE]))


def camera_points(depth_m: NDArray[np.floating], intrinsics: Intrinsics) -> NDArray[np.float64]:
    """Return (H, W, 3) x, y, z in camera axes, metres, of a depth image (H, W)."""
    rows, columns = np.indices(depth_m.shape)
    x = (columns - intrinsics.cx_px) / intrinsics.fx_px
    y = (rows - intrinsics.cy_px) / intrinsics.fy_px
    return np.stack([x * depth_m, y * depth_m, depth_m], -1).astype(np.float64)


def _counts(view: torch.Tensor) -> NDArray[np.uint16]:
    return (view[0, 0] * 65535).round().numpy().astype(np.uint16)


# What stands in the scenes. Distances in metres, camera axes; the floor is at y = CAMERA_HEIGHT_M.

_FLOOR_Y_M = CAMERA_HEIGHT_M
_ABOVE_FLOOR_Y_M = _FLOOR_Y_M - 0.02  # subjects reach down to here, so that no floor is in them
_SUBJECT = 2  # its number where it is added after floor and wall
_POLE_X_M, _POLE_Z_M, _POLE_RADIUS_M = 0.1, 1.5, 0.0085  # 5 px wide at 320 px
_BLANK_Z_M, _GLASS_Z_M = 1.5, 1.6
_CLIPPED, _GREY = 50.0, 0.5  # albedo that no exposure leaves unclipped, and that of plain walls


def _room(place: Place, wall_m: float) -> dict[int, float]:
    """A textured floor, and a textured wall across the view."""
    place.plane((0, _FLOOR_Y_M, 2.0), (0, -1, 0), "voronoi", _TEXELS_PER_PX)
    place.plane((0, 0, wall_m), (0, 0, -1), "voronoi", _TEXELS_PER_PX)
    return {}


def _box(place: Place, x_m: float) -> dict[int, float]:
    _room(place, 3.5)
    place.box((x_m, _FLOOR_Y_M - 0.3, 1.35), (0.15, 0.3, 0.15), 0.0, "voronoi", _TEXELS_PER_PX)
    return {}


def _blank_wall(place: Place) -> dict[int, float]:
    _room(place, 2.8)
    place.panel((-0.75, _FLOOR_Y_M - 0.75, _BLANK_Z_M), (1, 0, 0), (0, 1, 0), (0.75, 0.75),
                "gradient")
    return {_SUBJECT: _GREY}


def _thin_pole(place: Place) -> dict[int, float]:
    _room(place, 4.0)
    place.rod((_POLE_X_M, -1.5, _POLE_Z_M), (_POLE_X_M, _FLOOR_Y_M, _POLE_Z_M), _POLE_RADIUS_M,
              "voronoi", _TEXELS_PER_PX)
    return {}


def _missing(place: Place) -> dict[int, float]:
    _room(place, 2.8)
    for x_m in (-0.15, 0.15):
        place.panel((x_m, 0, _GLASS_Z_M), (1, 0, 0), (0, 1, 0), (0.15, 0.3), "gradient")
    return {_SUBJECT: _CLIPPED, _SUBJECT + 1: _GREY}


def _corridor(place: Place) -> dict[int, float]:
    _room(place, 12.0)
    for side in (-1.0, 1.0):
        place.plane((0.7 * side, 0, 2.5), (-side, 0, 0), "voronoi", _TEXELS_PER_PX)
    return {}


def _around(low_m: Corner, high_m: Corner) -> Volume:
    """A volume that holds what lies between two corners."""
    (x, y, z), (right, down, far) = low_m, high_m
    return Volume((x - MARGIN_M, y - MARGIN_M, z - MARGIN_M),
                  (right + MARGIN_M, down + MARGIN_M, far + MARGIN_M))


NAVIGATION_SCENES: dict[str, NavigationScene] = {
    "box": NavigationScene(
        "a box enters the view and leaves it: marked, then cleared",
        _around((-0.05, -0.2, 1.2), (0.6, _ABOVE_FLOOR_Y_M, 1.5)),
        (partial(_room, wall_m=3.5), partial(_box, x_m=0.45), partial(_box, x_m=0.1)),
        (0, 1, 2, 2, 2, 2, 0, 0, 0, 0)),
    "blank_wall": NavigationScene(
        "half the view is a wall without texture: nothing is invented in front of it",
        _around((-1.5, _FLOOR_Y_M - 1.5, _BLANK_Z_M), (0.0, _ABOVE_FLOOR_Y_M, _BLANK_Z_M)),
        (_blank_wall,), (0,)),
    "thin_pole": NavigationScene(
        "a textured pole, 5 px wide: marked, and not cleared through its background",
        _around((_POLE_X_M - _POLE_RADIUS_M, -1.5, _POLE_Z_M - _POLE_RADIUS_M),
                (_POLE_X_M + _POLE_RADIUS_M, _ABOVE_FLOOR_Y_M, _POLE_Z_M + _POLE_RADIUS_M)),
        (_thin_pole,), (0,)),
    "missing": NavigationScene(
        "a pane, half clipped and half without texture: nothing is cleared through it",
        _around((-0.3, -0.3, _GLASS_Z_M), (0.3, 0.3, _GLASS_Z_M)), (_missing,), (0,)),
    "corridor": NavigationScene(
        "floor and side walls, the end out of range: it stays open", None, (_corridor,), (0,)),
    "noise": NavigationScene(
        "an open room in dim light: noise marks nothing", None, (partial(_room, wall_m=3.5),),
        (0,), light=0.08),
}
"""Name -> scene. All are simulated; none is drawn in training."""
