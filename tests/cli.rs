//! The program `kvbatch` as scripts use it: what it prints, its exit codes, and that it harms nothing.

use kvbatch::store::{self, StoreUrl};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const GOOD: i32 = 0;
const DAMAGE: i32 = 1;
const USAGE: i32 = 2;
const NOT_OPENED: i32 = 3;
const LOCKED: i32 = 4;
const FAILED: i32 = 5;
const INTERRUPTED: i32 = 130;

struct Said {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Said {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned() + &self.err
    }
}

fn run_with(input: &[u8], arguments: &[&str], at: &Path) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvbatch"))
        .args(arguments)
        .current_dir(at)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = Said { code: status.code().expect("ends by itself"), out: stdout, err: String::from_utf8(stderr).unwrap() };
    assert!(!said.err.contains("panicked"), "{arguments:?}: {}", said.err);
    said
}

fn run(arguments: &[&str], at: &Path) -> Said {
    run_with(b"", arguments, at)
}

/// Runs a command that must end well; its output.
fn good(arguments: &[&str], at: &Path) -> String {
    let said = run(arguments, at);
    assert_eq!(said.code, GOOD, "{arguments:?}: {}", said.text());
    String::from_utf8(said.out).unwrap()
}

/// A dump's lines without the checks.
fn lines(numbers: std::ops::Range<u32>, value: impl Fn(u32) -> String) -> Vec<u8> {
    numbers.map(|n| format!("{{\"key\":\"key-{n}\",\"value\":\"{}\"}}\n", value(n))).collect::<String>().into_bytes()
}

/// A store with several chunks; returns its directory's parent, in which it is called `s`.
fn store_of_chunks() -> tempfile::TempDir {
    let tmp = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let input = lines(0..8000, |n| format!("{round}-{n}-{}", "x".repeat(1000)));
        let said = run_with(&input, &["load", "--unchecked", "file:s?chunk_bytes=4m"], tmp.path());
        assert_eq!(said.code, GOOD, "{}", said.text());
        assert_eq!(said.out, b"8000 records loaded\n");
    }
    tmp
}

/// The lines of a dump without the first and the last, in an order of their own.
fn records(at: &Path, store: &str) -> Vec<String> {
    let dump = good(&["dump", store], at);
    let mut lines: Vec<String> = dump.lines().map(str::to_owned).collect();
    assert_eq!(lines.first().map(String::as_str), Some("{\"kvbatch_dump\":1}"));
    assert!(lines.last().unwrap().starts_with(&format!("{{\"end\":{},", lines.len() - 2)));
    lines.retain(|line| line.starts_with("{\"key"));
    lines.sort();
    lines
}

/// All files but the lock, which whoever wants to write takes before anything else.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("LOCK"));
    entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn chunk_files(dir: &Path) -> Vec<PathBuf> {
    files(dir).into_keys().filter(|path| path.file_name().unwrap().as_bytes().starts_with(b"chunk-")).collect()
}

fn flip(file: &Path, offset: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[offset] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_dump_is_loaded_back_byte_by_byte() {
    let tmp = tempfile::tempdir().unwrap();
    let input = concat!(
        "{\"key\":\"plain\",\"value\":\"Ada \\\"L\\\" \\u00e4\\n\"}\n",
        "{\"key_base64\":\"AP8=\",\"value_base64\":\"gIGC\"}\n",
        "{\"key\":\"empty\",\"value\":\"\"}\n",
        "{\"key\":\"expires\",\"value\":\"1\",\"expires_ms\":99999999999999}\n",
    );
    assert_eq!(run_with(input.as_bytes(), &["load", "--unchecked", "one"], tmp.path()).code, GOOD);
    let one = good(&["dump", "one"], tmp.path());
    assert!(one.contains("{\"key_base64\":\"AP8=\",\"value_base64\":\"gIGC\"}\n") && one.contains("Ada \\\"L\\\" \u{e4}\\n"), "{one}");
    assert!(one.contains("\"expires_ms\":99999999999999}"), "{one}");
    let said = run_with(one.as_bytes(), &["load", "two"], tmp.path());
    assert_eq!((said.code, said.out.as_slice()), (GOOD, &b"4 records loaded\n"[..]), "{}", said.err);
    assert_eq!(records(tmp.path(), "two"), records(tmp.path(), "one"));
    assert!(good(&["stat", "two"], tmp.path()).lines().any(|line| line.split_whitespace().eq(["keys", "4"])));
}

#[test]
fn a_dump_that_is_not_whole_is_noticed() {
    let tmp = tempfile::tempdir().unwrap();
    let input = lines(0..50, |n| n.to_string());
    assert_eq!(run_with(&input, &["load", "--unchecked", "s"], tmp.path()).code, GOOD);
    let dump = good(&["dump", "s"], tmp.path());
    let without_last = dump.lines().take(51).map(|line| format!("{line}\n")).collect::<String>();
    let one_less = dump.lines().enumerate().filter(|(at, _)| *at != 7).map(|(_, line)| format!("{line}\n")).collect::<String>();
    for (bad, word) in [
        (without_last.clone(), "cut off"),
        (one_less, "checksum"),
        (dump.replacen("key-7\"", "key-x\"", 1), "checksum"),
        (dump.replacen("\"key\"", "\"kee\"", 1), "line 2"),
        (dump.replacen("{\"kvbatch_dump\":1}", "", 1), "kvbatch_dump"),
        (dump.replacen("dump\":1", "dump\":2", 1), "version 2"),
        (format!("{dump}{{\"key\":\"a\",\"value\":\"b\"}}"), "behind the end"),
        (String::new(), "cut off"),
        ("nonsense\n".to_owned(), "line 1"),
    ] {
        let said = run_with(bad.as_bytes(), &["load", "bad"], tmp.path());
        assert!(said.code == DAMAGE && said.err.contains(word), "{word}: {}", said.text());
    }
    for bad in ["{\"key\":\"\",\"value\":\"x\"}", "{\"key\":\"a\"}", "{\"key\":\"a\",\"key_base64\":\"YQ==\",\"value\":\"x\"}"] {
        assert_eq!(run_with(bad.as_bytes(), &["load", "--unchecked", "bad"], tmp.path()).code, DAMAGE, "{bad}");
    }
    assert_eq!(run_with(without_last.as_bytes(), &["load", "--unchecked", "good"], tmp.path()).code, GOOD);
    assert_eq!(records(tmp.path(), "good"), records(tmp.path(), "s"));
}

#[test]
fn looking_leaves_no_trace() {
    let tmp = store_of_chunks();
    let dir = tmp.path().join("s");
    std::fs::remove_file(dir.join("LOCK")).unwrap();
    let before = files(&dir);
    for arguments in
        [&["stat", "s"][..], &["stat", "--chunks", "s"], &["verify", "s"], &["dump", "s"], &["backup", "s", "b"], &["salvage", "s", "d"]]
    {
        good(arguments, tmp.path());
        assert!(files(&dir) == before && !dir.join("LOCK").exists(), "{arguments:?}");
    }
    assert!(good(&["stat", "--chunks", "s"], tmp.path()).matches("chunk-").count() >= 4);
    assert!(good(&["verify", "s"], tmp.path()).contains("good"));
    assert_eq!(good(&["verify", "--quiet", "s"], tmp.path()), "");
}

#[test]
fn what_is_no_store_is_not_opened_nor_made() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::create_dir(tmp.path().join("empty")).unwrap();
    std::fs::write(tmp.path().join("file"), "x").unwrap();
    for command in [&["stat"][..], &["verify"], &["dump"], &["compact"], &["backup"], &["salvage"]] {
        for store in ["none", "empty", "file"] {
            let mut arguments = [command, &[store]].concat();
            if matches!(command[0], "backup" | "salvage") {
                arguments.push("to");
            }
            assert_eq!(run(&arguments, tmp.path()).code, NOT_OPENED, "{arguments:?}");
        }
    }
    let mut names: Vec<_> = std::fs::read_dir(tmp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["empty", "file"]);
    assert_eq!(std::fs::read_dir(tmp.path().join("empty")).unwrap().count(), 0);
}

#[test]
fn wrong_use_is_told_from_failure() {
    let tmp = tempfile::tempdir().unwrap();
    for arguments in [
        &[][..],
        &["nonsense"],
        &["stat"],
        &["stat", "memory:"],
        &["stat", "file:s?min_fill=3"],
        &["stat", "file:s?min_fill_rate=300"],
        &["compact", "s", "--min-fill-rate", "101"],
        &["load", "file:s?hot_log_bytes=4m"],
        &["load", "file:s?read_only=true"],
        &["verify", "file:s?recovery=prefix"],
    ] {
        assert_eq!(run(arguments, tmp.path()).code, USAGE, "{arguments:?}");
    }
    let said = run(&["stat", "file:s?min_fill=3"], tmp.path());
    assert!(said.err.contains("\"min_fill\"") && said.err.contains("min_fill_rate"), "{}", said.err);
}

#[test]
fn a_store_that_is_open_is_left_alone() {
    let tmp = store_of_chunks();
    let url = StoreUrl::parse(tmp.path().join("s").as_os_str().as_bytes()).unwrap();
    let open = store::open(&url, 8).unwrap();
    let pid = std::process::id().to_string();
    for arguments in [
        &["stat", "s"][..],
        &["verify", "s"],
        &["dump", "s"],
        &["compact", "s"],
        &["backup", "s", "b"],
        &["salvage", "s", "d"],
        &["load", "s"],
    ] {
        let said = run(arguments, tmp.path());
        assert!(said.code == LOCKED && said.err.contains(&pid), "{arguments:?}: {}", said.text());
    }
    good(&["verify", "--force-read-only", "s"], tmp.path());
    open.release().unwrap();
    good(&["verify", "s"], tmp.path());
}

#[test]
fn damage_is_found_named_and_survived() {
    let tmp = store_of_chunks();
    let dir = tmp.path().join("s");
    let all = records(tmp.path(), "s");
    let chunks = chunk_files(&dir);
    // The last write of key-7999 and its neighbours stands at the end; damage a live record in the last chunk but one.
    let hurt = &chunks[chunks.len() - 2];
    flip(hurt, 2_000_000);
    let before = files(&dir);
    let said = run(&["verify", "s"], tmp.path());
    let name = hurt.file_name().unwrap().to_str().unwrap();
    assert!(said.code == DAMAGE && said.text().contains(&format!("damage: {name}: byte ")), "{}", said.text());
    assert!(said.text().contains("does not open"), "{}", said.text());
    for command in ["stat", "dump", "compact"] {
        let said = run(&[command, "s"], tmp.path());
        assert!(said.code == NOT_OPENED && said.err.contains(name), "{command}: {}", said.text());
    }
    let said = run(&["salvage", "s", "saved"], tmp.path());
    assert!(said.code == DAMAGE && said.text().contains("saved: "), "{}", said.text());
    assert!(files(&dir) == before, "the damaged store was changed");
    good(&["verify", "saved"], tmp.path());
    let saved = records(tmp.path(), "saved");
    let gone = all.iter().filter(|line| saved.binary_search(line).is_err()).count();
    assert_eq!((saved.len(), gone), (all.len(), 1), "one record is lost, and an older value of its key is back");
    assert_eq!(run(&["salvage", "s", "saved"], tmp.path()).code, USAGE, "only into an empty directory");
    let said = run(&["stat", "file:s?recovery=prefix"], tmp.path());
    assert!(said.code == GOOD && said.err.contains("recovery=prefix"), "{}", said.text());
    assert!(files(&dir) == before, "looking at a prefix changes nothing");
}

#[test]
fn a_backup_is_a_store() {
    let tmp = store_of_chunks();
    good(&["backup", "s", "b"], tmp.path());
    assert_eq!(run(&["backup", "s", "b"], tmp.path()).code, USAGE, "only into an empty directory");
    good(&["verify", "b"], tmp.path());
    let all = records(tmp.path(), "s");
    assert!(records(tmp.path(), "b") == all);
    assert_eq!(run_with(&lines(0..10, |_| "new".to_owned()), &["load", "--unchecked", "b"], tmp.path()).code, GOOD);
    assert!(records(tmp.path(), "b") != all && records(tmp.path(), "s") == all, "each has a life of its own");
}

#[test]
fn compaction_gives_space_back() {
    let tmp = store_of_chunks();
    let all = records(tmp.path(), "s");
    let bytes = || files(&tmp.path().join("s")).values().map(Vec::len).sum::<usize>();
    let before = bytes();
    let said = good(&["compact", "s", "--min-fill-rate", "90"], tmp.path());
    assert!(said.contains("on disk before"), "{said}");
    assert!(bytes() * 3 < before * 2, "{before} bytes before, {} after", bytes());
    assert!(records(tmp.path(), "s") == all);
    good(&["verify", "s"], tmp.path());
}

#[test]
fn a_packed_store_is_a_store_to_every_command() {
    let tmp = tempfile::tempdir().unwrap();
    let value = |n: u32| format!("name {} of street {} in town {}", n * 7919 % 10_007, n % 331, n % 17);
    assert_eq!(run_with(&lines(0..40_000, value), &["load", "--unchecked", "file:s?chunk_bytes=4m"], tmp.path()).code, GOOD);
    let all = records(tmp.path(), "s");
    let dictionary = tmp.path().join("s/dictionary-0000000000000001.kvb");
    good(&["compact", "s", "--min-fill-rate", "100"], tmp.path());
    assert!(!dictionary.exists(), "nothing is packed unless it is asked for");
    good(&["compact", "file:s?compacted_codec=dense", "--min-fill-rate", "100"], tmp.path());
    assert!(dictionary.exists() && records(tmp.path(), "s") == all);
    assert_eq!(run_with(&lines(40_000..40_100, value), &["load", "--unchecked", "s"], tmp.path()).code, GOOD);
    let all = records(tmp.path(), "s");
    good(&["verify", "s"], tmp.path());
    good(&["backup", "s", "b"], tmp.path());
    assert_eq!(run(&["salvage", "s", "saved"], tmp.path()).code, GOOD);
    for copy in ["b", "saved"] {
        good(&["verify", copy], tmp.path());
        assert!(records(tmp.path(), copy) == all, "{copy}");
    }
    flip(&dictionary, 700);
    let said = run(&["verify", "s"], tmp.path());
    assert!(said.code == DAMAGE && said.text().contains("damage: dictionary-0000000000000001.kvb: byte 700"), "{}", said.text());
    assert!(records(tmp.path(), "s") == all, "there is a second copy in the file");
    std::fs::remove_file(&dictionary).unwrap();
    for store in ["s", "file:s?recovery=prefix"] {
        let said = run(&["stat", store], tmp.path());
        assert!(said.code == NOT_OPENED && said.err.contains("dictionary-") && said.err.contains("kvbatch salvage"), "{}", said.text());
    }
    let said = run(&["salvage", "s", "rest"], tmp.path());
    assert!(said.code == DAMAGE && said.text().contains("records need it"), "{}", said.text());
    good(&["verify", "rest"], tmp.path());
    let rest = records(tmp.path(), "rest");
    assert!(rest.len() >= 100 && rest.iter().all(|line| all.binary_search(line).is_ok()), "what was not packed is saved");
    let zstd = run(&["compact", "file:b?compacted_codec=zstd", "--min-fill-rate", "100"], tmp.path());
    let as_built = if cfg!(feature = "zstd") { zstd.code == GOOD } else { zstd.code == USAGE && zstd.err.contains("built without zstd") };
    assert!(as_built && records(tmp.path(), "b") == all, "{}", zstd.text());
}

#[test]
fn a_compaction_can_be_broken_off() {
    let tmp = store_of_chunks();
    let dir = tmp.path().join("s");
    let all = records(tmp.path(), "s");
    let newest = newest_name(&dir);
    // All of it, and slow enough that it is far from done when it is told to stop.
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvbatch"))
        .args(["compact", "file:s?compaction_rate_limit=512k", "--min-fill-rate", "100"])
        .current_dir(tmp.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It has begun when it moves something: that goes to a new chunk.
    while newest_name(&dir) <= newest {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it was told to");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(INTERRUPTED) && said.contains("broken off: "), "{output:?}");
    assert!(records(tmp.path(), "s") == all);
    good(&["verify", "s"], tmp.path());
    good(&["compact", "s", "--min-fill-rate", "90"], tmp.path());
    assert!(records(tmp.path(), "s") == all);
}

#[test]
fn a_full_disk_is_told_from_damage() {
    let tmp = store_of_chunks();
    let said = limited("1000", &["salvage", "s", "d"], tmp.path());
    assert!(said.code == FAILED && said.err.contains("d is not complete"), "{}", said.text());
    let said = limited("1000", &["backup", "s", "b"], tmp.path());
    assert!(said.code == FAILED && said.err.contains("b is not complete"), "{}", said.text());
    assert_eq!(run(&["stat", "b"], tmp.path()).code, NOT_OPENED, "what is left of a backup is none");
    good(&["verify", "s"], tmp.path());
}

/// The newest chunk file, going by names alone: they come and go meanwhile.
fn newest_name(dir: &Path) -> Option<std::ffi::OsString> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.as_bytes().starts_with(b"chunk-")).max()
}

/// Runs a command that may write files of so many KiB and no larger ones.
fn limited(kib: &str, arguments: &[&str], at: &Path) -> Said {
    let script = format!("ulimit -f {kib}; exec \"$0\" \"$@\"");
    let output = Command::new("bash").args(["-c", &script, env!("CARGO_BIN_EXE_kvbatch")]).args(arguments).current_dir(at).output();
    let Output { status, stdout, stderr } = output.unwrap();
    Said { code: status.code().expect("ends by itself"), out: stdout, err: String::from_utf8(stderr).unwrap() }
}

#[test]
fn a_small_measurement_runs() {
    let tmp = tempfile::tempdir().unwrap();
    let said = good(&["bench", "--keys", "500", "--batch", "50", "b"], tmp.path());
    assert!(said.contains("puts") && said.contains("gets again") && said.contains("per second"), "{said}");
    assert_eq!(run(&["bench", "b"], tmp.path()).code, USAGE, "never in a store that is there");
}

#[test]
fn a_reader_that_goes_is_no_panic() {
    let tmp = store_of_chunks();
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvbatch"))
        .args(["dump", "s"])
        .current_dir(tmp.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(FAILED), ""));
}

#[test]
fn the_options_are_listed() {
    let tmp = tempfile::tempdir().unwrap();
    let text = good(&["options"], tmp.path());
    for spec in store::options::TABLE {
        assert!(text.contains(&format!("{} = {}\n", spec.name, spec.values())), "{text}");
    }
    assert_eq!(good(&["options", "--markdown"], tmp.path()), store::options::page());
}

#[test]
fn the_manual_page_names_every_command_and_flag() {
    let tmp = tempfile::tempdir().unwrap();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man/kvbatch.1")).unwrap();
    let page = page.replace("\\-", "-");
    let help = good(&["--help"], tmp.path());
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).filter(|word| *word != "help").collect();
    assert_eq!(commands.len(), 9, "{help}");
    for command in commands {
        assert!(page.contains(&format!("\n.SS {command}\n")) || page.contains(&format!("\n.SS {command} ")), "{command}");
        let help = good(&[command, "--help"], tmp.path());
        for flag in help.split(|c: char| c.is_whitespace() || c == ',').filter(|word| word.starts_with("--") && *word != "--help") {
            assert!(page.contains(flag), "{command} {flag}");
        }
    }
    for spec in store::options::TABLE {
        assert!(page.contains(spec.name), "{}", spec.name);
    }
    for code in [GOOD, DAMAGE, USAGE, NOT_OPENED, LOCKED, FAILED, INTERRUPTED] {
        assert!(page.contains(&format!("\n.B {code}\n")), "exit code {code}");
    }
}
