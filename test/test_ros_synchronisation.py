"""The ledger of input sets: each set opened by a view ends exactly once, with its cause."""

from __future__ import annotations

import itertools
import random
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
from sensor_msgs.msg import Image

from depth_fusion_ros.ros.accounting import Accounts
from depth_fusion_ros.ros.synchronisation import SetSynchroniser

LEFT, RIGHT = "dp/left/image_raw", "dp/right/image_raw"
OTHERS = ("rgb/image_rect", "rgb/camera_info", "lens_state")
ALL = (LEFT, RIGHT, *OTHERS)


def message(stamp_ms):
    msg = Image()
    seconds, rest = divmod(stamp_ms, 1000)
    msg.header.stamp.sec, msg.header.stamp.nanosec = int(seconds), int(rest * 1_000_000)
    return msg


class Bench:
    """A synchroniser with its accounts, fed in milliseconds."""

    def __init__(self, tolerance_s=0.0, timeout_s=10.0, queue_size=5, openers=(LEFT, RIGHT)):
        self.accounts, self.sets, self.causes = Accounts(), [], []
        self.synchroniser = SetSynchroniser(
            openers, OTHERS, self.accounts, self._set, self._drop,
            queue_size=queue_size, tolerance_s=tolerance_s, timeout_s=timeout_s,
        )

    def _set(self, item):
        self.accounts.estimate()
        self.sets.append(item)

    def _drop(self, cause, sentence):
        assert "set" in sentence or "stamp" in sentence
        self.accounts.drop(cause)
        self.causes.append(cause)

    def send(self, stamp_ms, *, without=(), topics=ALL):
        for topic in topics:
            if topic not in without:
                self.synchroniser.add(topic, message(stamp_ms), 1)

    def stamps(self):
        return [item.stamp_ns // 1_000_000 for item in self.sets]

    def balance(self):
        totals = self.accounts.totals()
        return SimpleNamespace(received=totals.received, estimated=totals.estimated,
                               dropped=sum(totals.drops.values()), pending=totals.pending)


@pytest.mark.parametrize("order", list(itertools.permutations(ALL))[::17])
def test_a_set_completes_whatever_the_order_of_its_parts(order):
    bench = Bench()
    bench.send(100, topics=order)
    assert bench.stamps() == [100]
    assert set(bench.sets[0].messages) == set(ALL)
    assert bench.balance().received == 1


@pytest.mark.parametrize(
    ("missing", "cause"),
    [(LEFT, "missing_left"), (RIGHT, "missing_right"), ("rgb/image_rect", "missing_rgb"),
     ("rgb/camera_info", "missing_camera_info"), ("lens_state", "missing_lens_state")],
)
def test_a_set_without_a_part_ends_when_a_newer_one_is_complete(missing, cause):
    bench = Bench()
    bench.send(100, without=[missing])
    assert bench.causes == []
    bench.send(200)
    assert bench.causes == [cause]
    assert bench.stamps() == [200]
    assert bench.balance().pending == 0
    other_view = {LEFT: RIGHT, RIGHT: LEFT}.get(missing, LEFT)
    assert bench.synchroniser.unsynced[other_view] == 1


def test_an_incomplete_set_ends_after_the_timeout_and_is_not_revived_by_a_late_part():
    bench = Bench(timeout_s=0.02)
    bench.send(100, without=["lens_state"])
    time.sleep(0.03)
    bench.synchroniser.expire()
    assert bench.causes == ["missing_lens_state"]
    bench.send(100, topics=["lens_state"])
    assert bench.sets == []
    assert bench.balance().pending == 0


def test_more_incomplete_sets_than_the_queue_holds_end_oldest_first():
    bench = Bench(queue_size=3)
    for stamp in range(100, 1100, 100):
        bench.send(stamp, without=["rgb/image_rect"])
    assert bench.causes == ["missing_rgb"] * 7
    assert bench.balance().pending == 3


def test_the_newest_set_is_kept_when_one_view_brings_it_before_the_other_brings_older_ones():
    bench = Bench(queue_size=5)
    bench.send(100)
    for stamp_ms in (*range(200, 230), 900):  # what a standstill left in the queue of this view
        bench.send(stamp_ms, topics=(LEFT,))
    for stamp_ms in (*range(860, 890), 900):
        bench.send(stamp_ms, without=(LEFT,))
    assert bench.stamps() == [100, 900]
    assert set(bench.causes) == {"missing_left", "missing_right"}
    assert bench.balance().received == 62 and bench.balance().pending == 0


def test_a_restarted_source_is_not_kept_waiting_by_the_remains_of_what_it_sent_before():
    bench = Bench(queue_size=2)
    bench.send(900)
    for stamp_ms in (910, 920):
        bench.send(stamp_ms, topics=(LEFT,))
    for stamp_ms in (100, 110, 120, 130):
        bench.send(stamp_ms)
    assert bench.stamps() == [900, 120, 130]
    assert bench.causes.count("stamp_backwards") == 2
    assert bench.causes.count("missing_right") == 2 and bench.balance().pending == 0


def test_a_repeated_stamp_is_one_drop_however_its_parts_interleave():
    bench = Bench()
    bench.send(100)
    bench.send(100)
    assert (bench.stamps(), bench.causes) == ([100], ["repeated_stamp"])
    bench = Bench()
    bench.send(100, topics=[LEFT, LEFT, RIGHT, RIGHT, *OTHERS])
    assert (bench.stamps(), bench.causes) == ([100], ["repeated_stamp"])
    assert bench.balance().received == 2


def test_a_single_step_back_is_a_drop_and_the_stream_goes_on():
    bench = Bench()
    for stamp in (100, 200, 150, 300):
        bench.send(stamp)
    assert bench.stamps() == [100, 200, 300]
    assert bench.causes == ["stamp_backwards"]


def test_three_rising_sets_after_a_step_back_are_followed_as_a_restart():
    bench = Bench()
    for stamp in (5000, 5100, 100, 200, 300, 400):
        bench.send(stamp)
    assert bench.stamps() == [5000, 5100, 300, 400]
    assert bench.causes == ["stamp_backwards"] * 2


def test_stamps_that_only_fall_are_never_followed():
    bench = Bench()
    for stamp in range(5000, 4000, -100):
        bench.send(stamp)
    assert bench.stamps() == [5000]
    assert bench.causes == ["stamp_backwards"] * 9


def test_a_negative_stamp_is_one_drop():
    bench = Bench()
    bench.send(-5000)
    bench.send(100)
    assert (bench.stamps(), bench.causes) == ([100], ["bad_stamp"])


def test_near_stamps_join_within_the_tolerance_and_count_as_one_set():
    bench = Bench(tolerance_s=0.02)
    for stamp in (100, 200):
        bench.send(stamp, topics=[LEFT])
        bench.send(stamp + 4, topics=[RIGHT, *OTHERS])
    assert bench.stamps() == [100, 200]
    assert bench.balance().received == 2
    assert bench.synchroniser.max_skew_ms == pytest.approx(4.0)


def test_a_packed_image_opens_and_completes_a_set_by_itself():
    bench = Bench(openers=("dp/image_raw",))
    bench.send(100, topics=["dp/image_raw", *OTHERS])
    assert bench.stamps() == [100]


def test_requiring_a_further_part_keeps_what_waits():
    bench = Bench()
    bench.synchroniser.require(OTHERS[:-1])
    bench.send(100, without=["rgb/image_rect"])
    bench.synchroniser.require(OTHERS)
    bench.send(100, topics=["rgb/image_rect"])
    assert bench.sets == []
    bench.send(100, topics=["lens_state"])
    assert bench.stamps() == [100]


def test_ending_all_counts_what_waits_and_forgets_the_stamps():
    bench = Bench()
    bench.send(500)
    bench.send(600, without=[RIGHT])
    bench.synchroniser.end_all("inactive", "the set ended")
    assert bench.causes == ["inactive"]
    bench.send(100)
    assert bench.stamps() == [500, 100]


@pytest.mark.parametrize("tolerance_s", [0.0, 0.015])
@pytest.mark.parametrize("seed", range(5))
def test_the_balance_holds_for_a_random_mess(seed, tolerance_s):
    chance, bench = random.Random(seed), Bench(tolerance_s, queue_size=4)
    stamps = sorted(chance.sample(range(0, 4000, 5), 150))
    events = [(stamp + chance.gauss(0, 40), stamp + chance.choice((0, 0, 0, 5)), topic)
              for stamp in stamps for topic in ALL for _ in range(chance.choice((0, 1, 1, 1, 2)))]
    views: dict[str, int] = {LEFT: 0, RIGHT: 0}
    for _, stamp, topic in sorted(events):
        bench.send(stamp, topics=[topic])
        if topic in views:
            views[topic] += 1
    balance = bench.balance()
    assert balance.estimated == len(bench.sets) > 0
    assert 0 <= balance.pending <= 4
    assert max(views.values()) <= balance.received <= sum(views.values())
    bench.synchroniser.end_all("inactive", "the set ended")
    assert bench.balance().pending == 0
