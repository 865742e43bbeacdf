//! The table of options as people read it: docs/OPTIONS.md, and the CLI's list. Made from the table alone.

use super::TABLE;
use std::fmt::Write;

/// Above and below the table on the page.
const INTRO: &str = "\
# Options of a store

Options stand behind the path in a `file:` URL, where `KVBATCH_STORE` or a program names the store:

    KVBATCH_STORE='file:/var/lib/app/store?min_fill_rate=40&hot_log_bytes=64m' ./app

`%XX` stands for a byte, in names, values and the path; a `?` that belongs to the path is written `%3F`. A path without
`file:` is taken as it is, `?` included: it has no options. Sizes may end in `k`, `m` or `g` (units of 1024).

Nothing of this is stored: a store opens with any options. An option that is unknown, impossible, given twice, or at odds
with another is refused by name with `KV_ERR_INVALID_PARAM`. Managers of one process that name one store share it with the
options of the first; if a later one asks for others, its start is refused with `KV_ERR_CONFIG`.

";

const OUTRO: &str = "
This page is made from the table in `src/store/options.rs` (`KVBATCH_BLESS=1 cargo test --test options` writes it anew).
";

/// The page docs/OPTIONS.md.
pub fn page() -> String {
    let mut page = INTRO.to_owned();
    page.push_str("| option | values | default | meaning |\n|---|---|---|---|\n");
    for spec in TABLE {
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", spec.name, spec.values(), spec.default_value(), spec.meaning);
    }
    page.push_str(OUTRO);
    page
}

/// The table for a terminal.
pub fn text() -> String {
    const WIDTH: usize = 96;
    let mut text = String::new();
    for spec in TABLE {
        let _ = writeln!(text, "{} = {}\n    default: {}", spec.name, spec.values(), spec.default_value());
        let mut line = String::from("   ");
        for word in spec.meaning.replace('`', "").split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                let _ = writeln!(text, "{line}");
                line = String::from("   ");
            }
            line.push(' ');
            line.push_str(word);
        }
        let _ = writeln!(text, "{line}\n");
    }
    text
}
