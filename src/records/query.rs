//! Parsing query strings into canonical queries, and canonical queries into key texts. Equal requests give equal
//! texts, whatever the order and spelling of their parameters; requests with different answers never do.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::cursor;
use crate::error::{Error, Result};
use crate::model::{
    Collection, CountMode, DEFAULT_LIMIT, Direction, Filter, MAX_LIMIT, Operand, Paging, Query, Scalar, SearchExpression,
    SearchTerm, Selection, SortKey,
};
use crate::store::{self, Owner};

/// Beyond this many skipped records an offset costs more than any reader of pages wants; cursors have no such bound.
const MAX_OFFSET: u64 = 1_000_000;

/// What the parameters of a list may be called, beside the names of fields.
pub(super) const LIST_PARAMETERS: [&str; 11] =
    ["page", "limit", "sort", "q", "fields", "filter", "count", "cursor", "prefix", "highlight", "include"];

/// The decoded parameters of a query string, in their order.
pub(super) struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    /// Splits and decodes (WHATWG form encoding). Invalid UTF-8 is an error, not a replacement character.
    pub(super) fn parse(raw: &'a str) -> Result<Self> {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        Ok(Self(pairs.collect::<Result<_>>()?))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// The value of a parameter that may be given once.
    pub(super) fn single(&self, name: &str) -> Result<Option<&str>> {
        let mut values = self.0.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_ref());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Error::parameter(name, format!("{name} is given more than once."))),
            (value, None) => Ok(value),
        }
    }

    fn flag(&self, name: &str) -> Result<bool> {
        match self.single(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Error::parameter(name, format!("{name} is true or false."))),
        }
    }

    /// The sorted members of a comma-separated list, each of which must be in `allowed`.
    fn names<'b>(&self, name: &str, allowed: impl FnOnce() -> BTreeSet<&'b str>) -> Result<Option<Vec<String>>> {
        let Some(text) = self.single(name)? else { return Ok(None) };
        let allowed = allowed();
        let names: BTreeSet<&str> = text.split(',').filter(|member| !member.is_empty()).collect();
        match names.iter().find(|member| !allowed.contains(*member)) {
            Some(unknown) => {
                Err(Error::parameter(name, format!("{unknown:?} is not allowed in {name}."))
                    .with_allowed(allowed.iter().copied()))
            }
            None if names.is_empty() => {
                Err(Error::parameter(name, format!("{name} is empty.")).with_allowed(allowed.iter().copied()))
            }
            None => Ok(Some(names.into_iter().map(str::to_owned).collect())),
        }
    }

    /// Refuses parameters that are none of `allowed`.
    pub(super) fn only(&self, allowed: &[&str]) -> Result<()> {
        match self.0.iter().find(|(name, _)| !allowed.contains(&name.as_ref())) {
            Some((name, _)) => Err(Error::parameter(name.as_ref(), format!("{name:?} is not a parameter here."))
                .with_allowed(allowed.iter().copied())),
            None => Ok(()),
        }
    }
}

/// The part of a record that is asked for: `fields` and `include`.
pub(super) struct Shape {
    pub(super) fields: Option<Vec<String>>,
    pub(super) include: Vec<String>,
}

impl Shape {
    /// The whole record.
    pub(super) const WHOLE: Self = Self { fields: None, include: Vec::new() };

    /// Reads the parameters of a read of one record.
    pub(super) fn parse(collection: &Collection, raw: &str) -> Result<Self> {
        let parameters = Parameters::parse(raw)?;
        parameters.only(&["fields", "include"])?;
        Self::read(collection, &parameters)
    }

    fn read(collection: &Collection, parameters: &Parameters<'_>) -> Result<Self> {
        let declared = || {
            let properties = collection.schema.get("properties").and_then(Value::as_object);
            let declared = properties.into_iter().flat_map(|members| members.keys());
            declared.chain(collection.fields.keys()).map(String::as_str).collect()
        };
        let fields = parameters.names("fields", declared)?;
        let include = parameters.names("include", || collection.references.keys().map(String::as_str).collect())?;
        Ok(Self { fields, include: include.unwrap_or_default() })
    }

    /// What tells this shape's entries from those of other shapes; `""` for the whole record.
    pub(super) fn key_text(&self) -> String {
        if self.fields.is_none() && self.include.is_empty() {
            return String::new();
        }
        json!([self.fields, self.include]).to_string()
    }

    /// The same for the store, if the record is the owner's.
    pub(super) fn among(self, owner: Option<Owner>) -> Arc<store::Shape> {
        // What nearly everybody asks for is there already.
        static WHOLE: LazyLock<Arc<store::Shape>> = LazyLock::new(Arc::default);
        let shape = store::Shape { fields: self.fields, include: self.include, owner };
        if shape == **WHOLE { Arc::clone(&WHOLE) } else { Arc::new(shape) }
    }
}

/// Parses the query string of a list.
pub(super) fn parse_list(collection: &Collection, raw: &str) -> Result<Query> {
    let parameters = Parameters::parse(raw)?;
    let Shape { fields, include } = Shape::read(collection, &parameters)?;
    let search = read_search(collection, &parameters)?;
    let filter = read_filter(collection, &parameters, &LIST_PARAMETERS)?;
    let sort = read_sort(collection, &parameters, filter.as_ref(), search.is_some())?;
    let paging = read_paging(collection, &parameters, &sort)?;
    let default_count = match paging {
        Paging::Page { .. } => CountMode::Exact,
        Paging::Cursor { .. } => CountMode::None,
    };
    let count = match parameters.single("count")? {
        None => default_count,
        Some("exact") => CountMode::Exact,
        Some("none") => CountMode::None,
        Some(_) => return Err(Error::parameter("count", "count is exact or none.").with_allowed(["exact", "none"])),
    };
    let highlight = parameters.flag("highlight")? && search.is_some();
    Ok(Query { selection: Selection { filter, search }, sort, paging, count, fields, include, highlight })
}

/// Parses the query string of statistics: the counted fields, sorted, and the filter.
pub(super) fn parse_stats(collection: &Collection, raw: &str) -> Result<(Vec<String>, Option<Filter>)> {
    let parameters = Parameters::parse(raw)?;
    let by = parameters.names("by", || collection.term_fields())?;
    let filter = read_filter(collection, &parameters, &["by", "filter"])?;
    Ok((by.unwrap_or_default(), filter))
}

/// The text that tells the request `raw` for a list from requests with other answers; equal requests have the same.
pub fn canonical_query(collection: &Collection, raw: &str) -> Result<String> {
    parse_list(collection, raw).map(|query| list_key(&query))
}

/// Whether a list of `collection` can be asked for by `raw`.
pub fn check_list(collection: &Collection, raw: &str) -> Result<()> {
    parse_list(collection, raw).map(|_| ())
}

/// The canonical text of a whole query.
pub(super) fn list_key(query: &Query) -> String {
    let paging = match &query.paging {
        Paging::Page { page, limit } => json!([page, limit]),
        Paging::Cursor { after, limit } => {
            let after =
                after.as_ref().map(|values| values.iter().map(|value| value.as_ref().map(Scalar::to_json)).collect::<Vec<_>>());
            json!({"after": after, "limit": limit})
        }
    };
    let count = matches!(query.count, CountMode::Exact);
    let sort = cursor::sort_text(&query.sort);
    json!([selection_json(&query.selection), sort, paging, count, query.fields, query.include, query.highlight]).to_string()
}

/// The canonical text of what a count depends on.
pub(super) fn selection_key(selection: &Selection) -> String {
    selection_json(selection).to_string()
}

/// The canonical text of statistics.
pub(super) fn stats_key(by: &[String], filter: Option<&Filter>) -> String {
    json!([by, filter.map(Filter::to_json)]).to_string()
}

fn selection_json(selection: &Selection) -> Value {
    let search = selection.search.as_ref().map(|search| {
        let terms = |terms: &[SearchTerm]| terms.iter().map(|term| json!([term.words, term.prefix])).collect::<Vec<_>>();
        search.clauses.iter().map(|clause| json!([terms(&clause.required), terms(&clause.excluded)])).collect::<Vec<_>>()
    });
    json!([selection.filter.as_ref().map(Filter::to_json), search])
}

fn decode(text: &str) -> Result<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(Cow::Owned(decoded.into_owned())),
        Err(_) => Err(Error::bad_request("invalid_encoding", "The query string is not valid UTF-8 after percent-decoding.")),
    }
}

fn read_search(collection: &Collection, parameters: &Parameters<'_>) -> Result<Option<SearchExpression>> {
    let prefix = parameters.flag("prefix")?;
    match parameters.single("q")? {
        None | Some("") => Ok(None),
        Some(_) if collection.search.is_empty() => {
            Err(Error::parameter("q", format!("{} declares no search fields, so it cannot be searched.", collection.name)))
        }
        Some(text) => SearchExpression::parse(text, prefix).map(Some),
    }
}

/// Reads `filter={…}`, `filter[field][operator]=…` and `field=value`; every other parameter must be in `known`.
fn read_filter(collection: &Collection, parameters: &Parameters<'_>, known: &[&str]) -> Result<Option<Filter>> {
    let mut parts = Vec::new();
    for (name, value) in &parameters.0 {
        let part = match name.as_ref() {
            "filter" => {
                let json = serde_json::from_str(value)
                    .map_err(|error| Error::parameter("filter", format!("filter is not JSON: {error}.")))?;
                Filter::from_json(collection, &json)?
            }
            name if known.contains(&name) => continue,
            name => match bracketed(name) {
                Some((field, operator)) => Filter::from_operator(collection, field, operator, Operand::Text(value)),
                None if collection.fields.contains_key(name) => read_equality(collection, parameters, name, value),
                None => return Err(unknown_parameter(collection, name, known)),
            }
            .map_err(|error| error.with_parameter(name))?,
        };
        parts.push(part);
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let filter = Filter::all(parts);
    filter.check_indexes(collection).map_err(|error| {
        // The parameter that names the field, if one does: the client did not write `filter=`.
        let at_fault = filter.unindexed_field(collection).and_then(|field| {
            let names = parameters.iter().map(|(name, _)| name);
            names.into_iter().find(|name| bracketed(name).map_or(*name, |(named, _)| named) == field)
        });
        match at_fault {
            Some(name) => error.with_parameter(name),
            None => error,
        }
    })?;
    Ok((filter != Filter::All(Vec::new())).then_some(filter))
}

/// `tags=a&tags=b` asks for both elements; a scalar cannot have two values.
fn read_equality(collection: &Collection, parameters: &Parameters<'_>, name: &str, value: &str) -> Result<Filter> {
    if collection.fields.get(name).is_some_and(|field| !field.array) {
        parameters.single(name).map_err(|_| {
            Error::parameter(name, format!("{name} is given more than once; filter[{name}][in]=a,b asks for either."))
        })?;
    }
    Filter::from_operator(collection, name, "eq", Operand::Text(value))
}

/// Splits `filter[field][operator]`.
fn bracketed(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("filter[")?.strip_suffix(']')?.split_once("][")
}

fn unknown_parameter(collection: &Collection, name: &str, known: &[&str]) -> Error {
    let fields = collection.leading_fields();
    if name.starts_with("filter[") {
        return Error::parameter(name, "A filter is written filter[field][operator]=value.").with_allowed(fields);
    }
    Error::parameter(name, format!("{name:?} is neither a parameter nor an indexed field of {}.", collection.name))
        .with_allowed(known.iter().copied().chain(fields))
}

fn read_sort(
    collection: &Collection,
    parameters: &Parameters<'_>,
    filter: Option<&Filter>,
    searches: bool,
) -> Result<Vec<SortKey>> {
    let Some(text) = parameters.single("sort")? else {
        return Ok(if searches { Vec::new() } else { collection.sort.clone() });
    };
    let equal: Vec<_> = filter.map(Filter::required_terms).unwrap_or_default();
    let equal: BTreeSet<&str> = equal.iter().map(|term| term.field.as_str()).collect();
    let mut keys: Vec<SortKey> = Vec::new();
    for member in text.split(',') {
        let (name, direction) = match member.strip_prefix('-') {
            Some(name) => (name, Direction::Descending),
            None => (member, Direction::Ascending),
        };
        let sortable = collection.fields.get(name).is_some_and(|field| !field.array) && collection.is_filterable(name, &equal);
        if !sortable {
            let scalar = |name: &&str| collection.fields.get(*name).is_some_and(|field| !field.array);
            return Err(Error::parameter("sort", format!("{name:?} is not an indexed scalar field of {}.", collection.name))
                .with_allowed(collection.leading_fields().into_iter().filter(scalar)));
        }
        // A second key of the same field, and any key after the unique id, changes nothing.
        let decided = keys.iter().any(|key| key.field == name || key.field == collection.id_field());
        if !decided {
            keys.push(SortKey { field: name.to_owned(), direction });
        }
    }
    // Ties are broken by the id, going up, in any case.
    let by_id = |key: &SortKey| key.field == collection.id_field() && key.direction == Direction::Ascending;
    if keys.len() > 1 && keys.last().is_some_and(by_id) {
        keys.pop();
    }
    Ok(keys)
}

fn read_paging(collection: &Collection, parameters: &Parameters<'_>, sort: &[SortKey]) -> Result<Paging> {
    let limit = match parameters.single("limit")? {
        None => DEFAULT_LIMIT,
        Some(text) => read_limit(text)?,
    };
    let page = parameters.single("page")?;
    match (parameters.single("cursor")?, page) {
        (Some(_), Some(_)) => Err(Error::parameter("cursor", "cursor and page exclude each other.")),
        (Some(_), None) if sort.is_empty() => {
            Err(Error::parameter("cursor", "A search by rank has no cursor; give a sort as well."))
        }
        (Some(""), None) => Ok(Paging::Cursor { after: None, limit }),
        (Some(text), None) => Ok(Paging::Cursor { after: Some(cursor::decode(collection, sort, text)?), limit }),
        (None, page) => {
            let page = page.map_or(Ok(1), str::parse::<u64>).unwrap_or(0);
            let last = MAX_OFFSET / u64::from(limit) + 1;
            if (1..=last).contains(&page) {
                Ok(Paging::Page { page, limit })
            } else {
                let detail = format!("page is a whole number from 1 to {last} at this limit; cursor= goes through longer lists.");
                Err(Error::parameter("page", detail))
            }
        }
    }
}

fn read_limit(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(0) => {}
        Ok(limit) => return Ok(limit.min(MAX_LIMIT)),
        Err(_) if digits => return Ok(MAX_LIMIT),
        Err(_) => {}
    }
    Err(Error::parameter("limit", format!("limit is a whole number from 1; more than {MAX_LIMIT} is {MAX_LIMIT}.")))
}

#[cfg(test)]
mod tests;
