"""The focus-sweep path of `depth-fusion demo`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.bags.reader import BagReader, SweepRecord
from depth_fusion_ros.cli.demo_path import PathDemo, RecordedTruth

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.contact_sheet import SweepContactSample
    from depth_fusion_ros.ros.collector import OutputCollector


class SweepDemo(PathDemo):
    """Simulated focus sweeps through the node focus_sweep_depth."""

    path_name = "focus_sweep"
    unit = "sweep"
    model_option = "--sweep-model"

    def extra_parameters(self, bag_path: Path) -> dict[str, Any]:
        """Return none: lens states and camera_info say all there is to know of the lens."""
        return {}

    def truths(self, bag: BagReader, collector: OutputCollector) -> Iterator[RecordedTruth]:
        """Yield the sweeps that have a truth."""
        for index, record in enumerate(bag.sweeps()):
            if record.truth is not None and record.is_complete:
                yield RecordedTruth(
                    record.stamp_ns, record.truth.array, partial(_row, index, record, collector))


def _row(
    index: int, record: SweepRecord, collector: OutputCollector, depth_m: NDArray[np.float32],
    sigma_m: NDArray[np.float32], note: str,
) -> SweepContactSample:
    """Return one row of the contact sheet."""
    from depth_fusion_ros.evaluation.contact_sheet import SweepContactSample
    from depth_fusion_ros.ros.collector import ALL_IN_FOCUS

    by_focus = sorted(record.slices, key=lambda item: item.focus_diopters)
    far, near = by_focus[0], by_focus[-1]
    assert far.image and near.image and record.truth
    picture = collector.image(ALL_IN_FOCUS, record.stamp_ns)
    return SweepContactSample(
        label=f"sweep {index}, {near.focus_diopters:.2g}–{far.focus_diopters:.2g} 1/m",
        nearest=near.image.array,
        farthest=far.image.array,
        all_in_focus=picture.array if picture else np.zeros_like(near.image.array),
        truth_m=record.truth.array,
        depth_m=depth_m,
        sigma_m=sigma_m,
        note=note,
    )
