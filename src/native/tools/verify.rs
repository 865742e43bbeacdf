//! Verifying: every byte of every file is read and compared with what its checksums say, and every packed value is
//! unpacked: under another dictionary than its own it has a good checksum all the same. Nothing is changed.
//!
//! Two looks: this one, which goes on behind damage and tells all of it, and recovery's, which says whether the store
//! opens. What lies behind the end of the log, a torn tail or a chunk that was cut off, is no damage.

use super::super::chunks::Chunks;
use super::super::options::Options;
use super::super::recovery;
use super::dictionaries::{Missed, Value};
use super::follow::{Follower, Met};
use super::survey::Survey;
use super::{Damage, Progress, Source};
use crate::base::error::Result;
use crate::base::random;
use crate::io::Disk;
use std::path::Path;

/// What `verify` found.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// Files looked at.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Good frames.
    pub frames: u64,
    /// Good records in the files, those that are no longer current included.
    pub records: u64,
    /// Keys the store has when it is opened, if it opens.
    pub keys: Option<u64>,
    /// What is wrong.
    pub damage: Vec<Damage>,
    /// What is not wrong, but worth knowing.
    pub notes: Vec<String>,
    /// Why the store does not open, if it does not.
    pub refusal: Option<String>,
}

impl VerifyReport {
    /// Nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.damage.is_empty() && self.refusal.is_none()
    }
}

/// Verifies the store in directory `path`. `alone`: keep writers away meanwhile, and refuse if one has it open; without
/// that the directory must be a copy that nobody writes to.
pub fn verify(disk: &dyn Disk, path: &Path, alone: bool, progress: Progress<'_>) -> Result<VerifyReport> {
    let source = Source::open(disk, path, alone)?;
    let mut survey = Survey::take(&source)?;
    let mut report = VerifyReport {
        files: (survey.chunks.len() + survey.others.len()) as u64,
        bytes: survey.bytes(),
        damage: std::mem::take(&mut survey.damage),
        notes: std::mem::take(&mut survey.notes),
        ..VerifyReport::default()
    };
    let mut missed = Missed::default();
    let mut visit = |met: Met<'_>| {
        match met {
            Met::Frame => report.frames += 1,
            Met::Record { chunk, offset, bytes, record } => {
                report.records += 1;
                match survey.dictionaries.judge(&record)? {
                    Value::Good => {}
                    Value::Lacks(number) => missed.add(number),
                    Value::Spoilt => {
                        let what = "the value of this record does not unpack";
                        report.damage.push(Damage::new(&survey.chunks[chunk].name, offset, bytes.len() as u64, what));
                    }
                }
            }
            Met::Damage(damage) => report.damage.push(damage),
            Met::Note(note) => report.notes.push(note),
        }
        Ok(())
    };
    Follower::default().run(&survey, &mut visit, progress)?;
    report.damage.extend(missed.damage());
    match ask_recovery(&source) {
        Ok(keys) => report.keys = Some(keys),
        Err(error) => report.refusal = Some(error.message.into_owned()),
    }
    Ok(report)
}

/// Recovery's verdict: the number of keys, or why it refuses.
fn ask_recovery(source: &Source) -> Result<u64> {
    let options = Options { read_only: true, ..Options::default() };
    let secret = [random::secret_u64(), random::secret_u64()];
    let recovered = recovery::recover(&*source.dir, &source.name, &options, secret, &Chunks::new(0), &mut |_| ())?;
    Ok(recovered.index.len() as u64)
}
