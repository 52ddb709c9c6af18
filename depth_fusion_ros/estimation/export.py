"""Export trained weights: safetensors, ONNX graph and model card in one folder.

Focus-sweep networks have no graph (``"onnx": null``) and run in torch: their number of slices is
free, which the tracing exporter takes for a constant, and so is a median over the image, for which
ONNX has no operator.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from depth_fusion_ros.estimation.model_card import FileEntry, ModelCard, ModelError, sha256_of
from depth_fusion_ros.estimation.sigma_calibration import SigmaCalibration
from depth_fusion_ros.networks.blocks import parameter_count
from depth_fusion_ros.networks.convention import CONDITION_CHANNELS
from depth_fusion_ros.networks.registry import Network, build_from_dict
from depth_fusion_ros.networks.sweep_depth import SweepDepth

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
                sigma: SigmaCalibration, accuracy: list[dict[str, Any]],
                compact: bool = False) -> ModelCard:
    """Turn a training run into a shipped model: NAME.safetensors, NAME.json and, if it can be,
    NAME.onnx.

    Args:
        run: folder with the run's weights and run.json. folder: where the model goes.
        name, version, date: of the model. command: that reproduces the training.
        sigma: measured map from the network's scale to one standard deviation.
        accuracy: measured results, each naming its data.
        compact: weights rounded to half precision, and no ONNX graph: a quarter of the files.

    Raises:
        ModelError: the graph disagrees with torch, or weights leave the range of half precision.
    """
    facts = json.loads((run / "run.json").read_text())
    network = build_from_dict(facts["architecture"])
    weights = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    trained = run / f"{facts['network']}.safetensors"
    if compact:
        _round_to_half(trained, weights)
    else:
        shutil.copyfile(trained, weights)
    network.load_state_dict(load_file(weights))
    data = facts["training"]["data"]
    graph: FileEntry | None = None
    if isinstance(network, SweepDepth):
        learned_from, valid_range = _sweeps(data)
    else:
        learned_from, valid_range = _views(data)
        if not compact:
            path = folder / f"{name}.onnx"
            export_onnx(network, path)
            graph = FileEntry(file=path.name, sha256=sha256_of(path))
    card = ModelCard(
        name=name, version=version, licence="Apache-2.0", date=date, network=facts["network"],
        architecture=facts["architecture"], parameters=parameter_count(network),
        weights=FileEntry(file=weights.name, sha256=sha256_of(weights)), onnx=graph,
        training_data=learned_from,
        training={"command": command, "config": without_folders(facts["training"]),
                  **_effort(run, facts), "hardware": "2 CPU cores"},
        accuracy=accuracy, valid_range=valid_range,
        sigma_scale=round(math.exp(float(np.median(sigma.log_sigma)) - float(
            np.median(sigma.log_scale))), 4),
        sigma_calibration=sigma.to_dict(), input_multiple_px=network.config.stride)
    (folder / f"{name}.json").write_text(card.model_dump_json(indent=2) + "\n")
    return card


def _round_to_half(trained: Path, weights: Path) -> None:
    """Copy weights as float16; what computes with them still does so in float32."""
    rounded = {}
    for name, value in load_file(trained).items():
        rounded[name] = value.half() if value.is_floating_point() else value
        if not torch.isfinite(rounded[name]).all():
            raise ModelError(f"{trained}: {name} leaves the range of half precision; export it "
                             "without --compact")
    save_file(rounded, weights)


def _views(data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a dual-pixel network of simulated scenes learned from, and the range of it."""
    return (
        f"{data['scenes']} procedural scenes of {data['width_px']}x{data['height_px']} px, "
        "ray-traced through a finite aperture by depth_fusion_ros.simulation; sensor (ideal "
        "and soft split, shading, noise, bits) drawn anew at every visit; no photographs, "
        "no real captures", {
            "depth_m": [0.2, 20.0], "blur_gain_px_m": [0.7, 14.0],
            "focus_diopters": [0.05, 4.0], "blur_px": [-24.0, 24.0],
            "kappa": [0.08, 0.4244], "noise_variance_at_full_scale": [1e-6, 1.5e-3]})


def _sweeps(data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The same of a network of simulated focus sweeps."""
    return (
        f"{data['scenes']} procedural scenes of {data['width_px']}x{data['height_px']} px, each "
        f"at {data['slices']} focus positions, ray-traced through a finite aperture by "
        "depth_fusion_ros.simulation; number and choice of slices, exposure, flicker, remains of "
        "drift and breathing, noise (fresh, lasting and of fixed pattern) and what is told of the "
        "lens drawn anew at every visit; no photographs, no real captures", {
            "depth_m": [0.12, 25.0], "blur_gain_px_m": [0.8, 14.0],
            "focus_diopters": [0.015, 5.75], "blur_over_the_sweep_px": [1.0, 24.0],
            "slices": [4, data["slices"]], "drift_px": [-0.4, 0.4],
            "noise_variance_at_full_scale": [1e-6, 1e-3], "pattern_noise": [0.0, 0.012],
            "lasting_noise": [0.0, 0.006]})


def _effort(run: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Steps and minutes of a run, and of the stages before the last, whose folders lie in it."""
    before = [json.loads(path.read_text()) for path in sorted(run.glob("*/run.json"))]
    stages = {each["network"]: {"steps": each["steps_done"], "minutes": each["minutes"]}
              for each in before}
    minutes = round(facts["minutes"] + sum(each["minutes"] for each in before), 1)
    return {"steps": facts["steps_done"], "minutes": minutes,
            **({"stages": stages} if stages else {})}


def without_folders(value: Any) -> Any:
    """The same plain values, where an absolute path is told by its last two parts only."""
    if isinstance(value, dict):
        return {key: without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_folders(entry) for entry in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return "/".join(Path(value).parts[-2:])
    return value
