//! How the program ends, as a number: for scripts and CI.
//!
//! Part of the interface: `docs` and tests name them. k6's 99 for a failed threshold is not copied: small numbers read better.

/// All is well.
pub const OK: u8 = 0;
/// The run failed: target unreachable, server under test died, no descriptors.
pub const FAILURE: u8 = 1;
/// The arguments are wrong.
pub const USAGE: u8 = 2;
/// A `--fail-if` condition was met.
pub const THRESHOLD: u8 = 3;
/// The generator was not fit to judge; `--allow-saturated` makes it a warning.
pub const NOT_TRUSTWORTHY: u8 = 4;
/// A scenario's two sides did not differ as declared.
pub const NO_CONTRAST: u8 = 5;
/// Interrupted; partial results were printed (128 + SIGINT, as shells count).
pub const INTERRUPTED: u8 = 130;

/// The code that says most, of several scenarios or reasons.
#[must_use]
pub fn worst(a: u8, b: u8) -> u8 {
    /// Most important first: an interrupt explains everything, a failure most of the rest.
    const ORDER: [u8; 7] = [INTERRUPTED, USAGE, FAILURE, NOT_TRUSTWORTHY, NO_CONTRAST, THRESHOLD, OK];
    ORDER.into_iter().find(|code| *code == a || *code == b).unwrap_or(FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_ends_is_reported() {
        assert_eq!(worst(OK, OK), OK);
        assert_eq!(worst(OK, NO_CONTRAST), NO_CONTRAST);
        assert_eq!(worst(NO_CONTRAST, NOT_TRUSTWORTHY), NOT_TRUSTWORTHY);
        assert_eq!(worst(THRESHOLD, FAILURE), FAILURE);
        assert_eq!(worst(INTERRUPTED, FAILURE), INTERRUPTED);
    }
}
