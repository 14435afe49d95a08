//! Where a search matched. The database puts marks around the matches, or else [`Marks::mark`] does; everything else is
//! escaped for HTML, and only then do the marks become `<mark>`. The marks are random for each query: stored text cannot have them, so
//! nobody can make a `<mark>` (or any other tag) out of stored text.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::{Collection, SearchExpression, SearchTerm, is_word_part};

/// What stands before and after a match in the database's answer.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    /// Before.
    pub open: String,
    /// After.
    pub close: String,
}

impl Marks {
    /// Marks that no stored text has.
    pub fn random() -> Self {
        let secret = Uuid::now_v7().simple().to_string();
        Self { open: format!("\u{2}{secret}<"), close: format!("\u{2}{secret}>") }
    }

    /// `{"field": "… <mark>…</mark> …"}` with the fields that matched, from the database's JSON array of marked texts.
    pub fn object(&self, collection: &Collection, marked: &str) -> Result<String> {
        let texts: Vec<Option<String>> = serde_json::from_str(marked).map_err(Error::internal)?;
        let mut object = Map::new();
        for (search, text) in collection.search.iter().zip(texts) {
            if let Some(text) = text.filter(|text| text.contains(&self.open)) {
                object.insert(search.field.clone(), Value::from(self.html(&text)));
            }
        }
        Ok(Value::Object(object).to_string())
    }

    /// Puts the marks around what matches `expression` in a JSON array of texts, given the stems of all their words.
    pub fn mark(&self, expression: &SearchExpression, texts: &str, stems: &HashMap<String, String>) -> Result<String> {
        let texts: Vec<Option<String>> = serde_json::from_str(texts).map_err(Error::internal)?;
        let marked = texts.into_iter().map(|text| text.map(|text| self.mark_text(expression, &text, stems)));
        serde_json::to_string(&marked.collect::<Vec<_>>()).map_err(Error::internal)
    }

    fn mark_text(&self, expression: &SearchExpression, text: &str, stems: &HashMap<String, String>) -> String {
        let words: Vec<(Range<usize>, Option<&String>)> =
            words(text).map(|range| (range.clone(), stems.get(&text.get(range).unwrap_or_default().to_lowercase()))).collect();
        let mut matches: Vec<Range<usize>> = Vec::new();
        for term in expression.clauses.iter().flat_map(|clause| &clause.required) {
            let windows = words.windows(term.words.len().max(1));
            let found = windows.filter(|window| is_match(term, window.iter().map(|(_, stem)| *stem), stems));
            matches.extend(found.filter_map(|window| Some(window.first()?.0.start..window.last()?.0.end)));
        }
        matches.sort_by_key(|range| (range.start, range.end));
        let (mut marked, mut written, mut open) = (String::with_capacity(text.len()), 0, false);
        for range in matches {
            let is_overlapping = open && range.start < written;
            if open && !is_overlapping {
                marked.push_str(&self.close);
            }
            if !is_overlapping {
                marked.push_str(text.get(written..range.start).unwrap_or_default());
                marked.push_str(&self.open);
            }
            marked.push_str(text.get(range.start.max(written)..range.end).unwrap_or_default());
            written = written.max(range.end);
            open = true;
        }
        if open {
            marked.push_str(&self.close);
        }
        marked.push_str(text.get(written..).unwrap_or_default());
        marked
    }

    fn html(&self, marked: &str) -> String {
        let mut html = String::with_capacity(marked.len());
        let mut parts = marked.split(self.open.as_str());
        escape(parts.next().unwrap_or_default(), &mut html);
        for part in parts {
            let (matched, rest) = part.split_once(self.close.as_str()).unwrap_or((part, ""));
            html.push_str("<mark>");
            escape(matched, &mut html);
            html.push_str("</mark>");
            escape(rest, &mut html);
        }
        html
    }
}

/// The words of a search and of JSON arrays of texts, in lower case: those whose stems tell what matches.
pub(super) fn all_words<'t>(expression: &SearchExpression, arrays: impl Iterator<Item = &'t str>) -> Result<BTreeSet<String>> {
    let asked = expression.clauses.iter().flat_map(|clause| &clause.required).flat_map(|term| &term.words);
    let mut all: BTreeSet<String> = asked.cloned().collect();
    for array in arrays {
        let texts: Vec<Option<String>> = serde_json::from_str(array).map_err(Error::internal)?;
        for text in texts.into_iter().flatten() {
            all.extend(words(&text).filter_map(|range| Some(text.get(range)?.to_lowercase())));
        }
    }
    Ok(all)
}

/// Whether words with these stems are the term's, one by one. A word that has no stem matches nothing.
fn is_match<'s>(term: &SearchTerm, given: impl Iterator<Item = Option<&'s String>>, stems: &HashMap<String, String>) -> bool {
    let last = term.words.len().saturating_sub(1);
    term.words.iter().enumerate().zip(given).all(|((at, asked), given)| match (stems.get(asked), given) {
        (Some(asked), Some(given)) if term.prefix && at == last => !asked.is_empty() && given.starts_with(asked.as_str()),
        (Some(asked), Some(given)) => !asked.is_empty() && asked == given,
        (None, _) | (_, None) => false,
    })
}

/// Where the words of a text stand: letters and digits with their marks, as `model::search` has it.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + text.get(rest..)?.find(is_word_part)?;
        let end = text.get(start..)?.find(|character| !is_word_part(character)).map_or(text.len(), |length| start + length);
        rest = end;
        Some(start..end)
    })
}

fn escape(text: &str, html: &mut String) {
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_phrases_are_marked_by_their_stems_and_overlaps_once() {
        let stems = ["open", "connections", "connection", "are", "to"]
            .map(|word| (word.to_owned(), word.trim_end_matches('s').to_owned()));
        let stems = HashMap::from(stems);
        let marks = Marks { open: "<".to_owned(), close: ">".to_owned() };
        let marked =
            |search: &str, prefix, text: &str| marks.mark_text(&SearchExpression::parse(search, prefix).unwrap(), text, &stems);
        assert_eq!(marked("\"open connection\"", false, "Open, connections (open) are"), "<Open, connections> (open) are");
        assert_eq!(marked("\"open connection\" connection", false, "open connections"), "<open connections>");
        assert_eq!(marked("connection open", false, "open connections"), "<open> <connections>");
        assert_eq!(marked("op", true, "unopened open"), "unopened open", "the stem of what was asked must be known");
        assert_eq!(marked("con", false, "to"), "to");
        assert_eq!(marked("open -are", false, "éopen are open"), "éopen are <open>");
    }

    #[test]
    fn text_is_escaped_and_only_matches_are_marked() {
        let marks = Marks::random();
        let Marks { open, close } = marks.clone();
        let text = format!("<script>{open}a&b{close}</script> \u{2}<mark> \"'");
        assert_eq!(marks.html(&text), "&lt;script&gt;<mark>a&amp;b</mark>&lt;/script&gt; \u{2}&lt;mark&gt; &quot;&#39;");
    }
}
