//! Rows whose fields are listed once: the list makes the struct, the SQL, the reading of a row, the JSON, and what
//! the API's document says of each field.

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::store::connect::Checkout;
use crate::store::error::Error;
use crate::store::reading::rows::Attributes;
use crate::units::Stamp;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 32 bits.
    Integer,
    /// 64 bits.
    Long,
    /// A number with a fraction.
    Real,
    /// Text.
    Text,
    /// Texts.
    Texts,
    /// Keys.
    Integers,
    /// True or false.
    Boolean,
    /// An instant.
    Time,
    /// Texts by name.
    Attributes,
}

/// A field of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it says, as a sentence.
    pub about: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// May be `null`.
    pub nullable: bool,
    /// Where it comes from.
    pub(super) sql: &'static str,
}

/// A kind of row.
pub trait Record: serde::Serialize + Sized + Send + Sync {
    /// Its fields, in order.
    const FIELDS: &'static [Field];
    /// What messages say was attempted.
    const ATTEMPT: &'static str;
    /// Tables and joins.
    const FROM: &'static str;
    /// The key.
    const KEY: &'static str;
    /// Which rows count, by the parameters of [`list_sql`]; for parts of a VM, which are there.
    const WHERE: &'static str;

    /// Its key.
    fn key(&self) -> i32;

    /// Takes the fields one by one.
    ///
    /// # Errors
    /// When a column is not of its field's type.
    fn take(cells: &mut Cells<'_>) -> Result<Self, Error>;
}

/// The columns of a row, from left to right.
#[derive(Debug)]
pub struct Cells<'row> {
    connection: &'row Checkout,
    row: &'row Row,
    next: usize,
}

impl<'row> Cells<'row> {
    pub(super) fn next<T: FromSql<'row>>(&mut self) -> Result<T, Error> {
        let column = self.next;
        self.next += 1;
        self.connection.read(self.row, column)
    }
}

pub(super) fn read<T: Record>(connection: &Checkout, row: &Row) -> Result<T, Error> {
    T::take(&mut Cells {
        connection,
        row,
        next: 0,
    })
}

fn select<T: Record>() -> String {
    let columns: Vec<&str> = T::FIELDS.iter().map(|field| field.sql).collect();
    format!("SELECT {} FROM {}", columns.join(", "), T::FROM)
}

/// Parameters: 1 names of platforms in scope, 2 platforms, 3 name, 4 part of the name, 5 power state, 6 cluster,
/// 7 host, 8 datastore, 9 whether gone, 10 the key before, 11 how many.
pub(super) fn list_sql<T: Record>() -> String {
    format!(
        "{} WHERE ($1 IS NULL OR platform.name = ANY ($1)) AND (cardinality($2) = 0 OR platform.platform_id = ANY ($2)) \
         AND {key} > $10 AND {} ORDER BY {key} LIMIT $11",
        select::<T>(),
        T::WHERE,
        key = T::KEY,
    )
}

/// Parameters: 1 names of platforms in scope, 2 the key.
pub(super) fn find_sql<T: Record>() -> String {
    format!(
        "{} WHERE ($1 IS NULL OR platform.name = ANY ($1)) AND {} = $2",
        select::<T>(),
        T::KEY
    )
}

/// Parameter: 1 the VM.
pub(super) fn parts_sql<T: Record>() -> String {
    format!(
        "{} WHERE vm_id = $1 AND {} ORDER BY {}",
        select::<T>(),
        T::WHERE,
        T::KEY
    )
}

/// What the types of fields hold.
pub(super) trait Value {
    const KIND: Kind;
    const NULLABLE: bool = false;
}

macro_rules! values {
    ($($type:ty: $kind:ident),* $(,)?) => {
        $(impl Value for $type {
            const KIND: Kind = Kind::$kind;
        })*
    };
}

values! {
    i32: Integer,
    i64: Long,
    f32: Real,
    f64: Real,
    String: Text,
    Vec<String>: Texts,
    Vec<i32>: Integers,
    bool: Boolean,
    Stamp: Time,
    Attributes: Attributes,
}

impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;
    const NULLABLE: bool = true;
}

/// The name of a field in JSON: `r#type` is `type`.
pub(super) const fn json_name(identifier: &'static str) -> &'static str {
    match identifier.as_bytes() {
        [b'r', b'#', ..] => identifier.split_at(2).1,
        _ => identifier,
    }
}

/// Declares a record. Every field has one line of description and its place in SQL.
macro_rules! record {
    (
        $(#[$attribute:meta])*
        $record:ident: $attempt:literal, from $from:literal, key $key:ident = $key_sql:literal, where $where:literal;
        $( #[doc = $about:literal] $field:ident: $type:ty = $sql:literal, )*
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        pub struct $record {
            $( #[doc = $about] pub $field: $type, )*
        }

        impl $crate::store::reading::record::Record for $record {
            const FIELDS: &'static [$crate::store::reading::record::Field] = &[
                $( $crate::store::reading::record::Field {
                    name: $crate::store::reading::record::json_name(stringify!($field)),
                    about: $about.trim_ascii(),
                    kind: <$type as $crate::store::reading::record::Value>::KIND,
                    nullable: <$type as $crate::store::reading::record::Value>::NULLABLE,
                    sql: $sql,
                }, )*
            ];
            const ATTEMPT: &'static str = $attempt;
            const FROM: &'static str = $from;
            const KEY: &'static str = $key_sql;
            const WHERE: &'static str = $where;

            fn key(&self) -> i32 {
                self.$key
            }

            fn take(
                cells: &mut $crate::store::reading::record::Cells<'_>,
            ) -> Result<Self, $crate::store::error::Error> {
                Ok(Self { $( $field: cells.next()?, )* })
            }
        }
    };
}
pub(super) use record;
