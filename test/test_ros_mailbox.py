"""Mailbox, queue and accounts: nothing gets lost without being counted."""

from __future__ import annotations

import threading
import time

import pytest

from depth_fusion_ros.ros.accounting import Accounts, ThrottledLog, Window
from depth_fusion_ros.ros.mailbox import BoundedFifo, Mailbox


def test_the_mailbox_keeps_the_latest_and_hands_back_what_it_displaced():
    box = Mailbox()
    assert [box.put(n) for n in (1, 2, 3)] == [None, 1, 2]
    assert box.get(0.1) == 3
    assert box.get(0.01) is None


def test_the_fifo_makes_its_producer_wait_and_keeps_the_order():
    fifo, taken = BoundedFifo(2), []
    producer = threading.Thread(target=lambda: [fifo.put(n) for n in range(6)])
    producer.start()
    time.sleep(0.1)
    assert producer.is_alive(), "the producer should wait: two of six fit"
    while len(taken) < 6:
        taken.append(fifo.get(1.0))
    producer.join(1.0)
    assert taken == list(range(6))


@pytest.mark.parametrize("make", [Mailbox, lambda: BoundedFifo(1)])
def test_closing_returns_what_nobody_took_and_refuses_more(make):
    box = make()
    box.put("old")
    assert box.close() == ["old"]
    assert box.put("new") == "new"
    assert box.get(1.0) is None


def test_closing_wakes_a_waiting_producer():
    fifo, answers = BoundedFifo(1), []
    fifo.put(1)
    producer = threading.Thread(target=lambda: answers.append(fifo.put(2)))
    producer.start()
    fifo.close()
    producer.join(1.0)
    assert answers == [2]


def test_a_queue_without_room_is_refused():
    with pytest.raises(ValueError, match="capacity = 0"):
        BoundedFifo(0)


def test_accounts_balance_before_and_after_a_reset():
    accounts = Accounts()
    for _ in range(10):
        accounts.receive()
    for cause in ("busy", "busy", "stale", "missing_rgb", "unmatched", "nan_image"):
        accounts.drop(cause)
    assert [accounts.estimate() for _ in range(2)] == [0, 1]
    totals = accounts.totals()
    assert (totals.busy, totals.stale, totals.unsynced, totals.invalid) == (2, 1, 2, 1)
    assert totals.pending == 2
    accounts.reset()
    assert accounts.totals().received == accounts.totals().pending == 2


def test_percentiles_are_of_the_last_512_samples():
    window = Window()
    assert window.percentiles() is None
    for value in [1e9] * 10 + list(range(512)):
        window.add(float(value))
    p50, p95, p99 = window.percentiles()
    assert (round(p50), round(p95), round(p99)) == (256, 485, 506)


def test_a_throttled_log_says_how_much_it_left_out():
    lines = []
    log = ThrottledLog(lines.append, period_s=0.05)
    for _ in range(4):
        log.line("a", "first")
    log.line("b", "other")
    time.sleep(0.06)
    log.line("a", "again")
    assert lines == ["first", "other", "again (and 3 more since the last line)"]
