//! The words of searched texts, so far as they tell that a change cannot have touched a search: on PostgreSQL, whose text search
//! configuration `terrace` (see `migrations/postgres`) separates words at everything but letters and digits and stems them with
//! Snowball's `porter`. Whatever is not plain English letters is left undecided.

use std::collections::BTreeSet;

use snowball_stemmers_rs::{Algorithm, Stemmer};

use super::{SearchClause, SearchExpression};

/// Longer texts are not looked at: a write would wait for it.
const MAX_BYTES: usize = 16 * 1024;
/// A text with a longer word is not looked at. (PostgreSQL does not stem words beyond 1,000 bytes.)
const MAX_WORD_BYTES: usize = 100;

/// The stems of all words of some texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words(BTreeSet<String>);

/// What a record must have to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedWords {
    /// Of each alternative, the words that it cannot do without.
    clauses: Vec<Vec<WantedWord>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct WantedWord {
    stem: String,
    is_prefix: bool,
}

impl Words {
    /// The words of all `texts` together; `None` if they are not certain.
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
                // Where a digit stands beside a letter, PostgreSQL sees one word or two, depending on what follows. Of such a word
                // only the parts between digits are wanted by anything: see `WantedWord::of`.
                for letters in word.split(|character: char| character.is_ascii_digit()).filter(|letters| !letters.is_empty()) {
                    stems.insert(stemmer.stem(&letters.to_ascii_lowercase()).into_owned());
                }
            }
        }
        Some(Self(stems))
    }

    /// The stems, in order.
    pub fn stems(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    fn has(&self, wanted: &WantedWord) -> bool {
        let WantedWord { stem, is_prefix } = wanted;
        if !is_prefix {
            return self.0.contains(stem);
        }
        self.0.range::<String, _>(stem..).next().is_some_and(|found| found.starts_with(stem))
    }
}

impl FromIterator<String> for Words {
    fn from_iter<I: IntoIterator<Item = String>>(stems: I) -> Self {
        Self(stems.into_iter().collect())
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
            words.filter_map(|(word, is_prefix)| WantedWord::of(&stemmer, word, is_prefix)).collect()
        };
        Self { clauses: expression.clauses.iter().map(wanted).collect() }
    }

    /// Whether a record with these words, or some of them, may be found.
    pub fn may_be_in(&self, words: &Words) -> bool {
        self.clauses.iter().any(|clause| clause.iter().all(|wanted| words.has(wanted)))
    }
}

impl WantedWord {
    /// `None` if nobody can tell what it finds.
    fn of(stemmer: &Stemmer, word: &str, is_prefix: bool) -> Option<Self> {
        let is_certain = word.len() <= MAX_WORD_BYTES && word.bytes().all(|byte| byte.is_ascii_lowercase());
        is_certain.then(|| Self { stem: stemmer.stem(word).into_owned(), is_prefix })
    }
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
        assert!(!may_find("open door", true, text) && !may_find("opera", true, text));
    }

    #[test]
    fn what_is_not_certain_is_not_told() {
        for text in ["café", "e\u{301}", &"x".repeat(MAX_WORD_BYTES + 1), &"x ".repeat(MAX_BYTES)] {
            assert_eq!(Words::of([text]), None, "{text:.20}");
        }
        assert!(
            Words::of([])
                .is_some_and(|words| !WantedWords::of(&SearchExpression::parse("a1", false).unwrap()).clauses.is_empty()
                    && WantedWords::of(&SearchExpression::parse("a1", false).unwrap()).may_be_in(&words))
        );
    }
}
