"""Everything that can be scored, behind one interface: networks, untrained matching, oracles.

    method = open_method("sgbm")
    result = method.estimate(sample)

| specification | method |
|---|---|
| closed_form | pyramid Lucas–Kanade, `networks/evidence.py` |
| sgbm | OpenCV's semi-global block matching, as good as we could set it |
| constant | the median of the truth everywhere: an oracle, what knowing one number gives |
| shipped name, card or weights beside a card | a network, metric or affine as its card says |
| folder of a training run | its EMA weights, before any card exists |
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from depth_fusion_ros.estimation.backends import (
    CLOSED_FORM,
    DisparityBackend,
    NetworkInput,
    load_backend,
)
from depth_fusion_ros.estimation.dual_pixel import DualPixelEstimator, DualPixelOptions
from depth_fusion_ros.estimation.model_card import (
    ModelCard,
    ModelError,
    checked_file,
    find_card,
    load_card,
)
from depth_fusion_ros.evaluation.samples import Sample
from depth_fusion_ros.evaluation.semi_global import SemiGlobalOptions, semi_global_disparity
from depth_fusion_ros.networks.registry import Network, build_from_dict
from depth_fusion_ros.networks.sweep_depth import SweepDepth
from depth_fusion_ros.optics.thin_lens import depth_from_disparity

MIN_M, MAX_M = 0.15, 20.0
OPTIONS = DualPixelOptions(min_depth_m=MIN_M, max_depth_m=MAX_M, max_sigma_ratio=math.inf,
                           edge_filter_px=0)
"""Every pixel is scored: no sigma cut, no edge filter."""
SGBM, CONSTANT = "sgbm", "constant"
SEARCH_PX = 16.0
"""Limit of the disparities that SGBM searches; no lens of the sets reaches it."""
LAPLACE_SIGMA = math.sqrt(2.0)
"""Standard deviation of a Laplace distribution over its scale: σ of a run without a card."""

Image = NDArray[np.float32]


@dataclass(frozen=True)
class MethodResult:
    """What a method says of one sample, (H, W) float32 on the grid of the truth.

    Attributes:
        inverse_depth: affine in inverse depth, finite everywhere; the sign does not matter.
        depth_m, sigma_m: metres as in `DepthEstimate`; None where the method knows no metres, or
            no uncertainty.
        disparity_px: x_right − x_left; None where the method measures none.
    """

    inverse_depth: Image
    depth_m: Image | None = None
    sigma_m: Image | None = None
    disparity_px: Image | None = None


class Method(Protocol):
    """One row of the tables."""

    @property
    def name(self) -> str:
        """Name in the tables."""
        ...

    @property
    def parameters(self) -> int:
        """Learned parameters; 0 = nothing was trained."""
        ...

    @property
    def uses_lens(self) -> bool:
        """Whether it measures disparities, so that its metres depend on the lens's k and focus."""
        ...

    def estimate(self, sample: Sample) -> MethodResult:
        """Estimate one sample. Only an oracle may look at its truth."""
        ...


@dataclass(frozen=True)
class EstimatorMethod:
    """A backend behind the estimator that the node runs.

    `metric` False marks networks whose output is inverse depth up to scale and shift.
    """

    name: str
    estimator: DualPixelEstimator
    parameters: int = 0
    metric: bool = True

    @property
    def uses_lens(self) -> bool:
        """See `Method.uses_lens`."""
        return self.metric

    def estimate(self, sample: Sample) -> MethodResult:
        """See `Method.estimate`."""
        estimate = self.estimator.estimate(sample.frame)
        if not self.metric:
            return MethodResult(estimate.disparity_px)
        return MethodResult(estimate.relative_inverse_depth(), estimate.depth_m, estimate.sigma_m,
                            estimate.disparity_px)


@dataclass(frozen=True)
class SemiGlobalMethod:
    """OpenCV's SGBM on the views, metric through the lens; it gives no uncertainty."""

    options: SemiGlobalOptions = field(default_factory=SemiGlobalOptions)
    name: str = "OpenCV SGBM"
    parameters: int = 0
    uses_lens: bool = True

    def estimate(self, sample: Sample) -> MethodResult:
        """See `Method.estimate`."""
        frame = sample.frame
        views = np.sqrt(frame.left), np.sqrt(frame.right)
        if frame.lens is None:
            disparity = semi_global_disparity(*views, options=self.options)
            return MethodResult(-disparity, disparity_px=disparity)
        limits = [float(frame.lens.field_mean().disparity_px(z)) for z in (MIN_M, MAX_M)]
        reach = np.clip(limits, -SEARCH_PX, SEARCH_PX)
        disparity = semi_global_disparity(*views, (reach[0], reach[1]), self.options)
        height, width = disparity.shape
        depth, _ = depth_from_disparity(
            disparity, np.zeros_like(disparity), frame.lens.gain_map_px_m(width, height),
            frame.lens.focus_map_diopters(width, height), min_m=MIN_M, max_m=MAX_M)
        return MethodResult(-disparity, depth, None, disparity)


@dataclass(frozen=True)
class ConstantOracle:
    """The median of the scored truth at every pixel: no method should be worse than this."""

    name: str = "one depth (oracle)"
    parameters: int = 0
    uses_lens: bool = False

    def estimate(self, sample: Sample) -> MethodResult:
        """See `Method.estimate`."""
        truth = sample.depth_m
        known = truth[np.isfinite(truth) & (truth > MIN_M) & (truth < MAX_M)]
        depth = np.full(truth.shape, np.median(known) if known.size else np.nan, np.float32)
        return MethodResult(np.zeros_like(depth), depth)


def open_method(specification: str, *, backend: str = "auto", threads: int = 0) -> Method:
    """Open what a specification names, see the module's table.

    Args:
        specification: of the method. backend: engine of networks that have an export.
        threads: CPU threads, 0 = all cores.

    Raises:
        ModelError: no such method, or its files do not fit; the text says what to do.
    """
    if specification == CLOSED_FORM:
        return EstimatorMethod("closed form", _estimator(load_backend(CLOSED_FORM,
                                                                      threads=threads)))
    if specification == SGBM:
        return SemiGlobalMethod()
    if specification == CONSTANT:
        return ConstantOracle()
    if Path(specification).is_dir():
        return _from_weights(*run_weights(Path(specification)), LAPLACE_SIGMA, threads)
    card_path = find_card(specification)
    card = load_card(card_path)
    if _is_node_network(card.architecture):
        engine = load_backend(specification, backend=backend, threads=threads)
        return EstimatorMethod(card.name, _estimator(engine), card.parameters)
    weights = checked_file(card_path, card.weights)
    return _from_weights(card.name, card.architecture, weights, card.sigma_scale, threads)


class ModuleBackend:
    """Any network with DiFuse-Net's calling convention as a backend, in torch on the CPU."""

    backend_name = "torch"
    card: ModelCard | None = None

    def __init__(self, network: torch.nn.Module, name: str, sigma_scale: float,
                 input_multiple_px: int, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.network = network.eval()
        self.model_id = name
        self.sigma_scale = sigma_scale
        self.input_multiple_px = input_multiple_px
        self.device_name = f"cpu, {torch.get_num_threads()} threads"

    def infer(self, inputs: NetworkInput) -> tuple[Image, Image]:
        """See `DisparityBackend.infer`; networks that are affine give inverse depth instead."""
        with torch.inference_mode():
            output, log_scale = self.network(*(torch.from_numpy(a) for a in (
                inputs.left, inputs.right, inputs.rgb, inputs.condition)))
        return output[0, 0].numpy(), log_scale[0, 0].exp().numpy() * np.float32(self.sigma_scale)


def run_weights(folder: Path) -> tuple[str, dict[str, Any], Path]:
    """Name, architecture and weights' path of a finished or running training.

    Raises:
        ModelError: the folder holds no run.json.
    """
    facts_path = folder / "run.json"
    if not facts_path.is_file():
        raise ModelError(f"run folder {folder}: holds no run.json; give the folder that "
                         "depth-fusion train wrote, after its first evaluation")
    facts = json.loads(facts_path.read_text())
    return facts["network"], facts["architecture"], folder / f"{facts['network']}.safetensors"


def network_with_weights(architecture: dict[str, Any], weights: Path) -> Network:
    """Build a described network and load its weights.

    Raises:
        ModelError: they cannot be read, or do not fit.
    """
    try:
        network = build_from_dict(architecture)
        network.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, SafetensorError) as error:
        first = " ".join(str(error).strip().splitlines()[:2])
        raise ModelError(f"weights {weights}: do not fit their architecture ({first}); take "
                         "weights and description from the same run") from error
    return network


def _from_weights(name: str, architecture: dict[str, Any], weights: Path, sigma_scale: float,
                  threads: int) -> Method:
    network = network_with_weights(architecture, weights)
    if isinstance(network, SweepDepth):
        raise ModelError(f"weights {weights}: are of a focus-sweep network, which sees no dual "
                         "pixels; give weights of a dual-pixel network")
    count = sum(p.numel() for p in network.parameters())
    engine = ModuleBackend(network, name, sigma_scale, network.config.stride, threads)
    return EstimatorMethod(name, _estimator(engine), count,
                           metric=network.config.output != "inverse_depth")


def _is_node_network(architecture: dict[str, Any]) -> bool:
    """Whether the node's own backends run it: a DiFuse-Net that gives disparity."""
    return (str(architecture.get("family", "difuse_net")) == "difuse_net"
            and str(architecture.get("output", "disparity")) == "disparity")


def _estimator(engine: DisparityBackend) -> DualPixelEstimator:
    return DualPixelEstimator(engine, OPTIONS)
