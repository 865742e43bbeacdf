//! Reads a header of `include/kvserver`: what is declared, and the comment above it. For tests/man.rs only.

use std::collections::BTreeMap;

/// What stands in a comment, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comment {
    /// Paragraphs before the parameters.
    pub about: Vec<String>,
    /// Parameters: name and meaning.
    pub params: Vec<(String, String)>,
    /// What is returned.
    pub returns: Option<String>,
    /// Paragraphs behind that: ownership, threads.
    pub rules: Vec<String>,
}

/// A declaration, in one line, with its comment.
#[derive(Clone, Debug)]
pub struct Item {
    pub declaration: String,
    pub comment: Comment,
}

/// What one header declares, by name.
#[derive(Default)]
pub struct Header {
    pub functions: BTreeMap<String, Item>,
    pub callbacks: BTreeMap<String, Item>,
    /// Structs with fields: what it is, then the fields in order.
    pub structs: BTreeMap<String, (Comment, Vec<Item>)>,
    /// Macros that are a number: name, value, meaning.
    pub constants: Vec<(String, i64, Comment)>,
}

/// The text of a comment, without its frame, parted.
pub fn comment(lines: &[&str]) -> Comment {
    enum Part {
        About,
        Param,
        Returns,
        Rules,
    }
    let mut result = Comment::default();
    let (mut part, mut fresh) = (Part::About, true);
    for line in lines {
        let line = line.trim().trim_start_matches("/**").trim_end_matches("*/").trim_start_matches('*').trim();
        if let Some(rest) = line.strip_prefix("@param ") {
            let (name, meaning) = rest.split_once(' ').expect("a parameter has a meaning");
            result.params.push((name.to_owned(), meaning.trim().to_owned()));
            part = Part::Param;
        } else if let Some(rest) = line.strip_prefix("@return ") {
            result.returns = Some(rest.to_owned());
            part = Part::Returns;
        } else if line.is_empty() {
            fresh = true;
            if !matches!(part, Part::About) {
                part = Part::Rules;
            }
            continue;
        } else {
            let paragraph = match part {
                Part::About | Part::Rules => {
                    let list = if matches!(part, Part::About) { &mut result.about } else { &mut result.rules };
                    if fresh {
                        list.push(String::new());
                    }
                    list.last_mut()
                }
                Part::Param => result.params.last_mut().map(|(_, meaning)| meaning),
                Part::Returns => result.returns.as_mut(),
            };
            let paragraph = paragraph.expect("a paragraph was begun");
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(line);
        }
        fresh = false;
    }
    result
}

/// The name that a declaration declares.
fn declared(declaration: &str) -> String {
    let head = match declaration.split_once("(*") {
        Some((_, rest)) => rest.split(')').next(),
        None => declaration.split(['(', ';', '[']).next(),
    };
    head.unwrap_or_default().rsplit([' ', '*']).next().unwrap_or_default().to_owned()
}

/// Reads the text of a header.
pub fn parse(text: &str) -> Header {
    let lines: Vec<&str> = text.lines().collect();
    let mut header = Header::default();
    // The struct that is open, and what is known of it.
    let mut open: Option<(String, Comment, Vec<Item>)> = None;
    let mut at = 0;
    let mut last = Comment::default();
    while at < lines.len() {
        let line = lines[at].trim();
        if line.starts_with("/**") {
            let end = at + lines[at..].iter().position(|line| line.trim_end().ends_with("*/")).expect("a comment ends");
            last = comment(&lines[at..=end]);
            at = end + 1;
            continue;
        }
        let about = std::mem::take(&mut last);
        if let Some(rest) = line.strip_prefix("#define ") {
            if let Some((name, Ok(value))) = rest.split_once(' ').map(|(name, value)| (name, value.trim().parse())) {
                header.constants.push((name.to_owned(), value, about));
            }
        } else if let Some(name) = line.strip_prefix("struct ").and_then(|rest| rest.strip_suffix(" {")) {
            open = Some((name.to_owned(), about, Vec::new()));
        } else if line == "};" {
            if let Some((name, about, fields)) = open.take() {
                header.structs.insert(name, (about, fields));
            }
        } else if line.starts_with("enum ") && line.ends_with('{') {
            at += lines[at..].iter().position(|line| line.trim() == "};").expect("an enum ends");
        } else if !about.about.is_empty() && !line.is_empty() {
            let Some(length) = lines[at..].iter().position(|line| line.trim_end().ends_with(';')) else { break };
            let words: Vec<&str> = lines[at..=at + length].iter().flat_map(|line| line.split_whitespace()).collect();
            let declaration = words.join(" ");
            let item = Item { comment: about, declaration: declaration.clone() };
            match &mut open {
                Some((_, _, fields)) => fields.push(item),
                None if declaration.starts_with("typedef") && declaration.contains("(*") => {
                    header.callbacks.insert(declared(&declaration), item);
                }
                None if declaration.starts_with("extern kv_") || declaration.contains('(') && !declaration.starts_with("typedef") => {
                    header.functions.insert(declared(declaration.trim_start_matches("extern ")), item);
                }
                None => {}
            }
            at += length;
        }
        at += 1;
    }
    header
}

#[test]
fn a_header_is_read() {
    let text = [
        "/**\n * How many.\n */\n#define KV_MANY 3",
        "/** A thing. */\nstruct kv_thing_s {\n    /**\n     * Its size.\n     */\n    size_t size;\n};",
        "/** A choice (one of one). */\nenum kv_choice_e {\n    /** This (one). */\n    KV_THIS = 0,\n};",
        "/**\n * Is called.\n */\ntypedef void (*kv_call_t)(int a,\n  int b);",
        "/**\n * Does it.\n * Now.\n *\n * Well.\n *\n * @param a  one\n *     thing.\n * @return all.\n *\n * Threads: any.\n */",
        "const char *kv_do(int a,\n    int b);",
    ];
    let text = text.join("\n");
    let header = parse(&text);
    assert_eq!((header.constants[0].0.as_str(), header.constants[0].1), ("KV_MANY", 3));
    assert_eq!(header.structs["kv_thing_s"].1[0].declaration, "size_t size;");
    assert_eq!(header.callbacks["kv_call_t"].declaration, "typedef void (*kv_call_t)(int a, int b);");
    assert_eq!(header.functions.len(), 1);
    let function = &header.functions["kv_do"];
    assert_eq!(function.declaration, "const char *kv_do(int a, int b);");
    assert_eq!(function.comment.about, ["Does it. Now.", "Well."]);
    assert_eq!(function.comment.params, [("a".to_owned(), "one thing.".to_owned())]);
    assert_eq!((function.comment.returns.as_deref(), function.comment.rules.len()), (Some("all."), 1));
}
