"""Focus sweeps with truth, read from a small copy of the ray-traced layout, and their scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sweep_scenes import (
    BREATHING_PX,
    FOCUS_M,
    FX_PX,
    HEIGHT,
    TRUE_DIOPTERS,
    WIDTH,
    magnified,
    texture,
    write_raytraced,
)

from depth_fusion_ros.evaluation.methods import MethodResult
from depth_fusion_ros.evaluation.samples import NOISE
from depth_fusion_ros.evaluation.sweep_benchmark import (
    ROW_KEYS,
    ShapeFromFocusMethod,
    SweepConstantOracle,
    SweepMethod,
    lens_rows,
    open_sweep_method,
    score_sweeps,
)
from depth_fusion_ros.evaluation.sweep_samples import (
    SweepSample,
    at_one_magnification,
    raytraced_sweeps,
    with_noise,
)

Array = NDArray[Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raytraced(tmp_path_factory.mktemp("raytraced"))


def test_sweeps_come_with_rising_focus_and_the_truth_of_their_scene(folder: Path) -> None:
    robot, phone = raytraced_sweeps(folder)
    assert (robot.name, robot.group, robot.lens_group) == ("scene_000", "robot_12mm", "robot")
    assert phone.lens_group == "phone"
    assert robot.stack.shape == (10, HEIGHT, WIDTH, 3) and robot.stack.dtype == np.uint8
    assert robot.focus_diopters == pytest.approx(np.linspace(0.3, 3.0, 10))
    stored = np.load(folder / "scene_000.npz")["stack_srgb8"]
    assert np.array_equal(robot.stack, stored[::-1]), "stored from near to far"
    assert (robot.slice_focal_length_px == FX_PX).all()
    assert robot.smooth.all() and robot.textured.mean() > 0.9
    assert not phone.textured[:, :10].any() and phone.textured[:, 40:].mean() > 0.9


def test_fewer_slices_are_spread_over_the_stored_ones(folder: Path) -> None:
    robot, _ = raytraced_sweeps(folder, slices=5)
    stored = 1 / FOCUS_M
    assert robot.focus_diopters == pytest.approx(stored[[9, 7, 4, 2, 0]])
    for slices in (1, 11):
        with pytest.raises(ValueError, match=f"slices = {slices}.*use 2 to 10"):
            next(raytraced_sweeps(folder, slices=slices))


def test_breathing_is_taken_out_unless_asked_not_to(folder: Path) -> None:
    _, aligned = raytraced_sweeps(folder)
    _, raw = raytraced_sweeps(folder, align=False)
    assert (aligned.slice_focal_length_px == FX_PX).all()
    assert raw.slice_focal_length_px[[0, -1]] == pytest.approx(
        (FX_PX - BREATHING_PX / 2, FX_PX + BREATHING_PX / 2))
    assert np.array_equal(raw.stack, np.load(folder / "scene_001.npz")["stack_srgb8"][::-1])


def test_rescaled_slices_fit_each_other_to_a_fraction_of_a_pixel() -> None:
    """Breathing of 4 %, more than the sets have: a point 45 px off centre moves by 1.8 px."""
    wide = texture(192, 128)
    reference = (cv2.GaussianBlur(wide, (0, 0), 1.5) * 255).astype(np.uint8)
    moved = magnified(reference, 1.04)
    back = at_one_magnification(np.stack([reference, moved]), np.array([400.0, 416.0]), 400.0)
    assert np.array_equal(back[0], reference)
    inner = (slice(20, -20), slice(20, -20), 0)
    before = np.abs(moved[inner].astype(float) - reference[inner]).mean()
    after = np.abs(back[1][inner].astype(float) - reference[inner]).mean()
    assert after < 0.05 * before
    shift, _ = cv2.phaseCorrelate(*(image[30:90, 120:180, 0].astype(np.float64)
                                    for image in (reference, back[1])))
    assert np.hypot(*shift) < 0.1


def test_noise_has_its_variance_in_linear_light() -> None:
    def light(counts: Array) -> Array:
        encoded = counts / 255
        return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)

    grey = np.full((1, 200, 200, 3), 188, np.uint8)  # 0.5 of linear light
    assert with_noise(grey, "clean", np.random.default_rng(0)) is grey
    for noise in ("indoor", "dim"):
        a, b = NOISE[noise]
        measured = light(with_noise(grey, noise, np.random.default_rng(0)).astype(np.float64))
        assert measured.mean() == pytest.approx(light(np.array(188.0)), abs=2e-3)
        # One count of sRGB is 0.0043 here; rounding adds a twelfth of its square.
        assert measured.var() == pytest.approx(a * 0.5 + b + 0.0043**2 / 12, rel=0.05)


def test_noise_repeats_by_seed(folder: Path) -> None:
    first, again, other = (next(raytraced_sweeps(folder, "indoor", seed=s)) for s in (0, 0, 1))
    assert np.array_equal(first.stack, again.stack)
    assert not np.array_equal(first.stack, other.stack)
    clean = next(raytraced_sweeps(folder))
    assert np.array_equal(first.textured, clean.textured), "texture is judged without noise"


def test_unknown_names_and_empty_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="noise 'loud': unknown; use one of clean"):
        next(raytraced_sweeps(folder, "loud"))
    with pytest.raises(FileNotFoundError, match=r"no scene_\*\.npz"):
        next(raytraced_sweeps(tmp_path))
    known = "'sobel': unknown; use one of laplacian, ring, closed_form, constant"
    with pytest.raises(ValueError, match=known):
        open_sweep_method("sobel")


@pytest.mark.parametrize("specification", ["laplacian", "ring"])
@pytest.mark.parametrize(("slices", "noise", "limit"), [
    (10, "clean", 0.06), (5, "clean", 0.12), (10, "indoor", 0.1)])
def test_classical_methods_measure_metres_and_fill_blank_surfaces(
    folder: Path, specification: str, slices: int, noise: str, limit: float
) -> None:
    method = open_sweep_method(specification)
    scores = score_sweeps(raytraced_sweeps(folder, noise, slices), [method])[method.name]
    assert [s.lens_group for s in scores] == ["robot", "phone"]
    for score in scores:
        assert score.values["abs_rel"] < limit
        assert score.values["coverage"] == 1.0, "blank pixels count too"
        assert score.values["within_2_sigma"] > 0.8
        assert np.isnan(score.values["median_disparity_error_px"]), "no disparity is measured"


def test_rows_are_means_by_group_and_lens(folder: Path) -> None:
    @dataclass(frozen=True)
    class Half:
        name: str = "half as far"
        parameters: int = 7

        def estimate(self, sample: SweepSample) -> MethodResult:
            depth = (sample.depth_m / 2).astype(np.float32)
            return MethodResult(1 / depth, depth, 1.1 * depth)

    methods: list[SweepMethod] = [Half(), SweepConstantOracle()]
    seen: list[str] = []
    scores = score_sweeps(raytraced_sweeps(folder, slices=5), methods,
                          lambda sample, method, _: seen.append(f"{sample.name} {method.name}"))
    assert len(seen) == 4
    rows = lens_rows(scores["half as far"])
    assert set(rows) == {"all", "robot", "phone", "robot_12mm", "phone_b4"}
    assert set(rows["all"]) == {*ROW_KEYS, "count"}
    assert rows["all"]["abs_rel"] == pytest.approx(0.5) == rows["all"]["textured_abs_rel"]
    assert rows["all"]["rmse_log"] == pytest.approx(np.log(2))
    assert rows["robot"]["rmse_m"] == pytest.approx(0.5 / TRUE_DIOPTERS["robot_12mm"])
    assert rows["all"]["within_1_sigma"] == 1.0 and rows["all"]["delta_1"] == 0.0
    assert (rows["all"]["count"], rows["phone"]["count"]) == (2, 1)
    oracle = lens_rows(scores["one depth (oracle)"])
    assert oracle["all"]["abs_rel"] == pytest.approx(0.0, abs=1e-6), "both walls are flat"
    assert np.isnan(oracle["all"]["within_1_sigma"])


def test_a_sweep_with_nothing_to_see_is_answered_with_its_middle() -> None:
    blank = np.full((3, 16, 16, 3), 90, np.uint8)
    sample = SweepSample("blank", "robot", blank, np.array([0.5, 1.0, 1.5], np.float32),
                         np.full(3, 400, np.float32), 0.0, np.ones((16, 16), np.float32),
                         np.zeros((16, 16), bool), np.ones((16, 16), bool))
    result = ShapeFromFocusMethod().estimate(sample)
    assert result.depth_m is not None and result.sigma_m is not None
    assert result.depth_m == pytest.approx(1.0)
    assert result.sigma_m == pytest.approx(1 / 12**0.5)
