"""Hashes of other servers are taken over, verified, and replaced by ours at the first login."""

import base64
import math
import re
import shutil
import subprocess
import time
import unicodedata
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth import authenticate, hashers
from django.contrib.auth.hashers import check_password, identify_hasher, is_password_usable, make_password
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from accounts import authentication, hashes, provisioning
from accounts.authentication import REFUSED_AFTER, Passwords
from accounts.hashes import BadHash
from accounts.models import User
from accounts.passwords import BadPassword
from tests.fixtures import Customer

SECRET = "secret1"

# As `doveadm pw` of Dovecot 2.3.19 makes them of SECRET.
OF_DOVECOT = [
    "{SHA}AMr9EmGC6KnnwBuy8N/QBJa+ck8=",
    "{SHA1}AMr9EmGC6KnnwBuy8N/QBJa+ck8=",
    "{SHA256}WxFhjC5EAnh30M0JIe0Wa58Xb1BYf8kedTTdKUbbd9Y=",
    "{SHA512}HD6Xh+Y6oIZnXv4XqbKxrb6t3RkoPYv+NkqOBE8MwkssuATRE2aFBp8Nm9kp/Xn5a4l2Ki8QkX5qIUlbXQgO4Q==",
    "{SSHA}km0OiwHGnHTGpAtmTJDQXLQT3hJkCgik",
    "{SSHA256}M1XeAokoUjY5USkXn0c76QFl4nCDiLjbJqKLDNDQiAP/pE/q",
    "{SSHA512}P+K3SdSMjm2qvUqcEGH8fqGMfL+H0Koi4xpRWA7xhZBYxY5ClxUqM0Kpuna/jJpzPerJn+B5jJFYr6BWg4nocGwg2fg=",
    "{SMD5}Rj0JRVo9AulN53HQyLo4znsSNo4=",
    "{LDAP-MD5}5S2YxFmBmhF3WTbY37t5KQ==",
    "{PLAIN-MD5}e52d98c459819a11775936d8dfbb7929",
    "{MD5}$1$VQ1dlEW1$lkmnmOyOjcQXjJnRXleeJ0",
    "{MD5-CRYPT}$1$xGirD5mv$ubAN8pqv8dKRJ/oYsQGBV0",
    "{SHA256-CRYPT}$5$pvecc.AHx6hiRt2M$quV/R6l4C2KgxQUwAxS0TxfW2I8b.dbXf7Q7W3i2OjB",
    "{SHA512-CRYPT}$6$Ty1JpKXGXMXAjt.j$mYJnbd//9w5JCaRFZpCw6/zSYRQMZL/vr2tYWymtMpbEnk7Ebd8ewP9sEajkO3MwWwbsuS9lwfh0pJrLhu6Km0",
    "{BLF-CRYPT}$2y$05$pW2VW1GHvCEIGXMhDkhlqOlMxayXBh5mHvRG62wIm7x.448sQ/P4S",
    "{CRYPT}$2y$05$WDTMm7a8IkED2bCUfPhKe.PkdMId4zX6bgROd.J8pmHcaoBPagjeW",
    "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$A+yej8yE+DrpRv60/BR3+g$0rpKSTD5V9svqyAOCuvY2XXpGViNaZ5Lx/AHWHakRes",
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$O4exYlXqcxxsOxUA/pm6cw$73SN0Ns49TKUFg8rE9hp85U5hEnviUYBNBzvWrJmib4",
    "{PBKDF2}$1$9Pi54kIzZ1Db3NbE$5000$fea2f64103be1c9ba4d12ce17bd3ed7236331dae",
    "{PLAIN}secret1",
    "{CLEAR}secret1",
    "{CLEARTEXT}secret1",
]
BARE = [text.partition("}")[2] for text in OF_DOVECOT if re.match(r"\{\S+\}\$(?!1\$9Pi)", text)]
SPELLINGS = [
    "{ssha.hex}" + base64.b64decode("km0OiwHGnHTGpAtmTJDQXLQT3hJkCgik").hex(),
    "{Sha256.Base64}WxFhjC5EAnh30M0JIe0Wa58Xb1BYf8kedTTdKUbbd9Y=",
    "{SHA256}" + base64.b64decode("WxFhjC5EAnh30M0JIe0Wa58Xb1BYf8kedTTdKUbbd9Y=").hex(),
    "{MD5}e52d98c459819a11775936d8dfbb7929",
    "{PLAIN.b64}c2VjcmV0MQ==",
    "{plain.HEX}73656372657431",
    "{md5-crypt.b64}" + base64.b64encode(b"$1$xGirD5mv$ubAN8pqv8dKRJ/oYsQGBV0").decode(),
]
# From the specification of SHA-crypt, crypt_blowfish and the reference implementation of Argon2.
PUBLISHED = [
    ("Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
    ("Hello world!", "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"),
    (
        "Hello world!",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    (
        "Hello world!",
        "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs"
        "/y3RnOaw5v.",
    ),
    ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    ("", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy"),
    (
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored",
        "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
    ),
    ("password", "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA"),
    ("password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"),
    ("secret", "$argon2i$m=1024,t=2,p=1$c2FsdHNhbHRzYWx0$tyweK8kdTdwUdED6zMQe5FdSLOaw0pj778oAMg0xk3k"),
]


@pytest.mark.parametrize("text", OF_DOVECOT + BARE + SPELLINGS)
def test_hashes_of_dovecot_are_taken_over(text: str) -> None:
    verifies(SECRET, hashes.parse(text))


@pytest.mark.parametrize(("password", "text"), PUBLISHED)
def test_published_hashes_are_taken_over(password: str, text: str) -> None:
    verifies(password, hashes.parse(text))


@pytest.mark.parametrize(
    "name",
    [
        "PBKDF2PasswordHasher",
        "PBKDF2SHA1PasswordHasher",
        "Argon2PasswordHasher",
        "BCryptSHA256PasswordHasher",
        "BCryptPasswordHasher",
        "ScryptPasswordHasher",
    ],
)
def test_hashes_of_django_are_taken_over(name: str) -> None:
    hasher = getattr(hashers, name)()
    text = hasher.encode(SECRET, hasher.salt())
    verifies(SECRET, hashes.parse(text))


def verifies(password: str, stored: str) -> None:
    assert len(stored) <= hashes.LIMIT
    assert check_password(password, stored)
    for wrong in (password.swapcase(), f"x{password}", "", "\0", f"{password}\0", "\udcff", "x" * 5000):
        if wrong != password:
            assert not check_password(wrong, stored)
    assert stored.startswith("argon2$") or identify_hasher(stored).must_update(stored)
    assert set(identify_hasher(stored).safe_summary(stored)) >= {"algorithm"}


DOVEADM = shutil.which("doveadm") or ""
SCHEMES = [
    "SHA", "SHA1", "SHA256", "SHA512", "SSHA", "SSHA256", "SSHA512", "SMD5", "MD5", "LDAP-MD5", "PLAIN-MD5",
    "MD5-CRYPT", "SHA256-CRYPT", "SHA512-CRYPT", "BLF-CRYPT", "CRYPT", "ARGON2I", "ARGON2ID", "PBKDF2", "PLAIN",
    "CLEAR", "CLEARTEXT", "SHA256.HEX", "SSHA.HEX", "SSHA512.B64", "PLAIN.B64", "SHA512-CRYPT.HEX",
]  # fmt: skip


@pytest.mark.skipif(not DOVEADM, reason="doveadm, which makes the hashes, is not installed")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_doveadm_makes_is_taken_over(scheme: str, tmp_path: Path) -> None:
    """Also of characters beyond ASCII, decomposed as some keyboards send them, and of more than bcrypt looks at."""
    config = tmp_path / "dovecot.conf"
    config.write_text("")
    decomposed = unicodedata.normalize("NFD", "Nguyễn Văn ${} é")
    for password in (SECRET, "päss wörd:", decomposed, "0123456789" * 9):
        made = subprocess.run(
            [DOVEADM, "-c", config, "pw", "-s", scheme, "-p", password], capture_output=True, text=True, check=True
        ).stdout.removesuffix("\n")
        stored = hashes.parse(made)
        assert check_password(password, stored)
        assert not check_password(f"x{password}", stored)


def test_a_password_is_tried_as_it_came_and_in_its_normal_form() -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    of_composed, of_decomposed = (
        hashes.parse(hashers.PBKDF2PasswordHasher().encode(one, "salt", 1)) for one in (composed, decomposed)
    )
    assert check_password(decomposed, of_composed)
    assert check_password(decomposed, of_decomposed)
    assert check_password(composed, of_composed)
    assert not check_password(composed, of_decomposed)


# What is refused.

_TAIL = "A" * 85 + "/"


@pytest.mark.parametrize(
    "text",
    [
        f"$6$rounds=1000001$salt${_TAIL}",
        f"{{SHA512-CRYPT}}$6$rounds=999999999$salt${_TAIL}",
        f"$5$rounds=2000000$salt${'A' * 43}",
        "$2y$14$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "bcrypt_sha256$$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$argon2id$v=19$m=262145,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2id$v=19$m=19456,t=1000,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2id$v=19$m=19456,t=2,p=255$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "{PBKDF2}$1$9Pi54kIzZ1Db3NbE$2000001$fea2f64103be1c9ba4d12ce17bd3ed7236331dae",
        "pbkdf2_sha256$999999999$salt$WxFhjC5EAnh30M0JIe0Wa58Xb1BYf8kedTTdKUbbd9Y=",
        f"scrypt$1048576$salt$8$1${'A' * 86}==",
        f"scrypt$16384$salt$8$1000${'A' * 86}==",
    ],
)
def test_what_costs_too_much_is_refused_when_it_is_taken_over(text: str) -> None:
    with pytest.raises(BadHash, match="too much"):
        hashes.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "*",
        "!",
        "!$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        "!aRandomTextThatDjangoWrites",
        "IoIzEpywuvUK6",
        "{DES-CRYPT}IoIzEpywuvUK6",
        "{CRYPT}IoIzEpywuvUK6",
        "{CRAM-MD5}9f327e2492aa7f1ddc287a9d8778c5f7612bfd1fe746b5c3dc5acdd68b12ffbd",
        "{secret}secret",
        "{SSHA}",
        "{SSHA}AMr9EmGC6KnnwBuy8N/QBJa+ck8=",  # no salt
        "{SHA}km0OiwHGnHTGpAtmTJDQXLQT3hJkCgik",  # one
        "{SHA}????",
        "{SHA.HEX}AMr9EmGC6KnnwBuy8N/QBJa+ck8=",
        "{SHA}$6$",
        "{SSHA512}" + base64.b64encode(bytes(200)).decode(),  # does not fit
        "{PLAIN}",
        "{PLAIN}a\tb",
        "{PLAIN}" + "x" * 249,
        "{PLAIN}\udcff",
        "{PLAIN.HEX}ff",
        "{SHA512-CRYPT.HEX}ff",
        "{PBKDF2}$1$salt$5000$fea2",
        "{PBKDF2}$1$salt$05000$fea2f64103be1c9ba4d12ce17bd3ed7236331dae",
        "$",
        "$$",
        "$6$",
        "$7$salt$hash",
        "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2a$05$CCCCCCCCCCCCCCCCCCCCCCE5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",  # not as the library spells a salt
        "$2a$03$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$1$saltsalts$ubAN8pqv8dKRJ/oYsQGBV0",
        "$1$salt$ubAN8pqv8dKRJ/oYsQGBV",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1\n",
        f"$6$rounds=999$salt${_TAIL}",
        f"$6$rounds=05000$salt${_TAIL}",
        f"$6$rounds={'9' * 5000}$salt${_TAIL}",
        "$argon2d$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPd",  # spelled otherwise
        "$argon2id$v=19$m=7,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2id$v=19$m=65536,t=2,p=1$c2FsdA$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$" + "A" * 500,
        "pbkdf2_sha256$1000$salt$AMr9EmGC6KnnwBuy8N/QBJa+ck8=",
        "pbkdf2_sha512$1000$salt$AMr9EmGC6KnnwBuy8N/QBJa+ck8=",
        "md5$salt$e52d98c459819a11775936d8dfbb7929",
        f"scrypt$16383$salt$8$1${'A' * 86}==",
    ],
)
def test_what_is_no_hash_is_refused_when_it_is_taken_over(text: str) -> None:
    with pytest.raises(BadHash) as refused:
        hashes.parse(text)
    said = str(refused.value)
    assert len(said) > 20
    secret = text.partition("}")[2] if text.startswith("{") else text
    assert len(secret) < 3 or secret not in said


_anything = st.text() | st.text("$=,.{}+/0123456789abcdefSHA", max_size=80)


@st.composite
def _nearly_hashes(draw: st.DrawFn) -> str:
    """A good one, with a part cut out and another put in its place."""
    text = draw(st.sampled_from([text for text in OF_DOVECOT + BARE + SPELLINGS if "}secret" not in text]))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 8)))
    return text[:start] + draw(st.text("$=,.{}+/0123456789abcdefSHA\0é", max_size=8)) + text[end:]


@given(_anything | _nearly_hashes() | _anything.map("{{PLAIN}}{}".format))
@example("{PLAIN}\ud800")
@hypothesis_settings(deadline=None)
def test_what_is_taken_over_can_be_stored_and_verified(text: str) -> None:
    try:
        stored = hashes.parse(text)
    except BadHash:
        return
    assert len(stored) <= hashes.LIMIT
    hasher = identify_hasher(stored)
    hasher.verify("wrong", stored)  # raises nothing
    if not stored.startswith("argon2$"):
        assert hashes.parse(stored) == stored  # so it moves on to yet another server


def test_what_the_settings_know_is_what_is_taken_over() -> None:
    known = [hasher.algorithm for hasher in hashers.get_hashers()]
    assert settings.PASSWORD_HASHERS[0] == "accounts.passwords.PasswordHasher"
    assert known[1:] == list(hashes._HASHERS)


# What is stored.


def test_a_password_or_its_hash_is_stored() -> None:
    assert check_password(SECRET, hashes.stored(SECRET, None))
    assert hashes.stored(None, "{SHA}AMr9EmGC6KnnwBuy8N/QBJa+ck8=") == "ldap_sha1$AMr9EmGC6KnnwBuy8N/QBJa+ck8="
    assert not is_password_usable(hashes.stored(None, None))
    with pytest.raises(BadHash, match="not both"):
        hashes.stored(SECRET, "{SHA}AMr9EmGC6KnnwBuy8N/QBJa+ck8=")
    with pytest.raises(BadPassword):
        hashes.stored("", None)
    with pytest.raises(BadHash):
        hashes.stored(None, "")


def test_no_password_in_clear_is_stored() -> None:
    for text in ("{PLAIN}secret1", "{CLEARTEXT.B64}c2VjcmV0MQ=="):
        assert hashes.parse(text).startswith("argon2$argon2id$")


def test_ten_thousand_hashes_are_taken_over_in_a_moment() -> None:
    texts = [text for text in OF_DOVECOT + BARE if "}secret" not in text]
    began = time.thread_time()
    for number in range(10_000):
        hashes.stored(None, texts[number % len(texts)])
    took = time.thread_time() - began
    print(f"10,000 hashes: {took:.2f} s")
    assert took < 1


# The first login.


@pytest.mark.parametrize("text", ["{SHA}AMr9EmGC6KnnwBuy8N/QBJa+ck8=", BARE[-1]])
def test_the_first_sign_in_replaces_the_hash(text: str, acme: Customer) -> None:
    User.objects.filter(email=acme.mailbox).update(password=hashes.parse(text))
    assert not User.objects.get(email=acme.mailbox).check_password("wrong")
    assert User.objects.get(email=acme.mailbox).password == hashes.parse(text)
    user = authenticate(username=str(acme.mailbox), password=SECRET)
    assert user
    stored = User.objects.get(email=acme.mailbox).password
    assert stored.startswith("argon2$argon2id$")
    assert User.objects.get(email=acme.mailbox).check_password(SECRET)
    assert User.objects.get(email=acme.mailbox).password == stored  # which stays


def test_a_password_that_was_changed_meanwhile_stays_changed(acme: Customer) -> None:
    User.objects.filter(email=acme.mailbox).update(password=hashes.parse("{SHA}AMr9EmGC6KnnwBuy8N/QBJa+ck8="))
    signing_in = User.objects.get(email=acme.mailbox)
    provisioning.set_password(User.objects.get(email=acme.mailbox), "changed")
    assert signing_in.check_password(SECRET)  # it was, when it was looked up
    assert User.objects.get(email=acme.mailbox).check_password("changed")


async def test_a_hash_that_a_listener_verified_is_made_anew() -> None:
    passwords = Passwords()
    for text in ("{SHA}AMr9EmGC6KnnwBuy8N/QBJa+ck8=", BARE[-1]):
        stored = hashes.parse(text)
        assert await passwords.check("an@example.test", SECRET, stored, network="192.0.2.0/24")
        upgraded = await passwords.upgraded(SECRET, stored)
        assert upgraded
        assert upgraded.startswith("argon2$argon2id$")
        assert await passwords.upgraded(SECRET, upgraded) is None
    passwords.close()


# Time.

# The most that each kind may cost.
DEAREST = [
    f"$6$rounds=1000000$salt${_TAIL}",
    f"$5$rounds=1000000$salt${'A' * 42}/",
    "$2y$13$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "$argon2id$v=19$m=262144,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
    "$argon2id$v=19$m=32768,t=16,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
    "{PBKDF2}$1$9Pi54kIzZ1Db3NbE$2000000$fea2f64103be1c9ba4d12ce17bd3ed7236331dae",
    "pbkdf2_sha256$2000000$salt$WxFhjC5EAnh30M0JIe0Wa58Xb1BYf8kedTTdKUbbd9Y=",
    f"scrypt$65536$salt$8$4${'A' * 86}==",
    f"scrypt$16384$salt$32$4${'A' * 86}==",
]


@pytest.mark.parametrize("text", DEAREST)
def test_the_dearest_hash_is_checked_before_a_refusal_is_due(text: str) -> None:
    stored = hashes.parse(text)
    began = time.process_time()
    assert not check_password("wrong", stored)
    took = time.process_time() - began
    print(f"{stored.split('$')[0]}: {took:.2f} s")
    assert took < REFUSED_AFTER


async def test_a_refusal_does_not_tell_what_kind_of_hash_is_stored() -> None:
    """Nobody's, ours, the cheapest and a dear one: asked one after the other, as a guesser would measure it."""
    passwords = Passwords()
    kinds = [None, make_password(SECRET), hashes.parse("{SHA}AMr9EmGC6KnnwBuy8N/QBJa+ck8="), hashes.parse(DEAREST[6])]
    least = [math.inf] * len(kinds)  # of some rounds: what a busy machine adds is not in all of them
    for _ in range(10):
        for index, stored in enumerate(kinds):
            began = time.monotonic()
            assert not await passwords.check("an@example.test", "wrong", stored, network="192.0.2.0/24")
            least[index] = min(least[index], time.monotonic() - began)
        if max(least) - min(least) < 0.1:
            break
    passwords.close()
    print("refused after", ", ".join(f"{one:.4f} s" for one in least))
    assert max(least) - min(least) < 0.1  # of the half second that checking them differs by
    assert min(least) >= authentication.REFUSED_AFTER - 0.005
