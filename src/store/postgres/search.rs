//! One search over one collection on PostgreSQL: a `tsquery` over the column `search`, which a trigger keeps.
//!
//! PostgreSQL's own `ts_headline` marks single words wherever they stand, also those of a phrase that is not there, and knows
//! nothing of accents. So the texts are handed out as they are, and `store::highlight` marks them by the stems of their words.

use crate::model::{Collection, SearchClause, SearchExpression, SearchTerm};
use crate::store::dialect::{Dialect as _, SearchDialect, Sought};
use crate::store::statement::Statement;

use super::PostgresDialect;

/// A search.
pub(super) struct PostgresSearch<'a> {
    collection: &'a Collection,
    query: String,
    rank: &'static str,
}

impl<'a> PostgresSearch<'a> {
    /// The search for `expression` in the records of `collection`.
    pub fn new(collection: &'a Collection, expression: &SearchExpression) -> Self {
        Self { collection, query: query_text(expression), rank: rank_function(expression) }
    }
}

impl SearchDialect for PostgresSearch<'_> {
    fn push_source(&self, statement: &mut Statement, sought: Sought) {
        let table = PostgresDialect.table(&self.collection.name, "records");
        let once = match sought {
            // For the planner, who then knows how many match.
            Sought::Matches => "",
            // It would put the function where the query is used: into the rank of every match.
            Sought::Ranked => " OFFSET 0",
        };
        statement.sql(format!("{table} CROSS JOIN (SELECT terrace_query(")).text(&self.query);
        statement.sql(format!(") AS query{once}) AS asked"));
    }

    fn push_condition(&self, statement: &mut Statement) {
        statement.sql("records.search @@ asked.query");
    }

    fn rank(&self) -> String {
        format!("-({}(records.search, asked.query)::float8)", self.rank)
    }

    fn push_highlight_join(&self, _statement: &mut Statement) {}

    fn push_highlights(&self, statement: &mut Statement, _open: &str, _close: &str) {
        let texts = self.collection.search.iter().map(|search| format!("records.data ->> '{}'", search.field));
        statement.sql(PostgresDialect.json_array(&texts.collect::<Vec<_>>()));
    }

    fn stems(&self, words: &[&str]) -> Option<Statement> {
        let mut statement = Statement::new(
            "SELECT word, array_to_string(tsvector_to_array(terrace_vector(word, 2000)), ' ') AS stem FROM unnest(CAST(",
        );
        statement.text(super::dialect::array_text(words.iter().copied())).sql(" AS text[])) AS given (word)");
        Some(statement)
    }
}

/// Several words count for more the closer they stand together. Where there is one word there is nothing to stand close to, and
/// its weights alone are a fifth of the work, which is done for every match.
fn rank_function(expression: &SearchExpression) -> &'static str {
    let is_one_word = |clause: &SearchClause| match clause.required.as_slice() {
        [only] => only.words.len() == 1 && clause.excluded.is_empty(),
        _ => false,
    };
    match expression.clauses.as_slice() {
        [only] if is_one_word(only) => "ts_rank",
        _ => "ts_rank_cd",
    }
}

/// As `terrace_query` reads it.
pub(in crate::store) fn query_text(expression: &SearchExpression) -> String {
    expression.clauses.iter().map(clause_text).collect::<Vec<_>>().join(" | ")
}

fn clause_text(clause: &SearchClause) -> String {
    let required = clause.required.iter().map(term_text);
    let excluded = clause.excluded.iter().map(|term| format!("!{}", term_text(term)));
    format!("({})", required.chain(excluded).collect::<Vec<_>>().join(" & "))
}

/// Words have only letters, digits and their marks; quoted all the same, nothing in them is syntax.
fn term_text(term: &SearchTerm) -> String {
    // What is nothing but marks is nothing once they are removed; a point is no word either, but no mistake.
    let is_mark = |character: char| matches!(character, '\u{300}'..='\u{36f}');
    let quoted = |word: &String| match word.chars().all(is_mark) {
        true => "'.'".to_owned(),
        false => format!("'{}'", word.replace('\\', "\\\\").replace('\'', "''")),
    };
    let words: Vec<String> = term.words.iter().map(quoted).collect();
    let prefix = if term.prefix { ":*" } else { "" };
    format!("({}{prefix})", words.join(" <-> "))
}
