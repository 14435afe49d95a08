//! `[access]`: what it says, and each mistake that would give away what a rule hides.

use super::*;
use crate::model::{AccessRule, FieldAccess};

/// A collection with an owner, a salary and a note. `head` stands before its schema, `schema` in it.
fn people(head: &str, schema: &str) -> String {
    format!(
        "name = \"people\"\n{head}\n[schema]\n{schema}\n[schema.properties]\nname = {{ type = \"string\" }}\n\
         owner = {{ type = [\"string\", \"null\"] }}\nsalary = {{ type = \"integer\" }}\nnote = {{ type = \"string\" }}\n\
         tags = {{ type = \"array\", items = {{ type = \"string\" }} }}\nmeta = {{ type = \"object\" }}"
    )
}

fn load(head: &str) -> Arc<Collection> {
    let catalog = Files::new(&[("people.toml", &people(head, ""))]).load().unwrap();
    Arc::clone(&catalog.get(&name("people")).unwrap().collection)
}

#[track_caller]
fn assert_mistakes(head: &str, schema: &str, expected: &[(&str, &str)]) {
    let found = Files::new(&[("people.toml", &people(head, schema))]).mistakes();
    assert_eq!(found.len(), expected.len(), "{head}\n{found:#?}");
    for (found, (key, detail)) in found.iter().zip(expected) {
        let begins = format!("collections/people.toml: {key}: ");
        assert!(found.starts_with(&begins) && found.contains(detail), "{head}\n{found}");
    }
}

#[test]
fn what_is_left_out_is_as_strict_as_what_is_said() {
    assert_eq!(load("").access, Access::PUBLIC);
    assert_eq!(
        load("[access]\nread = \"viewer\"").access,
        Access { read: AccessRule::Viewer, write: AccessRule::Editor, ..Access::PUBLIC }
    );
    let access = load(
        "[access]\nread = \"viewer\"\nwrite = \"editor\"\nchanges = \"editor\"\n[access.fields]\nsalary = { read = \"admin\" }\n\
         note = { write = \"admin\" }\nmeta = { read = \"viewer\" }",
    )
    .access
    .clone();
    let field = |read, write| FieldAccess { read, write };
    assert_eq!((access.read, access.write, access.changes), (AccessRule::Viewer, AccessRule::Editor, AccessRule::Editor));
    assert_eq!(access.fields["salary"], field(AccessRule::Admin, AccessRule::Admin));
    assert_eq!(access.fields["note"], field(AccessRule::Public, AccessRule::Admin));
    assert_eq!(access.fields["meta"], field(AccessRule::Viewer, AccessRule::Editor));
    let owners = "[access]\nwrite = \"owner\"\nowner_field = \"owner\"\n[access.fields]\nsalary = { read = \"editor\" }\nnote = { read = \"public\" }";
    let owned = load(owners).access.clone();
    assert_eq!(owned.fields["salary"], field(AccessRule::Editor, AccessRule::Editor));
    assert_eq!(owned.fields["note"], field(AccessRule::Public, AccessRule::Viewer));
}

#[test]
fn an_owner_field_is_indexed_by_itself() {
    let head = "indexes = [[\"name\", \"owner\"]]\n[access]\nread = \"owner\"\nowner_field = \"owner\"";
    let people = load(head);
    assert_eq!(people.access.write, AccessRule::Owner);
    assert_eq!(people.indexes, [index(&["name", "owner"]), index(&["owner"])]);
    assert_eq!(load("indexes = [\"owner\"]\n[access]\nwrite = \"owner\"\nowner_field = \"owner\"").indexes, [index(&["owner"])]);
}

#[test]
fn rules_do_not_contradict_each_other() {
    assert_mistakes("[access]\nread = \"all\"", "", &[("access.read", "allowed are public, viewer, editor, admin, owner")]);
    assert_mistakes(
        "[access]\ndelete = \"admin\"",
        "",
        &[("access.delete", "allowed are read, write, changes, owner_field, fields")],
    );
    let weaker = "allowed are editor, admin";
    assert_mistakes("[access]\nread = \"editor\"\nwrite = \"viewer\"", "", &[("access.write", weaker)]);
    let owners = "[access]\nread = \"owner\"\nowner_field = \"owner\"\nwrite = \"editor\"";
    assert_mistakes(owners, "", &[("access.write", "allowed are admin, owner")]);
    assert_mistakes("[access]\nread = \"admin\"\nchanges = \"editor\"", "", &[("access.changes", "allowed are admin")]);
    assert_mistakes("[access]\nchanges = \"owner\"", "", &[("access.changes", "allowed are public, viewer, editor, admin")]);
    let owners = "[access]\nread = \"owner\"\nowner_field = \"owner\"\nchanges = \"viewer\"";
    assert_mistakes(owners, "", &[("access.changes", "allowed are admin")]);
    assert!(
        Files::new(&[("people.toml", &people("[access]\nread = \"viewer\"\nwrite = \"owner\"\nowner_field = \"owner\"", ""))])
            .load()
            .is_ok()
    );
}

#[test]
fn an_owner_field_is_a_text_that_is_not_the_id() {
    assert_mistakes(
        "[access]\nread = \"owner\"",
        "",
        &[("access.read", "needs a line owner_field"), ("access.write", "needs a line owner_field")],
    );
    assert_mistakes("[access]\nwrite = \"owner\"", "", &[("access.write", "needs a line owner_field")]);
    assert_mistakes("[access]\nowner_field = \"boss\"", "", &[("access.owner_field", "allowed are name, owner, note")]);
    assert_mistakes("[access]\nowner_field = \"version\"", "", &[("access.owner_field", "allowed are name, owner, note")]);
    assert_mistakes(
        "[access]\nowner_field = \"salary\"",
        "",
        &[("access.owner_field", "only a string, or a string or null, can")],
    );
    assert_mistakes("[access]\nowner_field = \"meta\"", "", &[("access.owner_field", "neither a plain value")]);
    assert_mistakes(
        "id = \"name\"\n[access]\nowner_field = \"name\"",
        "required = [\"name\"]",
        &[("access.owner_field", "allowed are owner, note")],
    );
}

#[test]
fn no_other_part_of_a_file_shows_what_a_field_hides() {
    let salary = "[access.fields]\nsalary = { read = \"admin\" }";
    let note = "[access.fields]\nnote = { read = \"viewer\" }";
    assert_mistakes(
        "[access.fields]\nage = { read = \"admin\" }",
        "",
        &[("access.fields.age", "allowed are name, owner, salary, note, tags, meta")],
    );
    assert_mistakes("[access.fields]\nversion = { read = \"admin\" }", "", &[("access.fields.version", "allowed are name")]);
    assert_mistakes("[access.fields]\nsalary = {}", "", &[("access.fields.salary", "this says nothing")]);
    assert_mistakes(
        "[access.fields]\nsalary = { show = 1 }",
        "",
        &[("access.fields.salary.show", "allowed are read, write"), ("access.fields.salary", "nothing")],
    );
    assert_mistakes("[access.fields]\nsalary = { write = \"owner\" }", "", &[("access.fields.salary.write", "whole records")]);
    assert_mistakes(
        "[access.fields]\nsalary = { read = \"admin\", write = \"editor\" }",
        "",
        &[("access.fields.salary.write", "nobody sets")],
    );
    assert_mistakes(
        &format!("id = \"name\"\n{}", salary.replace("salary", "name")),
        "required = [\"name\"]",
        &[("access.fields.name", "this is the id")],
    );
    let owned = "[access]\nread = \"owner\"\nowner_field = \"owner\"\n[access.fields]\nowner = { read = \"admin\" }";
    assert_mistakes(owned, "", &[("access.fields.owner", "this is the owner_field")]);
    assert_mistakes(&format!("sort = \"-salary\"\n{salary}"), "", &[("access.fields.salary", "this is in sort")]);
    assert_mistakes(&format!("[search]\nnote = \"A\"\n{note}"), "", &[("access.fields.note", "this is in [search]")]);
    assert_mistakes(salary, "required = [\"salary\"]", &[("access.fields.salary", "this is in schema.required")]);
    let locked = "[access.fields]\nsalary = { write = \"admin\" }";
    assert_mistakes(locked, "required = [\"salary\"]", &[("access.fields.salary", "this is in schema.required")]);
    for schema in [
        "if = { properties = { salary = { minimum = 5 } } }\nthen = { required = [\"name\"] }",
        "dependentRequired = { salary = [\"name\"] }",
        "dependentRequired = { name = [\"salary\"] }",
        "not = { required = [\"salary\"] }",
        "anyOf = [{ \"$ref\" = \"#/$defs/paid\" }]\n\"$defs\" = { paid = { required = [\"salary\"] } }",
        "maxProperties = 2",
        "anyOf = [{ minProperties = 2 }]",
    ] {
        let found = Files::new(&[("people.toml", &people(salary, schema))]).mistakes();
        assert!(
            !found.is_empty() && found.iter().all(|found| found.contains("access.fields.salary: schema.")),
            "{schema}\n{found:#?}"
        );
    }
    // Whoever may read the collection at all sees the field, and whoever may create may set it.
    let strict = "sort = \"salary\"\n[search]\nnote = \"A\"\n[access]\nread = \"admin\"\n[access.fields]\nsalary = { read = \"admin\" }\n\
                  note = { read = \"editor\" }";
    let schema = "required = [\"salary\"]\nif = { properties = { salary = { minimum = 5 } } }\nthen = { required = [\"name\"] }";
    assert!(Files::new(&[("people.toml", &people(strict, schema))]).load().is_ok());
}

#[test]
fn a_view_is_as_strict_as_what_it_counts() {
    let head = "indexes = [\"salary\", \"name\"]\n[access.fields]\nsalary = { read = \"editor\" }";
    let open = people(head, "");
    let viewers = people(&format!("[access]\nread = \"viewer\"\n{}", ""), "");
    let owned = people("[access]\nread = \"owner\"\nowner_field = \"owner\"", "");
    let part = "[parts.a]\ncollection = \"people\"";
    for (collection, view, mistake) in [
        (&open, format!("{part}\nby = [\"name\"]"), None),
        (&open, format!("{part}\nby = [\"salary\"]"), Some("parts.a.by: \"salary\" of people may be seen by \"editor\" only")),
        (&open, format!("read = \"viewer\"\n{part}\nfilter = {{ salary = {{ gt = 5 }} }}"), Some("parts.a.filter: \"salary\"")),
        (&open, format!("read = \"editor\"\n{part}\nby = [\"salary\"]\nfilter = {{ salary = 5 }}"), None),
        (&viewers, part.to_owned(), Some("parts.a.collection: people may be read by \"viewer\" only")),
        (&viewers, format!("read = \"viewer\"\n{part}"), None),
        (&owned, format!("read = \"editor\"\n{part}"), Some("parts.a.collection: people may be read by \"owner\" only")),
        (&owned, format!("read = \"admin\"\n{part}"), None),
        (&open, format!("read = \"owner\"\n{part}"), Some("read: a view counts the records of all owners")),
    ] {
        let files = Files::new(&[("people.toml", collection)]).with_view("v.toml", &format!("name = \"v\"\n{view}"));
        match mistake {
            Some(mistake) => {
                let found = files.mistakes();
                assert!(found.len() == 1 && found[0].starts_with(&format!("views/v.toml: {mistake}")), "{view}\n{found:#?}");
            }
            None => assert!(files.load().is_ok(), "{view}"),
        }
    }
}
