"""Mail programs ask how to fetch: answered for every address alike, under every name, from bounded input."""

from typing import Any
from xml.etree import ElementTree

import pytest
from django.test import Client

from tests.fixtures import Customer

PATHS = ("/.well-known/autoconfig/mail/config-v1.1.xml", "/mail/config-v1.1.xml")
ASKED = (
    '<?xml version="1.0"?><Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/'
    'requestschema/2006"><Request><EMailAddress>{}</EMailAddress></Request></Autodiscover>'
)


@pytest.fixture(autouse=True)
def public(settings: Any) -> None:
    settings.MAILHOST_PUBLIC_NAME, settings.MAILHOST_PUBLIC_POP3S = "pop.host.example", 995
    settings.MAILHOST_PUBLIC_POP3 = 110


@pytest.mark.parametrize("path", PATHS)
def test_thunderbird_is_told(path: str, acme: Customer) -> None:
    response = Client().get(path, {"emailaddress": "an@acme.test"}, headers={"host": "autoconfig.acme.test"})
    root = ElementTree.fromstring(response.content)
    assert response["Content-Type"].startswith("application/xml")
    assert root.findtext("emailProvider/domain") == "acme.test"
    servers = root.findall("emailProvider/incomingServer")
    assert [(s.get("type"), s.findtext("port"), s.findtext("socketType")) for s in servers] == [
        ("pop3", "995", "SSL"),
        ("pop3", "110", "STARTTLS"),
    ]
    assert servers[0].findtext("hostname") == "pop.host.example"
    assert servers[0].findtext("username") == "%EMAILADDRESS%"


def test_outlook_is_told(acme: Customer) -> None:
    response = Client().post(
        "/Autodiscover/Autodiscover.xml",
        ASKED.format("an@acme.test"),
        content_type="text/xml",
        headers={"host": "autodiscover.acme.test"},
    )
    body = response.content.decode()
    ElementTree.fromstring(body)
    for line in ("<Type>POP3</Type>", "<Server>pop.host.example</Server>", "<Port>995</Port>", "<SSL>on</SSL>"):
        assert line in body
    assert "<LoginName>an@acme.test</LoginName>" in body


def test_whether_an_address_exists_is_not_told(acme: Customer) -> None:
    def told(address: str) -> list[str]:
        asked = ASKED.format(address)
        answers = [Client().get(path, {"emailaddress": address}).content for path in PATHS]
        answers.append(Client().post("/autodiscover/autodiscover.xml", asked, content_type="text/xml").content)
        return [answer.decode().replace(address, "it") for answer in answers]

    assert told("an@acme.test") == told("nobody@acme.test")


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "no xml",
        ASKED.format("no address"),
        ASKED.format("x@y<script>"),
        ASKED.format("&xxe;"),
        '<!DOCTYPE x [<!ENTITY xxe SYSTEM "file:///etc/passwd">]>' + ASKED.format("&xxe;"),
        " " * 20_000 + ASKED.format("an@acme.test"),
        "<EMailAddress>" * 2_000,
    ],
)
def test_what_makes_no_sense_is_refused_in_outlooks_words(asked: str) -> None:
    response = Client().post("/autodiscover/autodiscover.xml", asked, content_type="text/xml")
    body = response.content.decode()
    assert response.status_code == 200
    assert "<ErrorCode>600</ErrorCode>" in body
    assert "root:" not in body
    ElementTree.fromstring(body)


def test_what_stands_in_the_address_does_not_get_into_the_xml() -> None:
    response = Client().get(PATHS[0], {"emailaddress": "x@</domain><script>"})
    assert ElementTree.fromstring(response.content).findtext("emailProvider/domain") == "pop.host.example"


def test_other_methods_are_refused() -> None:
    assert Client().get("/autodiscover/autodiscover.xml").status_code == 405
    assert Client().post(PATHS[0]).status_code == 405
