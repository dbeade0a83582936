//! Texts on their way into a value.

use std::borrow::Cow;

use serde::Deserialize;

/// A text that is read where it stands, as far as nothing in it is escaped, and copied else. Reading a `Cow` copies always.
#[derive(Debug, Deserialize)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);
