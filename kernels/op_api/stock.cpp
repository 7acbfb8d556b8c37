// See stock.h.
#include "stock.h"

#include <dlfcn.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <vector>

#include "entry/aclnn_entry.h"
#include "report.h"

namespace ascend_moe {
namespace {

constexpr int kGenerations[] = {4, 3, 2};
constexpr const char* kCustomLibrary = "/op_api/lib/libcust_opapi.so";
constexpr const char* kOurMark = "ascend_moe_library_version";

std::string Variable(const char* name) {
    const char* value = getenv(name);
    return value == nullptr ? "" : value;
}

std::vector<std::string> Split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);) {
        if (!part.empty()) parts.push_back(part);
    }
    return parts;
}

// A root process takes only root's custom libraries, another process its own and root's.
bool OwnerAllowed(const std::string& path) {
    struct stat status;
    if (stat(path.c_str(), &status) != 0) return false;
    return status.st_uid == getuid() || (getuid() != 0 && status.st_uid == 0);
}

std::vector<std::string> Candidates() {
    std::vector<std::string> custom;
    for (const std::string& entry : Split(Variable("ASCEND_CUSTOM_OPP_PATH"), ':'))
        custom.push_back(entry + kCustomLibrary);
    const std::string vendors = Variable("ASCEND_OPP_PATH") + "/vendors";
    std::ifstream config(vendors + "/config.ini");
    const std::string key = "load_priority=";
    for (std::string line; std::getline(config, line);) {
        if (line.rfind(key, 0) != 0) continue;
        for (const std::string& vendor : Split(line.substr(key.size()), ','))
            custom.push_back(vendors + "/" + vendor + kCustomLibrary);
        break;
    }
    custom.erase(std::remove_if(custom.begin(), custom.end(),
                                [](const std::string& path) { return !OwnerAllowed(path); }),
                 custom.end());
    glob_t found = {};
    const std::string pattern = Variable("ASCEND_HOME_PATH") + "/lib64/libopapi_*.so";
    if (glob(pattern.c_str(), 0, nullptr, &found) == 0)
        custom.insert(custom.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
    globfree(&found);
    for (const char* name :
         {"libopapi.so", "libaclnn_ops_infer.so", "libaclnn_ops_train.so", "libaclnn_math.so",
          "libaclnn_sparse.so", "libaclnn_fft.so", "libaclnn_rand.so"}) {
        custom.push_back(name);
    }
    return custom;
}

// The two phases of one operator.
struct Stock {
    int generation = 0;  // 0: there is none
    void* get_workspace_size = nullptr;
    void* run = nullptr;
    std::string library;
};

Stock Find(const std::string& aclnn) {
    const std::vector<std::string> candidates = Candidates();
    for (int generation : kGenerations) {
        const std::string name = aclnn + "V" + std::to_string(generation);
        for (const std::string& path : candidates) {
            void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
            if (library == nullptr || dlsym(library, kOurMark) != nullptr) continue;
            const Stock stock{generation, dlsym(library, (name + "GetWorkspaceSize").c_str()),
                              dlsym(library, name.c_str()), path};
            if (stock.get_workspace_size != nullptr && stock.run != nullptr) return stock;
        }
    }
    return {};
}

const Stock& StockOf(const char* aclnn) {
    static std::mutex mutex;
    static auto* known = new std::map<std::string, Stock>();
    std::lock_guard<std::mutex> lock(mutex);
    const auto found = known->find(aclnn);
    return found != known->end() ? found->second : known->emplace(aclnn, Find(aclnn)).first->second;
}

// CANN's function as one of the type of ours that has this name.
#define STOCK_FUNCTION(name, address) reinterpret_cast<decltype(&(name))>(address)

int Missing(const char* op, const char* aclnn) {
    return Fail(kBadParameter, "%s: no library that torch_npu searches has %sV2 to V4 of CANN", op,
                aclnn);
}

// An argument that only newer generations have.
struct Newer {
    const char* name;
    bool given;
    int since;
};

int Refuse(const char* op, const Stock& stock, std::initializer_list<Newer> arguments) {
    for (const Newer& argument : arguments) {
        if (!argument.given || stock.generation >= argument.since) continue;
        return Fail(kBadParameter,
                    "%s: %s needs generation V%d of CANN's operator, %s has V%d at most", op,
                    argument.name, argument.since, stock.library.c_str(), stock.generation);
    }
    return ACL_SUCCESS;
}

}  // namespace

std::string StockLibrary(const char* aclnn) { return StockOf(aclnn).library; }

int Forward(const DispatchCall& c, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    const Stock& stock = StockOf(DispatchCall::kAclnn);
    if (stock.generation == 0) return Missing(DispatchCall::kOperator, DispatchCall::kAclnn);
    const Attributes& a = c.attributes;
    const int status = Refuse(DispatchCall::kOperator, stock,
                              {{"performance_info", c.performance_info != nullptr, 4},
                               {"elastic_info", c.elastic_info != nullptr, 3},
                               {"zero_expert_num", a.zero_expert_num != 0, 3},
                               {"copy_expert_num", a.copy_expert_num != 0, 3},
                               {"const_expert_num", a.const_expert_num != 0, 3}});
    if (status != ACL_SUCCESS) return status;
    const char *ep = a.group_ep.c_str(), *tp = a.group_tp.c_str(), *algorithm = a.comm_alg.c_str();
    if (stock.generation == 4) {
        return STOCK_FUNCTION(aclnnMoeDistributeDispatchV4GetWorkspaceSize,
                              stock.get_workspace_size)(
            c.x, c.expert_ids, c.scales, c.x_active_mask, c.expert_scales, c.elastic_info,
            c.performance_info, ep, a.ep_world_size, a.ep_rank_id, a.moe_expert_num, tp,
            a.tp_world_size, a.tp_rank_id, a.expert_shard_type, a.shared_expert_num,
            a.shared_expert_rank_num, c.quant_mode, a.global_bs, c.expert_token_nums_type,
            algorithm, a.zero_expert_num, a.copy_expert_num, a.const_expert_num, c.expand_x,
            c.dynamic_scales, c.assist_info_for_combine, c.expert_token_nums, c.ep_recv_counts,
            c.tp_recv_counts, c.expand_scales, workspace_bytes, executor);
    }
    if (stock.generation == 3) {
        return STOCK_FUNCTION(aclnnMoeDistributeDispatchV3GetWorkspaceSize,
                              stock.get_workspace_size)(
            c.x, c.expert_ids, c.scales, c.x_active_mask, c.expert_scales, c.elastic_info, ep,
            a.ep_world_size, a.ep_rank_id, a.moe_expert_num, tp, a.tp_world_size, a.tp_rank_id,
            a.expert_shard_type, a.shared_expert_num, a.shared_expert_rank_num, c.quant_mode,
            a.global_bs, c.expert_token_nums_type, algorithm, a.zero_expert_num, a.copy_expert_num,
            a.const_expert_num, c.expand_x, c.dynamic_scales, c.assist_info_for_combine,
            c.expert_token_nums, c.ep_recv_counts, c.tp_recv_counts, c.expand_scales,
            workspace_bytes, executor);
    }
    return STOCK_FUNCTION(aclnnMoeDistributeDispatchV2GetWorkspaceSize, stock.get_workspace_size)(
        c.x, c.expert_ids, c.scales, c.x_active_mask, c.expert_scales, ep, a.ep_world_size,
        a.ep_rank_id, a.moe_expert_num, tp, a.tp_world_size, a.tp_rank_id, a.expert_shard_type,
        a.shared_expert_num, a.shared_expert_rank_num, c.quant_mode, a.global_bs,
        c.expert_token_nums_type, algorithm, c.expand_x, c.dynamic_scales,
        c.assist_info_for_combine, c.expert_token_nums, c.ep_recv_counts, c.tp_recv_counts,
        c.expand_scales, workspace_bytes, executor);
}

int Forward(const CombineCall& c, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    const Stock& stock = StockOf(CombineCall::kAclnn);
    if (stock.generation == 0) return Missing(CombineCall::kOperator, CombineCall::kAclnn);
    const Attributes& a = c.attributes;
    const int status = Refuse(CombineCall::kOperator, stock,
                              {{"performance_info", c.performance_info != nullptr, 4},
                               {"elastic_info", c.elastic_info != nullptr, 3},
                               {"ori_x", c.ori_x != nullptr, 3},
                               {"const_expert_alpha_1", c.const_expert_alpha_1 != nullptr, 3},
                               {"const_expert_alpha_2", c.const_expert_alpha_2 != nullptr, 3},
                               {"const_expert_v", c.const_expert_v != nullptr, 3},
                               {"zero_expert_num", a.zero_expert_num != 0, 3},
                               {"copy_expert_num", a.copy_expert_num != 0, 3},
                               {"const_expert_num", a.const_expert_num != 0, 3}});
    if (status != ACL_SUCCESS) return status;
    const char *ep = a.group_ep.c_str(), *tp = a.group_tp.c_str(), *algorithm = a.comm_alg.c_str();
    if (stock.generation == 4) {
        return STOCK_FUNCTION(aclnnMoeDistributeCombineV4GetWorkspaceSize,
                              stock.get_workspace_size)(
            c.expand_x, c.expert_ids, c.assist_info_for_combine, c.ep_send_counts, c.expert_scales,
            c.tp_send_counts, c.x_active_mask, c.activation_scale, c.weight_scale, c.group_list,
            c.expand_scales, c.shared_expert_x, c.elastic_info, c.ori_x, c.const_expert_alpha_1,
            c.const_expert_alpha_2, c.const_expert_v, c.performance_info, ep, a.ep_world_size,
            a.ep_rank_id, a.moe_expert_num, tp, a.tp_world_size, a.tp_rank_id, a.expert_shard_type,
            a.shared_expert_num, a.shared_expert_rank_num, a.global_bs, c.out_dtype,
            c.comm_quant_mode, c.group_list_type, algorithm, a.zero_expert_num, a.copy_expert_num,
            a.const_expert_num, c.out, workspace_bytes, executor);
    }
    if (stock.generation == 3) {
        return STOCK_FUNCTION(aclnnMoeDistributeCombineV3GetWorkspaceSize,
                              stock.get_workspace_size)(
            c.expand_x, c.expert_ids, c.assist_info_for_combine, c.ep_send_counts, c.expert_scales,
            c.tp_send_counts, c.x_active_mask, c.activation_scale, c.weight_scale, c.group_list,
            c.expand_scales, c.shared_expert_x, c.elastic_info, c.ori_x, c.const_expert_alpha_1,
            c.const_expert_alpha_2, c.const_expert_v, ep, a.ep_world_size, a.ep_rank_id,
            a.moe_expert_num, tp, a.tp_world_size, a.tp_rank_id, a.expert_shard_type,
            a.shared_expert_num, a.shared_expert_rank_num, a.global_bs, c.out_dtype,
            c.comm_quant_mode, c.group_list_type, algorithm, a.zero_expert_num, a.copy_expert_num,
            a.const_expert_num, c.out, workspace_bytes, executor);
    }
    return STOCK_FUNCTION(aclnnMoeDistributeCombineV2GetWorkspaceSize, stock.get_workspace_size)(
        c.expand_x, c.expert_ids, c.assist_info_for_combine, c.ep_send_counts, c.expert_scales,
        c.tp_send_counts, c.x_active_mask, c.activation_scale, c.weight_scale, c.group_list,
        c.expand_scales, c.shared_expert_x, ep, a.ep_world_size, a.ep_rank_id, a.moe_expert_num, tp,
        a.tp_world_size, a.tp_rank_id, a.expert_shard_type, a.shared_expert_num,
        a.shared_expert_rank_num, a.global_bs, c.out_dtype, c.comm_quant_mode, c.group_list_type,
        algorithm, c.out, workspace_bytes, executor);
}

int ForwardRun(const char* aclnn, void* workspace, uint64_t workspace_bytes,
               aclOpExecutor* executor, aclrtStream stream) {
    const Stock& stock = StockOf(aclnn);
    if (stock.generation == 0)
        return Fail(kBadParameter, "%s: an executor that is not ours, and no CANN that made it",
                    aclnn);
    return STOCK_FUNCTION(aclnnMoeDistributeDispatchV4, stock.run)(workspace, workspace_bytes,
                                                                   executor, stream);
}

}  // namespace ascend_moe
