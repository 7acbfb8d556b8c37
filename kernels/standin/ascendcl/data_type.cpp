// aclDataTypeSize: bytes per element of each ACL data type, as hicann/runtime:src/acl/aclrt_impl/
// data_buffer.cpp:18 (v9.0.0) has them: 8 for what it does not know, too.
#include "acl/acl.h"

extern "C" size_t aclDataTypeSize(aclDataType type) {
    switch (type) {
        case ACL_STRING:
        case ACL_DT_UNDEFINED:
            return 0;
        case ACL_INT4:
        case ACL_UINT1:
        case ACL_INT8:
        case ACL_UINT8:
        case ACL_BOOL:
        case ACL_HIFLOAT8:
        case ACL_FLOAT8_E5M2:
        case ACL_FLOAT8_E4M3FN:
        case ACL_FLOAT8_E8M0:
            return 1;
        case ACL_FLOAT16:
        case ACL_BF16:
        case ACL_INT16:
        case ACL_UINT16:
            return 2;
        case ACL_FLOAT:
        case ACL_INT32:
        case ACL_UINT32:
        case ACL_COMPLEX32:
            return 4;
        case ACL_COMPLEX128:
            return 16;
        default:
            return 8;
    }
}
