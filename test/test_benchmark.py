"""Scoring on folders with truth: small synthetic copies of both layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from depth_fusion_ros.cli.main import app
from depth_fusion_ros.estimation.backends import load_backend
from depth_fusion_ros.estimation.dual_pixel import DualPixelEstimator
from depth_fusion_ros.evaluation import benchmark
from depth_fusion_ros.networks.evidence import shift
from depth_fusion_ros.simulation.sensor import srgb_encode

WIDTH, HEIGHT = 160, 96
REAL_K_PX_M, FOCUS_D = 1.2, 1.05


def texture() -> torch.Tensor:
    coarse = torch.rand(1, 1, HEIGHT // 4, WIDTH // 4, generator=torch.Generator().manual_seed(2))
    return torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bicubic") * 0.5 + 0.2


def views(disparity_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Linear (H, W, 3) left and right at a constant disparity."""
    image = texture()
    offset = torch.full_like(image, disparity_px / 2)
    return tuple(shift(image, sign * offset)[0, 0].numpy()[..., None].repeat(3, -1)
                 for sign in (1, -1))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def raytraced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raytraced")
    meta = {"config": "robot", "f_m": 0.012, "N": 2.0, "pitch_m": 27.6e-6, "dp_focus_m": 1.0,
            "fx_px": 440.0, "theta0_rad": 0.29}
    gain = 0.42441 * 0.012**2 / 2 / 27.6e-6 / (1 - 0.012)
    arrays = {}
    for suffix, share in (("", 1.0), ("_real", 0.46)):
        left, right = views(share * gain * (1 - 1 / 2.0))
        arrays[f"dp_left{suffix}_lin12"] = (left * 4095).astype(np.uint16)
        arrays[f"dp_right{suffix}_lin12"] = (right * 4095).astype(np.uint16)
    np.savez(folder / "scene_000.npz", depth=np.full((HEIGHT, WIDTH), 2.0, np.float32),
             full_lin12=arrays["dp_left_lin12"], meta=json.dumps(meta), **arrays)
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    meta = json.dumps({"f_m": 0.05, "N": 4, "dp_focus_m": 1.0, "pitch_m": 4.67e-5})
    for name, depth_m in (("flat_0600_f4", 0.6), ("flat_1500_f4", 1.5), ("box_001", 0.8)):
        left, right = (
            (srgb_encode(torch.from_numpy(v)).numpy() * 255).round().astype(np.uint8)
            for v in views(REAL_K_PX_M * (FOCUS_D - 1 / depth_m)))
        np.savez(folder / f"dp119_{name}.npz", left=left, right=right, meta=meta,
                 depth=np.full((HEIGHT, WIDTH), depth_m, np.float16))
    return folder


@pytest.fixture(scope="module")
def estimator() -> DualPixelEstimator:
    return DualPixelEstimator(load_backend("closed_form", threads=1), benchmark.OPTIONS)


@pytest.mark.parametrize("split", benchmark.SPLITS)
def test_raytraced_layout_is_read_and_scored_in_metres(
    raytraced: Path, estimator: DualPixelEstimator, split: str
) -> None:
    rows, estimates = benchmark.score(
        benchmark.raytraced_samples(raytraced, split, "clean"), estimator)
    assert rows[0]["group"] == "robot"
    assert rows[0]["textured_share"] > 0.8
    assert rows[0]["abs_rel"] < 0.12, "κ of the soft split must come from its split function"
    sample, estimate = estimates["scene_000"]
    assert np.median(estimate.depth_m) == pytest.approx(2.0, rel=0.06)
    assert sample.frame.rgb is not None


def test_noise_makes_it_worse_and_repeats_by_seed(
    raytraced: Path, estimator: DualPixelEstimator
) -> None:
    def error(noise: str) -> float:
        samples = benchmark.raytraced_samples(raytraced, "soft", noise, seed=1)
        return float(benchmark.score(samples, estimator)[0][0]["abs_rel"])

    assert error("dim") > error("clean")
    assert error("dim") == error("dim")


def test_two_flats_calibrate_gain_and_focus(real: Path, estimator: DualPixelEstimator) -> None:
    lens = benchmark.calibrate_on_flats(real, estimator)
    assert lens.disparity_gain_px_m == pytest.approx(REAL_K_PX_M, rel=0.05)
    assert lens.focus_diopters == pytest.approx(FOCUS_D, abs=0.03)
    rows, _ = benchmark.score(
        (s for s in benchmark.real_samples(real, lens) if s.group == "box"), estimator)
    assert rows[0]["abs_rel"] < 0.08


def test_missing_flats_and_wrong_folders_are_named(
    tmp_path: Path, real: Path, estimator: DualPixelEstimator
) -> None:
    with pytest.raises(FileNotFoundError, match="scene_"):
        next(benchmark.raytraced_samples(tmp_path, "ideal", "clean"))
    (tmp_path / "dp119_box_001.npz").write_bytes((real / "dp119_box_001.npz").read_bytes())
    with pytest.raises(FileNotFoundError, match="flat_0600_f4"):
        benchmark.calibrate_on_flats(tmp_path, estimator)


def test_command_writes_both_tables_and_refuses_unknown_noise(
    raytraced: Path, real: Path, tmp_path: Path
) -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["benchmark", "--raytraced", str(raytraced), "--real", str(real),
                                 "--model", "closed_form", "--noise", "clean", "--out",
                                 str(tmp_path)])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(written) == {"ideal split, clean", "soft split, clean", "real box", "real all"}
    assert "Real captures" in result.output
    wrong = runner.invoke(app, ["benchmark", "--raytraced", str(raytraced), "--noise", "loud"])
    assert wrong.exit_code == 2
    assert "indoor" in wrong.output
