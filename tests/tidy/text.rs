//! Looking at Rust text without a parser: what is code and what is comment or literal, and where words stand.

/// Rust source with comments and the insides of literals blanked out, line for line.
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    let blank = |out: &mut String, c: char| out.push(if c == '\n' { '\n' } else { ' ' });
    while i < chars.len() {
        let rest = |n: usize| chars.get(i + n).copied().unwrap_or('\0');
        let word_before = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
        if rest(0) == '/' && rest(1) == '/' {
            while i < chars.len() && chars[i] != '\n' {
                blank(&mut out, chars[i]);
                i += 1;
            }
        } else if rest(0) == '/' && rest(1) == '*' {
            let mut depth = 0;
            while i < chars.len() {
                let pair = (chars[i], chars.get(i + 1).copied().unwrap_or('\0'));
                let step = if pair == ('/', '*') || pair == ('*', '/') { 2 } else { 1 };
                depth += i32::from(pair == ('/', '*')) - i32::from(pair == ('*', '/'));
                chars[i..(i + step).min(chars.len())].iter().for_each(|&c| blank(&mut out, c));
                i += step;
                if depth == 0 {
                    break;
                }
            }
        } else if rest(0) == 'r' && !word_before && (rest(1) == '"' || (rest(1) == '#' && (rest(2) == '"' || rest(2) == '#'))) {
            let hashes = chars[i + 1..].iter().take_while(|&&c| c == '#').count();
            let end: String = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let body: String = chars[i + 2 + hashes..].iter().collect();
            let len = body.find(&end).map_or(body.chars().count(), |at| body[..at].chars().count() + end.len());
            chars[i..i + 2 + hashes + len].iter().for_each(|&c| blank(&mut out, c));
            i += 2 + hashes + len;
        } else if rest(0) == '"' {
            out.push('"');
            i += 1;
            while i < chars.len() && chars[i] != '"' {
                let step = if chars[i] == '\\' { 2 } else { 1 };
                chars[i..(i + step).min(chars.len())].iter().for_each(|&c| blank(&mut out, c));
                i += step;
            }
            out.push('"');
            i += 1;
        } else if rest(0) == '\'' && (rest(1) == '\\' || rest(2) == '\'') {
            let end = (i + 3..chars.len().min(i + 14)).find(|&at| chars[at] == '\'').unwrap_or(i + 2);
            let end = if rest(2) == '\'' && rest(1) != '\\' { i + 2 } else { end };
            (i..=end).for_each(|_| out.push(' '));
            i = end + 1;
        } else {
            out.push(chars[i]);
            i += 1;
        }
    }
    out
}

/// Calls `found` with the line number (from 1) and what follows, for each `word` in `code`.
pub fn each_word<'a>(code: &'a str, word: &str, mut found: impl FnMut(usize, &'a str)) {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    for (at, _) in code.match_indices(word) {
        let rest = &code[at + word.len()..];
        let goes_on = word.ends_with(part_of_word) && rest.starts_with(part_of_word);
        if !goes_on && !code[..at].ends_with(part_of_word) {
            found(code[..at].matches('\n').count() + 1, rest);
        }
    }
}

/// The identifier that `text` begins with, behind blanks.
pub fn identifier(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// The first identifiers of a path or of a group `{a::x, b}`.
pub fn heads(text: &str) -> Vec<&str> {
    let Some(group) = text.trim_start().strip_prefix('{') else { return vec![identifier(text)] };
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                heads.push(identifier(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}
