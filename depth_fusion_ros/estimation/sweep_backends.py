"""Engines that turn an aligned focus sweep into inverse depth, behind one small interface.

`closed_form` (depth from focus and defocus without learning, `sweep_measurement.py`) needs none;
weights of the family ``sweep_depth`` run in torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.estimation.backends import (
    CLOSED_FORM,
    PRECISIONS,
    inference_device,
    load_network,
)
from depth_fusion_ros.estimation.model_card import (
    ModelCard,
    ModelError,
    checked_file,
    find_card,
    load_card,
)
from depth_fusion_ros.estimation.priors import Prior, normalised
from depth_fusion_ros.estimation.sweep_measurement import measure_sweep, sweep_blur_gain
from depth_fusion_ros.networks.sweep_depth import SweepDepth
from depth_fusion_ros.networks.sweep_depth import all_in_focus as blended
from depth_fusion_ros.optics.edge_aware_fill import fill_diopters
from depth_fusion_ros.optics.focus_blend import blend_in_focus
from depth_fusion_ros.optics.shape_from_focus import all_in_focus

FAMILY = "sweep_depth"


@dataclass(frozen=True)
class SweepInput:
    """An aligned sweep.

    Attributes:
        stack: (N, H, W, 3) uint8 sRGB, in rising order of focus, N ≥ 3.
        focus_diopters: (N,) float32, strictly rising.
        unaligned: the slices as they came and maps, as of `shape_from_focus`; None = `stack` is
            as it came.
        told_blur_gain_px_m: what the lens's data say; 0 = nothing.
    """

    stack: NDArray[np.uint8]
    focus_diopters: NDArray[np.float32]
    unaligned: tuple[NDArray[np.uint8], NDArray[np.float64]] | None = None
    told_blur_gain_px_m: float = 0.0

    @cached_property
    def blur_gain_px_m(self) -> float:
        """What engines use: the told gain, or the slices' own (`sweep_blur_gain`); 0 = unknown."""
        return sweep_blur_gain(self.stack, self.focus_diopters, self.told_blur_gain_px_m)

    @cached_property
    def measured(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Inverse depth and σ by `measure_sweep`, NaN where there is nothing to tell it by."""
        return measure_sweep(self.stack, self.focus_diopters, self.blur_gain_px_m, self.unaligned)


@dataclass(frozen=True)
class SweepPrediction:
    """What an engine says, (H, W) float32 each.

    Attributes:
        diopters: inverse depth, 1/m; ≤ 0 = at or beyond infinity; NaN = unknown.
        sigma_diopters: one standard deviation of it.
        focus_share: 1 = it comes from focus, 0 = from what is known of scenes or from its
            surroundings; NaN = the engine does not say.
        measured: inverse depth without learning; NaN = nothing to tell it by.
        picture: (H, W, 3) uint8, all in focus.
    """

    diopters: NDArray[np.float32]
    sigma_diopters: NDArray[np.float32]
    focus_share: NDArray[np.float32]
    measured: NDArray[np.float32]
    picture: NDArray[np.uint8]


class SweepBackend(Protocol):
    """What the estimator needs of an engine.

    `has_prior`: whether pixels without texture get their depth from a monocular prior (else from
    their surroundings).
    """

    model_id: str
    device_name: str
    backend_name: str
    has_prior: bool

    def infer(self, inputs: SweepInput) -> SweepPrediction:
        """Inverse depth of one sweep."""
        ...


def load_sweep_backend(model: str, *, device: str = "auto", precision: str = "fp32",
                       sha256: str = "", threads: int = 0, allow_cpu_fallback: bool = True,
                       prior: Prior | None = None) -> SweepBackend:
    """Load a model for focus sweeps; arguments as of `backends.load_backend`.

    Args:
        prior: in place of the network's own; None = its own.

    Raises:
        ModelError: anything that keeps the model from running; the text says what to do.
    """
    if precision not in PRECISIONS:
        raise ModelError(f"model.precision = {precision!r}: use one of {tuple(PRECISIONS)}")
    threads = threads or os.cpu_count() or 1
    if model == CLOSED_FORM:
        if prior is not None:
            raise ModelError(f"prior.path with model.path = {CLOSED_FORM!r}: only a network fuses "
                             "a prior; leave prior.path empty or name weights")
        return ClosedFormSweepBackend(threads)
    target = inference_device(device, allow_cpu_fallback)
    card_path = find_card(model)
    card = load_card(card_path)
    family = card.architecture.get("family", "difuse_net")
    if family != FAMILY:
        raise ModelError(f"model card {card_path}: is a {family} network, which reads dual pixels; "
                         f"a focus sweep needs weights of family {FAMILY}, or {CLOSED_FORM}")
    weights = checked_file(card_path, card.weights, sha256)
    network = load_network(weights, card)
    assert isinstance(network, SweepDepth)
    if prior is not None and network.config.method == "none":
        raise ModelError(f"prior.path with {card.name}: this network fuses no prior; leave "
                         "prior.path empty")
    return TorchSweepBackend(network, card, target, precision, threads, prior)


class ClosedFormSweepBackend:
    """Depth from focus and defocus, filled along the picture where it is blank."""

    backend_name = CLOSED_FORM
    model_id = CLOSED_FORM
    has_prior = False

    def __init__(self, threads: int = 1) -> None:
        cv2.setNumThreads(threads)
        torch.set_num_threads(threads)  # `measure_sweep` sums in torch: more threads, other digits
        self.device_name = f"cpu, {threads} threads"

    def infer(self, inputs: SweepInput) -> SweepPrediction:
        """See `SweepBackend.infer`."""
        measured, sigma_measured = inputs.measured
        guide = all_in_focus(inputs.stack, inputs.focus_diopters, measured)
        diopters, sigma = fill_diopters(measured, sigma_measured, guide)
        share = np.isfinite(measured).astype(np.float32)
        return SweepPrediction(diopters, sigma, share, measured, blend_in_focus(inputs.stack))


class TorchSweepBackend:
    """A `SweepDepth` in torch: CPU or CUDA, fp32/fp16/bf16."""

    backend_name = "torch"

    def __init__(self, network: SweepDepth, card: ModelCard, device: torch.device,
                 precision: str, threads: int, prior: Prior | None = None) -> None:
        self.device, self.dtype, self._prior = device, PRECISIONS[precision], prior
        if device.type == "cpu":
            torch.set_num_threads(threads)
            if self.dtype == torch.float16:
                raise ModelError("model.precision = 'fp16' on the CPU: half precision is slow and "
                                 "inexact there; use fp32 or bf16")
        self.device_name = (torch.cuda.get_device_name(device) if device.type == "cuda"
                            else f"cpu, {threads} threads")
        self.network = network.to(device).eval()
        self.model_id = card.model_id + (f"+{prior.name}" if prior is not None else "")
        self.has_prior = network.config.method != "none"
        self.card, self._sigma, self._multiple = card, card.sigma, card.input_multiple_px

    def infer(self, inputs: SweepInput) -> SweepPrediction:
        """See `SweepBackend.infer`."""
        height, width = inputs.stack.shape[1:3]
        padded = np.stack([cv2.copyMakeBorder(
            image, 0, -height % self._multiple, 0, -width % self._multiple, cv2.BORDER_REPLICATE)
            for image in inputs.stack])
        with torch.inference_mode(), torch.autocast(
                self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            stack = torch.from_numpy(padded).to(self.device).permute(0, 3, 1, 2)[None] / 255.0
            focus = torch.from_numpy(inputs.focus_diopters).to(self.device)[None]
            gain = torch.tensor([inputs.blur_gain_px_m], device=self.device)
            d, log_sigma, share, _, _, picture, measured = (
                self.network(stack, focus, gain) if self._prior is None else
                self.network.forward_with_prior(
                    stack, focus, self._relative(self._prior, stack), gain))
            found = torch.cat([d.float(), log_sigma.float().exp(), share.float(), measured], 1)[0]
            maps = found[:, :height, :width].cpu().numpy()
            rgb = (picture[0, :, :height, :width].float().clamp(0, 1) * 255).round().byte()
        return SweepPrediction(maps[0], self._sigma.apply(maps[1]), maps[2], maps[3],
                               np.ascontiguousarray(rgb.permute(1, 2, 0).cpu().numpy()))

    def _relative(self, prior: Prior, stack: torch.Tensor) -> torch.Tensor:
        """What a user's prior says of the all-in-focus image, (1, 1, H, W)."""
        picture = (blended(stack)[0].float().clamp(0, 1) * 255).round().byte()
        rgb = np.ascontiguousarray(picture.permute(1, 2, 0).cpu().numpy())
        return torch.from_numpy(normalised(prior.infer(rgb))).to(self.device)[None, None]
