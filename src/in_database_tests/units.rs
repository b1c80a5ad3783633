//! Units of measurement.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, one};

    #[pg_test]
    fn values_convert_exactly() {
        for (call, expected) in [
            ("convert_unit(20, 'degF', 'degC')", -20.0 / 3.0),
            ("convert_unit(32, 'degF', 'degC')", 0.0),
            ("convert_unit(20, 'degC', 'K')", 293.15),
            ("convert_unit(36, 'km/h', 'm/s')", 10.0),
            ("convert_unit(1, 'kWh', 'megajoule')", 3.6),
            ("convert_unit(1013.25, 'millibar', 'kPa')", 101.325),
            ("convert_unit_difference(9, 'degF', 'degC')", 5.0),
            ("convert_unit_difference(1, 'degC', 'K')", 1.0),
        ] {
            let found: f64 = one(&format!("SELECT iot.{call}"));
            assert!((found - expected).abs() <= 1e-9, "{call}: {found}");
        }
    }

    #[pg_test]
    fn what_cannot_be_converted_is_refused() {
        for (call, state, message, hint) in [
            (
                "20, 'degC', 'Pa'",
                "42804",
                "\"degC\" is a temperature, \"Pa\" is a pressure",
                "same dimension",
            ),
            ("20, 'degCC', 'K'", "22023", "unknown unit \"degCC\"", "degC"),
            ("20, 'K', 'smoot'", "22023", "unknown unit \"smoot\"", "case-sensitive"),
            ("20, '', 'K'", "22023", "must not be empty", "degC"),
            ("20, 'W/m2.K', 'K'", "22023", "ambiguous", "divide again"),
            ("1e300, 'Qm', 'qm'", "22003", "is not a finite number", "Check the value"),
            ("'NaN', 'm', 'mm'", "22003", "must be a finite number, not NaN", ""),
            ("'-infinity', 'm', 'm'", "22003", "must be a finite number", ""),
        ] {
            assert_fails(&format!("SELECT iot.convert_unit({call})"), state, message, hint);
            assert_fails(&format!("SELECT iot.convert_unit_difference({call})"), state, message, hint);
        }
    }

    #[pg_test]
    fn null_gives_null() {
        let all: bool = one("SELECT iot.convert_unit(NULL, 'm', 'm') IS NULL
                AND iot.convert_unit(1, NULL, 'm') IS NULL AND iot.convert_unit_difference(1, 'm', NULL) IS NULL");
        assert!(all);
    }

    /// More pairs than are kept, in changing order, and an error between them.
    #[pg_test]
    fn many_pairs_in_one_query() {
        let wrong: i64 = one("SELECT count(*) FROM iot.units u, iot.units v, generate_series(1, 2)
              WHERE u.dimension = v.dimension AND u.symbol <> 'pH'
                AND abs(iot.convert_unit(iot.convert_unit(50, u.symbol, v.symbol), v.symbol, u.symbol) - 50) > 1e-9");
        assert_eq!(wrong, 0);
        assert_fails("SELECT iot.convert_unit(20, 'degC', 'Pa')", "42804", "", "");
        assert_eq!(one::<f64>("SELECT iot.convert_unit(20, 'degC', 'K')"), 293.15);
    }

    #[pg_test]
    fn the_list_says_what_each_unit_is() {
        let found: String = one(
            "SELECT concat_ws('|', symbol, 'fahrenheit' = ANY (aliases), dimension, round(factor::numeric, 6),
                              round(offset_value::numeric, 6), takes_prefixes)
               FROM iot.units WHERE symbol = 'degF'",
        );
        assert_eq!(found, "degF|t|temperature|0.555556|255.372222|f");
        assert!(one::<i64>("SELECT count(DISTINCT dimension) FROM iot.units") > 20);
        let differing: i64 = one("SELECT count(*) FROM iot.units u, unnest(u.aliases) alias
              WHERE iot.convert_unit(7, alias, u.symbol) <> 7");
        assert_eq!(differing, 0);
    }

    #[pg_test]
    fn a_generated_column_may_convert() {
        Spi::run(
            "CREATE TEMPORARY TABLE readings (fahrenheit float8,
                 celsius float8 GENERATED ALWAYS AS (iot.convert_unit(fahrenheit, 'degF', 'degC')) STORED);
             INSERT INTO readings VALUES (212), (NULL)",
        )
        .unwrap();
        assert_eq!(one::<f64>("SELECT sum(celsius) FROM readings"), 100.0);
    }
}
