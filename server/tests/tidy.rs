//! Holds together what belongs together: for each deliberate mistake its line, table entry, scenario, test, page and README row; and the
//! rules of the house that a compiler does not know.
#![cfg(feature = "mistakes")]

use std::fs;
use std::path::{Path, PathBuf};

use server::config::Config;
use server::demo::mistakes::{DESCRIPTIONS, PUBLIC, all, switch_on};

/// Lines of a source file before its tests. Longer ones hold more than one idea.
const LINES_MAX: usize = 400;

/// One way that is read from top to bottom, whole: the turn, and the visit to one connection.
const LONG_LINES_MAX: usize = 650;
const LONG_FILES: [&str; 2] = ["reactor/src/event_loop.rs", "reactor/src/visit.rs"];

/// What each page of a failure answers, in this order.
const HEADINGS: [&str; 7] = ["Symptom", "Cause", "The line", "The fix", "Reproduce", "Measured", "See it from outside"];

const CRATES: [&str; 4] = ["reactor", "worker-pool", "server", "loadtest"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// All files below a directory whose name ends so.
fn files(below: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![below.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The sources of all crates without their tests: path from the root, and text up to the tests at its end.
fn sources() -> Vec<(String, String)> {
    let paths = CRATES.iter().flat_map(|name| files(&root().join(name).join("src"), ".rs"));
    let sources = paths.filter(|path| !path.to_string_lossy().ends_with("tests.rs")).map(|path| {
        let text = read(&path);
        let end = text.find("\n#[cfg(test)]\nmod tests").unwrap_or(text.len());
        (shown(&path), text[..end].to_owned())
    });
    sources.collect()
}

/// Every marked line: (slug, why, file). A marker stands at the end of a line of code.
fn markers() -> Vec<(String, String, String)> {
    let mut markers = Vec::new();
    for (file, text) in sources() {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let Some((_, marker)) = line.split_once("// MISTAKE(") else { continue };
            let (slug, why) = marker.split_once("):").unwrap_or_else(|| panic!("{file}: expected MISTAKE(slug): why, found {line}"));
            markers.push((slug.to_owned(), why.trim().to_owned(), file.clone()));
        }
    }
    markers
}

#[test]
fn each_public_mistake_has_one_marked_line_that_says_why_in_the_file_that_the_list_names() {
    let markers = markers();
    for description in DESCRIPTIONS {
        let of_slug: Vec<_> = markers.iter().filter(|(slug, ..)| slug == description.slug).collect();
        let [(_, why, file)] = of_slug[..] else { panic!("{} has {} marked lines: {of_slug:?}", description.slug, of_slug.len()) };
        assert_eq!(file, description.file);
        assert!(why.len() > 20, "{}: {why:?} explains nothing", description.slug);
    }
}

#[test]
fn no_slug_marks_two_lines_and_each_is_in_a_table() {
    let markers = markers();
    for (slug, _, file) in &markers {
        assert_eq!(markers.iter().filter(|(other, ..)| other == slug).count(), 1, "{slug} marks several lines, one of them in {file}");
        // What the load generator does wrong is in its own table.
        let is_clients = file.starts_with("loadtest/");
        assert!(is_clients || all().any(|(known, _)| known == slug), "{file}: {slug} is in no table");
    }
}

#[test]
fn each_public_mistake_has_its_table_entry_scenario_test_page_and_row() {
    let readme = read(&root().join("README.md"));
    let tests: Vec<(String, String)> = CRATES
        .iter()
        .flat_map(|name| files(&root().join(name).join("tests"), ".rs"))
        .filter(|path| !path.ends_with("server/tests/tidy.rs"))
        .map(|path| (shown(&path), read(&path)))
        .collect();
    for description in DESCRIPTIONS {
        let slug = description.slug;
        assert!(all().any(|(known, _)| known == slug), "{slug} is in no table");

        let scenario = format!("loadtest/src/scenarios/{}.rs", slug.replace('-', "_"));
        assert!(read(&root().join(&scenario)).contains(slug), "{scenario} does not name {slug}");

        let quoted = format!("\"{slug}\"");
        assert!(tests.iter().any(|(_, text)| text.contains(&quoted)), "no test mentions {slug}");

        let page = format!("docs/failures/{slug}.md");
        let text = read(&root().join(&page));
        let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).map(str::trim).collect();
        assert_eq!(headings, HEADINGS, "{page}");
        assert!(text.contains(description.file), "{page} does not name {}", description.file);
        assert!(text.contains(&format!("--mistake {slug}")), "{page} does not say how to switch it on");
        assert!(!text.contains("@@"), "{page} has a place that was never filled in");

        let row = readme.lines().find(|line| line.starts_with('|') && line.contains(&format!("--mistake {slug}")));
        let row = row.unwrap_or_else(|| panic!("README.md has no row for {slug}"));
        for needle in [description.file, scenario.as_str(), page.as_str()] {
            assert!(row.contains(needle), "the row of {slug} in README.md does not name {needle}");
        }
    }
}

#[test]
fn every_page_and_every_scenario_is_of_a_known_mistake() {
    let clients =
        sources().into_iter().filter(|(file, _)| file == "loadtest/src/mistakes.rs").map(|(_, text)| text).next().unwrap_or_default();
    // README.md is their list.
    for page in files(&root().join("docs/failures"), ".md").into_iter().filter(|page| !page.ends_with("README.md")) {
        let slug = page.file_stem().expect("it has a name").to_string_lossy().into_owned();
        assert!(PUBLIC.contains(&slug.as_str()) || clients.contains(&format!("\"{slug}\"")), "{} is of no public mistake", shown(&page));
    }
}

/// A reader must not need a legend: comments name a failure mode by the name that `docs/failure-modes.md` gives it, and not by a code.
#[test]
fn no_comment_names_a_failure_mode_by_a_code() {
    let list = read(&root().join("docs/failure-modes.md"));
    let mut codes = Vec::new();
    for name in CRATES {
        for path in files(&root().join(name), ".rs").into_iter().filter(|path| !path.ends_with("tidy.rs")) {
            // A comment may break its line anywhere.
            let text = read(&path).lines().map(|line| line.trim().trim_start_matches(['/', '!']).trim()).collect::<Vec<_>>().join(" ");
            for (start, _) in text.to_ascii_lowercase().match_indices("failure mode") {
                let word =
                    text[start..].split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).nth(2).unwrap_or_default();
                if word.len() <= 3 && word.starts_with(|c: char| c.is_ascii_uppercase()) && word[1..].parse::<u8>().is_ok() {
                    codes.push(format!("{}: {word}", shown(&path)));
                }
            }
        }
    }
    assert!(codes.is_empty(), "name the failure mode as docs/failure-modes.md does: {codes:#?}");
    for path in list.split(['`', '(', ')']).filter(|part| part.contains('/') && !part.contains(' ')) {
        let place = if path.ends_with(".md") { root().join("docs").join(path) } else { root().join(path) };
        assert!(place.exists(), "docs/failure-modes.md names {path}");
    }
}

/// An investigator arrives with a symptom: a page that is not listed by symptom is not found.
#[test]
fn each_failure_page_is_listed_by_symptom_and_by_group() {
    let list = read(&root().join("docs/failures/README.md"));
    let (_, lists) = list.split_once("\n## By symptom").expect("docs/failures/README.md lists by symptom");
    let (by_symptom, by_group) = lists.split_once("\n## By group").expect("and by group");
    for page in files(&root().join("docs/failures"), ".md").into_iter().filter(|page| !page.ends_with("README.md")) {
        let link = format!("]({})", page.file_name().expect("it has a name").to_string_lossy());
        assert!(by_symptom.contains(&link), "no symptom leads to {}", shown(&page));
        assert_eq!(by_group.matches(&link).count(), 1, "{} must be in one group", shown(&page));
    }
    for link in list.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()).filter(|link| !link.is_empty()) {
        assert!(root().join("docs/failures").join(link).exists(), "docs/failures/README.md links to {link}");
    }
}

/// A row of the index is `| question | [`file`](../file) | `identifier` |`. The identifier must stand in the file as a whole word.
#[test]
fn docs_index_names_what_exists() {
    let page = read(&root().join("docs/README.md"));
    let (_, index) = page.split_once("\n## Index").expect("docs/README.md has an index");
    let rows: Vec<Vec<&str>> = index
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| question |"))
        .map(|line| line.trim_matches(['|', ' ']).split(" | ").collect())
        .collect();
    assert!(rows.len() >= 30, "the index has {} rows", rows.len());
    let mut questions: Vec<&str> = rows.iter().filter_map(|row| row.first().copied()).collect();
    questions.sort_unstable();
    questions.dedup();
    assert_eq!(questions.len(), rows.len(), "the index asks a question twice");
    for row in &rows {
        let [_, file, identifier] = row[..] else { panic!("expected | question | file | identifier |, found {row:?}") };
        let file = file.split('`').nth(1).unwrap_or_else(|| panic!("{row:?} names no file"));
        let identifier = identifier.trim_matches('`');
        let text = read(&root().join(file));
        let is_whole = |(at, _): (usize, &str)| !text[at + identifier.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        assert!(!identifier.is_empty() && text.match_indices(identifier).any(is_whole), "docs/README.md: {file} has no `{identifier}`");
    }
    for link in page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()).filter(|link| !link.is_empty()) {
        assert!(root().join("docs").join(link).exists(), "docs/README.md links to {link}");
    }
}

#[test]
fn the_defaults_choose_no_mistake() {
    let correct = Config::default();
    assert_eq!(correct.mistakes, Vec::<&str>::new());
    for (slug, _) in all() {
        let mut wrong = Config::default();
        switch_on(slug, &mut wrong).expect("it is in a table");
        assert_eq!(wrong.mistakes, [slug]);
        // Were the default wrong already, nothing would differ.
        wrong.mistakes.clear();
        assert_ne!(format!("{correct:?}"), format!("{wrong:?}"), "{slug} is what the default does");
    }
}

#[test]
fn no_source_file_is_longer_than_four_hundred_lines() {
    let too_long: Vec<String> = sources()
        .into_iter()
        .map(|(file, text)| (text.lines().count(), file))
        .filter(|(lines, file)| *lines > if LONG_FILES.contains(&file.as_str()) { LONG_LINES_MAX } else { LINES_MAX })
        .map(|(lines, file)| format!("{file}: {lines}"))
        .collect();
    assert!(too_long.is_empty(), "one idea a file, please: {too_long:#?}");
}

#[test]
fn only_sys_files_may_hold_unsafe_code() {
    for (file, text) in sources() {
        let allows = text.contains("allow(unsafe_code)");
        assert!(!allows || file.ends_with("/sys.rs"), "{file} allows unsafe code; only sys.rs may");
    }
}

#[test]
fn a_helper_that_several_crates_need_has_one_home() {
    for (helper, traces) in [
        ("descriptor limit of this process", &["libc::getrlimit", "Max open files"][..]),
        ("CPU time of a thread", &["ThreadCPUTime", "THREAD_CPUTIME_ID", "RUSAGE_THREAD"]),
        ("short slices", &["SYS_sched_setattr"]),
        ("fields of /proc/PID/stat", &["(')')"]),
        ("units of durations", &["(\"ms\", ", "\"ms\" =>"]),
        ("dates", &["httpdate::HttpDate::from(", "jiff::Timestamp::from", "146_097"]),
    ] {
        let is_home = |(file, text): &(String, String)| traces.iter().any(|trace| text.contains(trace)).then(|| file.clone());
        let homes: Vec<String> = sources().iter().filter_map(is_home).collect();
        let homes_max = if helper == "dates" { 2 } else { 1 }; // The Date header and all other times have a library each.
        assert!((1..=homes_max).contains(&homes.len()), "{helper}: {homes:?}");
    }
}

#[test]
fn each_source_file_says_what_it_is_for_in_its_first_line() {
    for (file, text) in sources() {
        assert!(text.starts_with("//! "), "{file} does not begin with a sentence about itself");
    }
}
