"""torch.distributed: the groups that callers name, and the exchange between ranks that share no memory.

``group``         from the name of a group to the group
``peers``         what a group remembers, and how a failure of its ranks is told
``messages``      what one rank sends another; ``exchange``: the messages of one call, as collectives
``steps``         the native steps between such ranks
``turns``         one call at a time, and what becomes of one that ends half-way
``whereabouts``   words that ranks leave when they give up: because of whom, and where they waited
"""
