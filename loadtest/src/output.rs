//! Where results go: standard output, standard error, files. A result that was measured is never lost because one of them cannot be written.
//!
//! Each output is tried, also after another one failed; what could not be written is reported, and the exit code says so. An old file is
//! replaced only when the new one is complete. Read next: `scenario_command.rs`, `run.rs`.

use std::fmt::Display;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Permissions of a new file, before the umask: what open(2) of every other tool asks for.
const FILE_MODE: u32 = 0o666;

/// Writes a line to standard error. A closed or full standard error is not a reason to lose a run: the line is dropped (`eprintln!` would
/// panic).
pub fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes to standard output. A reader that has gone (`| head`) has what it wanted.
///
/// # Errors
/// A sentence: no space left on the device, an I/O error.
pub fn print(text: &str) -> Result<(), String> {
    write_all(&mut io::stdout(), text).map_err(|e| format!("cannot write the result to standard output: {e}"))
}

fn write_all(to: &mut dyn Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Where the JSON document goes.
#[derive(Debug)]
pub enum JsonOutput {
    /// None was asked for.
    None,
    /// Standard output; the summary goes to standard error.
    Stdout,
    /// A regular file, replaced as a whole by rename(2).
    Replace {
        /// As it was given, for messages.
        path: PathBuf,
        /// What is replaced: the file that a symbolic link leads to.
        target: PathBuf,
    },
    /// A pipe, a device, or a file in a directory without write permission: written to directly.
    Direct {
        /// As it was given, for messages.
        path: PathBuf,
        /// Open since before the run.
        file: File,
    },
}

impl JsonOutput {
    /// Checks that it can be written, without changing what is there: a wrong path must not cost a run, and a run that fails must not
    /// cost the old file.
    ///
    /// # Errors
    /// A sentence with the path.
    pub fn open(path: Option<&Path>) -> Result<JsonOutput, String> {
        let Some(path) = path else { return Ok(JsonOutput::None) };
        if path.as_os_str() == "-" || path.as_os_str() == "/dev/stdout" {
            return Ok(JsonOutput::Stdout);
        }
        let fail = |e: io::Error| format!("cannot write --json '{}': {e}", path.display());
        let is_regular = match fs::metadata(path) {
            Ok(metadata) => metadata.is_file(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => return Err(fail(e)),
        };
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        // Created and removed again: a run that is killed leaves no half-written file.
        match if is_regular { create_beside(&target).map(drop) } else { Err(io::ErrorKind::PermissionDenied.into()) } {
            Ok(()) => Ok(JsonOutput::Replace { path: path.to_owned(), target }),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && target.exists() => {
                let file = File::options().write(true).open(&target).map_err(fail)?;
                Ok(JsonOutput::Direct { path: path.to_owned(), file })
            }
            Err(e) => Err(fail(e)),
        }
    }

    /// Whether standard output belongs to the document, and the text for people to standard error.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        matches!(self, JsonOutput::Stdout)
    }

    /// Writes the document.
    ///
    /// # Errors
    /// A sentence with the path. An old file is then as it was.
    pub fn write(&mut self, document: &Value) -> Result<(), String> {
        let text = format!("{document:#}\n");
        let (path, written) = match self {
            JsonOutput::None => return Ok(()),
            JsonOutput::Stdout => return print(&text),
            JsonOutput::Replace { path, target } => (path, replace(target, &text)),
            JsonOutput::Direct { path, file } => (path, file.write_all(text.as_bytes()).and_then(|()| cut(file, text.len()))),
        };
        written.map_err(|e| format!("cannot write --json '{}': {e}", path.display()))
    }

    /// Writes `text` for people and the document, each whatever became of the other.
    ///
    /// # Errors
    /// A sentence for each that could not be written.
    pub fn write_both(&mut self, document: &Value, text: &str) -> Result<(), String> {
        let text = if self.is_stdout() { write_all(&mut io::stderr(), text).map_err(|e| e.to_string()) } else { print(text) };
        let failed: Vec<String> = [text, self.write(document)].into_iter().filter_map(Result::err).collect();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }
}

/// Ends a file after the bytes just written; a pipe or device has no length.
fn cut(file: &File, len: usize) -> io::Result<()> {
    if file.metadata()?.is_file() { file.set_len(len as u64) } else { Ok(()) }
}

fn create_beside(target: &Path) -> io::Result<tempfile::NamedTempFile> {
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".loadtest-").suffix(".tmp").permissions(Permissions::from_mode(FILE_MODE)).tempfile_in(directory)
}

fn replace(target: &Path, text: &str) -> io::Result<()> {
    let mut file = create_beside(target)?;
    file.write_all(text.as_bytes())?;
    if let Ok(old) = fs::metadata(target) {
        file.as_file().set_permissions(old.permissions())?;
    }
    file.persist(target).map(drop).map_err(|e| e.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_old_file_stays_until_the_new_one_is_complete_and_keeps_its_permissions_and_links() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("run.json"), directory.path().join("latest.json"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut output = JsonOutput::open(Some(&link)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no other file remains");
        output.write(&json!({"a": 1})).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  \"a\": 1\n}\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_path_that_cannot_be_written_is_named_before_the_run() {
        for path in ["/no/such/directory/run.json", "/proc/version/run.json"] {
            assert!(JsonOutput::open(Some(Path::new(path))).unwrap_err().contains(path));
        }
    }
}
