"""Notices become events with a version of their subject, which outlives a purge and an upgrade."""

from __future__ import annotations

from pathlib import Path

from state.notices import Notice
from state.sqlite.connection import meta_migrations, open_database
from state.sqlite.events import Log, log_migrations
from state.sqlite.notices import Notices, notice_migrations
from state.sqlite.schema import delivery_migrations


def said(subject: str) -> Notice:
    return Notice(kind="source.failing", subject=subject, summary="It fails.", detail={"why": "503"}, time=1.0)


def test_versions_count_by_subject_also_after_the_log_was_purged(tmp_path: Path) -> None:
    db = open_database(tmp_path / "state.db", sets=(log_migrations, notice_migrations))
    notices, log = Notices(db), Log(db)
    notices.tell([said("sources/a"), said("sources/b"), said("sources/a")])
    db.execute("DELETE FROM events")
    notices.tell([said("sources/a")])

    assert [(event.subject, event.data["version"]) for event in log.read()] == [("sources/a", 3)]
    db.close()


def test_versions_that_an_earlier_program_kept_go_on(tmp_path: Path) -> None:
    db = open_database(tmp_path / "state.db", sets=(meta_migrations, log_migrations, delivery_migrations))
    db.execute("INSERT INTO meta VALUES ('version:sources/a', '7')")
    db.execute("INSERT INTO subscriptions (name, state, cursor, notices) VALUES ('crm', 'active', 0, 4)")
    db.close()

    db = open_database(tmp_path / "state.db", sets=(log_migrations, delivery_migrations, notice_migrations))
    Notices(db).tell([said("sources/a"), said("subscriptions/crm")])
    assert [event.data["version"] for event in Log(db).read()] == [8, 5]
    db.close()
