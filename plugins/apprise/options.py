"""The keys of an `apprise` subscription."""

from __future__ import annotations

from typing import Annotated

import apprise
from pydantic import AfterValidator, BeforeValidator, Field, StrictBool
from pydantic_core import PydanticCustomError

from poller.options.secrets import Secret, SecretError
from poller.rendering.templates import Templated


def _known(secret: Secret) -> Secret:
    try:
        url = secret.reveal()
    except SecretError:  # the secret could not be read, which its own check has accepted for this command
        return secret
    if apprise.Apprise.instantiate(url, suppress_exceptions=True) is None:
        # The URL is left out, because it holds the service's token.
        raise PydanticCustomError("apprise", "not a URL of a service that apprise knows, or a part of it is missing")
    return secret


def _listed(given: object) -> object:
    return given if isinstance(given, list | tuple) else (given,)


ServiceUrl = Annotated[Secret, AfterValidator(_known)]


class AppriseOptions(Templated):
    """`[[subscriptions]]` with `plugin = "apprise"`."""

    urls: Annotated[tuple[ServiceUrl, ...], BeforeValidator(_listed), Field(min_length=1)]
    allow_private: StrictBool = False
