"""Score methods on captures with truth, side by side.

    scores = score(raytraced_samples(folder, "ideal", "clean"), [open_method("closed_form")])
    table = tabulate(scores["closed form"])

Each image is scored on three sets of pixels: all with truth; *textured*, where the views have
something to match; *smooth textured*, those away from depth jumps. Affine-invariant metrics follow
the published protocol on all pixels with truth in range, in its unit (`affine_metrics.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from depth_fusion_ros.evaluation.affine_metrics import affine_metrics, protocol_inverse_depth
from depth_fusion_ros.evaluation.disparity_bound import distance_to_bound
from depth_fusion_ros.evaluation.methods import (
    MAX_M,
    MIN_M,
    OPTIONS,
    Method,
    MethodResult,
)
from depth_fusion_ros.evaluation.metrics import average_metrics, depth_metrics, range_metrics
from depth_fusion_ros.evaluation.real_calibration import Measured, calibrate_on_captures
from depth_fusion_ros.evaluation.samples import (
    LENS_GROUPS,
    NOISE,
    SPLITS,
    Sample,
    raytraced_samples,
    real_samples,
    simulated_samples,
)
from depth_fusion_ros.optics.thin_lens import ThinLens

__all__ = ["CALIBRATION_FLATS", "LENS_GROUPS", "NOISE", "OPTIONS", "SPLITS", "ImageScore", "Sample",
           "calibrate_on_flats", "raytraced_samples", "real_samples", "score", "score_each",
           "score_image", "simulated_samples", "summary", "tabulate"]

S = TypeVar("S")

CALIBRATION_FLATS = ("dp119_flat_0600_f4", "dp119_flat_1500_f4")
SUBSET_KEYS = ("abs_rel", "median_abs_rel", "bias_rel", "rmse_m", "delta_1", "within_1_sigma",
               "within_2_sigma")


@dataclass(frozen=True)
class ImageScore:
    """Metrics of one method on one image.

    Attributes:
        name, group, lens_group: of the sample.
        values: `depth_metrics` and `affine_metrics`; ``textured_…`` and ``smooth_textured_…``
            of `SUBSET_KEYS`, their ``…_share`` of pixels and ``…_bound_distance``, see
            `distance_to_bound`; ``abs_rel_0.6_to_2_m``;
            ``median_disparity_error_px`` of textured pixels; ``seconds``.
        ranges: `range_metrics`.
    """

    name: str
    group: str
    lens_group: str
    values: dict[str, float]
    ranges: dict[str, float]


def score_each(
    samples: Iterable[S], estimates: Mapping[str, Callable[[S], MethodResult]],
    score_one: Callable[[S, MethodResult, float], ImageScore],
    watch: Callable[[S, str, MethodResult], None],
) -> dict[str, list[ImageScore]]:
    """Estimate every sample with every method and score what comes out.

    Args:
        samples: of any kind; each is held only while it is scored.
        estimates: name → method. score_one: of a sample, its result and the seconds it took.
        watch: called with every sample, name and result, e.g. to draw it.

    Returns:
        name → one score per sample.
    """
    scores: dict[str, list[ImageScore]] = {name: [] for name in estimates}
    for sample in samples:
        for name, estimate in estimates.items():
            started = perf_counter()
            result = estimate(sample)
            seconds = perf_counter() - started
            scores[name].append(score_one(sample, result, seconds))
            watch(sample, name, result)
    return scores


def score(
    samples: Iterable[Sample], methods: Sequence[Method],
    watch: Callable[[Sample, Method, MethodResult], None] = lambda *_: None,
) -> dict[str, list[ImageScore]]:
    """`score_each` of dual-pixel methods, which have different names."""
    by_name = {method.name: method for method in methods}
    return score_each(samples, {name: m.estimate for name, m in by_name.items()}, score_image,
                      lambda sample, name, result: watch(sample, by_name[name], result))


def score_image(sample: Sample, result: MethodResult, seconds: float = float("nan")) -> ImageScore:
    """Score one result; what the method does not give is NaN."""
    truth = sample.depth_m
    depth = np.full(truth.shape, np.nan, np.float32) if result.depth_m is None else result.depth_m
    values = depth_metrics(depth, truth, sigma_m=result.sigma_m, min_m=MIN_M, max_m=MAX_M)
    with np.errstate(invalid="ignore"):
        known = (truth > MIN_M) & (truth < MAX_M)
    values.update(affine_metrics(result.inverse_depth, protocol_inverse_depth(truth), valid=known))
    with np.errstate(invalid="ignore"):
        room = (truth >= 0.6) & (truth <= 2.0)
    mid = depth_metrics(depth, truth, valid=room, min_m=MIN_M, max_m=MAX_M)
    values["abs_rel_0.6_to_2_m"] = mid["abs_rel"]
    error_px = None
    if result.disparity_px is not None and sample.frame.lens is not None:
        error_px = result.disparity_px - sample.true_disparity_px()
    subsets = {"textured": sample.textured, "smooth_textured": sample.textured & sample.smooth}
    for subset, mask in subsets.items():
        part = depth_metrics(depth, truth, sigma_m=result.sigma_m, valid=mask, min_m=MIN_M,
                             max_m=MAX_M)
        values.update({f"{subset}_{key}": part[key] for key in SUBSET_KEYS})
        values[f"{subset}_share"] = float(mask[known].mean()) if known.any() else float("nan")
        values[f"{subset}_bound_distance"] = float("nan")
        if error_px is not None and sample.bound_px is not None:
            values[f"{subset}_bound_distance"] = distance_to_bound(
                error_px[mask & known], sample.bound_px[mask & known])
    values["median_disparity_error_px"] = float("nan")
    if error_px is not None and (sample.textured & known).any():
        values["median_disparity_error_px"] = float(
            np.median(np.abs(error_px[sample.textured & known])))
    values["seconds"] = seconds
    return ImageScore(sample.name, sample.group, sample.lens_group, values,
                      range_metrics(depth, truth, min_m=MIN_M, max_m=MAX_M))


def summary(scores: Sequence[ImageScore]) -> dict[str, float]:
    """Mean over images of every metric; images where it is NaN do not count."""
    return average_metrics([score.values for score in scores])


def tabulate(scores: Sequence[ImageScore], *, images: bool = True) -> dict[str, Any]:
    """Return one method's row as JSON types: means, means by range and, if asked, each image."""
    row: dict[str, Any] = {
        "count": len(scores), "mean": summary(scores),
        "mean_by_range": average_metrics([score.ranges for score in scores])}
    if images:
        row["images"] = [{"name": s.name, "group": s.group, **s.values} for s in scores]
    return row


def calibrate_on_flats(folder: Path, method: Method) -> ThinLens:
    """The lens of the real captures, calibrated on their two f/4 flat targets alone.

    k at the centre, how it falls to the sides (x² + x⁴) and the focus, by robust least squares on
    the method's own disparities of textured pixels (`optics/lens_calibration.py`).

    Raises:
        FileNotFoundError: the flats are not in the folder.
        ValueError: the method measures no disparities, or the flats do not give a lens.
    """
    flats = {s.name: s for s in real_samples(folder) if s.name in CALIBRATION_FLATS}
    missing = set(CALIBRATION_FLATS) - set(flats)
    if missing:
        raise FileNotFoundError(f"{folder}: flat targets {sorted(missing)} are missing; "
                                "k cannot be calibrated")
    if not method.uses_lens:
        raise ValueError(f"method {method.name!r}: measures no disparities, so flats cannot "
                         "calibrate k for it; score it with the lens as documented")

    def measure(sample: Sample, lens: ThinLens) -> Measured:
        result = method.estimate(replace(sample, frame=replace(sample.frame, lens=lens)))
        assert result.disparity_px is not None
        return result.disparity_px, None

    documented = flats[CALIBRATION_FLATS[0]].frame.lens
    assert documented is not None
    captures = [flats[name] for name in CALIBRATION_FLATS]
    return calibrate_on_captures(captures, measure).apply(documented)
