"""``~/save_frame``: the newest set that a depth node worked on, in one file (ros/frame_bundle.py).

The newest set is the one before the call, not the next: "that depth was bad, save it". Only
references to it are kept. The worker thread only swaps them; the file is written where the
services are served.
"""

from __future__ import annotations

import os
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from std_srvs.srv import Trigger

from depth_fusion_ros.estimation.estimate import DepthEstimate
from depth_fusion_ros.estimation.model_card import ModelError, find_card, load_card
from depth_fusion_ros.estimation.scale_anchor import AnchorFit
from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.engine import Engine
from depth_fusion_ros.ros.frame_bundle import (
    FORMAT_VERSION,
    OUTPUTS,
    FrameBundle,
    FrameHeader,
    SavedSlice,
    SavedSweep,
    write_bundle,
)
from depth_fusion_ros.ros.messages import stamp_to_ns
from depth_fusion_ros.ros.slice_inputs import SweepItem, slice_lens
from depth_fusion_ros.ros.synchronisation import InputSet

if TYPE_CHECKING:
    from depth_fusion_ros.ros.depth_node import Result

_REMEMBERED_LENS_STATES = 1024


@dataclass(frozen=True)
class ProcessedFrame:
    """A set that went through `DepthNode.process`, by reference.

    Attributes:
        item: as it was delivered. values: parameters that held.
        inference_divisor: of the overload step. anchor: correction of the dioptres, if any.
        estimate: what was published; None where it failed. error: "<cause>: <sentence>" then.
    """

    item: InputSet | SweepItem
    values: Mapping[str, Any]
    inference_divisor: int
    anchor: AnchorFit | None
    estimate: DepthEstimate | None
    error: str = ""


class FrameSaver:
    """The service and what it saves.

    Args:
        node: offers ``~/save_frame``; its `values` tell the folder, its `versions` go into the
            file.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._engine: Engine | None = None
        self._kept: tuple[ProcessedFrame, tuple[LensState | None, ...]] | None = None
        self._lens_states: OrderedDict[int, LensState] = OrderedDict()
        node.create_service(Trigger, "~/save_frame", self._on_save)

    def loaded(self, engine: Engine) -> None:
        """Take note of the engine that runs."""
        self._engine = engine

    def forget(self) -> None:
        """Drop all references."""
        self._engine = self._kept = None
        self._lens_states.clear()

    def lens_state(self, message: LensState) -> None:
        """Executor thread: remember the lens of a slice, which its sweep no longer has."""
        self._lens_states[stamp_to_ns(message.header.stamp)] = message
        while len(self._lens_states) > _REMEMBERED_LENS_STATES:
            self._lens_states.popitem(last=False)

    def watched(self, process: Callable[[Any], Result], item: InputSet | SweepItem) -> Result:
        """Worker thread: ``process(item)``, which becomes the newest frame even where it fails."""
        node = self._node
        values, divisor = node.values, node.overload.inference_divisor
        try:
            result = process(item)
        except Exception as error:
            cause = getattr(error, "cause", "internal_error")
            self._keep(ProcessedFrame(item, values, divisor, None, None, f"{cause}: {error}"))
            raise
        self._keep(ProcessedFrame(item, values, result.inference_divisor, result.anchor,
                                  result.estimate))
        return result

    def _keep(self, frame: ProcessedFrame) -> None:
        # What changed while it was in work cannot be told for sure.
        if frame.values is not self._node.values:
            return
        slices = frame.item.sweep.slices if isinstance(frame.item, SweepItem) else ()
        self._kept = frame, tuple(self._lens_states.get(item.stamp_ns) for item in slices)

    def save(self) -> Path:
        """Write the newest frame and return its file.

        Raises:
            ValueError: there is none that could be repeated. OSError: it cannot be written.
        """
        kept = self._kept
        if kept is None:
            raise ValueError("no set was worked on since the node was configured, or parameters "
                             "changed while it was; call again after the next depth")
        frame, states = kept
        bundle = self._bundle(frame, states)
        path = _folder(self._node.values["save.folder"]) / _file_name(bundle.header)
        write_bundle(path, bundle)
        return path

    def _bundle(self, frame: ProcessedFrame, states: tuple[LensState | None, ...]) -> FrameBundle:
        item, estimate, engine = frame.item, frame.estimate, self._engine
        model_id = engine.model_id if engine else ""
        header = FrameHeader(
            format_version=FORMAT_VERSION,
            path="focus_sweep" if isinstance(item, SweepItem) else "dual_pixel",
            node=self._node.get_fully_qualified_name(), parameters=dict(frame.values),
            model_id=model_id, weights_sha256=weights_sha256(frame.values["model.path"], model_id),
            backend=engine.backend_name if engine else "",
            device=engine.device_name if engine else "", versions=self._node.versions(),
            stamp_ns=item.stamp_ns, frame_id=estimate.frame_id if estimate else "",
            scale_state=estimate.scale_state.name if estimate else "",
            inference_divisor=frame.inference_divisor, anchor=frame.anchor, error=frame.error,
            stage_ms=estimate.stage_ms if estimate else {})
        outputs = {name: getattr(estimate, name) for name in OUTPUTS} if estimate else {}
        if isinstance(item, InputSet):
            return FrameBundle(header, messages=item.messages, outputs=outputs)
        slices = item.sweep.slices
        known = [state for state in states if state is not None]
        # What a lens state says is read when it comes, with the parameters of then.
        if len(known) < len(slices) or any(
                repr(slice_lens(state, frame.values)) != repr(part.lens)
                for state, part in zip(known, slices)):
            raise ValueError("the parameters of the lens changed while this sweep was taken; call "
                             "again after the next depth")
        saved = SavedSweep(
            slices=tuple(SavedSlice(stamp_ns=part.stamp_ns, frame_id=part.image.frame_id,
                                    intrinsics=part.image.intrinsics) for part in slices),
            complete=item.sweep.complete, missing=item.sweep.missing, sweep_id=item.sweep.sweep_id)
        return FrameBundle(
            header.model_copy(update={"sweep": saved}),
            images=tuple(part.image.image for part in slices), lens_states=tuple(known),
            outputs=outputs)

    def _on_save(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            path = self.save()
        except OSError as error:
            said = f"{error.filename or 'the file'}: {error.strerror or error}"
            response.message = f"cannot write {said}; set save.folder to a folder of yours"
        except ValueError as error:
            response.message = str(error)
        except Exception as error:  # a service must not end the node
            self._node.get_logger().error(traceback.format_exc())
            response.message = f"{type(error).__name__}: {error}; see the log"
        else:
            response.success, response.message = True, str(path)
        return response


def weights_sha256(model: str, model_id: str) -> str:
    """Sha256 of the weights that run, by their card; "" where the card is gone or another's."""
    try:
        card = load_card(find_card(model))
    except ModelError:
        return ""
    own_id = model_id.partition("+")[0]  # a prior of the user's is named behind it
    return card.weights.sha256 if card.model_id == own_id else ""


def _folder(given: str) -> Path:
    if given:
        return Path(given).expanduser().absolute()
    return Path(os.environ.get("ROS_HOME") or "~/.ros").expanduser().absolute() / "depth_fusion"


def _file_name(header: FrameHeader) -> str:
    seconds, nanoseconds = divmod(header.stamp_ns, 1_000_000_000)
    node = header.node.strip("/").replace("/", "_")
    return f"{node}_{seconds}_{nanoseconds:09d}.npz"


__all__ = ["FrameSaver", "ProcessedFrame", "weights_sha256"]
