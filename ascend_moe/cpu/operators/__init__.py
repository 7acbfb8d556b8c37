"""The operator's face: what both operators check, agree on, send and lay out, whichever way rows travel.

``registration``  the kernels behind the stock operator names
``kernels``       a call, step by step
``session``       its checks, and what all ranks decide about it; ``statements``: what they say against it
``elastic``     calls of a group that goes on without some of its ranks
``refusals``      calls that the rules cannot even read
``dispatch``      which rows leave, and how those that arrive are laid out
``combine``       which rows go home, and how they are summed; ``hierarchy``: both, where ranks are grouped in servers
``wire``          a row on its way, with the words that say where it belongs
"""
