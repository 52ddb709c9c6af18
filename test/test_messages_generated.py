"""The generated messages have the fields and constants that the definitions promise."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import pytest

if importlib.util.find_spec("rclpy") is None:
    pytest.skip("needs rclpy", allow_module_level=True)

from rclpy.serialization import deserialize_message, serialize_message

from depth_fusion_ros.msg import FrameReport, LensState

pytestmark = pytest.mark.ros

LENS_STATE_FIELDS = {
    "header": "std_msgs/Header",
    "focus_diopters": "float",
    "focus_diopters_start": "float",
    "focus_diopters_end": "float",
    "focus_diopters_stddev": "float",
    "focus_calibration": "uint8",
    "focus_origin": "uint8",
    "lens_motion": "uint8",
    "focal_length_m": "float",
    "f_number": "float",
    "pixel_pitch_x_m": "float",
    "pixel_pitch_y_m": "float",
    "exposure_time_s": "float",
    "gain": "float",
    "actuator_position": "int32",
    "sweep_id": "uint32",
    "sweep_index": "uint16",
    "sweep_size": "uint16",
}

FRAME_REPORT_FIELDS = {
    "header": "std_msgs/Header",
    "sequence": "uint64",
    "inputs_stamp": "builtin_interfaces/Time",
    "scale_state": "uint8",
    "model_id": "string",
    "stage_names": "sequence<string>",
    "stage_ms": "sequence<float>",
    "latency_ms": "float",
    "valid_ratio": "float",
    "prior_only_ratio": "float",
    "saturated_ratio": "float",
    "textureless_ratio": "float",
    "median_sigma_ratio": "float",
    "sweep_motion_px": "float",
    "slices_used": "uint16",
    "sweep_coverage_diopters": "float",
    "sweep_largest_gap_diopters": "float",
    "sets_received": "uint64",
    "dropped_busy": "uint64",
    "dropped_unsynced": "uint64",
    "dropped_stale": "uint64",
    "dropped_invalid": "uint64",
    "degrade_level": "uint8",
    "gpu_mem_mb": "float",
}

CONSTANTS = [
    (
        LensState,
        {
            "CALIBRATION_UNKNOWN": 0,
            "CALIBRATION_UNCALIBRATED": 1,
            "CALIBRATION_APPROXIMATE": 2,
            "CALIBRATION_CALIBRATED": 3,
            "ORIGIN_UNKNOWN": 0,
            "ORIGIN_COMMANDED": 1,
            "ORIGIN_ENCODER": 2,
            "ORIGIN_ESTIMATED": 3,
            "MOTION_UNKNOWN": 0,
            "MOTION_STATIONARY": 1,
            "MOTION_MOVING": 2,
        },
    ),
    (
        FrameReport,
        {
            "SCALE_UNKNOWN": 0,
            "SCALE_ABSOLUTE": 1,
            "SCALE_ANCHORED": 2,
            "SCALE_NOMINAL": 3,
            "SCALE_RELATIVE": 4,
        },
    ),
]


@pytest.mark.parametrize(
    ("message", "fields"), [(LensState, LENS_STATE_FIELDS), (FrameReport, FRAME_REPORT_FIELDS)]
)
def test_fields_have_the_promised_order_and_types(message: Any, fields: dict[str, str]) -> None:
    assert list(message.get_fields_and_field_types().items()) == list(fields.items())


@pytest.mark.parametrize(("message", "constants"), CONSTANTS)
def test_constants_have_the_promised_values(message: Any, constants: dict[str, int]) -> None:
    assert {name: getattr(message, name) for name in constants} == constants


def test_unknown_is_what_an_empty_message_says() -> None:
    state, report = LensState(), FrameReport()
    assert state.focus_calibration == LensState.CALIBRATION_UNKNOWN
    assert state.focus_origin == LensState.ORIGIN_UNKNOWN
    assert state.lens_motion == LensState.MOTION_UNKNOWN
    assert report.scale_state == FrameReport.SCALE_UNKNOWN


def test_values_survive_serialisation_with_the_limits_of_their_types() -> None:
    state = LensState(
        focus_diopters=1.5,
        focus_diopters_stddev=math.nan,
        actuator_position=-(2**31),
        sweep_id=2**32 - 1,
        sweep_index=2**16 - 1,
    )
    state.header.frame_id = "camera_optical_frame"
    copy = deserialize_message(serialize_message(state), LensState)
    assert copy.header == state.header
    assert copy.focus_diopters == 1.5
    assert math.isnan(copy.focus_diopters_stddev)
    assert (copy.actuator_position, copy.sweep_id, copy.sweep_index) == (-(2**31), 2**32 - 1, 65535)

    report = FrameReport(
        sequence=2**64 - 1,
        stage_names=["upload", "inference"],
        stage_ms=[0.5, 12.25],
        dropped_busy=7,
    )
    assert deserialize_message(serialize_message(report), FrameReport) == report
