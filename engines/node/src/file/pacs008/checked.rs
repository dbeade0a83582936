//! A message in two passes: all of it is read and its control totals are compared, only then it is handed on. A file
//! that is cut off, or whose totals do not agree, submits nothing.

use std::fs::File;
use std::io::Seek;

use deltran_api::token::v1::SettlementModel;

use super::header::Totals;
use super::{BadMessage, Message};
use crate::file::source::{Parsed, Source, Unusable};

/// A message whose totals agree.
pub struct Checked {
    message: Message<File>,
    model: SettlementModel,
    totals: Totals,
}

impl Checked {
    /// Reads a file through and opens it again; nothing where `checking`, told how many bytes were read, says no.
    ///
    /// # Errors
    /// Where the message cannot be used as a whole.
    pub fn open(
        mut file: File,
        model: SettlementModel,
        checking: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Self>, Unusable> {
        file.rewind()?;
        let mut first = Message::open(&file)?;
        while first.next_transaction()?.is_some() {
            if !checking(first.bytes()) {
                return Ok(None);
            }
        }
        first.header.agrees(&first.totals)?;
        let (header, totals) = (first.header, first.totals);
        file.rewind()?;
        let message = Message::open(file)?;
        if message.header != header {
            return Err(changed(&message).into());
        }
        Ok(Some(Self { message, model, totals }))
    }
}

impl Source for Checked {
    fn next_item(&mut self) -> Result<Option<Parsed>, Unusable> {
        match self.message.next_transaction()? {
            Some(transaction) => Ok(Some(transaction.parsed(&self.message.header, self.model))),
            None if self.message.totals == self.totals => Ok(None),
            None => Err(changed(&self.message).into()),
        }
    }

    fn bytes(&self) -> u64 {
        self.message.bytes()
    }
}

fn changed(message: &Message<File>) -> BadMessage {
    message.bad("the file was changed while it was read: look at what was submitted, then hand it in again")
}
