//! What the expressions of an analyzed query are: equalities, parts of conditions, subqueries that read tables. What
//! follows from that for persons is in `scope`.

use std::ffi::c_void;

use pgrx::pg_guard;
use pgrx::pg_sys::{self, Node, NodeTag};

use super::copies::nodes;

/// Whether a query reads any table. `context` is not used.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn reads_table(node: *mut Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the tag says which node it is.
    unsafe {
        if (*node).type_ == NodeTag::T_Query {
            let query = node.cast::<pg_sys::Query>();
            let table = |entry: &*mut pg_sys::RangeTblEntry| {
                matches!((**entry).rtekind, pg_sys::RTEKind::RTE_RELATION | pg_sys::RTEKind::RTE_CTE)
            };
            return nodes::<pg_sys::RangeTblEntry>((*query).rtable).iter().any(table)
                || pg_sys::query_tree_walker(query, Some(reads_table), context, 0);
        }
        pg_sys::expression_tree_walker(node, Some(reads_table), context)
    }
}

/// Counts the subqueries of one level's expressions that read a table; `context` is the count.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn count_subqueries(node: *mut Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the tag says which node it is; the context is what `level` passed.
    unsafe {
        if (*node).type_ == NodeTag::T_SubLink {
            let link = &*node.cast::<pg_sys::SubLink>();
            *context.cast::<usize>() += usize::from(reads_table(link.subselect, std::ptr::null_mut()));
            return count_subqueries(link.testexpr, context);
        }
        pg_sys::expression_tree_walker(node, Some(count_subqueries), context)
    }
}

/// What an expression is that only goes by another type, such as a varchar that is compared as a text: the same value.
pub(super) unsafe fn relabelled(mut node: *mut Node) -> *mut Node {
    // SAFETY: the tag says which node it is.
    unsafe {
        while (*node).type_ == NodeTag::T_RelabelType {
            node = (*node.cast::<pg_sys::RelabelType>()).arg.cast();
        }
    }
    node
}

/// The sides of an equality that indexes and hash tables understand.
pub(super) unsafe fn equal(node: *mut Node) -> Option<(*mut Node, *mut Node)> {
    // SAFETY: the tag says which node it is.
    unsafe {
        if (*node).type_ != NodeTag::T_OpExpr {
            return None;
        }
        let operator = &*node.cast::<pg_sys::OpExpr>();
        let [left, right] = nodes::<Node>(operator.args) else { return None };
        pg_sys::op_mergejoinable(operator.opno, pg_sys::exprType(*left)).then_some((*left, *right))
    }
}

/// The parts of a condition that AND or OR join.
pub(super) unsafe fn parts<'a>(
    node: *mut Node,
    joined_by: pg_sys::BoolExprType::Type,
) -> Option<&'a [*mut Node]> {
    // SAFETY: the tag says which node it is.
    unsafe {
        if (*node).type_ != NodeTag::T_BoolExpr {
            return None;
        }
        let expression = &*node.cast::<pg_sys::BoolExpr>();
        (expression.boolop == joined_by).then(|| nodes::<Node>(expression.args))
    }
}
