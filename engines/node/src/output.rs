//! What commands print: tables for people, one JSON document for machines.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use deltran_api::common::v1::Money;
use deltran_kernel::Timestamp;
use indicatif::{ProgressBar, ProgressStyle};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json};

/// How a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
}

impl Output {
    /// Prints a message of the contract, by its full name: as JSON, or as `people` puts it.
    pub fn show<M: Message>(self, name: &str, message: &M, people: impl FnOnce(&M) -> String) {
        if self.json {
            self.value(&json_of(name, message));
        } else {
            say(&people(message));
        }
    }

    /// Prints a JSON document over several lines.
    pub fn value(self, value: &Value) {
        say(&serde_json::to_string_pretty(value).unwrap_or_else(|e| json!({ "error": e.to_string() }).to_string()));
    }

    /// Prints a JSON document, or as `people` puts it.
    pub fn value_or(self, value: &Value, people: impl FnOnce() -> String) {
        if self.json {
            self.value(value);
        } else {
            say(&people());
        }
    }

    /// Whether a person looks on while a command runs.
    pub fn watched(self) -> bool {
        !self.json && std::io::stderr().is_terminal()
    }

    /// A bar for long work, counting in `what`.
    pub fn bar(self, what: &str) -> ProgressBar {
        self.bar_like(&format!("{{bar:40}} {{human_pos}}/{{human_len}} {what}, {{eta}} left"), 0)
    }

    /// A bar for long work as a template of `indicatif` has it; hidden where nobody looks on.
    pub fn bar_like(self, template: &str, length: u64) -> ProgressBar {
        if !self.watched() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(length).with_style(style)
    }

    /// Prints one item of an endless answer: a JSON document on a line of its own, or a line of text. False where
    /// nobody reads any more.
    pub fn line<M: Message>(self, name: &str, message: &M, people: impl FnOnce(&M) -> String) -> bool {
        if self.json { say(&json_of(name, message).to_string()) } else { say(&people(message)) }
    }
}

/// Writes a text and a line end to standard output; false where nobody reads it.
pub fn say(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

fn pool() -> Option<&'static DescriptorPool> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(deltran_api::DESCRIPTORS).ok()).as_ref()
}

/// A message of the contract as JSON: names as in the contract, 64-bit numbers as numbers, every field present, bytes in
/// base64.
pub fn json_of<M: Message>(name: &str, message: &M) -> Value {
    let options =
        SerializeOptions::new().stringify_64_bit_integers(false).use_proto_field_name(true).skip_default_fields(false);
    pool()
        .and_then(|pool| pool.get_message_by_name(name))
        .and_then(|descriptor| DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok())
        .and_then(|dynamic| dynamic.serialize_with_options(serde_json::value::Serializer, &options).ok())
        .unwrap_or_else(|| json!({ "error": format!("{name} cannot be shown as JSON") }))
}

/// A table. Columns that hold numbers only are aligned to the right.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    let numeric: Vec<bool> = (0..N)
        .map(|column| !rows.is_empty() && rows.iter().all(|row| row[column].is_empty() || is_number(&row[column])))
        .collect();
    for row in rows {
        table.add_row(row.into_iter().zip(&numeric).map(|(text, numeric)| {
            let alignment = if *numeric { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(text).set_alignment(alignment)
        }));
    }
    table.to_string()
}

/// A thing with its properties, one a row; empty ones are left out.
pub fn sheet<'a>(properties: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    for (name, value) in properties.into_iter().filter(|(_, value)| !value.is_empty()) {
        table.add_row([name.to_owned(), value]);
    }
    table.to_string()
}

fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches('-');
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '%' | ' '))
}

/// An amount with its currency; empty where there is none.
pub fn money(value: &Option<Money>) -> String {
    value.as_ref().map(|m| format!("{} {}", m.amount, m.currency)).unwrap_or_default()
}

/// An amount without its currency; empty where there is none.
pub fn amount(value: &Option<Money>) -> String {
    value.as_ref().map(|m| m.amount.clone()).unwrap_or_default()
}

/// The currency of an amount.
pub fn currency(value: &Option<Money>) -> String {
    value.as_ref().map(|m| m.currency.clone()).unwrap_or_default()
}

/// A moment to the millisecond, in UTC; empty where there is none.
pub fn time(value: &Option<prost_types::Timestamp>) -> String {
    let Some(at) = value else { return String::new() };
    let micros = at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1000);
    format!("{:.3}", Timestamp::from_micros(micros).to_jiff())
}

/// A number with a space between thousands: `112 978`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// How many rows a list shows.
pub fn shown(rows: usize, what: &str, more: bool) -> String {
    if more { format!("{what}: {rows} shown, there are more; --limit 0 shows all") } else { format!("{what}: {rows}") }
}

#[cfg(test)]
mod tests {
    use deltran_api::clearing::v1::{GetWindowResponse, Window};

    use super::*;

    #[test]
    fn messages_become_json_with_the_names_of_the_contract() {
        let window = Window {
            window_id: "w".into(),
            state: 2,
            count: 9_007_199_254_740_993,
            opened_at: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            ..Window::default()
        };
        let json = json_of("deltran.clearing.v1.GetWindowResponse", &GetWindowResponse { window: Some(window) });
        assert_eq!(json["window"]["window_id"], "w");
        assert_eq!(json["window"]["state"], "OPEN");
        assert_eq!(json["window"]["count"], 9_007_199_254_740_993_u64);
        assert_eq!(json["window"]["opened_at"], "1970-01-01T00:00:00Z");
        assert_eq!(json["window"]["note"], "");
    }

    #[test]
    fn numbers_stand_to_the_right() {
        let text = table(["who", "amount"], [["A".into(), "1.00".into()], ["B".into(), "-100.00".into()]]);
        assert!(text.contains("    1.00 │"), "{text}");
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1 000"), (112_978, "112 978"), (1_000_000, "1 000 000")]
        {
            assert_eq!(count(number), text);
        }
    }
}
