//! References between records, held to within a writing transaction: what is referred to exists, and nothing that is deleted is
//! still referred to.

use std::collections::{BTreeMap, HashMap, HashSet};

use diesel::prelude::QueryableByName;
use diesel::sql_types::{BigInt, Text};

use super::connection::Connection;
use super::contract::{Among, Owner, ReferenceCheck, Referrer, Told, WritePlan};
use super::dialect::{Dialect, is_in, is_safe_name};
use super::failure::Failure;
use super::filter::push_owner;
use super::statement::Statement;
use super::write::deleted;
use crate::error::{Error, Result, Violation};
use crate::model::{CollectionName, Field, ScalarType};

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = Text)]
    id: String,
}

#[derive(QueryableByName)]
struct ReferrerRow {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = BigInt)]
    records: i64,
}

/// One statement for each collection that is referred to, and each owner whose records count. What does not count is told like
/// what there is not.
pub(super) async fn check_references(connection: &mut Connection<'_>, checks: &[ReferenceCheck]) -> Result<(), Failure> {
    let mut wanted: BTreeMap<(&CollectionName, &Among), Vec<&str>> = BTreeMap::new();
    for check in checks {
        wanted.entry((&check.collection, &check.among)).or_default().push(&check.id);
    }
    let mut present: HashSet<((&CollectionName, &Among), String)> = HashSet::new();
    for ((collection, among), ids) in wanted {
        let owner = match among {
            Among::All => None,
            Among::Of(owner) => Some(owner),
            Among::Nothing => continue,
        };
        let rows: Vec<IdRow> = connection.load(reference_statement(connection.dialect(), collection, &ids, owner)?).await?;
        present.extend(rows.into_iter().map(|row| ((collection, among), row.id)));
    }
    let missing = checks.iter().filter(|check| !present.contains(&((&check.collection, &check.among), check.id.clone())));
    let violations: Vec<Violation> = missing
        .map(|check| {
            let detail = format!("There is no record {:?} in {}.", check.id, check.collection);
            Violation::new(&check.pointer, "unknown_reference", detail)
        })
        .collect();
    if violations.is_empty() { Ok(()) } else { Err(Error::invalid(violations).into()) }
}

/// Those of `ids` that there are. They cannot be deleted before this transaction ends; and whoever has deleted one and
/// not yet committed is waited for.
pub(super) fn reference_statement(
    dialect: &dyn Dialect,
    collection: &CollectionName,
    ids: &[&str],
    owner: Option<&Owner>,
) -> Result<Statement> {
    let mut statement = Statement::new(format!(
        "SELECT records.id FROM {} WHERE {} AND records.id",
        dialect.table(collection, "records"),
        is_in(collection, "records")
    ));
    dialect.push_in_texts(&mut statement, ids);
    push_owner(&mut statement, dialect, owner)?;
    statement.sql(" ORDER BY records.id").sql(dialect.lock_to_refer());
    Ok(statement)
}

/// One statement for each field that may hold a deleted id. It runs after the deletions, so records that refer to each
/// other can be deleted together.
pub(super) async fn check_referrers(connection: &mut Connection<'_>, plan: &WritePlan) -> Result<(), Failure> {
    let pointers: HashMap<&str, &str> = deleted(plan).map(|write| (write.id.as_str(), write.pointer.as_str())).collect();
    let ids: Vec<&str> = deleted(plan).map(|write| write.id.as_str()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let mut violations = Vec::new();
    let mut vaguely: BTreeMap<String, &str> = BTreeMap::new();
    for referrer in &plan.referrers {
        let rows: Vec<ReferrerRow> = connection.load(referrer_statement(connection.dialect(), referrer, &ids)?).await?;
        for row in rows {
            let pointer = pointers.get(row.id.as_str()).copied().unwrap_or_default();
            let Referrer { collection, field, told } = referrer;
            match told {
                Told::Exactly => {
                    let count = match row.records {
                        1 => "1 record".to_owned(),
                        several => format!("{several} records"),
                    };
                    let detail = format!("{:?} is still referred to by {count} of {collection}, in {field}.", row.id);
                    violations.push(Violation::new(pointer, "referenced", detail));
                }
                Told::Vaguely => _ = vaguely.insert(row.id, pointer),
            }
        }
    }
    let vague =
        vaguely.into_iter().map(|(id, pointer)| Violation::new(pointer, "referenced", format!("{id:?} is still referred to.")));
    violations.extend(vague);
    if violations.is_empty() {
        return Ok(());
    }
    let detail = "Records that others refer to cannot be deleted.";
    Err(Error::conflict("referenced", detail).with_violations(violations).into())
}

pub(super) fn referrer_statement(dialect: &dyn Dialect, referrer: &Referrer, ids: &[&str]) -> Result<Statement> {
    let Referrer { collection, field, .. } = referrer;
    if !is_safe_name(field) {
        return Err(Error::internal(format!("the field {field:?} of {collection} cannot stand in SQL")));
    }
    let value = dialect.value("records.", field, Field { scalar: ScalarType::Text, array: false });
    let mut statement = Statement::new(format!(
        "SELECT {value} AS id, count(*) AS records FROM {} WHERE {} AND {value}",
        dialect.table(collection, "records"),
        is_in(collection, "records")
    ));
    dialect.push_in_texts(&mut statement, ids);
    statement.sql(" GROUP BY 1 ORDER BY 1");
    Ok(statement)
}
