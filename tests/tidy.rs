//! Taste as a test: what a reviewer would otherwise have to say again and again, said by `cargo test`.
//!
//! Each check is a function from text to faults. It runs over the tracked files, and over a small bad sample, so that
//! it is known to be able to fail. A fault says what to do about it. Exceptions stand in the tables below, each with
//! its reason; an exception that nothing needs any more is a fault too.

#[path = "tidy/text.rs"]
mod text;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use text::{code_only, each_word, heads, identifier};

/// The rooms by rank: a module imports only lower ranks, never a sibling (docs/ARCHITECTURE.md).
const RANKS: [&[&str]; 6] =
    [&["base"], &["engine", "io"], &["native", "memory", "uring", "rocksdb", "redis"], &["store"], &["batch"], &["ffi"]];

/// Where `unsafe` may stand. Everywhere else the compiler denies it; this keeps `allow(unsafe_code)` from spreading.
const UNSAFE_ALLOWED: &[&str] = &[
    "src/ffi/",
    "src/io/",
    "src/base/crc.rs",
    "src/base/hash.rs",
    "src/base/hash/words.rs",
    "src/base/mapping.rs",
    "src/base/prefetch.rs",
    "src/base/sync.rs",
    "src/base/sync/brief.rs",
    "src/base/sync/once.rs",
    "src/batch/memory.rs",
    "src/batch/memory/",
    "src/batch/models/room.rs",
    "src/native/hot.rs",
    "src/native/index/table.rs",
];

/// Longest source file, in lines. Longer ones need an entry with the reason why they are one room.
const FILE_LINES_MAX: usize = 500;
const LONG_FILES: &[(&str, &str)] = &[];

/// Longest line, in characters.
const LINE_CHARS_MAX: usize = 140;

/// Rust files under src that are no module, and why.
const NOT_MODULES: &[(&str, &str)] = &[];

/// Rust text that no compiler sees: only cbindgen reads it, as a stand-in for exports with variable arguments.
const NOT_COMPILED: &str = "cbindgen/";

/// C files that a driver finds by pattern: directory, prefix of the file's name.
const FOUND_BY_PATTERN: &[(&str, &str)] = &[("ffi-tests/", "test_"), ("ffi-tests/programs/", ""), ("ffi-tests/cpp/", "test_")];

/// Where C files live, each known to somebody.
const C_DIRECTORIES: &[&str] = &["ffi-tests/", "examples-c/", "benches/", "src/", "tests/"];

// In two pieces, so that this file does not find itself.
const LEFTOVERS: &[&str] = &[
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("d", "bg!("),
    concat!("#[ig", "nore"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];
const PLACES: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("crates", ".io/"),
    concat!("npm", "js."),
    concat!("py", "pi.org"),
    concat!("deb.", "debian"),
];

/// One text file of the repository; `path` is relative, with forward slashes.
struct File {
    path: String,
    text: String,
}

/// All text files that are tracked or about to be; in an unpacked archive without git, all but what was built.
fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root).output();
    let mut paths: Vec<String> = match listed {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect(),
        _ => walk(root, root),
    };
    paths.sort();
    let read = |path: String| std::fs::read_to_string(root.join(&path)).ok().map(|text| File { path, text });
    let files: Vec<File> = paths.into_iter().filter_map(read).collect();
    assert!(files.iter().any(|f| f.path == "src/lib.rs"), "the list of files is wrong: src/lib.rs is not in it");
    files
}

fn walk(root: &Path, dir: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !["target", ".git", "kvbatch-data"].contains(&name.as_str()) {
            paths.extend(walk(root, &entry.path()));
        } else if kind.is_file() {
            paths.push(entry.path().strip_prefix(root).unwrap().to_string_lossy().into_owned());
        }
    }
    paths
}

fn has_suffix(path: &str, suffixes: &[&str]) -> bool {
    suffixes.iter().any(|suffix| path.ends_with(suffix))
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs") && !path.starts_with(NOT_COMPILED)
}

fn is_source(path: &str) -> bool {
    path.starts_with("src/") && path.ends_with(".rs")
}

/// Runs `check` over the files that `which` picks; at least one has to be among them.
fn sweep(which: impl Fn(&str) -> bool, check: impl Fn(&str, &str) -> Vec<String>) {
    let files = files();
    let mut picked = files.iter().filter(|f| which(&f.path)).peekable();
    assert!(picked.peek().is_some(), "this check looks at no file at all");
    clean(picked.flat_map(|f| check(&f.path, &f.text)).collect());
}

fn clean(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

// ---- Ranks ----

fn rank(room: &str) -> Option<usize> {
    RANKS.iter().position(|rooms| rooms.contains(&room))
}

fn ranks(path: &str, text: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let room = inside.split('/').next().unwrap();
    // Programs stand outside: the compiler shows them what is public, and nothing else.
    if room == "lib" || room == "bin" {
        return Vec::new();
    }
    let Some(own) = rank(room) else { return vec![format!("{path}: give the room {room} a rank in tests/tidy.rs")] };
    let code = code_only(text);
    let mut faults = Vec::new();
    let mut judge = |line: usize, target: &str| {
        if target != room && rank(target).is_none_or(|rank| rank >= own) {
            faults.push(format!("{path}:{line}: {room} (rank {own}) must not import {target}: only lower ranks, no siblings"));
        }
    };
    each_word(&code, "crate::", |line, rest| heads(rest).into_iter().for_each(|target| judge(line, target)));
    let depth = inside.trim_end_matches("/mod").split('/').count();
    let to_the_root = "super::".repeat(depth);
    each_word(&code, &to_the_root, |line, rest| {
        let rest = rest.trim_start_matches("super::");
        heads(rest).into_iter().filter(|target| rank(target).is_some()).for_each(|target| judge(line, target));
    });
    faults
}

#[test]
fn modules_import_only_lower_ranks() {
    sweep(is_source, ranks);
}

#[test]
fn an_import_against_the_ranks_is_found() {
    assert_eq!(ranks("src/engine/mod.rs", "use crate::base::{code, error};\n// crate::ffi\nuse super::record;"), Vec::<String>::new());
    assert_eq!(ranks("src/engine/x.rs", "use crate::io::Disk;").len(), 1, "a sibling");
    assert_eq!(ranks("src/engine/x.rs", "use crate::{\n  base::{a, b},\n  native::{c},\n  store,\n};").len(), 2, "in a group");
    assert_eq!(ranks("src/engine/x.rs", "fn f() { crate::batch::go() }").len(), 1, "in the middle of code");
    assert_eq!(ranks("src/engine/x.rs", "use super::super::io::Disk;").len(), 1, "around the corner");
    assert_eq!(ranks("src/cellar/x.rs", "").len(), 1, "a room without a rank");
    assert_eq!(ranks("src/bin/x/main.rs", "use crate::y;"), Vec::<String>::new(), "a program");
}

// ---- Size ----

fn size(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    match LONG_FILES.iter().find(|(long, _)| *long == path) {
        None if lines > FILE_LINES_MAX => vec![format!("{path}: {lines} lines; split it, or enter it in LONG_FILES with the reason")],
        Some(_) if lines <= FILE_LINES_MAX => vec![format!("{path}: {lines} lines; take its entry out of LONG_FILES")],
        _ => Vec::new(),
    }
}

fn long_lines(path: &str, text: &str) -> Vec<String> {
    let long = |(at, line): (usize, &str)| {
        let chars = line.chars().count();
        (chars > LINE_CHARS_MAX).then(|| format!("{path}:{}: {chars} characters, more than {LINE_CHARS_MAX}; break the line", at + 1))
    };
    text.lines().enumerate().filter_map(long).collect()
}

#[test]
fn files_are_rooms_not_halls() {
    sweep(is_source, size);
    let files = files();
    let gone = |(path, _): &&(&str, &str)| !files.iter().any(|f| f.path == *path);
    clean(LONG_FILES.iter().filter(gone).map(|(path, _)| format!("{path} is gone; take it out of LONG_FILES")).collect());
}

#[test]
fn lines_fit_the_page() {
    // In headers that are generated, and in what they are generated from, lines follow from signatures.
    let by_hand = |path: &str| is_rust(path) || (has_suffix(path, &[".c", ".h", ".hpp"]) && !path.starts_with("include/"));
    sweep(by_hand, long_lines);
}

#[test]
fn too_much_is_found() {
    assert_eq!(size("src/x.rs", &"x\n".repeat(FILE_LINES_MAX)), Vec::<String>::new());
    assert_eq!(size("src/x.rs", &"x\n".repeat(FILE_LINES_MAX + 1)).len(), 1);
    assert_eq!(long_lines("x.c", &format!("{}\n{}", "ä".repeat(LINE_CHARS_MAX), "x".repeat(LINE_CHARS_MAX + 1))).len(), 1);
}

// ---- unsafe ----

/// Whether the comments right above `line` (from 1), or the line itself, hold one of `words`. Up to `gap` lines of code
/// may lie between: the beginning of the statement whose middle the line is.
fn explained(lines: &[&str], line: usize, words: &[&str], gap: usize) -> bool {
    let holds = |text: &str| words.iter().any(|word| text.contains(word));
    let mut code_lines = 0;
    holds(lines[line - 1])
        || lines[..line - 1].iter().rev().map(|l| l.trim_start()).any_until(|l| {
            code_lines += usize::from(!l.starts_with("//") && !l.starts_with("#["));
            (code_lines > gap, l.starts_with("//") && holds(l))
        })
}

/// `any` with a stop: the closure says (stop here, found).
trait AnyUntil: Iterator + Sized {
    fn any_until(self, mut look: impl FnMut(Self::Item) -> (bool, bool)) -> bool {
        for item in self {
            match look(item) {
                (true, _) => return false,
                (_, true) => return true,
                _ => {}
            }
        }
        false
    }
}
impl<I: Iterator> AnyUntil for I {}

/// Whether the function that `line` declares is given to C by its address or its name alone: its type is its contract,
/// which `src/ffi/arg.rs` states once for all, or what it does says why it holds.
fn is_called_by_c(lines: &[&str], line: usize) -> bool {
    let exported =
        lines[..line - 1].iter().rev().take_while(|l| l.trim_start().starts_with(['#', '/'])).any(|l| l.contains("unsafe(no_mangle)"));
    let reason_within = lines[line..].iter().take(4).take_while(|l| !l.starts_with('}')).any(|l| l.contains("SAFETY:"));
    exported || (lines[line - 1].contains("extern \"C\"") && reason_within)
}

fn unsafe_without_reason(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let code = code_only(text);
    let mut faults = Vec::new();
    each_word(&code, "unsafe", |line, rest| {
        let rest = rest.trim_start();
        let after_abi = rest.strip_prefix("extern").map_or(rest, |r| r.trim_start().trim_start_matches(['"', ' ']));
        let is_contract = rest.starts_with("trait") || after_abi.strip_prefix("fn").is_some_and(|r| !identifier(r).is_empty());
        let is_use = rest.starts_with('{') || rest.starts_with("impl");
        if is_use && !explained(&lines, line, &["SAFETY:"], 3) {
            faults.push(format!("{path}:{line}: say why this holds, in a comment `// SAFETY: ...` above it"));
        }
        if is_contract && !explained(&lines, line, &["# Safety", "SAFETY:"], 0) && !is_called_by_c(&lines, line) {
            faults.push(format!("{path}:{line}: say what the caller must see to, under `/// # Safety`"));
        }
    });
    faults
}

fn unsafe_out_of_place(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !UNSAFE_ALLOWED.iter().any(|place| path.starts_with(place)) {
        each_word(&code_only(text), "unsafe", |line, _| {
            faults.push(format!("{path}:{line}: no `unsafe` here; it belongs into {}", UNSAFE_ALLOWED.join(", ")));
        });
        each_word(&code_only(text), "allow(unsafe_code)", |line, _| faults.push(format!("{path}:{line}: nothing here may be unsafe")));
    }
    faults
}

#[test]
fn every_unsafe_states_why_it_holds() {
    sweep(is_rust, unsafe_without_reason);
}

#[test]
fn unsafe_stays_in_its_files() {
    sweep(is_source, unsafe_out_of_place);
}

#[test]
fn an_unexplained_unsafe_is_found() {
    let faults = |text: &str| unsafe_without_reason("src/x.rs", text).len();
    assert_eq!(faults("// SAFETY: because\nlet x = unsafe { f() };"), 0);
    assert_eq!(faults("// SAFETY: because\n// of this.\nlet x = go(\n    1,\n    unsafe { f() },\n);"), 0);
    assert_eq!(faults("/// # Safety\n/// `p` is valid.\n#[inline]\npub unsafe fn f(p: *const u8) {}"), 0);
    assert_eq!(
        faults("type F = Option<unsafe extern \"C\" fn(i32)>;\n#[unsafe(no_mangle)]\nfn f() {}\n// unsafe {\nlet s = \"unsafe {\";"),
        0
    );
    assert_eq!(faults("// a block\nlet x = unsafe { f() };"), 1);
    assert_eq!(faults("// SAFETY: of another\na();\nb();\nc();\nd();\nlet x = unsafe { f() };"), 1);
    assert_eq!(faults("unsafe impl Send for X {}"), 1);
    assert_eq!(faults("/// Does it.\npub unsafe fn f() {}"), 1);
    assert_eq!(faults("/// Does it.\npub unsafe extern \"C\" fn f() {}"), 1);
    assert_eq!(faults("/// For C.\n#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn kv_f() {}"), 0);
    assert_eq!(faults("unsafe extern \"C\" fn f() {\n    // SAFETY: of C\n    unsafe { g() }\n}"), 0);
    assert_eq!(faults("const A: char = '\"'; unsafe { f() } const B: char = '\\''; const C: &str = r#\"\"#;"), 1);
    assert_eq!(unsafe_out_of_place("src/batch/plan.rs", "unsafe { f() }").len(), 1);
    assert_eq!(unsafe_out_of_place("src/ffi/arg.rs", "unsafe { f() }").len(), 0);
}

// ---- Dead files ----

/// Rust files under src that no `mod` declaration leads to.
fn dead_modules(files: &[File]) -> Vec<String> {
    let mut reached = BTreeSet::new();
    let is_program = |path: &str| path.starts_with("src/bin/") && path.ends_with("/main.rs");
    let mut open: Vec<String> = files.iter().map(|f| f.path.clone()).filter(|path| path == "src/lib.rs" || is_program(path)).collect();
    while let Some(path) = open.pop() {
        let Some(file) = files.iter().find(|f| f.path == path) else { continue };
        let home = match ["/mod.rs", "/lib.rs", "/main.rs"].iter().find_map(|end| path.strip_suffix(end)) {
            Some(dir) => dir.to_owned(),
            None => path.trim_end_matches(".rs").to_owned(),
        };
        each_word(&code_only(&file.text), "mod", |_, rest| {
            let name = identifier(rest);
            if rest.trim_start()[name.len()..].trim_start().starts_with(';') {
                open.extend([format!("{home}/{name}.rs"), format!("{home}/{name}/mod.rs")]);
            }
        });
        reached.insert(path);
    }
    let excepted = |path: &str| NOT_MODULES.iter().any(|(other, _)| *other == path);
    let dead = |f: &&File| is_source(&f.path) && !reached.contains(&f.path) && !excepted(&f.path);
    files.iter().filter(dead).map(|f| format!("{}: no `mod` leads here; remove it or declare it", f.path)).collect()
}

/// C files that neither a driver's pattern nor any other file's text knows by name.
fn dead_c_files(files: &[File]) -> Vec<String> {
    let known = |file: &File| {
        let (dir, name) = file.path.rsplit_once('/').map_or(("", file.path.as_str()), |(dir, name)| (dir, name));
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let by_pattern = |(place, prefix): &(&str, &str)| {
            place.trim_end_matches('/') == dir && has_suffix(name, &[".c", ".cpp"]) && name.starts_with(prefix)
        };
        let by_name = |other: &File| {
            let mut named = false;
            each_word(&other.text, name, |_, _| named = true);
            if other.path.ends_with("Makefile") {
                each_word(&other.text, stem, |_, _| named = true);
            }
            named && other.path != file.path && !other.path.ends_with(".md")
        };
        FOUND_BY_PATTERN.iter().any(by_pattern) || files.iter().any(by_name)
    };
    let in_question =
        |f: &&File| has_suffix(&f.path, &[".c", ".h", ".cpp", ".hpp"]) && C_DIRECTORIES.iter().any(|dir| f.path.starts_with(dir));
    let dead = files.iter().filter(in_question).filter(|f| !known(f));
    dead.map(|f| format!("{}: nothing builds or includes it; remove it or name it in its Makefile", f.path)).collect()
}

#[test]
fn every_file_is_used() {
    let files = files();
    clean(dead_modules(&files));
    clean(dead_c_files(&files));
}

#[test]
fn a_dead_file_is_found() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let house = [
        file("src/bin/x/main.rs", "mod y;"),
        file("src/bin/x/y.rs", ""),
        file("src/bin/x/z.rs", ""),
        file("src/lib.rs", "pub mod a;\nmod b;\n// mod c;\nmod inline { }"),
        file("src/a/mod.rs", "mod d;"),
        file("src/a/d.rs", ""),
        file("src/b.rs", "mod e;"),
        file("src/b/e.rs", ""),
        file("src/c.rs", ""),
        file("src/inline.rs", ""),
        file("examples-c/Makefile", "PROGRAMS := known"),
        file("examples-c/known.c", "#include \"known.h\""),
        file("examples-c/known.h", ""),
        file("examples-c/unknown.c", "known unknown.c"),
        file("examples-c/README.md", "unknown.c"),
        file("ffi-tests/test_x.c", ""),
        file("ffi-tests/x.c", ""),
        file("ffi-tests/cpp/test_x.cpp", ""),
        file("ffi-tests/cpp/x.cpp", ""),
    ];
    let dead = |faults: Vec<String>| faults.iter().map(|f| f.split(':').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(dead(dead_modules(&house)), ["src/bin/x/z.rs", "src/c.rs", "src/inline.rs"]);
    assert_eq!(dead(dead_c_files(&house)), ["examples-c/unknown.c", "ffi-tests/x.c", "ffi-tests/cpp/x.cpp"]);
}

// ---- Words that must not stand anywhere ----

fn words(path: &str, text: &str, banned: &[&str], advice: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for word in banned {
        each_word(text, word, |line, _| faults.push(format!("{path}:{line}: {word} {advice}")));
    }
    faults
}

fn leftovers(path: &str, text: &str) -> Vec<String> {
    words(path, text, LEFTOVERS, "is a note to yourself; do it, or write an issue")
}

fn places(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for place in PLACES.iter().filter(|place| line.contains(**place)) {
            faults.push(format!("{path}:{}: {place} is a place on some machine or a registry; nobody else has it", at + 1));
        }
    }
    faults
}

#[test]
fn nothing_is_left_over() {
    sweep(|path| path != "Cargo.lock", leftovers);
}

#[test]
fn no_machine_shows_through() {
    sweep(|path| path != "Cargo.lock", places);
}

#[test]
fn a_leftover_is_found() {
    for word in LEFTOVERS {
        assert_eq!(leftovers("x.rs", &format!("a\n{word}")), leftovers("x.rs", &format!("a\n{word} ")), "{word}");
        assert_eq!(leftovers("x.rs", &format!("a\n{word}\n")).len(), 1, "{word}");
    }
    assert_eq!(leftovers("x.c", &format!("\"store-{0}{0}\"", concat!("XX", "X"))), Vec::<String>::new(), "mkdtemp's pattern");
    for place in PLACES {
        assert_eq!(places("x.md", &format!("see {place}x")).len(), 1, "{place}");
    }
}

// ---- Documentation ----

fn first_line(path: &str, text: &str) -> Vec<String> {
    let good = text.starts_with("//! ");
    (!good).then(|| format!("{path}:1: say what this file is, in a line that begins with `//! `")).into_iter().collect()
}

/// Declarations of functions and variables in a generated header without a comment right above.
fn undocumented(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let declares = |line: &str| {
        let outside = line.starts_with(|c: char| c.is_alphabetic()) && !line.starts_with("typedef") && !line.starts_with("enum");
        outside && !line.starts_with("extern \"C\"") && (line.contains("kv_") || line.contains("g_error_ctx")) && !line.ends_with('{')
    };
    let mut faults = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| declares(line)) {
        let above = lines[..at].iter().rev().find(|l| !l.trim().is_empty()).map_or("", |l| l.trim());
        if !above.ends_with("*/") && !above.starts_with("//") {
            faults.push(format!("{path}:{}: undocumented: {line}", at + 1));
        }
    }
    faults
}

/// Links to files that are not there, and `src/...` paths and `make` targets that a page names and that do not exist.
fn broken_references(page: &str, text: &str, exists: impl Fn(&str) -> bool, makefile: &str) -> Vec<String> {
    let dir = page.rsplit_once('/').map_or(String::new(), |(dir, _)| format!("{dir}/"));
    let mut faults = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for target in line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !target.is_empty() && !target.contains("://") && !exists(target) && !exists(&format!("{dir}{target}")) {
                faults.push(format!("{page}:{}: the link to {target} leads nowhere", at + 1));
            }
        }
        for quoted in line.split('`').skip(1).step_by(2) {
            if quoted.starts_with("src/") && !quoted.contains(['*', '{', ' ']) && !exists(quoted) {
                faults.push(format!("{page}:{}: there is no {quoted}", at + 1));
            }
            let target = quoted.strip_prefix("make ").map(identifier).unwrap_or_default();
            if !target.is_empty() && !makefile.contains(&format!("\n{target}:")) {
                faults.push(format!("{page}:{}: the Makefile has no target {target}", at + 1));
            }
        }
    }
    faults
}

#[test]
fn every_file_says_what_it_is() {
    sweep(is_rust, first_line);
}

#[test]
fn every_public_function_is_documented() {
    sweep(|path| path.starts_with("include/"), undocumented);
}

#[test]
fn pages_lead_somewhere() {
    let files = files();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_makefile = |f: &&File| f.path == "Makefile" || f.path == "packaging/install.mk";
    let makefile = files.iter().filter(is_makefile).map(|f| f.text.as_str()).collect::<Vec<_>>().join("\n");
    sweep(|path| path.ends_with(".md"), |page, text| broken_references(page, text, |path| root.join(path).exists(), &makefile));
}

#[test]
fn missing_documentation_is_found() {
    assert_eq!(first_line("src/x.rs", "//! What it is.\nuse std::fs;").len(), 0);
    assert_eq!(first_line("src/x.rs", "use std::fs;").len(), 1);
    let header = "/**\n * Does it.\n */\nint kv_do(const char *a,\n          int b);\n\nint kv_undo(void);\n";
    assert_eq!(undocumented("include/x.h", header), ["include/x.h:7: undocumented: int kv_undo(void);"]);
    let page = "[a](there.md) [b](gone.md#x) [c](https://example.org) `src/gone.rs` `src/there.rs` `make demo` `make tea`";
    let exists = |path: &str| path.ends_with("there.md") || path == "src/there.rs";
    assert_eq!(broken_references("docs/x.md", page, exists, "all:\ndemo: lib\n").len(), 3);
}
