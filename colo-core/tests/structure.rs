//! What the workspace promises about itself: the engine does not know its hypervisors, and `unsafe` stays where it is allowed.

#[path = "structure/lexer.rs"]
mod lexer;

use lexer::{Token, tokens};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where `unsafe` may stand, as beginnings of paths. Everywhere else the compiler vouches for memory.
const UNSAFE_ALLOWED: [&str; 5] =
    ["colo-embedded/", "colo-core/src/guard.rs", "colo-core/src/net/sys/", "colo-core/src/xen/", "xen-sys/"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in a workspace").to_owned()
}

/// By the lock file, which has every dependency for every platform, with every feature, for tests too; cargo does not build
/// while it is out of date.
#[test]
fn the_engine_does_not_know_the_embedded_hypervisor() {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).unwrap();
    let graph = dependencies(&lock);
    assert!(!reachable(&graph, "colo-core").contains("colo-embedded"));
    // The way round it is so: the graph is read rightly.
    assert!(reachable(&graph, "colo-embedded").contains("colo-core"));
    assert!(reachable(&graph, "colo-core").contains("libc"), "through rustix, and others");
}

/// What is behind the seam is behind it: the engine's modules do not name Xen's.
#[test]
fn only_xen_knows_xen() {
    let root = workspace().join("colo-core/src");
    let mut sources = Vec::new();
    find_sources(&root, &mut sources);
    let names = |path: &PathBuf| fs::read_to_string(path).unwrap().contains("crate::xen");
    let (xen, engine): (Vec<_>, Vec<_>) = sources.into_iter().partition(|path| path.starts_with(root.join("xen")));
    let wrong: Vec<_> = engine.iter().filter(|path| names(path)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(xen.iter().any(names) && engine.len() > 50, "the sources were found");
}

#[test]
fn unsafe_stands_where_it_is_allowed_and_says_why() {
    let root = workspace();
    let mut sources = Vec::new();
    find_sources(&root, &mut sources);
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for path in &sources {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(path).unwrap();
        for place in unsafe_places(&text) {
            match UNSAFE_ALLOWED.iter().find(|allowed| name.starts_with(**allowed)) {
                None => wrong.push(format!("{name}:{}: unsafe is not allowed here", place.line)),
                Some(allowed) => {
                    used.insert(*allowed);
                }
            }
            if place.needs_reason && !place.has_reason {
                wrong.push(format!("{name}:{}: unsafe without a line `// SAFETY:` above it", place.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The sources were found at all.
    assert!(sources.iter().any(|path| path.ends_with("colo-core/src/session/mod.rs")));
    for folder in UNSAFE_ALLOWED {
        assert!(used.contains(folder), "{folder}: {used:?}");
    }
}

/// The packages of a lock file, and what each needs.
fn dependencies(lock: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut graph = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let name = package.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        let name = name.expect("a package has a name").to_owned();
        let needs = package.lines().filter_map(|line| {
            // " "name version","; versions do not matter here.
            let quoted = line.strip_prefix(" \"")?.split('"').next()?;
            quoted.split(' ').next().map(str::to_owned)
        });
        graph.entry(name).or_insert_with(BTreeSet::new).extend(needs);
    }
    graph
}

fn reachable<'a>(graph: &'a BTreeMap<String, BTreeSet<String>>, from: &'a str) -> BTreeSet<&'a str> {
    assert!(graph.contains_key(from), "{from} is in the lock file");
    let mut seen = BTreeSet::from([from]);
    let mut next = vec![from];
    while let Some(name) = next.pop() {
        for needed in graph.get(name).into_iter().flatten() {
            if seen.insert(needed) {
                next.push(needed);
            }
        }
    }
    seen
}

/// All Rust sources of the workspace, but for what was built.
fn find_sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap_or_default();
        if name.starts_with('.') || name == "target" || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            find_sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The word `unsafe` in a source.
#[derive(PartialEq, Eq, Debug)]
struct Place {
    /// Its line, from 1.
    line: usize,
    /// Whether it is a block or an implementation: a promise made, where `unsafe fn` asks for one.
    needs_reason: bool,
    /// Whether the comment right above its line and its attributes has a `SAFETY:`.
    has_reason: bool,
}

fn unsafe_places(text: &str) -> Vec<Place> {
    let lines: Vec<&str> = text.lines().collect();
    let tokens = tokens(text);
    let mut places = Vec::new();
    for (index, (line, token)) in tokens.iter().enumerate() {
        if *token != Token::Word("unsafe") {
            continue;
        }
        let next = tokens.get(index + 1).map(|(_, token)| token);
        let needs_reason = matches!(next, Some(Token::Sign('{') | Token::Word("impl")));
        let above = lines[..line - 1].iter().rev().map(|line| line.trim_start());
        let above = above.skip_while(|line| line.starts_with("#["));
        let has_reason = above.take_while(|line| line.starts_with("//")).any(|line| line.starts_with("// SAFETY: "));
        places.push(Place { line: *line, needs_reason, has_reason });
    }
    places
}

#[test]
fn unsafe_is_found_where_it_is_code() {
    let place = |line, needs_reason, has_reason| Place { line, needs_reason, has_reason };
    let with_reason = "// SAFETY: it is so,\n// and that is why.\nlet x = unsafe { y() };\n";
    assert_eq!(unsafe_places(with_reason), [place(3, true, true)]);
    let with_attribute = "// SAFETY: it is so.\n#[allow(x)]\nunsafe { y() }";
    assert_eq!(unsafe_places(with_attribute), [place(3, true, true)]);
    assert_eq!(unsafe_places("// SAFETY: far.\n\nlet x = unsafe { y() };"), [place(3, true, false)]);
    assert_eq!(unsafe_places("/// # Safety\nunsafe fn y();"), [place(2, false, false)]);
    assert_eq!(unsafe_places("a();\nunsafe impl Send for X {}"), [place(2, true, false)]);
    let no_code = "// unsafe {\n/* /* unsafe { */ unsafe { */ \"unsafe { \\\" unsafe {\" r#\"\" unsafe {\"# 'u' b'\"' 'unsafe_ unsafe_code";
    assert_eq!(unsafe_places(no_code), []);
    assert_eq!(unsafe_places("let quote = '\"'; unsafe\n{ y() }"), [place(1, true, false)]);
}
