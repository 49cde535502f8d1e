"""The disk as a program: ``disk_server.py PLACE IMAGE LOG``.

It serves the file IMAGE at the file PLACE by FUSE, and adds each write and each flush to LOG. The
kernel asks without a cache in between. SIGKILL is the power cut: all requests fail from then on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from enum import IntEnum

from rig.power.write_log import append_flush, append_write

_MOST = 1024 * 1024
"""Bytes of one read or write."""
_HEADER = struct.Struct("<IIQQIIIHH")
_ANSWER = struct.Struct("<IiQ")
_RANGE = struct.Struct("<QQI")
_ATTRIBUTES = struct.Struct("<QII6Q10I")
_OPENED = struct.Struct("<QII")
_WRITTEN = struct.Struct("<II")
_ABOUT_US = struct.Struct("<4I2H2I2H8I")
_ARGUMENTS = 40
"""Bytes before the data of a write."""
_DIRECT_IO = 1
_FLAGS = (1 << 0) | (1 << 5) | (1 << 15) | (1 << 22)
"""Parallel reads, large writes, asynchronous direct I/O, and a number of pages below."""


class _Operation(IntEnum):
    """The operations of <linux/fuse.h> that matter here."""

    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    WRITE = 16
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    INTERRUPT = 36
    BATCH_FORGET = 42


_SILENT = (_Operation.FORGET, _Operation.INTERRUPT, _Operation.BATCH_FORGET)
"""Operations without an answer."""


class _Disk:
    """Answers requests for the one file, which is the root of its filesystem."""

    def __init__(self, image: str, log: str) -> None:
        self._image = os.open(image, os.O_RDWR)
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND)
        self._size = os.fstat(self._image).st_size

    def answer(self, operation: int, body: memoryview) -> bytes | int:
        """Return the answer to a request, or an errno."""
        match operation:
            case _Operation.INIT:
                pages = _MOST // 4096
                return _ABOUT_US.pack(7, 31, 0, _FLAGS, 64, 48, _MOST, 1, pages, 0, *[0] * 8)
            case _Operation.GETATTR:
                return self._attributes()
            case _Operation.OPEN:
                return _OPENED.pack(1, _DIRECT_IO, 0)
            case _Operation.READ:
                _, offset, size = _RANGE.unpack_from(body)
                return os.pread(self._image, size, offset)
            case _Operation.WRITE:
                _, offset, size = _RANGE.unpack_from(body)
                data = body[_ARGUMENTS : _ARGUMENTS + size]
                append_write(self._log, offset, data)
                os.pwrite(self._image, data, offset)
                return _WRITTEN.pack(size, 0)
            case _Operation.FSYNC:
                append_flush(self._log)
                return b""
            case _Operation.RELEASE | _Operation.FLUSH:  # a file is closed
                return b""
            case _:
                return errno.ENOSYS

    def _attributes(self) -> bytes:
        mode, links = 0o100600, 1
        blocks = self._size // 512
        numbers = (1, self._size, blocks, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)
        return _ATTRIBUTES.pack(3600, 0, 0, *numbers)


def main(place: str, image: str, log: str) -> None:
    """Mount the disk, say so, and serve it until this process is killed."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=100600,user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"plexodus-disk", os.fsencode(place), b"fuse", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    sys.stdout.write("mounted\n")
    sys.stdout.flush()
    disk, buffer = _Disk(image, log), bytearray(_MOST + 4096)
    view = memoryview(buffer)
    while True:
        try:
            size = os.readv(device, [buffer])
        except OSError as error:
            if error.errno == errno.ENODEV:  # unmounted
                return
            raise
        _, operation, unique, *_ = _HEADER.unpack_from(buffer)
        if operation in _SILENT:
            continue
        done = disk.answer(operation, view[_HEADER.size : size])
        code, content = (done, b"") if isinstance(done, int) else (0, done)
        os.writev(device, [_ANSWER.pack(_ANSWER.size + len(content), -code, unique), content])


if __name__ == "__main__":
    main(*sys.argv[1:])
