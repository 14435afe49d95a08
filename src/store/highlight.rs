//! Where a search matched. The database puts marks around the matches; here everything else is escaped for HTML, and
//! only then do the marks become `<mark>`. The marks are random for each query: stored text cannot have them, so
//! nobody can make a `<mark>` (or any other tag) out of stored text.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::Collection;

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
    fn text_is_escaped_and_only_matches_are_marked() {
        let marks = Marks::random();
        let Marks { open, close } = marks.clone();
        let text = format!("<script>{open}a&b{close}</script> \u{2}<mark> \"'");
        assert_eq!(marks.html(&text), "&lt;script&gt;<mark>a&amp;b</mark>&lt;/script&gt; \u{2}&lt;mark&gt; &quot;&#39;");
    }
}
