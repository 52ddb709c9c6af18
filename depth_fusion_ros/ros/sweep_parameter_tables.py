"""The parameter table of `focus_sweep_depth`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from depth_fusion_ros.ros.anchor_input import ANCHOR_ROWS
from depth_fusion_ros.ros.navigation_parameter_rows import NAVIGATION_CHECKS, NAVIGATION_ROWS
from depth_fusion_ros.ros.parameter_rows import (
    CALIBRATION_ROWS,
    DEPTH_ROWS,
    MODEL_ROWS,
    RELIABILITY_ROWS,
    ordered,
)
from depth_fusion_ros.ros.parameters import Parameter, ParameterTable, Value

_OTHER_DEFAULTS: dict[str, Value] = {"budget.latency_ms": 1000.0}

_ROWS = (
    Parameter("model.path", "closed_form", "Network to run: the name of shipped weights, the path "
              "of a model card (`.json`) of a `sweep_depth` network, or `closed_form` (depth from "
              "focus and defocus without learning; no weights)."),
    *MODEL_ROWS,
    Parameter("model.max_side_px", 640, "Larger images are reduced to this before anything else; "
              "depth comes at the reduced size, with the camera_info that fits.",
              unit="px", minimum=64, maximum=8192),
    Parameter("prior.path", "", "A monocular prior of yours in place of the network's own: an "
              "`.onnx` file (MiDaS, Depth Anything, ...) or a local Hugging Face folder; nothing "
              "is downloaded. Empty = the network's own."),
    Parameter("prior.output", "auto", "What it gives: inverse_depth, or depth in metres; auto = "
              "inverse_depth for ONNX, as its config says for a folder.",
              choices=("auto", "inverse_depth", "depth")),
    Parameter("prior.normalisation", "imagenet", "ONNX: what the network was trained with: "
              "imagenet, symmetric (-1..1) or unit (0..1).",
              choices=("imagenet", "symmetric", "unit")),
    Parameter("prior.short_side_px", 0, "ONNX of any size: scale the image to this shorter side "
              "first; 0 = as it is. Depth Anything was trained at 518.", unit="px", minimum=0,
              maximum=4096),
    Parameter("prior.multiple_px", 0, "ONNX of any size: sides are rounded to multiples of this; "
              "0 = 14 (Depth Anything). MiDaS wants 32.", unit="px", minimum=0, maximum=256),
    *RELIABILITY_ROWS,
    Parameter("input.queue_size", 5, "Length of the replay queue, in sweeps.", unit="sweeps",
              minimum=1, maximum=10),
    Parameter("input.max_age_s", 5.0, "Sweeps whose newest slice is older than this when their "
              "turn comes are dropped and counted as stale; 0 = never. Longer than "
              "`sweep.timeout_s`.", unit="s", minimum=0.0, maximum=3600.0, dynamic=True),
    Parameter("sweep.mode", "complete", "complete = each slice serves in one sweep; sliding = each "
              "new slice gives depth from the last positions.", choices=("complete", "sliding")),
    Parameter("sweep.min_slices", 3, "Sweeps with fewer slices are dropped and counted.",
              unit="slices", minimum=3, maximum=64),
    Parameter("sweep.max_slices", 15, "Of more positions, those that leave the smallest gaps are "
              "dropped and counted.", unit="slices", minimum=3, maximum=64),
    Parameter("sweep.timeout_s", 3.0, "An unfinished sweep ends, and an image without lens state "
              "or camera_info is dropped, this long after it began to wait; sliding: age of the "
              "oldest slice in use.", unit="s", minimum=0.1, maximum=30.0, dynamic=True),
    Parameter("sweep.settle_frames", 3, "Images discarded after each change of focus; only where "
              "the lens states carry no sweep_id (who tags a slice has waited).",
              unit="frames", minimum=0, maximum=20, dynamic=True),
    Parameter("sweep.require_stationary_lens", True, "Drop slices during which the lens is known "
              "to have moved.", dynamic=True),
    Parameter("sweep.gap_s", 1.0, "A longer pause, without images or at one focus, ends an "
              "untagged sweep.", unit="s", minimum=0.05, maximum=30.0, dynamic=True),
    Parameter("sweep.same_focus_diopters", 0.02, "Positions not further apart count as one.",
              unit="1/m", minimum=0.0, maximum=1.0, dynamic=True),
    *CALIBRATION_ROWS,
    Parameter("lens.breathing_per_diopter", 0.0, "beta of fx(D) = fx0 * (1 + beta * D). Not used "
              "where the camera_info of the slices differ: these then say it.",
              unit="1 per dioptre", minimum=-0.2, maximum=0.2, dynamic=True),
    Parameter("lens.breathing_reference_diopters", 0.0, "Focus at which camera_info holds; see "
              "`lens.breathing_per_diopter`.", unit="1/m", minimum=0.0, maximum=20.0,
              dynamic=True),
    *ANCHOR_ROWS,
    Parameter("motion.source", "image", "image = measure the drift between slices and undo it; "
              "none = the camera is known to stand still.", choices=("image", "none"),
              dynamic=True),
    Parameter("motion.warn_px", 2.0, "Drift within a sweep from which diagnostics warn.",
              unit="px", minimum=0.0, maximum=1000.0, dynamic=True),
    Parameter("motion.reject_px", 12.0, "Drift within a sweep from which there is no depth "
              "(provenance 7).", unit="px", minimum=0.0, maximum=1000.0, dynamic=True),
    *(replace(row, default=_OTHER_DEFAULTS.get(row.name, row.default)) for row in DEPTH_ROWS),
    *NAVIGATION_ROWS,
    Parameter("replay.process_all", False, "Process every sweep in order (bounded queue with "
              "back-pressure, nothing is stale or times out while images come). For bags."),
)



def _slices_fit(values: Mapping[str, Value]) -> str:
    fewest, most = values["sweep.min_slices"], values["sweep.max_slices"]
    if int(fewest) <= int(most):
        return ""
    return (f"sweep.min_slices = {fewest!r} with sweep.max_slices = {most!r}: must not be more; "
            "set both")


def _age_above_timeout(values: Mapping[str, Value]) -> str:
    age_s, timeout_s = values["input.max_age_s"], values["sweep.timeout_s"]
    if age_s == 0.0 or float(age_s) > float(timeout_s):
        return ""
    return (f"input.max_age_s = {age_s!r} with sweep.timeout_s = {timeout_s!r}: the age must be "
            "larger, or every sweep that ends by the timeout is stale; raise input.max_age_s")


FOCUS_SWEEP = ParameterTable(
    "focus_sweep_depth", _ROWS,
    (_slices_fit, _age_above_timeout, ordered("depth.min_m", "depth.max_m"),
     ordered("preview.min_m", "preview.max_m"), ordered("motion.warn_px", "motion.reject_px"),
     *NAVIGATION_CHECKS))
