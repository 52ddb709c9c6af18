"""A prior from a Hugging Face folder, run by transformers; users call `load_prior` in `priors.py`.

Nothing is fetched: the process's access to the hub is switched off, and nothing in the folder is
run, neither code nor pickles.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from depth_fusion_ros.estimation.model_card import sha256_of
from depth_fusion_ros.estimation.prior_maps import (
    Floats,
    PriorError,
    as_rgb,
    finished,
    first_line,
    one_map,
)


class TransformersPrior:
    """A Hugging Face folder in torch; arguments as in `load_prior`."""

    def __init__(self, folder: Path, threads: int = 0, output: str = "auto", device: str = "cpu"
                 ) -> None:
        self.folder = folder
        config = _read_config(folder)
        self.output = _output_of(config, folder) if output == "auto" else output
        self._pads = config.get("model_type") == "zoedepth"
        self.name = f"transformers:{folder.resolve().name}@{_folder_sha256(folder)[:8]}"
        self._device = _torch_device(device, folder)
        if threads and self._device.type == "cpu":
            torch.set_num_threads(threads)
        transformers = _transformers(folder)
        guard = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._processor = transformers.AutoImageProcessor.from_pretrained(str(folder), **guard)
            network, info = transformers.AutoModelForDepthEstimation.from_pretrained(
                str(folder), use_safetensors=True, output_loading_info=True, **guard)
        except Exception as error:  # of many kinds, from several packages
            raise PriorError(f"prior {folder}: transformers {transformers.__version__} cannot "
                             f"load it ({first_line(error)}); it needs config.json, "
                             "preprocessor_config.json and model.safetensors of one depth "
                             "estimation model, as `hf download` fetches them") from error
        if (getattr(self._processor, "do_pad", False) and not self._pads
                and getattr(self._processor, "size_divisor", None)):
            raise PriorError(f"prior {folder}: its image processor pads (do_pad), which would "
                             "shift the depth against the image; set do_pad to false in "
                             "preprocessor_config.json and sizes to multiples of the patch")
        self._network = network.float().eval().to(self._device)
        self._refuse_missing(sorted(info["missing_keys"]))

    def infer(self, rgb: NDArray[np.uint8]) -> Floats:
        """See `Prior.infer`."""
        image = as_rgb(rgb)
        try:
            pixels = self._processor(images=image, return_tensors="pt",
                                     input_data_format="channels_last")["pixel_values"]
            with torch.inference_mode():
                result = self._network(pixel_values=pixels.to(self._device))
            depth = result.predicted_depth
            if self._pads and self._processor.do_pad:
                depth = _without_zoe_border(depth, *image.shape[:2])
        except Exception as error:
            raise PriorError(f"prior {self.folder}: fails on an image of {image.shape[0]}x"
                             f"{image.shape[1]} px ({first_line(error)}); check size and "
                             "ensure_multiple_of in preprocessor_config.json") from error
        return finished(one_map(depth.float().cpu().numpy(), self.folder), self.output, image,
                        self.folder)

    def _refuse_missing(self, missing: list[str]) -> None:
        """Refuse weights that the file lacks, unless the result does not depend on them.

        transformers fills them at random and only warns. DPT lacks a layer that it never calls, so
        the question is decided by trial: whatever is missing becomes NaN.
        """
        if not missing:
            return
        state = self._network.state_dict()
        for name in missing:
            if state[name].is_floating_point():
                state[name].fill_(math.nan)
        try:
            self.infer(np.full((96, 128, 3), 128, np.uint8))
        except PriorError as error:
            raise PriorError(f"prior {self.folder}: its weights lack {len(missing)} tensors that "
                             f"its config asks for ({', '.join(missing[:3])} …); config.json and "
                             "model.safetensors are of different models, fetch both again"
                             ) from error


def _without_zoe_border(depth: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Cut off what ZoeDepth's processor put around the image: 3·√(side/2) px at both ends.

    Its own `post_process_depth_estimation` does this too, but needs torchvision.
    """
    top, left = (int(3 * math.sqrt(side / 2)) for side in (height, width))
    whole = torch.nn.functional.interpolate(
        depth[:, None], (height + 2 * top, width + 2 * left), mode="bilinear",
        align_corners=False)[:, 0]
    return whole[:, top:top + height, left:left + width]


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise PriorError(f"prior {folder}: config.json cannot be read ({error}); fetch the folder "
                         "again") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise PriorError(f"prior {folder}: config.json names no model_type; it is not a folder "
                         "that transformers has saved")
    return config


def _output_of(config: dict[str, Any], folder: Path) -> str:
    """What the network gives; refuses to guess, a prior upside down looks plausible."""
    kind = config["model_type"]
    backbone = (config.get("backbone_config") or {}).get("model_type")
    if kind in ("zoedepth", "glpn"):
        return "depth"
    if "depth_estimation_type" in config or kind in ("depth_anything", "prompt_depth_anything"):
        return "depth" if config.get("depth_estimation_type") == "metric" else "inverse_depth"
    if kind == "depth_pro" or (kind == "dpt" and backbone != "dinov2"):
        return "inverse_depth"
    raise PriorError(
        f"prior {folder}: output = 'auto', and a model of type {kind}"
        f"{f' on {backbone}' if backbone else ''} does not say whether it gives depth or inverse "
        "depth; its model card does: use output = 'depth' (dpt-dinov2 trained on NYU or KITTI) "
        "or output = 'inverse_depth'")


def _folder_sha256(folder: Path) -> str:
    """Over names and contents of what the network is made of."""
    digest = hashlib.sha256()
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise PriorError(f"prior {folder}: holds no *.safetensors; other weights may run code when "
                         "read and are not: save them again with save_pretrained")
    for file in (folder / "config.json", folder / "preprocessor_config.json", *weights):
        if file.is_file():
            digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def _torch_device(device: str, folder: Path) -> torch.device:
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if device != "cpu" and int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise PriorError(f"prior {folder}: device = {device!r} is not available here "
                         f"({torch.cuda.device_count()} CUDA devices); use device = 'cpu'")
    return torch.device(device)


def _transformers(folder: Path) -> Any:
    """The package, with its access to the hub switched off for the whole process."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    loaded: Any = sys.modules.get("huggingface_hub.constants")
    if loaded is not None:  # it has read the environment already
        loaded.HF_HUB_OFFLINE = True
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise PriorError(f"prior {folder}: a Hugging Face folder needs the package transformers "
                         f"({first_line(error)}); pip install 'transformers>=4.57', or bring the "
                         "model as an .onnx file") from error
