//! Full-text search, its ranking, and where it matched.

use proptest::prelude::*;

use super::*;

async fn filled() -> Fixture {
    let fixture = fresh().await;
    let documents = [
        json!({"key": "a", "name": "Open connections", "note": "How many connections are open to aspnetcore.rate_limiting"}),
        json!({"key": "b", "name": "Requests", "note": "Rate of requests on open connection, deprecated", "category": "x"}),
        json!({"key": "c", "name": "Café <script>alert(1)</script>", "note": null}),
        json!({"key": "d", "note": "latency & <mark>mark</mark> \u{2} running", "category": "x"}),
    ];
    put(&fixture.store, &fixture.items, &documents).await;
    fixture
}

#[tokio::test]
async fn words_phrases_exclusions_alternatives_stems_and_accents_are_found() {
    let Fixture { store, items, directory: _directory, .. } = filled().await;
    let cases = [
        ("connection", "ab"),
        ("connection open", "ab"),
        ("\"open connections\"", "ab"),
        ("\"connections open\"", ""),
        ("connection -deprecated", "a"),
        ("connection -\"open connection\"", ""),
        ("latency or cafe", "cd"),
        ("CAFÉ", "c"),
        ("run", "d"),
        ("aspnetcore.rate_limiting", "a"),
        ("rate_limiting", "a"),
        ("limiting_rate", ""),
        ("limit", "a"),
        ("the", ""),
        ("script", "c"),
    ];
    for (words, expected) in cases {
        let mut query = searching(words);
        let mut found = keys(&store, &items, &query).await;
        found.sort();
        assert_eq!(found.concat(), expected, "{words}");
        assert_eq!(store.record_count(&items, &query.selection).await.unwrap(), expected.len() as u64, "{words}");
        query.sort = vec![down("key")];
        let reversed: String = expected.chars().rev().collect();
        assert_eq!(keys(&store, &items, &query).await.concat(), reversed, "{words}");
    }
    let mut prefix = searching("x");
    prefix.selection.search = Some(SearchExpression::parse("open conn", true).unwrap());
    assert_eq!(keys(&store, &items, &prefix).await.len(), 2);
    let mut filtered = searching("connection");
    filtered.selection.filter = Some(Filter::test("category", Test::Eq(text("x"))));
    assert_eq!(keys(&store, &items, &filtered).await, ["b"]);
}

#[tokio::test]
async fn a_match_in_a_weightier_field_comes_first_and_ties_go_by_id() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let documents = [
        json!({"key": "b", "name": "other", "note": "disk"}),
        json!({"key": "z", "name": "disk", "note": "other"}),
        json!({"key": "a", "name": "other", "note": "disk"}),
    ];
    put(&store, &items, &documents).await;
    let mut query = searching("disk");
    assert_eq!(keys(&store, &items, &query).await, ["z", "a", "b"]);
    query.paging = Paging::Cursor { after: None, limit: 2 };
    let rows = store.record_list(&items, &query).await.unwrap();
    let cursor: Vec<Value> = serde_json::from_str(rows[1].cursor.as_deref().unwrap()).unwrap();
    let after = vec![ScalarType::Number.from_json(&cursor[0]), ScalarType::Text.from_json(&cursor[1])];
    query.paging = Paging::Cursor { after: Some(after), limit: 2 };
    assert_eq!(keys(&store, &items, &query).await, ["b"]);
}

#[tokio::test]
async fn search_follows_updates_and_deletions() {
    let Fixture { store, items, directory: _directory, .. } = filled().await;
    put(&store, &items, &[json!({"key": "a", "name": "Closed"})]).await;
    remove(&store, &items, &["b"], vec![]).await.unwrap();
    assert!(keys(&store, &items, &searching("connection")).await.is_empty());
    assert_eq!(keys(&store, &items, &searching("closed")).await, ["a"]);
}

#[tokio::test]
async fn highlights_mark_matches_and_escape_everything_else() {
    let Fixture { store, items, directory: _directory, .. } = filled().await;
    let highlights = |words: &'static str| {
        let (store, items) = (store.clone(), Arc::clone(&items));
        async move {
            let mut query = searching(words);
            query.highlight = true;
            let rows = store.record_list(&items, &query).await.unwrap();
            rows.iter().map(|row| parsed(row)["_highlight"].clone()).collect::<Vec<_>>()
        }
    };
    let script = "Café &lt;<mark>script</mark>&gt;alert(1)&lt;/<mark>script</mark>&gt;";
    assert_eq!(highlights("script").await, [json!({"name": script})]);
    let note = "<mark>latency</mark> &amp; &lt;<mark>mark</mark>&gt;<mark>mark</mark>&lt;/<mark>mark</mark>&gt; \u{2} running";
    assert_eq!(highlights("latency mark").await, [json!({"note": note})]);
    let of_a = highlights("\"open connections\" -deprecated").await;
    assert_eq!(of_a, [json!({"name": "<mark>Open connections</mark>"})]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_search_text_is_a_failure(texts in prop::collection::vec(any::<String>(), 300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let Fixture { store, items, directory: _directory, .. } = filled().await;
            let hostile = ["\"", "*", "NEAR(a b)", "a AND", "name:x", "^a", "{a b}:c", "a\0b", "x\"y", "' OR 1=1 --", "ʼ ͅ", "ⓐ", "ा"];
            for text in hostile.into_iter().map(str::to_owned).chain(texts) {
                for prefix in [false, true] {
                    let Ok(expression) = SearchExpression::parse(&text, prefix) else { continue };
                    let mut query = searching("x");
                    query.selection.search = Some(expression);
                    query.highlight = true;
                    let rows = store.record_list(&items, &query).await;
                    prop_assert!(rows.is_ok(), "{:?}: {:?}", text, rows);
                    prop_assert!(store.record_count(&items, &query.selection).await.is_ok());
                }
            }
            Ok(())
        })?;
    }
}

/// The same documents on both databases, whatever PostgreSQL's parser takes for a host, a number or an address.
#[tokio::test]
async fn punctuation_numbers_scripts_stop_words_and_prefixes_find_the_same_on_both_databases() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let documents = [
        ("a", "a.b.c and foo-bar, or snake_case; written by e-mail@x.y"),
        ("b", "C++ and C# at version 1.5 since 2026-11-21, -7 degrees, 50% of 1,000"),
        ("c", "https://example.com/path/file.html?q=1#top in /usr/local/bin"),
        ("d", "To be or not to be: that is the question"),
        ("e", "Crème brûlée, Ångström, naïve, Łódź, straße, ﬁne"),
        ("f", "мой дом, Москва́, ёлка"),
        ("g", "Ἀθήνα και Αθήνα"),
        ("h", "한국어 검색, 日本語 テスト, 中文"),
        ("i", "connections were running quickly; generalizations relational"),
        ("j", "don't rock'n'roll o\u{2019}neil"),
        ("k", "Ⅷ and ٣"),
        ("l", "हिन्दी में, שָׁלוֹם, مَرْحَبًا"),
        ("m", "мои bar foo case snake"),
        ("n", "a_b zero\u{200b}width soft\u{ad}hyphen"),
    ];
    let documents: Vec<Value> = documents.iter().map(|(key, note)| json!({"key": key, "note": note})).collect();
    put(&store, &items, &documents).await;
    let cases = [
        ("a.b.c", "a"),
        ("b", "an"),
        ("\"a b\"", "an"),
        ("foo-bar", "a"),
        ("bar-foo", "m"),
        ("foo", "am"),
        ("snake_case", "a"),
        ("e-mail@x.y", "a"),
        ("mail", "a"),
        ("C++", "ab"),
        ("c#", "ab"),
        ("1.5", "b"),
        ("\"1 5\"", "b"),
        ("5", "b"),
        ("2026-11-21", "b"),
        ("2026", "b"),
        ("11-21", "b"),
        ("degrees -7", ""),
        ("degrees -8", "b"),
        ("1,000", "b"),
        ("000", "b"),
        ("50%", "b"),
        ("example.com", "c"),
        ("com", "c"),
        ("file.html", "c"),
        ("html", "c"),
        ("usr/local", "c"),
        ("top", "c"),
        ("\"to be or not\"", "d"),
        ("\"not to be\"", "d"),
        ("\"be to\"", ""),
        ("\"the question\"", "d"),
        ("\"a question\"", ""),
        ("question", "d"),
        ("creme", "e"),
        ("BRULEE", "e"),
        ("angstrom", "e"),
        ("naive", "e"),
        ("łódź", "e"),
        ("straße", "e"),
        ("strasse", ""),
        ("fine", ""),
        ("ﬁne", "e"),
        ("мой", "f"),
        ("мои", "m"),
        ("москва", "f"),
        ("МОСКВА", "f"),
        ("елка", ""),
        ("ёлка", "f"),
        ("Αθήνα", "g"),
        ("αθηνα", ""),
        ("한국어", "h"),
        ("日本語", "h"),
        ("日本", ""),
        ("中文", "h"),
        ("connection", "i"),
        ("run", "i"),
        ("generalize", "i"),
        ("general", "i"),
        ("relate", "i"),
        ("don't", "j"),
        ("rock", "j"),
        ("oneil", ""),
        ("neil", "j"),
        ("o'neil", "j"),
        ("ⅷ", "k"),
        ("٣", "k"),
        ("हिन्दी", "l"),
        ("שָׁלוֹם", "l"),
        ("שלום", ""),
        ("מרחבא", ""),
        ("מ", ""),
        ("width", "n"),
        ("a_b", "an"),
    ];
    let prefixes = [
        ("connec", "i"),
        ("runn", ""),
        ("running", "i"),
        ("quick", "i"),
        ("snake_c", "a"),
        ("foo-b", "a"),
        ("2026-1", "b"),
        ("1.", "bc"),
        ("crè", "e"),
        ("мо", "fm"),
        ("한국", "h"),
        ("하", ""),
        ("日本", "h"),
        ("exampl", "c"),
        ("relation", "i"),
        ("question th", "d"),
    ];
    let cases = cases.map(|case| (false, case)).into_iter().chain(prefixes.map(|case| (true, case)));
    let mut wrong = Vec::new();
    for (prefix, (words, expected)) in cases {
        let mut query = searching("x");
        query.selection.search = Some(SearchExpression::parse(words, prefix).unwrap());
        let mut found = keys(&store, &items, &query).await;
        found.sort();
        if found.concat() != expected {
            wrong.push(format!("{words}{}: {} and not {expected}", if prefix { "*" } else { "" }, found.concat()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
