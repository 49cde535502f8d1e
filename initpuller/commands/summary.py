"""The end of ``pull`` on a terminal: what an administrator puts into a ticket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.checks import duration, size
from shared.errors import printable

if TYPE_CHECKING:
    from initpuller.volume.records.receipt import Receipt
    from initpuller.volume.status import Standing

_NEXT = {
    "ready": "run pull without --until: it transfers what has changed by then, and moves",
    "rehearsed": "try the copy; then run pull without --rehearse",
    "done": "start the application on the volume",
}
_UNDO = ". To undo the move, stop it there, and run 'plexodus-agent undo' on the VM"


def summary(standing: Standing, receipt: Receipt | None, seconds: float, down: float | None) -> str:
    """Return a few lines about a pull that has succeeded; none if it has left all as it was.

    Args:
        standing: the state of the volume.
        receipt: that of what was published, if something was.
        seconds: how long this run took.
        down: how long Plex was stopped, in seconds; None if this run did not have it stopped.
    """
    if standing.phase not in _NEXT:
        return ""
    times = (
        f"{duration(seconds)}, in run {standing.runs}" if standing.runs > 1 else duration(seconds)
    )
    if down is not None:
        times += f"; Plex was stopped for {down:.1f} s"
    lines = {
        "state": standing.phase,
        "from": printable(standing.source),
        "to": printable(standing.library),
        "content": f"{standing.entries} entries, {size(standing.content_bytes)}",
        "time": times,
        "snapshot": f"sha256:{standing.snapshot}",
        "next": _NEXT[standing.phase] + (_UNDO if down is not None else ""),
    }
    if receipt is not None:
        lines["left out"] = _left_out(receipt)
        lines["set aside"] = printable(receipt.set_aside or "")
        lines["verified"] = f"{receipt.verified}, list of digests sha256:{receipt.sums_sha256}"
    return "\n".join(f"{name:<9} {text}" for name, text in lines.items() if text)


def _left_out(receipt: Receipt) -> str:
    omitted = receipt.omitted
    if omitted is None or not omitted.excluded + omitted.skipped:
        return "nothing"
    return (
        f"{omitted.excluded} entries by --exclude, {omitted.skipped} without content:"
        " .plexodus/omitted.jsonl.zst lists them"
    )
