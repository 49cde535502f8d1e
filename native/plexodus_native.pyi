# What Rust offers to Python. Each function returns None for what only Python can do.

__version__: str

def sums(lines: bytes, digests: bytes) -> bytes | None: ...
