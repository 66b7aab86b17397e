"""Telling mail programs how to fetch mail from an address: Thunderbird's autoconfig, Outlook's autodiscover (POX).

The answer is the same for every address, so it tells nothing about whether one exists. It is given under whatever name
the host is asked by, since `autoconfig.` and `autodiscover.` of every hosted domain lead here.
"""

import re
from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string

from accounts import addresses, mail_programs

MOST: Final = 8 * 1024
"""Octets of a request that are looked at."""

# No XML is parsed: there is one value to be found, and none of XML's traps to fall into.
_ADDRESS = re.compile(rb"<(?:\w{1,20}:)?EMailAddress>\s{0,20}([^<>&\s]{3,320})\s{0,20}</")


class Autoconfig:
    """Middleware that answers mail programs. It comes before anything that judges the host's name."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        answer = _ANSWERS.get(request.path_info.lower())
        return self._get_response(request) if answer is None else answer(request)


def thunderbird(request: HttpRequest) -> HttpResponse:
    """The configuration for a mail program that asks as Thunderbird does."""
    if request.method not in ("GET", "HEAD"):
        return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
    address = _address(request.GET.get("emailaddress", ""))
    servers = mail_programs.servers()
    # Asked without an address, Thunderbird puts it in itself.
    context = {"servers": servers, "domain": addresses.split(address)[1] if address else servers.host}
    return _xml("owner/autoconfig.xml", context)


def outlook(request: HttpRequest) -> HttpResponse:
    """The configuration for a mail program that asks as Outlook does ([MS-OXDSCLI] section 2.2)."""
    if request.method != "POST":
        return HttpResponse(status=405, headers={"Allow": "POST"})
    found = _ADDRESS.search(request.read(MOST))
    address = _address(found[1].decode(errors="replace")) if found else ""
    return _xml("owner/autodiscover.xml", {"servers": mail_programs.servers(), "address": address})


def _address(text: str) -> str:
    try:
        return addresses.address(text)
    except addresses.BadAddress:
        return ""


def _xml(template: str, context: dict[str, object]) -> HttpResponse:
    return HttpResponse(render_to_string(template, context), content_type="application/xml; charset=utf-8")


_ANSWERS: Final = {
    "/.well-known/autoconfig/mail/config-v1.1.xml": thunderbird,
    "/mail/config-v1.1.xml": thunderbird,
    "/autodiscover/autodiscover.xml": outlook,
}
