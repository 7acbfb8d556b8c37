"""Both operators through memory that the ranks of one host share.

A group has a small *control* memory, and an *area* for each kind of traffic: dispatch, combine, and everything else.
A rank publishes what others need, meets them at a barrier, and fetches what it needs. Nothing else is exchanged.

A call on every rank
    1. checks its own tensors (also their values, while it reads them anyway);
    2. *posts* its statement: what must be equal on all ranks, or why it refuses the call;
    3. publishes its rows, if the area is free (below);
    4. arrives at a barrier, waits for the others, and compares all statements. They decide the call on all ranks alike;
    5. if the rows are not published yet, publishes them now and meets the others at a second barrier;
    6. fetches and lays out (dispatch) or adds up (combine) what is its own.

Dispatch *pulls*: a token is published once, quantised once, with the experts who want it; each receiver finds its rows
and copies them straight into its outputs, in final order. Combine *pushes*: the expert's rank copies each row to its
place (owner, token, slot), so the owner finds the rows of a token side by side and adds them where they are. Rows that
stay on their rank do not move. All other modes (TP, hierarchy, int8 on the way home, A2's combine) take the steps of
``kernels`` over `WindowExchange`, which moves blocks of rows through the third area.

**The barrier.** Barriers are numbered. Each rank has a flag with the number of the last one it arrived at; whoever
finds all flags there writes the number to ``generation`` and wakes the sleepers. Waiting is a futex: no spinning, and
no yield either, which costs a time slice where others want the core. It is cut in slices: in between Python looks
whether a peer died (a pidfd, which also knows processes that nobody has reaped) or gave up, and whether time is over.

**When is an area free?** Rows published for barrier n are read until their readers arrive at a later barrier. So a rank
that has passed barrier n + 1 or a later one may write there. When dispatch and combine alternate this always holds, and
a call has one barrier. When one is called twice in a row small areas have another half to go to; large ones, which two
halves would push out of the caches, take the second barrier. A statement is kept in one of two places by the
parity of its barrier, by the same argument.

**Memory** is anonymous (memfd) and opened by the peers through ``/proc/<pid>/fd``: it has no name, so nothing is left
behind however processes end, and the size of ``/dev/shm`` does not matter. Its pages are reserved when it is made; if
that fails, the group goes over to torch.distributed. Areas grow when a call needs more: after the statements were
compared, so that all ranks know.

``group``     one rank's view of its group: statements and barriers; ``control``: their memory
``areas``     memory for rows: who may write where and when, and how it grows; ``layout``: what lies where
``memory``    anonymous memory, made and opened
``rows_in_place``, ``expert_outputs``: the caller's memory, read in place
``build``     how ``native/`` (C++) becomes a library; ``engine`` loads it; ``fields``: what Python and C++ pass
``exchange``  blocks of rows, for all other modes
``repeated``  a kind of call with steps of its own, and the fast path
"""
