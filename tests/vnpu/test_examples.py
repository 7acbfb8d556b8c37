"""The examples, unmodified, with 16 processes."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("eager.py", ()),
        pytest.param("eager.py", ("--install",), marks=pytest.mark.ci),
        pytest.param("graph.py", (), marks=pytest.mark.ci),
        pytest.param("graph.py", ("--install",), marks=pytest.mark.ci),
    ],
)
def test_example(run, script, options):
    done = run(EXAMPLES / script, *options, timeout=280, fresh=True)
    assert done.stdout.count("all bits right") == 16
