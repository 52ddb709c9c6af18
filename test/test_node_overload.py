"""A node under overload, over real DDS: what it gives up, what it says, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from ros_helpers import DEPTH, REPORT, Bench, balanced

from depth_fusion_ros.ros.messages import image_to_array

pytestmark = [pytest.mark.ros, pytest.mark.alone]


def test_steps_are_taken_shown_counted_forbidden_and_taken_back() -> None:
    with Bench() as bench, bench.node("budget.allow_degrade:=true", "budget.latency_ms:=0.1"):
        camera = bench.camera()
        first_ns = camera.send()
        bench.wait_for(REPORT, first_ns)
        shape = bench.wait_for(DEPTH, first_ns)

        def level() -> int:
            seen = len(bench.received[REPORT])
            camera.send()
            camera.send()  # of two, one is left out on the last step
            bench.wait(lambda: len(bench.received[REPORT]) > seen, "a report")
            return int(bench.received[REPORT][-1].degrade_level)

        bench.wait(lambda: level() == 3, "the last step")
        assert {r.degrade_level for r in bench.received[REPORT]} == {0, 1, 2, 3}
        bench.counters()
        status, message, values = bench.diagnostics["inference"]
        assert status == b"\x01" and "overloaded" in message and "half resolution" in message
        assert int(values["degrade_level"]) == 3 and "every second set" in values["degraded"]
        bench.wait(lambda: bench.counters_now().get("pending") == 0, "no set pending")
        counters = bench.counters()
        assert balanced(counters) and counters["dropped.overload"] > 0
        newest = bench.received[DEPTH][-1]
        assert (newest.height, newest.width) == (shape.height, shape.width)
        assert np.isfinite(image_to_array(newest, DEPTH, ("32FC1",))).any()

        assert bench.set_parameters(budget__degrade_rate=False)[0]
        bench.wait(lambda: level() == 2, "the step to be left")
        assert bench.set_parameters(budget__latency_ms=0.0)[0]
        bench.wait(lambda: level() == 0, "full quality")
        before = bench.counters()["dropped.overload"]
        bench.wait_for(DEPTH, camera.send())
        assert bench.counters()["dropped.overload"] == before


def test_a_replay_that_must_lose_nothing_gives_up_nothing() -> None:
    with Bench() as bench, bench.node("budget.allow_degrade:=true", "budget.latency_ms:=0.1",
                                      "replay.process_all:=true"):
        camera = bench.camera()
        for _ in range(40):
            bench.wait_for(REPORT, camera.send())
        assert {r.degrade_level for r in bench.received[REPORT]} == {0}
