//! The C suite under `cargo test`: compiles every C file of this directory with the system's compiler against the real shared
//! library, and runs one process per case, one line per case (`file::case`).
//!
//! What it builds: `test_*.c` (many cases each, with the harness kvtest.h), `programs/*.c` (one case each, without the
//! harness and without linking the library), `cpp/test_*.cpp` (C++17, many cases each), and every public header alone, in
//! five language standards. Without a C++ compiler what needs one is left out.
//! Environment: `KV_LIBRARY` names another libkvbatch.so (one with a sanitizer), `KV_RUNNER` wraps each case
//! (`valgrind -q --error-exitcode=9`), `KV_CFLAGS` adds to the compiler's flags,
//! `KV_QUICK=1` leaves out slow cases, `KVB_DENY_URING=EPERM|ENOSYS|ENOMEM|number` denies io_uring, `KVBATCH_IO` goes through to the
//! library, `KV_CASE_SECONDS` moves the net for hanging cases, `KV_KEEP=1` keeps the cases' directories.
//! It must never assert speed: the net only ends what hangs.
#![allow(clippy::print_stderr, reason = "a test driver talks to people")]

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use std::{env, error, fs, io, thread};

type Result<T> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ffi-tests");
const INCLUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include");
const SKIPPED: i32 = 77;
/// What valgrind says of memory, behind the process's number.
const MEMORY_ERRORS: [&str; 4] = ["Invalid read", "Invalid write", "Invalid free", "uninitialised"];
/// What the sanitizers say; also of a process that goes on, or that is killed before it can exit with their code.
const REPORTS: [&str; 5] =
    ["ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer", ": runtime error: ", "FATAL: ThreadSanitizer"];
const STANDARDS: [(&str, &str); 5] = [("c99", "c"), ("c11", "c"), ("c17", "c"), ("c++11", "c++"), ("c++20", "c++")];
/// Of the header for C++.
const STANDARDS_CPP: [(&str, &str); 2] = [("c++17", "c++"), ("c++20", "c++")];
const CPP_FLAGS: [&str; 7] = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];

fn main() -> ExitCode {
    run_suite().unwrap_or_else(|error| {
        eprintln!("ffi-tests: {error}");
        ExitCode::FAILURE
    })
}

fn run_suite() -> Result<ExitCode> {
    let arguments = Arguments::from_args();
    let suite = Arc::new(Suite::new()?);
    let mut trials = header_trials(&suite)?;
    trials.extend(suite.build_all()?);
    let conclusion = libtest_mimic::run(&arguments, trials);
    suite.clean_up();
    Ok(conclusion.exit_code())
}

/// Where things are, and how cases are run.
struct Suite {
    library: PathBuf,
    work: PathBuf,
    runs: PathBuf,
    compiler: cc::Tool,
    extra_flags: Vec<String>,
    wrapper: Vec<OsString>,
    quick: bool,
    net: Option<Duration>,
}

/// One C program to be.
struct Program {
    name: String,
    sources: Vec<PathBuf>,
    linked: bool,
}

impl Program {
    fn is_cpp(&self) -> bool {
        self.sources.iter().any(|source| source.extension().is_some_and(|e| e == "cpp"))
    }
}

impl Suite {
    fn new() -> Result<Self> {
        let exe = env::current_exe()?;
        let deps = exe.parent().ok_or("the test program lies in no directory")?;
        let profile = deps.parent().ok_or("no profile directory")?;
        // `cargo test` leaves the library in deps/, `cargo build` one level up, where an old copy may lie: the newest counts.
        let usual = [profile.join("libkvbatch.so"), deps.join("libkvbatch.so")];
        let named = env::var_os("KV_LIBRARY").map(|path| [PathBuf::from(path)]);
        let library = named
            .as_ref()
            .map_or(&usual[..], |named| &named[..])
            .iter()
            .filter(|path| path.exists())
            .max_by_key(|path| modified(path))
            .ok_or("libkvbatch.so has not been built")?
            .canonicalize()?;
        let work = library.parent().filter(|_| named.is_some()).unwrap_or(profile).join("ffi-tests");
        let lib = work.join("lib");
        fs::create_dir_all(&lib)?;
        for name in ["libkvbatch.so", "libkvbatch.so.1"] {
            replace_link(&library, &lib.join(name))?;
        }
        let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
        let compiler = cc::Build::new()
            .host(&triple)
            .target(&triple)
            .opt_level(1)
            .debug(true)
            .warnings(true)
            .extra_warnings(true)
            .warnings_into_errors(true)
            // Whether the compiler sees a possible truncation depends on how it optimises; other compilers don't know the flag.
            .flag("-Wno-format-truncation")
            .flag("-Wno-unknown-warning-option")
            .std("c11")
            .define("_GNU_SOURCE", None)
            .include(INCLUDE)
            .include(HERE)
            .cargo_metadata(false)
            .try_get_compiler()?;
        let words = |name: &str| -> Vec<String> { env::var(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect() };
        let runs = work.join(format!("run-{}", std::process::id()));
        remove_dead_runs(&work);
        fs::create_dir_all(&runs)?;
        let net = match env::var("KV_CASE_SECONDS") {
            Ok(text) => Some(Duration::from_secs(text.parse()?)),
            Err(_) => None,
        };
        let mut suite = Suite {
            library,
            work,
            runs,
            compiler,
            extra_flags: words("KV_CFLAGS"),
            wrapper: words("KV_RUNNER").into_iter().map(OsString::from).collect(),
            quick: env::var_os("KV_QUICK").is_some_and(|v| v == "1"),
            net,
        };
        suite.deny_uring()?;
        Ok(suite)
    }

    /// Puts the launcher that takes io_uring away in front of every case, if asked to.
    fn deny_uring(&mut self) -> Result<()> {
        let number = match env::var("KVB_DENY_URING").unwrap_or_default().as_str() {
            "" | "0" => return Ok(()),
            "1" | "EPERM" => "1".to_owned(),
            "ENOSYS" => "38".to_owned(),
            "ENOMEM" => "12".to_owned(),
            other => other.parse::<u16>()?.to_string(),
        };
        let launcher = Program { name: "deny_uring".to_owned(), sources: vec![Path::new(HERE).join("deny_uring.c")], linked: false };
        let built = self.build(&launcher)?;
        self.wrapper.splice(0..0, [built.into_os_string(), number.into()]);
        Ok(())
    }

    /// Compiles all programs, several at a time, and lists their cases.
    fn build_all(self: &Arc<Self>) -> Result<Vec<Trial>> {
        let helpers = ["kvtest.c", "kvtest_host.c"].map(|name| Path::new(HERE).join(name));
        let mut programs = Vec::new();
        for source in source_files(Path::new(HERE), "test_", "c")? {
            let name = stem(&source);
            programs.push(Program { name, sources: helpers.iter().cloned().chain([source]).collect(), linked: true });
        }
        for source in source_files(&Path::new(HERE).join("programs"), "", "c")? {
            programs.push(Program { name: stem(&source), sources: vec![source], linked: false });
        }
        if has_cpp_compiler() {
            for source in source_files(&Path::new(HERE).join("cpp"), "test_", "cpp")? {
                programs.push(Program { name: format!("cpp_{}", stem(&source)), sources: vec![source], linked: true });
            }
        }
        let total = programs.len();
        let queue = Mutex::new(programs.into_iter().rev().collect::<Vec<_>>());
        let built = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while let Some(program) = queue.lock().ok().and_then(|mut q| q.pop()) {
                        let result = self.build(&program).and_then(|path| self.cases(&program, &path));
                        if let Ok(mut list) = built.lock() {
                            list.push((program.name, result));
                        }
                    }
                });
            }
        });
        let mut built = built.into_inner().map_err(|_| "a compiling thread panicked")?;
        if built.len() != total {
            return Err("not every C program was built".into());
        }
        built.sort_by(|a, b| a.0.cmp(&b.0));
        let mut trials = Vec::new();
        for (name, result) in built {
            trials.extend(result.map_err(|e| format!("{name}: {e}"))?);
        }
        Ok(trials)
    }

    /// Compiles and links one program, unless the one from the last time is still good.
    fn build(&self, program: &Program) -> Result<PathBuf> {
        let out = self.work.join(&program.name);
        let lib = self.work.join("lib");
        let mut command = if program.is_cpp() {
            let mut command = Command::new("c++");
            command.args(CPP_FLAGS).args(["-I", INCLUDE]);
            command
        } else {
            self.compiler.to_command()
        };
        command.args(&self.extra_flags).args(&program.sources).arg("-o").arg(&out);
        if program.linked {
            command.arg("-L").arg(&lib).arg("-lkvbatch").arg(format!("-Wl,-rpath,{}", lib.display())).arg("-rdynamic");
        }
        command.args(["-pthread", "-ldl"]);
        let recipe = format!("{command:?}");
        let note = out.with_extension("recipe");
        let newest = [
            Path::new(HERE),
            &Path::new(HERE).join("programs"),
            &Path::new(HERE).join("cpp"),
            &Path::new(HERE).join("snippets"),
            &Path::new(INCLUDE).join("kvserver"),
        ]
        .iter()
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
        .map(|entry| modified(&entry.path()))
        .max();
        if Some(modified(&out)) > newest && fs::read_to_string(&note).is_ok_and(|old| old == recipe) {
            return Ok(out);
        }
        let output = command.output()?;
        if !output.status.success() {
            return Err(format!("cannot be compiled:\n{}", String::from_utf8_lossy(&output.stderr)).into());
        }
        fs::write(note, recipe)?;
        Ok(out)
    }

    fn cases(self: &Arc<Self>, program: &Program, path: &Path) -> Result<Vec<Trial>> {
        if !program.linked {
            let argument = self.library.clone().into_os_string();
            return Ok(vec![self.trial(format!("programs::{}", program.name), path, argument, false)]);
        }
        let list = Command::new(path).arg("--list").output()?;
        if !list.status.success() {
            return Err(format!("--list: {}\n{}", list.status, String::from_utf8_lossy(&list.stderr)).into());
        }
        let text = String::from_utf8(list.stdout)?;
        let trial = |line: &str| {
            let (case, tag) = line.split_once(' ').unwrap_or((line, ""));
            self.trial(format!("{}::{case}", program.name), path, case.into(), tag == "slow")
        };
        Ok(text.lines().map(trial).collect())
    }

    fn trial(self: &Arc<Self>, name: String, program: &Path, argument: OsString, slow: bool) -> Trial {
        let (suite, program, case) = (Arc::clone(self), program.to_owned(), name.clone());
        Trial::ignorable_test(name, move || suite.run(&case, &program, &argument, slow)).with_ignored_flag(slow && self.quick)
    }

    /// Runs one case in a directory of its own.
    fn run(&self, name: &str, program: &Path, argument: &OsString, slow: bool) -> std::result::Result<Completion, Failed> {
        let dir = self.runs.join(name.replace("::", "-"));
        fs::create_dir_all(dir.join("cwd"))?;
        let output = dir.join("output");
        let mut line = self.wrapper.iter().cloned().chain([program.as_os_str().to_owned(), argument.clone()]);
        let file = fs::File::create(&output)?;
        let mut child = Command::new(line.next().unwrap_or_default())
            .args(line)
            .current_dir(dir.join("cwd"))
            .env("KVBATCH_STORE", dir.join("cwd").join("store"))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let (wrapped, usual) = (!self.wrapper.is_empty(), if slow { 1200 } else { 120 });
        let net = self.net.unwrap_or(Duration::from_secs(if wrapped { 10 * usual } else { usual }));
        let status = wait_within(&mut child, net)?;
        let text = String::from_utf8_lossy(&fs::read(&output)?).into_owned();
        if env::var_os("KV_KEEP").is_none() {
            let _ = fs::remove_dir_all(&dir);
        }
        let memory_error = |line: &str| wrapped && line.starts_with("==") && MEMORY_ERRORS.iter().any(|e| line.contains(e));
        let reported = |line: &&str| memory_error(line) || REPORTS.iter().any(|report| line.contains(report));
        if let Some(found) = text.lines().find(reported) {
            return Err(format!("{found}\n{text}").into()); // also in a child that was killed
        }
        match status {
            None => Err(format!("hangs: ended after {} s\n{text}", net.as_secs()).into()),
            Some(status) if status.success() => Ok(Completion::Completed),
            Some(status) if status.code() == Some(SKIPPED) => Ok(Completion::ignored_with(text.trim())),
            Some(status) => Err(format!("{status}\n{text}").into()),
        }
    }

    fn clean_up(&self) {
        if env::var_os("KV_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.runs);
        }
    }
}

/// Every public header alone, in every promised standard, without a warning.
fn header_trials(suite: &Arc<Suite>) -> Result<Vec<Trial>> {
    let mut headers: Vec<PathBuf> = fs::read_dir(Path::new(INCLUDE).join("kvserver"))?.flatten().map(|e| e.path()).collect();
    headers.retain(|path| path.extension().is_some_and(|e| e == "h" || e == "hpp"));
    headers.sort();
    let mut trials = Vec::new();
    for header in headers {
        let is_cpp = header.extension().is_some_and(|e| e == "hpp");
        for &(standard, language) in if is_cpp { &STANDARDS_CPP[..] } else { &STANDARDS[..] } {
            let (header, suite) = (header.clone(), Arc::clone(suite));
            trials.push(Trial::ignorable_test(format!("headers::{}_{standard}", stem(&header)), move || {
                let program = if language == "c" { suite.compiler.path().to_owned() } else { "c++".into() };
                let output = Command::new(program)
                    .args(["-x", language, &format!("-std={standard}"), "-D_GNU_SOURCE", "-fsyntax-only"])
                    .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-pragma-once-outside-header", "-I", INCLUDE])
                    .arg(&header)
                    .output();
                match output {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Completion::ignored_with("no C++ compiler")),
                    Err(e) => Err(e.into()),
                    Ok(o) if o.status.success() => Ok(Completion::Completed),
                    Ok(o) => Err(String::from_utf8_lossy(&o.stderr).into_owned().into()),
                }
            }));
        }
    }
    Ok(trials)
}

fn has_cpp_compiler() -> bool {
    Command::new("c++").arg("--version").output().is_ok()
}

/// `None` when the time ran out; the process is ended then, and what it forked ends with it.
fn wait_within(child: &mut Child, net: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + net;
    let mut pause = Duration::from_millis(1);
    while Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn source_files(dir: &Path, prefix: &str, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == suffix) && stem(path).starts_with(prefix));
    files.sort();
    Ok(files)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn modified(path: &Path) -> SystemTime {
    path.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    let fresh = link.with_extension(format!("{}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    std::os::unix::fs::symlink(target, &fresh)?;
    fs::rename(fresh, link)
}

/// Directories that an interrupted run left behind.
fn remove_dead_runs(work: &Path) {
    for entry in fs::read_dir(work).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_prefix("run-")
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
