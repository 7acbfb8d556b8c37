r"""Run a plain Python function once for every way it can branch, and keep what it computes as a tree.

The page of the calculator holds no formula, limit or message of its own, so none is rewritten for it: the functions of
``ascend_moe`` run here on whole numbers that stand for the fields of the page. Arithmetic on them builds an expression;
a comparison that decides a branch makes the function run again, once for each answer. What comes out is data:

    expression   int | name of a field | (operator, expression, expression), operators + - * // %
    condition    ("<" or "==", expression, expression)
    tree         Choice(condition, tree if so, tree otherwise) | what `keep` made of a Leaf

In a text that the function returns, such a number stands as ``\x02`` + its place in `Leaf.named` + ``\x03``.
A function may do with a number what `Whole` defines. Anything else that Python lets an int refuse (int(n), n / 2, a
format) raises, so that nothing is computed from a wrong value unnoticed; range(n) and an index it does not let refuse.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Expression = Any
Condition = tuple[str, Expression, Expression]
DEPTH_MAX = 40
EVERYTHING = (float("-inf"), float("inf"))
Bounds = Mapping[str, tuple[int, int]]  # what a field can hold, both ends included


class Choice(NamedTuple):
    """An inner node of a tree."""

    condition: Condition
    so: Any
    otherwise: Any


class Leaf(NamedTuple):
    """What the function returned, and the expressions that its texts name."""

    value: Any
    named: tuple[Expression, ...]


@dataclass(frozen=True)
class Raised:
    """The value of a leaf where the function raised ValueError."""

    message: str


def explore(function: Callable[[], Any], bounds: Bounds, keep: Callable[[Leaf], Any]) -> Any:
    """The tree of a function without arguments; `keep` makes what is kept of a leaf.

    Branches that end alike are one: `keep` should return something that compares.
    """
    return _explore(function, bounds, keep, {}, {})


Known = dict[Condition, bool]


def _explore(
    function: Callable[[], Any],
    bounds: Bounds,
    keep: Callable[[Leaf], Any],
    decided: Known,
    implied: Known,
) -> Any:
    """Go on with yes wherever the way is open, then from each such place, the last first, once with no."""
    global _way
    _way = way = _Way(dict(decided), dict(implied), bounds)
    value: Any
    try:
        value = function()
    except ValueError as error:
        value = Raised(str(error))
    tree = keep(Leaf(value, tuple(way.named)))
    for condition, decided, implied in reversed(way.open):
        otherwise = _explore(function, bounds, keep, {**decided, condition: False}, implied)
        tree = tree if tree == otherwise else Choice(condition, tree, otherwise)
    return tree


class _Way:
    """One way through a function."""

    def __init__(self, decided: Known, implied: Known, bounds: Bounds) -> None:
        self.decided = decided
        self.implied = implied  # by what is decided; it stays true however one goes on
        self.bounds = bounds
        self.named: list[Expression] = []
        self.open: list[tuple[Condition, Known, Known]] = []  # and what was known before it

    def decide(self, condition: Condition) -> bool:
        known = self.decided.get(condition)
        if known is None:
            known = self.implied.get(condition)
        if known is None:
            known = self._implied(*condition)
            if known is not None:
                self.implied[condition] = known
        if known is None:
            if len(self.decided) == DEPTH_MAX:
                raise RecursionError(f"more than {DEPTH_MAX} decisions: this is a search")
            self.open.append((condition, dict(self.decided), dict(self.implied)))
            known = self.decided[condition] = True
        return known

    def _implied(self, how: str, left: Expression, right: Expression) -> bool | None:
        """What is known of a field says about its comparison with a number."""
        (a, b), (c, d) = self._range(left), self._range(right)
        if how == "<":
            return True if b < c else False if a >= d else None
        return False if b < c or a > d else None

    def _range(self, side: Expression) -> tuple[float, float]:
        if isinstance(side, int):
            return side, side
        if isinstance(side, str):
            low, high = self.bounds.get(side, EVERYTHING)
        else:
            low, high = self._range_of_result(*side)
        for (how, left, right), so in self.decided.items():
            if left == side and isinstance(right, int):
                if how == "<":
                    low, high = (low, min(high, right - 1)) if so else (max(low, right), high)
                elif so:
                    low = high = right
                else:
                    low, high = low + (low == right), high - (high == right)
            elif right == side and isinstance(left, int) and how == "<":
                low, high = (max(low, left + 1), high) if so else (low, min(high, left))
        return low, high

    def _range_of_result(
        self, symbol: str, left: Expression, right: Expression
    ) -> tuple[float, float]:
        (a, b), (c, d) = self._range(left), self._range(right)
        if symbol == "+":
            return a + c, b + d
        if symbol == "-":
            return a - d, b - c
        if symbol == "*" and a >= 0 and c >= 0:
            return a * c, b * d
        if symbol == "//" and a >= 0 and c >= 1:
            return a // d, b // c
        if symbol == "%" and c >= 1:
            return 0, d - 1
        return EVERYTHING


_way: _Way


class _Truth:
    """The outcome of a comparison; asking for it is what branches."""

    def __init__(self, how: str, left: Expression, right: Expression, so: bool = True) -> None:
        self.condition, self.so = (how, left, right), so

    def __bool__(self) -> bool:
        how, left, right = self.condition
        if left == right:
            return (how == "==") is self.so
        return _way.decide(self.condition) is self.so


class Whole(int):
    """A whole number that is not known yet. An int, because the contract asks isinstance."""

    node: Expression

    def __new__(cls, node: Expression) -> Whole:
        made = super().__new__(cls, 0)
        made.node = node
        return made

    def __bool__(self) -> bool:
        return not bool(_Truth("==", self.node, 0))

    def __hash__(self) -> int:
        return hash(self.node)

    def __str__(self) -> str:
        _way.named.append(self.node)
        return f"\x02{len(_way.named) - 1}\x03"

    __repr__ = __str__

    def __format__(self, how: str) -> str:
        if how:
            raise TypeError(f"a number that is not known yet cannot be written as {how!r}")
        return str(self)


def _node(value: object) -> Expression:
    return value.node if isinstance(value, Whole) else value


def _arithmetic(symbol: str, known: Callable[[int, int], int], nothing: int | None) -> Any:
    """The two methods of an operator; `nothing` on its right, and on its left where it commutes, changes no number."""

    def result(left: Expression, right: Expression) -> int:
        if type(left) is int and type(right) is int:
            return known(left, right)
        if left == 0 and symbol in "//%":
            return 0
        if right == nothing:
            return Whole(left)
        if left == nothing and symbol in "+*":
            return Whole(right)
        return Whole((symbol, left, right))

    def forward(self: Whole, other: object) -> Any:
        return result(self.node, _node(other)) if isinstance(other, int) else NotImplemented

    def reverse(self: Whole, other: object) -> Any:
        return result(_node(other), self.node) if isinstance(other, int) else NotImplemented

    return forward, reverse


def _comparison(how: str, swap: bool, so: bool) -> Any:
    def compare(self: Whole, other: object) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        left, right = self.node, _node(other)
        return _Truth(how, *((right, left) if swap else (left, right)), so=so)

    return compare


def _refused(name: str) -> Any:
    def method(self: Whole, *arguments: object) -> Any:
        raise TypeError(f"{name} of a number that is not known yet")

    return method


_KEPT = {
    "__new__",
    "__getattribute__",
    "__class__",
    "__doc__",
    "__init__",
    "__setattr__",
    *vars(Whole),
}
for _name in set(dir(int)) - _KEPT - set(dir(object)):
    setattr(Whole, _name, _refused(_name))
for _symbol, _method, _known, _nothing in (
    ("+", "add", operator.add, 0),
    ("-", "sub", operator.sub, 0),
    ("*", "mul", operator.mul, 1),
    ("//", "floordiv", operator.floordiv, 1),
    ("%", "mod", operator.mod, None),
):
    _forward, _reverse = _arithmetic(_symbol, _known, _nothing)
    setattr(Whole, f"__{_method}__", _forward)
    setattr(Whole, f"__r{_method}__", _reverse)
Whole.__neg__ = lambda self: Whole(("-", 0, self.node))  # type: ignore[method-assign]
for _method, _arguments in {
    "__lt__": ("<", False, True),
    "__gt__": ("<", True, True),
    "__le__": ("<", True, False),
    "__ge__": ("<", False, False),
    "__eq__": ("==", False, True),
    "__ne__": ("==", False, False),
}.items():
    setattr(Whole, _method, _comparison(*_arguments))
