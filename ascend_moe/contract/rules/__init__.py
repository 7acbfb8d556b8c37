"""The rule table: every documented rule of the two operators, one record each.

Read rule.py first (what a record is), then the tables in the order of their ids:

    shared.py       X-xx  both operators
    dispatch.py     D-xx
    combine.py      C-xx
    environment.py  E-xx  variables, drivers, usage
"""

from __future__ import annotations

from functools import cache

from ascend_moe.contract.rules.combine import COMBINE_RULES
from ascend_moe.contract.rules.dispatch import DISPATCH_RULES
from ascend_moe.contract.rules.environment import ENVIRONMENT_RULES
from ascend_moe.contract.rules.rule import CALL, VALUES, Breach, Rule
from ascend_moe.contract.rules.shared import SHARED_RULES

RULES: tuple[Rule, ...] = (*SHARED_RULES, *DISPATCH_RULES, *COMBINE_RULES, *ENVIRONMENT_RULES)
RULES_BY_ID = {rule.id: rule for rule in RULES}

__all__ = ["RULES", "RULES_BY_ID", "Breach", "Rule", "applicable"]


@cache
def applicable(
    op: str, product: str, contract: str, path: str, values: bool, safety: bool
) -> tuple[Rule, ...]:
    """The rules that one call has to pass, in rule order."""
    wanted = (CALL, VALUES) if values else (CALL,)
    return tuple(
        rule
        for rule in RULES
        if rule.checked in wanted
        and (rule.safety or not safety)
        and op in rule.operators
        and product in rule.products
        and contract in rule.contracts
        and path in rule.paths
    )
