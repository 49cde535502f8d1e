"""The names in an open folder, including those that came after it was opened."""

from __future__ import annotations

import os


def folder_names(folder: int) -> list[str]:
    """Return the names in the folder with the descriptor ``folder``, in no order.

    Since Linux 6.5, a descriptor of a Btrfs folder lists what was there when it was opened or last
    rewound (``btrfs_opendir`` and ``btrfs_dir_llseek``), and os.listdir does not rewind before it
    reads.
    """
    os.lseek(folder, 0, os.SEEK_SET)
    return os.listdir(folder)
