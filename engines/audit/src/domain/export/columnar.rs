//! Writing Parquet: a row group at a time, so that memory stays that of one.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::cells::Cells;

/// Rows of a group.
const GROUP: usize = 10_000;

const SCHEMA: &str = "message event {
    required int64 leaf_index;
    required int64 recorded_at (TIMESTAMP(MICROS,true));
    optional int64 occurred_at (TIMESTAMP(MICROS,true));
    required binary domain (STRING);
    required binary event_type (STRING);
    optional binary participant (STRING);
    optional binary payer (STRING);
    optional binary payee (STRING);
    optional fixed_len_byte_array(16) amount (DECIMAL(38,4));
    optional binary currency (STRING);
    optional binary state (STRING);
    optional binary reason (STRING);
    optional binary correlation_id (STRING);
    optional binary event_id (STRING);
    required binary source (STRING);
    optional binary producer (STRING);
    optional int64 producer_seq;
    optional binary invalid (STRING);
    required binary subject (STRING);
    required binary stream (STRING);
    required int64 stream_sequence;
    required fixed_len_byte_array(32) leaf_hash;
    required binary data (STRING);
}";

/// Where the writer leaves its bytes until they are taken.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file under construction. The same rows give the same bytes.
pub struct Columnar {
    writer: SerializedFileWriter<Sink>,
    sink: Sink,
    rows: Vec<Cells>,
}

type Group<'a> = SerializedRowGroupWriter<'a, Sink>;

impl Columnar {
    /// A file without rows.
    ///
    /// # Errors
    /// Where it cannot be begun: a defect.
    pub fn new() -> Result<Self, ParquetError> {
        let properties = WriterProperties::builder()
            .set_created_by("deltran".to_owned())
            .set_compression(Compression::SNAPPY)
            .build();
        let sink = Sink::default();
        let writer =
            SerializedFileWriter::new(sink.clone(), Arc::new(parse_message_type(SCHEMA)?), Arc::new(properties))?;
        Ok(Self { writer, sink, rows: Vec::new() })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Where it does not fit the columns: a defect.
    pub fn add(&mut self, cells: Cells) -> Result<(), ParquetError> {
        self.rows.push(cells);
        if self.rows.len() < GROUP { Ok(()) } else { self.group() }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Where it cannot be ended: a defect.
    pub fn finish(&mut self) -> Result<(), ParquetError> {
        if !self.rows.is_empty() {
            self.group()?;
        }
        self.writer.finish()?;
        Ok(())
    }

    /// The bytes that were written since they were last taken.
    pub fn take(&mut self) -> Vec<u8> {
        // What the writer still buffers comes with the next row group, or the end.
        std::mem::take(&mut *self.sink.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        numbers(&mut group, &rows, |r| Some(r.leaf_index as i64), false)?;
        numbers(&mut group, &rows, |r| Some(r.recorded_at.micros()), false)?;
        numbers(&mut group, &rows, |r| r.occurred_at.map(|at| at.micros()), true)?;
        texts(&mut group, &rows, |r| Some(&r.domain), false)?;
        texts(&mut group, &rows, |r| Some(&r.event_type), false)?;
        texts(&mut group, &rows, |r| r.participant.as_deref(), true)?;
        texts(&mut group, &rows, |r| r.payer.as_deref(), true)?;
        texts(&mut group, &rows, |r| r.payee.as_deref(), true)?;
        fixed(&mut group, &rows, |r| r.scaled().map(|n| n.to_be_bytes().to_vec()), true)?;
        texts(&mut group, &rows, |r| r.currency.as_deref(), true)?;
        texts(&mut group, &rows, |r| r.state.as_deref(), true)?;
        texts(&mut group, &rows, |r| r.reason.as_deref(), true)?;
        texts(&mut group, &rows, |r| r.correlation_id.as_deref(), true)?;
        texts(&mut group, &rows, |r| r.event_id.as_deref(), true)?;
        texts(&mut group, &rows, |r| Some(&r.source), false)?;
        texts(&mut group, &rows, |r| r.producer.as_ref().map(|(p, _)| p.as_str()), true)?;
        numbers(&mut group, &rows, |r| r.producer.as_ref().map(|(_, n)| *n as i64), true)?;
        texts(&mut group, &rows, |r| r.invalid.as_deref(), true)?;
        texts(&mut group, &rows, |r| Some(&r.subject), false)?;
        texts(&mut group, &rows, |r| Some(&r.stream.0), false)?;
        numbers(&mut group, &rows, |r| Some(r.stream.1 as i64), false)?;
        fixed(&mut group, &rows, |r| Some(r.leaf_hash.clone()), false)?;
        texts(&mut group, &rows, |r| Some(&r.data), false)?;
        group.close()?;
        Ok(())
    }
}

/// A column writes the values that are there, and which rows have one where they may lack it.
macro_rules! column {
    ($name:ident, $type:ty, $value:ty, $given:ty, $make:expr) => {
        fn $name<'r>(
            group: &mut Group<'_>,
            rows: &'r [Cells],
            of: impl Fn(&'r Cells) -> Option<$given>,
            optional: bool,
        ) -> Result<(), ParquetError> {
            let mut values: Vec<$value> = Vec::with_capacity(rows.len());
            let mut levels: Vec<i16> = Vec::with_capacity(rows.len());
            for row in rows {
                let value = of(row);
                levels.push(i16::from(value.is_some()));
                values.extend(value.map($make));
            }
            let missing = || ParquetError::General("the schema has fewer columns".to_owned());
            let mut column = group.next_column()?.ok_or_else(missing)?;
            column.typed::<$type>().write_batch(&values, optional.then_some(levels.as_slice()), None)?;
            column.close()
        }
    };
}
column!(numbers, Int64Type, i64, i64, |n| n);
column!(texts, ByteArrayType, ByteArray, &'r str, ByteArray::from);
column!(fixed, FixedLenByteArrayType, FixedLenByteArray, Vec<u8>, FixedLenByteArray::from);

#[cfg(test)]
mod tests {
    use super::super::cells::tests::stored;
    use super::*;
    use bytes::Bytes;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    #[test]
    fn rows_come_back_with_their_types() {
        let write = || {
            let mut file = Columnar::new().unwrap();
            let mut bytes = Vec::new();
            for index in 0..(GROUP as i64 + 5) {
                let line = format!(r#"{{"data":{{"amount":"-{index}.05","currency":"USD"}}}}"#);
                file.add(Cells::of(&stored(index, if index == 2 { "{}" } else { &line }))).unwrap();
                bytes.extend(file.take());
            }
            file.finish().unwrap();
            bytes.extend(file.take());
            bytes
        };
        let bytes = write();
        assert_eq!(bytes, write(), "the same rows give the same bytes");
        let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 2);
        let mut seen = 0;
        for (index, row) in reader.get_row_iter(None).unwrap().enumerate() {
            let row = row.unwrap();
            let field = |name: &str| row.get_column_iter().find(|(n, _)| *n == name).unwrap().1.clone();
            assert_eq!(field("leaf_index"), Field::Long(index as i64));
            assert_eq!(field("recorded_at"), Field::TimestampMicros(1_762_430_400_000_000));
            assert_eq!(field("occurred_at"), Field::Null);
            match field("amount") {
                Field::Null => assert_eq!(index, 2),
                Field::Decimal(decimal) => {
                    let scaled = i128::from_be_bytes(decimal.data().try_into().unwrap());
                    assert_eq!(
                        (scaled, decimal.precision(), decimal.scale()),
                        (-(index as i128 * 10_000 + 500), 38, 4)
                    );
                }
                other => panic!("{other:?}"),
            }
            seen += 1;
        }
        assert_eq!(seen, GROUP + 5);
    }
}
