"""When a set waits for its lens state."""

from __future__ import annotations

from depth_fusion_ros.ros.lens import LensExpectation


def test_a_publisher_is_always_waited_for() -> None:
    expectation = LensExpectation()
    expectation.message(10.0)
    assert expectation.expected(10.0, 1) and expectation.expected(99.0, 1)


def test_a_new_source_may_have_a_publisher_that_is_not_discovered_yet() -> None:
    expectation = LensExpectation()
    assert expectation.expected(5.0, 0)
    for now_s in (10.0, 10.1, 10.2):
        expectation.message(now_s)
        assert expectation.expected(now_s, 0)


def test_a_camera_without_lens_state_is_not_held_up_for_longer() -> None:
    expectation = LensExpectation()
    for step in range(40):
        expectation.message(10.0 + 0.1 * step)
    assert not expectation.expected(10.4, 0) and not expectation.expected(14.0, 0)


def test_after_silence_it_is_a_new_source() -> None:
    expectation = LensExpectation()
    expectation.message(10.0)
    assert not expectation.expected(19.9, 0)
    expectation.message(20.0)
    assert expectation.expected(20.1, 0) and not expectation.expected(20.4, 0)
