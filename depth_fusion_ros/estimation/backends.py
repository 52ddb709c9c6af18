"""Engines that run a disparity network behind one small interface.

`torch` runs anywhere torch does (CPU, CUDA, half precisions); `onnxruntime` runs the exported
graph on CPUs; `closed_form` needs no weights and is the baseline. Measured choice: README,
"Speed".
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from depth_fusion_ros.estimation.model_card import (
    ModelCard,
    ModelError,
    checked_file,
    find_card,
    load_card,
)
from depth_fusion_ros.networks.evidence import dual_pixel_evidence
from depth_fusion_ros.networks.registry import Network, build_from_dict

CLOSED_FORM = "closed_form"
SMALL_WINDOWS = 3
BACKENDS = ("auto", "torch", "onnxruntime")
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class NetworkInput:
    """One network input, height and width multiples of the backend's `input_multiple_px`.

    Attributes:
        left, right: (1, 1, H, W) float32, square root of linear light, 0..1, parallax along x.
        rgb: (1, 3, H, W) float32, sRGB-encoded, 0..1.
        condition: (1, 4) float32 lens condition, zeros = unknown (`lens_condition`).
    """

    left: NDArray[np.float32]
    right: NDArray[np.float32]
    rgb: NDArray[np.float32]
    condition: NDArray[np.float32]


class DisparityBackend(Protocol):
    """What the estimator needs of an engine."""

    model_id: str
    device_name: str
    backend_name: str
    input_multiple_px: int

    @property
    def card(self) -> ModelCard | None:
        """Card of the weights; None where there are none."""
        ...

    def infer(self, inputs: NetworkInput) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Disparity (H, W) px and its standard deviation (H, W) px."""
        ...


def load_backend(model: str, *, backend: str = "auto", device: str = "auto",
                 precision: str = "fp32", sha256: str = "", threads: int = 0,
                 allow_cpu_fallback: bool = True) -> DisparityBackend:
    """Load a model for inference.

    Args:
        model: name of shipped weights, path of a card, or "closed_form".
        backend: "auto" takes torch on CUDA and onnxruntime on a CPU where an export exists.
        device: "auto", "cpu" or "cuda:N". precision: fp32, fp16 or bf16 (torch only).
        sha256: demanded sha256 of the weights, "" = the card's.
        threads: CPU threads, 0 = all cores.
        allow_cpu_fallback: use the CPU where the CUDA device asked for is missing.

    Raises:
        ModelError: anything that keeps the model from running; the text says what to do.
    """
    if backend not in BACKENDS:
        raise ModelError(f"model.backend = {backend!r}: use one of {BACKENDS}")
    if precision not in PRECISIONS:
        raise ModelError(f"model.precision = {precision!r}: use one of {tuple(PRECISIONS)}")
    threads = threads or os.cpu_count() or 1
    if model == CLOSED_FORM:
        return ClosedFormBackend(threads)
    target = inference_device(device, allow_cpu_fallback)
    card_path = find_card(model)
    card = load_card(card_path)
    if card.architecture.get("family") == "sweep_depth":
        raise ModelError(f"model card {card_path}: is of a focus-sweep network, which reads no "
                         "dual pixels; give weights of a dual-pixel network")
    if backend == "auto":
        backend = "onnxruntime" if target.type == "cpu" and card.onnx else "torch"
    if backend == "onnxruntime":
        if target.type != "cpu":
            raise ModelError(f"model.backend = 'onnxruntime' with device = {device!r}: this "
                             "engine runs on the CPU; use model.backend: torch for CUDA")
        if card.onnx is None:
            raise ModelError(f"model card {card_path}: has no onnx entry; use model.backend: "
                             "torch, or export it with depth-fusion export")
        checked_file(card_path, card.weights, sha256)
        return OnnxRuntimeBackend(checked_file(card_path, card.onnx), card, threads)
    return TorchBackend(checked_file(card_path, card.weights, sha256), card, target, precision,
                        threads)


def inference_device(device: str, allow_cpu_fallback: bool) -> torch.device:
    """Device of "auto", "cpu" or "cuda:N".

    Raises:
        ModelError: unknown, or missing while there is no leave to fall back to the CPU.
    """
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        return torch.device("cpu")
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        if torch.cuda.is_available() and index < torch.cuda.device_count():
            return torch.device("cuda", index)
        if allow_cpu_fallback:
            return torch.device("cpu")
        raise ModelError(f"device = {device!r}: not available here "
                         f"({torch.cuda.device_count()} CUDA devices) and allow_cpu_fallback is "
                         "false; set device: cpu or allow_cpu_fallback: true")
    raise ModelError(f"device = {device!r}: use auto, cpu or cuda:N")


class TorchBackend:
    """The network in torch: CPU or CUDA, fp32/fp16/bf16, channels-last."""

    backend_name = "torch"

    def __init__(self, weights: Path, card: ModelCard, device: torch.device, precision: str,
                 threads: int) -> None:
        self.card = card
        self._sigma = card.sigma
        self.model_id = card.model_id
        self.input_multiple_px = card.input_multiple_px
        self.device, self.dtype = device, PRECISIONS[precision]
        if device.type == "cpu":
            torch.set_num_threads(threads)
            if self.dtype == torch.float16:
                raise ModelError("model.precision = 'fp16' on the CPU: half precision is slow and "
                                 "inexact there; use fp32 or bf16")
        self.device_name = (torch.cuda.get_device_name(device) if device.type == "cuda"
                            else f"cpu, {threads} threads")
        self.network = load_network(weights, card).to(
            device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def infer(self, inputs: NetworkInput) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `DisparityBackend.infer`."""
        with torch.inference_mode(), torch.autocast(
                self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            left, right, rgb, condition = (
                torch.from_numpy(a).to(self.device, non_blocking=True)
                for a in (inputs.left, inputs.right, inputs.rgb, inputs.condition))
            disparity, log_scale = self.network(left, right, rgb, condition)
            scale = log_scale.float().exp()
            both = torch.cat([disparity.float(), scale], 1)[0].cpu().numpy()
        return both[0], self._sigma.apply(both[1])


def load_network(weights: Path, card: ModelCard) -> Network:
    """Rebuild the card's network and load its weights, in evaluation mode.

    Raises:
        ModelError: the file is not safetensors, or does not fit the architecture of the card.
    """
    try:
        network = build_from_dict(card.architecture)
        network.load_state_dict(load_file(weights))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"weights {weights}: not readable as safetensors ({error}); "
                         "fetch the file again") from error
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()
        raise ModelError(f"weights {weights}: do not fit the architecture of their card "
                         f"({' '.join(first[:2])}); card and weights are of different models"
                         ) from error
    return network.eval()


class OnnxRuntimeBackend:
    """The exported graph in ONNX Runtime on the CPU."""

    backend_name = "onnxruntime"

    def __init__(self, graph: Path, card: ModelCard, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelError("model.backend = 'onnxruntime': the package onnxruntime is not "
                             "installed; pip install onnxruntime, or use model.backend: torch"
                             ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads must not spin: the ROS executor needs the core between frames.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(
                str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own unexported types
            raise ModelError(f"graph {graph}: ONNX Runtime cannot load it ({error}); "
                             "export it again") from error
        self.card = card
        self._sigma = card.sigma
        self.model_id = card.model_id
        self.input_multiple_px = card.input_multiple_px
        self.device_name = f"cpu, {threads} threads"

    def infer(self, inputs: NetworkInput) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `DisparityBackend.infer`."""
        disparity, log_scale = self.session.run(None, {
            "left": inputs.left, "right": inputs.right, "rgb": inputs.rgb,
            "condition": inputs.condition})
        return disparity[0, 0], self._sigma.apply(np.exp(log_scale[0, 0]))


class ClosedFormBackend:
    """Pyramid Lucas–Kanade along the parallax axis, weighted over its windows; no weights.

    The standard deviation comes from the residual and the gradient energy of the window
    (σ² = residual² / (N_eff · energy)), with a floor of 0.03 px; a flat window gets a large one.
    """

    backend_name = CLOSED_FORM
    model_id = CLOSED_FORM
    input_multiple_px = 8
    card: ModelCard | None = None

    def __init__(self, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self.device_name = f"cpu, {threads} threads"

    def infer(self, inputs: NetworkInput) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `DisparityBackend.infer`."""
        with torch.inference_mode():
            evidence = dual_pixel_evidence(torch.from_numpy(inputs.left),
                                           torch.from_numpy(inputs.right))
            # The small windows only: the large ones are for a network that sees the edges.
            weight = evidence.energy[:, :SMALL_WINDOWS] + 1e-9
            votes = evidence.disparity_px[:, :SMALL_WINDOWS]
            disparity = (votes * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
            independent = 15 * 15 / 4
            sigma = (evidence.residual / torch.sqrt(independent * weight[:, 1:2])).clamp(
                0.03, math.inf)
            both = torch.nn.functional.interpolate(
                torch.cat([disparity, sigma], 1), scale_factor=2.0, mode="bilinear",
                align_corners=False)[0].numpy()
        return both[0], both[1]
