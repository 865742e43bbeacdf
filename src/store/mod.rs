//! Rank 3: which engine a URL means, and one engine for all managers of the process that name the same store.

pub mod registry;
pub mod url;

pub use registry::{Store, open};
pub use url::StoreUrl;
