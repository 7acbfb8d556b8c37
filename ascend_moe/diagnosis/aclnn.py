"""Numbers that aclnn calls return, and the classes under which an operator's own checks report."""

from __future__ import annotations

from ascend_moe.diagnosis.entry import ECHO, ERROR_CODES, OTHER, REFUSED, SET_UP, Entry

_RETURN_CODES = "opbase 2cd7568, docs/en/api/nnopbase/opdev/aclnn_return_code/aclnn_return_codes.md"


def _aclnn(
    number: int,
    symbol: str,
    meaning: str,
    kind: str,
    advice: str = "",
    causes: tuple[str, ...] = (),
) -> Entry:
    return Entry(str(number), meaning, kind, f"ACLNN_ERR_{symbol}", advice, causes, _RETURN_CODES)


ASK_US = (
    "Make the call through ascend_moe (ascend_moe.install()), which names the rule; or set "
    "ASCEND_MOE_DUMP=DIR and run `ascend-moe check` on the file."
)
REASON = (
    "The line with the reason starts with EZ9999 or another EZ class, or is in the plog "
    "(~/ascend/log/debug/plog)."
)

ACLNN_CODES: tuple[Entry, ...] = (
    _aclnn(
        561000,
        "INNER",
        "The aclnn call failed while it prepared its resources, not because of an argument.",
        SET_UP,
        "Look for HcclAllocComResourceByTiling, EI0007 or 207001 in the same log.",
        ("memory", "queue pairs", "set-up"),
    ),
    _aclnn(
        561002,
        "INNER_TILING_ERROR",
        "Tiling refused the call: it breaks a rule of the operator.",
        REFUSED,
        f"The number does not say which rule. {ASK_US} {REASON}",
    ),
    _aclnn(
        561001,
        "INNER_INFERSHAPE_ERROR",
        "The output shapes could not be inferred.",
        REFUSED,
        REASON,
    ),
    _aclnn(
        561003,
        "INNER_FIND_KERNEL_ERROR",
        "The kernel's binary was not found: the operator package for this chip or dtype is not installed.",
        REFUSED,
        "Install the CANN ops package of this chip; check ASCEND_OPP_PATH and ASCEND_CUSTOM_OPP_PATH.",
    ),
    _aclnn(561101, "INNER_CREATE_EXECUTOR", "The executor could not be made.", REFUSED),
    _aclnn(561103, "INNER_NULLPTR", "aclnn met a null pointer of its own.", REFUSED, REASON),
    _aclnn(
        561104,
        "INNER_WRONG_ATTR_INFO_SIZE",
        "The operator has another number of attributes: torch_npu and the ops package do not fit.",
        REFUSED,
    ),
    _aclnn(
        561107,
        "INNER_OPP_PATH_NOT_FOUND",
        "ASCEND_OPP_PATH is not set.",
        REFUSED,
        "source set_env.sh of CANN.",
    ),
    _aclnn(
        561112,
        "INNER_OPP_KERNEL_PKG_NOT_FOUND",
        "The binary kernel library of the operator is not loaded.",
        REFUSED,
        "Install the CANN ops package of this chip.",
    ),
    _aclnn(
        161002,
        "PARAM_INVALID",
        "aclnn refused a parameter: a dtype or shape that the operator definition does not list.",
        REFUSED,
        REASON,
        ("dtype",),
    ),
    _aclnn(
        161001,
        "PARAM_NULLPTR",
        "aclnn got no tensor where it needs one, or a group name that is too long.",
        REFUSED,
        REASON,
        ("missing",),
    ),
    _aclnn(
        361001,
        "RUNTIME_ERROR",
        "The NPU runtime failed inside an aclnn call: usually an earlier failure of the device, which "
        "the next call reports.",
        ECHO,
        "Look for what failed before it.",
    ),
)

_LOG = "opbase 2cd7568, include/op_common/log/log.h"


def _op(name: str, meaning: str) -> Entry:
    return Entry(name, meaning, REFUSED, "", "Read the rest of the line.", (), _LOG)


# Classes that an operator's own checks report under. The line says the rest: refusals.py reads it.
OPERATOR_CLASSES: tuple[Entry, ...] = (
    Entry(
        "EZ9999",
        "An operator's check failed; the line says which.",
        REFUSED,
        "",
        "",
        (),
        ERROR_CODES,
    ),
    Entry("EZ1001", "An aclnn call refused a parameter.", REFUSED, "", "", (), ERROR_CODES),
    Entry(
        "EZ9903", "An aclnn call met an error inside.", OTHER, "", "Read the plog.", (), ERROR_CODES
    ),
    _op("EZ0001", "An input has the wrong shape."),
    _op("EZ0002", "An attribute has the wrong value."),
    _op("EZ0003", "An attribute has the wrong size."),
    _op("EZ0004", "A required parameter is missing."),
    _op("EZ0005", "An input has the wrong number of elements."),
    _op("EZ0006", "An input has the wrong format."),
    _op("EZ0007", "An input has the wrong dtype."),
    _op("EZ0008", "A parameter has the wrong shape."),
    _op("EZ0009", "A parameter has the wrong shape; the line gives the reason."),
    _op("EZ0010", "Shapes of several parameters do not fit."),
    _op("EZ0011", "A parameter has the wrong number of dimensions."),
    _op("EZ0012", "A dimension of a parameter is wrong; the line gives the reason."),
    _op("EZ0013", "Dimensions of several parameters do not fit."),
    _op("EZ0017", "A parameter has the wrong format."),
    _op("EZ0018", "Formats of several parameters do not fit."),
    _op("EZ0019", "A parameter has the wrong dtype."),
    _op("EZ0020", "A parameter has the wrong dtype; the line gives the reason."),
    _op("EZ0021", "Dtypes of several parameters do not fit."),
    _op("EZ0024", "A parameter has the wrong value; the line says what it should be."),
    _op("EZ0025", "A parameter has the wrong number of elements."),
    _op("EZ0026", "A parameter has the wrong value; the line gives the reason."),
    _op("EZ0027", "Values of several parameters do not fit; the line gives the reason."),
    Entry(
        "EZ3002",
        "The operator's kernel does not support this call.",
        REFUSED,
        "",
        "",
        (),
        ERROR_CODES,
    ),
    Entry(
        "EZ3003",
        "No kernel of this operator is installed for this chip.",
        REFUSED,
        "",
        "Install the CANN ops package of this chip.",
        (),
        ERROR_CODES,
    ),
)
