"""What the generator of the calculator traces is what the function does, or it says that it cannot."""

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from generators.symbolic import Choice, Leaf, Raised, Whole, explore


def value(expression, fields):
    if not isinstance(expression, tuple):
        return fields.get(expression, expression)
    symbol, left, right = expression
    a, b = value(left, fields), value(right, fields)
    results = {"+": a + b, "-": a - b, "*": a * b, "<": a < b, "==": a == b}
    return results[symbol] if symbol in results else (a // b if symbol == "//" else a % b)


def answer(tree, fields):
    while isinstance(tree, Choice):
        tree = tree.so if value(tree.condition, fields) else tree.otherwise
    return tree


def example(a, b):
    """Every operator and every kind of branch."""
    if a in (3, 5) or not b:
        return None
    if not 1 <= a < 40 or a == b:
        raise ValueError(f"a is {a}")
    size = max(-(-a // b) * 8, min(7 * a - 2, b % 16 + 1 * a))
    return [size, f"{a} of {b}: {size + 1}"] if a != 4 else [0 * b, "four"]


def numbers_of(leaf: Leaf, fields):
    """The leaf with its numbers in place."""

    def filled(text):
        parts = text.replace("\x03", "\x02").split("\x02")
        parts[1::2] = [str(value(leaf.named[int(index)], fields)) for index in parts[1::2]]
        return "".join(parts)

    if isinstance(leaf.value, Raised):
        return filled(leaf.value.message)
    if leaf.value is None:
        return None
    size, text = leaf.value
    return [value(size.node if isinstance(size, Whole) else size, fields), filled(text)]


def test_a_tree_answers_as_the_function():
    bounds = {"a": (0, 100), "b": (0, 100)}
    tree = explore(lambda: example(Whole("a"), Whole("b")), bounds, lambda leaf: leaf)
    draw = random.Random(3)
    for _ in range(3000):
        fields = {"a": draw.randint(0, 100), "b": draw.randint(0, 100)}
        try:
            expected = example(**fields)
        except ValueError as error:
            expected = str(error)
        assert numbers_of(answer(tree, fields), fields) == expected, fields


def test_bounds_and_earlier_answers_leave_no_dead_branch():
    def never():
        a = Whole("a")
        assert a >= 1
        assert a * 2 + 1 > 2
        assert not a % 4 > 3
        return "small" if a < 10 else "large" if a > 9 else "unreachable"

    tree = explore(never, {"a": (1, 99)}, lambda leaf: leaf.value)
    assert tree == Choice(("<", "a", 10), "small", "large")


@pytest.mark.parametrize(
    "escape",
    [int, float, abs, lambda a: a / 2, lambda a: a**2, lambda a: a << 1, lambda a: f"{a:3}"],
)
def test_what_cannot_be_traced_raises(escape):
    with pytest.raises(TypeError):
        explore(lambda: escape(Whole("a")), {}, lambda leaf: leaf)


def test_a_search_ends():
    def search():
        low = 0
        while Whole("a") > low:
            low += 1

    with pytest.raises(RecursionError, match="search"):
        explore(search, {}, lambda leaf: leaf)
