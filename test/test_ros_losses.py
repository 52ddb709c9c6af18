"""Messages lost before the node could take them are counted, whoever lost them."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from ros_helpers import DEPTH, LEFT, REPORT, Bench, balanced

from depth_fusion_ros.ros.losses import Losses

pytestmark = pytest.mark.ros


def info(number: int | None, publisher: bytes = b"a") -> dict[str, Any]:
    return {"publication_sequence_number": number, "publisher_gid": {"data": publisher}}


def noted(*infos: dict[str, Any]) -> Losses:
    losses = Losses()
    for each in infos:
        losses.note("image", each)
    return losses


def test_a_gap_in_a_publishers_numbers_is_as_many_lost_messages():
    assert noted(info(7), info(8), info(12), info(13)).counts == {"image": 3}


def test_what_was_sent_before_the_first_message_came_is_not_lost():
    assert not noted(info(400), info(401)).counts


def test_two_publishers_of_one_topic_are_told_apart_and_so_are_two_topics():
    losses = noted(info(1), info(90, b"b"), info(2), info(92, b"b"))
    losses.note("lens_state", info(50))
    losses.note("lens_state", info(51))
    assert losses.counts == {"image": 1}


def test_a_publisher_that_starts_again_is_not_a_loss():
    assert not noted(info(30), info(1, b"b"), info(2, b"b")).counts


def test_the_middlewares_own_count_is_used_only_where_messages_have_no_numbers():
    losses = noted(info(None), info(None))
    losses.report("image", 4)
    assert losses.counts == {"image": 4}
    losses = noted(info(1), info(6))
    losses.report("image", 4)
    assert losses.counts == {"image": 4}, "a gap of four, told twice"


def test_publishers_without_end_are_forgotten_oldest_first():
    losses = Losses()
    for number in range(1000):
        losses.note("image", info(1, str(number).encode()))
    losses.note("image", info(5, b"0"))
    losses.note("image", info(5, b"999"))
    assert losses.counts == {"image": 3}


def test_sets_that_come_while_the_node_stands_still_are_counted_as_lost_and_warned_of():
    with Bench(outputs=(DEPTH, REPORT)) as bench, bench.node() as process:
        camera = bench.camera()
        stamps = [camera.send()]
        bench.wait_for(REPORT, stamps[0])
        os.kill(process.pid, signal.SIGSTOP)
        try:
            stamps += [camera.send() for _ in range(300)]  # more than the queues of both ends hold
        finally:
            os.kill(process.pid, signal.SIGCONT)

        def warning() -> str:
            """Look often, as it stands for one period; send seldom, as a gap needs a next set."""
            if time.time_ns() - stamps[-1] > 200_000_000:
                stamps.append(camera.send())
            message = bench.diagnostics.get("inputs", (0, "", {}))[1]
            return message if "lost before the node could take them" in message else ""

        warned = bench.wait(warning, "a warning of lost messages")
        assert "messages of " in warned and "lower the camera's rate" in warned
        stamps.append(camera.send())
        bench.wait_for(REPORT, stamps[-1])
        bench.wait(lambda: bench.counters_now().get("pending") == 0, "no set pending")
        counters = bench.counters()
        assert balanced(counters)
        lost = int(bench.diagnostics["inputs"][2][f"lost.{LEFT}"])
        assert lost >= 150
        # A set that lost only its left view is opened by the right one, and dropped with its cause.
        opened = len(stamps) - lost
        assert opened <= counters["received"] <= opened + counters.get("dropped.missing_left", 0)
