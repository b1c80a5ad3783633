//! Text of users that becomes a part of our statements: parsed first, so that it cannot become more than that.

use std::ffi::CString;

use pgrx::{PgList, pg_sys};

/// Whether `text` is exactly one CREATE INDEX. Raises what the parser says against it.
pub fn is_one_index(text: &str) -> bool {
    is_one(text, pg_sys::NodeTag::T_IndexStmt)
}

/// Whether `text` is exactly one SELECT. Raises what the parser says against it.
pub fn is_one_select(text: &str) -> bool {
    is_one(text, pg_sys::NodeTag::T_SelectStmt)
}

fn is_one(text: &str, tag: pg_sys::NodeTag) -> bool {
    let Ok(text) = CString::new(text) else { return false };
    // SAFETY: the grammar alone: nothing is looked up or run. The list holds raw statements, in the current memory.
    unsafe {
        let statements = PgList::<pg_sys::RawStmt>::from_pg(pg_sys::raw_parser(
            text.as_ptr(),
            pg_sys::RawParseMode::RAW_PARSE_DEFAULT,
        ));
        statements.len() == 1
            && statements.get_ptr(0).is_some_and(|statement| (*(*statement).stmt).type_ == tag)
    }
}
