//! Filters: a tree of tests over indexed fields, with one canonical form for equal meanings.

use std::collections::BTreeSet;

use super::{Scalar, Term};

/// A filter in canonical form: build it with [`Filter::all`] and [`Filter::any`], which flatten, sort and drop
/// repetitions, so that two spellings of one filter are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Filter {
    /// One test of one field.
    Test(Condition),
    /// Every part holds. `All([])` is everything.
    All(Vec<Filter>),
    /// At least one part holds. `Any([])` is nothing.
    Any(Vec<Filter>),
}

/// One test of one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Condition {
    /// The field's name.
    pub field: String,
    /// What must hold for it.
    pub test: Test,
}

/// What must hold for a field. A missing field and a JSON null are the same, and only `Null(true)` and `Ne` match them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Test {
    /// Equal; for an array field, it has this element.
    Eq(Scalar),
    /// Not equal, or missing; for an array field, it lacks this element.
    Ne(Scalar),
    /// Greater.
    Gt(Scalar),
    /// Greater or equal.
    Gte(Scalar),
    /// Less.
    Lt(Scalar),
    /// Less or equal.
    Lte(Scalar),
    /// Equal to one of these (scalar field), or has at least one of these elements (array field). Sorted, at least two.
    In(Vec<Scalar>),
    /// An array that has every one of these elements. Sorted, at least two.
    All(Vec<Scalar>),
    /// Missing or null (`true`), or neither (`false`).
    Null(bool),
}

impl Test {
    /// The values that it compares with.
    pub fn scalars(&self) -> &[Scalar] {
        match self {
            Self::Eq(scalar) | Self::Ne(scalar) | Self::Gt(scalar) | Self::Gte(scalar) | Self::Lt(scalar) | Self::Lte(scalar) => {
                std::slice::from_ref(scalar)
            }
            Self::In(scalars) | Self::All(scalars) => scalars,
            Self::Null(_) => &[],
        }
    }
}

impl Filter {
    /// Every one of `parts`, in canonical form.
    pub fn all(parts: Vec<Filter>) -> Self {
        let flat = parts.into_iter().flat_map(|part| match part {
            Self::All(inner) => inner,
            other @ (Self::Test(_) | Self::Any(_)) => vec![other],
        });
        Self::collapse(flat.collect(), Self::All)
    }

    /// At least one of `parts`, in canonical form.
    pub fn any(parts: Vec<Filter>) -> Self {
        let flat = parts.into_iter().flat_map(|part| match part {
            Self::Any(inner) => inner,
            other @ (Self::Test(_) | Self::All(_)) => vec![other],
        });
        Self::collapse(flat.collect(), Self::Any)
    }

    /// A test of one field, in canonical form: sorted lists, and a list of one is an equality.
    pub fn test(field: impl Into<String>, test: Test) -> Self {
        let test = match test {
            Test::In(values) => Self::canonical_list(values, Test::In),
            Test::All(values) => Self::canonical_list(values, Test::All),
            other @ (Test::Eq(_) | Test::Ne(_) | Test::Gt(_) | Test::Gte(_) | Test::Lt(_) | Test::Lte(_) | Test::Null(_)) => {
                other
            }
        };
        Self::Test(Condition { field: field.into(), test })
    }

    /// The terms of which every matching record has all: equalities that are not inside an `Any`.
    pub fn required_terms(&self) -> Vec<Term> {
        match self {
            Self::Test(Condition { field, test: Test::Eq(value) }) => vec![Term { field: field.clone(), value: value.clone() }],
            Self::Test(Condition { field, test: Test::All(values) }) => {
                values.iter().map(|value| Term { field: field.clone(), value: value.clone() }).collect()
            }
            Self::All(parts) => parts.iter().flat_map(Self::required_terms).collect(),
            Self::Test(_) | Self::Any(_) => Vec::new(),
        }
    }

    /// Adds every field that is tested.
    pub fn collect_fields(&self, fields: &mut BTreeSet<String>) {
        match self {
            Self::Test(condition) => _ = fields.insert(condition.field.clone()),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.collect_fields(fields)),
        }
    }

    fn canonical_list(mut values: Vec<Scalar>, list: fn(Vec<Scalar>) -> Test) -> Test {
        values.sort();
        values.dedup();
        match (values.pop(), values.is_empty()) {
            (Some(only), true) => Test::Eq(only),
            (Some(last), false) => {
                values.push(last);
                list(values)
            }
            (None, _) => list(values),
        }
    }

    fn collapse(mut parts: Vec<Filter>, node: fn(Vec<Filter>) -> Filter) -> Self {
        parts.sort();
        parts.dedup();
        match (parts.pop(), parts.is_empty()) {
            (Some(only), true) => only,
            (Some(last), false) => {
                parts.push(last);
                node(parts)
            }
            (None, _) => node(parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eq(field: &str, value: i64) -> Filter {
        Filter::test(field, Test::Eq(Scalar::Integer(value)))
    }

    #[test]
    fn order_nesting_and_repetition_do_not_matter() {
        let one = Filter::all(vec![eq("a", 1), Filter::all(vec![eq("b", 2), eq("a", 1)])]);
        let other = Filter::all(vec![eq("b", 2), eq("a", 1)]);
        assert_eq!(one, other);
        assert_eq!(Filter::any(vec![eq("a", 1)]), eq("a", 1));
        let list = Filter::test("a", Test::In(vec![Scalar::Integer(1), Scalar::Integer(1)]));
        assert_eq!(list, eq("a", 1));
    }

    #[test]
    fn only_terms_outside_of_alternatives_are_required() {
        let filter = Filter::all(vec![eq("a", 1), Filter::any(vec![eq("b", 2), eq("c", 3)])]);
        assert_eq!(filter.required_terms(), vec![Term { field: "a".into(), value: Scalar::Integer(1) }]);
    }
}
