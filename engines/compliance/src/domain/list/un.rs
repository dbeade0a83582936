//! The consolidated list of the United Nations Security Council, in its XML form.
//!
//! A document type, and references other than to characters and the five entities of XML itself, are refused:
//! nothing is ever expanded or fetched.

use std::collections::BTreeSet;

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

use super::{BirthDate, Entry, EntryKind, IdKind, Identifier, ListError, Quality, check_name};

const FILE: &str = "consolidated.xml";
/// Elements within each other; the list has six.
const DEEPEST: usize = 16;

/// Reads the entries, and the moment that the list was made.
pub fn parse(content: &[u8]) -> Result<(Vec<Entry>, Option<String>), ListError> {
    let text = std::str::from_utf8(content).map_err(|error| {
        let line = 1 + content[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        ListError::Line { file: FILE, line: line as u64, what: "this is not UTF-8".to_owned() }
    })?;
    let mut reader = Reader::from_str(text);
    let mut walk = Walk::default();
    let mut finished = false;
    loop {
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(_) => {
                let at = usize::try_from(reader.error_position()).unwrap_or(usize::MAX).min(text.len());
                let line = 1 + content[..at].iter().filter(|byte| **byte == b'\n').count();
                let what = format!("this is not well-formed XML, near {}", walk.place());
                return Err(ListError::Line { file: FILE, line: line as u64, what });
            }
        };
        match event {
            Event::Start(element) => walk.open(&element)?,
            Event::Empty(element) => {
                walk.open(&element)?;
                finished |= walk.close()?;
            }
            Event::End(_) => finished |= walk.close()?,
            Event::Text(text) => walk.text.push_str(&text.xml10_content()),
            Event::CData(text) => walk.text.push_str(&text.xml10_content()),
            Event::GeneralRef(reference) => walk.reference(&reference)?,
            Event::DocType(_) => return Err(walk.bad("a document type is not accepted")),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if !finished || !walk.path.is_empty() {
        return Err(walk.bad("the document ends before its root element"));
    }
    Ok((walk.entries, walk.dated))
}

#[derive(Default)]
struct Walk {
    path: Vec<String>,
    has_root: bool,
    text: String,
    dated: Option<String>,
    entries: Vec<Entry>,
    ids: BTreeSet<String>,
    raw: Raw,
}

/// An individual or an entity while it is read.
#[derive(Default)]
struct Raw {
    data_id: String,
    reference: String,
    names: Vec<String>,
    original: String,
    aliases: Vec<(String, Quality)>,
    countries: Vec<String>,
    born: Vec<BirthDate>,
    dates_are_not_whole: bool,
    identifiers: Vec<Identifier>,
    /// Fields of the alias, date or document that is being read.
    part: std::collections::BTreeMap<String, String>,
}

impl Walk {
    fn place(&self) -> String {
        let id = if self.raw.reference.is_empty() { &self.raw.data_id } else { &self.raw.reference };
        let path = if self.path.is_empty() { "the beginning".to_owned() } else { self.path.join("/") };
        if id.is_empty() {
            path
        } else {
            format!("{path} of {}", id.chars().filter(char::is_ascii_alphanumeric).take(20).collect::<String>())
        }
    }

    fn bad(&self, what: impl Into<String>) -> ListError {
        ListError::Element { file: FILE, element: self.place(), what: what.into() }
    }

    fn unknown(&self, element: &str) -> ListError {
        let element: String = element.chars().filter(char::is_ascii_graphic).take(40).collect();
        self.bad(format!("an element {element} is not known here"))
    }

    fn open(&mut self, element: &BytesStart<'_>) -> Result<(), ListError> {
        let name = element.name();
        let name: &str = name.as_ref();
        match self.path.len() {
            0 if name != "CONSOLIDATED_LIST" || self.has_root => {
                return Err(self.bad("the root element is not one CONSOLIDATED_LIST"));
            }
            0 => {
                self.has_root = true;
                let dated = element.try_get_attribute("dateGenerated").map_err(|_| self.bad("bad attributes"))?;
                self.dated = dated.map(|a| a.value.chars().take(40).filter(char::is_ascii_graphic).collect());
            }
            DEEPEST => return Err(self.bad("elements are nested too deeply")),
            // A part of the list that is not known might have names in it.
            1 if !matches!(name, "INDIVIDUALS" | "ENTITIES") => return Err(self.unknown(name)),
            2 => match (self.path[1].as_str(), name) {
                ("INDIVIDUALS", "INDIVIDUAL") | ("ENTITIES", "ENTITY") => self.raw = Raw::default(),
                _ => return Err(self.unknown(name)),
            },
            _ => {}
        }
        self.path.push(name.chars().take(40).collect());
        self.text.clear();
        Ok(())
    }

    fn reference(&mut self, reference: &BytesRef<'_>) -> Result<(), ListError> {
        let name: &str = reference;
        let c = match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => match reference.resolve_char_ref() {
                Ok(Some(c)) => c,
                _ => return Err(self.bad("a reference to an entity is not accepted")),
            },
        };
        self.text.push(c);
        Ok(())
    }

    /// Ends an element; true where it was the root.
    fn close(&mut self) -> Result<bool, ListError> {
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.text.clear();
        match self.path.get(1..).unwrap_or_default() {
            [section, element] if section == "INDIVIDUALS" && element == "INDIVIDUAL" => {
                self.finish(EntryKind::Person)?
            }
            [section, element] if section == "ENTITIES" && element == "ENTITY" => self.finish(EntryKind::Entity)?,
            _ => self.field(text),
        }
        self.path.pop();
        Ok(self.path.is_empty())
    }

    /// Takes an element that is part of an entry.
    fn field(&mut self, text: String) {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let raw = &mut self.raw;
        match path[..] {
            [_, _, "INDIVIDUAL" | "ENTITY", field] => match field {
                "DATAID" => raw.data_id = text,
                "REFERENCE_NUMBER" => raw.reference = text,
                "FIRST_NAME" | "SECOND_NAME" | "THIRD_NAME" | "FOURTH_NAME" => raw.names.push(text),
                "NAME_ORIGINAL_SCRIPT" => raw.original = text,
                "INDIVIDUAL_ALIAS" | "ENTITY_ALIAS" => raw.alias(),
                "INDIVIDUAL_DATE_OF_BIRTH" => raw.date(),
                "INDIVIDUAL_DOCUMENT" => raw.document(),
                _ => {}
            },
            [_, _, _, "NATIONALITY", "VALUE"] | [_, _, _, "INDIVIDUAL_ADDRESS" | "ENTITY_ADDRESS", "COUNTRY"] => {
                raw.countries.push(text)
            }
            [
                _,
                _,
                _,
                "INDIVIDUAL_ALIAS" | "ENTITY_ALIAS" | "INDIVIDUAL_DATE_OF_BIRTH" | "INDIVIDUAL_DOCUMENT",
                field,
            ] if !text.is_empty() => {
                raw.part.insert(field.to_owned(), text);
            }
            _ => {}
        }
    }

    fn finish(&mut self, kind: EntryKind) -> Result<(), ListError> {
        let raw = std::mem::take(&mut self.raw);
        let id = if raw.reference.is_empty() { raw.data_id.clone() } else { raw.reference.clone() };
        let primary = raw.names.iter().filter(|n| !n.is_empty()).cloned().collect::<Vec<_>>().join(" ");
        let refused = |what: String| ListError::Element { file: FILE, element: format!("entry {id}"), what };
        if id.is_empty() || id.len() > 64 {
            return Err(self.bad("the entry has no REFERENCE_NUMBER of at most 64 characters"));
        }
        if primary.is_empty() {
            return Err(refused("the entry has no name".to_owned()));
        }
        check_name(&primary).map_err(refused)?;
        let mut entry = Entry::new(id.clone(), kind, primary);
        if check_name(&raw.original).is_ok() {
            entry.also(&raw.original, Quality::Strong);
        }
        for (name, quality) in &raw.aliases {
            check_name(name).map_err(refused)?;
            entry.also(name, *quality);
        }
        raw.countries.iter().for_each(|country| entry.of_country(country));
        // A date that cannot be read might be the one that fits: then none may count against a match.
        if !raw.dates_are_not_whole {
            raw.born.into_iter().for_each(|date| entry.born_on(date));
        }
        raw.identifiers.into_iter().for_each(|identifier| entry.identified_by(identifier));
        if !self.ids.insert(id.clone()) {
            return Err(refused("the reference number stands twice".to_owned()));
        }
        self.entries.push(entry);
        Ok(())
    }
}

impl Raw {
    fn alias(&mut self) {
        let part = std::mem::take(&mut self.part);
        let Some(name) = part.get("ALIAS_NAME") else { return };
        let quality = match part.get("QUALITY").map(String::as_str) {
            Some("Low") => Quality::Weak,
            Some("f.k.a.") => Quality::Former,
            _ => Quality::Strong,
        };
        // Some aliases are several in one, some have a remark behind them.
        let mut add = |name: &str| {
            if name.chars().any(char::is_alphanumeric) {
                self.aliases.push((name.trim().to_owned(), quality));
            }
        };
        add(name);
        let plain = name.split_once(" (").map_or(name.as_str(), |(plain, _)| plain);
        plain.split(';').for_each(&mut add);
        if let Some((_, inside)) = name.split_once('(')
            && let Some((inside, _)) = inside.split_once(')')
            && !inside.is_ascii()
        {
            add(inside);
        }
    }

    fn date(&mut self) {
        let part = std::mem::take(&mut self.part);
        if part.keys().all(|key| key == "TYPE_OF_DATE" || key == "NOTE") {
            return;
        }
        let field = |name: &str| part.get(name).map(String::as_str);
        let read = match (field("DATE"), field("YEAR"), field("FROM_YEAR"), field("TO_YEAR")) {
            (Some(date), ..) => BirthDate::iso(date),
            (_, Some(year), ..) => BirthDate::iso(year),
            (_, _, Some(from), Some(to)) => match (from.parse(), to.parse()) {
                (Ok(from), Ok(to)) => BirthDate::years(from, to),
                _ => None,
            },
            _ => None,
        };
        let about = field("TYPE_OF_DATE").is_some_and(|kind| kind.eq_ignore_ascii_case("APPROXIMATELY"));
        match read {
            Some(date) => self.born.push(if about { date.about() } else { date }),
            None => self.dates_are_not_whole = true,
        }
    }

    fn document(&mut self) {
        let part = std::mem::take(&mut self.part);
        let Some(number) = part.get("NUMBER") else { return };
        let kinds = ["TYPE_OF_DOCUMENT", "TYPE_OF_DOCUMENT2"].map(|key| part.get(key).cloned().unwrap_or_default());
        let kind = kinds.join(" ").to_lowercase();
        let kind = if ["passport", "passeport", "pasaporte"].iter().any(|word| kind.contains(word)) {
            IdKind::Passport
        } else {
            IdKind::NationalId
        };
        let country = ["ISSUING_COUNTRY", "COUNTRY_OF_ISSUE"].iter().find_map(|key| part.get(*key));
        let country = country.and_then(|name| super::country::code_of(name)).map(str::to_owned);
        // A number may stand in a sentence; short ones may have a blank within.
        let has_digit = |text: &str| text.bytes().any(|b| b.is_ascii_digit());
        let mut values: Vec<&str> = number.split([' ', ',', ';']).filter(|word| has_digit(word)).collect();
        if number.len() <= 24 && has_digit(number) {
            values.push(number);
        }
        for value in values {
            let identifier = Identifier { kind, value: value.to_owned(), country: country.clone() };
            if identifier.key().is_some() && !self.identifiers.iter().any(|known| known.key() == identifier.key()) {
                self.identifiers.push(identifier);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(inside: &str) -> Vec<u8> {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<CONSOLIDATED_LIST dateGenerated=\"2026-02-27T00:00:09.554Z\">\
             <INDIVIDUALS>{inside}</INDIVIDUALS><ENTITIES/></CONSOLIDATED_LIST>"
        )
        .into_bytes()
    }

    const IVAN: &str = "<INDIVIDUAL><DATAID>1</DATAID><FIRST_NAME>IVAN</FIRST_NAME><SECOND_NAME>EXAMPLE &amp; SON</SECOND_NAME>
        <REFERENCE_NUMBER>XXi.001</REFERENCE_NUMBER><NAME_ORIGINAL_SCRIPT>Иван Пример</NAME_ORIGINAL_SCRIPT>
        <NATIONALITY><VALUE>Iran (Islamic Republic of)</VALUE></NATIONALITY>
        <INDIVIDUAL_ALIAS><QUALITY>Low</QUALITY><ALIAS_NAME>Vanya; Vanyusha</ALIAS_NAME></INDIVIDUAL_ALIAS>
        <INDIVIDUAL_ALIAS><QUALITY/><ALIAS_NAME/></INDIVIDUAL_ALIAS>
        <INDIVIDUAL_DATE_OF_BIRTH><TYPE_OF_DATE>BETWEEN</TYPE_OF_DATE><FROM_YEAR>1960</FROM_YEAR><TO_YEAR>1962</TO_YEAR></INDIVIDUAL_DATE_OF_BIRTH>
        <INDIVIDUAL_DATE_OF_BIRTH><TYPE_OF_DATE/></INDIVIDUAL_DATE_OF_BIRTH>
        <INDIVIDUAL_DOCUMENT><TYPE_OF_DOCUMENT>Passport</TYPE_OF_DOCUMENT><NUMBER>diplomatic passport no. D00000898</NUMBER><ISSUING_COUNTRY>Rwanda</ISSUING_COUNTRY></INDIVIDUAL_DOCUMENT>
        <INDIVIDUAL_DOCUMENT/></INDIVIDUAL>";

    #[test]
    fn an_entry_has_what_the_list_says() {
        let (entries, dated) = parse(&document(IVAN)).unwrap();
        assert_eq!(dated.as_deref(), Some("2026-02-27T00:00:09.554Z"));
        let entry = &entries[0];
        assert_eq!(
            (entry.id.as_str(), entry.kind, entry.primary()),
            ("XXi.001", EntryKind::Person, "IVAN EXAMPLE & SON")
        );
        let names: Vec<_> = entry.names[1..].iter().map(|n| (n.name.as_str(), n.quality)).collect();
        assert_eq!(
            names,
            [
                ("Иван Пример", Quality::Strong),
                ("Vanya; Vanyusha", Quality::Weak),
                ("Vanya", Quality::Weak),
                ("Vanyusha", Quality::Weak)
            ]
        );
        assert_eq!(entry.countries, ["IR"]);
        assert_eq!(entry.born[0].to_string(), "1960 to 1962");
        assert_eq!(entry.identifiers.len(), 1);
        assert_eq!(entry.identifiers[0].value, "D00000898");
        assert_eq!(entry.identifiers[0].country.as_deref(), Some("RW"));
    }

    #[test]
    fn what_could_expand_is_refused() {
        let laughs = "<!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;\">]>";
        let text = String::from_utf8(document(IVAN)).unwrap();
        let with = |from: &str, to: &str| text.replace(from, to).into_bytes();
        for (content, said) in [
            (with("<CONSOLIDATED_LIST", &format!("{laughs}<CONSOLIDATED_LIST")), "document type"),
            (with("EXAMPLE &amp; SON", "&lol2;"), "reference to an entity"),
            (with("EXAMPLE &amp; SON", "&#xFFFFFFFF;"), "reference to an entity"),
        ] {
            let error = parse(&content).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_bad_document_is_refused_with_its_place() {
        let text = String::from_utf8(document(IVAN)).unwrap();
        let with = |from: &str, to: &str| text.replace(from, to).into_bytes();
        let twice = String::from_utf8(document(&format!("{IVAN}{IVAN}"))).unwrap().into_bytes();
        for (content, said) in [
            (text.as_bytes()[..text.len() - 20].to_vec(), "consolidated.xml"),
            (with("</REFERENCE_NUMBER>", "</REFERENCE>"), "line 3"),
            (with("IVAN", "").replace_all("EXAMPLE &amp; SON", ""), "entry XXi.001: the entry has no name"),
            (twice, "XXi.001: the reference number stands twice"),
            (b"<html/>".to_vec(), "root element"),
            (b"\xff".to_vec(), "not UTF-8"),
            (b"".to_vec(), "ends before"),
            (with("<DATAID>", &"<a>".repeat(30)), "nested too deeply"),
            (with("<INDIVIDUALS>", "<VESSELS><VESSEL/></VESSELS><INDIVIDUALS>"), "element VESSELS is not known"),
            (with("<INDIVIDUAL>", "<PERSON/><INDIVIDUAL>"), "element PERSON is not known"),
        ] {
            let error = parse(&content).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    trait ReplaceAll {
        fn replace_all(self, from: &str, to: &str) -> Vec<u8>;
    }

    impl ReplaceAll for Vec<u8> {
        fn replace_all(self, from: &str, to: &str) -> Vec<u8> {
            String::from_utf8(self).unwrap().replace(from, to).into_bytes()
        }
    }
}
