"""The rule table: every documented rule of the two operators, one record each.

Read rule.py first: what a record is. The records stand by subject:

    ranks.py        X-xx  both operators: the EP and TP groups
    experts.py      X-xx  how many, on which ranks, shared and special ones
    tokens.py       X-xx  batch, hidden size, top-k, expert ids, mask
    options.py      X-xx  algorithm, reserved tensors, layout, HCCL buffer
    dispatch.py     D-xx
    combine.py      C-xx
    environment.py  E-xx  variables, drivers, usage
"""

from __future__ import annotations

from functools import cache

from ascend_moe.contract.rules.combine import COMBINE_RULES
from ascend_moe.contract.rules.dispatch import DISPATCH_RULES
from ascend_moe.contract.rules.environment import ENVIRONMENT_RULES
from ascend_moe.contract.rules.experts import EXPERT_RULES
from ascend_moe.contract.rules.options import OPTION_RULES
from ascend_moe.contract.rules.ranks import RANK_RULES
from ascend_moe.contract.rules.rule import CALL, VALUES, Breach, Check, Rule
from ascend_moe.contract.rules.tokens import TOKEN_RULES

_SHARED_RULES = (*RANK_RULES, *EXPERT_RULES, *TOKEN_RULES, *OPTION_RULES)

RULES: tuple[Rule, ...] = (
    *sorted(_SHARED_RULES, key=lambda rule: rule.id),
    *DISPATCH_RULES,
    *COMBINE_RULES,
    *ENVIRONMENT_RULES,
)
RULES_BY_ID = {rule.id: rule for rule in RULES}
RULE_ORDER = {rule.id: index for index, rule in enumerate(RULES)}

__all__ = ["RULES", "RULES_BY_ID", "RULE_ORDER", "Breach", "Rule", "applicable"]


@cache
def applicable(
    op: str, product: str, contract: str, path: str, values: bool, safety: bool
) -> tuple[tuple[Check, Rule], ...]:
    """The rules that one call has to pass, in rule order, with their checks beside them."""
    wanted = (CALL, VALUES) if values else (CALL,)
    return tuple(
        (rule.check, rule)
        for rule in RULES
        if rule.checked in wanted
        and (rule.safety or not safety)
        and op in rule.operators
        and product in rule.products
        and contract in rule.contracts
        and path in rule.paths
    )
