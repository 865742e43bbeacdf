//! As much JSON as a dump needs: flat objects of strings and whole numbers, one per line; and base64.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends `"name":"..."`, or `"name_base64":"..."` for bytes that are no UTF-8.
pub fn field(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            out.extend_from_slice(b"\":\"");
            escape(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b"_base64\":\"");
            base64(out, bytes);
        }
    }
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 | 0x7f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
}

fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            out.push(if i <= group.len() { DIGITS[(bits >> (18 - 6 * i) & 63) as usize] } else { b'=' });
        }
    }
}

/// The bytes that a base64 text stands for.
pub fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (bits == 0).then_some(bytes)
}

/// One line, taken apart.
pub struct Object {
    fields: Vec<(Vec<u8>, Value)>,
}

enum Value {
    Text(Vec<u8>),
    Number(u64),
}

impl Object {
    /// Reads a line; says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Object, &'static str> {
        let mut reader = Reader { rest: line };
        let mut fields = Vec::new();
        reader.take(b'{')?;
        while !reader.took(b'}') {
            if !fields.is_empty() {
                reader.take(b',')?;
            }
            let name = reader.text()?;
            reader.take(b':')?;
            if fields.iter().any(|(other, _)| *other == name) {
                return Err("a name stands there twice");
            }
            fields.push((name, reader.value()?));
        }
        if reader.rest.is_empty() { Ok(Object { fields }) } else { Err("something stands behind the object") }
    }

    /// The string of that name.
    pub fn text(&self, name: &str) -> Option<&[u8]> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The number of that name.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(other, _)| other == name.as_bytes()).map(|(_, value)| value)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn took(&mut self, byte: u8) -> bool {
        self.rest = self.rest.trim_ascii_start();
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), &'static str> {
        if self.took(byte) { Ok(()) } else { Err("a flat object of strings and whole numbers was expected") }
    }

    fn next(&mut self) -> Result<u8, &'static str> {
        let (first, rest) = self.rest.split_first().ok_or("it ends in the middle of a string")?;
        self.rest = rest;
        Ok(*first)
    }

    fn value(&mut self) -> Result<Value, &'static str> {
        self.rest = self.rest.trim_ascii_start();
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return self.text().map(Value::Text);
        }
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        number.map(Value::Number).ok_or("a number is too large")
    }

    fn text(&mut self) -> Result<Vec<u8>, &'static str> {
        self.take(b'"')?;
        let mut text = Vec::new();
        loop {
            let plain = self.rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\')).count();
            text.extend_from_slice(&self.rest[..plain]);
            self.rest = &self.rest[plain..];
            if self.next()? == b'"' {
                break;
            }
            match self.next()? {
                b'n' => text.push(b'\n'),
                b'r' => text.push(b'\r'),
                b't' => text.push(b'\t'),
                b'b' => text.push(8),
                b'f' => text.push(12),
                b'u' => {
                    let mut buf = [0; 4];
                    text.extend_from_slice(self.code_point()?.encode_utf8(&mut buf).as_bytes());
                }
                same @ (b'"' | b'\\' | b'/') => text.push(same),
                _ => return Err("there is no such escape in a string"),
            }
        }
        std::str::from_utf8(&text).map_err(|_| "a string is not UTF-8")?;
        Ok(text)
    }

    fn code_point(&mut self) -> Result<char, &'static str> {
        const BAD: &str = "\\u stands before something that is no character";
        let first = self.hex()?;
        let code = match first {
            0xd800..0xdc00 => {
                if (self.next()?, self.next()?) != (b'\\', b'u') {
                    return Err(BAD);
                }
                let second = self.hex()?.checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or(BAD)?;
                0x10000 + ((first - 0xd800) << 10) + second
            }
            code => code,
        };
        char::from_u32(code).ok_or(BAD)
    }

    fn hex(&mut self) -> Result<u32, &'static str> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16).ok_or("\\u needs four hexadecimal digits")?;
            code = code << 4 | digit;
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&b""[..], b"plain", "quote \" back \\ \n\r\t\u{1}\u{7f} \u{e4}\u{1f600}".as_bytes(), &all, &all[..254], &all[1..]] {
            let mut line = b"{".to_vec();
            field(&mut line, "x", bytes);
            line.push(b'}');
            let object = Object::parse(&line).expect("good");
            let read = object.text("x").map(<[u8]>::to_vec).or_else(|| object.text("x_base64").and_then(from_base64));
            assert_eq!(read.as_deref(), Some(bytes));
        }
    }

    #[test]
    fn what_others_write_is_read_too() {
        let object = Object::parse(br#" { "a" : "\u0041\/\ud83d\ude00\b" , "n":18446744073709551615 } "#.trim_ascii()).expect("good");
        assert_eq!(object.text("a"), Some("A/\u{1f600}\u{8}".as_bytes()));
        assert_eq!((object.number("n"), object.number("a"), object.text("n")), (Some(u64::MAX), None, None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for bad in [
            &b""[..],
            b"{",
            b"{}x",
            b"[]",
            b"{\"a\"}",
            b"{\"a\":}",
            b"{\"a\":1,}",
            b"{\"a\":1 \"b\":2}",
            b"{\"a\":1,\"a\":2}",
            b"{\"a\":\"",
            b"{\"a\":\"\\x\"}",
            b"{\"a\":\"\\u12\"}",
            b"{\"a\":\"\\ud800\"}",
            b"{\"a\":\"\\ud800\\u0041\"}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":18446744073709551616}",
            b"{\"a\":-1}",
            b"{\"a\":true}",
            b"{\"a\":{}}",
        ] {
            assert!(Object::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        for bad in [&b"A"[..], b"AB", b"AB=", b"AAA?", b"A===", b"AB==\n", b"AB=="] {
            assert_eq!(from_base64(bad), None, "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(from_base64(b"AA=="), Some(vec![0]));
    }
}
