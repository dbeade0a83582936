//! Rows of leaves on their way into Postgres: COPY in its binary form, one pass over the batch and no statement per row.

use bytes::{BufMut, BytesMut};
use deltran_kernel::Timestamp;
use deltran_runtime::DbError;
use sqlx::PgConnection;

use super::instant::to_postgres;
use crate::domain::sequence::Placed;

/// The columns in the order in which [`row`] writes them.
const COPY: &str =
    "COPY leaf (leaf_index, recorded_at, leaf_hash, envelope, wrapped, event_id, subject, domain, event_type,
    occurred_at, source, participant_id, correlation_id, producer, producer_seq, source_stream, source_sequence, valid,
    invalid_reason) FROM STDIN (FORMAT binary)";
const COLUMNS: i16 = 19;
/// Signature, flags and length of an extension that is not there.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const END: i16 = -1;
/// The server works on a piece while the next one is written.
const PIECE: usize = 128 * 1024;

/// Inserts leaves from index `first` on, all recorded at one time; how many there were.
pub(super) async fn insert(
    tx: &mut PgConnection,
    first: i64,
    recorded_at: Timestamp,
    leaves: impl Iterator<Item = Placed> + Send,
) -> Result<u64, DbError> {
    let mut rows = (first..).zip(leaves).peekable();
    if rows.peek().is_none() {
        return Ok(0);
    }
    let mut written = 0;
    let mut copy = tx.copy_in_raw(COPY).await?;
    let mut buffer = BytesMut::with_capacity(PIECE + PIECE / 2);
    buffer.put_slice(HEADER);
    for (index, placed) in rows {
        row(&mut buffer, index, recorded_at, &placed);
        written += 1;
        if buffer.len() >= PIECE {
            copy.send(&buffer[..]).await?;
            buffer.clear();
        }
    }
    buffer.put_i16(END);
    copy.send(&buffer[..]).await?;
    let inserted = copy.finish().await?;
    if inserted != written {
        return Err(DbError::Other(format!("{written} leaves were inserted as {inserted}")));
    }
    Ok(written)
}

fn row(buffer: &mut BytesMut, index: i64, recorded_at: Timestamp, placed: &Placed) {
    let leaf = &placed.leaf;
    let c = &leaf.columns;
    buffer.put_i16(COLUMNS);
    number(buffer, Some(index));
    number(buffer, Some(to_postgres(recorded_at)));
    field(buffer, Some(&leaf.hash));
    field(buffer, Some(&leaf.envelope));
    truth(buffer, leaf.raw.is_some());
    field(buffer, c.event_id.as_ref().map(|id| id.as_bytes().as_slice()));
    text(buffer, Some(&leaf.subject));
    text(buffer, Some(&c.domain));
    text(buffer, Some(&c.event_type));
    number(buffer, c.occurred_at.map(to_postgres));
    text(buffer, Some(&c.source));
    text(buffer, c.participant_id.as_deref());
    text(buffer, c.correlation_id.as_deref());
    text(buffer, c.producer.as_ref().map(|(producer, _)| producer.as_str()));
    number(buffer, c.producer.as_ref().map(|(_, seq)| *seq as i64));
    text(buffer, Some(&placed.origin.0));
    number(buffer, Some(placed.origin.1 as i64));
    truth(buffer, c.invalid_reason.is_none());
    text(buffer, c.invalid_reason.as_deref());
}

/// A value behind its length; no value has the length -1.
fn field(buffer: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            // An envelope is at most 65,535 bytes, and everything else is shorter.
            buffer.put_i32(value.len() as i32);
            buffer.put_slice(value);
        }
        None => buffer.put_i32(-1),
    }
}

fn text(buffer: &mut BytesMut, value: Option<&str>) {
    field(buffer, value.map(str::as_bytes));
}

fn number(buffer: &mut BytesMut, value: Option<i64>) {
    field(buffer, value.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
}

fn truth(buffer: &mut BytesMut, value: bool) {
    field(buffer, Some(&[u8::from(value)]));
}
