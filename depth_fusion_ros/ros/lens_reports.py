"""What drivers tell of their lens, in the shapes in which they tell it.

    report = report_from_diagnostics(array, key="LensPosition", status_name="imx708")
    report = FocusTable((445, 925), (0.0, 15.0)).report(500)
    state = commanded_state(2.0, values)        # where nothing but the command is known

Bad reports raise `InputError`: a cause for the counters and a sentence. A focus is never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.lens_parameter_tables import CALIBRATION_LEVELS, ORIGINS
from depth_fusion_ros.ros.messages import InputError

DIAGNOSTICS, ACTUATOR = "/diagnostics", "actuator"


@dataclass(frozen=True)
class FocusReport:
    """What a driver said of one exposure.

    Attributes:
        focus_diopters: 1/m; NaN = unknown.
        actuator_position: driver steps; 0 where there are none.
        exposure_time_s, gain: 0 = unknown.
        problem: why the focus is unknown, a cause for counters; '' where it is known.
    """

    focus_diopters: float
    actuator_position: int = 0
    exposure_time_s: float = 0.0
    gain: float = 0.0
    problem: str = ""


def report_from_diagnostics(array: DiagnosticArray, *, key: str, status_name: str
                            ) -> FocusReport | None:
    """Read the focus of the image with the array's stamp, as camera_ros publishes it.

    Args:
        array: its header is that of the image.
        key: of the focus in dioptres.
        status_name: must be part of the status's name or hardware_id (camera_ros leaves the name
            empty); '' = the first status with the key.

    Returns:
        The report, with exposure time and gain where libcamera's controls are there too, or None
        where the array is none of ours.

    Raises:
        InputError: focus_not_a_number or focus_impossible.
    """
    for status in array.status:
        if status_name not in status.name and status_name not in status.hardware_id:
            continue
        values = {item.key: item.value for item in status.values}
        if key in values:
            return FocusReport(
                _focus(values[key], key, status),
                exposure_time_s=_optional(values, "ExposureTime") * 1e-6,  # libcamera: µs
                gain=_optional(values, "AnalogueGain") * (_optional(values, "DigitalGain") or 1.0))
    return None


def _focus(text: str, key: str, status: DiagnosticStatus) -> float:
    where = f"{key} = {text!r} of {status.name or status.hardware_id or 'a nameless status'}"
    try:
        focus = float(text)
    except ValueError:
        raise InputError("focus_not_a_number", DIAGNOSTICS, f"{where}: must be a number in "
                         "dioptres; check diagnostics.key and the driver") from None
    if not (math.isfinite(focus) and focus >= 0):
        raise InputError("focus_impossible", DIAGNOSTICS, f"{where}: must be finite and >= 0 "
                         "(0 = infinity); check the driver")
    return focus


def _optional(values: dict[str, Any], key: str) -> float:
    try:
        number = float(values.get(key, 0.0))
    except ValueError:
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


@dataclass(frozen=True)
class FocusTable:
    """Focus of an actuator at some driver steps; linear between, unknown outside.

    Attributes:
        steps: rising. diopters: focus there, 1/m, rising or falling.
    """

    steps: tuple[float, ...]
    diopters: tuple[float, ...]

    def report(self, steps: int) -> FocusReport:
        """Return the focus at a position of the actuator.

        Raises:
            InputError: outside_table.
        """
        if not self.steps[0] <= steps <= self.steps[-1]:
            raise InputError("outside_table", ACTUATOR, f"position = {steps} steps: must be in "
                             f"{self.steps[0]:g} to {self.steps[-1]:g}; extend table.steps and "
                             "table.diopters")
        return FocusReport(float(np.interp(steps, self.steps, self.diopters)), steps)


def told_state(focus_diopters: float, values: Mapping[str, Any], origin: int) -> LensState:
    """Return a LensState, without header, of a focus that somebody told (1/m; NaN = nobody did).

    Args:
        focus_diopters: see above. values: lens.* and focus_calibration are used.
        origin: one of LensState.ORIGIN_*.
    """
    unknown = math.nan
    state = LensState(
        focus_diopters=focus_diopters, focus_diopters_start=unknown, focus_diopters_end=unknown,
        focus_diopters_stddev=unknown, lens_motion=LensState.MOTION_UNKNOWN,
        focal_length_m=values["lens.focal_length_m"], f_number=values["lens.f_number"],
        pixel_pitch_x_m=values["lens.pixel_pitch_m"], pixel_pitch_y_m=values["lens.pixel_pitch_m"])
    if not math.isnan(focus_diopters):
        state.focus_origin = origin
        state.focus_calibration = CALIBRATION_LEVELS.index(values["focus_calibration"])
    return state


def bridged_state(report: FocusReport, values: Mapping[str, Any]) -> LensState:
    """Return the LensState, without header, of a report, by the parameters of the bridge."""
    state = told_state(report.focus_diopters, values, ORIGINS.index(values["focus_origin"]))
    if not report.problem:
        state.focus_diopters_stddev = values["focus_stddev_diopters"] or math.nan
    state.exposure_time_s, state.gain = report.exposure_time_s, report.gain
    state.actuator_position = report.actuator_position
    return state


def commanded_state(focus_diopters: float, values: Mapping[str, Any]) -> LensState:
    """Return the LensState, without header, of a lens of which only the command is known."""
    return told_state(focus_diopters, values, LensState.ORIGIN_COMMANDED)
