"""Export trained weights: safetensors, ONNX graph and model card in one folder."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from depth_fusion_ros.estimation.model_card import FileEntry, ModelCard, ModelError, sha256_of
from depth_fusion_ros.estimation.sigma_calibration import SigmaCalibration
from depth_fusion_ros.networks.convention import CONDITION_CHANNELS
from depth_fusion_ros.networks.registry import Network, build_from_dict

OPSET = 18
TOLERANCE_PX = 2e-2
"""Largest difference between torch and the exported graph that is accepted, px: far below the
accuracy of the network; matching is a difference of products and amplifies rounding."""


def export_onnx(network: Network, path: Path) -> None:
    """Write the network as an ONNX graph with free height and width (multiples of its stride).

    Raises:
        ModelError: the exported graph disagrees with torch.
    """
    network = network.eval()
    stride = network.config.stride
    example = _random_inputs(4 * stride, 5 * stride, 0)
    grid = {2: "height", 3: "width"}
    with warnings.catch_warnings():
        # The tracing exporter warns that it is old and that sizes are taken as constants where
        # the code asks for padding; inputs are multiples of the stride, so none is ever needed,
        # and the comparison below runs at another size than the export.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, example, str(path), input_names=["left", "right", "rgb", "condition"],
            output_names=["disparity_px", "log_sigma"], opset_version=OPSET, dynamo=False,
            dynamic_axes={name: grid for name in (
                "left", "right", "rgb", "disparity_px", "log_sigma")})
    difference = onnx_difference_px(network, path, 3 * stride, 6 * stride)
    if not difference < TOLERANCE_PX:
        raise ModelError(f"exported graph {path}: differs from torch by {difference:.4f} px, "
                         f"allowed are {TOLERANCE_PX} px; do not ship it")


def onnx_difference_px(network: Network, path: Path, height_px: int, width_px: int) -> float:
    """99.9th percentile of |disparity in ONNX Runtime − disparity in torch| on smooth noise."""
    import onnxruntime

    inputs = _random_inputs(height_px, width_px, 1)
    with torch.inference_mode():
        reference = network(*inputs)[0].numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = ("left", "right", "rgb", "condition")
    exported = session.run(None, {n: t.numpy() for n, t in zip(names, inputs, strict=True)})[0]
    return float(np.quantile(np.abs(exported - reference), 0.999))


def _random_inputs(height: int, width: int, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 5, height // 8, width // 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    left = smooth[:, :1]
    right = torch.roll(left, 1, -1)
    return left, right, smooth[:, 2:], torch.rand(1, CONDITION_CHANNELS, generator=generator)


def write_model(run: Path, folder: Path, *, name: str, version: str, date: str, command: str,
                sigma: SigmaCalibration, accuracy: list[dict[str, Any]]) -> ModelCard:
    """Turn a training run into a shipped model: NAME.safetensors, NAME.onnx and NAME.json.

    Args:
        run: folder with the run's weights and run.json. folder: where the model goes.
        name, version, date: of the model. command: that reproduces the training.
        sigma: measured map from the network's scale to one standard deviation.
        accuracy: measured results, each naming its data.
    """
    facts = json.loads((run / "run.json").read_text())
    network = build_from_dict(facts["architecture"])
    weights = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / f"{facts['network']}.safetensors", weights)
    network.load_state_dict(load_file(weights))
    graph = folder / f"{name}.onnx"
    export_onnx(network, graph)
    data = facts["training"]["data"]
    card = ModelCard(
        name=name, version=version, licence="Apache-2.0", date=date, network=facts["network"],
        architecture=facts["architecture"], parameters=facts["parameters"],
        weights=FileEntry(file=weights.name, sha256=sha256_of(weights)),
        onnx=FileEntry(file=graph.name, sha256=sha256_of(graph)),
        training_data=(
            f"{data['scenes']} procedural scenes of {data['width_px']}x{data['height_px']} px, "
            "ray-traced through a finite aperture by depth_fusion_ros.simulation; sensor (ideal "
            "and soft split, shading, noise, bits) drawn anew at every visit; no photographs, "
            "no real captures"),
        training={"command": command, "config": facts["training"], "steps": facts["steps_done"],
                  "minutes": facts["minutes"], "hardware": "2 CPU cores"},
        accuracy=accuracy,
        valid_range={
            "depth_m": [0.2, 20.0], "blur_gain_px_m": [0.7, 14.0],
            "focus_diopters": [0.05, 4.0], "blur_px": [-24.0, 24.0],
            "kappa": [0.08, 0.4244], "noise_variance_at_full_scale": [1e-6, 1.5e-3]},
        sigma_scale=round(math.exp(float(np.median(sigma.log_sigma)) - float(
            np.median(sigma.log_scale))), 4),
        sigma_calibration=sigma.to_dict(), input_multiple_px=network.config.stride)
    (folder / f"{name}.json").write_text(card.model_dump_json(indent=2) + "\n")
    return card


