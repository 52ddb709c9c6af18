"""Bags through the estimators of the depth nodes: no middleware, no clock, every set.

    replay = OfflineReplay("dual_pixel", parameter_values(DUAL_PIXEL))
    with BagReader(path) as bag:
        for frame in replay.frames(bag):
            frame.estimate.depth_m, frame.stamp_ns
    replay.accounts.totals()       # received = estimated + drops, each with its cause

What joins messages, reads them and estimates is the nodes' own code, so the result is theirs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.estimation.estimate import DepthEstimate
from depth_fusion_ros.ros import dual_pixel_frames as dual_pixel
from depth_fusion_ros.ros import focus_sweep_frames as focus_sweep
from depth_fusion_ros.ros.accounting import Accounts
from depth_fusion_ros.ros.parameter_tables import DUAL_PIXEL
from depth_fusion_ros.ros.parameters import ParameterError, ParameterTable
from depth_fusion_ros.ros.slice_inputs import IMAGE, INFO, LENS, SliceInputs, SweepItem
from depth_fusion_ros.ros.sweep_parameter_tables import FOCUS_SWEEP
from depth_fusion_ros.ros.synchronisation import InputSet, SetSynchroniser

TABLES: Mapping[str, ParameterTable] = {"dual_pixel": DUAL_PIXEL, "focus_sweep": FOCUS_SWEEP}
"""Path → the parameters of its node."""
_WAITING_SETS = 50


@dataclass(frozen=True)
class OfflineFrame:
    """One set that became depth.

    Attributes:
        stamp_ns: of the set. estimate: as the node would publish it.
        rgb: (H, W, 3) uint8 on the grid of the depth, or None.
        estimate_ms: wall time from messages to estimate.
    """

    stamp_ns: int
    estimate: DepthEstimate
    rgb: NDArray[np.uint8] | None
    estimate_ms: float


class OfflineReplay:
    """One path with its engine loaded.

    Args:
        path: dual_pixel or focus_sweep. values: all parameters of its node.

    Raises:
        ParameterError: parameters that need a running node.
        ConfigureError, ValueError, OSError: the model cannot be loaded; the text says why.
    """

    def __init__(self, path: str, values: Mapping[str, Any]) -> None:
        if values["anchor.enable"]:
            raise ParameterError("anchor.enable = True: known distances are joined by the running "
                                 "node only; set it to false, or replay through the node")
        self.path, self.values = path, dict(values)
        self.accounts = Accounts()
        self.why_dropped: dict[str, str] = {}
        """Cause → the newest sentence."""
        if path == "dual_pixel":
            engine = dual_pixel.open_backend(values)
            self._dual_pixel = dual_pixel.make_estimator(engine, values)
        else:
            sweep_engine = focus_sweep.open_sweep_backend(values)
            self._focus_sweep = focus_sweep.make_sweep_estimator(sweep_engine, values)
        self.model_id = (engine if path == "dual_pixel" else sweep_engine).model_id

    def configure(self, values: Mapping[str, Any]) -> None:
        """Change parameters; the model stays as it is loaded."""
        self.values = dict(values)
        if self.path == "dual_pixel":
            self._dual_pixel.options = dual_pixel.estimator_options(values)
        else:
            self._focus_sweep.options = focus_sweep.sweep_estimator_options(values)

    def frames(self, bag: BagReader, namespace: str = names.DEFAULT_NAMESPACE
               ) -> Iterator[OfflineFrame]:
        """Yield the depth of every set of an open bag, in order; drops are in `accounts`.

        Raises:
            BagError: the bag is damaged; what was read before it has been yielded.
        """
        self.accounts, self.why_dropped = Accounts(), {}
        items = self._sets(bag, namespace) if self.path == "dual_pixel" else self._sweeps(
            bag, namespace)
        for item in items:
            started = time.perf_counter()
            try:
                estimate, rgb = self._estimated(item)
            except Exception as error:
                cause = getattr(error, "cause", "")
                if not cause:
                    raise
                self._drop(cause, str(error))
                continue
            self.accounts.estimate()
            yield OfflineFrame(item.stamp_ns, estimate, rgb, 1e3 * (time.perf_counter() - started))

    def _estimated(self, item: InputSet | SweepItem
                   ) -> tuple[DepthEstimate, NDArray[np.uint8] | None]:
        if isinstance(item, SweepItem):
            estimate = self._focus_sweep.estimate(focus_sweep.sweep_frame(item.sweep))
            return estimate, estimate.all_in_focus
        read = dual_pixel.read_set(item.messages, item.stamp_ns, self.values)
        return self._dual_pixel.estimate(read.frame), read.rgb

    def _drop(self, cause: str, sentence: str) -> None:
        self.accounts.drop(cause)
        self.why_dropped[cause] = sentence

    def _sets(self, bag: BagReader, namespace: str) -> Iterator[InputSet]:
        values = self.values
        openers, others = dual_pixel.set_topics(values)
        recorded = {summary.name for summary in bag.topics if summary.message_count}
        if (dual_pixel.needs_lens_state(values)
                and names.resolve(namespace, dual_pixel.LENS) in recorded):
            others += (dual_pixel.LENS,)
        ready: list[InputSet] = []
        exact = values["input.sync_tolerance_s"] == 0.0
        joined = SetSynchroniser(
            openers, others, self.accounts, ready.append, self._drop,
            queue_size=_WAITING_SETS if exact else values["input.queue_size"],
            tolerance_s=values["input.sync_tolerance_s"], timeout_s=values["input.sync_timeout_s"])
        for topic, time_ns, message in _messages(bag, namespace, joined.required):
            joined.add(topic, message, time_ns)
            yield from ready
            ready.clear()
        joined.finish()
        yield from ready

    def _sweeps(self, bag: BagReader, namespace: str) -> Iterator[SweepItem]:
        values = self.values
        inputs = SliceInputs(focus_sweep.sweep_options(values), values["model.max_side_px"],
                             lambda cause, sentence: self.why_dropped.update({cause: sentence}))
        self.slices = inputs.totals
        for topic, time_ns, message in _messages(bag, namespace, (LENS, INFO, IMAGE)):
            if topic == IMAGE:
                done = inputs.add_image(message, time_ns)
            elif topic == INFO:
                done = inputs.add_info(message, time_ns)
            else:
                done = inputs.add_lens(message, time_ns, values)
            yield from self._received(done)
        yield from self._received(inputs.flush("no_camera_info"))

    def _received(self, items: list[SweepItem]) -> list[SweepItem]:
        for _ in items:
            self.accounts.receive()
        return items


def _messages(bag: BagReader, namespace: str, topics: tuple[str, ...]
              ) -> Iterator[tuple[str, int, Any]]:
    """(relative topic, log time in ns, message) in log-time order."""
    relative = {names.resolve(namespace, topic): topic for topic in topics}
    recorded = [summary.name for summary in bag.topics if summary.name in relative]
    if recorded:
        for topic, time_ns, message in bag.messages(recorded):
            yield relative[topic], time_ns, message
