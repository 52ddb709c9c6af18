"""Priors from Hugging Face folders: small random networks, saved here and run directly beside."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from prior_files import MEAN, STD, picture

from depth_fusion_ros.estimation.prior_transformers import _output_of
from depth_fusion_ros.estimation.priors import PriorError, load_prior


@pytest.fixture(scope="module")
def transformers() -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"
    return pytest.importorskip(
        "transformers", reason="transformers is not installed (requirements/transformers.txt)")


def small_network(transformers: Any, kind: str = "relative") -> Any:
    torch.manual_seed(3)
    stages = [f"stage{i}" for i in range(1, 5)]
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=42, patch_size=14,
        out_features=stages, reshape_hidden_states=False)
    network = transformers.DepthAnythingForDepthEstimation(transformers.DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16,
        neck_hidden_sizes=[4, 8, 8, 8], fusion_hidden_size=8, head_hidden_size=8,
        depth_estimation_type=kind, max_depth=20 if kind == "metric" else 1)).eval()
    lively(network)
    with torch.no_grad():
        network.head.conv3.weight.mul_(0.1)  # neither cut at 0 nor saturated
        network.head.conv3.bias.fill_(1.0)
    return network


def lively(network: Any) -> None:
    """Weights with which the result differs from pixel to pixel; fresh ones are too small."""
    with torch.no_grad():
        for weights in network.parameters():
            if weights.ndim > 1:
                torch.nn.init.normal_(weights, std=1.5 * weights[0].numel() ** -0.5)


PREPROCESSING = {
    "image_processor_type": "DPTImageProcessor", "do_resize": True, "do_rescale": True,
    "do_normalize": True, "do_pad": False, "size": {"height": 42, "width": 42},
    "keep_aspect_ratio": True, "ensure_multiple_of": 14, "resample": 3,
    "rescale_factor": 1 / 255, "image_mean": MEAN.tolist(), "image_std": STD.tolist()}


def write_folder(folder: Path, network: Any, **preprocessing: Any) -> Path:
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING | preprocessing))
    return folder


@pytest.fixture(scope="module")
def relative(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("hf") / "tiny-da", small_network(transformers))


def run_directly(network: Any, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The network on an image whose size it takes as it is, without any processor."""
    x = torch.from_numpy(((rgb / 255 - MEAN) / STD).transpose(2, 0, 1)[None]).float()
    with torch.inference_mode():
        return np.asarray(network(pixel_values=x).predicted_depth[0].numpy())


def test_a_folder_gives_what_its_network_says(relative: Path, transformers: Any) -> None:
    prior = load_prior(str(relative))
    rgb = picture(42, 56)
    expected = run_directly(small_network(transformers), rgb)
    assert expected.std() > 0.01, "a test on a constant would prove nothing"
    result = prior.infer(rgb)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-4)
    assert prior.name.startswith("transformers:tiny-da@") and len(prior.name.split("@")[1]) == 8


def test_a_folder_takes_odd_sizes_and_grey(relative: Path, transformers: Any) -> None:
    prior = load_prior(str(relative))
    grey = cv2.GaussianBlur(picture(99, 131), (0, 0), 8)[..., 0]
    result = prior.infer(grey)
    rgb = np.repeat(cv2.resize(grey, (56, 42), interpolation=cv2.INTER_AREA)[..., None], 3, -1)
    direct = run_directly(small_network(transformers), rgb)
    expected = cv2.resize(direct, (131, 99), interpolation=cv2.INTER_LINEAR)
    assert result.shape == (99, 131)
    assert np.corrcoef(result.ravel(), expected.ravel())[0, 1] > 0.95


def test_a_metric_folder_is_inverted_because_its_config_says_so(
        transformers: Any, tmp_path: Path) -> None:
    network = small_network(transformers, "metric")
    folder = str(write_folder(tmp_path / "metric", network))
    rgb = picture(42, 42)
    metres = run_directly(network, rgb)
    assert metres.min() > 0.05 and metres.std() > 0.01
    np.testing.assert_allclose(load_prior(folder).infer(rgb), 1 / metres, rtol=1e-3)
    np.testing.assert_allclose(load_prior(folder, output="inverse_depth").infer(rgb), metres,
                               rtol=1e-3)


def test_loading_a_folder_reaches_for_no_network(relative: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("reached for the network")

    hub = importlib.import_module("huggingface_hub.constants")  # comes with transformers
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_prior(str(relative)).infer(picture(42, 42))
    assert hub.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "1"


def test_the_name_of_a_folder_follows_its_weights(relative: Path, tmp_path: Path,
                                                  transformers: Any) -> None:
    twin = shutil.copytree(relative, tmp_path / "tiny-da")
    assert load_prior(str(twin)).name == load_prior(str(relative)).name
    other = small_network(transformers)
    with torch.no_grad():
        other.head.conv3.bias.fill_(2.5)
    write_folder(twin, other)
    assert load_prior(str(twin)).name != load_prior(str(relative)).name


def test_weights_that_lack_a_tensor_are_refused_unless_it_is_never_used(
        relative: Path, tmp_path: Path, transformers: Any) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(relative, tmp_path / "torn")
    weights = load_file(relative / "model.safetensors")
    unused = [k for k in weights if "fusion_stage.layers.0.residual_layer1" in k]
    assert unused, "the layer that DPT never calls, which published files lack"
    kept = {k: v for k, v in weights.items() if k not in unused}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    rgb = picture(42, 42)
    np.testing.assert_allclose(load_prior(str(folder)).infer(rgb),
                               run_directly(small_network(transformers), rgb), atol=1e-4)
    del kept["head.conv2.weight"]
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(PriorError, match=r"weights lack \d+ tensors .*of different models"):
        load_prior(str(folder))


@pytest.mark.parametrize(("damage", "words"), [
    (lambda f: (f / "model.safetensors").unlink(), r"no \*\.safetensors"),
    (lambda f: (f / "model.safetensors").write_bytes(b"torn"), "cannot load it"),
    (lambda f: (f / "preprocessor_config.json").unlink(), "cannot load it"),
    (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
    (lambda f: (f / "config.json").write_text("{}"), "names no model_type"),
    (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "does not say whether"),
    (lambda f: (f / "preprocessor_config.json").write_text(json.dumps(
        PREPROCESSING | {"do_pad": True, "size_divisor": 14})), "pads")])
def test_damaged_folders_are_refused(damage: Any, words: str, relative: Path,
                                     tmp_path: Path) -> None:
    folder = shutil.copytree(relative, tmp_path / "damaged")
    damage(folder)
    with pytest.raises(PriorError, match=words) as caught:
        load_prior(str(folder))
    assert "damaged" in str(caught.value)


def test_a_processor_that_does_not_fit_its_network_is_explained(
        relative: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(relative, tmp_path / "unfit")
    (folder / "preprocessor_config.json").write_text(json.dumps(
        PREPROCESSING | {"size": {"height": 5, "width": 5}, "ensure_multiple_of": 5}))
    with pytest.raises(PriorError, match="unfit: fails on an image of 40x40 px"):
        load_prior(str(folder)).infer(picture(40, 40))


def test_zoedepth_pads_and_its_result_lies_on_the_image_again(
        transformers: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = transformers.BeitConfig(
        image_size=64, patch_size=16, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=16, use_relative_position_bias=True, reshape_hidden_states=False,
        out_features=[f"stage{i}" for i in range(1, 5)])
    network = transformers.ZoeDepthForDepthEstimation(transformers.ZoeDepthConfig(
        backbone_config=backbone, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        bottleneck_features=8, num_relative_features=8, bin_embedding_dim=8,
        num_attractors=[4, 4, 2, 1])).eval()
    lively(network)
    folder = write_folder(tmp_path / "zoe", network)
    sizes = {"image_processor_type": "ZoeDepthImageProcessor", "do_pad": True,
             "size": {"height": 64, "width": 64}, "ensure_multiple_of": 32, "do_resize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(sizes))
    rgb = picture(50, 70)
    result = load_prior(str(folder)).infer(rgb)
    assert result.shape == (50, 70)
    processor = transformers.AutoImageProcessor.from_pretrained(str(folder),
                                                                local_files_only=True)
    pixels = processor(images=rgb, return_tensors="pt", input_data_format="channels_last")
    with torch.inference_mode():
        padded = network(**pixels).predicted_depth[None]
    top, left = int(np.sqrt(50 / 2) * 3), int(np.sqrt(70 / 2) * 3)
    whole = F.interpolate(padded, (50 + 2 * top, 70 + 2 * left), mode="bilinear")[0, 0].numpy()
    metres = whole[top:-top, left:-left]
    assert metres.std() > 0.01 * metres.mean()
    np.testing.assert_allclose(result, 1 / np.maximum(metres, 0.05), rtol=1e-3)


@pytest.mark.parametrize(("config", "output"), [
    ({"model_type": "depth_anything"}, "inverse_depth"),
    ({"model_type": "depth_anything", "depth_estimation_type": "relative"}, "inverse_depth"),
    ({"model_type": "depth_anything", "depth_estimation_type": "metric"}, "depth"),
    ({"model_type": "dpt"}, "inverse_depth"),
    ({"model_type": "dpt", "backbone_config": {"model_type": "beit"}}, "inverse_depth"),
    ({"model_type": "zoedepth"}, "depth"), ({"model_type": "glpn"}, "depth"),
    ({"model_type": "depth_pro"}, "inverse_depth")])
def test_a_config_says_what_its_network_gives(config: dict[str, Any], output: str) -> None:
    assert _output_of(config, Path("folder")) == output


@pytest.mark.parametrize("config", [
    {"model_type": "dpt", "backbone_config": {"model_type": "dinov2"}}, {"model_type": "new"}])
def test_what_a_network_gives_is_not_guessed(config: dict[str, Any]) -> None:
    with pytest.raises(PriorError, match="use output = 'depth'"):
        _output_of(config, Path("folder"))


def test_options_of_onnx_files_are_refused_for_folders(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for options in ({"multiple": 14}, {"short_side_px": 518}, {"normalisation": "unit"}):
        with pytest.raises(PriorError, match="change them there"):
            load_prior(str(tmp_path), **options)  # type: ignore[arg-type]


def test_without_transformers_the_error_says_how_to_get_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "depth_anything"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PriorError, match="pip install 'transformers"):
        load_prior(str(tmp_path))
