"""What importing does and does not do, with and without torch_npu, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import ascend_moe

# A stand-in for the part of torch_npu that matters here: it defines the operators' schemas when it is imported.
FAKE_TORCH_NPU = """
import torch
from ascend_moe.contract.signature import schema

library = torch.library.Library("npu", "FRAGMENT")
for op in ("dispatch", "combine"):
    library.define(schema(op))
    library.impl(f"npu_moe_distribute_{op}_v2", lambda *args, **kwargs: "torch_npu's own", "Meta")
npu_moe_distribute_dispatch_v2 = torch.ops.npu.npu_moe_distribute_dispatch_v2
npu_moe_distribute_combine_v2 = torch.ops.npu.npu_moe_distribute_combine_v2
"""
CALL = """
import torch
def call():
    try:
        torch.ops.npu.npu_moe_distribute_dispatch_v2(
            x=torch.zeros(2, 1024, dtype=torch.bfloat16), expert_ids=torch.zeros(2, 1, dtype=torch.int32),
            group_ep="nobody", ep_world_size=2, ep_rank_id=0, moe_expert_num=2)
    except ascend_moe.ConstraintError as error:
        return [violation.rule for violation in error.violations]
"""


def run(code: str, *, fake: Path | None = None, autoload: str | None = "0") -> str:
    """Runs ``code`` in a fresh interpreter and returns what it printed."""
    environment = {k: v for k, v in os.environ.items() if k != "TORCH_DEVICE_BACKEND_AUTOLOAD"}
    if autoload is not None:
        environment["TORCH_DEVICE_BACKEND_AUTOLOAD"] = autoload
    root = str(Path(ascend_moe.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([str(fake), root] if fake else [root])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def fake_torch_npu(tmp_path: Path) -> Path:
    (tmp_path / "torch_npu").mkdir()
    (tmp_path / "torch_npu" / "__init__.py").write_text(FAKE_TORCH_NPU)
    return tmp_path


def test_import_is_free():
    printed = run(
        """
        import sys, threading, ascend_moe
        print([name for name in ("torch", "torch_npu", "numpy") if name in sys.modules], threading.active_count())
        ascend_moe.ConstraintError, ascend_moe.check_dispatch, ascend_moe.required_hccl_buffsize
        print("torch" in sys.modules)
        """
    )
    assert printed.splitlines() == ["[] 1", "False"]


def test_all_public_names_resolve_and_have_docstrings():
    for name in ascend_moe.__all__:
        assert getattr(ascend_moe, name).__doc__, name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ascend_moe.no_such_name


def test_torch_is_not_imported_yet_and_its_autoload_would_fail():
    """With the torch_npu wheel and no CANN our first name must keep torch from loading it."""
    printed = run(
        "import ascend_moe; ascend_moe.register()" + CALL + "print(call())", autoload=None
    )
    assert printed == "['E-05']"


def test_without_torch_npu():
    printed = run(
        "import sys; sys.modules['torch_npu'] = None; import ascend_moe; ascend_moe.register()"
        + CALL
        + "print(call())\ntry: ascend_moe.install()\nexcept ImportError as error: print(error)"
    )
    rules, message = printed.splitlines()
    assert rules == "['E-05']"
    assert "needs torch_npu" in message


def test_torch_npu_that_cannot_be_imported_later():
    """The import of the wheel fails without CANN; the CPU kernels must survive the attempt."""
    printed = run(
        "import ascend_moe; ascend_moe.register()"
        + CALL
        + "print(call())\ntry: import torch_npu\nexcept ImportError: print('no CANN')\nprint(call())"
    )
    first, *_, last = printed.splitlines()
    assert first == last == "['E-05']"


def test_a_probe_for_torch_npu_changes_nothing(fake_torch_npu: Path):
    """Only an import makes room for torch_npu's schema: asking for it is not importing it."""
    code = "import torch, ascend_moe; ascend_moe.register()" + CALL
    code += (
        "import importlib.util\nprint(importlib.util.find_spec('torch_npu') is not None, call())"
    )
    assert run(code, fake=fake_torch_npu) == "True ['E-05']"


@pytest.mark.parametrize("order", ["before", "after"])
def test_torch_npu_defines_the_schema(fake_torch_npu: Path, order: str):
    """Two definitions of one schema abort the process; whoever comes first, ours must give way."""
    imports = ["import torch_npu", "import ascend_moe; ascend_moe.register()"]
    code = "\n".join(imports if order == "before" else imports[::-1]) + CALL
    code += """
print(call(), torch_npu.npu_moe_distribute_dispatch_v2 is torch.ops.npu.npu_moe_distribute_dispatch_v2)
meta = torch.zeros(2, 1024, device="meta")
print(torch._C._dispatch_has_kernel_for_dispatch_key("npu::npu_moe_distribute_combine_v2", "CPU"))
"""
    assert run(code, fake=fake_torch_npu).splitlines() == ["['E-05'] True", "True"]


def test_install_and_uninstall(fake_torch_npu: Path):
    printed = run(
        """
        import torch_npu, ascend_moe
        stock = torch_npu.npu_moe_distribute_dispatch_v2
        for _ in range(2):
            ascend_moe.install()
            print(torch_npu.npu_moe_distribute_dispatch_v2 is ascend_moe.npu_moe_distribute_dispatch_v2,
                  torch_npu.npu_moe_distribute_combine_v2 is ascend_moe.npu_moe_distribute_combine_v2)
        for _ in range(2):
            ascend_moe.uninstall()
            print(torch_npu.npu_moe_distribute_dispatch_v2 is stock)
        """,
        fake=fake_torch_npu,
    )
    assert printed.splitlines() == ["True True", "True True", "True", "True"]


STUBS = {
    "without a spec": "sys.modules['torch_npu'] = types.ModuleType('torch_npu')",
    "with a spec": (
        "stub = sys.modules['torch_npu'] = types.ModuleType('torch_npu')\n"
        "stub.__spec__ = importlib.util.spec_from_loader('torch_npu', loader=None); stub.__path__ = []"
    ),
    "a mock": "sys.modules['torch_npu'] = unittest.mock.MagicMock()",
}


@pytest.mark.parametrize("stub", STUBS)
def test_install_into_a_stub(stub: str):
    """A suite that mocks torch_npu gets operators that work, and its stub back as it was."""
    printed = run(
        "import importlib.util, sys, types, unittest.mock\n"
        + STUBS[stub]
        + """
import ascend_moe
import torch_npu
ascend_moe.install()
print(torch_npu.npu_moe_distribute_dispatch_v2 is ascend_moe.npu_moe_distribute_dispatch_v2,
      torch_npu.npu_moe_distribute_combine_v2 is ascend_moe.npu_moe_distribute_combine_v2)
ascend_moe.uninstall()
kept = getattr(torch_npu, "npu_moe_distribute_dispatch_v2", None)
print(kept is None or isinstance(kept, unittest.mock.MagicMock))
""",
        autoload=None,
    )
    assert printed.splitlines() == ["True True", "True"]


def test_the_vllm_plugin_installs_only_when_asked(fake_torch_npu: Path):
    printed = run(
        """
        import os, sys
        from ascend_moe.vllm_plugin import install_when_asked
        for value in ("", "0"):
            os.environ["ASCEND_MOE_INSTALL"] = value
            install_when_asked()
        print("torch" in sys.modules)
        os.environ["ASCEND_MOE_INSTALL"] = "yes"
        try: install_when_asked()
        except ValueError as error: print(error)
        import torch_npu  # as vllm-ascend has
        os.environ["ASCEND_MOE_INSTALL"] = "1"
        install_when_asked()
        import ascend_moe
        print(torch_npu.npu_moe_distribute_dispatch_v2 is ascend_moe.npu_moe_distribute_dispatch_v2)
        """,
        fake=fake_torch_npu,
    )
    lines = printed.splitlines()
    assert lines[0] == "False"
    assert lines[1].startswith("ASCEND_MOE_INSTALL=yes: 1 installs")
    assert lines[2] == "True"
