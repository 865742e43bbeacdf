//! A store that version 1 of the format has written, kept in `tests/old_formats/1`: every later version must read it,
//! whatever the writer of its day looks like by then.
//!
//! It was made by `KVBATCH_BLESS=1 cargo test --lib golden` and is never made again: a new format gets a new directory. So has
//! what came to this one later, chunks that were made ahead of their use, in `1-ahead`.

use super::driver::HINTS;
use crate::base::error::Error;
use crate::base::few::Few;
use crate::base::sync::Arc;
use crate::engine::codec::{Codec, compress, compressed_len_max};
use crate::engine::record::Record;
use crate::engine::{Commit, Engine, ReadOp, Reader, StoredValue, WriteOp, Writes};
use crate::io::sim::{Faults, SimDisk};
use crate::native::{NativeEngine, Options};
use std::path::Path;

fn options() -> Options {
    super::workload::options(9 << 10, 0)
}
const FILES: [(&str, &[u8]); 2] = [
    ("chunk-0000000000000001.kvb", include_bytes!("../../../tests/old_formats/1/chunk-0000000000000001.kvb")),
    ("chunk-0000000000000002.kvb", include_bytes!("../../../tests/old_formats/1/chunk-0000000000000002.kvb")),
];

/// Key and value, as every version has to find them.
fn expected() -> Vec<(&'static [u8], Option<Vec<u8>>)> {
    vec![
        (b"plain", Some(b"a value".to_vec())),
        (b"empty", Some(Vec::new())),
        (b"packed", Some(b"again and ".repeat(100))),
        (b"overwritten", Some(b"the second".to_vec())),
        (b"deleted", None),
        (b"deleted and put", Some(b"back".to_vec())),
        (b"\0\xff\n", Some(b"\0\0\0\0".to_vec())),
        (b"with a version", Some(b"of its own".to_vec())),
        (b"expired long ago", None),
        (b"expires in a far future", Some(b"until then".to_vec())),
        (b"in the second chunk", Some(vec![7; 600])),
        (b"never there", None),
    ]
}

fn commit(engine: &NativeEngine, durable: bool, records: &[Record<'_>]) {
    let (mut block, mut ops) = (Vec::new(), Vec::new());
    for record in records {
        let (offset, len) = (block.len(), record.encoded_len());
        block.resize(offset + len, 0);
        record.encode(&mut block[offset..]);
        ops.push(WriteOp { hash: engine.hasher().hash(record.key), block: 0, offset: offset as u32, len: len as u32, kind: record.kind });
    }
    let writes = Writes { blocks: Few::one(&mut block[..]), ops: &ops };
    let member = Commit { batch_id: 0x0102_0304, writes, reads: &mut [], durable, pin: None };
    engine.commit(engine.turn(), &mut [member], &mut |_| false).unwrap();
}

/// How the golden store was made; or one with chunks that were made `ahead` of their use, one in use and one not yet.
fn write_store(disk: &SimDisk, ahead: bool) {
    let engine = NativeEngine::open(Arc::new(disk.clone()), Path::new("/store"), options()).unwrap();
    let raw = b"again and ".repeat(100);
    let mut packed = vec![0; compressed_len_max(raw.len())];
    let packed_len = compress(&raw, &mut packed).unwrap();
    commit(
        &engine,
        true,
        &[
            Record::put(b"plain", b"a value"),
            Record::put(b"empty", b""),
            Record::put_packed(b"packed", Codec::Lz4, &packed[..packed_len], raw.len()),
            Record::put(b"overwritten", b"the first"),
            Record::put(b"deleted", b"a value"),
            Record::put(b"deleted and put", b"a value"),
        ],
    );
    commit(&engine, false, &[Record::delete(b"deleted"), Record::delete(b"deleted and put"), Record::delete(b"never there")]);
    commit(
        &engine,
        false,
        &[
            Record::put(b"deleted and put", b"back"),
            Record::put(b"overwritten", b"the second"),
            Record::put(b"\0\xff\n", b"\0\0\0\0"),
            Record { version: Some(42), ..Record::put(b"with a version", b"of its own") },
            Record { expiry_ms: Some(1), ..Record::put(b"expired long ago", b"a value") },
            Record { expiry_ms: Some(1 << 50), version: Some(1), ..Record::put(b"expires in a far future", b"until then") },
        ],
    );
    if ahead {
        engine.log.make_next();
    }
    commit(&engine, true, &[Record::put(b"in the second chunk", &[7; 600])]);
    if ahead {
        return engine.log.make_next();
    }
    engine.close().unwrap();
}

struct Values(Vec<Option<Vec<u8>>>);

impl Reader for Values {
    fn key(&self, op: u32) -> &[u8] {
        expected()[op as usize].0
    }
    fn found(&mut self, op: u32, value: StoredValue<'_>) {
        let mut raw = vec![0; value.raw_len];
        value.unpack(&mut raw).unwrap();
        self.0[op as usize] = Some(raw);
    }
    fn missing(&mut self, _: u32) {}
    fn failed(&mut self, _: u32, error: Error) {
        panic!("{error}");
    }
}

fn check(disk: &SimDisk) {
    let engine = NativeEngine::open(Arc::new(disk.clone()), Path::new("/store"), options()).unwrap();
    let mut reads: Vec<ReadOp> =
        expected().iter().zip(0..).map(|((key, _), op)| ReadOp { hash: engine.hasher().hash(key), op, ..ReadOp::default() }).collect();
    let pin = engine.resolve(&mut reads);
    let mut values = Values(vec![None; reads.len()]);
    engine.fetch(&pin, &mut reads, &mut values, &HINTS);
    for ((key, expected), got) in expected().into_iter().zip(values.0) {
        assert!(got == expected, "{:?}", String::from_utf8_lossy(key));
    }
    engine.close().unwrap();
}

fn disk() -> SimDisk {
    let disk = SimDisk::new(1, Faults::default());
    crate::io::Disk::open_dir(&disk, Path::new("/store")).unwrap();
    disk
}

#[test]
fn version_1_is_read() {
    let disk = disk();
    for (name, bytes) in FILES {
        assert!(disk.write_raw(name, bytes));
    }
    check(&disk);
    check(&disk);
}

#[test]
fn version_1_is_written() {
    let disk = disk();
    write_store(&disk, false);
    check(&disk);
    let made = |name: &str| disk.read_raw(name).unwrap();
    if std::env::var_os("KVBATCH_BLESS").is_some() && FILES[0].1.is_empty() {
        for (name, _) in FILES {
            std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old_formats/1").join(name), made(name)).unwrap();
        }
    }
    assert_eq!(disk.list_files(), ["LOCK", FILES[0].0, FILES[1].0]);
    // Identity and time differ, and with them every checksum; lengths and fields do not.
    for (name, bytes) in FILES {
        let made = made(name);
        assert_eq!(made.len(), bytes.len());
        assert!(made[..24] == bytes[..24] && made[40..80] == bytes[40..80] && made[88..96] == bytes[88..96], "{name}");
    }
}

#[test]
fn chunks_that_were_made_ahead_are_read() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old_formats/1-ahead");
    if std::env::var_os("KVBATCH_BLESS").is_some() && !kept.exists() {
        let disk = disk();
        write_store(&disk, true);
        std::fs::create_dir(&kept).unwrap();
        for name in disk.list_files().into_iter().filter(|name| name != "LOCK") {
            std::fs::write(kept.join(&name), disk.read_raw(&name).unwrap()).unwrap();
        }
    }
    let disk = disk();
    for file in std::fs::read_dir(kept).unwrap().map(Result::unwrap) {
        assert!(disk.write_raw(&file.file_name().into_string().unwrap(), &std::fs::read(file.path()).unwrap()));
    }
    let features = [1, 2, 3].map(|chunk| disk.read_raw(&format!("chunk-{chunk:016x}.kvb")).unwrap()[16]);
    assert_eq!(features, [0, 1, 1]);
    check(&disk);
    check(&disk);
}
