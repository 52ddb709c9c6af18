"""The dual-pixel path of `depth-fusion demo`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.bags.reader import BagReader, DualPixelRecord
from depth_fusion_ros.cli.demo_path import PathDemo, RecordedTruth
from depth_fusion_ros.cli.simulated_recording import SimulatedRecording

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.contact_sheet import ContactSample
    from depth_fusion_ros.ros.collector import OutputCollector


class DualPixelDemo(PathDemo):
    """Simulated dual-pixel sets through the node dual_pixel_depth.

    backend: engine of the network: auto, torch or onnxruntime.
    """

    path_name = "dual_pixel"
    unit = "set"
    model_option = "--model"

    def __init__(
        self, recording: SimulatedRecording, *, model: str, process_all: bool, backend: str = "auto"
    ) -> None:
        super().__init__(recording, model=model, process_all=process_all)
        self.backend = backend

    def extra_parameters(self, bag_path: Path) -> dict[str, Any]:
        """Return the engine, and the calibrated κ of the simulated camera (in no message)."""
        with BagReader(bag_path) as bag:
            kappa = bag.metadata.get("kappa")
        calibrated = {"lens.kappa": float(kappa)} if kappa else {}
        return {"model.backend": self.backend, **calibrated}

    def truths(self, bag: BagReader, collector: OutputCollector) -> Iterator[RecordedTruth]:
        """Yield the sets that have a truth."""
        for index, record in enumerate(bag.frames()):
            if record.truth is not None and record.is_complete:
                yield RecordedTruth(
                    record.stamp_ns, record.truth.array, partial(_row, index, record))


def _row(
    index: int, record: DualPixelRecord, depth_m: NDArray[np.float32],
    sigma_m: NDArray[np.float32], note: str,
) -> ContactSample:
    """Return one row of the contact sheet."""
    from depth_fusion_ros.evaluation.contact_sheet import ContactSample

    assert record.left and record.right and record.rgb and record.truth
    return ContactSample(
        label=f"set {index}",
        rgb=record.rgb.array,
        left=record.left.array,
        right=record.right.array,
        truth_m=record.truth.array,
        depth_m=depth_m,
        sigma_m=sigma_m,
        note=note,
    )
