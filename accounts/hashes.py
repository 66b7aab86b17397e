"""Password hashes of other servers: taken over as they are, verified, and replaced by ours at the first login."""

import base64
import binascii
import hashlib
import hmac
import re
from typing import Any, ClassVar, Final

import argon2
import bcrypt
from django.contrib.auth.hashers import BasePasswordHasher, make_password
from django.utils.translation import gettext as _
from passlib import hash as crypt

from accounts import passwords
from accounts.passwords import BadPassword

LIMIT: Final = 255
"""Characters of a stored hash."""

_LONGEST_PASSWORD: Final = 4096  # characters; one that is longer matches nothing
_NUMBER: Final = "[1-9][0-9]{0,8}"
_CRYPT64: Final = "[./0-9A-Za-z]"
_BASE64: Final = "[0-9A-Za-z+/]+"
_SALT: Final = "[!-#%-~]+"  # printable, without the $ that ends it


class BadHash(ValueError):
    """The text is no hash that can be taken over; its message says why, and never what the text was."""


def stored(password: str | None, password_hash: str | None) -> str:
    """What to store of a new password, or of the hash of one; with neither, nobody can sign in.

    A password takes a processor some 20 ms, a hash next to nothing. Raises `BadPassword`, and `BadHash`, also for both
    at once.
    """
    if password_hash is not None:
        if password is not None:
            raise BadHash(_("give a password or the hash of one, not both"))
        return parse(password_hash)
    if password is not None:
        passwords.check(password)
    return make_password(password)


def parse(text: str) -> str:
    """What to store of a hash that another server made, in the form of `django.contrib.auth`.

    Takes `{SCHEME}hash` as Dovecot writes it (`{SCHEME.HEX}` and `{SCHEME.B64}`, too), strings of crypt(3) as they
    stand in /etc/shadow, and what Django stores. A password in clear, `{PLAIN}`, is hashed at once.

    Raises `BadHash`, also for a hash that would take too long or too much memory to check at each login.
    """
    if braced := _BRACED.fullmatch(text):
        scheme, encoding = braced["scheme"].upper(), (braced["encoding"] or "").upper()
        if scheme in _CLEAR:
            return _hashed(_unwrapped(braced["hash"], encoding))
        encoded = _from_dovecot(scheme, encoding, braced["hash"])
    elif text.startswith("$"):
        encoded = _from_crypt(text)
    else:
        # What Django calls argon2 was made of whatever was typed; what we do, of its normal form.
        encoded = re.sub(r"\Aargon2\$", f"{Argon2.algorithm}$", text)
    if hasher := _HASHERS.get(encoded.split("$", 1)[0]):
        hasher.check(encoded)
        return encoded
    raise BadHash(_("this is not a password hash of a known kind: write it as {SCHEME}hash"))


class ForeignHasher(BasePasswordHasher):
    """Verifies hashes of one kind that were made elsewhere, and makes none."""

    algorithm: str
    rest: ClassVar[str]
    """What follows the algorithm in the stored form: a regular expression."""

    def __init__(self) -> None:
        self._form: Final = re.compile(re.escape(self.algorithm) + self.rest)

    def check(self, encoded: str) -> None:
        """Raise `BadHash` for what this hasher cannot verify, or should not: it would take too much."""
        form = self._form.fullmatch(encoded)
        if not form or len(encoded) > LIMIT or not self.is_whole(form):
            raise BadHash(_("this is not a whole hash of its kind, %(algorithm)s") % {"algorithm": self.algorithm})
        if not self.is_affordable(form):
            raise BadHash(
                _("checking this hash (%(algorithm)s) would take too much time or memory: set a password")
                % {"algorithm": self.algorithm}
            )

    def verify(self, password: str, encoded: str) -> bool:
        """Whether one of the spellings in which the other server may have got the password matches."""
        form = self._form.fullmatch(encoded)
        if not form or len(password) > _LONGEST_PASSWORD or "\0" in password:
            return False
        try:
            # The octets as the client sends them, which is what other servers hash, and then their normal form.
            spellings = dict.fromkeys((password.encode(), passwords.normal_form(password).encode()))
        except UnicodeEncodeError:
            return False
        return any(self.matches(octets, form) for octets in spellings)

    def is_whole(self, form: re.Match[str]) -> bool:
        """Whether what the expression cannot tell is right, too."""
        return True

    def is_affordable(self, form: re.Match[str]) -> bool:
        """Whether it can be checked within `accounts.authentication.REFUSED_AFTER`."""
        return True

    def matches(self, password: bytes, form: re.Match[str]) -> bool:
        """Whether the hash is this password's."""
        raise NotImplementedError

    def must_update(self, encoded: str) -> bool:
        return True

    def harden_runtime(self, password: str, encoded: str) -> None:
        """Nothing: no two kinds take the same time, so that is done where the answer is given."""

    def safe_summary(self, encoded: str) -> dict[Any, Any]:
        return {"algorithm": self.algorithm}


class _Digest(ForeignHasher):
    """A digest of the password and a salt, followed by the salt (RFC 2307 calls it SSHA); the salt may be empty."""

    rest = rf"\$(?P<octets>{_BASE64}={{0,2}})"
    digest: ClassVar[str]

    def is_whole(self, form: re.Match[str]) -> bool:
        return len(_decoded(form["octets"], "B64")) >= self.size()

    def matches(self, password: bytes, form: re.Match[str]) -> bool:
        octets = base64.b64decode(form["octets"])
        made = hashlib.new(self.digest, password + octets[self.size() :]).digest()
        return hmac.compare_digest(made, octets[: self.size()])

    @classmethod
    def size(cls) -> int:
        """Octets of the digest."""
        return hashlib.new(cls.digest).digest_size


class MD5(_Digest):
    algorithm = "ldap_md5"
    digest = "md5"


class SHA1(_Digest):
    algorithm = "ldap_sha1"
    digest = "sha1"


class SHA256(_Digest):
    algorithm = "ldap_sha256"
    digest = "sha256"


class SHA512(_Digest):
    algorithm = "ldap_sha512"
    digest = "sha512"


class MD5Crypt(ForeignHasher):
    algorithm = "md5_crypt"
    # The last character carries two bits; so below.
    rest = rf"(?P<crypt>\$1\${_CRYPT64}{{0,8}}\${_CRYPT64}{{21}}[./01])"

    def matches(self, password: bytes, form: re.Match[str]) -> bool:
        return bool(crypt.md5_crypt.verify(password, form["crypt"]))


class _SHACrypt(ForeignHasher):
    def is_whole(self, form: re.Match[str]) -> bool:
        return int(form["rounds"] or 5000) >= 1000

    def is_affordable(self, form: re.Match[str]) -> bool:
        return int(form["rounds"] or 5000) <= 1_000_000


class SHA256Crypt(_SHACrypt):
    algorithm = "sha256_crypt"
    rest = rf"(?P<crypt>\$5\$(?:rounds=(?P<rounds>{_NUMBER})\$)?{_CRYPT64}{{0,16}}\${_CRYPT64}{{42}}[./0-9A-D])"

    def matches(self, password: bytes, form: re.Match[str]) -> bool:
        return bool(crypt.sha256_crypt.verify(password, form["crypt"]))


class SHA512Crypt(_SHACrypt):
    algorithm = "sha512_crypt"
    rest = rf"(?P<crypt>\$6\$(?:rounds=(?P<rounds>{_NUMBER})\$)?{_CRYPT64}{{0,16}}\${_CRYPT64}{{85}}[./01])"

    def matches(self, password: bytes, form: re.Match[str]) -> bool:
        return bool(crypt.sha512_crypt.verify(password, form["crypt"]))


class BCrypt(ForeignHasher):
    algorithm = "bcrypt"
    rest = (
        rf"\$(?P<crypt>\$2[aby]\$(?P<cost>0[4-9]|[12][0-9]|3[01])\${_CRYPT64}{{21}}[.Oeu]{_CRYPT64}{{30}}"
        r"[.CGKOSWaeimquy26])"
    )

    def is_affordable(self, form: re.Match[str]) -> bool:
        return int(form["cost"]) <= 13

    def matches(self, password: bytes, form: re.Match[str]) -> bool:
        # bcrypt looks at 72 octets; the library raises for more.
        return bcrypt.checkpw(password[:72], form["crypt"].encode())


class BCryptSHA256(BCrypt):
    algorithm = "bcrypt_sha256"

    def matches(self, password: bytes, form: re.Match[str]) -> bool:
        return super().matches(hashlib.sha256(password).hexdigest().encode(), form)


class PBKDF2SHA256(ForeignHasher):
    algorithm = "pbkdf2_sha256"
    rest = rf"\$(?P<iterations>{_NUMBER})\$(?P<salt>{_SALT})\$(?P<key>{_BASE64}={{0,2}})"
    digest: ClassVar[str] = "sha256"

    def is_whole(self, form: re.Match[str]) -> bool:
        return len(_decoded(form["key"], "B64")) == hashlib.new(self.digest).digest_size

    def is_affordable(self, form: re.Match[str]) -> bool:
        return int(form["iterations"]) <= 2_000_000

    def matches(self, password: bytes, form: re.Match[str]) -> bool:
        key = hashlib.pbkdf2_hmac(self.digest, password, form["salt"].encode(), int(form["iterations"]))
        return hmac.compare_digest(key, base64.b64decode(form["key"]))


class PBKDF2SHA1(PBKDF2SHA256):
    algorithm = "pbkdf2_sha1"
    digest = "sha1"


class Scrypt(ForeignHasher):
    algorithm = "scrypt"
    rest = rf"\$(?P<n>{_NUMBER})\$(?P<salt>{_SALT})\$(?P<r>{_NUMBER})\$(?P<p>{_NUMBER})\$(?P<key>{_BASE64}={{0,2}})"
    most_octets: Final = 64 * 1024 * 1024

    def is_whole(self, form: re.Match[str]) -> bool:
        n = int(form["n"])
        return n > 1 and n & (n - 1) == 0 and len(_decoded(form["key"], "B64")) == 64

    def is_affordable(self, form: re.Match[str]) -> bool:
        octets = 128 * int(form["n"]) * int(form["r"])  # RFC 7914 section 2
        return octets <= self.most_octets and octets * int(form["p"]) <= 4 * self.most_octets

    def matches(self, password: bytes, form: re.Match[str]) -> bool:
        n, r, p = int(form["n"]), int(form["r"]), int(form["p"])
        # What OpenSSL needs besides the table is little, and grows with p.
        maxmem = self.most_octets + 128 * r * (p + 32)
        key = hashlib.scrypt(password, salt=form["salt"].encode(), n=n, r=r, p=p, maxmem=maxmem, dklen=64)
        return hmac.compare_digest(key, base64.b64decode(form["key"]))


class Argon2(ForeignHasher):
    """Argon2i and Argon2id (RFC 9106). By another name than ours, which are made of the password's normal form."""

    algorithm = "foreign_argon2"
    rest = (
        rf"(?P<crypt>\$argon2id?\$(?:v=(?:16|19)\$)?m=(?P<memory>{_NUMBER}),t=(?P<time>{_NUMBER}),p=(?P<lanes>{_NUMBER})"
        rf"\$(?P<salt>{_BASE64})\$(?P<tag>{_BASE64}))"
    )

    def is_whole(self, form: re.Match[str]) -> bool:
        salt, tag = (_unpadded(form[part]) for part in ("salt", "tag"))
        return len(salt) >= 8 and len(tag) >= 16 and int(form["memory"]) >= 8 * int(form["lanes"])

    def is_affordable(self, form: re.Match[str]) -> bool:
        memory = int(form["memory"])  # KiB
        return memory <= 256 * 1024 and memory * int(form["time"]) <= 512 * 1024 and int(form["lanes"]) <= 16

    def matches(self, password: bytes, form: re.Match[str]) -> bool:
        try:
            return argon2.PasswordHasher().verify(form["crypt"], password)
        except argon2.exceptions.VerificationError:
            return False


_BRACED: Final = re.compile(
    r"\{(?P<scheme>[A-Z0-9-]+)(?:\.(?P<encoding>HEX|B64|BASE64))?\}(?P<hash>.*)", re.ASCII | re.DOTALL | re.IGNORECASE
)
_CLEAR: Final = frozenset({"PLAIN", "CLEAR", "CLEARTEXT"})

# Dovecot's schemes: what the digest is, and whether a salt follows it.
_DIGESTS: Final[dict[str, tuple[type[_Digest], bool]]] = {
    "MD5": (MD5, False),
    "PLAIN-MD5": (MD5, False),
    "LDAP-MD5": (MD5, False),
    "SMD5": (MD5, True),
    "SHA": (SHA1, False),
    "SHA1": (SHA1, False),
    "SSHA": (SHA1, True),
    "SHA256": (SHA256, False),
    "SSHA256": (SHA256, True),
    "SHA512": (SHA512, False),
    "SSHA512": (SHA512, True),
}

# Each reads any string of crypt(3), as in Dovecot.
_CRYPTS: Final = frozenset({"CRYPT", "BLF-CRYPT", "SHA512-CRYPT", "SHA256-CRYPT", "MD5-CRYPT", "ARGON2I", "ARGON2ID"})
_CRYPT_PREFIXES: Final = {
    "1": MD5Crypt.algorithm,
    "5": SHA256Crypt.algorithm,
    "6": SHA512Crypt.algorithm,
    "2a": BCrypt.algorithm + "$",
    "2b": BCrypt.algorithm + "$",
    "2y": BCrypt.algorithm + "$",
    "argon2i": Argon2.algorithm,
    "argon2id": Argon2.algorithm,
}
_PBKDF2: Final = re.compile(rf"\$1\$(?P<salt>{_SALT})\$(?P<iterations>{_NUMBER})\$(?P<key>[0-9A-Fa-f]{{40}})")

_HASHERS: Final[dict[str, ForeignHasher]] = {
    kind.algorithm: kind()
    for kind in (
        MD5,
        SHA1,
        SHA256,
        SHA512,
        MD5Crypt,
        SHA256Crypt,
        SHA512Crypt,
        BCrypt,
        BCryptSHA256,
        PBKDF2SHA256,
        PBKDF2SHA1,
        Scrypt,
        Argon2,
    )
}


def _from_dovecot(scheme: str, encoding: str, text: str) -> str:
    if scheme in _DIGESTS and not (scheme == "MD5" and text.startswith("$")):
        kind, is_salted = _DIGESTS[scheme]
        octets = _decoded(text, encoding or ("HEX" if not is_salted and len(text) == 2 * kind.size() else "B64"))
        if len(octets) < kind.size() or (len(octets) > kind.size()) != is_salted:
            raise BadHash(_("this is not a whole hash of the scheme %(scheme)s") % {"scheme": scheme})
        return f"{kind.algorithm}${base64.b64encode(octets).decode()}"
    text = _unwrapped(text, encoding)
    if scheme in _CRYPTS or scheme == "MD5":
        return _from_crypt(text)
    if scheme == "PBKDF2":
        if form := _PBKDF2.fullmatch(text):
            key = base64.b64encode(bytes.fromhex(form["key"])).decode()
            return f"{PBKDF2SHA1.algorithm}${form['iterations']}${form['salt']}${key}"
        raise BadHash(_("this is not a whole hash of the scheme PBKDF2"))
    known = ", ".join(sorted(_CRYPTS | _CLEAR | _DIGESTS.keys() | {"PBKDF2"}))
    raise BadHash(_("hashes of this scheme cannot be taken over; those of these can: %(known)s") % {"known": known})


def _from_crypt(text: str) -> str:
    parts = text.split("$", 2)
    if parts[0] == "" and len(parts) == 3 and (algorithm := _CRYPT_PREFIXES.get(parts[1])):
        return algorithm + text
    raise BadHash(
        _("this is not a hash of crypt(3) of a known kind: $1$, $5$, $6$, $2a$, $2b$, $2y$, $argon2i$, $argon2id$")
    )


def _decoded(text: str, encoding: str) -> bytes:
    try:
        return binascii.unhexlify(text) if encoding == "HEX" else base64.b64decode(text, validate=True)
    except ValueError:
        if encoding == "HEX":
            raise BadHash(_("the hash is not in hexadecimal digits")) from None
        raise BadHash(_("the hash is not in base64")) from None


def _unwrapped(text: str, encoding: str) -> str:
    try:
        return _decoded(text, encoding).decode() if encoding else text
    except UnicodeDecodeError:
        raise BadHash(_("what the hash encodes is not Unicode text")) from None


def _unpadded(text: str) -> bytes:
    """The octets of base64 as in the strings of Argon2: unpadded, and spelled in one way only."""
    octets = _decoded(text + "=" * (-len(text) % 4), "B64")
    return octets if base64.b64encode(octets).decode().rstrip("=") == text else b""


def _hashed(password: str) -> str:
    try:
        passwords.check(password)
    except BadPassword as error:
        raise BadHash(str(error)) from None
    return make_password(password)
