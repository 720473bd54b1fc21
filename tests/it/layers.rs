//! The borders between the modules, as `src/lib.rs` promises them. Read from the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each uses only what stands below it here, which is the way of reading, too.
const ORDER: [&str; 12] = [
    "cli",
    "commands",
    "config",
    "progress",
    "backoff",
    "sync",
    "error",
    "elasticsearch",
    "documents",
    "postgres",
    "fixture",
    "kind",
];

#[test]
fn only_postgres_names_diesel_and_only_elasticsearch_names_ureq() {
    for (name, module) in [("diesel", "postgres"), ("ureq", "elasticsearch")] {
        for file in rust_files("src") {
            let is_named = words(&file.code).any(|word| word.contains(name));
            assert!(!is_named || file.module() == module, "{} names {name}", file.path.display());
        }
    }
}

#[test]
fn fixture_and_documents_do_no_input_or_output() {
    for file in rust_files("src") {
        if ["fixture", "documents"].contains(&file.module()) {
            for module in ["fs", "net", "process", "env", "thread"] {
                let is_used = file.code.contains(&format!("std::{module}"));
                assert!(!is_used, "{} uses std::{module}", file.path.display());
            }
        }
    }
}

#[test]
fn a_module_uses_only_what_is_below_it() {
    let mut violations = Vec::new();
    for file in rust_files("src") {
        let Some(own) = ORDER.iter().position(|module| *module == file.module()) else { continue };
        // The tests of a module may use whatever they like; they are at its foot.
        let code = file.code.split("#[cfg(test)]").next().unwrap_or_default();
        for used in used_modules(code) {
            let below = ORDER.iter().position(|module| *module == used);
            if below.is_none_or(|below| below < own) {
                violations.push(format!("{} uses crate::{used}", file.path.display()));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn every_module_has_its_place_in_the_order() {
    let source = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules =
        source.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    assert_eq!(modules.collect::<BTreeSet<_>>(), BTreeSet::from(ORDER));
}

#[test]
fn nothing_is_left_to_be_done() {
    let macros = ["todo", "dbg", "unimplemented"].map(|name| format!("{name}!"));
    // In two parts, or this file would be found.
    let ignored = concat!("#[", "ignore").to_owned();
    for folder in ["src", "tests", "benches"] {
        for file in rust_files(folder) {
            for word in macros.iter().chain([&ignored]) {
                assert!(!file.code.contains(word.as_str()), "{} has {word}", file.path.display());
            }
        }
    }
}

#[test]
fn uses_are_found_in_any_form() {
    let code = "use crate::{elasticsearch, postgres::{self, lock}};\nuse crate::error::Error;\n\
                pub(crate) fn f() { crate::backoff::f() }\nuse crate::sync;";
    let expected = ["backoff", "elasticsearch", "error", "postgres", "sync"];
    assert_eq!(used_modules(code), BTreeSet::from(expected));
}

/// A file of Rust.
struct File {
    /// Relative to the package.
    path: PathBuf,
    /// Without the lines that are comments.
    code: String,
}

impl File {
    /// The module of the crate that it belongs to: `postgres` for `src/postgres/lock.rs`.
    fn module(&self) -> &str {
        let name = self.path.components().nth(1).and_then(|name| name.as_os_str().to_str());
        let name = name.expect("a file in a folder");
        name.strip_suffix(".rs").unwrap_or(name)
    }
}

/// All files below a folder of the package, which need not exist.
fn rust_files(folder: &str) -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                let is_comment = |line: &&str| line.trim_start().starts_with("//");
                let code = source.lines().filter(|line| !is_comment(line)).collect::<Vec<_>>();
                let path = path.strip_prefix(root()).unwrap().to_owned();
                files.push(File { path, code: code.join("\n") });
            }
        }
    }
    files
}

/// The modules behind `crate::`, also those in braces.
fn used_modules(code: &str) -> BTreeSet<&str> {
    let mut used = BTreeSet::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            used.extend(words(rest).next());
            continue;
        };
        let mut depth = 1;
        let mut is_start = true;
        for (at, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => is_start = true,
                _ if is_start && !character.is_whitespace() => {
                    used.extend(words(&list[at..]).next());
                    is_start = false;
                }
                _ => (),
            }
            if depth == 0 {
                break;
            }
        }
    }
    used
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_patches_that_break_a_rule_still_fit_the_program() {
    let folder = root().join("tests/torture/broken");
    let mut patches = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let mut check = std::process::Command::new("git");
        check.args(["apply", "--check", "-p0"]).arg(&path).current_dir(root());
        let outcome = check.output().expect("run git");
        let said = String::from_utf8_lossy(&outcome.stderr);
        assert!(outcome.status.success(), "{}: {said}", path.display());
        patches += 1;
    }
    assert!(patches >= 20, "{patches} patches in {}", folder.display());
}
