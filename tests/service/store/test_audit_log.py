"""The table of the audit log."""

from __future__ import annotations

from driftscope_service.auth.audit import COMMAND_LINE, SERVICE, Action, Actor, AuditLog, Who
from driftscope_service.store.database import Database
from driftscope_service.store.tables import TARGET_LENGTH


def test_what_is_kept(database: Database) -> None:
    who = Who(Actor.KEY, "0a1b2c3d4e5f", "req_1")
    with database.write() as connection:
        log = AuditLog(connection)
        log.add(COMMAND_LINE, Action.KEY_CREATED, "key 0a1b", name="ü", runs=None)
        log.add(who, Action.RUN_DELETED, "run " + "r" * TARGET_LENGTH, steps=3)
        log.add(SERVICE, Action.JOB_STARTED, "job job_1")
        newest, second, oldest = log.page(5)
    assert (oldest.actor, oldest.action) == (Actor.COMMAND_LINE, "key.created")
    assert oldest.detail == {"name": "ü", "runs": None}
    assert (second.key_id, second.request_id) == (who.key_id, who.request_id)
    assert len(second.target) == TARGET_LENGTH and second.detail == {"steps": 3}
    assert newest.detail is None and newest.number > second.number > oldest.number
    with database.read() as connection:
        assert AuditLog(connection).page(5, before=second.number) == [oldest]
        assert AuditLog(connection).page(1) == [newest]
