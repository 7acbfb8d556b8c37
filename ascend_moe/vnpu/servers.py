"""How the devices of a run are split over servers, and what no machine could be.

The split itself is the stand-in's (kernels/standin/ascendcl/servers.cpp). A wish is checked here, before anything
starts.
"""

from __future__ import annotations

from ascend_moe.contract.limits import RANKS_PER_SERVER, RANKS_PER_SERVER_A3
from ascend_moe.vnpu.errors import VirtualNpuError

SERVERS = "ASCEND_MOE_VNPU_SERVERS"
DEVICES_OF_A_SERVER = {"A2": RANKS_PER_SERVER, "A3": RANKS_PER_SERVER_A3}


def server_count(
    wanted: int | None, variable: str | None, *, product: str, devices: int
) -> int | None:
    """How many servers were asked for, by argument or by the variable; None: nobody asked.

    Raises VirtualNpuError when that is no number, or the devices do not fill so many servers evenly.
    """
    if wanted is None and not variable:
        return None
    text = str(wanted) if wanted is not None else str(variable)
    source = "" if wanted is not None else f"{SERVERS}="
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise VirtualNpuError(f"{source}{text} servers: at least 1 is needed")
    servers = int(text)
    if devices % servers:
        raise VirtualNpuError(
            f"{source}{text} servers: {devices} devices cannot be split evenly over {servers}"
        )
    most = DEVICES_OF_A_SERVER[product]
    if devices // servers > most:
        raise VirtualNpuError(
            f"{source}{text} servers: {devices} devices on {servers} are {devices // servers} each, "
            f"a server of {product} has {most}"
        )
    return servers
