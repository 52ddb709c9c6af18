"""A prior from an ONNX file, run by ONNX Runtime; users call `load_prior` in `priors.py`."""

from __future__ import annotations

import importlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.model_card import sha256_of
from depth_fusion_ros.estimation.prior_maps import (
    Floats,
    PriorError,
    as_rgb,
    finished,
    first_line,
    one_map,
    resized,
)

NORMALISATIONS = {  # mean and standard deviation of sRGB values 0..1, per channel
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
PATCH_PX = 14
"""Patch of Depth Anything's transformer; sides of a dynamic graph are multiples of it."""
OUTPUT_NAMES = ("predicted_depth", "inverse_depth", "depth")
"""What an output is called where a graph has several."""


class OnnxPrior:
    """A graph in ONNX Runtime; arguments as in `load_prior`."""

    def __init__(self, path: Path, threads: int = 0, output: str = "auto", device: str = "cpu",
                 multiple: int = 0, short_side_px: int = 0, normalisation: str = "imagenet"
                 ) -> None:
        self.path = path
        self.name = f"onnx:{path.name}@{sha256_of(path)[:8]}"
        self.output = "inverse_depth" if output == "auto" else output
        self._session = self._open(threads, device)
        self._input, self._sides = self._checked_input()
        self._output = self._checked_output()
        if (multiple and None not in self._sides) or (
                short_side_px and self._sides != (None, None)):
            raise PriorError(f"prior {path}: multiple = {multiple}, short_side_px = "
                             f"{short_side_px}, but the graph fixes its input's height and width "
                             f"at {self._sides} px (None = free); leave both 0")
        self._multiple, self._short_side_px = multiple or PATCH_PX, short_side_px
        mean, std = NORMALISATIONS[normalisation]
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)

    def infer(self, rgb: NDArray[np.uint8]) -> Floats:
        """See `Prior.infer`."""
        image = as_rgb(rgb)
        height, width = self._model_size(*image.shape[:2])
        x = resized(image.astype(np.float32) / np.float32(255), height, width)
        x = np.asarray((x - self._mean) / self._std, np.float32)
        try:
            result = self._session.run([self._output], {
                self._input: np.ascontiguousarray(x.transpose(2, 0, 1)[None])})[0]
        except Exception as error:  # onnxruntime raises its own unexported types
            raise PriorError(
                f"prior {self.path}: ONNX Runtime fails on an input of {height}x{width} px "
                f"({first_line(error)}); if its sides must be multiples of another number than "
                f"{self._multiple}, give it as multiple (MiDaS: 32)") from error
        return finished(one_map(result, self.path), self.output, image, self.path)

    def _open(self, threads: int, device: str) -> Any:
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or os.cpu_count() or 1
        options.inter_op_num_threads = 1
        # Idle threads must not spin: the ROS executor needs the core between frames.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        cuda = "CUDAExecutionProvider"
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.startswith("cuda") or (
                device == "auto" and cuda in runtime.get_available_providers()):
            providers.insert(0, (cuda, {"device_id": int(device.partition(":")[2] or 0)}))
        try:
            if device.startswith("cuda") and cuda not in runtime.get_available_providers():
                raise PriorError(f"prior {self.path}: device = {device!r}, but this ONNX Runtime "
                                 "has no CUDA; pip install onnxruntime-gpu in the place of "
                                 "onnxruntime, or use device = 'cpu'")
            session = runtime.InferenceSession(str(self.path), options, providers=providers)
        except PriorError:
            raise
        except Exception as error:
            raise PriorError(f"prior {self.path}: not a graph that ONNX Runtime can load "
                             f"({first_line(error)}); export it again, or take another file"
                             ) from error
        if device.startswith("cuda") and session.get_providers()[0] != cuda:
            raise PriorError(f"prior {self.path}: device = {device!r} could not be started; see "
                             "the log of ONNX Runtime, or use device = 'cpu'")
        return session

    def _checked_input(self) -> tuple[str, tuple[int | None, int | None]]:
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise PriorError(f"prior {self.path}: the graph has {len(inputs)} inputs "
                             f"({', '.join(i.name for i in inputs)}), and one image is all it "
                             "can be given; export the network with the image as sole input")
        (it,) = inputs
        shape = [side if isinstance(side, int) else None for side in it.shape]
        what = f"prior {self.path}: input {it.name!r} is {it.type} {list(it.shape)}"
        if it.type != "tensor(float)":
            raise PriorError(f"{what}, float32 is fed; export it with float32 inputs and outputs "
                             "(half precision inside is no obstacle)")
        last_is_colour = shape[1:2] != [3] and shape[3:] == [3]
        if (len(shape) != 4 or shape[0] not in (1, None) or shape[1] not in (3, None)
                or last_is_colour):
            raise PriorError(f"{what}, must be (1, 3, height, width): one RGB image, channels "
                             "first; export it with such an input")
        return str(it.name), (shape[2], shape[3])

    def _checked_output(self) -> str:
        outputs = self._session.get_outputs()
        if len(outputs) > 1:
            by_name = {o.name: o for o in outputs}
            outputs = [by_name[name] for name in OUTPUT_NAMES if name in by_name][:1]
            if not outputs:
                raise PriorError(f"prior {self.path}: the graph has {len(by_name)} outputs "
                                 f"({', '.join(by_name)}) and none is called "
                                 f"{' or '.join(OUTPUT_NAMES)}; export the depth alone")
        shape = outputs[0].shape
        flat = len(shape) == 3 or (len(shape) == 4 and not (
            isinstance(shape[1], int) and shape[1] != 1))
        if shape and not flat:  # no shape at all = only the run will tell
            raise PriorError(f"prior {self.path}: output {outputs[0].name!r} is {list(shape)}, "
                             "must be (1, height, width) or (1, 1, height, width); export the "
                             "depth alone")
        return str(outputs[0].name)

    def _model_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to feed: fixed ones as they are, dynamic ones in multiples."""
        fixed = self._sides
        if fixed[0] is not None and fixed[1] is not None:
            return fixed[0], fixed[1]
        scale = self._short_side_px / min(height, width) if self._short_side_px else 1.0
        if fixed[0] is not None or fixed[1] is not None:  # the other side follows
            scale = fixed[0] / height if fixed[0] is not None else (fixed[1] or 0) / width
        step = self._multiple
        height, width = (side if side is not None else
                         step * max(1, math.floor(own * scale / step + 0.5))
                         for side, own in zip(fixed, (height, width)))
        return height, width
