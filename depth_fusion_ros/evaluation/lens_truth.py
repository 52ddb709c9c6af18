"""A calibration of a simulated camera against its truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from depth_fusion_ros.evaluation.lens_bench_fit import CameraCalibration
from depth_fusion_ros.simulation.lens_bench import BenchCamera, BenchPlan, bench_truth

SCALE_RATIO = GAIN_RATIO = 0.02
OFFSET_DIOPTERS = 0.05
BREATHING_PER_DIOPTER = 0.005


@dataclass(frozen=True)
class TruthRow:
    """One quantity: texts of truth, estimate, error and target; met: None = there is no target.

    ratio: of the error to what the calibration says of it (±); None where it says nothing.
    """

    quantity: str
    truth: str
    estimate: str
    error: str
    target: str
    met: bool | None
    ratio: float | None = None

    def cells(self) -> tuple[str, ...]:
        """Return it as a line of a table; its heads are `lens_page.TRUTH_HEADS`."""
        missed = " MISSED" if self.met is False else ""
        ratio = "" if self.ratio is None else f"{self.ratio:.1f}"
        return (self.quantity, self.truth, self.estimate, self.error, ratio,
                self.target + missed)


def truth_rows(result: CameraCalibration, camera: BenchCamera, plan: BenchPlan) -> list[TruthRow]:
    """Compare; a part that was not found has missed its target."""
    rows: list[TruthRow] = []
    sweep, dual = result.sweep, result.dual_pixel
    if sweep is not None:
        ratio, apart = sweep.scale / camera.scale - 1, sweep.offset - camera.offset
        grown = sweep.breathing - camera.breathing_per_diopter
        frames = result.latency.frames if result.latency is not None else None
        stuck = 0.0 if sweep.hysteresis is None else sweep.hysteresis
        rows += [
            TruthRow("scale", f"{camera.scale:.3f}", f"{sweep.scale:.3f}", f"{100 * ratio:+.2f} %",
                     "2 %", abs(ratio) <= SCALE_RATIO,
                     _ratio(sweep.scale - camera.scale, sweep.scale_error)),
            TruthRow("offset (D)", f"{camera.offset:+.3f}", f"{sweep.offset:+.3f}",
                     f"{apart:+.3f} D", "0.05 D", abs(apart) <= OFFSET_DIOPTERS,
                     _ratio(apart, sweep.offset_error)),
            TruthRow("latency (images)", f"{camera.latency_frames}", f"{frames}",
                     "none" if frames == camera.latency_frames else "wrong", "exact",
                     frames == camera.latency_frames),
            TruthRow("breathing (%/D)", f"{100 * camera.breathing_per_diopter:+.2f}",
                     f"{100 * sweep.breathing:+.2f}",
                     f"{100 * grown:+.3f} ({_relative(grown, camera.breathing_per_diopter)})",
                     "0.5 %/D", abs(grown) <= BREATHING_PER_DIOPTER,
                     _ratio(grown, sweep.breathing_error)),
            TruthRow("hysteresis (D)", f"{camera.hysteresis_diopters:.3f}", f"{stuck:.3f}",
                     f"{stuck - camera.hysteresis_diopters:+.3f} D", "", None,
                     _ratio(stuck - camera.hysteresis_diopters, sweep.hysteresis_error))]
    if plan.dual_pixel_focus_diopters > 0:
        truth = bench_truth(camera, plan)
        k = dual.calibration.gain_px_m if dual else float("nan")
        (term, value), = truth.gain_field.items()
        field = dual.calibration.gain_field if dual else None
        found = field.to_dict().get(term, float("nan")) if field else float("nan")
        rows += [
            TruthRow("k (px m)", f"{truth.gain_px_m:.3f}", f"{k:.3f}",
                     f"{100 * (k / truth.gain_px_m - 1):+.2f} %", "2 %",
                     abs(k / truth.gain_px_m - 1) <= GAIN_RATIO,
                     _ratio(k - truth.gain_px_m,
                            dual.calibration.gain_std_px_m if dual else None)),
            TruthRow(f"field of k ({term})", f"{value:+.3f}", f"{found:+.3f}",
                     f"{found - value:+.3f}", "", None,
                     _ratio(found - value, dual.calibration.field_std[0] if field and dual
                            else None)),
            TruthRow("axis", camera.axis, dual.axis if dual else "?",
                     "none" if dual and dual.axis == camera.axis else "wrong", "exact",
                     bool(dual and dual.axis == camera.axis)),
            TruthRow("views exchanged", _yes(camera.swap_views),
                     _yes(dual.swap_views) if dual else "?",
                     "none" if dual and dual.swap_views == camera.swap_views else "wrong", "exact",
                     bool(dual and dual.swap_views == camera.swap_views))]
    return rows


def covered(rows: Sequence[TruthRow]) -> str:
    """Sentence on how many errors are within once and twice what was said of them."""
    ratios = [row.ratio for row in rows if row.ratio is not None]
    once, twice = (sum(ratio <= limit for ratio in ratios) for limit in (1, 2))
    return (f"errors within their ±: {once} of {len(ratios)}, within twice: {twice} "
            "(for normal errors 68 % and 95 %)")


def _ratio(error: float, stated: float | None) -> float | None:
    known = stated is not None and math.isfinite(stated) and stated > 0 and math.isfinite(error)
    return abs(error) / stated if known and stated else None


def _relative(error: float, truth: float) -> str:
    return f"{100 * error / truth:+.1f} % of it" if truth else "of 0"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


__all__ = ["TruthRow", "covered", "truth_rows"]
