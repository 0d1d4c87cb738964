//! The program `loadtest`: everything is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    loadtest::cli(std::env::args_os())
}
