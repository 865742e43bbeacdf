//! Writes a manual page from a group and its header. For tests/man.rs only.

use super::Group;
use super::header::{Comment, Header, Item};
use std::fmt::Write;

/// Text as roff takes it: nothing in it is a command, and names of the library stand out.
fn text(plain: &str) -> String {
    let mut result = String::new();
    for (at, word) in plain.split(' ').enumerate() {
        let escaped = word.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
        let start = escaped.find(|c: char| c.is_alphanumeric() || c == '_').unwrap_or(0);
        let name = escaped[start..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(escaped.len(), |end| start + end);
        let ours = ["kv_", "KV_", "KVBATCH_", "g_error_ctx"].iter().any(|prefix| escaped[start..].starts_with(prefix));
        // Two dots or a dot in the first column would be a command.
        let space = if at == 0 { "" } else { " " };
        if ours {
            let _ = write!(result, "{space}{}\\fB{}\\fR{}", &escaped[..start], &escaped[start..name], &escaped[name..]);
        } else {
            let _ = write!(result, "{space}{escaped}");
        }
    }
    if result.starts_with(['.', '\\']) { format!("\\&{result}") } else { result }
}

/// A declaration, broken behind its commas where it is long.
fn synopsis(out: &mut String, declaration: &str) {
    let (mut line, indent) = (String::new(), " ".repeat(4));
    for piece in declaration.split_inclusive(", ") {
        if !line.is_empty() && line.len() + piece.trim_end().len() > 76 {
            let _ = writeln!(out, "{}", line.trim_end().replace('\\', "\\e").replace('-', "\\-"));
            line = indent.clone();
        }
        line.push_str(piece);
    }
    let _ = writeln!(out, "{}", line.replace('\\', "\\e").replace('-', "\\-"));
}

fn paragraphs(out: &mut String, paragraphs: &[String]) {
    for paragraph in paragraphs {
        let _ = writeln!(out, ".PP\n{}", text(paragraph));
    }
}

fn tagged(out: &mut String, tag: &str, meaning: &str) {
    let _ = writeln!(out, ".TP\n.I {}\n{}", text(tag), text(meaning));
}

fn describe(out: &mut String, title: &str, comment: &Comment) {
    let _ = writeln!(out, ".SS {}", title.replace('-', "\\-"));
    let mut about = comment.about.iter();
    let _ = writeln!(out, "{}", text(about.next().expect("what it does")));
    paragraphs(out, about.as_slice());
    for (name, meaning) in &comment.params {
        tagged(out, name, meaning);
    }
    if let Some(returns) = &comment.returns {
        let _ = writeln!(out, ".PP\nReturns {}", text(returns));
    }
    paragraphs(out, &comment.rules);
}

fn fields(out: &mut String, name: &str, about: &Comment, fields: &[Item]) {
    describe(out, &format!("struct {name}"), about);
    for field in fields {
        tagged(out, &field.declaration, &field.comment.about.join(" "));
    }
}

/// The whole page.
pub fn page(group: &Group, header: &Header) -> String {
    let items: Vec<(&str, &Item)> = group
        .functions
        .iter()
        .map(|name| (*name, header.functions.get(*name).unwrap_or_else(|| panic!("{} does not declare {name}", group.header))))
        .collect();
    let mut out = format!(".TH {} 3 \"\" \"kvbatch @VERSION@\" \"Library Functions\"\n", group.page.to_uppercase());
    out.push_str(".\\\" Made from the headers by tests/man.rs: edit the comments in src/ffi instead.\n");
    let _ = writeln!(out, ".SH NAME\n{} \\- {}", group.functions.join(", "), group.summary);
    let _ = writeln!(out, ".SH SYNOPSIS\n.nf\n.B #include <kvserver/{}>", group.header);
    for name in group.types {
        if let Some(callback) = header.callbacks.get(*name) {
            out.push_str(".PP\n");
            synopsis(&mut out, &callback.declaration);
        }
    }
    out.push_str(".PP\n");
    for (_, item) in &items {
        synopsis(&mut out, &item.declaration);
    }
    out.push_str(".fi\n.PP\nLink with \\-lkvbatch.\n.SH DESCRIPTION\n");
    out.push_str("What holds for all functions, such as who owns what and which thread runs callbacks, is in\n.BR kvbatch (7).\n");
    for (name, item) in &items {
        describe(&mut out, &if item.declaration.contains('(') { format!("{name}()") } else { (*name).to_owned() }, &item.comment);
    }
    for name in group.types {
        if let Some(callback) = header.callbacks.get(*name) {
            describe(&mut out, name, &callback.comment);
        } else {
            let (about, list) = header.structs.get(*name).unwrap_or_else(|| panic!("{} does not declare {name}", group.header));
            fields(&mut out, name, about, list);
        }
    }
    if let Some(prefix) = group.constants {
        out.push_str(".SH CONSTANTS\n");
        for (name, value, meaning) in header.constants.iter().filter(|(name, ..)| name.starts_with(prefix)) {
            let _ = writeln!(out, ".TP\n.BR {name} \" {value}\"\n{}", text(&meaning.about.join(" ")));
        }
    }
    out.push_str(".SH SEE ALSO\n.BR kvbatch (7)\n");
    out
}

#[test]
fn text_is_no_command() {
    assert_eq!(text(".PP is -1, not (kv_do()) or KV_ERR_IO."), "\\&.PP is \\-1, not (\\fBkv_do\\fR()) or \\fBKV_ERR_IO\\fR.");
    assert_eq!(text("kv_do"), "\\&\\fBkv_do\\fR");
    let mut out = String::new();
    synopsis(&mut out, &format!("int f({} a, {} b);", "x".repeat(40), "y".repeat(40)));
    assert_eq!(out.lines().count(), 2);
}
