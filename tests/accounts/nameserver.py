"""A small DNS server that speaks real packets, over UDP and TCP."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

NOTHING: Final = "nothing"
"""What it answers for a name that is there but has no such records; for one that it does not know, NXDOMAIN."""

Records = list[str] | dns.rcode.Rcode | str | None


@dataclass
class NameServer:
    """Answers what `records` says: by name, either lines as in a zone file, or an rcode, or None: no answer at all.

    Of the lines those of the type that is asked for, and all CNAME records.
    """

    port: int
    records: dict[str, Records] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)  # over what, and for which name
    truncating: bool = False  # over UDP

    def answer(self, packet: bytes, *, over: str) -> bytes | None:
        """The answer to a query."""
        query = dns.message.from_wire(packet)
        name = query.question[0].name.to_text().rstrip(".").lower()
        self.asked.append((over, name))
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        found = self.records.get(name, dns.rcode.NXDOMAIN)
        if found is None:
            return None
        if self.truncating and over == "udp":
            response.flags |= dns.flags.TC
        elif isinstance(found, dns.rcode.Rcode):
            response.set_rcode(found)
        elif found != NOTHING:
            for line in found:
                owner, kind, data = line.split(" ", 2)
                if kind not in ("CNAME", dns.rdatatype.to_text(query.question[0].rdtype)):
                    continue
                response.answer.append(dns.rrset.from_text(f"{owner}.", 60, "IN", kind, data))
        return response.to_wire(max_size=65535)


@contextmanager
def name_server() -> Iterator[NameServer]:
    """One on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        server = NameServer(port)

        def serve_udp() -> None:
            while True:
                packet, where = udp.recvfrom(4096)
                if packet == b"end":
                    return
                if answer := server.answer(packet, over="udp"):
                    udp.sendto(answer, where)

        def serve_tcp() -> None:
            while True:
                client, _ = tcp.accept()
                with client, client.makefile("rb") as stream:
                    head = stream.read(2)
                    if len(head) < 2:
                        return
                    if answer := server.answer(stream.read(struct.unpack("!H", head)[0]), over="tcp"):
                        client.sendall(struct.pack("!H", len(answer)) + answer)

        threads = [threading.Thread(target=serve, daemon=True) for serve in (serve_udp, serve_tcp)]
        for thread in threads:
            thread.start()
        try:
            yield server
        finally:
            udp.sendto(b"end", ("127.0.0.1", port))
            socket.create_connection(("127.0.0.1", port)).close()
            for thread in threads:
                thread.join()
