"""Logs in own words after the kinds that people post, and what `explain` makes of them."""

import io

from ascend_moe.diagnosis.report import diagnose


def explained(text: str | bytes):
    """The findings of a log."""
    return diagnose(io.BytesIO(text if isinstance(text, bytes) else text.encode()))


def rules(found) -> set[str]:
    return {rule for finding in found for rule in finding.rules}


def words(found) -> str:
    """Everything that is said, without the quotes of the log."""
    parts = []
    for finding in found:
        parts += [finding.name, finding.meaning, finding.advice, *finding.details, *finding.rules]
        parts += [f"{cause.says} {cause.remedy}" for cause in finding.causes]
    return "\n".join(parts)


KERNEL = "AI Core kernel execution failed, device_id=3, fault kernel_name={}_9f3c21aa_1077, fault kernel info ext=none"
OUT_OF_RANGE = (
    "errcode:(0x800000, 0, 0) errorStr: The DDR address of the MTE instruction is out of range."
)
EXCEPTION = "RuntimeError: ACL stream synchronize failed, error code:507015"
TIMEOUT = "NPU error, error code is 507014, the aicore execution times out"
CALL = "NPU function error: call aclnn{} failed, error code is {}"
TILING = "{} do tiling failed, ret is -1."
TOO_SMALL = (
    "{}HCCL_BUFFSIZE is too SMALL, maxBs = 64, h = 2048, epWorldSize = 4, localMoeExpertNum = 128, "
    "sharedExpertNum = 0, tokenNeedSizeDispatch = 4608, tokenNeedSizeCombine = 4096, k = 10, "
    "NEEDED_HCCL_BUFFSIZE(((maxBs * tokenNeedSizeDispatch * ep_worldsize * localMoeExpertNum) + (maxBs * "
    "tokenNeedSizeCombine * (k + sharedExpertNum))) * 2) = {}MB, HCCL_BUFFSIZE=200MB."
)
