"""iot.evaluate_alert_condition against the PL/pgSQL function and against the condition written into the query."""

from .measure import Goal, NotDone, compare, timed
from .world import world_of

RULE = ('{"threshold_high": 10, "threshold_low": 50, "metadata_check": {"fw": "1.4.2"},'
        ' "time_window": {"start": "00:00", "end": "23:59:59.999999"}}')
VARIANTS = 16

# Value and metadata change from row to row, so that no side can keep the last answer, and the rule is not a constant to the
# planner, so that the inline condition is not folded into finished numbers.
ROWS = """generate_series(1, {count}) AS g, LATERAL (
    SELECT CASE WHEN g > 0 THEN '{rule}'::jsonb END AS r, (20 + g % 7)::{type} AS v,
           ('{{{variants}}}'::jsonb[])[1 + g % {number}] AS m) AS x"""
INLINE = """v > (r ->> 'threshold_high')::numeric AND v < (r ->> 'threshold_low')::numeric AND m @> (r -> 'metadata_check')
    AND CURRENT_TIME BETWEEN (r -> 'time_window' ->> 'start')::time AND (r -> 'time_window' ->> 'end')::time"""


def statement(count, kind, condition):
    variants = ",".join(
        '"{\\"fw\\": \\"1.4.2\\", \\"rssi\\": -%d, \\"battery\\": %d}"' % (60 + number, 40 + number)
        for number in range(VARIANTS))
    rows = ROWS.format(count=count, rule=RULE, type=kind, variants=variants, number=VARIANTS)
    return f"SELECT count(*) FROM {rows} WHERE {condition}"


def evaluate(cluster, report):
    """Evaluations per second, one query over many rows."""
    count = 20_000 if report.options.quick else 300_000
    with world_of(cluster, 1) as world:
        world.require_function("evaluate_alert_condition", "jsonb", "double precision", "jsonb")
        world.make_baseline()
        statements = {
            "ours": statement(count, "double precision", "iot.evaluate_alert_condition(r, v, m)"),
            "PL/pgSQL": statement(count, "numeric", "baseline.evaluate_alert_condition(r, v, m)"),
            "inline SQL": statement(count, "numeric", INLINE),
        }
        # A backend of its own for each side: CPU seconds are counted by the backend.
        connections = {name: world.connect() for name in statements}

        def side(name):
            connection = connections[name]
            connection.execute("SET max_parallel_workers_per_gather = 0")

            def work():
                found = connection.execute(statements[name]).fetchone()[0]
                if found != count:
                    raise NotDone(f"{name}: {found} of {count} conditions were true")

            return lambda _round: timed(connection, count, work)

        compare(report, "evaluate_alert_condition, 4 keys", {name: side(name) for name in statements},
                [Goal("PL/pgSQL", 15), Goal("inline SQL", 2.5)], "calls/s")
        for connection in connections.values():
            connection.close()
