"""The meaning of an SMTP reply for a mail: temporary, permanent, or a refusal of this sender as a whole. Pure.

RFC 5321 4.2.1: 4yz is temporary, 5yz permanent. But many 5yz replies concern the sender's set-up and not the mail: 504
for the EHLO name, 530 without a login, 550 "not allowed to send as", 554 "relay access denied". An operator can fix
those, so they count as failures of the sink and not of each mail. Enhanced codes: RFC 3463, 4954 and 7372.
"""

from __future__ import annotations

import re
from typing import Final

_ENHANCED: Final = re.compile(r"\s*([245])\.([0-9]{1,3})\.([0-9]{1,3})\b")
_SETUP_CODES: Final = frozenset({500, 502, 503, 504, 521, 523, 530, 534, 535, 538})
_SETUP_ENHANCED: Final = frozenset(
    {
        *("1.7", "1.8"),  # the sender's address
        *("2.252", "7.60"),  # send as (Microsoft)
        "4.5",  # the account's quota for the day
        *("5.1", "5.2", "5.4"),  # commands
        *("7.3", "7.4", "7.5", "7.8", "7.9", "7.11", "7.57"),  # logins and encryption
        *("7.20", "7.21", "7.22", "7.23", "7.24", "7.25", "7.26", "7.27"),  # DKIM, SPF, reverse DNS, DMARC
    }
)
_SETUP_WORDS: Final = re.compile(
    r"relay|rcpthosts|authenticat|log ?in|send ?as|permission|not (?:allowed|authori[sz]ed) to (?:send|use)"
    r"|helo|ehlo|fully.qualified|client host|reverse dns|\bptr\b|black ?list|block ?list|\bdnsbl\b|\brbl\b|spamhaus"
    r"|\bspf\b|\bdkim\b|\bdmarc\b|starttls|encrypt|sender (?:address )?(?:rejected|denied|verif)|too many"
    r"|(?:sending|daily|hourly) (?:quota|limit)|quota exceeded.*send|rate limit",
    re.IGNORECASE,
)


def is_later(code: int) -> bool:
    """Whether the reply is temporary: 4yz, and anything that is not an SMTP reply."""
    return not 500 <= code < 600


def is_mailbox_full(message: str) -> bool:
    """Whether a 5yz says that a mailbox is full, which its owner can change: "a persistent transient failure"
    (RFC 3463 3.3).
    """
    return enhanced(message) == "2.2"


def is_about_setup(code: int, message: str) -> bool:
    """Whether a 5yz to a recipient or to the mail's text concerns the sender's set-up rather than this mail."""
    if code in _SETUP_CODES:
        return True
    detail = enhanced(message)
    if detail in _SETUP_ENHANCED:
        return True
    return detail.partition(".")[0] not in ("1", "2", "6") and _SETUP_WORDS.search(message) is not None


def is_too_large(code: int, message: str) -> bool:
    """Whether the mail is larger than the server accepts (RFC 1870; 5.3.4 by RFC 3463), rather than a mailbox full."""
    detail = enhanced(message)
    return detail in ("3.4", "2.3") or (code == 552 and not detail.startswith("2."))


def enhanced(message: str) -> str:
    """Subject and detail of the enhanced status code at the start of the reply's text: "7.1"; empty without one."""
    found = _ENHANCED.match(message)
    return f"{found[2]}.{found[3]}" if found else ""
