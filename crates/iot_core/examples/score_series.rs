//! Scores series of readings with one of the detectors.
//!
//! ```text
//! cargo run --release -p iot_core --example score_series -- [options] [file ...]
//!
//!   --detector NAME         zscore, robust, ewma, seasonal or adaptive (the default)
//!   --constant NAME=VALUE   another value of a constant of the adaptive detector; may be repeated
//!   --list-constants        print the constants of the adaptive detector and their values
//!   --only-onsets           print only the readings that start an anomalous episode, each after its line number
//!   --speed                 print nothing but nanoseconds per reading and bytes of state
//! ```
//!
//! A series has a header line and then `timestamp,value`, with timestamps such as `2014-07-01 00:30:00`, in UTC.
//! Without files it comes from standard input. For each reading the output has
//! `timestamp,value,score,is_anomaly,is_onset`; with files the first column is the file's path.

use iot_core::detect::{
    AdaptiveConstants, DetectorKind, DetectorState, Episode, Verdict, ZscoreWindow, score_series_with,
};
use iot_core::time::{TimeOfDay, Timestamp};
use std::error::Error;
use std::hint::black_box;
use std::io::{self, BufWriter, Read, Write};
use std::time::Instant;

/// Passes over all series per measurement of speed.
const PASSES: u32 = 20;

struct Options {
    kind: DetectorKind,
    constants: AdaptiveConstants,
    list_constants: bool,
    only_onsets: bool,
    speed: bool,
    files: Vec<String>,
}

/// The lines of one file: the text, and the time and value in it.
#[derive(Default)]
struct Series {
    path: Option<String>,
    lines: Vec<String>,
    readings: Vec<(Timestamp, f64)>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = parse_arguments(std::env::args().skip(1))?;
    let mut output = BufWriter::new(io::stdout().lock());
    if options.list_constants {
        for name in AdaptiveConstants::NAMES {
            let value = options.constants.get_mut(name).ok_or("no such constant")?;
            writeln!(output, "{name}={value}")?;
        }
        return Ok(());
    }
    let mut all = Vec::new();
    for path in &options.files {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        all.push(parse_series(Some(path.clone()), &text)?);
    }
    if all.is_empty() {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        all.push(parse_series(None, &text)?);
    }
    if options.speed {
        return measure(&options, &all);
    }
    for series in &all {
        print(&mut output, &options, series)?;
    }
    Ok(())
}

fn parse_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        kind: DetectorKind::Adaptive,
        constants: AdaptiveConstants::DEFAULT,
        list_constants: false,
        only_onsets: false,
        speed: false,
        files: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let mut next = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--detector" => {
                let name = next()?;
                options.kind = DetectorKind::from_name(&name).ok_or(format!("no detector {name:?}"))?;
            }
            "--constant" => {
                let setting = next()?;
                let (name, value) = setting.split_once('=').ok_or("wants NAME=VALUE")?;
                let constant = options.constants.get_mut(name);
                *constant.ok_or(format!("no constant {name:?}"))? = value.parse()?;
            }
            "--list-constants" => options.list_constants = true,
            "--only-onsets" => options.only_onsets = true,
            "--speed" => options.speed = true,
            path if !path.starts_with("--") => options.files.push(path.to_owned()),
            unknown => return Err(format!("no option {unknown}").into()),
        }
    }
    Ok(options)
}

fn parse_series(path: Option<String>, text: &str) -> Result<Series, Box<dyn Error>> {
    let mut series = Series { path, ..Series::default() };
    for line in text.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        let (timestamp, value) = line.split_once(',').ok_or_else(|| format!("no comma in {line:?}"))?;
        let timestamp = parse_timestamp(timestamp).ok_or_else(|| format!("no time in {line:?}"))?;
        let value = value.trim().parse().map_err(|error| format!("{line:?}: {error}"))?;
        series.readings.push((timestamp, value));
        series.lines.push(line.trim_end().to_owned());
    }
    Ok(series)
}

/// Reads `YYYY-MM-DD HH:MM:SS`, with or without decimals.
fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let (date, time) = text.trim().split_once([' ', 'T'])?;
    let mut fields = date.split('-');
    let year = fields.next()?.parse().ok()?;
    let month = fields.next()?.parse().ok()?;
    let day = fields.next()?.parse().ok()?;
    Timestamp::from_utc_civil(year, month, day)?.checked_add(TimeOfDay::parse(time)?.0)
}

fn print(output: &mut impl Write, options: &Options, series: &Series) -> io::Result<()> {
    let prefix = series.path.as_ref().map(|path| format!("{path},")).unwrap_or_default();
    let verdicts = score_series_with(&options.constants, options.kind, series.readings.iter().copied());
    for (number, (line, (.., verdict))) in series.lines.iter().zip(verdicts).enumerate() {
        let Verdict { score, is_anomaly, is_onset, .. } = verdict;
        let (is_anomaly, is_onset) = (u8::from(is_anomaly), u8::from(is_onset));
        if !options.only_onsets {
            writeln!(output, "{prefix}{line},{score},{is_anomaly},{is_onset}")?;
        } else if verdict.is_onset {
            writeln!(output, "{prefix}{number},{line},{score},{is_anomaly},{is_onset}")?;
        }
    }
    Ok(())
}

fn measure(options: &Options, all: &[Series]) -> Result<(), Box<dyn Error>> {
    let count: usize = all.iter().map(|series| series.readings.len()).sum();
    let mut fastest = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        for series in all {
            let readings = series.readings.iter().copied();
            score_series_with(&options.constants, options.kind, readings).for_each(|scored| {
                black_box(scored);
            });
        }
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    let nanoseconds = fastest * 1e9 / count.max(1) as f64;
    let bytes = match options.kind {
        DetectorKind::Zscore => size_of::<ZscoreWindow>() + Episode::ENCODED_LEN,
        kind => DetectorState::encoded_len(kind),
    };
    println!(
        "{count} readings, {nanoseconds:.0} ns per reading (fastest of {PASSES}), {bytes} bytes of state"
    );
    Ok(())
}
