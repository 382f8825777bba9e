"""One store in a folder and one on an S3 server on loopback: what is fetched is what was published, whoever dies or interferes."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from dpscale.data.checkpoint import MARKER
from dpscale.data.remote import ShardStore, open_shard
from dpscale.data.shard_checks import check_shard
from dpscale.data.shards import FILE_NAME, ShardError, ShardReader, write_clip
from dpscale.data.types import InputError
from tests.small_performer import small_clip, small_model

NAME = "performer=ann/clip=main"
_ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _shard(tmp_path_factory.mktemp("run") / "shard", "one")


def _shard(folder: Path, key: str) -> Path:
    clip = small_clip("ann", small_model())
    pose = replace(clip.pose, iuv=np.maximum(clip.pose.iuv, 1))
    write_clip(folder, replace(clip, pose=pose, provenance={"key": key}))
    return folder


def _bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _stored(url: str, name: str) -> tuple[fs.FileSystem, str]:
    filesystem, path = fs.FileSystem.from_uri(url)
    return filesystem, f"{path}/{name}"


def _read(url: str, name: str) -> bytes:
    filesystem, path = _stored(url, name)
    with filesystem.open_input_stream(path) as file:
        return file.read()


def _overwrite(url: str, name: str, content: bytes) -> None:
    filesystem, path = _stored(url, name)
    with filesystem.open_output_stream(path) as file:
        file.write(content)


def test_what_was_published_is_fetched_to_the_bit(url: str, shard: Path, tmp_path: Path):
    store = ShardStore(url)
    store.check()
    assert store.keys() == {}
    assert not store.fetch(NAME, tmp_path / "other", "one")
    assert store.publish(shard, NAME)
    assert store.keys() == {NAME: "one"}
    assert ShardStore(url).fetch(NAME, tmp_path / "other", "one")
    assert _bytes(tmp_path / "other") == _bytes(shard)


def test_a_shard_that_is_there_is_left_alone(url: str, shard: Path):
    store = ShardStore(url)
    store.publish(shard, NAME)
    filesystem, path = _stored(url, f"{NAME}/{FILE_NAME}")
    before = filesystem.get_file_info(path).mtime
    assert not store.publish(shard, NAME)
    assert filesystem.get_file_info(path).mtime == before


def test_another_key_is_another_shard(url: str, shard: Path, tmp_path: Path):
    store = ShardStore(url)
    store.publish(shard, NAME)
    assert not store.fetch(NAME, tmp_path / "copy", "two")
    assert not (tmp_path / "copy").exists()
    assert store.publish(_shard(tmp_path / "new", "two"), NAME)
    assert store.keys() == {NAME: "two"}
    assert not store.fetch(NAME, tmp_path / "copy", "one")
    assert store.fetch(NAME, tmp_path / "copy", "two")


def test_plain_pyarrow_reads_the_store(url: str, shard: Path):
    ShardStore(url).publish(shard, NAME)
    filesystem, path = _stored(url, "")
    table = pq.read_table(path.rstrip("/"), filesystem=filesystem)
    assert {str(value) for value in table["performer"].to_pylist()} == {"ann"}


def test_unfinished_and_damaged_folders_are_not_published(url: str, tmp_path: Path):
    store, folder = ShardStore(url), _shard(tmp_path / "shard", "one")
    data = (folder / FILE_NAME).read_bytes()
    (folder / FILE_NAME).write_bytes(data[:-9] + b"x" + data[-8:])
    with pytest.raises(ShardError, match="not those that were written"):
        store.publish(folder, NAME)
    (folder / MARKER).unlink()
    with pytest.raises(ShardError, match="holds no finished shard"):
        store.publish(folder, NAME)
    assert store.keys() == {}


_KILLED = """
import os, signal, sys
from pathlib import Path
from dpscale.data import places, remote
places.Place.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
remote.ShardStore(sys.argv[1]).publish(Path(sys.argv[2]), sys.argv[3])
"""


def test_a_publisher_killed_before_the_marker_leaves_nothing_that_counts(url: str, shard: Path, tmp_path: Path):
    store = ShardStore(url)
    store.publish(_shard(tmp_path / "old", "old"), NAME)
    killed = subprocess.run([sys.executable, "-c", _KILLED, url, str(shard), NAME], cwd=_ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert _read(url, f"{NAME}/{FILE_NAME}") == (shard / FILE_NAME).read_bytes()
    assert store.keys() == {}
    assert not store.fetch(NAME, tmp_path / "copy", "old")
    assert not store.fetch(NAME, tmp_path / "copy", "one")
    assert store.publish(shard, NAME)
    assert store.fetch(NAME, tmp_path / "copy", "one")


@pytest.mark.parametrize("content", [b"", b'{"key": "one", "sch', b"\xff\xff", b"1"])
def test_half_a_marker_is_none(url: str, shard: Path, tmp_path: Path, content: bytes):
    store = ShardStore(url)
    store.publish(shard, NAME)
    _overwrite(url, f"{NAME}/{MARKER}", content)
    assert store.keys() == {}
    assert not store.fetch(NAME, tmp_path / "copy", "one")
    assert store.publish(shard, NAME)


@pytest.mark.parametrize("lost", [False, True])
def test_damaged_data_is_withdrawn_and_can_be_repaired(url: str, shard: Path, tmp_path: Path, lost: bool):
    store = ShardStore(url)
    store.publish(shard, NAME)
    data = bytearray((shard / FILE_NAME).read_bytes())
    data[len(data) // 2] ^= 1
    _overwrite(url, f"{NAME}/{FILE_NAME}", bytes(data))
    if lost:
        filesystem, path = _stored(url, f"{NAME}/{FILE_NAME}")
        filesystem.delete_file(path)
    assert not store.fetch(NAME, tmp_path / "run" / "copy", "one")
    assert list((tmp_path / "run").iterdir()) == []
    assert store.keys() == {}
    assert store.publish(shard, NAME)
    assert store.fetch(NAME, tmp_path / "run" / "copy", "one")


def test_publishers_at_once_never_give_a_mixture(url: str, shard: Path, tmp_path: Path):
    shards = {"one": shard, "two": _shard(tmp_path / "two", "two")}

    def work(worker: int) -> list[Path]:
        store, fetched = ShardStore(url), []
        for n in range(6):
            key, folder = ("one", "two")[(worker + n) % 2], tmp_path / f"fetched-{worker}-{n}"
            store.publish(shards[key], NAME)
            if store.fetch(NAME, folder, key):
                fetched.append(folder)
        return fetched

    with ThreadPoolExecutor(3) as pool:
        fetched = [folder for folders in pool.map(work, range(3)) for folder in folders]
    assert all(check_shard(folder).problems == () for folder in fetched)
    store = ShardStore(url)
    store.remove(NAME)
    assert store.publish(shard, NAME)
    assert store.fetch(NAME, tmp_path / "last", "one")


def test_a_removed_shard_is_gone(url: str, shard: Path, tmp_path: Path):
    store, other = ShardStore(url), "performer=ann/clip=walk"
    store.publish(shard, NAME)
    store.publish(shard, other)
    store.remove(NAME)
    store.remove(NAME)
    assert store.keys() == {other: "one"}
    assert not store.fetch(NAME, tmp_path / "copy", "one")


@pytest.mark.parametrize(
    "name", ["performer=../clip=main", "performer=ann/clip=..", f"/{NAME}", f"{NAME}/../x", "performer=ann", "", "performer=/clip="]
)
def test_names_do_not_escape(name: str, shard: Path, tmp_path: Path):
    store = ShardStore(str(tmp_path / "store"))
    for use in (lambda: store.publish(shard, name), lambda: store.fetch(name, tmp_path / "copy", "one"), lambda: store.remove(name)):
        with pytest.raises(ValueError, match="name"):
            use()
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------- reading in place


def test_a_stored_shard_reads_as_a_local_one(url: str, shard: Path):
    ShardStore(url).publish(shard, NAME)
    there, here = ShardStore(url).open(NAME), ShardReader(shard)
    assert (len(there), there.fps) == (len(here), here.fps)
    frames = np.array([7, 0, 3])
    np.testing.assert_array_equal(there.column("iuv", frames), here.column("iuv", frames))
    np.testing.assert_array_equal(there.clip().latents, here.clip().latents)


def test_only_the_frames_asked_for_are_read(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dpscale.data.shards._ROW_GROUP_BYTES", 10_000)
    folder = _shard(tmp_path / "shard", "one")
    ShardStore(url).publish(folder, NAME)
    groups = pq.ParquetFile(folder / FILE_NAME).metadata
    last = groups.row_group(groups.num_row_groups - 1).column(0).data_page_offset
    data = bytearray((folder / FILE_NAME).read_bytes())
    data[last : last + 2000] = bytes(2000)
    _overwrite(url, f"{NAME}/{FILE_NAME}", bytes(data))
    reader = ShardStore(url).open(NAME)
    np.testing.assert_array_equal(reader.column("iuv", np.array([0])), ShardReader(folder).column("iuv", np.array([0])))
    with pytest.raises(OSError, match=r".+"):
        reader.column("frame", np.array([len(reader) - 1]))


def test_a_shard_opens_at_its_own_url_once_it_is_finished(url: str, shard: Path, tmp_path: Path):
    base, _, query = url.partition("?")
    own = f"{base}/{NAME}" + (f"?{query}" if query else "")
    with pytest.raises(ShardError, match="holds no finished shard"):
        open_shard(own)
    ShardStore(url).publish(shard, NAME)
    assert len(open_shard(own)) == len(ShardReader(shard))


# ---------------------------------------------------------------------------------- stores that cannot be used


def test_a_check_leaves_nothing_behind(url: str):
    ShardStore(url).check()
    filesystem, path = fs.FileSystem.from_uri(url)
    found = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    assert [info for info in found if info.is_file] == []


def test_a_missing_bucket_is_named(s3_url: Callable[[str], str]):
    with pytest.raises(InputError, match=r"s3://nobody/x.*no such bucket: create it"):
        ShardStore(s3_url("nobody/x")).check()


def test_an_endpoint_that_does_not_answer_is_named():
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1&.*does not answer: correct endpoint_override"):
        ShardStore("s3://bucket/x?endpoint_override=127.0.0.1:1&scheme=http").check()


def test_refused_credentials_are_not_repeated(s3_address: str, s3_url: Callable[[str], str]):
    def check_from_now_on(num_free_actions: bytes) -> None:
        connection = http.client.HTTPConnection(s3_address)
        connection.request("POST", "/moto-api/reset-auth", num_free_actions)
        assert connection.getresponse().status == 200

    check_from_now_on(b"0")
    try:
        with pytest.raises(InputError, match="access is refused: set credentials") as refused:
            ShardStore(s3_url("shards/x")).check()
    finally:
        check_from_now_on(b"inf")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in "".join(traceback.format_exception(refused.value))


def test_a_file_is_no_store(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="correct its URL"):
        ShardStore(str(tmp_path / "file")).check()


def test_another_process_gets_the_url_only(url: str):
    assert ShardStore(url).__reduce__() == (ShardStore, (url,))
