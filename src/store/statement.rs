//! One SQL statement with its bound values. Diesel caches prepared statements by their text, but never those of
//! `diesel::sql_query`, which may hide values in the text. A [`Statement`] has names and literals of declared
//! collections in its text and every value bound, so its text is a safe key.

use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{BigInt, Bool, Double, HasSqlType, Nullable, Text, Untyped};
use diesel::{QueryResult, RunQueryDsl};

use crate::model::Scalar;

/// Statements of one record fit; longer ones grow.
const USUAL_LENGTH: usize = 256;

/// SQL text and bound values, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Statement {
    /// All pieces of SQL, one behind the other.
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    /// Of the text, up to here.
    Sql(usize),
    Text(Option<String>),
    BigInt(i64),
    Double(f64),
    Bool(bool),
}

impl Statement {
    /// A statement that begins with `sql`.
    pub fn new(sql: impl AsRef<str>) -> Self {
        let mut statement = Self { text: String::with_capacity(USUAL_LENGTH), pieces: Vec::with_capacity(4) };
        statement.sql(sql);
        statement
    }

    /// Appends SQL. It must not hold a value that came from a request.
    pub fn sql(&mut self, sql: impl AsRef<str>) -> &mut Self {
        self.text.push_str(sql.as_ref());
        match self.pieces.last_mut() {
            Some(Piece::Sql(end)) => *end = self.text.len(),
            Some(Piece::Text(_) | Piece::BigInt(_) | Piece::Double(_) | Piece::Bool(_)) | None => {
                self.pieces.push(Piece::Sql(self.text.len()));
            }
        }
        self
    }

    /// The SQL of a statement that binds nothing.
    pub fn into_sql(self) -> String {
        self.text
    }

    /// Binds a text.
    pub fn text(&mut self, text: impl Into<String>) -> &mut Self {
        self.pieces.push(Piece::Text(Some(text.into())));
        self
    }

    /// Binds a text, or null.
    pub fn optional_text(&mut self, text: Option<String>) -> &mut Self {
        self.pieces.push(Piece::Text(text));
        self
    }

    /// Binds a whole number.
    pub fn bigint(&mut self, number: i64) -> &mut Self {
        self.pieces.push(Piece::BigInt(number));
        self
    }

    /// Binds a scalar as its own type.
    pub fn scalar(&mut self, scalar: &Scalar) -> &mut Self {
        self.pieces.push(match scalar {
            Scalar::Boolean(flag) => Piece::Bool(*flag),
            Scalar::Integer(number) => Piece::BigInt(*number),
            Scalar::Number(number) => Piece::Double(number.get()),
            Scalar::Text(text) => Piece::Text(Some(text.clone())),
        });
        self
    }

    /// The text, its parameters' types and their values as literals, for `PREPARE` and `EXECUTE`.
    #[cfg(test)]
    pub fn prepared(&self) -> (String, String, String) {
        let (mut text, mut types, mut values) = (String::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for piece in &self.pieces {
            let (kind, value) = match piece {
                Piece::Sql(end) => {
                    text.push_str(&self.text[start..*end]);
                    start = *end;
                    continue;
                }
                Piece::Text(value) => {
                    ("text", value.as_ref().map_or_else(|| "NULL".to_owned(), |value| format!("'{}'", value.replace('\'', "''"))))
                }
                Piece::BigInt(number) => ("bigint", number.to_string()),
                Piece::Double(number) => ("float8", number.to_string()),
                Piece::Bool(flag) => ("boolean", flag.to_string()),
            };
            types.push(kind);
            values.push(value);
            text.push_str(&format!("${}", types.len()));
        }
        let brackets = |list: String| if list.is_empty() { list } else { format!("({list})") };
        (text, brackets(types.join(", ")), brackets(values.join(", ")))
    }

    /// Appends another statement.
    pub fn extend(&mut self, other: Self) {
        let start = self.text.len();
        self.text.push_str(&other.text);
        self.pieces.extend(other.pieces.into_iter().map(|piece| match piece {
            Piece::Sql(end) => Piece::Sql(start + end),
            value => value,
        }));
    }
}

impl<DB> QueryFragment<DB> for Statement
where
    DB: Backend + HasSqlType<Text> + HasSqlType<BigInt> + HasSqlType<Double> + HasSqlType<Bool>,
    Option<String>: ToSql<Nullable<Text>, DB>,
    i64: ToSql<BigInt, DB>,
    f64: ToSql<Double, DB>,
    bool: ToSql<Bool, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let mut start = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Sql(end) => {
                    out.push_sql(self.text.get(start..*end).unwrap_or_default());
                    start = *end;
                }
                Piece::Text(text) => out.push_bind_param::<Nullable<Text>, _>(text)?,
                Piece::BigInt(number) => out.push_bind_param::<BigInt, _>(number)?,
                Piece::Double(number) => out.push_bind_param::<Double, _>(number)?,
                Piece::Bool(flag) => out.push_bind_param::<Bool, _>(flag)?,
            }
        }
        Ok(())
    }
}

impl QueryId for Statement {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement {
    type SqlType = Untyped;
}

impl<Connection> RunQueryDsl<Connection> for Statement {}
