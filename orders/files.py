"""Files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal; OSError is let through."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
