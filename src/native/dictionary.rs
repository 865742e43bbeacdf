//! The dictionaries of a store: files of their own, made once, never changed, never removed while a record may need them.
//!
//! Compaction makes one (`pack`), on stable storage before a record names it, and the chunk that such a record goes into
//! names it in its header: so opening knows which must be there, however it comes to its index. All are in memory, ready
//! to unpack with; there are few. The tools read, copy and carry over the files. A number must never mean two
//! dictionaries: a record's checksum is good under either.

use super::chunks::Chunks;
use super::names::{number_in, numbered};
use crate::base::code::Code;
use crate::base::crc;
use crate::base::error::{Error, Result};
use crate::base::limits::BLOCK_BYTES;
use crate::base::planted::{Bug, planted};
use crate::base::sync::{Arc, Mutex, RwLock};
use crate::engine::codec::{Codec, Dictionary, StoredValue};
use crate::engine::record::Record;
use crate::io::{Dir, File, read_full_at, write_all_at};
use std::io::{self, IoSlice};

const MAGIC: [u8; 8] = *b"\x89KVD\r\n\x1a\n";
const FORMAT_VERSION: u32 = 1;
const HEADER_LEN: usize = 64;

/// Longest contents, in bytes.
pub const CONTENTS_LEN_MAX: usize = 64 << 10;

/// Dictionaries that are made for one store at the most; the format has room for 255.
const NUMBER_MAX: u8 = 64;

/// A set of dictionaries, by number: bit `n % 8` of byte `n / 8`.
pub type Names = [u8; 32];

/// The dictionaries of a store as they were at a moment.
pub type Table = Arc<Vec<Arc<Dictionary>>>;

/// See the top of this file.
pub struct Dictionaries {
    table: RwLock<Table>,
    state: Mutex<State>,
}

struct State {
    names: Names,
    /// Highest number that any file has.
    highest: u8,
    /// Files whose making was broken off.
    leftovers: Vec<String>,
}

/// What a dictionary's file holds.
pub struct Stored {
    /// The store's identity.
    pub store: [u8; 16],
    /// The dictionary, ready.
    pub dictionary: Arc<Dictionary>,
    /// What it was made of.
    pub contents: Vec<u8>,
}

/// The file name of a dictionary.
pub fn file_name(number: u8) -> String {
    numbered("dictionary", number.into())
}

/// The number in a dictionary's file name, if it is one.
pub fn number_of(name: &str) -> Option<u8> {
    let number = u8::try_from(number_in("dictionary", name)?).ok()?;
    (number > 0).then_some(number)
}

/// Whether a dictionary is in the set.
pub fn is_named(names: &Names, number: u8) -> bool {
    names[usize::from(number / 8)] & 1 << (number % 8) != 0
}

/// Puts a dictionary into the set.
pub fn name(names: &mut Names, number: u8) {
    names[usize::from(number / 8)] |= 1 << (number % 8);
}

/// Puts all that are in one set into another.
pub fn name_all(names: &mut Names, more: &Names) {
    names.iter_mut().zip(more).for_each(|(all, some)| *all |= some);
}

/// The numbers in the set, rising.
pub fn numbers(names: &Names) -> impl Iterator<Item = u8> + '_ {
    (1..=u8::MAX).filter(|number| is_named(names, *number))
}

/// The bytes of a dictionary's file.
pub fn encode(store: &[u8; 16], number: u8, codec: Codec, contents: &[u8]) -> Vec<u8> {
    let mut copy = Vec::new();
    copy.extend_from_slice(&MAGIC);
    copy.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    copy.extend_from_slice(&(codec as u32).to_le_bytes());
    copy.extend_from_slice(store);
    copy.extend_from_slice(&u64::from(number).to_le_bytes());
    copy.extend_from_slice(&(contents.len() as u64).to_le_bytes());
    copy.resize(HEADER_LEN, 0);
    copy.extend_from_slice(contents);
    let sum = crc::crc32c(&copy);
    copy[HEADER_LEN - 8..HEADER_LEN - 4].copy_from_slice(&sum.to_le_bytes());
    copy.resize(copy.len().next_multiple_of(BLOCK_BYTES), 0);
    copy.repeat(2)
}

/// The two copies in a file, each as far as it can be read: one behind bytes that cannot is as good as the other.
pub fn read_copies(file: &dyn File) -> io::Result<[io::Result<Vec<u8>>; 2]> {
    let len_max = 2 * (HEADER_LEN + CONTENTS_LEN_MAX).next_multiple_of(BLOCK_BYTES) as u64;
    let len = Some(file.len()?).filter(|len| *len <= len_max).unwrap_or(0); // what is longer is none
    let copy = |start: u64, end: u64| {
        let mut bytes = vec![0; (end - start) as usize];
        let got = read_full_at(file, &mut bytes, start)?;
        bytes.truncate(got);
        Ok(bytes)
    };
    Ok([copy(0, len / 2), copy(len / 2, len)])
}

/// Takes a copy apart; `None` if it is not good.
pub fn decode(copy: &[u8]) -> Option<Stored> {
    let header = copy.get(..HEADER_LEN)?;
    let u32_at = |at: usize| header.get(at..at + 4).and_then(|field| field.try_into().ok()).map(u32::from_le_bytes);
    let u64_at = |at: usize| header.get(at..at + 8).and_then(|field| field.try_into().ok()).map(u64::from_le_bytes);
    let contents_len = usize::try_from(u64_at(40)?).ok().filter(|len| *len <= CONTENTS_LEN_MAX)?;
    let contents = copy.get(HEADER_LEN..HEADER_LEN + contents_len)?;
    let (before_sum, after_sum) = (&header[..HEADER_LEN - 8], &header[HEADER_LEN - 4..]);
    let sum = crc::extend(crc::extend(crc::extend(crc::crc32c(before_sum), &[0; 4]), after_sum), contents);
    if header[..8] != MAGIC || u32_at(8)? != FORMAT_VERSION || sum != u32_at(HEADER_LEN - 8)? {
        return None;
    }
    let codec = Codec::from_number(u8::try_from(u32_at(12)?).ok()?)?;
    let number = u8::try_from(u64_at(32)?).ok()?;
    let dictionary = Arc::new(Dictionary::new(number, codec, contents).filter(|_| number > 0)?);
    Some(Stored { store: header[16..32].try_into().ok()?, dictionary, contents: contents.to_vec() })
}

impl Dictionaries {
    /// Reads the dictionaries that the chunks of the store name. Changes nothing.
    pub fn open(dir: &dyn Dir, store: &[u8; 16], store_path: &str, chunks: &Chunks) -> Result<Dictionaries> {
        let mut names = Names::default();
        chunks.by_age().iter().for_each(|chunk| name_all(&mut names, &chunk.dictionaries));
        let listed = dir.list().map_err(|e| Error::from_io(format_args!("store {store_path}: cannot list the directory"), &e))?;
        let mut state = State { names, highest: 0, leftovers: Vec::new() };
        for (number, name) in listed.into_iter().filter_map(|name| number_of(&name).map(|number| (number, name))) {
            state.highest = state.highest.max(number);
            // One that is whole stays, whoever names it: a chunk that was given up may, and salvage may want that.
            let is_whole = |number| !matches!(read(dir, number, store, store_path), Err(error) if error.code == Code::CORRUPTED);
            if !is_named(&names, number) && !is_whole(number) {
                state.leftovers.push(name);
            }
        }
        let table = numbers(&names).map(|number| read(dir, number, store, store_path).map(|stored| stored.dictionary));
        let table = table.collect::<Result<_>>()?;
        Ok(Dictionaries { table: RwLock::new(Arc::new(table)), state: Mutex::new(state) })
    }

    /// The present ones.
    pub fn table(&self) -> Table {
        Arc::clone(&self.table.read())
    }

    /// The newest of `codec`.
    pub fn newest(&self, codec: Codec) -> Option<Arc<Dictionary>> {
        self.table.read().iter().rfind(|dictionary| dictionary.codec == codec).cloned()
    }

    /// Those that the next chunk has to name.
    pub fn names(&self) -> Names {
        self.state.lock().names
    }

    /// Makes a dictionary and puts it on stable storage. Nobody may name it before the header of a chunk does.
    /// `None`: there are as many as there may be, or `contents` make none.
    pub fn make(&self, dir: &dyn Dir, store: &[u8; 16], codec: Codec, contents: &[u8]) -> io::Result<Option<Arc<Dictionary>>> {
        let mut state = self.state.lock();
        for leftover in state.leftovers.drain(..) {
            let _ = dir.remove(&leftover); // the next open finds it again
        }
        let number = state.highest.saturating_add(1);
        if number > NUMBER_MAX || contents.len() > CONTENTS_LEN_MAX {
            return Ok(None);
        }
        let Some(dictionary) = Dictionary::new(number, codec, contents).map(Arc::new) else { return Ok(None) };
        self.put(&mut state, dir, store, &dictionary, contents)?;
        Ok(Some(dictionary))
    }

    /// Takes one over from another store, under its number. Also of this one nobody may name it before a chunk does.
    pub fn adopt(&self, dir: &dyn Dir, store: &[u8; 16], from: &Stored) -> io::Result<()> {
        self.put(&mut self.state.lock(), dir, store, &from.dictionary, &from.contents)
    }

    fn put(&self, state: &mut State, dir: &dyn Dir, store: &[u8; 16], dictionary: &Arc<Dictionary>, contents: &[u8]) -> io::Result<()> {
        let Dictionary { number, codec, .. } = **dictionary;
        state.highest = state.highest.max(number); // also if this fails: half a file may stay
        let file_name = file_name(number);
        let file = dir.create(&file_name)?;
        let bytes = encode(store, number, codec, contents);
        let synced = || if planted(Bug::DictionaryNotSynced) { Ok(()) } else { file.sync().and_then(|()| dir.sync()) };
        let written = write_all_at(&*file, &mut [IoSlice::new(&bytes)], 0, false).and_then(|_| synced());
        if let Err(error) = written {
            let _ = dir.remove(&file_name); // nobody names it
            return Err(error);
        }
        let mut table = self.table.write();
        *table = Arc::new(table.iter().cloned().chain([Arc::clone(dictionary)]).collect());
        name(&mut state.names, number);
        Ok(())
    }
}

/// Reads a dictionary's file, from either copy.
pub fn read(dir: &dyn Dir, number: u8, store: &[u8; 16], store_path: &str) -> Result<Stored> {
    let name = file_name(number);
    let damaged = |what: &str| {
        let text = format!(
            "store {store_path}: {name}, which packed values need, is {what}: restore the file from a backup, \
             or save the values that do not need it with kvbatch salvage"
        );
        Error::new(Code::CORRUPTED, text)
    };
    let failed = |e: &io::Error| match e.kind() {
        io::ErrorKind::NotFound => damaged("missing"),
        _ => Error::from_io(format_args!("store {store_path}: cannot read {name}"), e),
    };
    let file = dir.open(&name).map_err(|e| failed(&e))?;
    let mut unread = None;
    for copy in read_copies(&*file).map_err(|e| failed(&e))? {
        match copy.map(|copy| decode(&copy)) {
            Ok(Some(stored)) if stored.store != *store => {
                let text = format!("store {store_path}: {name} belongs to another store: move it away, restore its own");
                return Err(Error::new(Code::CONFIG, text));
            }
            Ok(Some(stored)) if stored.dictionary.number == number => return Ok(stored),
            Ok(_) => {}
            Err(error) => unread = Some(failed(&error)),
        }
    }
    Err(unread.unwrap_or_else(|| damaged("damaged")))
}

/// A record's value, with what it takes to unpack it.
pub fn stored_value<'a>(table: &'a Table, record: &Record<'a>, store_path: &str) -> Result<StoredValue<'a>> {
    let mut value = StoredValue { codec: record.codec, dictionary: None, bytes: record.value, raw_len: record.raw_len as usize };
    if record.dictionary != 0 {
        value.dictionary = table.iter().find(|dictionary| dictionary.number == record.dictionary).map(|dictionary| &**dictionary);
        if value.dictionary.is_none_or(|dictionary| dictionary.codec != record.codec) {
            let name = file_name(record.dictionary);
            let text = format!("store {store_path}: a value needs {name}, which is no such dictionary; restore the store from a backup");
            return Err(Error::new(Code::CORRUPTED, text));
        }
    }
    value.check()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::dense::Dense;

    #[test]
    fn either_copy_is_enough() {
        let contents = Dense::contents(b"some phrases", &[]);
        let good = encode(&[3; 16], 7, Codec::Dense, &contents);
        let half = good.len() / 2;
        let found = |bytes: &[u8]| decode(&bytes[..half]).or_else(|| decode(&bytes[half..]));
        let is_good = |bytes: &[u8]| {
            found(bytes).is_some_and(|found| found.store == [3; 16] && found.dictionary.number == 7 && found.contents == contents)
        };
        assert!(is_good(&good));
        for bit in (0..(HEADER_LEN + contents.len()) * 8).step_by(3) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(is_good(&bad), "first copy, bit {bit}");
            bad[good.len() / 2 + bit / 8] ^= 1 << (bit % 8);
            assert!(found(&bad).is_none(), "both copies, bit {bit}");
        }
        assert!(decode(&[]).is_none());
        assert_eq!(number_of(&file_name(255)), Some(255));
        for none in ["dictionary-0000000000000100.kvb", "dictionary-0000000000000000.kvb", "dictionary-1.kvb"] {
            assert_eq!(number_of(none), None);
        }
        assert!(decode(&encode(&[3; 16], 0, Codec::Dense, &contents)).is_none(), "0 says that there is none");
    }
}
