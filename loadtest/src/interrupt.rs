//! SIGINT (Ctrl-C), SIGTERM (`timeout`, a job runner) and SIGHUP (a closed terminal): the first asks for an early end with partial
//! results, the second ends the program at once.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::exit;
use crate::sys;

/// Whether a signal has asked for an early end, and which.
#[derive(Clone, Debug)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Whether a signal has arrived.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// 128 + the signal's number, as shells count.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::try_from(self.signal.load(Ordering::Relaxed)).map_or(exit::INTERRUPTED, exit::of_signal)
    }
}

impl Deref for Interrupt {
    type Target = AtomicBool;

    fn deref(&self) -> &AtomicBool {
        &self.asked
    }
}

/// Watches for these signals from now on. An ignored SIGHUP stays ignored: nohup(1) asks for that.
///
/// # Errors
/// sigaction(2).
pub fn watch() -> std::io::Result<Interrupt> {
    let interrupt =
        Interrupt { asked: Arc::new(AtomicBool::new(false)), signal: Arc::new(AtomicUsize::new(SIGINT.cast_unsigned() as usize)) };
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if signal == SIGHUP && sys::is_ignored(signal)? {
            continue;
        }
        let number = signal.cast_unsigned();
        // In this order: the first signal finds the flag unset and only sets it; the second finds it set.
        let code = i32::from(u8::try_from(number).map_or(exit::INTERRUPTED, exit::of_signal));
        flag::register_conditional_shutdown(signal, code, Arc::clone(&interrupt.asked))?;
        flag::register_usize(signal, Arc::clone(&interrupt.signal), number as usize)?;
        flag::register(signal, Arc::clone(&interrupt.asked))?;
    }
    Ok(interrupt)
}
