"""The HTML page of a lens calibration: one file, no network, readable at first sight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from depth_fusion_ros.evaluation.camera_file import focus_sigma_diopters
from depth_fusion_ros.evaluation.lens_bench_fit import CameraCalibration
from depth_fusion_ros.evaluation.lens_pictures import pictures
from depth_fusion_ros.evaluation.page_figures import inline_png

TRUTH_HEADS = ("what", "truth", "estimate", "error", "error / ±", "target")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } th, td { text-align: left;
       padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
figure { margin: 2rem 0 } figcaption { color: #555 } img { max-width: 100%; height: auto }
.note { background: #fff4e5; border-left: 4px solid #c44e00; padding: .4rem .8rem; margin: .4rem 0 }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: 13px }
"""


@dataclass(frozen=True)
class Row:
    """A line of the result: quantity, value with its unit, one standard error, what it does."""

    quantity: str
    value: str
    error: str
    meaning: str


def result_rows(result: CameraCalibration) -> list[Row]:
    """Return what was found, in words; the same rows for terminal and page."""
    rows: list[Row] = []
    sweep, dual, latency = result.sweep, result.dual_pixel, result.latency
    if sweep is not None:
        rows += [
            Row("dioptre scale", f"{sweep.scale:.4f}", f"{sweep.scale_error:.4f}",
                "true focus = scale x reported + offset (lens.diopter_scale)"),
            Row("dioptre offset", f"{sweep.offset:+.3f} D", f"{sweep.offset_error:.3f}",
                "lens.diopter_offset"),
            Row("focus breathing", f"{100 * sweep.breathing:+.2f} %/D",
                f"{100 * sweep.breathing_error:.2f}",
                "growth of the picture per dioptre (lens.breathing_per_diopter)"),
            Row("hysteresis", "not measured" if sweep.hysteresis is None
                else f"{sweep.hysteresis:+.3f} D",
                "" if sweep.hysteresis is None else f"{sweep.hysteresis_error:.3f}",
                "by how much the lens stops short, either way"),
            Row("largest residual", f"{np.abs(sweep.residuals_diopters).max():.3f} D", "",
                f"of {len(sweep.residuals_diopters)} peaks at {len(sweep.poses)} distances"),
        ]
    if latency is not None:
        rows.append(Row("latency", "not measured" if latency.frames is None
                        else f"{latency.frames} images",
                        "" if latency.frames is None else ("clear" if latency.clear else "unsure"),
                        "from a report to the image that shows it (lens.latency_frames)"))
    if dual is not None:
        c = dual.calibration
        field = "the same everywhere" if c.gain_field is None else ", ".join(
            f"{name}: {value:+.3f}" for name, value in c.gain_field.to_dict().items())
        rows += [
            Row("parallax axis", dual.axis, "", "dp.parallax_axis"),
            Row("views exchanged", "yes" if dual.swap_views else "no", "", "dp.swap_views"),
            Row("gain k", f"{c.gain_px_m:.4f} px m", f"{c.gain_std_px_m:.4f}",
                f"px of disparity per dioptre at the centre of {c.width_px} x {c.height_px}"),
            Row("kappa", "unknown" if dual.kappa is None else f"{dual.kappa:.4f}", "",
                "k over the blur gain of the lens (lens.kappa)"),
            Row("field of k", field, ", ".join(f"{e:.3f}" for e in c.field_std),
                "k relative to the centre, over the image (lens.gain_field)"),
            Row("focus of the pairs", f"{c.focus_diopters:.3f} D", f"{c.focus_std_diopters:.3f}",
                f"found by the views; dioptres say "
                f"{result.scale * dual.reported_diopters + result.offset:.3f} D"),
            Row("residual of disparity", f"{c.residual_px:.3f} px", "",
                f"of single pixels, {dual.sets} sets"),
        ]
    rows.append(Row("sigma of the focus", f"{focus_sigma_diopters(result):.3f} D", "",
                    "residuals, hysteresis and the peaks' ± (lens.focus_sigma_diopters)"))
    return rows


def calibration_page(result: CameraCalibration, name: str, source: str, camera_file: str,
                     truth: Sequence[Sequence[str]] = ()) -> str:
    """Return the page as HTML.

    Args:
        name: of the camera. source: what it was calibrated from. camera_file: its text.
        truth: of a simulated camera: rows of `TRUTH_HEADS`.
    """
    parts = [f"<h1>Lens calibration: {escape(name)}</h1>",
             f"<p>From {escape(source)}. Board: {escape(result.board)}.</p>",
             *(f'<p class="note">{escape(note)}</p>' for note in result.notes),
             _table(("what", "value", "± (one standard error)", "meaning"),
                    [(r.quantity, r.value, r.error, r.meaning) for r in result_rows(result)],
                    numbers=(1, 2))]
    if truth:
        parts += ["<h2>Against the truth (simulated camera)</h2>",
                  _table(TRUTH_HEADS, truth, numbers=(1, 2, 3, 4))]
    for title, caption, png in pictures(result):
        parts.append(f'<figure><h2>{escape(title)}</h2><img alt="{escape(title)}" '
                     f'src="{inline_png(png)}"><figcaption>{escape(caption)}'
                     "</figcaption></figure>")
    parts += ["<h2>Camera file</h2>", f"<pre>{escape(camera_file)}</pre>"]
    return ("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
            "<meta name=\"viewport\" content=\"width=device-width\">"
            f"<title>Lens calibration: {escape(name)}</title><style>{STYLE}</style></head>\n<body>"
            + "\n".join(parts) + "</body></html>\n")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in heads)
    body = "".join(
        "<tr>" + "".join(f'<td class="number">{escape(cell)}</td>' if i in numbers
                         else f"<td>{escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


__all__ = ["TRUTH_HEADS", "Row", "calibration_page", "result_rows"]
