"""Pictures beside a benchmark's tables: good, typical and bad cases, and whether sigma holds.

    gallery = Gallery("difuse_net_s")
    score(samples, methods, gallery.watch("ideal split, clean"))
    gallery.write(folder, "raytraced")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depth_fusion_ros.evaluation.contact_sheet import ContactSample, write_contact_sheet
from depth_fusion_ros.evaluation.methods import MAX_M, MIN_M, Method, MethodResult
from depth_fusion_ros.evaluation.metrics import depth_metrics
from depth_fusion_ros.evaluation.reliability import (
    Reliability,
    draw_reliability,
    measure_reliability,
)
from depth_fusion_ros.evaluation.samples import Sample

QUANTILES = {"good": 0.1, "typical": 0.5, "bad": 0.9}
"""Which images are shown, by their AbsRel: no best case and no worst, which luck decides."""


@dataclass(frozen=True)
class _Case:
    abs_rel: float
    row: ContactSample
    error_diopters: Any
    sigma_diopters: Any


class Gallery:
    """Watches one method over the sets of one kind of captures.

    Args:
        method: its name in the tables.
    """

    def __init__(self, method: str) -> None:
        self.method = method
        self._sets: dict[str, list[_Case]] = {}

    def watch(self, name: str) -> Callable[[Sample, Method, MethodResult], None]:
        """A `watch` of `benchmark.score` for the set of that name."""
        cases = self._sets.setdefault(name, [])

        def look(sample: Sample, method: Method, result: MethodResult) -> None:
            if method.name == self.method and result.depth_m is not None:
                cases.append(_case(sample, result))

        return look

    def write(self, folder: Path, kind: str) -> list[Path]:
        """Draw a sheet of cases per set, and one reliability diagram; returns their paths."""
        paths = []
        reliability: dict[str, Reliability] = {}
        for name, cases in self._sets.items():
            if not cases:
                continue
            rows = sorted(cases, key=lambda case: case.abs_rel)
            chosen = {label: rows[round(q * (len(rows) - 1))] for label, q in QUANTILES.items()}
            file = f"{kind}_{''.join(c if c.isalnum() else '_' for c in name)}.png"
            paths.append(write_contact_sheet(
                folder / file, [_labelled(case, label) for label, case in chosen.items()],
                title=f"{self.method}, {kind}: {name}; images at the 10th, 50th and 90th "
                      f"percentile of AbsRel among {len(rows)}"))
            if all(case.sigma_diopters is not None for case in rows):
                error, sigma = (np.concatenate([getattr(case, key).ravel() for case in rows])
                                for key in ("error_diopters", "sigma_diopters"))
                reliability[name] = measure_reliability(error, sigma)
        if reliability:
            paths.append(draw_reliability(
                folder / f"{kind}_reliability.png", reliability, unit="dioptres",
                title=f"{self.method} on {kind} captures: error of inverse depth"))
        return paths


def _labelled(case: _Case, label: str) -> ContactSample:
    row = case.row
    return ContactSample(row.label.removeprefix("dp119_"), row.rgb, row.left, row.right,
                         row.truth_m, row.depth_m, row.sigma_m,
                         f"{label}, AbsRel {case.abs_rel:.3f}")


def _case(sample: Sample, result: MethodResult) -> _Case:
    depth, truth, frame = result.depth_m, sample.depth_m, sample.frame
    assert depth is not None
    with np.errstate(invalid="ignore", divide="ignore"):
        error = 1 / depth - 1 / truth
        error[~((truth > MIN_M) & (truth < MAX_M) & np.isfinite(depth))] = np.nan
        sigma = None if result.sigma_m is None else result.sigma_m / depth**2
    left, right = (np.clip(255 * np.sqrt(v), 0, 255).astype(np.uint8)
                   for v in (frame.left, frame.right))
    shown = np.repeat(left[..., None], 3, -1) if frame.rgb is None else frame.rgb
    unknown = np.full(truth.shape, np.nan, np.float32)
    row = ContactSample(sample.name, shown, left, right, truth, depth,
                        unknown if result.sigma_m is None else result.sigma_m)
    return _Case(depth_metrics(depth, truth, min_m=MIN_M, max_m=MAX_M)["abs_rel"], row, error,
                 sigma)
