"""No module of the package reaches itself again, and the rooms keep to the arrows of CONTRIBUTING.md.

An import inside a function counts as much as one at the top: it was how a circle hid here. One under TYPE_CHECKING
does not, because it never runs. A package and its own modules belong together: the import of a module from outside
also runs the `__init__` above it, which therefore counts as imported; that of a sibling inside the package does not.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ascend_moe

PACKAGE = Path(ascend_moe.__file__).parent
# Which rooms a room may import, itself aside. Modules at the root of the package stand for themselves.
ARROWS = {
    "contract": {"hardware"},
    "sizing": {"contract", "inputs"},
    "diagnosis": {"contract"},
}


def modules(root: Path) -> dict[str, Path]:
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def runs(tree: ast.AST) -> list[ast.AST]:
    """All nodes but those that only a type checker reads."""
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    named = set()
    for node in runs(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                named.add(module if module in known else node.module)
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
    reached = named & set(known)
    for target in list(reached):
        parts = target.split(".")
        above = {".".join(parts[:end]) for end in range(2, len(parts))}
        reached |= {package for package in above if not f"{name}.".startswith(f"{package}.")}
    return reached - {name}


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    top = root.name  # the root's names are lazy: importing it imports nothing
    return {name: imports(name, path, known) - {top} for name, path in known.items()}


def circle(arrows: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_reaches_itself():
    assert not circle(graph(PACKAGE))


@pytest.mark.parametrize("room", ARROWS)
def test_rooms_keep_their_arrows(room):
    reached = {
        target.split(".")[1]
        for name, targets in graph(PACKAGE).items()
        if name.startswith(f"ascend_moe.{room}")
        for target in targets
    }
    assert reached - {room} <= ARROWS[room]


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("from room import b", "from room.a import x", True),
        ("def f():\n    from room.b import y", "from room.a import x", True),
        ("if TYPE_CHECKING:\n    from room.b import y", "from room.a import x", False),
        ("from room.c.deep import y", "import room.a", True),  # by way of room/c/__init__.py
        ("from room.b import y", "", False),
    ],
    ids=["top", "in a function", "for types only", "by a package", "one way"],
)
def test_a_circle_is_seen(tmp_path, first, second, found):
    room = tmp_path / "room"
    (room / "c").mkdir(parents=True)
    (room / "__init__.py").write_text("")
    (room / "c" / "__init__.py").write_text("from room.b import y")
    (room / "c" / "deep.py").write_text("")
    (room / "a.py").write_text(first)
    (room / "b.py").write_text(second)
    assert bool(circle(graph(room))) is found
