"""Focus-sweep networks as methods: the whole path, and two of its parts by themselves.

| specification | method |
|---|---|
| folder of a training run | its EMA weights, σ of the Laplace scale they give |
| shipped name, card or weights beside a card | the same with the card's calibration of σ |
| either of them, then #volume | what focus alone says, σ over its slices |
| either of them, then #prior | the monocular prior alone, fitted to the truth: an oracle |
| either of them, then #stand_in | the whole path on a prior made from the truth |
| either of them, then #stand_in_prior | that prior alone, fitted to the truth: an oracle |

The prior knows neither scale nor shift; both are then found by least squares against the true
inverse depth. The stand-in shows what a fusion makes of a prior like those that users bring, none
of which is here: its figures say how much of that prior comes through, not how well a camera does.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depth_fusion_ros.estimation.model_card import (
    ModelError,
    checked_file,
    find_card,
    load_card,
)
from depth_fusion_ros.estimation.sigma_calibration import SigmaCalibration
from depth_fusion_ros.estimation.sweep_measurement import sweep_blur_gain
from depth_fusion_ros.evaluation.methods import (
    LAPLACE_SIGMA,
    MAX_M,
    MIN_M,
    MethodResult,
    network_with_weights,
    run_weights,
)
from depth_fusion_ros.evaluation.sweep_samples import SweepSample
from depth_fusion_ros.networks.sweep_depth import SweepDepth
from depth_fusion_ros.training.stand_in_priors import stand_in_prior, with_stand_ins

Image = NDArray[np.float32]
SHOWN_PARTS = ("volume", "prior", "stand_in", "stand_in_prior")
"""What can be scored by itself, or with a prior from elsewhere, after a "#"."""
STAND_IN_LEVEL = 0.15
"""Regional error of the stand-in, see `training/stand_in_priors.py`."""
FARTHEST_DIOPTERS = 1 / MAX_M


def metric_result(diopters: Image, sigma_diopters: Image | None = None) -> MethodResult:
    """Metres of an inverse depth: 1/d clipped to the scored range, σ_Z = Z²·σ_d.

    Args:
        diopters: (H, W) finite; at or below 1/`MAX_M` is `MAX_M`. sigma_diopters: the same shape.
    """
    depth = np.clip(1 / np.maximum(diopters, FARTHEST_DIOPTERS), MIN_M, MAX_M).astype(np.float32)
    sigma = None if sigma_diopters is None else np.asarray(depth * depth * sigma_diopters,
                                                           np.float32)
    return MethodResult(diopters, depth, sigma)


@dataclass(frozen=True)
class LearnedSweepMethod:
    """A `SweepDepth` in torch on the CPU, or one of its parts.

    Attributes:
        name: in the tables. network: in evaluation mode. sigma: its scale to one standard
            deviation, dioptres; not used for a part.
        part: "" = the whole path, or one of `SHOWN_PARTS`; the calibration holds with its own
            prior and is used for "stand_in" too.
    """

    name: str
    network: SweepDepth
    sigma: SigmaCalibration
    part: str = ""

    @property
    def parameters(self) -> int:
        """See `SweepMethod.parameters`: of what is run."""
        what = (getattr(self.network, self.part) if self.part in ("volume", "prior")
                else self.network)
        return sum(p.numel() for p in what.parameters())

    def estimate(self, sample: SweepSample) -> MethodResult:
        """See `SweepMethod.estimate`; any size and any number of slices from two."""
        height, width = sample.stack.shape[1:3]
        multiple = self.network.config.stride
        padded = np.stack([cv2.copyMakeBorder(
            image, 0, -height % multiple, 0, -width % multiple, cv2.BORDER_REPLICATE)
            for image in sample.stack])

        def cropped(values: Tensor) -> Image:
            return np.ascontiguousarray(values[0, 0, :height, :width].numpy(), np.float32)

        with torch.inference_mode():
            stack = torch.from_numpy(padded).permute(0, 3, 1, 2)[None] / 255.0
            output = self.network.forward_full(
                stack, torch.from_numpy(sample.focus_diopters)[None],
                torch.tensor([sweep_blur_gain(sample.stack, sample.focus_diopters,
                                              sample.blur_gain_px_m)]))
            if self.part.startswith("stand_in"):
                prior = with_stand_ins(output.prior, stand_in_of(sample, stack.shape[-2:]))
                output = self.network.fuse(output.volume, output.all_in_focus, prior)
        if self.part == "volume":
            return metric_result(cropped(output.volume.diopters),
                                 cropped(output.volume.sigma_diopters))
        if self.part in ("prior", "stand_in_prior"):
            return metric_result(fitted_to_truth(cropped(output.prior), sample.depth_m))
        return metric_result(cropped(output.diopters),
                             self.sigma.apply(cropped(output.log_sigma.exp())))


def stand_in_of(sample: SweepSample, size: tuple[int, ...]) -> Tensor:
    """The prior made from a sample's truth, the same at every call; (1, 1, *size) normalised."""
    height, width = sample.depth_m.shape
    truth = np.pad(sample.depth_m, ((0, size[0] - height), (0, size[1] - width)), mode="edge")
    with np.errstate(invalid="ignore", divide="ignore"):
        valid = torch.from_numpy((truth > MIN_M) & (truth < MAX_M))[None, None]
        inverse = torch.from_numpy(np.float32(1) / truth)[None, None]
    generator = torch.Generator().manual_seed(zlib.crc32(sample.name.encode()))
    return stand_in_prior(inverse, valid, generator, level=STAND_IN_LEVEL)


def fitted_to_truth(relative: Image, depth_m: Image) -> Image:
    """scale·relative + shift nearest to the true inverse depth in least squares: an oracle.

    Args:
        relative: (H, W) relative inverse depth. depth_m: (H, W) truth; what is NaN or outside the
            scored range does not count.

    Returns:
        (H, W) float32 dioptres; the mean of the truth where `relative` is constant, and zeros
        (far) where there is no truth.
    """
    with np.errstate(invalid="ignore"):
        known = (depth_m > MIN_M) & (depth_m < MAX_M)
    if not known.any():
        return np.zeros_like(relative)
    x, y = relative[known].astype(np.float64), 1 / depth_m[known].astype(np.float64)
    spread = float(np.mean((x - x.mean()) ** 2))
    scale = float(np.mean((x - x.mean()) * (y - y.mean()))) / spread if spread > 0 else 0.0
    return np.asarray(scale * (relative - x.mean()) + y.mean(), np.float32)


def open_learned_sweep(specification: str) -> LearnedSweepMethod:
    """Open a run folder or a model card, see the module's table.

    Raises:
        ModelError: no such model, unknown part, files that do not fit one another, or a network
            of the dual-pixel path; the text says what to do.
    """
    model, mark, part = specification.partition("#")
    if mark and part not in SHOWN_PARTS:
        raise ModelError(f"method {specification!r}: no part {part!r}; use "
                         + " or ".join(f"{model}#{name}" for name in SHOWN_PARTS))
    if Path(model).is_dir():
        name, architecture, weights = run_weights(Path(model))
        sigma = SigmaCalibration.factor(LAPLACE_SIGMA)
    else:
        path = find_card(model)
        card = load_card(path)
        name, architecture, sigma = card.name, card.architecture, card.sigma
        weights = checked_file(path, card.weights)
    network = network_with_weights(architecture, weights)
    if not isinstance(network, SweepDepth):
        raise ModelError(f"weights {weights}: are of a dual-pixel network, which reads no focus "
                         "sweep; give weights of the family sweep_depth")
    shown = {"": name, "volume": f"{name}, volume alone",
             "prior": f"{name}, prior alone, fitted to the truth (oracle)",
             "stand_in": f"{name}, with a prior made from the truth",
             "stand_in_prior": f"{name}, that prior alone, fitted to the truth (oracle)"}
    return LearnedSweepMethod(shown[part], network.eval(), sigma, part)


__all__ = ["SHOWN_PARTS", "LearnedSweepMethod", "fitted_to_truth", "metric_result",
           "open_learned_sweep"]
