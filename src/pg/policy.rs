//! Expressions of row security policies as text.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

use crate::error::{IotError, IotResult};

/// The text of `expression` (a `pg_node_tree` about one relation) for a relation of the same columns that is called
/// `alias`: subqueries name the relation in front of its columns.
///
/// # Errors
/// 22023 for a NUL character.
pub fn deparse(expression: &str, relation: pg_sys::Oid, alias: &str) -> IotResult<String> {
    let with_nul = |_| IotError::invalid_argument("policy contains a NUL character");
    let (expression, alias) =
        (CString::new(expression).map_err(with_nul)?, CString::new(alias).map_err(with_nul)?);
    // SAFETY: the text comes from the catalogue, where such a tree was written; all results live in the current memory.
    unsafe {
        let node = pg_sys::stringToNode(expression.as_ptr());
        let context = pg_sys::deparse_context_for(alias.as_ptr(), relation);
        let text = pg_sys::deparse_expression(node.cast(), context, false, false);
        Ok(CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}
