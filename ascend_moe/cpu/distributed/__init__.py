"""torch.distributed: the groups that callers name, and the exchange between ranks that share no memory.

``group``         from the name of a group to the group
``peers``         what a group remembers, and how a failure of its ranks is told
``messages``      what one rank sends another; ``exchange``: the messages of one call, as collectives
``steps``         the native steps between such ranks
``whereabouts``   where a late rank waits instead
"""
