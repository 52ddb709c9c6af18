"""Focus-sweep estimator: an assembled sweep in, `DepthEstimate` out.

    estimator = FocusSweepEstimator(load_sweep_backend("closed_form"), FocusSweepOptions())
    estimate = estimator.estimate(SweepFrame(sweep, ScaleState.ABSOLUTE))

Breathing and camera drift are undone first (`sweep_alignment.py`). Depth is on the grid, and has
the stamp, of the newest slice, at the magnification of the slice that is focused farthest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.dual_pixel import InvalidFrameError
from depth_fusion_ros.estimation.estimate import (
    DepthEstimate,
    Intrinsics,
    Provenance,
    ScaleState,
    SweepFacts,
)
from depth_fusion_ros.estimation.pixels import enlarged, reduced
from depth_fusion_ros.estimation.postprocess import flying_pixels
from depth_fusion_ros.estimation.scale_anchor import AnchorFit
from depth_fusion_ros.estimation.sweep_alignment import AlignedSweep, align_sweep
from depth_fusion_ros.estimation.sweep_backends import SweepBackend, SweepInput, SweepPrediction
from depth_fusion_ros.estimation.sweep_slices import SliceImage, SliceLens, Sweep, SweepSlice
from depth_fusion_ros.optics.thin_lens import breathing_scale, depth_from_disparity

MIN_SIDE_PX = 32
SATURATED = 254
"""Counts from which a pixel is clipped."""
SAME_MAGNIFICATION = 1e-4
"""Relative difference of focal lengths that a camera does not mean."""


@dataclass(frozen=True)
class SweepFrame:
    """One assembled sweep.

    Attributes:
        sweep: its slices have intrinsics.
        scale_state: what metres made from its dioptres are worth; RELATIVE = nothing.
        focus_sigma_diopters: how well the lens returns to a position, one standard deviation.
        anchor: correction of the dioptres; metres made with it are ANCHORED.
    """

    sweep: Sweep
    scale_state: ScaleState = ScaleState.ABSOLUTE
    focus_sigma_diopters: float = 0.0
    anchor: AnchorFit | None = None


@dataclass(frozen=True)
class FocusSweepOptions:
    """Options that may change between sweeps.

    Attributes:
        min_depth_m, max_depth_m, max_sigma_ratio, edge_filter_px: as of `DualPixelOptions`.
        breathing_per_diopter: β of fx(D) = fx0·(1 + β·D); not used where the slices' intrinsics
            differ, which then say it themselves.
        breathing_reference_diopters: focus at which the slices' common focal length holds.
        align: False = the camera is known to stand still: drift is neither measured nor undone.
        warn_px, reject_px: drift from which it is mentioned, and from which there is no depth.
        inference_divisor: as of `DualPixelOptions`.
    """

    min_depth_m: float = 0.15
    max_depth_m: float = 8.0
    max_sigma_ratio: float = 0.5
    edge_filter_px: int = 1
    breathing_per_diopter: float = 0.0
    breathing_reference_diopters: float = 0.0
    align: bool = True
    warn_px: float = 2.0
    reject_px: float = 12.0
    inference_divisor: int = 1


class FocusSweepEstimator:
    """Aligns a sweep, runs an engine on it and says what its depth is worth."""

    def __init__(self, backend: SweepBackend, options: FocusSweepOptions | None = None) -> None:
        self.backend = backend
        self.options = options or FocusSweepOptions()

    @property
    def model_id(self) -> str:
        """"<name>@<sha256[:8]>" of the weights."""
        return self.backend.model_id

    def warm_up(self, width_px: int, height_px: int, slices: int, iterations: int) -> None:
        """Run on noise so that the first real sweep is not the slow one."""
        noise = np.random.default_rng(0).integers(0, 255, (height_px, width_px, 3), np.uint8)
        grid = Intrinsics(width_px, width_px, width_px / 2, height_px / 2, width_px, height_px)
        sweep = Sweep(tuple(SweepSlice(SliceImage(n, noise, "", grid), SliceLens(n, 0.5 + n))
                            for n in range(slices)), True, 0, 0)
        for _ in range(iterations):
            self.estimate(SweepFrame(sweep))

    def estimate(self, frame: SweepFrame) -> DepthEstimate:
        """Estimate one sweep.

        Returns:
            `DepthEstimate` on the grid of the newest slice. A sweep that moved by
            `options.reject_px` or more has no depth: all NaN, MOTION_REJECTED.

        Raises:
            InvalidFrameError: too few or too small slices, no intrinsics, or constant images.
        """
        started = time.perf_counter()
        slices = frame.sweep.slices
        _check(slices)
        newest = max(range(len(slices)), key=lambda n: slices[n].stamp_ns)
        intrinsics, aligned = self._aligned(slices, newest)
        ready = time.perf_counter()
        facts = SweepFacts(
            motion_px=aligned.motion_px, slices=len(slices),
            coverage_diopters=frame.sweep.span_diopters,
            largest_gap_diopters=frame.sweep.largest_gap_diopters, complete=frame.sweep.complete,
            rejected=aligned.rejected, reason=aligned.reason)
        focus = np.asarray(frame.sweep.focus_diopters, np.float32)
        prediction, seen = None, None
        if not aligned.rejected:
            gain = _told_blur_gain_px_m(frame, intrinsics)
            seen = _Seen(aligned, np.stack([item.image.image for item in slices]), focus, gain,
                         self.options.inference_divisor)
            prediction = seen.placed(self.backend.infer(seen.inputs))
            facts = replace(facts, told_blur_gain_px_m=gain, blur_gain_px_m=seen.blur_gain_px_m)
        picture = slices[newest].image.image if prediction is None else prediction.picture
        inferred = time.perf_counter()
        shape = aligned.valid_mask.shape
        estimate = DepthEstimate(
            depth_m=np.full(shape, np.nan, np.float32), sigma_m=np.full(shape, np.nan, np.float32),
            provenance=np.full(shape, Provenance.MOTION_REJECTED, np.uint8),
            disparity_px=np.full(shape, np.nan, np.float32),
            sigma_px=np.full(shape, np.nan, np.float32), stamp_ns=slices[newest].stamp_ns,
            frame_id=slices[newest].image.frame_id, intrinsics=intrinsics,
            scale_state=frame.scale_state, model_id=self.model_id, sweep=facts,
            all_in_focus=picture)
        if prediction is not None and seen is not None:
            estimate = self._with_depth(estimate, prediction, frame, seen)
        estimate.stage_ms.update(
            align=1e3 * (ready - started), inference=1e3 * (inferred - ready),
            postprocess=1e3 * (time.perf_counter() - inferred))
        return estimate

    def _aligned(self, slices: Sequence[SweepSlice], newest: int
                 ) -> tuple[Intrinsics, AlignedSweep]:
        """Slices at the magnification of the farthest focus, and the intrinsics of that grid."""
        options = self.options
        focus = [item.focus_diopters for item in slices]
        grids = [item.image.intrinsics for item in slices]
        fx = [grid.fx_px for grid in grids if grid is not None]
        far = grids[0]
        assert far is not None
        if max(fx) - min(fx) > SAME_MAGNIFICATION * fx[0]:
            grid, scales = far, [each / fx[0] for each in fx]
        else:
            beta, at = options.breathing_per_diopter, options.breathing_reference_diopters
            scales = [breathing_scale(each, focus[0], beta) for each in focus]
            grown = breathing_scale(focus[0], at, beta)
            grid = replace(far, fx_px=far.fx_px * grown, fy_px=far.fy_px * grown)
        images = [item.image.image for item in slices]
        return grid, align_sweep(
            images, focus, breathing_per_diopter=0.0, centre_px=(grid.cx_px, grid.cy_px),
            warn_px=options.warn_px, reject_px=options.reject_px, reference_index=newest,
            scales=scales, find_drift=options.align)

    def _with_depth(self, estimate: DepthEstimate, prediction: SweepPrediction, frame: SweepFrame,
                    seen: _Seen) -> DepthEstimate:
        """The estimate with metres, σ and labels of a prediction."""
        options = self.options
        # With gain 1 px·m and focus at infinity, disparity is minus the inverse depth.
        gain, focus, focus_sigma = 1.0, 0.0, frame.focus_sigma_diopters
        scale_state, anchor = frame.scale_state, frame.anchor
        if anchor is not None:
            scale_state = ScaleState.ANCHORED
            gain, focus = 1 / anchor.scale, anchor.offset_diopters
            focus_sigma = float(np.hypot(anchor.scale * focus_sigma, anchor.sigma_diopters))
        depth, sigma_m = depth_from_disparity(
            -prediction.diopters, prediction.sigma_diopters, gain, focus,
            min_m=options.min_depth_m, max_m=options.max_depth_m,
            focus_sigma_diopters=focus_sigma)
        with np.errstate(invalid="ignore"):
            hidden = (sigma_m > options.max_sigma_ratio * depth) | seen.hidden
        hidden |= flying_pixels(depth, options.edge_filter_px)
        labels = seen.labels(prediction, self.backend.has_prior)
        for values in (depth, sigma_m):
            values[hidden] = np.nan
        sigma_m[~np.isfinite(depth)] = np.nan
        # What is guessed to be far keeps its label: free space is only what was seen to be free.
        labels[np.isinf(depth) & _measured(labels)] = Provenance.OUT_OF_RANGE
        unknown = np.isnan(depth)
        labels[unknown & (labels == Provenance.PRIOR_ONLY)] = Provenance.TEXTURELESS
        labels[unknown & _measured(labels)] = Provenance.NONE
        if not scale_state.is_metric:
            depth, sigma_m = np.full_like(depth, np.nan), np.full_like(depth, np.nan)
        return replace(estimate, depth_m=depth, sigma_m=sigma_m, provenance=labels,
                       scale_state=scale_state, lens_diopters=prediction.diopters,
                       disparity_px=-prediction.diopters, sigma_px=prediction.sigma_diopters)


class _Seen:
    """The part of the image that all slices show, which is a rectangle.

    The engine never sees the rest: where one slice ends, the remaining ones look sharper, and
    what is filled or smoothed would carry that inwards. `divisor`: it sees the rectangle reduced.
    """

    def __init__(self, aligned: AlignedSweep, unaligned: NDArray[np.uint8],
                 focus: NDArray[np.float32], blur_gain_px_m: float, divisor: int = 1) -> None:
        rows, columns = (np.flatnonzero(aligned.valid_mask.any(axis)) for axis in (1, 0))
        if min(len(rows), len(columns)) < MIN_SIDE_PX:
            raise InvalidFrameError("no_overlap", (
                f"the slices share {len(columns)}x{len(rows)} px: at least {MIN_SIDE_PX} px a side "
                "are needed; check lens.breathing_per_diopter and camera_info, or stand still"))
        self._inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        self._whole = aligned.images[aligned.reference_index]
        self.hidden = ~aligned.valid_mask
        self._size = len(columns), len(rows)
        self._divisor = divisor if min(self._size) >= divisor * MIN_SIDE_PX else 1
        self._stack = np.ascontiguousarray(aligned.images[(slice(None), *self._inside)])
        self.inputs = SweepInput(
            self._reduced(self._stack), focus,
            (self._reduced(unaligned), self._reduced_maps(aligned.maps, columns[0], rows[0])),
            blur_gain_px_m / self._divisor)

    @property
    def blur_gain_px_m(self) -> float:
        """Of the pixels of the whole image; 0 = not known."""
        return self.inputs.blur_gain_px_m * self._divisor

    def _reduced(self, stack: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._divisor == 1:
            return stack
        return np.stack([reduced(image, self._divisor) for image in stack])

    def _reduced_maps(self, maps: NDArray[np.float64], column: int, row: int
                      ) -> NDArray[np.float64]:
        """Maps from the reduced rectangle to the reduced slices as they came."""
        found, shift = maps.copy(), (self._divisor - 1) / 2  # middle of a square of pixels
        found[:, :, 2] = (maps @ np.array([column + shift, row + shift, 1.0]) - shift
                          ) / self._divisor
        return found

    def _enlarged(self, values: NDArray[Any]) -> NDArray[np.float32]:
        return enlarged(values, self._divisor, self._size)

    def placed(self, found: SweepPrediction) -> SweepPrediction:
        """A prediction for `inputs` on the whole image, NaN outside."""
        picture = self._whole.copy()
        picture[self._inside] = np.asarray(self._enlarged(found.picture), np.uint8)
        diopters, sigma, share, measured = (
            self._on_whole(self._enlarged(values), np.nan) for values in (
                found.diopters, found.sigma_diopters, found.focus_share, found.measured))
        return SweepPrediction(diopters, sigma, share, measured, picture)

    def labels(self, prediction: SweepPrediction, has_prior: bool) -> NDArray[np.uint8]:
        """Where each pixel's depth comes from, before what has none is known.

        Whether focus can be told at all is judged without learning, by whether any slice or any
        depth stands out: what a network says of its own sources is not asked.
        """
        focus = self.inputs.focus_diopters
        measured = prediction.measured[self._inside]
        said = prediction.diopters[self._inside]
        labels = np.full(measured.shape,
                         Provenance.FUSED if has_prior else Provenance.MEASURED, np.uint8)
        beyond = (said < focus[0]) | (said > focus[-1])
        if not has_prior:  # a peak at the end of the sweep may lie anywhere beyond it
            beyond |= (measured <= focus[0]) | (measured >= focus[-1])
        labels[beyond] = Provenance.OUT_OF_RANGE
        blank = np.isnan(measured)
        labels[blank] = Provenance.PRIOR_ONLY if has_prior else Provenance.TEXTURELESS
        # Clipped in every slice: defocus of a light has a sharp rim that looks like texture.
        labels[(self._stack.max(3) >= SATURATED).all(0)] = Provenance.SATURATED
        return self._on_whole(labels, Provenance.NONE)

    def _on_whole(self, values: NDArray[Any], outside: float) -> NDArray[Any]:
        whole = np.full(self.hidden.shape, outside, values.dtype)
        whole[self._inside] = values
        return whole


def _told_blur_gain_px_m(frame: SweepFrame, intrinsics: Intrinsics) -> float:
    """Aperture diameter · focal length in px; 0 where the lens or its dioptres are not known."""
    apertures = [item.lens.aperture_m for item in frame.sweep.slices]
    if not frame.scale_state.is_metric or not all(a > 0 for a in apertures):
        return 0.0
    return float(np.median(apertures)) * intrinsics.fx_px


def _measured(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.isin(labels, (Provenance.MEASURED, Provenance.FUSED))


def _check(slices: Sequence[SweepSlice]) -> None:
    if len(slices) < 3:
        raise InvalidFrameError("too_few_slices", (
            f"sweep of {len(slices)} slices: depth from focus needs three; set sweep.min_slices"))
    first = slices[0].image
    height, width = first.image.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        raise InvalidFrameError("too_small", (
            f"slices are {width}x{height} px: at least {MIN_SIDE_PX} px a side are needed"))
    for item in slices:
        if item.image.intrinsics is None:
            raise InvalidFrameError("no_camera_info", (
                f"slice {item.stamp_ns}: has no intrinsics; publish camera_info with the image"))
        if item.image.image.shape != first.image.shape:
            raise InvalidFrameError("size_mismatch", (
                f"slices are {first.image.shape} and {item.image.image.shape}: a sweep has one "
                "size; do not change the camera's mode within it"))
    if all(int(item.image.image.min()) == int(item.image.image.max()) for item in slices):
        raise InvalidFrameError("constant_image", (
            "all slices are constant: nothing was exposed; check lens cap, exposure and driver"))


__all__ = ["FocusSweepEstimator", "FocusSweepOptions", "SweepFrame"]
