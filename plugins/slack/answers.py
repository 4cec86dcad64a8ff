"""The meaning of Slack's and Mattermost's answers for a delivery. Pure.

Incoming webhooks answer in plain text with a status; the Web API answers 200 with `"ok": false`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from plugins.slack.pace import INTERVAL
from poller import Gone, Receipt, Refused, Rejected, RetryLater, TooLarge
from poller.http_dates import retry_after
from poller.sinks.calls import Answer
from poller.sinks.protocol import DeliveryError

_THROTTLED: Final = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_ARCHIVED: Final = frozenset({"channel_is_archived", "is_archived"})
_REMOVED: Final = frozenset({"no_active_hooks", "no_service", "no_service_id", "no_team", "team_disabled"})
_LONG: Final = frozenset({"msg_too_long", "msg_blocks_too_long"})
_MALFORMED: Final = frozenset({"no_text", "too_many_attachments"})
_THREAD: Final = (
    frozenset(  # the channel may accept what a thread does not: its first message was deleted, or it is locked
        {
            "cannot_reply_to_message",
            "invalid_thread_ts",
            "restricted_action_non_threadable_channel",
            "restricted_action_thread_locked",
            "thread_not_found",
        }
    )
)


class ThreadClosed(Refused):
    """The thread accepts no reply."""


class _ApiAnswer(msgspec.Struct):
    """The used part of a Web API answer; the message that it repeats is not decoded."""

    ok: bool = False
    error: str = ""
    ts: str = ""


def webhook_receipt(answer: Answer, *, now: float) -> Receipt:
    """The receipt of a message that a webhook accepted. Raises DeliveryError for another answer."""
    receipt = Receipt(status=str(answer.status), text=answer.text)
    if 200 <= answer.status < 300:  # others than Slack answer 202 or 204
        return receipt
    error = answer.text.strip()
    if error == "invalid_token":  # that of the webhook's URL, which was revoked
        raise Gone(receipt)
    raise failure(answer.status, error, retry_after(answer.headers.get("Retry-After"), now), receipt)


def api_receipt(answer: Answer, *, root: str | None, now: float) -> Receipt:
    """The receipt of a message that a bot posted, with the reference for later replies. Raises DeliveryError.

    A reply names the thread by its first message (`root`), which is the reference that later events of the object need.
    """
    try:
        said = msgspec.json.decode(answer.body, type=_ApiAnswer)
    except (msgspec.DecodeError, RecursionError):
        said = _ApiAnswer()
    if answer.status == 200 and said.ok:
        return Receipt(status="200", text=f"ts {said.ts}", reference=root or said.ts or None)
    receipt = Receipt(status=f"{answer.status} {said.error}".strip(), text=answer.text)
    if root is not None and said.error in _THREAD:
        raise ThreadClosed(receipt)
    wait = retry_after(answer.headers.get("Retry-After"), now)
    status = 400 if answer.status == 200 and said.error in _LONG else answer.status
    raise failure(status, said.error, wait, receipt)


def failure(status: int, error: str, wait: float | None, receipt: Receipt) -> DeliveryError:
    """The error for an answer that does not accept the message. Errors of the Web API are retried unless known to be
    permanent.
    """
    if status == 429 or error in _THROTTLED:
        return RetryLater(INTERVAL if wait is None else wait, receipt)
    if status == 410 or error in _ARCHIVED or error in _REMOVED:
        return Gone(receipt)
    if status == 413 or error in _LONG:
        return TooLarge(receipt)
    if error in _MALFORMED or (error.startswith("invalid_") and error not in ("invalid_auth", "invalid_token")):
        return Rejected(receipt)
    return Refused(receipt) if 400 <= status < 500 else RetryLater(wait, receipt)
