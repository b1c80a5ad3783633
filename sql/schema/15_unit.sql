-- Units of measurement. Only units of the extension itself count, which never change their meaning: hence IMMUTABLE.

CREATE FUNCTION iot.convert_unit(value double precision, from_unit text, to_unit text) RETURNS double precision
    IMMUTABLE STRICT PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'convert_unit_wrapper';
COMMENT ON FUNCTION iot.convert_unit(double precision, text, text) IS
    'The value as a number of another unit of the same dimension; units are symbols such as degC or kWh, names, or expressions such as m3/h.';

CREATE FUNCTION iot.convert_unit_difference(difference double precision, from_unit text, to_unit text)
    RETURNS double precision
    IMMUTABLE STRICT PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'convert_unit_difference_wrapper';
COMMENT ON FUNCTION iot.convert_unit_difference(double precision, text, text) IS
    'As convert_unit() for a difference of two values: zero points do not count, 9 degF are 5 degC.';

CREATE FUNCTION iot.known_units() RETURNS TABLE (
    symbol text, aliases text[], dimension text, factor double precision, offset_value double precision,
    takes_prefixes boolean)
    IMMUTABLE STRICT PARALLEL SAFE ROWS 150
    LANGUAGE c AS 'MODULE_PATHNAME', 'known_units_wrapper';
COMMENT ON FUNCTION iot.known_units() IS 'The rows of iot.units.';

CREATE VIEW iot.units WITH (security_invoker = true) AS
SELECT u.symbol, u.aliases, u.dimension, u.factor, u.offset_value, u.takes_prefixes FROM iot.known_units() u;
COMMENT ON VIEW iot.units IS 'The units that iot.convert_unit() knows, without their combinations with prefixes and each other.';
COMMENT ON COLUMN iot.units.symbol IS 'How it is best written.';
COMMENT ON COLUMN iot.units.aliases IS 'Other ways to write it.';
COMMENT ON COLUMN iot.units.dimension IS 'What it measures; only units of the same dimension convert into each other.';
COMMENT ON COLUMN iot.units.factor IS 'How many SI units it is: SI value = value * factor + offset_value.';
COMMENT ON COLUMN iot.units.offset_value IS 'The SI value of its zero.';
COMMENT ON COLUMN iot.units.takes_prefixes IS 'Whether it may have prefixes, such as kilo.';
GRANT SELECT ON iot.units TO PUBLIC;
