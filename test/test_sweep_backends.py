"""Engines of the focus-sweep path: weights behind a card, and a prior of the user's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from wall_sweeps import FOCUS, HEIGHT, WIDTH, stack

from depth_fusion_ros.estimation.model_card import ModelError
from depth_fusion_ros.estimation.priors import normalised
from depth_fusion_ros.estimation.sweep_backends import SweepInput, load_sweep_backend
from depth_fusion_ros.networks.monocular_prior import MonocularPrior
from depth_fusion_ros.networks.registry import architecture, build
from depth_fusion_ros.networks.sweep_depth import SweepDepth

INPUT = SweepInput(np.stack(stack())[:, :-7, :-5], np.asarray(FOCUS, np.float32))


class Ramp:
    """A prior that says: the farther to the right, the nearer."""

    name = "test:ramp@00000000"

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.tile(np.arange(rgb.shape[1], dtype=np.float32), (rgb.shape[0], 1))


def saved(name: str, folder: Path) -> tuple[SweepDepth, Path]:
    """A network with fresh weights, and its card."""
    torch.manual_seed(0)
    network = build(name)
    assert isinstance(network, SweepDepth)
    weights = folder / "tiny.safetensors"
    save_file(network.state_dict(), weights)
    card = {"name": "tiny", "version": "0", "licence": "Apache-2.0", "date": "2026-01-01",
            "network": name, "architecture": architecture(network), "parameters": 1,
            "weights": {"file": weights.name,
                        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
            "training_data": "none", "training": {}, "accuracy": [], "valid_range": {},
            "sigma_scale": 2.0, "input_multiple_px": network.config.stride}
    path = folder / "tiny.json"
    path.write_text(json.dumps(card))
    return network.eval(), path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepDepth, Path]:
    return saved("sweep_depth", tmp_path_factory.mktemp("model"))


def test_weights_give_what_the_network_gives_on_the_pixels_that_were_there(
    model: tuple[SweepDepth, Path]
) -> None:
    network, card = model
    backend = load_sweep_backend(str(card), threads=1)
    assert backend.has_prior and backend.model_id.startswith("tiny@")
    found = backend.infer(INPUT)
    height, width = HEIGHT - 7, WIDTH - 5
    assert found.diopters.shape == (height, width) and found.picture.shape == (height, width, 3)
    padded = np.pad(INPUT.stack, ((0, 0), (0, 7), (0, 5), (0, 0)), mode="edge")
    with torch.inference_mode():
        d, log_sigma, *_ = network(torch.from_numpy(padded).permute(0, 3, 1, 2)[None] / 255,
                                   torch.from_numpy(INPUT.focus_diopters)[None],
                                   torch.tensor([INPUT.blur_gain_px_m]))
    np.testing.assert_allclose(found.diopters, d[0, 0, :height, :width], atol=1e-5)
    np.testing.assert_allclose(found.sigma_diopters,
                               2 * log_sigma.exp()[0, 0, :height, :width], rtol=1e-4)


def test_a_prior_of_the_users_takes_the_place_of_the_networks_own(
    model: tuple[SweepDepth, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, card = model
    backend = load_sweep_backend(str(card), threads=1, prior=Ramp())
    assert backend.model_id.endswith("+test:ramp@00000000")
    square = SweepInput(np.stack(stack()), np.asarray(FOCUS, np.float32))
    found = backend.infer(square)
    ramp = torch.from_numpy(normalised(Ramp().infer(square.stack[0])))[None, None]
    with torch.inference_mode():
        d, *_ = network.forward_with_prior(
            torch.from_numpy(square.stack).permute(0, 3, 1, 2)[None] / 255,
            torch.from_numpy(square.focus_diopters)[None], ramp,
            torch.tensor([square.blur_gain_px_m]))
    np.testing.assert_allclose(found.diopters, d[0, 0], atol=1e-5)
    def refuse(*_: object) -> None:
        raise AssertionError("the network's own prior ran")

    monkeypatch.setattr(MonocularPrior, "forward", refuse)
    np.testing.assert_array_equal(backend.infer(square).diopters, found.diopters)
    with pytest.raises(AssertionError, match="own prior"):
        load_sweep_backend(str(card), threads=1).infer(square)


def test_a_prior_that_nothing_fuses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"prior\.path"):
        load_sweep_backend("closed_form", prior=Ramp())
    _, card = saved("sweep_depth-volume_alone", tmp_path)
    with pytest.raises(ModelError, match="fuses no prior"):
        load_sweep_backend(str(card), threads=1, prior=Ramp())
    assert not load_sweep_backend(str(card), threads=1).has_prior


def test_unknown_precision_and_broken_weights_are_named(
    model: tuple[SweepDepth, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="fp8"):
        load_sweep_backend(str(model[1]), precision="fp8")
    with pytest.raises(ModelError, match="fp16"):
        load_sweep_backend(str(model[1]), device="cpu", precision="fp16")
    _, card = saved("sweep_depth", tmp_path)
    (tmp_path / "tiny.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="sha256"):
        load_sweep_backend(str(card))
