"""A group on NPUs goes on without its dead ranks, where our kernels serve it.

As on CPU (`ascend_moe.cpu.survivors`), with the windows of the HCCL buffers in the place of shared memory: every rank
that is left has them mapped, whoever made them, so no process that died is needed, nor the rendezvous store, nor HCCL.

1. *Launches end.* Those that wait for a dead rank give up by themselves; a group that has failed announces nothing any
   more, so nobody's flags of before count.
2. *They agree who is gone*, by notes in the control areas of the windows: a small kernel writes them, the host reads
   its own (``notes``). The agreement itself is that of CPU groups (`ascend_moe.cpu.survivors.meeting`).
3. *They get a fresh context*: the first rank that is left draws a nonce and offers it in its note; with it all that are
   left open the windows again and meet once more in the opening kernel. Flags of before have another nonce.
4. *The old context is retired*: launches of graphs that were captured with it do nothing, and say so. Ranks that were
   left out are told in their own windows, because they may be alive: what they still launch does nothing either.

An error on an NPU names whom a kernel has waited for, and that may be a rank that itself waits for the dead one.
`missing_ranks` finds out: ranks that come to it, or meet already, are not the ones.

``shrinking``  the two functions;  ``notes``: what ranks write to each other;  ``library``: the kernel library's part
"""
