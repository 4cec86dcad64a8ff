"""Mails made from events: headers, text and HTML.

A mail keeps its Message-ID over all attempts, so a repeated mail can be recognised. Mails about one object refer to the
same first id (RFC 5322 3.6.4), so mail programs show them as one thread.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy
from email.utils import formatdate
from typing import Any, Final

from plugins.email.options import EmailOptions, parsed_address
from poller import Event
from poller.rendering.event_view import one_line
from poller.rendering.templates import Escape, render, render_default


class _Policy(EmailPolicy):
    """Folds a header of addresses, ids or URLs between them.

    `EmailPolicy` also folds within them: a name loses its quotes, so that its commas divide it into several addresses
    (python/cpython#87720), and a long id or URL becomes encoded words, which nobody decodes there (#79986).
    """

    def fold_binary(self, name: str, value: Any) -> bytes:
        """See `EmailPolicy`."""
        if name.lower() in ("references", "in-reply-to", "list-unsubscribe"):
            items = str(value).split()
        else:
            items = [f"{one}," for one in getattr(value, "addresses", ())]
        text = f"{self.linesep} ".join(items).removesuffix(",")
        if not (items and text.isascii()):
            return super().fold_binary(name, value)
        return f"{name}: {text}{self.linesep}".encode()


# 7bit is accepted by any relay, with or without 8BITMIME.
_POLICY: Final = _Policy(linesep=SMTP.linesep, cte_type="7bit")


def mail_of(name: str, given: EmailOptions, events: Sequence[Event], last: str | None, *, now: float) -> EmailMessage:
    """The mail of subscription `name`; `last` is the id of the object's latest mail. Raises RenderError."""
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = parsed_address(given.sender)
    mail["To"] = [parsed_address(text) for text in given.to]
    if given.cc:
        mail["Cc"] = [parsed_address(text) for text in given.cc]
    mail["Subject"] = one_line(render(given.subject, events, zone=given.zone), 250)
    mail["Date"] = formatdate(now)
    for header, value in _identity(name, given, events, last).items():
        mail[header] = value
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: prevents vacation notices
    if given.list_unsubscribe is not None:
        mail["List-Unsubscribe"] = f"<{given.list_unsubscribe}>"
        if given.list_unsubscribe.startswith("https:"):
            mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058
    text, html = _bodies(given, events)
    mail.set_content(text)
    if html is not None:
        mail.add_alternative(html, subtype="html")
    return mail


def _identity(name: str, given: EmailOptions, events: Sequence[Event], last: str | None) -> Mapping[str, str]:
    """The Message-ID, made from what is sent; for a single event also the thread of its object."""
    domain = parsed_address(given.sender).domain
    own = f"<{_digest(name, *(event.id for event in events))}@{domain}>"
    if len(events) > 1:
        return {"Message-ID": own}
    first = f"<object.{_digest(name, events[0].source, events[0].subject)}@{domain}>"
    earlier = [first, last] if last and re.fullmatch(r"<[!-;=?-~]+>", last) else [first]
    return {"Message-ID": own, "In-Reply-To": earlier[-1], "References": " ".join(earlier)}


def _bodies(given: EmailOptions, events: Sequence[Event]) -> tuple[str, str | None]:
    """Text and HTML. A template that begins with `<` is HTML; any other template is the whole mail, as text."""
    template, zone = given.template, given.zone
    if template is not None and not template.lstrip().startswith("<"):
        return render(template, events, zone=zone), None
    if template is not None:
        html = render(template, events, escape=Escape.HTML, zone=zone)
    else:
        html = render_default("email.html.j2", events, escape=Escape.HTML, zone=zone)
    return render_default("text.j2", events, zone=zone), html


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
