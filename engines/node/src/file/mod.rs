//! Files that are handed in: CSV line by line, ISO 20022 messages element by element, both in flat memory.

pub mod csv;
mod lane;
pub mod line;
pub mod pacs008;
pub mod participants;
pub mod report;
pub mod source;
pub mod submit;
mod tally;
mod xml;
