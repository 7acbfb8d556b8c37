"""docs/compatibility.md, the gate and the workflow name the same wheels; the page is made of its own rows."""

import runpy
from pathlib import Path

import pytest

from ascend_moe.vnpu.wheel import DEFAULT, TESTED

ROOT = Path(__file__).parents[1]
compat = runpy.run_path(str(ROOT / "scripts/compat"))
PAGE = (ROOT / "docs/compatibility.md").read_text()
ROWS = compat["read_rows"](PAGE)
REPORT = """<testsuites><testsuite>
<testcase classname="tests.vnpu.test_hccl" name="a"/><testcase classname="tests.vnpu.test_hccl" name="b"/>
<testcase classname="tests.vnpu.test_hccl" name="c"><skipped/></testcase>
<testcase classname="tests.vnpu.test_examples" name="d"/>
<testcase classname="tests.vnpu.test_examples" name="e"><failure/></testcase>
</testsuite></testsuites>"""


def test_what_the_gate_calls_tested_was_measured():
    """The default is what every run of the tests measures."""
    assert {row.torch_npu for row in ROWS if row.passed} | {DEFAULT} == set(TESTED)


def test_the_workflow_measures_them_too():
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load((ROOT / ".github/workflows/compatibility.yml").read_text())
    assert set(TESTED) <= set(workflow["jobs"]["wheel"]["strategy"]["matrix"]["torch_npu"])


def test_the_page_is_made_of_its_rows():
    assert compat["with_rows"](PAGE, ROWS) == PAGE
    fewer = compat["with_rows"](PAGE, ROWS[:1])
    assert compat["read_rows"](fewer) == ROWS[:1]


def test_a_report_is_counted():
    assert compat["counts"](REPORT) == ("2 passed, 1 skipped", "1 passed, 1 failed")
    assert compat["counts"]("") == ("not run", "not run")
    rows = [
        ROWS[0]._replace(tests=tests) for tests in ("2 passed", "1 passed, 1 failed", "not run")
    ]
    assert [row.passed for row in rows] == [True, False, False]
