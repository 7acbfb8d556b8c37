"""The rule table: every documented rule of the two operators, one record each.

Read rule.py first: what a record is. The records stand by subject:

    ranks.py        X-xx  both operators: the EP and TP groups
    experts.py      X-xx  how many MoE and special experts, and how many on a rank
    shared.py       X-xx  shared experts and their ranks
    tokens.py       X-xx  batch, hidden size, top-k
    routing.py      X-xx  expert ids and the mask
    options.py      X-xx  algorithm, performance_info, layout, HCCL buffer
    elastic.py      X-xx  elastic_info
    dispatch.py     D-xx  inputs and outputs of dispatch
    scales.py       D-xx  its smooth scales and weights
    combine.py      C-xx  what dispatch handed over
    additions.py    C-xx  what combine adds, and how rows travel
    environment.py  E-xx  variables, drivers, usage

Checks that read tensor contents are in values.py, those of the HCCL buffer in buffer.py.
"""

from __future__ import annotations

from functools import cache

from ascend_moe.contract.rules.additions import ADDITION_RULES
from ascend_moe.contract.rules.combine import COMBINE_RULES
from ascend_moe.contract.rules.dispatch import DISPATCH_RULES
from ascend_moe.contract.rules.elastic import ELASTIC_RULES
from ascend_moe.contract.rules.environment import ENVIRONMENT_RULES
from ascend_moe.contract.rules.experts import EXPERT_RULES
from ascend_moe.contract.rules.options import OPTION_RULES
from ascend_moe.contract.rules.ranks import RANK_RULES
from ascend_moe.contract.rules.routing import ROUTING_RULES
from ascend_moe.contract.rules.rule import CALL, VALUES, Breach, Check, Rule
from ascend_moe.contract.rules.scales import SCALE_RULES
from ascend_moe.contract.rules.shared import SHARED_EXPERT_RULES
from ascend_moe.contract.rules.tokens import TOKEN_RULES

_SUBJECTS = (
    (
        *(*RANK_RULES, *EXPERT_RULES, *SHARED_EXPERT_RULES, *TOKEN_RULES, *ROUTING_RULES),
        *(*OPTION_RULES, *ELASTIC_RULES),
    ),
    (*DISPATCH_RULES, *SCALE_RULES),
    (*COMBINE_RULES, *ADDITION_RULES),
    ENVIRONMENT_RULES,
)
RULES: tuple[Rule, ...] = tuple(
    rule for subject in _SUBJECTS for rule in sorted(subject, key=lambda rule: rule.id)
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
