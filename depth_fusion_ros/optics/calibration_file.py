"""What a calibration of a dual-pixel lens found, and its YAML file.

The file has one section, ``lens_calibration``, and stands beside the camera file
(``config/cameras/*.yaml``); `LensCalibration.camera_parameters` gives the lines of the camera file
that follow from it. A focus field is not a ROS parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from depth_fusion_ros.optics.gain_field import FieldPolynomial, check_gain_field
from depth_fusion_ros.optics.thin_lens import ThinLens

SECTION = "lens_calibration"
DIGITS = 6


class CalibrationError(ValueError):
    """A calibration that cannot be made, read or applied; the text says what to do."""


@dataclass(frozen=True)
class LensCalibration:
    """k and focus of a lens at one focus setting and aperture, and how they vary over the image.

    Attributes:
        gain_px_m: k at the image centre, px of an image `width_px` wide, per dioptre; > 0.
        focus_diopters: focus at the image centre, 1/m, ≥ 0.
        gain_std_px_m, focus_std_diopters: standard errors of the two.
        gain_field: k relative to the centre's is 1 + gain_field; None = the same everywhere.
        focus_field: dioptres added to the focus; None = flat.
        field_std: standard errors of the terms of gain_field, then of focus_field.
        residual_px: robust standard deviation of single pixels around the fit.
        outlier_share: share of pixels that the fit set aside, 0..1.
        condition: of the normal equations with unit diagonal; 1 = parameters are independent,
            above about 1e4 single terms mean little (their sum may still fit).
        coverage: share of the image, counted in blocks, where at least one capture has pixels that
            took part.
        pixels: how many took part. nearest_m, farthest_m: distances they spanned.
        width_px, height_px: size of the images it was made on.
        source, date: where it comes from; free text.

    Raises:
        CalibrationError: a number is not finite or outside its range, or the gain field is not
            positive everywhere in the image.
    """

    gain_px_m: float
    focus_diopters: float
    width_px: int
    height_px: int
    gain_field: FieldPolynomial | None = None
    focus_field: FieldPolynomial | None = None
    gain_std_px_m: float = math.nan
    focus_std_diopters: float = math.nan
    field_std: tuple[float, ...] = ()
    residual_px: float = math.nan
    outlier_share: float = math.nan
    condition: float = math.nan
    coverage: float = math.nan
    pixels: int = 0
    nearest_m: float = math.nan
    farthest_m: float = math.nan
    source: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gain_px_m) and self.gain_px_m > 0):
            raise CalibrationError(
                f"calibration gain_px_m = {self.gain_px_m!r}: must be finite and > 0; negative "
                "means exchanged views (dp.swap_views)")
        if not (math.isfinite(self.focus_diopters) and self.focus_diopters >= 0):
            raise CalibrationError(
                f"calibration focus_diopters = {self.focus_diopters!r}: must be finite and >= 0; "
                "check the distances, they are metres")
        if self.width_px < 1 or self.height_px < 1:
            raise CalibrationError(
                f"calibration size {self.width_px}x{self.height_px} px: must be that of the "
                "images it was made on, for k counts their pixels")
        if self.gain_field is not None:
            try:
                check_gain_field(self.gain_field)
            except ValueError as error:
                raise CalibrationError(str(error)) from None

    def at_width(self, width_px: int) -> LensCalibration:
        """Return the calibration for the same field of view resampled to another width."""
        ratio = width_px / self.width_px
        return replace(self, gain_px_m=self.gain_px_m * ratio, width_px=width_px,
                       height_px=max(1, round(self.height_px * ratio)),
                       gain_std_px_m=self.gain_std_px_m * ratio,
                       residual_px=self.residual_px * ratio)

    def apply(self, lens: ThinLens, *, focus_repeatability_diopters: float = 0.0) -> ThinLens:
        """Return `lens` with the focus, κ, fields and their errors; its pitch is of this width.

        The κ found holds for the f-number and focus of the calibration: soft splits have a κ that
        falls as the aperture closes.

        Args:
            focus_repeatability_diopters: how far the lens may be from this focus when it was
                refocused since; added in squares to the error of the calibration.
        """
        known = [0.0 if math.isnan(e) else e for e in (self.focus_std_diopters, self.gain_std_px_m)]
        focused = replace(
            lens, focus_diopters=self.focus_diopters, gain_field=self.gain_field,
            focus_field=self.focus_field,
            focus_sigma_diopters=math.hypot(known[0], focus_repeatability_diopters),
            gain_sigma_ratio=known[1] / self.gain_px_m)
        return replace(focused, kappa=self.gain_px_m / focused.blur_gain_px_m)

    def camera_parameters(self, lens: ThinLens) -> dict[str, float | str]:
        """Lines of the camera file that follow; a focus field, which no line holds, is averaged."""
        centre = self.apply(lens)
        if self.focus_field is not None:
            offset = self.focus_field.mean
            centre = replace(centre, focus_diopters=max(centre.focus_diopters + offset, 0.0))
        field = "" if self.gain_field is None else yaml.safe_dump(
            _rounded(self.gain_field.to_dict()), default_flow_style=True).strip()
        return {"lens.focus_source": "constant",
                "lens.focus_diopters": round(centre.focus_diopters, DIGITS),
                "lens.focal_length_m": lens.focal_length_m, "lens.f_number": lens.f_number,
                "lens.pixel_pitch_m": lens.pixel_pitch_m,
                "lens.kappa": round(centre.kappa, DIGITS), "lens.gain_field": field}

    def to_dict(self) -> dict[str, Any]:
        """Plain values; numbers that are not known and absent fields are left out."""
        values = asdict(self)
        values.update(gain_field=self.gain_field and self.gain_field.to_dict(),
                      focus_field=self.focus_field and self.focus_field.to_dict(),
                      field_std=list(self.field_std))
        return {name: _rounded(value) for name, value in values.items()
                if not (value is None or value in ("", []) or _is_nan(value))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LensCalibration:
        """Inverse of `to_dict`.

        Raises:
            CalibrationError: a name is unknown or missing, or a value is of the wrong kind.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        missing = sorted({"gain_px_m", "focus_diopters", "width_px", "height_px"} - set(values))
        if unknown or missing:
            raise CalibrationError(
                f"{SECTION}: unknown {unknown}, missing {missing}; known are {sorted(known)}")
        plain = dict(values)
        for name, value in values.items():
            if name in ("gain_field", "focus_field"):
                if not isinstance(value, Mapping):
                    raise CalibrationError(f"{SECTION}.{name} = {value!r}: must map terms to "
                                           "numbers, such as {x2: -0.6}")
                try:
                    plain[name] = FieldPolynomial.from_dict(value)
                except ValueError as error:
                    raise CalibrationError(f"{SECTION}.{name}: {error}") from None
            elif name == "field_std":
                plain[name] = tuple(float(v) for v in value)
            elif name in ("source", "date"):
                plain[name] = str(value)
            elif isinstance(value, bool) or not isinstance(value, (int, float)):
                raise CalibrationError(f"{SECTION}.{name} = {value!r}: must be a number")
        return cls(**plain)

    def to_yaml(self, path: Path) -> Path:
        """Write the file and return its path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({SECTION: self.to_dict()}, sort_keys=False))
        return path

    @classmethod
    def from_yaml(cls, path: Path) -> LensCalibration:
        """Read a file written by `to_yaml`, or by hand.

        Raises:
            CalibrationError: it cannot be read, or `from_dict` refuses its section.
        """
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise CalibrationError(f"calibration {path}: cannot be read ({error})") from error
        section = content.get(SECTION) if isinstance(content, dict) else None
        if not isinstance(section, dict):
            raise CalibrationError(f"calibration {path}: has no section {SECTION}; take the file "
                                   "that the calibration wrote")
        try:
            return cls.from_dict(section)
        except CalibrationError as error:
            raise CalibrationError(f"calibration {path}: {error}") from None


def _rounded(value: Any) -> Any:
    """Floats to seven significant digits, within containers too."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS + 1}g}")
    if isinstance(value, dict):
        return {name: _rounded(v) for name, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, (list, tuple)) else value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
