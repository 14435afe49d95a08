//! The words of searched texts, so far as they tell that a change cannot have touched a search: on PostgreSQL, whose text search
//! configuration `terrace` (see `migrations/postgres`) separates words at everything but letters and digits and stems them with
//! Snowball's `porter`. Whatever is not plain English letters is left undecided.

use std::collections::BTreeSet;

use snowball_stemmers_rs::{Algorithm, Stemmer};

use super::{SearchClause, SearchExpression};

/// Texts that are longer together are not looked at: a write would wait for it.
const MAX_BYTES: usize = 4 * 1024;
/// What is kept of them, for as long as their change is remembered.
const MAX_KEPT_BYTES: usize = 1024;
/// A text with a longer word is not looked at. (PostgreSQL does not stem words beyond 1,000 bytes.)
const MAX_WORD_BYTES: usize = 100;

/// The stems of all words of some texts, with a space before and behind each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words(Box<str>);

/// What a record must have to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedWords {
    /// Of each alternative, what [`Words`] have of the words that it cannot do without.
    clauses: Vec<Vec<Box<str>>>,
}

impl Words {
    /// Another way of making them has another number: instances must not read each other's.
    pub const LAYOUT: u8 = 1;

    /// The words of all `texts` together; `None` if they are not certain, or too many.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let stemmer = Stemmer::create(Algorithm::Porter);
        let (mut stems, mut bytes) = (BTreeSet::new(), 0);
        for text in texts {
            bytes += text.len();
            if bytes > MAX_BYTES || !text.is_ascii() {
                return None;
            }
            for word in text.split(|character: char| !character.is_ascii_alphanumeric()) {
                if word.len() > MAX_WORD_BYTES {
                    return None;
                }
                collect_stems(&stemmer, word, &mut stems);
            }
        }
        let kept: usize = stems.iter().map(|stem| stem.len() + 1).sum();
        (kept <= MAX_KEPT_BYTES).then(|| Self::joined(stems.iter().map(String::as_str)))
    }

    /// As [`Self::as_str`] gave them.
    pub fn from_text(text: &str) -> Self {
        Self::joined(text.split_ascii_whitespace())
    }

    /// The stems, separated.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn joined<'a>(stems: impl Iterator<Item = &'a str>) -> Self {
        Self(stems.fold(" ".to_owned(), |text, stem| text + stem + " ").into())
    }
}

/// Where digits stand beside letters, PostgreSQL sees one word or two, depending on what follows: a prefix may find the letters as they
/// are. The same where a locale has another small letter for `I`.
fn collect_stems(stemmer: &Stemmer, word: &str, stems: &mut BTreeSet<String>) {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_alphabetic() && byte != b'I');
    for letters in word.split(|character: char| character.is_ascii_digit()).filter(|letters| !letters.is_empty()) {
        let letters = letters.to_ascii_lowercase();
        stems.insert(stemmer.stem(&letters).into_owned());
        if !is_plain {
            stems.insert(letters);
        }
    }
}

impl WantedWords {
    /// What `expression` asks for.
    pub fn of(expression: &SearchExpression) -> Self {
        let stemmer = Stemmer::create(Algorithm::Porter);
        let wanted = |clause: &SearchClause| {
            let terms = clause.required.iter();
            let words = terms.flat_map(|term| {
                let last = term.words.len().saturating_sub(1);
                term.words.iter().enumerate().map(move |(at, word)| (word, term.prefix && at == last))
            });
            words.filter_map(|(word, is_prefix)| wanted_text(&stemmer, word, is_prefix)).collect()
        };
        Self { clauses: expression.clauses.iter().map(wanted).collect() }
    }

    /// Whether a record with these words, or some of them, may be found.
    pub fn may_be_in(&self, words: &Words) -> bool {
        self.clauses.iter().any(|clause| clause.iter().all(|wanted| words.0.contains(&**wanted)))
    }
}

/// `None` if nobody can tell what the word finds.
fn wanted_text(stemmer: &Stemmer, word: &str, is_prefix: bool) -> Option<Box<str>> {
    let is_certain = word.len() <= MAX_WORD_BYTES && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let end = if is_prefix { "" } else { " " };
    is_certain.then(|| format!(" {}{end}", stemmer.stem(word)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_find(search: &str, is_prefix: bool, text: &str) -> bool {
        let expression = SearchExpression::parse(search, is_prefix).unwrap();
        WantedWords::of(&expression).may_be_in(&Words::of([text]).unwrap())
    }

    #[test]
    fn a_text_without_a_wanted_word_is_not_found() {
        let text = "Running connections, v2beta (open_files); 3D";
        for found in ["connection", "RUN open", "\"open files\"", "v2beta", "beta", "d", "nothing or files", "run -open", "café"]
        {
            assert!(may_find(found, false, text), "{found}");
        }
        for missing in ["connector", "run closed", "\"open doors\"", "nothing or doors", "bet", "the"] {
            assert!(!may_find(missing, false, text), "{missing}");
        }
        assert!(may_find("open conn", true, text) && may_find("bet", true, text) && may_find("running", true, text));
        assert!(
            may_find("connectio", true, "connection2")
                && may_find("runn", true, "running2")
                && !may_find("runn", true, "running")
        );
        assert!(!may_find("open door", true, text) && !may_find("opera", true, text));
    }

    #[test]
    fn what_is_not_certain_is_not_told() {
        for text in ["café", "e\u{301}", &"x".repeat(MAX_WORD_BYTES + 1), &"x ".repeat(MAX_BYTES)] {
            assert_eq!(Words::of([text]), None, "{text:.20}");
        }
        let digits = SearchExpression::parse("a1", false).unwrap();
        assert!(WantedWords::of(&digits).may_be_in(&Words::of([]).unwrap()), "what digits find is not known");
        let many: String =
            (b'a'..=b'z').flat_map(|one| (b'a'..=b'z').map(move |other| format!("{}{} ", one as char, other as char))).collect();
        assert_eq!(Words::of([many.as_str()]), None, "more than is kept");
    }

    #[test]
    fn they_are_read_as_they_are_told() {
        let words = Words::of(["Running IDs, v2beta"]).unwrap();
        assert_eq!(words.as_str(), " beta id ids run v ");
        assert_eq!(Words::from_text(words.as_str()), words);
    }
}
