// The rank graph (CANN 8.5 and later), which says where the ranks of a communicator stand, without
// building a link.
//
//   layer 0   the server             layer 1   on A2 all servers; on A3 the super-pod
//                                    layer 2   on A3 all super-pods
//
// A layer is there only if the communicator has more than one instance of the one below it. What is
// answered for each is the instance of the asking rank, in the order of servers, then of ranks;
// sizes are those of all instances
// (hcomm:src/framework/communicator/impl/independent_op/rank_graph/ rank_graph.cc:609 v9.0.0, the
// same in v8.5.0 at :557 and v9.1.0-beta.1). Lists belong to the communicator and may go with the
// next question.
#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include "offer.h"

namespace {

using standin::A2;
using standin::Communicator;
using standin::Place;

// The ranks of each instance of a layer.
using Instances = std::map<uint32_t, std::vector<uint32_t>>;

template <typename Key>
Instances By(const Communicator& communicator, Key key) {
    Instances instances;
    for (uint32_t rank = 0; rank < communicator.size(); ++rank)
        instances[key(communicator.place(rank))].push_back(rank);
    return instances;
}

struct Layer {
    std::vector<uint32_t> ranks;  // of the own instance
    std::vector<uint32_t> sizes;  // of all
};

template <typename Key>
Layer MakeLayer(const Communicator& communicator, Key key) {
    Layer layer;
    const Instances instances = By(communicator, key);
    layer.ranks = instances.at(key(communicator.place(communicator.rank())));
    for (const auto& [number, ranks] : instances) layer.sizes.push_back(ranks.size());
    std::stable_sort(layer.ranks.begin(), layer.ranks.end(), [&](uint32_t a, uint32_t b) {
        return communicator.place(a).server < communicator.place(b).server;
    });
    return layer;
}

struct Graph {
    std::vector<uint32_t> layers;
    std::vector<Layer> of;
};

Graph MakeGraph(const Communicator& communicator) {
    const auto server = [](const Place& place) { return place.server; };
    const auto pod = [](const Place& place) { return place.pod; };
    const auto all = [](const Place&) { return 0u; };
    Graph graph;
    graph.of.push_back(MakeLayer(communicator, server));
    if (graph.of[0].sizes.size() > 1)
        graph.of.push_back(A2() ? MakeLayer(communicator, all) : MakeLayer(communicator, pod));
    if (!A2() && By(communicator, pod).size() > 1) graph.of.push_back(MakeLayer(communicator, all));
    for (uint32_t layer = 0; layer < graph.of.size(); ++layer) graph.layers.push_back(layer);
    return graph;
}

// Kept for the pointers that are given away. Null: no such communicator.
Graph* GraphOf(HcclComm comm) {
    static std::mutex mutex;
    static auto* graphs = new std::map<const Communicator*, Graph>();
    const auto communicator = standin::OfHandle(comm);
    if (communicator == nullptr) return nullptr;
    std::lock_guard<std::mutex> lock(mutex);
    Graph& graph = (*graphs)[communicator.get()];
    graph = MakeGraph(*communicator);
    return &graph;
}

HcclResult LayerOf(const char* call, HcclComm comm, uint32_t layer, Layer** found) {
    Graph* graph = GraphOf(comm);
    if (graph == nullptr) return HCCL_E_PTR;
    if (layer >= graph->of.size())
        return standin::Wrong(call, "the communicator has no such layer");
    *found = &graph->of[layer];
    return HCCL_SUCCESS;
}

}  // namespace

extern "C" {

HcclResult HcclRankGraphGetLayers(HcclComm comm, uint32_t** layers, uint32_t* count) {
    Graph* graph = GraphOf(comm);
    if (graph == nullptr) return HCCL_E_PTR;
    *layers = graph->layers.data();
    *count = graph->layers.size();
    return HCCL_SUCCESS;
}

HcclResult HcclRankGraphGetRanksByLayer(HcclComm comm, uint32_t layer, uint32_t** ranks,
                                        uint32_t* count) {
    Layer* found = nullptr;
    const HcclResult result = LayerOf(__func__, comm, layer, &found);
    if (result != HCCL_SUCCESS) return result;
    *ranks = found->ranks.data();
    *count = found->ranks.size();
    return HCCL_SUCCESS;
}

HcclResult HcclRankGraphGetRankSizeByLayer(HcclComm comm, uint32_t layer, uint32_t* count) {
    uint32_t* ranks = nullptr;
    return HcclRankGraphGetRanksByLayer(comm, layer, &ranks, count);
}

HcclResult HcclRankGraphGetInstSizeListByLayer(HcclComm comm, uint32_t layer, uint32_t** sizes,
                                               uint32_t* count) {
    Layer* found = nullptr;
    const HcclResult result = LayerOf(__func__, comm, layer, &found);
    if (result != HCCL_SUCCESS) return result;
    *sizes = found->sizes.data();
    *count = found->sizes.size();
    return HCCL_SUCCESS;
}

HcclResult HcclRankGraphGetTopoTypeByLayer(HcclComm comm, uint32_t layer, uint32_t* topology) {
    Layer* found = nullptr;
    const HcclResult result = LayerOf(__func__, comm, layer, &found);
    if (result != HCCL_SUCCESS) return result;
    *topology = standin::TopologyOf(layer);
    return HCCL_SUCCESS;
}

}  // extern "C"
