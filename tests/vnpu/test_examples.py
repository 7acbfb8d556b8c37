"""The examples, unmodified, with 16 processes."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("options", [(), ("--install",)], ids=["stock", "install"])
@pytest.mark.parametrize("script", ["eager.py", "graph.py"])
def test_example(run, script, options):
    done = run(EXAMPLES / script, *options, timeout=280)
    assert done.stdout.count("all bits right") == 16
