"""What camera motion, focus breathing and a blank wall do to focus sweeps, through the estimator.

    for case in drift_cases(samples, step_px=1): row.add(case, estimator.estimate(case.frame))

Every case has a twin without the disturbance, over the same part of the same scene, so that the
ratio of their errors is the cost of the disturbance and of nothing else. `benchmark-sweeps` scores
engines on slices that are aligned already; here the whole `FocusSweepEstimator` runs: alignment,
engine, labels, limits.

Drift moves ray-traced slices by whole pixels: exact, and without interpolation. Breathing is
rendered: each slice through a camera of its own focal length, of simulated rooms of another seed
than any training's. A blank wall is painted over the left half of ray-traced slices, before noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depth_fusion_ros.estimation.estimate import DepthEstimate, Intrinsics, Provenance
from depth_fusion_ros.estimation.focus_sweep import FocusSweepOptions, SweepFrame
from depth_fusion_ros.estimation.sweep_slices import SliceImage, SliceLens, Sweep, SweepSlice
from depth_fusion_ros.evaluation.sweep_samples import SweepSample, with_noise
from depth_fusion_ros.optics.thin_lens import breathing_scale
from depth_fusion_ros.simulation.camera import (
    AperturePattern,
    CameraBatch,
    aperture_pattern,
    render_depth,
)
from depth_fusion_ros.simulation.rooms import random_rooms
from depth_fusion_ros.simulation.scenes import SceneBatch, SceneView
from depth_fusion_ros.simulation.sensor import srgb_encode
from depth_fusion_ros.simulation.textures import make_atlas
from depth_fusion_ros.training.sweep_data import focus_positions, render_full, with_blur

SCORED = FocusSweepOptions(min_depth_m=0.15, max_depth_m=20.0, max_sigma_ratio=10.0,
                           edge_filter_px=0)
"""Nearly every pixel gets a depth and is scored, as in the tables of `benchmark-sweeps`."""
PERIOD_NS = 100_000_000
ROOM_SEED = 700_001
NEAREST_FOCUS_M = 0.2
"""Closest focus of the simulated lenses; the ray-traced sweeps reach to 0.21 m. A random room may
have something at a few centimetres: there no such lens focuses, and at 4 % per dioptre it would
enlarge threefold."""
APERTURE_SAMPLES = 64
WALL_SRGB = np.array([118, 121, 124], np.uint8)
GUESSES = (Provenance.PRIOR_ONLY, Provenance.TEXTURELESS, Provenance.NONE)
"""Labels of pixels that focus says nothing about."""


@dataclass(frozen=True, eq=False)
class StressCase:
    """One sweep, its truth, and its twin without the disturbance.

    Attributes:
        name: of the scene. frame: as the node gives it to the estimator. depth_m: (H, W) truth.
        twin: the undisturbed one; None = this is it.
        blank: (H, W) bool, where there is nothing to see; None = nowhere.
    """

    name: str
    frame: SweepFrame
    depth_m: NDArray[np.float32]
    twin: StressCase | None = None
    blank: NDArray[np.bool_] | None = None


def drift_cases(samples: Iterable[SweepSample], step_px: int) -> Iterator[StressCase]:
    """Slices that move by `step_px` to the side from each to the next in focus.

    Raises:
        ValueError: the picture is too narrow for such a drift.
    """
    for sample in samples:
        last = len(sample.stack) - 1
        width = sample.depth_m.shape[1] - step_px * last
        if width < 32:
            raise ValueError(f"drift of {step_px} px over {last + 1} slices: leaves {width} px of "
                             f"{sample.depth_m.shape[1]}; choose fewer slices or less drift")
        # The newest slice, whose grid the depth has, is the last in both.
        places = [step_px * n for n in range(last + 1)]
        window = slice(places[-1], places[-1] + width)
        truth = sample.depth_m[:, window]
        moved = np.stack([image[:, x:x + width] for image, x in zip(sample.stack, places)])
        still = StressCase(sample.name, _frame(sample, sample.stack[:, :, window]), truth)
        yield StressCase(sample.name, _frame(sample, moved), truth, still)


def blank_cases(samples: Iterable[SweepSample], noise: str, seed: int = 0
                ) -> Iterator[StressCase]:
    """Clean sweeps with an even wall over their left half, then exposed with `noise`."""
    for number, sample in enumerate(samples):
        random = np.random.default_rng([seed, number])
        height, width = sample.depth_m.shape
        blank = np.broadcast_to(np.arange(width) < width // 2, (height, width))
        painted = np.where(blank[None, :, :, None], WALL_SRGB, sample.stack)
        frame = _frame(sample, with_noise(painted, noise, random))
        yield StressCase(sample.name, frame, sample.depth_m, blank=blank)


def breathing_cases(scenes: int, breathing_per_diopter: float, noise: str = "clean",
                    slices: int = 5, width_px: int = 320, height_px: int = 240, seed: int = 0
                    ) -> Iterator[StressCase]:
    """Simulated rooms through a lens whose fx(D) grows with focus, told by each camera_info.

    Rooms with something nearer than `NEAREST_FOCUS_M` are passed over.
    """
    generator = torch.Generator().manual_seed(ROOM_SEED + seed)
    rooms = _rooms(generator, width_px, height_px)
    for number, room, depth in itertools.islice(rooms, scenes):
        one = torch.ones(1)
        near, far = (one * float(end) for end in np.nanquantile(depth, [0.02, 0.98]))
        room = replace(room, rig=with_blur(room.rig, near, far, generator))
        focus = focus_positions(near, far, slices, generator, metric_share=0)[0].numpy()
        focus *= min(1.0, 1 / (NEAREST_FOCUS_M * focus[-1]))
        patterns = [aperture_pattern(APERTURE_SAMPLES, generator) for _ in focus]
        # Both are exposed alike: a meter's other choice would be a second difference.
        exposure = 0.0
        pair: list[SweepSample] = []
        for beta in (0.0, breathing_per_diopter):
            scales = [breathing_scale(float(d), float(focus[0]), beta) for d in focus]
            light = room.through(focus, scales, patterns)
            exposure = exposure or 0.3 / max(0.02, float(light.mean()))
            counts = srgb_encode((light * exposure).clamp(0, 1)).numpy() * 255
            clean = np.asarray(np.round(counts), np.uint8)
            nothing = np.zeros(depth.shape, bool)
            fx_px = float(room.rig.focal_length_px[0])
            pair.append(SweepSample(
                f"room_{number:03d}", "simulated",
                with_noise(clean, noise, np.random.default_rng([seed, number])), focus,
                np.asarray([fx_px * scale for scale in scales], np.float32),
                float(room.rig.blur_gain_px_m[0]), depth, nothing, nothing))
        still = StressCase(pair[0].name, _frame(pair[0], pair[0].stack), depth)
        yield StressCase(pair[1].name, _frame(pair[1], pair[1].stack), depth, still)


@dataclass(frozen=True, eq=False)
class _Room:
    """A simulated room and the camera in it, of one picture."""

    scene: SceneBatch
    rig: CameraBatch

    def through(self, focus_diopters: NDArray[np.float32], scales: Sequence[float],
                patterns: Sequence[AperturePattern]) -> Tensor:
        """(N, H, W, 3) linear light of slices whose focal length is `scales` of the camera's."""
        fx_px = self.rig.focal_length_px
        return torch.cat([
            render_full(self.scene, replace(self.rig, focus_diopters=torch.ones(1) * float(d),
                                            focal_length_px=fx_px * scale), pattern)
            for d, scale, pattern in zip(focus_diopters, scales, patterns)])


def _rooms(generator: torch.Generator, width_px: int, height_px: int
           ) -> Iterator[tuple[int, _Room, NDArray[np.float32]]]:
    """Rooms without end, each with its number and its (H, W) depth in metres.

    Those with something nearer than `NEAREST_FOCUS_M` are left out, their numbers too.
    """
    atlas = make_atlas(32, generator)
    one = torch.ones(1)
    for number in itertools.count():
        near_m = float(torch.exp(torch.rand(1, generator=generator) * 1.2 - 1.2))
        far_m = near_m * float(2.0 + 3.5 * torch.rand(1, generator=generator))
        fx_px = float(width_px * (0.9 + 0.8 * torch.rand(1, generator=generator)))
        view = SceneView(one * fx_px, one * near_m, one * far_m, torch.zeros(1, 2), width_px,
                         height_px)
        scene = random_rooms(view, generator, atlas)
        rig = CameraBatch(one * 0, one * 0, one * fx_px, torch.zeros(1, 2), width_px, height_px)
        depth = render_depth(scene, rig)[0].numpy().astype(np.float32)
        if float(np.nanmin(depth)) >= NEAREST_FOCUS_M:
            yield number, _Room(scene, rig), depth


def _frame(sample: SweepSample, stack: NDArray[np.uint8]) -> SweepFrame:
    """The sweep as the node assembles it, taken from the farthest focus to the nearest."""
    count, height, width = stack.shape[:3]
    slices = []
    for index, (image, diopters, fx) in enumerate(zip(
            stack, sample.focus_diopters, sample.slice_focal_length_px)):
        stamp_ns = 10**9 + PERIOD_NS * index
        grid = Intrinsics(float(fx), float(fx), (width - 1) / 2, (height - 1) / 2, width, height)
        slices.append(SweepSlice(
            SliceImage(stamp_ns, np.ascontiguousarray(image), "camera", grid),
            SliceLens(stamp_ns, float(diopters), sweep_id=1, sweep_index=index, sweep_size=count,
                      aperture_m=sample.blur_gain_px_m / float(sample.slice_focal_length_px[0]))))
    return SweepFrame(Sweep(tuple(slices), True, 0, 1))


@dataclass
class StressScore:
    """Sums over cases; each property is a mean over scenes, NaN where nothing was scored."""

    abs_rel: list[float] = field(default_factory=list)
    twin_abs_rel: list[float] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)
    rejected: list[bool] = field(default_factory=list)
    motion_px: list[float] = field(default_factory=list)
    blank_guessed: list[float] = field(default_factory=list)
    blank_sigma_ratio: list[float] = field(default_factory=list)

    def add(self, case: StressCase, estimate: DepthEstimate, twin: DepthEstimate | None) -> None:
        """Count an estimate, and that of the case's twin."""
        facts = estimate.sweep
        assert facts is not None
        self.rejected.append(facts.rejected)
        self.motion_px.append(facts.motion_px)
        scored = _scored(estimate, case)
        if twin is not None:
            # Where both know: a disturbance may not hide its errors by giving fewer pixels ...
            both = scored & _scored(twin, case)
            self.coverage.append(float(scored.sum() / max(1, _scored(twin, case).sum())))
            if both.any():
                self.abs_rel.append(_abs_rel(estimate, case, both))
                self.twin_abs_rel.append(_abs_rel(twin, case, both))
        if case.blank is not None:
            guessed = np.isin(estimate.provenance, GUESSES) | np.isnan(estimate.depth_m)
            self.blank_guessed.append(float(guessed[case.blank].mean()))
            sigma = estimate.sigma_px  # dioptres: a blank wall's metres may be near or far
            within, outside = sigma[case.blank], sigma[~case.blank]
            if np.isfinite(within).any() and np.isfinite(outside).any():
                self.blank_sigma_ratio.append(
                    float(np.nanmedian(within) / np.nanmedian(outside)))

    def row(self) -> dict[str, float]:
        """What is written: means over scenes, and the cost of the disturbance."""
        means = {name: float(np.mean(values)) if values else float("nan")
                 for name, values in vars(self).items() if name != "motion_px"}
        known = [m for m in self.motion_px if np.isfinite(m)]
        means["motion_px"] = float(np.mean(known)) if known else float("nan")
        # ... so the share of pixels that it leaves stands beside it (coverage).
        means["cost"] = means["abs_rel"] / means["twin_abs_rel"] - 1
        means["scenes"] = float(len(self.rejected))
        return means


def _scored(estimate: DepthEstimate, case: StressCase) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        known: NDArray[np.bool_] = np.isfinite(estimate.depth_m) & (case.depth_m > 0)
    return known


def _abs_rel(estimate: DepthEstimate, case: StressCase, where: NDArray[np.bool_]) -> float:
    truth = case.depth_m[where]
    return float(np.mean(np.abs(estimate.depth_m[where] - truth) / truth))
