-- Column defaults that call functions of the extension, where DROP EXTENSION ... CASCADE took them away.
--
-- A default that is there already is left alone, for ALTER TABLE locks everybody out.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN SELECT * FROM (VALUES
        ('sensor_data', 'data_id', 'iot.generate_data_id()'),
        ('rejected_readings', 'rejection_id', 'iot.generate_data_id()'),
        ('device_logs', 'log_id', 'iot.generate_data_id()')
    ) AS listed (table_name, column_name, expression)
    LOOP
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_attribute a
              JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = format('iot.%I', wanted.table_name)::regclass
               AND a.attname = wanted.column_name
               AND pg_get_expr(d.adbin, d.adrelid) = wanted.expression);
        EXECUTE format('ALTER TABLE iot.%I ALTER COLUMN %I SET DEFAULT %s',
                       wanted.table_name, wanted.column_name, wanted.expression);
    END LOOP;
END
$$;
