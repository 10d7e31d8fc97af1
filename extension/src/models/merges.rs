//! Whether the rows of a query over more events can be put together from those over some and those over the others: a
//! GROUP BY of one table whose columns are what it groups by, and sums, counts, the least, the greatest and sketches.
//!
//! A date of such a model need not be read again when rows were only added to its source (`sql/additions.sql`). Left
//! out is whatever depends on the order of rows: sums of double precision, or which of two equal numerics comes out.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Node, NodeTag, Oid};

use super::copies::{Below, Found, column_name, is_plain, look, nodes};

/// What a column is to the merge of two rows.
const KEY: &str = "key";

/// Types of which two values that are equal are alike, byte for byte.
const EXACT: [Oid; 7] = [
    pg_sys::INT2OID,
    pg_sys::INT4OID,
    pg_sys::INT8OID,
    pg_sys::DATEOID,
    pg_sys::TIMEOID,
    pg_sys::TIMESTAMPOID,
    pg_sys::TIMESTAMPTZOID,
];

/// The name of a function and whether it is Postgres's own; `None` for all but these and those of tidemark.
unsafe fn known(function: Oid) -> Option<(String, bool)> {
    // SAFETY: look-ups in the catalog, which return NULL or a name for what is not there.
    unsafe {
        let schema = pg_sys::get_func_namespace(function);
        let own = schema == pg_sys::get_namespace_oid(c"tidemark".as_ptr(), true);
        let name = pg_sys::get_func_name(function);
        ((own || schema.to_u32() == pg_sys::PG_CATALOG_NAMESPACE) && !name.is_null())
            .then(|| (CStr::from_ptr(name).to_string_lossy().into_owned(), !own))
    }
}

/// How two results of an aggregate become one.
unsafe fn aggregate(node: *mut Node) -> Option<&'static str> {
    // SAFETY: the tag says which node it is.
    unsafe {
        if (*node).type_ == NodeTag::T_FuncExpr {
            // A sum of bigint is a numeric without a fraction, which is mostly wanted as bigint again.
            let cast = &*node.cast::<pg_sys::FuncExpr>();
            let [argument] = nodes::<Node>(cast.args) else { return None };
            let whole = cast.funcid.to_u32() == pg_sys::F_INT8_NUMERIC
                && (**argument).type_ == NodeTag::T_Aggref
                && (*argument.cast::<pg_sys::Aggref>()).aggfnoid.to_u32() == pg_sys::F_SUM_INT8;
            return if whole { aggregate(*argument) } else { None };
        }
        if (*node).type_ != NodeTag::T_Aggref {
            return None;
        }
        let of = &*node.cast::<pg_sys::Aggref>();
        if !of.aggdistinct.is_null() || !of.aggorder.is_null() || of.agglevelsup > 0 {
            return None;
        }
        // How exact a sketch is must not differ from row to row: a recompute would refuse that.
        let varies =
            |argument: &*mut pg_sys::TargetEntry| pg_sys::contain_var_clause((**argument).expr.cast());
        if nodes::<pg_sys::TargetEntry>(of.args).iter().skip(1).any(varies) {
            return None;
        }
        let (name, own) = known(of.aggfnoid)?;
        let exact = EXACT.contains(&of.aggtype);
        match (name.as_str(), own) {
            ("count", true) => Some("sum"),
            ("sum", true) if exact || of.aggtype == pg_sys::NUMERICOID => Some("sum"),
            ("min", true) if exact => Some("least"),
            ("max", true) if exact => Some("greatest"),
            ("hll_agg" | "hll_union_agg", false) => Some("hll"),
            ("ddsketch_agg" | "ddsketch_union_agg", false) => Some("ddsketch"),
            ("funnel_stats" | "funnel_stats_union_agg", false) => Some("funnel_stats"),
            _ => None,
        }
    }
}

/// Whether it stands for the GROUP BY, as one does from 18 on.
fn is_group(entry: &pg_sys::RangeTblEntry) -> bool {
    #[cfg(feature = "pg18")]
    let group = entry.rtekind == pg_sys::RTEKind::RTE_GROUP;
    #[cfg(not(feature = "pg18"))]
    let (group, _) = (false, entry);
    group
}

/// The expression behind one that only says that it is grouped by.
unsafe fn ungrouped(query: &pg_sys::Query, node: *mut Node) -> *mut Node {
    #[cfg(feature = "pg18")]
    // SAFETY: the tag says which node it is; a Var of a query names one of its entries.
    unsafe {
        if (*node).type_ == NodeTag::T_Var {
            let var = &*node.cast::<pg_sys::Var>();
            let entry = nodes::<pg_sys::RangeTblEntry>(query.rtable).get(var.varno as usize - 1);
            if let Some(entry) = entry
                && is_group(&**entry)
                && let Some(expression) = nodes::<Node>((**entry).groupexprs).get(var.varattno as usize - 1)
            {
                return *expression;
            }
        }
    }
    #[cfg(not(feature = "pg18"))]
    let _ = query;
    node
}

/// For each column of the query `key` if it is what it groups by, else how two values become one: sum, least, greatest,
/// or the type whose union it is. `None` for a query that cannot be merged.
pub(super) unsafe fn merges(source: &pg_sys::CachedPlanSource) -> Option<Vec<String>> {
    // SAFETY: lists and nodes of an analyzed query, looked at according to their tags.
    unsafe {
        let [query] = nodes::<pg_sys::Query>(source.query_list) else { return None };
        let query = &**query;
        let mut found = Found::default();
        look((&raw const *query).cast_mut().cast(), (&raw mut found).cast());
        if !is_plain(query) || query.hasSubLinks || found.tables != 1 || found.unsuitable {
            return None;
        }
        let mut entries =
            nodes::<pg_sys::RangeTblEntry>(query.rtable).iter().filter(|entry| !is_group(&***entry));
        let (Some(entry), None) = (entries.next(), entries.next()) else { return None };
        let below = Below::of(&**entry)?;
        let groups = nodes::<pg_sys::SortGroupClause>(query.groupClause);
        let mut columns = vec![];
        for target in nodes::<pg_sys::TargetEntry>(query.targetList) {
            let grouped = groups.iter().any(|group| (**group).tleSortGroupRef == (**target).ressortgroupref);
            match ((**target).resjunk, grouped) {
                // What it groups by without saying so tells rows apart that look alike.
                (true, true) => return None,
                (true, false) => {}
                (false, true) => {
                    let expression = (**target).expr.cast::<Node>();
                    // The rows of a date are those that the source says are of it; who counts them counts by that.
                    let date = !(**target).resname.is_null()
                        && CStr::from_ptr((**target).resname) == c"event_date"
                        && column_name(below.table, below.column(ungrouped(query, expression))?).as_deref()
                            != Some("event_date");
                    let collation = pg_sys::exprCollation(expression);
                    if date
                        || (collation != Oid::INVALID && !pg_sys::get_collation_isdeterministic(collation))
                    {
                        return None;
                    }
                    columns.push(KEY);
                }
                (false, false) => columns.push(aggregate((**target).expr.cast())?),
            }
        }
        (!groups.is_empty()).then(|| columns.into_iter().map(str::to_owned).collect())
    }
}
