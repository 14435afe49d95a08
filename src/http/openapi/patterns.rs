//! Text that matches a simple regular expression, for examples. It understands literals, classes, groups, alternatives
//! and counts; what it makes of anything else is found to be wrong by the schema, and then there is no example.

use std::iter::Peekable;
use std::str::Chars;

/// No part is repeated more often than this.
const MAX_REPEATS: usize = 64;

/// A text that `pattern` matches, of at least `min_length` characters where a repetition allows it.
pub(super) fn matching(pattern: &str, min_length: usize) -> String {
    let text = Reader { rest: pattern.chars().peekable(), open_repeats: 1 }.alternatives();
    let missing = min_length.saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    Reader { rest: pattern.chars().peekable(), open_repeats: 1 + missing.min(MAX_REPEATS) }.alternatives()
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    /// How often a part with `+` or `*` is repeated.
    open_repeats: usize,
}

impl Reader<'_> {
    /// The text of the first alternative, up to the end or a closing parenthesis.
    fn alternatives(&mut self) -> String {
        let first = self.sequence();
        while self.rest.next_if_eq(&'|').is_some() {
            self.sequence();
        }
        first
    }

    fn sequence(&mut self) -> String {
        let mut text = String::new();
        while let Some(next) = self.rest.next_if(|next| !matches!(next, '|' | ')')) {
            let part = match next {
                '^' | '$' => continue,
                '(' => self.group(),
                '[' => self.class().to_string(),
                '.' => "x".to_owned(),
                '\\' => self.escape().map(String::from).unwrap_or_default(),
                literal => literal.to_string(),
            };
            text.push_str(&part.repeat(self.count()));
        }
        text
    }

    fn group(&mut self) -> String {
        if self.rest.next_if_eq(&'?').is_some() {
            // Non-capturing or named; other kinds of groups assert and have no text.
            while self.rest.next_if(|next| !matches!(next, ':' | '>' | ')')).is_some() {}
            self.rest.next_if(|next| matches!(next, ':' | '>'));
        }
        let text = self.alternatives();
        self.rest.next_if_eq(&')');
        text
    }

    /// The most readable member of a class: a letter before a digit before anything else.
    fn class(&mut self) -> char {
        let excluded = self.rest.next_if_eq(&'^').is_some();
        let mut members = Vec::new();
        while let Some(next) = self.rest.next_if(|next| *next != ']') {
            let member = if next == '\\' { self.escape().unwrap_or('x') } else { next };
            members.push(member);
            if self.rest.peek() == Some(&'-') {
                self.rest.next();
                match self.rest.next_if(|next| *next != ']') {
                    Some(last) => members.extend((member..=last).skip(1)),
                    None => members.push('-'),
                }
            }
        }
        self.rest.next();
        if excluded {
            return "xa1-_ ".chars().find(|candidate| !members.contains(candidate)).unwrap_or('~');
        }
        let preferred = |test: fn(&char) -> bool| members.iter().copied().find(test);
        preferred(char::is_ascii_alphabetic)
            .or_else(|| preferred(char::is_ascii_digit))
            .or(members.first().copied())
            .unwrap_or('x')
    }

    fn escape(&mut self) -> Option<char> {
        match self.rest.next()? {
            'd' => Some('1'),
            'w' | 'S' | 'D' => Some('x'),
            's' | 'W' => Some(' '),
            'b' | 'B' | 'A' | 'z' => None,
            literal => Some(literal),
        }
    }

    /// How often the part before is repeated.
    fn count(&mut self) -> usize {
        let count = match self.rest.peek() {
            Some('?') => 0,
            Some('*' | '+') => self.open_repeats,
            Some('{') => {
                let mut digits = String::new();
                self.rest.next();
                while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
                    digits.push(digit);
                }
                while self.rest.next_if(|next| *next != '}').is_some() {}
                digits.parse().unwrap_or(0)
            }
            Some(_) | None => return 1,
        };
        self.rest.next();
        // A lazy or possessive repetition has the same text.
        self.rest.next_if(|next| matches!(next, '?' | '+'));
        count.min(MAX_REPEATS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_match_their_patterns() {
        for (pattern, expected) in [
            ("^[A-Z0-9-]+$", "A"),
            ("^#[0-9a-f]{6}$", "#aaaaaa"),
            ("^(draft|live)-\\d{2,4}$", "draft-11"),
            ("^v?\\d+\\.\\d+$", "1.1"),
            ("^(?:a|b)+x*$", "ax"),
            ("^[^ab]$", "x"),
            ("", ""),
        ] {
            assert_eq!(matching(pattern, 0), expected, "{pattern}");
        }
        assert_eq!(matching("^[a-z]+$", 4), "aaaa");
    }

    #[test]
    fn hostile_patterns_end() {
        for pattern in ["(((", "[", "[a-", "\\", "a{", "a{999999999}", ")|)", "(?<", "|||", "(?=x)y"] {
            assert!(matching(pattern, 10_000).len() < 10_000, "{pattern}");
        }
    }
}
