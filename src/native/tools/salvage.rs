//! Salvage: from a store that may be damaged, a new store of everything in it that can be proven good.
//!
//! A record is proven by its own checksum, which is salted with its place, whether or not the frame around it is good.
//! The order of places is the order of commits, so the last good record of a key is the newest one left. If a newer one
//! was lost, or is packed and its dictionary is gone, the older one takes its place, and a key whose delete was lost is
//! back: nobody can tell. The report says where something was lost. The damaged store is read and never changed.

use super::super::dictionary::{self, Names, Stored};
use super::super::index::{Index, Place};
use super::super::options::Options;
use super::super::{LOCK_NAME, NativeEngine};
use super::dictionaries::{Missed, Value};
use super::follow::{Follower, Met};
use super::loader::Loader;
use super::survey::Survey;
use super::{Damage, Progress, Source, open_empty};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::hash::KeyHasher;
use crate::base::random;
use crate::base::sync::Arc;
use crate::engine::Engine;
use crate::engine::record::Kind;
use crate::io::Disk;
use std::path::Path;

/// What `salvage` did.
#[derive(Clone, Debug, Default)]
pub struct SalvageReport {
    /// Good records met, those that are no longer current included.
    pub records: u64,
    /// Keys saved.
    pub keys: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Records that were in the log and cannot be read, as far as they can be counted: those in files that are missing
    /// altogether are not among them.
    pub lost: u64,
    /// What is wrong with the old store.
    pub damage: Vec<Damage>,
    /// What is not wrong, but worth knowing.
    pub notes: Vec<String>,
}

/// Saves what is good in the store `from` into the directory `to`, which must be empty or not there yet.
///
/// `alone`: keep writers away meanwhile, and refuse if one has it open. `options`: for the new store.
pub fn salvage(
    disk: &Arc<dyn Disk>,
    from: &Path,
    to: &Path,
    alone: bool,
    options: Options,
    progress: Progress<'_>,
) -> Result<SalvageReport> {
    let source = Source::open(&**disk, from, alone)?;
    let mut survey = Survey::take(&source)?;
    if survey.chunks.is_empty() {
        return Err(Error::new(Code::FILE, format!("store {}: there is no chunk file in it: nothing can be saved", source.name)));
    }
    drop(open_empty(&**disk, to)?);
    let mut report =
        SalvageReport { damage: std::mem::take(&mut survey.damage), notes: std::mem::take(&mut survey.notes), ..SalvageReport::default() };
    // Twice over the log: first the newest place of each key, then the records that stand there.
    let hasher = KeyHasher::new([random::secret_u64(), random::secret_u64()]);
    let mut index = Index::new()?;
    let mut follower = Follower::default();
    let (mut missed, mut not_had, mut needed) = (Missed::default(), 0, Names::default());
    let mut note_places = |met: Met<'_>| {
        match met {
            Met::Record { chunk, offset, bytes, record } => {
                report.records += 1;
                let is_had = match survey.dictionaries.judge(&record)? {
                    Value::Good => true,
                    Value::Lacks(number) => {
                        missed.add(number);
                        false
                    }
                    Value::Spoilt => {
                        let what = "the value of this record does not unpack; it is left out";
                        report.damage.push(Damage::new(&survey.chunks[chunk].name, offset, bytes.len() as u64, what));
                        false
                    }
                };
                if !is_had {
                    not_had += 1;
                    return Ok(());
                }
                dictionary::name(&mut needed, record.dictionary);
                let hash = hasher.hash(record.key);
                match record.kind {
                    Kind::Put => {
                        index.reserve(std::iter::once(hash))?;
                        index.put(&hash, Place::new(chunk as u32 + 1, offset, bytes.len()));
                    }
                    Kind::Delete => drop(index.remove(&hash)),
                }
            }
            Met::Damage(damage) => report.damage.push(damage),
            Met::Note(note) => report.notes.push(note),
            Met::Frame => {}
        }
        Ok(())
    };
    follower.run(&survey, &mut note_places, &mut |done, total| progress(done, 2 * total))?;
    report.lost = follower.lost() + not_had;
    report.damage.extend(missed.damage());
    let options = Options { background: false, hot_log_bytes: 0, read_only: false, ..options };
    let engine = NativeEngine::open(Arc::clone(disk), to, options)?;
    let carried = engine.carry_over(&survey.dictionaries.good, &needed);
    let mut loader = Loader::new(Arc::clone(&engine));
    let mut copy = |met: Met<'_>| {
        let Met::Record { chunk, offset, bytes, record } = met else { return Ok(()) };
        let is_current = index.get(&hasher.hash(record.key)) == Some(Place::new(chunk as u32 + 1, offset, bytes.len()));
        match survey.chunks[chunk].salt(survey.store) {
            Some(salt) if is_current && record.kind == Kind::Put => {
                report.keys += 1;
                report.bytes += bytes.len() as u64;
                loader.copy(&record, bytes, salt, offset)
            }
            _ => Ok(()),
        }
    };
    let copied = carried.and_then(|()| Follower::default().run(&survey, &mut copy, &mut |done, total| progress(total + done, 2 * total)));
    let finished = copied.and_then(|()| loader.finish());
    let closed = engine.close();
    finished.and(closed).map_err(|error| {
        let text = format!("{}; {} is not complete: remove it (and its {LOCK_NAME}) and salvage again", error.message, to.display());
        Error { message: text.into(), ..error }
    })?;
    Ok(report)
}

impl NativeEngine {
    /// Takes over dictionaries from another store, under their numbers: packed values go along as they are.
    fn carry_over(&self, from: &[Stored], needed: &Names) -> Result<()> {
        for stored in from.iter().filter(|stored| dictionary::is_named(needed, stored.dictionary.number)) {
            let name = dictionary::file_name(stored.dictionary.number);
            let adopted = self.dictionaries.adopt(&**self.log.dir(), &self.log.store(), stored);
            adopted.map_err(|e| Error::from_io(format_args!("store {}: cannot write {name}", self.path), &e))?;
        }
        self.log.name_dictionaries(self.dictionaries.names());
        Ok(())
    }
}
