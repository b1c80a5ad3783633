//! The fuzz targets as ordinary tests: with their corpus, with that corpus changed at random, and with random bytes.
//! `make fuzz` looks further.

#![allow(clippy::unwrap_used)]

use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Inputs made up for each target; a run of all takes a few seconds unoptimized.
fn made_up(name: &str) -> usize {
    // Series of readings, and the search for units of a similar name, take their time.
    if matches!(name, "detectors" | "units") { 300 } else { 1_500 }
}

/// Longest of them.
const LONGEST: usize = 8_192;

/// Xorshift (Marsaglia, 2003): the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// A seed with a few changes, or random bytes.
    fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let length = self.below(256);
        let mut input =
            if self.below(8) == 0 { self.bytes(length) } else { seeds[self.below(seeds.len())].clone() };
        for _ in 0..1 + self.below(4) {
            let at = self.below(input.len());
            let to = (at + self.below(16)).min(input.len());
            match self.below(6) {
                0 if at < input.len() => input[at] = self.next() as u8,
                1 if at < input.len() => input[at] ^= 1 << self.below(8),
                2 => drop(input.splice(at..to, [])),
                3 => {
                    let repeated = input[at..to].repeat(1 + self.below(4));
                    drop(input.splice(at..at, repeated));
                }
                4 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    let part = other[from..(from + self.below(32)).min(other.len())].to_vec();
                    drop(input.splice(at..at, part));
                }
                _ => {
                    let new = self.bytes(3);
                    drop(input.splice(at..at, new));
                }
            }
        }
        input.truncate(LONGEST);
        input
    }
}

/// The corpus of a target in a fixed order.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Runs a target by name; a failure shows which bytes it met.
fn try_target(name: &str) {
    /// Shows the bytes of the input at hand when it is dropped by a panic.
    struct Shown<'a>(&'a [u8]);
    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("input: b\"{}\"", self.0.escape_ascii());
            }
        }
    }
    let seeds = corpus(name);
    assert!(!seeds.is_empty(), "no corpus of {name}");
    for seed in &seeds {
        let shown = Shown(seed);
        targets::run(name, shown.0);
    }
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    for _ in 0..made_up(name) {
        let input = random.input(&seeds);
        let shown = Shown(&input);
        targets::run(name, shown.0);
    }
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                try_target(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_tried() {
            let names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

tests! {
    calibration conditions detector_states detectors expressions jsonb payload processing_rules processing_states
    sensor_states text time units
}
