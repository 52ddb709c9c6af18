"""Focus-sweep networks as methods: run folders, cards, parts alone; sizes and slices are free."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sweep_scenes import write_raytraced, write_run

from depth_fusion_ros.estimation.backends import load_backend
from depth_fusion_ros.estimation.export import without_folders, write_model
from depth_fusion_ros.estimation.model_card import ModelError, load_card
from depth_fusion_ros.estimation.sigma_calibration import SigmaCalibration
from depth_fusion_ros.estimation.sweep_backends import SweepInput, load_sweep_backend
from depth_fusion_ros.evaluation.learned_sweeps import fitted_to_truth, metric_result
from depth_fusion_ros.evaluation.methods import MAX_M, MIN_M, open_method
from depth_fusion_ros.evaluation.sweep_benchmark import open_sweep_method, score_sweeps
from depth_fusion_ros.evaluation.sweep_samples import SweepSample, raytraced_sweeps

CALIBRATION = SigmaCalibration((-3.0, 0.0), (-2.0, 0.5))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "fresh", "sweep_depth")


@pytest.fixture(scope="module")
def card(run: Path) -> Path:
    write_model(run, run.parent / "model", name="fresh", version="0", date="2026-01-01",
                command="none", sigma=CALIBRATION, accuracy=[])
    return run.parent / "model/fresh.json"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SweepSample:
    """With a slope in the truth, so that there is something to fit."""
    first = next(raytraced_sweeps(write_raytraced(tmp_path_factory.mktemp("rt")), slices=5))
    depth = np.broadcast_to(np.linspace(0.5, 2.0, 96, dtype=np.float32), (64, 96)).copy()
    depth[:3] = np.nan
    return replace(first, depth_m=depth)


def test_a_run_and_its_parts_are_scored_on_the_original_pixels(
    run: Path, sample: SweepSample
) -> None:
    whole, volume, prior = (open_sweep_method(f"{run}{part}") for part in ("", "#volume", "#prior"))
    assert (whole.name, volume.name) == ("sweep_depth", "sweep_depth, volume alone")
    assert "oracle" in prior.name
    assert whole.parameters > volume.parameters + prior.parameters > 0
    # 93x61 px is a multiple of nothing.
    odd = replace(sample, stack=sample.stack[:, :61, :93], depth_m=sample.depth_m[:61, :93],
                  textured=sample.textured[:61, :93], smooth=sample.smooth[:61, :93])
    for method in (whole, volume, prior):
        scores = score_sweeps([odd], [method])[method.name][0]
        assert scores.values["coverage"] == 1.0
        assert np.isfinite(scores.values["abs_rel"])
        assert np.isnan(scores.values["within_1_sigma"]) == (method is prior)
    found = volume.estimate(odd)
    assert found.depth_m is not None and found.depth_m.shape == (61, 93)
    assert found.inverse_depth.min() >= odd.focus_diopters[0] - 1e-4
    assert found.inverse_depth.max() <= odd.focus_diopters[-1] + 1e-4


def test_a_prior_made_from_the_truth_is_shown_by_itself_and_fused(
    run: Path, sample: SweepSample
) -> None:
    odd = replace(sample, stack=sample.stack[:, :61, :93], depth_m=sample.depth_m[:61, :93],
                  textured=sample.textured[:61, :93], smooth=sample.smooth[:61, :93])
    own, fused, alone = (open_sweep_method(f"{run}#{part}")
                         for part in ("prior", "stand_in", "stand_in_prior"))
    assert "made from the truth" in fused.name and "oracle" in alone.name
    found = {m.name: score_sweeps([odd], [m])[m.name][0].values for m in (own, fused, alone)}
    assert found[alone.name]["abs_rel"] < 0.7 * found[own.name]["abs_rel"]
    assert np.isfinite(found[fused.name]["within_1_sigma"])
    again = fused.estimate(odd).inverse_depth
    assert np.array_equal(again, fused.estimate(odd).inverse_depth)
    assert not np.array_equal(again, open_sweep_method(str(run)).estimate(odd).inverse_depth)


@pytest.mark.parametrize("slices", [2, 3, 7, 10])
def test_any_number_of_slices_is_taken(run: Path, slices: int, tmp_path: Path) -> None:
    sweep = next(raytraced_sweeps(write_raytraced(tmp_path), slices=slices))
    result = open_sweep_method(str(run)).estimate(sweep)
    assert result.depth_m is not None and np.isfinite(result.depth_m).all()
    assert result.sigma_m is not None and (result.sigma_m > 0).all()


def test_a_card_gives_its_calibrated_sigma_and_what_the_node_runs(
    run: Path, card: Path, sample: SweepSample
) -> None:
    raw, calibrated = (open_sweep_method(str(p)).estimate(sample) for p in (run, card))
    assert np.array_equal(raw.inverse_depth, calibrated.inverse_depth)
    assert raw.sigma_m is not None and calibrated.sigma_m is not None
    assert raw.depth_m is not None
    scale = raw.sigma_m / raw.depth_m**2 / np.float32(2**0.5)
    expected = CALIBRATION.apply(scale) * raw.depth_m**2
    assert np.allclose(calibrated.sigma_m, expected, rtol=1e-3)
    engine = load_sweep_backend(str(card), device="cpu", threads=1)
    answer = engine.infer(SweepInput(
        sample.stack, sample.focus_diopters, told_blur_gain_px_m=sample.blur_gain_px_m))
    assert np.allclose(answer.diopters, calibrated.inverse_depth, atol=1e-5)
    assert np.allclose(answer.sigma_diopters * raw.depth_m**2, calibrated.sigma_m, rtol=1e-3)


def test_a_card_of_sweeps_has_no_graph_and_no_folder_of_this_machine(card: Path) -> None:
    read = load_card(card)
    assert read.onnx is None
    assert sorted(p.name for p in card.parent.iterdir()) == ["fresh.json", "fresh.safetensors"]
    assert read.architecture["family"] == "sweep_depth"
    assert read.valid_range["slices"] == [4, 5]
    assert "focus positions" in read.training_data
    assert "/home" not in card.read_text()
    assert read.training["config"]["start_from"] == "prior/prior.safetensors"
    assert without_folders(["a/b", 3, {"c": "/d/e/f"}]) == ["a/b", 3, {"c": "e/f"}]


def test_the_prior_is_fitted_by_least_squares_in_inverse_depth(sample: SweepSample) -> None:
    truth = 1 / sample.depth_m
    relative = np.where(np.isnan(truth), 0, 40 - 3 * truth).astype(np.float32)
    fitted = fitted_to_truth(relative, sample.depth_m)
    assert np.allclose(fitted[3:], truth[3:], atol=1e-4), "an affine map is undone, even a turned"
    random = np.random.default_rng(0)
    noisy = relative + random.standard_normal(relative.shape).astype(np.float32)
    known = ~np.isnan(truth)
    slope, shift = np.polyfit(noisy[known], truth[known], 1)
    assert np.allclose(fitted_to_truth(noisy, sample.depth_m), slope * noisy + shift, atol=1e-4)
    constant = fitted_to_truth(np.ones_like(relative), sample.depth_m)
    assert np.allclose(constant, truth[known].mean(), rtol=1e-5)
    assert not fitted_to_truth(relative, np.full_like(relative, np.nan)).any()


def test_inverse_depth_becomes_metres_with_their_sigma() -> None:
    d = np.array([[2.0, 0.5, 0.0, -1.0, 50.0]], np.float32)
    result = metric_result(d, np.full_like(d, 0.1))
    assert result.depth_m is not None and result.sigma_m is not None
    assert result.depth_m[0] == pytest.approx([0.5, 2.0, MAX_M, MAX_M, MIN_M])
    assert result.sigma_m[0, :2] == pytest.approx([0.025, 0.4])
    assert metric_result(d).sigma_m is None


def test_what_is_no_sweep_network_is_refused_on_either_path(
    run: Path, card: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"no part 'fusion'; use .*#volume or .*#prior"):
        open_sweep_method(f"{run}#fusion")
    with pytest.raises(ModelError, match=r"holds no run\.json"):
        open_sweep_method(str(tmp_path))
    with pytest.raises(ModelError, match="'gone/here': unknown; use one of laplacian, ring"):
        open_sweep_method("gone/here")
    with pytest.raises(ModelError, match="dual-pixel network, which reads no focus sweep"):
        open_sweep_method("difuse_net_s")
    with pytest.raises(ModelError, match="focus-sweep network, which sees no dual pixels"):
        open_method(str(run))
    with pytest.raises(ModelError, match="focus-sweep network, which reads no dual pixels"):
        load_backend(str(card), threads=1)
