// What a BI tool sees of a tidemark warehouse through PostgreSQL's JDBC driver: schemas, relations, columns and keys by
// DatabaseMetaData, which asks for no privileges, and the relations that the login may read, as Metabase asks for them.
// Prints the list and ends with 1 when something in it does not belong there or cannot be used. Run by
// scripts/bi-check.sh, with the database in BI_URL; --columns lists every column as well.

import java.net.URI;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;

public class Check {
    /** What to synchronise: the schemas that are there for dashboards. */
    static final Set<String> SYNCED = new TreeSet<>(List.of("gold", "silver"));
    /** The extension's own, whose functions dashboards call. Its bookkeeping is no business of a BI tool. */
    static final String EXTENSION = "tidemark";
    /** Types that BI tools filter, group and chart by, in Postgres' short names. */
    static final Set<String> PLAIN = Set.of("bool", "date", "float4", "float8", "int2", "int4", "int8", "interval", "numeric", "text", "timestamptz", "uuid");
    static final int WIDTH = 100;

    record Column(String name, String type, String says) {}

    record Relation(String name, String kind, String says, String key, List<Column> columns) {}

    static final List<String> wrong = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        String url = System.getenv("BI_URL");
        if (url == null || url.isEmpty()) {
            System.err.println("tidemark: BI_URL is not set\n  what to do: run scripts/bi-check.sh, which sets it");
            System.exit(64);
        }
        try (Connection connection = connect(url)) {
            check(connection, List.of(arguments).contains("--columns"));
        } catch (SQLException e) {
            System.err.println("tidemark: cannot look at the database: " + e.getMessage());
            System.exit(1);
        }
        if (wrong.isEmpty()) {
            System.out.println("nothing is wrong: parents and views only, all with comments and plain types");
            return;
        }
        System.out.println("wrong: " + wrong.size());
        wrong.forEach(line -> System.out.println("  " + line));
        System.exit(1);
    }

    /** The driver wants user and password apart from the address. */
    static Connection connect(String url) throws Exception {
        URI uri = URI.create(url);
        Properties properties = new Properties();
        if (uri.getUserInfo() != null) {
            String[] parts = uri.getUserInfo().split(":", 2);
            properties.setProperty("user", parts[0]);
            if (parts.length == 2) properties.setProperty("password", parts[1]);
        }
        properties.setProperty("ApplicationName", "tidemark bi-check");
        String query = uri.getQuery() == null ? "" : "?" + uri.getQuery();
        String port = uri.getPort() < 0 ? "" : ":" + uri.getPort();
        return DriverManager.getConnection("jdbc:postgresql://" + uri.getHost() + port + uri.getPath() + query, properties);
    }

    static void check(Connection connection, boolean withColumns) throws SQLException {
        DatabaseMetaData data = connection.getMetaData();
        System.out.printf("%s through %s %s, as %s%n%n", data.getDatabaseProductName() + " " + data.getDatabaseProductVersion().split(" ")[0],
                "JDBC driver", data.getDriverVersion(), data.getUserName());
        if (ask(connection, "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolsuper").size() > 0) {
            wrong.add("the login is a superuser and sees everything; use a member of tidemark_reader");
        }
        // As Metabase does: whatever may be read in a schema that may be used, partitions included if there are any.
        Set<String> readable = new TreeSet<>(ask(connection, """
                SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                   AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')"""));
        Set<String> partitions = new TreeSet<>(ask(connection, """
                SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relispartition AND c.relkind IN ('r', 'p', 'f')"""));
        Map<String, Relation> seen = new TreeMap<>();
        schemas(data, readable, seen);
        relations(seen.values(), withColumns);

        for (String name : readable) {
            String schema = name.substring(0, name.indexOf('.'));
            if (partitions.contains(name)) wrong.add(name + " is a partition and can be read");
            else if (!SYNCED.contains(schema) && !schema.startsWith(EXTENSION)) wrong.add(name + " can be read outside of " + SYNCED);
        }
        for (Relation relation : seen.values()) {
            if (partitions.contains(relation.name)) wrong.add(relation.name + " is a partition in a schema to synchronise");
            if (!readable.contains(relation.name)) wrong.add(relation.name + " is listed and cannot be read");
            if (relation.kind.equals("MATERIALIZED VIEW")) wrong.add(relation.name + " is a materialized view: tools show no comments of its columns");
            if (relation.says == null) wrong.add(relation.name + " has no comment");
            for (Column column : relation.columns) {
                String name = relation.name + "." + column.name;
                if (column.says == null) wrong.add(name + " has no comment");
                // What somebody chose to show of events as they are: tools take fields out of it.
                boolean open = Set.of("silver.events.properties", "silver.events_live.properties",
                                      "silver.events_known.properties").contains(name);
                if (!PLAIN.contains(column.type) && !open) wrong.add(name + " is of type " + column.type);
            }
        }
        for (String name : readable) {
            if (SYNCED.contains(name.substring(0, name.indexOf('.'))) && !seen.containsKey(name)) wrong.add(name + " can be read and is not listed");
        }
        for (String schema : SYNCED) {
            if (seen.keySet().stream().noneMatch(name -> name.startsWith(schema + "."))) wrong.add("schema " + schema + " shows nothing");
        }
    }

    /** Lists the schemas, and fills {@code seen} with what is in those to synchronise. */
    static void schemas(DatabaseMetaData data, Set<String> readable, Map<String, Relation> seen) throws SQLException {
        System.out.printf("%-22s %8s %9s%n", "schema", "listed", "readable");
        List<String> schemas = new ArrayList<>();
        try (ResultSet rows = data.getSchemas()) {
            while (rows.next()) schemas.add(rows.getString("TABLE_SCHEM"));
        }
        for (String schema : schemas) {
            if (schema.startsWith("pg_") || schema.equals("information_schema")) continue;
            int listed = 0;
            try (ResultSet rows = data.getTables(null, pattern(schema), "%",
                    new String[] {"TABLE", "PARTITIONED TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE"})) {
                while (rows.next()) {
                    listed++;
                    String table = rows.getString("TABLE_NAME");
                    if (SYNCED.contains(schema)) {
                        seen.put(schema + "." + table, new Relation(schema + "." + table, rows.getString("TABLE_TYPE"), rows.getString("REMARKS"),
                                key(data, schema, table), columns(data, schema, table)));
                    }
                }
            }
            long allowed = readable.stream().filter(name -> name.startsWith(schema + ".")).count();
            System.out.printf("%-22s %8d %9d  %s%n", schema, listed, allowed,
                    SYNCED.contains(schema) ? "synchronise" : schema.startsWith(EXTENSION) ? "leave out: the extension's own" : "leave out");
        }
        System.out.println();
    }

    static List<Column> columns(DatabaseMetaData data, String schema, String table) throws SQLException {
        List<Column> columns = new ArrayList<>();
        try (ResultSet rows = data.getColumns(null, pattern(schema), pattern(table), "%")) {
            while (rows.next()) columns.add(new Column(rows.getString("COLUMN_NAME"), rows.getString("TYPE_NAME"), rows.getString("REMARKS")));
        }
        return columns;
    }

    /** Primary key and references, as tools derive their joins from them; empty without any. */
    static String key(DatabaseMetaData data, String schema, String table) throws SQLException {
        Map<Integer, String> key = new TreeMap<>();
        try (ResultSet rows = data.getPrimaryKeys(null, schema, table)) {
            while (rows.next()) key.put(rows.getInt("KEY_SEQ"), rows.getString("COLUMN_NAME"));
        }
        String text = String.join(", ", key.values());
        try (ResultSet rows = data.getImportedKeys(null, schema, table)) {
            while (rows.next()) text += " " + rows.getString("FKCOLUMN_NAME") + " -> " + rows.getString("PKTABLE_NAME");
        }
        return text;
    }

    static void relations(Iterable<Relation> relations, boolean withColumns) {
        System.out.printf("%-44s %-11s %7s  %s%n", "relation", "kind", "columns", "comment");
        int count = 0, columns = 0;
        List<String> keys = new ArrayList<>();
        for (Relation relation : relations) {
            count++;
            columns += relation.columns.size();
            String kind = relation.kind.equals("PARTITIONED TABLE") ? "parent" : relation.kind.toLowerCase();
            print(String.format("%-44s %-11s %7d  %s", relation.name, kind, relation.columns.size(), or(relation.says)));
            if (!relation.key.isEmpty()) keys.add(relation.name + ": " + relation.key);
            if (!withColumns) continue;
            for (Column column : relation.columns) print(String.format("    %-23s %-12s %s", column.name, column.type, or(column.says)));
        }
        System.out.printf("%d relations, %d columns%n%n", count, columns);
        System.out.println("keys");
        keys.forEach(key -> print("    " + key));
        System.out.println();
    }

    static String or(String says) {
        return says == null ? "(no comment)" : says;
    }

    static void print(String line) {
        System.out.println(line.length() <= WIDTH ? line : line.substring(0, WIDTH - 1) + "…");
    }

    /** A name as a pattern that means this name only. */
    static String pattern(String name) {
        return name.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%");
    }

    static List<String> ask(Connection connection, String sql) throws SQLException {
        List<String> values = new ArrayList<>();
        try (var statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            while (rows.next()) values.add(rows.getString(1));
        }
        return values;
    }
}
