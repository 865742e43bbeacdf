//! The shared object offers the symbols of `ffi-tests/exports.txt` and no other, has its name, and stays loaded.
//!
//! A symbol more could clash with one of the host program; one less breaks programs that were linked against it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The shared object that cargo has built along with this test (`deps`) or before (`cargo build`): the newer one.
fn shared_object() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let built = [deps.join("libkvbatch.so"), deps.parent().unwrap().join("libkvbatch.so")];
    let newest = built.into_iter().filter_map(|path| Some((path.metadata().and_then(|m| m.modified()).ok()?, path))).max();
    newest.expect("libkvbatch.so stands beside this test or one directory above").1
}

fn output(program: &str, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(file).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (of binutils, which come with gcc): {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn listed() -> BTreeSet<String> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("ffi-tests/exports.txt");
    std::fs::read_to_string(list).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn exports_are_those_of_the_list() {
    let symbols = output("nm", &["-D", "--defined-only"], &shared_object());
    let exported: BTreeSet<String> = symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect();
    let listed = listed();
    let (more, less): (Vec<_>, Vec<_>) = (exported.difference(&listed).collect(), listed.difference(&exported).collect());
    assert!(more.is_empty() && less.is_empty(), "exported but not in ffi-tests/exports.txt: {more:?}; the other way round: {less:?}");
    assert!(listed.iter().all(|name| name.starts_with("kv_") || name == "g_error_ctx"));
}

#[test]
fn every_listed_function_is_declared_and_the_other_way_round() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/kvserver");
    let mut declared = BTreeSet::from(["g_error_ctx".to_owned()]);
    for header in ["kv_error.h", "kv_io_uring.h", "kv_async_batch_io.h", "kv_batch_ext.h"] {
        let text = std::fs::read_to_string(include.join(header)).unwrap();
        // A declaration begins in the first column, with the name before the first bracket.
        for line in text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()) && !line.starts_with("typedef")) {
            let name = line.split('(').next().unwrap().rsplit([' ', '*']).next().unwrap();
            if line.contains('(') && name.starts_with("kv_") {
                declared.insert(name.to_owned());
            }
        }
    }
    assert_eq!(declared, listed());
}

#[test]
fn it_has_a_versioned_name_and_stays_loaded() {
    let dynamic = output("readelf", &["-d", "-W"], &shared_object());
    assert!(dynamic.contains("Library soname: [libkvbatch.so.1]"), "{dynamic}");
    assert!(dynamic.lines().any(|line| line.contains("FLAGS_1") && line.contains("NODELETE")), "{dynamic}");
}

#[test]
fn it_needs_nothing_but_the_c_library() {
    let dynamic = output("readelf", &["-d", "-W"], &shared_object());
    let needed: Vec<&str> =
        dynamic.lines().filter(|line| line.contains("(NEEDED)")).filter_map(|line| line.split(['[', ']']).nth(1)).collect();
    let expected = ["libgcc_s.so.1", "libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"];
    let other: Vec<_> = needed.iter().filter(|name| !expected.contains(name) && !name.starts_with("ld-linux")).collect();
    assert!(!needed.is_empty() && other.is_empty(), "also needed: {other:?}");
}
