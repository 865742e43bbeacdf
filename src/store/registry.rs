//! The stores that are open in this process. Managers that name the same directory, by whatever path, share one.

use super::url::StoreUrl;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::log::{self, Level};
use crate::base::sync::{Arc, Mutex, OnceLock};
use crate::engine::{Engine, IoReport};
use crate::io::Disk;
use crate::io::real::RealDisk;
use crate::memory::MemoryEngine;
use crate::native::{NativeEngine, Options};
use std::any::Any;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

/// What tells one store from another.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    /// Device and inode of the directory.
    Directory(u64, u64),
    Memory(Vec<u8>),
    Private,
}

/// An open store. Whoever got it from `open` gives it back with `release`, once.
pub struct Store {
    engine: Arc<dyn Engine>,
    identity: Identity,
    /// How the embedded engine was opened.
    options: Option<Options>,
    users: Mutex<usize>,
    /// What the layer above keeps per store.
    companion: OnceLock<Arc<dyn Any + Send + Sync>>,
}

static OPEN: Mutex<Vec<Arc<Store>>> = Mutex::new(Vec::new());

/// Opens the store, or joins those who have it open. `io_queue_depth`: reads in flight, for the first to open it.
pub fn open(url: &StoreUrl, io_queue_depth: u32) -> Result<Arc<Store>> {
    let begun = Instant::now();
    let opened = open_or_join(url, io_queue_depth);
    match &opened {
        Ok((store, true)) => tell_of_opening(&*store.engine, begun),
        Ok((store, false)) => log::write(Level::Debug, "open", &format!("store {}: one manager more", store.engine.name())),
        Err(error) => log::write(Level::Error, "open", &error.message),
    }
    opened.map(|(store, _)| store)
}

fn tell_of_opening(engine: &dyn Engine, begun: Instant) {
    let (name, counters, IoReport { backend, reason }) = (engine.name(), engine.counters(), engine.io_report());
    let text = format!(
        "store {name}: opened in {} ms: {} keys, {} of them from a checkpoint, {} bytes of log gone through; reads by {backend} ({reason})",
        begun.elapsed().as_millis(),
        counters.keys,
        counters.loaded_keys,
        counters.replayed_bytes
    );
    log::write(Level::Info, "open", &text);
    if backend == "threads" && !reason.starts_with("KVBATCH_IO=threads") {
        let text = format!(
            "store {name}: io_uring cannot be had, threads read instead, which is slower where the disk is: {reason}; allow it \
             (sysctl kernel.io_uring_disabled=0, no seccomp filter against it), or set KVBATCH_IO=threads if this is meant"
        );
        log::write(Level::Warn, "open", &text);
    }
}

/// The store, and whether it was opened for this.
fn open_or_join(url: &StoreUrl, io_queue_depth: u32) -> Result<(Arc<Store>, bool)> {
    let mut stores = OPEN.lock();
    let (identity, place) = match url {
        StoreUrl::MemoryPrivate => (Identity::Private, None),
        StoreUrl::MemoryNamed(name) => (Identity::Memory(name.clone()), None),
        StoreUrl::File(path, set) => {
            set.check()?;
            let cannot =
                |path: &Path, e: &io::Error| Error::from_io(format_args!("store {}: cannot open the directory", path.display()), e);
            let path = std::path::absolute(path).map_err(|e| cannot(path, &e))?;
            let failed = |e: &io::Error| cannot(&path, e);
            let disk = Arc::new(RealDisk::open(io_queue_depth));
            if !set.options().read_only {
                disk.open_dir(&path).map_err(|e| failed(&e))?; // makes it: only then has it an identity
            }
            let about = std::fs::metadata(&path).map_err(|e| failed(&e))?;
            (Identity::Directory(about.dev(), about.ino()), Some((disk, path, set)))
        }
    };
    if identity != Identity::Private
        && let Some(store) = stores.iter().find(|store| store.identity == identity)
    {
        if let (Some((_, path, set)), Some(in_force)) = (&place, &store.options) {
            set.check_against(in_force, &path.display().to_string())?;
        }
        *store.users.lock() += 1;
        return Ok((Arc::clone(store), false));
    }
    let options = place.as_ref().map(|(_, _, set)| set.options());
    let engine: Arc<dyn Engine> = match (place, &identity) {
        (Some((disk, path, set)), _) => NativeEngine::open(disk, &path, set.options())?,
        (None, Identity::Memory(name)) => MemoryEngine::open(format!("memory:{}", String::from_utf8_lossy(name))),
        (None, _) => MemoryEngine::open("memory:".to_owned()),
    };
    let store = Arc::new(Store { engine, identity, options, users: Mutex::new(1), companion: OnceLock::new() });
    stores.push(Arc::clone(&store));
    Ok((store, true))
}

/// Has `memory:name` mean this engine from now on, until the last who opened it gives it back.
#[cfg(test)]
pub fn put_under(name: &str, engine: Arc<dyn Engine>) {
    let identity = Identity::Memory(name.as_bytes().to_vec());
    OPEN.lock().push(Arc::new(Store { engine, identity, options: None, users: Mutex::new(0), companion: OnceLock::new() }));
}

impl Store {
    /// The engine behind it.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// How the embedded engine is run; `None`: the store is in memory.
    pub fn options(&self) -> Option<&Options> {
        self.options.as_ref()
    }

    /// What the layer above shares between the managers of this store; `make` is called once.
    pub fn companion(&self, make: impl FnOnce() -> Arc<dyn Any + Send + Sync>) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(self.companion.get_or_init(make))
    }

    /// Gives the store back; the last user closes it.
    pub fn release(self: &Arc<Self>) -> Result<()> {
        let mut stores = OPEN.lock();
        let left = {
            let mut users = self.users.lock();
            *users = users.checked_sub(1).ok_or_else(|| Error::new(Code::INVALID_STATE, "a store was released more often than opened"))?;
            *users
        };
        if left > 0 {
            return Ok(());
        }
        stores.retain(|store| !Arc::ptr_eq(store, self));
        let closed = self.engine.close();
        drop(stores);
        match &closed {
            Ok(()) => log::write(Level::Info, "close", &format!("store {}: closed", self.engine.name())),
            Err(error) => log::write(Level::Error, "close", &error.message),
        }
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn named(path: &Path, query: &str) -> StoreUrl {
        let url = [b"file:", path.as_os_str().as_bytes(), query.as_bytes()].concat();
        StoreUrl::parse(&url).expect("good")
    }

    #[test]
    fn one_store_has_one_set_of_options() {
        let tmp = tempfile::tempdir().expect("a directory");
        let first = open(&named(tmp.path(), "?min_fill_rate=40"), 8).expect("opens");
        let same = open(&named(tmp.path(), "?min_fill_rate=40&chunk_bytes=64m"), 8).expect("what is in force");
        let silent = open(&named(tmp.path(), ""), 8).expect("asks for nothing");
        assert!(Arc::ptr_eq(&first, &same) && Arc::ptr_eq(&first, &silent));
        for (other, in_force) in
            [("?min_fill_rate=50", "min_fill_rate=40"), ("?read_only=true", "read_only=false"), ("?recovery=prefix", "recovery=strict")]
        {
            let error = open(&named(tmp.path(), other), 8).map(drop).expect_err("differs");
            assert!(error.code == Code::CONFIG && error.message.contains(in_force), "{error}");
        }
        for store in [first, same, silent] {
            store.release().expect("closes");
        }
        let other = open(&named(tmp.path(), "?min_fill_rate=50"), 8).expect("the options went with the last user");
        other.release().expect("closes");
    }

    #[test]
    fn reading_only_makes_no_directory_and_takes_no_writes() {
        let tmp = tempfile::tempdir().expect("a directory");
        let path = tmp.path().join("s");
        assert_eq!(open(&named(&path, "?read_only=true"), 8).map(drop).map_err(|e| e.code), Err(Code::FILE));
        assert!(!path.exists());
        open(&named(&path, ""), 8).and_then(|store| store.release()).expect("is made");
        let reader = open(&named(&path, "?read_only=true"), 8).expect("opens");
        reader.release().expect("closes");
    }
}
