//! What keeps the tallies of a collection: two functions of one text and the triggers that call them. Sessions of the server
//! write to the partition itself, so a statement of theirs is tallied as a whole, for a thousand records at little more cost
//! than for one. Everybody else may write by way of the parent, whose statements do not call the triggers of a
//! partition; and what leaves for another partition is no statement there at all. They are tallied row by row, with the
//! rights of the owner.
//!
//! An update is always tallied row by row: most change no tallied value, and cost a comparison. That stands in the function and not
//! in a WHEN, which was measured to cost three times as much: PostgreSQL reads a WHEN from its text in every statement.
//! Nor are a few records counted in groups: building eight groups of one costs more than eight rows.

use super::{Kind, MOST_VALUES, TalliedField, lock, tallied_fields};
use crate::model::Collection;
use crate::store::dialect::{Dialect as _, literal};
use crate::store::postgres::PostgresDialect;
use crate::store::postgres::structure::partition;
use crate::store::structure::{Artifact, Work, named};

/// Statements of fewer records are tallied one by one.
const FEW: usize = 8;
/// PostgreSQL tells 31 grouping columns apart.
const GROUPED_AT_ONCE: usize = 16;
/// What stands for the schema of the tables until the functions are made: no field's name has a quote.
const SCHEMA: &str = "\"terrace schema\"";

/// Everything the tallies of a collection need but the tables.
pub(in crate::store::postgres) fn artifact(collection: &Collection) -> Artifact {
    let tallied = Tallied { collection, fields: tallied_fields(collection) };
    let body = tallied.body();
    let name = named("tally", &collection.name, &body);
    let names: Vec<&str> = tallied.fields.iter().map(|field| field.name).filter(|name| !name.is_empty()).collect();
    Artifact {
        creation: vec![
            Work::Together(tallied.recording(&name, &body)),
            Work::Snapshot { lock: lock(&collection.name), statements: tallied.filling() },
        ],
        removal: tallied.removal(&name),
        description: format!("tallies of {} ({})", collection.name, names.join(", ")),
        name,
        collection: collection.name.clone(),
    }
}

struct Tallied<'c> {
    collection: &'c Collection,
    fields: Vec<TalliedField<'c>>,
}

impl<'c> Tallied<'c> {
    /// Those with one value in each record.
    fn single(&self) -> Vec<TalliedField<'c>> {
        self.fields.iter().copied().filter(|field| !matches!(field.kind, Kind::All | Kind::Array)).collect()
    }

    fn arrays(&self) -> Vec<TalliedField<'c>> {
        self.fields.iter().copied().filter(|field| field.kind == Kind::Array).collect()
    }

    /// Makes functions and triggers, in place of those of another definition: a trigger has one name whatever it does. From
    /// then on every write is recorded, for this locks out the writers of the partition: what they have begun is over by then.
    /// Fields that were complete before go on being so.
    fn recording(&self, name: &str, body: &str) -> String {
        let (literal, table) = (literal(&self.collection.name), partition(&self.collection.name));
        let rows = self.fields.iter().map(|field| field.row()).collect::<Vec<_>>().join(", ");
        let function = |rights: &str, suffix: &str| {
            format!(
                "CREATE OR REPLACE FUNCTION {name}_{suffix}() RETURNS trigger LANGUAGE plpgsql {rights} \
                 AS $terrace_body$ {body} $terrace_body$;"
            )
        };
        let (own, any) = (function("", "own"), function("SECURITY DEFINER SET search_path FROM CURRENT", "any"));
        let triggers = triggers(&table, name);
        let lock = lock(&self.collection.name);
        let not_complete = format!(
            "collection = {literal} AND field NOT IN \
             (SELECT field FROM tallied WHERE collection = {literal} AND state = 'complete')"
        );
        format!(
            "SELECT pg_advisory_xact_lock({lock});\
             DO $terrace_make$ DECLARE former record; had_triggers boolean; BEGIN \
             had_triggers := EXISTS (SELECT FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgname = 'terrace_tally_update');\
             EXECUTE replace($terrace_functions${own} {any}$terrace_functions$, '{SCHEMA}', quote_ident(current_schema()));\
             {triggers}\
             IF NOT had_triggers THEN \
             UPDATE tallied SET state = 'recorded' WHERE collection = {literal} AND state = 'complete'; END IF;\
             FOR former IN SELECT artifacts.name FROM artifacts WHERE collection = {literal} \
             AND starts_with(artifacts.name, 'terrace_tally_') AND artifacts.name <> '{name}' LOOP \
             EXECUTE format('DROP FUNCTION IF EXISTS %I(), %I()', former.name || '_own', former.name || '_any');\
             DELETE FROM artifacts WHERE artifacts.name = former.name; END LOOP;\
             DELETE FROM tallied WHERE collection = {literal} AND state <> 'abandoned' AND (field, kind) NOT IN (VALUES {rows});\
             INSERT INTO tallied (collection, field, kind, state) SELECT {literal}, declared.field, declared.kind, 'recorded' \
             FROM (VALUES {rows}) AS declared (field, kind) ON CONFLICT DO NOTHING;\
             DELETE FROM tallies WHERE {not_complete};\
             DELETE FROM tally_changes WHERE {not_complete};\
             IF NOT EXISTS (SELECT FROM {table}) THEN \
             UPDATE tallied SET state = 'complete' WHERE collection = {literal} AND state = 'recorded'; END IF;\
             END $terrace_make$;"
        )
    }

    /// Counts what was there before: all that one snapshot sees, in place of all that the same snapshot sees of what
    /// was recorded. What commits later has its own rows.
    fn filling(&self) -> String {
        let (literal, table) = (literal(&self.collection.name), partition(&self.collection.name));
        let recorded = format!("SELECT field FROM tallied WHERE collection = {literal} AND state = 'recorded'");
        let counted = self.counted(&table, "1");
        format!(
            "SET LOCAL enable_seqscan = on;\
             DELETE FROM tallies WHERE collection = {literal} AND field IN ({recorded});\
             DELETE FROM tally_changes WHERE collection = {literal} AND field IN ({recorded});\
             INSERT INTO tallies (collection, field, value, records) \
             SELECT {literal}, measured.field, measured.value, measured.records FROM \
             (SELECT counted.*, count(*) OVER (PARTITION BY counted.field) AS distinct_values FROM ({counted}) AS counted \
             WHERE counted.field IN ({recorded})) AS measured WHERE measured.distinct_values <= {MOST_VALUES};\
             UPDATE tallied SET state = CASE WHEN EXISTS (SELECT FROM tallies WHERE tallies.collection = tallied.collection \
             AND tallies.field = tallied.field) OR NOT EXISTS (SELECT FROM {table}) THEN 'complete' ELSE 'abandoned' END \
             WHERE collection = {literal} AND state = 'recorded'"
        )
    }

    /// Usually another definition has taken over its triggers. If not, nothing is recorded any more.
    fn removal(&self, name: &str) -> String {
        format!(
            "DO $terrace_remove$ BEGIN IF EXISTS (SELECT FROM pg_trigger WHERE tgfoid IN \
             (to_regproc('{name}_own'), to_regproc('{name}_any'))) THEN \
             DELETE FROM tallied WHERE collection = {} AND state <> 'abandoned'; END IF;\
             DROP FUNCTION IF EXISTS {name}_own() CASCADE; DROP FUNCTION IF EXISTS {name}_any() CASCADE; END $terrace_remove$",
            literal(&self.collection.name)
        )
    }

    fn body(&self) -> String {
        let (same, changes) = (self.same(), self.changes());
        let (one, another) = (self.one("document", "sign"), self.one("few.data", "sign"));
        let all = format!(
            "{} SELECT {}, counted.* FROM ({}) AS counted WHERE {}",
            self.insertion(),
            literal(&self.collection.name),
            self.counted("written", "sign"),
            self.kept()
        );
        format!(
            "#variable_conflict use_column\n\
             DECLARE few record; document jsonb; sign bigint; BEGIN \
             IF tg_op = 'UPDATE' THEN IF {same} THEN RETURN NULL; END IF; {changes} RETURN NULL; END IF; \
             sign := CASE tg_op WHEN 'DELETE' THEN -1 ELSE 1 END; \
             IF tg_level = 'ROW' THEN \
             IF tg_op = 'DELETE' THEN document := old.data; ELSE document := new.data; END IF; {one}; \
             ELSIF (SELECT count(*) FROM (SELECT FROM written LIMIT {FEW}) AS first) < {FEW} THEN \
             FOR few IN SELECT written.data FROM written LOOP {another}; END LOOP; \
             ELSE {all}; END IF; \
             RETURN NULL; END"
        )
    }

    fn insertion(&self) -> String {
        format!("INSERT INTO {SCHEMA}.tally_changes (collection, field, value, records)")
    }

    /// The condition that the field of `counted` is not abandoned. Who does not see yet that it is, writes rows that the next
    /// summing up removes.
    fn kept(&self) -> String {
        let literal = literal(&self.collection.name);
        let abandoned = format!(
            "SELECT tallied.field FROM {SCHEMA}.tallied WHERE tallied.collection = {literal} AND tallied.state = 'abandoned' \
             AND (tallied.field, tallied.kind) IN ({})",
            self.fields.iter().map(|field| field.row()).collect::<Vec<_>>().join(", ")
        );
        format!("counted.field NOT IN ({abandoned})")
    }

    /// The condition that an update changes no tallied value.
    fn same(&self) -> String {
        let same = |field: &TalliedField<'_>| format!("(old.data -> '{0}') IS NOT DISTINCT FROM (new.data -> '{0}')", field.name);
        let fields = self.fields.iter().filter(|field| field.kind != Kind::All);
        let same: Vec<String> = fields.map(same).collect();
        if same.is_empty() { "true".to_owned() } else { same.join(" AND ") }
    }

    /// One statement for each field that an update changes, which are few. What is taken away and added again, because 1 has become
    /// 1.0, adds up to nothing.
    fn changes(&self) -> String {
        let (insertion, literal) = (self.insertion(), literal(&self.collection.name));
        let change = |field: &TalliedField<'_>| {
            let (name, kind) = (field.name, field.kind.name());
            let values = match field.kind {
                Kind::Array => {
                    let of = |document| elements(document, name);
                    format!(
                        "SELECT value, -1 FROM ({}) AS former UNION ALL SELECT value, 1 FROM ({}) AS present",
                        of("old.data"),
                        of("new.data")
                    )
                }
                Kind::All | Kind::Text | Kind::Number | Kind::Boolean => {
                    let of = |document| as_json(&field.value(document));
                    format!("VALUES ({}, -1), ({}, 1)", of("old.data"), of("new.data"))
                }
            };
            format!(
                "IF (old.data -> '{name}') IS DISTINCT FROM (new.data -> '{name}') THEN {insertion} \
                 SELECT {literal}, '{name}', each.value, each.records FROM ({values}) AS each (value, records) \
                 WHERE NOT EXISTS (SELECT FROM {SCHEMA}.tallied WHERE tallied.collection = {literal} \
                 AND tallied.field = '{name}' AND tallied.kind = '{kind}' AND tallied.state = 'abandoned'); END IF;"
            )
        };
        self.fields.iter().filter(|field| field.kind != Kind::All).map(change).collect()
    }

    /// Records one document.
    fn one(&self, document: &str, sign: &str) -> String {
        let single = self.single();
        let single = single.iter().map(|field| format!(", ('{}', {})", field.name, as_json(&field.value(document))));
        let arrays = self.arrays();
        let arrays = arrays.iter().map(|field| {
            format!(" UNION ALL SELECT '{}', elements.value FROM ({}) AS elements", field.name, elements(document, field.name))
        });
        format!(
            "{} SELECT {}, counted.field, counted.value, {sign} FROM (VALUES ('', 'null'::jsonb){}{}) AS counted (field, value) \
             WHERE {}",
            self.insertion(),
            literal(&self.collection.name),
            single.collect::<String>(),
            arrays.collect::<String>(),
            self.kept(),
        )
    }

    /// A query of `field`, `value` and `records` for all rows of a table of records: one walk through it for many fields.
    fn counted(&self, table: &str, sign: &str) -> String {
        let mut parts = vec![format!(
            "SELECT '' AS field, 'null'::jsonb AS value, {sign} * count(*) AS records FROM {table} AS record HAVING count(*) > 0"
        )];
        parts.extend(self.single().chunks(GROUPED_AT_ONCE).map(|fields| grouped(fields, table, sign)));
        parts.extend(self.arrays().iter().map(|field| {
            format!(
                "SELECT '{}', elements.value, {sign} * count(*) FROM {table} AS record CROSS JOIN LATERAL ({}) AS elements \
                 GROUP BY elements.value",
                field.name,
                elements("record.data", field.name)
            )
        }));
        parts.join(" UNION ALL ")
    }
}

/// Each field in a group of its own. Values are grouped as they are, and only those that there are become JSON.
fn grouped(fields: &[TalliedField<'_>], table: &str, sign: &str) -> String {
    let names: Vec<String> = (0..fields.len()).map(|at| format!("value_{at}")).collect();
    let all = names.join(", ");
    // The bit of a column is 0 where it is grouped by, and the last column has the lowest bit.
    let case = |results: Vec<String>| {
        let full = (1_u32 << fields.len()) - 1;
        let when = |(at, result): (usize, String)| format!(" WHEN {} THEN {result}", full ^ (1 << (fields.len() - 1 - at)));
        format!("CASE grouping({all}){} END", results.into_iter().enumerate().map(when).collect::<String>())
    };
    let field = case(fields.iter().map(|field| format!("'{}'", field.name)).collect());
    let value = case(names.iter().map(|name| format!("to_jsonb({name})")).collect());
    let columns: Vec<String> =
        fields.iter().zip(&names).map(|(field, name)| format!("{} AS {name}", field.value("record.data"))).collect();
    let sets: Vec<String> = names.iter().map(|name| format!("({name})")).collect();
    format!(
        "SELECT {field}, coalesce({value}, 'null'::jsonb), {sign} * count(*) FROM (SELECT {} FROM {table} AS record) AS record \
         GROUP BY GROUPING SETS ({})",
        columns.join(", "),
        sets.join(", ")
    )
}

/// A query of `value`: each different element, as statistics have it, and JSON's null if there is none.
fn elements(document: &str, field: &str) -> String {
    format!(
        "SELECT DISTINCT coalesce(element.value, 'null'::jsonb) AS value FROM (SELECT) AS one LEFT JOIN {}",
        PostgresDialect.elements(document, field)
    )
}

fn as_json(value: &str) -> String {
    format!("coalesce(to_jsonb({value}), 'null'::jsonb)")
}

fn triggers(table: &str, name: &str) -> String {
    let is_server = "current_setting('terrace.writer', true)";
    let statement = |kind: &str, event: &str, rows: &str| {
        format!(
            "CREATE OR REPLACE TRIGGER terrace_tally_{kind} AFTER {event} ON {table} REFERENCING {rows} TABLE AS written \
             FOR EACH STATEMENT WHEN ({is_server} = 'server') EXECUTE FUNCTION {name}_own();"
        )
    };
    let row = |kind: &str, event: &str, operator: &str, suffix: &str| {
        format!(
            "CREATE OR REPLACE TRIGGER terrace_tally_{kind} AFTER {event} ON {table} FOR EACH ROW \
             WHEN ({is_server} {operator} 'server') EXECUTE FUNCTION {name}_{suffix}();"
        )
    };
    [
        statement("insert", "INSERT", "NEW"),
        statement("delete", "DELETE", "OLD"),
        row("update", "UPDATE", "=", "own"),
        row("foreign", "INSERT OR UPDATE OR DELETE", "IS DISTINCT FROM", "any"),
    ]
    .concat()
}
