"""What the syntax tree shows: things that clang compiles for its device and bisheng does not for ours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .findings import Finding

Tree = dict[str, Any]

SIGNED = {"int", "short", "long", "long long", "signed char", "char", "__int128"}
FUNCTIONS = {
    "FunctionDecl",
    "CXXMethodDecl",
    "CXXConstructorDecl",
    "CXXDestructorDecl",
    "CXXConversionDecl",
}
SCOPES = {"TranslationUnitDecl", "NamespaceDecl", "LinkageSpecDecl"}
OPERATORS = {"BinaryOperator", "CompoundAssignOperator", "UnaryOperator"}
SPACES = ("__gm__", "__ubuf__", "address_space")  # as clang writes them, by macro or by attribute
HALF = "_Float16"

UNSIGNED_CAST = "a cast between floating and unsigned integer: go by way of int32_t"
DOUBLE = "double precision"
HALF_ARITHMETIC = "scalar arithmetic of half: cast to float first"
MEMORY = "device code has no new and delete"
GENERIC = "an integer becomes a pointer without __gm__ or __ubuf__"
NO_AICORE = "a function without __aicore__ is the host's"
STATIC = "a static variable: nothing outlives a launch on a core"
GLOBAL = "a global variable that is not constexpr"


class _Node(NamedTuple):
    tree: Tree
    parent: Tree
    function: str  # the id of the function it is in
    file: str
    line: int


def search(tree: Tree, device: Path) -> Iterator[Finding]:
    """Every finding in the sources of a folder, templates in all their instantiations."""
    inside = f"{device}/"
    functions: dict[str, _Node] = {}
    first: dict[str, str] = {}  # a declaration of a function: the one before it
    calls: dict[str, set[str]] = {}
    for node in _Walk().nodes(tree):
        if not node.file.startswith(inside):
            continue
        if node.tree["kind"] in FUNCTIONS:
            functions[node.tree["id"]] = node
            first[node.tree["id"]] = str(node.tree.get("previousDecl", node.tree["id"]))
        member = {"id": node.tree.get("referencedMemberDecl", "")}
        calls.setdefault(node.function, set()).add(node.tree.get("referencedDecl", member)["id"])
        for rule, text in _broken(node):
            yield Finding(Path(node.file), node.line, rule, text)
    for name in _in_circles(functions, first, calls):
        node = functions[name]
        yield Finding(Path(node.file), node.line, "recursion", f"{node.tree['name']} calls itself")


def _broken(node: _Node) -> Iterator[tuple[str, str]]:
    tree = node.tree
    kind, cast, type_ = tree["kind"], tree.get("castKind"), _type(tree)
    # Constants are not spared: bisheng's message speaks of variables, but where it draws the line is not published.
    if cast == "IntegralToFloating" and _type(tree["inner"][0]) not in SIGNED:
        yield "unsigned-float", UNSIGNED_CAST
    if cast == "FloatingToIntegral" and type_ not in SIGNED:
        yield "unsigned-float", UNSIGNED_CAST
    if re.search(r"\bdouble\b", type_):
        yield "double", DOUBLE
    if _calculates(tree) and HALF in map(_operand_type, tree["inner"]):
        yield "half", HALF_ARITHMETIC
    if kind in ("CXXNewExpr", "CXXDeleteExpr"):
        yield "memory", MEMORY
    if cast == "IntegralToPointer" and not any(space in type_ for space in SPACES):
        yield "pointer", GENERIC
    if kind in FUNCTIONS and not _made_by_the_compiler(tree) and not _for_the_device(tree):
        yield "aicore", NO_AICORE
    if kind == "VarDecl" and not tree.get("constexpr"):
        if tree.get("storageClass") == "static" or tree.get("tls"):
            yield "static", STATIC
        elif node.parent.get("kind") in SCOPES:
            yield "global", GLOBAL


def _type(tree: Tree) -> str:
    type_ = tree.get("type", {})
    name: str = type_.get("desugaredQualType", type_.get("qualType", ""))
    return name.removeprefix("const ")


def _calculates(tree: Tree) -> bool:
    return tree["kind"] in OPERATORS and tree["opcode"] not in ("=", ",", "&")


def _operand_type(tree: Tree) -> str:
    """As written: bisheng also refuses what C++ would widen by itself."""
    while tree["kind"] in ("ImplicitCastExpr", "ParenExpr"):
        if _type(tree) == HALF:
            return HALF
        tree = tree["inner"][0]
    return _type(tree)


def _made_by_the_compiler(function: Tree) -> bool:
    marks = ("isImplicit", "explicitlyDefaulted", "explicitlyDeleted")
    return any(function.get(mark) for mark in marks)


def _for_the_device(function: Tree) -> bool:
    return any(inner.get("kind") == "CUDADeviceAttr" for inner in function.get("inner", ()))


def _in_circles(
    functions: dict[str, _Node], first: dict[str, str], calls: dict[str, set[str]]
) -> Iterator[str]:
    """The functions that can come back to themselves."""

    def canonical(name: str) -> str:
        while first.get(name, name) != name:
            name = first[name]
        return name

    edges: dict[str, set[str]] = {}
    for caller, called in calls.items():
        edges.setdefault(canonical(caller), set()).update(
            canonical(name) for name in called if name in functions
        )
    for name in functions:
        reached: set[str] = set()
        waiting = [canonical(name)]
        while waiting:
            new = edges.get(waiting.pop(), set()) - reached
            reached |= new
            waiting.extend(new)
        if canonical(name) in reached:
            yield name


class _Walk:
    """All nodes with their place. clang's JSON leaves out file and line where they are those of the place before."""

    def __init__(self) -> None:
        self.file, self.line = "", 0

    def nodes(self, tree: Tree, parent: Tree | None = None, function: str = "") -> Iterator[_Node]:
        places = [tree.get("loc", {})] + [
            tree.get("range", {}).get(end, {}) for end in ("begin", "end")
        ]
        known = [place for place in map(self._read, places) if place is not None]
        file, line = known[0] if known else (self.file, self.line)
        if "kind" in tree:
            yield _Node(tree, parent or {}, function, file, line)
        if tree.get("kind") in FUNCTIONS:
            function = tree["id"]
        for key in ("array_filler", "inner"):
            for inner in tree.get(key, ()):
                yield from self.nodes(inner, tree, function)

    def _read(self, place: Tree) -> tuple[str, int] | None:
        if (
            "expansionLoc" in place
        ):  # of a macro: where it was written first, then where it was used
            self._read(place["spellingLoc"])
            return self._read(place["expansionLoc"])
        if "offset" not in place:
            return None
        self.file = os.path.normpath(place.get("file", self.file))
        self.line = place.get("line", self.line)
        return self.file, self.line
