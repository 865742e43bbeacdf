//! `kvbatch load`: puts what `kvbatch dump` wrote into a store.

use crate::dump::VERSION;
use crate::json::{self, Object};
use crate::outcome::{Failure, Outcome};
use crate::progress::Bar;
use crate::store::{Named, close};
use kvbatch::base::crc;
use kvbatch::base::limits::{KEY_LEN_MAX, VALUE_LEN_MAX};
use kvbatch::engine::record::Record;
use kvbatch::native::tools::Loader;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;

/// Bytes that are taken from standard input at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// No line of a dump is longer: every byte of key and value may need six characters.
const LINE_BYTES_MAX: u64 = 6 * (KEY_LEN_MAX + VALUE_LEN_MAX) as u64 + 1024;

/// Puts what `kvbatch dump` wrote, from standard input, into a store, which is made if need be
///
/// Keys that are there already get the new values; others stay. Exit code 1: the input is not a whole dump; what was good
/// before that place has been loaded.
#[derive(clap::Args)]
pub struct Arguments {
    /// The store
    store: PathBuf,
    /// Take lines that were filtered or changed: no first line, last line or checksum is asked for
    #[arg(long)]
    unchecked: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let engine = Named::parse(&arguments.store)?.open_to_write(true)?;
    let mut loader = Loader::new(std::sync::Arc::clone(&engine));
    let input = BufReader::with_capacity(BUFFER_BYTES, io::stdin().lock());
    let loaded = load(&mut loader, input, arguments.unchecked);
    let finished = loader.finish().map_err(Failure::from);
    close(&engine, loaded.and(finished))?;
    writeln!(io::stdout(), "{} records loaded", loader.records)?;
    Ok(Outcome::Good)
}

fn load(loader: &mut Loader, mut input: impl BufRead, unchecked: bool) -> Result<(), Failure> {
    let bar = Bar::open_end("records loaded:");
    let (mut line, mut sum, mut number) = (Vec::new(), 0, 0u64);
    let (mut begun, mut ended) = (unchecked, false);
    loop {
        line.clear();
        if (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        number += 1;
        let bad = |what: &str| Failure::new(Outcome::Damage, format!("line {number} of the input {what}"));
        let before = sum;
        sum = crc::extend(sum, &line);
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let object = Object::parse(text).map_err(|why| bad(&format!("is no JSON of a dump: {why}")))?;
        if ended {
            return Err(bad("stands behind the end of the dump"));
        }
        if let Some(version) = object.number("kvbatch_dump") {
            if version != VERSION {
                return Err(bad(&format!("says that this is a dump of version {version}; this program knows version {VERSION}")));
            }
            begun = true;
        } else if let Some(records) = object.number("end") {
            ended = true;
            if !unchecked && (records, object.number("crc32c")) != (loader.records, Some(u64::from(before))) {
                return Err(bad("has another count or checksum than the lines before it: something is missing or was changed"));
            }
        } else if !begun {
            return Err(bad("should say that this is a dump, {\"kvbatch_dump\":1}"));
        } else {
            add(loader, &object).map_err(|why| match why {
                Why::Line(why) => bad(&why),
                Why::Store(error) => error.into(),
            })?;
            if loader.records.is_multiple_of(1024) {
                bar.count_to(loader.records);
            }
        }
    }
    if ended || unchecked {
        return Ok(());
    }
    Err(Failure::new(Outcome::Damage, format!("the input ends behind line {number} without the last line of a dump: it was cut off")))
}

/// Why a record could not be added.
enum Why {
    Line(String),
    Store(kvbatch::base::error::Error),
}

fn add(loader: &mut Loader, object: &Object) -> Result<(), Why> {
    let field = |name: &str| match (object.text(name), object.text(&format!("{name}_base64"))) {
        (Some(text), None) => Ok(text.to_vec()),
        (None, Some(text)) => json::from_base64(text).ok_or_else(|| Why::Line(format!("has a {name}_base64 that is none"))),
        _ => Err(Why::Line(format!("needs one of {name} and {name}_base64"))),
    };
    let (key, value) = (field("key")?, field("value")?);
    if key.is_empty() || key.len() > KEY_LEN_MAX {
        return Err(Why::Line(format!("has a key of {} bytes: 1 to {KEY_LEN_MAX} are possible", key.len())));
    }
    if value.len() > VALUE_LEN_MAX {
        return Err(Why::Line(format!("has a value of {} bytes: {VALUE_LEN_MAX} are the most", value.len())));
    }
    let (expiry_ms, version) = (object.number("expires_ms"), object.number("version"));
    loader.add(&Record { expiry_ms, version, ..Record::put(&key, &value) }).map_err(Why::Store)
}
