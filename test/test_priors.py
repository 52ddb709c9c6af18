"""Priors from ONNX files: the numbers they must give, and how the fusion takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from prior_files import (
    BIAS,
    WEIGHTS,
    depth_anything,
    midas,
    mixed,
    picture,
    plain,
    save,
    size_teller,
)

from depth_fusion_ros.estimation.model_card import sha256_of
from depth_fusion_ros.estimation.priors import PriorError, load_prior, normalised
from depth_fusion_ros.networks.alignment import normalise_prior
from depth_fusion_ros.networks.sweep_depth import SweepDepth, SweepDepthConfig, all_in_focus


def test_a_midas_file_gives_what_its_numbers_say(tmp_path: Path) -> None:
    prior = load_prior(midas(tmp_path / "midas.onnx"), threads=1)
    rgb = picture(64, 64)
    result = prior.infer(rgb)
    assert result.dtype == np.float32 and result.shape == (64, 64)
    np.testing.assert_allclose(result, mixed(rgb), atol=1e-4)
    assert prior.name == f"onnx:midas.onnx@{sha256_of(tmp_path / 'midas.onnx')[:8]}"


def test_height_and_width_are_not_exchanged_and_the_result_lies_on_the_image(
        tmp_path: Path) -> None:
    prior = load_prior(midas(tmp_path / "wide.onnx", 48, 64), threads=1)
    rows, columns = np.mgrid[0:75, 0:131]
    rgb = np.stack([rows * 2, columns, np.full_like(rows, 90)], -1).astype(np.uint8)
    result = prior.infer(rgb)
    assert result.shape == (75, 131)
    inside = (slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(result[inside], mixed(rgb)[inside], atol=0.03)


def test_a_small_image_is_enlarged_and_its_result_brought_back(tmp_path: Path) -> None:
    prior = load_prior(midas(tmp_path / "midas.onnx"), threads=1)
    rgb = np.full((9, 17, 3), (200, 40, 90), np.uint8)
    np.testing.assert_allclose(prior.infer(rgb), np.full((9, 17), mixed(rgb)[0, 0]), atol=1e-4)


def test_grey_counts_as_three_equal_channels(tmp_path: Path) -> None:
    prior = load_prior(midas(tmp_path / "midas.onnx"), threads=1)
    grey = picture(64, 64)[..., 0]
    expected = mixed(np.repeat(grey[..., None], 3, -1))
    np.testing.assert_allclose(prior.infer(grey), expected, atol=1e-4)
    np.testing.assert_allclose(prior.infer(grey[..., None]), expected, atol=1e-4)


@pytest.mark.parametrize("image", [
    np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32),
    np.zeros((0, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.uint8)])
def test_another_kind_of_image_is_refused(image: Any, tmp_path: Path) -> None:
    prior = load_prior(midas(tmp_path / "midas.onnx"), threads=1)
    with pytest.raises(PriorError, match="must be uint8"):
        prior.infer(image)


@pytest.mark.parametrize(("normalisation", "mean", "std"), [
    ("symmetric", 0.5, 0.5), ("unit", 0.0, 1.0)])
def test_other_normalisations_can_be_asked_for(normalisation: str, mean: float, std: float,
                                               tmp_path: Path) -> None:
    prior = load_prior(midas(tmp_path / "midas.onnx"), threads=1, normalisation=normalisation)
    rgb = picture(64, 64)
    expected = np.maximum((rgb / 255 - mean) / std @ WEIGHTS + BIAS, 0)
    np.testing.assert_allclose(prior.infer(rgb), expected, atol=1e-4)


def test_a_depth_anything_file_averages_its_patches(tmp_path: Path) -> None:
    prior = load_prior(depth_anything(tmp_path / "da.onnx"), threads=1)
    rgb = picture(28, 56)
    patches = rgb.reshape(2, 14, 4, 14, 3).mean((1, 3))
    expected = np.repeat(np.repeat(mixed(patches), 14, 0), 14, 1)
    np.testing.assert_allclose(prior.infer(rgb), expected, atol=1e-4)


@pytest.mark.parametrize(("options", "size", "fed"), [
    ({}, (50, 61), (56, 56)),
    ({}, (3, 400), (14, 406)),
    ({"multiple": 32}, (50, 61), (64, 64)),
    ({"multiple": 32}, (90, 113), (96, 128)),
    ({"short_side_px": 70}, (120, 160), (70, 98)),
    ({"short_side_px": 96, "multiple": 32}, (48, 36), (128, 96))])
def test_free_sides_are_the_nearest_multiples(options: dict[str, int], size: tuple[int, int],
                                              fed: tuple[int, int], tmp_path: Path) -> None:
    prior = load_prior(size_teller(tmp_path / "sizes.onnx"), threads=1, **options)
    result = prior.infer(picture(*size))
    assert np.array_equal(result, np.full(size, 1000 * fed[0] + fed[1], np.float32))


def test_one_fixed_side_takes_the_other_along(tmp_path: Path) -> None:
    prior = load_prior(size_teller(tmp_path / "sizes.onnx", height=42), threads=1)
    assert prior.infer(picture(84, 168))[0, 0] == 42084


def test_a_multiple_that_does_not_fit_is_explained(tmp_path: Path) -> None:
    prior = load_prior(depth_anything(tmp_path / "da.onnx"), threads=1, multiple=32)
    with pytest.raises(PriorError, match=r"fails on an input of 64x96 px.*multiple"):
        prior.infer(picture(64, 96))


def test_metric_depth_is_inverted_with_a_floor(tmp_path: Path) -> None:
    path = plain(tmp_path / "metric.onnx", "Relu")
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    metres = grey / 255
    result = load_prior(path, threads=1, output="depth", normalisation="unit").infer(grey)
    np.testing.assert_allclose(result, 1 / np.maximum(metres, 0.05), rtol=1e-5)
    assert result[0, 0] == 20 and result[0, 0] > result[7, 7]
    as_it_is = load_prior(path, threads=1, normalisation="unit").infer(grey)
    np.testing.assert_allclose(as_it_is, metres, atol=1e-6)


def test_infinite_depth_is_inverse_depth_zero_and_infinite_inverse_depth_is_refused(
        tmp_path: Path) -> None:
    grey = np.full((8, 8), 100, np.uint8)
    grey[2, 3] = 0
    path = plain(tmp_path / "sky.onnx", "Reciprocal")  # 1/0
    result = load_prior(path, threads=1, output="depth", normalisation="unit").infer(grey)
    assert result[2, 3] == 0
    np.testing.assert_allclose(np.delete(result, 19), 100 / 255, rtol=1e-5)
    with pytest.raises(PriorError, match="1 of 64 values of its inverse_depth are not finite"):
        load_prior(path, threads=1, normalisation="unit").infer(grey)


@pytest.mark.parametrize("output", ["inverse_depth", "depth"])
def test_nan_is_refused(output: str, tmp_path: Path) -> None:
    prior = load_prior(plain(tmp_path / "nan.onnx", "Log"), threads=1, output=output)
    with pytest.raises(PriorError, match=r"nan\.onnx: 64 of 64 values .* are not finite"):
        prior.infer(np.zeros((8, 8, 3), np.uint8))  # the logarithm of less than zero


def no_operation(path: Path, **changes: Any) -> str:
    values: dict[str, Any] = {"shape": [1, 3, 8, 8], "out": [1, 3, 8, 8]} | changes
    return save(path, [helper.make_node("Identity", ["image"], ["depth"])], **values)


def two_inputs(path: Path) -> str:
    return save(path, [helper.make_node("Add", ["image", "focal"], ["depth"])],
                shape=[1, 3, 8, 8], out=[1, 3, 8, 8], inputs=("image", "focal"))


def two_outputs(path: Path, *names: str) -> str:
    return save(path, [helper.make_node("ReduceMean", ["image"], [names[0]], axes=[1]),
                       helper.make_node("ReduceMax", ["image"], [names[1]], axes=[1])],
                shape=[1, 3, 8, 8], out=[1, 1, 8, 8], outputs=names)


@pytest.mark.parametrize(("make", "words"), [
    (lambda p: p.write_text("not a graph") and str(p), "not a graph that ONNX Runtime can load"),
    (two_inputs, r"2 inputs \(image, focal\).*image as sole input"),
    (lambda p: no_operation(p, shape=[1, 1, 8, 8], out=[1, 1, 8, 8]), r"\[1, 1, 8, 8\], must be"),
    (lambda p: no_operation(p, shape=[1, 8, 8, 3], out=[1, 8, 8, 3]), "channels first"),
    (lambda p: no_operation(p, shape=[1, "h", "w", 3], out=[1, "h", "w", 3]), "channels first"),
    (lambda p: no_operation(p, shape=[4, 3, 8, 8], out=[4, 3, 8, 8]), "one RGB image"),
    (lambda p: no_operation(p, shape=[3, 8, 8], out=[3, 8, 8]), "one RGB image"),
    (lambda p: no_operation(p, kind=TensorProto.FLOAT16), "float32 is fed"),
    (no_operation, r"output 'depth' is \[1, 3, 8, 8\].*export the depth alone"),
    (lambda p: two_outputs(p, "mean", "max"), r"2 outputs \(mean, max\) and none is called"),
])
def test_files_that_cannot_serve_are_refused_at_loading(make: Any, words: str,
                                                        tmp_path: Path) -> None:
    path = make(tmp_path / "bad.onnx")
    with pytest.raises(PriorError, match=words) as caught:
        load_prior(path, threads=1)
    assert "bad.onnx" in str(caught.value)


def test_a_shape_that_only_the_run_shows_is_refused_then(tmp_path: Path) -> None:
    bright = [helper.make_node("ReduceMax", ["image"], ["top"], axes=[0, 2, 3], keepdims=0),
              helper.make_node("Greater", ["top", "limit"], ["keep"]),
              helper.make_node("Compress", ["image", "keep"], ["depth"], axis=1)]
    path = save(tmp_path / "late.onnx", bright, shape=[1, 3, 8, 8], out=[1, "how many", 8, 8],
                constants={"limit": np.array(0.5, np.float32)})
    prior = load_prior(path, threads=1, normalisation="unit")
    one = np.zeros((8, 8, 3), np.uint8)
    one[..., 1] = 255
    assert np.array_equal(prior.infer(one), np.ones((8, 8)))
    one[..., 2] = 255
    with pytest.raises(PriorError, match=r"late\.onnx: gave a result of shape \(1, 2, 8, 8\)"):
        prior.infer(one)


def test_among_several_outputs_the_one_called_depth_is_taken(tmp_path: Path) -> None:
    path = two_outputs(tmp_path / "two.onnx", "confidence", "depth")
    rgb = picture(8, 8)
    result = load_prior(path, threads=1, normalisation="unit").infer(rgb)
    np.testing.assert_allclose(result, rgb.max(-1) / 255, atol=1e-6)


@pytest.mark.parametrize(("options", "words"), [
    ({"kind": "tflite"}, "kind = 'tflite'"), ({"output": "metres"}, "output = 'metres'"),
    ({"device": "gpu"}, "device = 'gpu'"), ({"normalisation": "none"}, "normalisation = 'none'"),
    ({"threads": -1}, "threads = -1"), ({"multiple": 32}, r"fixes its input's.*\(64, 64\)"),
    ({"short_side_px": 518}, "short_side_px = 518"), ({"kind": "transformers"}, "config.json"),
    ({"device": "cuda:7"}, "cuda:7.*use device = 'cpu'")])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str,
                                                tmp_path: Path) -> None:
    path = midas(tmp_path / "midas.onnx")
    with pytest.raises(PriorError, match=words):
        load_prior(path, **options)


@pytest.mark.parametrize("source", ["depth-anything/Depth-Anything-V2-Small-hf", ""])
def test_names_on_a_hub_are_not_fetched(source: str, monkeypatch: pytest.MonkeyPatch,
                                        tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("auto", "onnx", "transformers"):
        with pytest.raises(PriorError, match="Names on a hub are not fetched"):
            load_prior(source, kind=kind)


def test_a_folder_without_config_names_the_graph_in_it(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=r"no config\.json.*save_pretrained"):
        load_prior(str(tmp_path))
    midas(tmp_path / "model.onnx")
    with pytest.raises(PriorError, match=r"name the ONNX file in it \(model\.onnx\)"):
        load_prior(str(tmp_path))
    with pytest.raises(PriorError, match="name the file in it"):
        load_prior(str(tmp_path), kind="onnx")


def test_normalised_is_the_twin_of_what_the_fusion_does() -> None:
    values = 7 + 40 * np.random.default_rng(0).gamma(2, size=(31, 33)).astype(np.float32)
    result = normalised(values)
    assert result.dtype == np.float32
    assert np.median(result) == 0 and abs(np.abs(result).mean() - 1) < 1e-6
    twin = normalise_prior(torch.from_numpy(values)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(result, twin, atol=1e-5)
    np.testing.assert_allclose(result, normalised(0.01 * values - 5), atol=1e-3)


def test_normalised_makes_zeros_of_a_constant_and_refuses_nan() -> None:
    for value in (0.0, 1000.1, -0.3):
        assert not normalised(np.full((5, 6), value, np.float32)).any()
    with pytest.raises(PriorError, match="not finite"):
        normalised(np.array([[1.0, np.nan]]))


@pytest.mark.parametrize("method", ["attention", "hybrid", "crossdepth_code", "none"])
def test_the_sweep_network_takes_a_prior_from_elsewhere(method: str) -> None:
    torch.manual_seed(1)  # 0: the code's variant answers its lower limit everywhere
    network = SweepDepth(SweepDepthConfig(method)).eval()
    for name, weights in network.fusion.named_parameters():
        if "head" in name or "decoder" in name:  # fresh heads hardly look at anything
            torch.nn.init.normal_(weights, std=0.1)
    side = network.config.stride
    stack, focus = torch.rand(1, 4, 3, side, 2 * side), torch.tensor([[0.3, 0.8, 1.4, 2.1]])
    with torch.inference_mode():
        own = network.forward_full(stack, focus).prior
        before = network(stack, focus)
        after = network.forward_with_prior(stack, focus, own)
        other = network.forward_with_prior(stack, focus, before[3] ** 2)
        assert len(before) == len(after) == 7
        assert all(torch.equal(a, b) for a, b in zip(before[:6], after[:6]) if not a.isnan().all())
        assert torch.equal(before[0], other[0]) == (method == "none")
        assert torch.equal(before[3], other[3]), "what focus alone says does not depend on it"
        if method == "attention":
            scaled = network.forward_with_prior(stack, focus, 40 * own + 7)
            torch.testing.assert_close(before[0], scaled[0], atol=1e-3, rtol=1e-3)
        with pytest.raises(ValueError, match="must be"):
            network.forward_with_prior(stack, focus, own[..., :-1])


def test_an_onnx_prior_drives_the_sweep_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SweepDepth().eval()
    prior = load_prior(midas(tmp_path / "midas.onnx"), threads=1)
    stack, focus = torch.rand(1, 3, 3, 64, 96), torch.tensor([[0.4, 1.0, 2.0]])
    sharp = (all_in_focus(stack)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    with torch.inference_mode():
        results = network.forward_with_prior(
            stack, focus, torch.from_numpy(prior.infer(sharp))[None, None])
    assert results[0].shape == (1, 1, 64, 96) and bool(torch.isfinite(results[0]).all())
