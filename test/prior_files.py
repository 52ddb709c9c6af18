"""Small ONNX files that stand for published monocular networks, and what they must say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
WEIGHTS, BIAS = np.array((0.7, -0.4, 0.2)), 3.0


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mixed(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """What the graphs below say of an image that needs no resizing."""
    return np.maximum((rgb / 255 - MEAN) / STD @ WEIGHTS + BIAS, 0)


def save(path: Path, nodes: list[Any], *, shape: list[Any], out: list[Any],
         constants: dict[str, NDArray[Any]] | None = None, inputs: tuple[str, ...] = ("image",),
         outputs: tuple[str, ...] = ("depth",), kind: int = TensorProto.FLOAT) -> str:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(i, kind, shape) for i in inputs],
        [helper.make_tensor_value_info(o, kind, out) for o in outputs],
        [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return str(path)


def mixing(patch: int = 1) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    """Nodes that mix the channels, averaged over patches: `mixed` of "image" as (1, 1, h, w)."""
    kernel = np.tile(WEIGHTS[None, :, None, None] / patch**2, (1, 1, patch, patch))
    constants = {"w": kernel.astype(np.float32), "b": np.array([BIAS], np.float32)}
    return [helper.make_node("Conv", ["image", "w", "b"], ["mix"], strides=[patch, patch]),
            helper.make_node("Relu", ["mix"], ["positive"])], constants


def midas(path: Path, height: int = 64, width: int = 64) -> str:
    """Fixed size, result (1, H, W), as MiDaS is published."""
    nodes, constants = mixing()
    constants["axis"] = np.array([1])
    nodes.append(helper.make_node("Squeeze", ["positive", "axis"], ["depth"]))
    return save(path, nodes, shape=[1, 3, height, width], out=[1, height, width],
                constants=constants)


def depth_anything(path: Path) -> str:
    """Any sides that are multiples of its patch of 14, result (1, 1, H, W)."""
    nodes, constants = mixing(14)
    constants["up"] = np.array([1, 1, 14, 14], np.float32)
    constants["zero"] = np.zeros((1, 3, 1, 1), np.float32)
    nodes += [
        helper.make_node("Resize", ["positive", "", "up"], ["large"], mode="nearest",
                         coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        # As a transformer's skip connection: sides that do not fit do not add up.
        helper.make_node("Mul", ["image", "zero"], ["nothing"]),
        helper.make_node("ReduceMean", ["nothing"], ["flat"], axes=[1]),
        helper.make_node("Add", ["large", "flat"], ["depth"])]
    return save(path, nodes, shape=["batch", 3, "height", "width"],
                out=["batch", 1, "height", "width"], constants=constants)


def size_teller(path: Path, height: Any = "height", width: Any = "width") -> str:
    """A graph whose result is, everywhere, 1000·height + width of what it was fed."""
    nodes = [helper.make_node("Shape", ["image"], ["sides"]),
             helper.make_node("Cast", ["sides"], ["numbers"], to=TensorProto.FLOAT),
             helper.make_node("Mul", ["numbers", "weights"], ["weighted"]),
             helper.make_node("ReduceSum", ["weighted"], ["code"], keepdims=1),
             helper.make_node("Concat", ["one", "tail"], ["plane"], axis=0),
             helper.make_node("Slice", ["sides", "two", "four"], ["tail"]),
             helper.make_node("Expand", ["code", "plane"], ["depth"])]
    nodes[4], nodes[5] = nodes[5], nodes[4]
    constants = {"weights": np.array([0, 0, 1000, 1], np.float32), "one": np.array([1]),
                 "two": np.array([2]), "four": np.array([4])}
    return save(path, nodes, shape=[1, 3, height, width], out=[1, height, width],
                constants=constants)


def plain(path: Path, operation: str, out: list[Any] | None = None) -> str:
    """The channels' mean, then one operation on it."""
    nodes = [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1]),
             helper.make_node(operation, ["mean"], ["depth"])]
    return save(path, nodes, shape=[1, 3, 8, 8], out=out or [1, 1, 8, 8])
