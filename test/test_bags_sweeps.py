"""Focus sweeps written to a bag come back whole, and what is missing of them shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bag_scenes import LENS, write_small_bag
from sweep_bags import FOCUS, SLICE_NS, SWEEP_NS, small_sweep, write_small_sweeps

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.images import image_message
from depth_fusion_ros.bags.messages import SweepTag, lens_state
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.recording import DEFAULT_START_NS
from depth_fusion_ros.bags.sweep_writer import SweepBagWriter
from depth_fusion_ros.bags.typestore import BagError

LENS_TYPE = names.SWEEP_INPUT_TOPICS[names.LENS_STATE]


def stamps_of(sweep: int) -> list[int]:
    return [DEFAULT_START_NS + sweep * SWEEP_NS + n * SLICE_NS for n in range(len(FOCUS))]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_every_slice_and_the_truth_come_back_unchanged(tmp_path: Path, storage: str) -> None:
    written = write_small_sweeps(tmp_path / "bag", 3, storage=storage)
    with BagReader(tmp_path / "bag") as bag:
        records = list(bag.sweeps())
        assert bag.sweep_stamps() == [tuple(stamps_of(n)) for n in range(3)]
        assert bag.metadata["seed"] == "0" and "/tf_static" in {t.name for t in bag.topics}
    assert [r.sweep_id for r in records] == [1, 2, 3]
    for number, (sweep, record) in enumerate(zip(written, records, strict=True)):
        assert record.is_complete and record.size == len(FOCUS)
        assert [s.stamp_ns for s in record.slices] == stamps_of(number)
        assert record.stamp_ns == record.truth.stamp_ns == stamps_of(number)[-1]
        np.testing.assert_array_equal(record.truth.array, sweep.depth_m)
        for made, found in zip(sweep.slices, record.slices, strict=True):
            np.testing.assert_array_equal(found.image.array, made.image)
            assert found.image.encoding == "rgb8"
            assert found.focus_diopters == pytest.approx(made.lens.focus_diopters)
            assert found.camera_info.k[0] == pytest.approx(made.intrinsics.fx_px)


def test_lens_states_say_what_the_node_needs_to_end_a_sweep_at_once(tmp_path: Path) -> None:
    write_small_sweeps(tmp_path / "bag", 1)
    with BagReader(tmp_path / "bag") as bag:
        (record,) = bag.sweeps()
    states = [item.lens_state for item in record.slices]
    assert [s.sweep_index for s in states] == [0, 1, 2, 3]
    assert {s.sweep_size for s in states} == {4} and {s.sweep_id for s in states} == {1}
    assert {s.focus_calibration for s in states} == {states[0].CALIBRATION_CALIBRATED}
    assert {s.lens_motion for s in states} == {states[0].MOTION_STATIONARY}


def test_a_sweep_that_lost_an_image_is_given_out_last_and_says_so(tmp_path: Path) -> None:
    with SweepBagWriter(tmp_path / "bag") as bag:
        tag = SweepTag(9, 0, 2)
        bag.write_message(names.LENS_STATE, LENS_TYPE,
                          lens_state(LENS, bag.start_ns - 1, "f", tag), bag.start_ns - 1)
        bag.write_sweep(small_sweep(0), bag.start_ns, SLICE_NS)
    with BagReader(tmp_path / "bag") as reader:
        whole, broken = reader.sweeps()
    assert whole.is_complete and whole.sweep_id == 1
    assert not broken.is_complete and broken.sweep_id == 9 and broken.size == 2
    assert [s.image for s in broken.slices] == [None] and broken.truth is None


def test_a_number_that_is_used_again_starts_a_new_sweep(tmp_path: Path) -> None:
    with SweepBagWriter(tmp_path / "bag") as bag:
        bag.write_sweep(small_sweep(0), bag.start_ns, SLICE_NS)
        bag.sweeps_written = 0  # a controller that was started anew
        bag.write_sweep(small_sweep(1), bag.start_ns + SWEEP_NS, SLICE_NS)
    with BagReader(tmp_path / "bag") as reader:
        records = list(reader.sweeps())
    assert [r.sweep_id for r in records] == [1, 1]
    assert [len(r.slices) for r in records] == [4, 4] and all(r.is_complete for r in records)


def test_images_between_sweeps_are_in_none(tmp_path: Path) -> None:
    with SweepBagWriter(tmp_path / "bag") as bag:
        bag.write_sweep(small_sweep(0), bag.start_ns, SLICE_NS)
        between = bag.start_ns + SWEEP_NS
        stray = image_message(small_sweep(1).slices[0].image, "rgb8", between, "f")
        bag.write_message(names.LENS_STATE, LENS_TYPE, lens_state(LENS, between, "f"), between)
        bag.write_message(names.SWEEP_IMAGE, "sensor_msgs/msg/Image", stray, between)
    with BagReader(tmp_path / "bag") as reader:
        (record,) = reader.sweeps()
    assert record.stamp_ns == stamps_of(0)[-1]


def test_a_bag_without_sweeps_says_what_to_record(tmp_path: Path) -> None:
    write_small_bag(tmp_path / "bag", frames=1)
    with BagReader(tmp_path / "bag") as bag, pytest.raises(BagError, match="sweep controller"):
        list(bag.sweeps())


def test_sweeps_that_cannot_be_one_are_refused(tmp_path: Path) -> None:
    good = small_sweep(0)
    first = good.slices[0]
    odd = replace(good, slices=(first, replace(first, image=first.image[:-1])))
    with SweepBagWriter(tmp_path / "bag") as bag:
        for sweep, period_ns, reason in ((odd, SLICE_NS, "one shape"),
                                         (replace(good, slices=()), SLICE_NS, "needs slices"),
                                         (good, 0, "slice_period_ns")):
            with pytest.raises(BagError, match=reason):
                bag.write_sweep(sweep, bag.start_ns, period_ns)
        assert bag.sweeps_written == 0
