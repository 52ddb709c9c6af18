"""Dual-pixel estimator: a left/right pair, RGB and lens state in, `DepthEstimate` out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.estimation.backends import DisparityBackend, NetworkInput
from depth_fusion_ros.estimation.estimate import (
    DepthEstimate,
    Intrinsics,
    Provenance,
    ScaleState,
)
from depth_fusion_ros.estimation.pixels import (
    enlarged,
    padded,
    reduced,
    resized,
    srgb_decoded,
)
from depth_fusion_ros.estimation.postprocess import (
    TEXTURE_WINDOW_PX,
    flying_pixels,
    label_provenance,
    noise_energy,
    texture_energy,
)
from depth_fusion_ros.estimation.scale_anchor import AnchorFit
from depth_fusion_ros.estimation.view_agreement import contradicted, disagreement_px
from depth_fusion_ros.networks.convention import CONDITION_CHANNELS, lens_condition
from depth_fusion_ros.optics.thin_lens import ThinLens, depth_from_disparity

MIN_SIDE_PX = 32
SATURATED = 0.995
Image = NDArray[Any]


class InvalidFrameError(ValueError):
    """A frame that cannot be estimated; `cause` is its short name for drop counters."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True)
class DualPixelFrame:
    """One synchronised input set as arrays.

    Attributes:
        left, right: (H, W) uint8, uint16 or float32 counts, same shape and dtype.
        rgb: (H', W', 3) uint8 sRGB reference view, registered to the pair, any resolution;
            None = use the grey mean of the pair. Depth comes back on this grid.
        stamp_ns: stamp of the set, ns. frame_id: optical frame of the reference view.
        intrinsics: of the reference view.
        lens: lens state, pixel pitch that of `left` along the parallax axis; None = unknown,
            the estimate is then RELATIVE. Its gain and focus fields, if any, are those of the
            published image and are followed pixel by pixel; the network is told their means.
        scale_state: what metres made with `lens` are worth; with RELATIVE there are none.
        anchor: correction of the lens's dioptres; metres made with it are ANCHORED.
    """

    left: Image
    right: Image
    rgb: NDArray[np.uint8] | None
    stamp_ns: int
    frame_id: str
    intrinsics: Intrinsics
    lens: ThinLens | None
    scale_state: ScaleState = ScaleState.ABSOLUTE
    anchor: AnchorFit | None = None


@dataclass(frozen=True)
class DualPixelOptions:
    """Options that may change between frames.

    Attributes:
        min_depth_m, max_depth_m: nearer becomes −Inf, farther +Inf (REP-117).
        max_sigma_ratio: depth with σ/Z above becomes NaN.
        edge_filter_px: radius of the flying-pixel filter at depth edges, px; 0 = off.
        black_level, white_level: counts of no light and full scale; white 0 = the dtype's
            maximum (1.0 for float32).
        linear_input: False where the views are sRGB-encoded.
        swap_views: exchange left and right (cameras with the opposite sign).
        parallax_axis: "x" or "y", the direction in which the views are shifted.
        inference_divisor: 2 = the network sees half the columns and rows, for a machine that is
            too slow; depth keeps its grid. Sigma grows by √2 beside its pixels: on the simulated
            evaluation set 68.3 % of the errors of `difuse_net_s` then lie within 1.38 to 1.40
            times what they do at full resolution.
    """

    min_depth_m: float = 0.15
    max_depth_m: float = 8.0
    max_sigma_ratio: float = 0.5
    edge_filter_px: int = 1
    black_level: float = 0.0
    white_level: float = 0.0
    linear_input: bool = True
    swap_views: bool = False
    parallax_axis: str = "x"
    inference_divisor: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.min_depth_m < self.max_depth_m:
            raise ValueError(f"depth range ({self.min_depth_m!r}, {self.max_depth_m!r}) m: needs "
                             "0 < min < max; set depth.min_m and depth.max_m")
        if self.parallax_axis not in ("x", "y"):
            raise ValueError(f"parallax_axis = {self.parallax_axis!r}: use 'x' or 'y'")
        if self.inference_divisor not in (1, 2, 4):
            raise ValueError(f"inference_divisor = {self.inference_divisor!r}: must be 1, 2 or 4")


@dataclass(frozen=True)
class _Evidence:
    """What the views themselves show, (H, W) on the grid of the depth.

    Attributes:
        energy: texture above noise. saturated: bool, clipped. off_px: of `disagreement_px`.
        window_px: side of the window of `energy`, px of the depth.
    """

    energy: NDArray[np.float32]
    saturated: NDArray[np.bool_]
    off_px: NDArray[np.float32]
    window_px: float


class DualPixelEstimator:
    """Runs a disparity backend on frames and turns disparity into metres with the lens state."""

    def __init__(self, backend: DisparityBackend,
                 options: DualPixelOptions | None = None) -> None:
        self.backend = backend
        self.options = options or DualPixelOptions()

    @property
    def model_id(self) -> str:
        """"<name>@<sha256[:8]>" of the weights."""
        return self.backend.model_id

    def warm_up(self, width_px: int, height_px: int, iterations: int) -> None:
        """Run on noise so that the first real frame is not the slow one."""
        noise = np.random.default_rng(0).integers(
            0, 255, (height_px, width_px), dtype=np.uint8)
        intrinsics = Intrinsics(width_px, width_px, width_px / 2, height_px / 2, width_px,
                                height_px)
        frame = DualPixelFrame(noise, noise, None, 0, "", intrinsics, None)
        for _ in range(iterations):
            self.estimate(frame)

    def estimate(self, frame: DualPixelFrame) -> DepthEstimate:
        """Estimate one frame.

        Returns:
            `DepthEstimate` on the grid of `frame.rgb` (of `left` where there is none).

        Raises:
            InvalidFrameError: sizes or dtypes do not fit, NaN pixels, or a constant pair.
        """
        options = self.options
        started = time.perf_counter()
        left, right, saturated = self._linear_views(frame)
        rgb = self._reference(frame, left, right)
        if options.parallax_axis == "y":
            left, right, rgb = left.T, right.T, rgb.transpose(1, 0, 2)
        height, width = left.shape
        multiple, divisor = self.backend.input_multiple_px, options.inference_divisor
        if min(height, width) < divisor * MIN_SIDE_PX:
            divisor = 1
        seen = [padded(view, multiple) for view in (
            np.sqrt(reduced(left, divisor)), np.sqrt(reduced(right, divisor)),
            reduced(rgb, divisor))]
        left, right = np.sqrt(left), np.sqrt(right)
        inputs = NetworkInput(
            seen[0][None, None], seen[1][None, None],
            np.ascontiguousarray(seen[2].transpose(2, 0, 1))[None],
            self._condition(frame.lens, divisor))
        prepared = time.perf_counter()
        found = self.backend.infer(inputs)
        inferred = time.perf_counter()
        disparity, sigma = (
            divisor * enlarged(values[:-(-height // divisor), :-(-width // divisor)], divisor,
                               (width, height)) for values in found)
        sigma = sigma * np.float32(divisor**0.5)  # as measured, see inference_divisor
        clipped = saturated > 0
        energy = texture_energy(
            left, right, clipped.T if options.parallax_axis == "y" else clipped)
        energy -= noise_energy(left, right)
        maps = [disparity, sigma, energy, disagreement_px(left, right, disparity)]
        if options.parallax_axis == "y":
            maps = [values.T for values in maps]
        size = (frame.intrinsics.width_px, frame.intrinsics.height_px)
        disparity, sigma, energy, off_px = (resized(values, size) for values in maps)
        window_px = TEXTURE_WINDOW_PX * size[0] / frame.left.shape[1]
        estimate = self._to_metres(frame, disparity, sigma, _Evidence(
            energy, resized(saturated, size) > 0.5, off_px, window_px))
        estimate.stage_ms.update(
            preprocess=1e3 * (prepared - started),
            inference=1e3 * (inferred - prepared),
            postprocess=1e3 * (time.perf_counter() - inferred))
        return estimate

    def _linear_views(self, frame: DualPixelFrame) -> tuple[Image, Image, NDArray[np.float32]]:
        """Check the pair; linear light 0..1 as float32, and a 0/1 map of saturated pixels."""
        left, right = frame.left, frame.right
        if left.ndim != 2 or left.shape != right.shape or left.dtype != right.dtype:
            raise InvalidFrameError("size_mismatch", (
                f"left {left.shape} {left.dtype}, right {right.shape} {right.dtype}: both views "
                "must be (H, W) of one size and dtype; check dp.layout and the camera"))
        if min(left.shape) < MIN_SIDE_PX:
            raise InvalidFrameError("too_small", (
                f"views are {left.shape[1]}x{left.shape[0]} px: at least {MIN_SIDE_PX} px a side "
                "are needed"))
        if left.dtype not in (np.uint8, np.uint16, np.float32):
            raise InvalidFrameError("bad_dtype", (
                f"views are {left.dtype}: use uint8, uint16 or float32"))
        grid = frame.intrinsics
        if frame.rgb is not None and frame.rgb.shape != (grid.height_px, grid.width_px, 3):
            raise InvalidFrameError("size_mismatch", (
                f"rgb is {frame.rgb.shape}, its intrinsics say ({grid.height_px}, "
                f"{grid.width_px}, 3): camera_info must describe the published image"))
        if left.dtype == np.float32 and not (
                np.isfinite(left).all() and np.isfinite(right).all()):
            raise InvalidFrameError("nan_image", (
                "views hold NaN or Inf pixels: every pixel must be finite; check the driver"))
        if left.min() == left.max() and right.min() == right.max():
            raise InvalidFrameError("constant_image", (
                f"views are constant ({left.flat[0]} and {right.flat[0]}): nothing was exposed; "
                "check lens cap, exposure and driver"))
        options = self.options
        full = options.white_level or (
            1.0 if left.dtype == np.float32 else float(np.iinfo(left.dtype).max))
        if full <= options.black_level:
            raise InvalidFrameError("bad_levels", (
                f"dp.white_level {full} <= dp.black_level {options.black_level}: white must be "
                "larger; correct the levels"))
        scale = 1.0 / (full - options.black_level)
        views = []
        for view in (left, right):
            linear = np.clip((view.astype(np.float32) - options.black_level) * scale, 0, 1,
                             dtype=np.float32)
            views.append(linear)
        saturated = (np.maximum(views[0], views[1]) >= SATURATED).astype(np.float32)
        if not options.linear_input:
            views = [srgb_decoded(v) for v in views]
        if options.swap_views:
            views.reverse()
        return views[0], views[1], saturated

    @staticmethod
    def _reference(frame: DualPixelFrame, left: Image, right: Image) -> NDArray[np.float32]:
        """RGB 0..1 sRGB-encoded on the grid of the pair, (H, W, 3) float32."""
        height, width = left.shape
        if frame.rgb is None:
            grey = ((left + right) / 2) ** np.float32(1 / 2.2)
            return np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
        rgb = frame.rgb
        if rgb.shape[:2] != (height, width):
            shrink = rgb.shape[0] > height
            rgb = cv2.resize(rgb, (width, height), interpolation=(
                cv2.INTER_AREA if shrink else cv2.INTER_LINEAR))  # type: ignore[assignment]
        return rgb.astype(np.float32) * np.float32(1 / 255)

    @staticmethod
    def _condition(lens: ThinLens | None, divisor: int = 1) -> NDArray[np.float32]:
        """Lens condition of the network, whose pixels are `divisor` pixels of the views."""
        if lens is None:
            return np.zeros((1, CONDITION_CHANNELS), np.float32)
        lens = lens.field_mean()
        values = [torch.tensor([v], dtype=torch.float32) for v in (
            lens.kappa, lens.disparity_gain_px_m / divisor, lens.focus_diopters)]
        return np.asarray(lens_condition(*values).numpy(), dtype=np.float32)

    def _to_metres(self, frame: DualPixelFrame, disparity: NDArray[np.float32],
                   sigma: NDArray[np.float32], evidence: _Evidence) -> DepthEstimate:
        options, lens, anchor = self.options, frame.lens, frame.anchor
        scale_state = ScaleState.RELATIVE if lens is None else frame.scale_state
        depth = np.full(disparity.shape, np.nan, np.float32)
        sigma_m, own = depth.copy(), None
        gain: float | NDArray[np.floating] = 1.0
        if lens is not None:
            height, width = disparity.shape
            gain, focus = lens.gain_map_px_m(width, height), lens.focus_map_diopters(width, height)
            focus_sigma = lens.focus_sigma_diopters
            own = np.asarray(focus - disparity / gain, np.float32)  # 1/Z = 1/g − d/k
            if anchor is not None:
                scale_state = ScaleState.ANCHORED
                gain, focus = anchor.corrected(gain, focus)
                focus_sigma = float(np.hypot(anchor.scale * focus_sigma, anchor.sigma_diopters))
        if lens is not None and scale_state.is_metric:
            depth, sigma_m = depth_from_disparity(
                disparity, sigma, gain, focus, min_m=options.min_depth_m,
                max_m=options.max_depth_m, focus_sigma_diopters=focus_sigma,
                gain_sigma_ratio=lens.gain_sigma_ratio)
            with np.errstate(invalid="ignore"):
                unsure = sigma_m > options.max_sigma_ratio * depth
            unsure |= flying_pixels(depth, options.edge_filter_px)
            np.copyto(depth, np.nan, where=unsure)
            np.copyto(sigma_m, np.nan, where=unsure)
        provenance = label_provenance(
            depth if scale_state.is_metric else disparity, evidence.energy, evidence.saturated,
            contradicted(evidence.off_px, depth, gain), window_px=evidence.window_px)
        return DepthEstimate(
            depth_m=depth, sigma_m=sigma_m, provenance=provenance,
            disparity_px=np.ascontiguousarray(disparity),
            sigma_px=np.ascontiguousarray(sigma), stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id, intrinsics=frame.intrinsics, scale_state=scale_state,
            model_id=self.model_id,
            lens_diopters=own)


__all__ = ["DualPixelEstimator", "DualPixelFrame", "DualPixelOptions", "InvalidFrameError",
           "Provenance"]
