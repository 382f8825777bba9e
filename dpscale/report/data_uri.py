"""Files inside the page: it needs no other."""

from __future__ import annotations

import base64
from pathlib import Path

MIME = {".mp4": "video/mp4", ".png": "image/png", ".svg": "image/svg+xml"}


def data_uri(path: Path) -> str | None:
    """The file's content as a data URI, or None if it is not there."""
    if not path.is_file():
        return None
    return f"data:{MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
