"""A host, a domain of it, and a name server in which everything of the domain is right."""

from collections.abc import Iterator

import pytest

from accounts.zone.records import Exchanger, Host, Hosted, records
from tests.accounts.nameserver import NameServer, Records, name_server

HOST = Host(
    name="pop.host.example",
    web="mail.host.example",
    exchangers=(Exchanger(10, "mx1.host.example"), Exchanger(20, "mx2.host.example")),
    pop3s_port=995,
    pop3_port=110,
    smtp=("smtp.host.example", 465),
    spf="include:_spf.host.example",
)
HOSTED = Hosted(
    name="acme.test", alias_of="", ownership=("_mailhost.acme.test", "mailhost-verification=1f"), is_trusted=False
)


@pytest.fixture
def server() -> Iterator[NameServer]:
    with name_server() as made:
        made.records = all_right(HOSTED, HOST)
        yield made


def all_right(hosted: Hosted, host: Host) -> dict[str, Records]:
    """What a name server answers for a domain whose admin has published everything as it was shown."""
    found: dict[str, list[str]] = {}
    for record in records(hosted, host):
        for value in record.values:
            data = f'"{value}"' if record.kind == "TXT" else value
            found.setdefault(record.name, []).append(f"{record.name} {record.kind} {data}")
    found[f"mta-sts.{hosted.name}"] = [f"mta-sts.{hosted.name} A 192.0.2.80"]
    found[host.web] = [f"{host.web} A 192.0.2.25", f"{host.web} AAAA 2001:db8::25"]
    return dict(found)
