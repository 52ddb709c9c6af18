"""LensState message and lens.* parameters -> `ThinLens` and how far its metres can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import yaml

from depth_fusion_ros.estimation.estimate import ScaleState
from depth_fusion_ros.msg import LensState
from depth_fusion_ros.optics.gain_field import FieldPolynomial, check_gain_field
from depth_fusion_ros.optics.thin_lens import ThinLens
from depth_fusion_ros.ros.messages import InputError

TOPIC = "lens_state"
_DISCOVERY_S = 0.3
"""How long a source's publisher of lens_state may take to be discovered; below input.max_age_s."""
_NEW_SOURCE_S = 5.0


class LensExpectation:
    """Whether sets wait for a lens state: as long as somebody publishes it.

    The middleware discovers the publishers of a camera one after the other, and images may come
    before lens_state is known to have a publisher. For a moment after the first message of a source
    (one after silence) it is expected all the same, or its first sets would have no metres.
    """

    def __init__(self) -> None:
        """Expect it until the first message and `_DISCOVERY_S` are past."""
        self._began_s: float | None = None
        self._newest_s = -math.inf

    def message(self, now_s: float) -> None:
        """Note a message on any topic of the source; now_s: a monotonic clock."""
        if now_s - self._newest_s > _NEW_SOURCE_S:
            self._began_s = now_s
        self._newest_s = now_s

    def expected(self, now_s: float, publishers: int) -> bool:
        """Whether a set must wait for its lens state, where it has so many publishers."""
        begun = self._began_s is not None and now_s - self._began_s > _DISCOVERY_S
        return publishers > 0 or not begun


@dataclass(frozen=True)
class ResolvedLens:
    """What is known of the lens for one frame.

    Attributes:
        lens: None where a number is missing or its metres must not be published.
        scale_state: RELATIVE exactly where ``lens`` is None.
        reason: one sentence for diagnostics: where the metres come from, or why there are none.
        nominal: a lens whose numbers are known but must not make metres as they are; an anchor
            may correct them.
    """

    lens: ThinLens | None
    scale_state: ScaleState
    reason: str
    nominal: ThinLens | None = None


ANCHORED = ResolvedLens(None, ScaleState.ANCHORED, "metric: dioptres corrected by anchor/range")
"""What is said of a lens that an anchor corrects."""


def resolve_lens(state: LensState | None, values: Mapping[str, Any]) -> ResolvedLens:
    """Combine the lens state of a frame with the node's parameters.

    Parameters greater than 0 win over the message. Only LensState.CALIBRATION_CALIBRATED, or a
    constant focus given by the user, makes metres ABSOLUTE; other dioptres are NOMINAL where
    lens.allow_nominal permits and RELATIVE otherwise.

    Args:
        state: message of this frame, or None where nobody publishes `lens_state`.
        values: the parameters of dual_pixel_depth.

    Raises:
        InputError: lens_state_invalid, for numbers that no lens can have.
    """
    constant = values["lens.focus_source"] == "constant"
    numbers, missing = _numbers(state, values)
    if constant:
        focus_diopters = float(values["lens.focus_diopters"])
    elif state is None:
        return _relative("no message on lens_state and lens.focus_source is lens_state: publish "
                         "depth_fusion_ros/LensState, or set lens.focus_source to constant and "
                         "lens.focus_diopters, lens.focal_length_m, lens.f_number, "
                         "lens.pixel_pitch_m")
    elif math.isnan(state.focus_diopters):
        return _relative("lens_state focus_diopters = nan (unknown): the driver must report the "
                         "focus, or set lens.focus_source to constant")
    else:
        focus_diopters = (float(values["lens.diopter_scale"]) * state.focus_diopters
                          + float(values["lens.diopter_offset"]))
    if missing:
        return _relative(f"{', '.join(missing)} unknown (0 in LensState and in the parameters): "
                         "set " + ", ".join(f"lens.{name}" for name in missing))
    try:
        gain_field = parse_field(str(values["lens.gain_field"]))
    except ValueError as error:
        return _relative(f"lens.gain_field = {values['lens.gain_field']!r}: {error}")
    try:
        lens = ThinLens(focus_diopters=focus_diopters, kappa=float(values["lens.kappa"]),
                        gain_field=gain_field,
                        focus_sigma_diopters=float(values["lens.focus_sigma_diopters"]), **numbers)
    except ValueError as error:
        raise InputError("lens_state_invalid", TOPIC, str(error)) from None
    if constant:
        return ResolvedLens(lens, ScaleState.ABSOLUTE, "metric: constant lens from parameters")
    assert state is not None
    if math.isfinite(state.focus_diopters_stddev) and state.focus_diopters_stddev > 0:
        lens = replace(lens, focus_sigma_diopters=float(
            abs(values["lens.diopter_scale"]) * state.focus_diopters_stddev))
    if state.focus_calibration == LensState.CALIBRATION_CALIBRATED:
        return ResolvedLens(lens, ScaleState.ABSOLUTE, "metric: calibrated lens state")
    if values["lens.allow_nominal"]:
        return ResolvedLens(lens, ScaleState.NOMINAL,
                            "metric but nominal: the lens reports its dioptres as not calibrated")
    return ResolvedLens(
        None, ScaleState.RELATIVE, "the lens reports its dioptres as not calibrated "
        f"(focus_calibration = {state.focus_calibration}): calibrate it, set lens.allow_nominal, "
        "or give a known distance (anchor.enable)", lens)


@lru_cache(maxsize=8)
def parse_field(text: str) -> FieldPolynomial | None:
    """Field over the image from a parameter's text, such as "{x2: -1.09, x4: 0.58}"; "" = None.

    Raises:
        ValueError: not a mapping of known terms to numbers, or a gain that is not positive
            everywhere in the image.
    """
    if not text.strip():
        return None
    try:
        terms = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML ({error}); write it like {{x2: -1.09, x4: 0.58}}") from None
    if not isinstance(terms, dict):
        raise ValueError("must map terms to numbers, like {x2: -1.09, x4: 0.58}")
    field = FieldPolynomial.from_dict(terms)
    check_gain_field(field)
    return field


def _numbers(state: LensState | None, values: Mapping[str, Any]
             ) -> tuple[dict[str, Any], list[str]]:
    pitch = "pixel_pitch_x_m" if values["dp.parallax_axis"] == "x" else "pixel_pitch_y_m"
    numbers, missing = {}, []
    for name, field in (("focal_length_m", "focal_length_m"), ("f_number", "f_number"),
                        ("pixel_pitch_m", pitch)):
        value = float(values[f"lens.{name}"])
        if value == 0.0 and state is not None:
            value = float(getattr(state, field))
        if value == 0.0:
            missing.append(name)
        numbers[name] = value
    return numbers, missing


def _relative(reason: str) -> ResolvedLens:
    return ResolvedLens(None, ScaleState.RELATIVE, reason)


def lens_to_state(lens: ThinLens, header: Any) -> LensState:
    """Return the LensState of a calibrated, stationary simulated lens with square pixels."""
    return LensState(
        header=header,
        focus_diopters=lens.focus_diopters,
        focus_diopters_start=lens.focus_diopters,
        focus_diopters_end=lens.focus_diopters,
        focus_diopters_stddev=0.0,
        focus_calibration=LensState.CALIBRATION_CALIBRATED,
        focus_origin=LensState.ORIGIN_ENCODER,
        lens_motion=LensState.MOTION_STATIONARY,
        focal_length_m=lens.focal_length_m,
        f_number=lens.f_number,
        pixel_pitch_x_m=lens.pixel_pitch_m,
        pixel_pitch_y_m=lens.pixel_pitch_m,
    )
