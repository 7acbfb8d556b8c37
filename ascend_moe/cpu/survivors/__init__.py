"""A group goes on without its dead ranks: the others meet again, and get a fresh context.

A rank whose peer died has an error and a group that cannot be used any more: it does not know how far its peers came.
`ascend_moe.shrink` brings those that are left together:

1. *They agree who is gone.* Each leaves a note with the ranks that it believes to be gone, and reads the notes of all.
   When all that are left in its own view have left the same note, it goes on. A note that says otherwise ends the
   meeting of both, and names both views; so does one of a rank that is thought to be gone.
2. *They get a fresh context*: the first rank that is left makes it and offers it in its note, the others take it, and
   all meet in it once. What a call that failed left in the old context is never looked at again, and who still knows
   only the old one, be it a rank that was dead for a while, reaches nobody.
3. The old group remembers `Shrunk`: calls with its ``elastic_info`` are made on the new context, all others end in an
   error that names the shrink.

Everything waits until a time limit at most, and looks meanwhile whether another rank died.

**Where notes are** (`boards`). In shared memory, in the control memory of the group, which all that are left have
mapped, whoever made it: no process that died is needed. Over torch.distributed in the rendezvous store; where that
died, nobody can meet.

**Attempts.** A meeting may fail and be tried again, by some ranks earlier than by others. Notes are numbered by their
rank; one that a rank has already failed over does not count for it a second time.

``shrinking``  the function, and what a group remembers; ``meeting``: the agreement; ``boards``: the notes
"""
