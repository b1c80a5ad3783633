//! What a unit measures.

use std::fmt;

/// Number of base dimensions.
const AXES: usize = 19;

/// What a unit measures, as a product of powers of base dimensions.
///
/// The base dimensions are the seven of the SI, and others for what is not to be converted although the SI
/// calls it dimensionless or names it by the same units: plane angle, information, counts, radioactivity (or a
/// becquerel would be a hertz), dose equivalent (or a sievert would be a gray), apparent and reactive power,
/// and the logarithmic and empirical scales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dimension {
    exponents: [i8; AXES],
}

/// Symbols of the base dimensions' units, in the order of the exponents.
const BASE_SYMBOLS: [&str; AXES] = [
    "m", "kg", "s", "A", "K", "mol", "cd", "rad", "bit", "count", "Bq", "Sv", "VA", "var", "dB", "dBA",
    "dBC", "dBm", "pH",
];

const fn base(axis: usize) -> Dimension {
    let mut exponents = [0; AXES];
    exponents[axis] = 1;
    Dimension { exponents }
}

impl Dimension {
    pub(super) const NONE: Self = Self { exponents: [0; AXES] };
    pub(super) const LENGTH: Self = base(0);
    pub(super) const MASS: Self = base(1);
    pub(super) const TIME: Self = base(2);
    pub(super) const CURRENT: Self = base(3);
    pub(super) const TEMPERATURE: Self = base(4);
    pub(super) const AMOUNT: Self = base(5);
    pub(super) const LUMINOUS_INTENSITY: Self = base(6);
    pub(super) const ANGLE: Self = base(7);
    pub(super) const INFORMATION: Self = base(8);
    pub(super) const COUNT: Self = base(9);
    pub(super) const RADIOACTIVITY: Self = base(10);
    pub(super) const DOSE_EQUIVALENT: Self = base(11);
    pub(super) const APPARENT_POWER: Self = base(12);
    pub(super) const REACTIVE_POWER: Self = base(13);
    pub(super) const LEVEL: Self = base(14);
    pub(super) const SOUND_LEVEL_A: Self = base(15);
    pub(super) const SOUND_LEVEL_C: Self = base(16);
    pub(super) const SIGNAL_LEVEL: Self = base(17);
    pub(super) const ACIDITY: Self = base(18);

    pub(super) const AREA: Self = Self::LENGTH.times(Self::LENGTH);
    pub(super) const VOLUME: Self = Self::AREA.times(Self::LENGTH);
    pub(super) const FREQUENCY: Self = Self::NONE.per(Self::TIME);
    pub(super) const SPEED: Self = Self::LENGTH.per(Self::TIME);
    pub(super) const ACCELERATION: Self = Self::SPEED.per(Self::TIME);
    pub(super) const VOLUME_FLOW: Self = Self::VOLUME.per(Self::TIME);
    pub(super) const MASS_FLOW: Self = Self::MASS.per(Self::TIME);
    pub(super) const DENSITY: Self = Self::MASS.per(Self::VOLUME);
    pub(super) const FORCE: Self = Self::MASS.times(Self::ACCELERATION);
    pub(super) const PRESSURE: Self = Self::FORCE.per(Self::AREA);
    pub(super) const ENERGY: Self = Self::FORCE.times(Self::LENGTH);
    pub(super) const POWER: Self = Self::ENERGY.per(Self::TIME);
    pub(super) const IRRADIANCE: Self = Self::POWER.per(Self::AREA);
    pub(super) const ABSORBED_DOSE: Self = Self::ENERGY.per(Self::MASS);
    pub(super) const VISCOSITY: Self = Self::PRESSURE.times(Self::TIME);
    pub(super) const KINEMATIC_VISCOSITY: Self = Self::AREA.per(Self::TIME);
    pub(super) const CHARGE: Self = Self::CURRENT.times(Self::TIME);
    pub(super) const VOLTAGE: Self = Self::POWER.per(Self::CURRENT);
    pub(super) const RESISTANCE: Self = Self::VOLTAGE.per(Self::CURRENT);
    pub(super) const CONDUCTANCE: Self = Self::CURRENT.per(Self::VOLTAGE);
    pub(super) const CONDUCTIVITY: Self = Self::CONDUCTANCE.per(Self::LENGTH);
    pub(super) const CAPACITANCE: Self = Self::CHARGE.per(Self::VOLTAGE);
    pub(super) const MAGNETIC_FLUX: Self = Self::VOLTAGE.times(Self::TIME);
    pub(super) const FLUX_DENSITY: Self = Self::MAGNETIC_FLUX.per(Self::AREA);
    pub(super) const INDUCTANCE: Self = Self::MAGNETIC_FLUX.per(Self::CURRENT);
    pub(super) const SOLID_ANGLE: Self = Self::ANGLE.times(Self::ANGLE);
    pub(super) const LUMINOUS_FLUX: Self = Self::LUMINOUS_INTENSITY.times(Self::SOLID_ANGLE);
    pub(super) const ILLUMINANCE: Self = Self::LUMINOUS_FLUX.per(Self::AREA);
    pub(super) const DATA_RATE: Self = Self::INFORMATION.per(Self::TIME);
    pub(super) const COUNT_RATE: Self = Self::COUNT.per(Self::TIME);
    pub(super) const APPARENT_ENERGY: Self = Self::APPARENT_POWER.times(Self::TIME);
    pub(super) const REACTIVE_ENERGY: Self = Self::REACTIVE_POWER.times(Self::TIME);

    const NAMES: [(Self, &'static str); 68] = [
        (Self::NONE, "ratio"),
        (Self::LENGTH, "length"),
        (Self::MASS, "mass"),
        (Self::TIME, "time"),
        (Self::CURRENT, "electric current"),
        (Self::TEMPERATURE, "temperature"),
        (Self::AMOUNT, "amount of substance"),
        (Self::LUMINOUS_INTENSITY, "luminous intensity"),
        (Self::ANGLE, "angle"),
        (Self::INFORMATION, "amount of data"),
        (Self::COUNT, "count"),
        (Self::RADIOACTIVITY, "radioactivity"),
        (Self::DOSE_EQUIVALENT, "dose equivalent"),
        (Self::APPARENT_POWER, "apparent power"),
        (Self::REACTIVE_POWER, "reactive power"),
        (Self::LEVEL, "level"),
        (Self::SOUND_LEVEL_A, "A-weighted sound level"),
        (Self::SOUND_LEVEL_C, "C-weighted sound level"),
        (Self::SIGNAL_LEVEL, "signal level"),
        (Self::ACIDITY, "pH value"),
        (Self::AREA, "area"),
        (Self::VOLUME, "volume"),
        (Self::FREQUENCY, "frequency"),
        (Self::SPEED, "speed"),
        (Self::ACCELERATION, "acceleration"),
        (Self::VOLUME_FLOW, "volume flow"),
        (Self::MASS_FLOW, "mass flow"),
        (Self::DENSITY, "density"),
        (Self::FORCE, "force"),
        (Self::PRESSURE, "pressure"),
        (Self::ENERGY, "energy or torque"),
        (Self::POWER, "power"),
        (Self::IRRADIANCE, "irradiance"),
        (Self::ABSORBED_DOSE, "absorbed dose or specific energy"),
        (Self::VISCOSITY, "viscosity"),
        (Self::KINEMATIC_VISCOSITY, "kinematic viscosity"),
        (Self::CHARGE, "electric charge"),
        (Self::VOLTAGE, "voltage"),
        (Self::RESISTANCE, "electric resistance"),
        (Self::CONDUCTANCE, "electric conductance"),
        (Self::CONDUCTIVITY, "electric conductivity"),
        (Self::CAPACITANCE, "capacitance"),
        (Self::MAGNETIC_FLUX, "magnetic flux"),
        (Self::FLUX_DENSITY, "magnetic flux density"),
        (Self::INDUCTANCE, "inductance"),
        (Self::SOLID_ANGLE, "solid angle"),
        (Self::LUMINOUS_FLUX, "luminous flux"),
        (Self::ILLUMINANCE, "illuminance"),
        (Self::DATA_RATE, "data rate"),
        (Self::COUNT_RATE, "count rate"),
        (Self::APPARENT_ENERGY, "apparent energy"),
        (Self::REACTIVE_ENERGY, "reactive energy"),
        (Self::ANGLE.per(Self::TIME), "angular velocity"),
        (Self::RESISTANCE.times(Self::LENGTH), "electric resistivity"),
        (Self::VOLTAGE.per(Self::LENGTH), "electric field strength"),
        (Self::CURRENT.per(Self::LENGTH), "magnetic field strength"),
        (Self::LUMINOUS_INTENSITY.per(Self::AREA), "luminance"),
        (Self::DOSE_EQUIVALENT.per(Self::TIME), "dose rate"),
        (Self::ABSORBED_DOSE.per(Self::TIME), "absorbed dose rate"),
        (Self::RADIOACTIVITY.per(Self::VOLUME), "activity concentration"),
        (Self::COUNT.per(Self::VOLUME), "number concentration"),
        (Self::AMOUNT.per(Self::VOLUME), "amount concentration"),
        (Self::AMOUNT.per(Self::AREA).per(Self::TIME), "photon or molar flux density"),
        (Self::ENERGY.per(Self::AREA), "energy per area or stiffness"),
        (Self::TEMPERATURE.per(Self::TIME), "rate of temperature change"),
        (Self::TEMPERATURE.per(Self::LENGTH), "temperature gradient"),
        (Self::POWER.per(Self::LENGTH).per(Self::TEMPERATURE), "thermal conductivity"),
        (Self::IRRADIANCE.per(Self::TEMPERATURE), "heat transfer coefficient"),
    ];

    /// The name, such as `temperature`, or for what has none its base units, such as `kg.m-4`.
    pub fn name(&self) -> String {
        self.known_name().map_or_else(|| self.base_units(), str::to_owned)
    }

    /// The name as a noun phrase: `a temperature`.
    pub(super) fn noun_phrase(&self) -> impl fmt::Display {
        match self.known_name() {
            Some(name) if name.starts_with(['a', 'e', 'i', 'o', 'u', 'A']) => format!("an {name}"),
            Some(name) => format!("a {name}"),
            None => format!("a quantity in {}", self.base_units()),
        }
    }

    /// The value, in the SI unit, to which the zero points of interval units are related: the ice point for
    /// temperatures, else 0. Temperatures near it are where conversions should lose no digits.
    pub(super) fn reference_point(&self) -> f64 {
        if *self == Self::TEMPERATURE { 273.15 } else { 0.0 }
    }

    /// The dimension of a product with `other` to the power of `power`; `None` for absurd exponents.
    pub(super) fn checked_times_power(mut self, other: Self, power: i8) -> Option<Self> {
        for (exponent, added) in self.exponents.iter_mut().zip(other.exponents) {
            *exponent = exponent.checked_add(added.checked_mul(power)?)?;
        }
        Some(self)
    }

    /// The dimension of a product. Only for the constants above, whose exponents are small.
    const fn times(mut self, other: Self) -> Self {
        let mut axis = 0;
        while axis < AXES {
            self.exponents[axis] += other.exponents[axis];
            axis += 1;
        }
        self
    }

    /// The dimension of a quotient. Only for the constants above, whose exponents are small.
    const fn per(mut self, other: Self) -> Self {
        let mut axis = 0;
        while axis < AXES {
            self.exponents[axis] -= other.exponents[axis];
            axis += 1;
        }
        self
    }

    fn known_name(&self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(dimension, _)| dimension == self).map(|(_, name)| *name)
    }

    fn base_units(&self) -> String {
        let powers = BASE_SYMBOLS.iter().zip(self.exponents).filter(|(_, exponent)| *exponent != 0);
        let factors = powers.map(|(symbol, exponent)| match exponent {
            1 => (*symbol).to_owned(),
            _ => format!("{symbol}{exponent}"),
        });
        factors.collect::<Vec<_>>().join(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_own_dimension() {
        for (index, (dimension, name)) in Dimension::NAMES.iter().enumerate() {
            assert!(Dimension::NAMES[..index].iter().all(|(d, n)| d != dimension && n != name), "{name}");
            assert_eq!(dimension.name(), *name);
        }
    }

    #[test]
    fn noun_phrases() {
        for (dimension, phrase) in [
            (Dimension::TEMPERATURE, "a temperature"),
            (Dimension::ENERGY, "an energy or torque"),
            (Dimension::SOUND_LEVEL_A, "an A-weighted sound level"),
            (Dimension::DENSITY.per(Dimension::LENGTH), "a quantity in m-4.kg"),
        ] {
            assert_eq!(dimension.noun_phrase().to_string(), phrase);
        }
    }

    #[test]
    fn exponents_are_bounded() {
        let hundred = Dimension::NONE.checked_times_power(Dimension::AREA, 50).unwrap();
        assert_eq!(hundred.name(), "m100");
        assert_eq!(hundred.checked_times_power(Dimension::AREA, 14), None);
        assert_eq!(Dimension::NONE.checked_times_power(hundred, 2), None);
        assert_eq!(hundred.checked_times_power(Dimension::AREA, -50), Some(Dimension::NONE));
    }
}
