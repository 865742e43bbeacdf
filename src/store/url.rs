//! The URL of a store.
//!
//! `PATH` or `file:PATH?OPTIONS` (the embedded engine; a `file:` URL escapes bytes as `%XX`, a bare path is taken as it
//! is and has no options; it may not begin with a word and a colon), `memory:` (private to its manager), `memory:NAME`
//! (shared in the process).

use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::planted::{Bug, planted};
use crate::store::options::OptionSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A store, named.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // a manager has one, and it is never moved about
pub enum StoreUrl {
    /// A directory of the embedded engine, and what was said about how to run it.
    File(PathBuf, OptionSet),
    /// Memory of one manager.
    MemoryPrivate,
    /// Memory that managers of the process share by name.
    MemoryNamed(Vec<u8>),
}

impl StoreUrl {
    /// Reads a URL; says what is wrong with it.
    pub fn parse(url: &[u8]) -> Result<StoreUrl> {
        let shown = String::from_utf8_lossy(url);
        let refuse = |code, why: &str| Err(Error::new(code, format!("store URL \"{shown}\": {why}")));
        if let Some(name) = url.strip_prefix(b"memory:") {
            return Ok(if name.is_empty() { StoreUrl::MemoryPrivate } else { StoreUrl::MemoryNamed(name.to_vec()) });
        }
        if let Some(rest) = url.strip_prefix(b"file:") {
            let (path, query) = match rest.iter().position(|b| *b == b'?') {
                Some(at) => (&rest[..at], &rest[at + 1..]),
                None => (rest, &[][..]),
            };
            let options = match OptionSet::from_query(query) {
                Ok(options) => options,
                Err(error) => return refuse(error.code, &format!("{} (a ? in the path is written %3F)", error.message)),
            };
            return match unescape(path) {
                Some(path) => file(path, options, &shown),
                None => refuse(Code::INVALID_PARAM, "a % must be followed by two hexadecimal digits (write %25 for a % itself)"),
            };
        }
        for scheme in ["rocksdb:", "redis:", "rediss:"] {
            if url.starts_with(scheme.as_bytes()) {
                return refuse(Code::NOT_SUPPORTED, "this build has no such engine: use a path, file:PATH or memory:");
            }
        }
        // A misspelt scheme must not become the name of a new, empty store.
        if let Some(at) = url.iter().position(|byte| *byte == b':').filter(|at| *at >= 2)
            && url[..at].iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
            && !url.starts_with(b".")
        {
            let why = "unknown scheme: use a path, file:PATH, memory: or memory:NAME (a path that begins like this is written file:PATH)";
            return refuse(Code::INVALID_PARAM, why);
        }
        file(url.to_vec(), OptionSet::default(), &shown)
    }
}

fn file(path: Vec<u8>, options: OptionSet, shown: &str) -> Result<StoreUrl> {
    if path.is_empty() || path.contains(&0) {
        return Err(Error::new(Code::INVALID_PARAM, format!("store URL \"{shown}\": name a directory")));
    }
    Ok(StoreUrl::File(PathBuf::from(OsString::from_vec(path)), options))
}

/// The bytes that `text` stands for; `None` if a `%` is not followed by two hexadecimal digits.
pub(super) fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        if planted(Bug::EscapeEndBelieved) {
            let _ = &rest[..2];
        }
        let (high, low) = (char::from(*rest.first()?).to_digit(16)?, char::from(*rest.get(1)?).to_digit(16)?);
        bytes.push((high * 16 + low) as u8);
        rest = &rest[2..];
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Result<StoreUrl> {
        Ok(StoreUrl::File(PathBuf::from(text), OptionSet::default()))
    }

    #[test]
    fn every_form() {
        assert_eq!(StoreUrl::parse(b"memory:"), Ok(StoreUrl::MemoryPrivate));
        assert_eq!(StoreUrl::parse(b"memory:a"), Ok(StoreUrl::MemoryNamed(b"a".to_vec())));
        assert_eq!(StoreUrl::parse(b"data"), path("data"));
        assert_eq!(StoreUrl::parse(b"/a/b%41"), path("/a/b%41"));
        assert_eq!(StoreUrl::parse(b"file:/a/b%41%3f"), path("/a/bA?"));
        for odd in ["a:b", "./data:1", "../data:1", "/data:1", "in/data:1"] {
            assert_eq!(StoreUrl::parse(odd.as_bytes()), path(odd));
        }
        assert_eq!(StoreUrl::parse(b"file:data:1"), path("data:1"));
        assert_eq!(StoreUrl::parse(b"/a?min_fill_rate=3"), path("/a?min_fill_rate=3"));
        assert_eq!(StoreUrl::parse(b"file:/a?"), path("/a"));
        let set = OptionSet::from_query(b"min_fill_rate=3").expect("good");
        assert_eq!(StoreUrl::parse(b"file:/a%3fb?min_fill_rate=3"), Ok(StoreUrl::File(PathBuf::from("/a?b"), set)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (url, code, word) in [
            (&b"file:/a?min_fill=3"[..], Code::INVALID_PARAM, "min_fill=3"),
            (b"file:/a?b?c", Code::INVALID_PARAM, "%3F"),
            (b"file:/a%4", Code::INVALID_PARAM, "hexadecimal"),
            (b"file:/a%00", Code::INVALID_PARAM, "directory"),
            (b"file:", Code::INVALID_PARAM, "directory"),
            (b"http://x", Code::INVALID_PARAM, "unknown scheme"),
            (b"fil:/a", Code::INVALID_PARAM, "unknown scheme"),
            (b"Memory:", Code::INVALID_PARAM, "unknown scheme"),
            (b"redis://x", Code::NOT_SUPPORTED, "no such engine"),
        ] {
            let error = StoreUrl::parse(url).expect_err("refused");
            assert!(error.code == code && error.message.contains(word), "{error}");
        }
    }
}
