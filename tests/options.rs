//! docs/OPTIONS.md says what the table of options says. `KVBATCH_BLESS=1` writes the page anew.

use std::path::Path;

#[test]
fn the_page_equals_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPTIONS.md");
    let page = kvbatch::store::options::page();
    if std::env::var_os("KVBATCH_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/OPTIONS.md is not what the table says: run KVBATCH_BLESS=1 cargo test --test options");
}
