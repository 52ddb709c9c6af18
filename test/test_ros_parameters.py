"""The parameter table: rules, sentences, and the files that are made from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from depth_fusion_ros.ros.parameter_files import configuration, file_name
from depth_fusion_ros.ros.parameter_tables import DUAL_PIXEL, TABLES
from depth_fusion_ros.ros.parameters import Parameter, ParameterTable, documentation

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth.max_m": 0.1}, ["depth.min_m = 0.15", "depth.max_m = 0.1", "must be smaller"]),
        ({"depth.max_m": 1000.0}, ["depth.max_m = 1000.0", "0.05 to 100 m", "lower it to 100"]),
        ({"depth.edge_filter_px": -1}, ["depth.edge_filter_px = -1", "raise it to 0"]),
        ({"depth.max_m": 8}, ["depth.max_m = 8", "type double", "write 8.0"]),
        ({"depth.max_m": float("nan")}, ["depth.max_m = nan", "must be finite"]),
        ({"dp.layout": "quad"}, ["dp.layout = 'quad'", "one of pair", "default is 'pair'"]),
        ({"device": "gpu"}, ["device = 'gpu'", "cuda", "default is 'auto'"]),
        ({"dp.swap_views": 1}, ["dp.swap_views = 1", "type bool"]),
        ({"dp.black_level": 70.0, "dp.white_level": 60.0}, ["dp.white_level = 60.0", "above"]),
        ({"lens.focal_length_m": 0.5, "lens.focus_diopters": 3.0}, ["nearer than its focal"]),
    ],
)
def test_a_bad_value_is_refused_with_name_value_rule_and_remedy(changes, words):
    problems = DUAL_PIXEL.problems(changes)
    assert len(problems) == 1
    for word in words:
        assert word in problems[0]


def test_a_set_is_judged_as_a_whole_and_against_current_values():
    assert DUAL_PIXEL.problems({"depth.min_m": 3.0, "depth.max_m": 20.0}) == []
    assert DUAL_PIXEL.problems({"depth.min_m": 9.0},
                               {"depth.max_m": 20.0, "clearing.range_m": 10.0}) == []
    assert len(DUAL_PIXEL.problems({"depth.min_m": 3.0, "depth.max_m": 20.0, "device": "x"})) == 1


def test_a_value_that_breaks_two_rules_is_told_both():
    problems = DUAL_PIXEL.problems({"depth.min_m": 9.0})
    assert len(problems) == 2
    assert "depth.max_m = 8.0" in problems[0] and "clearing.range_m = 4.0" in problems[1]


def test_names_of_other_owners_are_not_judged():
    assert DUAL_PIXEL.problems({"use_sim_time": True}) == []


def test_a_default_that_breaks_its_own_rule_is_refused():
    with pytest.raises(ValueError, match="raise it to 1"):
        ParameterTable("n", [Parameter("a", 0, "doc", minimum=1, maximum=2)])


def test_every_number_carries_its_unit_in_its_name_or_table_row():
    for table in TABLES:
        for row in table.rows.values():
            assert row.doc.endswith((".", ")")), row.name
            suffix = re.search(r"(?<!_per)_(m|s|ms|px|hz)$", row.name)
            if suffix:
                assert row.unit.lower() == suffix[1], row.name


def test_the_documentation_is_up_to_date():
    shipped = (ROOT / "docs/parameters.md").read_text(encoding="utf-8")
    assert shipped == documentation(), "run: python -m depth_fusion_ros.ros.parameters --write"


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.node_name)
def test_the_shipped_configuration_names_every_parameter_and_nothing_else(table):
    text = (ROOT / "config" / file_name(table)).read_text(encoding="utf-8")
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert set(values) == set(table.rows)
    assert table.problems(values) == []
    changed = {key for key, value in values.items() if value != table.rows[key].default}
    assert changed <= {"model.path"}
    again = "python -m depth_fusion_ros.ros.parameter_files --write"
    assert text == configuration(table), f"run: {again}"
