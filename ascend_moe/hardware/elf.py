"""Which functions a shared library exports, read from its file: loading it would need all of CANN."""

from __future__ import annotations

import struct
from pathlib import Path

MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little endian: x86_64 and aarch64
SECTION_HEADERS = struct.Struct("<40xQ10xHH")  # in the file header: offset, size of one, number
SECTION = struct.Struct("<4xI16xQQI12xQ")  # type, offset, size, link, size of an entry
SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size
DYNAMIC_SYMBOLS = 11


def exported_names(path: Path) -> frozenset[str]:
    """The defined dynamic symbols of an ELF file.

    Raises ValueError when it is not a 64-bit little-endian ELF file or is cut off.
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        raise ValueError(f"{path} is not a 64-bit ELF file")
    try:
        return frozenset(_names(data))
    except (struct.error, IndexError, ValueError):
        raise ValueError(f"{path} is damaged") from None


def _names(data: bytes) -> list[str]:
    offset, size, count = SECTION_HEADERS.unpack_from(data)
    sections = [SECTION.unpack_from(data, offset + index * size) for index in range(count)]
    found = []
    for kind, start, length, link, entry in sections:
        if kind != DYNAMIC_SYMBOLS:
            continue
        names = sections[link][1]
        for at in range(start, start + length, entry):
            name, _, _, section, _, _ = SYMBOL.unpack_from(data, at)
            if section != 0:
                end = data.index(b"\0", names + name)
                found.append(data[names + name : end].decode("ascii", "replace"))
    return found
