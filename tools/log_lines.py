"""What each line of the log means, by its name."""

from __future__ import annotations

from typing import Final

LOG_LINES: Final = {
    "budget.waits": "The server wants no call for so many seconds, and the budget waits: `why` quotes it.",
    "budget.goes_on": "A pause that a server had asked for is over, or was ended by `poller resume`.",
    "budget.not_opened": "This worker cannot poll the budget it has leased, and leaves it to others for a while.",
    "budget.lease_lost": "Another worker owns the budget now; this one stops polling for it.",
    "clock.set": "The system's clock was set. Polling pauses for a moment; order and waits are not affected.",
    "command.done": "A command was executed by the daemon.",
    "command.failed": "A command could not be executed; the line says why.",
    "config.agrees": "All workers have the same configuration again.",
    "config.differs": "Workers on one database have different configurations: only those with the newest act.",
    "config.not_taken_over": "A key that is read only at the start has changed. Restart to use it.",
    "config.refused": "A reload was refused; the old configuration stays in use. `poller check` says what to fix.",
    "config.reloaded": "The new configuration is in use, with what has changed.",
    "delivery.not_recorded": "The result of an attempt could not be written; it is made again under the same id.",
    "dispatch.not_recorded": "Events could not be given to a subscription, as the state could not be written. Retried.",
    "endpoint.rebaselined": "An endpoint begins a silent baseline: its rules changed, or a command asked for it.",
    "engine.not_opened": "The sources could not be set up; the reason is in the line.",
    "events.purged": "Events older than `retention` were removed.",
    "purge.postponed": (
        "Another transaction, such as a dump, uses the log in PostgreSQL for long: "
        "old events are removed half an hour later."
    ),
    "field.noisy": "A field changes at every poll. Add it to `ignore` if nobody needs it.",
    "health.forgotten": "What was known of failures could not be read from the state; sources start as healthy.",
    "heartbeat.failed": "The heartbeat's URL did not answer. It is called again in a minute.",
    "http.listening": "API and dashboard listen at this URL.",
    "http.not_accepting": "No file descriptor was free for a new connection. Accepting continues a second later.",
    "http.not_answering": "What answers commands could not be loaded; `exception` says why. Polling continues, and "
    "commands reach the daemon through the state. Install Poller again.",
    "job.failed": "A regular task (purge, planner, heartbeat) failed; it runs again at its next time.",
    "log.cut": "The database has lost the end of the log, by a failover or a restored backup: a new log begins.",
    "notify.failed": "systemd's socket did not take a notification.",
    "observers.late": "A plugin's observer hook is slow; events wait for it.",
    "observers.missed": "A plugin's observer hook was too slow and missed events.",
    "observers.not_read": "Events could not be read for a plugin's observer hook; it is tried again.",
    "page.odd": "An answer had something that was set aside; the line says what and where.",
    "planner.forgotten": "What the planner had learned could not be read; it learns again.",
    "planner.not_saved": "What the planner has learned could not be saved; it is tried again in a minute.",
    "plugin.abandoned": "A plugin's function ignored its cancellation and was abandoned.",
    "plugin.slow": "A plugin's function has not returned for ten seconds while everything waits for it, at a start or "
    "a reload: `function` and `module` name it. Fix the plugin, or what it waits for.",
    "log.handler_raised": "A handler or filter that a plugin has added to Python's `logging` raised an error. Only "
    "that handler lacks the line of the library that `logger` names.",
    "log.kept": "A plugin has tried to configure `structlog`. Poller's own log stays as it is.",
    "plugin.forked": "A process that a plugin forked has ended, because it would have run Poller a second time: "
    "`function` has to end it by `os._exit`, or to use `subprocess`.",
    "plugin.failed": "A plugin could not be loaded. `poller plugins` shows why; all others are used.",
    "plugin.raised": "A plugin raised an error. Only that poll or delivery fails.",
    "plugin.traceback": "The traceback of a plugin's error (at level `debug`).",
    "plugins.not_reloaded": "A plugin's file has changed or is gone; its loaded code stays in use until a restart.",
    "poll.failed": "A unit of a source failed; the line says why and how often in a row.",
    "poll.raised": "An unexpected error ended one poll. The unit is polled again; please report it.",
    "poller.hour": "The summary of the last hour: calls, events, waiting deliveries, problems.",
    "poller.started": "The daemon is ready.",
    "poller.stopped": "The daemon has ended.",
    "promises.broken": "A `max_staleness` could not be kept; the line says for which unit.",
    "promises.kept": "Every `max_staleness` is kept again.",
    "sink.no_receipt": "A sink plugin returned something other than a Receipt. The event counts as delivered.",
    "sink.traceback": "The traceback of a sink plugin's error (at level `debug`).",
    "socket.not_made": "The socket for commands could not be created; commands reach the daemon through the state.",
    "source.ready": "A source has been set up and is polled.",
    "state.failing": "The state cannot be written. Polling and delivery pause until it can.",
    "state.moved_back": "Times in the state lay in the future and were moved back.",
    "state.recovered": "The state can be written again; everything has continued.",
    "subscription.lease_lost": "Another worker owns the subscription now; this one stops delivering for it.",
    "sweep.complete": "Every page of an endpoint has been read (at level `debug`).",
    "sweep.first": "The first sweep of an endpoint is complete: changes are reported from now on.",
    "worker.failed": "A step of taking over or giving up leases failed; it is tried again twice a second.",
    "worker.gave_up": "This worker has left a budget or subscription to another one.",
    "worker.lacks": "This worker cannot open a budget or subscription, and leaves it to others; the line says why.",
    "worker.took_over": "This worker has taken leases that were free: it polls and delivers what they name.",
}
