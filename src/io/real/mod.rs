//! stub
use super::*;
use std::{io, path::Path, sync::Arc};
pub struct RealDisk;
impl RealDisk {
    pub fn new(_: u32) -> Self {
        RealDisk
    }
    pub fn make_directory(p: &Path) -> io::Result<()> {
        std::fs::create_dir_all(p)
    }
}
impl Disk for RealDisk {
    fn open_dir(&self, _: &Path) -> io::Result<Arc<dyn Dir>> {
        Err(io::Error::other("stub"))
    }
    fn read_many(&self, _: &mut [ReadAt<'_>], _: &ReadMany) -> ReadManyReport {
        ReadManyReport::default()
    }
    fn backend(&self) -> (&'static str, String) {
        ("", "".into())
    }
}
