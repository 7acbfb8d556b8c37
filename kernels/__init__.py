"""Device kernels (C++), the simulator that runs them on the host, and the proof of the two."""
