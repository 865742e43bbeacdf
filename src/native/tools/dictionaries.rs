//! The dictionaries of a store that may be damaged: which there are, which should be, and what can be unpacked with them.
//!
//! The survey looks at the files; verify and salvage ask about each packed value. A value whose dictionary is not there
//! is no good value, whatever its checksum says: nobody can tell what it was.

use super::super::dictionary::{self, Names, Stored, Table, file_name, is_named, name, stored_value};
use super::{Damage, Source};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::sync::Arc;
use crate::engine::codec::Codec;
use crate::engine::record::{Kind, Record};
use std::borrow::Cow;
use std::io;

/// See the top of this file.
#[derive(Default)]
pub struct Dictionaries {
    /// Those that are good.
    pub good: Vec<Stored>,
    table: Table,
    /// Those that a file is there for, good or not.
    there: Names,
}

/// What a record's value is.
pub enum Value {
    /// It can be unpacked, or it is of a codec that this build lacks: then nobody here can tell more.
    Good,
    /// It needs this dictionary, which is not there.
    Lacks(u8),
    /// It does not unpack.
    Spoilt,
}

impl Dictionaries {
    /// Looks at the files with these numbers. What is wrong goes into `damage`, or into `notes` if no chunk names it.
    pub fn look(
        source: &Source,
        store: Option<[u8; 16]>,
        files: &[u8],
        named: &Names,
        damage: &mut Vec<Damage>,
        notes: &mut Vec<String>,
    ) -> Dictionaries {
        let mut found = Dictionaries::default();
        for number in files {
            name(&mut found.there, *number);
            let name = file_name(*number);
            match read(source, *number, store) {
                Ok((stored, differs_at)) => {
                    if let Some(at) = differs_at {
                        damage.push(Damage::new(&name, at, 0, "one of its two copies is damaged"));
                    }
                    if !is_named(named, *number) {
                        notes.push(format!("no good chunk header names {name}"));
                    }
                    found.good.push(stored);
                }
                Err(what) if is_named(named, *number) => damage.push(Damage::new(&name, 0, 0, what)),
                Err(what) => notes.push(format!("{name} {what}, and no good chunk header names it")),
            }
        }
        for number in dictionary::numbers(named).filter(|number| !is_named(&found.there, *number)) {
            damage.push(Damage::new(&file_name(number), 0, 0, "is missing: values that were packed with it cannot be read"));
        }
        found.table = Arc::new(found.good.iter().map(|stored| Arc::clone(&stored.dictionary)).collect());
        found
    }

    /// What the value of a record is. The only errors are those of this process.
    pub fn judge(&self, record: &Record<'_>) -> Result<Value> {
        let has = |number| self.table.iter().any(|dictionary| dictionary.number == number);
        if record.kind != Kind::Put || record.codec == Codec::None {
            return Ok(Value::Good);
        }
        if record.codec.names_dictionary() && record.dictionary != 0 && !has(record.dictionary) {
            return Ok(Value::Lacks(record.dictionary));
        }
        match unpacked(&self.table, record, "") {
            Ok(_) => Ok(Value::Good),
            Err(error) if error.code == Code::NOT_SUPPORTED => Ok(Value::Good),
            Err(error) if error.code == Code::CORRUPTED => Ok(Value::Spoilt),
            Err(error) => Err(error),
        }
    }
}

/// A dictionary, and where its file is not as it was written, if that is so anywhere; else what is wrong with it.
fn read(source: &Source, number: u8, store: Option<[u8; 16]>) -> std::result::Result<(Stored, Option<u64>), String> {
    let cannot = |error: &io::Error| format!("cannot be read: {error}");
    let file = source.dir.open(&file_name(number)).map_err(|e| cannot(&e))?;
    let (len, copies) = file.len().and_then(|len| Ok((len, dictionary::read_copies(&*file)?))).map_err(|e| cannot(&e))?;
    let mut decoded = copies.iter().filter_map(|copy| dictionary::decode(copy.as_ref().ok()?));
    let Some(stored) = decoded.find(|stored| stored.dictionary.number == number) else {
        let unread = copies.iter().find_map(|copy| copy.as_ref().err());
        return Err(unread.map_or("is damaged, in both copies".to_owned(), cannot));
    };
    if Some(stored.store) != store {
        return Err("belongs to another store".to_owned());
    }
    let good = dictionary::encode(&stored.store, number, stored.dictionary.codec, &stored.contents);
    let bytes: Vec<u8> = copies.iter().flatten().flatten().copied().collect();
    let unread_at = copies.iter().zip([0, len / 2]).find_map(|(copy, at)| copy.is_err().then_some(at));
    let differs_at = unread_at.or_else(|| super::survey::first_difference(&good, &bytes));
    Ok((stored, differs_at))
}

/// The value of a record, unpacked.
pub fn unpacked<'a>(table: &Table, record: &Record<'a>, store_path: &str) -> Result<Cow<'a, [u8]>> {
    if record.codec == Codec::None {
        return Ok(Cow::Borrowed(record.value));
    }
    let stored = stored_value(table, record, store_path)?;
    let mut value = Vec::new();
    value.try_reserve_exact(stored.raw_len).map_err(|_| Error::no_memory("no memory to unpack a value: free memory"))?;
    value.resize(stored.raw_len, 0);
    stored.unpack(&mut value)?;
    Ok(Cow::Owned(value))
}

/// Counts of values that cannot be had, by what is in the way.
#[derive(Default)]
pub struct Missed {
    by_dictionary: Vec<(u8, u64)>,
}

impl Missed {
    /// One more that needs this dictionary.
    pub fn add(&mut self, number: u8) {
        match self.by_dictionary.iter_mut().find(|(known, _)| *known == number) {
            Some((_, count)) => *count += 1,
            None => self.by_dictionary.push((number, 1)),
        }
    }

    /// What is to be said about it: one line for each dictionary.
    pub fn damage(&self) -> impl Iterator<Item = Damage> + '_ {
        self.by_dictionary.iter().map(|(number, count)| {
            Damage::new(&file_name(*number), 0, 0, format!("{count} records need it, and it is not there: they cannot be read"))
        })
    }
}
