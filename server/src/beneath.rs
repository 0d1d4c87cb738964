//! Opens files that are beneath a directory, wherever their paths and the symlinks on the way lead.
//!
//! Checking the text of a path cannot do that, because a symlink may change between the check and the open. openat2(2) does it in one call
//! (`RESOLVE_BENEATH`, Linux 5.6). A seccomp filter that does not know the call answers it with EPERM or ENOSYS: container runtimes and systemd
//! have such filters. Then this module opens one component after the other and follows symlinks itself, as the crate cap-std does.
//! Read next: `routes/files.rs`, which serves the files; `probe.rs`, which asks at the start.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::{Errno, retry_on_intr};

/// As many symlinks as the kernel follows for one path (path_resolution(7)).
const SYMLINKS_MAX: u32 = 40;

/// The kernel's limit of a path with its final NUL, in bytes (`PATH_MAX`, limits.h).
const PATH_BYTES_MAX: usize = 4096;

/// The error with which this system answers openat2(2) whatever is asked: EPERM or ENOSYS. None if the call works.
pub(crate) fn openat2_error() -> Option<Errno> {
    static ERROR: OnceLock<Option<Errno>> = OnceLock::new();
    if let Some(known) = ERROR.get() {
        return *known;
    }
    match openat2(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty()) {
        // For want of descriptors or memory nothing is known yet.
        Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => None,
        result => *ERROR.get_or_init(|| result.err().filter(|error| [Errno::PERM, Errno::NOSYS].contains(error))),
    }
}

/// Opens a file for reading that is beneath `directory`. Blocks as open(2) does.
///
/// # Errors
/// Those of open(2); EXDEV if the path leads out of the directory, ELOOP if it has too many symlinks; `InvalidInput` if it contains NUL.
pub(crate) fn open_beneath(directory: &File, path: &str) -> io::Result<File> {
    open_with(if openat2_error().is_none() { by_openat2 } else { by_components }, directory, path)
}

type Resolve = fn(&File, &str, OFlags) -> Result<File, Errno>;

fn open_with(resolve: Resolve, directory: &File, path: &str) -> io::Result<File> {
    // O_NONBLOCK: opening a pipe that has no writer would hold the worker forever (open(2)).
    match resolve(directory, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Err(Errno::AGAIN) => open_leased(resolve, directory, path),
        result => Ok(result?),
    }
}

/// Opens a file on which another process holds a lease (a file server, for its clients: `F_SETLEASE`, fcntl(2)). With O_NONBLOCK the error is EAGAIN
/// until the holder gives the lease up, which it must within `/proc/sys/fs/lease-break-time` (45 s). A worker may wait for that, once it knows
/// that the file is not a pipe.
fn open_leased(resolve: Resolve, directory: &File, path: &str) -> io::Result<File> {
    // O_PATH does not open the file itself (open(2)), so neither a lease nor a pipe can block here.
    let found = resolve(directory, path, OFlags::PATH)?;
    if !found.metadata()?.is_file() {
        return Err(Errno::AGAIN.into());
    }
    // The descriptor names the file that was found beneath the directory, whatever its path leads to by now (proc_pid_fd(5)).
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

fn by_openat2(directory: &File, path: &str, flags: OFlags) -> Result<File, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: a rename or a mount came in between, and the kernel cannot prove that the path stayed beneath. A few more attempts.
    for _ in 0..8 {
        match openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result.map(File::from),
        }
    }
    Err(Errno::AGAIN)
}

/// Does the same without openat2(2). Each component is opened relative to the directory before it with O_NOFOLLOW, so no symlink is followed
/// by the kernel, and `..` is never given to it: a directory that is moved meanwhile cannot lead out. At most three descriptors are open at
/// once. Test: `both_ways_to_resolve_a_path_find_the_same_file`.
fn by_components(root: &File, path: &str, flags: OFlags) -> Result<File, Errno> {
    if path.is_empty() || path.len() >= PATH_BYTES_MAX {
        return Err(if path.is_empty() { Errno::NOENT } else { Errno::NAMETOOLONG });
    }
    let mut left = components(path.as_bytes())?;
    // The names from the root to the current directory, free of symlinks. None is the root itself.
    let (mut names, mut current) = (Vec::new(), None::<OwnedFd>);
    let mut symlinks = 0;
    while let Some(name) = left.pop() {
        let at = current.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        if name == ".." {
            if names.pop().is_none() {
                return Err(Errno::XDEV);
            }
            current = None;
            for name in &names {
                current = Some(open_directory(current.as_ref().map_or(root.as_fd(), AsFd::as_fd), name)?);
            }
            continue;
        }
        let is_last = left.is_empty();
        let found = if name == "." || !is_last {
            open_directory(at, &name)
        } else {
            retry_on_intr(|| openat(at, &name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()))
        };
        let is_symlink = match &found {
            // O_PATH with O_NOFOLLOW opens a symlink itself.
            Ok(found) => is_last && FileType::from_raw_mode(fstat(found)?.st_mode) == FileType::Symlink,
            Err(Errno::LOOP | Errno::NOTDIR) => true,
            Err(_) => false,
        };
        match (is_symlink.then(|| retry_on_intr(|| readlinkat(at, &name, Vec::new()))), found) {
            (Some(Ok(target)), _) => {
                symlinks += 1;
                if symlinks > SYMLINKS_MAX {
                    return Err(Errno::LOOP);
                }
                left.extend(components(target.as_bytes())?);
            }
            (_, Err(error)) => return Err(error),
            (_, Ok(file)) if is_last && name != "." => return Ok(file.into()),
            (_, Ok(_)) if name == "." => {}
            (_, Ok(directory)) => {
                current = Some(directory);
                names.push(name);
            }
        }
    }
    // The path ends with a directory.
    let at = current.as_ref().map_or(root.as_fd(), AsFd::as_fd);
    retry_on_intr(|| openat(at, ".", flags | OFlags::CLOEXEC, Mode::empty())).map(File::from)
}

fn open_directory(at: BorrowedFd<'_>, name: &OsString) -> Result<OwnedFd, Errno> {
    retry_on_intr(|| openat(at, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()))
}

/// The components of a relative path, the last one first. A slash at the end is a last component `.`: what is before it must be a directory.
fn components(path: &[u8]) -> Result<Vec<OsString>, Errno> {
    if path.starts_with(b"/") {
        return Err(Errno::XDEV);
    }
    let is_directory = path.ends_with(b"/");
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(|name| OsString::from_vec(name.to_vec()));
    let mut names: Vec<OsString> = names.chain(is_directory.then(|| OsString::from("."))).collect();
    names.reverse();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use proptest::prelude::*;

    use super::*;

    struct Tree {
        directory: tempfile::TempDir,
        root: File,
    }

    fn tree() -> Tree {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("sub/deep")).expect("mkdir");
        fs::write(directory.path().join("secret"), "secret").expect("written");
        for file in ["a", "sub/b", "sub/deep/c"] {
            fs::write(root.join(file), file).expect("written");
        }
        for (link, target) in [
            ("to-a", "a"),
            ("to-sub", "sub"),
            ("to-sub-slash", "sub/"),
            ("to-deep", "to-sub/deep"),
            ("sub/to-a", "../a"),
            ("sub/deep/to-root", "../.."),
            ("up", ".."),
            ("out", "../secret"),
            ("absolute", "/etc/hostname"),
            ("circle", "circle"),
            ("dangling", "nothing"),
            ("to-here", "."),
        ] {
            symlink(target, root.join(link)).expect("linked");
        }
        Tree { root: File::open(root).expect("opened"), directory }
    }

    /// The file that was found, or why none was.
    fn found(resolve: Resolve, tree: &Tree, path: &str) -> Result<(u64, u64), Option<i32>> {
        let file = open_with(resolve, &tree.root, path).map_err(|e| e.raw_os_error())?;
        file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).map_err(|e| e.raw_os_error())
    }

    const NAMES: [&str; 21] = [
        "a",
        "b",
        "c",
        "sub",
        "deep",
        "to-a",
        "to-sub",
        "to-sub-slash",
        "to-deep",
        "to-root",
        "up",
        "out",
        "absolute",
        "circle",
        "dangling",
        "to-here",
        "..",
        "..",
        ".",
        "",
        "nothing",
    ];

    #[test]
    fn both_ways_to_resolve_a_path_find_the_same_file() {
        if openat2_error().is_some() {
            eprintln!("skipped: there is no openat2 to compare with");
            return;
        }
        let tree = tree();
        let compare = |path: &str| (found(by_components, &tree, path), found(by_openat2, &tree, path));
        let mut config = ProptestConfig::with_cases(4096);
        config.failure_persistence = None;
        proptest!(config, |(names in proptest::collection::vec(proptest::sample::select(&NAMES[..]), 1..7))| {
            let path = names.join("/");
            let (components, openat2) = compare(&path);
            prop_assert_eq!(components, openat2, "{}", path);
        });
        let long = "./".repeat(2047) + "a";
        for path in [
            "",
            "a/",
            "a/.",
            "sub/",
            "sub/.",
            "to-a/",
            "to-sub/",
            "/a",
            "/",
            "sub/to-a",
            "to-deep/c",
            "sub/deep/to-root/a",
            &long,
            &long[1..],
            "a\0b",
        ] {
            let (components, openat2) = compare(path);
            assert_eq!(components, openat2, "{path}");
        }
        assert!(found(by_components, &tree, "to-deep/c").is_ok(), "symlinks that stay beneath are followed");
    }

    #[test]
    fn component_by_component_no_path_leads_out() {
        let tree = tree();
        let secret = fs::metadata(tree.directory.path().join("secret")).map(|metadata| metadata.ino()).expect("it is there");
        for path in
            ["../secret", "out", "up/secret", "sub/../../secret", "sub/deep/to-root/../secret", "to-deep/../../../secret", "absolute"]
        {
            assert_eq!(found(by_components, &tree, path), Err(Some(libc::EXDEV)), "{path}");
        }
        let reaches = |path: &str| found(by_components, &tree, path).is_ok_and(|(_, inode)| inode == secret);
        assert!(NAMES.iter().flat_map(|a| NAMES.map(|b| format!("{a}/{b}/secret"))).all(|path| !reaches(&path)));
    }

    #[test]
    fn component_by_component_a_pipe_does_not_block() {
        let tree = tree();
        let made = std::process::Command::new("mkfifo").arg(tree.directory.path().join("root/pipe")).status().expect("mkfifo");
        assert!(made.success());
        assert!(found(by_components, &tree, "pipe").is_ok(), "opened without a writer");
    }
}
