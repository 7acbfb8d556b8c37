"""What ``scripts/npu_check`` runs: both implementations of the operators on the same cases, compared bit by bit.

A *phase* is one implementation: ``stock`` (ASCEND_MOE_KERNELS=off) or ``ours`` (require). Every rank of a phase is a
process of its own that works through the same list of cases and leaves its results as files, so that a rank that
crashes or hangs costs one case: the supervisor stops the others and all go on behind it. When both phases are over the
files are compared with one another, and each has compared itself with the golden data or the oracle.

Before them come the first steps (``first_steps``): ``probe_rank`` looks through ``probe_library``, ``findings`` judges.

``cases`` says what is played, ``rank`` plays it, ``timing`` measures, ``supervisor`` keeps the ranks going, ``report``
compares and prints.
"""
