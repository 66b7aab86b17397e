"""A connection can be ended from outside its dialogue."""

from tests.mailhost.lineserver.running import Client, Server, eventually


def test_an_idle_connection_is_told_and_closed(server: Server, client: Client) -> None:
    assert client.ask(b"end 0.05 enough") == b"+in a moment"
    assert client.rest() == b"-enough\r\n"
    assert server.settled()["opened"]


def test_within_tls_too(server: Server) -> None:
    with server.client(1) as client:
        assert client.ask(b"end 0.05 enough") == b"+in a moment"
        assert client.rest() == b"-enough\r\n"


def test_the_last_words_come_in_place_of_the_reply_being_made(server: Server, client: Client) -> None:
    """What was answered before is sent; the step finishes before the dialogue is closed."""
    before = server.noted().count("finished")
    client.send(b"end 0.05 enough\r\nsay one\r\nslowly 1 two\r\nsay three\r\n")
    assert client.rest() == b"+in a moment\r\n+one\r\n-enough\r\n"
    assert server.noted().count("finished") == before
    assert server.settled()
    assert server.noted().count("finished") == before + 1


def test_a_reply_that_has_begun_is_cut_off(server: Server, client: Client) -> None:
    """Also where the client reads nothing."""
    resets = server.noted().count("reset")
    client.send(b"end 0.2 enough\r\nstream 1000\r\n")
    eventually(lambda: server.noted().count("reset") == resets + 1)
    assert b"enough" not in client.rest()
    assert server.settled()


def test_what_has_ended_is_not_ended_again(server: Server, client: Client) -> None:
    log = server.log()
    client.send(b"end 0.05 one\r\nend 0.05 two\r\nend 0.1 three\r\n")
    assert client.rest() == b"+in a moment\r\n" * 3 + b"-one\r\n"
    assert server.settled()
    with server.client() as another:
        assert another.ask(b"say x") == b"+x"
    assert "Traceback" not in server.log().removeprefix(log)
