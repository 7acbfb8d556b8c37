"""What to do about a broken rule, for the rules that tiling names most; the others say it themselves."""

from __future__ import annotations

REMEDIES: dict[str, str] = {
    "X-04": "Choose another number of EP ranks.",
    "X-05": "Choose another number of EP ranks: A2 takes a list, see the rule.",
    "X-06": "A3 hierarchy takes multiples of 16 ranks; full mesh takes others.",
    "X-07": "ep_rank_id is the index of this rank in the EP group.",
    "X-09": "Fewer experts in one call, or another path: the limit depends on product and path.",
    "X-10": "Make moe_expert_num (with redundant experts) a multiple of the MoE ranks.",
    "X-12": (
        "More EP ranks (moe_expert_num / EP <= 24), hierarchy with EP 16, 32 or 64, or another path of the engine "
        "(all-gather)."
    ),
    "X-22": "Pass global_bs = 0, or max_bs * ep_world_size on every rank.",
    "X-23": "Pass no mask where batches differ, or pad all ranks to one batch and pass global_bs = 0.",
    "X-24": "Lower the tokens per rank and call (in vLLM the capture sizes or max-num-seqs).",
    "X-25": "This hidden size needs another path: the limits depend on product and path.",
    "X-26": "The model's experts per token do not fit: another path of the engine.",
    "X-29": "Pass a comm_alg that the product knows, or leave it empty.",
    "X-32": "Build the mask for the padded batch: bool, its length is BS.",
    "X-33": "Leave x_active_mask out on this path.",
    "X-43": "Lower BS or K, or leave fullmesh_v2.",
    "X-45": "Where batches differ: global_bs = max_bs * ep_world_size on every rank, and no mask.",
    "D-04": "Pass scales only with quant_mode 2.",
    "D-10": (
        "Pass expert_scales (float32, BS x K), or leave hierarchy: comm_alg, or on A2 HCCL_INTRA_PCIE_ENABLE and "
        "HCCL_INTRA_ROCE_ENABLE select it."
    ),
}
