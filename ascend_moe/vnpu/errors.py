"""The error of this package."""


class VirtualNpuError(RuntimeError):
    """The virtual NPU cannot be used here; the message is one line and says what to do."""
