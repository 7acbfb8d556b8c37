"""Both operators on CPU tensors: one process per rank, exchange over torch.distributed.

A call runs in four steps, in this order on every rank:

1. ``kernels``   checks the call (nothing that is used as an index or a size stays unchecked);
2. ``exchange``  every rank sends every other rank its *statement*: what must be equal on all ranks, how many rows
                 follow, or that it refuses the call and why. The statements decide the call on all ranks alike;
3. ``exchange``  rows travel, grouped by destination, each with a few words that say where it belongs;
4. ``dispatch``, ``combine``  lay out what arrived, in the order of ``reference.routing``; ``hierarchy`` has the parts
                 of both that differ where ranks are grouped in servers.

``group`` resolves ``group_ep``; ``registration`` puts the kernels behind the stock operator names. The exchange knows
nothing of experts, and dispatch and combine nothing of sockets.
"""
