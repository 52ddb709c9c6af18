"""What the sweep path makes of its parameters and sweeps; for the node and for offline replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from depth_fusion_ros.estimation.focus_sweep import (
    FocusSweepEstimator,
    FocusSweepOptions,
    SweepFrame,
)
from depth_fusion_ros.estimation.sweep_slices import Sweep, SweepOptions

if TYPE_CHECKING:
    from depth_fusion_ros.estimation.priors import Prior
    from depth_fusion_ros.estimation.sweep_backends import SweepBackend

_WARM_UP_SLICES = 5


def open_sweep_backend(values: Mapping[str, Any]) -> SweepBackend:
    """Load the network that the parameters name, with its prior.

    Raises:
        ValueError, OSError: it cannot be loaded; the text says what to do.
    """
    from depth_fusion_ros.estimation.sweep_backends import load_sweep_backend

    return load_sweep_backend(
        values["model.path"], device=values["device"], precision=values["model.precision"],
        sha256=values["model.sha256"], threads=values["model.threads"],
        allow_cpu_fallback=values["allow_cpu_fallback"], prior=_prior(values))


def make_sweep_estimator(backend: SweepBackend, values: Mapping[str, Any]) -> FocusSweepEstimator:
    """Return the estimator, warmed up as the parameters say."""
    estimator = FocusSweepEstimator(backend, sweep_estimator_options(values))
    estimator.warm_up(values["model.warmup_width_px"], values["model.warmup_height_px"],
                      _WARM_UP_SLICES, values["model.warmup_iterations"])
    return estimator


def sweep_frame(sweep: Sweep) -> SweepFrame:
    """A sweep is worth what the worst of its slices is worth."""
    return SweepFrame(
        sweep, max(item.lens.scale_state for item in sweep.slices),
        max(item.lens.focus_sigma_diopters for item in sweep.slices))


def sweep_options(values: Mapping[str, Any]) -> SweepOptions:
    """How slices are assembled, out of the node's parameters."""
    return SweepOptions(
        min_slices=values["sweep.min_slices"], max_slices=values["sweep.max_slices"],
        timeout_s=values["sweep.timeout_s"], mode=values["sweep.mode"],
        settle_frames=values["sweep.settle_frames"],
        require_stationary_lens=values["sweep.require_stationary_lens"],
        gap_s=values["sweep.gap_s"], same_focus_diopters=values["sweep.same_focus_diopters"])


def sweep_estimator_options(values: Mapping[str, Any], inference_divisor: int = 1
                            ) -> FocusSweepOptions:
    """Options of the estimator, out of the node's parameters."""
    return FocusSweepOptions(
        min_depth_m=values["depth.min_m"], max_depth_m=values["depth.max_m"],
        max_sigma_ratio=values["depth.max_sigma_ratio"],
        edge_filter_px=values["depth.edge_filter_px"],
        breathing_per_diopter=values["lens.breathing_per_diopter"],
        breathing_reference_diopters=values["lens.breathing_reference_diopters"],
        align=values["motion.source"] == "image", warn_px=values["motion.warn_px"],
        reject_px=values["motion.reject_px"], inference_divisor=inference_divisor)


def _prior(values: Mapping[str, Any]) -> Prior | None:
    if not values["prior.path"]:
        return None
    from depth_fusion_ros.estimation.priors import load_prior

    return load_prior(values["prior.path"], threads=values["model.threads"],
                      output=values["prior.output"], multiple=values["prior.multiple_px"],
                      short_side_px=values["prior.short_side_px"],
                      normalisation=values["prior.normalisation"])
