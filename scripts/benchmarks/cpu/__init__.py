"""``scripts/bench cpu``: the CPU operators beside a plain implementation over gloo, in the same processes.

``cases``   the sizes, and what every rank has to get: by the oracle, before the ranks are forked
``ours``    the public functions with all checks
``plain``   what one would write with ``all_to_all_single``, ``index_select`` and ``index_add_``
``ranks``   forked processes that do what they are told and tell when they began and ended
``floor``   the row copies and sums alone, in C on all cores: no ordering, no waiting, no Python
``report``  table, JSON, bar chart
"""
