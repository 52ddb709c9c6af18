"""Scoring on captures with truth: small synthetic copies of both layouts, and a tiny own set."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from capture_folders import FOCUS_D, REAL_K_PX_M, write_raytraced, write_real
from safetensors.torch import save_file

from depth_fusion_ros.estimation.dual_pixel import DualPixelFrame
from depth_fusion_ros.estimation.estimate import Intrinsics
from depth_fusion_ros.estimation.model_card import ModelError
from depth_fusion_ros.evaluation import benchmark
from depth_fusion_ros.evaluation.methods import ConstantOracle, Method, MethodResult, open_method
from depth_fusion_ros.evaluation.run_record import run_record
from depth_fusion_ros.evaluation.samples import Sample
from depth_fusion_ros.networks.registry import architecture, build
from depth_fusion_ros.optics.thin_lens import ThinLens

NAN = math.nan


@pytest.fixture(scope="module")
def raytraced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raytraced(tmp_path_factory.mktemp("raytraced"))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_real(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def closed_form() -> Method:
    return open_method("closed_form", threads=1)


def toy_sample(depth_m: np.ndarray, bound_px: np.ndarray | None = None) -> Sample:
    """A sample with d = 1 − 1/Z px: k = 1 px·m, focused at 1 m; left half textured."""
    height, width = depth_m.shape
    lens = ThinLens(0.01, 2.0, 20e-6, 1.0)
    lens = replace(lens, kappa=1 / lens.blur_gain_px_m)
    frame = DualPixelFrame(np.zeros((height, width), np.float32), np.zeros(
        (height, width), np.float32), None, 0, "", Intrinsics(
            400, 400, width / 2, height / 2, width, height), lens)
    textured = np.zeros(depth_m.shape, bool)
    textured[:, : width // 2] = True
    return Sample("toy", "robot_toy", frame, depth_m, textured, np.ones(depth_m.shape, bool),
                  bound_px)


@pytest.mark.parametrize("split", benchmark.SPLITS)
def test_raytraced_layout_is_read_and_scored_in_metres(
    raytraced: Path, closed_form: Method, split: str
) -> None:
    seen: list[tuple[Sample, MethodResult]] = []
    scores = benchmark.score(benchmark.raytraced_samples(raytraced, split, "clean"), [closed_form],
                             lambda sample, _, result: seen.append((sample, result)))
    row = scores["closed form"][0]
    assert (row.group, row.lens_group) == ("robot_12mm", "robot")
    assert row.values["textured_share"] > 0.8
    assert row.values["abs_rel"] < 0.12, "κ of the soft split must come from its split function"
    assert row.values["abs_rel"] == pytest.approx(row.ranges["abs_rel_2_4_m"])
    sample, result = seen[0]
    assert result.depth_m is not None
    assert np.median(result.depth_m) == pytest.approx(2.0, rel=0.06)
    assert sample.frame.rgb is not None


def test_noise_makes_it_worse_and_repeats_by_seed(raytraced: Path, closed_form: Method) -> None:
    def error(noise: str) -> float:
        samples = benchmark.raytraced_samples(raytraced, "soft", noise, seed=1)
        return benchmark.score(samples, [closed_form])["closed form"][0].values["abs_rel"]

    assert error("dim") > error("clean")
    assert error("dim") == error("dim")


def test_the_bound_grows_with_the_noise(raytraced: Path) -> None:
    bounds = [np.median(next(benchmark.raytraced_samples(raytraced, "ideal", noise)).bound_px)
              for noise in ("clean", "good", "indoor", "dim")]
    assert bounds == sorted(bounds)
    assert bounds[0] > 0


def test_smooth_pixels_keep_away_from_depth_jumps(
    tmp_path: Path, raytraced: Path
) -> None:
    data = dict(np.load(raytraced / "scene_000.npz"))
    data["depth"][:, 80:] = 3.0
    np.savez(tmp_path / "scene_000.npz", **data)
    sample = next(benchmark.raytraced_samples(tmp_path, "ideal", "clean"))
    assert sample.smooth[:, :70].all()
    assert not sample.smooth[:, 72:88].any()


def test_scores_by_hand() -> None:
    truth = np.array([[1.0, 1.0, 2.0, 2.0]] * 10, np.float32)
    bound = np.full(truth.shape, 0.1, np.float32)
    sample = toy_sample(truth, bound)
    assert sample.true_disparity_px()[0] == pytest.approx([0, 0, 0.5, 0.5])
    disparity = np.array([[0.1, 0.1, 0.5, 0.5]] * 10, np.float32)  # 0.1 px wrong where textured
    depth = 1 / (1 - disparity)
    result = MethodResult(-disparity, depth, None, disparity)
    row = benchmark.score_image(sample, result, 0.25)
    # Z = 1/0.9 instead of 1 in half of the pixels
    assert row.values["abs_rel"] == pytest.approx((1 / 0.9 - 1) / 2, rel=1e-4)
    assert row.values["textured_abs_rel"] == pytest.approx(1 / 0.9 - 1, rel=1e-4)
    assert row.values["textured_share"] == 0.5
    assert row.values["textured_bound_distance"] == pytest.approx(1 / 0.67449, rel=1e-4)
    assert row.values["median_disparity_error_px"] == pytest.approx(0.1, rel=1e-4)
    assert row.values["aiwe_2"] == pytest.approx(0.0, abs=1e-4), "two levels are always affine"
    assert math.isnan(row.values["within_1_sigma"])
    assert row.values["seconds"] == 0.25


def test_an_affine_method_has_no_metric_values_and_says_so() -> None:
    truth = np.linspace(0.5, 3.0, 400, dtype=np.float32).reshape(20, 20)
    row = benchmark.score_image(toy_sample(truth), MethodResult(5.0 - 0.3 / truth))
    assert row.values["aiwe_1"] == pytest.approx(0.0, abs=1e-4)
    assert row.values["one_minus_spearman"] == pytest.approx(0.0, abs=1e-9)
    assert row.values["coverage"] == 0.0
    assert math.isnan(row.values["abs_rel"])
    assert math.isnan(row.values["textured_bound_distance"])


def test_the_oracle_says_the_median_of_what_is_scored() -> None:
    truth = np.array([[0.01, 1.0, 2.0, 5.0, 900.0, NAN]], np.float32)
    result = ConstantOracle().estimate(toy_sample(truth))
    assert np.all(result.depth_m == 2.0)
    row = benchmark.score_image(toy_sample(truth), result)
    assert row.values["abs_rel"] == pytest.approx((1.0 + 0.0 + 0.6) / 3)


def test_two_flats_calibrate_gain_and_focus(real: Path, closed_form: Method) -> None:
    lens = benchmark.calibrate_on_flats(real, closed_form)
    assert lens.disparity_gain_px_m == pytest.approx(REAL_K_PX_M, rel=0.05)
    assert lens.focus_diopters == pytest.approx(FOCUS_D, abs=0.03)
    boxes = (s for s in benchmark.real_samples(real, lens) if s.group == "box")
    assert benchmark.score(boxes, [closed_form])["closed form"][0].values["abs_rel"] < 0.08


def test_missing_flats_and_wrong_folders_are_named(
    tmp_path: Path, real: Path, closed_form: Method
) -> None:
    with pytest.raises(FileNotFoundError, match="scene_"):
        next(benchmark.raytraced_samples(tmp_path, "ideal", "clean"))
    with pytest.raises(ValueError, match="split 'hard': unknown; use one of ideal, soft"):
        next(benchmark.raytraced_samples(tmp_path, "hard", "clean"))
    (tmp_path / "dp119_box_001.npz").write_bytes((real / "dp119_box_001.npz").read_bytes())
    with pytest.raises(FileNotFoundError, match="flat_0600_f4"):
        benchmark.calibrate_on_flats(tmp_path, closed_form)
    with pytest.raises(ValueError, match="measures no disparities"):
        benchmark.calibrate_on_flats(real, ConstantOracle())


def test_simulated_samples_carry_the_gain_of_their_split_and_noise_of_their_own(
    tmp_path: Path
) -> None:
    def samples(split: str, noise: str, seed: int = 0) -> list[Sample]:
        return list(benchmark.simulated_samples("eval-tiny", tmp_path, split, noise, seed))

    ideal, soft, dim = samples("ideal", "clean"), samples("soft", "clean"), samples("soft", "dim")
    assert [s.lens_group for s in ideal] == ["phone", "phone"]
    for a, b in zip(ideal, soft, strict=True):
        assert a.frame.lens is not None
        assert b.frame.lens is not None
        assert 0.3 < b.frame.lens.kappa / a.frame.lens.kappa < 0.6
        assert np.array_equal(a.depth_m, b.depth_m)
    assert not np.array_equal(dim[0].frame.left, soft[0].frame.left)
    assert np.array_equal(dim[1].frame.left, samples("soft", "dim")[1].frame.left)
    assert not np.array_equal(dim[1].frame.left, samples("soft", "dim", seed=1)[1].frame.left)
    with pytest.raises(ValueError, match="preset 'evil': unknown; use one of eval"):
        next(benchmark.simulated_samples("evil", tmp_path))


def test_a_run_folder_of_any_network_can_be_scored(tmp_path: Path, raytraced: Path) -> None:
    for name in ("dpnet", "dpnet-affine"):
        run = tmp_path / name
        run.mkdir()
        network = build(name)
        save_file(network.state_dict(), run / f"{name}.safetensors")
        (run / "run.json").write_text(json.dumps(
            {"network": name, "architecture": architecture(network)}))
        method = open_method(str(run), threads=1)
        assert method.parameters == sum(p.numel() for p in network.parameters())
        assert method.uses_lens == (name == "dpnet")
        row = benchmark.score(benchmark.raytraced_samples(raytraced, "ideal", "clean"),
                              [method])[name][0]
        assert math.isnan(row.values["abs_rel"]) == (name == "dpnet-affine")


def test_methods_that_cannot_be_opened_say_why(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no run\.json"):
        open_method(str(tmp_path))
    with pytest.raises(ModelError, match="no shipped weights of that name"):
        open_method("difuse_net_xxl")
    (tmp_path / "run.json").write_text(json.dumps(
        {"network": "dpnet", "architecture": architecture(build("dpnet"))}))
    save_file({"a": torch.zeros(1)}, tmp_path / "dpnet.safetensors")
    with pytest.raises(ModelError, match="do not fit their architecture"):
        open_method(str(tmp_path))


def test_a_record_names_the_command_without_the_folders_of_this_machine(tmp_path: Path) -> None:
    record = run_record("depth-fusion benchmark", {
        "raytraced": tmp_path / "raytraced", "real": None, "noise": "clean,dim",
        "cache_dir": Path("runs/eval")}, seeds={"noise": 0}, wall_time_s=1.26)
    assert record["command"] == ("depth-fusion benchmark --raytraced raytraced --noise clean,dim "
                                 "--cache-dir runs/eval")
    assert record["wall_time_s"] == 1.3
    assert record["hardware"]["threads"] >= 1
    assert "torch" in record["versions"]
