//! `kvbatch dump`: all keys and values as lines of JSON on standard output.
//!
//! ```text
//! {"kvbatch_dump":1}
//! {"key":"user_1","value":"Ada"}
//! {"key_base64":"AP8=","value_base64":"gIGC","expires_ms":1893456000000}
//! {"end":2,"crc32c":123456789}
//! ```
//! What is UTF-8 is a string; what is not is base64 (RFC 4648, padded), under the name with `_base64`. The last line has
//! the number of records and the CRC-32C of all bytes before it, so that a dump which was cut off or changed is noticed.

use crate::json;
use crate::outcome::{Failure, Outcome};
use crate::store::{Named, close};
use kvbatch::base::crc;
use kvbatch::engine::record::Record;
use kvbatch::native::NativeEngine;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

/// The version of the format.
pub const VERSION: u64 = 1;

/// Bytes that are handed to standard output at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes all keys and values to standard output, as lines of JSON
///
/// One line per key: {"key":"...","value":"..."}, or key_base64 and value_base64 for what is not UTF-8, and expires_ms
/// for what expires. A first line says what it is; the last one has a checksum, which `kvbatch load` compares.
#[derive(clap::Args)]
pub struct Arguments {
    /// The store; nothing of it is changed
    store: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let engine = Named::parse(&arguments.store)?.open_to_read()?;
    let dumped = dump(&engine, BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()));
    close(&engine, dumped)?;
    Ok(Outcome::Good)
}

fn dump(engine: &NativeEngine, out: impl Write) -> Result<(), Failure> {
    let mut lines = Lines { out, sum: 0, line: format!("{{\"kvbatch_dump\":{VERSION}}}\n").into_bytes() };
    lines.send()?;
    let mut records = 0u64;
    let mut broken = None;
    let walked = engine.walk(&mut |record| {
        lines.record(record, &engine.value_of(record)?);
        records += 1;
        lines.send().map_err(|error| {
            let stop = kvbatch::base::error::Error::from_io("standard output", &error);
            broken = Some(error);
            stop
        })
    });
    if let Some(error) = broken {
        return Err(error.into());
    }
    walked?;
    let sum = lines.sum;
    lines.line.extend_from_slice(format!("{{\"end\":{records},\"crc32c\":{sum}}}\n").as_bytes());
    lines.send()?;
    Ok(lines.out.flush()?)
}

struct Lines<W: Write> {
    out: W,
    sum: u32,
    line: Vec<u8>,
}

impl<W: Write> Lines<W> {
    fn record(&mut self, record: &Record<'_>, value: &[u8]) {
        self.line.push(b'{');
        json::field(&mut self.line, "key", record.key);
        self.line.push(b',');
        json::field(&mut self.line, "value", value);
        for (name, number) in [("expires_ms", record.expiry_ms), ("version", record.version)] {
            if let Some(number) = number {
                self.line.extend_from_slice(format!(",\"{name}\":{number}").as_bytes());
            }
        }
        self.line.extend_from_slice(b"}\n");
    }

    fn send(&mut self) -> io::Result<()> {
        self.sum = crc::extend(self.sum, &self.line);
        self.out.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }
}
