//! Spelling a request as clients do, in one of the many ways that mean the same.

use serde_json::{Value, json};

use super::naive::{Plain, Request, Test};

/// Spells a request, in one of the ways that mean the same.
pub(super) struct Speller(pub(super) fastrand::Rng);

impl Speller {
    pub(super) fn spell(&mut self, request: &Request) -> String {
        let mut parameters = Vec::new();
        for test in &request.tests {
            for _ in 0..=usize::from(self.0.u8(..4) == 0) {
                parameters.push(self.test(test, &parameters));
            }
        }
        if !request.either.is_empty() {
            let mut parts: Vec<Value> = request.either.iter().map(|test| self.json_test(test)).collect();
            parts.extend(self.0.bool().then(|| self.json_test(&request.either[0])));
            self.0.shuffle(&mut parts);
            parameters.push(("filter".to_owned(), json!({"or": parts}).to_string()));
        }
        if !request.words.is_empty() {
            parameters.push(("q".to_owned(), request.words.join(if self.0.bool() { " " } else { "  " })));
        }
        if let Some(sort) = &request.sort {
            let mut keys: Vec<String> =
                sort.iter().map(|(field, descending)| format!("{}{field}", if *descending { "-" } else { "" })).collect();
            keys.extend(self.0.bool().then(|| sort[0].0.to_owned()));
            parameters.push(("sort".to_owned(), keys.join(",")));
        } else if request.words.is_empty() && self.0.bool() {
            parameters.push(("sort".to_owned(), "-tier".to_owned()));
        }
        if !request.fields.is_empty() {
            let mut fields = request.fields.clone();
            self.0.shuffle(&mut fields);
            parameters.push(("fields".to_owned(), fields.join(",")));
        }
        if request.include {
            parameters.push(("include".to_owned(), "shelf".to_owned()));
        }
        self.simple(request, &mut parameters);
        self.0.shuffle(&mut parameters);
        let pairs: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{}={}", self.escape(name), self.escape(value))).collect();
        pairs.join(if self.0.bool() { "&" } else { "&&" })
    }

    /// Parameters that may be left out at their default.
    fn simple(&mut self, request: &Request, parameters: &mut Vec<(String, String)>) {
        let limit = if request.limit == 100 {
            self.0.choice(["100", "101", "99999999999999"]).unwrap().to_owned()
        } else {
            request.limit.to_string()
        };
        let simple = [
            ("page", request.page.to_string(), request.page == 1),
            ("limit", limit, request.limit == 50),
            ("count", if request.exact { "exact" } else { "none" }.to_owned(), request.exact),
            ("prefix", request.prefix.to_string(), !request.prefix),
            ("highlight", request.highlight.to_string(), !request.highlight),
        ];
        for (name, value, is_default) in simple {
            if !is_default || self.0.bool() {
                parameters.push((name.to_owned(), value));
            }
        }
    }

    fn test(&mut self, test: &Test, before: &[(String, String)]) -> (String, String) {
        let only_once = test.field != "tags" && before.iter().any(|(name, _)| name == test.field);
        match self.0.u8(..3) {
            0 if test.operator == "eq" && !only_once => (test.field.to_owned(), self.text(test.field, &test.values[0])),
            1 => ("filter".to_owned(), self.json_test(test).to_string()),
            _ => {
                let operator = self.operator(test);
                let values: Vec<String> = self.several(test).iter().map(|value| self.text(test.field, value)).collect();
                (format!("filter[{}][{operator}]", test.field), values.join(","))
            }
        }
    }

    fn json_test(&mut self, test: &Test) -> Value {
        let values: Vec<Value> = self.several(test).iter().map(|value| self.json_value(value)).collect();
        match self.operator(test) {
            "eq" if self.0.bool() => json!({ test.field: values[0] }),
            operator @ ("in" | "any" | "all") => json!({ test.field: { operator: values } }),
            operator => json!({ test.field: { operator: values[0] } }),
        }
    }

    fn operator(&mut self, test: &Test) -> &'static str {
        match test.operator {
            "in" if self.0.bool() => "any",
            "eq" if self.0.u8(..4) == 0 => "in",
            operator => operator,
        }
    }

    /// A list in any order, with a repetition now and then.
    fn several(&mut self, test: &Test) -> Vec<Plain> {
        let mut values = test.values.clone();
        if matches!(test.operator, "in" | "all") {
            values.extend(self.0.bool().then(|| test.values[0].clone()));
            self.0.shuffle(&mut values);
        }
        values
    }

    fn text(&mut self, field: &str, value: &Plain) -> String {
        match value {
            Plain::Flag(flag) => flag.to_string(),
            Plain::Text(text) => (*text).to_owned(),
            Plain::Number(number) if field == "tier" => {
                self.0.choice([format!("{number}"), format!("0{number}"), format!("+{number}")]).unwrap()
            }
            Plain::Number(number) => self.0.choice([format!("{number}"), format!("{number:.3}"), format!("{number:e}")]).unwrap(),
        }
    }

    fn json_value(&mut self, value: &Plain) -> Value {
        match value {
            Plain::Flag(flag) => json!(flag),
            Plain::Text(text) => json!(text),
            Plain::Number(number) if number.fract() == 0.0 && self.0.bool() => json!(*number as i64),
            Plain::Number(number) => json!(number),
        }
    }

    fn escape(&mut self, text: &str) -> String {
        let mut escaped = String::new();
        for byte in text.bytes() {
            match byte {
                b' ' if self.0.bool() => escaped.push('+'),
                b'a'..=b'z' | b'0'..=b'9' | b'[' | b']' | b',' | b'-' | b'.' | b':' | b'"' | b'{' | b'}'
                    if self.0.u8(..8) > 0 =>
                {
                    escaped.push(char::from(byte))
                }
                _ if self.0.bool() => escaped.push_str(&format!("%{byte:02X}")),
                _ => escaped.push_str(&format!("%{byte:02x}")),
            }
        }
        escaped
    }
}
