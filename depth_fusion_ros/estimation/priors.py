"""Monocular priors that users bring: relative inverse depth of one RGB image, from their file.

    prior = load_prior("depth_anything_v2_small.onnx", short_side_px=518)
    inverse_depth = prior.infer(rgb)

The package ships a small prior of its own (`networks/monocular_prior.py`) and none of these: their
files are large, and their licences are not ours to pass on. Nothing is ever downloaded here.

How to get one
* A folder: `hf download depth-anything/Depth-Anything-V2-Small-hf --local-dir FOLDER`, then
  `load_prior("FOLDER")`. Needs transformers (`pip install transformers`); the folder holds
  config.json, preprocessor_config.json and *.safetensors. Size and normalisation of the image are
  the folder's own.
* An ONNX file: a published one, or export the network yourself with its image as sole input and its
  depth as sole output,

      torch.onnx.export(network, torch.zeros(1, 3, 518, 518), "prior.onnx", dynamo=False,
                        input_names=["image"], output_names=["depth"])

  for a fixed size, with `dynamic_axes={"image": {2: "h", 3: "w"}, "depth": {1: "h", 2: "w"}}` for
  any size. float32 in and out, channels first. Normalisation is not written in such a file: most
  networks want ImageNet's; MiDaS 3 (dpt_large, dpt_hybrid) wants "symmetric"; where it is inside
  the graph, "unit". The sha256 in `name` is that of the .onnx file, not of weights beside it.

What it gives: MiDaS and Depth Anything give relative inverse depth; ZoeDepth, GLPN and the *metric*
Depth Anything give metres and have to be inverted: `output="depth"` (a folder says so itself). A
prior taken for the other is upside down and still looks plausible, so look at one.

Licences differ within a family; read the model card. As known to us: MiDaS is MIT;
Depth-Anything-V2 Small is Apache-2.0, but Base, Large and Giant are CC-BY-NC-4.0, so not for
commercial robots.

What the fusion wants of it: `networks/attention_fusion.py` normalises and aligns the prior itself,
so any scale and shift will do, and `normalised` changes nothing. `networks/hybrid.py` fits scale
and shift too, but with a ridge meant for a spread of about one: give it `normalised`. The published
fusion (`networks/crossdepth.py`) takes numbers as they are: train it with the prior it will get.
`SweepDepth.forward_with_prior` takes the result as a tensor (B, 1, H, W), made from
`sweep_depth.all_in_focus(stack)` or from any sharp image on the same grid.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.prior_maps import Floats, PriorError
from depth_fusion_ros.estimation.prior_onnx import NORMALISATIONS, OnnxPrior
from depth_fusion_ros.estimation.prior_transformers import TransformersPrior

__all__ = ["Prior", "PriorError", "load_prior", "normalised", "KINDS", "OUTPUTS", "NORMALISATIONS"]

KINDS = ("auto", "onnx", "transformers")
OUTPUTS = ("auto", "inverse_depth", "depth")
FLAT = 1e-6
"""A map whose spread is less than this share of its median is constant but for rounding."""


class Prior(Protocol):
    """A network that sees the shape of a scene in one image.

    Attributes:
        name: "<kind>:<file or folder name>@<first eight digits of its sha256>".
    """

    name: str

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Relative inverse depth, larger = nearer, of unknown scale and shift.

        Args:
            rgb: (H, W, 3) uint8 sRGB of any size; grey as (H, W) or (H, W, 1).

        Returns:
            (H, W) float32 on the grid of the image, a new array, always finite; constant if the
            network says so.

        Raises:
            PriorError: another kind of image, or the network fails or gives values that are not
                finite.
        """
        ...


def load_prior(source: str, *, threads: int = 0, kind: str = "auto", output: str = "auto",
               device: str = "cpu", multiple: int = 0, short_side_px: int = 0,
               normalisation: str = "imagenet") -> Prior:
    """Load a prior from a file or folder on this machine.

    Args:
        source: path of an .onnx file, or of a folder with config.json. Never a name on a hub.
        threads: CPU threads; 0 = all cores in ONNX Runtime, and in torch what the process has.
        kind: "onnx", "transformers", or "auto" = by what `source` is.
        output: what the network gives: "inverse_depth", or "depth" in metres, which is inverted
            with a floor of 0.05 m. "auto": inverse depth for ONNX; for a folder, as its config
            says (and refused where it does not say).
        device: "cpu", "cuda", "cuda:N", or "auto" = CUDA where the engine has it.
        multiple: ONNX with dynamic sides: each is rounded to the nearest multiple of this, px;
            0 = 14, the patch of Depth Anything. MiDaS wants 32.
        short_side_px: ONNX with dynamic sides: scale the image to this shorter side first; 0 = as
            it is. Depth Anything was trained at 518.
        normalisation: ONNX: "imagenet", "symmetric" (−1..1) or "unit" (0..1).

    Raises:
        PriorError: anything that keeps the prior from running; the text says what to do.
    """
    for name, value, choices in (("kind", kind, KINDS), ("output", output, OUTPUTS),
                                 ("normalisation", normalisation, tuple(NORMALISATIONS))):
        if value not in choices:
            raise PriorError(f"{name} = {value!r} of prior {source}: use one of {choices}")
    for name, number in (("threads", threads), ("multiple", multiple),
                         ("short_side_px", short_side_px)):
        if number < 0:
            raise PriorError(f"{name} = {number} of prior {source}: must be 0 or more")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise PriorError(f"device = {device!r} of prior {source}: use cpu, cuda:N or auto")
    path = Path(source).expanduser()
    if kind == "auto":
        kind = "transformers" if path.is_dir() else "onnx"
    if not source or not path.exists():
        raise PriorError(f"prior {source!r}: no such file or folder. Names on a hub are not "
                         "fetched: download it (hf download NAME --local-dir FOLDER) and give "
                         "the folder, or give the path of an .onnx file")
    if kind == "onnx":
        if not path.is_file():
            raise PriorError(f"prior {path}: kind = 'onnx' wants an .onnx file and this is a "
                             "folder; name the file in it")
        return OnnxPrior(path, threads, output, device, multiple, short_side_px, normalisation)
    if not (path / "config.json").is_file():
        inside = ", ".join(sorted(p.name for p in path.glob("*.onnx"))[:3])
        raise PriorError(f"prior {path}: holds no config.json, so it is no Hugging Face folder; "
                         + (f"name the ONNX file in it ({inside})" if inside else
                            "give the folder that hf download or save_pretrained wrote"))
    if multiple or short_side_px or normalisation != "imagenet":
        raise PriorError(f"prior {path}: multiple, short_side_px and normalisation are for ONNX "
                         "files; a folder has them in preprocessor_config.json: change them there")
    return TransformersPrior(path, threads, output, device)


def normalised(prior: NDArray[np.floating]) -> Floats:
    """Shift and scale a map to median 0 and mean absolute deviation 1.

    The twin of `networks.alignment.normalise_prior` for one map outside torch, so that priors of
    all kinds have one range.

    Args:
        prior: (H, W), finite; larger = nearer.

    Returns:
        (H, W) float32; a constant map becomes zeros.

    Raises:
        PriorError: empty, or holds NaN or infinity.
    """
    values = np.asarray(prior, np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise PriorError(f"map of a prior, {values.shape}: is empty or not finite everywhere; "
                         "give what Prior.infer returned")
    median = float(np.median(values))
    centred = values - median
    spread = float(np.abs(centred).mean())
    if spread <= FLAT * abs(median):
        return np.zeros(values.shape, np.float32)
    return (centred / spread).astype(np.float32)
