//! Rank 3: which engine a URL means, and one engine for all managers of the process that name the same store.

#[cfg(test)]
mod fuzz;
pub mod options;
pub mod registry;
pub mod url;

pub use options::OptionSet;
pub use registry::{Store, open};
pub use url::StoreUrl;
