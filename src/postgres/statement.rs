//! A statement of fixed text that is prepared once a connection.
//!
//! Diesel's `sql_query` takes its text for one that may be different each time, and has PostgreSQL
//! plan it anew: a millisecond for the look for work, four times what the look itself costs.

use std::borrow::Cow;
use std::marker::PhantomData;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{HasSqlType, Untyped};

/// A statement with the values of its parameters. Rows are read by the names of their columns.
pub(super) struct Statement<'a> {
    sql: Cow<'static, str>,
    binds: Vec<Box<dyn QueryFragment<Pg> + 'a>>,
}

/// Makes a statement. Its parameters are written `$1` to `$9`, and bound in this order.
pub(super) fn statement<'a>(sql: impl Into<Cow<'static, str>>) -> Statement<'a> {
    Statement { sql: sql.into(), binds: Vec::new() }
}

impl<'a> Statement<'a> {
    /// Gives the next parameter its value.
    pub fn bind<Type, Value>(mut self, value: Value) -> Self
    where
        Type: 'a,
        Value: ToSql<Type, Pg> + 'a,
        Pg: HasSqlType<Type>,
    {
        self.binds.push(Box::new(Bind { value, sql_type: PhantomData::<Type> }));
        self
    }
}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // Diesel numbers the parameters itself, in the order in which they are pushed; one that
        // occurs twice is two to it.
        let mut parts = self.sql.split('$');
        out.push_sql(parts.next().unwrap_or_default());
        for part in parts {
            let number = part.as_bytes()[0] - b'0';
            self.binds[usize::from(number) - 1].walk_ast(out.reborrow())?;
            out.push_sql(&part[1..]);
        }
        Ok(())
    }
}

impl QueryId for Statement<'_> {
    type QueryId = ();
    // Told apart by its text, and by the types of its parameters.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}

impl<Conn> RunQueryDsl<Conn> for Statement<'_> {}

struct Bind<Type, Value> {
    value: Value,
    sql_type: PhantomData<Type>,
}

impl<Type, Value> QueryFragment<Pg> for Bind<Type, Value>
where
    Value: ToSql<Type, Pg>,
    Pg: HasSqlType<Type>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param::<Type, Value>(&self.value)
    }
}

#[cfg(test)]
mod tests {
    use diesel::debug_query;
    use diesel::sql_types::{Integer, Text};

    use super::*;

    #[test]
    fn parameters_stand_where_they_are_written_however_often() {
        let statement =
            statement("SELECT $2, $1 WHERE $2 > 1").bind::<Text, _>("a").bind::<Integer, _>(7);
        let text = debug_query::<Pg, _>(&statement).to_string();
        assert_eq!(text, r#"SELECT $1, $2 WHERE $3 > 1 -- binds: [7, "a", 7]"#);
    }
}
