//! Spelling a canonical query as parameters again, for the links of its pages. All spellings of a query share an entry,
//! so its links come from the query and not from the request that loaded it: a client that pads its request with what
//! means nothing would choose the links, and their size, of everybody else.

use serde_json::Value;

use super::cursor;
use super::query::LIST_PARAMETERS;
use crate::model::{Collection, Condition, CountMode, Filter, Paging, Query, Test};

/// Names and values that mean `query`, without its page or cursor. The limit is always there; what else is so by default is not.
pub(super) fn parameters(collection: &Collection, query: &Query) -> Vec<(String, String)> {
    let mut spelt = query.selection.filter.as_ref().map(|filter| filter_parameters(collection, filter)).unwrap_or_default();
    let mut push = |name: &str, value: String| spelt.push((name.to_owned(), value));
    let mut default_sort = collection.sort.as_slice();
    if let Some(search) = &query.selection.search {
        default_sort = &[];
        push("q", search.to_text());
        if search.has_prefix() {
            push("prefix", "true".to_owned());
        }
    }
    if query.highlight {
        push("highlight", "true".to_owned());
    }
    if query.sort != default_sort {
        push("sort", cursor::sort_text(&query.sort));
    }
    if let Some(fields) = &query.fields {
        push("fields", fields.join(","));
    }
    if !query.include.is_empty() {
        push("include", query.include.join(","));
    }
    match (query.count, &query.paging) {
        (CountMode::None, Paging::Page { .. }) => push("count", "none".to_owned()),
        (CountMode::Exact, Paging::Cursor { .. }) => push("count", "exact".to_owned()),
        (CountMode::Exact, Paging::Page { .. }) | (CountMode::None, Paging::Cursor { .. }) => {}
    }
    push("limit", query.paging.limit().to_string());
    spelt
}

/// One parameter for each part that must hold.
fn filter_parameters(collection: &Collection, filter: &Filter) -> Vec<(String, String)> {
    let parts = match filter {
        Filter::All(parts) => parts.as_slice(),
        Filter::Test(_) | Filter::Any(_) => std::slice::from_ref(filter),
    };
    let is_plain = |name: &str| {
        let is_array = collection.fields.get(name).is_some_and(|field| field.array);
        let same = |part: &&Filter| matches!(part, Filter::Test(Condition { field, test: Test::Eq(_) }) if field == name);
        !LIST_PARAMETERS.contains(&name) && (is_array || parts.iter().filter(same).count() == 1)
    };
    let spell = |part: &Filter| {
        let json = || ("filter".to_owned(), part.to_json().to_string());
        let Filter::Test(Condition { field, test }) = part else { return json() };
        let (operator, operand) = test.to_operator();
        let Some(text) = operand_text(&operand) else { return json() };
        // A field may be called like a parameter, and a scalar is given once.
        if operator == "eq" && is_plain(field) { (field.clone(), text) } else { (format!("filter[{field}][{operator}]"), text) }
    };
    parts.iter().map(spell).collect()
}

/// The operand as a URL spells it; `None` for a list in which a comma is part of a value.
fn operand_text(operand: &Value) -> Option<String> {
    match operand {
        Value::String(text) => Some(text.clone()),
        Value::Array(values) => {
            let texts: Vec<String> = values.iter().map(operand_text).collect::<Option<_>>()?;
            (!texts.iter().any(|text| text.contains(','))).then(|| texts.join(","))
        }
        scalar => Some(scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::query::parse_list;
    use super::*;
    use crate::model::{
        Access, CacheTimes, CollectionName, Direction, Field, IdRule, Index, ScalarType, SearchField, SearchWeight, SortKey,
    };

    fn collection() -> Collection {
        let field = |scalar, array| Field { scalar, array };
        let fields = [
            ("id", field(ScalarType::Text, false)),
            ("kind", field(ScalarType::Text, false)),
            ("tier", field(ScalarType::Integer, false)),
            ("price", field(ScalarType::Number, false)),
            ("page", field(ScalarType::Text, false)),
            ("tags", field(ScalarType::Text, true)),
            ("done", field(ScalarType::Boolean, false)),
            ("updated_at", field(ScalarType::Timestamp, false)),
        ];
        let index = |names: &[&str]| Index { fields: names.iter().map(|name| (*name).to_owned()).collect() };
        let hour = std::time::Duration::from_secs(3600);
        Collection {
            name: CollectionName::parse("things").unwrap(),
            description: None,
            path: "/things".to_owned(),
            id: IdRule::Generated,
            fields: fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect(),
            sort: vec![SortKey { field: "updated_at".to_owned(), direction: Direction::Descending }],
            indexes: vec![index(&["kind", "tier"]), index(&["price"]), index(&["page"]), index(&["tags"]), index(&["done"])],
            search: vec![SearchField { field: "kind".to_owned(), weight: SearchWeight::A }],
            cache: CacheTimes {
                record_ttl: hour,
                list_ttl: hour,
                negative_ttl: hour,
                stale_if_error: hour,
                max_lag: std::time::Duration::ZERO,
            },
            warm: crate::model::WarmPlan::default(),
            access: Access::PUBLIC,
            limits: Default::default(),
            redact: Vec::new(),
            references: [("kind".to_owned(), CollectionName::parse("kinds").unwrap())].into(),
            schema: json!({"properties": {"kind": {}, "note": {}}}),
        }
    }

    fn spelt(raw: &str) -> String {
        let parameters = parameters(&collection(), &parse_list(&collection(), raw).unwrap());
        form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
    }

    #[test]
    fn what_is_spelt_means_the_query() {
        for raw in [
            "",
            "kind=a",
            "kind=a,b&tier=2",
            "kind=a&filter[tier][gte]=2&filter[tier][lt]=9&sort=-tier,price",
            "kind=a&filter={\"tier\":{\"gte\":2}}",
            "filter[kind][in]=a,b&filter[price][ne]=-1.5e300",
            "filter={\"kind\":{\"in\":[\"a,b\",\"c\"]}}",
            "filter={\"kind\":{\"eq\":\"a\"},\"or\":[{\"price\":1},{\"done\":true},{\"and\":[{\"price\":2},{\"tags\":\"x\"}]}]}",
            "filter[price][eq]=1&filter[price][eq]=2",
            "filter={\"or\":[]}",
            "tags=a&tags=b&filter[tags][all]=c,d&filter[tags][any]=,e",
            "filter[page][eq]=7&done=false&filter[kind][null]=true",
            "filter[updated_at][gte]=2026-01-31T09:30:00%2B01:00",
            "q=open+connections+-old+or+late+%22at+night%22+-%22a+b%22",
            "q=the&prefix=true",
            "q=rate+op&prefix=true&highlight=true&sort=-price",
            "q=x+-b+or+c+d+rat&prefix=true",
            "q=%22or%22&prefix=true",
            "q=x+-or",
            "q=%C4%B0stanbul+cafe%CC%81s",
            "q=the",
            "limit=7&count=none&fields=note,kind&include=kind",
            "cursor=&count=exact&sort=price",
            "cursor=",
        ] {
            let query = parse_list(&collection(), raw).unwrap();
            let paging = if raw.contains("cursor=") { "cursor=&" } else { "" };
            let again = format!("{paging}{}", spelt(raw));
            assert_eq!(parse_list(&collection(), &again).unwrap(), query, "{raw} as {again}");
        }
    }

    #[test]
    fn padding_is_not_spelt() {
        let padding = format!("limit=00050&prefix=true&q=&fields=note{}&filter={{\"and\":[{{}}]}}", ",".repeat(2000));
        assert_eq!(spelt(&padding), "fields=note&limit=50");
        assert_eq!(
            spelt(&format!("kind=a&filter={{{}\"kind\":\"a\"}}&sort=-updated_at&page=1", " ".repeat(2000))),
            "kind=a&limit=50"
        );
        assert_eq!(
            (spelt("sort=-updated_at,id"), spelt("sort=-price,id,kind")),
            ("limit=50".to_owned(), "sort=-price&limit=50".to_owned())
        );
    }
}
