//! Web-search syntax, parsed once for both databases: words, `"a phrase"`, `-not`, `or`. The grammar is that of
//! PostgreSQL's `websearch_to_tsquery`: `or` binds looser than the implicit and.

use crate::error::{Error, Result};

/// The longest search text, in bytes.
const MAX_BYTES: usize = 1_000;
/// The most words in a search.
const MAX_WORDS: usize = 32;

/// Words that carry no meaning in a search and stand in nearly every text (Snowball's English list, as PostgreSQL has it).
const STOP_WORDS: &str = " i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers \
    herself it its itself they them their theirs themselves what which who whom this that these those am is are was were be been \
    being have has had having do does did doing a an the and but if or because as until while of at by for with about against \
    between into through during before after above below to from up down in out on off over under again further then once here \
    there when where why how all any both each few more most other some such no nor not only own same so than too very s t can \
    will just don should now ";

/// What the rank of a record in a search follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranking {
    /// The record's own texts.
    Own,
    /// Those of all records: how rare a word is, and how long texts are on average (BM25).
    Relative,
}

/// A parsed search: at least one of the clauses matches. No clause (nothing but punctuation and stop words) matches nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SearchExpression {
    /// The alternatives, sorted.
    pub clauses: Vec<SearchClause>,
}

/// One alternative: all of `required`, none of `excluded`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SearchClause {
    /// At least one.
    pub required: Vec<SearchTerm>,
    /// May be empty.
    pub excluded: Vec<SearchTerm>,
}

/// A word or a phrase: words in lower case that stand next to each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SearchTerm {
    /// One word, or the words of a phrase; only letters, digits and the marks on them.
    pub words: Vec<String>,
    /// Whether the (last) word also matches words that begin with it.
    pub prefix: bool,
}

impl SearchExpression {
    /// Parses `text`. Anything is a valid search except one that is too long or has an alternative of excluded words only.
    /// With `prefix`, the last word also matches words that begin with it.
    pub fn parse(text: &str, prefix: bool) -> Result<Self> {
        let invalid = |detail: String| Error::parameter("q", detail);
        if text.len() > MAX_BYTES {
            return Err(invalid(format!("A search has at most {MAX_BYTES} bytes.")));
        }
        let mut tokens = tokenize(text);
        if tokens.iter().map(Token::word_count).sum::<usize>() > MAX_WORDS {
            return Err(invalid(format!("A search has at most {MAX_WORDS} words.")));
        }
        if let (true, Some(Token::Term { term, excluded: false })) = (prefix, tokens.last_mut()) {
            term.prefix = true;
        }
        let mut clauses = Vec::new();
        for group in tokens.split(|token| matches!(token, Token::Or)) {
            let mut clause = SearchClause { required: Vec::new(), excluded: Vec::new() };
            for token in group {
                if let Token::Term { term, excluded } = token {
                    if *excluded { &mut clause.excluded } else { &mut clause.required }.push(term.clone());
                }
            }
            clause.required.retain(|term| !term.is_stop_word());
            clause.required.sort();
            clause.required.dedup();
            clause.excluded.sort();
            clause.excluded.dedup();
            if !clause.required.is_empty() {
                clauses.push(clause);
            } else if !clause.excluded.is_empty() {
                return Err(invalid("Each alternative needs a word that is wanted beside those that are not.".to_owned()));
            }
        }
        clauses.sort();
        clauses.dedup();
        Ok(Self { clauses })
    }

    /// A text that [`SearchExpression::parse`] reads back, given [`Self::has_prefix`].
    pub fn to_text(&self) -> String {
        if self.matches_nothing() {
            // Not the empty text, which is no search at all.
            return "\"\"".to_owned();
        }
        let mut clauses: Vec<&SearchClause> = self.clauses.iter().collect();
        // The prefix is that of the last word.
        clauses.sort_by_key(|clause| clause.has_prefix());
        clauses.into_iter().map(SearchClause::to_text).collect::<Vec<_>>().join(" or ")
    }

    /// Whether a word also matches words that begin with it.
    pub fn has_prefix(&self) -> bool {
        self.clauses.iter().any(SearchClause::has_prefix)
    }

    /// Whether no record can match.
    pub fn matches_nothing(&self) -> bool {
        self.clauses.is_empty()
    }
}

impl SearchClause {
    fn has_prefix(&self) -> bool {
        self.required.iter().any(|term| term.prefix)
    }

    fn to_text(&self) -> String {
        let mut required: Vec<&SearchTerm> = self.required.iter().collect();
        required.sort_by_key(|term| term.prefix);
        let excluded = self.excluded.iter().map(|term| format!("-{}", term.to_text()));
        excluded.chain(required.into_iter().map(SearchTerm::to_text)).collect::<Vec<_>>().join(" ")
    }
}

impl SearchTerm {
    fn to_text(&self) -> String {
        match self.words.as_slice() {
            [word] if word != "or" => word.clone(),
            words => format!("\"{}\"", words.join(" ")),
        }
    }

    /// A single stop word is left out of a search; inside a phrase it counts.
    fn is_stop_word(&self) -> bool {
        match self.words.as_slice() {
            [word] if !self.prefix => STOP_WORDS.contains(&format!(" {word} ")),
            _ => false,
        }
    }
}

enum Token {
    Term { term: SearchTerm, excluded: bool },
    Or,
}

impl Token {
    fn word_count(&self) -> usize {
        match self {
            Self::Term { term, .. } => term.words.len(),
            Self::Or => 0,
        }
    }
}

/// Splits at white space outside of quotes. Everything but letters and digits separates words, as both databases'
/// tokenizers are set up, so `aspnetcore.rate_limiting` is a phrase of three words.
fn tokenize(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(|character: char| !character.is_whitespace()) {
        rest = rest.get(start..).unwrap_or_default();
        let (excluded, body) = match rest.strip_prefix('-') {
            Some(body) => (true, body),
            None => (false, rest),
        };
        let (chunk, after, quoted) = match body.strip_prefix('"') {
            Some(inner) => {
                let (chunk, after) = inner.split_once('"').unwrap_or((inner, ""));
                (chunk, after, true)
            }
            None => {
                let end = body.find(|character: char| character.is_whitespace() || character == '"').unwrap_or(body.len());
                let (chunk, after) = body.split_at(end);
                (chunk, after, false)
            }
        };
        rest = after;
        if !quoted && !excluded && chunk.eq_ignore_ascii_case("or") {
            tokens.push(Token::Or);
            continue;
        }
        let words: Vec<String> = chunk
            .split(|character: char| !is_word_part(character))
            .filter(|word| word.chars().any(char::is_alphanumeric))
            .map(str::to_lowercase)
            .collect();
        if !words.is_empty() {
            tokens.push(Token::Term { term: SearchTerm { words, prefix: false }, excluded });
        }
    }
    tokens
}

/// Letters and digits, and the marks behind them: accents, and what is written around the letters of many scripts. Whether
/// a mark separates words is for each database to say, and its tokenizer says the same of a text and of a search.
pub(crate) fn is_word_part(character: char) -> bool {
    character.is_alphanumeric() || unicode_normalization::char::is_combining_mark(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> SearchExpression {
        SearchExpression::parse(text, false).unwrap()
    }

    fn term(words: &[&str]) -> SearchTerm {
        SearchTerm { words: words.iter().map(|word| (*word).to_owned()).collect(), prefix: false }
    }

    #[test]
    fn words_phrases_exclusions_and_alternatives_are_understood() {
        let parsed = parse("request \"open connections\" -deprecated or latency");
        assert_eq!(
            parsed.clauses,
            vec![
                SearchClause { required: vec![term(&["latency"])], excluded: vec![] },
                SearchClause {
                    required: vec![term(&["open", "connections"]), term(&["request"])],
                    excluded: vec![term(&["deprecated"])]
                },
            ]
        );
        assert_eq!(parse("cpu usage"), parse("  usage CPU cpu"));
    }

    #[test]
    fn stop_words_count_only_inside_phrases() {
        assert_eq!(parse("the rate of change"), parse("rate change"));
        assert_eq!(parse("\"rate of change\"").clauses[0].required, vec![term(&["rate", "of", "change"])]);
        assert!(parse("the of").matches_nothing());
    }

    #[test]
    fn an_accent_behind_its_letter_belongs_to_the_word() {
        assert_eq!(parse("cafe\u{301}s").clauses[0].required, vec![term(&["cafe\u{301}s"])]);
        assert!(parse("\u{301}").matches_nothing());
        assert_eq!(parse("हिन्दी में").clauses[0].required, vec![term(&["में"]), term(&["हिन्दी"])]);
    }

    #[test]
    fn hostile_text_is_a_search_for_its_words_or_nothing() {
        for text in ["\"", "*", "-", "\0", "NEAR(", "a AND", "col:x", "^", "{}", "or or or", "\"\"\"", "--x y", "'; DROP TABLE"] {
            let _ = parse(text);
        }
        assert!(parse("\"*(").matches_nothing());
        assert!(SearchExpression::parse("-only", false).is_err());
        assert!(SearchExpression::parse(&"x".repeat(10_000), false).is_err());
        assert!(SearchExpression::parse(&"x ".repeat(40), false).is_err());
    }

    #[test]
    fn prefix_applies_to_the_last_word_only() {
        let parsed = SearchExpression::parse("open conn", true).unwrap();
        let prefixes: Vec<bool> = parsed.clauses[0].required.iter().map(|term| term.prefix).collect();
        assert_eq!(prefixes, [true, false]);
    }
}
