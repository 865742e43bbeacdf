//! What fuzzing throws at URLs and their options. The driver (`store::fuzz`) calls this with any bytes at all.

use super::{OptionSet, TABLE};
use crate::base::code::Code;
use crate::store::url::StoreUrl;
use std::os::unix::ffi::OsStrExt;

/// A URL: refused with a word of why, or taken, and then written out it means the same.
pub fn url(input: &[u8]) {
    let (path, set) = match StoreUrl::parse(input) {
        Ok(StoreUrl::File(path, set)) => (path, set),
        Ok(_) => return,
        Err(error) => {
            assert!(!error.message.is_empty() && [Code::INVALID_PARAM, Code::NOT_SUPPORTED].contains(&error.code), "{error}");
            return;
        }
    };
    let bytes = path.as_os_str().as_bytes();
    assert!(!bytes.is_empty() && !bytes.contains(&0));
    assert!(set.check().is_ok() && set.check_against(&set.options(), "itself").is_ok());
    let escaped: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
    let values = TABLE.iter().zip(&set.values).filter_map(|(spec, value)| Some((spec, (*value)?)));
    let query: Vec<String> = values.map(|(spec, value)| format!("{}={}", spec.name, spec.kind.format(value))).collect();
    let query = query.join("&");
    assert_eq!(OptionSet::from_query(query.as_bytes()), Ok(set), "{query}");
    assert_eq!(StoreUrl::parse(format!("file:{escaped}?{query}").as_bytes()), Ok(StoreUrl::File(path, set)));
}

/// Good inputs to begin with.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut texts = ["memory:", "memory:name", "/a/path", "file:/a%20path%3f", "redis://x", "http://x"].map(str::to_owned).to_vec();
    texts.extend(TABLE.iter().map(|spec| format!("file:/a?{}={}", spec.name, spec.kind.format((spec.get)(&Default::default())))));
    texts.push("file:x?min_fill_rate=40%25&chunk_bytes=64m&hot_log_bytes=auto&recovery=prefix".to_owned());
    texts.into_iter().map(|text| ("url", text.into_bytes())).collect()
}
