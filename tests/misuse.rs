//! The table of misuse in docs/MISUSE.md: all its rows are there, and every C case that it names exists, so that it can't rot.

use std::collections::BTreeSet;
use std::path::Path;

/// Rows of the table, numbered from 1.
const ROWS: usize = 45;

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of each row of the table.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let numbered = |line: &&str| line.strip_prefix("| ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    text.lines().filter(numbered).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What stands between backquotes and looks like `file::case`.
fn cases_in(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).filter(|word| word.contains("::")).collect()
}

/// Names that the file's lines define with one of these macros.
fn defined<'a>(text: &'a str, macros: &[&str]) -> Vec<&'a str> {
    let name = |line: &'a str| macros.iter().find_map(|word| line.strip_prefix(word))?.split([',', ')']).next();
    text.lines().filter_map(name).map(str::trim).collect()
}

/// `file::case` of every case in ffi-tests, as the driver lists them.
fn cases() -> BTreeSet<String> {
    let mut cases = BTreeSet::new();
    for (dir, prefix, macros) in
        [("", "", &["TEST(", "SLOW_TEST(", "REFUSED(", "ACCEPTED("][..]), ("cpp", "cpp_", &["TEST("]), ("programs", "", &[])]
    {
        for entry in std::fs::read_dir(root().join("ffi-tests").join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| path.is_file()) else { continue };
            if dir == "programs" {
                cases.insert(format!("programs::{stem}"));
            } else if stem.starts_with("test_") {
                cases.extend(defined(&read(&path), macros).iter().map(|name| format!("{prefix}{stem}::{name}")));
            }
        }
    }
    cases
}

/// What is wrong with the table.
fn faults(text: &str, cases: &BTreeSet<String>) -> Vec<String> {
    let (rows, mut faults) = (rows(text), Vec::new());
    let numbers: Vec<String> = rows.iter().map(|row| row[0].to_owned()).collect();
    let wanted: Vec<String> = (1..=ROWS).map(|n| n.to_string()).collect();
    if numbers != wanted {
        faults.push(format!("the rows are {numbers:?}; there have to be 1 to {ROWS}, each once, in order"));
    }
    for row in &rows {
        let [number, misuse, answer, shown_by] = row[..] else {
            faults.push(format!("row {}: {} cells instead of 4", row[0], row.len()));
            continue;
        };
        if misuse.is_empty() || answer.is_empty() {
            faults.push(format!("row {number}: an empty cell"));
        }
        let named = cases_in(shown_by);
        if named.is_empty() {
            faults.push(format!("row {number}: names no case"));
        }
        faults.extend(named.iter().filter(|case| !cases.contains(**case)).map(|case| format!("row {number}: there is no case {case}")));
    }
    faults
}

#[test]
fn every_row_is_there_and_names_cases_that_exist() {
    let faults = faults(&read(&root().join("docs/MISUSE.md")), &cases());
    assert!(faults.is_empty(), "docs/MISUSE.md:\n{}", faults.join("\n"));
}

#[test]
fn rows_that_are_missing_and_cases_that_are_not_there_are_found() {
    let cases = BTreeSet::from(["test_a::b".to_owned()]);
    let table = |last: &str| (1..ROWS).map(|n| format!("| {n} | m | a | `test_a::b` |\n")).collect::<String>() + last;
    assert_eq!(faults(&table("| 45 | m | a | `test_a::b`, `test_a::b` |"), &cases), Vec::<String>::new());
    assert_eq!(faults(&table(""), &cases).len(), 1, "a row is missing");
    assert_eq!(faults(&table("| 44 | m | a | `test_a::b` |"), &cases).len(), 1, "a row twice");
    assert_eq!(faults(&table("| 45 | m | a | |"), &cases).len(), 1, "no case");
    assert_eq!(faults(&table("| 45 | m | a | `test_a::c` |"), &cases).len(), 1, "no such case");
    assert_eq!(faults(&table("| 45 | m | | `test_a::b` |"), &cases).len(), 1, "nothing said");
    assert_eq!(faults(&table("| 45 | m | `test_a::b` |"), &cases).len(), 1, "a cell is missing");
}

#[test]
fn cases_of_every_kind_are_known() {
    let cases = cases();
    for case in ["test_fork::forking_in_a_callback", "test_config::all_zero", "programs::dlopen"] {
        assert!(cases.contains(case), "{case}");
    }
    assert!(cases.iter().any(|case| case.starts_with("cpp_test_wrapper::")));
}
