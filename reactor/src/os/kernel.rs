//! The oldest kernel that is supported, and a word when this one says that it is older. Read next: `linux.rs`.

use std::sync::Once;

use super::sys;

/// Linux 4.5: `EPOLLEXCLUSIVE` (epoll_ctl(2)). Everything else that the loop calls is older.
const OLDEST: (u32, u32) = (4, 5);

/// Says so, once in a process, when the kernel is older than [`OLDEST`]. A warning and no refusal: a sandbox that emulates Linux may give an
/// old number and yet have every call; where one is missing, the call fails by itself.
pub(super) fn warn_of_an_old_one() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(release) = sys::kernel_release() else { return };
        if version(&release).is_some_and(|version| version < OLDEST) {
            log::warn!("this kernel is Linux {release}; {}.{} or newer is supported", OLDEST.0, OLDEST.1);
        }
    });
}

/// `6.1.0-18-amd64` is (6, 1); what does not begin with two numbers is nothing.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{OLDEST, version};
    use crate::os::sys;

    #[test]
    fn a_kernel_is_older_by_its_numbers_and_not_by_its_letters() {
        for (release, is_older) in
            [("4.4.0", true), ("3.10.0-1160.el7.x86_64", true), ("4.5-rc1", false), ("4.19.0", false), ("10.0", false)]
        {
            assert_eq!(version(release).map(|version| version < OLDEST), Some(is_older), "{release}");
        }
        for release in ["", "unknown", "6"] {
            assert_eq!(version(release), None, "{release}");
        }
    }

    #[test]
    fn this_kernel_says_what_it_is() {
        assert!(version(&sys::kernel_release().unwrap()).is_some());
    }
}
