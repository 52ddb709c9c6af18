"""κ of a soft split found on other scenes: what is put into the disparities comes out again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from depth_fusion_ros.estimation.dual_pixel import DualPixelFrame
from depth_fusion_ros.estimation.estimate import Intrinsics
from depth_fusion_ros.evaluation.methods import MethodResult
from depth_fusion_ros.evaluation.samples import Sample
from depth_fusion_ros.evaluation.split_calibration import calibrated_lenses
from depth_fusion_ros.optics.gain_field import normalised_grid
from depth_fusion_ros.optics.thin_lens import IDEAL_DUAL_PIXEL_KAPPA, ThinLens

HEIGHT, WIDTH = 24, 48
LENS = ThinLens(0.025, 2.0, 27.6e-6, 1.0, 0.2)


def scene(name: str, seed: int, f_number: float = 2.0) -> Sample:
    random = np.random.default_rng(seed)
    depth = random.uniform(0.7, 3.0, (HEIGHT, WIDTH)).astype(np.float32)
    view = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    lens = replace(LENS, f_number=f_number)
    frame = DualPixelFrame(view, view, None, 0, "", Intrinsics(900, 900, 24, 12, WIDTH, HEIGHT),
                           lens)
    everywhere = np.ones(depth.shape, bool)
    return Sample(name, "robot", frame, depth, everywhere, everywhere)


class Measured:
    """0.45 of an ideal split's disparity in the centre, 20 % less at the sides, with outliers."""

    name, parameters, uses_lens = "measured", 0, True

    def __init__(self, wrong_on: str = "") -> None:
        self.wrong_on = wrong_on

    def estimate(self, sample: Sample) -> MethodResult:
        assert sample.frame.lens is not None
        ideal = replace(sample.frame.lens, kappa=IDEAL_DUAL_PIXEL_KAPPA)
        truth = replace(sample, frame=replace(sample.frame, lens=ideal)).true_disparity_px()
        column = normalised_grid(WIDTH, HEIGHT)[0]
        found = 0.45 * (1 - 0.2 * column**2) * truth
        random = np.random.default_rng(1)
        found = np.where(random.random(found.shape) < 0.1, 3.0, found)
        if sample.name == self.wrong_on:
            found = 0.5 * found
        return MethodResult(truth, disparity_px=found.astype(np.float32))


def scenes() -> Iterator[Sample]:
    yield scene("a", 1)
    yield scene("b", 2)
    yield scene("c", 3, f_number=4.0)
    yield scene("d", 4, f_number=4.0)


def test_the_split_is_found_with_its_fall_to_the_sides() -> None:
    lenses = calibrated_lenses(scenes(), Measured())
    assert set(lenses) == {"a", "b", "c", "d"}
    for lens in lenses.values():
        assert lens.kappa == pytest.approx(0.45 * IDEAL_DUAL_PIXEL_KAPPA, rel=0.02)
        assert lens.gain_field is not None
        assert lens.gain_field.to_dict()["x2"] == pytest.approx(-0.2, abs=0.03)


def test_no_scene_is_calibrated_on_itself_or_on_another_lens() -> None:
    fine, disturbed = (calibrated_lenses(scenes(), Measured(wrong)) for wrong in ("", "a"))
    assert disturbed["a"] == fine["a"], "its own disparities have no say"
    assert disturbed["b"].kappa == pytest.approx(0.5 * fine["b"].kappa, rel=0.02), "others have"
    assert disturbed["c"] == fine["c"]


def test_a_lens_without_a_second_scene_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no other sample at f/2\.0"):
        calibrated_lenses([scene("a", 1)], Measured())
