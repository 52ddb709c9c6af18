"""The simulated evaluation set: places, lenses and light that training never draws, by seed.

    for scene in evaluation_scenes("eval"):
        images = render_evaluation_scene(scene)

Independent of the training scenes in seed and in statistics: built places (`evaluation_places.py`)
instead of random primitives, other texture families (`evaluation_textures.py`), five real lenses.
What it shares with training is the camera model itself: the same tracer, a thin lens without
aberrations. Numbers on it say how well a network generalises to other scenes, not to other optics.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.optics.thin_lens import ThinLens
from depth_fusion_ros.simulation.camera import (
    AperturePattern,
    CameraBatch,
    aperture_pattern,
    render_depth,
    render_strips,
)
from depth_fusion_ros.simulation.evaluation_places import PLACES, PlaceView, make_place
from depth_fusion_ros.simulation.places import Place
from depth_fusion_ros.simulation.sensor import SensorBatch, split_weights, to_grey

FULL_SCALE = 65535
MAX_BLUR_PX = 22.0
RECIPE = 1
"""Raise it when anything here changes what is drawn; cached scenes are then rendered anew."""


@dataclass(frozen=True)
class LensKind:
    """A lens of the set: focal length and pixel pitch in metres, f-number, depth ranges.

    `near_m` and `reach` are the limits between which the nearest depth and the ratio of farthest
    to nearest are drawn; `limit_m` is the farthest depth.
    """

    name: str
    focal_length_m: float
    f_number: float
    pixel_pitch_m: float
    near_m: tuple[float, float]
    reach: tuple[float, float]
    limit_m: float


LENSES = (
    LensKind("phone_b4", 0.0044, 1.8, 4 * 1.4e-6, (0.22, 0.5), (3.0, 8.0), 4.0),
    LensKind("phone_b8", 0.0044, 1.8, 8 * 1.4e-6, (0.22, 0.6), (3.0, 8.0), 4.0),
    LensKind("robot_12mm", 0.012, 2.0, 8 * 3.45e-6, (0.25, 0.8), (3.0, 9.0), 6.0),
    LensKind("robot_16mm", 0.016, 2.0, 8 * 3.45e-6, (0.3, 1.0), (3.0, 9.0), 7.0),
    LensKind("robot_25mm", 0.025, 2.0, 8 * 3.45e-6, (0.6, 1.2), (3.0, 7.0), 8.0),
)


@dataclass(frozen=True)
class Preset:
    """What an evaluation set is made of.

    Attributes:
        scenes: number; kinds of place and lenses take turns. seed: of everything.
        width_px, height_px: image size. aperture_samples: rays per pixel, in two halves with
            patterns of their own, whose difference tells the noise of rendering.
        recipe: `RECIPE` of this version.
    """

    scenes: int = 24
    seed: int = 20_260_101
    width_px: int = 320
    height_px: int = 240
    aperture_samples: int = 256
    recipe: int = RECIPE


PRESETS = {
    "eval": Preset(),
    "eval-tiny": Preset(scenes=2, width_px=64, height_px=48, aperture_samples=24),
}
"""`eval-tiny` only shows that everything runs; its numbers mean nothing."""


@dataclass(frozen=True)
class EvaluationScene:
    """One scene before rendering.

    Attributes:
        index: number in the set. kind: of the place. lens_name: of `LENSES`.
        lens: its state; κ that of the ideal split. place: the surfaces.
        theta0_rad: softness of the soft split, w_R = (1 + tanh(θ/θ_0))/2.
        cat_eye: aperture fall-off of the soft split across the field.
        white: what the brightest per cent of the image is exposed to, 1 = full scale.
        preset: of the set.
    """

    index: int
    kind: str
    lens_name: str
    lens: ThinLens
    place: Place
    theta0_rad: float
    cat_eye: float
    white: float
    preset: Preset


@dataclass(frozen=True)
class RenderedScene:
    """Images of one scene: linear light 0..1 at 16 bits, clipped at full scale.

    Attributes:
        depth_m: (H, W) float32, of the central ray. full: (H, W, 3) through the whole aperture.
        left, right: (H, W) grey, ideal split. left_soft, right_soft: soft split.
        meta: lens, kind, names, preset, and for both splits κ and ``render_sigma``, the noise
            that rendering left in a view, of full scale (JSON types).
    """

    depth_m: NDArray[np.float32]
    full: NDArray[np.float32]
    left: NDArray[np.float32]
    right: NDArray[np.float32]
    left_soft: NDArray[np.float32]
    right_soft: NDArray[np.float32]
    meta: dict[str, Any]


def evaluation_scenes(preset: Preset) -> Iterator[EvaluationScene]:
    """Yield the scenes of a preset; scene i depends on the seed and i alone."""
    for index in range(preset.scenes):
        yield _scene(preset, index)


def render_evaluation_scene(scene: EvaluationScene) -> RenderedScene:
    """Render one scene; the same scene gives the same images."""
    preset, lens = scene.preset, scene.lens
    generator = torch.Generator().manual_seed(preset.seed * 1000 + scene.index)
    patterns = [aperture_pattern(preset.aperture_samples // 2, generator) for _ in range(2)]
    camera = CameraBatch(
        torch.tensor([lens.focal_length_m / lens.f_number]),
        torch.tensor([lens.focus_diopters]), torch.tensor([lens.focal_length_px]),
        torch.zeros(1, 2), preset.width_px, preset.height_px)
    tracer, batch = scene.place.tracer(), scene.place.scenes()[0]
    with torch.inference_mode():
        first, second = (render_strips(batch, camera, p, tracer) for p in patterns)
        depth = render_depth(batch, camera, tracer)[0]
    strips, area = (first + second) / 2, patterns[0].area  # areas are the same in all patterns
    full = (strips * area[None, :, None, None, None]).sum(1)[0]
    exposure = scene.white / float(torch.quantile(to_grey(full).flatten(), 0.99))
    images, facts = {"full": _at_16_bits(full * exposure)}, {}
    soft = (scene.theta0_rad * 2 * lens.f_number, scene.cat_eye)
    for split, (softness, cat_eye) in {"ideal": (0.0, 0.0), "soft": soft}.items():
        suffix = "" if split == "ideal" else f"_{split}"
        *views, kappa = _split(to_grey(strips), patterns[0], softness, cat_eye)
        *halves, _ = _split(to_grey(first - second) / 2, patterns[0], softness, cat_eye)
        for side, view in zip(("left", "right"), views, strict=True):
            images[side + suffix] = _at_16_bits(view * exposure)
        facts[f"kappa_{split}"] = kappa
        noise = torch.stack(halves).square().mean().sqrt()
        facts[f"render_sigma_{split}"] = exposure * float(noise)
    meta = {
        "index": scene.index, "kind": scene.kind, "lens_name": scene.lens_name,
        "lens": {name: value for name, value in asdict(lens).items() if value is not None},
        "theta0_rad": scene.theta0_rad, "cat_eye": scene.cat_eye, "exposure": exposure, **facts,
        "preset": asdict(preset),
    }
    return RenderedScene(depth.numpy().astype(np.float32), **images, meta=meta)


def cached_evaluation_scenes(
    preset: Preset, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[RenderedScene]:
    """Yield the rendered scenes of a preset, from `folder` where they are there already.

    Args:
        preset: the set. folder: holds scene_NNN.npz; made where missing. A file of another
            preset or recipe is rendered anew.
        progress: called with the number of scenes at hand and their total.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for scene in evaluation_scenes(preset):
        path = folder / f"scene_{scene.index:03d}.npz"
        rendered = _load(path)
        if rendered is None or rendered.meta["preset"] != asdict(preset):
            rendered = render_evaluation_scene(scene)
            _save(path, rendered)
        progress(scene.index + 1, preset.scenes)
        yield rendered


def _scene(preset: Preset, index: int) -> EvaluationScene:
    random = np.random.default_rng([preset.seed, index])
    kinds = tuple(PLACES)
    kind, lens_kind = kinds[index % len(kinds)], LENSES[index % len(LENSES)]
    near = math.exp(random.uniform(*np.log(lens_kind.near_m)))
    far = min(near * math.exp(random.uniform(*np.log(lens_kind.reach))), lens_kind.limit_m)
    share = random.uniform(0.1, 0.75)  # of the dioptre range in front of the farthest point
    focus = (1 - share) / far + share / near
    lens = ThinLens(lens_kind.focal_length_m, lens_kind.f_number, lens_kind.pixel_pitch_m, focus)
    near = max(near, 1 / (focus + MAX_BLUR_PX / lens.blur_gain_px_m))
    fx = lens.focal_length_px
    view = PlaceView(fx, preset.width_px / 2 / fx, preset.height_px / 2 / fx, near, far)
    place = make_place(kind, view, random)
    return EvaluationScene(index, kind, lens_kind.name, lens, place,
                           random.uniform(0.27, 0.38), random.uniform(0.0, 0.25),
                           random.uniform(0.45, 0.98), preset)


def _split(grey_strips: torch.Tensor, pattern: AperturePattern, softness: float, cat_eye: float
           ) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Left and right (H, W) through a split, and its κ averaged over the field."""
    sensor = replace(SensorBatch.ideal(1), softness=torch.tensor([softness]),
                     cat_eye=torch.tensor([cat_eye]))
    w_left, w_right, kappa = split_weights(sensor, pattern, grey_strips.shape[-1])
    views = [2 * (grey_strips * w[:, :, None]).sum(1)[0] for w in (w_left, w_right)]
    return views[0], views[1], float(kappa.mean())


def _at_16_bits(image: torch.Tensor) -> NDArray[np.float32]:
    counts = np.round(image.numpy().clip(0, 1) * np.float32(FULL_SCALE))
    return np.asarray(counts / np.float32(FULL_SCALE), np.float32)


_IMAGES = ("full", "left", "right", "left_soft", "right_soft")


def _save(path: Path, scene: RenderedScene) -> None:
    images = {name: np.round(getattr(scene, name) * FULL_SCALE).astype(np.uint16)
              for name in _IMAGES}
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, depth_m=scene.depth_m, meta=json.dumps(scene.meta), **images)
    partial.replace(path)  # an interrupted run leaves no half file behind


def _load(path: Path) -> RenderedScene | None:
    if not path.exists():
        return None
    with np.load(path) as data:
        images = {name: data[name].astype(np.float32) / np.float32(FULL_SCALE)
                  for name in _IMAGES}
        return RenderedScene(data["depth_m"], **images, meta=json.loads(str(data["meta"])))
