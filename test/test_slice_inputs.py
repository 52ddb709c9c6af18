"""Messages of a sweep become slices; every image ends under one counter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from std_msgs.msg import Header
from wall_sweeps import FOCUS, HEIGHT, WIDTH, grid, stack

from depth_fusion_ros.estimation.estimate import ScaleState
from depth_fusion_ros.estimation.sweep_slices import SweepOptions
from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.messages import array_to_image, intrinsics_to_camera_info
from depth_fusion_ros.ros.outputs import ns_to_stamp
from depth_fusion_ros.ros.slice_inputs import SliceInputs, SweepItem, slice_lens
from depth_fusion_ros.ros.sweep_parameter_tables import FOCUS_SWEEP

pytestmark = [pytest.mark.ros, pytest.mark.offline]
VALUES = FOCUS_SWEEP.defaults()
IMAGES = stack()
T0 = 1_000_000_000
STEP_NS = 100_000_000


def header(stamp_ns: int) -> Header:
    return Header(stamp=ns_to_stamp(stamp_ns), frame_id="optical")


def image(index: int) -> Any:
    return array_to_image(IMAGES[index], "rgb8", header(T0 + index * STEP_NS))


def info(index: int, width_px: int = WIDTH) -> Any:
    message = intrinsics_to_camera_info(grid(), header(T0 + index * STEP_NS))
    message.width = width_px
    return message


def lens(index: int, **fields: Any) -> LensState:
    values = {"focus_diopters": FOCUS[index], "sweep_id": 3, "sweep_index": index,
              "sweep_size": len(FOCUS), "focus_diopters_start": math.nan,
              "focus_diopters_end": math.nan, "focus_diopters_stddev": math.nan,
              "focus_calibration": LensState.CALIBRATION_CALIBRATED}
    return LensState(header=header(T0 + index * STEP_NS), **{**values, **fields})


def made(max_side_px: int = 640) -> tuple[SliceInputs, list[tuple[str, str]]]:
    drops: list[tuple[str, str]] = []
    return SliceInputs(SweepOptions(), max_side_px, lambda *drop: drops.append(drop)), drops


def send(inputs: SliceInputs, index: int, order: str = "ifl",
         damage: Callable[[str, Any], None] = lambda *_: None) -> list[SweepItem]:
    done: list[SweepItem] = []
    for place, letter in enumerate(order):
        message = {"i": image, "f": info, "l": lens}[letter](index)
        damage(letter, message)
        at_ns = 5_000 + 10 * index + place
        if letter == "i":
            done += inputs.add_image(message, at_ns)
        elif letter == "f":
            done += inputs.add_info(message, at_ns)
        else:
            done += inputs.add_lens(message, at_ns, VALUES)
    return done


def balanced(inputs: SliceInputs) -> bool:
    totals = inputs.totals()
    return totals.pop("received") == sum(totals.values())


@pytest.mark.parametrize("order", ["ifl", "fil", "lfi", "lif", "fli", "ilf"])
def test_parts_join_in_any_order_and_the_sweep_knows_when_its_parts_came(order: str) -> None:
    inputs, drops = made()
    done = [item for index in range(len(FOCUS)) for item in send(inputs, index, order)]
    assert len(done) == 1 and not drops
    item = done[0]
    assert len(item.sweep.slices) == len(FOCUS) and item.sweep.complete
    assert item.stamp_ns == item.sweep.last_stamp_ns == T0 + 5 * STEP_NS
    assert (item.first_received_ns, item.last_received_ns) == (
        5_000 + (1 if order[0] == "l" else 0), 5_052)
    assert item.sweep.slices[0].image.intrinsics == grid()
    assert inputs.totals() == {"received": 6, "pending": 0, "used_complete": 6}


def test_large_images_are_reduced_together_with_their_intrinsics() -> None:
    inputs, _ = made(max_side_px=64)
    done = [item for index in range(len(FOCUS)) for item in send(inputs, index)]
    first = done[0].sweep.slices[0].image
    assert first.image.shape == (HEIGHT // 2, WIDTH // 2, 3)
    assert first.intrinsics == grid().resized(WIDTH // 2, HEIGHT // 2)


def test_an_image_without_camera_info_ends_under_its_own_counter() -> None:
    inputs, drops = made()
    send(inputs, 0, "il")
    assert inputs.totals()["pending"] == 1
    inputs.tick(0)
    inputs.tick(2_900_000_000)
    assert inputs.totals()["pending"] == 1
    inputs.tick(3_100_000_000)
    assert inputs.totals() == {"received": 1, "pending": 0, "no_camera_info": 1}
    assert drops[0][0] == "no_camera_info" and "sweep/camera_info" in drops[0][1]


def test_camera_infos_without_images_do_not_pile_up() -> None:
    inputs, _ = made()
    for index in range(200):
        message = intrinsics_to_camera_info(grid(), header(T0 + index))
        inputs.add_info(message, 0)
    assert inputs.orphans["sweep/camera_info"] == 200 - 32


def spoil_encoding(letter: str, message: Any) -> None:
    if letter == "i":
        message.encoding = "yuv9"


def spoil_length(letter: str, message: Any) -> None:
    if letter == "i":
        message.data = message.data[:-3]


def spoil_width(letter: str, message: Any) -> None:
    if letter == "f":
        message.width = 5


@pytest.mark.parametrize(("damage", "cause"), [
    (spoil_encoding, "bad_encoding"), (spoil_length, "truncated_data"),
    (spoil_width, "camera_info_size")])
def test_a_damaged_slice_is_counted_and_the_sweep_goes_on_without_it(
    damage: Callable[[str, Any], None], cause: str
) -> None:
    inputs, drops = made()
    done = [item for index in range(len(FOCUS))
            for item in send(inputs, index, damage=damage if index == 2 else lambda *_: None)]
    assert [drop[0] for drop in drops] == [cause] and not done
    inputs.tick(0)
    done = inputs.tick(4_000_000_000)
    assert len(done) == 1 and done[0].sweep.missing == 1 and not done[0].sweep.complete
    assert inputs.totals()[cause] == 1 and balanced(inputs)


def test_a_second_image_of_one_stamp_is_a_duplicate() -> None:
    inputs, drops = made()
    inputs.add_image(image(0), 1)
    inputs.add_image(image(0), 2)
    assert drops[0][0] == "duplicate"
    assert inputs.totals() == {"received": 2, "pending": 1, "duplicate": 1}


def test_flushing_accounts_for_everything_that_waits() -> None:
    inputs, _ = made()
    for index in range(3):
        send(inputs, index)
    inputs.add_image(image(4), 1)
    assert len(inputs.flush("inactive")) == 1
    totals = inputs.totals()
    assert totals == {"received": 4, "pending": 0, "used_incomplete": 3, "inactive": 1}


def test_the_lens_state_says_what_its_dioptres_are_worth() -> None:
    assert slice_lens(lens(1), VALUES).scale_state == ScaleState.ABSOLUTE
    rough = lens(1, focus_calibration=LensState.CALIBRATION_APPROXIMATE)
    assert slice_lens(rough, VALUES).scale_state == ScaleState.RELATIVE
    allowed = {**VALUES, "lens.allow_nominal": True}
    assert slice_lens(rough, allowed).scale_state == ScaleState.NOMINAL


def test_dioptres_are_corrected_and_never_invented() -> None:
    values = {**VALUES, "lens.diopter_scale": 2.0, "lens.diopter_offset": -0.5,
              "lens.focus_sigma_diopters": 0.03}
    state = lens(1, focus_diopters_start=0.7, lens_motion=LensState.MOTION_MOVING)
    found = slice_lens(state, values)
    assert found.focus_diopters == pytest.approx(2 * FOCUS[1] - 0.5)
    assert found.focus_start_diopters == pytest.approx(0.9)
    assert found.moving is True and found.focus_sigma_diopters == 0.03
    assert slice_lens(lens(1, focus_diopters_stddev=0.01), values
                      ).focus_sigma_diopters == pytest.approx(0.02)
    for wrong in (math.nan, math.inf, -3.0):
        assert math.isnan(slice_lens(lens(1, focus_diopters=wrong), VALUES).focus_diopters)
