"""Addresses of clusters, and clusters that let anyone in: real HTTP servers on this machine's own addresses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from dpscale.data.types import InputError
from jobs.cluster_access import api_url, check_protected, is_loopback


@pytest.mark.parametrize(("address", "url"), [("head:8265", "http://head:8265"), ("https://ray.example/", "https://ray.example")])
def test_an_address_becomes_a_url(address: str, url: str):
    assert api_url(address) == url


@pytest.mark.parametrize(
    "address", ["auto", "ray://head:10001", "file:///etc/passwd", "http://", "http://ann:planted-pw@head:8265", "http://head/x?token=y"]
)
def test_other_addresses_are_refused_without_repeating_them(address: str):
    if address == "auto":
        assert api_url(address) == "http://auto", "a host's name like any other"
        return
    with pytest.raises(InputError, match="must be that of its dashboard") as raised:
        api_url(address)
    assert "planted-pw" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8265", True),
        ("http://127.0.0.1:8265", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:8265", True),
        ("http://10.0.0.7:8265", False),
        ("http://localhost.example:8265", False),
        ("http://127.0.0.1.example:8265", False),
        ("http://0.0.0.0:8265", False),
    ],
)
def test_loopback_is_told_by_the_address_itself(url: str, local: bool):
    assert is_loopback(url) == local


class _Dashboard(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(params=[200, 401])
def beyond_loopback(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """A dashboard on this machine's address in its network: one without a token (200), one that asks for it (401)."""
    address = _own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    server = HTTPServer((address, 0), type("Dashboard", (_Dashboard,), {"status": request.param}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield request.param, f"http://{address}:{server.server_port}"
    server.shutdown()
    server.server_close()


def _own_address() -> str | None:
    for family, _, _, _, address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET):
        if family == socket.AF_INET and not is_loopback(f"http://{address[0]}"):
            return str(address[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: asks which address would be used
        except OSError:
            return None
        return str(probe.getsockname()[0])


def test_beyond_loopback_a_cluster_must_ask_for_a_token(beyond_loopback: tuple[int, str]):
    status, url = beyond_loopback
    if status == 401:
        check_protected(url, has_token=True)
        return
    with pytest.raises(InputError, match=r"asks for no token: whoever reaches it can run code there.*--allow-unauthenticated"):
        check_protected(url, has_token=True)


def test_beyond_loopback_a_token_must_be_there():
    with pytest.raises(InputError, match=r"no token is configured: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH.*--allow-unauthenticated"):
        check_protected("http://10.255.255.1:8265", has_token=False)


@pytest.mark.parametrize(
    ("url", "is_here"), [("http://127.0.0.1:9", True), ("http://[::1]:9", True), ("http://localhost:9", True), ("http://127.0.0.1.example:9", False)]
)
def test_on_loopback_the_cluster_decides(url: str, is_here: bool):
    """Nobody listens at port 9: an address that is not of this machine is refused before anything is sent."""
    assert is_loopback(url) is is_here
    with nullcontext() if is_here else pytest.raises(InputError, match="no token is configured"):
        check_protected(url, has_token=False)
