"""Files and folders at a URL: on s3://, gs://, abfs:// or the local disk, through pyarrow's file systems.

Credentials come from the environment, as these file systems take them, and never from the URL."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from dpscale.data.store_errors import explained
from dpscale.data.types import InputError

_OBJECT_STORES = {"s3", "gcs", "abfs"}
"""pyarrow's names of file systems without folders: nothing has to be made before a file is written."""
_SECRET_OPTION = re.compile(r"key|secret|token|password|^sig$", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """A file or folder of a pyarrow file system. Its methods raise OSError."""

    filesystem: fs.FileSystem
    path: str

    def below(self, name: str) -> Place:
        return Place(self.filesystem, f"{self.path}/{name}")

    def input(self) -> pa.NativeFile:
        return self.filesystem.open_input_stream(self.path, compression=None)

    def output(self) -> pa.NativeFile:
        if self.filesystem.type_name not in _OBJECT_STORES:
            self.filesystem.create_dir(self.path.rpartition("/")[0], recursive=True)
        return self.filesystem.open_output_stream(self.path, compression=None)

    def read(self) -> bytes:
        with self.input() as file:
            return file.read()

    def parquet(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.filesystem.open_input_file(self.path), pre_buffer=True)

    def write(self, content: bytes) -> None:
        with self.output() as file:
            file.write(content)

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path)


def place_at(url: str) -> Place:
    """The folder at a URL that pyarrow's file systems understand, or at a path. Raises InputError, which repeats no secret."""
    if _holds_secret(url):
        raise InputError(
            "the store's URL holds a user, a password or a key: leave it out of the URL, and set it in the environment "
            "(s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; gs: GOOGLE_APPLICATION_CREDENTIALS)"
        )
    try:
        filesystem, path = fs.FileSystem.from_uri(url if "://" in url else str(Path(url).expanduser().resolve()))
    except (ValueError, NotImplementedError, ImportError) as error:
        raise InputError(f"the store {url}: give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or a folder ({error})") from error
    except OSError as error:
        raise InputError(explained(error, url)) from error
    if not path.strip("/"):
        raise InputError(f"the store {url}: names no bucket or folder: give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or a folder")
    return Place(filesystem, path.rstrip("/"))


def _holds_secret(url: str) -> bool:
    """Before anything repeats the URL. A secret may hold '/', so '@' counts anywhere; `gs://anonymous@BUCKET` and Azure's container are none."""
    if "://" not in url or url.startswith("file:"):
        return False
    address, _, query = url.partition("://")[2].partition("?")
    user = address.rpartition("@")[0]
    named = ":" in user or "/" in user or (url.startswith("s3:") and (bool(user) or ":" in address))
    return named or "@" in query or any(_SECRET_OPTION.search(option) for option, _ in parse_qsl(query, keep_blank_values=True))
