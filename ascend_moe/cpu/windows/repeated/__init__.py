"""The fast path: a call of a kind that was legal before goes straight to its steps in shared memory.

A decode step makes the same two calls for every layer. Where many ranks share few cores, little of a call is in a
core's caches when its turn comes, and everything costs several times what it costs alone: so a repeated call is one
look-up, one look at its tensors, and one call into C++.

**What is remembered**, with the group, of a call that passed the rule table and took its own steps: all that the rules
read but the contents of tensors, which are its attributes, the variables they read, the shape of ``expert_ids`` (the
key), and kind and presence of every tensor. It goes with the group, when the group leaves shared memory, and when
`call.FastCall.kept_at_most` others came after it.

**What is looked at again** in every call: that the group is still there; that every tensor is of the same kind, plain
memory on the CPU, and wants no gradient; expert ids, masks and handles, element by element, while they are read
anyway. A call that fails any of it has told the peers nothing yet: it starts again as if nothing were remembered, and
the rule table finds out and says what is wrong.

**What a surprise costs.** A peer that is late, says something else, refuses or needs more room: the C++ returns a code,
Python decides (`surprises`), and the step goes on where it was. A tensor with gaps, or a torch without the DLPack
exchange table: the same steps, their addresses filled in one by one by Python. Hardly anything is lost but time.

``door``       where a call asks, and is put down: the only entrance
``eager``      whether a call may come here past torch's dispatcher: when nobody listens there
``prepared``   what stays of a kind of call, worked out once
``call``       one more call of it; ``dispatch`` and ``combine`` add what is theirs; ``surprises``: what it leaves
``tensors``    whether tensors are of a known kind
``repeat``     the same in one foreign function, from tensors to tensors
``warm``       outputs in memory that this process used before
"""
