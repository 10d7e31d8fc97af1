//! The queries of `sql/dashboards/metabase` and `sql/dashboards/grafana`: what their head comments promise, and their
//! text as the tools would send it, with Metabase's optional clauses and field filters and Grafana's macros and
//! variables replaced. What they must answer is in `tests/client/dashboards.rs`.

use crate::server;

/// A file of `sql/dashboards/<tool>/`.
pub struct Dashboard {
    /// Its name without the ending.
    pub name: String,
    /// The comment it begins with, without the dashes.
    pub head: String,
    /// Everything behind that, without the semicolon.
    pub sql: String,
    /// The variables that the head names, with what it says about each.
    pub variables: Vec<(String, String)>,
}

impl Dashboard {
    /// The column that a field filter is on, as the head says.
    pub fn field(&self, variable: &str) -> Option<&str> {
        let (_, said) = self.variables.iter().find(|(name, _)| name == variable)?;
        said.strip_prefix("field filter on ")?.split([';', ':']).next()
    }
}

/// All files of a tool, in order of their names.
pub fn of_tool(tool: &str) -> Vec<Dashboard> {
    let folder = server::root().join("sql/dashboards").join(tool);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("cannot read {}: {e}", folder.display()));
    let mut all: Vec<Dashboard> = entries
        .map(|entry| {
            let path = entry.expect("a folder can be read").path();
            let text = std::fs::read_to_string(&path).expect("a dashboard is text");
            let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("--")).collect();
            let sql: Vec<&str> = text.lines().skip(head.len()).collect();
            // Named lines are set in by three blanks, lines that go on with them by more.
            let mut variables: Vec<(String, String)> = Vec::new();
            for line in head.iter().filter_map(|line| line.strip_prefix("--   ")) {
                if line.starts_with(' ') {
                    let (_, said) = variables.last_mut().expect("a variable to go on with");
                    said.push(' ');
                    said.push_str(line.trim());
                } else if let Some((name, said)) = line.split_once(' ') {
                    variables.push((name.to_owned(), said.trim().to_owned()));
                }
            }
            Dashboard {
                name: path.file_stem().expect("a file").to_string_lossy().into_owned(),
                variables,
                head: head
                    .iter()
                    .map(|line| line.trim_start_matches(['-', ' ']))
                    .collect::<Vec<_>>()
                    .join("\n"),
                sql: sql.join("\n").trim().trim_end_matches(';').to_owned(),
            }
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The names between `{{` and `}}`.
pub fn metabase_variables(sql: &str) -> Vec<String> {
    let parts = sql.split("{{").skip(1);
    parts.map(|part| part.split("}}").next().expect("the first part").trim().to_owned()).collect()
}

/// The query as Metabase sends it: `value` gives what stands for a variable, `None` for one that nobody set. An
/// optional clause stays when all of its variables are set.
pub fn metabase(sql: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let mut sent = String::new();
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once("[[") {
        let (clause, behind) = after.split_once("]]").expect("an optional clause ends with ]]");
        sent += before;
        if metabase_variables(clause).iter().all(|name| value(name).is_some()) {
            sent += clause;
        }
        rest = behind;
    }
    sent += rest;
    for name in metabase_variables(&sent) {
        // A field filter that nobody set holds for every row; any other variable must be optional.
        let value = value(&name).unwrap_or_else(|| "1 = 1".to_owned());
        sent = sent.replace(&format!("{{{{{name}}}}}"), &value);
    }
    sent
}

/// The names between `${` and `}`, without their formats.
pub fn grafana_variables(sql: &str) -> Vec<String> {
    let parts = sql.split("${").skip(1);
    parts.map(|part| part.split([':', '}']).next().expect("the first part").to_owned()).collect()
}

/// The query as Grafana sends it, for a time range, an interval in seconds and the chosen values of each variable.
pub fn grafana(sql: &str, range: (&str, &str), seconds: u32, chosen: &dyn Fn(&str) -> Vec<String>) -> String {
    let mut sent = sql.replace("$__interval", &format!("{seconds}s"));
    for name in grafana_variables(&sent) {
        let quoted: Vec<_> = chosen(&name).iter().map(|v| format!("'{}'", v.replace('\'', "''"))).collect();
        sent = sent.replace(&format!("${{{name}:sqlstring}}"), &quoted.join(","));
    }
    for (macro_name, alias) in [("$__timeGroupAlias(", " AS \"time\""), ("$__timeGroup(", "")] {
        while let Some((before, after)) = sent.split_once(macro_name) {
            let (arguments, behind) = after.split_once(')').expect("a macro ends with )");
            let (column, interval) = arguments.split_once(',').expect("$__timeGroup takes two arguments");
            let length = interval.trim().trim_matches('\'').trim_end_matches('s');
            sent = format!(
                "{before}floor(extract(epoch from {})/{length})*{length}{alias}{behind}",
                column.trim()
            );
        }
    }
    sent = sent.replace("$__timeFrom()", &format!("'{}'", range.0));
    sent = sent.replace("$__timeTo()", &format!("'{}'", range.1));
    while let Some((before, after)) = sent.split_once("$__timeFilter(") {
        let (column, behind) = after.split_once(')').expect("a macro ends with )");
        sent = format!("{before}{column} BETWEEN '{}' AND '{}'{behind}", range.0, range.1);
    }
    sent
}
