"""Settings come from the environment, and a bad value is refused by name."""

import os
import subprocess
import sys
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from mailhost import environment as env
from mailhost.lineserver import Endpoint


@pytest.mark.parametrize(
    ("text", "octets"), [("0", 0), ("1048576", 2**20), ("512K", 2**19), ("50M", 50 * 2**20), ("1g", 2**30)]
)
def test_sizes(text: str, octets: int) -> None:
    assert env.size(text) == octets


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5G", "1P", "1 M", "٣", "1" * 20])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="octets"):
        env.size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("90s", 90), ("10m", 600), ("8h", 28800), ("14d", 1209600), ("0.5s", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert env.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "10 m", "-1s", "1w", "1e3s", "forever"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time such as"):
        env.duration(text)


@pytest.mark.parametrize("text", ["36501d", "999999999.9d"])
def test_a_time_that_the_database_cannot_reckon_with_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at most 36500d"):
        env.duration(text)


def test_some_of_several() -> None:
    parse = env.some_of("red", "green", "blue")
    assert parse("green, red red") == {"red", "green"}
    assert parse("none") == frozenset()
    with pytest.raises(ValueError, match="one of: red, green, blue"):
        parse("red none")


def test_an_interval_is_longer_than_nothing() -> None:
    assert env.interval("1s") == timedelta(seconds=1)
    with pytest.raises(ValueError, match="longer"):
        env.interval("0s")


def test_addresses() -> None:
    assert env.address("127.0.0.1:1110") == Endpoint("127.0.0.1", 1110)
    assert env.address("[::1]:995", implicit_tls=True) == Endpoint("::1", 995, implicit_tls=True)
    assert env.address("/run/mailhost/lmtp", or_path=True) == Endpoint(path=Path("/run/mailhost/lmtp"))


@pytest.mark.parametrize("text", ["", "1110", ":1110", "localhost", "host:0", "host:65536", "::1:110", "host:١", "/x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|brackets"):
        env.address(text)


def test_a_socket_path_has_a_limit() -> None:
    with pytest.raises(ValueError, match="107"):
        env.address("/" + "x" * 107, or_path=True)


def test_where_the_web_is() -> None:
    assert env.web_address("https://mail.example.com") == "https://mail.example.com"
    assert env.web_address("http://[::1]:8000") == "http://[::1]:8000"


@pytest.mark.parametrize(
    "text", ["", "mail.example.com", "https://mail.example.com/", "ftp://x", "https://x/me", "//x"]
)
def test_what_is_no_place_of_the_web_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as https"):
        env.web_address(text)


def test_ports() -> None:
    assert (env.port("1"), env.port("65535")) == (1, 65535)
    for text in ("", "0", "65536", "x", "-1", "٣"):
        with pytest.raises(ValueError, match="port from 1"):
            env.port(text)


def test_networks() -> None:
    assert env.networks("10.0.0.0/8, 2001:db8::/32") == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    assert env.networks("") == ()
    with pytest.raises(ValueError, match="networks such as"):
        env.networks("10.0.0.1/8")


def test_name_servers_have_a_port() -> None:
    assert env.name_servers("192.0.2.53, [2001:db8::53]:5353 2001:db8::1 192.0.2.1:54") == (
        ("192.0.2.53", 53),
        ("2001:db8::53", 5353),
        ("2001:db8::1", 53),
        ("192.0.2.1", 54),
    )
    assert env.name_servers("") == ()
    for text in ("dns.example.test", "192.0.2.1:0", "192.0.2.1:x", "/tmp/socket"):
        with pytest.raises(ValueError, match="addresses such as"):
            env.name_servers(text)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILHOST_TRY", " ")
    assert env.read("MAILHOST_TRY", "7", env.positive) == 7


def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILHOST_TRY", "maybe")
    with pytest.raises(ImproperlyConfigured, match=r"MAILHOST_TRY is 'maybe', but it must be one of: on, off\."):
        env.read("MAILHOST_TRY", "on", env.switch)


def test_a_password_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILHOST_TRY", "mysql://root:geheim@localhost")
    with pytest.raises(ImproperlyConfigured, match=r"^MAILHOST_TRY is set, but it must be one of: on, off\.$"):
        env.read("MAILHOST_TRY", "on", env.switch, secret=True)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://localhost/mail"),
        ("DATABASE_URL", "postgresql://localhost"),
        ("REDIS_URL", "localhost"),
        ("REDIS_URL", "redis://localhost:99999999"),
        ("MAILHOST_DATA", "/dev/null/nothing"),
        ("MAILHOST_DEFAULT_DOMAIN", "not a domain"),
        ("MAILHOST_LISTENER_TTL", "0s"),
        ("MAILHOST_HTTP", "8000"),
        ("MAILHOST_POP3", "/tmp/socket"),
        ("MAILHOST_LMTP", "nonsense"),
        ("MAILHOST_WORKERS", "0"),
        ("MAILHOST_THROTTLE", "yes"),
        ("MAILHOST_PLAINTEXT_AUTH", "sometimes"),
        ("MAILHOST_CONTENT_ROLES", "operator member"),
        ("MAILHOST_MAX_MESSAGE", "big"),
        ("MAILHOST_RETENTION", "14"),
        ("MAILHOST_PROXY_NETWORKS", "everywhere"),
        ("MAILHOST_UNVERIFIED_DOMAINS", "bounce"),
        ("MAILHOST_DNS_SERVERS", "dns.example.test"),
        ("MAILHOST_TLS_CERT", "/only/one.pem"),
        ("MAILHOST_LOG_LEVEL", "LOUD"),
    ],
)
def test_each_command_refuses_a_bad_value_in_a_sentence(variable: str, value: str) -> None:
    environment = {name: text for name, text in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        env=environment | {variable: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert variable in done.stderr


def test_exchangers() -> None:
    assert env.exchangers("") == ()
    assert env.exchangers("MX1.example.com, b\u00fccher.example.") == (
        (10, "mx1.example.com"),
        (20, "xn--bcher-kva.example"),
    )
    assert env.exchangers("5:mx1.example.com 5:mx2.example.com") == ((5, "mx1.example.com"), (5, "mx2.example.com"))


@pytest.mark.parametrize("text", ["-1:mx.example.com", "65536:mx.example.com", "x:mx.example.com", "10:", "mx..com"])
def test_what_is_no_exchanger_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name"):
        env.exchangers(text)
