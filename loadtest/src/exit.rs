//! The exit codes: for scripts and CI.
//!
//! Part of the interface: `docs/loadtest.md` and tests name them. k6's 99 for a failed threshold is not copied: small numbers read better.

/// The run is complete, and no condition was met.
pub const OK: u8 = 0;
/// The run failed: target unreachable, server under test died, no descriptors, a result that could not be written.
pub const FAILURE: u8 = 1;
/// The arguments are wrong.
pub const USAGE: u8 = 2;
/// A `--fail-if` condition was met.
pub const THRESHOLD: u8 = 3;
/// The generator was not fit to judge; `--allow-saturated` makes it a warning.
pub const NOT_TRUSTWORTHY: u8 = 4;
/// A scenario's two sides did not differ as declared.
pub const NO_CONTRAST: u8 = 5;
/// Interrupted by SIGINT; partial results were printed. SIGTERM: 143, SIGHUP: 129.
pub const INTERRUPTED: u8 = of_signal(2);

/// 128 + the signal's number, as shells count.
#[must_use]
pub const fn of_signal(signal: u8) -> u8 {
    128 + signal
}

/// The most important of two exit codes, for several scenarios or reasons.
#[must_use]
pub fn worst(a: u8, b: u8) -> u8 {
    /// Most important first: an interrupt explains everything, a failure most of the rest. A contrast is refuted within the bounds of its figures:
    /// an open result of another scenario does not make that less certain.
    const ORDER: [u8; 7] = [INTERRUPTED, USAGE, FAILURE, NO_CONTRAST, NOT_TRUSTWORTHY, THRESHOLD, OK];
    ORDER.into_iter().find(|code| *code == a || *code == b).unwrap_or(FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_ends_is_reported() {
        assert_eq!(worst(OK, OK), OK);
        assert_eq!(worst(OK, NO_CONTRAST), NO_CONTRAST);
        assert_eq!(worst(NO_CONTRAST, NOT_TRUSTWORTHY), NO_CONTRAST);
        assert_eq!(worst(THRESHOLD, FAILURE), FAILURE);
        assert_eq!(worst(INTERRUPTED, FAILURE), INTERRUPTED);
    }
}
