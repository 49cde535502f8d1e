"""All events of the model, each as often as its probability demands."""

from __future__ import annotations

import errno

from hypothesis import strategies as st

from initpuller.pull.options import Mode
from initpuller.volume.decision import OnExisting
from rig.cutover.volume import Request
from rig.cutover.world import LEASE

FATES = (
    *["nothing"] * 14,
    *["time"] * 2,
    "request lost",
    "answer lost",
    "agent killed",
    "agent killed later",
    "agent stopped",
    "agent back",
    "agent's disk full",
    "agent's copy too large",
    "agent's disk free",
    "snapshots gone",
    "puller killed",
    "puller killed later",
    "plex writes",
    "somebody starts plex",
    "somebody starts plex later",
    "somebody restarts plex",
    "plex runs for a while",
    "query unanswered",
    "undone by hand",
    "library moved",
    "volume broken",
    "volume mended",
    "name taken",
    "name freed",
    "state backed up",
    "state restored",
    "package purged",
    "reboot",
)
SECONDS = st.sampled_from([1.0, LEASE / 4, LEASE - 1, LEASE + 1, 10 * LEASE])
UPTIMES = st.sampled_from([5.0, 40.0, 2000.0])
KINDS = st.sampled_from(["unit", "container", "hidden container"])
"""What manages Plex. Of a hidden container the agent sees only the locks on its databases."""
STEPS = st.integers(0, 12)
FAULTS = st.sampled_from([errno.ENOSPC, errno.EIO, errno.EROFS])
"""Errors of a volume that accepts no more data."""
UNANSWERED = st.integers(1, 3)
STOP_SECONDS = 0.0, 0.0, 3.0, 12.0, 50.0
STOPS = st.sampled_from(STOP_SECONDS)
"""Seconds that a stop of Plex takes. The agent waits for 5, and watches for 60."""
REQUESTS = st.builds(Request, st.sampled_from(Mode), st.sampled_from(OnExisting))
