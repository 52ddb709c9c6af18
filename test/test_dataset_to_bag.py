"""depth-fusion dataset-to-bag on the benchmarks' scenes, and what the command says and keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_bags import convert, custom, the_set, the_sweep
from numpy.typing import NDArray

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.evaluation.samples import raytraced_samples, real_samples
from depth_fusion_ros.evaluation.sweep_samples import raytraced_sweeps

WIDTH, HEIGHT, FX_PX, PITCH_M = 96, 64, 440.0, 27.6e-6
FOCUS_M = np.linspace(0.4, 3.0, 6)
START_NS = 1_000_000_000_000_000_000
HALF_COUNT = 0.51 / 65535
Array = NDArray[Any]


def write_scene(folder: Path, number: int, f_m: float = 0.012) -> None:
    random = np.random.default_rng(number)
    breathing = bool(number % 2)
    meta = {"config": "robot_12mm", "f_m": f_m, "N": 2.0, "pitch_m": PITCH_M, "dp_focus_m": 1.25,
            "fx_px": FX_PX, "theta0_rad": 0.29, "stack_breathing": breathing,
            "stack_fx_px": (FX_PX + np.linspace(4, -4, 6) * breathing).tolist()}
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    depth[:5, :7] = np.nan
    lin12 = {f"{name}_lin12": random.integers(0, 4096, (HEIGHT, WIDTH, 3), dtype=np.uint16)
             for name in ("dp_left", "dp_right", "dp_left_real", "dp_right_real", "full")}
    stack = random.integers(0, 256, (6, HEIGHT, WIDTH, 3), dtype=np.uint8)
    np.savez(folder / f"scene_{number:03d}.npz", meta=json.dumps(meta), depth=depth,
             stack_srgb8=stack, stack_focus_m=FOCUS_M, **lin12)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(3):
        write_scene(folder, number)
    return folder


@pytest.fixture(scope="module")
def bags(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bags")
    done = convert("npz", scenes, "--out", out, "--split", "soft", "--noise", "indoor",
                   "--seed", 7, "--slices", 4)
    assert done.exit_code == 0 and "6 written, 0 were there, 0 failed" in done.output
    return out


def test_a_bag_holds_the_views_that_the_benchmark_scores(scenes: Path, bags: Path) -> None:
    samples = list(raytraced_samples(scenes, "soft", "indoor", 7))
    assert len(samples) == 3
    for sample in samples:
        record = the_set(bags / f"{sample.name}_dual_pixel")
        assert record.is_complete and record.stamp_ns == START_NS
        for stored, view in ((record.left, sample.frame.left), (record.right, sample.frame.right)):
            assert stored is not None and stored.encoding == "mono16"
            assert np.abs(stored.array / 65535 - view).max() <= HALF_COUNT
        assert record.rgb is not None and np.array_equal(record.rgb.array, sample.frame.rgb)
        assert record.truth is not None and record.truth.encoding == "32FC1"
        assert np.array_equal(record.truth.array, sample.depth_m, equal_nan=True)
        assert np.isnan(record.truth.array[:5, :7]).all()


def test_the_set_tells_lens_intrinsics_frame_and_gain(scenes: Path, bags: Path) -> None:
    bag = bags / "scene_000_dual_pixel"
    record, state = the_set(bag), the_set(bag).lens_state
    assert state is not None
    assert state.focus_calibration == state.CALIBRATION_CALIBRATED and state.sweep_id == 0
    told = (state.focus_diopters, state.focal_length_m, state.f_number, state.pixel_pitch_x_m)
    assert told == pytest.approx((0.8, 0.012, 2.0, PITCH_M))
    for info in (record.dp_camera_info, record.rgb_camera_info):
        assert info is not None and (info.width, info.height) == (WIDTH, HEIGHT)
        assert info.k.tolist() == [FX_PX, 0, 47.5, 0, FX_PX, 31.5, 0, 0, 1]
    lens = next(raytraced_samples(scenes, "soft", "clean")).frame.lens
    assert lens is not None and float(custom(bag)["kappa"]) == pytest.approx(lens.kappa, rel=1e-5)
    with BagReader(bag) as reader:
        ((_, _, tf),) = reader.messages(["/tf_static"])
    (transform,) = tf.transforms
    assert transform.header.frame_id == "camera_link"
    assert record.left is not None
    assert transform.child_frame_id == record.left.frame_id == "camera_rgb_optical_frame"


def test_a_bag_holds_the_sweep_that_the_benchmark_scores(scenes: Path, bags: Path) -> None:
    for sample in raytraced_sweeps(scenes, "indoor", 4, 7):
        record = the_sweep(bags / f"{sample.name}_focus_sweep")
        assert record.is_complete and record.size == 4
        assert [s.stamp_ns - START_NS for s in record.slices] == [0, 10**8, 2 * 10**8, 3 * 10**8]
        for stored, image in zip(record.slices, sample.stack, strict=True):
            assert stored.image is not None and np.array_equal(stored.image.array, image)
            assert stored.camera_info.k[0] == FX_PX, "breathing is taken out"
            assert stored.lens_state.f_number == 2.0
        focus = [s.focus_diopters for s in record.slices]
        assert focus == pytest.approx(sample.focus_diopters) and focus == sorted(focus)
        assert record.truth is not None and record.truth.stamp_ns == record.stamp_ns
        assert np.array_equal(record.truth.array, sample.depth_m, equal_nan=True)


def test_breathing_is_kept_on_request_and_told_in_every_camera_info(
    scenes: Path, tmp_path: Path
) -> None:
    assert convert("npz", scenes, "--out", tmp_path, "--path", "focus_sweep", "--keep-breathing",
                   "--slices", 6, "--only", "scene_001*").exit_code == 0
    (bag,) = tmp_path.iterdir()
    record = the_sweep(bag)
    breathed = list(raytraced_sweeps(scenes, slices=6, align=False))[1]
    for stored, image, fx_px in zip(record.slices, breathed.stack, breathed.slice_focal_length_px):
        assert stored.image is not None and np.array_equal(stored.image.array, image)
        assert stored.camera_info.k[0] == pytest.approx(float(fx_px))
    assert record.slices[0].camera_info.k[0] == FX_PX - 4


def test_noise_does_not_depend_on_which_bags_are_asked_for(
    scenes: Path, bags: Path, tmp_path: Path
) -> None:
    noise = ("--split", "soft", "--noise", "indoor", "--seed", 7, "--slices", 4)
    assert convert("npz", scenes, "--out", tmp_path, *noise, "--only", "scene_002*"
                   ).exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "scene_002_dual_pixel", "scene_002_focus_sweep"]
    again, first = (the_set(out / "scene_002_dual_pixel").left for out in (tmp_path, bags))
    assert again is not None and first is not None and np.array_equal(again.array, first.array)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    random = np.random.default_rng(0)
    left, right = random.integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    depth = np.full((HEIGHT, WIDTH), 0.8, np.float16)
    depth[:, :9] = 0
    for name, more in (("box_001", {"k_measured_px_m": 1.29}), ("flat_0600_f4", {})):
        meta = json.dumps({"source": "a camera", "f_m": 0.05, "N": 4, "dp_focus_m": 1.0,
                           "pitch_m": 4.67e-5, "fx_px": 1126.0, **more})
        np.savez(folder / f"dp119_{name}.npz", left=left, right=right, depth=depth, meta=meta)
    return folder


def test_real_captures_have_a_nominal_focus_and_a_gain_only_where_it_was_measured(
    real: Path, tmp_path: Path
) -> None:
    assert convert("npz", real, "--out", tmp_path).exit_code == 0
    for sample in real_samples(real):
        record = the_set(tmp_path / f"{sample.name}_dual_pixel")
        assert record.left is not None and record.truth is not None
        assert np.abs(record.left.array / 65535 - sample.frame.left).max() <= HALF_COUNT
        assert np.isnan(record.truth.array[:, :9]).all(), "0 was no truth"
        assert record.truth.array[:, 9:] == pytest.approx(0.8, abs=1e-3)
        state = record.lens_state
        assert state is not None and state.focus_diopters == 1.0
        assert state.focus_calibration == state.CALIBRATION_APPROXIMATE
        assert np.isnan(state.focus_diopters_stddev)
    # A = 0.05²/(4·46.7 um)/(1 − 0.05) = 14.088 px·m.
    assert float(custom(tmp_path / "dp119_box_001_dual_pixel")["kappa"]) == pytest.approx(
        1.29 / 14.088, rel=1e-3)
    assert "kappa" not in custom(tmp_path / "dp119_flat_0600_f4_dual_pixel")


def test_bags_that_are_there_are_kept_and_said_when_made_otherwise(
    scenes: Path, tmp_path: Path
) -> None:
    one = ("npz", scenes, "--out", tmp_path, "--path", "dual_pixel", "--only", "scene_000*")
    bag = tmp_path / "scene_000_dual_pixel"
    assert convert(*one).exit_code == 0
    first = the_set(bag).left
    again = convert(*one)
    assert again.exit_code == 0 and "0 written, 1 were there" in again.output
    other = convert(*one, "--noise", "dim")
    assert other.exit_code == 0
    assert f"{bag}: kept, but it was made otherwise (noise = clean, now dim)" in other.output
    kept = the_set(bag).left
    assert first is not None and kept is not None and np.array_equal(first.array, kept.array)
    replaced = convert(*one, "--noise", "dim", "--overwrite", "--storage", "sqlite3")
    assert replaced.exit_code == 0 and "1 written" in replaced.output
    new = the_set(bag).left
    assert new is not None and not np.array_equal(first.array, new.array)
    assert {p.suffix for p in bag.iterdir()} == {".db3", ".yaml"}


def test_what_is_no_bag_is_never_removed(scenes: Path, tmp_path: Path) -> None:
    precious = tmp_path / "scene_000_dual_pixel" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years")
    one = ("npz", scenes, "--out", tmp_path, "--path", "dual_pixel", "--only", "scene_000*")
    for more in ((), ("--overwrite",)):
        done = convert(*one, *more)
        assert done.exit_code == 2 and str(precious.parent) in done.output
    assert precious.read_text() == "years"
    assert list(tmp_path.iterdir()) == [precious.parent], "nothing half-written stays"


def test_bad_files_are_named_and_the_rest_is_converted(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(4):
        write_scene(folder, number)
    whole = (folder / "scene_001.npz").read_bytes()
    (folder / "scene_001.npz").write_bytes(whole[:len(whole) // 2])
    arrays = dict(np.load(folder / "scene_002.npz"))
    np.savez(folder / "scene_002.npz", **{k: v for k, v in arrays.items() if k != "depth"})
    arrays = dict(np.load(folder / "scene_003.npz"))
    np.savez(folder / "scene_003.npz", **{**arrays, "depth": arrays["depth"][:-1]})
    one = ("npz", folder, "--out", out, "--path", "dual_pixel")
    done = convert(*one)
    assert done.exit_code == 1 and "1 written, 0 were there, 3 failed" in done.output
    assert [p.name for p in out.iterdir()] == ["scene_000_dual_pixel"]
    for number, text in ((1, "cannot be used"), (2, "depth is not a file"),
                         (3, "sizes differ: left 96x64, right 96x64, rgb 96x64, depth 96x63")):
        (line,) = [x for x in done.output.splitlines() if f"scene_{number:03d}.npz:" in x]
        assert text in line and "fetch the file again, or leave it out" in line
    (folder / "scene_000.npz").write_bytes(b"")
    assert convert(*one, "--overwrite").exit_code == 2, "nothing could be made"
    assert [p.name for p in out.iterdir()] == ["scene_000_dual_pixel"], "the old bag is still there"


@pytest.mark.parametrize(("arguments", "text"), [
    (("npz", "IN/nowhere"), "is no folder; SOURCE of kind npz must be one"),
    (("npz", "EMPTY"), "holds no scene_*.npz and no dp119_*.npz"),
    (("npz", "IN", "--noise", "loud"), "--noise loud: unknown for npz; use one of clean, good"),
    (("npz", "IN", "--split", "train"), "--split train: unknown for npz; use one of ideal, soft"),
    (("npz", "IN", "--slices", "1"), "--slices 1: a sweep needs at least 2"),
    (("npz", "IN", "--slices", "7", "--path", "focus_sweep"), "has 6 of them; use 2 to 6"),
    (("npz", "IN", "--fx", "500", "--swap-views"), "--swap-views, --fx: not for npz, which takes"),
    (("npz", "IN", "--only", "office*"), "--only office*: matches none of 6 names"),
    (("npz", "IN", "--storage", "rosbag1"), "--storage rosbag1: use mcap or sqlite3"),
    (("ddff12", "IN"), "is no file; SOURCE of kind ddff12 must be one"),
    (("tum", "IN"), "'tum' is not one of"),
])
def test_unusable_arguments_end_with_status_2_and_a_remedy(
    arguments: tuple[str, ...], text: str, scenes: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    given = [a.replace("IN", str(scenes)).replace("EMPTY", str(tmp_path / "empty"))
             for a in arguments]
    done = convert(*given, "--out", tmp_path / "out")
    assert done.exit_code == 2 and text in done.output
