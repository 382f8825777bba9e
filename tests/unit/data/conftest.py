"""Two empty stores, which every test of a store runs against: a folder, and a bucket on an S3 server on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyarrow import fs

BUCKET = "shards"
SECRET = "an/example+of/a/secret"


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    """host:port of moto's S3 server with one bucket."""
    moto = pytest.importorskip("moto.server", reason="tests on S3 need moto: pip install -c constraints.txt -e '.[test]'")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        fs.S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True).create_dir(BUCKET)
        yield f"{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def s3_url(s3_address: str) -> Callable[[str], str]:
    """URL of a path on that server."""
    return lambda path: f"s3://{path}?endpoint_override={s3_address}&scheme=http&region=us-east-1"


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "store")
    return request.getfixturevalue("s3_url")(f"{BUCKET}/{tmp_path.name}")
