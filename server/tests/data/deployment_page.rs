//! docs/deploy.md, and the programs that its blocks are for.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy.md")).expect("the page is there")
}

/// Whether `program` can be run. A test without it says that it was skipped, unless `REQUIRE_TOOLS` is set.
pub(crate) fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        assert!(std::env::var_os("REQUIRE_TOOLS").is_none(), "{program} is not installed");
        eprintln!("skipped: {program} is not installed");
    }
    found
}
