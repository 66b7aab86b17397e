"""HTML of messages: what stays, and that nothing stays which acts or asks others."""

import base64
import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstore.mime import sanitising
from mailstore.mime.sanitising import as_text, sanitise

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'


def clean(html: str, **parts: bytes) -> str:
    return sanitise(html, lambda content_id: parts.get(content_id, b""))


class _Seen(HTMLParser):
    """All tags and attributes there are."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


_TAG = re.compile(r'</?[a-z][a-z0-9]*(?: [a-z-]+="[^"<>]*")*>')
"""As nh3 writes each: no value has a < or a " in it. What finds links in that would else find some that are none."""


def check_inert(html: str) -> None:
    """No tag but those that show something, and no attribute that leads anywhere; a < is nowhere else than in tags."""
    assert not re.search("[<>]", _TAG.sub("", html)), html
    for tag, attributes in _Seen(html).found:
        assert tag in sanitising.TAGS, html
        assert attributes.keys() <= sanitising.ATTRIBUTES.get(tag, set()) - {"href"} | {"title", "data-host"}, html
        source = attributes.get("src")
        assert source is None or re.match(r"data:image/(?:png|gif|jpeg|webp);base64,[A-Za-z0-9+/=]+\Z", source), html


def test_what_people_write_stays() -> None:
    html = '<h1>Chào</h1><p align="center">a <b>bold</b> &amp; <i>word</i></p><table><tbody><tr><td colspan="2">1</td>'
    assert clean(html) == f"{html}</tr></tbody></table>"


def test_a_link_leads_nowhere_and_says_where_it_would() -> None:
    assert clean('<a href="https://Example.com/x?a=1&b=2" title="t" target=_top onclick=alert(1)>go</a>') == (
        '<a title="https://Example.com/x?a=1&amp;b=2" data-host="example.com">go</a>'
    )
    assert clean('<a href="mailto:an@acme.test">an</a>') == '<a title="mailto:an@acme.test">an</a>'
    assert 'data-host="evil.test"' in clean('<a href="https://bank.test@evil.test/">bank.test</a>')
    assert 'data-host="xn--pypal-4ve.com"' in clean('<a href="https://pаypal.com">paypal.com</a>')
    assert clean('<a href="https://[x">broken</a>') == "<a>broken</a>"
    for bad in ("javascript:alert(1)", " java\tscript:alert(1)", "data:text/html,x", "cid:x", "//evil.test", "/x", "#x",
                "vbscript:x", "file:///etc/passwd", "ftp://x/"):  # fmt: skip
        assert clean(f'<a href="{bad}">x</a>') == "<a>x</a>", bad


def test_pictures_are_those_that_came_along() -> None:
    data = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert clean('<img src="cid:logo" alt="Logo" width=10>', logo=PNG) == f'<img src="{data}" alt="Logo" width="10">'
    assert clean(f'<img src="{data}">') == f'<img src="{data}">'
    assert clean(f'<img src="DATA:text/html;x=y;BASE64,{data.partition(",")[2]}">') == f'<img src="{data}">'
    for bad in ("http://x/y.png", "//x/y.png", "y.png", "cid:none", "data:image/png;base64,AAAA", "data:image/png,x",
                "data:image/svg+xml;base64," + base64.b64encode(SVG).decode(), "data:", "cid:svg", "x:y",
                "data:image/png;base64,A"):  # fmt: skip
        assert clean(f'<img src="{bad}" alt="x">', svg=SVG) == '<img alt="x">', bad


def test_there_is_an_end_to_pictures() -> None:
    large = PNG + b"x" * (sanitising.PICTURE - len(PNG))
    assert clean('<img src="cid:p">', p=large + b"x") == "<img>"
    assert clean('<img src="cid:p">' * 100, p=large).count("src=") == sanitising.PICTURES // sanitising.PICTURE


@pytest.mark.parametrize(
    "html",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '<svg onload="alert(1)"><a href="javascript:alert(1)">x</a><style>@import "//evil.test"</style></svg>',
        '<style>@import "https://evil.test"; body{background:url(https://evil.test)}</style>',
        '<p style="background:url(https://evil.test)" class="x" id="y" name="z">x</p>',
        '<meta http-equiv="refresh" content="0;url=https://evil.test"><base href="https://evil.test/">',
        '<link rel="stylesheet" href="https://evil.test"><form action="https://evil.test"><input name=x><button>x',
        '<object data="https://evil.test"></object><embed src="https://evil.test"><applet code=x>',
        '<iframe src="https://evil.test" srcdoc="<script>alert(1)</script>"></iframe><frameset><frame src=x>',
        '<video src="https://evil.test" poster="https://evil.test"></video><audio src="https://evil.test">',
        '<picture><source srcset="https://evil.test"><img srcset="https://evil.test 2x"></picture>',
        '<table background="https://evil.test"><td background="https://evil.test">x',
        '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
        "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
        '<a title="<a href=">x</a><a href="https://x/&quot;><script>alert(1)</script>">y</a>',
        "<!--><img src=x onerror=alert(1)>--><![CDATA[<script>alert(1)</script>]]><?xml x?>",
        "<textarea></textarea><img src=x onerror=alert(1)></textarea><xmp><script>alert(1)</script>",
        "<template><script>alert(1)</script></template><plaintext><script>",
    ],
)  # fmt: skip
def test_what_acts_or_asks_others_goes(html: str) -> None:
    found = clean(html)
    check_inert(found)
    check_inert(clean(found))
    assert not re.search(r"<script|<style|<svg|<form|\son\w+=", found)


LINK = '<a href="https://evil.test">'


@pytest.mark.parametrize(
    ("tag", "attribute"),
    [
        (tag, attribute)
        for tag, attributes in sanitising.ATTRIBUTES.items()
        for attribute in sorted(attributes | {"title", "lang"})
        if tag != "*"
    ],
)
@pytest.mark.parametrize(
    "value",
    [
        LINK,
        f'">{LINK}',
        f"'>{LINK}",
        f"`>{LINK}",
        f"--><!-->{LINK}",
        f"]]>{LINK}",
        f"</title></style></script></textarea></noscript>{LINK}",
        f"<svg><style>{LINK}",
        f"<math><mtext><table><mglyph><style><!--{LINK}",
        "<a href=https://evil.test>",
        f"\0\f\n{LINK}",
        "&lt;a href=&quot;https://evil.test&quot;&gt;",
        "&amp;lt;a href=&amp;quot;https://evil.test&amp;quot;&amp;gt;",
        f"https://evil.test/{LINK}",
    ],
)
def test_no_value_of_an_attribute_becomes_a_tag(tag: str, attribute: str, value: str) -> None:
    """Whatever it was written with: quotes of either kind, or entities. Nor does it the second time."""
    entities = html.escape(value)
    for written in (f'"{entities}"', f"'{entities}'", f'"{value.replace(chr(34), "&quot;")}"',
                    f"'{value.replace(chr(39), '&#39;')}'"):  # fmt: skip
        around = ("<table><tbody><tr>", "") if tag in ("td", "th") else ("<table>", "") if tag == "tr" else ("", "")
        found = clean(f"{around[0]}<{tag} {attribute}={written}>x")
        for one in (found, clean(found)):
            check_inert(one)
            tags = [name for name, _ in _Seen(one).found]
            assert tags.count(tag) == 1, one
            assert tags.count("a") == (tag == "a"), one


def test_a_forged_link_stays_a_text() -> None:
    assert clean(f"<img alt='{LINK}'>") == '<img alt="&lt;a href=&quot;https://evil.test&quot;&gt;">'
    assert clean(f"<a href='https://x.test/{LINK}'>y</a>") == (
        '<a title="https://x.test/&lt;a href=&quot;https://evil.test&quot;&gt;" data-host="x.test">y</a>'
    )
    assert clean(html.escape(LINK)) == '&lt;a href="https://evil.test"&gt;'


_TOKENS = st.sampled_from(
    ["<", ">", '"', "'", "=", "/", "<a href=", "https://x", "<img src=", "cid:p", " onerror=", "javascript:", "<!--",
     "-->", "<svg>", "<style>", "</style>", "<math>", "<table>", "<td>", "&quot;", "&lt;", "&#0;", "<title>", "<b>",
     "</a>", "<plaintext>", "\0", "\u202e", "<template>", "<noscript>", ' title="x"', "data:image/png;base64,",
     "<p title="]
)  # fmt: skip


@given(st.lists(_TOKENS | st.text(max_size=4), max_size=30).map("".join))
def test_whatever_somebody_writes_nothing_acts(html: str) -> None:
    check_inert(clean(html, p=PNG))
    assert isinstance(as_text(html), str)


def test_html_as_text() -> None:
    html = "<head><title>t</title><style>x{}</style></head><h1>Chào &amp; bạn</h1><p>one<br>two   three</p>\n<li>a<li>b"
    assert as_text(html) == "Chào & bạn\none\ntwo three\n\na\nb"
    assert as_text("&lt;script&gt;<script>x</script>") == "<script>"
