"""Values between a world and its caller: pickle, but a tensor travels as its values, wherever it lies.

torch's own way of pickling would hand over the device, which the reader may not have. What arrives is a plain,
contiguous tensor on the CPU. Only who has imported torch can hold a tensor, so this module need not import it.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Sequence
from typing import Any


def dumps(value: Any) -> bytes:
    """The counterpart of ``pickle.loads``."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            return NotImplemented
        host = value.detach().cpu().resolve_conj().contiguous()
        content = host.reshape(-1).view(torch.uint8).numpy().tobytes()
        return _tensor, (str(host.dtype).removeprefix("torch."), tuple(host.shape), content)


def _tensor(dtype: str, shape: Sequence[int], content: bytes) -> Any:
    import torch

    kind = getattr(torch, dtype)
    if not content:  # which frombuffer refuses
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(bytearray(content), dtype=kind).reshape(shape)
