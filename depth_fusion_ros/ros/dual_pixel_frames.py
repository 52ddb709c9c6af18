"""A dual-pixel set of messages -> what the estimator takes; for the node and for offline replay.

The messages may be those of rclpy or any objects with the same fields, such as rosbags makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.dual_pixel import (
    DualPixelEstimator,
    DualPixelFrame,
    DualPixelOptions,
)
from depth_fusion_ros.estimation.estimate import ScaleState
from depth_fusion_ros.estimation.scale_anchor import AnchorFit
from depth_fusion_ros.ros.engine import ConfigureError
from depth_fusion_ros.ros.lens import ANCHORED, ResolvedLens, resolve_lens
from depth_fusion_ros.ros.messages import (
    VIEW_ENCODINGS,
    InputError,
    camera_info_to_intrinsics,
    image_to_array,
    image_to_rgb,
    split_views,
)

if TYPE_CHECKING:
    from depth_fusion_ros.estimation.backends import DisparityBackend

LEFT = "dp/left/image_raw"
RIGHT = "dp/right/image_raw"
PACKED = "dp/image_raw"
DP_INFO = "dp/camera_info"
RGB = "rgb/image_rect"
RGB_INFO = "rgb/camera_info"
LENS = "lens_state"

Correction = Callable[[ScaleState], AnchorFit | None]
"""What a known distance says of the scale of a lens that is in this state; None = nothing."""


@dataclass(frozen=True)
class DualPixelInput:
    """A set, read.

    Attributes:
        frame: for the estimator. rgb: its reference view (H, W, 3) uint8, or None.
        info: camera_info of the depth. resolved: where its metres come from.
    """

    frame: DualPixelFrame
    rgb: NDArray[np.uint8] | None
    info: Any
    resolved: ResolvedLens


def set_topics(values: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Topics of the views, and those that a set needs besides, lens_state aside."""
    openers = (LEFT, RIGHT) if values["dp.layout"] == "pair" else (PACKED,)
    return openers, (RGB, DP_INFO, RGB_INFO) if values["input.use_rgb"] else (DP_INFO,)


def needs_lens_state(values: Mapping[str, Any]) -> bool:
    """Whether parameters alone do not say everything of the lens."""
    numbers = ("lens.focal_length_m", "lens.f_number", "lens.pixel_pitch_m")
    return (values["lens.focus_source"] == "lens_state"
            or any(values[name] == 0.0 for name in numbers))


def open_backend(values: Mapping[str, Any]) -> DisparityBackend:
    """Load the network that the parameters name.

    Raises:
        ConfigureError: none is named. ValueError, OSError: it cannot be loaded.
    """
    from depth_fusion_ros.estimation.backends import load_backend

    if not values["model.path"]:
        raise ConfigureError(
            "model.path = '': must name a network; set it to a shipped one (difuse_net_s), to "
            "the path of a model card (.json), or to closed_form (no weights needed)"
        )
    return load_backend(
        values["model.path"], backend=values["model.backend"], device=values["device"],
        precision=values["model.precision"], sha256=values["model.sha256"],
        threads=values["model.threads"], allow_cpu_fallback=values["allow_cpu_fallback"],
    )


def make_estimator(backend: DisparityBackend, values: Mapping[str, Any]) -> DualPixelEstimator:
    """Return the estimator, warmed up as the parameters say."""
    estimator = DualPixelEstimator(backend, estimator_options(values))
    if values["model.warmup_iterations"]:
        estimator.warm_up(values["model.warmup_width_px"], values["model.warmup_height_px"],
                          values["model.warmup_iterations"])
    return estimator


def estimator_options(values: Mapping[str, Any], inference_divisor: int = 1) -> DualPixelOptions:
    """Options of the estimator out of the node's parameters."""
    return DualPixelOptions(
        min_depth_m=values["depth.min_m"],
        max_depth_m=values["depth.max_m"],
        max_sigma_ratio=values["depth.max_sigma_ratio"],
        edge_filter_px=values["depth.edge_filter_px"],
        black_level=values["dp.black_level"],
        white_level=values["dp.white_level"],
        linear_input=values["dp.linear_input"],
        swap_views=values["dp.swap_views"],
        parallax_axis=values["dp.parallax_axis"],
        inference_divisor=inference_divisor,
    )


def read_set(messages: Mapping[str, Any], stamp_ns: int, values: Mapping[str, Any],
             correction: Correction = lambda _: None) -> DualPixelInput:
    """Read a complete set.

    Args:
        messages: relative topic → message. stamp_ns: of the set.
        values: parameters of dual_pixel_depth. correction: of lenses that are not calibrated.

    Raises:
        InputError: a message that cannot be used; cause and topic are in it.
    """
    if LEFT in messages:
        left = image_to_array(messages[LEFT], LEFT, VIEW_ENCODINGS)
        right = image_to_array(messages[RIGHT], RIGHT, VIEW_ENCODINGS)
    else:
        packed = image_to_array(messages[PACKED], PACKED, VIEW_ENCODINGS)
        left, right = split_views(packed, values["dp.layout"], PACKED)
    if left.shape != right.shape or left.dtype != right.dtype:
        raise InputError(
            "size_mismatch", RIGHT,
            f"{_shape(right)} against {_shape(left)} on {LEFT}: both views must have one size "
            "and encoding; check the driver",
        )
    height, width = left.shape
    view_intrinsics = camera_info_to_intrinsics(messages[DP_INFO], DP_INFO, width, height)
    if RGB in messages:
        reference, info = messages[RGB], messages[RGB_INFO]
        rgb = image_to_rgb(reference, RGB)
        intrinsics = camera_info_to_intrinsics(info, RGB_INFO, rgb.shape[1], rgb.shape[0])
    else:
        reference, info = messages.get(LEFT) or messages[PACKED], messages[DP_INFO]
        rgb, intrinsics = None, view_intrinsics
    resolved = resolve_lens(messages.get(LENS), values)
    anchor = correction(resolved.scale_state)
    lens = resolved.lens
    if values["anchor.enable"]:
        lens = lens or resolved.nominal
        if lens is not None and anchor is not None:
            resolved = ANCHORED
    frame = DualPixelFrame(
        left=left, right=right, rgb=rgb, stamp_ns=stamp_ns,
        frame_id=reference.header.frame_id, intrinsics=intrinsics, lens=lens,
        scale_state=resolved.scale_state, anchor=anchor,
    )
    return DualPixelInput(frame, rgb, info, resolved)


def _shape(view: Any) -> str:
    return f"{view.shape[1]}x{view.shape[0]} {view.dtype}"
