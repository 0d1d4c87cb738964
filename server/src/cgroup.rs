//! The limits of this process's control groups, of version 1 and of version 2: memory, CPU time, and the number of threads.
//!
//! A container is a control group, and `/proc/meminfo` and the number of processors describe the machine around it. A server that sizes
//! itself by the machine is killed by the kernel when it reaches the limit of its group. The limits of the groups above count too:
//! Kubernetes sets some of them on the pod and not on the container.
//!
//! `/proc/self/cgroup` has the path of the group in each hierarchy, and `/proc/self/mountinfo` has the directory where the hierarchy is
//! mounted (cgroups(7), proc_pid_mountinfo(5)). Every function takes the directory that contains `proc` and `sys`, so that tests use
//! trees of their own. Read next: `process.rs` and `config.rs`, which ask.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The directory of the real system: it contains `proc`, and the paths in `mountinfo` begin there.
pub const SYSTEM: &str = "/";

/// A limit, and the file that sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes, thousandths of a CPU, or threads.
    pub value: u64,
    /// The name of the file, with the version of control groups.
    pub source: &'static str,
    /// The directory of the group.
    pub group: PathBuf,
}

/// The version 1 value for "no limit" is the largest multiple of the page size (`PAGE_COUNTER_MAX`, include/linux/page_counter.h). No machine has
/// this much memory, whatever its page size.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// The least memory limit, in bytes, of the process's group and of the groups above it. None if there is no limit, or if it cannot be read.
#[must_use]
pub fn memory_max(system: &Path) -> Option<Limit> {
    let groups = Groups::read(system);
    let version_2 = groups.of("memory", Version::Two).into_iter().filter_map(|group| {
        let value = read(&group.join("memory.max"))?.trim().parse().ok()?;
        Some(Limit { value, source: "memory.max, cgroup v2", group })
    });
    let version_1 = groups.of("memory", Version::One).into_iter().enumerate().filter_map(|(level, group)| {
        // Before Linux 5.11 a group could leave the groups below it unlimited.
        if level > 0 && read(&group.join("memory.use_hierarchy")).is_some_and(|value| value.trim() == "0") {
            return None;
        }
        let own = read(&group.join("memory.limit_in_bytes")).and_then(|text| text.trim().parse().ok());
        // The kernel's own minimum over the groups above, which a container often cannot see.
        let above = read(&group.join("memory.stat")).and_then(|text| number_after(&text, "hierarchical_memory_limit"));
        let value = own.into_iter().chain(above).min()?;
        Some(Limit { value, source: "memory.limit_in_bytes, cgroup v1", group })
    });
    version_2.chain(version_1).filter(|limit| limit.value < UNLIMITED_BYTES).min_by_key(|limit| limit.value)
}

/// The least CPU quota, in thousandths of a CPU, of the process's group and of the groups above it. The kernel stops all threads of a group that
/// has used its quota until the next period of (usually) 100 ms, so more threads than this make every client wait.
#[must_use]
pub fn cpu_quota(system: &Path) -> Option<Limit> {
    let groups = Groups::read(system);
    let version_2 = groups.of("cpu", Version::Two).into_iter().filter_map(|group| {
        let text = read(&group.join("cpu.max"))?;
        let (quota, period) = text.trim().split_once(' ')?;
        Some(Limit { value: thousandths(quota, period)?, source: "cpu.max, cgroup v2", group })
    });
    let version_1 = groups.of("cpu", Version::One).into_iter().filter_map(|group| {
        // A quota of -1 is no limit; it does not parse.
        let (quota, period) = (read(&group.join("cpu.cfs_quota_us"))?, read(&group.join("cpu.cfs_period_us"))?);
        Some(Limit { value: thousandths(quota.trim(), period.trim())?, source: "cpu.cfs_quota_us, cgroup v1", group })
    });
    version_2.chain(version_1).min_by_key(|limit| limit.value)
}

/// The limit of threads that is nearest, of the process's group and of the groups above it, and how many threads the group has now.
#[must_use]
pub fn threads_max(system: &Path) -> Option<(Limit, u64)> {
    let groups = Groups::read(system);
    let directories = [(Version::Two, "pids.max, cgroup v2"), (Version::One, "pids.max, cgroup v1")];
    let limits = directories.into_iter().flat_map(|(version, source)| {
        groups.of("pids", version).into_iter().filter_map(move |group| {
            let value = read(&group.join("pids.max"))?.trim().parse().ok()?;
            let now = read(&group.join("pids.current"))?.trim().parse().ok()?;
            Some((Limit { value, source, group }, now))
        })
    });
    limits.min_by_key(|(limit, now)| limit.value.saturating_sub(*now))
}

/// CPUs that this process can use: those that it may run on (`affinity`: sched_getaffinity(2), which a cpuset also limits), or the whole CPUs of its
/// quota where these are fewer. At least 1. With the limit, if the quota decides.
#[must_use]
pub fn cpus(system: &Path, affinity: u32) -> (u32, Option<Limit>) {
    match cpu_quota(system) {
        Some(limit) if limit.value / 1000 < u64::from(affinity) => {
            (u32::try_from(limit.value / 1000).unwrap_or(affinity).max(1), Some(limit))
        }
        _ => (affinity.max(1), None),
    }
}

fn thousandths(quota: &str, period: &str) -> Option<u64> {
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    quota.saturating_mul(1000).checked_div(period)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A line of `mountinfo` for a control-group filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The group that the mount point shows. `/` is the whole hierarchy.
    root: PathBuf,
    /// Where it is mounted.
    point: PathBuf,
    /// Version 1: its controllers are among these options.
    options: Vec<String>,
}

/// A line of `/proc/self/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Membership {
    version: Version,
    controllers: Vec<String>,
    path: PathBuf,
}

/// What the two files say.
struct Groups<'a> {
    system: &'a Path,
    memberships: Vec<Membership>,
    mounts: Vec<Mount>,
}

impl Groups<'_> {
    fn read(system: &Path) -> Groups<'_> {
        let lines = |file: &str| read(&system.join(file)).unwrap_or_default();
        Groups {
            system,
            memberships: lines("proc/self/cgroup").lines().filter_map(membership).collect(),
            mounts: lines("proc/self/mountinfo").lines().filter_map(mount).collect(),
        }
    }

    /// The directories of the process's group and of the groups above it, its own first. A controller is in one hierarchy at a time, so for
    /// one version the list has directories without the files that are asked for.
    fn of(&self, controller: &str, version: Version) -> Vec<PathBuf> {
        let has = |names: &[String]| version == Version::Two || names.iter().any(|name| name == controller);
        let Some(member) = self.memberships.iter().find(|member| member.version == version && has(&member.controllers)) else {
            return Vec::new();
        };
        let mounts = self.mounts.iter().filter(|mount| mount.version == version && has(&mount.options));
        // The mount that shows the group itself, and the least of what is above. Otherwise any: in a container whose own path is relative
        // to the machine, the mount point is the container's group.
        let Some(mount) = mounts.max_by_key(|mount| (below(&member.path, &mount.root).is_some(), mount.root.components().count())) else {
            return Vec::new();
        };
        let point = self.system.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        let group = point.join(below(&member.path, &mount.root).unwrap_or(Path::new("")));
        group.ancestors().take_while(|group| group.starts_with(&point)).filter(|group| group.is_dir()).map(Path::to_path_buf).collect()
    }
}

/// The part of `path` below `root`. None if it is elsewhere: also for `/../x`, a group outside of this cgroup namespace.
fn below<'a>(path: &'a Path, root: &Path) -> Option<&'a Path> {
    path.strip_prefix(root).ok().filter(|rest| rest.components().all(|part| matches!(part, Component::Normal(_))))
}

/// `ID:CONTROLLER,CONTROLLER:PATH`; in version 2 the id is 0 and there are no controllers.
fn membership(line: &str) -> Option<Membership> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let version = if controllers.is_empty() { Version::Two } else { Version::One };
    Some(Membership { version, controllers: controllers.split(',').map(str::to_owned).collect(), path: path.into() })
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG…] - TYPE SOURCE SUPER_OPTIONS`.
fn mount(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let mut filesystem = filesystem.split(' ');
    let version = match filesystem.next()? {
        "cgroup" => Version::One,
        "cgroup2" => Version::Two,
        _ => return None,
    };
    let options = filesystem.nth(1)?.split(',').map(str::to_owned).collect();
    Some(Mount { version, root: unescaped(mount.next()?).into(), point: unescaped(mount.next()?).into(), options })
}

/// Space, tab, newline and backslash are `\` and three octal digits.
fn unescaped(field: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(field.to_owned(), |text, (code, char)| text.replace(code, char))
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
