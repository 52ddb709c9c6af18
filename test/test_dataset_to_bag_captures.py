"""depth-fusion dataset-to-bag on small copies of public layouts: what is known, what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from dataset_bags import convert, custom, the_set, the_sweep
from numpy.typing import NDArray

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.training.rgbd_sweeps import RgbdSweepFolder, SweepCamera

HEIGHT, WIDTH = 48, 64
Image = NDArray[Any]
RANDOM = np.random.default_rng(0)
LEFT, RIGHT = RANDOM.integers(0, 65536, (2, HEIGHT, WIDTH), dtype=np.uint16)
COLOUR = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
DEPTH_M = np.full((HEIGHT, WIDTH), 2.0, np.float32)
DEPTH_M[:, :10] = 0


def write(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, image)
    else:
        stored = image[..., ::-1] if image.ndim == 3 else image
        assert cv2.imwrite(str(path), np.ascontiguousarray(stored))


def write_captures(root: Path, names: tuple[str, ...] = ("a", "b"), rgb: str = "rgb") -> Path:
    for name in names:
        write(root / "left" / f"{name}.png", LEFT)
        write(root / "right" / f"{name}.png", RIGHT)
        write(root / rgb / f"{name}.png", COLOUR)
        write(root / "depth" / f"{name}.npy", DEPTH_M)
    return root


def test_a_plain_folder_keeps_its_counts_and_says_nothing_of_a_lens_it_does_not_know(
    tmp_path: Path
) -> None:
    done = convert("folder", write_captures(tmp_path / "in"), "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert "\"not calibrated\" in 2 of 2 new bags" in done.output and "--fx" in done.output
    record = the_set(tmp_path / "out" / "a")
    assert record.left and record.right and record.rgb and record.truth and record.is_complete
    assert np.array_equal(record.left.array, LEFT) and np.array_equal(record.right.array, RIGHT)
    assert np.array_equal(record.rgb.array, COLOUR)
    assert np.isnan(record.truth.array[:, :10]).all() and (record.truth.array[:, 10:] == 2).all()
    state, info = record.lens_state, record.dp_camera_info
    assert state is not None and info is not None
    assert np.isnan(state.focus_diopters) and np.isnan(state.focus_diopters_stddev)
    assert (state.focal_length_m, state.f_number, state.pixel_pitch_x_m) == (0, 0, 0)
    assert state.focus_calibration == state.CALIBRATION_UNKNOWN
    assert state.focus_origin == state.ORIGIN_UNKNOWN and state.lens_motion == state.MOTION_UNKNOWN
    assert not info.k.any() and not info.p.any()
    assert "kappa" not in custom(tmp_path / "out" / "a")


def test_a_lens_file_gives_a_nominal_focus_and_intrinsics(tmp_path: Path) -> None:
    folder = write_captures(tmp_path / "in")
    (folder / "lens.yaml").write_text(
        "focal_length_m: 0.012\nf_number: 2.0\npixel_pitch_m: 2.0e-5\nkappa: 0.2\n"
        "captures: {a: {focus_diopters: 1.0}}\n")
    assert convert("folder", folder, "--out", tmp_path / "out").exit_code == 0
    known, unknown = (the_set(tmp_path / "out" / name) for name in "ab")
    state, info = known.lens_state, known.rgb_camera_info
    assert state is not None and info is not None
    assert state.focus_calibration == state.CALIBRATION_APPROXIMATE
    assert (state.focus_diopters, state.focal_length_m, state.f_number) == pytest.approx(
        (1.0, 0.012, 2.0))
    assert (state.pixel_pitch_x_m, state.pixel_pitch_y_m) == (pytest.approx(2e-5), 0)
    assert info.k[0] == pytest.approx(0.012 / (1 - 0.012) / 2e-5)
    assert unknown.lens_state is not None and np.isnan(unknown.lens_state.focus_diopters)
    assert unknown.rgb_camera_info is not None and unknown.rgb_camera_info.k[0] == 0
    assert custom(tmp_path / "out" / "a")["kappa"] == "0.2"


def test_parallax_along_y_stays_upright_and_focal_length_can_be_given(tmp_path: Path) -> None:
    folder = write_captures(tmp_path / "in", ("a",), rgb="center")
    write(folder / "mask" / "a.png", np.uint8(255) * (np.arange(WIDTH) < 60) * np.ones(
        (HEIGHT, 1), np.uint8))
    done = convert("dcdp", folder, "--out", tmp_path / "out", "--fx", 70, "--swap-views")
    assert done.exit_code == 0 and "not calibrated" not in done.output
    record = the_set(tmp_path / "out" / "a")
    assert record.left and record.right and record.truth and record.dp_camera_info
    assert np.array_equal(record.left.array, RIGHT) and np.array_equal(record.right.array, LEFT)
    assert np.isnan(record.truth.array[:, 60:]).all() and (record.truth.array[:, 10:60] == 2).all()
    assert record.dp_camera_info.k.tolist() == [70, 0, 31.5, 0, 70, 23.5, 0, 0, 1]
    told = custom(tmp_path / "out" / "a")
    assert (told["parallax_axis"], told["views"], told["fx_px"]) == ("y", "exchanged", "70")


def test_turned_lens_files_give_the_pictures_as_stored(tmp_path: Path) -> None:
    folder = write_captures(tmp_path / "in", ("a",))
    (folder / "lens.yaml").write_text("parallax_axis: y\n")
    assert convert("folder", folder, "--out", tmp_path / "out").exit_code == 0
    record = the_set(tmp_path / "out" / "a")
    assert record.left and record.rgb
    assert np.array_equal(record.left.array, LEFT) and np.array_equal(record.rgb.array, COLOUR)
    assert custom(tmp_path / "out" / "a")["parallax_axis"] == "y"


def test_truth_without_scale_is_never_called_metres(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    code = np.full((HEIGHT, WIDTH), 102, np.uint8)  # 5 − 4.99·0.4 = 3.004
    confidence = np.ones((HEIGHT, WIDTH), np.float32)
    confidence[:20] = 0.2
    for part, name, image in (
            ("scaled_images", "result_scaled_image_center.png", COLOUR),
            ("left_pd", "result_leftPd_center.png", LEFT),
            ("right_pd", "result_rightPd_center.png", RIGHT),
            ("merged_depth", "result_merged_depth_center.png", code),
            ("merged_conf", "result_merged_conf_center.npy", confidence)):
        write(folder / part / "20180302_1" / name, image)
    assert convert("google-dual-pixel", folder, "--out", tmp_path / "out").exit_code == 0
    bag = tmp_path / "out" / "20180302_1_center"
    record = the_set(bag)
    assert record.left and record.is_complete and record.truth is None
    assert np.array_equal(record.left.array, LEFT)
    with BagReader(bag) as reader:
        assert "/camera/ground_truth/depth" not in {t.name for t in reader.topics}
        (inverse,) = reader.images("/camera/ground_truth/relative_inverse_depth")
        assert reader.metadata["truth"] == "relative inverse depth"
    assert inverse.stamp_ns == record.stamp_ns
    assert np.isnan(inverse.array[:20]).all()
    assert inverse.array[20:] == pytest.approx(5 - 4.99 * 0.4, abs=1e-5)
    assert record.lens_state is not None and record.lens_state.focus_calibration == 0


def test_ddff12_sweeps_keep_planes_mask_and_metres_and_name_no_lens(tmp_path: Path) -> None:
    path = tmp_path / "trainval.h5"
    disparity = np.full((2, HEIGHT, WIDTH), 0.141238 / 2, np.float32)
    disparity[:, 0, :4] = (0, np.nan, 0.02, 0.28)
    with h5py.File(path, "w") as file:
        file["stack_val"] = np.broadcast_to(
            np.arange(0, 200, 20, dtype=np.uint8)[None, :, None, None, None],
            (2, 10, HEIGHT, WIDTH, 3))
        file["disp_val"] = disparity
    done = convert("ddff12", path, "--out", tmp_path / "out", "--slices", 5, "--only", "val_0001")
    assert done.exit_code == 0 and [p.name for p in (tmp_path / "out").iterdir()] == ["val_0001"]
    record = the_sweep(tmp_path / "out" / "val_0001")
    greys = [int(s.image.array[0, 0, 0]) for s in record.slices if s.image]
    assert greys == [180, 120, 80, 40, 0], "the published five, by rising dioptres"
    assert record.slices[-1].focus_diopters == pytest.approx(0.28 / 0.141238)
    state = record.slices[0].lens_state
    assert (state.focal_length_m, state.f_number) == (0, 0)
    assert np.isnan(state.focus_diopters_stddev)
    assert record.slices[0].camera_info.k[0] == pytest.approx(521.4052)
    assert record.truth is not None
    assert np.isnan(record.truth.array[0, :4]).all()
    assert record.truth.array[1:] == pytest.approx(2.0)
    missing = convert("ddff12", path, "--out", tmp_path / "out", "--split", "train")
    assert missing.exit_code == 2 and "not stack_train and disp_train" in missing.output
    wrong = convert("ddff12", path, "--out", tmp_path / "out", "--slices", 11)
    assert wrong.exit_code == 2 and "use 2 to 10" in wrong.output


def test_pictures_with_depth_give_the_sweeps_that_trainings_see(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    depth = DEPTH_M.copy()
    depth[:, 32:] = 0.8
    write(folder / "rgb" / "a.png", COLOUR)
    write(folder / "depth" / "a.npy", depth)
    assert convert("nyu", folder, "--out", tmp_path / "out", "--slices", 3, "--focal-length-m",
                   0.016, "--f-number", 2.8, "--pixel-pitch-m", 1e-5, "--fx", 519).exit_code == 0
    record = the_sweep(tmp_path / "out" / "a")
    capture = RgbdSweepFolder(folder, SweepCamera(0.016, 2.8, 1e-5, 3)).load("a")
    for stored, image in zip(record.slices, capture.stack, strict=True):
        assert stored.image is not None and np.array_equal(stored.image.array, image)
    assert [s.focus_diopters for s in record.slices] == pytest.approx([0.5, 0.875, 1.25])
    state = record.slices[1].lens_state
    assert (state.focal_length_m, state.f_number) == pytest.approx((0.016, 2.8))
    assert state.focus_calibration == state.CALIBRATION_CALIBRATED
    assert record.truth is not None and record.slices[0].camera_info.k[0] == 519
    assert np.array_equal(np.isnan(record.truth.array), depth == 0)
    assert record.truth.array[:, 32:] == pytest.approx(0.8)
    assert "approximate" in custom(tmp_path / "out" / "a")["data"]


def test_a_bad_capture_is_named_and_the_others_are_converted(tmp_path: Path) -> None:
    folder = write_captures(tmp_path / "in", ("a", "b", "c", "d"))
    (folder / "left" / "b.png").unlink()
    write(folder / "right" / "c.png", RIGHT[:40])
    (folder / "depth" / "d.npy").write_bytes(b"nothing")
    done = convert("folder", folder, "--out", tmp_path / "out")
    assert done.exit_code == 1 and "1 written, 0 were there, 3 failed" in done.output
    for text in ("left: no b.npy or .png", "right: 'c' is 64x40 px, its depth 64x48",
                 "d.npy: cannot be read as .npy"):
        assert text in done.output
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]
    for part in ("left", "right"):
        for path in (folder / part).iterdir():
            path.unlink()
        (folder / part).rmdir()
    done = convert("folder", folder, "--out", tmp_path / "other", "--only", "a")
    assert done.exit_code == 2 and "no left and right view; the kind nyu" in done.output


@pytest.mark.parametrize(("kind", "arguments", "text"), [
    ("folder", (), "no files in depth/"),
    ("dcdp", (), "no files in depth/"),
    ("google-dual-pixel", (), "no merged_depth/CAPTURE"),
    ("nyu", (), "no files in depth/"),
    ("nyu", ("--f-number", "0"), "f_number = 0"),
    ("nyu", ("--fx", "-3"), "--fx -3: must be finite and > 0"),
    ("dcdp", ("--parallax-axis", "z"), "--parallax-axis z: use x or y"),
    ("google-dual-pixel", ("--min-confidence", "2"), "--min-confidence 2: must be 0 to 1"),
])
def test_unusable_layouts_end_with_status_2_and_a_remedy(
    kind: str, arguments: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    done = convert(kind, tmp_path / "in", "--out", tmp_path / "out", *arguments)
    assert done.exit_code == 2 and text in done.output
