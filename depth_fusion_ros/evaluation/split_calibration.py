"""Calibrate the soft split of the ray-traced cameras as a user would: on other captures of theirs.

The split function alone gives κ in the centre of the field; the folder's cat-eye vignetting makes
it fall to the sides, and nothing in the files says how. A user shows the camera known depths. Here
these are the other scenes with the same f-number (there are no flats in the folder): no scene is
calibrated on itself, and only closed-form disparities of textured, smooth pixels are used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from depth_fusion_ros.evaluation.methods import Method
from depth_fusion_ros.evaluation.samples import Sample
from depth_fusion_ros.optics.gain_field import FieldPolynomial, normalised_grid
from depth_fusion_ros.optics.thin_lens import IDEAL_DUAL_PIXEL_KAPPA, ThinLens

LEAST_PX, LARGEST_PX = 0.25, 6.0
"""Disparities of an ideal split between which a pixel tells about κ."""
OUTLIER_PX = 0.05
ITERATIONS = 30


@dataclass(frozen=True)
class _Evidence:
    name: str
    f_number: float
    found: Any
    ideal: Any
    column: Any


def calibrated_lenses(samples: Iterable[Sample], method: Method) -> dict[str, ThinLens]:
    """Lens of every sample with κ and its fall over x², found on the others of its f-number.

    Args:
        samples: of the soft split, with lens. method: gives disparities, e.g. the closed form.

    Raises:
        ValueError: a sample has no lens, or no other with the same f-number.
    """
    lenses: dict[str, ThinLens] = {}
    evidence: list[_Evidence] = []
    for sample in samples:
        if sample.frame.lens is None:
            raise ValueError(f"sample {sample.name}: has no lens; κ cannot be calibrated")
        lenses[sample.name] = sample.frame.lens
        evidence.append(_look(sample, method))
    found = {}
    for own in evidence:
        others = [e for e in evidence if e.f_number == own.f_number and e.name != own.name]
        if not others:
            raise ValueError(f"sample {own.name}: no other sample at f/{own.f_number} to calibrate "
                             "its split on; add one")
        centre, fall = _fit(*(np.concatenate([getattr(e, key) for e in others])
                              for key in ("found", "ideal", "column")))
        found[own.name] = replace(
            lenses[own.name], kappa=centre * IDEAL_DUAL_PIXEL_KAPPA,
            gain_field=FieldPolynomial(((2, 0, fall / centre),)))
    return found


def _look(sample: Sample, method: Method) -> _Evidence:
    lens = sample.frame.lens
    assert lens is not None
    disparity = method.estimate(sample).disparity_px
    assert disparity is not None
    ideal = replace(sample, frame=replace(sample.frame, lens=replace(
        lens, kappa=IDEAL_DUAL_PIXEL_KAPPA))).true_disparity_px()
    height, width = ideal.shape
    column = np.broadcast_to(normalised_grid(width, height)[0], ideal.shape)
    with np.errstate(invalid="ignore"):
        use = (sample.textured & sample.smooth & np.isfinite(disparity)
               & (np.abs(ideal) > LEAST_PX) & (np.abs(ideal) < LARGEST_PX))
    return _Evidence(sample.name, lens.f_number, disparity[use], ideal[use], column[use])


def _fit(found: Any, ideal: Any, column: Any) -> tuple[float, float]:
    """a and b of found = (a + b·u²)·ideal, robust (Cauchy)."""
    design = np.stack([ideal, ideal * column**2], 1).astype(np.float64)
    weight = np.ones(len(found))
    solution = np.zeros(2)
    for _ in range(ITERATIONS):
        root = np.sqrt(weight)
        solution = np.linalg.lstsq(design * root[:, None], found * root, rcond=None)[0]
        weight = 1 / (1 + ((found - design @ solution) / OUTLIER_PX) ** 2)
    return float(solution[0]), float(solution[1])
