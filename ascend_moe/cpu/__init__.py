"""Both operators on CPU tensors: one process per rank.

Four rooms:

``operators``     the operator's face: registered names, checks, what leaves and how what arrives is laid out
``distributed``   torch.distributed: groups by name, exchange by messages, who is missing
``windows``       shared memory: its protocol, its C++, and in ``windows.repeated`` the fast path for repeated calls
``survivors``     how the ranks that are left of a group meet again when others died

and ``transport`` between the two ways rows travel: the ranks of a group choose one together in its first call.

A call is made in four steps, in this order on every rank:

1. ``operators.session`` checks the call (nothing that is used as an index or a size stays unchecked);
2. every rank tells every other rank its *statement*: what must be equal on all ranks, how many rows follow, or that it
   refuses the call and why. The statements decide the call on all ranks alike;
3. rows travel, each with a few words that say where it belongs;
4. ``operators.dispatch``, ``.combine`` and ``.hierarchy`` lay out what arrived, in the order of ``reference.routing``.

In shared memory most modes take steps of their own, one call into C++ for all four. The exchange knows nothing of
experts, and dispatch and combine nothing of sockets or memory.

**Who owns which memory.**

=========================  =============================================================================================
``ascend_moe.outputs``     the tensors themselves: results of the reference and of the steps that all modes share
``windows.repeated.warm``  this process, which lends it as outputs and takes it back when nobody can see them any more;
                           ``native/outputs.h`` does the same
``windows.rows_in_place``  the caller: expert outputs (`empty_expert_outputs`) that the peers only read
``windows.areas``          the group: what its ranks publish for one call, written by one rank and read by the others
=========================  =============================================================================================
"""
