"""Which mode of a pull the options of the command ask for."""

from __future__ import annotations

import pytest

from initpuller.pull.options import Mode, choose_mode

EXPECTED = {
    # --rehearse, --until ready, --no-cutover
    (False, False, False): Mode.MOVE,
    (False, False, True): Mode.MOVE_STOPPED,
    (True, False, False): Mode.REHEARSE,
    (True, False, True): Mode.REHEARSE,
    (False, True, False): Mode.PRESEED,
    (False, True, True): Mode.PRESEED_STOPPED,
}


@pytest.mark.parametrize("given", EXPECTED)
def test_mode_of_each_combination_of_options(given: tuple[bool, bool, bool]) -> None:
    """No combination stops Plex, or trusts the user's word that it is stopped, by mistake."""
    rehearse, until_ready, no_cutover = given

    mode = choose_mode(rehearse=rehearse, until_ready=until_ready, no_cutover=no_cutover)

    assert mode is EXPECTED[given]
    assert mode.is_for_cutover is not (no_cutover or rehearse)
    assert mode.is_preseed is until_ready
