"""Lines and data: nothing is lost, executed twice, late, or out of order."""

import hashlib
import random
import socket
import time

import pytest

from tests.mailhost.lineserver.running import Client, Server


def test_pipelined_lines_are_answered_in_their_order(client: Client) -> None:
    client.send(b"".join(b"say %d\r\n" % number for number in range(500)))
    assert [client.line() for _ in range(500)] == [b"+%d" % number for number in range(500)]


def test_replies_of_pipelined_lines_are_written_together(client: Client) -> None:
    client.send(b"say a\r\nslowly 0.05 b\r\nsay c\r\n" + b"say d\r\n" * 20)
    assert client.socket.recv(4096) == b"+a\r\n+b\r\n+c\r\n" + b"+d\r\n" * 20


def test_a_line_behind_an_unfinished_step_waits_for_it(server: Server, client: Client) -> None:
    before = server.noted().count("finished")
    client.send(b"slowly 0.1 first\r\nsay second\r\n")
    time.sleep(0.05)
    client.send(b"say third\r\n")
    assert client.line() == b"+first"
    assert server.noted().count("finished") == before + 1
    assert [client.line(), client.line()] == [b"+second", b"+third"]


def test_what_was_pipelined_can_be_looked_at_before_its_turn(client: Client) -> None:
    client.send(b"ahead\r\nslowly 0.05 x\r\nahead\r\nsay y\r\nsay")
    expected = [b"+slowly 0.05 x|ahead|say y|say", b"+x", b"+say y|say", b"+y"]
    assert [client.line() for _ in expected] == expected
    assert client.ask(b" z") == b"+z"
    assert client.ask(b"ahead") == b"+"


def test_lines_may_be_cut_at_every_octet(client: Client) -> None:
    dialogue = b"say one\r\ndata 5\r\n\r\n\0\xff.say two\r\nslowly 0.001 three\r\n" + b"x" * 70 + b"\r\nsay four\r\n"
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for octet in dialogue:
        client.send(bytes([octet]))
        time.sleep(0.0005)
    digest = hashlib.sha256(b"\r\n\0\xff.").hexdigest().encode()
    expected = [b"+one", b"+go on", b"+took " + digest, b"+two", b"+three", b"-overlong", b"+four"]
    assert [client.line() for _ in expected] == expected


@pytest.mark.parametrize("cut", range(1, 44))
def test_what_is_answered_does_not_depend_on_the_segments(client: Client, cut: int) -> None:
    dialogue = b"say one\r\ndata 5\r\n\r\n\0\xff.say two\r\nslowly 0 x\r\n"
    client.send(dialogue[:cut])
    time.sleep(0.002)
    client.send(dialogue[cut:])
    digest = hashlib.sha256(b"\r\n\0\xff.").hexdigest().encode()
    expected = [b"+one", b"+go on", b"+took " + digest, b"+two", b"+x"]
    assert [client.line() for _ in expected] == expected


def test_any_octets_are_passed_on_as_they_are(client: Client) -> None:
    odd = b"say \0\x01\n\r\x7f\x80\xff\r "
    assert client.ask(odd) == b"+\0\x01\n\r\x7f\x80\xff\r "


def test_only_crlf_ends_a_line_where_it_is_the_delimiter(client: Client) -> None:
    client.send(b"say a\nsay b\rsay c\n\r")
    time.sleep(0.02)
    client.send(b"\r\n")
    assert client.line() == b"+a\nsay b\rsay c\n\r"


def test_lf_as_delimiter_takes_one_cr_with_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Server(tmp_path_factory.mktemp("lf"), delimiter="\n") as server, server.client() as client:
        client.send(b"say a\nsay b\r\nsay c\r\r\nsay d\r")
        assert [client.line(), client.line()] == [b"+a", b"+b"]
        assert client.line() + b"\r\n" == b"+c\r\r\n"
        client.send(b"\n\n")
        assert [client.line(), client.line()] == [b"+d", b"-what is 0 octets"]


def test_the_longest_line_is_within_the_limit_its_ending_included(client: Client) -> None:
    assert client.ask(b"say " + b"x" * 58) == b"+" + b"x" * 58
    assert client.ask(b"say " + b"x" * 59) == b"-overlong"
    assert client.ask(b"say " + b"x" * 58) == b"+" + b"x" * 58


def test_an_overlong_line_is_answered_once_and_its_rest_never_executed(client: Client) -> None:
    client.send(b"x" * 64)
    assert client.line() == b"-overlong"
    client.send(b"say injected\r")
    time.sleep(0.01)
    client.send(b"say injected\nsay injected\r\nsay after\r\n")
    assert client.line() == b"+after"


def test_a_line_without_end_closes_the_connection(server: Server) -> None:
    before = server.resident()
    with server.client() as client:
        try:
            for _ in range(1000):
                client.send(b"A" * 65536)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            pytest.fail("64 MB in one line were taken")
    assert server.resident() - before < 4 << 20


@pytest.mark.parametrize("pieces", [1, 7, 500])
def test_sixteen_times_the_limit_is_too_much_however_it_comes(client: Client, pieces: int) -> None:
    def send(line: bytes) -> None:
        size = -(-len(line) // pieces)
        for start in range(0, len(line), size):
            client.send(line[start : start + size])
            time.sleep(0.0002)

    send(b"x" * (16 * 64) + b"\r\n")
    assert client.line() == b"-overlong"
    assert client.ask(b"say on") == b"+on"
    send(b"x" * (16 * 64 + 1))
    assert client.rest() == b"-overlong\r\n-bye OVERLONG\r\n"


def test_a_line_without_its_ending_is_not_executed_at_the_end(client: Client) -> None:
    client.send(b"say one\r\nsay two")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.rest() == b"+one\r\n"


@pytest.mark.parametrize("last", [b"", b"quit\r\n", b"quit-later\r\n"])
def test_a_client_that_has_sent_everything_gets_all_replies(client: Client, last: bytes) -> None:
    client.send(b"say one\r\nslowly 0.05 two\r\nstream 20\r\nsay three\r\n" + last)
    client.socket.shutdown(socket.SHUT_WR)
    stream = b"x" * 65536 * 20 + b".\r\n"
    assert client.rest() == b"+one\r\n+two\r\n" + stream + b"+three\r\n" + (b"+bye\r\n" if last else b"")


def test_what_follows_the_last_command_is_dropped(client: Client) -> None:
    client.send(b"say one\r\nquit\r\nsay two\r\n")
    assert client.rest() == b"+one\r\n+bye\r\n"


def test_data_of_any_size_comes_whole_and_lines_go_on_behind_it(client: Client) -> None:
    for size in (1, 255_999, 256_000, 5_000_000):
        octets = random.Random(size).randbytes(size)
        client.send(b"data %d\r\n" % size + octets + b"say on\r\n")
        digest = hashlib.sha256(octets).hexdigest().encode()
        assert [client.line(), client.line(), client.line()] == [b"+go on", b"+took " + digest, b"+on"]


def test_a_fault_in_a_step_ends_this_connection_and_no_other(server: Server, client: Client) -> None:
    for command in (b"fail", b"fail-later"):
        with server.client() as unlucky:
            unlucky.send(b"say one\r\n" + command + b"\r\nsay two\r\n")
            assert unlucky.rest() == b"+one\r\n-bye FAULT\r\n"
    assert client.ask(b"say well") == b"+well"
    assert "ValueError: a fault of the toy" in server.log()


def test_no_farewell_is_said_within_a_reply(client: Client) -> None:
    client.send(b"fail-within\r\n")
    assert client.rest() == b"+part\r\n"


def test_closed_is_called_once_for_every_dialogue_whatever_happened(server: Server) -> None:
    before = server.settled()
    endings = (
        b"quit\r\n",
        b"quit-later\r\n",
        b"",
        b"slowly 0.1 x\r\n",
        b"fail\r\n",
        b"fail-within\r\n",
        b"stream 9\r\n",
    )
    for ending in endings * 3:
        with server.client() as client:
            client.send(ending)
            if ending.startswith(b"quit"):
                client.rest()
    server.settled()
    time.sleep(0.1)
    assert server.noted().count("closed") == before["closed"] + 3 * len(endings)


def test_a_step_is_finished_although_its_client_has_gone(server: Server) -> None:
    before = server.settled()
    with server.client() as client:
        client.send(b"slowly 0.1 x\r\n")
    assert server.settled()["finished"] == before["finished"] + 1
