"""Diagnostics name the cause: one fault after the other, injected into a running node over DDS."""

from __future__ import annotations

from pathlib import Path

import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from injected_faults import FAULTS, PAGE, Fault, run

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named_by_its_task_with_its_remedy(fault: Fault, tmp_path: Path) -> None:
    level, message, _ = run(fault, tmp_path)
    assert level == fault.level and all(words in message for words in fault.words)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_page_tells_what_the_node_says(fault: Fault) -> None:
    section = PAGE.read_text(encoding="utf-8").split("\n## ")
    (found,) = [part for part in section if part.lower().startswith(fault.name.lower())]
    assert all(words in found for words in fault.words)
