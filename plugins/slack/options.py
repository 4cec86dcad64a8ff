"""The keys of a `slack` subscription."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from poller.options.secrets import Secret, SecretError
from poller.rendering.templates import Templated
from poller.sinks.calls import parsed_url


def _checked_url(text: str) -> str:
    try:
        parsed_url(text)
    except ValueError as exc:
        raise PydanticCustomError("url", "{why}", {"why": str(exc)}) from None
    return text


def _checked_secret(secret: Secret) -> Secret:
    try:
        _checked_url(secret.reveal())
    except SecretError:  # the secret could not be read, which its own check has accepted for this command
        return secret
    return secret


class SlackOptions(Templated):
    """`[[subscriptions]]` with `plugin = "slack"`: `webhook_url`, or `token` and `channel`."""

    webhook_url: Annotated[Secret, AfterValidator(_checked_secret)] | None = None
    token: Secret | None = None
    channel: str | None = None
    thread: Literal["none", "object"] = "none"
    api_url: Annotated[str, AfterValidator(_checked_url)] = "https://slack.com/api/"
    allow_private: StrictBool = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.webhook_url is None) == (self.token is None):
            raise PydanticCustomError("slack", "give webhook_url, or token and channel")
        if (self.token is None) != (self.channel is None):
            raise PydanticCustomError("slack", "token and channel belong together; a webhook has its own channel")
        if self.thread == "object" and self.token is None:
            raise PydanticCustomError("slack", 'thread = "object" needs token and channel: a webhook cannot reply')
        return self
