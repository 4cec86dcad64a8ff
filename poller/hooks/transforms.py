"""What a plugin's `transform_event` has made of an event: only its data may change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from poller.hooks.faults import PluginError
from state.records import NewEvent

_DATA = msgspec.json.Decoder(dict[str, Any])


def checked(event: NewEvent, answer: object) -> NewEvent:
    """The event that `transform_event` returned, or changed in place. Raises PluginError if it cannot be recorded."""
    if not isinstance(answer, NewEvent):
        raise PluginError(f"it gave {type(answer).__name__}, not the event, False or None")
    answer = _with_edited_data(answer)
    if answer == event:
        return event
    if not isinstance(answer.raw, bytes):
        raise PluginError(f"it gave an event whose `raw` is {type(answer.raw).__name__}, not bytes")
    if answer != replace(event, raw=answer.raw):
        raise PluginError("it changed more of the event than `raw`")
    try:
        _DATA.decode(answer.raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PluginError(f"it gave an event whose `raw` is not a JSON object ({error})") from error
    return answer


def _with_edited_data(event: NewEvent) -> NewEvent:
    """The event with the changes that were made in its parsed `data`. Raises PluginError if they are no JSON."""
    data = vars(event).get("data")  # parsed by the plugin
    if data is None:
        return event
    try:
        edited = msgspec.json.encode(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise PluginError(f"it changed the event's `data` to what is no JSON ({error})") from error
    return event if edited == msgspec.json.encode(_DATA.decode(event.raw)) else replace(event, raw=edited)
