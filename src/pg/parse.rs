//! Text of users that becomes a part of our statements: parsed first, so that it cannot become more than that.

use std::ffi::CString;

use pgrx::{PgList, PgSqlErrorCode, pg_sys};

use super::transaction;
use crate::error::{IotError, IotResult};

/// Whether `text` is exactly one CREATE INDEX. Raises what the parser says against it.
pub fn is_one_index(text: &str) -> bool {
    is_one(text, pg_sys::NodeTag::T_IndexStmt)
}

/// Refuses what is not one expression and nothing beside it: in brackets of ours it stays within them. What may stand in
/// WHERE is for PostgreSQL to say when the statement is analyzed. A comment may come last: put a line's end behind it.
///
/// # Errors
/// 42601 that names `argument`.
pub fn check_expression(argument: &str, text: &str) -> IotResult<()> {
    let refusal = |why: &str| {
        IotError::new(
            PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
            format!("{argument} \"{text}\" is not one SQL expression: {why}"),
        )
        .hint("Give what may stand behind WHERE, such as alert_status = 'resolved'.")
    };
    let Ok(c_text) = CString::new(text) else { return Err(refusal("it contains a NUL character")) };
    // In a subtransaction, so that the error does not point into the statement that brought the text.
    match transaction::catch(|| Ok(is_one_expression(&c_text))) {
        Ok(true) => Ok(()),
        Ok(false) => Err(refusal("there is more to it")),
        Err(failure) if failure.code == PgSqlErrorCode::ERRCODE_SYNTAX_ERROR => {
            Err(refusal(&failure.message))
        }
        Err(failure) => Err(failure.into()),
    }
}

/// The grammar of PL/pgSQL's expressions is that of SELECT without its first word: all the rest of it must be absent.
fn is_one_expression(text: &CString) -> bool {
    // SAFETY: the grammar alone, as below; it makes one SelectStmt of what it takes, whose list holds ResTargets.
    unsafe {
        let statements = PgList::<pg_sys::RawStmt>::from_pg(pg_sys::raw_parser(
            text.as_ptr(),
            pg_sys::RawParseMode::RAW_PARSE_PLPGSQL_EXPR,
        ));
        let Some(statement) = statements.get_ptr(0).filter(|_| statements.len() == 1) else { return false };
        let select = (*statement).stmt.cast::<pg_sys::SelectStmt>();
        if (*select).type_ != pg_sys::NodeTag::T_SelectStmt {
            return false;
        }
        let targets = PgList::<pg_sys::ResTarget>::from_pg((*select).targetList);
        let is_alone = targets.len() == 1
            && targets
                .get_ptr(0)
                .is_some_and(|target| (*target).name.is_null() && (*target).indirection.is_null());
        is_alone
            && [(*select).distinctClause, (*select).fromClause, (*select).groupClause, (*select).windowClause]
                .iter()
                .chain(&[(*select).valuesLists, (*select).sortClause, (*select).lockingClause])
                .all(|clause| clause.is_null())
            && [(*select).whereClause, (*select).havingClause, (*select).limitOffset, (*select).limitCount]
                .iter()
                .all(|clause| clause.is_null())
            && (*select).intoClause.is_null()
            && (*select).withClause.is_null()
            && (*select).op == pg_sys::SetOperation::SETOP_NONE
    }
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
