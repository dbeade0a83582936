//! Files that are handed in: CSV, read line by line in flat memory.

pub mod csv;
mod lane;
pub mod line;
pub mod participants;
pub mod report;
pub mod submit;
mod tally;
