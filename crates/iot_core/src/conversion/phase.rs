//! The steps of a conversion.

/// What a conversion does next. It goes through them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The table's changes are not logged yet.
    Starting,
    /// Partitions are made for the rows that are there.
    Partitioning,
    /// Rows are copied.
    Copying,
    /// Indexes are built on the copy.
    Indexing,
    /// The copy is analyzed.
    Analyzing,
    /// Both are compared.
    Verifying,
    /// The copy gets its foreign keys.
    Referencing,
    /// Writers are held back for the last changes.
    Closing,
    /// Names change.
    Swapping,
    /// The table before is put away.
    Cleaning,
    /// Nothing is left to do.
    Finished,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Starting,
        Self::Partitioning,
        Self::Copying,
        Self::Indexing,
        Self::Analyzing,
        Self::Verifying,
        Self::Referencing,
        Self::Closing,
        Self::Swapping,
        Self::Cleaning,
        Self::Finished,
    ];

    /// Its name in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Partitioning => "partitioning",
            Self::Copying => "copying",
            Self::Indexing => "indexing",
            Self::Analyzing => "analyzing",
            Self::Verifying => "verifying",
            Self::Referencing => "referencing",
            Self::Closing => "closing",
            Self::Swapping => "swapping",
            Self::Cleaning => "cleaning",
            Self::Finished => "finished",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == name)
    }

    /// The one after it.
    pub fn next(self) -> Self {
        let place = Self::ALL.iter().position(|each| *each == self).unwrap_or(0);
        Self::ALL.get(place + 1).copied().unwrap_or(Self::Finished)
    }

    /// Whether the table still has its old form, so that the conversion can be taken back.
    pub fn is_before_swap(self) -> bool {
        self < Self::Cleaning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_order() {
        for phase in Phase::ALL {
            assert_eq!(Phase::from_name(phase.as_str()), Some(phase));
            assert_eq!(phase.next() > phase, phase != Phase::Finished);
            assert_eq!(phase.is_before_swap(), phase != Phase::Cleaning && phase != Phase::Finished);
        }
        assert_eq!(Phase::from_name("done"), None);
        assert_eq!(Phase::Swapping.next(), Phase::Cleaning);
    }
}
