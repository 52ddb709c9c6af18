"""Score methods on focus sweeps with truth, by the metrics of the dual-pixel tables.

    scores = score_sweeps(raytraced_sweeps(folder), [open_sweep_method("laplacian")])
    rows = lens_rows(scores["modified Laplacian"])   # {"all": {"abs_rel": …}, "robot": …}

| specification | method |
|---|---|
| laplacian | shape from focus, modified Laplacian, `optics/shape_from_focus.py` |
| ring | the same with the ring difference |
| closed_form | focus and defocus through the known lens, `estimation/sweep_measurement.py` |
| constant | the median of the truth everywhere: an oracle, what knowing one number gives |
| run folder, card, shipped name; with a part of `SHOWN_PARTS` | a network, `learned_sweeps.py` |

Errors count at every pixel with truth, so the classical methods fill what they cannot measure
(`optics/edge_aware_fill.py`); their σ is wide there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from depth_fusion_ros.estimation.backends import CLOSED_FORM
from depth_fusion_ros.estimation.dual_pixel import DualPixelFrame
from depth_fusion_ros.estimation.estimate import Intrinsics
from depth_fusion_ros.estimation.model_card import ModelError, shipped_models
from depth_fusion_ros.estimation.sweep_measurement import measure_sweep, sweep_blur_gain
from depth_fusion_ros.evaluation.benchmark import ImageScore, score_each, score_image, summary
from depth_fusion_ros.evaluation.learned_sweeps import metric_result, open_learned_sweep
from depth_fusion_ros.evaluation.methods import MAX_M, MIN_M, MethodResult
from depth_fusion_ros.evaluation.samples import LENS_GROUPS, Sample
from depth_fusion_ros.evaluation.sweep_samples import SweepSample
from depth_fusion_ros.optics.edge_aware_fill import fill_diopters
from depth_fusion_ros.optics.shape_from_focus import all_in_focus, shape_from_focus

ROW_KEYS = ("abs_rel", "textured_abs_rel", "rmse_m", "rmse_log", "delta_1", "within_1_sigma",
            "within_2_sigma", "coverage")
"""What a row of the sweep tables has; `ImageScore.values` has more."""
FOCUS_MEASURES = {"laplacian": "modified Laplacian", "ring": "ring difference",
                  CLOSED_FORM: "closed form, focus and defocus"}
"""Specification → name in the tables."""
CONSTANT = "constant"


class SweepMethod(Protocol):
    """One row of the sweep tables."""

    @property
    def name(self) -> str:
        """Name in the tables."""
        ...

    @property
    def parameters(self) -> int:
        """Learned parameters; 0 = nothing was trained."""
        ...

    def estimate(self, sample: SweepSample) -> MethodResult:
        """Estimate one sample. Only an oracle may look at its truth."""
        ...


@dataclass(frozen=True)
class ShapeFromFocusMethod:
    """Classical depth from focus, filled where it measures nothing.

    Attributes:
        measure: a key of `FOCUS_MEASURES`.
    """

    measure: str = "ring"
    parameters: int = 0

    @property
    def name(self) -> str:
        """See `SweepMethod.name`."""
        return FOCUS_MEASURES[self.measure]

    def estimate(self, sample: SweepSample) -> MethodResult:
        """See `SweepMethod.estimate`."""
        stack, focus = sample.stack, sample.focus_diopters
        measured, sigma_measured = (
            measure_sweep(stack, focus, sweep_blur_gain(stack, focus, sample.blur_gain_px_m))
            if self.measure == CLOSED_FORM
            else shape_from_focus(stack, focus, measure=self.measure))
        diopters, sigma = fill_diopters(measured, sigma_measured,
                                        all_in_focus(stack, focus, measured))
        if np.isnan(diopters).all():  # nothing to see at all: somewhere within the sweep
            diopters = np.full_like(diopters, (focus[0] + focus[-1]) / 2)
            sigma = np.full_like(diopters, (focus[-1] - focus[0]) / 12**0.5)
        return metric_result(diopters, sigma)


@dataclass(frozen=True)
class SweepConstantOracle:
    """The median of the scored truth at every pixel: no method should be worse than this."""

    name: str = "one depth (oracle)"
    parameters: int = 0

    def estimate(self, sample: SweepSample) -> MethodResult:
        """See `SweepMethod.estimate`."""
        truth = sample.depth_m
        with np.errstate(invalid="ignore"):
            known = truth[(truth > MIN_M) & (truth < MAX_M)]
        depth = np.full(truth.shape, np.median(known) if known.size else np.nan, np.float32)
        return MethodResult(np.zeros_like(depth), depth)


def open_sweep_method(specification: str) -> SweepMethod:
    """Open what a specification names, see the module's table.

    Raises:
        ModelError: no such method, or its files do not fit; the text says what to do.
    """
    if specification in FOCUS_MEASURES:
        return ShapeFromFocusMethod(specification)
    if specification == CONSTANT:
        return SweepConstantOracle()
    model = specification.partition("#")[0]
    if model not in shipped_models() and not Path(model).exists():
        raise ModelError(f"method {specification!r}: unknown; use one of "
                         f"{', '.join((*FOCUS_MEASURES, CONSTANT))}, or the run folder or model "
                         "card of a focus-sweep network")
    return open_learned_sweep(specification)


def score_sweeps(
    samples: Iterable[SweepSample], methods: Sequence[SweepMethod],
    watch: Callable[[SweepSample, SweepMethod, MethodResult], None] = lambda *_: None,
) -> dict[str, list[ImageScore]]:
    """`benchmark.score_each` of sweep methods, which have different names."""
    by_name = {method.name: method for method in methods}
    return score_each(samples, {name: m.estimate for name, m in by_name.items()},
                      lambda sample, *result: score_image(_as_sample(sample), *result),
                      lambda sample, name, result: watch(sample, by_name[name], result))


def by_lens(scores: Sequence[ImageScore]) -> dict[str, list[ImageScore]]:
    """Scores of "all", of each lens group and of each lens; none of them empty."""
    rows = {"all": list(scores)}
    for group in LENS_GROUPS:
        rows[group] = [s for s in scores if s.lens_group == group]
    for score in scores:
        rows.setdefault(score.group, []).append(score)
    return {group: members for group, members in rows.items() if members}


def lens_rows(scores: Sequence[ImageScore]) -> dict[str, dict[str, float]]:
    """`ROW_KEYS` and ``count``, means over images: of all, of each lens group and of each lens."""
    return {group: {**{key: summary(members)[key] for key in ROW_KEYS},
                    "count": float(len(members))} for group, members in by_lens(scores).items()}


def _as_sample(sweep: SweepSample) -> Sample:
    """The sweep as `score_image` wants it: no lens and no views, since no disparity is scored."""
    height, width = sweep.depth_m.shape
    blank = np.zeros((height, width), np.float32)
    fx = float(sweep.slice_focal_length_px[0])
    frame = DualPixelFrame(blank, blank, None, 0, "camera", Intrinsics(
        fx, fx, (width - 1) / 2, (height - 1) / 2, width, height), None)
    return Sample(sweep.name, sweep.group, frame, sweep.depth_m, sweep.textured, sweep.smooth)
