"""Dynamic groups: whatever several sessions do at once, the stored members are those computed from the predicates."""

import random
import threading

import psycopg

from cluster import wait_until

DIFFERENCES = """
    (TABLE iot.device_group_membership EXCEPT SELECT group_id, device_id, is_dynamic FROM iot.device_group_members)
    UNION ALL
    (SELECT group_id, device_id, is_dynamic FROM iot.device_group_members EXCEPT TABLE iot.device_group_membership)
"""


def random_change(choice):
    """One change of what decides about membership, among few devices and groups, so that sessions meet."""
    device = f"'00000000-0000-0000-0000-0000000001{choice.randrange(8):02x}'"
    group = f"'00000000-0000-0000-0000-0000000002{choice.randrange(4):02x}'"
    return choice.choice([
        f"INSERT INTO iot.devices (device_id, location) VALUES ({device}, 'L{choice.randrange(3)}')"
        " ON CONFLICT (device_id) DO UPDATE SET location = EXCLUDED.location",
        f"UPDATE iot.devices SET firmware_version = '{choice.randrange(2)}'",
        f"DELETE FROM iot.devices WHERE device_id = {device}",
        f"INSERT INTO iot.device_tags SELECT device_id, 'a', '{choice.randrange(2)}' FROM iot.devices"
        f" WHERE device_id = {device} ON CONFLICT (device_id, tag_key) DO UPDATE SET tag_value = EXCLUDED.tag_value",
        f"DELETE FROM iot.device_tags WHERE device_id = {device}",
        f"INSERT INTO iot.device_groups (group_id, group_name, group_predicate)"
        f" VALUES ({group}, {group}, '{{\"location\": \"L{choice.randrange(3)}\"}}')"
        " ON CONFLICT (group_id) DO UPDATE SET group_predicate = EXCLUDED.group_predicate",
        "UPDATE iot.device_groups SET group_predicate = '{\"tags\": {\"a\": \"1\"}, \"firmware_version\": \"1\"}'"
        f" WHERE group_id = {group}",
        f"DELETE FROM iot.device_groups WHERE group_id = {group}",
        f"INSERT INTO iot.device_group_members SELECT group_id, device_id FROM iot.devices, iot.device_groups"
        f" WHERE device_id = {device} AND group_id = {group}"
        " ON CONFLICT (group_id, device_id) DO UPDATE SET is_dynamic = false",
        f"DELETE FROM iot.device_group_members WHERE group_id = {group} AND NOT is_dynamic",
    ])


def test_stored_and_computed_members_agree(database):
    unexpected = []

    def session(seed):
        choice = random.Random(seed)
        with database.connect(autocommit=False) as connection:
            for _ in range(60):
                try:
                    for _ in range(choice.randrange(1, 3)):
                        connection.execute(random_change(choice))
                    connection.commit()
                except (psycopg.errors.DeadlockDetected, psycopg.errors.ForeignKeyViolation,
                        psycopg.errors.UniqueViolation):
                    connection.rollback()  # what any application must expect of concurrent changes
                except psycopg.Error as error:
                    unexpected.append(error)
                    connection.rollback()

    threads = [threading.Thread(target=session, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not unexpected, unexpected
    assert database.rows(DIFFERENCES) == []
    # The storm may end with nobody in any group: whatever it left, a device that fits every predicate joins them all.
    database.execute("INSERT INTO iot.device_groups (group_name, group_predicate) VALUES ('last', '{\"location\": \"L1\"}')")
    database.execute("INSERT INTO iot.devices (location, firmware_version) VALUES ('L0', '1'), ('L1', '1'), ('L2', '1')")
    database.execute("INSERT INTO iot.device_tags SELECT device_id, 'a', '1' FROM iot.devices ON CONFLICT"
                     " (device_id, tag_key) DO UPDATE SET tag_value = '1'")
    assert database.rows(DIFFERENCES) == []
    assert database.value("SELECT count(*) FROM iot.device_groups g WHERE NOT EXISTS"
                          " (SELECT FROM iot.device_group_members m WHERE m.group_id = g.group_id)") == 0


def test_two_moves_at_once_cannot_close_a_cycle(database):
    """Each alone would be fine: X below Y, and Y below X."""
    x, y = (database.value("INSERT INTO iot.organizations (organization_name) VALUES (%s) RETURNING organization_id", (name,))
            for name in ("X", "Y"))
    move = "UPDATE iot.organizations SET parent_organization_id = %s WHERE organization_id = %s"
    outcome = []

    def second():
        with database.connect() as connection:
            try:
                connection.execute(move, (x, y))
                outcome.append("moved")
            except psycopg.errors.CheckViolation:
                outcome.append("refused")

    with database.connect(autocommit=False) as first:
        first.execute(move, (y, x))
        waiting = threading.Thread(target=second)
        waiting.start()
        wait_until(lambda: outcome or database.value("SELECT count(*) FROM pg_locks WHERE NOT granted"), what="the wait")
        first.commit()
        waiting.join(30)
    assert outcome == ["refused"]
