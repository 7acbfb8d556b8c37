"""From the records: the violating call breaks that rule and no other, the legal one breaks none."""

import pytest
import torch

from ascend_moe.contract.call import DescribedTensor
from ascend_moe.contract.check import violations
from ascend_moe.contract.examples import example_call, example_settings, settings
from ascend_moe.contract.rules import RULES
from ascend_moe.contract.rules.rule import CALL, VALUES

CHECKED = [rule for rule in RULES if rule.checked in (CALL, VALUES) and rule.breaks is not None]
EXAMPLES = [(rule, setting) for rule in CHECKED for setting in example_settings(rule)]


def readable(args):
    """The described tensors with contents as torch tensors."""
    tensors = {}
    for name, value in args.items():
        if isinstance(value, DescribedTensor) and value.values is not None:
            value = torch.tensor(value.values, dtype=getattr(torch, value.dtype))
        tensors[name] = value
    return tensors


def broken(setting, changes):
    example = example_call(setting, changes)
    found = violations(
        setting.op,
        readable(example.args),
        product=setting.product,
        contract=setting.contract,
        env=example.env,
        values=True,
        implementation=example.implementation,
    )
    return [violation.rule for violation in found], found


@pytest.mark.parametrize("setting", list(settings()), ids=str)
def test_base_call_is_legal(setting):
    rules, found = broken(setting, {})
    assert rules == [], found


@pytest.mark.parametrize(
    ("rule", "setting"), EXAMPLES, ids=[f"{rule.id}-{setting}" for rule, setting in EXAMPLES]
)
def test_violating_call_breaks_that_rule_only(rule, setting):
    rules, found = broken(setting, rule.breaks)
    assert set(rules) == {rule.id}, found
    for violation in found:
        assert str(violation).isascii()
        assert "\n" not in str(violation)
        assert "{" not in violation.message.replace("{16,", "").replace("{2,", "")


@pytest.mark.parametrize(
    ("rule", "setting"), EXAMPLES, ids=[f"{rule.id}-{setting}" for rule, setting in EXAMPLES]
)
def test_legal_neighbour_breaks_nothing(rule, setting):
    rules, found = broken(setting, rule.holds)
    assert rules == [], found


def test_every_checked_rule_has_an_example():
    without = {rule.id for rule in RULES if rule.checked in (CALL, VALUES)} - {
        rule.id for rule, _ in EXAMPLES
    }
    assert without == {"X-38"}  # needs an NPU tensor


def test_every_other_rule_says_why_it_is_not_checked_on_a_call():
    for rule in RULES:
        if rule.checked not in (CALL, VALUES):
            assert rule.note, rule.id


def test_ids_are_complete_and_in_order():
    expected = [f"X-{n:02}" for n in range(1, 50)]
    expected += [f"D-{n:02}" for n in range(1, 23)]
    expected += [f"C-{n:02}" for n in range(1, 20)]
    expected += [f"E-{n:02}" for n in range(1, 16)]
    assert [rule.id for rule in RULES] == expected
