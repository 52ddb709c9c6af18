"""Scores of the frames of a bag: one row of JSON types a frame, and what many rows say together.

    row = frame_row(estimate, truth_m, min_m=0.15, max_m=8.0)
    summary = summarise([row, ...])

A row holds only numbers that add up over frames in any order, so that bags scored by several
processes give the digits that one process gives. Errors are means over frames (`average_metrics`:
every image weighs the same); shares of pixels (σ calibration, provenance, points for the costmap)
are sums of counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import DepthEstimate, Provenance
from depth_fusion_ros.evaluation.metrics import average_metrics, depth_metrics, range_metrics
from depth_fusion_ros.evaluation.navigation_counts import NavigationClouds, navigation_counts
from depth_fusion_ros.evaluation.reliability import LEVELS

SIGMA_RATIO_EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Lower ends of the groups of pixels by σ/Z of which the calibration is counted apart."""

Row = dict[str, Any]


def frame_row(estimate: DepthEstimate, truth_m: NDArray[np.float32], *, min_m: float, max_m: float,
              clouds: NavigationClouds | None = None) -> Row:
    """Score one frame.

    Args:
        estimate: metric, on the grid of `truth_m`.
        truth_m: (H, W) metres, not finite = not known there.
        min_m, max_m: truth outside is not scored.
        clouds: what the node would make of the estimate for Nav2; None = not looked at.

    Returns:
        stamp_ns, `metrics` (`depth_metrics`), `ranges` (`range_metrics`), and counts of pixels:
        `sigma` (errors within n·σ by group of σ/Z), `provenance` (all pixels, and those with
        truth), `navigation` (points and rays with truth, those wrong).
    """
    depth, sigma = estimate.depth_m, estimate.sigma_m
    row: Row = {
        "stamp_ns": estimate.stamp_ns,
        "metrics": depth_metrics(depth, truth_m, sigma_m=sigma, min_m=min_m, max_m=max_m),
        "ranges": range_metrics(depth, truth_m, min_m=min_m, max_m=max_m),
        "provenance": _by_provenance(estimate.provenance),
        "sigma": _sigma_counts(depth, sigma, truth_m, min_m, max_m)}
    if clouds is not None:
        row["navigation"] = navigation_counts(clouds, truth_m, estimate.intrinsics)
    return row


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """Put the rows of some frames together; see the module's text for how."""
    rows = list(rows)
    provenance: Counter[str] = Counter()
    navigation: Counter[str] = Counter()
    groups: dict[str, Counter[str]] = {}
    for row in rows:
        provenance.update(row["provenance"])
        navigation.update(row.get("navigation", {}))
        for group, counts in row["sigma"].items():
            groups.setdefault(group, Counter()).update(counts)
    pixels = sum(provenance.values())
    summary: dict[str, Any] = {
        "frames": len(rows),
        "metrics": average_metrics(row["metrics"] for row in rows),
        "ranges": average_metrics(row["ranges"] for row in rows),
        "provenance": {name: provenance[name] / pixels for name in provenance} if pixels else {},
        "sigma": _shares(groups)}
    if navigation:
        summary["navigation"] = dict(navigation) | {
            "points_in_front_share": _ratio(navigation["points_in_front"], navigation["points"]),
            "rays_through_share": _ratio(navigation["rays_through"], navigation["rays"])}
    return summary


def _by_provenance(provenance: NDArray[np.uint8]) -> dict[str, int]:
    counts = np.bincount(provenance.ravel(), minlength=len(Provenance))
    return {label.name.lower(): int(counts[label]) for label in Provenance if counts[label]}


def _sigma_counts(depth: NDArray[np.float32], sigma: NDArray[np.float32],
                  truth: NDArray[np.float32], min_m: float, max_m: float
                  ) -> dict[str, dict[str, int]]:
    """Group by σ/Z → pixels, and how many errors lie within n·σ, n of `LEVELS`."""
    with np.errstate(invalid="ignore"):
        used = (truth > min_m) & (truth < max_m) & np.isfinite(depth) & (sigma > 0)
        used &= np.isfinite(sigma)
    z, s, t = (values[used].astype(np.float64) for values in (depth, sigma, truth))
    times, ratio = np.abs(z - t) / s, s / z
    group = np.searchsorted(SIGMA_RATIO_EDGES, ratio, side="right") - 1
    found: dict[str, dict[str, int]] = {}
    for index, low in enumerate(SIGMA_RATIO_EDGES):
        inside = times[group == index]
        if inside.size:
            found[f"{low:g}"] = {"pixels": int(inside.size), **{
                f"{n:g}": int(np.count_nonzero(inside < n)) for n in LEVELS}}
    return found


def _shares(groups: Mapping[str, Counter[str]]) -> dict[str, dict[str, float]]:
    total: Counter[str] = Counter()
    for counts in groups.values():
        total.update(counts)
    named = {"all": total} if total else {}
    named.update(sorted(groups.items(), key=lambda item: float(item[0])))
    return {name: {"pixels": counts["pixels"], **{
        f"{n:g}": counts[f"{n:g}"] / counts["pixels"] for n in LEVELS}}
        for name, counts in named.items()}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
