//! Words as PostgreSQL tells them apart, which decides what a change cannot have touched.

use std::collections::HashMap;

use super::schema::Session;
use super::*;
use crate::store::postgres::query_text;

const ROOTS: [&str; 60] = [
    "connect", "relat", "gener", "hop", "hopp", "tann", "fall", "fil", "siz", "fl", "fe", "agr", "cr", "sk", "d", "t", "b",
    "oper", "man", "appl", "happ", "poss", "apolo", "bio", "ra", "play", "say", "ab", "o", "i", "y", "rate", "rat", "controll",
    "sens", "hes", "tri", "digit", "vile", "radic", "feudal", "decis", "call", "form", "electr", "good", "reviv", "allow",
    "infer", "airl", "gyroscop", "adjust", "defens", "irrit", "replac", "depend", "adopt", "commun", "bowdl", "luxuri",
];

const SUFFIXES: [&str; 62] = [
    "", "s", "es", "ed", "ing", "er", "ers", "ly", "at", "bl", "iz", "tt", "ation", "ational", "tional", "ization", "izer",
    "ator", "ness", "fulness", "ousness", "iveness", "alism", "aliti", "ality", "iviti", "biliti", "bility", "able", "abli",
    "ably", "ible", "bly", "logi", "logy", "ement", "ment", "ent", "enci", "ance", "anci", "ism", "ate", "iti", "ous", "ousli",
    "entli", "eli", "alli", "ive", "ize", "icate", "ative", "alize", "iciti", "ical", "ful", "al", "y", "ies", "eed", "sses",
];

fn may_find(search: &SearchExpression, text: &str) -> bool {
    WantedWords::of(search).may_be_in(&Words::of([text]).unwrap())
}

async fn session() -> (Fixture, Session) {
    let fixture = fresh_postgres().await;
    let session = Session::open(&fixture.directory.settings.url).unwrap();
    (fixture, session)
}

/// All that Porter's rules are about, one suffix behind another.
#[tokio::test]
async fn words_have_one_stem_if_they_have_one_in_the_database() {
    let (_fixture, mut session) = session().await;
    let mut by_stem: HashMap<String, (String, SearchExpression)> = HashMap::new();
    let (mut compared, mut last) = (0, None);
    for root in ROOTS {
        let ends = SUFFIXES.iter().flat_map(|one| SUFFIXES.iter().map(move |other| format!("('{root}{one}{other}')")));
        let given = ends.collect::<Vec<_>>().join(", ");
        let rows = session.query(&format!(
            "SELECT word, (tsvector_to_array(terrace_vector(word, 100)))[1] FROM (VALUES {given}) AS given (word)"
        ));
        for row in rows.unwrap() {
            let [Some(word), Some(stem)] = row.as_slice() else { panic!("{row:?}") };
            let search = SearchExpression::parse(word, false).unwrap();
            if search.matches_nothing() {
                continue;
            }
            let (first, first_search) = by_stem.entry(stem.clone()).or_insert_with(|| (word.clone(), search.clone()));
            assert!(may_find(first_search, word) && may_find(&search, first), "{first} and {word} are {stem}");
            compared += usize::from(first != word);
            if let Some((other, other_stem)) = last.replace((word.clone(), stem.clone())) {
                assert!(other_stem == *stem || !may_find(&search, &other), "{word} is {stem}, and {other} is {other_stem}");
            }
        }
    }
    assert!(compared > 50_000, "{compared}");
}

/// Whatever the database finds may be found, however letters, digits and all else follow each other.
#[tokio::test]
async fn what_the_database_finds_is_never_ruled_out() {
    let (_fixture, mut session) = session().await;
    let mut random = fastrand::Rng::with_seed(20);
    let parts =
        ["a", "e", "E5", "1e5", "v2", "run", "RUNNING", "open", "x1y2", "3d", "-7", "1.5", "7", "beta", "0x1f", "or", "io"];
    let between = ["", "", " ", "-", "_", ".", "/", "'", "@", "+", ",", "&amp;", "://", "<b>", "\\"];
    let mut found = 0;
    for _ in 0..40 {
        let cases: Vec<(String, String, bool)> = (0..100)
            .map(|_| {
                let mut text = |parts_of: usize| {
                    let pieces =
                        (0..parts_of).map(|_| format!("{}{}", random.choice(parts).unwrap(), random.choice(between).unwrap()));
                    pieces.collect::<String>()
                };
                (text(5), text(1), random.bool())
            })
            .collect();
        for (text, asked, prefix) in cases {
            let length = if prefix { random.usize(1..=asked.len()) } else { asked.len() };
            let asked: String = asked.chars().take(length).collect();
            let Ok(search) = SearchExpression::parse(&asked, prefix) else { continue };
            let query = query_text(&search).replace('\'', "''");
            let quoted = text.replace('\'', "''");
            let sql = format!("SELECT terrace_vector('{quoted}', 1000) @@ terrace_query('{query}')");
            let rows = if search.matches_nothing() { continue } else { session.query(&sql).unwrap() };
            if rows[0][0].as_deref() == Some("t") {
                found += 1;
                assert!(may_find(&search, &text), "{asked:?} (prefix: {prefix}) is in {text:?}");
            }
        }
    }
    assert!(found > 300, "{found}");
}
