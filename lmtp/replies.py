"""The replies of LMTP: a code, an enhanced status code, and a text that repeats nothing a client said."""

import re
from typing import Final, NamedTuple

LIMIT: Final = 512
"""Octets of a reply line, its CRLF included (RFC 5321 section 4.5.3.1.5)."""

_UNPRINTABLE = re.compile(rb"[^\x20-\x7e]")


class Reply(NamedTuple):
    """A reply of one line. 421 announces that the connection is closed after it (RFC 5321 section 3.8)."""

    code: int
    status: str
    """The enhanced status code (RFC 3463), which every 2xx, 4xx and 5xx has but the greeting and the reply to
    a good LHLO (RFC 2034 section 4)."""
    text: str

    @property
    def octets(self) -> bytes:
        """The line as it is sent."""
        return _line(f"{self.code} {self.status} {self.text}")


# Going well.

SENDER_OK: Final = Reply(250, "2.1.0", "Sender ok")
RECIPIENT_OK: Final = Reply(250, "2.1.5", "Recipient ok")
CHUNK_OK: Final = Reply(250, "2.0.0", "Chunk received")
RESET: Final = Reply(250, "2.0.0", "Nothing is left of the transaction")
NOTHING_DONE: Final = Reply(250, "2.0.0", "Ok")
HELP: Final = Reply(214, "2.0.0", "RFC 2033 and RFC 5321 tell how to talk to this server")
NOT_VERIFIED: Final = Reply(252, "2.0.0", "Try RCPT to find out")
BYE: Final = Reply(221, "2.0.0", "Bye")

# What became of one recipient's copy, at RCPT or after the data. RFC 3463 section 3.2 has 2.1.5 for positive
# delivery reports. Only what the client could not mend by trying again is 5xx: an MTA returns that to the sender.

DELIVERED: Final = Reply(250, "2.1.5", "Delivered")
ALREADY_DELIVERED: Final = Reply(250, "2.1.5", "Delivered before")
UNKNOWN_MAILBOX: Final = Reply(550, "5.1.1", "No such mailbox")
UNKNOWN_DOMAIN: Final = Reply(550, "5.1.2", "No such domain here")
SUSPENDED: Final = Reply(450, "4.2.1", "Mailbox is suspended, try again later")
DISABLED: Final = Reply(550, "5.2.1", "Mailbox is disabled")  # suspended, where a setting says so
NOT_NOW: Final = Reply(450, "4.2.1", "Mailbox takes no mail now, try again later")
UNVERIFIED: Final = Reply(450, "4.7.1", "Domain is not verified yet, try again later")
LOOP: Final = Reply(554, "5.4.6", "Mail loop, the message has been here before")
OVER_QUOTA: Final = Reply(552, "5.2.2", "Mailbox is full")
FULL_FOR_NOW: Final = Reply(452, "4.2.2", "Mailbox is full, try again later")  # over quota, by a setting
NO_SPACE: Final = Reply(452, "4.3.1", "No space left here, try again later")
TEMPORARY: Final = Reply(451, "4.3.0", "Temporary failure here, try again later")
TOO_LARGE: Final = Reply(552, "5.3.4", "Message is larger than this server takes")
TOO_MANY_RECIPIENTS: Final = Reply(452, "4.5.3", "Too many recipients, send the others another time")

# The client's mistakes.

NOT_A_COMMAND: Final = Reply(500, "5.5.2", "Not a command")
LINE_TOO_LONG: Final = Reply(500, "5.5.2", "Line too long")
NOT_SMTP: Final = Reply(500, "5.5.1", "This is LMTP, say LHLO")
NOT_IMPLEMENTED: Final = Reply(502, "5.5.1", "Not implemented")
LHLO_FIRST: Final = Reply(503, "5.5.1", "LHLO comes first")
MAIL_FIRST: Final = Reply(503, "5.5.1", "MAIL comes first")
NESTED: Final = Reply(503, "5.5.1", "One transaction at a time")
NO_RECIPIENT: Final = Reply(503, "5.5.1", "No recipient was accepted")
CHUNKS_BEGUN: Final = Reply(503, "5.5.1", "Only BDAT or RSET may follow BDAT")
BAD_PARAMETER: Final = Reply(501, "5.5.4", "A parameter is malformed or there twice")
UNKNOWN_PARAMETER: Final = Reply(555, "5.5.4", "A parameter is not known")
NEEDS_SMTPUTF8: Final = Reply(553, "5.6.7", "Without SMTPUTF8 an address must be ASCII")

# The server's end of it.

TOO_MANY_ERRORS: Final = Reply(421, "4.7.0", "Too many errors")
SHUTTING_DOWN: Final = Reply(421, "4.3.2", "Shutting down, try again soon")
IDLE: Final = Reply(421, "4.4.2", "Nothing was said for too long")
TOO_MANY_CONNECTIONS: Final = Reply(421, "4.3.2", "Too many connections, try again later")
FAULT: Final = Reply(421, "4.3.0", "Temporary failure here, try again later")

SEND_DATA: Final = b"354 Send the message, then a line with a dot alone\r\n"


def syntax(form: str, status: str = "5.5.4") -> Reply:
    """Return the reply to a command that is not of this form."""
    return Reply(501, status, f"Syntax: {form}")


def greeting(host: str) -> bytes:
    """Return the first words of a connection (RFC 2033 section 4)."""
    return _line(f"220 {host} LMTP server ready")


def welcome(host: str, *extensions: str) -> bytes:
    """Return the reply to LHLO, one extension on each line (RFC 5321 section 4.1.1.1)."""
    *first, last = (host, *extensions)
    return b"".join(_line(f"250-{text}") for text in first) + _line(f"250 {last}")


def _line(text: str) -> bytes:
    # Whatever a text was made of, it stays one line, and a short one.
    return _UNPRINTABLE.sub(b"?", text.encode("ascii", "replace"))[: LIMIT - 2] + b"\r\n"
