//! Names as they are compared: one normal form, words, and what kind each word is.

pub mod normalise;
pub mod script;
pub mod similar;
pub mod word;

pub use normalise::{Word, normalise, words};
pub use script::is_mixed;
pub use word::{Kind, Token, tokens};
