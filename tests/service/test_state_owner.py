"""Root writes files of the agent as the agent's user, or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agent.host.state_owner import become_owner, write_as_owner

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root acts for another user")
def test_state_folder_of_an_unknown_owner_gets_no_files_of_root(tmp_path: Path) -> None:
    """If the owner cannot be determined, root stops before it writes a file."""
    (tmp_path / "state").symlink_to("state")
    for become in (become_owner, write_as_owner):
        with pytest.raises(OSError, match="symbolic links"):
            become(str(tmp_path / "state"))
