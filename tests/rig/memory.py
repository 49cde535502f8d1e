"""The most memory that processes have had, by the kernel's own record."""

from __future__ import annotations

from pathlib import Path

_UNREADABLE = (FileNotFoundError, ProcessLookupError, PermissionError)


class Peaks:
    """The peak of each process that was seen, by the name under which it was."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], int] = {}

    def see(self, pid: int, name: str = "") -> None:
        """Read the peak of a process, under this name or that of its program.

        A process that has ended meanwhile keeps what was read last.
        """
        process = Path(f"/proc/{pid}")
        try:
            name = name or (process / "exe").readlink().name
            if not name:  # it is ending
                return
            status = (process / "status").read_text()
        except _UNREADABLE:
            return
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self._seen[name, pid] = int(line.split()[1])

    def see_programs(self, folder: Path) -> None:
        """Read the peaks of all processes whose program is in ``folder``, by its name."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                program = (process / "exe").readlink()
            except _UNREADABLE:
                continue
            if program.parent == folder:
                self.see(int(process.name))

    def largest(self) -> dict[str, tuple[int, int]]:
        """Return by name: how many processes there were, and the largest peak in MB."""
        found: dict[str, tuple[int, int]] = {}
        for (name, _), kilobytes in self._seen.items():
            count, most = found.get(name, (0, 0))
            found[name] = (count + 1, max(most, kilobytes * 1024 // 1_000_000))
        return found
