//! Files that somebody has damaged: whatever they hold, they load or each mistake is told, with its file.

use proptest::prelude::*;
use proptest::sample::{Index as Place, select};

use super::*;

/// What a line or a value may become.
const VALUES: [&str; 30] = [
    "",
    "\"\"",
    "0",
    "-1",
    "99999999999999999999",
    "1e400",
    "nan",
    "true",
    "[]",
    "{}",
    "[[]]",
    "\"public\"",
    "\"owner\"",
    "\"admin\"",
    "\"-updated_at\"",
    "\"10m\"",
    "\"-1s\"",
    "\"99999999years\"",
    "[\"category\", \"category\"]",
    "[[\"tier\"]]",
    "{ type = \"string\" }",
    "{ \"$ref\" = \"#\" }",
    "{ \"$ref\" = \"https://example.com/x\" }",
    "{ type = 5 }",
    "{ pattern = \"(\" }",
    "{ pattern = \"(a+)+$\" }",
    "\"domains\"",
    "\"../../etc\"",
    "\"/\"",
    "2024-01-31",
];

const LINES: [&str; 14] = [
    "[access]",
    "[schema]",
    "[search]",
    "[references]",
    "[cache.warm]",
    "[access.fields]",
    "id = \"tier\"",
    "path = \"/api\"",
    "name = \"terrace_users\"",
    "sort = \"tier,-tier\"",
    "indexes = 5",
    "owner_field = \"owner\"",
    "[[",
    "\u{0}",
];

/// One way of damaging a text.
#[derive(Clone, Debug)]
enum Damage {
    Drop(Place),
    Double(Place),
    Value(Place, &'static str),
    Line(Place, &'static str),
    Cut(Place),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        1 => any::<Place>().prop_map(Damage::Drop),
        1 => any::<Place>().prop_map(Damage::Double),
        4 => (any::<Place>(), select(&VALUES[..])).prop_map(|(place, value)| Damage::Value(place, value)),
        1 => (any::<Place>(), select(&LINES[..])).prop_map(|(place, line)| Damage::Line(place, line)),
        1 => any::<Place>().prop_map(Damage::Cut),
    ]
}

fn damaged(text: &str, damages: &[Damage]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for damage in damages {
        if lines.is_empty() {
            break;
        }
        match damage {
            Damage::Drop(place) => drop(lines.remove(place.index(lines.len()))),
            Damage::Double(place) => {
                let at = place.index(lines.len());
                lines.insert(at, lines[at].clone());
            }
            Damage::Value(place, value) => {
                let at = place.index(lines.len());
                if let Some((key, _)) = lines[at].split_once('=') {
                    lines[at] = format!("{key}= {value}");
                }
            }
            Damage::Line(place, line) => lines.insert(place.index(lines.len()), (*line).to_owned()),
            Damage::Cut(place) => {
                let at = place.index(lines.len());
                lines[at] = lines[at].chars().take(lines[at].chars().count() / 2).collect();
            }
        }
    }
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_collection_file_loads_or_says_what_is_wrong(damages in prop::collection::vec(damage(), 1..6), noise in "\\PC{0,60}") {
        for text in [damaged(METRICS, &damages), noise] {
            let files = Files::new(&[("metrics.toml", &text), ("domains.toml", DOMAINS)]);
            match files.load() {
                Ok(catalog) => prop_assert!(catalog.collections().len() == 2, "{}", text),
                Err(mistakes) => {
                    prop_assert!(!mistakes.is_empty(), "{}", text);
                    for mistake in mistakes {
                        let told = mistake.to_string();
                        prop_assert!(told.contains(".toml") && !told.contains("panicked"), "{} of {}", told, text);
                    }
                }
            }
        }
    }
}
