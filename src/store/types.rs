//! Our values as the driver's parameters.

use std::error::Error;

use bytes::{BufMut as _, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::units::Stamp;

/// PostgreSQL counts microseconds from 2000-01-01, we from 1970-01-01.
const EPOCH_OFFSET_MICROS: i64 = 946_684_800_000_000;

/// An instant as a `timestamptz` holds it.
pub(super) const fn to_postgres_micros(stamp: Stamp) -> i64 {
    stamp.micros().saturating_sub(EPOCH_OFFSET_MICROS)
}

impl ToSql for Stamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_i64(to_postgres_micros(*self));
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Stamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self::from_micros(micros.saturating_add(EPOCH_OFFSET_MICROS)))
    }

    accepts!(TIMESTAMPTZ);
}
