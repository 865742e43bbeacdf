//! stub
pub mod index;
use crate::{base::code::Code, base::error::*, engine::*, io::Disk};
use std::{path::Path, sync::Arc};
#[derive(Default)]
pub struct Options;
pub struct NativeEngine;
impl NativeEngine {
    pub fn open(_d: Arc<dyn Disk>, _p: &Path, _o: Options) -> Result<Arc<dyn Engine>> {
        Err(Error::new(Code::NOT_SUPPORTED, "stub"))
    }
}
