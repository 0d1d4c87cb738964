//! The modules of the loop and of the pool form no circle: shared small types stand below the modules that use them. A reader can then read the
//! files in one order, from the bottom up. It reads every `crate::` and `super::` path in the code, not only those of `use` lines.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Graph = BTreeMap<String, BTreeSet<String>>;

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file: without its tests, comments and strings that span no line.
fn code(text: &str) -> String {
    let end = text.find("\n#[cfg(test)]").unwrap_or(text.len());
    text[..end].lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Each identifier path that follows `keyword`, such as `os::sys` in `crate::os::sys`; of `crate::{a::B, c}` each one.
fn paths(code: &str, keyword: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(keyword) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + keyword.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let group = &group[..group.find('}').unwrap_or(group.len())];
            found.extend(group.split(',').map(|path| path.trim().to_owned()));
        } else {
            found.push(rest.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect());
        }
    }
    found.retain(|path: &String| !path.is_empty());
    found
}

/// Which module each name comes from that `lib.rs` exports again.
fn exports(lib: &str) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    for line in code(lib).replace('\n', " ").split(';') {
        let Some((module, names)) = line.trim().strip_prefix("pub use ").and_then(|path| path.split_once("::")) else { continue };
        for name in names.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|name| !name.is_empty()) {
            exports.insert(name.to_owned(), module.to_owned());
        }
    }
    exports
}

/// Which file of a crate names which others.
fn graph(source: &Path, leave_out: &str) -> Graph {
    let exports = exports(&fs::read_to_string(source.join("lib.rs")).unwrap());
    let name = |path: &Path| {
        let name = path.strip_prefix(source).unwrap().with_extension("").display().to_string().replace('/', "::");
        name.trim_end_matches("::mod").to_owned()
    };
    let paths_of: BTreeMap<String, PathBuf> = files(source).into_iter().map(|path| (name(&path), path)).collect();
    let known = |path: &str| {
        let mut parts = path.split("::").filter(|part| !part.is_empty());
        let first = parts.next()?;
        let first = exports.get(first).map_or(first, String::as_str);
        let deeper = parts.next().map(|second| format!("{first}::{second}")).filter(|deeper| paths_of.contains_key(deeper));
        deeper.or_else(|| paths_of.contains_key(first).then(|| first.to_owned()))
    };
    let mut graph = Graph::new();
    for (module, path) in &paths_of {
        if module == "lib" || module.contains("tests") || (!leave_out.is_empty() && module.starts_with(leave_out)) {
            continue;
        }
        let code = code(&fs::read_to_string(path).unwrap());
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        let mut named: BTreeSet<String> = paths(&code, "crate::").iter().filter_map(|path| known(path)).collect();
        named.extend(paths(&code, "super::").iter().filter_map(|path| known(&format!("{parent}::{path}"))));
        named.remove(module);
        graph.insert(module.clone(), named);
    }
    graph
}

/// A circle, if there is one: modules of which each names the next.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    fn walk(graph: &Graph, module: &str, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|other| other == module) {
            return Some(way[start..].to_vec());
        }
        if !done.insert(module.to_owned()) {
            return None;
        }
        way.push(module.to_owned());
        for next in graph.get(module).into_iter().flatten() {
            if let Some(found) = walk(graph, next, way, done) {
                return Some(found);
            }
        }
        way.pop();
        None
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|module| walk(graph, module, &mut Vec::new(), &mut done))
}

#[test]
fn no_module_of_the_loop_or_of_the_pool_is_above_itself() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // The simulator stands above the loop and names all of it.
    for (name, leave_out, modules_min) in [("reactor", "sim", 30), ("worker-pool", "", 10)] {
        let graph = graph(&root.join(name).join("src"), leave_out);
        assert!(graph.len() >= modules_min, "{name}: only {} modules were found", graph.len());
        let edges: usize = graph.values().map(BTreeSet::len).sum();
        assert!(edges >= 2 * graph.len(), "{name}: only {edges} paths were found");
        assert_eq!(circle(&graph), None, "{name}");
    }
}

#[test]
fn a_circle_is_found() {
    let graph = |edges: &[(&str, &[&str])]| -> Graph {
        edges.iter().map(|(from, to)| ((*from).to_owned(), to.iter().map(|to| (*to).to_owned()).collect())).collect()
    };
    assert_eq!(circle(&graph(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])])), None);
    assert_eq!(circle(&graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])])), Some(vec!["b".to_owned(), "c".to_owned()]));
    assert_eq!(paths("let x = crate::os::sys::call(); use crate::{a::B, c};", "crate::"), ["os::sys::call", "a::B", "c"]);
}
