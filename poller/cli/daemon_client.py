"""What a running daemon says of itself, asked at its own address."""

from __future__ import annotations

from typing import Any, Final

import httpx

from poller.config.models import LOOPBACK, Config, is_loopback
from state.errors import PollerError

ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
PATIENCE: Final = 5.0  # seconds


def ask_status(config: Config) -> dict[str, Any]:
    """The status with what only the daemon knows. Raises PollerError where it does not answer, or nobody can tell."""
    if config.poller.address is None:
        raise PollerError("the daemon does not listen", hint="poller.listen says where it should")
    host, port = config.poller.address
    if port == 0:
        raise PollerError("the daemon listens on a port of the system's choice", hint="its log names it")
    name = host if is_loopback(host) else next(iter(config.poller.allowed_hosts or LOOPBACK))
    token = {"Authorization": f"Bearer {config.poller.token.reveal()}"} if config.poller.token else {}
    url = httpx.URL(scheme="http", host=ANYWHERE.get(host, host), port=port, path="/api/v1/status")
    try:
        answer = httpx.get(url, headers={"Host": name, **token}, timeout=PATIENCE, trust_env=False)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise PollerError(
            f"the daemon does not answer at {url.netloc.decode()}: {error}", hint="its log says why"
        ) from error
    return found
