"""Both operators on CPU tensors: one process per rank.

A call is made in four steps, in this order on every rank:

1. ``kernels``, ``session``   check the call (nothing that is used as an index or a size stays unchecked);
2. every rank tells every other rank its *statement*: what must be equal on all ranks, how many rows follow, or that it
   refuses the call and why. The statements decide the call on all ranks alike (``statements``);
3. rows travel, each with a few words that say where it belongs (``wire``);
4. ``dispatch``, ``combine``  lay out what arrived, in the order of ``reference.routing``; ``hierarchy`` has the parts
   of both that differ where ranks are grouped in servers.

Statements and rows have two ways to travel, and the ranks of a group choose one together in its first call
(``transport``): ``exchange`` sends messages over torch.distributed, ``windows`` publishes in shared memory. Most modes
take steps of their own there, one call into C++ for all four; a call of a kind that was legal before (``remembered``)
goes straight to them, past torch's dispatcher when nobody listens there (``eager``), with outputs from ``warm``.

``group`` resolves ``group_ep``; ``peers`` is what a group remembers, and how failures are told; ``registration`` puts
the kernels behind the stock operator names. The exchange knows nothing of experts, and dispatch and combine nothing of
sockets or memory.
"""
