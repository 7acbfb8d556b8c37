"""Files of recorded ``performance_info``: what torch.save or np.save wrote, read without running anything in them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FILE_MAX_BYTES: Final = 1 << 30
_NUMPY: Final = b"\x93NUMPY"
_WHAT: Final = "integers of shape (ranks,), (steps, ranks) or, of all ranks, (steps, ranks, ranks)"


def read_all(files: Sequence[str]) -> dict[int, NDArray[Any]]:
    """What each rank recorded, integers (steps, ranks), by rank.

    A file holds the steps of one rank, whose number is the last one in the file's name, or alone those of all ranks.
    Raises ValueError, beginning with the file's name.
    """
    by_rank: dict[int, NDArray[Any]] = {}
    for file in files:
        try:
            found = _read(Path(file))
            if found.ndim == 3:
                if len(files) > 1:
                    raise ValueError("holds the steps of all ranks; needed: no other file")
                return {rank: found[:, rank] for rank in range(found.shape[1])}
            rank = _rank_of(Path(file))
            if rank in by_rank:
                raise ValueError(f"is the second file of rank {rank}")
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        by_rank[rank] = found
    return by_rank


def _rank_of(path: Path) -> int:
    numbers = re.findall(r"\d{1,6}", path.stem)
    if not numbers:
        raise ValueError("its name has no number; needed: the rank as the last one, as in rank3.pt")
    return int(numbers[-1])


def _read(path: Path) -> NDArray[Any]:
    """(steps, ranks) or (steps, ranks, ranks)."""
    try:
        if not path.is_file():
            raise ValueError("is no file" if path.exists() else "there is no such file")
        if path.stat().st_size > FILE_MAX_BYTES:
            raise ValueError(f"is longer than {FILE_MAX_BYTES} bytes")
        with path.open("rb") as stream:
            head = stream.read(len(_NUMPY))
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    found = _of_numpy(path) if head == _NUMPY else _of_torch(path)
    if found.dtype.kind not in "iu" or found.ndim not in (1, 2, 3):
        raise ValueError(f"holds {found.dtype} of shape {found.shape}, needed: {_WHAT}")
    if found.ndim == 1:
        found = found[None]
    if not found.size:
        raise ValueError(f"holds nothing: shape {found.shape}")
    if found.ndim == 3 and found.shape[1] != found.shape[2]:
        raise ValueError(f"holds shape {found.shape}, needed: {_WHAT}")
    return found


def _of_numpy(path: Path) -> NDArray[Any]:
    try:
        # Mapped, so that a size that only the header claims reserves nothing.
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        raise ValueError(f"is not a file of np.save with numbers: {error}") from None
    return found


def _of_torch(path: Path) -> NDArray[Any]:
    from ascend_moe.bootstrap import import_torch

    try:
        import_torch()
        import torch
    except ImportError as error:
        raise ValueError(f"is no file of np.save, and torch cannot be imported: {error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a file may be anything, and so are the errors of its reader
        raise ValueError("is no file of np.save, nor of torch.save with tensors alone") from None
    if isinstance(found, (list, tuple)) and found:
        if not all(isinstance(one, torch.Tensor) for one in found):
            raise ValueError("holds a list of other things than tensors")
        if len({(one.shape, one.dtype) for one in found}) > 1:
            raise ValueError("holds a list of tensors of different kinds")
        found = torch.stack(list(found))
    if not isinstance(found, torch.Tensor) or found.layout is not torch.strided:
        raise ValueError(f"holds {type(found).__name__}, needed: {_WHAT}")
    if found.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"holds {found.dtype} of shape {tuple(found.shape)}, needed: {_WHAT}")
    array: NDArray[Any] = found.detach().numpy()
    return array
