"""Rows that several nodes share, and rules between two rows."""

from __future__ import annotations

from collections.abc import Mapping

from depth_fusion_ros.ros.overload import OVERLOAD_ROWS
from depth_fusion_ros.ros.parameters import CrossCheck, Parameter, Value
from depth_fusion_ros.ros.transport_task import TRANSPORT_ROWS

DEVICE_PATTERN = r"auto|cpu|cuda(:\d+)?"

MODEL_ROWS = (
    Parameter("model.sha256", "", "Expected checksum of the weights; empty = the card's.",
              pattern=r"([0-9a-f]{64})?"),
    Parameter("model.precision", "fp32", "Arithmetic of the network; fp16 and bf16 are for GPUs.",
              choices=("fp32", "fp16", "bf16")),
    Parameter("model.threads", 0, "CPU threads of the engine; 0 = the engine's choice.",
              unit="threads", minimum=0, maximum=256),
    Parameter("model.warmup_iterations", 3, "Runs at configure, before the first image.",
              unit="runs", minimum=0, maximum=50),
    Parameter("model.warmup_width_px", 320, "Image width of the warm-up runs; use your camera's.",
              unit="px", minimum=32, maximum=8192),
    Parameter("model.warmup_height_px", 240, "Image height of the warm-up runs.",
              unit="px", minimum=32, maximum=8192),
    Parameter("device", "auto", "Where the network runs: auto, cpu, cuda or cuda:N.",
              pattern=DEVICE_PATTERN),
    Parameter("allow_cpu_fallback", True, "Run on the CPU where `device` is a GPU that is not "
              "usable (WARN in diagnostics); false = configure fails."),
)

RELIABILITY_ROWS = (
    Parameter("input.reliability", "auto", "QoS of the subscriptions. auto = reliable until a "
              "best-effort publisher shows up, then best effort.",
              choices=("auto", "best_effort", "reliable")),
)

CALIBRATION_ROWS = (
    Parameter("lens.focus_sigma_diopters", 0.0, "Standard deviation of the focus itself (how well "
              "the lens returns to a position); added to sigma. A LensState with a "
              "focus_diopters_stddev says its own.", unit="1/m", minimum=0.0, maximum=5.0,
              dynamic=True),
    Parameter("lens.diopter_scale", 1.0, "Correction of reported focus: scale * D + offset.",
              unit="1", minimum=0.2, maximum=5.0, dynamic=True),
    Parameter("lens.diopter_offset", 0.0, "See `lens.diopter_scale`.",
              unit="1/m", minimum=-8.0, maximum=8.0, dynamic=True),
    Parameter("lens.allow_nominal", False, "Publish metres although the lens reports its "
              "dioptres as not calibrated (scale_state NOMINAL)."),
)

DEPTH_ROWS = (
    Parameter("depth.min_m", 0.15, "Nearer depths are published as -Inf (REP-117).",
              unit="m", minimum=0.05, maximum=100.0, dynamic=True),
    Parameter("depth.max_m", 8.0, "Farther depths are published as +Inf (REP-117).",
              unit="m", minimum=0.05, maximum=100.0, dynamic=True),
    Parameter("depth.max_sigma_ratio", 0.5, "Pixels with sigma / depth above this become NaN.",
              unit="1", minimum=0.01, maximum=10.0, dynamic=True),
    Parameter("depth.edge_filter_px", 1, "Radius of the flying-pixel filter at depth edges; "
              "0 = off.", unit="px", minimum=0, maximum=8, dynamic=True),
    Parameter("preview.min_m", 0.2, "Depth of the warm end of `depth_registered/preview`.",
              unit="m", minimum=0.05, maximum=100.0, dynamic=True),
    Parameter("preview.max_m", 5.0, "Depth of the cold end of `depth_registered/preview`.",
              unit="m", minimum=0.05, maximum=100.0, dynamic=True),
    Parameter("budget.latency_ms", 100.0, "Diagnostics warn while the 95th percentile of the "
              "latency is above this, and the node gives up something (`budget.allow_degrade`); "
              "0 = never.", unit="ms", minimum=0.0, maximum=60000.0, dynamic=True),
    *OVERLOAD_ROWS,
    *TRANSPORT_ROWS,
    Parameter("save.folder", "", "Folder for the files of `~/save_frame`, made where it is "
              "missing; empty = `depth_fusion` in `$ROS_HOME` or `~/.ros`.", dynamic=True),
    Parameter("diagnostics.period_s", 1.0, "Period of `/diagnostics`.",
              unit="s", minimum=0.1, maximum=60.0),
    Parameter("autostart", True, "Configure and activate without being asked; false where a "
              "lifecycle manager does it."),
)


def ordered(low: str, high: str) -> CrossCheck:
    """Rule that the first is smaller than the second."""
    def check(values: Mapping[str, Value]) -> str:
        if float(values[low]) < float(values[high]):
            return ""
        return (f"{low} = {values[low]!r} with {high} = {values[high]!r}: {low} must be smaller; "
                "set both at once (set_parameters_atomically)")

    return check
