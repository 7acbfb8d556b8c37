"""What the first steps can find, by stable names, and the judgement of what the ranks saw.

A judge gets what every rank has seen (``probe_rank.py``), by rank, and returns a finding or the evidence that all is
well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hardware_kit import server_findings

ADVICE = {
    # compile
    "no-virtual-npu": "The virtual NPU could not be built: see above.",
    "other-product": "Another product than the one that was named (--product), or none of A2 (Ascend910B) and A3 "
    "(Ascend910_93), for which our kernels are. Elsewhere CANN's own run: --phases stock.",
    "cannot-build": "Install or source what is named. A library that was built elsewhere from the same sources: "
    "--from load.",
    "does-not-compile": "Send the whole output (first_steps in the JSON) and the version of CANN: bisheng has never "
    "seen these sources.",
    # load
    "not-found": "Build as the user who runs (torch_npu skips libraries of another owner).",
    "does-not-load": "Something that CANN should have is missing or of another version: source its set_env.sh, "
    "compare `ldd` of the library, build again with --rebuild.",
    "not-ours": "Another package comes first on ASCEND_CUSTOM_OPP_PATH: see ascend-moe doctor.",
    "other-library": "The library is not from this clone: build it again with --rebuild.",
    # launch
    "launch-fails": "Send the text and the last lines of ~/ascend/log. Every launch of ours would fail like this.",
    "launch-errors-lost": "Send this: the status of a launch never reaches the call, so a failed launch will look "
    "like a rank that does not come. Other findings have to be read with that in mind (--from cores goes on).",
    "launch-error-without-text": "Send this. Go on with --from cores.",
    "launch-error-sticks": "Send this: an error outlives its call, so one bad call would spoil the process.",
    # cores
    "sync-all-hangs": "Look for another kernel with SyncAll on the same die (before CANN 9.1 a direct launch has no "
    "batch scheduling): npu-smi info. Send this.",
    "blocks-missing": "Send this: fewer cores run than were granted. Is a core limit set (stream or device)?",
    "blocks-repeated": "Send this: a core did its work more than once, or an atomic add counts wrongly.",
    "blocks-misnumbered": "Send this: GetBlockIdx or GetBlockNum are not what the kernels believe (__mix__(0, 1)).",
    "sync-all-not-seen": "Send this: behind a SyncAll a core does not see what another had written before it.",
    "counter-stands-still": "Send this: GetSystemCycle does not move, so no time limit of ours ends.",
    "counter-not-50-mhz": "Send this: all time limits are off by this factor (kTicksPerSecond in opening.cpp).",
    # row
    "no-communicator": "HCCL makes no communicator: nothing of ours has run yet. Does CANN's own hccl_test run here?",
    "no-windows": "Send the text: which way to the windows was tried, and what HCCL answered.",
    "row-not-arrived": "Send this with `npu-smi info -t topo`: a write to the neighbour's window is not seen there.",
    "row-differs": "Send this: the flag came, but not (all of) the row before it, so copies are seen out of order.",
    # timeout
    "absent-rank-not-noticed": "Send this: a kernel ended well although its peer never came.",
    "gives-up-late": "Send this: time limits of kernels do not hold.",
    "no-record": "Send this: the kernel ended, but what it wrote into its own window cannot be read.",
    "record-names-another": "Send this: the record names a rank that did come.",
    "no-record-file": "ascend-moe doctor would have nothing: is the cache directory ($XDG_CACHE_HOME) writable?",
    # two servers
    **server_findings.ADVICE,
    # any step with ranks
    "rank-failed": "Send the log (first_steps in the JSON) and the last 50 lines of ~/ascend/log.",
}

# kernels/device/abi.h: words of a core's report, three blocks of 8; and of an error block.
BEFORE, RUNS, BEHIND = 0, 8, 16
MARK, INDEX, BLOCKS, TICKS = 0, 1, 2, 3
ERROR_PEER = 2
NOMINAL_MHZ, TOLERANCE = 50.0, 0.05
LATE_S = 10.0

Seen = Mapping[int, Mapping[str, Any]]


class Verdict(NamedTuple):
    """``finding`` is a key of ADVICE, or empty when all is well; ``evidence`` is one line."""

    finding: str
    evidence: str


def judge(step: str, seen: Seen, world: int, failed: str, *, virtual: bool) -> Verdict:
    """What a step with ranks showed; ``failed`` says which rank ended badly, and how."""
    if step not in JUDGES:
        for finding, text in server_findings.judge(step, seen, world):
            return Verdict(finding, text)
    for rank in sorted(seen) if step in JUDGES else ():
        for finding, text in JUDGES[step](rank, seen[rank], world, virtual):
            return Verdict(finding, f"rank {rank}: {text}")
    if failed:
        return Verdict("rank-failed", failed)
    if step in JUDGES:
        return Verdict("", EVIDENCE[step](seen))
    return Verdict("", server_findings.evidence(step, seen))


Found = Iterator[tuple[str, str]]


def _launch(rank: int, seen: Mapping[str, Any], ranks: int, virtual: bool) -> Found:
    good, bad, again = seen["good"], seen["bad"], seen["again"]
    if good["status"] != 0:
        yield "launch-fails", f"a launch on one core returned {good['status']}: {good['text']}"
    if bad["launched"] == 0:
        later = f"the stream {bad['status']}" if bad["status"] else "neither did the stream"
        yield "launch-errors-lost", f"a launch on 0 cores returned no error, {later}"
    if not bad["text"]:
        yield "launch-error-without-text", f"a launch on 0 cores returned {bad['launched']}"
    if again["status"] != 0:
        text = f"behind a failed launch a good one returned {again['status']}: {again['text']}"
        yield "launch-error-sticks", text


def _cores(rank: int, seen: Mapping[str, Any], ranks: int, virtual: bool) -> Found:
    for name, mark in (("first", seen["mark"]), ("second", seen["mark"] + 1)):
        yield from _reports(seen[name], mark)
    mhz = _mhz(seen)
    if mhz == 0:
        yield "counter-stands-still", "the same count in both launches"
    if not virtual and abs(mhz / NOMINAL_MHZ - 1) > TOLERANCE:
        yield "counter-not-50-mhz", f"GetSystemCycle counts {mhz:.3f} MHz"


def _reports(launch: Mapping[str, Any], mark: int) -> Found:
    reports = launch["reports"]
    count = len(reports)
    ran = [core for core, words in enumerate(reports) if words[BEFORE + MARK] == mark]
    passed = [core for core in ran if any(reports[core][BEHIND:])]
    if launch["status"] != 0 and ran and not passed:
        text = f"{len(ran)} of {count} blocks came to the SyncAll, none passed: {launch['text']}"
        yield "sync-all-hangs", text
    if launch["status"] != 0:
        yield "launch-fails", f"{count} blocks: status {launch['status']}: {launch['text']}"
    if len(ran) < count:
        missing = sorted(set(range(count)) - set(ran))
        yield "blocks-missing", f"{len(ran)} of {count} blocks ran; not {_some(missing)}"
    repeated = [core for core in range(count) if reports[core][RUNS] != 1]
    if repeated:
        text = f"block {repeated[0]} ran {reports[repeated[0]][RUNS]} times"
        yield "blocks-repeated", f"{text}; in all {len(repeated)} did not run once"
    for core, words in enumerate(reports):
        own = (words[BEFORE + INDEX], words[BEFORE + BLOCKS])
        if own != (core, count):
            yield "blocks-misnumbered", f"block {core} of {count} calls itself {own[0]} of {own[1]}"
        if words[BEHIND + MARK] != mark:
            yield "sync-all-not-seen", f"block {core} did not see the report of the next one"


def _row(rank: int, seen: Mapping[str, Any], ranks: int, virtual: bool) -> Found:
    yield from _no_windows(seen)
    if seen["status"] != 0:
        yield "row-not-arrived", f"status {seen['status']}: {seen['text']}"
    if seen["differing"]:
        text = f"{len(seen['differing'])} of 512 bytes differ, the first is number {seen['differing'][0]}"
        yield "row-differs", text


def _timeout(rank: int, seen: Mapping[str, Any], ranks: int, virtual: bool) -> Found:
    yield from _no_windows(seen)
    absent = ranks - 1
    if rank != 0:
        if rank != absent and seen["status"] != 0:
            yield "row-not-arrived", f"status {seen['status']}: {seen['text']}"
        return
    if seen["status"] == 0 and seen["waited_s"] < seen["limit_s"]:
        text = f"rank {absent} sent nothing, the kernel ended well after {seen['waited_s']:g} s"
        yield "absent-rank-not-noticed", text
    if seen["waited_s"] > seen["limit_s"] + LATE_S:
        text = f"limit {seen['limit_s']:g} s, gave up after {seen['waited_s']:g} s: {seen['text']}"
        yield "gives-up-late", text
    named = seen["record"][ERROR_PEER] - 1
    if seen["record"][0] != seen["nonce"]:
        yield (
            "no-record",
            f"no error block in the own window; status {seen['status']}: {seen['text']}",
        )
    if named != absent or f"rank {absent} " not in seen["text"]:
        text = (
            f"rank {absent} was absent; the record names rank {named}, the text is: {seen['text']}"
        )
        yield "record-names-another", text
    if [file["missing_rank"] for file in seen["files"]] != [absent]:
        yield (
            "no-record-file",
            f"{len(seen['files'])} files for the group; the text is: {seen['text']}",
        )


def _no_windows(seen: Mapping[str, Any]) -> Found:
    for key in ("no_communicator", "no_windows"):
        if key in seen:
            yield key.replace("_", "-"), seen[key]


def _mhz(seen: Mapping[str, Any]) -> float:
    """Of core 0's counter against the host's clock, between two launches."""
    first, second = ((seen[name]["reports"][0]) for name in ("first", "second"))
    ticks = _ticks(second) - _ticks(first)
    return 1000 * ticks / (seen["second"]["began_ns"] - seen["first"]["began_ns"])


def _ticks(words: list[int]) -> int:
    return words[BEFORE + TICKS] | words[BEFORE + TICKS + 1] << 32


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + ("" if len(numbers) <= 8 else ", ...")


def _seen_launch(seen: Seen) -> str:
    bad = seen[0]["bad"]
    return f"0 cores: {bad['launched']}, {bad['text']}"


def _seen_cores(seen: Seen) -> str:
    return f"{seen[0]['granted']} blocks, each once; the counter runs at {_mhz(seen[0]):.2f} MHz"


def _seen_row(seen: Seen) -> str:
    return f"{len(seen)} ranks in a ring, windows of {seen[0]['window_bytes'] >> 20} MB by {seen[0]['provider']}"


def _seen_timeout(seen: Seen) -> str:
    return f"after {seen[0]['waited_s']:g} s (limit {seen[0]['limit_s']:g} s): {seen[0]['text']}"


JUDGES = {"launch": _launch, "cores": _cores, "row": _row, "timeout": _timeout}
EVIDENCE = {
    "launch": _seen_launch,
    "cores": _seen_cores,
    "row": _seen_row,
    "timeout": _seen_timeout,
}
