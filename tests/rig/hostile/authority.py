"""A CA for tests, made by openssl."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """A CA with its files in a folder; an intermediate one if another CA is ``above`` it."""

    def __init__(self, folder: Path, above: Authority | None = None) -> None:
        folder.mkdir()
        self.folder = folder
        self.certificate = folder / "ca.crt"
        signer = above and ("-CA", str(above.certificate), "-CAkey", str(above.folder / "ca.key"))
        self._openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN=CA {folder.name}",
            "-days", "2", "-keyout", "ca.key", "-out", "ca.crt",
            "-addext", "keyUsage=critical,keyCertSign", *(signer or ()),
        )  # fmt: skip

    def issue(self, name: str, *others: str) -> tuple[Path, Path]:
        """Return paths of a certificate and key for ``name``, and for ``others`` as in openssl."""
        names = ",".join([f"DNS:{name}", *others])
        self._openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout",
            f"{name}.key", "-out", f"{name}.csr", "-addext", f"subjectAltName={names}",
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "1",
            "-copy_extensions", "copy", "-out", f"{name}.crt",
        )  # fmt: skip
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=self.folder)
