"""`depth-fusion benchmark`: tables, record and pictures, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from capture_folders import REAL_K_PX_M, write_raytraced, write_real
from typer.testing import CliRunner

from depth_fusion_ros.cli.export import accuracy_lines
from depth_fusion_ros.cli.main import app


@pytest.fixture(scope="module")
def raytraced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raytraced(tmp_path_factory.mktemp("raytraced"))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_real(tmp_path_factory.mktemp("real"))


def test_command_writes_all_tables_and_a_record(
    raytraced: Path, real: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, [
        "benchmark", "--preset", "eval-tiny", "--raytraced", str(raytraced), "--real", str(real),
        "--methods", "constant,closed_form", "--noise", "clean", "--cache", str(tmp_path / "cache"),
        "--threads", "1", "--out", str(tmp_path), "--figures", str(tmp_path / "pictures")])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(written) == {"simulated", "raytraced", "real", "methods", "record"}
    assert set(written["raytraced"]) == {"ideal split, clean", "soft split, clean"}
    by_lens = written["raytraced"]["ideal split, clean"]
    assert set(by_lens) == {"all", "robot", "phone"}
    assert by_lens["all"]["closed form"]["count"] == 2
    assert by_lens["robot"]["closed form"]["count"] == 1
    whole = by_lens["all"]["closed form"]
    assert whole["mean"]["abs_rel"] == pytest.approx(
        np.mean([by_lens[g]["closed form"]["mean"]["abs_rel"] for g in ("robot", "phone")]),
        rel=1e-4)
    assert {"aiwe_1", "one_minus_spearman", "textured_bound_distance"} <= set(whole["mean"])
    assert set(written["real"]) == {"real", "calibration"}
    assert written["real"]["calibration"]["closed form"]["k_px_m"] == pytest.approx(
        REAL_K_PX_M, rel=0.05)
    assert written["methods"]["closed form"]["parameters"] == 0
    assert written["record"]["seeds"]["sensor noise"] == 0
    assert str(tmp_path) not in json.dumps(written)
    assert "Real captures" in result.output
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert pictures == {
        f"{kind}_{name}.png" for kind in ("simulated", "raytraced")
        for name in ("ideal_split__clean", "soft_split__clean", "reliability")
    } | {"real_real.png", "real_reliability.png"}


def test_command_takes_a_model_as_before_and_refuses_what_it_does_not_know(
    raytraced: Path, tmp_path: Path
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["benchmark", "--out", str(tmp_path), *arguments])
        return result.exit_code, result.output

    code, output = run("--raytraced", str(raytraced), "--model", "difuse_net_s", "--noise",
                       "clean", "--split", "soft")
    assert code == 0, output
    rows = json.loads((tmp_path / "benchmark.json").read_text())["raytraced"]["soft split, clean"]
    assert set(rows["all"]) == {"closed form", "difuse_net_s"}
    line, = accuracy_lines(tmp_path / "benchmark.json", "difuse_net_s")
    assert line["measured_on"] == "raytraced: soft split, clean"
    mean = rows["all"]["difuse_net_s"]["mean"]
    assert line["abs_rel"] == pytest.approx(mean["abs_rel"], abs=1e-4)
    with pytest.raises(typer.BadParameter, match="difuse_net_xl"):
        accuracy_lines(tmp_path / "benchmark.json", "difuse_net_xl")
    for arguments, said in ((("--noise", "loud"), "indoor"), (("--split", "hard"), "soft"),
                            (("--methods", "nothing"), "no shipped weights"),
                            (("--methods", "sgbm,sgbm"), "called 'OpenCV SGBM'")):
        code, output = run("--raytraced", str(raytraced), *arguments)
        assert code == 2
        assert said in output
    assert run()[0] == 2
    assert run("--preset", "evil")[0] == 2
