//! Whether the rows that a query returns for a person depend only on its source's rows of that person: then these rows
//! can be computed without the others.
//!
//! The column is followed through the analyzed query, level by level. What is not recognized is refused, with the reason:
//! a model is recomputed by person only where that can be shown, never because somebody says so. What cannot be seen is a
//! function that is IMMUTABLE by name only; `verify_model` compares with the whole.

use std::ffi::{CStr, CString, c_int};

use pgrx::pg_sys::{self, Node, NodeTag, Oid};
use pgrx::{IntoDatum, PgSqlErrorCode};

use super::copies::{Found, is_zero, look, nodes};
use super::describe::{analyzed, relations};
use super::expressions::{count_subqueries, equal, parts, reads_table, relabelled};
use super::owner::{as_owner, role};
use crate::support::args;
use crate::support::error::raise;
use crate::support::pg_function;

unsafe extern "C-unwind" {
    /// Whether a table is a partition or a child (`catalog/pg_inherits.h`, which pgrx does not bind).
    fn has_superclass(relation: Oid) -> bool;
}

/// A column of something in a FROM: its number there, and its own.
type Column = (i32, i16);
/// Why a query may mix persons.
type Reason = &'static str;

/// What is known of a query, or of a relation in a FROM.
#[derive(Clone)]
struct Known {
    /// Whether it reads the source; if not, it is the same for everybody.
    reads: bool,
    /// The columns that hold the person of the row.
    persons: Vec<i16>,
    /// The columns that hold the date of a row of the source of that person.
    dates: Vec<i16>,
}

const CONSTANT: Known = Known { reads: false, persons: vec![], dates: vec![] };

/// The walk through one query.
struct Scope {
    source: Oid,
    person: i16,
    /// Its column event_date.
    date: i16,
    /// A table without dates whose rows are a person's, too, and the column that says whose.
    dimension: Option<(Oid, i16)>,
    /// The CTEs of each level, the outermost first.
    ctes: Vec<Vec<(String, Known)>>,
}

/// The FROM of one level.
struct From<'a> {
    entries: &'a [*mut pg_sys::RangeTblEntry],
    /// Columns that hold the same person in every row of the level.
    same: Vec<Vec<Column>>,
    /// Columns that hold a date of that person.
    dates: Vec<Column>,
    /// Subqueries in conditions that compare the person, and so do not mix.
    compared: usize,
}

impl From<'_> {
    /// The column of a relation that an expression is, through the columns that joins merge.
    unsafe fn column(&self, node: *mut Node) -> Option<Column> {
        // SAFETY: the tag says which node it is; a Var of this level names one of its entries.
        unsafe {
            if node.is_null() {
                return None;
            }
            let node = relabelled(node);
            if (*node).type_ != NodeTag::T_Var {
                return None;
            }
            let var = &*node.cast::<pg_sys::Var>();
            let index = usize::try_from(var.varno).ok()?.checked_sub(1)?;
            let entry = *self.entries.get(index).filter(|_| var.varlevelsup == 0)?;
            let number = usize::try_from(var.varattno).ok()?.checked_sub(1)?;
            match (*entry).rtekind {
                pg_sys::RTEKind::RTE_JOIN => self.column(*nodes::<Node>((*entry).joinaliasvars).get(number)?),
                #[cfg(feature = "pg18")]
                pg_sys::RTEKind::RTE_GROUP => self.column(*nodes::<Node>((*entry).groupexprs).get(number)?),
                _ => Some((var.varno, var.varattno)),
            }
        }
    }

    /// Where an expression that is a person stands in `same`.
    unsafe fn person(&self, node: *mut Node) -> Option<usize> {
        // SAFETY: see `column`.
        let column = unsafe { self.column(node) }?;
        self.same.iter().position(|columns| columns.contains(&column))
    }

    /// Whether an expression is a date of the person of its row: such a column, or the least or greatest of a group.
    unsafe fn is_date(&self, node: *mut Node) -> bool {
        // SAFETY: the tag says which node it is; see `column`.
        unsafe {
            if (*node).type_ == NodeTag::T_Aggref {
                let aggregate = &*node.cast::<pg_sys::Aggref>();
                let [argument] = nodes::<pg_sys::TargetEntry>(aggregate.args) else { return false };
                let name = pg_sys::get_func_name(aggregate.aggfnoid);
                return u32::from(aggregate.aggfnoid) < pg_sys::FirstUnpinnedObjectId
                    && matches!(CStr::from_ptr(name).to_bytes(), b"min" | b"max")
                    && self.is_date((**argument).expr.cast());
            }
            self.column(node).is_some_and(|column| self.dates.contains(&column))
        }
    }

    /// Whether a clause of GROUP BY, PARTITION BY or DISTINCT has the person.
    unsafe fn has_person(&self, clause: *mut pg_sys::List, targets: *mut pg_sys::List) -> bool {
        // SAFETY: lists of an analyzed query.
        unsafe {
            nodes::<pg_sys::SortGroupClause>(clause).iter().any(|item| {
                nodes::<pg_sys::TargetEntry>(targets).iter().any(|target| {
                    (**target).ressortgroupref == (**item).tleSortGroupRef
                        && self.person((**target).expr.cast()).is_some()
                })
            })
        }
    }

    /// Takes notice of the equalities in a condition, of which all parts hold.
    unsafe fn condition(&mut self, node: *mut Node) {
        // SAFETY: the tag says which node it is.
        unsafe {
            if node.is_null() {
                return;
            }
            if let Some(parts) = parts(node, pg_sys::BoolExprType::AND_EXPR) {
                for part in parts {
                    self.condition(*part);
                }
            } else if let Some((left, right)) = equal(node)
                && let (Some(left), Some(right)) = (self.person(left), self.person(right))
                && left != right
            {
                let columns = self.same.remove(left.max(right));
                self.same[left.min(right)].extend(columns);
            }
        }
    }
}

impl Scope {
    /// One relation of a FROM.
    unsafe fn relation(&mut self, entry: &pg_sys::RangeTblEntry) -> Result<Known, Reason> {
        // SAFETY: the kind says which fields there are.
        unsafe {
            match entry.rtekind {
                pg_sys::RTEKind::RTE_RELATION if entry.relid == self.source && entry.inh => {
                    Ok(Known { reads: true, persons: vec![self.person], dates: vec![self.date] })
                }
                pg_sys::RTEKind::RTE_RELATION if self.dimension.is_some_and(|d| d.0 == entry.relid) => {
                    let persons = self.dimension.iter().map(|d| d.1).collect();
                    Ok(Known { reads: true, persons, dates: vec![] })
                }
                // A table without dates: whoever changes it marks the persons or dates that it is about.
                pg_sys::RTEKind::RTE_RELATION if entry.relid != self.source => Ok(CONSTANT),
                pg_sys::RTEKind::RTE_RELATION => Err("it reads a part of the source"),
                pg_sys::RTEKind::RTE_SUBQUERY => {
                    if !reads_table(entry.subquery.cast(), std::ptr::null_mut()) {
                        return Ok(CONSTANT);
                    }
                    self.level(&*entry.subquery)
                }
                pg_sys::RTEKind::RTE_CTE => {
                    let name = CStr::from_ptr(entry.ctename).to_string_lossy();
                    let level = self.ctes.len().checked_sub(1 + entry.ctelevelsup as usize);
                    let found =
                        level.and_then(|level| self.ctes[level].iter().rev().find(|(n, _)| *n == name));
                    found.map(|(_, known)| known.clone()).ok_or("it reads a recursive WITH")
                }
                pg_sys::RTEKind::RTE_FUNCTION | pg_sys::RTEKind::RTE_VALUES | pg_sys::RTEKind::RTE_RESULT => {
                    Ok(CONSTANT)
                }
                _ => Err("its FROM has something that is not understood"),
            }
        }
    }

    /// One part of a FROM; what it reads of the source goes to `from.same`. Returns whether it reads anything.
    unsafe fn join(&mut self, node: *mut Node, from: &mut From<'_>) -> Result<bool, Reason> {
        // SAFETY: the tag says which node it is.
        unsafe {
            match (*node).type_ {
                NodeTag::T_RangeTblRef => {
                    let number = (*node.cast::<pg_sys::RangeTblRef>()).rtindex;
                    let entry =
                        from.entries.get((number - 1) as usize).ok_or("its FROM is not understood")?;
                    let known = self.relation(&**entry)?;
                    if known.reads && known.persons.is_empty() {
                        return Err("a subquery does not return the column of the source");
                    }
                    if known.reads {
                        from.same.push(known.persons.iter().map(|column| (number, *column)).collect());
                        from.dates.extend(known.dates.iter().map(|column| (number, *column)));
                    }
                    Ok(known.reads)
                }
                NodeTag::T_FromExpr => {
                    let list = &*node.cast::<pg_sys::FromExpr>();
                    let mut reads = false;
                    for item in nodes::<Node>(list.fromlist) {
                        reads |= self.join(*item, from)?;
                    }
                    from.condition(list.quals);
                    self.compared(list.quals, from)?;
                    Ok(reads)
                }
                NodeTag::T_JoinExpr => {
                    let join = &*node.cast::<pg_sys::JoinExpr>();
                    let left = self.join(join.larg, from)?;
                    let before = from.same.clone();
                    let right = self.join(join.rarg, from)?;
                    match join.jointype {
                        pg_sys::JoinType::JOIN_INNER => {
                            from.condition(join.quals);
                            self.compared(join.quals, from)?;
                        }
                        // A row of the left side stays, whoever has none on the right.
                        pg_sys::JoinType::JOIN_LEFT if !right => {}
                        pg_sys::JoinType::JOIN_LEFT if left => {
                            from.condition(join.quals);
                            let known = |column| before.iter().any(|columns| columns.contains(column));
                            if !from.same.iter().all(|columns| columns.iter().any(known)) {
                                return Err("a LEFT JOIN does not compare the persons of both sides");
                            }
                            // What the right side holds may be NULL from here on.
                            from.same = before;
                        }
                        _ => return Err("it has an outer join that may keep rows of nobody"),
                    }
                    Ok(left || right)
                }
                _ => Err("its FROM is not understood"),
            }
        }
    }

    /// What the branches of a UNION, INTERSECT or EXCEPT have in common. These compare whole rows, so persons, too.
    unsafe fn branches(
        &mut self,
        node: *mut Node,
        entries: &[*mut pg_sys::RangeTblEntry],
    ) -> Result<Known, Reason> {
        // SAFETY: the tag says which node it is: a branch, or two of them put together.
        unsafe {
            let known = if (*node).type_ == NodeTag::T_SetOperationStmt {
                let both = &*node.cast::<pg_sys::SetOperationStmt>();
                let mut left = self.branches(both.larg, entries)?;
                let right = self.branches(both.rarg, entries)?;
                left.persons.retain(|column| right.persons.contains(column));
                left.dates.retain(|column| right.dates.contains(column));
                left
            } else {
                let number = (*node.cast::<pg_sys::RangeTblRef>()).rtindex as usize;
                let entry = entries.get(number.wrapping_sub(1)).ok_or("its UNION is not understood")?;
                self.relation(&**entry)?
            };
            if known.persons.is_empty() {
                return Err(
                    "a branch of its UNION, INTERSECT or EXCEPT does not return the column of the source",
                );
            }
            Ok(known)
        }
    }

    /// Counts the `person IN (SELECT person ...)` of a condition, where only whether it is true counts.
    unsafe fn compared(&mut self, node: *mut Node, from: &mut From<'_>) -> Result<(), Reason> {
        // SAFETY: the tag says which node it is; lists of an analyzed query.
        unsafe {
            if node.is_null() {
                return Ok(());
            }
            let all = parts(node, pg_sys::BoolExprType::AND_EXPR);
            if let Some(parts) = all.or_else(|| parts(node, pg_sys::BoolExprType::OR_EXPR)) {
                for part in parts {
                    self.compared(*part, from)?;
                }
                return Ok(());
            }
            if (*node).type_ != NodeTag::T_SubLink {
                return Ok(());
            }
            let link = &*node.cast::<pg_sys::SubLink>();
            if link.subLinkType != pg_sys::SubLinkType::ANY_SUBLINK
                || !reads_table(link.subselect, std::ptr::null_mut())
                || link.testexpr.is_null()
            {
                return Ok(());
            }
            let Some((left, right)) = equal(link.testexpr) else { return Ok(()) };
            let right = relabelled(right);
            if from.person(left).is_none() || (*right).type_ != NodeTag::T_Param {
                return Ok(());
            }
            let known = self.level(&*link.subselect.cast::<pg_sys::Query>())?;
            let column = (*right.cast::<pg_sys::Param>()).paramid as i16;
            from.compared += usize::from(known.persons.contains(&column));
            Ok(())
        }
    }

    /// One level of the query.
    unsafe fn level(&mut self, query: &pg_sys::Query) -> Result<Known, Reason> {
        // SAFETY: lists and nodes of an analyzed query, looked at according to their tags.
        unsafe {
            if query.commandType != pg_sys::CmdType::CMD_SELECT || !query.rowMarks.is_null() {
                return Err("it is more than a SELECT");
            }
            if !query.limitCount.is_null() || !is_zero(query.limitOffset) {
                return Err("it has a LIMIT or OFFSET");
            }
            let node = (&raw const *query).cast_mut().cast::<Node>();
            for outer in 1..=self.ctes.len() {
                if pg_sys::contain_vars_of_level(node, outer as c_int) {
                    return Err("a subquery that reads the source refers to the query around it");
                }
            }
            self.ctes.push(vec![]);
            for entry in nodes::<pg_sys::CommonTableExpr>(query.cteList) {
                if (**entry).cterecursive {
                    return Err("it has a recursive WITH");
                }
                let reads = reads_table((**entry).ctequery, std::ptr::null_mut());
                let known = if reads { self.level(&*(**entry).ctequery.cast())? } else { CONSTANT };
                let name = CStr::from_ptr((**entry).ctename).to_string_lossy().into_owned();
                if let Some(level) = self.ctes.last_mut() {
                    level.push((name, known));
                }
            }
            let mut from = From { entries: nodes(query.rtable), same: vec![], dates: vec![], compared: 0 };
            if !query.setOperations.is_null() {
                let known = self.branches(query.setOperations, from.entries);
                self.ctes.pop();
                return known;
            }
            let reads = self.join(query.jointree.cast(), &mut from)?;
            self.ctes.pop();

            let mut subqueries = 0_usize;
            pg_sys::query_tree_walker(
                (&raw const *query).cast_mut(),
                Some(count_subqueries),
                (&raw mut subqueries).cast(),
                pg_sys::QTW_IGNORE_RC_SUBQUERIES as c_int,
            );
            if subqueries != from.compared {
                return Err("a subquery reads the source in another way than person IN (SELECT person ...)");
            }
            if !reads {
                return Ok(CONSTANT);
            }
            if from.same.len() != 1 {
                return Err("it joins rows whose persons are not compared");
            }
            let targets = query.targetList;
            if !query.groupingSets.is_null() {
                return Err("it has GROUPING SETS");
            }
            let grouped = query.hasAggs || !query.groupClause.is_null() || !query.havingQual.is_null();
            if grouped && !from.has_person(query.groupClause, targets) {
                return Err("it aggregates without the column in GROUP BY");
            }
            for window in nodes::<pg_sys::WindowClause>(query.windowClause) {
                if !from.has_person((**window).partitionClause, targets) {
                    return Err("a window function has not the column in PARTITION BY");
                }
            }
            if !query.distinctClause.is_null() && !from.has_person(query.distinctClause, targets) {
                return Err("its DISTINCT leaves out the column");
            }
            let that = |holds: &dyn Fn(*mut Node) -> bool| {
                let targets = nodes::<pg_sys::TargetEntry>(targets).iter();
                targets
                    .filter(|t| !(***t).resjunk && holds((***t).expr.cast()))
                    .map(|t| (**t).resno)
                    .collect()
            };
            let persons = that(&|node| from.person(node).is_some());
            Ok(Known { reads, persons, dates: that(&|node| from.is_date(node)) })
        }
    }
}

/// Whether nobody has rows on a date without rows of the source on that date; an error where the rows of a query may
/// depend on rows of other persons.
unsafe fn scoped(plan: &pg_sys::CachedPlanSource, mut scope: Scope, column: &CStr) -> Result<bool, Reason> {
    // SAFETY: the lists are those of an analyzed statement.
    unsafe {
        let [query] = nodes::<pg_sys::Query>(plan.query_list) else { return Err("it is not one SELECT") };
        // A view may show rows of the source, and so may a parent, a partition or a child.
        let child = |relation| pg_sys::ffi::pg_guard_ffi_boundary(|| has_superclass(relation));
        let own = child(scope.source);
        let apart = |relation: Oid| {
            let kind = pg_sys::get_rel_relkind(relation) as u8;
            matches!(kind, pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE)
                && !own
                && !child(relation)
        };
        let relations = relations(plan);
        if !relations.contains(&scope.source) {
            return Err("it does not read its source");
        }
        if !relations.iter().all(|r| *r == scope.source || apart(*r)) {
            return Err("it reads a view, or a parent, a partition or a child of a table");
        }
        let mut found = Found::default();
        look(query.cast(), (&raw mut found).cast());
        if found.unsuitable {
            return Err("it takes a sample, a row as a whole, the time, or a function that may read tables");
        }
        let known = scope.level(&**query)?;
        let number = |name: &CStr| {
            let mut targets = nodes::<pg_sys::TargetEntry>((**query).targetList).iter();
            targets.find(|t| !(***t).resjunk && CStr::from_ptr((***t).resname) == name).map(|t| (**t).resno)
        };
        if !number(column).is_some_and(|number| known.persons.contains(&number)) {
            return Err("the column of the table is not the column of the source, unchanged");
        }
        Ok(number(c"event_date").is_some_and(|number| known.dates.contains(&number)))
    }
}

/// What the analysis says; the arguments are those of `scope_problem`.
unsafe fn result(fcinfo: pg_sys::FunctionCallInfo) -> Result<bool, Reason> {
    // SAFETY: the function has these arguments.
    unsafe {
        let role = role(fcinfo, |role| role);
        let text = |index, name: &str| match args::text(fcinfo, index, name).map(CString::new) {
            Some(Ok(text)) => text,
            _ => raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{name} must not be NULL")),
        };
        let (query, person, column) = (text(1, "query"), text(3, "person"), text(4, "scope"));
        let oid = |index| args::datum(fcinfo, index).map(|oid| Oid::from(oid.value() as u32));
        let source = oid(2).unwrap_or(Oid::INVALID);
        let number = |name: &CStr| pg_sys::get_attnum(source, name.as_ptr());
        let id = || args::text(fcinfo, 6, "id").and_then(|id| CString::new(id).ok());
        let dimension = if args::count(fcinfo) > 5 { oid(5).zip(id()) } else { None };
        let dimension = dimension.map(|(table, id)| (table, pg_sys::get_attnum(table, id.as_ptr())));
        as_owner(role, || {
            analyzed(&query, |plan| {
                let scope = Scope {
                    source,
                    person: number(&person),
                    date: number(c"event_date"),
                    dimension,
                    ctes: vec![],
                };
                scoped(plan, scope, &column)
            })
        })
    }
}

pg_function! {
    /// `scope_problem(role oid, query text, source regclass, person text, scope text, dimension regclass, id text)
    /// -> text`.
    fn tidemark_scope_problem(fcinfo) {
        match result(fcinfo).err().and_then(IntoDatum::into_datum) {
            Some(datum) => datum,
            None => args::return_null(fcinfo),
        }
    }
}

pg_function! {
    /// `scope_needs_rows(role oid, query text, source regclass, person text, scope text) -> bool`.
    fn tidemark_scope_needs_rows(fcinfo) {
        pg_sys::Datum::from(result(fcinfo) == Ok(true))
    }
}
