"""The proof of the device kernels: inside hostsim, bit for bit against the oracle and the golden data.

``simulator`` wraps hostsim, ``group`` does the host's part of a launch, ``programs`` makes sequences of calls with what
must come out, ``execution`` runs one under a schedule and judges it, ``prove`` is the command.
"""
