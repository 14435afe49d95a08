//! Reading filters: the JSON form of `filter={…}` and of view files, and the single tests of `filter[field][operator]=…`.
//! Every error names the field or operator and what is allowed.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Collection, Condition, Field, Filter, Scalar, ScalarType, Test};
use crate::error::{Error, Result};

/// The deepest nesting of `and` and `or`.
const MAX_DEPTH: usize = 8;
/// The most tests in a filter, and values in a list.
const MAX_TESTS: usize = 100;
/// All operators, for messages and for the API description.
const OPERATORS: [&str; 10] = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "any", "all", "null"];

/// A value to compare with: text from a URL, where commas separate the members of a list, or JSON.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// From a URL.
    Text(&'a str),
    /// From a JSON filter.
    Json(&'a Value),
}

impl Filter {
    /// Reads the JSON form: `{"field": value}`, `{"field": {"operator": value, …}, …}`, `{"or": […]}`, `{"and": […]}`;
    /// the members of an object must all hold. The caller checks the whole filter with [`Filter::check_indexes`].
    pub fn from_json(collection: &Collection, json: &Value) -> Result<Self> {
        read_group(collection, json, 0)
    }

    /// Reads one test of one field. The caller checks the whole filter with [`Filter::check_indexes`].
    pub fn from_operator(collection: &Collection, name: &str, operator: &str, operand: Operand<'_>) -> Result<Self> {
        let field = field(collection, name)?;
        let reader = Reader { name, field };
        let test = match operator {
            "eq" => Test::Eq(reader.scalar(operand)?),
            "ne" => Test::Ne(reader.scalar(operand)?),
            "gt" => Test::Gt(reader.ordered(operand)?),
            "gte" => Test::Gte(reader.ordered(operand)?),
            "lt" => Test::Lt(reader.ordered(operand)?),
            "lte" => Test::Lte(reader.ordered(operand)?),
            "in" | "any" => Test::In(reader.list(operand)?),
            "all" if field.array => Test::All(reader.list(operand)?),
            "all" => return Err(invalid(format!("{name} is not an array, so \"all\" does not apply; use \"in\"."))),
            "null" => Test::Null(reader.flag(operand)?),
            other => return Err(invalid(format!("{other:?} is not an operator.")).with_allowed(OPERATORS)),
        };
        Ok(Self::test(name, test))
    }

    /// Checks that an index covers every field: one that begins with it, or one in which every field before it has an equality.
    pub fn check_indexes(&self, collection: &Collection) -> Result<()> {
        let mut tests = 0;
        self.visit(&mut |_| tests += 1);
        if tests > MAX_TESTS {
            return Err(invalid(format!("A filter has at most {MAX_TESTS} tests.")));
        }
        match self.unindexed_field(collection) {
            Some(name) => {
                Err(invalid(format!("{name} is not indexed, so it cannot be filtered by."))
                    .with_allowed(collection.leading_fields()))
            }
            None => Ok(()),
        }
    }

    /// The first field that no index covers.
    pub fn unindexed_field(&self, collection: &Collection) -> Option<&str> {
        let mut equal = BTreeSet::new();
        let mut all = Vec::new();
        self.visit(&mut |condition| all.push(condition.field.as_str()));
        let top = match self {
            Self::All(parts) => parts.as_slice(),
            Self::Test(_) | Self::Any(_) => std::slice::from_ref(self),
        };
        for part in top {
            if let Self::Test(Condition { field, test: Test::Eq(_) | Test::In(_) }) = part {
                equal.insert(field.as_str());
            }
        }
        all.into_iter().find(|name| !collection.is_filterable(name, &equal))
    }

    /// Calls `see` with every test.
    pub fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Condition)) {
        match self {
            Self::Test(condition) => see(condition),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.visit(see)),
        }
    }

    /// The JSON form, which [`Filter::from_json`] reads back to an equal filter.
    pub fn to_json(&self) -> Value {
        let group = |name: &str, parts: &[Self]| {
            let parts = parts.iter().map(Self::to_json).collect();
            Value::Object(Map::from_iter([(name.to_owned(), Value::Array(parts))]))
        };
        match self {
            Self::All(parts) => group("and", parts),
            Self::Any(parts) => group("or", parts),
            Self::Test(condition) => {
                let (operator, operand) = condition.test.to_operator();
                let test = Value::Object(Map::from_iter([(operator.to_owned(), operand)]));
                Value::Object(Map::from_iter([(condition.field.clone(), test)]))
            }
        }
    }
}

impl Test {
    /// The operator and operand that [`Filter::from_operator`] reads back.
    pub fn to_operator(&self) -> (&'static str, Value) {
        let list = |values: &[Scalar]| Value::Array(values.iter().map(Scalar::to_json).collect());
        match self {
            Self::Eq(value) => ("eq", value.to_json()),
            Self::Ne(value) => ("ne", value.to_json()),
            Self::Gt(value) => ("gt", value.to_json()),
            Self::Gte(value) => ("gte", value.to_json()),
            Self::Lt(value) => ("lt", value.to_json()),
            Self::Lte(value) => ("lte", value.to_json()),
            Self::In(values) => ("in", list(values)),
            Self::All(values) => ("all", list(values)),
            Self::Null(flag) => ("null", Value::Bool(*flag)),
        }
    }
}

/// Reads values for one field.
struct Reader<'a> {
    name: &'a str,
    field: Field,
}

impl Reader<'_> {
    fn scalar(&self, operand: Operand<'_>) -> Result<Scalar> {
        let read = match operand {
            Operand::Text(text) => self.field.scalar.parse(text),
            Operand::Json(value) => self.field.scalar.from_json(value),
        };
        read.ok_or_else(|| invalid(format!("{} is compared with {}.", self.name, self.field.scalar.name())))
    }

    fn ordered(&self, operand: Operand<'_>) -> Result<Scalar> {
        if self.field.array || self.field.scalar == ScalarType::Boolean {
            return Err(invalid(format!("{} has no order; use eq, ne, in or null.", self.name)));
        }
        self.scalar(operand)
    }

    fn list(&self, operand: Operand<'_>) -> Result<Vec<Scalar>> {
        let values: Vec<Scalar> = match operand {
            Operand::Text(text) => text.split(',').map(|part| self.scalar(Operand::Text(part))).collect::<Result<_>>()?,
            Operand::Json(Value::Array(values)) => {
                values.iter().map(|value| self.scalar(Operand::Json(value))).collect::<Result<_>>()?
            }
            Operand::Json(_) => return Err(invalid(format!("{} needs an array of values here.", self.name))),
        };
        match values.len() {
            1..=MAX_TESTS => Ok(values),
            _ => Err(invalid(format!("A list for {} has 1 to {MAX_TESTS} values.", self.name))),
        }
    }

    fn flag(&self, operand: Operand<'_>) -> Result<bool> {
        match operand {
            Operand::Text("true") | Operand::Json(Value::Bool(true)) => Ok(true),
            Operand::Text("false") | Operand::Json(Value::Bool(false)) => Ok(false),
            Operand::Text(_) | Operand::Json(_) => Err(invalid(format!("\"null\" of {} takes true or false.", self.name))),
        }
    }
}

fn read_group(collection: &Collection, json: &Value, depth: usize) -> Result<Filter> {
    if depth > MAX_DEPTH {
        return Err(invalid(format!("A filter nests at most {MAX_DEPTH} levels deep.")));
    }
    let Value::Object(members) = json else {
        return Err(invalid("A filter is a JSON object such as {\"tier\": {\"lte\": 2}} or {\"or\": [{…}, {…}]}.".to_owned()));
    };
    let mut parts = Vec::new();
    for (name, value) in members {
        match (name.as_str(), value) {
            ("and" | "or", Value::Array(inner)) => {
                let inner = inner.iter().map(|part| read_group(collection, part, depth + 1)).collect::<Result<_>>()?;
                parts.push(if name == "or" { Filter::any(inner) } else { Filter::all(inner) });
            }
            ("and" | "or", _) => return Err(invalid(format!("{name:?} takes an array of filters."))),
            (_, Value::Object(operators)) => {
                for (operator, operand) in operators {
                    parts.push(Filter::from_operator(collection, name, operator, Operand::Json(operand))?);
                }
            }
            (_, value) => parts.push(Filter::from_operator(collection, name, "eq", Operand::Json(value))?),
        }
    }
    Ok(Filter::all(parts))
}

fn field(collection: &Collection, name: &str) -> Result<Field> {
    let unknown =
        || invalid(format!("{} has no field {name:?} to filter by.", collection.name)).with_allowed(collection.leading_fields());
    collection.fields.get(name).copied().ok_or_else(unknown)
}

fn invalid(detail: String) -> Error {
    Error::parameter("filter", detail)
}
