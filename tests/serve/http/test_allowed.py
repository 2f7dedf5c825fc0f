"""Registry that requests may name, and options that are there to restrict but empty."""

from __future__ import annotations

import socket

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bertport.runtime.errors import UsageError
from bertport.serve.errors import BadRequest, Forbidden
from bertport.serve.http.allowed import AllowedHosts, split_hosts
from bertport.serve.settings import Limits, Settings
from tests.serve.running import PATIENCE, Running

ASK = {"inputs": "a [MASK]"}


def outcome(allowed, address, *hosts, version="1.1"):
    """None where such a request is let in, or the status that it gets."""
    try:
        AllowedHosts(allowed, address).check([(b"host", host) for host in hosts], version)
    except (BadRequest, Forbidden) as problem:
        return problem.status
    return None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"])
def test_on_loopback_this_machine_is_allowed_and_no_other_name(address):
    own = f"[{address}]:8080" if ":" in address else f"{address}:8080"
    for host in ("localhost", "LocalHost.", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[0:0::1]:80", "localhost:", own):
        assert outcome((), address, host.encode()) is None, host
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil", "128.0.0.1", "[::2]:8080", "0.0.0.1"):
        assert outcome((), address, host.encode()) == 403, host


def test_elsewhere_every_host_is_allowed_unless_some_are_named():
    for address in ("0.0.0.0", "::", "192.0.2.1"):  # noqa: S104 — nothing listens
        assert outcome((), address, b"any.example:8080") is None
        assert outcome(("a.example",), address, b"A.Example.:80") is None
        assert outcome(("a.example",), address, b"b.example") == 403
        assert outcome(("a.example",), address, b"localhost") == 403
    assert outcome(("a.example", "[::2]"), "127.0.0.1", b"[::2]:1") is None
    assert outcome(("a.example",), "127.0.0.1", b"localhost") == 403
    assert outcome(("*",), "127.0.0.1", b"evil.example") is None


@pytest.mark.parametrize("allowed", [(), ("*",)])
@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b"localhost", b"localhost"],
        [b""],
        [b"a b"],
        [b"a,b"],
        [b"http://localhost"],
        [b"localhost/"],
        [b"user@localhost"],
        [b"localhost:80:80"],
        [b"localhost:http"],
        [b"localhost:999999"],
        [b"::1"],
        [b"[::1"],
        [b"[localhost]"],
        [b"[::1%25lo]"],
        [b"localhost..", b"localhost"],
        [b".localhost"],
        [b"\xff"],
        [b"a" * 400],
    ],
)
def test_what_is_no_host_is_refused(allowed, hosts):
    assert outcome(allowed, "127.0.0.1", *hosts) == 400


def test_a_request_of_http_1_0_may_do_without():
    assert outcome((), "127.0.0.1", version="1.0") is None
    assert outcome((), "127.0.0.1", b"evil.example", version="1.0") == 403


@given(st.binary(max_size=300))
def test_any_header_is_a_host_or_refused(value):
    assert outcome((), "127.0.0.1", value) in (None, 400, 403)


@pytest.mark.parametrize("name", ["", " ", "http://a", "a/b", "a:80", "a b", "*.a", "[::1]:80", "[a", "ä"])
def test_an_allowed_host_that_is_none_is_refused(name):
    with pytest.raises(UsageError, match="--allowed-hosts"):
        Settings(allowed_hosts=(name,))


def test_several_allowed_hosts_may_be_given_at_once():
    assert split_hosts(("a b,c", "d")) == ("a", "b", "c", "d")
    assert split_hosts(()) == ()
    assert split_hosts(("",)) == ("",)


@pytest.mark.parametrize("key", ["", " ", "\n", "schlüssel", "a\nb", "a\x00"])
def test_a_key_that_is_none_is_refused(key):
    with pytest.raises(UsageError, match="API key"):
        Settings(api_key=key)


def test_a_key_read_from_a_file_may_end_with_a_line_end():
    assert Settings(api_key="sesame\n").api_key == "sesame"


@pytest.mark.parametrize("wrong", [{"host": ""}, {"host": " "}, {"drain_seconds": float("nan")}, {"drain_seconds": -1}])
def test_settings_that_would_restrict_nothing_are_refused(wrong):
    with pytest.raises(UsageError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
        Settings(**wrong)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        " ",
        "page.example",
        "https://page.example/",
        "https://page.example/app",
        "https://a.b,https://c.d",
        "https://Page.example",
        "https://bücher.example",
        "https://page.example:443",
        "http://page.example:80",
        "https://me@page.example",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(origin):
    with pytest.raises(UsageError, match="--cors-origin"):
        Settings(cors_origins=("https://page.example", origin))


@pytest.mark.parametrize(
    "origin",
    [
        "https://page.example",
        "http://[::1]:3000",
        "https://page.example:80",
        "http://page.example:8080",
        "chrome-extension://abc",
        "safari-web-extension://A1B2",
        "null",
        "*",
    ],
)
def test_an_origin_is_taken_as_browsers_send_it(origin):
    assert Settings(cors_origins=(origin,)).cors_origins == (origin,)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e300])
def test_a_limit_that_is_none_is_refused(value):
    with pytest.raises(UsageError, match="--request-timeout"):
        Limits(request_timeout=value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_items": 3000},
        {"max_payload_bytes": 1 << 29},
        {"max_answer_bytes": 1 << 28},
    ],
)
def test_limits_that_contradict_each_other_are_refused_with_what_to_do(wrong):
    with pytest.raises(UsageError, match=f"--{next(iter(wrong)).replace('_', '-')} is .*lower the one or raise "):
        Limits(**wrong)


@pytest.mark.parametrize("value", ["", " ", "\n"])
@pytest.mark.parametrize("variable", ["API_KEY", "HOST", "ALLOWED_HOSTS", "CORS_ORIGIN", "MEMORY", "REVISION"])
def test_a_restriction_whose_variable_is_empty_ends_the_command(tiny_bundle, variable, value):
    from bertport.serve.cli import serve

    result = CliRunner().invoke(serve, [str(tiny_bundle)], env={f"BERTPORT_{variable}": value})
    assert isinstance(result.exception, UsageError)
    assert f"BERTPORT_{variable} is set and empty" in str(result.exception)


@pytest.mark.parametrize(
    "option", ["--api-key", "--host", "--allowed-hosts", "--cors-origin", "--memory", "--revision"]
)
def test_a_restriction_that_is_given_empty_ends_the_command(tiny_bundle, option):
    from bertport.serve.cli import serve

    result = CliRunner().invoke(serve, [str(tiny_bundle), option, ""])
    assert isinstance(result.exception, UsageError)


def test_a_limit_whose_variable_is_empty_keeps_its_default(tiny_bundle):
    with Running(tiny_bundle, "--variant", "fp32", "--no-warm-up", BERTPORT_MAX_ITEMS="") as server:
        assert server.post("/", {"inputs": ["a [MASK]"] * 257})[0] == 413


def test_the_server_refuses_the_names_of_others(tiny_bundle):
    with Running(
        tiny_bundle,
        "--variant",
        "fp32",
        "--no-warm-up",
        BERTPORT_ALLOWED_HOSTS="a.example, b.example",
        BERTPORT_API_KEY="k",
    ) as server:
        for path in ("/health", "/ready", "/v2/health/live", "/v2/health/ready"):
            assert server.get(path, host="evil.example")[0] == 200
        for path in ("/", "/docs", "/openapi.json", "/page/page.js"):
            assert server.get(path, host="evil.example")[0] == 403
            assert server.get(path, host="b.example")[0] == 200
        status, answer = server.post("/", ASK, host="evil.example")
        assert (status, answer["error_type"]) == (403, "forbidden")  # before the key is asked for
        assert "--allowed-hosts" in answer["error"]
        assert server.post("/", ASK, host="a.example", authorization="Bearer k")[0] == 200
        assert server.post("/", ASK, host="a.example")[0] == 401
        for target, host, status in (
            (b"http://evil.example/docs", b"a.example", b"403"),
            (b"http://a.example/docs", b"evil.example", b"200"),
        ):
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
                connection.sendall(b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (target, host))
                assert connection.recv(65536)[9:12] == status


def test_the_server_refuses_other_names_on_loopback_by_default(server):
    assert server.get("/models")[0] == 200
    assert server.get("/models", host="localhost:80")[0] == 200
    assert server.get("/models", host="evil.example")[0] == 403
