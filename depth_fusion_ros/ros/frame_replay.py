"""A saved frame through the same code again, and whether the same comes out.

    bundle = read_bundle(path)
    values = replay_values(bundle, ["depth.max_m:=6.0"])
    replayed = replay_frame(bundle, values)
    comparison = compare(bundle, replayed)      # comparison.verdict: identical, equal, different
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import DepthEstimate
from depth_fusion_ros.estimation.sweep_slices import SliceImage, Sweep, SweepSlice
from depth_fusion_ros.ros import dual_pixel_frames as dual_pixel
from depth_fusion_ros.ros import focus_sweep_frames as focus_sweep
from depth_fusion_ros.ros.frame_bundle import OUTPUTS, BundleError, FrameBundle
from depth_fusion_ros.ros.frame_saver import weights_sha256
from depth_fusion_ros.ros.offline import TABLES
from depth_fusion_ros.ros.parameter_values import parameter_values
from depth_fusion_ros.ros.slice_inputs import slice_lens

TOLERANCE = 1e-5
"""Relative difference up to which two numbers are equal."""


@dataclass(frozen=True)
class ReplayedFrame:
    """What came out this time.

    Attributes:
        estimate: None where it failed. error: "<cause>: <sentence>" then.
        seen: title → picture that the estimator saw, as of a row of a contact sheet.
        model_id, weights_sha256: of what ran.
    """

    estimate: DepthEstimate | None
    error: str
    seen: Mapping[str, NDArray[Any]]
    model_id: str
    weights_sha256: str


@dataclass(frozen=True)
class MapDifference:
    """How one map differs.

    Attributes:
        name: one of `OUTPUTS`. identical: every bit that means something is the same.
        largest: largest relative difference where both are finite; NaN where none are, and of
            labels.
        share: of pixels that differ by more than the tolerance, or are unknown or out of range
            in one of the two only.
    """

    name: str
    identical: bool
    largest: float
    share: float


@dataclass(frozen=True)
class Comparison:
    """Whether the result is the same: verdict identical, equal (within tolerance) or different.

    `reason`: why, where that is not a matter of pixels.
    """

    verdict: str
    maps: tuple[MapDifference, ...]
    reason: str = ""


def replay_values(bundle: FrameBundle, assignments: Iterable[str] = (), model: str = ""
                  ) -> dict[str, Any]:
    """Parameters of the frame, with changes.

    Args:
        bundle: its parameters that the node has no more are left out, new ones have defaults.
        assignments: NAME:=VALUE. model: in place of the frame's; "" = the frame's.

    Raises:
        ParameterError: a change that the node would refuse.
    """
    table = TABLES[bundle.header.path]
    held = {name: value for name, value in bundle.header.parameters.items() if name in table.rows}
    held["model.warmup_iterations"] = 0
    if model:
        held |= {"model.path": model, "model.sha256": ""}
    given = [f"{name}:={yaml.safe_dump(value)}" for name, value in held.items()]
    return parameter_values(table, (), [*given, *assignments])


def parameter_changes(bundle: FrameBundle) -> list[str]:
    """Sentences on parameters that the file and this version do not share."""
    rows, held = TABLES[bundle.header.path].rows, bundle.header.parameters
    found = []
    if gone := sorted(held.keys() - rows.keys()):
        found.append(f"parameters that are no more, left out: {', '.join(gone)}")
    if new := sorted(rows.keys() - held.keys()):
        found.append(f"parameters that are new, at their defaults: {', '.join(new)}")
    return found


def replay_frame(bundle: FrameBundle, values: Mapping[str, Any]) -> ReplayedFrame:
    """Run the frame through reading, lens resolution and estimator of its node.

    Raises:
        ValueError, OSError, RuntimeError: the model cannot be loaded; the text says what to do.
    """
    header = bundle.header
    run = _run_dual_pixel if header.path == "dual_pixel" else _run_focus_sweep
    if header.path == "dual_pixel":
        engine: Any = dual_pixel.open_backend(values)
    else:
        engine = focus_sweep.open_sweep_backend(values)
    seen: dict[str, NDArray[Any]] = {}
    estimate, error = None, ""
    try:
        estimate = run(bundle, values, engine, seen)
    except BundleError:
        raise
    except Exception as failure:  # so it may have ended in the node
        error = f"{getattr(failure, 'cause', 'internal_error')}: {failure}"
    return ReplayedFrame(estimate, error, seen, engine.model_id,
                         weights_sha256(values["model.path"], engine.model_id))


def compare(bundle: FrameBundle, replayed: ReplayedFrame, tolerance: float = TOLERANCE
            ) -> Comparison:
    """Tell whether a frame gave the same depth, σ, labels and disparity again."""
    saved, estimate = bundle.header, replayed.estimate
    if saved.error or replayed.error or estimate is None:
        if saved.error == replayed.error:
            return Comparison("identical", (), f"both times no depth: {saved.error}")
        return Comparison("different", (), f"no depth in the node: {saved.error}" if saved.error
                          else f"no depth now: {replayed.error}")
    shapes = bundle.outputs["depth_m"].shape, estimate.depth_m.shape
    if shapes[0] != shapes[1]:
        (h0, w0), (h1, w1) = shapes
        return Comparison("different", (), f"the depth had {w0}x{h0} px and has {w1}x{h1} now")
    maps = tuple(_difference(name, bundle.outputs[name], getattr(estimate, name), tolerance)
                 for name in OUTPUTS)
    if saved.scale_state != estimate.scale_state.name:
        return Comparison("different", maps, f"scale_state was {saved.scale_state} and is "
                          f"{estimate.scale_state.name} now")
    if all(each.identical for each in maps):
        return Comparison("identical", maps)
    return Comparison("different" if any(each.share for each in maps) else "equal", maps)


def _difference(name: str, old: NDArray[Any], new: NDArray[Any], tolerance: float
                ) -> MapDifference:
    if old.dtype.kind != "f":
        differs = old != new
        return MapDifference(name, not differs.any(), math.nan, float(differs.mean()))
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    both = np.isfinite(old) & np.isfinite(new)
    before, after = old[both].astype(np.float64), new[both].astype(np.float64)
    relative = np.zeros(old.shape)
    size = np.maximum(np.abs(before), np.abs(after))
    relative[both] = np.abs(after - before) / np.where(size > 0, size, 1.0)
    beyond = ~same & (~both | (relative > tolerance))
    return MapDifference(name, bool(same.all()), float(relative.max()) if both.any() else math.nan,
                         float(beyond.mean()))


def _run_dual_pixel(bundle: FrameBundle, values: Mapping[str, Any], engine: Any,
                    seen: dict[str, NDArray[Any]]) -> DepthEstimate:
    header = bundle.header
    estimator = dual_pixel.make_estimator(engine, values)
    estimator.options = dual_pixel.estimator_options(values, header.inference_divisor)
    openers, others = dual_pixel.set_topics(values)
    _demand(bundle, {*openers, *others})
    messages = {topic: message for topic, message in bundle.messages.items()
                if topic in (*openers, *others, dual_pixel.LENS)}
    read = dual_pixel.read_set(messages, header.stamp_ns, values, lambda _: header.anchor)
    left, right = read.frame.left, read.frame.right
    grey = np.clip(255 * np.sqrt(left / max(float(left.max()), 1e-9)), 0, 255).astype(np.uint8)
    seen["RGB"] = np.repeat(grey[..., None], 3, -1) if read.rgb is None else read.rgb
    seen["left − right [counts]"] = left.astype(np.float32) - right.astype(np.float32)
    return estimator.estimate(read.frame)


def _run_focus_sweep(bundle: FrameBundle, values: Mapping[str, Any], engine: Any,
                     seen: dict[str, NDArray[Any]]) -> DepthEstimate:
    saved = bundle.header.sweep
    if saved is None:
        raise BundleError("the file holds no sweep; save the frame again")
    slices = []
    for part, image, state in zip(saved.slices, bundle.images, bundle.lens_states, strict=True):
        lens = slice_lens(state, values)
        if not math.isfinite(lens.focus_diopters):
            raise BundleError("lens.diopter_scale and lens.diopter_offset leave the focus of a "
                              "slice unknown or negative; change them less")
        slices.append(SweepSlice(
            SliceImage(part.stamp_ns, image, part.frame_id, part.intrinsics), lens))
    slices.sort(key=lambda item: item.focus_diopters)
    sweep = Sweep(tuple(slices), saved.complete, saved.missing, saved.sweep_id)
    seen["nearest slice"], seen["farthest slice"] = slices[-1].image.image, slices[0].image.image
    estimator = focus_sweep.make_sweep_estimator(engine, values)
    estimator.options = focus_sweep.sweep_estimator_options(
        values, bundle.header.inference_divisor)
    estimate = estimator.estimate(replace(focus_sweep.sweep_frame(sweep),
                                          anchor=bundle.header.anchor))
    if estimate.all_in_focus is not None:
        seen["all in focus"] = estimate.all_in_focus
    return estimate


def _demand(bundle: FrameBundle, topics: set[str]) -> None:
    if missing := sorted(topics - bundle.messages.keys()):
        raise BundleError(f"the file holds no {', '.join(missing)}, which these parameters ask "
                          "for; leave dp.layout and input.use_rgb as they were")


__all__ = ["TOLERANCE", "Comparison", "MapDifference", "ReplayedFrame", "compare",
           "parameter_changes", "replay_frame", "replay_values"]
