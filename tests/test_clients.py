"""scripts/clients: empty modules answer what a client imports, its own files are its own, and a stranger is refused."""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLIENT = """
import heavy.engine as engine
from client.config import get_config, Base
from client.ops.helper import NAME
from heavy.group import Group

class Dispatcher(Base):
    group: Group[int]
    def name(self):
        return NAME, get_config
"""


def test_a_checkout_of_nobody(tmp_path):
    command = [sys.executable, ROOT / "scripts/clients", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "is no checkout of a known project: vllm-ascend (vllm_ascend/ops/" in done.stderr


def test_stubs_answer_all_but_the_clients_own_files(tmp_path):
    ops = tmp_path / "client/ops"
    ops.mkdir(parents=True)
    (tmp_path / "client/__init__.py").write_text("raise ImportError('must not run')")
    (ops / "dispatcher.py").write_text(CLIENT)
    (ops / "helper.py").write_text("NAME = 'theirs'")
    (tmp_path / "client/config.py").write_text("raise ImportError('must not run')")
    program = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(ROOT / "scripts")!r})
        from client_adapters.stubs import Stubs, install
        root = Path({str(tmp_path / "client")!r})
        packages = {{"client": root, "client.ops": root / "ops"}}
        install(Stubs(("heavy", "client"), packages, ("client.ops.dispatcher", "client.ops.helper")))
        from client.ops.dispatcher import Dispatcher, engine
        name, config = Dispatcher(1, two=2).name()
        print(name, config.__name__, engine.Anything("x").__class__.__name__)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "theirs get_config Anything\n", done.stderr
