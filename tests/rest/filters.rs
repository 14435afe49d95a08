//! Every operator over every type of field, in both spellings, against what a reader of the records would say.

use serde_json::{Value, json};

use crate::support::Server;
use crate::support::fixture::{item, skus};

fn samples() -> Vec<Value> {
    let rows = [
        ("A", "a", json!({"tier": 1, "price": 0.5, "active": true, "tags": ["red", "big"], "codes": [1, 2], "name": "Ähre"})),
        ("B", "a", json!({"tier": 2, "price": 2, "active": false, "tags": ["red"], "codes": [2], "name": "it's, \"quoted\""})),
        ("C", "b", json!({"tier": -3, "price": 2.0, "tags": [], "name": "100%"})),
        ("D", "b", json!({"tier": 9007199254740993_i64, "active": true, "tags": ["big", "blue"], "codes": [3], "name": "a,b"})),
        ("E", "c", json!({"price": 1000.25, "name": "zebra 🦓"})),
    ];
    rows.into_iter()
        .map(|(sku, category, members)| {
            let mut one = item(sku, category);
            one.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            one
        })
        .collect()
}

async fn found(server: &Server, query: &str) -> String {
    let reply = server.get(&format!("/api/items?sort=sku&{query}")).await;
    let page = reply.expect(200);
    let found = skus(&page);
    assert_eq!(page["pagination"]["total"], found.len(), "the count of {query} agrees with its records");
    found.join("")
}

#[tokio::test]
async fn every_operator_selects_what_it_says() {
    let server = Server::fixture();
    server.create_items(samples()).await;
    for (query, expected) in [
        ("category=a", "AB"),
        ("tier=2", "B"),
        ("price=2", "BC"),
        ("price=2.0", "BC"),
        ("active=true", "AD"),
        ("sku=E", "E"),
        ("version=1", "ABCDE"),
        ("tags=red", "AB"),
        ("tags=red&tags=big", "A"),
        ("codes=2", "AB"),
        ("name=a,b", "D"),
        ("name=it%27s,+%22quoted%22", "B"),
        ("name=%C3%84hre", "A"),
        ("name=100%25", "C"),
        ("name=zebra%20%F0%9F%A6%93", "E"),
        ("tier=9007199254740993", "D"),
        ("tier=9007199254740992", ""),
        ("filter[category][eq]=b", "CD"),
        ("filter[category][ne]=a", "CDE"),
        ("filter[tier][ne]=1", "BCDE"),
        ("filter[active][ne]=true", "BCE"),
        ("filter[tier][gt]=1", "BD"),
        ("filter[tier][gte]=1", "ABD"),
        ("filter[tier][lt]=1", "C"),
        ("filter[tier][lte]=1", "AC"),
        ("filter[tier][gt]=-4&filter[tier][lt]=2", "AC"),
        ("filter[price][gt]=0.5", "BCE"),
        ("filter[price][lte]=2", "ABC"),
        ("filter[sku][gte]=C", "CDE"),
        ("filter[category][in]=a,c", "ABE"),
        ("filter[tier][in]=1,2,77", "AB"),
        ("filter[tags][ne]=red", "CDE"),
        ("filter[tags][in]=blue,red", "ABD"),
        ("filter[tags][any]=blue,red", "ABD"),
        ("filter[tags][all]=red,big", "A"),
        ("filter[tags][null]=true", "E"),
        ("filter[tags][null]=false", "ABCD"),
        ("filter[codes][any]=1,3", "AD"),
        ("filter[tier][null]=true", "E"),
        ("filter[active][null]=false", "ABD"),
        ("filter[created_at][gt]=2020-01-01T00:00:00Z", "ABCDE"),
        ("filter[created_at][lt]=2020-01-01T00:00:00%2B02:00", ""),
        ("filter[category][eq]=a&filter[active][eq]=true", "A"),
    ] {
        assert_eq!(found(&server, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn a_json_filter_combines_tests_with_and_and_or() {
    let server = Server::fixture();
    server.create_items(samples()).await;
    for (filter, expected) in [
        (json!({}), "ABCDE"),
        (json!({"category": "a"}), "AB"),
        (json!({"category": {"eq": "a"}, "tier": {"gte": 2}}), "B"),
        (json!({"tier": {"gt": -4, "lt": 2}}), "AC"),
        (json!({"or": [{"category": {"eq": "c"}}, {"tier": {"eq": 1}}]}), "AE"),
        (json!({"or": [{"category": "c"}, {"and": [{"tags": "red"}, {"active": false}]}]}), "BE"),
        (json!({"and": [{"or": [{"tier": 1}, {"tier": 2}]}, {"tags": {"all": ["red", "big"]}}]}), "A"),
        (json!({"tags": {"any": ["blue", "nothing"]}}), "D"),
        (json!({"category": {"in": ["b"]}}), "CD"),
        (json!({"active": {"null": true}}), "CE"),
        (json!({"or": []}), ""),
        (json!({"and": []}), "ABCDE"),
        (json!({"or": [{"or": []}, {"category": "c"}]}), "E"),
        (json!({"name": "a,b"}), "D"),
        (json!({"tier": 2.0}), "B"),
    ] {
        let query =
            format!("filter={}", percent_encoding::utf8_percent_encode(&filter.to_string(), percent_encoding::NON_ALPHANUMERIC));
        assert_eq!(found(&server, &query).await, expected, "{filter}");
        // Together with a plain condition both must hold.
        let both: String = found(&server, &format!("{query}&filter[sku][in]=A,E")).await;
        assert_eq!(both, expected.replace(['B', 'C', 'D'], ""), "{filter}");
    }
}

#[tokio::test]
async fn null_and_missing_are_the_same() {
    let server = Server::with_files(
        &[(
            "things",
            "name = \"things\"\npath = \"/things\"\nid = \"id\"\nindexes = [\"size\"]\n[schema]\nrequired = [\"id\"]\n[schema.properties]\nid = { type = \"string\" }\nsize = { type = [\"integer\", \"null\"] }\n",
        )],
        &[],
        |_| {},
    );
    for record in [json!({"id": "a", "size": 1}), json!({"id": "b", "size": null}), json!({"id": "c"})] {
        server.post("/things", &record).await.expect(201);
    }
    for (query, expected) in [("filter[size][null]=true", "bc"), ("filter[size][null]=false", "a"), ("filter[size][ne]=1", "bc")]
    {
        let page = server.get(&format!("/things?sort=id&{query}")).await.expect(200);
        let ids: String = page["data"].as_array().unwrap().iter().map(|record| record["id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{query}");
    }
}
