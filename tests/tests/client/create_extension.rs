//! Where the extension can be created and where it refuses, and that it leaves nothing behind.

use postgres::Client;
use tidemark_tests::cluster::{self, explain, sqlstate};

/// Tries CREATE EXTENSION; what it was refused with, or an empty text.
fn refusal(client: &mut Client) -> String {
    client.batch_execute("CREATE EXTENSION tidemark").map_or_else(|error| explain(&error), |()| String::new())
}

#[test]
fn a_database_in_another_encoding_is_refused() {
    let cluster = cluster::shared();
    for encoding in ["LATIN1", "SQL_ASCII", "EUC_JP"] {
        let name = format!("encoded_{}", encoding.to_lowercase());
        let create = format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        );
        cluster.connect("postgres").batch_execute(&create).unwrap();
        let mut client = cluster.connect(&name);
        let said = refusal(&mut client);
        assert!(said.starts_with("ERROR 0A000") && said.contains(encoding), "{encoding}: {said}");
        drop(client);
        cluster.connect("postgres").batch_execute(&format!("DROP DATABASE {name}")).unwrap();
    }
}

#[test]
fn a_schema_that_somebody_made_before_is_refused() {
    for schema in ["tidemark", "tidemark_internal"] {
        let database = cluster::shared().empty_database();
        let mut client = database.connect();
        let squat = format!(
            "CREATE ROLE {0}_squatter; GRANT CREATE ON DATABASE {1} TO {0}_squatter; SET ROLE {0}_squatter;
             CREATE SCHEMA {0}; CREATE FUNCTION {0}.create_partitions(text, date) RETURNS void LANGUAGE sql AS '';
             RESET ROLE",
            schema, database.name
        );
        client.batch_execute(&squat).unwrap();
        assert_eq!(refusal(&mut client), format!("ERROR 42P06: schema {schema} exists already"));
        client
            .batch_execute(&format!("DROP OWNED BY {schema}_squatter; DROP ROLE {schema}_squatter"))
            .unwrap();
        assert_eq!(refusal(&mut client), "");
    }
}

#[test]
fn nobody_else_makes_anything_in_its_schemas() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE EXTENSION tidemark; CREATE ROLE extension_stranger; SET ROLE extension_stranger",
        )
        .unwrap();
    for schema in ["tidemark", "tidemark_internal"] {
        for statement in [
            format!("CREATE TABLE {schema}.t (a integer)"),
            format!("CREATE FUNCTION {schema}.f() RETURNS integer LANGUAGE sql AS 'SELECT 1'"),
            format!("CREATE OPERATOR {schema}.= (FUNCTION = int4eq, LEFTARG = integer, RIGHTARG = integer)"),
            format!("CREATE TYPE {schema}.t AS (a integer)"),
        ] {
            assert_eq!(sqlstate(client.batch_execute(&statement)), "42501", "{statement}");
        }
    }
    client.batch_execute("RESET ROLE; DROP ROLE extension_stranger").unwrap();
}

#[test]
fn dropping_it_leaves_nothing_behind() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    let objects = "SELECT classid::regclass, objid FROM pg_depend WHERE refclassid <> 0 AND objid >= 16384
                    UNION SELECT 'pg_namespace'::regclass, oid FROM pg_namespace WHERE oid >= 16384 ORDER BY 1, 2";
    let before = database.rows(objects);
    client.batch_execute("CREATE EXTENSION tidemark").unwrap();
    assert!(database.rows(objects).len() > before.len() + 100);
    client.batch_execute("DROP EXTENSION tidemark").unwrap();
    assert_eq!(database.rows(objects), before);
    assert_eq!(refusal(&mut client), "", "it can be made again");
}
