"""HTML of messages, with nothing left in it that acts, or that asks others for anything."""

import base64
import binascii
import html
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import nh3

PICTURE: Final = 2 * 1024 * 1024
"""Octets of a picture that is shown."""

PICTURES: Final = 6 * 1024 * 1024
"""Octets of all pictures of a message that are shown."""

TAGS: Final = {
    "a", "abbr", "address", "article", "b", "bdi", "big", "blockquote", "br", "caption", "center", "cite", "code",
    "col", "colgroup", "dd", "del", "details", "dfn", "div", "dl", "dt", "em", "figcaption", "figure", "font",
    "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "i", "img", "ins", "kbd", "li", "main", "mark",
    "ol", "p", "pre", "q", "s", "samp", "section", "small", "span", "strike", "strong", "sub", "summary", "sup",
    "table", "tbody", "td", "tfoot", "th", "thead", "time", "tr", "tt", "u", "ul", "var", "wbr",
}  # fmt: skip
_CELL: Final = frozenset({"align", "bgcolor", "colspan", "height", "rowspan", "valign", "width"})
ATTRIBUTES: Final[dict[str, set[str]]] = {
    "*": set(),  # else title and lang
    "a": {"href"},
    "img": {"alt", "height", "src", "width"},
    "ol": {"start", "type"},
    "font": {"color", "size"},
    "table": {"align", "bgcolor", "border", "cellpadding", "cellspacing", "width"},
    "tr": {"align", "bgcolor", "valign"},
    "td": set(_CELL),
    "th": set(_CELL),
    **{name: {"align", "dir"} for name in ("div", "p", "h1", "h2", "h3", "h4", "h5", "h6")},
    **{name: {"dir"} for name in ("blockquote", "li", "span", "ul")},
}
_WITHOUT_WHAT_IS_IN_THEM: Final = {
    "script", "style", "title", "template", "noscript", "iframe", "object", "svg", "math", "textarea", "select",
}  # fmt: skip

Find = Callable[[str], bytes]
"""The octets of the part that has a Content-ID; none if there is no such part."""


def sanitise(text: str, find: Find) -> str:
    """What can be shown of a message's HTML.

    Its pictures are those that the message brought along, as `data:` URLs. Its links have no `href` any more, which
    says where they lead as `title`, and as `data-host` at whose server. It has no styles.
    """
    shown = _Pictures(find)

    def kept(tag: str, attribute: str, value: str) -> str | None:
        match tag, attribute:
            case "img", "src":
                return shown.url(value.strip())
            case "a", "href":
                return value if re.match(r"(?:https?|mailto):", value, re.IGNORECASE) else None
        return value

    clean = nh3.clean(
        text,
        tags=TAGS,
        attributes=ATTRIBUTES,
        clean_content_tags=_WITHOUT_WHAT_IS_IN_THEM,
        attribute_filter=kept,
        url_schemes={"http", "https", "mailto", "cid", "data"},
        link_rel=None,
    )
    # In what nh3 writes, no text has a < and no value a ": this is always a tag, which has no other attribute.
    return re.sub(r'<a href="([^"]*)">', _inert, clean)


def as_text(text: str) -> str:
    """The words of HTML, for who reads text."""
    lines = re.sub(r"(?i)(<br\b|<hr\b|<li\b|</(?:p|div|tr|h[1-6]|table|blockquote|pre)\b)", r"&#10;\1", text)
    bare = nh3.clean(lines, tags=set(), clean_content_tags=_WITHOUT_WHAT_IS_IN_THEM)
    words = "\n".join(" ".join(line.split()) for line in html.unescape(bare).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", words).strip()


class _Pictures:
    def __init__(self, find: Find) -> None:
        self._find = find
        self._left = PICTURES

    def url(self, url: str) -> str | None:
        """The picture as a URL that holds it; None if it is somebody else's, too large, or none."""
        scheme, _, rest = url.partition(":")
        match scheme.lower():
            case "cid":
                octets = self._find(rest)
            case "data":
                octets = _octets_of(rest)
            case _:
                return None
        kind = _kind(octets)
        if kind is None or len(octets) > min(PICTURE, self._left):
            return None
        self._left -= len(octets)
        return f"data:{kind};base64,{base64.b64encode(octets).decode()}"


def _octets_of(data: str) -> bytes:
    told, _, text = data.partition(",")
    if not told.lower().endswith(";base64"):
        return b""
    try:
        return binascii.a2b_base64(text.encode("ascii", "ignore"))
    except binascii.Error:
        return b""


def _kind(octets: bytes) -> str | None:
    """What kind of picture it is: one of those that are nothing but pictures."""
    for kind, pattern in _KINDS.items():
        if re.match(pattern, octets, re.DOTALL):
            return kind
    return None


_KINDS: Final = {
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/gif": rb"GIF8[79]a",
    "image/jpeg": rb"\xff\xd8\xff",
    "image/webp": rb"RIFF.{4}WEBP",
}


def _inert(link: re.Match[str]) -> str:
    where = html.unescape(link[1])
    try:
        host = urlsplit(where).hostname or ""
        host = host.encode("idna").decode() if len(host) <= 253 else ""
    except ValueError:
        host = ""
    at = f' data-host="{html.escape(host)}"' if host else ""
    return f'<a title="{html.escape(where)}"{at}>'
