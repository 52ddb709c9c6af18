"""Frames of two runs meet, and their differences are named."""

from __future__ import annotations

import math
from typing import Any

import pytest
from comparison_runs import bag, frame
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.evaluation.comparison import (
    VERDICTS,
    Difference,
    by_bag,
    by_frame,
    differences,
    most_different,
    notes,
    pair_frames,
)

errors = st.lists(st.one_of(st.floats(0.001, 3.0), st.just(math.nan)), min_size=1, max_size=4)
runs = st.lists(errors, min_size=1, max_size=8)


def table_of(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> dict[str, Difference]:
    return {row.key: row for row in differences(pair_frames(a, b), resamples=200)[0]}


def test_two_bags_worked_by_hand() -> None:
    a = [bag("one", [0.1, 0.3]), bag("two", [0.2])]
    b = [bag("one", [0.2, 0.5]), bag("two", [0.1])]
    paired = pair_frames(a, b)
    table, over = differences(paired, resamples=2000)
    row = table[0]
    assert (row.key, row.frames, row.bags, row.units, over) == ("abs_rel", 3, 2, 2, "bags")
    assert row.a == pytest.approx(0.2) and row.b == pytest.approx(0.8 / 3)
    assert row.difference == pytest.approx((0.1 + 0.2 - 0.1) / 3)
    assert row.low == pytest.approx(-0.1)  # bag two twice
    assert row.high == pytest.approx(0.2)  # bag one twice, its second frame four times
    assert row.verdict == "too_few"
    assert [(r["bag"], r["frames"]) for r in by_bag(paired)] == [("one", 2), ("two", 1)]
    assert [r["difference"] for r in by_bag(paired)] == pytest.approx([0.15, -0.1])
    assert [r["stamp_ns"] for r in by_frame(paired)] == [0, 10**9, 0]


def test_frames_pair_by_stamp_and_those_of_one_run_are_counted() -> None:
    paired = pair_frames([bag("x", [0.1, 0.2, 0.3])],
                         [bag("x", [0.5, 0.6, 0.7], first=1), bag("y", [0.1])])
    assert [(pair.a["abs_rel"], pair.b["abs_rel"]) for pair in paired.pairs] == [
        (0.2, 0.5), (0.3, 0.6)]
    assert paired.only_a == {"x": 1} and paired.only_b == {"x": 1, "y": 1}
    said = notes(paired, *differences(paired, resamples=200))
    assert any("1 frame of 1 bag, scored only in A" in text for text in said)
    assert any("2 frames of 2 bags, scored only in B" in text for text in said)


def test_bags_of_one_name_and_other_data_are_not_compared() -> None:
    paired = pair_frames([bag("x", [0.1], data="old"), bag("y", [0.1])],
                         [bag("x", [0.1], data="new"), bag("y", [0.1])])
    assert paired.changed == ("x",) and paired.bags == ("y",)
    assert any("their data differ" in text for text in notes(paired, [], "bags"))


def test_a_bag_under_another_name_is_said() -> None:
    paired = pair_frames([bag("x", [0.1], data="same")], [bag("sub/x", [0.1], data="same")])
    assert not paired.pairs and paired.renamed == {"x": "sub/x"}
    with pytest.raises(ValueError, match="no frame is in both"):
        differences(paired)


def test_a_stamp_that_comes_twice_pairs_in_order() -> None:
    a, b = (bag("x", []) | {"rows": [frame(5, error) for error in errors]}
            for errors in ([0.1, 0.2], [0.3, 0.4, 0.5]))
    paired = pair_frames([a], [b])
    assert [pair.difference() for pair in paired.pairs] == pytest.approx([0.2, 0.2])
    assert paired.only_b == {"x": 1}


def test_a_frame_that_one_run_cannot_answer_is_left_out_of_that_metric_and_said() -> None:
    a = [bag(str(n), [0.1]) for n in range(8)]
    b = [bag(str(n), [math.nan if n == 3 else 0.2]) for n in range(8)]
    paired = pair_frames(a, b)
    table, over = differences(paired, resamples=200)
    assert (table[0].frames, table[0].bags, table[1].frames) == (7, 7, 8)
    assert table[0].a == pytest.approx(0.1)
    assert any("7 of 8 shared frames" in text for text in notes(paired, table, over))


def test_verdicts_know_which_way_is_better() -> None:
    a = [bag(str(n), []) | {"rows": [frame(0, 0.2 + 0.01 * n, coverage=0.8, bias_rel=0.0,
                                           delta_1=0.5, rmse_m=1.0)]} for n in range(8)]
    b = [bag(str(n), []) | {"rows": [frame(0, 0.1 + 0.01 * n, coverage=0.7, bias_rel=0.1,
                                           delta_1=0.5, rmse_m=1.0 + 0.1 * (-1)**n)]}
         for n in range(8)]
    found = {key: row.verdict for key, row in table_of(a, b).items()}
    assert found == {"abs_rel": "better", "coverage": "worse", "bias_rel": "higher",
                     "delta_1": "equal", "rmse_m": "unclear"}
    assert set(found.values()) <= set(VERDICTS)


def test_five_bags_that_agree_are_not_called_clear_and_six_are() -> None:
    few, enough = (table_of([bag(str(n), [0.1]) for n in range(count)],
                            [bag(str(n), [0.2]) for n in range(count)])["abs_rel"]
                   for count in (5, 6))
    assert few.verdict == "too_few" and enough.verdict == "worse"


def test_one_bag_is_compared_over_its_frames_and_that_is_said() -> None:
    paired = pair_frames([bag("x", [0.1] * 9)], [bag("x", [0.2 + 0.01 * n for n in range(9)])])
    table, over = differences(paired, resamples=200)
    assert over == "frames" and table[0].units == 9 and table[0].bags == 1
    assert any(text.startswith("One bag only") for text in notes(paired, table, over))


def test_other_coverage_is_a_warning_for_the_errors() -> None:
    a = [bag(str(n), [0.1]) for n in range(6)]
    b = [bag(str(n), []) | {"rows": [frame(0, 0.1, coverage=0.5)]} for n in range(6)]
    assert any("0.900 and 0.500" in text
               for text in notes(pair_frames(a, b), list(table_of(a, b).values()), "bags"))


def test_the_bags_that_differ_most_come_from_both_ends() -> None:
    rows = [{"difference": value} for value in (0.1, -0.4, 0.0, 0.3, -0.2, 0.2, -0.1)]

    def shown(count: int) -> list[float]:
        return [float(row["difference"]) for row in most_different(rows, count)]

    assert shown(4) == [0.3, 0.2, -0.4, -0.2]
    assert shown(1) == [0.3]
    assert shown(99) == [0.3, 0.2, 0.1, -0.4, -0.2, -0.1]
    one_sided = [{"difference": -0.1 * n} for n in range(5)]
    assert len(most_different(one_sided, 4)) == 4 and most_different([], 4) == []


@settings(max_examples=25, deadline=None)
@given(run=runs)
def test_a_run_against_itself_differs_nowhere(run: list[list[float]]) -> None:
    bags = [bag(str(n), values) for n, values in enumerate(run)]
    for row in table_of(bags, bags).values():
        assert row.verdict in ("equal", "none")
        if row.frames:
            assert row.difference == 0.0 and row.a == row.b
        assert row.low == row.high == 0.0 or row.units < 2


@settings(max_examples=25, deadline=None)
@given(run=runs, other=st.lists(st.floats(0.001, 3.0), min_size=32, max_size=32))
def test_swapping_the_runs_flips_every_sign(run: list[list[float]], other: list[float]) -> None:
    a = [bag(str(n), values) for n, values in enumerate(run)]
    b = [bag(str(n), other[4 * n:4 * n + len(values)]) for n, values in enumerate(run)]
    forth, back = table_of(a, b), table_of(b, a)
    flipped = {"better": "worse", "worse": "better", "higher": "lower", "lower": "higher"}
    for key, row in forth.items():
        same = {"abs": 1e-12, "nan_ok": True}
        assert back[key].difference == pytest.approx(-row.difference, **same)
        assert back[key].low == pytest.approx(-row.high, **same)
        assert back[key].high == pytest.approx(-row.low, **same)
        assert (back[key].a, back[key].b) == pytest.approx((row.b, row.a), nan_ok=True)
        assert back[key].verdict == flipped.get(row.verdict, row.verdict)


@settings(max_examples=25, deadline=None)
@given(run=runs, order=st.randoms(use_true_random=False))
def test_the_order_of_bags_and_frames_does_not_matter(run: list[list[float]], order: Any) -> None:
    bags = [bag(str(n), values) for n, values in enumerate(run)]
    mixed = [dict(one) | {"rows": order.sample(one["rows"], len(one["rows"]))}
             for one in order.sample(bags, len(bags))]
    shifted = [bag(str(n), [value + 0.1 for value in values]) for n, values in enumerate(run)]
    first, second = pair_frames(bags, shifted), pair_frames(mixed, shifted)
    assert repr(first) == repr(second)  # NaN is not equal to itself, its text is
