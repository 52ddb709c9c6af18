"""What a calibration found, as the lines of a camera file (config/cameras/NAME.yaml)."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from depth_fusion_ros.evaluation.lens_bench_fit import CameraCalibration
from depth_fusion_ros.optics.calibration_file import CalibrationError

DIGITS = 6
Parameters = dict[str, float | int | bool | str]


def depth_parameters(result: CameraCalibration) -> Parameters:
    """Parameters of the depth nodes; only what was measured."""
    found: Parameters = {"lens.focus_source": "lens_state",
                         "lens.diopter_scale": _number(result.scale),
                         "lens.diopter_offset": _number(result.offset),
                         "lens.focus_sigma_diopters": _number(focus_sigma_diopters(result))}
    if result.sweep is not None:
        found["lens.breathing_per_diopter"] = _number(result.sweep.breathing)
        found["lens.breathing_reference_diopters"] = _number(max(result.reference_diopters, 0.0))
    if (dual := result.dual_pixel) is not None:
        found["dp.parallax_axis"] = dual.axis
        found["dp.swap_views"] = dual.swap_views
        if dual.kappa is not None:
            found["lens.kappa"] = _number(dual.kappa)
        field = dual.calibration.gain_field
        if field is not None:
            rounded = {name: _number(value) for name, value in field.to_dict().items()}
            found["lens.gain_field"] = yaml.safe_dump(rounded, default_flow_style=True).strip()
    return found


def driver_parameters(result: CameraCalibration) -> Parameters:
    """Parameters of the nodes that drive the lens or report its state."""
    found: Parameters = {"focus_calibration": "calibrated"}
    if result.latency is not None and result.latency.frames is not None:
        found["lens.latency_frames"] = result.latency.frames
    return found


def focus_sigma_diopters(result: CameraCalibration) -> float:
    """Standard deviation of a focus: scatter and error of the peaks, hysteresis either way."""
    if result.sweep is not None:
        scatter = float(np.sqrt(np.mean(result.sweep.residuals_diopters**2)))
        return math.hypot(scatter, result.sweep.hysteresis or 0.0, result.peak_error_diopters)
    assert result.dual_pixel is not None
    error = result.dual_pixel.calibration.focus_std_diopters
    return error if math.isfinite(error) else 0.0


def camera_file_text(result: CameraCalibration, name: str, source: str) -> str:
    """Text of the camera file.

    Args:
        name: of the camera. source: what it was calibrated from, in words.
    """
    comments = [f"{name}: calibrated by `depth-fusion calibrate-lens` from {source}.",
                f"Board: {result.board}."]
    sweep, dual = result.sweep, result.dual_pixel
    if sweep is not None:
        worst = float(np.abs(sweep.residuals_diopters).max())
        comments.append(
            f"Dioptres: scale +- {sweep.scale_error:.2g}, offset +- {sweep.offset_error:.2g} D; "
            f"{len(sweep.poses)} board distances, largest residual {worst:.3f} D.")
        if sweep.hysteresis is not None:
            comments.append(f"Hysteresis: the lens stops {sweep.hysteresis:.3f} +- "
                            f"{sweep.hysteresis_error:.2g} D short; it is in focus_sigma.")
    if dual is not None:
        c = dual.calibration
        comments.append(
            f"Dual pixels: k = {c.gain_px_m:.4g} +- {c.gain_std_px_m:.2g} px*m at the centre of "
            f"{c.width_px} x {c.height_px} views, residual {c.residual_px:.3f} px.")
        if dual.kappa is None:
            comments.append("lens.kappa is missing: LensState has no focal length, f-number or "
                            "pixel pitch. kappa = k / (f^2 / (N p) / (1 - f D)).")
    comments += result.notes
    lines = [f"# {line}" for comment in comments for line in _wrapped(comment)]
    lines += _section("/**", depth_parameters(result))
    if sweep is not None:
        lines.append("# The same reports, from whichever node publishes them:")
        for node in ("lens_state_bridge", "focus_sweep_controller"):
            lines += _section(f"/**/{node}", driver_parameters(result))
    return "\n".join(lines) + "\n"


def write_camera_file(path: Path, text: str, *, overwrite: bool) -> None:
    """Write the file, whole or not at all.

    Raises:
        CalibrationError: it is there and may not be replaced, or cannot be written.
    """
    check_free(path, overwrite=overwrite)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise CalibrationError(f"camera file {path}: cannot be written ({error}); choose another "
                               "folder with --out") from None


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that is there.

    Raises:
        CalibrationError: unless `overwrite`.
    """
    if path.exists() and not overwrite:
        raise CalibrationError(f"{path} exists and is left as it is: choose another --name, or "
                               "replace it with --overwrite")


def _section(node: str, parameters: Parameters) -> list[str]:
    return [f"{node}:", "  ros__parameters:",
            *(f"    {name}: {_yaml(value)}" for name, value in parameters.items())]


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _number(value: float) -> float:
    """Six digits; a float in YAML must have its point."""
    short = float(f"{value:.{DIGITS}g}")
    return 0.0 if abs(short) < 1e-4 else round(short, DIGITS)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 96)


__all__ = ["camera_file_text", "check_free", "depth_parameters", "driver_parameters",
           "write_camera_file"]
