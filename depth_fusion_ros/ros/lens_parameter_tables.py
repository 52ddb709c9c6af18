"""Parameters around a driven lens: simulated focus camera, lens state bridge, sweep controller."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import yaml

from depth_fusion_ros.estimation.sweep_plan import SweepPlan, uniform_positions
from depth_fusion_ros.ros.parameter_rows import RELIABILITY_ROWS, ordered
from depth_fusion_ros.ros.parameters import Parameter, ParameterTable, Value

CALIBRATION_LEVELS = ("unknown", "uncalibrated", "approximate", "calibrated")
"""In the order of LensState.CALIBRATION_*."""
ORIGINS = ("unknown", "commanded", "encoder", "estimated")
"""In the order of LensState.ORIGIN_*."""

_DIAGNOSTICS_PERIOD = Parameter("diagnostics.period_s", 1.0, "Period of `/diagnostics`.", unit="s",
                                minimum=0.1, maximum=60.0)
_OPTICS_ROWS = (
    Parameter("lens.focal_length_m", 0.0, "Focal length, for LensState; 0 = unknown.",
              unit="m", minimum=0.0, maximum=2.0),
    Parameter("lens.f_number", 0.0, "f-number, for LensState; 0 = unknown.",
              unit="1", minimum=0.0, maximum=64.0),
    Parameter("lens.pixel_pitch_m", 0.0, "Pitch of the pixels of the published image (after "
              "binning), for LensState; 0 = unknown.", unit="m", minimum=0.0, maximum=0.001),
)


def parse_numbers(text: str) -> tuple[float, ...]:
    """Numbers of a parameter's text, such as "[0.5, 1, 1.5]"; "" = none.

    Text, because ROS parameters have no empty arrays that YAML files could write.

    Raises:
        ValueError: not a YAML list of finite numbers.
    """
    if not text.strip():
        return ()
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, list) or not all(
            type(value) in (int, float) and math.isfinite(value) for value in found):
        raise ValueError("must be a list of finite numbers, like [0.5, 1.0, 1.5]")
    return tuple(map(float, found))


def _numbers(values: Mapping[str, Value], name: str) -> tuple[tuple[float, ...], str]:
    try:
        return parse_numbers(str(values[name])), ""
    except ValueError as error:
        return (), f"{name} = {values[name]!r}: {error}"


# -- synthetic_camera, kind: focus ----------------------------------------------------------------

FOCUS_CAMERA_ROWS = (
    Parameter("lens_position_diopters", 0.5, "Command to the focus actuator of the focus camera; "
              "0 = infinity.", unit="1/m", minimum=0.0, maximum=20.0, dynamic=True),
    Parameter("lens.report", "encoder", "What the focus camera says on `lens_state`: encoder = "
              "true focus, commanded = what was asked for, none = nothing.",
              choices=("encoder", "commanded", "none")),
    Parameter("lens.far_diopters", 0.2, "Far end of the range of the actuator.",
              unit="1/m", minimum=0.0, maximum=20.0),
    Parameter("lens.near_diopters", 3.0, "Near end of the range of the actuator.",
              unit="1/m", minimum=0.0, maximum=20.0),
    Parameter("lens.latency_s", 0.05, "From a command to the first movement of the lens.",
              unit="s", minimum=0.0, maximum=10.0),
    Parameter("lens.slew_diopters_per_s", 20.0, "Speed of the lens.",
              unit="1/m/s", minimum=0.01, maximum=1e6),
    Parameter("lens.hysteresis_diopters", 0.02, "The lens stops so far short of its target, on "
              "the side it comes from.", unit="1/m", minimum=0.0, maximum=5.0),
    Parameter("lens.breathing_per_diopter", 0.012, "fx(D) = fx0 * (1 + this * D); a thin lens has "
              "its focal length in metres.", unit="m", minimum=-0.04, maximum=0.2),
    Parameter("focus.positions", 24, "Focus positions rendered at start, uniform over the range; "
              "images are interpolated between them.", minimum=2, maximum=200),
    Parameter("focus.aperture_samples", 32, "Rays per pixel and position.",
              minimum=8, maximum=1024),
    Parameter("exposure_s", 0.01, "Exposure time of the focus camera.",
              unit="s", minimum=0.0, maximum=1.0),
    Parameter("drift_px_per_s", 0.0, "Image motion along x, as of a moving focus camera; it turns "
              "round every 16 px.", unit="px/s", minimum=-1000.0, maximum=1000.0),
    Parameter("publish_lens_diagnostics", False, "Publish the commanded focus of each image on "
              "`/diagnostics`, as camera_ros does (`LensPosition`)."),
)
FOCUS_CAMERA_CHECKS = (ordered("lens.far_diopters", "lens.near_diopters"),)

# -- lens_state_bridge ----------------------------------------------------------------------------


def _table_is_a_table(values: Mapping[str, Value]) -> str:
    if values["source"] != "table":
        return ""
    steps, wrong = _numbers(values, "table.steps")
    diopters, also_wrong = _numbers(values, "table.diopters")
    if wrong or also_wrong:
        return wrong or also_wrong
    if len(steps) != len(diopters) or len(steps) < 2:
        return (f"table.steps and table.diopters have {len(steps)} and {len(diopters)} numbers: "
                "both must have as many, at least 2; measure the focus at some driver steps")
    step_signs = {(b > a) - (b < a) for a, b in pairwise(steps)}
    focus_signs = {(b > a) - (b < a) for a, b in pairwise(diopters)}
    if step_signs != {1} or focus_signs not in ({1}, {-1}) or min(diopters) < 0:
        return (f"table.steps = {steps} with table.diopters = {diopters}: steps must rise, "
                "dioptres must rise or fall throughout and be >= 0; sort and check the table")
    return ""


LENS_STATE_BRIDGE = ParameterTable(
    "lens_state_bridge",
    (
        Parameter("source", "diagnostics", "Where the focus comes from: diagnostics = a number "
                  "that the camera driver publishes per image on `/diagnostics` (camera_ros); "
                  "constant = `focus_diopters`; table = driver steps on `actuator` "
                  "(std_msgs/Int32) and `table.*`.", choices=("diagnostics", "constant", "table")),
        Parameter("focus_diopters", 0.0, "Focus where `source` is constant; 0 = infinity.",
                  unit="1/m", minimum=0.0, maximum=100.0, dynamic=True),
        Parameter("diagnostics.status_name", "", "Part of the name or the hardware_id of the "
                  "status to be read (camera_ros leaves the name empty); empty = the first that "
                  "has the key."),
        Parameter("diagnostics.key", "LensPosition", "Key of the focus in dioptres.",
                  pattern=r".+"),
        Parameter("table.steps", "", "Driver steps at which the focus is known, rising, such as "
                  "`[445, 925]`."),
        Parameter("table.diopters", "", "The focus there, such as `[0.0, 15.0]`; linear between, "
                  "unknown outside."),
        Parameter("lens.latency_frames", 0, "A report belongs to the image so many images later.",
                  unit="frames", minimum=0, maximum=10),
        *_OPTICS_ROWS,
        Parameter("focus_calibration", "approximate", "How far the dioptres can be trusted (see "
                  "LensState): only calibrated gives metres without further ado.",
                  choices=CALIBRATION_LEVELS),
        Parameter("focus_origin", "commanded", "What the dioptres are: libcamera on a Raspberry "
                  "Pi reports the command.", choices=ORIGINS),
        Parameter("focus_stddev_diopters", 0.0, "Standard deviation of the focus; 0 = unknown.",
                  unit="1/m", minimum=0.0, maximum=5.0),
        Parameter("report_timeout_s", 0.2, "An image waits so long (wall time) for its report, "
                  "then its focus is unknown.", unit="s", minimum=0.0, maximum=10.0),
        *RELIABILITY_ROWS,
        _DIAGNOSTICS_PERIOD,
    ),
    (_table_is_a_table,),
)

# -- focus_sweep_controller -----------------------------------------------------------------------


def sweep_plan(values: Mapping[str, Any]) -> SweepPlan:
    """Return the sweep of these parameters.

    Raises:
        ValueError: positions that are no sweep.
    """
    positions = parse_numbers(values["sweep.diopters"]) or uniform_positions(
        values["sweep.far_diopters"], values["sweep.near_diopters"], values["sweep.slices"])
    return SweepPlan(
        positions, settle_frames=values["sweep.settle_frames"],
        latency_frames=values["lens.latency_frames"],
        tolerance_diopters=values["sweep.tolerance_diopters"],
        corrections=values["sweep.corrections"],
        slew_diopters_per_frame=values["lens.slew_diopters_per_frame"],
        alternate=values["sweep.direction"] == "alternate", timeout_s=values["sweep.timeout_s"])


def _positions_are_a_sweep(values: Mapping[str, Value]) -> str:
    _, wrong = _numbers(values, "sweep.diopters")
    if wrong:
        return wrong
    try:
        sweep_plan(values)
    except ValueError as error:
        return str(error)
    return ""


FOCUS_SWEEP_CONTROLLER = ParameterTable(
    "focus_sweep_controller",
    (
        Parameter("camera.node", "synthetic_camera", "Node whose parameter moves the lens, "
                  "relative to this node's namespace or absolute.", pattern=r"[A-Za-z_/][\w/]*"),
        Parameter("camera.parameter", "LensPosition", "That parameter: a double, in dioptres. "
                  "With camera_ros set AfMode to manual and switch AeEnable off yourself; the "
                  "parameter of synthetic_camera is lens_position_diopters.", pattern=r"[\w./]+"),
        Parameter("camera.timeout_s", 1.0, "A command without answer for so long (wall time) has "
                  "failed.", unit="s", minimum=0.05, maximum=30.0),
        Parameter("sweep.trigger", "continuous", "continuous = one sweep after the other; "
                  "on_demand = when `~/run_sweep` is called.",
                  choices=("continuous", "on_demand"), dynamic=True),
        Parameter("sweep.far_diopters", 0.25, "First position, unless `sweep.diopters` is given.",
                  unit="1/m", minimum=0.0, maximum=20.0, dynamic=True),
        Parameter("sweep.near_diopters", 2.5, "Last position, unless `sweep.diopters` is given.",
                  unit="1/m", minimum=0.0, maximum=20.0, dynamic=True),
        Parameter("sweep.slices", 8, "Number of positions, uniform in dioptres.",
                  unit="slices", minimum=2, maximum=64, dynamic=True),
        Parameter("sweep.diopters", "", "Positions instead of the uniform ones, rising, such as "
                  "`[0.3, 0.6, 1.2]`.", dynamic=True),
        Parameter("sweep.direction", "alternate", "alternate = up, down, up ...; up = always from "
                  "far to near.", choices=("alternate", "up"), dynamic=True),
        Parameter("sweep.settle_frames", 3, "Images left out after each command; with an encoder, "
                  "images after which a lens that stands elsewhere is corrected.",
                  unit="frames", minimum=0, maximum=100, dynamic=True),
        Parameter("sweep.tolerance_diopters", 0.05, "A reported focus so near to its position is "
                  "there.", unit="1/m", minimum=0.001, maximum=5.0, dynamic=True),
        Parameter("sweep.corrections", 3, "Further commands per position where an encoder shows "
                  "that the lens stopped short of it.", minimum=0, maximum=20, dynamic=True),
        Parameter("sweep.pause_s", 0.0, "Between two continuous sweeps.",
                  unit="s", minimum=0.0, maximum=3600.0, dynamic=True),
        Parameter("sweep.timeout_s", 3.0, "A sweep without images for so long (wall time) is "
                  "aborted, and so is one whose lens keeps moving.",
                  unit="s", minimum=0.1, maximum=60.0, dynamic=True),
        Parameter("lens.report", "auto", "Whether images wait for a report on "
                  "`lens_state_untagged`: auto = as long as there is a publisher, topic = "
                  "always, none = never (focus as commanded).", choices=("auto", "topic", "none")),
        Parameter("lens.latency_frames", 0, "Images by which they show a command later, left out "
                  "in addition to `sweep.settle_frames`.",
                  unit="frames", minimum=0, maximum=10, dynamic=True),
        Parameter("lens.slew_diopters_per_frame", 0.0, "Without reports: travel for which one more "
                  "image is left out; 0 = none.",
                  unit="1/m", minimum=0.0, maximum=100.0, dynamic=True),
        *_OPTICS_ROWS,
        Parameter("focus_calibration", "approximate", "Without reports: how far the commanded "
                  "dioptres can be trusted (see LensState).", choices=CALIBRATION_LEVELS),
        Parameter("report_timeout_s", 0.2, "An image waits so long (wall time) for its report, "
                  "then its focus is unknown.", unit="s", minimum=0.0, maximum=10.0),
        *RELIABILITY_ROWS,
        _DIAGNOSTICS_PERIOD,
        Parameter("autostart", True, "Configure and activate without being asked; false where a "
                  "lifecycle manager does it."),
    ),
    (_positions_are_a_sweep,),
)
