-- Partition policy: which readings of the same sensor and time are kept. The view shows its columns in the same order.
ALTER TABLE iot.partition_policy
    ADD COLUMN duplicates text NOT NULL DEFAULT 'first'
    CHECK (duplicates OPERATOR(pg_catalog.=) ANY ('{first,last,both}'::pg_catalog.text[]));
COMMENT ON COLUMN iot.partition_policy.duplicates IS 'Which readings of the same sensor and time are kept: first, last or both.';

CREATE OR REPLACE VIEW iot.partition_settings WITH (security_invoker = true) AS
SELECT p.parent, p.time_column, p.partition_interval, p.premake, p.retention, p.index_policy, p.duplicates
  FROM iot.partition_policy p
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) p.parent);
COMMENT ON COLUMN iot.partition_settings.duplicates IS 'Which readings of the same sensor and time are kept: first, last or both.';
