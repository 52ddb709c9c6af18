"""The overload ladder: what is given up when, without flapping and with a way back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.ros.overload import (
    CALM_FRAMES,
    FORBID,
    LATE_FRAMES,
    MARGIN,
    OverloadLadder,
    Step,
)

BUDGET_MS = 100.0
VALUES: dict[str, Any] = {
    "budget.latency_ms": BUDGET_MS, "budget.allow_degrade": True, "replay.process_all": False,
    "cloud.max_rate_hz": 10.0, **dict.fromkeys(FORBID.values(), True)}


def run(ladder: OverloadLadder, frames: int, latency_ms: float | Callable[[Step], float],
        values: dict[str, Any] = VALUES) -> list[str]:
    """Sentences of so many frames; the latency may depend on the step."""
    said = []
    for _ in range(frames):
        found = latency_ms(ladder.step) if callable(latency_ms) else latency_ms
        if sentence := ladder.frame(found, values):
            said.append(sentence)
    return said


def test_a_step_is_taken_after_ten_late_frames_and_not_before() -> None:
    ladder = OverloadLadder()
    assert run(ladder, LATE_FRAMES - 1, 150.0) == []
    (sentence,) = run(ladder, 1, 150.0)
    assert ladder.in_force == [Step.CLOUDS]
    for words in ("step 1 of 3", "150 ms", "budget.latency_ms = 100", "budget.degrade_clouds = f"):
        assert words in sentence


def test_steps_come_in_order_and_end_at_the_last() -> None:
    ladder = OverloadLadder()
    said = run(ladder, 10 * LATE_FRAMES, 150.0)
    assert [sentence.split(",")[0] for sentence in said] == [
        f"overload step {n} of 3" for n in (1, 2, 3)]
    assert ladder.in_force == [Step.CLOUDS, Step.RESOLUTION, Step.RATE]
    assert ladder.inference_divisor == 2
    assert ladder.eased(VALUES)["cloud.max_rate_hz"] == 5.0
    assert ladder.eased(VALUES | {"cloud.max_rate_hz": 0.0})["cloud.max_rate_hz"] == 5.0
    assert [ladder.leaves_out() for _ in range(4)] == [True, False, True, False]


def test_one_late_frame_in_twenty_costs_nothing() -> None:
    ladder = OverloadLadder()
    for n in range(400):
        assert not ladder.frame(500.0 if n % 20 == 19 else 60.0, VALUES)
    assert ladder.step is Step.NONE


def test_a_load_that_goes_away_gives_everything_back() -> None:
    ladder = OverloadLadder()
    run(ladder, 100, 150.0)
    assert ladder.step is Step.RATE
    said = run(ladder, 3 * CALM_FRAMES, 30.0)
    assert ladder.step is Step.NONE and len(said) == 3
    assert "full quality" in said[-1] and "forbid" not in said[-1]
    assert ladder.inference_divisor == 1 and not ladder.leaves_out()
    assert ladder.eased(VALUES) is VALUES


def test_a_step_that_helps_is_kept_as_long_as_the_one_above_would_be_too_slow() -> None:
    ladder = OverloadLadder()
    costs = {Step.NONE: 160.0, Step.CLOUDS: 150.0, Step.RESOLUTION: 50.0, Step.RATE: 50.0}
    run(ladder, 1000, lambda step: costs[step])
    assert ladder.step is Step.RESOLUTION, "50 ms is half the budget, yet 150 ms would not be"
    said = run(ladder, 1000, lambda step: 0.3 * costs[step])
    assert ladder.step is Step.NONE and len(said) == 2


def test_a_way_up_that_was_wrong_is_tried_half_as_often_each_time() -> None:
    ladder = OverloadLadder()
    only_rate = VALUES | {FORBID[Step.CLOUDS]: False, FORBID[Step.RESOLUTION]: False}
    downs, since = [], 0
    for frame in range(3000):
        calm_ms = 60.0 if since < 20 else 30.0  # looks as if the load had gone, and it has not
        since += 1
        if ladder.frame(calm_ms if ladder.step else 140.0, only_rate) and ladder.step:
            downs.append(frame)
            since = 0
    gaps = [b - a for a, b in pairwise(downs)]
    assert len(gaps) >= 4
    assert all(later > 1.5 * sooner for sooner, later in pairwise(gaps)), gaps


@pytest.mark.parametrize("step", list(FORBID))
def test_a_forbidden_step_is_left_out_and_left_at_once(step: Step) -> None:
    ladder, values = OverloadLadder(), VALUES | {FORBID[step]: False}
    run(ladder, 100, 150.0, values)
    assert step not in ladder.in_force and len(ladder.in_force) == 2
    ladder = OverloadLadder()
    run(ladder, LATE_FRAMES * int(step), 150.0)
    assert ladder.step is step
    run(ladder, 1, 150.0, values)
    assert step not in ladder.in_force and ladder.step < step


@pytest.mark.parametrize("change", [
    {"budget.allow_degrade": False}, {"budget.latency_ms": 0.0}, {"replay.process_all": True}])
def test_where_it_is_switched_off_nothing_is_given_up_and_what_was_comes_back(
        change: dict[str, Any]) -> None:
    ladder = OverloadLadder()
    run(ladder, 100, 150.0, VALUES | change)
    assert ladder.step is Step.NONE
    run(ladder, 100, 150.0)
    (sentence,) = run(ladder, 5, 150.0, VALUES | change)
    assert ladder.step is Step.NONE and "the parameters say so" in sentence


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1.0, 300.0), min_size=1, max_size=400))
def test_quality_is_given_up_only_above_the_budget_and_taken_back_only_below(
        latencies: list[float]) -> None:
    ladder, recent = OverloadLadder(), []
    for latency_ms in latencies:
        before = ladder.step
        recent.append(latency_ms)
        if ladder.frame(latency_ms, VALUES):
            assert abs(ladder.step - before) == 1
            if ladder.step > before:
                assert max(recent[-LATE_FRAMES:]) > BUDGET_MS
            else:
                assert sorted(recent[-20:])[10] < MARGIN * BUDGET_MS
            recent.clear()
