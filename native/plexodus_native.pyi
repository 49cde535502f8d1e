# What Rust offers to Python. Each function returns None for what only Python can do.

__version__: str

def sums(lines: bytes, digests: bytes) -> bytes | None: ...
def pieces(content: bytes) -> list[bytes] | None: ...
def unpack(
    staging: int,
    lines: bytes,
    block: int,
    tar: bytes,
    tag: bytes,
    ownership: tuple[tuple[int, int] | None, bool],
) -> tuple[list[tuple[int, bytes]], list[int]] | None: ...
def pack(
    base: int, place: tuple[bytes, bytes], lines: bytes, frame: tuple[int, int], is_cold: bool
) -> tuple[bytes, bytes, list[tuple[int, bytes]]] | None: ...

class Part:
    joined: int
    runs: list[tuple[int, int, int]]
    entries: int
    files: int
    content_bytes: int
    path_bytes: int
    tar_bytes: int
    most_frames: int

def plan(lines: bytes, packed: int | None) -> Part | None: ...
def check(
    lines: bytes,
    place: tuple[int, bytes, bool],
    root: bytes,
    packed: int | None,
    watch: tuple[int, list[bytes]] | None,
) -> tuple[Part, tuple[int, bytes, bool], list[tuple[int, int]]] | None: ...
def kept(
    older: bytes, newer: bytes, digests: bytes
) -> tuple[int, int, int, list[tuple[int, int, int]]] | None: ...
def walk(
    folder: int, above: bytes, ends: list[tuple[bool, bytes, bytes]], inside: bool
) -> Walk | None: ...
def unchanged(
    older: bytes, newer: bytes, steady_before: int | None
) -> tuple[int, int, bytes] | None: ...

class Walk:
    def batch(self) -> tuple[bytes, tuple[int, bytes, bytes] | None, bool] | None: ...
