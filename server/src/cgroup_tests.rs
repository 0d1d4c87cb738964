//! Trees of files as systems of several kinds have them, and a real group where one can be made.

use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const MIB: u64 = 1 << 20;

/// A system with these files.
fn system(files: &[(&str, &str)]) -> TempDir {
    let system = tempfile::tempdir().expect("a directory");
    for (path, content) in files {
        let path = system.path().join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("mkdir");
        fs::write(path, content).expect("written");
    }
    system
}

const V2: &str = "25 20 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
const V1_MEMORY: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw shared:7 - cgroup cgroup rw,memory\n";
const V1_CPU: &str = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
/// A process in a group of version 1, and version 2 without controllers next to it, as systemd's hybrid mode has it.
const HYBRID: &str = "9:name=systemd:/\n4:memory:/service\n1:cpu,cpuacct:/service\n0::/service\n";

fn memory_bytes(files: &[(&str, &str)]) -> Option<u64> {
    memory_max(system(files).path()).map(|limit| limit.value)
}

#[test]
fn the_memory_limit_of_a_version_2_group_and_of_its_parents_counts() {
    let own = ("sys/fs/cgroup/pod/app/memory.max", "134217728\n");
    let parent = ("sys/fs/cgroup/pod/memory.max", "67108864\n");
    let files = [("proc/self/cgroup", "0::/pod/app\n"), ("proc/self/mountinfo", V2)];
    assert_eq!(memory_bytes(&[&files[..], &[own]].concat()), Some(128 * MIB));
    assert_eq!(memory_bytes(&[&files[..], &[own, parent]].concat()), Some(64 * MIB), "the parent's is less");
    let unlimited = ("sys/fs/cgroup/pod/app/memory.max", "max\n");
    assert_eq!(memory_bytes(&[&files[..], &[unlimited]].concat()), None);
    assert_eq!(memory_bytes(&[&files[..], &[unlimited, parent]].concat()), Some(64 * MIB), "the parent's is the only one");
}

#[test]
fn the_memory_limit_of_a_version_1_group_counts_also_in_a_hybrid_system() {
    let mounts = format!("{V1_MEMORY}{V1_CPU}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    let system = system(&[
        ("proc/self/cgroup", HYBRID),
        ("proc/self/mountinfo", &mounts),
        ("sys/fs/cgroup/memory/service/memory.limit_in_bytes", "67108864\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/unified/service/cgroup.procs", "1\n"),
    ]);
    let limit = memory_max(system.path()).expect("there is one");
    assert_eq!((limit.value, limit.source), (64 * MIB, "memory.limit_in_bytes, cgroup v1"));
    assert!(limit.group.ends_with("sys/fs/cgroup/memory/service"));
}

#[test]
fn a_version_1_limit_above_what_a_container_sees_counts() {
    // Docker without a cgroup namespace: the path is the machine's, and the mount shows the container's group only.
    let files = [
        ("proc/self/cgroup", "4:memory:/kubepods/pod7/c1\n"),
        ("proc/self/mountinfo", "35 31 0:32 /kubepods/pod7/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/memory.stat", "cache 0\nhierarchical_memory_limit 67108864\nhierarchical_memsw_limit 1\n"),
    ];
    assert_eq!(memory_bytes(&files), Some(64 * MIB));
    assert_eq!(memory_bytes(&files[..3]), None, "the largest number of pages is no limit");
}

#[test]
fn a_version_1_parent_without_hierarchy_does_not_count() {
    let files = [
        ("proc/self/cgroup", "4:memory:/a/b\n"),
        ("proc/self/mountinfo", V1_MEMORY),
        ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "134217728\n"),
        ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "67108864\n"),
        ("sys/fs/cgroup/memory/a/memory.use_hierarchy", "0\n"),
    ];
    assert_eq!(memory_bytes(&files), Some(128 * MIB));
    assert_eq!(memory_bytes(&files[..4]), Some(64 * MIB));
}

#[test]
fn the_mount_point_is_read_and_not_assumed() {
    for (mount, directory) in [
        ("25 20 0:22 / /mnt/my\\040groups rw - cgroup2 none rw\n", "mnt/my groups/app"),
        ("25 20 0:22 / /cgroup rw - cgroup2 none rw\n", "cgroup/app"),
        // Another part of the hierarchy is mounted as well: the one that shows the group counts.
        ("24 20 0:22 /other /elsewhere rw - cgroup2 none rw\n25 20 0:22 / /cgroup rw - cgroup2 none rw\n", "cgroup/app"),
        ("24 20 0:22 / /cgroup rw - cgroup2 none rw\n25 20 0:22 /app /narrow rw - cgroup2 none rw\n", "narrow"),
        // None shows it, as in a container that was given the mount of its machine: the mount point is the nearest.
        ("24 20 0:22 /docker/x /cgroup rw - cgroup2 none rw\n", "cgroup"),
    ] {
        let file = format!("{directory}/memory.max");
        let files = [("proc/self/cgroup", "0::/app\n"), ("proc/self/mountinfo", mount), (&*file, "67108864")];
        assert_eq!(memory_bytes(&files), Some(64 * MIB), "{mount}");
    }
    // A path out of the namespace (cgroup_namespaces(7)) leads to no directory of another group.
    let files = [("proc/self/cgroup", "0::/../other\n"), ("proc/self/mountinfo", V2), ("sys/fs/other/memory.max", "67108864")];
    assert_eq!(memory_bytes(&files), None);
}

#[test]
fn a_group_that_is_not_mounted_here_is_limited_by_those_above() {
    let files = [("proc/self/cgroup", "0::/a/b/c\n"), ("proc/self/mountinfo", V2), ("sys/fs/cgroup/a/memory.max", "67108864")];
    assert_eq!(memory_bytes(&files), Some(64 * MIB));
}

#[test]
fn a_cpu_quota_of_either_version_limits_the_cpus_and_leaves_at_least_one() {
    for (quota, affinity, expected) in
        [("200000 100000", 16, 2), ("150000 100000", 16, 1), ("50000 100000", 16, 1), ("max 100000", 16, 16), ("800000 100000", 4, 4)]
    {
        let files = [("proc/self/cgroup", "0::/app\n"), ("proc/self/mountinfo", V2), ("sys/fs/cgroup/app/cpu.max", quota)];
        let (found, limit) = cpus(system(&files).path(), affinity);
        assert_eq!((found, limit.is_some()), (expected, expected < affinity), "{quota} of {affinity}");
    }
    for (quota, expected) in [("300000", 3), ("-1", 16), ("1000", 1)] {
        let files = [
            ("proc/self/cgroup", HYBRID),
            ("proc/self/mountinfo", V1_CPU),
            ("sys/fs/cgroup/cpu,cpuacct/service/cpu.cfs_quota_us", quota),
            ("sys/fs/cgroup/cpu,cpuacct/service/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(cpus(system(&files).path(), 16).0, expected, "{quota}");
    }
    let parents = [
        ("proc/self/cgroup", "0::/pod/app\n"),
        ("proc/self/mountinfo", V2),
        ("sys/fs/cgroup/pod/app/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/pod/cpu.max", "400000 100000\n"),
    ];
    assert_eq!(cpus(system(&parents).path(), 16).0, 4, "the pod's quota is the containers'");
}

#[test]
fn the_nearest_limit_of_threads_is_found() {
    let files = [
        ("proc/self/cgroup", "8:pids:/a/b\n"),
        ("proc/self/mountinfo", "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"),
        ("sys/fs/cgroup/pids/a/b/pids.max", "100\n"),
        ("sys/fs/cgroup/pids/a/b/pids.current", "7\n"),
        ("sys/fs/cgroup/pids/a/pids.max", "40\n"),
        ("sys/fs/cgroup/pids/a/pids.current", "38\n"),
    ];
    let system = system(&files);
    let (limit, now) = threads_max(system.path()).expect("there are two");
    assert_eq!((limit.value, now), (40, 38));
}

#[test]
fn without_the_files_there_is_no_limit() {
    let nothing = system(&[]);
    assert_eq!(memory_max(nothing.path()), None);
    assert_eq!(cpus(nothing.path(), 0), (1, None));
    assert_eq!(threads_max(nothing.path()), None);
}

proptest! {
    #[test]
    fn no_content_of_the_files_makes_it_panic(membership in ".*", mountinfo in "(.* - cgroup2? .* .*\n)*", limit in ".*") {
        let files = [("proc/self/cgroup", &*membership), ("proc/self/mountinfo", &mountinfo), ("sys/fs/cgroup/cpu.max", &limit)];
        let system = system(&files);
        let _ = (memory_max(system.path()), cpus(system.path(), 4), threads_max(system.path()));
        let _ = (super::membership(&membership), mount(&mountinfo), thousandths(&limit, &limit));
    }
}

/// Only below a group that no manager owns, which is the one at the top of what is mounted: a group that systemd or a container's
/// manager has made is theirs to divide.
#[test]
fn a_real_quota_is_read_back() {
    let groups = Groups::read(Path::new(SYSTEM));
    let top = [Version::One, Version::Two].into_iter().find_map(|version| {
        let group = groups.of("cpu", version);
        let file = if version == Version::One { "cpu.cfs_quota_us" } else { "cpu.max" };
        (group.len() == 1).then(|| (group[0].clone(), file)).filter(|(top, _)| top.join("cgroup.procs").exists())
    });
    let made = top.and_then(|(top, file)| {
        let group = top.join(format!("eagain-test-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        Some((group, file))
    });
    let Some((group, file)) = made else {
        eprintln!("skipped: no control group can be made here");
        return;
    };
    let quota = if file == "cpu.max" { "300000 100000" } else { "300000" };
    let set = fs::write(group.join(file), quota);
    // The same mounts, and a process in that group.
    let name = group.file_name().expect("it has one").to_string_lossy().into_owned();
    let fixture = system(&[("proc/self/cgroup", &format!("1:cpu:/{name}\n0::/{name}\n"))]);
    let mounted = fs::read_to_string("/proc/self/mountinfo").expect("this is Linux");
    fs::write(fixture.path().join("proc/self/mountinfo"), mounted).expect("written");
    std::os::unix::fs::symlink("/sys", fixture.path().join("sys")).expect("linked");
    let found = cpu_quota(fixture.path());
    fs::remove_dir(&group).expect("it is empty");
    if set.is_err() {
        eprintln!("skipped: the quota of a control group cannot be set here");
        return;
    }
    assert_eq!(found.map(|limit| limit.value), Some(3000));
}
