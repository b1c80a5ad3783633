//! The one list of the extension's SQL, top to bottom in install order.
//!
//! Functions are declared by hand in these files (their Rust bodies carry `sql = false`), so that signature, volatility,
//! comment and grants of an object stand together in one place.

use pgrx::extension_sql_file;

extension_sql_file!("../sql/schema/00_requirements.sql", name = "requirements", bootstrap);
extension_sql_file!("../sql/schema/10_bucket.sql", name = "bucket", requires = ["requirements"]);
extension_sql_file!("../sql/schema/15_unit.sql", name = "unit", requires = ["bucket"]);
extension_sql_file!("../sql/schema/20_device.sql", name = "device", requires = ["unit"]);
extension_sql_file!("../sql/schema/21_device_triggers.sql", name = "device_triggers", requires = ["device"]);
extension_sql_file!(
    "../sql/schema/22_sensor_triggers.sql",
    name = "sensor_triggers",
    requires = ["device_triggers"]
);
extension_sql_file!(
    "../sql/schema/23_group_triggers.sql",
    name = "group_triggers",
    requires = ["sensor_triggers"]
);
extension_sql_file!(
    "../sql/schema/24_quality_limits.sql",
    name = "quality_limits",
    requires = ["group_triggers"]
);
extension_sql_file!("../sql/schema/30_partition.sql", name = "partition", requires = ["quality_limits"]);
extension_sql_file!("../sql/schema/31_duplicates.sql", name = "duplicates", requires = ["partition"]);
extension_sql_file!(
    "../sql/schema/32_partition_manager.sql",
    name = "partition_manager",
    requires = ["duplicates"]
);
extension_sql_file!("../sql/schema/33_retention.sql", name = "retention", requires = ["partition_manager"]);
extension_sql_file!("../sql/schema/34_conversion.sql", name = "conversion", requires = ["retention"]);
extension_sql_file!("../sql/schema/40_alert.sql", name = "alert", requires = ["conversion"]);
extension_sql_file!("../sql/schema/41_alert_triggers.sql", name = "alert_triggers", requires = ["alert"]);
extension_sql_file!("../sql/schema/45_processing.sql", name = "processing", requires = ["alert_triggers"]);
extension_sql_file!("../sql/schema/50_ingest.sql", name = "ingest", requires = ["processing"]);
extension_sql_file!("../sql/schema/51_ingest_triggers.sql", name = "ingest_triggers", requires = ["ingest"]);
extension_sql_file!("../sql/schema/52_statistics.sql", name = "statistics", requires = ["ingest_triggers"]);
extension_sql_file!("../sql/schema/53_detector.sql", name = "detector", requires = ["statistics"]);
extension_sql_file!("../sql/schema/54_state.sql", name = "state", requires = ["detector"]);
extension_sql_file!("../sql/schema/55_recalibration.sql", name = "recalibration", requires = ["state"]);
extension_sql_file!("../sql/schema/56_roads.sql", name = "roads", requires = ["recalibration"]);
extension_sql_file!("../sql/schema/57_load_state.sql", name = "load_state", requires = ["roads"]);
extension_sql_file!(
    "../sql/schema/58_tracked_detectors.sql",
    name = "tracked_detectors",
    requires = ["load_state"]
);
extension_sql_file!(
    "../sql/schema/59_detector_check.sql",
    name = "detector_check",
    requires = ["tracked_detectors"]
);
extension_sql_file!(
    "../sql/schema/59_retention_changed.sql",
    name = "retention_changed",
    requires = ["detector_check"]
);
extension_sql_file!("../sql/schema/60_command.sql", name = "command", requires = ["retention_changed"]);
extension_sql_file!("../sql/schema/70_readings.sql", name = "readings", requires = ["command"]);
extension_sql_file!("../sql/schema/80_job.sql", name = "job", requires = ["readings"]);
extension_sql_file!("../sql/schema/81_job_functions.sql", name = "job_functions", requires = ["job"]);
extension_sql_file!("../sql/schema/82_job_policies.sql", name = "job_policies", requires = ["job_functions"]);
extension_sql_file!("../sql/schema/85_health.sql", name = "health", requires = ["job_policies"]);
extension_sql_file!("../sql/schema/86_health_checks.sql", name = "health_checks", requires = ["health"]);
extension_sql_file!(
    "../sql/schema/87_statistics_views.sql",
    name = "statistics_views",
    requires = ["health_checks"]
);
extension_sql_file!("../sql/schema/90_setup.sql", name = "setup", requires = ["statistics_views"], finalize);
