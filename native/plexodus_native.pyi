# What Rust offers to Python. Each function returns None for what only Python can do.

__version__: str

def sums(lines: bytes, digests: bytes) -> bytes | None: ...
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
) -> tuple[bytes, bytes, list[tuple[int, bytes]], tuple[int, int] | None] | None: ...
