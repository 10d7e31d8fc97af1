//! Whether a query computes each of its rows from one row of one table, and which of its columns it only passes on.
//!
//! Such a model needs no recompute of a date when rows were only added to its source: the new rows make new rows, and
//! touch no others (`sql/additions.sql`). Everything that is not recognized here is recomputed, which is always right.

use std::ffi::{CStr, c_char, c_void};

use pgrx::pg_guard;
use pgrx::pg_sys::{self, Node, NodeTag, Oid};

/// The elements of a list of nodes.
///
/// # Safety
/// The list must be NULL or a list of nodes of type `T`.
pub(super) unsafe fn nodes<'a, T>(list: *mut pg_sys::List) -> &'a [*mut T] {
    // SAFETY: a ListCell of such a list is one pointer.
    unsafe {
        if list.is_null() {
            return &[];
        }
        std::slice::from_raw_parts((*list).elements.cast(), usize::try_from((*list).length).unwrap_or(0))
    }
}

/// What the walk through a whole query finds.
#[derive(Default)]
pub(super) struct Found {
    /// Tables, each as often as it is read.
    pub(super) tables: usize,
    /// Something whose value may be another one tomorrow, or that needs a row as a whole.
    pub(super) unsuitable: bool,
}

/// Whether the result of a function may change with time or other tables: those of users, unless they promise otherwise.
#[pg_guard]
unsafe extern "C-unwind" fn may_read_tables(function: Oid, _context: *mut c_void) -> bool {
    /// The first Oid that initdb does not give away (`FirstNormalObjectId`).
    const FIRST_OF_USERS: u32 = 16384;
    // SAFETY: a plain look-up.
    let volatility = unsafe { pg_sys::func_volatile(function) } as u8;
    matches!(
        function.to_u32(),
        pg_sys::F_NOW | pg_sys::F_TRANSACTION_TIMESTAMP | pg_sys::F_STATEMENT_TIMESTAMP
    ) || volatility == pg_sys::PROVOLATILE_VOLATILE
        || (volatility == pg_sys::PROVOLATILE_STABLE && function.to_u32() >= FIRST_OF_USERS)
}

/// Called for every node of the query; `context` is the `Found` of the walk.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn look(node: *mut Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the tag says which node it is; the context is what `copied` passed.
    unsafe {
        let found = &mut *context.cast::<Found>();
        if (*node).type_ == NodeTag::T_Query {
            let query = node.cast::<pg_sys::Query>();
            for entry in nodes::<pg_sys::RangeTblEntry>((*query).rtable) {
                found.tables += usize::from((**entry).rtekind == pg_sys::RTEKind::RTE_RELATION);
                found.unsuitable |= !(**entry).securityQuals.is_null() || !(**entry).tablesample.is_null();
            }
            return pg_sys::query_tree_walker(query, Some(look), context, 0);
        }
        // Column 0 is a row as a whole, below it are the system's own.
        let system = (*node).type_ == NodeTag::T_Var && (*node.cast::<pg_sys::Var>()).varattno <= 0;
        // CURRENT_TIMESTAMP and CURRENT_USER are not functions here.
        let session =
            (*node).type_ == NodeTag::T_SQLValueFunction || (*node).type_ == NodeTag::T_NextValueExpr;
        found.unsuitable |= system
            || session
            || pg_sys::check_functions_in_node(node, Some(may_read_tables), std::ptr::null_mut());
        found.unsuitable || pg_sys::expression_tree_walker(node, Some(look), context)
    }
}

/// Whether an OFFSET is the 0 that only keeps the planner from merging a subquery into the query around it.
pub(super) unsafe fn is_zero(offset: *mut Node) -> bool {
    // SAFETY: the tag says which node it is.
    unsafe {
        if offset.is_null() {
            return true;
        }
        // A plain number is an integer, which Postgres casts to bigint.
        let mut value = offset;
        if (*offset).type_ == NodeTag::T_FuncExpr {
            let cast = &*offset.cast::<pg_sys::FuncExpr>();
            match nodes::<Node>(cast.args) {
                [argument] if cast.funcformat == pg_sys::CoercionForm::COERCE_IMPLICIT_CAST => {
                    value = *argument
                }
                _ => return false,
            }
        }
        if (*value).type_ != NodeTag::T_Const {
            return false;
        }
        let value = &*value.cast::<pg_sys::Const>();
        !value.constisnull
            && matches!(value.consttype, pg_sys::INT4OID | pg_sys::INT8OID)
            && value.constvalue.value() == 0
    }
}

/// Whether nothing but aggregates and GROUP BY may stand between the rows of a SELECT and those of its FROM.
pub(super) unsafe fn is_plain(query: &pg_sys::Query) -> bool {
    // SAFETY: an offset is a node.
    query.commandType == pg_sys::CmdType::CMD_SELECT
        && !query.hasWindowFuncs
        && !query.hasTargetSRFs
        && query.groupingSets.is_null()
        && query.havingQual.is_null()
        && query.distinctClause.is_null()
        && query.setOperations.is_null()
        && query.cteList.is_null()
        && query.rowMarks.is_null()
        && query.limitCount.is_null()
        && unsafe { is_zero(query.limitOffset) }
}

/// What one entry of a FROM comes down to.
pub(super) struct Below {
    /// The table.
    pub(super) table: Oid,
    /// For each column of a subquery the number of the table's column that it passes on.
    columns: Option<Vec<Option<i16>>>,
}

impl Below {
    /// `None` unless each row of the entry comes from one row of a table.
    pub(super) unsafe fn of(entry: &pg_sys::RangeTblEntry) -> Option<Self> {
        // SAFETY: an entry of an analyzed query, looked at according to its kind.
        unsafe {
            match entry.rtekind {
                // Without ONLY, which is no part of the name that is replaced.
                pg_sys::RTEKind::RTE_RELATION if entry.inh => {
                    Some(Self { table: entry.relid, columns: None })
                }
                // Without views, which have an Oid or, before 16, tables of their own beside them.
                pg_sys::RTEKind::RTE_SUBQUERY if entry.relid == Oid::INVALID => {
                    let (table, columns) = level(&*entry.subquery)?;
                    Some(Self { table, columns: Some(columns) })
                }
                _ => None,
            }
        }
    }

    /// The number of the table's column that an expression over the entry passes on.
    pub(super) unsafe fn column(&self, expression: *mut Node) -> Option<i16> {
        // SAFETY: the tag says which node it is.
        unsafe {
            if (*expression).type_ != NodeTag::T_Var {
                return None;
            }
            let number = (*expression.cast::<pg_sys::Var>()).varattno;
            match &self.columns {
                None => Some(number),
                Some(columns) => *columns.get(usize::try_from(number).ok()?.checked_sub(1)?)?,
            }
        }
    }
}

/// One level of the query: the table below it, and for each column the number of the table's column that it passes on.
/// `None` unless each row of the level comes from one row of that table.
unsafe fn level(query: &pg_sys::Query) -> Option<(Oid, Vec<Option<i16>>)> {
    // SAFETY: lists and nodes of an analyzed query, looked at according to their tags.
    unsafe {
        let [entry] = nodes::<pg_sys::RangeTblEntry>(query.rtable) else { return None };
        if !is_plain(query) || query.hasAggs || !query.groupClause.is_null() {
            return None;
        }
        let below = Below::of(&**entry)?;
        let targets =
            nodes::<pg_sys::TargetEntry>(query.targetList).iter().filter(|target| !(***target).resjunk);
        let columns = targets.map(|target| below.column((**target).expr.cast())).collect();
        Some((below.table, columns))
    }
}

/// The name of a column of a table.
pub(super) unsafe fn column_name(table: Oid, number: i16) -> Option<String> {
    // SAFETY: a look-up in the catalog, which returns NULL for what is not there.
    unsafe {
        let name: *mut c_char = pg_sys::get_attname(table, number, true);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// For each column of the query the name of the source's column that it passes on, `None` where it computes something;
/// `None` for a query whose rows do not each come from one row of one table.
pub(super) unsafe fn copied(source: &pg_sys::CachedPlanSource) -> Option<Vec<Option<String>>> {
    // SAFETY: the lists are those of an analyzed statement.
    unsafe {
        let [query] = nodes::<pg_sys::Query>(source.query_list) else { return None };
        let mut found = Found::default();
        look(query.cast(), (&raw mut found).cast());
        if found.tables != 1 || found.unsuitable {
            return None;
        }
        let (table, columns) = level(&**query)?;
        Some(columns.into_iter().map(|number| number.and_then(|number| column_name(table, number))).collect())
    }
}
