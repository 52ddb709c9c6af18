"""The focus camera of `synthetic_camera`: exposures of `simulation/focus_camera.py` as messages.

Topics: ``sweep/image_raw`` (rgb8), ``sweep/camera_info`` (its fx breathes), ``lens_state`` (unless
``lens.report`` is none), ``ground_truth/depth`` (truth at the magnification of a focus at
infinity), and with ``publish_lens_diagnostics`` ``/diagnostics`` as camera_ros fills it: the
header of the image, a status without name, numbers as text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.lens import lens_to_state
from depth_fusion_ros.ros.messages import array_to_image, intrinsics_to_camera_info, stamp_to_ns
from depth_fusion_ros.simulation.focus_camera import (
    FocusCameraOptions,
    FocusDrivenCamera,
    FocusExposure,
    render_focus_stack,
)
from depth_fusion_ros.simulation.lens_drive import LensDriveOptions
from depth_fusion_ros.simulation.sequence import preset_lens

IMAGE, INFO, LENS, TRUTH = ("sweep/image_raw", "sweep/camera_info", "lens_state",
                            "ground_truth/depth")
DIAGNOSTICS = "/diagnostics"
_UNKNOWN = float("nan")


def focus_topics(values: Mapping[str, Any]) -> dict[str, type]:
    """Topic -> message type of what the focus camera publishes with these parameters."""
    topics: dict[str, type] = {INFO: CameraInfo, IMAGE: Image, TRUTH: Image}
    if values["lens.report"] != "none":
        topics[LENS] = LensState
    if values["publish_lens_diagnostics"]:
        topics[DIAGNOSTICS] = DiagnosticArray
    return topics


class FocusSource:
    """Renders the scene when made; `messages` then takes one exposure after the other."""

    def __init__(self, values: Mapping[str, Any], progress: Callable[[int, int], bool | None]
                 ) -> None:
        """Render; seconds to a minute.

        Args:
            values: the parameters of synthetic_camera.
            progress: called with positions done and wanted; True stops.

        Raises:
            InterruptedError: `progress` returned True.
            ValueError: numbers that no camera has.
        """
        options = FocusCameraOptions(
            drive=LensDriveOptions(
                latency_s=values["lens.latency_s"],
                slew_diopters_per_s=values["lens.slew_diopters_per_s"],
                hysteresis_diopters=values["lens.hysteresis_diopters"],
                far_diopters=values["lens.far_diopters"],
                near_diopters=values["lens.near_diopters"]),
            positions=values["focus.positions"],
            aperture_samples=values["focus.aperture_samples"],
            breathing_per_diopter=values["lens.breathing_per_diopter"],
            exposure_s=values["exposure_s"],
            drift_px_per_s=(values["drift_px_per_s"], 0.0),
            seed=values["seed"])
        stack = render_focus_stack(
            preset_lens(values["camera"], 0.0), values["width_px"], values["height_px"], options,
            device=values["device"], progress=progress)
        self._report, self._exposure_s = values["lens.report"], values["exposure_s"]
        self._hardware = f"simulated {values['camera']}"
        self._with_diagnostics = values["publish_lens_diagnostics"]
        self._lens = stack.lens
        self._camera = FocusDrivenCamera(stack, options, values["lens_position_diopters"])

    def command(self, diopters: float) -> None:
        """Drive the lens, 1/m."""
        self._camera.command(diopters, time.monotonic())

    def messages(self, header: Header) -> dict[str, Any]:
        """Take an exposure: topic -> message, all with `header`, in the order of publication."""
        exposure = self._camera.expose(time.monotonic())
        made: dict[str, Any] = {INFO: intrinsics_to_camera_info(exposure.intrinsics, header)}
        if self._report != "none":
            made[LENS] = self._state(exposure, header)
        if self._with_diagnostics:
            made[DIAGNOSTICS] = self._diagnostics(exposure, header)
        made[IMAGE] = array_to_image(exposure.image, "rgb8", header)
        made[TRUTH] = array_to_image(self._camera.depth_m, "32FC1", header)
        return made

    def _state(self, exposure: FocusExposure, header: Header) -> LensState:
        state = lens_to_state(self._lens.refocused(exposure.focus_diopters), header)
        state.exposure_time_s, state.gain = self._exposure_s, 1.0
        if self._report == "encoder":
            state.focus_diopters_start = exposure.focus_start_diopters
            state.focus_diopters_end = exposure.focus_end_diopters
            state.lens_motion = (LensState.MOTION_MOVING if exposure.moving
                                 else LensState.MOTION_STATIONARY)
            return state
        state.focus_diopters = exposure.commanded_diopters
        state.focus_diopters_start = state.focus_diopters_end = _UNKNOWN
        state.focus_diopters_stddev = _UNKNOWN
        state.focus_origin = LensState.ORIGIN_COMMANDED
        state.focus_calibration = LensState.CALIBRATION_APPROXIMATE
        state.lens_motion = LensState.MOTION_UNKNOWN
        return state

    def _diagnostics(self, exposure: FocusExposure, header: Header) -> DiagnosticArray:
        values = {
            "ExposureTime": f"{self._exposure_s * 1e6:.0f}",
            "AnalogueGain": "1.000000",
            "LensPosition": f"{exposure.commanded_diopters:.6f}",
            "SensorTimestamp": str(stamp_to_ns(header.stamp)),
        }
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK, hardware_id=self._hardware,
            values=[KeyValue(key=key, value=value) for key, value in values.items()])
        return DiagnosticArray(header=header, status=[status])
